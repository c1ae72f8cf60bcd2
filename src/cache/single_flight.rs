//! Who fetches: one flight at a time, everybody else joins it, and a rejection compares before it drops.
//!
//! This file knows nothing of tokens, tasks or time, so that a model checker can run it as it is (`tests/loom`).
//!
//! Invariants:
//! 1. At most one flight is on the board. Whoever puts it there holds its [`Leader`], and nobody else.
//! 2. A leader that goes away without landing takes its flight off the board and frees all waiters.
//! 3. A waiter whose flight has an outcome is woken, whenever the two meet.
//! 4. Only the value whose identity was named is dropped by [`SingleFlight::reject`].
//! 5. A value that is replaced or dropped is retired in the same critical section.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::sync::{Arc, Mutex, MutexGuard};

/// A value on the board: the snapshot of a token.
pub(crate) trait Held: Clone {
    /// Returns the identity by which it is compared.
    fn id(&self) -> u64;

    /// Sends whoever uses it to the board once more: what was decided about it no longer holds.
    fn doubt(&self);

    /// Marks it as no longer to be used; whoever still holds it sees that.
    fn retire(&self);
}

/// The current value, the flight in the air, and what else belongs under the same lock.
#[derive(Debug)]
pub(crate) struct SingleFlight<T, E, M> {
    inner: Mutex<Inner<T, E, M>>,
}

#[derive(Debug)]
struct Inner<T, E, M> {
    current: Option<T>,
    flight: Option<Arc<Fetch<T, E>>>,
    memory: M,
}

/// What stands on the board at a summary, for a decision under its lock.
#[derive(Debug)]
pub(crate) struct View<'a, T, M> {
    /// The current value.
    pub(crate) current: Option<&'a T>,
    /// Whether a flight is in the air.
    pub(crate) in_flight: bool,
    /// What else is remembered.
    pub(crate) memory: &'a mut M,
}

/// What a caller decided to do.
#[derive(Debug)]
pub(crate) enum Choice<A> {
    /// Nothing on the board changes.
    Answer(A),
    /// Join the flight in the air, or start one.
    Wait,
    /// Start a flight unless one is in the air, and do not wait for it.
    Launch(A),
}

/// What a caller got.
#[derive(Debug)]
pub(crate) struct Entry<T: Held, E: Clone, M, A> {
    /// The answer, where there is one at once.
    pub(crate) answer: Option<A>,
    /// A seat in the flight, where the caller has to wait.
    pub(crate) waiter: Option<Waiter<T, E>>,
    /// The leader of a flight that was started just now: fly it, or drop it.
    pub(crate) leader: Option<Leader<T, E, M>>,
}

/// What a rejection came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejected {
    /// The value was current and is dropped.
    Dropped,
    /// The value was current and is kept, as the caller's rule wanted it.
    Kept,
    /// Another value is current, or none.
    Superseded,
}

impl<T: Held, E: Clone, M> SingleFlight<T, E, M> {
    /// Creates an empty board.
    pub(crate) fn new(memory: M) -> Self {
        Self { inner: Mutex::new(Inner { current: None, flight: None, memory }) }
    }

