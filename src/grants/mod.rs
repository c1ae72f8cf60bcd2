// A token request goes through five files. The grant makes parameters (flows/client_credentials.rs). The client of the
// endpoint makes attempts, with waits between them (endpoint/client.rs). One attempt has its time (endpoint/transport.rs). Its
// response is read (response/token.rs). What refuses becomes an error, and says what it proves (response/refused.rs).
// Before it, builder.rs and checks.rs check the settings once. On its way it asks endpoint/location.rs where to go, parameters.rs
// and client/auth.rs what to write into the request, and response/verdict.rs, which is pure, what a response proves.

//! Token sources of OAuth 2.0 (RFC 6749): grants, client authentication, and what a response means.
//!
//! # Which source
//!
//! | what a service has | source |
//! |---|---|
//! | a secret or a key of its own | [`ClientCredentials`], with a [`ClientAuth`] that fits |
//! | a refresh token that a login left behind | [`RefreshTokenGrant`] |
//! | a token of its platform or of a user, to give for another | [`TokenExchange`] |
//! | a key that stands for a service account, or for a user who agreed | `JwtBearer` (feature `jwt`) |
//! | a key whose signature is the token, as a GitHub App has | `jwt::SelfSigned` (feature `jwt`) |
//! | a grant of its provider's own, as a form, as JSON or by GET | [`CustomGrant`] |
//!
//! # What happens at a fetch
//!
//! 1. Where a source has an [`Issuer`] in place of a URL, it finds out where to ask: see [Discovery](#discovery).
//! 2. The client secret, or the key, is read: a value, an environment variable, a file, a closure. A rotation needs no
//!    restart. Secret parameters are read at each attempt, and assertions are made for each attempt.
//! 3. The request is a form POST to the token URL, query included, with `Accept: application/json` and
//!    `Accept-Encoding: identity`. Each attempt authenticates anew, by a sensitive header or by form fields, never in the
//!    URL (RFC 6749 §2.3.1). The form is wiped when the transport has dropped it.
//! 4. An attempt has 10 s from connecting to the last byte of the response. A response may have 1 MiB and 256 members.
//!    It is asked for without a content encoding, and an error names one that comes all the same. Plain JSON is read whatever
//!    `Content-Encoding` says. A transport that decodes (tower-http's `DecompressionLayer`, reqwest with its feature `gzip`) is
//!    held to the 1 MiB after decoding. A head that asks for a wait is enough, even if the body breaks off.
//! 5. Redirects are not followed: they would carry the secret along.
//! 6. Failures that may pass are retried, up to 3 times. `Retry-After` is honoured; else the delay doubles, half of it random.
//! 7. Attempts and delays are planned within the [deadline](crate::TokenRequest::deadline) of the caller. If a delay does not
//!    fit, the fetch ends now. Its error is the newest thing that the server really said.
//! 8. After 2 s without a response a second attempt begins beside the first. It counts as a retry; the first response wins.
//! 9. If the server refuses the client, the secret or the key is read again. If it has changed, the request is sent again.
//! 10. The lifetime of the token counts from just before the attempt was sent.
//! 11. A source fetches and does not cache; see [`cache`](crate::cache).
//! 12. A refresh token is sent with more care: see [`RefreshTokenGrant`].
//! 13. A [`Revocation`] takes tokens back, with the same care for retries and secrets.
//!
//! # What a response means
//!
//! Final only upon proof: a class that does not pass needs the server's own word. Failures that may pass are repeated.
//!
//! | response | [class](crate::ErrorKind) | repeated |
//! |---|---|---|
//! | a 2xx with a bearer token and no `error` | a token | |
//! | 429; 503 with `Retry-After`; any other 4xx but 401 that gives a wait and has no OAuth error that is known | throttled | yes |
//! | every other 5xx, with any body; 408, 409, 421, 423, 425; no response | transient | yes |
//! | a 4xx but 401, or an `error`, whose own words are about the moment: too many requests, a refresh in progress, try again later | throttled or transient | yes |
//! | `temporarily_unavailable`, `server_error` | transient | yes |
//! | `slow_down`, `authorization_pending` | throttled, transient | no |
//! | `invalid_client`, `unauthorized_client`, `invalid_request`, `invalid_scope`, `invalid_target`, `unsupported_grant_type`, DPoP demanded | config | no |
//! | `invalid_grant` and every other code | grant | no |
//! | 401, 403, 404, 405, 406, 407, 410, 415 without a code; a redirect; a required scope missing | config | no |
//! | a certificate that is not trusted, a server without TLS at an `https` URL, a proxy that responds with 403 or 407, as the [default transport](crate::transport) tells it | config | no |
//! | every other 4xx without a code | protocol | no |
//! | a 2xx without a token response: HTML, JSON of a gateway, cut off, too long | protocol | yes |
//! | a 2xx with a token that is of no use, such as another token type | protocol | no |
//!
//! Codes are compared exactly. The words are those of the code, of `error_description`, `description`, `message`,
//! `error_message`, and of the `message` in an `error` that is an object. The name of a status, such as `Not Found`, is not a code: gateways write it there. A
//! [`classifier`](GrantBuilder::classifier) may know better for a provider. Where an `error` stands beside a token, it is
//! an error. `expires_in` may be a number or a string; what makes no sense leaves the lifetime unknown. A missing
//! `token_type` means bearer. Other string members are kept as [`expose_extra`](crate::AccessToken::expose_extra).
//!
//! Errors hold the server's code and description, cleaned and cut. Every secret of the exchange is blanked out, also in
//! pieces from 8 bytes on: what was sent, what came, and what came with the token before. It is found raw, form-encoded,
//! percent-encoded, in base64 and in hexadecimal, and under the escapes of JSON, of Rust and of HTML. Errors never hold a
//! body, and events name the origin of the endpoint only. A secret that is an ordinary word goes wherever the word stands;
//! one of three characters or fewer takes the whole text along.
//!
//! # Discovery
//!
//! Every builder takes an [`Issuer`] where it takes a URL:
//!
//! ```
//! use tower_oauth2::grants::Issuer;
//! use tower_oauth2::{ClientAuth, ClientCredentials, Secret};
//!
//! let secret = Secret::from_env("CLIENT_SECRET");
//! let auth = ClientAuth::basic(secret.clone()).or(ClientAuth::post(secret));
//! let builder = ClientCredentials::builder(Issuer::new("https://login.example.com"), "billing", auth);
//! ```
//!
//! The first fetch reads the issuer's metadata (RFC 8414, OpenID Connect Discovery 1.0), sends its request to the endpoint
//! that they name, and authenticates in the [strongest way](ClientAuth#strength) that is configured and supported. A
//! document of another issuer counts for nothing. They hold for an hour; then, and when the endpoint seems to have moved,
//! they are asked for anew, and the old ones serve on where there are no new ones. The [rules](Issuer) say the rest.
//!
//! | response of the issuer | [class](crate::ErrorKind) |
//! |---|---|
//! | 200 with metadata of this issuer, https endpoints, and a client authentication that is configured | asks on |
//! | 429; 503 with `Retry-After`; any other 4xx but 401 that gives a wait and has no OAuth error | throttled |
//! | every other 5xx; 408, 409, 421, 423, 425; no response | transient |
//! | 404 and every other 4xx; a redirect; another issuer; no client authentication that fits; no revocation endpoint | config |
//! | 200 with something else; an endpoint that cannot be used | protocol |
//!
//! # Examples
//!
//! The smallest:
//!
#![cfg_attr(feature = "hyper-client", doc = "```no_run")]
#![cfg_attr(not(feature = "hyper-client"), doc = "```text")]
//! use tower_oauth2::{ClientCredentials, Secret};
//!
//! let secret = Secret::from_env("CLIENT_SECRET");
//! let source = ClientCredentials::builder("https://login.example.com/oauth/token", "billing", secret)
//!     .scope("analytics:read")
//!     .build()?;
//! # Ok::<(), tower_oauth2::Error>(())
//! ```
//!
//! With everything set:
//!
#![cfg_attr(feature = "hyper-client", doc = "```no_run")]
#![cfg_attr(not(feature = "hyper-client"), doc = "```text")]
//! use std::time::Duration;
//! use tower_oauth2::{ClientAuth, ClientCredentials, Secret};
//!
//! let auth = ClientAuth::post(Secret::from_file("/run/secrets/billing"));
//! let source = ClientCredentials::builder("https://login.example.com/oauth/token?tenant=7", "billing", auth)
//!     .scope("analytics:read users:read")
//!     .required_scope("analytics:read")
//!     .audience("https://api.example.com/")
//!     .resource("https://api.example.com/reports")
//!     .param("organization", "north")
//!     .strict_bearer(true)
//!     .attempt_timeout(Duration::from_secs(5))
//!     .retries(2)
//!     .min_delay(Duration::from_millis(200))
//!     .max_delay(Duration::from_secs(3))
//!     .build()?;
//! # Ok::<(), tower_oauth2::Error>(())
//! ```
//!
//! # Caveat
//!
//! The transport must be one without an [`AuthLayer`](crate::auth) in it that would ask this very source.

mod builder;
mod checks;
mod client;
mod config;
mod discovery;
mod endpoint;
mod flows;
#[cfg(feature = "jwt")]
#[cfg_attr(docsrs, doc(cfg(feature = "jwt")))]
pub mod jwt;
mod parameters;
mod response;
mod revocation;

pub use self::builder::{Grant, GrantBuilder};
pub use self::client::auth::ClientAuth;
pub use self::client::secret::Secret;
pub use self::config::ClientCredentialsConfig;
pub use self::discovery::issuer::Issuer;
pub use self::endpoint::location::Endpoint;
#[cfg(feature = "jwt")]
#[cfg_attr(docsrs, doc(cfg(feature = "jwt")))]
pub use self::flows::JwtBearer;
pub use self::flows::refresh_token::rotation::RotatedToken;
pub use self::flows::{
    ClientCredentials, CustomGrant, RefreshTokenGrant, SecurityToken, TokenExchange, TokenType,
};
pub use self::response::classifier::Refusal;
pub use self::response::token::read_token_response;
pub use self::revocation::Revocation;
