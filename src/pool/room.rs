//! How much room a token has: values in, verdict out.
//!
//! 1. A response counts from its arrival. Of two in one window the smaller rest counts, since they may overtake
//!    each other. Where the end moves on with each response, the window slides, and a rest that has risen counts after 2 s.
//! 2. Requests that are in flight may be in that rest already, or not. They count as not: it is too little for a moment, and
//!    never too much. When the window ends, a waiting request looks again.
//! 3. A window is over a second after the server says so: many count in whole seconds, rounded down.
//! 4. A refusal closes the token until the server's time is over, even if more is left. After an hour it is tried all the same.
//! 5. A token without any response yet has as much room as the largest rest that its server ever named.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock;
use crate::headers::rate_limit::Quota;

/// The requests and the quota of one token.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Room {
    in_flight: u64,
    window: Option<Window>,
    /// The most that was ever left.
    most: Option<u64>,
    closed_until: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    left: u64,
    /// When it was first heard of.
    began: Instant,
    ends: Instant,
}

/// Whole seconds, rounded down.
const ROUNDING: Duration = Duration::from_secs(1);

/// Two ends that are no further apart are those of one window.
const SAME_WINDOW: Duration = Duration::from_secs(2);

/// So late a response may come and still be known as one of the window before.
const LATEST: Duration = Duration::from_secs(10);

/// A token is left alone for no longer, so that one wrong number does not take it out of the pool. If it was right, a request
/// an hour goes on to the next token.
const LONGEST: Duration = Duration::from_secs(3_600);

impl Room {
    pub(super) fn begin(&mut self) {
        self.in_flight = self.in_flight.saturating_add(1);
    }

    pub(super) fn end(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Returns for how many more requests there is room. `most` is the most that any token ever had.
    pub(super) fn left(&self, now: Instant, most: Option<u64>) -> u64 {
        if self.closed_until.is_some_and(|until| until > now) {
            return 0;
        }
        let left = match self.window {
            Some(window) if window.ends > now => window.left,
            Some(_) | None => most.unwrap_or(u64::MAX),
        };
        left.saturating_sub(self.in_flight)
    }

    pub(super) fn most(&self) -> Option<u64> {
        self.most
    }

    /// Returns when there is room again, if it is known to be later than now.
    pub(super) fn opens_at(&self, now: Instant) -> Option<Instant> {
        let window = self.window.filter(|window| window.left == 0).map(|window| window.ends);
        window.max(self.closed_until).filter(|at| *at > now)
    }

    /// Returns when it is to be looked at again: when there is room, or when what is left is told anew.
    pub(super) fn changes_at(&self, now: Instant) -> Option<Instant> {
        let ends = self.window.map(|window| window.ends).filter(|ends| *ends > now);
        self.opens_at(now).or(ends)
    }

    /// Notes what a response said about the quota.
    pub(super) fn told(&mut self, quota: Quota, now: Instant) {
        let ends = clock::after(now, quota.renewed_in.min(LONGEST).saturating_add(ROUNDING));
        let (left, began, ends) = match self.window {
            Some(before) if before.ends > now && clock::after(ends, SAME_WINDOW) < before.ends => {
                // It came late, and is of a window that is over. Or else it was the word before that was wrong: that of
                // another clock, or of another unit.
                if ends <= clock::after(before.began, LATEST) {
                    return;
                }
                (quota.left, now, ends)
            }
            // Its end stays where it was first heard of: one that moves on a little each time is that of a window that slides.
            Some(before) if before.ends > now && ends <= clock::after(before.ends, SAME_WINDOW) => {
                (quota.left.min(before.left), before.began, before.ends)
            }
            Some(_) | None => (quota.left, now, ends),
        };
        self.window = Some(Window { left, began, ends });
        self.most = self.most.max(Some(quota.left));
    }

    /// Notes that a request was refused for `wait`.
    pub(super) fn refused(&mut self, wait: Duration, now: Instant) {
        self.closed_until = self.closed_until.max(Some(clock::after(now, wait.min(LONGEST))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn quota(left: u64, seconds: u64) -> Quota {
        Quota { left, renewed_in: Duration::from_secs(seconds) }
    }

    #[tokio::test(start_paused = true)]
    async fn of_one_window_the_smaller_rest_counts_and_what_is_in_flight_is_taken_off() {
        let (now, mut room) = (clock::now(), Room::default());
        assert_eq!((room.left(now, None), room.left(now, Some(300))), (u64::MAX, 300));
        room.told(quota(250, 60), now);
        room.told(quota(251, 60), now);
        assert_eq!((room.left(now, None), room.most()), (250, Some(251)));
        (0..4).for_each(|_| room.begin());
        room.end();
        assert_eq!((room.left(now, None), room.opens_at(now)), (247, None));
        // A late word of the window before is passed over; the first one of the next is not.
        room.told(quota(3, 2), now);
        assert_eq!(room.left(now, None), 247);
        let next = clock::after(now, 62 * SECOND);
        assert_eq!(room.left(next, Some(300)), 297);
        room.told(quota(299, 60), next);
        assert_eq!(room.left(next, None), 296);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rest_that_rises_under_a_window_that_slides_is_believed() {
        let (start, mut room) = (clock::now(), Room::default());
        // A bucket that refills evenly, whose reset is always a minute ahead: it was low once, and fills again.
        for second in 0..30 {
            let now = clock::after(start, SECOND * u32::try_from(second).unwrap());
            room.told(quota(1 + second, 60), now);
            assert!(room.left(now, None) + 3 > second, "{second}: {}", room.left(now, None));
        }
        assert!(room.left(clock::after(start, 29 * SECOND), None) >= 27);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_left_or_a_refusal_closes_until_the_servers_time_and_a_second() {
        let (now, mut room) = (clock::now(), Room::default());
        room.told(quota(0, 10), now);
        assert_eq!((room.left(now, None), room.opens_at(now)), (0, Some(now + 11 * SECOND)));
        room.refused(20 * SECOND, now);
        assert_eq!(room.opens_at(now), Some(now + 20 * SECOND));
        let later = now + 20 * SECOND;
        assert_eq!((room.left(later, Some(7)), room.opens_at(later)), (7, None));
        room.refused(SECOND, later);
        assert_eq!((room.left(later, None), room.opens_at(later)), (0, Some(later + SECOND)));
    }
}
