//! When a token is renewed: pure arithmetic of its life.

use std::time::Duration;

use crate::clock::Moment;

/// The longest lead of the advisory window, before chance lengthens it.
const LONGEST_ADVISORY: Duration = Duration::from_secs(5 * 60);
/// The longest lead of the mandatory window.
const LONGEST_MANDATORY: Duration = Duration::from_secs(10);
/// A token is used at least this long, so that lifetimes of nothing do not become a storm of token requests.
pub(crate) const SHORTEST_USE: Duration = Duration::from_secs(1);
/// How far ahead of ours the clock of an API may be.
const CLOCK_SKEW: Duration = Duration::from_secs(30);
/// Chance lengthens the advisory lead by up to this share of itself.
pub(crate) const LONGEST_STRETCH: f64 = 0.25;

/// How long before its end a token is renewed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Windows {
    /// Fixed lead of the advisory window; by default a fifth of the lifetime, at most five minutes.
    pub(crate) refresh_before: Option<Duration>,
    /// Fixed lead of the mandatory window; by default a twentieth of the lifetime, at most ten seconds.
    pub(crate) min_validity: Option<Duration>,
    /// The age at which a token is renewed even if its lifetime is longer.
    pub(crate) max_age: Option<Duration>,
    /// This instance's chance, 0 to [`LONGEST_STRETCH`]: a fleet that started together does not renew together.
    pub(crate) stretch: f64,
}

/// The instants in a token's life, each no later than the next. `None` is never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// When it was published.
    pub(crate) born: Moment,
    /// From here on one fetch renews it while it stays in use.
    pub(crate) due: Option<Moment>,
    /// From here on requests wait for the new one.
    pub(crate) must_wait: Option<Moment>,
    /// From here on it is not used.
    pub(crate) ends: Option<Moment>,
}

impl Plan {
    /// Returns whether the token's life is over.
    pub(crate) fn has_ended(&self, now: Moment) -> bool {
        self.ends.is_some_and(|ends| now.reached(ends))
    }

    /// Returns whether an API whose clock is a little ahead of ours may take the token as expired.
    ///
    /// From the mandatory window on, or in the last tenth of the life, at most [`CLOCK_SKEW`].
    pub(crate) fn is_nearly_over(&self, now: Moment) -> bool {
        let Some(ends) = self.ends else { return false };
        let skew = (self.born.until(ends) / 10).min(CLOCK_SKEW);
        now.until(ends) <= skew || self.must_wait.is_some_and(|must_wait| now.reached(must_wait))
    }

    /// Returns whether a request that needs `need` of validity should wait for another token: this one has less left,
    /// and another would have more.
    ///
    /// A need that a whole life barely holds must not make every request a token request, so what is beyond
    /// [`longest_lead`] of a life is not waited for, and a token is used for a second at least.
    pub(crate) fn falls_short(&self, need: Duration, now: Moment) -> bool {
        let Some(ends) = self.ends else { return false };
        let life = self.born.until(ends);
        need < life && now.until(ends) < need.min(longest_lead(life)) && now.since(self.born) >= SHORTEST_USE
    }

    /// Puts the renewal off until `earliest`, as far as the life allows: what renews the token must not be used before.
    pub(crate) fn not_renewed_before(self, earliest: Option<Moment>) -> Self {
        let (Some(earliest), Some(ends)) = (earliest, self.ends) else { return self };
        let earliest = if earliest.reached(ends) { ends } else { earliest };
        let later = |at: Moment| if earliest.reached(at) { earliest } else { at };
        Self { due: self.due.map(later), must_wait: self.must_wait.map(later), ..self }
    }

    /// Plans the life of a token that is used until `due`, and then to its end only where there is no other.
    pub(crate) fn interim(self, now: Moment, due: Moment) -> Self {
        let due = self.ends.filter(|ends| due.reached(*ends)).unwrap_or(due);
        Self { born: now, due: Some(due), must_wait: self.ends, ends: self.ends }
    }
}

impl Windows {
    /// Plans the life of a token that counts from `obtained`, was published at `published` and ends at `expiry`.
    ///
    /// A lead that the life cannot hold would make the token due at birth, and every use a token request; the default
    /// share of the life takes its place. One that leaves little of the life is cut to [`longest_lead`].
    pub(crate) fn plan(&self, obtained: Moment, published: Moment, expiry: Option<Moment>) -> Plan {
        let aged = self.max_age.map(|age| obtained.saturating_add(age));
        let end = match (expiry, aged) {
            (Some(expiry), Some(aged)) if aged.reached(expiry) => Some(expiry),
            (expiry, None) => expiry,
            (_, aged) => aged,
        };
        let Some(end) = end else {
            return Plan { born: published, due: None, must_wait: None, ends: None };
        };
        // The life counts from `obtained`, but nothing of it can be used before `published`.
        let life = obtained.until(end);
        let usable = published.until(end);
        if usable < SHORTEST_USE {
            let ends = published.saturating_add(SHORTEST_USE);
            return Plan { born: published, due: Some(ends), must_wait: Some(ends), ends: Some(ends) };
        }
        let fixed = |lead: Option<Duration>| lead.filter(|lead| *lead < usable);
        let mandatory = fixed(self.min_validity).unwrap_or_else(|| default_mandatory(life));
        let advisory = fixed(self.refresh_before).unwrap_or_else(|| default_advisory(life)).max(mandatory);
        let stretched = advisory.mul_f64(1.0 + self.stretch.clamp(0.0, LONGEST_STRETCH));
        let longest = longest_lead(usable);
        let advisory = if stretched < longest { stretched } else { advisory };
        // A fetch that took most of the life leaves a token that is due at birth: it is used to the end of the half
        // that is left before another fetch starts.
        let latest = usable / 2;
        let lead = |lead: Duration| if lead < usable { lead.min(longest) } else { latest };
        Plan {
            born: published,
            due: Some(back(end, lead(advisory))),
            must_wait: Some(back(end, lead(mandatory))),
            ends: Some(end),
        }
    }
}

