//! Whole programs over the crate, each judged by what its servers counted. For programs to copy see `examples/`.
//!
//! Most have their servers in memory and run on a paused clock. Where real connections are the point, the servers are on
//! loopback, and a program acts when a server has counted enough, not when time has passed.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed, and servers have clocks of their own"
)]

mod axum_gateway;
mod base_url_client;
mod blocking_threads;
mod client_credentials;
#[cfg(unix)]
mod command_source;
mod custom_source;
#[path = "../support/grpc/introspection.rs"]
mod introspection;
#[path = "../support/grpc/items.rs"]
mod items;
mod multi_tenant;
mod private_key_jwt;
mod rate_limited;
mod refresh_token;
mod reqwest_client;
mod rotating_api_key;
#[path = "../support/servers/mod.rs"]
mod servers;
mod tonic_client;
mod upload;
mod workload_identity;
