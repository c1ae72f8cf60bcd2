//! Whether a request that is accepted only once may have arrived, although its response did not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::Error;

/// Whether the server may have used up something that it accepts only once.
///
/// It is raised just before a request leaves, so a future that is dropped while it waits leaves it raised.
#[derive(Debug, Default)]
pub(crate) struct Doubt {
    raised: AtomicBool,
    said: Mutex<Option<Error>>,
}

impl Doubt {
    pub(crate) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    pub(crate) fn set(&self, raised: bool) {
        self.raised.store(raised, Ordering::Release);
    }

    /// Notes what was said, for callers whose time is over while an attempt goes on.
    pub(crate) fn note(&self, said: Option<Error>) {
        *self.said.lock().unwrap_or_else(PoisonError::into_inner) = said;
    }

    /// Returns what was said last in the exchange that goes on.
    pub(crate) fn said(&self) -> Option<Error> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