/// Returns the longest lead for which a token of this life is renewed: a token is in use for a quarter of its life at least.
fn longest_lead(life: Duration) -> Duration {
    life / 4 * 3
}

fn default_advisory(life: Duration) -> Duration {
    (life / 5).min(LONGEST_ADVISORY)
}

fn default_mandatory(life: Duration) -> Duration {
    (life / 20).min(LONGEST_MANDATORY)
}

/// Moves a moment back on both clocks.
fn back(moment: Moment, by: Duration) -> Moment {
    Moment {
        mono: moment.mono.checked_sub(by).unwrap_or(moment.mono),
        wall: moment.wall.saturating_sub(crate::clock::nanos(by)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::WallClock;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn leads(windows: Windows, lifetime: Duration) -> (Duration, Duration) {
        let born = WallClock::default().moment();
        let end = born.saturating_add(lifetime);
        let plan = windows.plan(born, born, Some(end));
        (plan.due.unwrap().until(end), plan.must_wait.unwrap().until(end))
    }

    #[test]
    fn the_windows_come_from_the_lifetime() {
        assert_eq!(leads(Windows::default(), seconds(100)), (seconds(20), seconds(5)));
        assert_eq!(leads(Windows::default(), seconds(86_400)), (seconds(300), seconds(10)));
        let stretched = Windows { stretch: 0.25, ..Windows::default() };
        assert_eq!(leads(stretched, seconds(100)), (seconds(25), seconds(5)));
    }

    #[test]
    fn a_lead_that_the_life_cannot_hold_gives_way_to_the_default() {
        let fixed = Windows {
            refresh_before: Some(seconds(600)),
            min_validity: Some(seconds(60)),
            ..Windows::default()
        };
        assert_eq!(leads(fixed, seconds(3600)), (seconds(600), seconds(60)));
        assert_eq!(leads(fixed, seconds(300)), (seconds(60), seconds(60)));
        assert_eq!(leads(fixed, seconds(20)), (seconds(4), seconds(1)));
    }

    #[test]
    fn a_token_without_an_end_is_never_due_unless_it_may_only_age_so_far() {
        let born = WallClock::default().moment();
        let plan = Windows::default().plan(born, born, None);
        assert_eq!((plan.due, plan.must_wait, plan.ends), (None, None, None));
        let aging = Windows { max_age: Some(seconds(100)), ..Windows::default() };
        assert_eq!(aging.plan(born, born, None).ends, Some(born.saturating_add(seconds(100))));
        let short = born.saturating_add(seconds(50));
        assert_eq!(aging.plan(born, born, Some(short)).ends, Some(short));
    }

    #[test]
    fn a_token_without_a_life_is_used_for_a_second() {
        let born = WallClock::default().moment();
        for lifetime in [0, 1] {
            let plan = Windows::default().plan(born, born.saturating_add(seconds(lifetime)), Some(born));
            assert_eq!(plan.ends, Some(born.saturating_add(seconds(lifetime + 1))));
        }
    }

    proptest! {
        #[test]
        fn the_instants_are_in_order_and_a_token_is_never_due_at_birth(
            life_ms in 0_u64..100_000_000_000,
            flight_ms in 0_u64..120_000,
            before in proptest::option::of(0_u64..1_000_000),
            validity in proptest::option::of(0_u64..1_000_000),
            age in proptest::option::of(0_u64..1_000_000),
            stretch in 0.0..1.0_f64,
        ) {
            let windows = Windows {
                refresh_before: before.map(seconds),
                min_validity: validity.map(seconds),
                max_age: age.map(seconds),
                stretch,
            };
            let born = WallClock::default().moment();
            let published = born.saturating_add(Duration::from_millis(flight_ms));
            let plan = windows.plan(born, published, Some(born.saturating_add(Duration::from_millis(life_ms))));
            let (due, wait, ends) = (plan.due.unwrap(), plan.must_wait.unwrap(), plan.ends.unwrap());
            prop_assert!(wait.reached(due) && ends.reached(wait));
            prop_assert!(due.mono > published.mono && due.wall > published.wall);
        }

        #[test]
        fn a_steady_client_asks_at_most_once_in_three_quarters_of_a_life(
            life_ms in 1_000_u64..1_000_000_000,
            stretch in 0.0..=0.25_f64,
        ) {
            let windows = Windows { stretch, ..Windows::default() };
            let born = WallClock::default().moment();
            let life = Duration::from_millis(life_ms);
            let plan = windows.plan(born, born, Some(born.saturating_add(life)));
            prop_assert!(born.until(plan.due.unwrap()) >= life.mul_f64(0.75) - Duration::from_micros(1));
        }
    }
}
