//! The options of a cache.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::handle::TokenCache;
use super::schedule::LONGEST_STRETCH;
use super::shared::{CacheSettings, CacheShared};
use crate::error::Error;
use crate::origin::Origin;
use crate::revoke::{Revoker, TokenRevoker};
use crate::source::{AroundFetch, DynTokenSource, TokenSource, WrappedSource};

/// Builds a [`TokenCache`].
///
/// Defaults:
/// - `name`: what the source calls itself ([`TokenSource::name`]), else none
/// - `refresh_before`: a fifth of the token's lifetime, at most 5 minutes, lengthened by chance by up to a quarter
/// - `min_validity`: a twentieth of the lifetime, at most 10 seconds
/// - `max_age`: none; a token of unknown lifetime is used until it is rejected
/// - `fetch_timeout`: 30 seconds, retries of the source included
/// - `only_for`: any origin; the [layer](crate::AuthLayer) says where tokens go
/// - `revoke_with`: nothing; at a shutdown no token is revoked
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_oauth2::{AccessToken, TokenCache};
///
/// let source = AccessToken::bearer("mF_9.B5f-4.1JqM")?;
/// let cache = TokenCache::builder(source)
///     .refresh_before(Duration::from_secs(120))
///     .fetch_timeout(Duration::from_secs(10))
///     .build();
/// # let _ = cache;
/// # Ok::<_, tower_oauth2::Error>(())
/// ```
#[must_use]
pub struct TokenCacheBuilder {
    source: Box<dyn DynTokenSource>,
    settings: CacheSettings,
}

impl TokenCache {
    /// Creates a cache with the defaults. Nothing is fetched and no task is started before the first use.
    #[must_use]
    pub fn new(source: impl TokenSource) -> Self {
        Self::builder(source).build()
    }

    /// Starts the options of a cache.
    pub fn builder(source: impl TokenSource) -> TokenCacheBuilder {
        TokenCacheBuilder::new(Box::new(source))
    }
}

impl<S: TokenSource> From<S> for TokenCacheBuilder {
    fn from(source: S) -> Self {
        Self::new(Box::new(source))
    }
}

impl TokenCacheBuilder {
    fn new(source: Box<dyn DynTokenSource>) -> Self {
        let mut settings =
            CacheSettings { fetch_timeout: Duration::from_secs(30), ..CacheSettings::default() };
        settings.windows.stretch = settings.chance.fraction() * LONGEST_STRETCH;
        settings.name = source.own_name().map(Into::into);
        Self { source, settings }
    }

