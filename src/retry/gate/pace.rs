//! At which pace requests are let out after a closing: values in, instants out.
//!
//! 1. Until something was accepted since it opened, nothing is known but that one may be tried, and then a few per second. If
//!    that one is refused, the pause was too short, and the pace stays as it is.
//! 2. Before the first fall the pace doubles while what is let out is accepted.
//! 3. When two are refused in a row, or three of those let out lately, the pace falls. It comes back fast to near the pace that
//!    was too much, stays there for a while, and rises ever faster beyond: the curve of CUBIC (RFC 9438 §4.2), of the logarithm.
//! 4. When several are refused one after the other, the gate closes for as long as the server asks.
//! 5. It rises by requests that were accepted and had to wait, since one that did not have to wait proves nothing. A request
//!    that is accepted right after a refusal does not raise it.

use std::time::Duration;

use tokio::time::Instant;

/// The pace of one lane.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    closed_at: Instant,
    /// Nothing is let out before.
    opens_at: Instant,
    per_second: f64,
    /// For how many seconds it has risen since the last fall; infinite before the first.
    age: f64,
    /// The requests that may be let out at once, by the time at which they were counted: less than one is none.
    credit: f64,
    counted_at: Instant,
    /// The requests accepted since the closing, and when the last of them was.
    accepted: u32,
    accepted_at: Instant,
    /// Which part of what was let out lately was refused, and how many without one accepted between.
    share_refused: f64,
    refused_in_row: u32,
    /// Whether the first request after a pause was refused.
    in_vain: bool,
}

/// The effect of a refusal on the pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It may be chance.
    Alone,
    Slower,
    Closed,
}

// Beside each constant stands which row of tests/simulation (20 seeds) is beyond its limit on either side of it.

/// Slowest and fastest pace, per second. With half of it, ten processes of five tasks take 1.53 of the ideal time, not 1.32; with
/// twice as much, they lose 6 of 200. The fastest is for numbers only.
const FLOOR: f64 = 1.0;
const CEILING: f64 = 1e6;

/// The pace until something is accepted. With 4, the 60 requests of a server that is busy for 2.5 s take 5.16 s, not 4.90; with
/// 16, a window of 30 loses one of 150.
const FIRST: f64 = 8.0;

/// The least and the most time in which the pace doubles: two round trips. With 100 ms as the least, those 60 requests take
/// 5.07 s; with 50 ms at any round trip, nginx gets 1.65 requests for each that it serves. The most is for responses
/// that take 10 s, which would slow down everything for minutes.
const QUICKEST: Duration = Duration::from_millis(50);
const SLOWEST: Duration = Duration::from_millis(500);

/// The part of a pace that was too much near which it stays. With 1, nginx gets 1.45 requests for each that it serves, with
/// 0.9 1.40; with 0.8, a window of 30 loses one of 150.
const LEVEL: f64 = 0.9;

/// The part of that level to which it falls. With 0.9, nginx gets 1.45; with 0.7, all rows hold, and a limit without burst takes
/// 1.49 of the ideal time, not 1.46.
const FALL: f64 = 0.8;

/// How long it takes to come back to the level, in seconds. With 2, nginx gets 1.44; with 3.5, the server that trickled takes
/// 26.3 s, not 23.6.
const BACK: f64 = 2.75;

/// How much each outcome counts in the share of refusals. With half of it, nginx gets 1.53; with twice as much, 16 tasks under
/// 1 % of noise take 5.5 times as long as without the gate.
const WEIGHT: f64 = 1.0 / 8.0;

/// From which share on the pace falls: at two in a row, or three of eight. With 0.2 (two of four) a limit without burst takes 1.51
/// of the ideal time; with 0.25, nginx gets 1.43, and ten processes lose 3 of 200.
const TOO_MANY: f64 = 0.23;

/// From how many refusals in a row on nothing more is tried until the pause is over. With two, nginx takes 1.24 of the ideal
/// time, not 1.12; with eight, all rows hold, and a window of 30 takes 1.33, not 1.28.
const IN_ROW: u32 = 3;

/// Requests due within this time are let out at once: timers are late, and the time that they lose would never be made up.
const LATENESS: Duration = Duration::from_millis(25);

/// How many turns are counted, so that the time for them is one.
const MOST_TURNS: f64 = 1e9;

