//! One fetch: the request to the source, in a task of its own, and what becomes of its result.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::instrument::WithSubscriber as _;
use tracing::{Instrument as _, Span};

use super::journal::{self, Landing};
use super::memory::{CacheState, Memory};
use super::shared::CacheShared;
use super::single_flight::Leader;
use super::snapshot::Snapshot;
use crate::clock::{self, Moment};
use crate::error::Error;
use crate::runtime::{caught, with_timer};
use crate::source::{FetchReason, TokenRequest};
use crate::telemetry;
use crate::token::AccessToken;

/// A token that lived less than this is used for a second all the same, so fetching it again would not help.
const SHORTEST_LIFE: Duration = Duration::from_secs(1);

/// A fetch that has been decided on and waits for its task.
pub(super) struct Launch {
    leader: Leader<Arc<Snapshot>, Error, Memory>,
    request: TokenRequest,
    deadline: Instant,
    /// A token that is tried again in place of a request to the source.
    early: Option<AccessToken>,
}

impl Launch {
    /// Starts a fetch under the lock; nothing if one is in flight already.
    ///
    /// The source plans to end `by` then, if the caller has no more time. It is given up at the deadline all the same:
    /// others may wait for it, and what it brings is good for the next.
    pub(super) fn new(
        shared: &CacheShared,
        state: &mut CacheState,
        reason: FetchReason,
        deadline: Instant,
        by: Option<Instant>,
    ) -> Option<Self> {
        let leader = state.lead(&shared.flight)?;
        let in_use = state.current().map(|current| current.token().id());
        let memory = &mut state.memory;
        memory.deadline = Some(deadline);
        let request = TokenRequest::new(reason)
            .with_previous(memory.fetched.clone())
            .with_rejected(memory.rejected.clone())
            .with_deadline(by.map_or(deadline, |by| by.min(deadline)).into_std());
        let early = memory.early.as_ref().map(|(token, _)| token).filter(|token| in_use != Some(token.id()));
        let early =
            early.filter(|token| token.expiry().is_none_or(|expiry| !shared.moment().reached(expiry)));
        let early = early.filter(|_| matches!(reason, FetchReason::Expiring | FetchReason::Expired)).cloned();
        Some(Self { leader, request, deadline, early })
    }

    /// Starts the task. Outside the lock: a subscriber may ask the cache itself, since what exports the traces may send them
    /// with a token of ours.
    pub(super) fn spawn(self, shared: &Arc<CacheShared>, runtime: &Handle) {
        let reason = self.request.reason();
        let span = tracing::info_span!(
            parent: None,
            telemetry::FETCH_SPAN,
            ?reason,
            cache = shared.settings.name.as_deref()
        );
        span.follows_from(Span::current());
        let shown = Arc::new(span.clone());
        let old = shared.flight.lock().memory.span.replace(shown);
        drop(old);
        tracing::debug!(parent: &span, ?reason, "fetching a token");
        let task = self.run(Arc::clone(shared));
        // A task of its own, so that a caller that goes away takes nothing with it. It inherits the subscriber, which a
        // spawned task does not by itself.
        runtime.spawn(task.instrument(span).with_current_subscriber());
        shared.changed();
    }

    async fn run(self, shared: Arc<CacheShared>) {
        // Without a timer there is no deadline. Dropped, the leader frees its waiters to fetch in their own runtimes.
        let Ok(over) = with_timer(|| sleep_until(self.deadline)) else { return };
        // A runtime that was not driven for long comes back to a fetch that was given up, perhaps for another.
        if self.leader.is_abandoned() {
            return;
        }
        let began = clock::now();
        let mut doubtful = None;
        let result = until(over, caught("the token source", self.fetch(&shared, &mut doubtful))).await;
        let timeout = shared.settings.fetch_timeout;
        let result = result.unwrap_or_else(|| {
            Err(Error::transient(format!(
                "the token source did not respond within {timeout:?}; check that the authorization server can be \
                 reached"
            )))
        });
        // Whether it is as bad as the one that was rejected meanwhile, an API will say.
        let doubtful = doubtful.filter(|token| !has_outlasted(token, shared.moment()));
        let result = result.or_else(|error| doubtful.ok_or(error));
        land(&shared, self.leader, result, began, self.early.is_some());
    }

