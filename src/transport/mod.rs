//! HTTP clients that are there already, and the `build()` of what needs one.
//!
//! 1. `HyperClient` (feature `hyper-client`, on by default): HTTP/1.1 and h2, TLS by rustls. It serves for an API and for its
//!    token endpoint. It knows proxies, client certificates and private authorities.
//! 2. `ReqwestClient` (feature `reqwest`): a `reqwest::Client`, for an API and for its token endpoint.
//!    [Its page](crate::guide) says what else to know.
//! 3. A [gRPC channel](crate::guide::tonic), and [clients that take a tower service](crate::guide::kube), have pages of their
//!    own.
//! 4. Any other tower HTTP service goes in by `build_with` ([`HttpTransport`]), with its own limits. It must not follow
//!    redirects.

#[cfg(any(feature = "hyper-client", feature = "reqwest"))]
mod classify;
#[cfg(feature = "hyper-client")]
mod hyper;
#[cfg(any(feature = "hyper-client", feature = "reqwest"))]
mod incoming;
#[cfg(any(feature = "hyper-client", feature = "reqwest"))]
mod lasting;
#[cfg(feature = "reqwest")]
mod reqwest;

pub use crate::http_transport::HttpTransport;

#[cfg(feature = "hyper-client")]
#[cfg_attr(docsrs, doc(cfg(feature = "hyper-client")))]
pub use self::classify::classify_hyper;
#[cfg(feature = "hyper-client")]
#[cfg_attr(docsrs, doc(cfg(feature = "hyper-client")))]
pub use self::hyper::{HyperClient, Proxy};
#[cfg(any(feature = "hyper-client", feature = "reqwest"))]
#[cfg_attr(docsrs, doc(cfg(any(feature = "hyper-client", feature = "reqwest"))))]
pub use self::incoming::IncomingBody;
#[cfg(feature = "reqwest")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
pub use self::reqwest::{ReqwestClient, classify_reqwest};
