//! One request from its first attempt to its end.
//!
//! [`service`] begins an exchange and sends the first attempt. [`attempt`] takes it from there, state by state, and [`outcome`]
//! says what follows from what became of an attempt. What is known and kept of the request all the while is in [`record`].

mod attempt;
mod body_source;
mod draining;
pub(super) mod future;
mod head;
mod late;
pub(super) mod outcome;
pub(super) mod progress;
pub(super) mod record;
mod sender;
pub(super) mod service;
pub(super) mod timeouts;
