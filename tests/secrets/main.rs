//! No secret in any output, whatever the servers say.
//!
//! 1. Secrets are planted: client secret, tokens, refresh token, further members, secret parameters. Real servers on
//!    loopback give them all back, one form after the other, in every place that ends up in something readable.
//! 2. What is read: the log at trace level with the targets of all crates, errors (`{}`, `{:?}`, `{:#?}`, the whole
//!    chain, through a service too), the messages of panics, markers, reports, statuses, and Debug of every public type.
//! 3. It is searched for each secret in every form, and for every twelve bytes of it.
//! 4. The log belongs to one thread and not to the process: on several threads it holds what the task of a fetch says
//!    only if that inherits the subscriber. The servers have a thread of their own, so their words are not in it.
//! 5. The control plants each form by hand in a log, an error and a panic, and the search must find each.

#![cfg(feature = "hyper-client")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that cannot go on has failed, and it looks at the clock from outside"
)]

mod control;
mod endpoint;
#[path = "../support/log.rs"]
mod log;
mod resource;
mod server;
mod shapes;
mod trail;
mod words;
