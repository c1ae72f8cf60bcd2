//! A source whose token all processes share: read it, or fetch it for all of them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::Instrument as _;
use tracing::instrument::WithSubscriber as _;

use super::builder::SharedBuilder;
use super::calls::{Away, Calls, Read};
use super::holder::{Holder, refused};
use super::sealing::SealingKey;
use super::token_store::{Acquired, StoreKey, TokenStore};
use super::value::StoredValue;
use crate::backoff::Chance;
use crate::clock;
use crate::error::{Error, ErrorKind};
use crate::runtime::{self, caught};
use crate::source::{SourceIdentity, TokenRequest, TokenSource};
use crate::token::AccessToken;

/// Shares the token of a source with other processes, by way of a [`TokenStore`]. It is a source itself, and stands below a
/// [`TokenCache`](crate::TokenCache).
///
/// The [rules](super) say what it does when, and its [builder](SharedBuilder) has the options.
///
/// The token is that of all processes. So leave out
/// [`revoke_at_shutdown`](crate::cache::TokenCacheBuilder::revoke_at_shutdown): it would end the token that the others use.
///
/// # Cancel safety
///
/// A fetch runs in a task of its own. If its caller gives up it goes on to its end, and the next fetch finds its token in the
/// store.
///
/// # Examples
///
/// ```
/// use tower_oauth2::store::{MemoryStore, SealingKey, Shared};
/// use tower_oauth2::{ClientCredentials, TokenCache};
/// # let http_client = tower::service_fn(|_request: http::Request<tower_oauth2::Body>| async {
/// #     Ok::<_, tower::BoxError>(http::Response::new(tower_oauth2::Body::empty()))
/// # });
///
/// let source = ClientCredentials::builder("https://login.example.com/token", "billing", "secret")
///     .build_with(http_client)?;
/// // Of the fleet: the store that its processes reach, and a key that all of them have.
/// let (store, key) = (MemoryStore::new(), SealingKey::new([7; 32]));
/// let cache = TokenCache::new(Shared::builder(source, store, key).build()?);
/// # let _ = cache;
/// # Ok::<_, tower_oauth2::Error>(())
/// ```
pub struct Shared<S, T> {
    pub(super) inner: Arc<SharedParts<S, T>>,
}

pub(super) struct SharedParts<S, T> {
    pub(super) source: S,
    pub(super) calls: Arc<Calls<T>>,
    pub(super) lease: Duration,
    /// Whether the source lives on a refresh token, which is in the store as well.
    pub(super) has_refresh_token: bool,
    pub(super) is_optional: bool,
    pub(super) chance: Chance,
    /// Fetches that are going on.
    pub(super) busy: AtomicUsize,
    /// Whether this process has a refresh token that the store does not have.
    pub(super) is_unsaved: AtomicBool,
}

/// A fetch without a deadline is given up after this. Until then its lease runs on.
const LONGEST_FETCH: Duration = Duration::from_secs(300);

/// So much of the time of a caller is left over, so that the error arrives before it gives up.
const MARGIN: Duration = Duration::from_millis(100);

/// A process without a deadline waits so long for another one.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The error of a process that had the lease when its time was over.
const TOO_LATE: &str =
    "the time was over before this process had the lease of the token; the next fetch looks again";

/// How often the store is asked for news where it cannot tell.
const FIRST_POLL: Duration = Duration::from_millis(100);
const LONGEST_POLL: Duration = Duration::from_secs(1);

impl<S: TokenSource, T: TokenStore> Shared<S, T> {
    /// Starts with what is required: the source, the store that the processes share, and the key under which the token is
    /// sealed there.
    #[must_use]
    pub fn builder(source: S, store: T, sealing_key: SealingKey) -> SharedBuilder<S, T> {
        SharedBuilder::new(source, store, sealing_key)
    }

    /// Returns the name of the entry in the store.
    #[must_use]
    pub fn key(&self) -> &StoreKey {
        &self.inner.calls.key
    }
}

impl<S: TokenSource, T: TokenStore> TokenSource for Shared<S, T> {
    async fn token(&self, request: TokenRequest) -> Result<AccessToken, Error> {
        let runtime = runtime::current()?;
        let SharedParts { calls, .. } = &*self.inner;
        let read = match calls.load().await {
            Ok(read) => read,
            Err(away) => return self.inner.without_store(request, away).await,
        };
        if let Some(token) = read.value.serves(&request, calls.wall.moment()) {
            tracing::debug!(key = self.key().as_str(), "took the token that the processes share");
            return Ok(token.clone());
        }
        let (returned, result) = oneshot::channel();
        let fetch = Arc::clone(&self.inner).fetch(request, read, returned);
        runtime.spawn(fetch.in_current_span().with_current_subscriber());
        result
            .await
            .unwrap_or_else(|_broken| Err(Error::transient("the fetch broke off: its runtime was shut down")))
    }

