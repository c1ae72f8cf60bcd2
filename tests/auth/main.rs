//! The auth room from outside: over fake services under the paused clock, and over real ones on loopback.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "tests look at the paused clock")]

#[path = "../support/mod.rs"]
mod support;

mod fixture;
mod headers;
mod memory;
mod named_origins;
mod only_for;
mod origins;
mod overrides;
mod readiness;
mod redirects;
mod refusals;
mod stacks;
mod two_layers;
mod wire;
