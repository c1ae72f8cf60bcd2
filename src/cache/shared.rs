//! State shared by all handles of one cache, and the work done on it.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::{HeaderMap, StatusCode};
use secrecy::ExposeSecret as _;
use tokio::runtime::Handle;
use tokio::sync::{broadcast, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tracing::Span;

use super::alarm::Alarm;
use super::events::CacheEvent;
use super::fetch::Launch;
use super::journal;
use super::memory::{CacheState, Decision, Give, Memory};
use super::own_runtime::OwnRuntime;
use super::schedule::Windows;
use super::single_flight::{SingleFlight, Waiter};
use super::snapshot::Snapshot;
use crate::backoff::Chance;
use crate::claims::Claims;
use crate::clock::{Moment, WallClock};
use crate::error::Error;
use crate::extensions::RejectionVerdict;
use crate::origin::Origin;
use crate::revoke::Revoker;
use crate::runtime;
use crate::source::{DynTokenSource, FetchReason};
use crate::token::AccessToken;

/// A fetch ends itself at its deadline. One that is in flight for so much longer is in a runtime that is not driven.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// The settings of a cache.
#[derive(Debug, Default)]
pub(crate) struct CacheSettings {
    /// The name of the cache in the log.
    pub(crate) name: Option<Arc<str>>,
    pub(crate) windows: Windows,
    pub(crate) fetch_timeout: Duration,
    /// The origins that may have the tokens; empty for all.
    pub(crate) only_for: Vec<Origin>,
    pub(crate) wall: WallClock,
    pub(crate) chance: Chance,
    pub(crate) revoker: Option<Revoker>,
    pub(crate) revokes_at_shutdown: bool,
}

/// Sees the head of each response to a request with a token by one handle of a cache.
#[derive(Clone)]
pub(crate) struct ResponseObserver(Arc<SeeResponse>);

type SeeResponse = dyn Fn(StatusCode, &HeaderMap) + Send + Sync;

impl ResponseObserver {
    pub(crate) fn new(see: impl Fn(StatusCode, &HeaderMap) + Send + Sync + 'static) -> Self {
        Self(Arc::new(see))
    }

    pub(crate) fn see(&self, status: StatusCode, headers: &HeaderMap) {
        (self.0)(status, headers);
    }
}

impl fmt::Debug for ResponseObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseObserver")
    }
}

/// State shared by all handles of one cache.
pub(crate) struct CacheShared {
    pub(super) source: Box<dyn DynTokenSource>,
    pub(super) settings: CacheSettings,
    pub(super) flight: Arc<SingleFlight<Arc<Snapshot>, Error, Memory>>,
    /// The current snapshot again, for readers that take no lock. A reader of a stale one finds it retired.
    current: ArcSwapOption<Snapshot>,
    alarm: Alarm,
    /// The task that keeps the cache warm.
    warm: Mutex<Option<AbortHandle>>,
    pub(super) changes: watch::Sender<()>,
    /// For those that watch, once there is one.
    pub(super) events: OnceLock<broadcast::Sender<CacheEvent>>,
    /// Where threads without a runtime have their tokens fetched, once one had to wait.
    own_runtime: Mutex<Option<Arc<OwnRuntime>>>,
}

/// The demands of a caller on its token.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Want {
    /// A token that is good for so much longer.
    pub(crate) min_validity: Option<Duration>,
    /// A new token, even if the cache has a valid one.
    pub(crate) new: bool,
    /// Until when the caller can wait.
    pub(crate) by: Option<Instant>,
}

/// The reply to a caller.
pub(crate) enum Ask {
    /// A token or an error at once.
    Ready(Result<Arc<Snapshot>, Error>),
    /// The outcome of a fetch, and when it must have ended.
    Wait(Waiter<Arc<Snapshot>, Error>, Instant),
}

