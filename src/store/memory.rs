//! A store in memory.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::token_store::{Acquired, Entry, Lease, StoreKey, TokenStore, Write, next_number};
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
/// let Acquired::Taken(lease) = store.acquire(&key, Duration::from_secs(10)).await? else { panic!("it is free") };
/// let write = Write::new(0, 1, lease.fence, Duration::from_secs(3600), "sealed".into());
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
    slots: Mutex<HashMap<StoreKey, Slot>>,
    changed: Notify,
}

/// What is known of one key.
#[derive(Default)]
struct Slot {
    entry: Option<Stored>,
    /// The fence of the newest lease.
    fence: u64,
    leased_until: Option<Instant>,
}

struct Stored {
    version: u64,
    fence: u64,
    written: Instant,
    ends: Instant,
    value: bytes::Bytes,
}

impl MemoryStore {
    /// Creates an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StoreKey, Slot>> {
        self.shared.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn current(&self, now: Instant) -> Option<&Stored> {
        self.entry.as_ref().filter(|entry| now < entry.ends)
    }

    fn is_leased(&self, now: Instant) -> Option<Duration> {
        let until = self.leased_until?;
        (now < until).then(|| until.saturating_duration_since(now))
    }

    fn holds(&self, lease: Lease, now: Instant) -> bool {
        self.fence == lease.fence && self.is_leased(now).is_some()
    }
}

impl TokenStore for MemoryStore {
    async fn load(&self, key: &StoreKey) -> Result<Option<Entry>, Error> {
        let now = clock::now();
        let slots = self.lock();
        Ok(slots.get(key).and_then(|slot| slot.current(now)).map(|stored| Entry {
            version: stored.version,
            fence: stored.fence,
            age: now.saturating_duration_since(stored.written),
            value: stored.value.clone(),
        }))
    }

    async fn swap(&self, key: &StoreKey, write: Write) -> Result<bool, Error> {
        let now = clock::now();
        {
            let mut slots = self.lock();
            slots.retain(|other, slot| {
                other == key || slot.current(now).is_some() || slot.is_leased(now).is_some()
            });
            let slot = slots.entry(key.clone()).or_default();
            let version = slot.current(now).map_or(0, |stored| stored.version);
            if version != write.replaces || write.fence < slot.fence {
                return Ok(false);
            }
            slot.entry = Some(Stored {
                version: write.version,
                fence: write.fence,
                written: now,
                ends: clock::after(now, write.keep_for),
                value: write.value,
            });
        }
        self.shared.changed.notify_waiters();
        Ok(true)
    }

    async fn acquire(&self, key: &StoreKey, period: Duration) -> Result<Acquired, Error> {
        let now = clock::now();
        let mut slots = self.lock();
        let slot = slots.entry(key.clone()).or_default();
        if let Some(remaining) = slot.is_leased(now) {
            return Ok(Acquired::Held(remaining));
        }
        slot.fence = next_number(slot.fence, Duration::from_nanos(WallClock::default().moment().wall));
        slot.leased_until = Some(clock::after(now, period));
        Ok(Acquired::Taken(Lease { fence: slot.fence }))
    }

    async fn extend(&self, key: &StoreKey, lease: Lease, period: Duration) -> Result<bool, Error> {
        let now = clock::now();
        let mut slots = self.lock();
        let Some(slot) = slots.get_mut(key).filter(|slot| slot.holds(lease, now)) else { return Ok(false) };
        slot.leased_until = Some(clock::after(now, period));
        Ok(true)
    }

    async fn release(&self, key: &StoreKey, lease: Lease) -> Result<(), Error> {
        let now = clock::now();
        if let Some(slot) = self.lock().get_mut(key).filter(|slot| slot.holds(lease, now)) {
            slot.leased_until = None;
        } else {
            return Ok(());
        }
        self.shared.changed.notify_waiters();
        Ok(())
    }

    async fn changed(&self, key: &StoreKey, version: u64) -> Result<(), Error> {
        let mut notified = std::pin::pin!(self.shared.changed.notified());
        // Before the look, so that a write between the two wakes it.
        notified.as_mut().enable();
        let now = clock::now();
        let is_newer = self
            .lock()
            .get(key)
            .and_then(|slot| slot.current(now))
            .map_or(version != 0, |stored| stored.version != version);
        if !is_newer {
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
