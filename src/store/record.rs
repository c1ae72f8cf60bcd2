//! The state of one key in a store, and how a call changes it. Times are since a beginning that all callers share.

use std::time::Duration;

use bytes::Bytes;

use super::token_store::{Acquired, Entry, Write, next_number};

/// By so much a clock is set back now and then.
const CLOCK_STEP: Duration = Duration::from_secs(5);

/// All that is known of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) entry: Option<Written>,
    /// The number of the newest lease.
    pub(super) fence: u64,
    /// When the newest lease began or was extended, and for how long.
    pub(super) leased: Option<(Duration, Duration)>,
}

/// An entry, from when it was written until it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) version: u64,
    pub(super) fence: u64,
    pub(super) written: Duration,
    pub(super) ends: Duration,
    pub(super) value: Bytes,
}

impl Record {
    pub(super) fn load(&self, now: Duration) -> Option<Entry> {
        self.current(now).map(|entry| {
            let age = match now.checked_sub(entry.written) {
                Some(age) => age,
                None if entry.written - now <= CLOCK_STEP => Duration::ZERO,
                // The clock was set back since: nothing says how old it is.
                None => Duration::MAX,
            };
            Entry { version: entry.version, fence: entry.fence, age, value: entry.value.clone() }
        })
    }

    pub(super) fn swap(&mut self, write: Write, now: Duration) -> bool {
        if self.version(now) != write.replaces || write.fence < self.fence {
            return false;
        }
        self.entry = Some(Written {
            version: write.version,
            fence: write.fence,
            written: now,
            ends: now.saturating_add(write.keep_for),
            value: write.value,
        });
        true
    }

    /// Takes the lease if it is free. Its number goes by the wall clock, which a store that has lost its data still has.
    pub(super) fn acquire(&mut self, period: Duration, now: Duration, wall: Duration) -> Acquired {
        if let Some(left) = self.lease_left(now) {
            return Acquired::Held(left);
        }
        self.fence = next_number(self.fence, wall);
        self.leased = Some((now, period));
        Acquired::Taken(self.fence)
    }

    pub(super) fn extend(&mut self, fence: u64, period: Duration, now: Duration) -> bool {
        let is_running = self.fence == fence && self.lease_left(now).is_some();
        if is_running {
            self.leased = Some((now, period));
        }
        is_running
    }

    /// Returns whether it was the newest lease, and not released before.
    pub(super) fn release(&mut self, fence: u64) -> bool {
        self.fence == fence && self.leased.take().is_some()
    }

    /// Returns the version of the entry, zero if there is none.
    pub(super) fn version(&self, now: Duration) -> u64 {
        self.current(now).map_or(0, |entry| entry.version)
    }

    /// Returns whether neither an entry nor a lease is left.
    pub(super) fn is_over(&self, now: Duration) -> bool {
        self.current(now).is_none() && self.lease_left(now).is_none()
    }

    fn current(&self, now: Duration) -> Option<&Written> {
        self.entry.as_ref().filter(|entry| now < entry.ends)
    }

    /// Returns how long the newest lease runs on. One that begins later than now still runs: the clock was set back a little.
    /// If that is by more than the whole lease, its end would be too far away to wait for it, and it counts as ended.
    fn lease_left(&self, now: Duration) -> Option<Duration> {
        let (began, period) = self.leased?;
        if began.saturating_sub(now) > period {
            return None;
        }
        let left = period.saturating_sub(now.saturating_sub(began));
        (!left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_was_written_later_than_now_is_new_or_of_any_age() {
        let written = Duration::from_secs(3600);
        let (ends, value) = (Duration::from_secs(7200), Bytes::new());
        let entry = Some(Written { version: 1, fence: 1, written, ends, value });
        let record = Record { entry, ..Record::default() };
        let age = |now| record.load(Duration::from_secs(now)).unwrap().age;
        assert_eq!(
            (age(3610), age(3600), age(3599)),
            (Duration::from_secs(10), Duration::ZERO, Duration::ZERO)
        );
        // The clock was set back by an hour: a token of the hour before must not live for another.
        assert_eq!((age(3590), age(0)), (Duration::MAX, Duration::MAX));
    }

    #[test]
    fn a_lease_that_begins_a_little_later_runs_and_one_that_begins_after_its_whole_time_has_ended() {
        let period = Duration::from_millis(500);
        let leased = Some((Duration::from_millis(2_000), period));
        let record = Record { leased, ..Record::default() };
        let left = |now| record.lease_left(Duration::from_millis(now));
        assert_eq!((left(2_100), left(2_500)), (Some(Duration::from_millis(400)), None));
        assert_eq!((left(1_999), left(1_500)), (Some(period), Some(period)));
        assert_eq!((left(1_499), left(0)), (None, None));
        assert!(!record.is_over(Duration::from_millis(1_999)));
        let mut record = record;
        let acquired = record.acquire(period, Duration::from_millis(1_999), Duration::ZERO);
        assert_eq!(acquired, Acquired::Held(period));
    }
}
