//! One request from its first attempt to its end.
//!
//! [`service`] begins an exchange and sends the first attempt. [`future`] takes it from there, through the states of [`attempt`],
//! and [`outcome`] says what follows from what became of an attempt. What is known and kept of the request all the while is in
//! [`request`], of its attempts in [`past`].

mod attempt;
mod body_source;
mod draining;
pub(super) mod future;
mod head;
mod journal;
mod late;
pub(super) mod outcome;
mod past;
mod request;
mod sender;
pub(super) mod service;
pub(super) mod timeouts;
