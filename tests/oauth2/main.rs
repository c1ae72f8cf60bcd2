//! The client credentials source against token endpoints of every kind: scripted ones under a paused clock, and real
//! ones on loopback.

#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    clippy::disallowed_methods,
    reason = "a test may panic, its helpers too, and it looks at the clock from outside"
)]

mod answers;
#[cfg(feature = "jwt")]
mod assertions;
mod attempts;
mod cached;
mod crashes;
mod discovery;
mod echo;
mod files;
mod grants;
mod hints;
#[path = "../support/log.rs"]
mod log;
mod proof;
mod reading;
mod refresh;
mod requests;
mod revocation;
mod rotating;
mod scripted;
mod secrets;
#[cfg(feature = "hyper-client")]
mod transport;
mod vectors;
