//! Counts who is there, also if they leave in the middle.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts one more until it is dropped, as it is when the client hangs up.
pub(super) struct Presence<'a> {
    count: &'a AtomicU64,
}

impl<'a> Presence<'a> {
    pub(super) fn enter(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Relaxed);
        Self { count }
    }
}

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Relaxed);
    }
}
