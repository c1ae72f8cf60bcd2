//! Ready-made transports, and the `build()` of what needs one.
//!
//! 1. `hyper` (feature `hyper-client`, on by default): the default client of the token endpoint, over HTTP/1.1 and
//!    h2 with TLS by rustls. It serves for an API as well. Its builder knows proxies, client certificates and private
//!    authorities.
//! 2. `reqwest` (feature `reqwest`): a `reqwest::Client` below the layers, and a client for the token endpoint that follows
//!    no redirect whatever its options say.
//! 3. [`tonic`]: how a gRPC channel stands below the layers. A page, and no feature.
//! 4. [`kube`]: how the layers stand below clients that take a tower service. A page too.
//! 5. Any other tower HTTP service goes in by `build_with`, with whatever limits it brings. It must not follow redirects.

#[cfg(any(feature = "hyper-client", feature = "reqwest"))]
mod classify;
#[cfg(feature = "hyper-client")]
#[cfg_attr(docsrs, doc(cfg(feature = "hyper-client")))]
pub mod hyper;
pub mod kube;
#[cfg(any(feature = "hyper-client", feature = "reqwest"))]
mod lasting;
#[cfg(feature = "reqwest")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
pub mod reqwest;
pub mod tonic;