    /// Asks the source until there is a token that nothing has overtaken. One that was overtaken is `doubtful`.
    async fn fetch(
        &self,
        shared: &CacheShared,
        doubtful: &mut Option<AccessToken>,
    ) -> Result<AccessToken, Error> {
        if let Some(early) = &self.early {
            return Ok(early.clone());
        }
        let mut request = self.request.clone();
        let mut outlasted = false;
        loop {
            let started = shared.moment();
            let token = shared.source.fetch(request.clone()).await?.sealed(started, shared.moment());
            if self.leader.was_overtaken() {
                tracing::debug!("a token was rejected while this one was fetched; fetching again");
                request = TokenRequest::new(FetchReason::Rejected)
                    .with_previous(Some(token.clone()))
                    .with_rejected(shared.flight.lock().memory.rejected.clone())
                    .with_deadline(self.deadline.into_std());
                *doubtful = Some(token);
                continue;
            }
            // The process may have slept meanwhile. Once: a source may be slower than its tokens live.
            if !outlasted && has_outlasted(&token, shared.moment()) {
                tracing::debug!("a token expired while it was fetched; fetching again");
                outlasted = true;
                continue;
            }
            return Ok(token);
        }
    }
}

/// Polls the deadline first, so that a source which outlasted it is not polled once more.
async fn until<T>(deadline: Sleep, fetch: impl Future<Output = T>) -> Option<T> {
    let (mut deadline, mut fetch) = (pin!(deadline), pin!(fetch));
    poll_fn(|context| match deadline.as_mut().poll(context) {
        Poll::Ready(()) => Poll::Ready(None),
        Poll::Pending => fetch.as_mut().poll(context).map(Some),
    })
    .await
}

/// Returns whether a token that had a life has none left when it arrives.
fn has_outlasted(token: &AccessToken, now: Moment) -> bool {
    let (Some(obtained), Some(expiry)) = (token.obtained(), token.expiry()) else { return false };
    now.reached(expiry) && obtained.until(expiry) >= SHORTEST_LIFE
}

/// Ends a fetch: publishes its token or notes its error. The end of one that was given up is not an event, nor is an end after
/// the shutdown: the result says nothing about the token in use.
fn land(
    shared: &Arc<CacheShared>,
    leader: Leader<Arc<Snapshot>, Error, Memory>,
    result: Result<AccessToken, Error>,
    began: Instant,
    is_early: bool,
) {
    let now = shared.moment();
    let result = result.map(|token| shared.snapshot(token, now));
    let kind = result.as_ref().err().map(Error::kind);
    let mut noted = None;
    let mut failure = None;
    let mut span = None;
    let mut armed = false;
    let (mut valid_for, mut retry_in, mut had_token) = (None, None, false);
    leader.finish(result, |result, state| {
        state.memory.deadline = None;
        span = state.memory.span.take();
        if state.memory.cleared {
            return;
        }
        had_token = state.current().is_some_and(|current| !current.plan().has_ended(now));
        match result {
            Ok(snapshot) => {
                // Nobody was asked for one that is tried again.
                failure = if is_early { None } else { state.memory.succeeded() };
                state.publish(snapshot, now);
            }
            Err(error) => {
                state.restore(now);
                let current = state.current().filter(|current| !current.plan().has_ended(now));
                valid_for = current.map(|current| Some(now.until(current.plan().ends?)));
                failure = state.memory.failed(error, valid_for.is_some(), now, &shared.settings.chance);
                let until = state.memory.failure.as_ref().map(|failure| failure.until(valid_for.is_some()));
                retry_in = until.map(|until| now.until(until));
            }
        }
        armed = shared.rearm(state, now);
        noted = Some(result.clone());
    });
    drop(span);
    let landing =
        Landing { had_token, took: now.mono.saturating_duration_since(began), before: failure.as_ref() };
    match noted {
        Some(Ok(_)) if is_early => tracing::debug!("a token that was refused at first is tried again"),
        Some(Ok(snapshot)) => journal::fetched(shared, snapshot.token(), &landing),
        Some(Err(error)) => journal::failed(shared, &error, valid_for, retry_in, &landing),
        None => journal::unheard(shared, kind, &landing),
    }
    if armed {
        shared.set_alarm(&Handle::current());
    }
    shared.changed();
}