    /// With a refresh token in the store, nothing of it is lost with this process.
    fn is_disposable(&self) -> bool {
        if self.inner.has_refresh_token {
            return self.inner.busy.load(Ordering::Acquire) == 0
                && !self.inner.is_unsaved.load(Ordering::Acquire);
        }
        self.inner.source.is_disposable()
    }

    fn accepted(&self, token: &AccessToken) {
        self.inner.source.accepted(token);
    }

    fn name(&self) -> Option<String> {
        self.inner.source.name()
    }

    fn has_changed(&self) -> bool {
        self.inner.source.has_changed()
    }

    fn identity(&self) -> Option<SourceIdentity> {
        self.inner.source.identity().map(SourceIdentity::behind)
    }
}

/// Clones share the source and what is known of the store.
impl<S, T> Clone for Shared<S, T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<S, T> fmt::Debug for Shared<S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("key", &self.inner.calls.key).finish_non_exhaustive()
    }
}

// --- SharedParts ---

impl<S: TokenSource, T: TokenStore> SharedParts<S, T> {
    /// Gets a token that the store has not, for all processes, and returns it to the caller if it still waits.
    async fn fetch(
        self: Arc<Self>,
        request: TokenRequest,
        first: Read,
        returned: oneshot::Sender<Result<AccessToken, Error>>,
    ) {
        let _busy = Busy::new(&self);
        let fence = match self.lease(&request, &first).await {
            Ok(LeaseTurn::Mine(fence)) => fence,
            Ok(LeaseTurn::Done(result)) => return drop(returned.send(result)),
            Err(away) => return drop(returned.send(self.without_store(request, away).await)),
        };
        // The process that had the lease before may have written between the last look and this.
        let (read, result) = match self.calls.load().await {
            Ok(read) => {
                let unusable = read.unusable.as_ref().filter(|_| self.needs(&read));
                let result = unusable.map(|error| Err(refused(error)));
                let result = self.outcome(&request, &read, first.failures()).or(result);
                (read, result)
            }
            Err(away) => (Read::default(), Some(self.without_store(request.clone(), away).await)),
        };
        if let Some(result) = result {
            let _ = returned.send(result);
            return self.calls.release(fence).await;
        }
        let holder = Arc::new(Holder::new(Arc::clone(&self.calls), Some(fence), read, self.is_optional));
        let result = self.fetch_holding(&request, &holder).await;
        let _ = returned.send(result);
        if holder.is_unwritten() {
            holder.keep_writing(self.lease).await;
            self.is_unsaved.store(holder.is_unwritten(), Ordering::Release);
        }
        holder.release().await;
    }

    /// Waits for the lease, or for what its holder fetches. A holder that fails gives its lease to the next process.
    async fn lease(&self, request: &TokenRequest, first: &Read) -> Result<LeaseTurn, Away> {
        let (mut version, failures) = (first.version, first.failures());
        let end = last_moment(request).unwrap_or_else(|| clock::after(clock::now(), LONGEST_WAIT));
        let mut round = 0;
        loop {
            let left = match self.calls.acquire(self.lease).await? {
                // A fetch that begins now would fail for want of time alone.
                Acquired::Taken(fence) if clock::now() >= end => {
                    self.calls.release(fence).await;
                    return Ok(LeaseTurn::Done(Err(Error::transient(TOO_LATE))));
                }
                Acquired::Taken(fence) => return Ok(LeaseTurn::Mine(fence)),
                Acquired::Held(left) => left,
            };
            let poll = self.chance.equal_jitter(FIRST_POLL, LONGEST_POLL, round);
            let poll = poll.min(left).min(end.saturating_duration_since(clock::now()));
            self.calls.changed(version, poll).await;
            let read = self.calls.load().await?;
            if let Some(result) = self.outcome(request, &read, failures) {
                tracing::debug!(key = self.calls.key.as_str(), "another process fetched the token");
                return Ok(LeaseTurn::Done(result));
            }
            if clock::now() >= end {
                return Ok(LeaseTurn::Done(Err(overdue(&read.value, failures))));
            }
            version = read.version;
            round += 1;
        }
    }

    /// Returns what another process has brought about: a token, or token requests that failed in a number that is enough.
    fn outcome(
        &self,
        request: &TokenRequest,
        read: &Read,
        failures: u64,
    ) -> Option<Result<AccessToken, Error>> {
        if let Some(token) = read.value.serves(request, self.calls.wall.moment()) {
            return Some(Ok(token.clone()));
        }
        read.value.failed_since(failures).map(|error| Err(of_another(error)))
    }

