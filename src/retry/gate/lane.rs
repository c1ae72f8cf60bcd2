//! One gate: who waits at it, and in which order they go on.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::time::{Instant, Sleep};

use super::pace::Pace;
use crate::clock;

/// What a request carries that went through a gate.
pub(in crate::retry) struct Pass {
    pub(super) lane: Arc<Lane>,
    pub(super) epoch: u64,
    pub(super) at: Instant,
    /// It could not wait for its turn, so what it learns is no news.
    pub(super) hurried: bool,
}

/// A place in the queue. Dropping it leaves the queue.
pub(in crate::retry) struct Ticket {
    pub(super) lane: Arc<Lane>,
    pub(super) rank: Rank,
    pub(super) since: Instant,
    /// What the server asked for.
    pub(super) not_before: Instant,
    pub(super) give_up: Instant,
    /// It cannot wait for its turn.
    pub(super) hurried: bool,
    pub(super) alarm: Option<Pin<Box<Sleep>>>,
}

/// The gate of one place.
pub(super) struct Lane {
    pub(super) state: Mutex<State>,
}

/// 1. A waiter is in `queue` until its turn comes, then in `called` until it notices.
/// 2. Whoever finds that turns have come lets all of them out, also those of others. So nobody who is not polled keeps
///    others waiting.
pub(super) struct State {
    /// The number of the last closing. No two closings of a handle have the same.
    pub(super) epoch: u64,
    pub(super) pace: Pace,
    pub(super) queue: BTreeMap<Rank, Waiter>,
    pub(super) called: HashMap<u64, Call>,
    pub(super) tickets: u64,
    /// When somebody last had to wait, or was refused.
    pub(super) needed: Instant,
}

/// Those who were refused most often go first, then who came first.
pub(super) type Rank = (Reverse<u32>, u64);

pub(super) struct Waiter {
    pub(super) waker: Option<Waker>,
    pub(super) give_up: Instant,
}

/// What a waiter finds when it looks.
enum Look {
    Go { epoch: u64 },
    Until(Instant),
}

#[derive(Clone, Copy)]
pub(super) enum Call {
    /// It may go, as one of those that were let out since the closing of that number.
    Turn { epoch: u64 },
    /// Its turn would come too late.
    Hurry,
}

// --- Pass ---

impl Pass {
    /// The request was answered, and not refused for coming too early.
    pub(in crate::retry) fn accepted(&self) {
        let mut state = self.lane.state();
        let current = self.epoch == state.epoch;
        state.pace.accepted(clock::now().saturating_duration_since(self.at), current);
    }
}

// --- Ticket ---

impl Ticket {
    /// Waits until the request may go.
    pub(in crate::retry) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Pass> {
        loop {
            let now = clock::now();
            let at = match self.look(now, cx) {
                Look::Go { epoch } => return Poll::Ready(self.pass(now, epoch)),
                Look::Until(at) => at,
            };
            let alarm = match &mut self.alarm {
                Some(alarm) => {
                    alarm.as_mut().reset(at);
                    alarm
                }
                None => self.alarm.insert(Box::pin(tokio::time::sleep_until(at))),
            };
            if alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Looks whether it may go now, and else when to look again.
    fn look(&mut self, now: Instant, cx: &Context<'_>) -> Look {
        // What goes with a waker must find the lock open: these are declared first, and so dropped last.
        let (left, _stale);
        let mut state = self.lane.state();
        let mut wakers = state.turn(now);
        let call = state.called.remove(&self.rank.1);
        if call.is_none() && now >= self.give_up {
            let next;
            (left, next) = state.leave(self.rank);
            self.hurried |= left.is_some();
            wakers.extend(next);
        }
        self.hurried |= matches!(call, Some(Call::Hurry));
        let look = if let Some(Call::Turn { epoch }) = call {
            Look::Go { epoch }
        } else if self.hurried && now >= self.not_before {
            Look::Go { epoch: state.epoch }
        } else if self.hurried {
            Look::Until(self.not_before)
        } else {
            if let Some(waiter) = state.queue.get_mut(&self.rank) {
                _stale = waiter.waker.replace(cx.waker().clone());
            }
            // It is woken when it is the next, for then the instant is sure. That it also looks by itself is for the case
            // that those ahead are not polled.
            let turn = clock::after(now, state.pace.time_for(now, state.ahead(self.rank)));
            Look::Until(turn.min(self.give_up))
        };
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        look
    }

    fn pass(&self, now: Instant, epoch: u64) -> Pass {
        Pass { lane: Arc::clone(&self.lane), epoch, at: now, hurried: self.hurried }
    }

    /// When it was taken.
    pub(in crate::retry) fn since(&self) -> Instant {
        self.since
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.lane.state();
        let (left, waker) = state.leave(self.rank);
        state.called.remove(&self.rank.1);
        // Before what goes with the waker, which may come back here.
        drop(state);
        drop(left);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

// --- Lane ---

impl Lane {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// --- State ---

impl State {
    /// Lets out all whose turn has come. Returns whom to wake.
    fn turn(&mut self, now: Instant) -> Vec<Waker> {
        let mut wakers = Vec::new();
        let mut turned = false;
        while !self.queue.is_empty() && self.pace.take(now, true) {
            self.needed = now;
            if let Some((rank, waiter)) = self.queue.pop_first() {
                self.called.insert(rank.1, Call::Turn { epoch: self.epoch });
                wakers.extend(waiter.waker);
                turned = true;
            }
        }
        if turned {
            wakers.extend(self.first_waker());
        }
        wakers
    }

    /// After a closing: lets those through whose turn would come too late, and wakes the first to see when it is due.
    pub(super) fn hurry(&mut self, now: Instant) -> Vec<Waker> {
        let late = |(ahead, (_, waiter)): &(usize, (&Rank, &Waiter))| {
            clock::after(now, self.pace.time_for(now, *ahead)) >= waiter.give_up
        };
        let late: Vec<Rank> =
            self.queue.iter().enumerate().filter(late).map(|(_, (rank, _))| *rank).collect();
        let mut wakers = Vec::new();
        for rank in late {
            if let Some(waiter) = self.queue.remove(&rank) {
                self.called.insert(rank.1, Call::Hurry);
                wakers.extend(waiter.waker);
            }
        }
        wakers.extend(self.first_waker());
        wakers
    }

    pub(super) fn ahead(&self, rank: Rank) -> usize {
        match self.queue.last_key_value() {
            Some((last, _)) if *last < rank => self.queue.len(),
            // Whoever came last looks as soon as it has come: a storm of them must not count the whole queue each time.
            Some((last, _)) if *last == rank => self.queue.len() - 1,
            Some(_) | None => self.queue.range(..rank).count(),
        }
    }

    /// Takes a waiter out of the queue. Where it was the first, whoever is now is to be woken.
    fn leave(&mut self, rank: Rank) -> (Option<Waiter>, Option<Waker>) {
        let was_first = self.queue.first_key_value().is_some_and(|(first, _)| *first == rank);
        let left = self.queue.remove(&rank);
        (left, if was_first { self.first_waker() } else { None })
    }

    fn first_waker(&self) -> Option<Waker> {
        self.queue.first_key_value().and_then(|(_, waiter)| waiter.waker.clone())
    }
}
