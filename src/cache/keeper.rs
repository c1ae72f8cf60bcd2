//! Watches the clock, so that requests need not: one task per cache, from the first token to the last handle.
//!
//! The task is a convenience, never a condition: where it is late or gone, requests find out by the wall clock and do
//! its work. The next request that comes in a runtime starts another.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tracing::instrument::WithSubscriber as _;

use crate::clock::Moment;

/// What a keeper watches over.
pub(crate) trait Watched: Send + Sync + 'static {
    /// Does what the clock asks for, and says when the keeper has to wake again. `warm`: even if nobody needs it.
    fn tick(self: &Arc<Self>, warm: bool) -> Option<Moment>;

    /// Sends every request the long way round: the keeper is gone.
    fn disarm(&self);
}

/// The keeper's end in the cache.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    /// Which task is alive; zero is none.
    alive: Arc<AtomicU64>,
    spawned: AtomicU64,
    warm: Arc<AtomicBool>,
    task: Mutex<Option<Task>>,
}

#[derive(Debug)]
struct Task {
    handle: AbortHandle,
    /// Its own: one that was left behind in a parked runtime still waits, and would take the wake-up of the next.
    nudge: Arc<Notify>,
}

impl Keeper {
    /// Starts the task if none is alive, or in the place of one that is late.
    pub(crate) fn ensure<W: Watched>(&self, watched: &Arc<W>, runtime: &Handle, late: bool) {
        let alive = self.alive.load(Ordering::Acquire);
        if alive != 0 && !late {
            return;
        }
        let mut task = self.lock();
        let number = self.spawned.fetch_add(1, Ordering::Relaxed) + 1;
        // Whoever wins starts one; the others need none.
        if self.alive.compare_exchange(alive, number, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return;
        }
        let nudge = Arc::new(Notify::new());
        let watch = Watch { watched: Arc::downgrade(watched), alive: Arc::clone(&self.alive), number };
        let keep = keep(watch, Arc::clone(&nudge), Arc::clone(&self.warm));
        // The task has no span: it belongs to no request. Under the lock, so that no nudge falls between it and its end
        // here.
        let handle = runtime.spawn(keep.with_current_subscriber()).abort_handle();
        let old = task.replace(Task { handle, nudge });
        drop(task);
        if let Some(old) = old {
            old.handle.abort();
        }
    }

    /// Renews tokens from now on even if nobody asks, by a task in this runtime.
    pub(crate) fn warm<W: Watched>(&self, watched: &Arc<W>, runtime: &Handle) {
        self.warm.store(true, Ordering::Release);
        // Whatever is alive may sit in a runtime that nobody drives.
        self.ensure(watched, runtime, true);
    }

    /// Wakes the task: the instant it waits for has changed.
    pub(crate) fn nudge(&self) {
        if let Some(task) = &*self.lock() {
            task.nudge.notify_one();
        }
    }

    /// Ends the task.
    pub(crate) fn stop(&self) {
        self.warm.store(false, Ordering::Release);
        let task = self.lock().take();
        if let Some(task) = task {
            task.handle.abort();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Task>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the cache when its keeper goes away, as it does when the runtime shuts down.
struct Watch<W: Watched> {
    watched: Weak<W>,
    alive: Arc<AtomicU64>,
    number: u64,
}

impl<W: Watched> Drop for Watch<W> {
    fn drop(&mut self) {
        let mine = self.alive.compare_exchange(self.number, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if let Some(watched) = self.watched.upgrade().filter(|_| mine) {
            watched.disarm();
        }
    }
}

async fn keep<W: Watched>(watch: Watch<W>, nudge: Arc<Notify>, warm: Arc<AtomicBool>) {
    loop {
        // Nothing strong is held across the wait: the last handle ends the cache, and with it this task.
        let next = {
            let Some(watched) = watch.watched.upgrade() else { return };
            watched.tick(warm.load(Ordering::Acquire))
        };
        match next {
            Some(next) => drop(tokio::time::timeout_at(next.mono, nudge.notified()).await),
            None => nudge.notified().await,
        }
    }
}
