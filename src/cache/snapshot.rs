//! The token in use, with the flags that a request looks at instead of a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::schedule::Plan;
use super::single_flight::FlightValue;
use crate::clock::{Moment, WallClock};
use crate::token::AccessToken;

/// Use it without asking.
const FRESH: u8 = 0;
/// Ask the cache, which looks at both clocks and decides.
const ASK: u8 = 1;
/// Replaced, rejected or dropped: never again.
const RETIRED: u8 = 2;

/// An API took the token.
const ACCEPTED: u8 = 1;
/// An API refused the token, and none has taken it since.
const REFUSED: u8 = 2;

/// A token that lived for this long without a rejection was good.
const PROVING_TIME: Duration = Duration::from_secs(30);

/// A token that was published.
///
/// Invariants:
/// 1. `FRESH` and a wall clock before `ask_at` mean: use it. Everything else means: ask the cache, which reads both
///    clocks precisely. So a late timer, a runtime that is not driven or a machine that slept can only send a request
///    the long way round.
/// 2. The alarm turns `FRESH` into `ASK`, a decision turns `ASK` into `FRESH` with a later `ask_at`, and nothing leaves
///    `RETIRED`.
///
/// Aligned so that the counters of the `Arc` around it, which every holder writes, share no cache line with the flags
/// that every request reads.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Snapshot {
    phase: AtomicU8,
    trust: AtomicU8,
    ask_at: AtomicU64,
    wall: WallClock,
    token: AccessToken,
    plan: Plan,
}

impl Snapshot {
    /// Creates the snapshot of a sealed token. It has to be [armed](Self::arm) to become fresh.
    pub(crate) fn new(token: AccessToken, plan: Plan, wall: WallClock) -> Self {
        let (phase, trust, ask_at) = (AtomicU8::new(ASK), AtomicU8::new(0), AtomicU64::new(0));
        Self { phase, trust, ask_at, wall, token, plan }
    }

    /// Creates a snapshot of the same token with another plan. It keeps whether APIs accepted or refused the token.
    pub(crate) fn again(&self, plan: Plan) -> Self {
        let snapshot = Self::new(self.token.clone(), plan, self.wall.clone());
        snapshot.trust.store(self.trust.load(Ordering::Relaxed), Ordering::Relaxed);
        snapshot
    }

    /// Returns whether the token can be used without asking the cache. The hot path: two loads and a coarse clock read.
    #[inline]
    pub(crate) fn is_fresh(&self) -> bool {
        self.phase.load(Ordering::Acquire) == FRESH && self.wall.nanos() < self.ask_at.load(Ordering::Relaxed)
    }

    /// Returns whether it was replaced, rejected or dropped.
    pub(crate) fn is_retired(&self) -> bool {
        self.phase.load(Ordering::Acquire) == RETIRED
    }

    /// Returns whether an API took the token, and none refused it since. The hot path of every response.
    #[inline]
    pub(crate) fn is_accepted(&self) -> bool {
        self.trust.load(Ordering::Relaxed) == ACCEPTED
    }

    /// Notes that an API took the token.
    pub(crate) fn accept(&self) {
        self.trust.store(ACCEPTED, Ordering::Relaxed);
    }

    /// Notes that an API refused the token.
    pub(crate) fn refuse(&self) {
        self.trust.fetch_or(REFUSED, Ordering::Relaxed);
    }

    /// Returns whether an API refused the token last.
    pub(crate) fn is_refused(&self) -> bool {
        self.trust.load(Ordering::Relaxed) & REFUSED != 0
    }

    /// Returns whether the token is known to have been good: an API took it, or it lived for 30 seconds without a
    /// rejection. The one rule for what a later rejection is worth, to the brakes and to the verdict on a bare 401.
    pub(crate) fn is_proven(&self, now: Moment) -> bool {
        match self.trust.load(Ordering::Relaxed) {
            0 => now.since(self.asked_for()) >= PROVING_TIME,
            trust => trust & ACCEPTED != 0,
        }
    }

    /// Returns when the token was asked for.
    pub(crate) fn obtained(&self) -> Instant {
        self.asked_for().mono.into_std()
    }

    fn asked_for(&self) -> Moment {
        self.token.obtained().unwrap_or(self.plan.born)
    }

    /// Returns the token.
    pub(crate) fn token(&self) -> &AccessToken {
        &self.token
    }

    /// Returns the plan of the token's life.
    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Makes the token fresh until `next`; without one for ever. Returns whether that changed anything.
    pub(crate) fn arm(&self, next: Option<Moment>) -> bool {
        let next = next.map_or(u64::MAX, |next| next.wall);
        let same = self.ask_at.swap(next, Ordering::Relaxed) == next;
        // A retired snapshot stays retired.
        let asked = self.phase.compare_exchange(ASK, FRESH, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        asked || !same
    }

    /// Sends the next request to the cache.
    pub(crate) fn disarm(&self) {
        let _ = self.phase.compare_exchange(FRESH, ASK, Ordering::AcqRel, Ordering::Relaxed);
    }
}

impl FlightValue for Arc<Snapshot> {
    fn id(&self) -> u64 {
        self.token.id()
    }

    fn doubt(&self) {
        self.disarm();
    }

    fn retire(&self) {
        self.phase.store(RETIRED, Ordering::Release);
    }
}
