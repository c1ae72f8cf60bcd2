//! The handle that everybody holds.

use std::fmt;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout_at};

use super::acquire::Acquire;
use super::events::CacheWatch;
use super::shared::{CacheShared, ResponseObserver, Want};
use super::snapshot::Snapshot;
use super::status::Status;
use super::warm::keep_warm;
use crate::clock;
use crate::error::Error;
use crate::extensions::RejectionVerdict;
use crate::origin::Origin;
use crate::runtime::{self, caught};
use crate::source::FetchReason;
use crate::text::Redactor;
use crate::token::AccessToken;

/// Caches any token source: one token for all, fetched once, renewed before it expires.
///
/// A handle is cheap to clone, and clones share everything. The [rules](super) say what it does when; the
/// [builder](super::TokenCacheBuilder) has the options.
///
/// # Examples
///
/// ```
/// use tower_oauth2::{AccessToken, TokenCache};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let cache = TokenCache::new(AccessToken::bearer("mF_9.B5f-4.1JqM")?);
/// let token = cache.get().await?;
/// assert_eq!(token.header_value(), "Bearer mF_9.B5f-4.1JqM");
/// # Ok::<_, tower_oauth2::Error>(()) })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct TokenCache {
    pub(super) shared: Arc<CacheShared>,
    /// Of this handle and its clones alone.
    pub(super) observer: Option<ResponseObserver>,
}

impl TokenCache {
    /// Returns a usable token, and waits for one only where there is none. Called before the first request, it shows a wrong
    /// secret at start-up.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future only gives up the wait: a token request that has started goes on for everybody else.
    ///
    /// # Errors
    ///
    /// The error of the last token request where there is no valid token; a configuration error outside a tokio runtime
    /// and after [`shutdown`](Self::shutdown).
    pub async fn get(&self) -> Result<AccessToken, Error> {
        self.token(Want::default()).await
    }