    /// Fetches a token for all processes.
    async fn fetch_holding(
        &self,
        request: &TokenRequest,
        holder: &Arc<Holder<T>>,
    ) -> Result<AccessToken, Error> {
        // That it could not be written means one more fetch by a process that has the token still.
        let is_away = holder.mark_rejected(request.rejected()).await.is_err();
        let started = self.calls.wall.moment();
        let (request, end) = match request.deadline() {
            // An exchange goes to its end, also if its caller has given up.
            _ if self.has_refresh_token => (request.clone().with_lineage(Arc::clone(holder) as _), None),
            deadline => (request.clone(), deadline.map(Instant::from_std)),
        };
        let end = end.unwrap_or_else(|| clock::after(started.mono, LONGEST_FETCH));
        let last_moment = last_moment(&request);
        let result = {
            let fetch = std::pin::pin!(caught("the token source", self.source.token(request.clone())));
            match select(fetch, std::pin::pin!(holder.tend(self.lease, end))).await {
                Either::Left((result, _)) => result,
                Either::Right(((), _)) => Err(Error::transient("the token source did not respond in time")),
            }
        };
        // An error that came for want of time says something about this process alone.
        let is_out_of_time = last_moment.is_some_and(|moment| clock::now() >= moment);
        let is_for_all = |error: &Error| concerns_all(error) && (!is_out_of_time || error.status().is_some());
        let to_publish = match &result {
            Ok(token) => Ok(token.clone().counted_from(started)),
            Err(error) => Err(Some(error.clone()).filter(is_for_all)),
        };
        if !holder.has_news() && (is_away || matches!(to_publish, Err(None))) {
            return result;
        }
        match holder.publish(to_publish).await {
            Ok(true) => {
                self.is_unsaved.store(false, Ordering::Release);
                tracing::debug!(key = self.calls.key.as_str(), "wrote what the processes share");
                result
            }
            Ok(false) => {
                tracing::debug!(key = self.calls.key.as_str(), "another process took over meanwhile");
                let winner = self.calls.load().await.ok();
                let now = self.calls.wall.moment();
                let theirs = winner.and_then(|read| read.value.serves(&request, now).cloned());
                theirs.map_or(result, Ok)
            }
            Err(Away(_)) => result,
        }
    }

    /// Leaves the store out for this fetch.
    async fn without_store(&self, request: TokenRequest, away: Away) -> Result<AccessToken, Error> {
        if !self.has_refresh_token {
            return self.source.token(request).await;
        }
        if !self.is_optional {
            return Err(refused(&away.0));
        }
        let read = Read { value: self.calls.remembered(), ..Read::default() };
        let holder = Arc::new(Holder::new(Arc::clone(&self.calls), None, read, true));
        let result = self.source.token(request.with_lineage(Arc::clone(&holder) as _)).await;
        if holder.has_news() {
            self.is_unsaved.store(true, Ordering::Release);
        }
        result
    }

    /// Returns whether the refresh token is in what was read, and nowhere else as far as this process knows.
    fn needs(&self, read: &Read) -> bool {
        self.has_refresh_token && !self.is_optional && read.value.refresh_token.is_none()
    }
}

/// Returns whether an error says something to the other processes: the server refused, or could not be reached. That this
/// one is not set up for a token request does not.
fn concerns_all(error: &Error) -> bool {
    error.is_temporary() || error.is_protocol() || error.status().is_some()
}

/// The error of a token request that another process made for this one. It proves nothing about the settings of this one.
fn of_another(error: &Error) -> Error {
    let message = format!("another process fetched the token for all of them, and failed: {error}");
    error.clone().reworded(message).hearsay()
}

/// The error of a process that has waited since that many failures, and whose time is over while another one still fetches.
fn overdue(value: &StoredValue, failures: u64) -> Error {
    match value.failure.as_ref().filter(|_| value.failures > failures) {
        // Whatever failed before, the token request that goes on may succeed.
        Some(error) => of_another(error).reclassified(ErrorKind::Transient),
        None => Error::transient(
            "another process fetches the token for all of them, and had none in time; the next fetch looks again",
        ),
    }
}

/// Returns when a request has to be over, so that its error arrives before its caller gives up.
fn last_moment(request: &TokenRequest) -> Option<Instant> {
    let deadline = Instant::from_std(request.deadline()?);
    let left = deadline.saturating_duration_since(clock::now());
    Some(deadline.checked_sub(MARGIN.min(left / 10)).unwrap_or(deadline))
}

/// How the wait for a lease ended.
enum LeaseTurn {
    /// The lease is this process's, and has this fence.
    Mine(u64),
    /// There is nothing to fetch any more.
    Done(Result<AccessToken, Error>),
}

// --- Busy ---

/// Counts a fetch for as long as it goes on.
struct Busy<'a> {
    count: &'a AtomicUsize,
}

impl<'a> Busy<'a> {
    fn new<S, T>(inner: &'a SharedParts<S, T>) -> Self {
        inner.busy.fetch_add(1, Ordering::AcqRel);
        Self { count: &inner.busy }
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests;
