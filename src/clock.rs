//! The only door to time.
//!
//! Lifetimes are measured on two clocks at once, since either alone lies: the monotonic clock stands still while a
//! machine sleeps, and the wall clock steps. A [`Moment`] is a reading of both.

#[cfg(test)]
use std::sync::Arc;
#[cfg(test)]
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// A hundred years: every platform's clock can add them to any of its readings, and they outlive every token.
pub(crate) const FARTHEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Returns the instant `by` after `instant`, or the farthest one that can be said.
pub(crate) fn after(instant: Instant, by: Duration) -> Instant {
    instant.checked_add(by.min(FARTHEST)).unwrap_or(instant)
}

/// Reads the monotonic clock. Under a paused tokio clock this is tokio's time.
#[allow(clippy::disallowed_methods, reason = "this is the door")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A reading of both clocks at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Monotonic; in tests tokio's paused time.
    pub(crate) mono: Instant,
    /// Nanoseconds since the Unix epoch.
    pub(crate) wall: u64,
}

impl Moment {
    /// Returns this moment moved by `by`, or the farthest one that can be said.
    pub(crate) fn saturating_add(self, by: Duration) -> Self {
        Self { mono: after(self.mono, by), wall: self.wall.saturating_add(nanos(by.min(FARTHEST))) }
    }

    /// Returns this moment moved back by `by`, if the clocks can say it.
    #[cfg(feature = "store")]
    pub(crate) fn checked_sub(self, by: Duration) -> Option<Self> {
        Some(Self { mono: self.mono.checked_sub(by)?, wall: self.wall.checked_sub(nanos(by))? })
    }

    /// Returns how long it is from `earlier` to this moment by the clock that says the longer time.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        let mono = self.mono.saturating_duration_since(earlier.mono);
        let wall = Duration::from_nanos(self.wall.saturating_sub(earlier.wall));
        mono.max(wall)
    }

    /// Returns whether either clock has reached `deadline`.
    pub(crate) fn reached(self, deadline: Self) -> bool {
        self.mono >= deadline.mono || self.wall >= deadline.wall
    }

    /// Returns the time left until `deadline` by the clock that says the shorter time.
    pub(crate) fn until(self, deadline: Self) -> Duration {
        let mono = deadline.mono.saturating_duration_since(self.mono);
        let wall = Duration::from_nanos(deadline.wall.saturating_sub(self.wall));
        mono.min(wall)
    }
}

/// The wall clock of a cache: the machine's. In unit tests it can be one that the test moves by hand.
#[derive(Clone, Debug, Default)]
pub(crate) struct WallClock {
    #[cfg(test)]
    by_hand: Option<Arc<AtomicU64>>,
}

impl WallClock {
    /// Creates a wall clock that stands where `nanos` says.
    #[cfg(test)]
    pub(crate) fn by_hand(nanos: Arc<AtomicU64>) -> Self {
        Self { by_hand: Some(nanos) }
    }

    /// Reads both clocks.
    pub(crate) fn moment(&self) -> Moment {
        Moment { mono: now(), wall: self.nanos() }
    }

    /// Reads the wall clock as cheaply as the platform allows: nanoseconds since the Unix epoch, late by at most a
    /// few milliseconds.
    #[inline]
    pub(crate) fn nanos(&self) -> u64 {
        #[cfg(test)]
        if let Some(nanos) = &self.by_hand {
            return nanos.load(Ordering::Relaxed);
        }
        coarse_wall()
    }
}

#[cfg(target_os = "linux")]
#[inline]
fn coarse_wall() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(not(target_os = "linux"))]
#[inline]
fn coarse_wall() -> u64 {
    nanos(unix_time())
}

/// Reads the wall clock precisely: the time since the Unix epoch, zero before it.
#[allow(clippy::disallowed_methods, reason = "this is the door")]
pub(crate) fn unix_time() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

/// A duration as nanoseconds, saturating after 584 years.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_reached_when_either_clock_says_so() {
        let start = WallClock::default().moment();
        let deadline = start.saturating_add(Duration::from_secs(10));
        assert!(!start.reached(deadline));
        let asleep = Moment { mono: start.mono, wall: deadline.wall };
        let stepped_back = Moment { mono: deadline.mono, wall: start.wall / 2 };
        assert!(asleep.reached(deadline) && stepped_back.reached(deadline));
        assert_eq!(asleep.until(deadline), Duration::ZERO);
        assert_eq!(stepped_back.until(deadline), Duration::ZERO);
        assert_eq!(stepped_back.since(start), Duration::from_secs(10));
        assert_eq!(asleep.since(start), Duration::from_secs(10));
    }

    #[test]
    fn the_farthest_moment_does_not_overflow() {
        let start = WallClock::default().moment();
        let far = start.saturating_add(Duration::MAX);
        assert!(!start.reached(far));
        assert!(!far.reached(far.saturating_add(Duration::MAX)) || far.wall == u64::MAX);
    }

    #[test]
    fn the_coarse_wall_clock_agrees_with_the_precise_one() {
        let (precise, coarse) = (nanos(unix_time()), WallClock::default().nanos());
        assert!(precise.abs_diff(coarse) < 1_000_000_000, "{precise} {coarse}");
    }
}
