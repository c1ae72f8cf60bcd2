//! Token sources of OAuth 2.0 (RFC 6749): who asks, how it proves itself, and what an answer means.
//!
//! # Which source
//!
//! | what a service has | source |
//! |---|---|
//! | a secret or a key of its own | [`ClientCredentials`], with a [`ClientAuth`] that fits |
//! | a refresh token that a login left behind | [`RefreshToken`] |
//! | a token of its platform or of a user, to give for another | [`TokenExchange`] |
//! | a key that stands for a service account, or for a user who agreed | `JwtBearer` (feature `jwt`) |
//! | whatever its provider has thought up, as a form or as JSON | [`CustomGrant`] |
//!
//! # What happens at a fetch
//!
//! 1. Where a source has an [`Issuer`] in place of a URL, it finds out where to ask: see [Discovery](#discovery).
//! 2. The client secret, or the key that stands for it, is read: a value, an environment variable, a file, a closure. A
//!    rotation needs no restart. Secret parameters are read at each attempt, and assertions made for each attempt anew.
//! 3. The request is a form POST to the token URL, query included, with `Accept: application/json` and
//!    `Accept-Encoding: identity`. Client authentication is put on for each attempt anew, as a sensitive header or as
//!    fields of the form, never in the URL (RFC 6749 §2.3.1). The form is wiped when the transport has dropped it.
//! 4. An attempt has 10 s from connecting to the last byte of the answer, which may be 1 MiB long and have 256 members.
//!    A redirect is not followed: it would carry the secret along.
//! 5. 429, 5xx and attempts that brought no answer are repeated, up to 3 times. `Retry-After` is honoured; if it is
//!    longer than the longest delay, the fetch ends with an error that says until when. Else the delay doubles, half of
//!    it chance.
//! 6. Where the server refuses the client, the secret or the key is read once more, and the request is sent again only if the
//!    secret has changed.
//! 7. The lifetime of the token counts from just before the attempt was sent.
//! 8. A source fetches and does not cache; see [`cache`](crate::cache).
//! 9. What a server takes only once is sent with more care: see [`RefreshToken`].
//! 10. A [`Revocation`] takes tokens back, with the same care for retries and secrets.
//!
//! # What an answer means
//!
//! | answer | [class](crate::ErrorClass) |
//! |---|---|
//! | a 2xx with a bearer token and no `error` | a token |
//! | 429; 503 with `Retry-After`; `slow_down` | throttled |
//! | every other 5xx, whatever the body says; 408, 425; `temporarily_unavailable`, `server_error`, `authorization_pending`; no answer | transient |
//! | `invalid_client`, `unauthorized_client`, `invalid_request`, `invalid_scope`, `invalid_target`, `unsupported_grant_type`, DPoP demanded; 401; 403, 404, 405, 406, 410, 415 without a code; a redirect; a required scope missing; a certificate that is not trusted, or a server without TLS at an `https` URL, as the [default transport](crate::transport) tells it | config |
//! | `invalid_grant` and every other code; every other 4xx | grant |
//! | a 2xx that holds no bearer token: HTML, cut off, compressed, too long, another token type | protocol |
//!
//! Codes are compared exactly. A [`classifier`](GrantBuilder::classifier) may know better for a provider. Where an
//! `error` stands beside a token, it is an error. `expires_in` may be a number or a string; what makes no sense leaves
//! the lifetime unknown. A missing `token_type` means bearer. Other string members are kept as
//! [`extra`](crate::AccessToken::extra).
//!
//! Errors hold the server's code and description, cleaned and cut, with every secret of the exchange blanked out, in
//! whatever encoding and in pieces from 8 bytes on: what was sent, what came, and what came with the token before. They
//! never hold a body, and events name the origin of the endpoint only. A secret that is an ordinary word goes wherever
//! the word stands; one of three characters or fewer takes the whole text along.
//!
//! # Discovery
//!
//! Every builder takes an [`Issuer`] where it takes a URL:
//!
//! ```
//! use tower_oauth2::oauth2::Issuer;
//! use tower_oauth2::{ClientAuth, ClientCredentials, ClientSecret};
//!
//! let secret = ClientSecret::from_env("CLIENT_SECRET");
//! let builder = ClientCredentials::builder(Issuer::new("https://login.example.com"), "billing", secret)
//!     .auth(ClientAuth::basic().or(ClientAuth::post()));
//! ```
//!
//! The first fetch reads the issuer's metadata (RFC 8414, OpenID Connect Discovery 1.0), sends its request to the endpoint
//! that they name, and authenticates in the [strongest way](ClientAuth#strength) that is configured and supported. A
//! document of another issuer counts for nothing. They hold for an hour; then, and when the endpoint seems to have moved,
//! they are asked for anew, and the old ones serve on where there are no new ones. The [rules](Issuer) say the rest.
//!
//! | the issuer's answer | [class](crate::ErrorClass) |
//! |---|---|
//! | 200 with metadata of this issuer, https endpoints, and a client authentication that is configured | asks on |
//! | 429; 503 with `Retry-After` | throttled |
//! | every other 5xx; no answer | transient |
//! | 404 and every other 4xx; a redirect; another issuer; no client authentication that fits; no revocation endpoint | config |
//! | 200 with something else; an endpoint that cannot be used | protocol |
//!
//! # Examples
//!
//! The smallest:
//!
#![cfg_attr(feature = "hyper-client", doc = "```no_run")]
#![cfg_attr(not(feature = "hyper-client"), doc = "```text")]
//! use tower_oauth2::{ClientCredentials, ClientSecret};
//!
//! let secret = ClientSecret::from_env("CLIENT_SECRET");
//! let source = ClientCredentials::builder("https://login.example.com/oauth/token", "billing", secret)
//!     .scope("analytics:read")
//!     .build()?;
//! # Ok::<(), tower_oauth2::TokenError>(())
//! ```
//!
//! With everything set:
//!
#![cfg_attr(feature = "hyper-client", doc = "```no_run")]
#![cfg_attr(not(feature = "hyper-client"), doc = "```text")]
//! use std::time::Duration;
//! use http::StatusCode;
//! use tower_oauth2::{ClientAuth, ClientCredentials, ClientSecret};
//!
//! let secret = ClientSecret::from_file("/run/secrets/billing");
//! let source = ClientCredentials::builder("https://login.example.com/oauth/token?tenant=7", "billing", secret)
//!     .auth(ClientAuth::post())
//!     .scopes(["analytics:read", "users:read"])
//!     .required_scope("analytics:read")
//!     .audience("https://api.example.com/")
//!     .resource("https://api.example.com/reports")
//!     .param("organization", "north")
//!     .with_strict_bearer()
//!     .attempt_timeout(Duration::from_secs(5))
//!     .retries(2)
//!     .first_delay(Duration::from_millis(200))
//!     .longest_delay(Duration::from_secs(3))
//!     .retry_statuses([StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE])
//!     .build()?;
//! # Ok::<(), tower_oauth2::TokenError>(())
//! ```
//!
//! # Caveat
//!
//! The transport must be one without an [`AuthLayer`](crate::auth) in it that would ask this very source.

