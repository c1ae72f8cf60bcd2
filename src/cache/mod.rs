//! Caches any token source: one token for all, fetched once, renewed before it expires.
//!
//! What happens when a request needs a token:
//!
//! 1. A usable token is returned at once: no lock, no allocation, no wait.
//! 2. In the last fifth of its life (at most five minutes, lengthened by jitter) one fetch starts in the background.
//! 3. In the last twentieth (at most ten seconds) requests wait for that fetch.
//! 4. The life counts from before the token request, on the monotonic and on the wall clock. The earlier end counts.
//! 5. One fetch is in flight at a time, in a task of its own, with one deadline, which the source is told.
//! 6. A fetch that fails leaves a valid token in use. Without one, all waiting requests get the same error.
//! 7. After a failure the source is left alone for a while, and requests get the last error: see [Waits](#waits).
//! 8. [`reject`](TokenCache::reject) drops a token only if it is the one in use. See [Rejections](#rejections).
//!
//! If the lifetime is unknown, the `exp` of a JWT counts; without one, the token is used until it is rejected.
//!
//! # Waits
//!
//! How long the cache leaves its source alone after a failed fetch. A request gets the last error meanwhile, and
//! [`Error::retry_at`](crate::Error::retry_at) says until when.
//!
//! | the error | with a token in use | without one |
//! |---|---|---|
//! | transient, protocol; configuration, if it is not the server itself that says so, as the page of a gateway with another status than 401 | by chance up to 1 s, doubling to 60 s | up to 1 s, 2 s, then 5 s |
//! | throttled, with a time | that time, 1 s to 5 minutes; from the second on not less than if transient | the same |
//! | throttled | as transient, at least 1 s | as transient, at least 1 s |
//! | configuration, grant | 30 s | 10 s in the first minute of errors, then 30 s |
//!
//! A machine that sleeps has waited when it wakes up. When the token in use ends, the last column counts.
//! [`refresh`](TokenCache::refresh) ends any wait, also through caches that stand [behind one another](TokenCache::as_source).
//! The sources of this crate say when a file with a secret has [changed](crate::TokenSource::has_changed); without a token in use
//! that ends a wait within a second.
//!
//! If the cache is in front of another, requests without a token get an error for as long as the one behind says.
//!
//! # Rejections
//!
//! A token is *proven* once an API took it, or once it lived for 30 seconds without a rejection. Any response takes it but a
//! 401, one that may be sent before the token is looked at (a redirect, a 403, 407, 408, 421, 425, 429, 431, and a 5xx), and a gRPC
//! status that says no more than these.
//!
//! 1. If a token that no API took yet is rejected within ten seconds of its renewal, the token before it comes back, if that
//!    is valid and proven: the clock of the API may be behind, and the new token not valid yet. The new one is tried again after 2, 4, 8 and 16 seconds, or when
//!    the old one ends.
//! 2. A rejection close to the end of a token says nothing about the token that is being fetched. An earlier one may be a
//!    revocation of both, so the fetch starts over.
//! 3. Three unproven tokens that are rejected in a row, within ten minutes of one another, close a brake: further rejections
//!    keep the token for 30 seconds, then 60, up to 5 minutes. A proven token opens it.
//! 4. Rejections of any tokens cause at most 30 fetches in a row, then one every 2 seconds.
//! 5. A brake stops token requests, never a replay: with a fetch in flight the rejected token makes way for the new one.
//! 6. If the fetch after a rejection fails, an older token that is valid and proven is used again, if there is one.
//!
//! # Revocation
//!
//! [`revoke`](TokenCache::revoke) has the token revoked where it came from, and then drops it. A
//! [`shutdown`](TokenCache::shutdown) does so if the builder says so. A token that could not be revoked counts as valid.
//!
//! # Renewal that must not come early
//!
//! Some servers end a session whose refresh token is used before its `nbf`. If the refresh token is a JWT, a background
//! renewal waits for its `nbf`. If the server keeps such a time to itself, set
//! [`refresh_before`](TokenCacheBuilder::refresh_before) and [`min_validity`](TokenCacheBuilder::min_validity) to a value
//! that is short enough, such as zero for a renewal when the token has expired.
//!
//! # Examples
//!
//! Warm at the start, renewed without traffic, with its own windows, and a clean end:
//!
//! ```
//! use std::time::Duration;
//! use tower_oauth2::{AccessToken, TokenCache, source_fn};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
//! let source = source_fn(|_| async {
//!     Ok(AccessToken::bearer("from-somewhere")?.with_lifetime(Duration::from_secs(900)))
//! });
//! let cache = TokenCache::builder(source).refresh_before(Duration::from_secs(120)).build();
//! cache.warm_up(Duration::from_millis(10)).await?;
//! cache.keep_warm()?;
//! assert!(cache.status().is_ready());
//! cache.shutdown(Duration::from_secs(5)).await?;
//! # Ok::<_, tower_oauth2::Error>(()) })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! # Runtimes
//!
//! A fetch runs in the tokio runtime of the caller that caused it; the runtime needs its timer enabled. Outside a runtime,
//! and in one without a timer, a valid token is still returned, and a caller that needs another gets an error; other callers
//! do not. A cache may be used from several runtimes, and outlive any of them. [`keep_warm`](TokenCache::keep_warm) works in
//! the runtime that called it, and stays there.
//!
//! # Threads without a runtime
//!
//! [`blocking_get`](TokenCache::blocking_get) is `get` for them, and for programs that have no runtime at all:
//!
//! ```
//! use tower_oauth2::{AccessToken, TokenCache, source_fn};
//!
//! let cache = TokenCache::new(source_fn(async |_| AccessToken::bearer("from-somewhere")));
//! std::thread::scope(|scope| {
//!     for _ in 0..8 {
//!         scope.spawn(|| assert_eq!(cache.blocking_get().unwrap().header_value(), "Bearer from-somewhere"));
//!     }
//! });
//! assert_eq!(cache.status().fetched(), 1);
//! ```
//!
//! 1. All threads and tasks share one fetch. A thread that waits sleeps, for as long as the fetch may take.
//! 2. The fetch runs in a runtime of the crate's own: one thread, named `tower-oauth2`, for all caches of the process. It is
//!    started when the first token has to be fetched that way, does nothing between fetches, and ends with the last cache
//!    that used it. It renews tokens in the background as any runtime does. A source that blocks its thread holds up all of
//!    them, deadlines included; what blocks goes by `spawn_blocking`. A process that was forked has not got it.
//! 3. A token that is in the cache costs what it costs `get`.
//! 4. On a thread that runs tasks it is an error, since the tasks would stand still meanwhile; use `get` there. Within
//!    `spawn_blocking` it works.
//! 5. There is no layer to read the responses: report them by [`accept`](TokenCache::accept) and
//!    [`reject`](TokenCache::reject). The client must return a 401 as a response (ureq: `http_status_as_error(false)`), and
//!    must not follow redirects with the token.
//! 6. For the async functions, such as [`shutdown`](TokenCache::shutdown), make a runtime:
//!    `Builder::new_current_thread().enable_all().build()?.block_on(cache.shutdown(..))`.

mod acquire;
mod alarm;
mod brakes;
mod builder;
mod chained;
mod convert;
mod events;
mod fetch;
mod handle;
mod journal;
mod memory;
mod own_runtime;
mod schedule;
mod shared;
mod single_flight;
mod snapshot;
mod status;
#[cfg(test)]
mod tests;
mod warm;

pub(crate) use self::acquire::Acquire;
pub(crate) use self::handle::Retired;
pub(crate) use self::shared::ResponseObserver;
pub(crate) use self::snapshot::Snapshot;

pub use self::builder::TokenCacheBuilder;
pub use self::convert::IntoTokenCache;
pub use self::events::{CacheEvent, CacheWatch};
pub use self::handle::TokenCache;
pub use self::status::{Health, Status};
