//! Ends an attempt whose body is not recorded, from outside.

use std::sync::PoisonError;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::task::{Context, Waker};

use crate::sync::{Arc, AtomicBool, Mutex};

/// Ties the body of an attempt to the source of the next one, so that making that one ends it.
///
/// 1. A body that finds its tether cut ends in an error.
/// 2. A body that waits when the tether is cut is woken.
/// 3. Looking takes no lock; only waiting does.
#[derive(Debug)]
pub(crate) struct Tether {
    /// Set under the lock of `waiting`.
    cut: AtomicBool,
    failed: AtomicBool,
    waiting: Mutex<Option<Waker>>,
}

impl Tether {
    pub(crate) fn new() -> Arc<Self> {
        let (cut, failed) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { cut, failed, waiting: Mutex::new(None) })
    }

    /// Ends the body, and wakes the task that polls it.
    pub(crate) fn cut(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        self.cut.store(true, Release);
        let waker = waiting.take();
        drop(waiting);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Acquire)
    }

    /// Notes that the source failed.
    pub(crate) fn fail(&self) {
        self.failed.store(true, Release);
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Acquire)
    }

    /// Notes who is to be woken when the tether is cut. False if it is.
    #[must_use]
    pub(crate) fn wait(&self, cx: &mut Context<'_>) -> bool {
        // What goes with a waker that is replaced must find the lock open: it is declared first, and so dropped last.
        let _stale;
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_cut() {
            return false;
        }
        if !waiting.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            _stale = waiting.replace(cx.waker().clone());
        }
        true
    }
}
