//! The holdings of a request from a gate: a pass once it went through, a ticket while it waits.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::time::{Instant, Sleep};

use super::lane::{Passage, Rank};
use super::lanes::{GateShared, GatedPlace};
use super::scope::Likeness;
use crate::clock;

/// The proof that a request went through a gate, by which its outcome is reported.
pub(in crate::retry) struct Pass {
    pub(super) gate: Arc<GateShared>,
    pub(super) place: GatedPlace,
    pub(super) passage: Passage,
}

/// A place in the queue. Dropping it leaves the queue.
pub(in crate::retry) struct Ticket {
    pub(super) gate: Arc<GateShared>,
    pub(super) place: GatedPlace,
    pub(super) rank: Rank,
    pub(super) since: Instant,
    pub(super) like: Likeness,
    /// It does not wait for its turn any more.
    pub(super) hurried: bool,
    pub(super) alarm: Option<Pin<Box<Sleep>>>,
}

// --- Pass ---

impl Pass {
    /// There was a response, and the request was not refused for coming too early.
    pub(in crate::retry) fn accepted(&self) {
        let mut lanes = self.gate.lock();
        let lane = lanes.by_place.get_mut(&self.place);
        let wakers = lane.map(|lane| lane.accepted(&self.passage, clock::now()));
        drop(lanes);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

// --- Ticket ---

impl Ticket {
    /// Waits until the request may go.
    pub(in crate::retry) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Pass> {
        loop {
            let at = match self.look(clock::now(), cx) {
                Ok(passage) => {
                    let (gate, place) = (Arc::clone(&self.gate), self.place.clone());
                    return Poll::Ready(Pass { gate, place, passage });
                }
                Err(at) => at,
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
    fn look(&mut self, now: Instant, cx: &Context<'_>) -> Result<Passage, Instant> {
        // What goes with a waker must find the lock open: these are declared first, and so dropped last.
        let (left, _stale);
        let mut lanes = self.gate.lock();
        let lane = lanes.by_place.get_mut(&self.place).expect("a lane is kept while there is a ticket of it");
        let mut wakers = lane.turn(now);
        if lane.is_enough(self.rank, now) {
            let next;
            (left, next) = lane.leave(self.rank);
            self.hurried |= left.is_some();
            wakers.extend(next);
        }
        let look = match lane.let_through(self.rank, self.like, &mut self.hurried, now) {
            Some(passage) => Ok(passage),
            None => {
                let until;
                (until, _stale) = lane.wait(self.rank, now, cx.waker().clone());
                Err(until)
            }
        };
        drop(lanes);
        wakers.into_iter().for_each(Waker::wake);
        look
    }

    /// When it was taken.
    pub(in crate::retry) fn since(&self) -> Instant {
        self.since
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut lanes = self.gate.lock();
        let left = lanes.by_place.get_mut(&self.place).map(|lane| lane.give_back(self.rank));
        // Before what goes with the waker, which may come back here.
        drop(lanes);
        if let Some((_left, Some(waker))) = left {
            waker.wake();
        }
    }
}
