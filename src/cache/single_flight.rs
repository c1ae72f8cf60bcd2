//! One fetch at a time: the first caller leads, all others wait for its outcome, and a value is dropped by its identity.
//!
//! This file knows nothing of tokens, tasks or time, so that a model checker can run it as it is (`tests/loom`). That is
//! also why waiters do not stand on `tokio::sync`: its types cannot be put under the model.
//!
//! Invariants:
//! 1. At most one fetch is in flight. [`FlightState::lead`] makes its only [`Leader`].
//! 2. A leader that is dropped takes its fetch out of flight and wakes all waiters with [`Outcome::Lost`].
//! 3. A waiter whose fetch has an outcome is woken, at the first of the two.
//! 4. [`FlightState::take`] drops only the value whose identity was named.
//! 5. A value that is replaced or dropped is retired in the same critical section.
//! 6. Wakers are foreign code: none is cloned, called or dropped under a lock.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::sync::{Arc, Mutex, MutexGuard};

/// A value that is shared: the snapshot of a token.
pub(crate) trait FlightValue: Clone {
    /// Returns the identity by which it is compared.
    fn id(&self) -> u64;

    /// Sends its next user to the lock: what was decided about it no longer holds.
    fn doubt(&self);

    /// Marks it as no longer to be used. Holders of a clone see that.
    fn retire(&self);
}

/// The current value, the fetch in flight, and what else belongs under the same lock.
#[derive(Debug)]
pub(crate) struct SingleFlight<T, E, M> {
    state: Mutex<FlightState<T, E, M>>,
}

/// The state behind the lock.
#[derive(Debug)]
pub(crate) struct FlightState<T, E, M> {
    current: Option<T>,
    fetch: Option<Arc<Mutex<Fetch<T, E>>>>,
    /// Further state under the same lock.
    pub(crate) memory: M,
}

impl<T, E, M> SingleFlight<T, E, M> {
    /// Creates one without a value.
    pub(crate) fn new(memory: M) -> Self {
        Self { state: Mutex::new(FlightState { current: None, fetch: None, memory }) }
    }

    /// Locks it. Nothing foreign may be called under this lock.
    pub(crate) fn lock(&self) -> MutexGuard<'_, FlightState<T, E, M>> {
        lock(&self.state)
    }
}

// --- FlightState ---

impl<T: FlightValue, E: Clone, M> FlightState<T, E, M> {
    /// Returns the current value.
    pub(crate) fn current(&self) -> Option<&T> {
        self.current.as_ref()
    }

    /// Returns whether a fetch is in flight.
    pub(crate) fn is_in_flight(&self) -> bool {
        self.fetch.is_some()
    }

    /// Starts a fetch and returns its leader; nothing if one is in flight already.
    pub(crate) fn lead(&mut self, flight: &Arc<SingleFlight<T, E, M>>) -> Option<Leader<T, E, M>> {
        if self.fetch.is_some() {
            return None;
        }
        let fetch = Fetch::new();
        self.fetch = Some(Arc::clone(&fetch));
        Some(Leader { flight: Arc::clone(flight), fetch })
    }

    /// Joins the fetch in flight.
    pub(crate) fn wait(&self) -> Option<Waiter<T, E>> {
        self.fetch.as_ref().map(|fetch| Waiter { fetch: Arc::clone(fetch), slot: None })
    }

    /// Makes `value` the current one.
    pub(crate) fn replace(&mut self, value: T) {
        if let Some(old) = self.current.replace(value) {
            old.retire();
        }
    }

    /// Drops the current value if it has this identity: a compare-and-set.
    pub(crate) fn take(&mut self, id: u64) -> Option<T> {
        let current = self.current.as_ref()?;
        // The compare of the compare-and-set: without it a late rejection takes a newer value away.
        if current.id() != id {
            return None;
        }
        current.retire();
        self.current.take()
    }

    /// Tells the leader that its fetch began too early: what it brings may be as bad as what was just dropped.
    pub(crate) fn overtake(&self) {
        if let Some(fetch) = &self.fetch {
            lock(fetch).overtaken = true;
        }
    }

    /// Takes a fetch out of flight whose leader does not come back in time. Dropping what is returned, outside the lock,
    /// frees its waiters to start another.
    pub(crate) fn abandon(&mut self) -> Option<Abandoned<T, E>> {
        let fetch = self.fetch.take()?;
        // The current value may have been left in use in the trust that this fetch brings the next.
        if let Some(current) = &self.current {
            current.doubt();
        }
        Some(Abandoned { fetch })
    }

    fn is_mine(&self, fetch: &Arc<Mutex<Fetch<T, E>>>) -> bool {
        self.fetch.as_ref().is_some_and(|current| Arc::ptr_eq(current, fetch))
    }
}

// --- Leader ---

/// The task that fetches.
#[derive(Debug)]
pub(crate) struct Leader<T: FlightValue, E: Clone, M> {
    flight: Arc<SingleFlight<T, E, M>>,
    fetch: Arc<Mutex<Fetch<T, E>>>,
}

