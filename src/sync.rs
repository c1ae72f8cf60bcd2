//! The locks of the flight. A model checker puts its own in their place (`tests/loom`).

pub(crate) use std::sync::{Arc, Mutex, MutexGuard};
