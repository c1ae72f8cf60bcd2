//! At which pace requests are let out after a closing: values in, instants out.
//!
//! A server that limits a rate takes what comes until it has had enough, and then refuses all for a while. So what it
//! took between two closings, over all the time between them, pause included, is a rate that it surely takes; and the
//! pace at which it refused is one that it does not.
//!
//! 1. After the first closing nothing is known. The pace begins low and doubles, as long as answers come, until the next
//!    refusal.
//! 2. From the second closing on it begins at what the server surely takes and closes in on what may be too much: the gap
//!    is halved in equal times, which are the longer the smaller the gap is and the longer the pause that a further
//!    refusal would cost.
//! 3. A step is added that doubles in the same time. So when the doubtful pace was not too much either, it is left behind
//!    ever faster: the limit is another than before.
//! 4. The pace grows only while somebody waits and answers come, since what nobody uses proves nothing.

use std::time::Duration;

use tokio::time::Instant;

/// The pace of one lane.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    closed_at: Instant,
    /// Nobody is let out before.
    opens_at: Instant,
    /// When the next may be let out, if it is open by then.
    next: Instant,
    per_second: f64,
    climb: Climb,
    /// Up to when growth was counted.
    grown_at: Instant,
    /// What the server took since the closing began.
    accepted: u32,
    /// What it took between the last two closings, and in how many seconds it was open.
    last: Option<(f64, f64)>,
    /// Something that was let out since the closing was accepted.
    proven: bool,
    /// How long answers take.
    round_trip: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Climb {
    /// Nothing is known yet.
    Doubling,
    /// Towards what may be too much, the gap being halved in so many seconds, and on from there.
    Towards { sure: f64, high: f64, halving: f64, step: f64 },
}

/// The pace with which doubling begins, per second.
const FIRST: f64 = 4.0;

/// The least time in which the pace doubles.
const DOUBLING: Duration = Duration::from_millis(200);

/// Answers that take longer say nothing about the way.
const LONGEST_ROUND_TRIP: Duration = Duration::from_secs(10);

/// Slowest and fastest pace, per second.
const SLOWEST: f64 = 1.0 / 60.0;
const FASTEST: f64 = 1e6;

/// What is left of a sure pace at the next closing.
const MEMORY: f64 = 0.85;

/// What was sure is doubted where it is more than this part of what was refused.
const REFUTED: f64 = 0.75;

/// From how many times the time on, two times between closings are told apart.
const MUCH_LONGER: f64 = 1.4;

/// How far what may be too much is above what is sure, at least.
const LEAST_GAP: f64 = 0.1;

/// The step per second, as a part of the sure pace, with which the climb begins.
const FIRST_STEP: f64 = 0.01;

/// Pauses shorter or longer than these make the climb no faster or slower, in seconds.
const SHORTEST_PAUSE: f64 = 0.5;
const LONGEST_PAUSE: f64 = 4.0;

/// Who was due within this time is let out at once: timers are late, and what they lose would never be made up.
const LATENESS: Duration = Duration::from_millis(25);

impl Pace {
    /// Starts with a first closing.
    pub(super) fn new(now: Instant, opens_at: Instant) -> Self {
        Self {
            closed_at: now,
            opens_at,
            next: opens_at,
            per_second: FIRST,
            climb: Climb::Doubling,
            grown_at: opens_at,
            accepted: 0,
            last: None,
            proven: false,
            round_trip: Duration::ZERO,
        }
    }