impl CacheShared {
    pub(crate) fn new(source: Box<dyn DynTokenSource>, settings: CacheSettings) -> Self {
        Self {
            source,
            settings,
            flight: Arc::new(SingleFlight::new(Memory::default())),
            current: ArcSwapOption::empty(),
            alarm: Alarm::default(),
            warm: Mutex::default(),
            changes: watch::Sender::new(()),
            events: OnceLock::new(),
            own_runtime: Mutex::default(),
        }
    }

    /// Returns the current snapshot if it can be used without asking.
    pub(crate) fn fresh(&self) -> Option<Arc<Snapshot>> {
        // A guard would do for the look, but callers keep what they get.
        self.current.load_full().filter(|snapshot| snapshot.is_fresh())
    }

    /// Decides what a caller gets, and starts a fetch where one is due.
    pub(crate) fn ask(self: &Arc<Self>, want: Want) -> Ask {
        let now = self.moment();
        let runtime = runtime::current();
        let mut state = self.flight.lock();
        let overdue = state.memory.deadline.is_some_and(|deadline| now.mono >= deadline + GRACE);
        let abandoned = if overdue { state.abandon() } else { None };
        let Decision { give, launch, .. } = match want.new {
            false => state.decide(want.min_validity, now),
            true => Decision { give: Give::Wait, launch: Some(FetchReason::Forced), ask_again: None },
        };
        let launch = launch.filter(|_| runtime.is_ok() && !state.memory.closed).and_then(|reason| {
            let deadline = now.saturating_add(self.settings.fetch_timeout).mono;
            Launch::new(self, &mut state, reason, deadline, want.by)
        });
        let joined = if launch.is_none() { state.memory.span.clone() } else { None };
        let (mut armed, mut look) = (false, false);
        let ask = match (give, state.current().cloned(), state.wait(), &runtime) {
            (Give::Token, Some(current), _, _) => {
                // Where no alarm can be set, each request asks.
                armed = runtime.is_ok() && self.rearm(&mut state, now);
                Ask::Ready(Ok(current))
            }
            _ if state.memory.closed => Ask::Ready(Err(closed())),
            (Give::Error(error), ..) => {
                look = state.memory.may_look(now.mono);
                Ask::Ready(Err(error))
            }
            (Give::Wait | Give::Token, _, _, Err(error)) => Ask::Ready(Err(error.clone())),
            (Give::Wait | Give::Token, _, Some(waiter), Ok(_)) => {
                Ask::Wait(waiter, state.memory.deadline.unwrap_or(now.mono))
            }
            (Give::Wait | Give::Token, _, None, Ok(_)) => Ask::Ready(Err(abandoned_error())),
        };
        drop(state);
        // All of this is foreign code, or calls some.
        drop(abandoned);
        if let Ok(runtime) = &runtime {
            if armed {
                self.set_alarm(runtime);
            }
            if let Some(launch) = launch {
                launch.spawn(self, runtime);
            }
        }
        if let (Some(span), Ask::Wait(..)) = (joined, &ask) {
            span.follows_from(Span::current());
        }
        if look && self.source.may_differ() {
            self.flight.lock().memory.forgive(now);
            return self.ask(want);
        }
        ask
    }

    /// Does what is due without a request, and says how long nothing will be; nothing if the cache was shut down.
    pub(super) fn tend(self: &Arc<Self>) -> Option<Duration> {
        drop(self.ask(Want::default()));
        let now = self.moment();
        let state = self.flight.lock();
        let decision = state.decide(None, now);
        // The deadline of a fetch that was lost is no reason to come back.
        let in_flight = state.memory.deadline.filter(|_| state.is_in_flight());
        let overdue = in_flight.map(|deadline| (deadline + GRACE).saturating_duration_since(now.mono));
        let next = decision.ask_again.map(|at| now.until(at));
        let next = [next, overdue].into_iter().flatten().min().unwrap_or(Duration::MAX);
        (!state.memory.closed).then_some(next)
    }

