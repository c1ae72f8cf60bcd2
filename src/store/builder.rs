//! The builder of a shared source.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::calls::{Calls, Seen};
use super::outage::Outage;
use super::sealing::SealingKey;
use super::shared::{Shared, SharedParts};
use super::token_store::{StoreKey, TokenStore};
use crate::backoff::Chance;
use crate::clock::WallClock;
use crate::error::Error;
use crate::source::{RefreshTokenUse, TokenSource};

/// Builds a [`Shared`] source.
///
/// # Defaults
///
/// - key: an HMAC of what the source says of itself ([`identity`](TokenSource::identity)) and of the principal, under the
///   sealing key; a source that cannot say it needs [`key`](Self::key)
/// - principal: none; a refresh token is that of a user, and needs one
/// - a call to the store: at most 250 ms
/// - a lease: 10 s, extended while its holder is at work
/// - a store that is out of order: each process fetches for itself, but sends no refresh token that is kept there
///
/// # Examples
///
/// A program that was started without a refresh token goes on with the login of another:
///
/// ```
/// use tower_oauth2::store::{MemoryStore, SealingKey, Shared};
/// use tower_oauth2::{ClientAuth, RefreshTokenGrant, TokenCache};
/// # let http_client = tower::service_fn(|_request: http::Request<tower_oauth2::Body>| async {
/// #     Ok::<_, tower::BoxError>(http::Response::new(tower_oauth2::Body::empty()))
/// # });
///
/// let grant = RefreshTokenGrant::builder("https://login.example.com/token", "cli", ClientAuth::none())
///     .build_with(http_client)?;
/// let shared = Shared::builder(grant, MemoryStore::new(), SealingKey::new([7; 32]))
///     .principal("ada@example.com")
///     .build()?;
/// let cache = TokenCache::new(shared);
/// # let _ = cache;
/// # Ok::<_, tower_oauth2::Error>(())
/// ```
pub struct SharedBuilder<S, T> {
    source: S,
    store: T,
    sealing_key: SealingKey,
    key: Option<StoreKey>,
    principal: Option<String>,
    store_timeout: Duration,
    lease: Duration,
    refreshes_without_store: bool,
}

impl<S: TokenSource, T: TokenStore> SharedBuilder<S, T> {
    pub(super) fn new(source: S, store: T, sealing_key: SealingKey) -> Self {
        Self {
            source,
            store,
            sealing_key,
            key: None,
            principal: None,
            store_timeout: Duration::from_millis(250),
            lease: Duration::from_secs(10),
            refreshes_without_store: false,
        }
    }

    /// Names the entry. Sources with the same name share one token, even if they differ: give each user, client and scope
    /// another.
    #[must_use]
    pub fn key(mut self, key: StoreKey) -> Self {
        self.key = Some(key);
        self
    }

    /// Sets whose tokens these are, such as the id of the user who signed in. It goes into the key that is derived, and is not
    /// stored.
    #[must_use]
    pub fn principal(mut self, principal: impl Into<String>) -> Self {
        self.principal = Some(principal.into());
        self
    }

    /// Sets how long a call to the store may take.
    #[must_use]
    pub fn store_timeout(mut self, timeout: Duration) -> Self {
        self.store_timeout = timeout;
        self
    }

    /// Sets how long the other processes wait for one that has died while it fetched a token. A process that lives extends
    /// its lease.
    #[must_use]
    pub fn lease(mut self, period: Duration) -> Self {
        self.lease = period;
        self
    }

    /// Sets whether a refresh token is exchanged even if the store is out of order. Then two processes may send the same one:
    /// a server that issues a new one each time takes that for theft, and ends the login.
    #[must_use]
    pub fn refresh_without_store(mut self, allowed: bool) -> Self {
        self.refreshes_without_store = allowed;
        self
    }

    /// Builds the source.
    ///
    /// # Errors
    ///
    /// A configuration error if the source cannot say which tokens it fetches and no [`key`](Self::key) is set; if it lives on a
    /// refresh token, and neither a [`principal`](Self::principal) nor a key is set, or there is a cache in between; if the lease
    /// is shorter than a second, or than four calls to the store may take.
    pub fn build(self) -> Result<Shared<S, T>, Error> {
        let identity = self.source.identity();
        let refresh_token =
            identity.as_ref().map_or(RefreshTokenUse::None, |identity| identity.refresh_token());
        if refresh_token == RefreshTokenUse::OutOfReach {
            return Err(Error::config(
                "a refresh token behind a cache cannot be shared; share the source itself, and put the cache in front",
            ));
        }
        let key = match (self.key, identity.filter(|identity| !identity.is_partial())) {
            (Some(key), _) => key,
            (None, None) => {
                return Err(Error::config(
                    "key: this source cannot say which tokens it fetches, since it is a closure or reads a parameter anew \
                     each time; name its tokens by `key`, another name for each client, user and scope",
                ));
            }
            (None, Some(_)) if refresh_token == RefreshTokenUse::Shared && self.principal.is_none() => {
                return Err(Error::config(
                    "principal: a refresh token is that of a user; say whose, so that no user gets the token of another",
                ));
            }
            (None, Some(identity)) => self.sealing_key.name(&identity, self.principal.as_deref())?,
        };
        let shortest = Duration::from_secs(1).max(self.store_timeout.saturating_mul(4));
        if self.lease < shortest {
            return Err(Error::config(format!(
                "lease: {:?} is too short; it must be a second at least, and four times store_timeout ({:?})",
                self.lease, self.store_timeout
            )));
        }
        let calls = Calls {
            outage: Outage::of(self.store.name()),
            store: self.store,
            key,
            sealing: self.sealing_key,
            timeout: self.store_timeout,
            wall: WallClock::default(),
            seen: Seen::default().into(),
        };
        let inner = SharedParts {
            source: self.source,
            calls: Arc::new(calls),
            lease: self.lease,
            has_refresh_token: refresh_token == RefreshTokenUse::Shared,
            is_optional: self.refreshes_without_store,
            chance: Chance::default(),
            busy: 0.into(),
            is_unsaved: false.into(),
        };
        Ok(Shared { inner: Arc::new(inner) })
    }
}

impl<S, T> fmt::Debug for SharedBuilder<S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedBuilder")
            .field("sealing_key", &self.sealing_key)
            .field("key", &self.key)
            .field("store_timeout", &self.store_timeout)
            .field("lease", &self.lease)
            .field("refreshes_without_store", &self.refreshes_without_store)
            .finish_non_exhaustive()
    }
}