    /// Returns a usable token as [`get`](Self::get) does, on a thread that runs no async code, and sleeps while there is
    /// none. All threads and tasks share one fetch.
    ///
    /// For the cost, and the thread on which the fetch runs, see the page of the
    /// [module](super#threads-without-a-runtime).
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), but a runtime is not needed. A configuration error in async code, whether there is a token or
    /// not; tokio tells so by a panic alone, which is caught here after its message went to stderr, and ends a process that
    /// is built with `panic = "abort"`. One as well in the destructor of a thread-local value, where there is no token.
    pub fn blocking_get(&self) -> Result<AccessToken, Error> {
        let around = Handle::try_current();
        if let Ok(around) = &around {
            may_block(around)?;
        }
        if let Some(snapshot) = self.shared.fresh() {
            return Ok(snapshot.token().clone());
        }
        if around.is_err_and(|error| error.is_thread_local_destroyed()) {
            return Err(Error::config(
                "blocking_get was called while its thread ended, which cannot wait any more; fetch the token before that",
            ));
        }
        self.shared.own_runtime()?.handle().block_on(self.get())
    }

    /// Returns the token in use if there is a valid one. Fetches nothing.
    #[must_use]
    pub fn peek(&self) -> Option<AccessToken> {
        self.shared.valid().map(|snapshot| snapshot.token().clone())
    }

    /// Reports that an API took this token. `AuthService` does so by itself. Call it if you send tokens in another way: a row
    /// of rejected tokens that no API ever took closes a brake. The source is told, which may be another cache.
    pub fn accept(&self, token: &AccessToken) {
        let current = self.shared.valid().filter(|snapshot| snapshot.token().id() == token.id());
        if let Some(snapshot) = current.filter(|snapshot| !snapshot.is_accepted()) {
            self.shared.accepted(&snapshot);
        }
    }

    /// Reports that an API rejected this token: a compare-and-set on its identity.
    ///
    /// If it is the token in use it is dropped, and the next use fetches another, or goes back to the one before. If it is
    /// not, nothing happens: a late rejection never takes a newer token away. Two brakes keep an API that rejects everything
    /// from becoming a storm of token requests; then the token is kept and the verdict is
    /// [`Braked`](RejectionVerdict::Braked). The [rules](super#rejections) say when.
    #[allow(clippy::must_use_candidate, reason = "most callers only report")]
    #[doc(alias = "invalidate")]
    pub fn reject(&self, token: &AccessToken) -> RejectionVerdict {
        self.shared.drop_current(Some(token), FetchReason::Rejected)
    }

    /// Drops the token in use; the next use waits for another: of the fetch that is going on, or of one that it starts.
    #[doc(alias = "expire")]
    #[doc(alias = "refresh")]
    #[doc(alias = "clear")]
    pub fn invalidate(&self) {
        self.shared.drop_current(None, FetchReason::Forced);
    }

    /// Fetches a token now and returns it; the one in use stays in use meanwhile. Joins a fetch that is going on.
    ///
    /// This is also the way out of the wait that follows a refusal, after an operator has mended its cause.
    ///
    /// # Cancel safety
    ///
    /// As [`get`](Self::get).
    ///
    /// # Errors
    ///
    /// The error of the token request, even if the token in use is still valid.
    pub async fn refresh(&self) -> Result<AccessToken, Error> {
        self.token(Want { new: true, ..Want::default() }).await
    }

    /// Fetches the first token, so that the first request finds one and a wrong secret shows at start-up: [`get`](Self::get)
    /// after a random time of at most `spread`, so that processes that start together do not ask together. It is not a
    /// timeout.
    ///
    /// # Cancel safety
    ///
    /// As [`get`](Self::get).
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn warm_up(&self, spread: Duration) -> Result<(), Error> {
        runtime::current()?;
        sleep(spread.mul_f64(self.shared.settings.chance.fraction())).await;
        self.get().await.map(drop)
    }

    /// Keeps a valid token in the cache from now on, without requests: renews it before it expires, and fetches another at
    /// once when it was dropped, within the brakes and the waits after failures. So [`Status::is_ready`] holds for a
    /// pod that gets no traffic.
    ///
    /// The work is done by a task in the current runtime. It stays there, and ends with the last handle, with
    /// [`shutdown`](Self::shutdown), or with the runtime; a later call moves it to the runtime of that call. Without it a token
    /// that was not used for a lifetime is fetched when the next request comes, which then waits. A suspend,
    /// and a fetch that went down with another runtime, are noticed within ten seconds.
    ///
    /// # Errors
    ///
    /// A configuration error outside a tokio runtime, and in one without a timer.
    #[doc(alias = "background_refresh")]
    #[doc(alias = "auto_refresh")]
    pub fn keep_warm(&self) -> Result<(), Error> {
        self.shared.keep_warm(&runtime::current()?, keep_warm(&self.shared));
        Ok(())
    }

    /// Revokes the token in use, and the refresh token that it carries, then drops it: the next use fetches another,
    /// where the source still can. With no token there is nothing to do.
    ///
    /// A token request that is going on is not waited for, and what it brings is not revoked. To end for good, stop the
    /// requests first.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the request. The token stays in use: revoked or not, and if it was, the first API that
    /// refuses it has it replaced.
    ///
    /// # Errors
    ///
    /// That of the [revoker](super::TokenCacheBuilder::revoke_with); the token stays in use then, since it counts as still
    /// valid. A configuration error if there is no revoker.
    pub async fn revoke(&self) -> Result<(), Error> {
        let revoker = self.shared.revoker()?;
        // At the same time: that one fails or hangs is no reason to leave the other alive.
        let revoking = self.shared.revocable().into_iter().map(|token| async move {
            caught("the revoker", revoker.revoke(token.clone())).await.map(|()| self.shared.forget(&token))
        });
        join_all(revoking).await.into_iter().collect()
    }

    /// Ends the cache: starts no further token request, waits for the one in flight and for the writes of its result,
    /// revokes the token if it was [told to](super::TokenCacheBuilder::revoke_at_shutdown), and drops it. Call it
    /// when the last request is done.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the cache closed, with the token that it had.
    ///
    /// # Errors
    ///
    /// A transient error if a token request was still going on after `within`; it goes on until the runtime ends, and
    /// nothing is revoked. The error of the revoker where the token was not revoked, a transient one if the time was over. A
    /// configuration error where there is something to wait for, and no runtime, or one without a timer. The cache is ended
    /// in either case.
    pub async fn shutdown(&self, within: Duration) -> Result<(), Error> {
        let deadline = clock::now().checked_add(within);
        let result = self.finish(deadline).await;
        self.shared.clear();
        result
    }

    async fn finish(&self, deadline: Option<Instant>) -> Result<(), Error> {
        if let Some(in_flight) = self.shared.close() {
            // Where nothing can be waited for, nothing is.
            runtime::current()?;
            within(deadline, in_flight).await.ok_or_else(|| {
                Error::transient("a token request was still going on when the time for the shutdown was over")
            })?;
        }
        if !self.shared.settings.revokes_at_shutdown {
            return Ok(());
        }
        let now = self.shared.moment();
        let mut tokens = self.shared.revocable();
        tokens.retain(|token| token.expiry().is_none_or(|expiry| !now.reached(expiry)));
        // As in `revoke`.
        let revoking = tokens.into_iter().map(|token| async move {
            runtime::current()?;
            let revoking = self.shared.revoker()?.revoke(token.without_refresh_token());
            within(deadline, caught("the revoker", revoking)).await.unwrap_or_else(|| {
                Err(Error::transient(
                    "the token was not revoked in the time that the shutdown had; it counts as valid until it expires",
                ))
            })
        });
        join_all(revoking).await.into_iter().collect()
    }

    /// Returns how the cache is, for a health check. No secret is in it.
    #[must_use]
    pub fn status(&self) -> Status {
        Status::of(&self.shared)
    }

    /// Returns the events from now on: tokens that arrive, rejections, outages.
    #[must_use]
    pub fn watch(&self) -> CacheWatch {
        CacheWatch::new(&self.shared)
    }

    /// Returns the current snapshot if it can be used without a fetch.
    pub(crate) fn fresh(&self) -> Option<Arc<Snapshot>> {
        self.shared.fresh()
    }

    /// Returns the token in use if it is valid, even if it is due for renewal.
    pub(crate) fn valid(&self) -> Option<Arc<Snapshot>> {
        self.shared.valid()
    }

    /// Returns the origins that may have the tokens; none if all may.
    pub(crate) fn only_for(&self) -> &[Origin] {
        &self.shared.settings.only_for
    }

    /// Returns a handle for which the auth layer shows the head of each response to a request with a token of the cache. Requests
    /// with a token by another handle are not seen.
    pub(crate) fn observed_by(&self, observer: ResponseObserver) -> Self {
        Self { shared: Arc::clone(&self.shared), observer: Some(observer) }
    }

    /// Returns what sees the responses to requests with its tokens.
    pub(crate) fn observer(&self) -> Option<&ResponseObserver> {
        self.observer.as_ref()
    }

    /// Returns a future of a snapshot that is good for `min_validity` more.
    pub(crate) fn acquire(&self, min_validity: Option<Duration>) -> Acquire {
        Acquire::new(Arc::clone(&self.shared), Want { min_validity, ..Want::default() })
    }

    pub(super) async fn token(&self, want: Want) -> Result<AccessToken, Error> {
        Ok(Acquire::new(Arc::clone(&self.shared), want).await?.token().clone())
    }

    /// Notes that an API took the token of this snapshot.
    pub(crate) fn accepted(&self, snapshot: &Snapshot) {
        self.shared.accepted(snapshot);
    }

    /// Returns whether a refusal without a word about the token speaks against the one of this snapshot.
    pub(crate) fn is_suspect(&self, snapshot: &Snapshot) -> bool {
        self.shared.is_suspect(snapshot)
    }

    /// Tells the redactor the tokens that a server may echo.
    pub(crate) fn teach(&self, redactor: &mut Redactor) {
        let state = self.shared.flight.lock();
        let (current, memory) = (state.current().map(|current| current.token()), &state.memory);
        for token in [current, memory.fetched.as_ref(), memory.rejected.as_ref()].into_iter().flatten() {
            token.teach(redactor);
        }
    }

    /// Returns whether it was shut down.
    pub(crate) fn is_closed(&self) -> bool {
        self.shared.flight.lock().memory.closed
    }

    /// Lets no further token request start.
    pub(crate) fn close(&self) {
        drop(self.shared.close());
    }

    /// Returns whether this is the last handle, no fetch is in flight, and nothing would be lost with the cache.
    pub(crate) fn is_idle(&self) -> bool {
        // A fetch has a handle of its own.
        Arc::strong_count(&self.shared) == 1 && self.shared.source.may_be_dropped()
    }

    /// Takes the cache apart, after which no fetch can start; returns it where it is not the last handle.
    pub(crate) fn retire(self) -> Result<Retired, Self> {
        match Arc::try_unwrap(self.shared) {
            Ok(shared) => Ok(Retired { _shared: shared }),
            Err(shared) => Err(Self { shared, observer: self.observer }),
        }
    }

    /// Returns whether both handles share one cache.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache").field("status", &self.status()).finish_non_exhaustive()
    }
}

// --- Retired ---

/// A cache that has ended. Dropping it drops its source.
pub(crate) struct Retired {
    _shared: CacheShared,
}

// --- Helpers ---

/// Waits no longer than to `deadline`, where there is one.
async fn within<T>(deadline: Option<Instant>, future: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => timeout_at(deadline, future).await.ok(),
        None => Some(future.await),
    }
}

/// Finds out whether this thread runs tasks, which would stand still.
///
/// tokio panics where it does; a library must not, and there is no other way to ask.
fn may_block(around: &Handle) -> Result<(), Error> {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    catch_unwind(AssertUnwindSafe(|| around.block_on(ready(())))).map_err(|_panic| {
        Error::config(
            "blocking_get was called in async code, whose thread must not sleep; await get there, or go by \
             spawn_blocking",
        )
    })
}
