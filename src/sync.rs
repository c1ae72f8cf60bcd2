//! The locks of the cache's flight and of the body's recording. A model checker puts its own in their place
//! (`tests/loom`).

pub(crate) use std::sync::atomic::AtomicU64;
pub(crate) use std::sync::{Arc, Mutex, MutexGuard};
