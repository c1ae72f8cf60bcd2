//! The single flight of the token cache and the recording of a request body, as they stand in `src/cache/single_flight.rs` and
//! `src/retry/replay_body/recording.rs`, under the loom model checker.
//!
//! A package of its own: the checker's locks come in through `crate::sync`, so the production files need no line for
//! it, and nothing else of the tree is built with them.

#![cfg_attr(not(test), allow(dead_code))]

#[path = "../../../src/cache/single_flight.rs"]
#[allow(dead_code, reason = "the models use what they model")]
mod single_flight;

#[path = "../../../src/retry/replay_body/recording.rs"]
#[allow(dead_code, reason = "the models use what they model")]
mod recording;

// What the recording stands on.
#[path = "../../../src/retry/replay_body/allowance.rs"]
#[allow(dead_code, reason = "the models use what they model")]
mod allowance;
#[path = "../../../src/retry/replay_body/not_replayable.rs"]
#[allow(dead_code, reason = "the models use what they model")]
mod not_replayable;

#[path = "../../../src/retry/replay_body/partly_read.rs"]
#[allow(dead_code, reason = "the models use what they model")]
mod partly_read;

/// The one function of `src/headers/grpc.rs` that the recording calls: none of these bodies is a gRPC call.
mod headers {
    pub(crate) mod grpc {
        pub(crate) fn first_message<'a>(_: impl IntoIterator<Item = &'a [u8]>) -> Option<u64> {
            None
        }
    }
}

/// What `src/sync.rs` is in the library. `Arc` is std's: a method of the flight takes `&Arc<Self>`, which only std's can
/// be, and counting references is not what is modelled here.
mod sync {
    pub(crate) use std::sync::Arc;

    pub(crate) use loom::sync::atomic::AtomicU64;
    pub(crate) use loom::sync::{Mutex, MutexGuard};
}

#[cfg(test)]
mod models;
#[cfg(test)]
mod takeovers;
