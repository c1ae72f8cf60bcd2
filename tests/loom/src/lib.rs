//! The flight of the token cache, as it stands in `src/cache/flight.rs`, under the loom model checker.
//!
//! A package of its own: the checker's locks come in through `crate::sync`, so the production file needs no line for
//! it, and nothing else of the tree is built with them.

#![cfg_attr(not(test), allow(dead_code))]

#[path = "../../../src/cache/flight.rs"]
#[allow(dead_code, reason = "the models use what they model")]
mod flight;

/// What `src/sync.rs` is in the library. `Arc` is std's: a method of the board takes `&Arc<Self>`, which only std's can
/// be, and counting references is not what is modelled here.
mod sync {
    pub(crate) use std::sync::Arc;

    pub(crate) use loom::sync::{Mutex, MutexGuard};
}

#[cfg(test)]
mod models;