    /// Closes again, since a request that was let out at this pace was refused.
    pub(super) fn close(&mut self, now: Instant, opens_at: Instant) {
        let seconds = |since: Instant| now.saturating_duration_since(since).as_secs_f64().max(1e-3);
        let (closed, open) = (seconds(self.closed_at), seconds(self.opens_at));
        let accepted = f64::from(self.accepted);
        let refused = self.per_second;
        // Where not even one was accepted there is nothing to go by.
        let sure = if self.accepted == 0 { refused / 2.0 } else { accepted / closed };
        // What was sure at the last closing is not forgotten at once, since a short time tells little; unless what was
        // refused now was hardly more, for then the limit is another than it was.
        let before = if let Climb::Towards { sure, .. } = self.climb { sure * MEMORY } else { 0.0 };
        let before = before.min(refused * REFUTED);
        let sure = sure.max(before).min(refused).clamp(SLOWEST, FASTEST);
        let high = ((accepted / open).clamp(sure, refused) * refused).sqrt().max(sure * (1.0 + LEAST_GAP));
        let pause =
            opens_at.saturating_duration_since(now).as_secs_f64().clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        // The server's burst is in both, and so not in their difference.
        let (sure, high) = match self.last {
            Some((before, when)) if open > when * MUCH_LONGER && accepted > before => {
                let slope = (accepted - before) / (open - when);
                let sure = sure.max((slope * 0.9).min(high));
                (sure, high.min(slope * 1.2).max(sure * (1.0 + LEAST_GAP)))
            }
            Some(_) | None => (sure, high),
        };
        self.last = Some((accepted, open));
        let halving = pause * (sure / (high - sure) * 2.0).clamp(1.0, 8.0);
        self.climb = Climb::Towards { sure, high, halving, step: sure * FIRST_STEP };
        self.per_second = sure;
        self.closed_at = now;
        self.accepted = 0;
        self.proven = false;
        self.opens_at = opens_at;
        self.next = opens_at;
        self.grown_at = opens_at;
    }

    /// Keeps it closed for longer.
    pub(super) fn extend(&mut self, opens_at: Instant) {
        if opens_at > self.opens_at {
            self.opens_at = opens_at;
            self.next = self.next.max(opens_at);
            self.grown_at = opens_at;
        }
    }

    /// When the next one is due.
    pub(super) fn due(&self) -> Instant {
        self.next.max(self.opens_at)
    }

    pub(super) fn opens_at(&self) -> Instant {
        self.opens_at
    }

    pub(super) fn per_second(&self) -> f64 {
        self.per_second
    }

    /// Lets one out, if one is due. `waiting`: it had to wait, so the pace is what holds it back.
    pub(super) fn take(&mut self, now: Instant, waiting: bool) -> bool {
        if now < self.due() {
            return false;
        }
        self.grow(now, waiting);
        let earliest = now.checked_sub(LATENESS).unwrap_or(now);
        self.next = self.next.max(earliest) + self.interval();
        true
    }

    /// Notes that a request which took `round_trip` was not refused; `current` if it was let out since the closing.
    pub(super) fn accepted(&mut self, round_trip: Duration, current: bool) {
        let round_trip = round_trip.min(LONGEST_ROUND_TRIP);
        self.accepted = self.accepted.saturating_add(1);
        self.proven |= current;
        self.round_trip =
            if self.round_trip.is_zero() { round_trip } else { (self.round_trip * 7 + round_trip) / 8 };
    }

    /// How long it is from `now` until `ahead` were let out and the next one is due, as far as that can be told.
    pub(super) fn time_for(&self, now: Instant, ahead: usize) -> Duration {
        let ahead = ahead.min(1 << 30) as f64;
        let seconds = match self.climb {
            Climb::Doubling => {
                // The sum of a pace that doubles.
                let doublings = self.doubling().as_secs_f64() / std::f64::consts::LN_2;
                doublings * (1.0 + ahead / (self.per_second * doublings)).ln()
            }
            Climb::Towards { .. } => ahead / self.per_second,
        };
        self.due().saturating_duration_since(now).saturating_add(Duration::from_secs_f64(seconds))
    }

    fn interval(&self) -> Duration {
        Duration::from_secs_f64(1.0 / self.per_second)
    }

    /// In less than a round trip nobody can tell what the last step did.
    fn doubling(&self) -> Duration {
        DOUBLING.max(self.round_trip * 2)
    }

