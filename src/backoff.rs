//! The only door to chance, and the waits that are made with it.
//!
//! Chance is not decoration here: callers that failed together must not come back together. A handle that is cloned
//! with its state inside would deal the same waits to every clone, which looks like jitter and is none. So a
//! [`Chance`] has no state of its own; what is drawn comes from the thread's generator.

#[cfg(test)]
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

#[cfg(feature = "jwt")]
use crate::error::Error;

/// The shortest wait after a server said when to come back.
const SHORTEST_HINT: Duration = Duration::from_millis(100);

/// The most that is added to what a server said.
const LONGEST_EXTRA: Duration = Duration::from_secs(1);

/// A handle to chance. Shared by reference; clones and separate instances draw different numbers.
///
/// In tests it can be [`seeded`](Self::seeded). Then it and its clones share one sequence, so that a run can be repeated
/// and still no two draws are the same by construction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chance {
    source: Source,
}

#[derive(Clone, Debug, Default)]
enum Source {
    #[default]
    Thread,
    #[cfg(test)]
    Seeded(Arc<Mutex<fastrand::Rng>>),
    #[cfg(test)]
    Drawn(f64),
}

impl Chance {
    /// Creates a handle whose draws follow from `seed`.
    #[cfg(test)]
    pub(crate) fn seeded(seed: u64) -> Self {
        Self { source: Source::Seeded(Arc::new(Mutex::new(fastrand::Rng::with_seed(seed)))) }
    }

    /// Creates a handle that gives `fraction` at each draw, for pure functions that are handed the draw. A number outside
    /// 0 to 1 counts as the nearer end.
    #[cfg(test)]
    pub(crate) fn drawn(fraction: f64) -> Self {
        let fraction = if fraction.is_nan() { 0.0 } else { fraction.clamp(0.0, 1.0 - f64::EPSILON) };
        Self { source: Source::Drawn(fraction) }
    }

    /// Draws a number from 0 to 1, the upper end excluded.
    #[allow(clippy::disallowed_methods, reason = "this is the door")]
    pub(crate) fn fraction(&self) -> f64 {
        match &self.source {
            Source::Thread => fastrand::f64(),
            #[cfg(test)]
            Source::Drawn(fraction) => *fraction,
            #[cfg(test)]
            Source::Seeded(rng) => rng.lock().unwrap_or_else(PoisonError::into_inner).f64(),
        }
    }

    /// Draws the wait before retry `n`, counted from zero: half of b for certain and up to b by chance, where b is
    /// `first` doubled `n` times, but at most `longest`.
    pub(crate) fn equal_jitter(&self, first: Duration, longest: Duration, n: u32) -> Duration {
        let half = doubled(first, longest, n) / 2;
        half + self.part_of(half)
    }

    /// Draws a wait from nothing up to b, where b is `first` doubled `n` times, but at most `longest`.
    pub(crate) fn full_jitter(&self, first: Duration, longest: Duration, n: u32) -> Duration {
        self.part_of(doubled(first, longest, n))
    }

    /// Lengthens a wait that a server asked for, so that those who were told the same do not return at the same moment:
    /// by up to a tenth, at most a second. The whole is at least 100 ms. Never shorter than asked.
    pub(crate) fn lengthen(&self, delay: Duration) -> Duration {
        let delay = delay.max(SHORTEST_HINT);
        delay.saturating_add(self.part_of((delay / 10).min(LONGEST_EXTRA)))
    }

    /// Returns what [`lengthen`](Self::lengthen) makes of a wait at most.
    pub(crate) fn at_most(delay: Duration) -> Duration {
        let delay = delay.max(SHORTEST_HINT);
        delay.saturating_add((delay / 10).min(LONGEST_EXTRA))
    }

    fn part_of(&self, whole: Duration) -> Duration {
        // The fraction is below 1, so the product cannot overflow; rounding could reach a nanosecond beyond.
        whole.mul_f64(self.fraction()).min(whole)
    }
}

/// Draws bytes that cannot be guessed and are not drawn twice; none where the system has no such source.
///
/// Not from the thread's generator: a name that two requests share loses one of them, and that generator begins with 64 bits.
pub(crate) fn unguessable() -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok()?;
    Some(bytes)
}