/// The shortest time until the next is due, in seconds.
const SHORTEST: f64 = 1e-6;

impl Pace {
    /// Starts with a first closing.
    pub(super) fn new(now: Instant, opens_at: Instant) -> Self {
        let mut pace = Self {
            closed_at: now,
            opens_at,
            per_second: FIRST,
            age: f64::INFINITY,
            credit: 0.0,
            counted_at: now,
            accepted: 0,
            accepted_at: now,
            share_refused: 0.0,
            refused_in_row: 0,
            in_vain: false,
        };
        pace.close(now, opens_at);
        pace
    }

    pub(super) fn opens_at(&self) -> Instant {
        self.opens_at
    }

    pub(super) fn per_second(&self) -> f64 {
        self.per_second
    }

    pub(super) fn is_closed(&self, now: Instant) -> bool {
        now < self.opens_at
    }

    /// Whether it is known that the server takes something at this pace: it did since it opened, or before it closed.
    pub(super) fn is_proven(&self) -> bool {
        self.accepted > 0 || self.age.is_finite() && !self.in_vain
    }

    /// Whether it cannot fall any more.
    pub(super) fn is_slowest(&self) -> bool {
        self.per_second <= FLOOR
    }

    /// Keeps it closed for longer.
    pub(super) fn extend(&mut self, opens_at: Instant) {
        if opens_at > self.opens_at {
            self.open_at(opens_at);
        }
    }

    /// Lets one out that counts as so many, if that is due.
    pub(super) fn take(&mut self, now: Instant, turns: f64) -> bool {
        if self.is_closed(now) {
            return false;
        }
        let most = turns + LATENESS.as_secs_f64() * self.current();
        let elapsed = now.saturating_duration_since(self.counted_at).as_secs_f64();
        self.credit = (self.credit + elapsed * self.current()).min(most);
        self.counted_at = self.counted_at.max(now);
        // A sum of parts may be short of the whole by what a float leaves out.
        let due = self.credit > turns - 1e-6;
        if due {
            self.credit -= turns;
        }
        due
    }

    /// Notes that a request was not refused, which took so long. `waited`: the pace held it back.
    pub(super) fn accepted(&mut self, now: Instant, round_trip: Duration, waited: bool) {
        // What comes at the old pace until now is counted at it.
        let elapsed = now.saturating_duration_since(self.counted_at).as_secs_f64();
        self.credit += elapsed * self.current();
        self.counted_at = self.counted_at.max(now);
        let since = now.saturating_duration_since(self.accepted_at).as_secs_f64();
        self.accepted_at = self.accepted_at.max(now);
        self.accepted = self.accepted.saturating_add(1);
        self.share_refused -= self.share_refused * self.weight();
        let after_refusal = std::mem::take(&mut self.refused_in_row) > 0;
        self.in_vain = false;
        if !waited || after_refusal {
            return;
        }
        self.age += since;
        let doubling = (round_trip.min(SLOWEST) * 2).clamp(QUICKEST, SLOWEST).as_secs_f64();
        // The slope of a cube: from one at the fall to none at the level, and up again beyond it.
        let slope = 3.0 / BACK * (self.age / BACK - 1.0).powi(2) * -FALL.log2();
        let doublings = since * slope.min(1.0 / doubling);
        self.per_second = (self.per_second * doublings.min(1.0).exp2()).min(CEILING);
    }

    /// Notes that a request was refused that was let out since the last fall; `opens_at` is when the server may be asked
    /// again.
    pub(super) fn refused(&mut self, now: Instant, opens_at: Instant) -> Refusal {
        self.refused_in_row += 1;
        self.share_refused += (1.0 - self.share_refused) * self.weight();
        if self.accepted == 0 {
            self.in_vain = true;
            self.extend(opens_at);
            Refusal::Closed
        } else if self.refused_in_row >= IN_ROW {
            self.slow_down(now);
            self.close(now, opens_at);
            Refusal::Closed
        } else if self.share_refused > TOO_MANY {
            self.slow_down(now);
            Refusal::Slower
        } else {
            Refusal::Alone
        }
    }

    /// How much an outcome counts: the last eight do, but not for longer than a second.
    fn weight(&self) -> f64 {
        (1.0 / self.current()).clamp(WEIGHT, 1.0)
    }

