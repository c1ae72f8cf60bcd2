//! A count to which many threads add.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A count to which many threads add all the time, and which is read now and then.
///
/// Each thread adds to a part of its own, on a cache line of its own: where two threads write to one line, each write costs
/// as much as the rest of a request that is not retried.
#[derive(Debug, Default)]
pub(in crate::retry) struct Tally {
    parts: [TallyPart; PARTS],
}

/// Lines are fetched in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct TallyPart(AtomicU64);

/// More threads than that share parts.
const PARTS: usize = 16;

thread_local! {
    static PART: Cell<Option<usize>> = const { Cell::new(None) };
}

impl Tally {
    #[inline]
    pub(in crate::retry) fn add_one(&self) {
        self.parts[part()].0.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the count, and begins anew.
    pub(in crate::retry) fn take(&self) -> u64 {
        self.parts.iter().map(|part| part.0.swap(0, Ordering::Relaxed)).sum()
    }
}

/// Returns the part of this thread. A thread that is ending has the first.
#[inline]
fn part() -> usize {
    PART.try_with(Cell::get).ok().flatten().unwrap_or_else(new_part)
}

#[cold]
fn new_part() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    let part = THREADS.fetch_add(1, Ordering::Relaxed) % PARTS;
    let _ = PART.try_with(|own| own.set(Some(part)));
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_add_at_once_is_counted_once() {
        let tally = Tally::default();
        let taken = std::thread::scope(|scope| {
            for _ in 0..2 * PARTS {
                scope.spawn(|| (0..1_000).for_each(|_| tally.add_one()));
            }
            (0..100).map(|_| tally.take()).sum::<u64>()
        });
        assert_eq!(taken + tally.take(), 2_000 * u64::try_from(PARTS).unwrap());
        assert_eq!(tally.take(), 0);
    }
}
