//! The state of a cache beside its token, and the decisions made from it: pure functions of values.
//!
//! 1. [`Memory::decide`] says what a caller gets, and whether to fetch: one value, the [`Decision`].
//! 2. After a failed fetch the source is left alone for a while. How long depends on the class of the error, and on
//!    whether there is a token: without one, requests fail, and the source is asked again within seconds.
//! 3. [`Memory::fall_back`] takes the token before the current one back, where an API refuses a new one at first sight.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::Span;

use super::brakes::Brakes;
use super::schedule::Plan;
use super::single_flight::FlightValue as _;
use super::snapshot::Snapshot;
use crate::backoff::Chance;
use crate::clock::Moment;
use crate::error::{Error, ErrorKind};
use crate::extensions::RejectionVerdict;
use crate::source::FetchReason;
use crate::token::AccessToken;

/// With a token in use: the first wait after a failed fetch, which doubles up to the longest, and is at least the shortest.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);
const SHORTEST_BACKOFF: Duration = Duration::from_millis(100);
/// Without a token: the longest waits after a failed fetch, the first two and then all others. Nine tenths of the last are
/// certain, so that an outage costs at most 15 token requests a minute.
const URGENT_BACKOFF: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(5)];
/// The bounds of a wait that the authorization server asked for.
const THROTTLE_BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5 * 60));
/// The wait after a refusal that an operator has to mend.
const PERMANENT: Duration = Duration::from_secs(30);
/// The same without a token, as long as the operator may be at work on it.
const PERMANENT_URGENT: Duration = Duration::from_secs(10);
const OPERATOR_AT_WORK: Duration = Duration::from_secs(60);
/// Without a token, sources that can tell are asked whether something has changed, at most this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// An API that refuses a new token so soon may have a clock that is behind: it finds the token not valid yet.
const TOO_EARLY: Duration = Duration::from_secs(10);
/// The first wait before such a token is tried again; it doubles each time.
const FIRST_RETRIAL: Duration = Duration::from_secs(2);
/// So often it is tried again before its rejection counts.
const RETRIALS: u32 = 4;

/// The decision for one caller: the result it gets, and whether to start a fetch.
#[derive(Debug)]
pub(crate) struct Decision {
    pub(crate) give: Give,
    /// Why a fetch has to start, if one has to.
    pub(crate) launch: Option<FetchReason>,
    /// When the decision can differ while nothing happens. None is never, or when the fetch in flight ends.
    pub(crate) ask_again: Option<Moment>,
}

/// The result that a caller gets.
#[derive(Debug)]
pub(crate) enum Give {
    /// The current token.
    Token,
    /// The outcome of the fetch in flight, or of the one that starts now.
    Wait,
    /// The error of the last fetch: it is too early to ask again.
    Error(Error),
}

/// The state of a cache that is kept under its lock, beside the token and the fetch in flight.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) brakes: Brakes,
    pub(crate) failure: Option<Failure>,
    /// Why there is no token, once there was one.
    pub(crate) lost: Option<FetchReason>,
    /// The token that was fetched last.
    pub(crate) fetched: Option<AccessToken>,
    /// How many were fetched.
    pub(crate) count: u64,
    /// The token that an API rejected last, for the source.
    pub(crate) rejected: Option<AccessToken>,
    /// The token before the current one, or before the one that was dropped, as long as it may come back.
    pub(crate) before: Option<Arc<Snapshot>>,
    /// A new token that an API refused at first sight, and how often. While it is not in use it is what is fetched next.
    pub(crate) early: Option<(AccessToken, u32)>,
    /// Of the fetch in flight: when it must have ended, and its span.
    pub(crate) deadline: Option<Instant>,
    pub(crate) span: Option<Arc<Span>>,
    /// When the alarm has to ring, by the monotonic clock.
    pub(crate) armed: Option<Instant>,
    /// No fetch starts any more; and then none that ends late brings a token back.
    pub(crate) closed: bool,
    pub(crate) cleared: bool,
}

/// An unbroken row of failed fetches.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    /// How many.
    pub(crate) streak: u32,
    /// When the first of them failed.
    pub(crate) began: Instant,
    /// Whether there was no token in use at one of them, so that requests have failed.
    pub(crate) is_down: bool,
    /// When the first of them failed that left no token in use.
    since: Instant,
    /// Until when the source is left alone while a token is in use, and while none is. By either clock: a machine that slept
    /// has waited.
    with_token: Moment,
    without_token: Moment,
    /// When a source may be asked next whether something has changed.
    look: Instant,
}