/// Draws a name that cannot be guessed, and that no other process draws: 128 bits in base64url.
#[cfg(feature = "jwt")]
pub(crate) fn identifier() -> Result<String, Error> {
    use base64::Engine as _;

    let bytes = unguessable().ok_or_else(|| {
        Error::transient("the operating system has no random numbers; an assertion needs some")
    })?;
    Ok(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
}

/// Doubles `first` `n` times, but not beyond `longest`.
fn doubled(first: Duration, longest: Duration, n: u32) -> Duration {
    let mut wait = first.min(longest);
    // At most 94 rounds lead from a nanosecond to the longest duration there is; zero stays zero and takes none.
    for _ in 0..n {
        if wait >= longest || wait.is_zero() {
            break;
        }
        wait = wait.saturating_mul(2).min(longest);
    }
    wait
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIRST: Duration = Duration::from_millis(500);
    const LONGEST: Duration = Duration::from_secs(30);

    fn a_duration() -> impl Strategy<Value = Duration> {
        prop_oneof![
            Just(Duration::ZERO),
            Just(Duration::from_nanos(1)),
            Just(Duration::MAX),
            (0..100_000_000_000_u64).prop_map(Duration::from_nanos),
            (any::<u64>(), 0..1_000_000_000_u32).prop_map(|(secs, nanos)| Duration::new(secs, nanos)),
        ]
    }

    proptest! {
        #[test]
        fn jitter_keeps_within_its_bounds_for_any_input(
            first in a_duration(), longest in a_duration(), n in any::<u32>(), seed in any::<u64>(),
        ) {
            let chance = Chance::seeded(seed);
            let bound = doubled(first, longest, n);
            let equal = chance.equal_jitter(first, longest, n);
            prop_assert!(bound / 2 <= equal && equal <= bound, "{equal:?} of {bound:?}");
            prop_assert!(chance.full_jitter(first, longest, n) <= bound);
        }

        #[test]
        fn doubling_is_what_arithmetic_says(first in a_duration(), longest in a_duration(), n in 0..33_u32) {
            let exact = first.as_nanos() << n;
            prop_assert_eq!(doubled(first, longest, n).as_nanos(), exact.min(longest.as_nanos()));
        }

        #[test]
        fn a_hint_is_never_shortened_and_never_stretched_by_more_than_a_second(
            delay in a_duration(), seed in any::<u64>(),
        ) {
            let waited = Chance::seeded(seed).lengthen(delay);
            let least = delay.max(SHORTEST_HINT);
            let most = least.saturating_add((least / 10).min(LONGEST_EXTRA));
            prop_assert!(least <= waited && waited <= most, "{delay:?} became {waited:?}");
        }
    }

    #[test]
    fn the_thousandth_retry_neither_overflows_nor_returns_at_once() {
        for n in [31, 32, 63, 64, 1_000, u32::MAX] {
            let wait = Chance::default().equal_jitter(FIRST, LONGEST, n);
            assert!(wait >= LONGEST / 2 && wait <= LONGEST, "{n}: {wait:?}");
        }
        assert_eq!(Chance::default().equal_jitter(Duration::ZERO, LONGEST, u32::MAX), Duration::ZERO);
    }

    // Three sessions made from one maker once had the same waits to the microsecond (case E1).
    #[test]
    fn two_instances_and_two_clones_do_not_wait_alike() {
        let waits = |chance: &Chance| -> Vec<Duration> {
            (0..8).map(|n| chance.equal_jitter(FIRST, LONGEST, n)).collect()
        };
        let (one, other) = (Chance::default(), Chance::default());
        assert_ne!(waits(&one), waits(&other));
        assert_ne!(waits(&one), waits(&one.clone()));
        let seeded = Chance::seeded(7);
        assert_ne!(waits(&seeded), waits(&seeded.clone()));
        assert_eq!(waits(&Chance::seeded(7)), waits(&Chance::seeded(7)));
    }

    #[test]
    fn what_was_drawn_beforehand_stays_within_the_bounds() {
        let waits = [f64::NAN, f64::NEG_INFINITY, -1.0, 0.0, 0.5, 1.0, f64::INFINITY]
            .map(|draw| Chance::drawn(draw).equal_jitter(FIRST, LONGEST, 0).as_millis());
        assert_eq!(waits, [250, 250, 250, 250, 375, 500, 500]);
    }

    #[test]
    fn two_threads_do_not_wait_alike() {
        let draws = || -> Vec<u64> {
            let chance = Chance::default();
            (0..8).map(|_| chance.fraction().to_bits()).collect()
        };
        let other = std::thread::spawn(draws);
        assert_ne!(draws(), other.join().unwrap());
    }

    /// Mean and standard deviation of draws in units of `whole`, with the least and the most.
    fn statistics(whole: Duration, mut draw: impl FnMut() -> Duration) -> [f64; 4] {
        let draws: Vec<f64> = (0..10_000).map(|_| draw().as_secs_f64() / whole.as_secs_f64()).collect();
        let mean = draws.iter().sum::<f64>() / 10_000.0;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 10_000.0;
        let least = draws.iter().copied().fold(f64::MAX, f64::min);
        [mean, variance.sqrt(), least, draws.iter().copied().fold(f64::MIN, f64::max)]
    }

    fn assert_near(measured: [f64; 4], expected: [f64; 4]) {
        for (measured, expected) in measured.into_iter().zip(expected) {
            assert!((measured - expected).abs() < 0.01, "{measured} is not {expected}");
        }
    }

    #[test]
    fn ten_thousand_draws_fill_their_range_evenly() {
        // A uniform distribution deviates by its width over the root of twelve.
        let (chance, root) = (Chance::seeded(1), 12_f64.sqrt());
        let whole = FIRST * 8;
        let equal = statistics(whole, || chance.equal_jitter(FIRST, LONGEST, 3));
        assert_near(equal, [0.75, 0.5 / root, 0.5, 1.0]);
        let full = statistics(whole, || chance.full_jitter(FIRST, LONGEST, 3));
        assert_near(full, [0.5, 1.0 / root, 0.0, 1.0]);
        let hint = Duration::from_secs(2);
        assert_near(statistics(hint, || chance.lengthen(hint)), [1.05, 0.1 / root, 1.0, 1.1]);
    }
}
