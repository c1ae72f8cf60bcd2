//! A store in memory that a test can break.

use std::fmt;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tower_oauth2::store::{Acquired, Entry, MemoryStore, StoreKey, TokenStore, Write};
use tower_oauth2::{Error, ErrorKind};

/// What is wrong with a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fault {
    #[default]
    None,
    /// Every call fails.
    Error,
    Panic,
    /// No call ever ends.
    Hang,
    HangOn(&'static str),
    /// Every third call takes longer than the timeout.
    Uneven,
    /// Each call takes so many milliseconds.
    Slow(u64),
    ReadOnly,
    /// A lease is small, and a value is not.
    Full,
    /// The next write arrives, and its reply is lost.
    ReplyLost,
    /// A lease cannot be extended.
    NoExtension,
    /// What was written before comes back changed.
    Tampered,
    CutOff,
    Foreign,
    RolledBack,
    /// The value is that of another key.
    Swapped,
    /// Waiters are told nothing.
    Silent,
}

#[derive(Clone, Default)]
pub(crate) struct FaultyStore {
    inner: Arc<Mutex<MemoryStore>>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    fault: Fault,
    calls: Vec<&'static str>,
    /// What was written, in order.
    written: Vec<(Write, StoreKey)>,
}

impl FaultyStore {
    pub(crate) fn set(&self, fault: Fault) {
        self.state.lock().unwrap().fault = fault;
    }

    pub(crate) fn calls(&self) -> Vec<&'static str> {
        self.state.lock().unwrap().calls.clone()
    }

    pub(crate) fn forget_calls(&self) {
        self.state.lock().unwrap().calls.clear();
    }

    /// The value that was written last.
    pub(crate) fn holds(&self) -> Option<Bytes> {
        self.state.lock().unwrap().written.last().map(|(write, _)| write.value.clone())
    }

    /// The same store, with faults of its own.
    pub(crate) fn seen_by_another_process(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), state: Arc::default() }
    }

    /// Loses everything, as a store without a disk that is started again.
    pub(crate) fn lose_everything(&self) {
        *self.inner.lock().unwrap() = MemoryStore::new();
    }

    fn inner(&self) -> MemoryStore {
        self.inner.lock().unwrap().clone()
    }

    async fn call(&self, name: &'static str) -> Result<(), Error> {
        let fault = {
            let mut state = self.state.lock().unwrap();
            state.calls.push(name);
            state.fault
        };
        match fault {
            Fault::Error => Err(Error::new(ErrorKind::Transient, "connection refused")),
            Fault::Panic => panic!("the store panics"),
            Fault::Hang => pending().await,
            Fault::HangOn(slow) if slow == name => pending().await,
            Fault::Slow(millis) => {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                Ok(())
            }
            Fault::Uneven => {
                let is_third = self.calls().len().is_multiple_of(3);
                tokio::time::sleep(Duration::from_millis(if is_third { 300 } else { 200 })).await;
                Ok(())
            }
            Fault::ReadOnly if name != "load" => Err(Error::new(ErrorKind::Transient, "READONLY")),
            Fault::Full if name == "swap" => Err(Error::new(ErrorKind::Transient, "out of memory")),
            _ => Ok(()),
        }
    }

    /// Changes an entry as the fault says.
    fn changed(&self, entry: Entry) -> Entry {
        let state = self.state.lock().unwrap();
        let value = match state.fault {
            Fault::Tampered => {
                let mut value = entry.value.to_vec();
                *value.last_mut().unwrap() ^= 1;
                value.into()
            }
            Fault::CutOff => entry.value.slice(..20),
            Fault::Foreign => Bytes::from_static(b"{\"token\":\"mine\"}"),
            Fault::RolledBack => {
                // As after a restore of a backup: all of the first entry.
                let (write, _) = &state.written[0];
                return Entry {
                    version: write.version,
                    fence: write.fence,
                    age: Duration::ZERO,
                    value: write.value.clone(),
                };
            }
            Fault::Swapped => state.written[0].0.value.clone(),
            _ => return entry,
        };
        Entry { value, ..entry }
    }
}

impl TokenStore for FaultyStore {
    async fn load(&self, key: &StoreKey) -> Result<Option<Entry>, Error> {
        self.call("load").await?;
        Ok(self.inner().load(key).await?.map(|entry| self.changed(entry)))
    }

    async fn swap(&self, key: &StoreKey, mut write: Write) -> Result<bool, Error> {
        self.call("swap").await?;
        if self.state.lock().unwrap().fault == Fault::RolledBack {
            // The writer has seen the entry that came back.
            write.replaces = self.inner().load(key).await?.map_or(0, |entry| entry.version);
        }
        let written = self.inner().swap(key, write.clone()).await?;
        if written {
            self.state.lock().unwrap().written.push((write, key.clone()));
        }
        if self.state.lock().unwrap().fault == Fault::ReplyLost {
            self.set(Fault::None);
            return Err(Error::new(ErrorKind::Transient, "connection reset"));
        }
        Ok(written)
    }

    async fn acquire(&self, key: &StoreKey, period: Duration) -> Result<Acquired, Error> {
        self.call("acquire").await?;
        self.inner().acquire(key, period).await
    }

    async fn extend(&self, key: &StoreKey, fence: u64, period: Duration) -> Result<bool, Error> {
        self.call("extend").await?;
        if self.state.lock().unwrap().fault == Fault::NoExtension {
            return Ok(false);
        }
        self.inner().extend(key, fence, period).await
    }

    async fn release(&self, key: &StoreKey, fence: u64) -> Result<(), Error> {
        self.call("release").await?;
        self.inner().release(key, fence).await
    }

    async fn changed(&self, key: &StoreKey, version: u64) -> Result<(), Error> {
        if self.state.lock().unwrap().fault == Fault::Silent {
            pending::<()>().await;
        }
        self.inner().changed(key, version).await
    }

    fn name(&self) -> Option<String> {
        Some(format!("faulty:{:p}", Arc::as_ptr(&self.state)))
    }
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyStore").finish_non_exhaustive()
    }
}
