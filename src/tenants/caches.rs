//! The set: who is in it, and who has to go.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::Extensions;
use tokio::time::Instant;

use super::builder::{Make, TenantCachesBuilder};
use crate::auth::AuthOverride;
use crate::cache::{Retired, TokenCache, TokenCacheBuilder};
use crate::clock;
use crate::error::Error;
use crate::extensions::CredentialId;

/// After a search that found no cache to evict, no other search starts for this long: a search walks through all caches, under
/// a lock, and a caller that can invent keys could ask for many.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A bounded set of [`TokenCache`]s, one for each key: users, tenants, scopes.
///
/// A handle is cheap to clone, and clones share everything. The [rules](super) say who stays and who goes; the
/// [builder](TenantCachesBuilder) has the bounds.
///
/// # Examples
///
/// ```
/// use http::Request;
/// use tower_oauth2::tenants::TenantCaches;
/// use tower_oauth2::{AccessToken, Error};
///
/// let caches = TenantCaches::new(|tenant: &String| {
///     Ok::<_, Error>(AccessToken::bearer(format!("token-of-{tenant}"))?)
/// });
/// let mut request = Request::get("https://api.example.com/orders").body(())?;
/// caches.authorize(request.extensions_mut(), "north")?;
/// # Ok::<_, tower::BoxError>(())
/// ```
#[doc(alias = "MultiTenant")]
#[doc(alias = "per_user")]
pub struct TenantCaches<K> {
    inner: Arc<CachesShared<K>>,
}

struct CachesShared<K> {
    make: Make<K>,
    capacity: usize,
    idle_after: u64,
    began: Instant,
    /// When idle caches are looked for next, in nanoseconds since the beginning.
    sweep: AtomicU64,
    /// Until when a search for a cache to evict would be in vain.
    crowded: AtomicU64,
    members: RwLock<TenantMembers<K>>,
    /// Makes the names of the credentials: the same for the same key, and not to be read back.
    names: RandomState,
}

struct TenantMembers<K> {
    caches: HashMap<K, TenantCache>,
    closed: bool,
}

struct TenantCache {
    cache: TokenCache,
    /// In nanoseconds since the beginning.
    used: AtomicU64,
}

