//! How often a rejected token may be replaced: pure functions of values.
//!
//! A rejection costs a token request, so an API that refuses every token would make each request one. Two brakes stop that,
//! and nothing less than such a storm closes them:
//!
//! 1. Tokens that were never [proven](super::snapshot::Snapshot::is_proven): the third in a row is kept for 30 seconds
//!    before it is replaced, the next for 60, up to 5 minutes. A token that is proven ends the row, and so do 10 minutes
//!    without a rejection.
//! 2. Any tokens: 30 replacements in a row, then one every 2 seconds.

use std::time::Duration;

use tokio::time::Instant;

/// So many unproven tokens are replaced in a row before the first brake closes.
const FREE: u32 = 2;
/// How long the first brake stays closed the first time; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
/// How long the first brake stays closed at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);
/// Rejections that are older say nothing about the present. Longer than [`LONGEST_PAUSE`], or a storm would end itself.
const MEMORY: Duration = Duration::from_secs(10 * 60);
/// Replacements in a row that the second brake allows.
const BURST: u32 = 30;
/// The time after which it allows one more.
const REFILL: Duration = Duration::from_secs(2);

/// The rejections that both brakes remember.
#[derive(Debug)]
pub(crate) struct Brakes {
    /// Unproven tokens that were replaced in a row.
    futile: u32,
    /// When the last of them was.
    last: Option<Instant>,
    /// Replacements that the second brake allows at once.
    left: u32,
    /// Up to when they were refilled; none while all are there.
    refilled: Option<Instant>,
    /// Until when rejections are held back, once one was.
    held_until: Option<Instant>,
    warned: bool,
}

impl Default for Brakes {
    fn default() -> Self {
        // The first token counts as one of the burst: a minute of rejections costs sixty token requests in all.
        Self { futile: 0, last: None, left: BURST - 1, refilled: None, held_until: None, warned: false }
    }
}

impl Brakes {
    /// Notes that a token was good: a row of unproven ones is over.
    pub(crate) fn proven(&mut self) {
        self.futile = 0;
        self.last = None;
        self.held_until = None;
    }

    /// Passes a rejection through both brakes: whether the token may be replaced. `proven` is that of the token.
    pub(crate) fn allow(&mut self, proven: bool, now: Instant) -> bool {
        if proven {
            self.proven();
        } else if self.last.is_some_and(|last| now.saturating_duration_since(last) > MEMORY) {
            self.futile = 0;
        }
        if let Some(until) = self.pause_ends().filter(|until| now < *until) {
            // Closed anew, for longer: that is news again.
            self.warned &= self.is_closed(now);
            self.held_until = Some(until);
            return false;
        }
        let (left, refilled) = self.left_at(now);
        (self.left, self.refilled) = (left, refilled);
        if left == 0 {
            self.held_until = Some(refilled.unwrap_or(now) + REFILL);
            return false;
        }
        self.warned = self.warned && left < BURST / 2;
        self.left -= 1;
        // The refill counts from the first draw of a full burst.
        self.refilled.get_or_insert(now);
        self.held_until = None;
        if !proven {
            self.futile = self.futile.saturating_add(1);
            self.last = Some(now);
        }
        true
    }

    /// Returns whether a rejection was held back, and would be again.
    pub(crate) fn is_closed(&self, now: Instant) -> bool {
        self.held_until.is_some_and(|until| now < until)
    }

    /// Returns whether an operator has to be told, once for each storm.
    pub(crate) fn has_news(&mut self) -> bool {
        !std::mem::replace(&mut self.warned, true)
    }

    /// Returns when the first brake opens.
    fn pause_ends(&self) -> Option<Instant> {
        let doublings = self.futile.checked_sub(FREE)?;
        Some(self.last? + FIRST_PAUSE.saturating_mul(1 << doublings.min(8)).min(LONGEST_PAUSE))
    }

    /// Returns what the second brake allows at `now`, and up to when it was refilled.
    fn left_at(&self, now: Instant) -> (u32, Option<Instant>) {
        let Some(since) = self.refilled else {
            return (self.left, None);
        };
        let drops = now.saturating_duration_since(since).as_secs() / REFILL.as_secs();
        let drops = u32::try_from(drops).unwrap_or(u32::MAX);
        let left = self.left.saturating_add(drops).min(BURST);
        if left == BURST { (left, None) } else { (left, Some(since + REFILL * drops)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn three_unproven_tokens_in_a_row_close_the_first_brake_for_longer_each_time() {
        let (mut brakes, now) = (Brakes::default(), crate::clock::now());
        assert!(brakes.allow(false, now) && brakes.allow(false, now));
        assert!(!brakes.is_closed(now), "nothing was held back yet");
        assert!(!brakes.allow(false, now) && brakes.is_closed(now));
        assert!(!brakes.allow(false, now + seconds(29)));
        // One probe, then closed for twice as long.
        let probe = now + seconds(30);
        assert!(brakes.allow(false, probe) && !brakes.allow(false, probe));
        assert!(!brakes.allow(false, probe + seconds(59)));
        assert!(brakes.allow(false, probe + seconds(60)));
        // A proven token forgets it all.
        brakes.proven();
        assert!(brakes.allow(false, probe + seconds(61)) && brakes.allow(false, probe + seconds(61)));
    }

    #[test]
    fn the_first_brake_stays_closed_for_five_minutes_at_most_and_a_storm_never_opens_it_by_itself() {
        let (mut brakes, start) = (Brakes::default(), crate::clock::now());
        let allowed = (0..3600).filter(|second| brakes.allow(false, start + seconds(*second))).count();
        // 0, 1, 31, 91, 211, 451, and then every 300 s.
        assert_eq!(allowed, 6 + (3600 - 451 - 1) / 300);
    }

    #[test]
    fn rejections_that_are_ten_minutes_apart_are_no_row() {
        let (mut brakes, start) = (Brakes::default(), crate::clock::now());
        for round in 0..1_000 {
            assert!(brakes.allow(false, start + seconds(601) * round), "{round}");
        }
    }

    #[test]
    fn one_bad_node_of_four_costs_at_most_sixty_token_requests_a_minute() {
        let (mut brakes, start) = (Brakes::default(), crate::clock::now());
        let allowed = (0..60_000).step_by(20).filter(|millis| {
            let now = start + Duration::from_millis(*millis);
            brakes.allow(true, now)
        });
        assert_eq!(1 + allowed.count(), 59);
    }

    #[test]
    fn each_storm_is_told_of_once() {
        let (mut brakes, start) = (Brakes::default(), crate::clock::now());
        let mut told = |from: Instant| {
            let held = (0..60_000).step_by(20).map(|millis| from + Duration::from_millis(millis));
            held.filter(|now| !brakes.allow(true, *now) && brakes.has_news()).count()
        };
        assert_eq!((told(start), told(start + seconds(60))), (1, 0));
        assert_eq!(told(start + seconds(3600)), 1);
    }

    #[test]
    fn each_longer_pause_is_told_of_once() {
        let (mut brakes, start) = (Brakes::default(), crate::clock::now());
        let held =
            (0..220).filter(|second| !brakes.allow(false, start + seconds(*second)) && brakes.has_news());
        // Closed at 2, 32, 92 and 212 s.
        assert_eq!(held.count(), 4);
    }
}
