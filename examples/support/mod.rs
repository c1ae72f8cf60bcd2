//! Small servers on loopback, for the examples and the tests: an OAuth 2.0 authorization server, an API that wants its
//! tokens, and a vault that is no OAuth server at all.
//!
//! 1. All speak HTTP/1.1 and h2 over real TCP on a free port of 127.0.0.1, and go away when they are dropped, open
//!    connections included.
//! 2. The [`AuthorizationServer`] checks clients for real, issues random tokens, rotates refresh tokens and notices
//!    when one is used twice. It can be told to revoke, to be slow, to hang, and to answer 429 or 503.
//! 3. The [`Api`] asks the authorization server about each token, limits the rate, and checks what it was sent.
//! 4. All count. What they counted is what the examples and the tests go by.
//!
//! They keep everything in memory and are made for one purpose, so they are no servers to put on a network.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::must_use_candidate,
    reason = "every example and test uses a part; servers have clocks of their own"
)]

mod api;
mod assertions;
mod authorization_server;
mod client;
mod devices;
mod jwt;
mod listener;
mod presence;
mod tokens;
mod vault;

#[allow(unused_imports, reason = "every example and test uses a part")]
pub use self::{
    api::{Api, ApiBuilder, ApiCounts},
    authorization_server::{Answer, AuthorizationServer, AuthorizationServerBuilder, Counts},
    client::Client,
    jwt::{PrivateKey, PublicKey},
    listener::Listener,
    vault::VaultServer,
};