impl<K: 'static> TenantCaches<K> {
    /// Creates a set with the defaults. `make` makes the source of a key, or a cache builder with windows of its own; it
    /// is called once for a key, and again after its cache has gone.
    #[must_use]
    pub fn new<C>(make: impl Fn(&K) -> Result<C, Error> + Send + Sync + 'static) -> Self
    where
        C: Into<TokenCacheBuilder>,
    {
        Self::builder(make).finish()
    }

    /// Starts the options of a set; `make` as for [`new`](Self::new).
    pub fn builder<C>(make: impl Fn(&K) -> Result<C, Error> + Send + Sync + 'static) -> TenantCachesBuilder<K>
    where
        C: Into<TokenCacheBuilder>,
    {
        TenantCachesBuilder::new(make)
    }
}

impl<K> TenantCaches<K> {
    pub(super) fn with(make: Make<K>, capacity: usize, idle_after: Duration) -> Self {
        let idle_after = clock::nanos(idle_after);
        let inner = CachesShared {
            make,
            capacity,
            idle_after,
            began: clock::now(),
            sweep: AtomicU64::new(idle_after),
            crowded: AtomicU64::new(0),
            members: RwLock::new(TenantMembers { caches: HashMap::new(), closed: false }),
            names: RandomState::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Returns how many caches there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.read().caches.len()
    }

    /// Returns whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: Hash + Eq> TenantCaches<K> {
    /// Returns the cache of a key, and makes it if there is none.
    ///
    /// A handle keeps its cache in the set, so put it into a request and drop it. A cache that was
    /// [shut down](TokenCache::shutdown) by itself is replaced by a new one.
    ///
    /// # Errors
    ///
    /// The error of the closure that makes the source, which is asked again next time; a throttled error if all caches
    /// that are allowed are in use; a configuration error after [`shutdown`](Self::shutdown).
    pub fn get<Q>(&self, key: &Q) -> Result<TokenCache, Error>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let inner = &*self.inner;
        let now = inner.now();
        let known = inner.known(key, now)?;
        inner.sweep_sometimes(now);
        if let Some(cache) = known {
            return Ok(cache);
        }
        if now < inner.crowded.load(Ordering::Relaxed) {
            return Err(inner.full());
        }
        let key = key.to_owned();
        // Foreign code is not called under the lock. Where two make the same, one is dropped before it has done anything.
        let made = (inner.make)(&key)?;
        inner.admit(key, made, now)
    }

    /// Sends a request with the token of a key: puts its cache on the request as an [`AuthOverride`], and beside it a
    /// [`CredentialId`], so that the [retry layer](crate::retry) does not hold one tenant's requests back for the limits of
    /// another. The id is derived from the key, and does not show it.
    ///
    /// The layer below is an [`AuthLayer::per_request`](crate::AuthLayer::per_request). The request's own [`AuthOverride`] stays as far
    /// as it is for other layers, or a minimum of validity. One that names the header of the layer below goes before the tenant's.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_oauth2::tenants::TenantCaches;
    /// use tower_oauth2::AccessToken;
    ///
    /// let caches = TenantCaches::new(|tenant: &String| {
    ///     Ok(AccessToken::bearer(format!("token-of-{tenant}"))?)
    /// });
    /// let mut request = http::Request::get("https://api.example.com/items").body(())?;
    /// caches.authorize(request.extensions_mut(), "north")?;
    /// # Ok::<_, tower::BoxError>(())
    /// ```
    pub fn authorize<Q>(&self, request: &mut Extensions, key: &Q) -> Result<(), Error>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let cache = self.get(key)?;
        let own = request.remove().unwrap_or_else(AuthOverride::layer);
        request.insert(own.choosing(cache));
        request.insert(CredentialId::new(format!("{:016x}", self.inner.names.hash_one(key))));
        Ok(())
    }

    /// Returns the cache of a key if there is one. Does not count as use.
    #[must_use]
    pub fn peek<Q>(&self, key: &Q) -> Option<TokenCache>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.inner.read().caches.get(key).map(|member| member.cache.clone())
    }

    /// Takes the cache of a key out of the set, even one that is in use: for a user who has left. Requests that have it go on
    /// with it.
    #[allow(clippy::must_use_candidate, reason = "most callers only want it gone")]
    pub fn remove<Q>(&self, key: &Q) -> Option<TokenCache>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let member = self.inner.write().caches.remove(key);
        if member.is_some() {
            self.inner.crowded.store(0, Ordering::Relaxed);
        }
        member.map(|member| member.cache)
    }

    /// Ends all caches as [`TokenCache::shutdown`] does, at the same time. No further one is made.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves all caches closed, with the tokens that they had. Another call goes on with them.
    ///
    /// # Errors
    ///
    /// A transient error that says how many caches did not end in order, and why one of them did not: a token request was
    /// still going on after `within`, or a token was not revoked. All are ended in any case.
    pub async fn shutdown(&self, within: Duration) -> Result<(), Error> {
        let caches: Vec<TokenCache> = {
            let mut members = self.inner.write();
            members.closed = true;
            members.caches.values().map(|member| member.cache.clone()).collect()
        };
        // All at once, however long the first of them takes.
        caches.iter().for_each(TokenCache::close);
        let mut endings: FuturesUnordered<_> = caches.iter().map(|cache| cache.shutdown(within)).collect();
        let (mut failed, mut last) = (0, None);
        while let Some(ended) = endings.next().await {
            if let Err(error) = ended {
                failed += 1;
                last = Some(error);
            }
        }
        // Only now: with a future that is dropped before, what is left to do would be lost.
        let ended = std::mem::take(&mut self.inner.write().caches);
        drop(ended);
        match last {
            None => Ok(()),
            Some(error) => Err(Error::transient(format!(
                "{failed} of {} token caches did not end in order, one of them because {error}",
                caches.len()
            ))
            .with_source(error)),
        }
    }
}

impl<K> Clone for TenantCaches<K> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<K> fmt::Debug for TenantCaches<K> {
    /// Shows how many there are. The keys may be people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantCaches")
            .field("len", &self.len())
            .field("capacity", &self.inner.capacity)
            .finish_non_exhaustive()
    }
}

// --- CachesShared ---

impl<K> CachesShared<K> {
    fn now(&self) -> u64 {
        clock::nanos(clock::now().saturating_duration_since(self.began))
    }

