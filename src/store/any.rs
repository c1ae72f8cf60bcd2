//! A store that the configuration chooses.

use std::fmt;
use std::time::Duration;

use crate::error::Error;
#[cfg(feature = "file-store")]
use crate::store::file::FileStore;
use crate::store::memory::MemoryStore;
#[cfg(feature = "redis")]
use crate::store::redis::RedisStore;
use crate::store::token_store::{Acquired, Entry, StoreKey, TokenStore, Write};
use crate::text;

/// Creates the store that a URL names, so that a setting can choose it.
///
/// | URL | store | feature |
/// |---|---|---|
/// | `memory:` | [`MemoryStore`], a new one each time | |
/// | `file:/var/lib/billing/tokens` | `FileStore` in that directory | `file-store` |
/// | `redis://…`, `rediss://…` (TLS), `redis+sentinel://…`, and the same with `valkey` | `RedisStore` | `redis` |
/// | `redis+cluster://…` | `RedisStore` | `redis-cluster` |
///
/// Spaces and line ends around it are left out: they are of the file or the variable that it was read from.
///
/// # Errors
///
/// A configuration error if the URL is none of these, or if the feature is missing. The URL is not repeated: it may hold a
/// password.
///
/// # Examples
///
/// ```
/// use tower_oauth2::store;
///
/// let store = store::from_url("memory:")?;
/// assert!(store::from_url("postgres://localhost").is_err());
/// # let _ = store;
/// # Ok::<_, tower_oauth2::Error>(())
/// ```
pub fn from_url(url: &str) -> Result<impl TokenStore + Clone + fmt::Debug + use<>, Error> {
    let url = text::visible(url);
    let (scheme, rest) = url.split_once(':').unwrap_or_default();
    let store = match scheme {
        "memory" if rest.is_empty() => AnyStore::Memory(MemoryStore::new()),
        #[cfg(feature = "file-store")]
        "file" => AnyStore::File(FileStore::open(path(rest)?)?),
        #[cfg(feature = "redis")]
        _ if is_redis(scheme) => AnyStore::Redis(RedisStore::connect(url)?),
        #[cfg(not(feature = "file-store"))]
        "file" => {
            return Err(Error::config(
                "a token store in files needs the feature `file-store` of tower-oauth2",
            ));
        }
        #[cfg(not(feature = "redis"))]
        _ if is_redis(scheme) => {
            return Err(Error::config("a token store in Redis needs the feature `redis` of tower-oauth2"));
        }
        _ => {
            return Err(Error::config(
                "the URL of a token store begins with redis:// or rediss://, is file: with an absolute path, or memory:",
            ));
        }
    };
    Ok(store)
}

/// Returns whether a URL with this scheme is one of Redis, even if the rest of it is malformed.
fn is_redis(scheme: &str) -> bool {
    ["redis", "rediss", "valkey", "valkeys"].contains(&scheme.split('+').next().unwrap_or_default())
}

/// The path of `file:/path` and `file:///path` (RFC 8089).
#[cfg(feature = "file-store")]
fn path(rest: &str) -> Result<std::path::PathBuf, Error> {
    let path = std::path::PathBuf::from(rest.strip_prefix("//").unwrap_or(rest));
    if path.is_absolute() {
        return Ok(path);
    }
    Err(Error::config(
        "the URL of a token store in files needs an absolute path, as in file:/var/lib/billing/tokens",
    ))
}

/// One of the stores of this crate.
#[derive(Clone)]
enum AnyStore {
    Memory(MemoryStore),
    #[cfg(feature = "file-store")]
    File(FileStore),
    #[cfg(feature = "redis")]
    Redis(RedisStore),
}

/// Calls the store that it is.
macro_rules! call {
    ($any:ident, $store:ident => $call:expr) => {
        match $any {
            AnyStore::Memory($store) => $call,
            #[cfg(feature = "file-store")]
            AnyStore::File($store) => $call,
            #[cfg(feature = "redis")]
            AnyStore::Redis($store) => $call,
        }
    };
}

impl TokenStore for AnyStore {
    async fn load(&self, key: &StoreKey) -> Result<Option<Entry>, Error> {
        call!(self, store => store.load(key).await)
    }

    async fn swap(&self, key: &StoreKey, write: Write) -> Result<bool, Error> {
        call!(self, store => store.swap(key, write).await)
    }

    async fn acquire(&self, key: &StoreKey, period: Duration) -> Result<Acquired, Error> {
        call!(self, store => store.acquire(key, period).await)
    }

    async fn extend(&self, key: &StoreKey, fence: u64, period: Duration) -> Result<bool, Error> {
        call!(self, store => store.extend(key, fence, period).await)
    }

    async fn release(&self, key: &StoreKey, fence: u64) -> Result<(), Error> {
        call!(self, store => store.release(key, fence).await)
    }

    async fn changed(&self, key: &StoreKey, version: u64) -> Result<(), Error> {
        call!(self, store => store.changed(key, version).await)
    }

    fn name(&self) -> Option<String> {
        call!(self, store => store.name())
    }
}

impl fmt::Debug for AnyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        call!(self, store => store.fmt(f))
    }
}
