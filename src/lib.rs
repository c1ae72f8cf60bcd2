//! OAuth 2.0 access tokens for outgoing HTTP requests, as tower middleware.
//!
//! # The map
//!
//! Floors; imports go down only (`tests/floors.rs` holds the code to it).
//!
//! | floor | rooms |
//! |---|---|
//! | 1 words | `clock` `backoff` `claims` `error` [`extensions`] `headers` [`origin`] `sync` `telemetry` `text` |
//! | 2 token | `token` |
//! | 3 contracts | `source` |
//! | 4 mechanisms | [`cache`] [`retry`] [`oauth2`] |
//! | 5 on the cache | [`auth`] |
//! | 6 joined | [`transport`] |

#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

// 1 words
mod backoff;
mod claims;
mod clock;
mod error;
pub mod extensions;
mod headers;
pub mod origin;
mod sync;
mod telemetry;
mod text;
#[cfg(test)]
mod vectors;

// 2 token
mod token;

// 3 contracts
mod source;

// 4 mechanisms
pub mod cache;
pub mod oauth2;
pub mod retry;

// 5 on the cache
pub mod auth;

// 6 joined
pub mod transport;

pub use self::auth::AuthLayer;
pub use self::cache::TokenCache;
pub use self::error::{ErrorClass, TokenError};
pub use self::oauth2::{ClientAuth, ClientCredentials, ClientCredentialsConfig, ClientSecret};
pub use self::origin::Origin;
pub use self::retry::RetryPolicy;
pub use self::source::{FetchReason, Or, SourceFn, StaticToken, TokenRequest, TokenSource, source_fn};
pub use self::token::AccessToken;