    fn slow_down(&mut self, now: Instant) {
        self.share_refused = 0.0;
        if self.age.is_finite() {
            (self.per_second, self.age) = (self.per_second * LEVEL * FALL, 0.0);
        } else {
            // How far it overshot is not known, but what was accepted, over all the time since the closing, is a rate that the
            // server surely takes.
            let seconds = now.saturating_duration_since(self.closed_at).as_secs_f64().max(1e-3);
            (self.per_second, self.age) = (self.per_second.min(f64::from(self.accepted) / seconds), BACK);
        }
        self.per_second = self.per_second.max(FLOOR);
    }

    fn close(&mut self, now: Instant, opens_at: Instant) {
        self.closed_at = now;
        self.accepted = 0;
        self.refused_in_row = 0;
        self.open_at(opens_at);
    }

    fn open_at(&mut self, opens_at: Instant) {
        self.opens_at = opens_at;
        self.credit = 1.0;
        self.counted_at = opens_at;
        self.accepted_at = opens_at;
    }

    /// How long it is from `now` until so many turns have come, as far as that can be told.
    pub(super) fn time_for(&self, now: Instant, turns: f64) -> Duration {
        // Never nothing: a float may be short of one by less than there is time for.
        let missing = (turns.min(MOST_TURNS) - self.credit).max(SHORTEST * self.current());
        let from = self.counted_at.max(self.opens_at);
        // Before the first fall it doubles meanwhile.
        let doubled = SLOWEST.as_secs_f64() / std::f64::consts::LN_2;
        let seconds = match missing / self.current() {
            seconds if self.age.is_infinite() => doubled * (1.0 + seconds / doubled).ln(),
            seconds => seconds,
        };
        (from + Duration::from_secs_f64(seconds)).saturating_duration_since(now)
    }

