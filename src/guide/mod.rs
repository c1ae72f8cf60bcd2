//! Pages on one task each.
//!
//! - [`failures`]: when it fails, every message with its cause and its cure
//! - [`logging`]: what the log says, and how to turn it on
//! - [`metrics`]: what is counted, and what to alert on
//! - `migration` (feature `providers`): from the SDKs of Genesys Cloud and NICE CXone
//! - `reqwest` (feature `reqwest`): reqwest's client under the layers, and reqwest-middleware
//! - [`tonic`]: a gRPC channel under the layers
//! - [`kube`]: the layers under clients that take a tower service, such as kube's

#[doc = include_str!("failures.md")]
pub mod failures {}
pub mod kube;
#[doc = include_str!("logging.md")]
pub mod logging {}
#[doc = include_str!("metrics.md")]
pub mod metrics {}
#[cfg(feature = "providers")]
#[cfg_attr(docsrs, doc(cfg(feature = "providers")))]
#[doc = include_str!("migration.md")]
pub mod migration {}
#[cfg(feature = "reqwest")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
pub mod reqwest;
pub mod tonic;