    /// Shows the current token to readers without a lock, until they have to ask about it. Returns whether that needs
    /// another alarm.
    pub(super) fn rearm(&self, state: &mut CacheState, now: Moment) -> bool {
        self.current.store(state.current().cloned());
        let Decision { give, ask_again, .. } = state.decide(None, now);
        state.memory.armed = ask_again.map(|at| at.mono);
        state.current().is_some_and(|current| matches!(give, Give::Token) && current.arm(ask_again))
    }

    pub(super) fn set_alarm(&self, runtime: &Handle) {
        self.alarm.set(runtime, || {
            let state = self.flight.lock();
            state.current().cloned().zip(state.memory.armed)
        });
    }

    /// Makes the snapshot of a token that was fetched.
    pub(super) fn snapshot(&self, token: AccessToken, now: Moment) -> Arc<Snapshot> {
        let plan = self.settings.windows.plan(token.obtained().unwrap_or(now), now, token.expiry());
        // Some servers end the whole session over a refresh token that comes before its `nbf`.
        let refresh = token.refresh_secret().and_then(|secret| Claims::read(secret.expose_secret()));
        let not_before = refresh
            .and_then(|claims| claims.not_before)
            .map(|at| now.saturating_add(at.saturating_sub(Duration::from_nanos(now.wall))));
        let plan = plan.not_renewed_before(not_before);
        Arc::new(Snapshot::new(token, plan, self.settings.wall.clone()))
    }

    /// Drops the current token, if it is this one, where one is named; the next use fetches. The one way in which a token
    /// goes that is not replaced. The brakes may keep one that was rejected.
    pub(crate) fn drop_current(&self, token: Option<&AccessToken>, reason: FetchReason) -> RejectionVerdict {
        let now = self.moment();
        let mut state = self.flight.lock();
        let verdict = state.drop_current(token, reason, now);
        let braked = verdict == RejectionVerdict::Braked;
        let news = braked && state.memory.brakes.has_news();
        let at_shutdown = state.memory.cleared;
        self.current.store(state.current().cloned());
        drop(state);
        if reason == FetchReason::Rejected {
            journal::rejected(self, verdict, news);
        }
        // At a shutdown it would read like a fault.
        if !at_shutdown {
            tracing::debug!(?reason, ?verdict, "a token is to be dropped");
        }
        if verdict != RejectionVerdict::Superseded {
            self.changed();
        }
        verdict
    }

    /// Returns whether the token is in use, or may come back.
    pub(super) fn keeps(&self, token: &AccessToken) -> bool {
        let state = self.flight.lock();
        let kept = [state.current(), state.memory.before.as_ref()];
        kept.into_iter().flatten().any(|kept| kept.token().id() == token.id())
    }

    /// Notes that an API took a token. Tells the source, which may be a cache in its turn.
    #[cold]
    pub(crate) fn accepted(&self, snapshot: &Snapshot) {
        snapshot.accept();
        let now = self.moment();
        let mut state = self.flight.lock();
        let was_closed = state.memory.brakes.is_closed(now.mono);
        state.memory.brakes.proven();
        drop(state);
        self.source.note_accepted(snapshot.token());
        if was_closed {
            self.changed();
        }
    }

    /// Returns whether a refusal without a word about the token speaks against this one: it was good, or there is a newer
    /// one, or the one before it is good still.
    pub(crate) fn is_suspect(&self, snapshot: &Snapshot) -> bool {
        let now = self.moment();
        snapshot.is_proven(now)
            || snapshot.is_retired()
            || self.flight.lock().memory.fallback(snapshot, now).is_some()
    }

    /// Returns the tokens to revoke: the current one, also if it has expired, and the one that was fetched last, for its
    /// refresh token, and since it may be another: it waits while the one before it is back in use.
    pub(crate) fn revocable(&self) -> Vec<AccessToken> {
        let state = self.flight.lock();
        let current = state.current().map(|snapshot| snapshot.token().clone());
        let mut tokens: Vec<_> = current.into_iter().chain(state.memory.fetched.clone()).collect();
        tokens.dedup_by_key(|token| token.id());
        tokens
    }

