//! OAuth 2.0 access tokens for outgoing HTTP requests, as tower middleware.
//!
//! An [`ApiClient`] calls one API. It fetches tokens, puts them on requests, renews them before they expire, and sends a
//! request again if a new token or a wait can help.
//!
#![cfg_attr(all(feature = "hyper-client", feature = "stack"), doc = "```no_run")]
#![cfg_attr(not(all(feature = "hyper-client", feature = "stack")), doc = "```text")]
//! use tower_oauth2::{ApiClient, ClientCredentials, Secret};
//!
//! # async fn example() -> Result<(), tower::BoxError> {
//! let secret = Secret::from_env("CLIENT_SECRET");
//! let source = ClientCredentials::builder("https://login.example.com/token", "billing", secret).build()?;
//! let api = ApiClient::connect("https://api.example.com/v2", source)?;
//! println!("{}", api.get("reports").send().await?.error_for_status()?.text().await?);
//! # Ok(())
//! # }
//! ```
//!
//! Below it are layers that stand by themselves, over any tower HTTP client. An [`AuthLayer`] puts tokens on requests and
//! reads the responses; a [`RetryPolicy`], which is a layer itself, sends a request again. Between the layer and a
//! [`TokenSource`] stands a [`TokenCache`], which fetches once for all, renews before the end, and drops a refused token
//! only if it is the one in use.
//!
#![cfg_attr(feature = "hyper-client", doc = "```no_run")]
#![cfg_attr(not(feature = "hyper-client"), doc = "```text")]
//! use http::Request;
//! use tower::{ServiceBuilder, ServiceExt as _};
//! use tower_oauth2::transport::HyperClient;
//! use tower_oauth2::{AuthLayer, Body, ClientCredentials, RetryPolicy};
//!
//! # async fn example() -> Result<(), tower::BoxError> {
//! # let source = ClientCredentials::builder("https://login.example.com/token", "billing", "secret").build()?;
//! let client = ServiceBuilder::new()
//!     .layer(RetryPolicy::default())
//!     .layer(AuthLayer::for_origin(source, "https://api.example.com")?)
//!     .service(HyperClient::new());
//!
//! let request = Request::get("https://api.example.com/reports/7").body(Body::empty())?;
//! let response = client.clone().oneshot(request).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Where to read on
//!
//! - [`cache`]: when a token is fetched, and what happens when that fails
//! - [`auth`]: which requests get a token, and what a response says about it
//! - [`origin`]: what an origin is, and which text becomes one
//! - [`tenants`]: a cache for each user or tenant
//! - `store`: one token for several processes, and tokens that outlive a process
//! - [`pool`]: several tokens of one client, for APIs that limit each token
//! - [`retry`]: what is sent again, when, and what is returned instead
//! - [`grants`]: client credentials, refresh tokens, token exchange, and grants of a provider's own; assertions by a
//!   key; revocation
//! - `stack`: the order of the layers, why it is this one, and all of them as one service
//! - [`transport`]: the clients below: hyper's, reqwest's, and any other
//! - [`client`]: a client of one API, with a base URL, over all of that; lists that come in [pages](client::pages)
//! - [`extensions`]: what the layers tell each other and you
//! - [`guide`]: pages on one task each: [when it fails](guide::failures), [logging](guide::logging), [metrics](guide::metrics), reqwest, [gRPC](guide::tonic), [kube](guide::kube)
//! - `providers`: presets for vendors
//! - `test_util`: servers and sources in memory, for tests of your own
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `hyper-client` | yes | [`transport`]`::HyperClient`, and the `build()` of the sources |
//! | `file-store` | no | `store::FileStore`: tokens in a directory, for the processes of one machine |
//! | `jwt` | no | [`grants::jwt`](grants): client authentication by a key, and the JWT bearer grant |
//! | `metrics` | no | counters and gauges by the facade `metrics`, see [the page](guide::metrics) |
//! | `providers` | no | `providers`: presets for vendors: Genesys Cloud, NICE CXone; with `jwt` also Microsoft Entra, GitHub Apps, Google Cloud |
//! | `redis` | no | `store::RedisStore`: tokens in Redis, for a fleet; also behind Sentinels |
//! | `redis-cluster` | no | the same in a Redis Cluster |
//! | `reqwest` | no | [`transport`]`::ReqwestClient`: reqwest's client below the layers, and at the token endpoint |
//! | `stack` | yes | [`ApiClient`]`::connect` and its builder: all layers in one order |
//! | `store` | no | `store::Shared`: one token and one token request for all processes |
//! | `full` | no | all of these |
//! | `test-util` | no | `test_util`: fake servers, scripted sources and probes, for the tests of a service |
//!
//! Features add names and change nothing that is there.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

// 1 words
mod backoff;
mod body;
mod claims;
mod clock;
mod error;
pub mod extensions;
mod file;
mod headers;
mod http_transport;
pub mod origin;
mod runtime;
mod sync;
mod telemetry;
mod text;
#[cfg(test)]
mod vectors;

// 2 token
mod token;

// 3 contracts
mod revoke;
mod source;

// 4 mechanisms
pub mod cache;
pub mod grants;
pub mod retry;
#[cfg(feature = "store")]
#[cfg_attr(docsrs, doc(cfg(feature = "store")))]
pub mod store;

// 5 on the cache
pub mod auth;

// 6 joined
pub mod pool;
#[cfg(feature = "stack")]
#[cfg_attr(docsrs, doc(cfg(feature = "stack")))]
pub mod stack;
pub mod tenants;
pub mod transport;

// 7 front
pub mod client;
pub mod guide;

// 8 roof
#[cfg(feature = "providers")]
#[cfg_attr(docsrs, doc(cfg(feature = "providers")))]
pub mod providers;
#[cfg(feature = "test-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
pub mod test_util;

/// The code of the README, compiled.
#[cfg(all(doctest, feature = "full"))]
#[doc = include_str!("../README.md")]
struct Readme;

pub use self::auth::AuthLayer;
pub use self::body::Body;
pub use self::cache::TokenCache;
pub use self::client::ApiClient;
pub use self::error::{Error, ErrorKind};
pub use self::grants::{ClientAuth, ClientCredentials, ClientCredentialsConfig, RefreshTokenGrant, Secret};
pub use self::origin::Origin;
pub use self::retry::RetryPolicy;
pub use self::revoke::{TokenRevoker, revoker_fn};
pub use self::source::{FetchReason, FileToken, SourceIdentity, TokenRequest, TokenSource, source_fn};
pub use self::token::AccessToken;
