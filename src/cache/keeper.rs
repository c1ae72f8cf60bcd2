//! Watches the clock, so that requests need not: one task per cache, from the first token to the last handle.
//!
//! The task is a convenience, never a condition: where it is late or gone, requests find out by the wall clock and do
//! its work. The next request that comes in a runtime starts another.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::shared::{Shared, WeakShared};

/// The keeper's end in the cache.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    /// Which task is alive; zero is none.
    alive: Arc<AtomicU64>,
    spawned: AtomicU64,
    warm: Arc<AtomicBool>,
    nudge: Arc<Notify>,
    task: Mutex<Option<AbortHandle>>,
}

impl Keeper {
    /// Starts the task if none is alive, or in the place of one that is late.
    pub(crate) fn ensure(&self, shared: &Arc<Shared>, runtime: &Handle, late: bool) {
        let alive = self.alive.load(Ordering::Acquire);
        if alive != 0 && !late {
            return;
        }
        let number = self.spawned.fetch_add(1, Ordering::Relaxed) + 1;
        // Whoever wins starts one; the others need none.
        if self.alive.compare_exchange(alive, number, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return;
        }
        let watch = Watch { shared: Arc::downgrade(shared), alive: Arc::clone(&self.alive), number };
        let task = keep(watch, Arc::clone(&self.nudge), Arc::clone(&self.warm));
        // The task has no span: it belongs to no request.
        let handle = {
            use tracing::instrument::WithSubscriber as _;
            runtime.spawn(task.with_current_subscriber()).abort_handle()
        };
        let old = self.task.lock().unwrap_or_else(PoisonError::into_inner).replace(handle);
        if let Some(old) = old {
            old.abort();
        }
    }

    /// Renews tokens from now on even if nobody asks.
    pub(crate) fn warm(&self) {
        self.warm.store(true, Ordering::Release);
        self.nudge();
    }

    /// Wakes the task: the instant it waits for has changed.
    pub(crate) fn nudge(&self) {
        self.nudge.notify_one();
    }

    /// Ends the task.
    pub(crate) fn stop(&self) {
        self.warm.store(false, Ordering::Release);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            task.abort();
        }
    }
}

/// Tells the cache when its keeper goes away, as it does when the runtime shuts down.
struct Watch {
    shared: WeakShared,
    alive: Arc<AtomicU64>,
    number: u64,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mine = self.alive.compare_exchange(self.number, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if let Some(shared) = Weak::upgrade(&self.shared).filter(|_| mine) {
            shared.disarm();
        }
    }
}

async fn keep(watch: Watch, nudge: Arc<Notify>, warm: Arc<AtomicBool>) {
    loop {
        // Nothing strong is held across the wait: the last handle ends the cache, and with it this task.
        let next = {
            let Some(shared) = Weak::upgrade(&watch.shared) else { return };
            shared.tick(warm.load(Ordering::Acquire))
        };
        match next {
            Some(next) => drop(tokio::time::timeout_at(next.mono, nudge.notified()).await),
            None => nudge.notified().await,
        }
    }
}