impl Failure {
    /// Returns until when the source is left alone.
    pub(crate) fn until(&self, has_token: bool) -> Moment {
        if has_token { self.with_token } else { self.without_token }
    }
}

impl Memory {
    /// Decides what a caller gets who needs a token that is good for `min_validity` more.
    ///
    /// A fetch in flight is never doubled, a usable token never kept back, and the source never asked before the wait of a
    /// failure is over.
    pub(crate) fn decide(
        &self,
        token: Option<&Plan>,
        in_flight: bool,
        min_validity: Option<Duration>,
        now: Moment,
    ) -> Decision {
        let usable = token.filter(|plan| !plan.has_ended(now));
        let failure = self.failure.as_ref().filter(|failure| !now.reached(failure.until(usable.is_some())));
        let Some(plan) = usable else {
            let reason = if token.is_some() { Some(FetchReason::Expired) } else { self.lost };
            return match failure {
                Some(failure) if !in_flight => Decision {
                    give: Give::Error(failure.error.clone()),
                    launch: None,
                    ask_again: Some(failure.until(false)),
                },
                Some(_) | None => Decision {
                    give: Give::Wait,
                    launch: (!in_flight).then(|| reason.unwrap_or(FetchReason::Initial)),
                    ask_again: None,
                },
            };
        };
        let reached = |instant: Option<Moment>| instant.is_some_and(|instant| now.reached(instant));
        let must_wait =
            reached(plan.must_wait) || min_validity.is_some_and(|need| plan.falls_short(need, now));
        let may_launch = !in_flight && failure.is_none();
        if must_wait && (in_flight || may_launch) {
            let launch = may_launch.then_some(FetchReason::Expiring);
            return Decision { give: Give::Wait, launch, ask_again: None };
        }
        let launch = (may_launch && reached(plan.due)).then_some(FetchReason::Expiring);
        // With a fetch in flight nothing is to be decided before requests have to wait for it; while the source is left
        // alone nothing before that ends.
        let ask_again = match failure {
            _ if in_flight || launch.is_some() => plan.must_wait.filter(|instant| !now.reached(*instant)),
            Some(failure) if reached(plan.due) => Some(failure.until(true)),
            Some(_) | None => plan.due,
        };
        let ask_again = match (ask_again, plan.ends) {
            (Some(next), Some(ends)) if next.reached(ends) => Some(ends),
            (next, ends) => next.or(ends),
        };
        Decision { give: Give::Token, launch, ask_again }
    }

    /// Notes a token that arrived. Returns the row of failures that ended.
    ///
    /// Its error may hold anything of the source, so it must not be dropped under the lock.
    pub(crate) fn succeeded(&mut self) -> Option<Failure> {
        self.lost = None;
        self.failure.take()
    }

