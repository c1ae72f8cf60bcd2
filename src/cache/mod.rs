//! Makes any source calm: one token for all, fetched once, renewed before it ends.
//!
//! What happens when a request needs a token:
//!
//! 1. A usable token is returned at once: no lock, no allocation, no wait.
//! 2. Some time before its end (a fifth of its life, at most five minutes, lengthened by chance per cache) one fetch
//!    starts in the background. Requests go on with the token they have.
//! 3. Shortly before its end (a twentieth, at most ten seconds) requests wait for that fetch.
//! 4. The end is counted from before the token request was sent, on the monotonic and on the wall clock: whichever says
//!    so first is believed, so neither a machine that slept nor a clock that was set back lengthens a life. Where the
//!    lifetime is unknown, the `exp` of a JWT counts, or the token is used until it is rejected.
//! 5. One fetch runs at a time, in a task of its own with its own deadline. A caller that goes away stops waiting and
//!    changes nothing. A source that panics, a runtime that shuts down or is not driven: an error or another fetch, never
//!    a dead cache.
//! 6. A fetch that fails while the token is valid leaves the token in use. Without a valid token all who wait get the
//!    same error. The source is then left alone for a while: 30 seconds after a configuration or grant error, as long as
//!    it asked for (1 second to 5 minutes) if it is throttled, else a random time that doubles from 1 to 60 seconds. Who
//!    asks meanwhile gets the last error at once.
//! 7. [`reject`](TokenCache::reject) drops a token only if it is the one in use.
//! 8. Two brakes: three tokens in a row that no API ever accepted stop further rejections from counting for 30 seconds,
//!    doubling to 5 minutes; and rejections cause at most 30 fetches in a row, one more every 2 seconds.
//! 9. [`revoke`](TokenCache::revoke) has the token taken back where it came from, and then drops it; a
//!    [`shutdown`](TokenCache::shutdown) does so if it was told to. A token that could not be revoked counts as valid.
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
//!     Ok(AccessToken::bearer("from-somewhere")?.expires_in(Duration::from_secs(900)))
//! });
//! let cache = TokenCache::builder(source).refresh_before(Duration::from_secs(120)).build();
//! cache.warm_up_within(Duration::from_millis(10)).await?;
//! cache.keep_warm()?;
//! assert!(cache.status().is_ready());
//! cache.shutdown(Duration::from_secs(5)).await?;
//! # Ok::<_, tower_oauth2::TokenError>(()) })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! # Runtimes
//!
//! A fetch runs in the tokio runtime of the caller that caused it; the runtime needs its timer enabled. Outside a runtime
//! a valid token is still returned, and where one would have to be fetched there is an error. A cache may be used from
//! several runtimes, and outlive any of them.
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
//! 1. All threads share one fetch, with each other and with tasks. Whoever waits sleeps, for as long as the fetch may take.
//! 2. The fetch runs in a runtime of the crate's own: one thread, named `tower-oauth2`, for all caches of the process. It is
//!    started when the first token has to be fetched that way, does nothing between fetches, and ends with the last cache
//!    that used it. It renews tokens in the background as any runtime does. A source that blocks its thread holds up all of
//!    them, deadlines included; what blocks goes by `spawn_blocking`. A process that was forked has not got it.
//! 3. A token at hand costs what it costs `get`.
//! 4. On a thread that runs tasks it is an error, for those would stand still meanwhile; there `get` is right. Within
//!    `spawn_blocking` it works.
//! 5. There is no layer to read the answers: report them by [`accept`](TokenCache::accept) and
//!    [`reject`](TokenCache::reject). The client must hand out a 401 as an answer (ureq: `http_status_as_error(false)`), and
//!    follow no redirect with the token on it.
//! 6. What else is async, such as [`shutdown`](TokenCache::shutdown), takes a runtime for the moment:
//!    `Builder::new_current_thread().enable_all().build()?.block_on(cache.shutdown(..))`.

mod acquire;
mod alarm;
mod brakes;
mod builder;
mod chained;
mod fetch;
mod handle;
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
pub(crate) use self::snapshot::Snapshot;

pub use self::builder::TokenCacheBuilder;
pub use self::chained::CachedSource;
pub use self::handle::TokenCache;
pub use self::status::{Health, Status, StatusWatch};