    /// Decides under the lock, and boards as decided.
    pub(crate) fn board<A>(
        self: &Arc<Self>,
        decide: impl FnOnce(View<'_, T, M>) -> Choice<A>,
    ) -> Entry<T, E, M, A> {
        let mut inner = self.lock();
        let choice = decide(inner.view());
        let (answer, wait) = match choice {
            Choice::Answer(answer) => return Entry { answer: Some(answer), waiter: None, leader: None },
            Choice::Launch(answer) => (Some(answer), false),
            Choice::Wait => (None, true),
        };
        let mut leader = None;
        let flight = match &inner.flight {
            Some(flight) => Arc::clone(flight),
            None => {
                let flight = Arc::new(Fetch::default());
                inner.flight = Some(Arc::clone(&flight));
                leader = Some(Leader { board: Arc::clone(self), flight: Arc::clone(&flight), landed: false });
                flight
            }
        };
        drop(inner);
        let waiter = wait.then(|| Waiter { flight, seat: None });
        Entry { answer, waiter, leader }
    }

    /// Looks at the board, and may change what is remembered.
    pub(crate) fn look<A>(&self, look: impl FnOnce(View<'_, T, M>) -> A) -> A {
        look(self.lock().view())
    }

    /// Drops the value with this identity if it is the current one and `rule` agrees: a compare-and-set.
    ///
    /// A flight in the air took off before this rejection, so what it brings may be as bad: it is told to go again.
    pub(crate) fn reject(&self, id: u64, rule: impl FnOnce(&T, &mut M) -> bool) -> Rejected {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let Some(current) = &inner.current else {
            return Rejected::Superseded;
        };
        // The compare of the compare-and-set: without it a late rejection takes a newer value away.
        if current.id() != id {
            return Rejected::Superseded;
        }
        if !rule(current, &mut inner.memory) {
            return Rejected::Kept;
        }
        current.retire();
        inner.current = None;
        if let Some(flight) = &inner.flight {
            flight.lock().stale = true;
        }
        Rejected::Dropped
    }

    /// Takes the current value off the board, if `rule` agrees.
    pub(crate) fn clear(&self, rule: impl FnOnce(View<'_, T, M>) -> bool) -> Option<T> {
        let mut inner = self.lock();
        if !rule(inner.view()) {
            return None;
        }
        let current = inner.current.take();
        if let Some(current) = &current {
            current.retire();
        }
        current
    }

    /// Takes a flight off the board whose leader does not come back in time. Its waiters are freed to start another.
    ///
    /// Returns whether it was there still: the first who gives it up takes it off.
    pub(crate) fn give_up(&self, waiter: &Waiter<T, E>) -> bool {
        let removed = self.remove(&waiter.flight);
        waiter.flight.complete(Outcome::Lost);
        removed
    }

    fn remove(&self, flight: &Arc<Fetch<T, E>>) -> bool {
        let mut inner = self.lock();
        let mine = inner.flight.as_ref().is_some_and(|current| Arc::ptr_eq(current, flight));
        if mine {
            inner.flight = None;
            // It may have been left in use in the trust that this flight brings the next.
            if let Some(current) = &inner.current {
                current.doubt();
            }
        }
        mine
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T, E, M>> {
        // A panic under this lock can only come from a rule that was passed in; the data stays whole.
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl<T, E, M> Inner<T, E, M> {
    fn view(&mut self) -> View<'_, T, M> {
        View { current: self.current.as_ref(), in_flight: self.flight.is_some(), memory: &mut self.memory }
    }
}

// --- Leader ---

/// The one who fetches.
#[derive(Debug)]
pub(crate) struct Leader<T: Held, E: Clone, M> {
    board: Arc<SingleFlight<T, E, M>>,
    flight: Arc<Fetch<T, E>>,
    landed: bool,
}

impl<T: Held, E: Clone, M> Leader<T, E, M> {
    /// Returns whether a rejection came since request, and forgets it: the caller goes again.
    pub(crate) fn must_go_again(&self) -> bool {
        std::mem::take(&mut self.flight.lock().stale)
    }

    /// Ends the flight: publishes a value or notes an error, then wakes the waiters.
    ///
    /// `note` runs under the board's lock, before anybody can see the outcome; it says whether a value is published. A
    /// flight that was given up publishes only where nothing newer can be in the way.
    pub(crate) fn land(
        mut self,
        result: Result<T, E>,
        note: impl FnOnce(&Result<T, E>, View<'_, T, M>) -> bool,
    ) {
        let mut guard = self.board.lock();
        let inner = &mut *guard;
        let mine = inner.flight.as_ref().is_some_and(|current| Arc::ptr_eq(current, &self.flight));
        if mine {
            inner.flight = None;
        }
        if (mine || (inner.current.is_none() && inner.flight.is_none()))
            && note(&result, inner.view())
            && let Ok(value) = &result
            && let Some(old) = inner.current.replace(value.clone())
        {
            old.retire();
        }
        drop(guard);
        self.landed = true;
        self.flight.complete(Outcome::Finished(result));
    }
}

impl<T: Held, E: Clone, M> Drop for Leader<T, E, M> {
    fn drop(&mut self) {
        if !self.landed {
            self.board.remove(&self.flight);
            self.flight.complete(Outcome::Lost);
        }
    }
}

// --- Fetch ---

/// How a flight ended.
#[derive(Clone, Debug)]
pub(crate) enum Outcome<T, E> {
    /// With a value or an error.
    Finished(Result<T, E>),
    /// Without either: the leader went away. Whoever still wants a value starts again.
    Lost,
}

#[derive(Debug)]
struct Fetch<T, E> {
    state: Mutex<FetchState<T, E>>,
}

#[derive(Debug)]
struct FetchState<T, E> {
    outcome: Option<Outcome<T, E>>,
    seats: Vec<Option<Waker>>,
    /// Seats that were given up: who comes next takes one of them.
    free: Vec<usize>,
    stale: bool,
}

impl<T, E> Default for Fetch<T, E> {
    fn default() -> Self {
        let state = FetchState { outcome: None, seats: Vec::new(), free: Vec::new(), stale: false };
        Self { state: Mutex::new(state) }
    }
}

impl<T, E> Fetch<T, E> {
    fn lock(&self) -> MutexGuard<'_, FetchState<T, E>> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Sets the outcome, unless there is one, and wakes everybody outside the lock.
    fn complete(&self, outcome: Outcome<T, E>) {
        let seats = {
            let mut state = self.lock();
            if state.outcome.is_some() {
                return;
            }
            state.outcome = Some(outcome);
            std::mem::take(&mut state.seats)
        };
        for waker in seats.into_iter().flatten() {
            waker.wake();
        }
    }
}

// --- Waiter ---

/// Waits for the outcome of a flight.
///
/// # Cancel safety
///
/// Dropping it only gives up the seat.
#[derive(Debug)]
pub(crate) struct Waiter<T, E> {
    flight: Arc<Fetch<T, E>>,
    seat: Option<usize>,
}

impl<T: Clone, E: Clone> Future for Waiter<T, E> {
    type Output = Outcome<T, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let mut state = this.flight.lock();
        if let Some(outcome) = &state.outcome {
            this.seat = None;
            return Poll::Ready(outcome.clone());
        }
        let replaced = match this.seat {
            None => {
                let seat = state.free.pop().unwrap_or(state.seats.len());
                if seat == state.seats.len() {
                    state.seats.push(None);
                }
                this.seat = Some(seat);
                state.seats[seat].replace(context.waker().clone())
            }
            Some(seat) => match &mut state.seats[seat] {
                Some(waker) if waker.will_wake(context.waker()) => None,
                place => place.replace(context.waker().clone()),
            },
        };
        // A waker may be the last that holds a task, and the task another seat: none is dropped under the lock.
        drop(state);
        drop(replaced);
        Poll::Pending
    }
}

impl<T, E> Drop for Waiter<T, E> {
    fn drop(&mut self) {
        let Some(seat) = self.seat else { return };
        let mut state = self.flight.lock();
        let waker = state.seats.get_mut(seat).and_then(Option::take);
        if waker.is_some() {
            state.free.push(seat);
        }
        // Not under the lock: see `poll`.
        drop(state);
        drop(waker);
    }
}
