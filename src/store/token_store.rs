//! The contract of a store, and what it keeps.

use std::fmt;
use std::future::{self, Future};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::error::Error;

/// Keeps values that several processes share: load, compare-and-swap, and a lease with a fence.
///
/// A store that you write yourself is shown to keep the [rules](crate::store) by `test_util::check_token_store`.
///
/// # Cancel safety
///
/// Each future may be dropped at any time, as at a timeout. The call has then happened or not, and the entry is whole.
///
/// # Errors
///
/// Every method returns the error that stops the store, as a [transient](crate::ErrorKind::Transient) error without secrets. Its users
/// take any error as "no store at the moment".
pub trait TokenStore: Send + Sync + 'static {
    /// Returns the entry of `key`, or `None` if there is none.
    fn load(&self, key: &StoreKey) -> impl Future<Output = Result<Option<Entry>, Error>> + Send;

    /// Writes an entry if that of `key` has the version `write.replaces` (zero: there is none), and no lease of the key has
    /// a fence above `write.fence`. Returns whether it was written.
    fn swap(&self, key: &StoreKey, write: Write) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Takes the lease of `key` for `period`, if no other is running.
    fn acquire(
        &self,
        key: &StoreKey,
        period: Duration,
    ) -> impl Future<Output = Result<Acquired, Error>> + Send;

    /// Lets the lease with this fence run for `period` from now. Returns whether it was still running.
    fn extend(
        &self,
        key: &StoreKey,
        fence: u64,
        period: Duration,
    ) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Ends the lease with this fence. One that has ended already, or was followed by another, is left alone.
    fn release(&self, key: &StoreKey, fence: u64) -> impl Future<Output = Result<(), Error>> + Send;

    /// Returns what the log calls the store, such as its address without a password.
    ///
    /// Stores with the same name are one store to the log: a process logs one warning when it fails, not one for each key.
    /// Without an implementation each [`Shared`](super::Shared) logs its own.
    fn name(&self) -> Option<String> {
        None
    }

    /// Completes when the entry of `key` may have another version than `version`, or when a lease of the key has ended.
    ///
    /// Without an implementation it never completes, and the store is polled.
    fn changed(&self, key: &StoreKey, version: u64) -> impl Future<Output = Result<(), Error>> + Send {
        let _ = (key, version);
        future::pending()
    }
}

/// The name of an entry: letters, digits, `-`, `_` and `.`, so that it can stand in a file name and in a Redis key.
///
/// # Examples
///
/// ```
/// use tower_oauth2::store::StoreKey;
///
/// assert_eq!(StoreKey::new("billing-eu")?.as_str(), "billing-eu");
/// assert!(StoreKey::new("../billing").is_err());
/// # Ok::<_, tower_oauth2::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoreKey(Arc<str>);

impl StoreKey {
    /// The longest key, in bytes.
    const LONGEST: usize = 128;

    /// Creates a key.
    ///
    /// # Errors
    ///
    /// A configuration error if it is empty, longer than 128 bytes, begins with a dot, or holds another character than
    /// letters and digits of ASCII, `-`, `_` and `.`.
    pub fn new(key: impl AsRef<str>) -> Result<Self, Error> {
        let key = key.as_ref();
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if key.is_empty() || key.len() > Self::LONGEST || key.starts_with('.') || !key.bytes().all(fits) {
            return Err(Error::config(
                "the key of a stored token must have 1 to 128 letters, digits, '-', '_' or '.', and no dot in front",
            ));
        }
        Ok(Self(key.into()))
    }

    /// Returns the key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreKey({})", self.0)
    }
}

/// The entry of a key in a store.
///
/// # Examples
///
/// A method of a store that you write yourself, over a table with these columns:
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use tower_oauth2::store::Entry;
///
/// struct Row {
///     version: u64,
///     fence: u64,
///     written_at: SystemTime,
///     value: Vec<u8>,
/// }
///
/// fn entry(row: Row, now: SystemTime) -> Entry {
///     let age = now.duration_since(row.written_at).unwrap_or_default();
///     Entry { version: row.version, fence: row.fence, age, value: row.value.into() }
/// }
/// # let (at, now) = (SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH + Duration::from_secs(5));
/// # let read = entry(Row { version: 2, fence: 1, written_at: at, value: b"sealed".to_vec() }, now);
/// # assert_eq!((read.age, &read.value[..]), (Duration::from_secs(5), &b"sealed"[..]));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// Which write this is. No two writes of a key have the same.
    pub version: u64,
    /// The fence of the writer's lease.
    pub fence: u64,
    /// How long ago it was written, by the clock of the store.
    pub age: Duration,
    /// The value as it was written.
    pub value: Bytes,
}

/// The value is left out: it may be a token in plain text.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("version", &self.version)
            .field("fence", &self.fence)
            .field("age", &self.age)
            .finish_non_exhaustive()
    }
}

/// An entry that is to be written, see [`TokenStore::swap`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_oauth2::store::{MemoryStore, StoreKey, TokenStore as _, Write};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let (store, key) = (MemoryStore::new(), StoreKey::new("billing")?);
/// let write = Write {
///     replaces: 0,
///     version: 1,
///     fence: 0,
///     keep_for: Duration::from_secs(3600),
///     value: "sealed".into(),
/// };
/// assert!(store.swap(&key, write.clone()).await?);
/// // The entry has the version 1 by now, and not 0.
/// assert!(!store.swap(&key, write).await?);
/// assert_eq!(store.load(&key).await?.map(|entry| entry.version), Some(1));
/// # Ok::<_, tower_oauth2::Error>(()) })?;
/// # Ok::<_, tower::BoxError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Write {
    /// The version that the writer has seen, zero if there was no entry.
    pub replaces: u64,
    /// The version of the new entry, above `replaces`.
    pub version: u64,
    /// The fence of the writer's lease.
    pub fence: u64,
    /// How long the store keeps the entry at least. It may drop it afterwards.
    pub keep_for: Duration,
    /// The value, which is not to be read.
    pub value: Bytes,
}

/// The value is left out: it may be a token in plain text.
impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Write")
            .field("replaces", &self.replaces)
            .field("version", &self.version)
            .field("fence", &self.fence)
            .field("keep_for", &self.keep_for)
            .finish_non_exhaustive()
    }
}

/// The result of [`TokenStore::acquire`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_oauth2::store::{Acquired, MemoryStore, StoreKey, TokenStore as _};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let (store, key) = (MemoryStore::new(), StoreKey::new("billing")?);
/// let period = Duration::from_secs(10);
/// let Acquired::Taken(fence) = store.acquire(&key, period).await? else { panic!("another process has it") };
/// assert!(matches!(store.acquire(&key, period).await?, Acquired::Held(left) if left <= period));
/// store.release(&key, fence).await?;
/// assert!(matches!(store.acquire(&key, period).await?, Acquired::Taken(next) if next > fence));
/// # Ok::<_, tower_oauth2::Error>(()) })?;
/// # Ok::<_, tower::BoxError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// The lease is the caller's. This is its fence: above that of every lease of the key before it.
    Taken(u64),
    /// Another lease runs, for this long at most.
    Held(Duration),
}

/// Returns the number of the next lease or version: above `last`, and by the clock above all numbers of a store that has
/// lost its data.
pub(crate) fn next_number(last: u64, now: Duration) -> u64 {
    let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
    last.saturating_add(1).max(now)
}