    /// Notes a failed fetch, and tells its error when the source is asked again. Returns the failure before it, if it is not
    /// the first of a row: as in [`succeeded`](Self::succeeded).
    pub(crate) fn failed(
        &mut self,
        error: &mut Error,
        has_token: bool,
        moment: Moment,
        chance: &Chance,
    ) -> Option<Failure> {
        let now = moment.mono;
        let streak = self.failure.as_ref().map_or(0, |failure| failure.streak);
        // An operator learns of it when requests fail, as a rule.
        let since = self.failure.as_ref().filter(|_| !has_token).map_or(now, |failure| failure.since);
        let backoff = chance.full_jitter(FIRST_BACKOFF, LONGEST_BACKOFF, streak);
        // The page of a gateway is no refusal: when the gateway finds its way again, no operator has to mend anything. A 401 is
        // about the client or its secret, and may count against it.
        let is_refusal = error.is_final()
            || error.code().is_some()
            || error.status() == Some(http::StatusCode::UNAUTHORIZED);
        let (with_token, without_token) = match error.kind() {
            ErrorKind::Config | ErrorKind::Grant if is_refusal => {
                let at_work = now.saturating_duration_since(since) < OPERATOR_AT_WORK;
                (PERMANENT, if at_work { PERMANENT_URGENT } else { PERMANENT })
            }
            ErrorKind::Throttled => match error.throttled_until() {
                Some(until) => {
                    let wait = Instant::from_std(until).saturating_duration_since(now);
                    let wait = wait.clamp(THROTTLE_BOUNDS.0, THROTTLE_BOUNDS.1);
                    match streak {
                        0 => (wait, wait),
                        // A time that was just proved wrong is no shorter wait than none.
                        _ => (wait.max(backoff), wait.max(urgent(streak, chance))),
                    }
                }
                None => (backoff.max(THROTTLE_BOUNDS.0), urgent(streak, chance).max(THROTTLE_BOUNDS.0)),
            },
            ErrorKind::Config | ErrorKind::Grant | ErrorKind::Transient | ErrorKind::Protocol => {
                (backoff.max(SHORTEST_BACKOFF), urgent(streak, chance))
            }
        };
        // Another cache stands behind this one, and says when it asks again if it has no token.
        let behind = error.cache_retries_at().map(|at| Instant::from_std(at).saturating_duration_since(now));
        let (with_token, without_token) = behind.map_or((with_token, without_token), |wait| {
            let wait = wait.clamp(SHORTEST_BACKOFF, THROTTLE_BOUNDS.1);
            (with_token.max(wait), wait)
        });
        let (with_token, without_token) =
            (moment.saturating_add(with_token), moment.saturating_add(without_token));
        *error = error.clone().with_retry_at(without_token.mono.into_std());
        let (error, streak) = (error.clone(), streak.saturating_add(1));
        let failure = Failure {
            error,
            streak,
            began: self.failure.as_ref().map_or(now, |failure| failure.began),
            is_down: !has_token || self.failure.as_ref().is_some_and(|failure| failure.is_down),
            since,
            with_token,
            without_token,
            look: now + LOOK_EVERY,
        };
        self.failure.replace(failure)
    }

    /// Returns whether it is time to ask the source if something has changed since it failed.
    pub(crate) fn may_look(&mut self, now: Instant) -> bool {
        let Some(failure) = self.failure.as_mut().filter(|failure| now >= failure.look) else { return false };
        failure.look = now + LOOK_EVERY;
        true
    }

    /// Opens the way to the source at once: what stopped it has changed.
    pub(crate) fn forgive(&mut self, now: Moment) {
        if let Some(failure) = &mut self.failure {
            (failure.with_token, failure.without_token) = (now, now);
        }
    }

    /// Notes that a newer token takes the place of this one. Returns whether this one may come back.
    fn is_succeeded(&mut self, old: &Snapshot, now: Moment) -> bool {
        let proven = old.is_proven(now);
        if proven {
            self.brakes.proven();
        }
        proven && !old.is_refused() && !old.plan().has_ended(now)
    }

    /// Returns the token before this one, which an API refused too soon after its renewal to believe that it is bad: its
    /// clock may be behind, and find the token not valid yet.
    pub(crate) fn fallback(&self, refused: &Snapshot, now: Moment) -> Option<&Arc<Snapshot>> {
        let before = self.before.as_ref().filter(|before| !before.plan().has_ended(now))?;
        // A token that an API took already is valid; its rejection is news.
        let is_new = now.since(refused.plan().born) < TOO_EARLY && !refused.is_proven(now);
        let too_early = is_new && self.trials(refused.token()) < RETRIALS;
        (too_early && before.token().id() != refused.token().id()).then_some(before)
    }

    /// Takes the token before this one back, and remembers to try this one again after a while.
    fn fall_back(&mut self, refused: &Snapshot, now: Moment) -> Option<Arc<Snapshot>> {
        let trials = self.trials(refused.token());
        let before = Arc::clone(self.fallback(refused, now)?);
        self.early = Some((refused.token().clone(), trials + 1));
        let due = now.saturating_add(FIRST_RETRIAL * (1 << trials));
        Some(Arc::new(before.again(before.plan().interim(now, due))))
    }

    fn trials(&self, token: &AccessToken) -> u32 {
        self.early.as_ref().filter(|(early, _)| early.id() == token.id()).map_or(0, |(_, trials)| *trials)
    }
}