    fn grow(&mut self, now: Instant, waiting: bool) {
        // Silence is no proof either.
        let most = self.interval().mul_f64(1.5).max(DOUBLING);
        let elapsed = now.saturating_duration_since(self.grown_at).min(most).as_secs_f64();
        self.grown_at = now;
        if !waiting || !self.proven {
            return;
        }
        let doubling = self.doubling().as_secs_f64();
        match &mut self.climb {
            Climb::Doubling => self.per_second *= (elapsed / doubling).exp2(),
            Climb::Towards { high, halving, step, .. } => {
                let gap = (*high - self.per_second).max(0.0);
                self.per_second += gap * (1.0 - (-elapsed / *halving).exp2()) + *step * elapsed;
                *step *= (elapsed / *halving).exp2();
            }
        }
        self.per_second = self.per_second.min(FASTEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const SECOND: Duration = Duration::from_secs(1);

    /// Lets out for so long as often as the pace allows, with somebody waiting all the time and all accepted.
    fn let_out(pace: &mut Pace, from: Instant, span: Duration) -> u32 {
        let (mut now, mut out) = (from, 0);
        while now < from + span {
            if pace.take(now, true) {
                pace.accepted(SECOND / 1_000, true);
                out += 1;
            }
            now = pace.due().max(now + SECOND / 1_000);
        }
        out
    }

    #[test]
    fn it_is_closed_until_it_opens_and_then_lets_out_one_and_not_all() {
        let start = clock::now();
        let mut pace = Pace::new(start, start + SECOND);
        assert_eq!(pace.due(), start + SECOND);
        assert!(!pace.take(start + SECOND * 999 / 1_000, true));
        assert!(pace.take(start + SECOND, true));
        assert!(!pace.take(start + SECOND, true));
        // A long silence is not made up for.
        let later = start + SECOND * 100;
        assert!(pace.take(later, true) && !pace.take(later, true));
    }

    #[test]
    fn it_doubles_as_long_as_nothing_is_known_and_answers_come() {
        let start = clock::now();
        let mut unproven = Pace::new(start, start);
        for n in 0..8 {
            assert!(unproven.take(start + SECOND * n / 4, true));
        }
        assert_eq!(unproven.per_second(), FIRST);
        let mut pace = Pace::new(start, start);
        let_out(&mut pace, start, SECOND);
        let after_one = pace.per_second();
        let_out(&mut pace, start + SECOND, SECOND);
        assert!((8.0..=128.0).contains(&after_one), "{after_one}");
        assert!(pace.per_second() > after_one * 16.0, "{after_one} {}", pace.per_second());
    }

    #[test]
    fn the_next_refusal_takes_it_down_to_what_was_surely_accepted() {
        let start = clock::now();
        let mut pace = Pace::new(start, start + SECOND);
        let out = let_out(&mut pace, start + SECOND, SECOND);
        let refused = pace.per_second();
        let now = start + SECOND * 2;
        pace.close(now, now + SECOND);
        assert!((pace.per_second() - f64::from(out) / 2.0).abs() < 0.01, "{out} {}", pace.per_second());
        assert!(pace.per_second() < refused / 2.0);
        // From there it climbs, and does not double.
        let_out(&mut pace, now + SECOND, SECOND);
        assert!(pace.per_second() < refused, "{refused} {}", pace.per_second());
        // Nothing accepted at all: half of it.
        let before = pace.per_second();
        pace.close(now + SECOND * 2, now + SECOND * 3);
        let low = pace.per_second();
        pace.close(now + SECOND * 3, now + SECOND * 4);
        assert!(low < before && pace.per_second() < low, "{before} {low} {}", pace.per_second());
    }

    #[test]
    fn what_nobody_waits_for_proves_nothing() {
        let start = clock::now();
        let mut pace = Pace::new(start, start);
        for n in 0..100 {
            assert!(pace.take(start + SECOND * n, false));
            pace.accepted(SECOND / 1_000, true);
        }
        assert_eq!(pace.per_second(), FIRST);
    }

    #[test]
    fn an_extension_only_makes_it_longer_and_keeps_the_pace() {
        let start = clock::now();
        let mut pace = Pace::new(start, start + SECOND * 5);
        pace.extend(start + SECOND);
        assert_eq!(pace.opens_at(), start + SECOND * 5);
        pace.extend(start + SECOND * 9);
        assert_eq!((pace.due(), pace.per_second()), (start + SECOND * 9, FIRST));
    }

    #[test]
    fn hostile_numbers_do_no_harm() {
        let start = clock::now();
        let far = clock::after(start, clock::FARTHEST);
        let mut pace = Pace::new(start, far);
        assert!(!pace.take(start, true));
        assert!(pace.time_for(start, usize::MAX) >= clock::FARTHEST);
        pace.close(start, start);
        for n in 0..10_000_u32 {
            let now = start + SECOND / 10 * n;
            pace.accepted(Duration::MAX / 64, true);
            pace.take(now, true);
            if n % 3 == 0 {
                pace.close(now, now);
            }
            assert!((SLOWEST..=FASTEST).contains(&pace.per_second()), "{}", pace.per_second());
        }
        pace.accepted(Duration::MAX, true);
        assert!(pace.time_for(start, usize::MAX) > Duration::ZERO);
    }
}
