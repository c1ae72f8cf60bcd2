//! Judges requests that the pace would not have let out: values in, verdict out.
//!
//! A limit on our own rate is sharp: a request beyond it is refused. Where it is accepted instead, the refusals come from
//! another client or from chance, and it does not help to hold requests back.

/// The record of requests beyond the pace.
#[derive(Clone, Debug)]
pub(super) struct Surplus {
    /// Rises by one with each that is refused, and falls by more with each that is accepted.
    score: u32,
    paced: bool,
    /// How many were refused that were sent before there was a pace.
    at_once: u32,
}

/// The score of a first refusal, which is all that is known at first. All rows of tests/simulation hold with 2 and with 12, too:
/// it is how soon one who was accepted out of turn ends the pace.
const AT_FIRST: u32 = 4;

/// The highest score, at which the pace counts again after it was given up. With 6, the 99th percentile is 6.6 s where half is
/// refused at any pace, not 4.1; all rows hold with 24.
const HIGHEST: u32 = 12;

/// The score falls by this for one that is accepted: more than three of four must be refused for it to rise. With 1, the 99th
/// percentile beside a neighbour is 6.7 s, not 4.1; all rows hold with 6.
const ACCEPTED: u32 = 3;

/// How many may wait for each that was refused at once. Of 50 requests a window of 30 refuses 20. With 1, 215 of 1000 requests
/// fail at a limit of 50/s; all rows hold with 6.
const PLACES: usize = 3;

impl Surplus {
    pub(super) fn new() -> Self {
        Self { score: AT_FIRST, paced: true, at_once: 1 }
    }

    /// Whether requests are let out at the pace.
    pub(super) fn is_paced(&self) -> bool {
        self.paced
    }

    /// Whether one more may wait for its turn beyond the patience of one that was not refused: three times as many as were
    /// refused at once, since others were accepted then. A queue that grows beyond that is more than the limit lets through.
    pub(super) fn may_wait(&self, waiting: usize) -> bool {
        waiting < usize::try_from(self.at_once).unwrap_or(usize::MAX).saturating_mul(PLACES)
    }

    /// Notes a request beyond the pace that was accepted.
    pub(super) fn accepted(&mut self) {
        self.score = self.score.saturating_sub(ACCEPTED);
        self.paced &= self.score > 0;
    }

    /// Notes a request beyond the pace that was refused; `before` if there was no pace when it was sent. Returns whether the
    /// pace counts again.
    pub(super) fn refused(&mut self, before: bool) -> bool {
        self.score = (self.score + 1).min(HIGHEST);
        if self.paced {
            self.at_once = self.at_once.saturating_add(u32::from(before));
            return false;
        }
        self.paced = self.score == HIGHEST;
        if self.paced {
            self.at_once = 1;
        }
        self.paced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_counts_only_while_nearly_all_beyond_it_are_refused() {
        let paced_for = |refused_of_four: u32| {
            let mut surplus = Surplus::new();
            let outcomes = (0..400).map(|n| {
                if n % 4 < refused_of_four {
                    surplus.refused(false);
                } else {
                    surplus.accepted();
                }
                surplus.is_paced()
            });
            outcomes.filter(|paced| *paced).count()
        };
        assert_eq!([paced_for(4), paced_for(3)], [400, 400]);
        assert!(paced_for(2) < 10 && paced_for(1) < 5, "{} {}", paced_for(2), paced_for(1));
    }

    #[test]
    fn once_given_up_it_takes_many_refusals_in_a_row() {
        let mut surplus = Surplus::new();
        surplus.accepted();
        surplus.accepted();
        assert!(!surplus.is_paced());
        assert!((1..HIGHEST).all(|_| !surplus.refused(true)));
        assert!(surplus.refused(true) && surplus.is_paced());
    }

    #[test]
    fn three_times_as_many_may_wait_as_were_refused_at_once() {
        let mut surplus = Surplus::new();
        (0..44).for_each(|_| {
            surplus.refused(true);
        });
        (0..99).for_each(|_| {
            surplus.refused(false);
        });
        assert!(surplus.may_wait(134) && !surplus.may_wait(135));
    }
}
