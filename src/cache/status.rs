//! How a cache is, for health checks and dashboards.

use std::fmt;
use std::time::SystemTime;

use super::shared::CacheShared;
use crate::error::Error;

/// How a cache was at one instant. No secret is in it.
///
/// # Examples
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// use tower_oauth2::{AccessToken, TokenCache};
///
/// let cache = TokenCache::new(AccessToken::bearer("mF_9.B5f-4.1JqM")?);
/// cache.get().await?;
/// let status = cache.status();
/// assert!(status.is_ready() && status.last_error().is_none());
/// assert_eq!((status.fetched(), status.failures_in_a_row()), (1, 0));
/// # Ok::<_, tower_oauth2::Error>(()) })?;
/// # Ok::<_, tower::BoxError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Status {
    health: Health,
    expires: Option<SystemTime>,
    fetching: bool,
    fetched: u64,
    failures: u32,
    last_error: Option<Error>,
}

/// The health of a cache in a word.
///
/// # Examples
///
/// ```
/// use http::StatusCode;
/// use tower_oauth2::TokenCache;
/// use tower_oauth2::cache::Health;
///
/// /// What `/readyz` says.
/// fn readiness(tokens: &TokenCache) -> StatusCode {
///     match tokens.status().health() {
///         Health::Idle | Health::Ready | Health::Degraded => StatusCode::OK,
///         _ => StatusCode::SERVICE_UNAVAILABLE,
///     }
/// }
/// # use tower_oauth2::AccessToken;
/// # let tokens = TokenCache::new(AccessToken::bearer("mF_9.B5f-4.1JqM")?);
/// # assert_eq!(readiness(&tokens), StatusCode::OK);
/// # Ok::<_, tower_oauth2::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Health {
    /// There is no valid token, and nothing has gone wrong: none was asked for, or the last one ended unused.
    Idle,
    /// There is a valid token.
    Ready,
    /// There is a valid token, but the last attempt to renew it failed, or APIs reject tokens so often that a
    /// [brake](super#rejections) is closed: tokens are kept for now.
    Degraded,
    /// There is no valid token, and the last attempt to get one failed: requests fail.
    Failing,
    /// The cache was shut down.
    Closed,
}

impl Status {
    pub(super) fn of(shared: &CacheShared) -> Self {
        let now = shared.moment();
        let state = shared.flight.lock();
        let (current, memory) = (state.current(), &state.memory);
        let usable = current.is_some_and(|current| !current.plan().has_ended(now));
        let braked = memory.brakes.is_closed(now.mono);
        let health = match (memory.closed, usable, &memory.failure) {
            (true, _, _) => Health::Closed,
            (false, true, None) if !braked => Health::Ready,
            (false, true, _) => Health::Degraded,
            (false, false, Some(_)) => Health::Failing,
            (false, false, None) => Health::Idle,
        };
        Self {
            health,
            expires: current.and_then(|current| current.token().expires_at()),
            fetching: state.is_in_flight(),
            fetched: memory.count,
            failures: memory.failure.as_ref().map_or(0, |failure| failure.streak),
            last_error: memory.failure.as_ref().map(|failure| failure.error.clone()),
        }
    }

    /// Returns the health in a word.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health
    }

    /// Returns whether a request would find a valid token now. Before the first request there is none, unless one was
    /// [fetched](crate::TokenCache::get) ahead.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self.health, Health::Ready | Health::Degraded)
    }

    /// Returns when the token in use ends, if that is known.
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.expires
    }

    /// Returns whether a token request is going on.
    #[must_use]
    pub fn is_fetching(&self) -> bool {
        self.fetching
    }

    /// Returns how many tokens were fetched so far.
    #[must_use]
    pub fn fetched(&self) -> u64 {
        self.fetched
    }

    /// Returns how many token requests failed in a row.
    #[must_use]
    pub fn failures_in_a_row(&self) -> u32 {
        self.failures
    }

    /// Returns the error of the last token request, if it failed.
    #[must_use]
    pub fn last_error(&self) -> Option<&Error> {
        self.last_error.as_ref()
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::Failing => "failing",
            Self::Closed => "closed",
        })
    }
}
