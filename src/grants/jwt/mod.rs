//! Assertions: short-lived JWTs that a client signs, to authenticate or to act for a user (RFC 7521, RFC 7523).
//!
//! 1. An assertion is made for each attempt anew, retries included, with an identifier (`jti`) that never comes again.
//! 2. The key is read each time: a value, a variable, a file or a closure, as [`Secret`](crate::Secret) has
//!    it. So a rotation needs no restart. A key that never leaves its hardware signs by a closure
//!    ([`by_signer`](Assertion::by_signer)).
//! 3. `exp` is 60 s ahead, `iat` is there, `nbf` only if asked for; all of them whole seconds (RFC 7519 §2).
//! 4. The audience is one string: the issuer of the authorization server, as it is written: the
//!    [`Issuer`](crate::grants::Issuer) that stands in place of the token URL, or the `issuer` of the builder. See
//!    [`audience`](Assertion::audience) and [`token_url_as_audience`](Assertion::token_url_as_audience).
//! 5. No key and no assertion is ever shown. An error about a key says in one line why it cannot be used, without a part of it.
//! 6. Cryptography is that of the crate `aws-lc-rs`, called directly. No process-wide provider is read or set.
//!
//! # Examples
//!
//! Client authentication by a key, as OpenID Connect Core §9 has it:
//!
//! ```
//! use tower_oauth2::grants::jwt::{Assertion, JwtAlgorithm};
//! use tower_oauth2::{ClientAuth, ClientCredentials, Secret};
//!
//! let assertion = Assertion::by_key(JwtAlgorithm::Es256, Secret::from_file("/run/secrets/key.pem")).key_id("16");
//! let auth = ClientAuth::private_key_jwt(assertion);
//! let builder = ClientCredentials::builder("https://login.example.com/token", "billing", auth)
//!     .issuer("https://login.example.com");
//! ```
//!
//! Microsoft Entra wants PS256, the thumbprint of the certificate, and the token endpoint as audience:
//!
//! ```
//! use tower_oauth2::grants::jwt::{Assertion, JwtAlgorithm};
//! use tower_oauth2::{ClientAuth, ClientCredentials, Secret};
//!
//! let assertion = Assertion::by_key(JwtAlgorithm::Ps256, Secret::from_file("/run/secrets/key.pem"))
//!     .certificate(Secret::from_file("/run/secrets/certificate.pem"))
//!     .token_url_as_audience(true);
//! let token_url = "https://login.microsoftonline.com/TENANT/oauth2/v2.0/token";
//! let builder = ClientCredentials::builder(token_url, "CLIENT-ID", ClientAuth::private_key_jwt(assertion))
//!     .scope("https://graph.microsoft.com/.default");
//! ```

pub(crate) mod algorithm;
pub(crate) mod assertion;
mod der;
mod material;
mod self_signed;

pub use self::algorithm::JwtAlgorithm;
pub use self::assertion::Assertion;
pub use self::self_signed::SelfSigned;