impl<T: FlightValue, E: Clone, M> Leader<T, E, M> {
    /// Returns whether this fetch was [overtaken](FlightState::overtake) since it began, and forgets it: the caller goes again.
    pub(crate) fn was_overtaken(&self) -> bool {
        std::mem::take(&mut lock(&self.fetch).overtaken)
    }

    /// Returns whether this fetch was abandoned, so that another may be in flight.
    pub(crate) fn is_abandoned(&self) -> bool {
        !self.flight.lock().is_mine(&self.fetch)
    }

    /// Ends the fetch, and wakes the waiters with its result.
    ///
    /// `publish` runs under the lock, before the outcome can be seen. It is left out for a fetch that was abandoned, unless
    /// there is nothing newer that it could get in the way of.
    pub(crate) fn finish(
        self,
        mut result: Result<T, E>,
        publish: impl FnOnce(&mut Result<T, E>, &mut FlightState<T, E, M>),
    ) {
        let mut state = self.flight.lock();
        if state.is_mine(&self.fetch) {
            state.fetch = None;
            publish(&mut result, &mut state);
        } else if state.current.is_none() && state.fetch.is_none() {
            publish(&mut result, &mut state);
        }
        drop(state);
        Fetch::complete(&self.fetch, Outcome::Finished(result));
    }
}

impl<T: FlightValue, E: Clone, M> Drop for Leader<T, E, M> {
    fn drop(&mut self) {
        let mut state = self.flight.lock();
        let lost = if state.is_mine(&self.fetch) { state.abandon() } else { None };
        drop(state);
        drop(lost);
    }
}

/// A fetch that was taken out of flight. Wakes its waiters when it is dropped.
#[derive(Debug)]
#[must_use = "dropped under the lock it would wake the waiters there"]
pub(crate) struct Abandoned<T: Clone, E: Clone> {
    fetch: Arc<Mutex<Fetch<T, E>>>,
}

impl<T: Clone, E: Clone> Drop for Abandoned<T, E> {
    fn drop(&mut self) {
        Fetch::complete(&self.fetch, Outcome::Lost);
    }
}

// --- Fetch ---

/// How a fetch ended.
#[derive(Clone, Debug)]
pub(crate) enum Outcome<T, E> {
    /// With a value or an error.
    Finished(Result<T, E>),
    /// Without either: its leader went away. A caller that still wants a value asks again.
    Lost,
}

/// A fetch, as its leader and its waiters share it.
#[derive(Debug)]
struct Fetch<T, E> {
    outcome: Option<Outcome<T, E>>,
    wakers: Vec<Option<Waker>>,
    /// Slots that were given up, for the next waiters: a long fetch under traffic keeps no slot for each that went.
    free: Vec<usize>,
    overtaken: bool,
}

impl<T, E> Fetch<T, E> {
    fn new() -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { outcome: None, wakers: Vec::new(), free: Vec::new(), overtaken: false }))
    }

    /// Sets the outcome, unless there is one, and wakes all waiters outside the lock.
    fn complete(fetch: &Mutex<Self>, outcome: Outcome<T, E>) {
        let wakers = {
            let mut fetch = lock(fetch);
            if fetch.outcome.is_some() {
                return;
            }
            fetch.outcome = Some(outcome);
            std::mem::take(&mut fetch.wakers)
        };
        for waker in wakers.into_iter().flatten() {
            waker.wake();
        }
    }
}

/// Nothing under these locks leaves its data half changed, so the data stays usable after a panic elsewhere.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

// --- Waiter ---

/// Waits for the outcome of a fetch.
///
/// # Cancel safety
///
/// Dropping it only gives up the wait.
#[derive(Debug)]
pub(crate) struct Waiter<T, E> {
    fetch: Arc<Mutex<Fetch<T, E>>>,
    slot: Option<usize>,
}

impl<T: Clone, E: Clone> Future for Waiter<T, E> {
    type Output = Outcome<T, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let waker = context.waker().clone();
        let mut state = lock(&this.fetch);
        if let Some(outcome) = &state.outcome {
            this.slot = None;
            return Poll::Ready(outcome.clone());
        }
        let slot = this.slot.or_else(|| state.free.pop()).unwrap_or(state.wakers.len());
        if slot == state.wakers.len() {
            state.wakers.push(None);
        }
        this.slot = Some(slot);
        let replaced = state.wakers[slot].replace(waker);
        // A waker may be the last that holds a task, and the task another waiter: none is dropped under the lock.
        drop(state);
        drop(replaced);
        Poll::Pending
    }
}

impl<T, E> Drop for Waiter<T, E> {
    fn drop(&mut self) {
        let Some(slot) = self.slot else { return };
        let mut state = lock(&self.fetch);
        let waker = state.wakers.get_mut(slot).and_then(Option::take);
        if waker.is_some() {
            state.free.push(slot);
        }
        // Not under the lock: see `poll`.
        drop(state);
        drop(waker);
    }
}
