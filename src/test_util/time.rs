//! Help with tokio's paused clock (`#[tokio::test(start_paused = true)]`).

use std::time::Duration;

use crate::clock;

/// Lets every task run until all of them wait for something. On a paused clock that takes a millisecond of its time.
///
/// # Cancel safety
///
/// Dropping it does nothing but stop waiting.
pub async fn settle() {
    // A paused clock moves only when there is nothing left to run, and never by less than its timers know.
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// Lets `duration` pass on the paused clock, and every task do what it does meanwhile. (`tokio::time::advance` jumps
/// there at once, as for a machine that was asleep.)
///
/// # Cancel safety
///
/// Dropping it does nothing but stop waiting.
///
/// # Examples
///
/// A token is renewed in the background when a fifth of its life is left:
///
/// ```
/// use std::time::Duration;
/// use tower_oauth2::TokenCache;
/// use tower_oauth2::test_util::{ScriptedSource, pass};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?.block_on(async {
/// let source = ScriptedSource::new().lifetime(Duration::from_secs(100));
/// let cache = TokenCache::new(source.clone());
/// cache.keep_warm()?;
/// pass(Duration::from_secs(70)).await;
/// assert_eq!(source.fetches(), 1);
/// pass(Duration::from_secs(25)).await;
/// assert_eq!(source.fetches(), 2);
/// # Ok::<_, tower_oauth2::Error>(())
/// # })?;
/// # Ok::<_, tower::BoxError>(())
/// ```
pub async fn pass(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// Awaits `future` and tells how long it took by tokio's clock.
///
/// # Cancel safety
///
/// That of `future`.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_oauth2::TokenCache;
/// use tower_oauth2::test_util::{ScriptedSource, timed};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?.block_on(async {
/// let cache = TokenCache::new(ScriptedSource::new().latency(Duration::from_secs(2)));
/// let (token, took) = timed(cache.get()).await;
/// assert!(token.is_ok());
/// assert_eq!(took, Duration::from_secs(2));
/// # });
/// # Ok::<_, std::io::Error>(())
/// ```
pub async fn timed<F: Future>(future: F) -> (F::Output, Duration) {
    let start = clock::now();
    let output = future.await;
    (output, clock::now() - start)
}
