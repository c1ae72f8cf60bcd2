//! The options of a set of caches.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::caches::TenantCaches;
use super::turnstile::{Metered, Turnstile};
use crate::cache::{TokenCache, TokenCacheBuilder};
use crate::error::Error;

/// Makes the cache of a key, behind the turnstile.
pub(super) type Make<K> = Box<dyn Fn(&K) -> Result<TokenCache, Error> + Send + Sync>;

/// The closure that makes the builder of the cache of a key.
type Recipe<K> = Box<dyn Fn(&K) -> Result<TokenCacheBuilder, Error> + Send + Sync>;

/// Builds [`TenantCaches`].
///
/// Defaults:
/// - `capacity`: 10,000 caches
/// - `idle_after`: 1 hour
/// - `token_requests`: 100 a second, 1,000 at once
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_oauth2::tenants::TenantCaches;
/// use tower_oauth2::{AccessToken, Error};
///
/// let caches = TenantCaches::builder(|tenant: &String| {
///     Ok::<_, Error>(AccessToken::bearer(format!("token-of-{tenant}"))?)
/// })
/// .capacity(500)
/// .idle_after(Duration::from_secs(600))
/// .token_requests(20, 100)
/// .build()?;
/// assert_eq!(caches.len(), 0);
/// # Ok::<_, tower_oauth2::Error>(())
/// ```
#[must_use = "a builder does nothing until it is built"]
pub struct TenantCachesBuilder<K> {
    make: Recipe<K>,
    capacity: usize,
    idle_after: Duration,
    per_second: u32,
    burst: u32,
}

impl<K: 'static> TenantCachesBuilder<K> {
    pub(super) fn new<C>(make: impl Fn(&K) -> Result<C, Error> + Send + Sync + 'static) -> Self
    where
        C: Into<TokenCacheBuilder>,
    {
        Self {
            make: Box::new(move |key| make(key).map(Into::into)),
            capacity: 10_000,
            idle_after: Duration::from_secs(3600),
            per_second: 100,
            burst: 1_000,
        }
    }

    /// Sets how many caches there may be.
    pub fn capacity(mut self, caches: usize) -> Self {
        self.capacity = caches;
        self
    }

    /// Sets after which time without use a cache goes. It is looked at when caches are asked for; no task is started.
    pub fn idle_after(mut self, idle: Duration) -> Self {
        self.idle_after = idle;
        self
    }

    /// Sets how many token requests all caches together may make in a second, and how many of them at once after a
    /// time of rest. Further attempts of the source within one token request, such as after a 503, are not counted.
    pub fn token_requests(mut self, per_second: u32, burst: u32) -> Self {
        self.per_second = per_second;
        self.burst = burst;
        self
    }

    /// Builds the set. It is empty, and nothing is fetched.
    ///
    /// # Errors
    ///
    /// A configuration error that names the setting, if one of them is zero.
    pub fn build(self) -> Result<TenantCaches<K>, Error> {
        if self.capacity == 0 {
            return Err(Error::config("capacity: it is zero, so that no cache could be made; raise it"));
        }
        if self.per_second == 0 || self.burst == 0 {
            return Err(Error::config(
                "token_requests: one of both is zero, so that no token could be fetched; raise it",
            ));
        }
        Ok(self.finish())
    }

    /// Builds the set of settings that are known to be good.
    pub(super) fn finish(self) -> TenantCaches<K> {
        let Self { make, capacity, idle_after, per_second, burst } = self;
        let turnstile = Arc::new(Turnstile::new(per_second, burst));
        let make: Make<K> = Box::new(move |key| {
            let turnstile = Arc::clone(&turnstile);
            Ok(make(key)?.around(Metered { turnstile }).build())
        });
        TenantCaches::with(make, capacity, idle_after)
    }
}

impl<K> fmt::Debug for TenantCachesBuilder<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantCachesBuilder")
            .field("capacity", &self.capacity)
            .field("idle_after", &self.idle_after)
            .field("per_second", &self.per_second)
            .field("burst", &self.burst)
            .finish_non_exhaustive()
    }
}