    /// Drops a token that was revoked.
    pub(crate) fn forget(&self, token: &AccessToken) {
        self.flight.lock().memory.fetched.take_if(|fetched| fetched.id() == token.id());
        self.drop_current(Some(token), FetchReason::Forced);
    }

    /// Returns what revokes tokens.
    pub(crate) fn revoker(&self) -> Result<&Revoker, Error> {
        self.settings.revoker.as_ref().ok_or_else(|| {
            Error::config(
                "the token cache does not know how to revoke: give TokenCacheBuilder::revoke_with a Revocation or a \
                 closure",
            )
        })
    }

    /// Starts the task that keeps the cache warm, in place of an earlier one, which may be in a runtime that is not driven.
    pub(crate) fn keep_warm(&self, runtime: &Handle, task: impl Future<Output = ()> + Send + 'static) {
        let mut warm = self.warm.lock().unwrap_or_else(PoisonError::into_inner);
        let old = warm.replace(runtime.spawn(task).abort_handle());
        drop(warm);
        if let Some(old) = old {
            old.abort();
        }
    }

    /// Lets no further fetch start. Returns a wait for the one in flight.
    pub(crate) fn close(&self) -> Option<Waiter<Arc<Snapshot>, Error>> {
        let warm = self.warm.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(warm) = warm {
            warm.abort();
        }
        let mut state = self.flight.lock();
        let was_open = !std::mem::replace(&mut state.memory.closed, true);
        let in_flight = state.wait();
        drop(state);
        if was_open {
            self.tell(|| CacheEvent::Closed);
        }
        in_flight
    }

    /// Takes the token away from a closed cache, and the result of a fetch that ends late.
    pub(crate) fn clear(&self) {
        let mut state = self.flight.lock();
        state.memory.cleared = true;
        state.memory.fetched = None;
        drop(state);
        self.drop_current(None, FetchReason::Forced);
    }

    /// Returns the current token if it has not ended, even if it is due for renewal.
    pub(crate) fn valid(&self) -> Option<Arc<Snapshot>> {
        let now = self.moment();
        let state = self.flight.lock();
        state.current().filter(|snapshot| !snapshot.plan().has_ended(now)).cloned()
    }

    /// Returns the error of the last fetch, if it failed.
    pub(crate) fn last_error(&self) -> Option<Error> {
        self.flight.lock().memory.failure.as_ref().map(|failure| failure.error.clone())
    }

    pub(crate) fn moment(&self) -> Moment {
        self.settings.wall.moment()
    }

    /// Returns the runtime for threads that have none, and holds it from now on.
    pub(crate) fn own_runtime(&self) -> Result<Arc<OwnRuntime>, Error> {
        let runtime = OwnRuntime::shared()?;
        let mut held = self.own_runtime.lock().unwrap_or_else(PoisonError::into_inner);
        let old = held.replace(Arc::clone(&runtime));
        drop(held);
        // Not under the lock: with the last of them what is in it ends, and that may be anything.
        drop(old);
        Ok(runtime)
    }

    /// Tells those that watch.
    pub(super) fn tell(&self, event: impl FnOnce() -> CacheEvent) {
        if let Some(events) = self.events.get().filter(|events| events.receiver_count() > 0) {
            // Without a receiver by now, nothing is missed.
            let _ = events.send(event());
        }
    }

    pub(super) fn changed(&self) {
        self.changes.send_replace(());
    }
}

impl Drop for CacheShared {
    fn drop(&mut self) {
        let warm = self.warm.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(warm) = warm {
            warm.abort();
        }
    }
}

pub(super) fn abandoned_error() -> Error {
    Error::transient("the token request was abandoned: the runtime that ran it was shut down or not driven")
}

fn closed() -> Error {
    Error::config(
        "the token cache was shut down and fetches no more tokens; let the last request end before the shutdown",
    )
}
