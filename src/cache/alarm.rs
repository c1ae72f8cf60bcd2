//! Sends requests to the cache when the token in use has to be thought about, so that none of them reads a clock for it.
//!
//! Invariants:
//! 1. An alarm only turns a snapshot from fresh to ask. One that is late or lost sends requests the long way round, or
//!    leaves the wall clock to find out; it is a convenience, never a condition.
//! 2. It is set by what is in use when it is set, after that was armed. So of two that are set at once the last is right,
//!    whichever it is, and the other no longer counts.
//! 3. An alarm that goes down with its runtime rings then, unless another took its place.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use super::snapshot::Snapshot;

/// The alarm of one cache.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    /// The number of the alarm that counts.
    number: Arc<AtomicU64>,
    task: Mutex<Option<AbortHandle>>,
}

impl Alarm {
    /// Sets the alarm in a runtime with a timer, in place of an earlier one. `armed` says for what and when.
    pub(crate) fn set(&self, runtime: &Handle, armed: impl FnOnce() -> Option<(Arc<Snapshot>, Instant)>) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.number.fetch_add(1, Ordering::AcqRel) + 1;
        let old = task.take();
        if let Some((snapshot, at)) = armed() {
            let ring = Ring { snapshot: Arc::downgrade(&snapshot), counts: Arc::clone(&self.number), number };
            // No span and no subscriber: it belongs to no request and tells nothing.
            let waiting = async move {
                sleep_until(at).await;
                drop(ring);
            };
            *task = Some(runtime.spawn(waiting).abort_handle());
        }
        drop(task);
        if let Some(old) = old {
            old.abort();
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

/// Rings when it is dropped, however that comes about.
struct Ring {
    snapshot: Weak<Snapshot>,
    counts: Arc<AtomicU64>,
    number: u64,
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.counts.load(Ordering::Acquire) == self.number
            && let Some(snapshot) = self.snapshot.upgrade()
        {
            snapshot.disarm();
        }
    }
}
