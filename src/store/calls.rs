//! The calls to a store for one key: each has a timeout, and what it keeps is sealed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::time::{sleep, sleep_until, timeout};

use super::outage::{Call, Outage};
use super::sealing::{Place, SealingKey};
use super::token_store::{Acquired, Entry, StoreKey, TokenStore, Write, next_number};
use super::value::StoredValue;
use crate::clock::{self, WallClock};
use crate::error::Error;
use crate::runtime::caught;
use crate::source::SharedRefreshToken;
use crate::telemetry;

/// A store as one key sees it.
pub(super) struct Calls<T> {
    pub(super) store: T,
    pub(super) key: StoreKey,
    pub(super) sealing: SealingKey,
    pub(super) timeout: Duration,
    pub(super) wall: WallClock,
    pub(super) outage: Arc<Outage>,
    pub(super) seen: Mutex<Seen>,
}

/// The newest state of the entry that this process has seen. A store may forget it later.
#[derive(Default)]
pub(super) struct Seen {
    /// The highest version.
    version: u64,
    /// The newest refresh token.
    refresh_token: Option<SharedRefreshToken>,
}

/// The result of a read.
#[derive(Default)]
pub(super) struct Read {
    /// The version that is there, and the fence of its writer; zero if there is none.
    pub(super) version: u64,
    pub(super) fence: u64,
    /// Empty if there is none, or none that can be used, but for the refresh token if this process remembers one and what is
    /// there is not newer.
    pub(super) value: StoredValue,
    /// Why what is there cannot be used.
    pub(super) unusable: Option<Error>,
}

impl Read {
    /// Returns after how many failures a process begins to wait that has read this. An unusable value tells of none, and those
    /// that are found later may be old.
    pub(super) fn failures(&self) -> u64 {
        if self.unusable.is_some() { u64::MAX } else { self.value.failures }
    }
}

/// The store did not do what it was asked, for this reason. The warning was logged.
pub(super) struct Away(pub(super) Error);

impl<T: TokenStore> Calls<T> {
    /// Reads the entry.
    pub(super) async fn load(&self) -> Result<Read, Away> {
        let newest = self.seen().version;
        let began = self.wall.moment();
        let Some(entry) = self.call(Call::Load, self.store.load(&self.key)).await? else {
            return Ok(Read { value: self.remembered(), ..Read::default() });
        };
        let opened = if entry.version < newest {
            Err(Error::protocol(
                "the store has an older entry than it had before; was it restored from a backup?",
            ))
        } else {
            self.open(&entry).and_then(|text| StoredValue::decode(&text, entry.age, began))
        };
        let Entry { version, fence, .. } = entry;
        match opened {
            Ok(value) => {
                self.outage.worked(Call::Open);
                self.remember(version, &value);
                Ok(Read { version, fence, value, unusable: None })
            }
            Err(error) => {
                self.outage.failed(Call::Open, &self.key, &error);
                // In a newer one another process may have put the successor of the refresh token that is remembered here.
                let value = if version > newest { StoredValue::default() } else { self.remembered() };
                Ok(Read { version, fence, value, unusable: Some(error) })
            }
        }
    }

    /// Writes the entry in place of that version. Returns the version of the new one; none if another process was first.
    pub(super) async fn swap(
        &self,
        replaces: u64,
        fence: u64,
        value: &StoredValue,
    ) -> Result<Option<u64>, Away> {
        let now = self.wall.moment();
        let version = next_number(replaces.max(self.seen().version), Duration::from_nanos(now.wall));
        let place = Place { key: &self.key, version, fence };
        let write = match self.sealing.seal(&place, &value.encode(now)) {
            Ok(sealed) => Write { replaces, version, fence, keep_for: value.keep_for(now), value: sealed },
            Err(error) => {
                self.outage.failed(Call::Swap, &self.key, &error);
                return Err(Away(error));
            }
        };
        let is_written = self.call(Call::Swap, self.store.swap(&self.key, write)).await?;
        if is_written {
            self.remember(version, value);
        }
        Ok(is_written.then_some(version))
    }

    pub(super) async fn acquire(&self, period: Duration) -> Result<Acquired, Away> {
        self.call(Call::Acquire, self.store.acquire(&self.key, period)).await
    }

    /// Lets a lease run on. One that cannot be extended ends, and the next write tells.
    pub(super) async fn extend(&self, fence: u64, period: Duration) {
        let extended =
            timeout(self.timeout, caught(STORE, self.store.extend(&self.key, fence, period))).await;
        if !matches!(extended, Ok(Ok(true))) {
            tracing::debug!(key = self.key.as_str(), "the lease of the token store could not be extended");
        }
    }

    /// Ends a lease. One that cannot be ended runs out.
    pub(super) async fn release(&self, fence: u64) {
        let released = timeout(self.timeout, caught(STORE, self.store.release(&self.key, fence))).await;
        if !matches!(released, Ok(Ok(()))) {
            tracing::debug!(key = self.key.as_str(), "the lease of the token store runs out by itself");
        }
    }

    /// Waits for news of the entry, for no longer than `limit`.
    pub(super) async fn changed(&self, version: u64, limit: Duration) {
        let earliest = clock::after(clock::now(), SHORTEST_WAIT.min(limit));
        let changed = std::pin::pin!(caught(STORE, self.store.changed(&self.key, version)));
        // A store that cannot say it now is polled.
        if let Either::Left((Err(_), limit)) = select(changed, std::pin::pin!(sleep(limit))).await {
            limit.await;
        }
        // It may say so without a reason, again and again.
        sleep_until(earliest).await;
    }

    /// Returns what this process knows of the refresh token if the store knows nothing.
    pub(super) fn remembered(&self) -> StoredValue {
        StoredValue { refresh_token: self.seen().refresh_token.clone(), ..StoredValue::default() }
    }

    fn remember(&self, version: u64, value: &StoredValue) {
        let mut seen = self.seen();
        if version >= seen.version {
            *seen = Seen { version, refresh_token: value.refresh_token.clone() };
        }
    }

    fn open(&self, entry: &Entry) -> Result<impl std::ops::Deref<Target = Vec<u8>> + use<T>, Error> {
        let place = Place { key: &self.key, version: entry.version, fence: entry.fence };
        self.sealing.open(&place, &entry.value)
    }

    async fn call<R>(&self, call: Call, future: impl Future<Output = Result<R, Error>>) -> Result<R, Away> {
        let result = timeout(self.timeout, caught(STORE, future)).await.unwrap_or_else(|_elapsed| {
            Err(Error::transient(format!("the token store did not respond within {:?}", self.timeout)))
        });
        telemetry::store_call(call.name(), result.is_ok());
        match result {
            Ok(returned) => {
                self.outage.worked(call);
                Ok(returned)
            }
            Err(error) => {
                self.outage.failed(call, &self.key, &error);
                Err(Away(error))
            }
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Every change under this lock is one assignment.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A store that wakes its waiters at once is not asked more often than this.
const SHORTEST_WAIT: Duration = Duration::from_millis(10);

/// The name of the store in messages.
const STORE: &str = "the token store";
