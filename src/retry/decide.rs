//! What happened, and what follows from it: values in, verdict out.

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, Method, Response, StatusCode};

use super::options::RetryOptions;
use super::policy::{RetryPolicy, Rules};
use super::replay_body::NotReplayable;
use super::report::{ReplayReason, StopReason};
use crate::backoff::Chance;
use crate::clock;
use crate::extensions::{RejectionVerdict, TokenRejected};
use crate::headers::rate_limit::{self, Hint};

/// What [`RetryPolicy::decide`] looks at: one answer, and what went before it.
///
/// Defaults: a first attempt without a deadline, whose body can be sent again, under the policy's own rules.
#[derive(Clone, Debug)]
#[must_use = "a view is there to be decided on"]
pub struct View<'a> {
    status: StatusCode,
    rejected: Option<&'a TokenRejected>,
    headers: Headers<'a>,
    /// When the answer was looked at, as the time since the Unix epoch.
    now: Duration,
    repeatable: bool,
    body: Result<(), NotReplayable>,
    retries: u32,
    auth_replays: u32,
    waited: Duration,
    time_left: Option<Duration>,
    options: Option<&'a RetryOptions>,
}

/// What is to be done about an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Send the request again.
    #[non_exhaustive]
    Replay {
        /// After this wait.
        delay: Duration,
        /// For this reason.
        reason: ReplayReason,
        /// What the server had asked for; none where the wait is the policy's own.
        requested_delay: Option<Duration>,
    },
    /// Hand the answer out.
    Stop(StopReason),
}

impl<'a> View<'a> {
    /// Creates the view of the answer to a request with `method`.
    ///
    /// It reads the clock, against which a server's points in time are measured if it does not say its own, and the
    /// marker of auth. What the server asks for is read by the policy that decides.
    pub fn new<B>(response: &'a Response<B>, method: &Method) -> Self {
        Self::of(response, method.is_idempotent())
    }

    pub(super) fn of<B>(response: &'a Response<B>, repeatable: bool) -> Self {
        Self {
            status: response.status(),
            rejected: response.extensions().get(),
            headers: Headers(response.headers()),
            now: clock::unix_time(),
            repeatable,
            body: Ok(()),
            retries: 0,
            auth_replays: 0,
            waited: Duration::ZERO,
            time_left: None,
            options: None,
        }
    }

    /// Says that the request has an `Idempotency-Key`, so that it may be repeated whatever its method.
    pub fn idempotency_key(mut self) -> Self {
        self.repeatable = true;
        self
    }

    /// Sets whether the request body can be sent again.
    pub fn body(mut self, replayable: Result<(), NotReplayable>) -> Self {
        self.body = replayable;
        self
    }

    /// Sets how often the request was sent again, replays with a new token not counted.
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// Sets how often the request was replayed with a new token.
    pub fn auth_replays(mut self, replays: u32) -> Self {
        self.auth_replays = replays;
        self
    }

    /// Sets how long was waited for this request so far.
    pub fn waited(mut self, waited: Duration) -> Self {
        self.waited = waited;
        self
    }

    /// Sets the time left until the request's deadline. Without one, the policy's total wait counts.
    pub fn time_left(mut self, left: Option<Duration>) -> Self {
        self.time_left = left;
        self
    }

    /// Sets what the caller wants for this request.
    pub fn options(mut self, options: Option<&'a RetryOptions>) -> Self {
        self.options = options;
        self
    }
}

// --- RetryPolicy ---

impl RetryPolicy {
    /// Decides what follows from an answer: a pure function of its arguments.
    ///
    /// `draw` is a random number from 0 to 1, the upper end excluded, from which the jitter is made; what is outside
    /// counts as the nearer end.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use http::{Method, Response, StatusCode};
    /// use tower_oauth2::RetryPolicy;
    /// use tower_oauth2::retry::{Decision, StopReason, View};
    ///
    /// let policy = RetryPolicy::default();
    /// let busy = Response::builder().status(StatusCode::SERVICE_UNAVAILABLE).header("retry-after", "3").body(())?;
    ///
    /// let get = policy.decide(&View::new(&busy, &Method::GET), 0.5);
    /// assert!(matches!(get, Decision::Replay { delay, .. } if delay == Duration::from_millis(3150)));
    ///
    /// let post = policy.decide(&View::new(&busy, &Method::POST), 0.5);
    /// assert_eq!(post, Decision::Stop(StopReason::NotIdempotent));
    /// # Ok::<(), http::Error>(())
    /// ```
    #[must_use]
    pub fn decide(&self, view: &View<'_>, draw: f64) -> Decision {
        let rules = self.rules();
        let requested = self.requested_delay(view);
        let Some(reason) = rules.reason(view.status, view.rejected.is_some(), || requested.is_some()) else {
            return Decision::Stop(StopReason::Final);
        };
        let chance = Chance::drawn(draw);
        let wait = match (view.options, view.rejected) {
            (Some(options), _) if options.never => Err(StopReason::TurnedOff),
            (_, Some(rejected)) => rules.auth_replay(view, rejected, &chance),
            (_, None) => rules.retry(view, reason, requested, &chance),
        };
        match wait.and_then(|wait| rules.fit(view, wait)) {
            Ok((delay, requested_delay)) => Decision::Replay { delay, reason, requested_delay },
            Err(stop) => Decision::Stop(stop),
        }
    }

