//! The events of a cache, for programs that act on them.

use std::time::SystemTime;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::shared::CacheShared;
use crate::error::Error;
use crate::extensions::RejectionVerdict;

/// How many events a watch may be behind by before it misses the oldest.
const BACKLOG: usize = 16;

/// Something that happened to a cache. No secret is in it.
///
/// An outage is [`Degraded`](Self::Degraded), then [`Failing`](Self::Failing) if it lasts longer than the token, then
/// [`Fetched`](Self::Fetched) or [`Renewed`](Self::Renewed), and [`Recovered`](Self::Recovered). A token that expires by the
/// clock alone is not an event.
///
/// # Examples
///
/// ```
/// use tower_oauth2::TokenCache;
/// use tower_oauth2::cache::CacheEvent;
///
/// async fn alert(tokens: &TokenCache) {
///     let mut events = tokens.watch();
///     while let Some(event) = events.next().await {
///         if let CacheEvent::Failing { error, .. } = event {
///             eprintln!("requests fail from now on: {error}");
///         }
///     }
/// }
/// # let _ = alert;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CacheEvent {
    /// A token arrived, and no valid one was in use.
    #[non_exhaustive]
    Fetched {
        /// When it expires, if that is known.
        expires_at: Option<SystemTime>,
    },
    /// A token arrived in place of the one in use.
    #[non_exhaustive]
    Renewed {
        /// When it expires, if that is known.
        expires_at: Option<SystemTime>,
    },
    /// An API rejected a token.
    #[non_exhaustive]
    Rejected {
        /// The outcome for the token.
        verdict: RejectionVerdict,
    },
    /// Token requests begin to fail. Requests go on with the current token.
    #[non_exhaustive]
    Degraded {
        /// Why the first one failed.
        error: Error,
    },
    /// There is no valid token any more, and token requests fail: requests begin to fail.
    #[non_exhaustive]
    Failing {
        /// Why the last one failed.
        error: Error,
    },
    /// Token requests succeed again.
    Recovered,
    /// The cache was shut down.
    Closed,
}

/// The events of a cache from now on. It does not keep the cache alive.
///
/// # Examples
///
/// ```
/// use tower_oauth2::TokenCache;
/// use tower_oauth2::cache::CacheEvent;
///
/// async fn follow(cache: &TokenCache) {
///     let mut events = cache.watch();
///     while let Some(event) = events.next().await {
///         match event {
///             CacheEvent::Failing { error, .. } => println!("page the operator: {error}"),
///             CacheEvent::Recovered => println!("all is well"),
///             _ => {}
///         }
///     }
///     // The last handle of the cache is gone.
/// }
/// # let _ = follow;
/// ```
#[derive(Debug)]
pub struct CacheWatch {
    events: broadcast::Receiver<CacheEvent>,
}

impl CacheWatch {
    pub(super) fn new(shared: &CacheShared) -> Self {
        let events = shared.events.get_or_init(|| broadcast::Sender::new(BACKLOG)).subscribe();
        Self { events }
    }

    /// Waits for the next event; `None` once the cache is gone.
    ///
    /// A program that is slower than the cache by more than 16 events misses the oldest of them. The
    /// [status](crate::TokenCache::status) of the cache always says how it is now.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<CacheEvent> {
        loop {
            match self.events.recv().await {
                Ok(event) => return Some(event),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }
}
