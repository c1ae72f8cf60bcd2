//! The token in use, with the flags that a request looks at instead of a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use super::schedule::Plan;
use super::single_flight::Held;
use crate::clock::{Moment, WallClock};
use crate::token::AccessToken;

/// Nothing is to be thought about.
const FRESH: u8 = 0;
/// Somebody has to look at the clocks and decide.
const ASK: u8 = 1;
/// Replaced, rejected or dropped: never again.
const RETIRED: u8 = 2;

/// A token that was published.
///
/// Invariants:
/// 1. `FRESH` and a wall clock before `ask_at` mean: use it. Everything else means: ask the cache, which reads both
///    clocks precisely. So a late timer, a runtime that nobody drives or a machine that slept can only send a request
///    the long way round.
/// 2. The timer turns `FRESH` into `ASK`, thinking turns `ASK` into `FRESH` with a later `ask_at`, and nothing leaves
///    `RETIRED`.
///
/// Aligned so that the counters of the `Arc` around it, which every holder writes, share no cache line with the flags
/// that every request reads.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Snapshot {
    phase: AtomicU8,
    accepted: AtomicBool,
    ask_at: AtomicU64,
    wall: WallClock,
    token: AccessToken,
    plan: Plan,
}

impl Snapshot {
    /// Creates the snapshot of a sealed token. It has to be [armed](Self::arm) to become fresh.
    pub(crate) fn new(token: AccessToken, plan: Plan, wall: WallClock) -> Self {
        Self {
            phase: AtomicU8::new(ASK),
            accepted: AtomicBool::new(false),
            ask_at: AtomicU64::new(0),
            wall,
            token,
            plan,
        }
    }

    /// Returns whether the token can be used without asking anybody. The hot path: two loads and a coarse clock read.
    #[inline]
    pub(crate) fn is_fresh(&self) -> bool {
        self.phase.load(Ordering::Acquire) == FRESH && self.wall.nanos() < self.ask_at.load(Ordering::Relaxed)
    }

    /// Returns whether it was replaced, rejected or dropped.
    pub(crate) fn is_retired(&self) -> bool {
        self.phase.load(Ordering::Acquire) == RETIRED
    }

    /// Notes that an API took the token. Load first: a store from every request would fight over the line.
    #[inline]
    pub(crate) fn accept(&self) {
        if !self.accepted.load(Ordering::Relaxed) {
            self.accepted.store(true, Ordering::Relaxed);
        }
    }

    /// Returns whether an API ever took the token.
    pub(crate) fn was_accepted(&self) -> bool {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Returns the token.
    pub(crate) fn token(&self) -> &AccessToken {
        &self.token
    }

    /// Returns the plan of the token's life.
    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Makes the token fresh until `next`; without one for ever.
    pub(crate) fn arm(&self, next: Option<Moment>) {
        self.ask_at.store(next.map_or(u64::MAX, |next| next.wall), Ordering::Relaxed);
        // A retired snapshot stays retired, whoever comes late.
        let _ = self.phase.compare_exchange(ASK, FRESH, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Sends the next request to the cache.
    pub(crate) fn disarm(&self) {
        let _ = self.phase.compare_exchange(FRESH, ASK, Ordering::AcqRel, Ordering::Relaxed);
    }
}

impl Held for Arc<Snapshot> {
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