    /// Returns the wait that the server asked for, in the first of the headers on the page of the [room](super) that
    /// does so. Only a 4xx or 5xx asks for one.
    #[must_use]
    pub fn requested_delay(&self, view: &View<'_>) -> Option<Duration> {
        Some(self.rules().hint(view.status, view.headers.0, view.now)?.delay)
    }
}

// --- Rules ---

/// A wait, and what the server had asked for.
type Wait = (Duration, Option<Duration>);

impl Rules {
    /// Why an answer asks for a replay at all; none if it is final. `hinted` is asked where the profile makes a refusal
    /// of the status if the server says when to come back.
    pub(super) fn reason(
        &self,
        status: StatusCode,
        token_rejected: bool,
        hinted: impl Fn() -> bool,
    ) -> Option<ReplayReason> {
        match status {
            _ if token_rejected => Some(ReplayReason::TokenRejected),
            StatusCode::TOO_MANY_REQUESTS => Some(ReplayReason::Throttled),
            _ if self.profile.refuses_with(status) && hinted() => Some(ReplayReason::Throttled),
            StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_EARLY
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Some(ReplayReason::Unavailable),
            StatusCode::INTERNAL_SERVER_ERROR if self.internal_errors => Some(ReplayReason::Unavailable),
            _ => None,
        }
    }

    pub(super) fn hint(&self, status: StatusCode, headers: &HeaderMap, now: Duration) -> Option<Hint<'_>> {
        rate_limit::hint(&self.profile, status, headers, now)
    }

    /// Returns whether any answer could still lead to a replay.
    pub(super) fn may_replay(&self, options: Option<&RetryOptions>, retries: u32, auth_replays: u32) -> bool {
        let (never, no_auth_replay) = options.map_or((false, false), |o| (o.never, o.no_auth_replay));
        let by_auth = !no_auth_replay && auth_replays < self.auth_replays;
        !never && (by_auth || retries < self.retries_of(options))
    }

    fn retries_of(&self, options: Option<&RetryOptions>) -> u32 {
        options.and_then(|options| options.max_retries).unwrap_or(self.max_retries)
    }

    /// A refused token says that the request was not applied (RFC 9110 §15.5.2), so the method does not matter.
    fn auth_replay(
        &self,
        view: &View<'_>,
        rejected: &TokenRejected,
        chance: &Chance,
    ) -> Result<Wait, StopReason> {
        match rejected.verdict() {
            RejectionVerdict::Invalidated | RejectionVerdict::Superseded => {}
            RejectionVerdict::NotRefreshable => {
                let error = rejected.error().map(str::to_owned);
                return Err(StopReason::ChallengeNotRefreshable { error });
            }
            RejectionVerdict::Braked => return Err(StopReason::Braked),
        }
        if view.options.is_some_and(|options| options.no_auth_replay) {
            return Err(StopReason::TurnedOff);
        }
        if view.auth_replays >= self.auth_replays {
            return Err(StopReason::AuthReplaysExhausted);
        }
        view.body.map_err(|cause| StopReason::NotReplayable { cause })?;
        let delay = match view.auth_replays {
            0 => Duration::ZERO,
            _ => chance.lengthen(self.auth_replay_delay),
        };
        Ok((delay, None))
    }

    fn retry(
        &self,
        view: &View<'_>,
        reason: ReplayReason,
        requested: Option<Duration>,
        chance: &Chance,
    ) -> Result<Wait, StopReason> {
        let strict = view.options.and_then(|options| options.strict_methods).unwrap_or(self.strict_methods);
        // A server that says 429 says that it refused the work; after any other answer it may have been done.
        let throttled = reason == ReplayReason::Throttled;
        if !view.repeatable && (!throttled || strict) {
            return Err(StopReason::NotIdempotent);
        }
        if view.retries >= self.retries_of(view.options) {
            return Err(StopReason::AttemptsExhausted);
        }
        view.body.map_err(|cause| StopReason::NotReplayable { cause })?;
        match requested {
            None => {
                let delay = match self.profile.wait_without_hint() {
                    Some(wait) if throttled => {
                        chance.lengthen(wait.saturating_mul(2_u32.saturating_pow(view.retries)))
                    }
                    _ => chance.equal_jitter(self.first_delay, self.longest_delay, view.retries),
                };
                Ok((delay, None))
            }
            Some(requested) if requested > self.longest_hint => {
                Err(StopReason::DelayExceedsCap { requested })
            }
            Some(requested) => Ok((chance.lengthen(requested), Some(requested))),
        }
    }

    /// Refuses a wait that cannot be waited out.
    fn fit(&self, view: &View<'_>, wait: Wait) -> Result<Wait, StopReason> {
        let (needed, _) = wait;
        match view.time_left {
            Some(left) if needed >= left => Err(StopReason::DeadlineTooClose { needed }),
            None if view.waited.saturating_add(needed) > self.total_wait => {
                Err(StopReason::WaitsExhausted { needed })
            }
            Some(_) | None => Ok(wait),
        }
    }
}

// --- Headers ---

/// The headers of an answer, not to be shown: there may be secrets among them.
#[derive(Clone, Copy)]
struct Headers<'a>(&'a HeaderMap);

impl fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

#[cfg(test)]
mod tests;