    fn read(&self) -> RwLockReadGuard<'_, TenantMembers<K>> {
        self.members.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, TenantMembers<K>> {
        self.members.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq> CachesShared<K> {
    fn known<Q>(&self, key: &Q, now: u64) -> Result<Option<TokenCache>, Error>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let members = self.read();
        if members.closed {
            return Err(closed());
        }
        // One that was shut down by itself fetches nothing any more; another takes its place.
        Ok(members.caches.get(key).filter(|member| !member.cache.is_closed()).map(|member| {
            member.used.fetch_max(now, Ordering::Relaxed);
            member.cache.clone()
        }))
    }

    fn admit(&self, key: K, made: TokenCache, now: u64) -> Result<TokenCache, Error> {
        let mut gone = Vec::new();
        let mut members = self.write();
        if members.closed {
            return Err(closed());
        }
        if let Some(member) = members.caches.get(&key).filter(|member| !member.cache.is_closed()) {
            member.used.fetch_max(now, Ordering::Relaxed);
            let cache = member.cache.clone();
            drop(members);
            return Ok(cache);
        }
        let closed = members.caches.remove(&key);
        if members.caches.len() >= self.capacity {
            members.take_idle(now.saturating_sub(self.idle_after), &mut gone);
            if members.caches.len() >= self.capacity {
                members.take_oldest(self.capacity.div_ceil(16), &mut gone);
            }
        }
        let full = members.caches.len() >= self.capacity;
        if full {
            self.crowded.store(now.saturating_add(clock::nanos(LOOK_AGAIN)), Ordering::Relaxed);
        } else {
            members.caches.insert(key, TenantCache { cache: made.clone(), used: AtomicU64::new(now) });
        }
        drop(members);
        // Sources are foreign code too, and so is the end of one.
        drop((gone, closed));
        if full { Err(self.full()) } else { Ok(made) }
    }

    fn full(&self) -> Error {
        Error::throttled(format!(
            "all {} token caches that are allowed are in use; raise capacity, or look at where the keys come from",
            self.capacity
        ))
    }

    /// Looks for idle caches a few times within the time that makes one idle.
    fn sweep_sometimes(&self, now: u64) {
        let due = self.sweep.load(Ordering::Relaxed);
        let next = now.saturating_add((self.idle_after / 4).max(1));
        if now < due || self.sweep.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return;
        }
        let mut gone = Vec::new();
        self.write().take_idle(now.saturating_sub(self.idle_after), &mut gone);
    }
}

// --- TenantMembers ---

impl<K: Hash + Eq> TenantMembers<K> {
    /// Takes those out that were not used since.
    fn take_idle(&mut self, since: u64, gone: &mut Vec<Retired>) {
        let idle = |member: &TenantCache| member.used() < since && member.cache.is_idle();
        let taken = self.caches.extract_if(|_, member| idle(member)).collect();
        self.retire(taken, gone);
    }

    /// Takes so many out, of those that can go the ones that were unused the longest.
    fn take_oldest(&mut self, count: usize, gone: &mut Vec<Retired>) {
        let can_go = self.caches.values().filter(|member| member.cache.is_idle());
        let mut used: Vec<u64> = can_go.map(TenantCache::used).collect();
        let Some(last) = count.min(used.len()).checked_sub(1) else { return };
        let (_, &mut limit, _) = used.select_nth_unstable(last);
        let mut left = count;
        let oldest = self.caches.extract_if(|_, member| {
            let goes = left > 0 && member.used() <= limit && member.cache.is_idle();
            left -= usize::from(goes);
            goes
        });
        let taken = oldest.collect();
        self.retire(taken, gone);
    }

    /// Ends those that were taken out. One that is kept warm may have begun to renew its token meanwhile; it comes back.
    fn retire(&mut self, taken: Vec<(K, TenantCache)>, gone: &mut Vec<Retired>) {
        for (key, TenantCache { cache, used }) in taken {
            match cache.retire() {
                Ok(retired) => gone.push(retired),
                Err(cache) => drop(self.caches.insert(key, TenantCache { cache, used })),
            }
        }
    }
}

impl TenantCache {
    fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

fn closed() -> Error {
    Error::config("these token caches were shut down; they make no more")
}
