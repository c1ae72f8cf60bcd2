//! What the quickstart and some tests put beside the test kit (`tower_oauth2::test_util`): an API of items, and keys that sign
//! JWTs.
//!
//! 1. The API is in memory, or speaks HTTP/1.1 and h2 over real TCP on a free port of 127.0.0.1. It goes away when it is
//!    dropped, open connections included.
//! 2. The [`Api`] checks what it was sent, on top of what a `FakeApi` does.
//! 3. It counts. The tests go by what it counted.
//!
//! They keep everything in memory and are made for one purpose, so they are not servers to put on a network.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::must_use_candidate,
    reason = "every test uses a part; servers have clocks of their own"
)]

mod api;
mod jwt;

#[allow(unused_imports, reason = "every test uses a part")]
pub use self::{
    api::{Api, ApiBuilder, ApiCounts},
    jwt::{PrivateKey, PublicKey},
};