    /// Sets what the log calls the cache: the field `cache` of its lines and spans. Give the caches of several tenants
    /// names of their own if the tenant may stand in your log.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.settings.name = Some(name.into().into());
        self
    }

    /// Sets how long before its end a token is renewed in the background. Requests go on with the old one meanwhile.
    ///
    /// A token is in use for a quarter of its life at least: more than three quarters of the life count as three quarters,
    /// and for a token that does not live that long at all the default counts.
    pub fn refresh_before(mut self, lead: Duration) -> Self {
        self.settings.windows.refresh_before = Some(lead);
        self
    }

    /// Sets how long a token must at least be valid for a request to go out with it; with less left it waits.
    ///
    /// The same bounds as for [`refresh_before`](Self::refresh_before): three quarters of the life at most, and the default
    /// for tokens that do not live that long.
    pub fn min_validity(mut self, lead: Duration) -> Self {
        self.settings.windows.min_validity = Some(lead);
        self
    }

    /// Sets the age at which a token is replaced even if its lifetime is longer, counted from its token request.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.settings.windows.max_age = Some(age);
        self
    }

    /// Sets how long the source may take in all. Then its future is dropped and all waiting requests get an error. The source
    /// is told ([`TokenRequest::deadline`](crate::TokenRequest::deadline)): those of this crate plan their attempts within it
    /// and return the last refusal.
    pub fn fetch_timeout(mut self, timeout: Duration) -> Self {
        self.settings.fetch_timeout = timeout;
        self
    }

    /// Sets the origins that may have the tokens of this cache. A layer sends them there alone, and only if it lists the
    /// origin too: the token of a tenant does not reach another tenant's host by way of a wrong base URL. Other requests are
    /// sent without a token, or refused, as the layer does for [other origins](crate::AuthLayer::refuse_other_origins).
    ///
    /// It holds for the layers of this crate. A cache in front of this one ([`TokenCache::as_source`]) has its own list.
    ///
    /// # Errors
    ///
    /// Those of [`Origin`], and if there is no origin.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_oauth2::{AccessToken, TokenCache};
    ///
    /// let source = AccessToken::bearer("of-tenant-7")?;
    /// let tenant = TokenCache::builder(source).only_for(["https://tenant-7.example.com"])?.build();
    /// # let _ = tenant;
    /// # Ok::<(), tower_oauth2::Error>(())
    /// ```
    pub fn only_for<I>(mut self, origins: I) -> Result<Self, Error>
    where
        I: IntoIterator,
        I::Item: TryInto<Origin>,
        <I::Item as TryInto<Origin>>::Error: Into<Error>,
    {
        let origins = origins.into_iter().map(|origin| origin.try_into().map_err(Into::into));
        self.settings.only_for = origins.collect::<Result<_, _>>()?;
        if self.settings.only_for.is_empty() {
            return Err(Error::config("only_for names no origin; name those that may have the tokens"));
        }
        Ok(self)
    }

    /// Puts something around the token requests of the source.
    pub(crate) fn around(mut self, around: impl AroundFetch) -> Self {
        self.source = Box::new(WrappedSource::new(self.source, around));
        self
    }

    /// Sets how tokens are revoked: by [`Revocation`](crate::grants::Revocation), or by a closure
    /// ([`revoker_fn`](crate::revoker_fn)). [`TokenCache::revoke`] does so on request.
    pub fn revoke_with(mut self, revoker: impl TokenRevoker) -> Self {
        self.settings.revoker = Some(Revoker::new(revoker));
        self
    }

    /// Sets whether [`TokenCache::shutdown`] revokes the access token, so that it is of no use after the end of the process.
    /// It does so within the time of the shutdown, by what [`revoke_with`](Self::revoke_with) was given; without that the
    /// shutdown is an error. Off by default.
    ///
    /// The refresh token is not revoked: the next start may begin with it. But a server may end it along with the access
    /// token (RFC 7009 §2.1), and some servers give the same access token to several processes of one client.
    pub fn revoke_at_shutdown(mut self, on: bool) -> Self {
        self.settings.revokes_at_shutdown = on;
        self
    }

    /// Builds the cache. Nothing is fetched and no task is started before its first use.
    #[must_use]
    pub fn build(self) -> TokenCache {
        TokenCache { shared: Arc::new(CacheShared::new(self.source, self.settings)), observer: None }
    }

    /// Puts the clocks and the chance of a test in place.
    #[cfg(test)]
    pub(crate) fn rigged(mut self, wall: crate::clock::WallClock, stretch: f64) -> Self {
        self.settings.wall = wall;
        self.settings.windows.stretch = stretch;
        self.with_chance(crate::backoff::Chance::seeded(7))
    }

    /// Puts the chance of a test in place.
    #[cfg(test)]
    pub(crate) fn with_chance(mut self, chance: crate::backoff::Chance) -> Self {
        self.settings.chance = chance;
        self
    }
}

impl fmt::Debug for TokenCacheBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCacheBuilder")
            .field("windows", &self.settings.windows)
            .field("fetch_timeout", &self.settings.fetch_timeout)
            .field("only_for", &self.settings.only_for)
            .field("revoker", &self.settings.revoker)
            .field("revokes_at_shutdown", &self.settings.revokes_at_shutdown)
            .finish_non_exhaustive()
    }
}