    fn current(&self) -> f64 {
        if self.accepted == 0 { self.per_second.min(FIRST) } else { self.per_second }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const SECOND: Duration = Duration::from_secs(1);
    const WAY: Duration = Duration::from_millis(20);

    /// Lets out for so long as often as the pace allows, with something waiting all the time; accepted by `takes`, which is
    /// asked at most once per millisecond. Returns how many were let out.
    fn let_out(
        pace: &mut Pace,
        from: Instant,
        span: Duration,
        mut takes: impl FnMut(Instant) -> bool,
    ) -> u32 {
        let mut out = 0;
        for millisecond in 0..u32::try_from(span.as_millis()).unwrap() {
            let now = from + SECOND / 1_000 * millisecond;
            if pace.take(now, 1.0) {
                out += 1;
                match takes(now) {
                    true => pace.accepted(now, WAY, true),
                    false => drop(pace.refused(now, now + SECOND)),
                }
            }
        }
        out
    }

    #[test]
    fn it_is_closed_until_it_opens_and_then_lets_out_one_and_not_all() {
        let start = clock::now();
        let mut pace = Pace::new(start, start + SECOND);
        assert!(!pace.take(start + SECOND * 999 / 1_000, 1.0));
        assert!(pace.take(start + SECOND, 1.0) && !pace.take(start + SECOND, 1.0));
        // A long silence is not made up for.
        let later = start + SECOND * 100;
        assert!(pace.take(later, 1.0) && !pace.take(later, 1.0));
    }

    #[test]
    fn one_that_counts_as_three_has_as_much_room_before_it() {
        let start = clock::now();
        let mut pace = Pace::new(start, start);
        assert!(pace.take(start, 1.0));
        let due = (1..).find(|n| pace.clone().take(start + SECOND / 1_000 * *n, 3.0)).unwrap();
        assert_eq!(due, 375, "three at 8 per second");
    }

    #[test]
    fn it_doubles_while_nothing_is_known_and_all_is_accepted() {
        let start = clock::now();
        let mut unproven = Pace::new(start, start);
        let tried = (0..1_000).filter(|n| unproven.take(start + SECOND / 1_000 * *n, 1.0)).count();
        assert_eq!((tried, unproven.per_second()), (8, FIRST));
        let mut pace = Pace::new(start, start);
        let out = let_out(&mut pace, start, SECOND / 2, |_| true);
        assert!(out >= 30 && pace.per_second() > FIRST * 16.0, "{out} {}", pace.per_second());
    }

    #[test]
    fn slow_responses_double_it_as_fast_as_others() {
        let start = clock::now();
        let mut pace = Pace::new(start, start);
        for n in 0..40 {
            pace.accepted(start + SECOND / 4 * n, SECOND * 10, true);
        }
        assert!(pace.per_second() > FIRST * 1_000.0, "{}", pace.per_second());
    }

    #[test]
    fn a_first_refusal_after_a_pause_lengthens_the_pause_and_tells_nothing_else() {
        let start = clock::now();
        let mut pace = Pace::new(start, start + SECOND);
        for seconds in 1..60 {
            let now = start + SECOND * seconds;
            assert!(pace.take(now, 1.0));
            assert_eq!(pace.refused(now, now + SECOND), Refusal::Closed);
            assert_eq!((pace.opens_at(), pace.per_second()), (now + SECOND, FIRST));
        }
    }

    #[test]
    fn one_refusal_among_many_may_be_chance() {
        let start = clock::now();
        let mut pace = Pace::new(start, start);
        let mut asked = 0;
        let_out(&mut pace, start, SECOND * 3, |_| {
            asked += 1;
            asked % 50 != 0
        });
        assert!(pace.per_second() > 1_000.0, "{}", pace.per_second());
        assert!(!pace.is_closed(start + SECOND * 3));
    }

    #[test]
    fn it_finds_a_limit_and_stays_near_it_and_leaves_it_when_it_is_gone() {
        let start = clock::now();
        let mut pace = Pace::new(start, start);
        let (mut level, mut at, mut served) = (0.0, start, 0);
        let out = let_out(&mut pace, start, SECOND * 30, |now| {
            level = f64::max(level - (now - at).as_secs_f64() * 50.0, 0.0);
            at = now;
            let takes = level <= 5.0;
            level += if takes { 1.0 } else { 0.0 };
            served += u32::from(takes);
            takes
        });
        assert!(served >= 30 * 50 * 9 / 10, "{served} of 1500");
        assert!(out <= served * 5 / 4, "{out} {served}");
        let_out(&mut pace, start + SECOND * 30, SECOND * 8, |_| true);
        assert!(pace.per_second() > 500.0, "{}", pace.per_second());
    }

    #[test]
    fn refusals_in_a_row_close_it_and_nothing_is_forgotten_but_what_was_too_much() {
        let start = clock::now();
        let mut pace = Pace::new(start, start);
        let_out(&mut pace, start, SECOND, |_| true);
        let now = start + SECOND;
        assert_eq!(pace.refused(now, now + SECOND * 9), Refusal::Alone);
        assert_eq!(pace.refused(now, now + SECOND * 9), Refusal::Slower);
        assert_eq!(pace.refused(now, now + SECOND * 9), Refusal::Closed);
        assert!(pace.is_closed(now + SECOND * 8) && pace.is_proven());
        assert_eq!(pace.refused(now + SECOND * 9, now + SECOND * 18), Refusal::Closed);
        assert!(!pace.is_proven(), "a first one was refused");
    }

    #[test]
    fn what_nobody_waits_for_proves_nothing() {
        let start = clock::now();
        let mut pace = Pace::new(start, start);
        for n in 0..100 {
            assert!(pace.take(start + SECOND * n, 1.0));
            pace.accepted(start + SECOND * n, WAY, false);
        }
        assert_eq!(pace.per_second(), FIRST);
    }

    #[test]
    fn hostile_numbers_do_no_harm() {
        let start = clock::now();
        let far = clock::after(start, clock::FARTHEST);
        let mut pace = Pace::new(start, far);
        assert!(!pace.take(start, 1.0));
        assert!(pace.time_for(start, f64::MAX) >= clock::FARTHEST);
        let mut pace = Pace::new(start, start);
        for n in 0..10_000_u32 {
            let now = start + SECOND / 10 * n;
            pace.accepted(now, Duration::MAX / 64, true);
            pace.take(now, 6.0);
            if n % 3 == 0 {
                pace.refused(now, now);
            }
            assert!((FLOOR..=CEILING).contains(&pace.per_second()), "{}", pace.per_second());
        }
        pace.accepted(start, Duration::MAX, true);
        assert!(pace.time_for(start, f64::MAX) > Duration::ZERO);
    }
}
