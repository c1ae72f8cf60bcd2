//! A store in memory.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::record::Record;
use super::token_store::{Acquired, Entry, StoreKey, TokenStore, Write};
use crate::clock::{self, WallClock};
use crate::error::Error;

/// A store in memory: for tests, and for several caches of one process. Clones share their entries.
///
/// An entry is dropped once its [`keep_for`](Write::keep_for) is over and another key is written.
///
/// # Examples
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// use std::time::Duration;
/// use tower_oauth2::store::{Acquired, MemoryStore, StoreKey, TokenStore as _, Write};
///
/// let (store, key) = (MemoryStore::new(), StoreKey::new("billing")?);
/// let Acquired::Taken(fence) = store.acquire(&key, Duration::from_secs(10)).await? else { panic!("it is free") };
/// let keep_for = Duration::from_secs(3600);
/// let write = Write { replaces: 0, version: 1, fence, keep_for, value: "sealed".into() };
/// assert!(store.swap(&key, write).await?);
/// assert_eq!(store.load(&key).await?.map(|entry| entry.version), Some(1));
/// # Ok::<_, tower_oauth2::Error>(()) })?;
/// # Ok::<_, tower::BoxError>(())
/// ```
#[derive(Clone, Default)]
pub struct MemoryStore {
    shared: Arc<MemoryShared>,
}

#[derive(Default)]
struct MemoryShared {
    records: Mutex<HashMap<StoreKey, Record>>,
    changed: Notify,
    /// When the first call came: the beginning of all times.
    began: OnceLock<Instant>,
}

impl MemoryStore {
    /// Creates an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StoreKey, Record>> {
        // Every change under this lock is whole.
        self.shared.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the time since the beginning. Only under the lock: no record then has a time that is later.
    fn now(&self) -> Duration {
        let now = clock::now();
        now.saturating_duration_since(*self.shared.began.get_or_init(|| now))
    }
}

impl TokenStore for MemoryStore {
    async fn load(&self, key: &StoreKey) -> Result<Option<Entry>, Error> {
        let records = self.lock();
        let now = self.now();
        Ok(records.get(key).and_then(|record| record.load(now)))
    }

    async fn swap(&self, key: &StoreKey, write: Write) -> Result<bool, Error> {
        let is_written = {
            let mut records = self.lock();
            let now = self.now();
            records.retain(|other, record| other == key || !record.is_over(now));
            records.entry(key.clone()).or_default().swap(write, now)
        };
        if is_written {
            self.shared.changed.notify_waiters();
        }
        Ok(is_written)
    }

    async fn acquire(&self, key: &StoreKey, period: Duration) -> Result<Acquired, Error> {
        let mut records = self.lock();
        let (now, wall) = (self.now(), Duration::from_nanos(WallClock::default().nanos()));
        Ok(records.entry(key.clone()).or_default().acquire(period, now, wall))
    }

    async fn extend(&self, key: &StoreKey, fence: u64, period: Duration) -> Result<bool, Error> {
        let mut records = self.lock();
        let now = self.now();
        Ok(records.get_mut(key).is_some_and(|record| record.extend(fence, period, now)))
    }

    async fn release(&self, key: &StoreKey, fence: u64) -> Result<(), Error> {
        let is_released = self.lock().get_mut(key).is_some_and(|record| record.release(fence));
        if is_released {
            self.shared.changed.notify_waiters();
        }
        Ok(())
    }

    async fn changed(&self, key: &StoreKey, version: u64) -> Result<(), Error> {
        let mut notified = std::pin::pin!(self.shared.changed.notified());
        // Before the look, so that a write between the two wakes it.
        notified.as_mut().enable();
        let newest = {
            let records = self.lock();
            let now = self.now();
            records.get(key).map_or(0, |record| record.version(now))
        };
        if newest == version {
            notified.await;
        }
        Ok(())
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("entries", &self.lock().len()).finish()
    }
}