mod advice;
mod answer;
mod builder;
mod checks;
mod classifier;
mod client_auth;
mod config;
mod discovery;
mod endpoint;
mod exchange;
mod grants;
mod issuer;
#[cfg(feature = "jwt")]
#[cfg_attr(docsrs, doc(cfg(feature = "jwt")))]
pub mod jwt;
mod known;
mod lineage;
mod location;
mod metadata;
mod parameters;
mod parties;
mod refused;
mod response;
mod revocation;
mod rotation;
mod secret;
mod target;
mod url;
mod wire;

pub use self::builder::GrantBuilder;
pub use self::classifier::Refusal;
pub use self::client_auth::ClientAuth;
pub use self::config::ClientCredentialsConfig;
pub use self::grants::{
    ClientCredentials, ClientCredentialsBuilder, ClientCredentialsGrant, CustomGrant, CustomGrantBuilder,
    CustomTerms, RefreshToken, RefreshTokenBuilder, RefreshTokenGrant, SecurityToken, TokenExchange,
    TokenExchangeBuilder, TokenExchangeGrant, TokenType,
};
#[cfg(feature = "jwt")]
#[cfg_attr(docsrs, doc(cfg(feature = "jwt")))]
pub use self::grants::{JwtBearer, JwtBearerBuilder, JwtBearerGrant};
pub use self::issuer::Issuer;
pub use self::location::EndpointLocation;
pub use self::response::read_token_response;
pub use self::revocation::{Revocation, RevocationBuilder};
pub use self::rotation::RotatedToken;
pub use self::secret::ClientSecret;