/// Draws the wait after a failed fetch that left no token.
fn urgent(streak: u32, chance: &Chance) -> Duration {
    let index = usize::try_from(streak).unwrap_or(usize::MAX);
    match URGENT_BACKOFF.get(index) {
        Some(wait) if index + 1 < URGENT_BACKOFF.len() => chance.equal_jitter(*wait, *wait, 0),
        Some(_) | None => {
            let [.., longest] = URGENT_BACKOFF;
            longest - (longest / 10).mul_f64(chance.fraction())
        }
    }
}

// --- CacheState ---

/// The state behind the lock of a cache.
pub(crate) type CacheState = super::single_flight::FlightState<Arc<Snapshot>, Error, Memory>;

impl CacheState {
    /// Decides what a caller gets who needs a token that is good for `min_validity` more.
    pub(crate) fn decide(&self, min_validity: Option<Duration>, now: Moment) -> Decision {
        let plan = self.current().map(|current| current.plan());
        self.memory.decide(plan, self.is_in_flight(), min_validity, now)
    }

    /// Puts a token into use that was fetched, or that is tried again.
    pub(crate) fn publish(&mut self, snapshot: &Arc<Snapshot>, now: Moment) {
        let old = self.current().cloned();
        let memory = &mut self.memory;
        memory.before = old.filter(|old| memory.is_succeeded(old, now));
        let trials = memory.trials(snapshot.token());
        // A token that comes back is no better for its age.
        if trials > 0 || memory.rejected.take().is_some_and(|rejected| rejected.id() == snapshot.id()) {
            snapshot.refuse();
        }
        if trials == 0 {
            memory.early = None;
            memory.count += 1;
            memory.fetched = Some(snapshot.token().clone());
        }
        self.replace(Arc::clone(snapshot));
    }

    /// Puts an old token back into use where a fetch failed and there is no other.
    pub(crate) fn restore(&mut self, now: Moment) {
        if self.current().is_some() {
            return;
        }
        if let Some(before) = self.memory.before.take().filter(|before| !before.plan().has_ended(now)) {
            self.replace(Arc::new(before.again(*before.plan())));
        }
    }

    /// Drops the current token, if it is this one, where one is named. A rejection is weighed first:
    ///
    /// 1. An API that refuses a token so soon after a renewal finds it not valid yet: the one before it comes back.
    /// 2. A rejection near the end of the token's life says nothing about the token that is being fetched. Before that, it
    ///    may have been revoked together with that one, which is fetched again.
    /// 3. The brakes hold back what would cost a token request. Where a fetch is in flight anyway, the token is dropped, so
    ///    that a replay waits for the new one.
    ///
    /// Should the fetch fail that follows, the best of the old ones comes back: this one if only a brake spoke against a
    /// fetch and it was ever good, else the one before it.
    pub(crate) fn drop_current(
        &mut self,
        token: Option<&AccessToken>,
        reason: FetchReason,
        now: Moment,
    ) -> RejectionVerdict {
        let Some(current) =
            self.current().filter(|current| token.is_none_or(|token| token.id() == current.id()))
        else {
            // Nor is it one to come back to.
            self.memory.before.take_if(|before| token.is_none_or(|token| token.id() == before.token().id()));
            return RejectionVerdict::Superseded;
        };
        let current = Arc::clone(current);
        let proven = current.is_proven(now);
        let mut spare = None;
        if reason == FetchReason::Rejected {
            current.refuse();
            if let Some(before) = self.memory.fall_back(&current, now) {
                self.replace(before);
                return RejectionVerdict::Invalidated;
            }
            let is_evidence = !current.plan().is_nearly_over(now);
            let costs_nothing = self.is_in_flight() && !is_evidence;
            let may_fetch = costs_nothing || self.memory.brakes.allow(proven, now.mono);
            if !may_fetch && !self.is_in_flight() {
                return RejectionVerdict::Braked;
            }
            if may_fetch && is_evidence {
                self.overtake();
            }
            spare = match may_fetch || !proven {
                true => self.memory.before.take().filter(|before| before.id() != current.id()),
                false => Some(Arc::clone(&current)),
            };
            self.memory.rejected = Some(current.token().clone());
        } else if proven {
            self.memory.brakes.proven();
        }
        self.take(current.id());
        self.memory.lost = Some(reason);
        self.memory.before = spare;
        self.memory.early = None;
        RejectionVerdict::Invalidated
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
