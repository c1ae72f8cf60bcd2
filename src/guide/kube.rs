//! kube, octocrab, and other clients that take a tower service: our layers are that service. That takes no code of ours, so
//! this page is all there is.
//!
//! 1. Such a client sends requests that name a path alone, and has a layer that puts the server in front of it. That layer
//!    stands outside ours, so that each request is held against the list of origins.
//!    ([`default_origin`](crate::AuthLayer::default_origin) is for those who leave it to the connection.)
//! 2. Its own layers for credentials and retries stay out, or two would see to the same thing. A client that is built from a
//!    configuration has them; one that is built from a service has not.
//! 3. Its errors hold ours as their source: `downcast_ref` finds an [`Error`](crate::Error).
//! 4. A watch is one long response: no token ends it once it has begun. A
//!    [`total_timeout`](crate::retry::RetryPolicyBuilder::total_timeout) and a [`Deadline`](crate::extensions::Deadline) are
//!    for its head and do not cut it off.
//! 5. A body in memory is kept for a replay, so a manifest that meets a 401 goes out again as it was.
//! 6. Such clients often queue their requests for one instance of the service. That costs the requests a channel, and no
//!    token: the caches are shared below.
//!
//! # Examples
//!
//! A cluster behind a gateway that wants OAuth tokens, with `kube-client` (`kube::Client` is the same one). `Config` brings
//! the cluster's address; its certificates go to [`HyperClient`](super) where the platform's do not do.
//!
//! ```text
//! use kube_client::client::ConfigExt as _;
//! use kube_client::{Client, Config};
//! use tower::{BoxError, ServiceBuilder};
//! use tower_oauth2::transport::HyperClient;
//! use tower_oauth2::{AuthLayer, RetryPolicy, TokenSource};
//!
//! fn cluster(config: &Config, source: impl TokenSource) -> Result<Client, BoxError> {
//!     let http = HyperClient::new();
//!     let service = ServiceBuilder::new()
//!         .layer(config.base_uri_layer())
//!         .layer(RetryPolicy::default())
//!         .layer(AuthLayer::for_origin(source, config.cluster_url.to_string())?)
//!         .service(http);
//!     Ok(Client::new(service, config.default_namespace.as_str()))
//! }
//! ```
//!
//! octocrab takes the same service by `OctocrabBuilder::new_empty().with_service(..)`, a base URI by its own
//! `BaseUriLayer` through `with_layer`, and `AuthState::None` for its credentials.
