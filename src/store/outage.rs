//! Whether a store works: one warning when it begins to fail, and one line when it has been well for a while.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::token_store::StoreKey;
use crate::clock;
use crate::error::Error;

/// A streak of failures ends with a success after so much time without one. A store that is slow, or works for a part of its
/// keys, fails now and then: that is one streak.
const WELL: Duration = Duration::from_secs(30);

/// The stores of this process that have a name, for as long as they are used.
static NAMED: Mutex<BTreeMap<String, Weak<Outage>>> = Mutex::new(BTreeMap::new());

/// Whether a store works, for all its keys together.
#[derive(Default)]
pub(super) struct Outage {
    /// The name of the store in the log.
    name: Option<String>,
    streak: Mutex<Streak>,
}

/// The calls that fail. A store may be full or read-only, and let itself be read all the same.
#[derive(Default)]
struct Streak {
    /// The calls that failed when they were last made: a bit each.
    failing: u8,
    /// When a call failed last. Without it the store is well.
    failed_at: Option<Instant>,
}

/// The calls that can fail. A number is a bit.
#[derive(Clone, Copy)]
pub(super) enum Call {
    Load = 1,
    Open = 2,
    Acquire = 4,
    Swap = 8,
}

impl Outage {
    /// Returns what all users of the store with this name share.
    pub(super) fn of(name: Option<String>) -> Arc<Self> {
        let Some(name) = name else { return Arc::default() };
        let mut named = NAMED.lock().unwrap_or_else(PoisonError::into_inner);
        named.retain(|_, outage| outage.strong_count() > 0);
        if let Some(outage) = named.get(&name).and_then(Weak::upgrade) {
            return outage;
        }
        let outage = Arc::new(Self { name: Some(name.clone()), streak: Mutex::default() });
        named.insert(name, Arc::downgrade(&outage));
        outage
    }

    /// Warns if the store was well until now.
    pub(super) fn failed(&self, call: Call, key: &StoreKey, error: &Error) {
        let is_first = {
            let (mut streak, now) = (self.streak(), clock::now());
            let is_first = streak.is_over(now) || streak.failed_at.is_none();
            streak.failing |= call as u8;
            streak.failed_at = Some(now);
            is_first
        };
        let (store, key) = (self.name.as_deref(), key.as_str());
        let cause = std::error::Error::source(error).map(ToString::to_string);
        if is_first {
            tracing::warn!(
                store, key, %error, cause,
                "the token store is out of order; until it works, this process shares no tokens"
            );
        } else {
            tracing::debug!(store, key, %error, cause, "the token store is still out of order");
        }
    }

    /// Notes that a call worked, and logs it if the store is well from now on. Each failed call must have worked again: the
    /// others prove nothing.
    pub(super) fn worked(&self, call: Call) {
        let is_over = {
            let mut streak = self.streak();
            streak.failing &= !(call as u8);
            let is_over = streak.is_over(clock::now());
            if is_over {
                streak.failed_at = None;
            }
            is_over
        };
        if is_over {
            tracing::info!(store = self.name, "the token store works again");
        }
    }

    fn streak(&self) -> MutexGuard<'_, Streak> {
        // Every change under this lock is a few assignments.
        self.streak.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Streak {
    /// Returns whether all that failed works, and for long enough. Where calls are rare no call may have said so.
    fn is_over(&self, now: Instant) -> bool {
        let is_long_ago = |at: Instant| now.saturating_duration_since(at) >= WELL;
        self.failing == 0 && self.failed_at.is_some_and(is_long_ago)
    }
}

impl Call {
    /// Returns the name of the call in metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Open => "open",
            Self::Acquire => "acquire",
            Self::Swap => "swap",
        }
    }
}
