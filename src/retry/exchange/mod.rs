//! One request from its first attempt to its end.
//!
//! [`service`] begins an exchange and sends the first attempt. [`future`] takes it from there, through the states of [`attempt`],
//! and [`outcome`] decides the next step after an attempt. The state of the request all the while is in [`request`], that of
//! its attempts in [`past`].

mod attempt;
mod draining;
pub(super) mod future;
mod head;
mod journal;
mod late;
pub(super) mod outcome;
mod past;
mod request;
mod resend;
mod sender;
pub(super) mod service;
pub(super) mod timeouts;
