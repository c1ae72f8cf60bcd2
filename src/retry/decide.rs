//! What happened, and what follows from it: values in, verdict out.

use std::time::Duration;

use http::{HeaderMap, HeaderName, Response, StatusCode, Version};

use super::classify::Failure;
use super::idempotency::Repeat;
use super::options::RetryOptions;
use super::policy::RetryPolicy;
use super::report::{ReplayReason, StopReason};
use super::rules::Rules;
use super::view::{Answer, Outcome, View};
use crate::backoff::Chance;
use crate::clock;
use crate::extensions::{RejectionVerdict, TokenRejected};
use crate::headers::grpc::{self, GrpcStatus, Pushback};
use crate::headers::rate_limit::{self, Hint};

/// What is to be done about an answer or a failure.
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
        /// The header in which it did so.
        requested_by: Option<HeaderName>,
    },
    /// Hand the outcome out.
    Stop(StopReason),
}

// --- RetryPolicy ---

impl RetryPolicy {
    /// Decides what follows from an outcome: a pure function of its arguments.
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
        let chance = Chance::drawn(draw);
        let (reason, wait) = match &view.outcome {
            Outcome::Failure(failure) => match failure {
                Failure::Unsent => (ReplayReason::Unsent, rules.resend(view, true, &chance)),
                Failure::Ambiguous => (ReplayReason::Ambiguous, rules.resend(view, false, &chance)),
                Failure::Fatal => return Decision::Stop(StopReason::Failed),
            },
            Outcome::Answer(answer) => {
                let hint = rules.hint(answer);
                let reason =
                    match rules.reason(answer.status, answer.rejected, answer.grpc, || hint.is_some()) {
                        None if is_still_at_work(view, answer) => Some(ReplayReason::Unavailable),
                        reason => reason,
                    };
                let Some(reason) = reason else {
                    return Decision::Stop(StopReason::Final);
                };
                let wait = match (answer.rejected, answer.grpc) {
                    (Some(rejected), _) => rules.auth_replay(view, rejected, &chance),
                    (None, _) if rules.profile.forbids_retry(answer.headers.0) => Err(StopReason::DoNotRetry),
                    (None, Some(grpc)) if grpc.is_retried() => rules.call_again(view, grpc, &chance),
                    (None, Some(_) | None) => rules.retry(view, answer, reason, hint, &chance),
                };
                (reason, wait)
            }
        };
        if view.options.is_some_and(|options| options.never) {
            return Decision::Stop(StopReason::TurnedOff);
        }
        match wait.and_then(|wait| rules.fit(view, wait)) {
            Ok(Wait { delay, requested: None }) => {
                Decision::Replay { delay, reason, requested_delay: None, requested_by: None }
            }
            Ok(Wait { delay, requested: Some((requested, header)) }) => Decision::Replay {
                delay,
                reason,
                requested_delay: Some(requested),
                requested_by: Some(header.clone()),
            },
            Err(stop) => Decision::Stop(stop),
        }
    }

    /// Returns the wait that the server asked for: what a gRPC status says, else the first of the headers on the page of
    /// the [room](super) that does so. Only a 4xx or 5xx asks by headers.
    #[must_use]
    pub fn requested_delay(&self, view: &View<'_>) -> Option<Duration> {
        match &view.outcome {
            Outcome::Failure(_) => None,
            Outcome::Answer(answer) => match answer.grpc {
                Some(GrpcStatus { pushback: Pushback::After(delay), .. }) => Some(delay),
                Some(GrpcStatus { pushback: Pushback::Unsaid, retry_info: Some(delay), .. }) => Some(delay),
                Some(_) | None => Some(self.rules().hint(answer)?.delay),
            },
        }
    }
}

/// Returns whether a conflict is one with the attempt before, which has the same key and may not be done yet.
fn is_still_at_work(view: &View<'_>, answer: &Answer<'_>) -> bool {
    view.in_doubt && view.repeat == Repeat::Keyed && answer.status == StatusCode::CONFLICT
}

// --- Rules ---

/// A wait, and what the server had asked for, with the header that says so.
struct Wait<'a> {
    delay: Duration,
    requested: Option<(Duration, &'a HeaderName)>,
}

impl Rules {
    /// Returns whether an answer is one to hand out at once: what nearly every one is.
    #[inline]
    pub(super) fn is_final<B>(&self, response: &Response<B>, trailers: Option<&HeaderMap>) -> bool {
        let status = response.status();
        // A gRPC answer says with a 200 what others say with a status.
        if (status.is_success() && response.version() != Version::HTTP_2) && response.extensions().is_empty()
        {
            return true;
        }
        let rejected = response.extensions().get::<TokenRejected>();
        let grpc = match grpc::is_grpc(response) {
            true => grpc::read(trailers.unwrap_or(response.headers())),
            false => None,
        };
        let hinted =
            || rate_limit::hint(&self.profile, status, response.headers(), clock::unix_time()).is_some();
        self.reason(status, rejected, grpc, hinted).is_none()
    }

    /// Whether an answer says that the request came too early.
    pub(super) fn is_throttled(&self, view: &View<'_>) -> bool {
        match &view.outcome {
            Outcome::Failure(_) => false,
            // A gRPC pushback is about one call.
            Outcome::Answer(answer) if answer.grpc.is_some() => false,
            Outcome::Answer(answer) => {
                let hinted = || self.hint(answer).is_some();
                let reason = self.reason(answer.status, answer.rejected, answer.grpc, hinted);
                reason == Some(ReplayReason::Throttled)
            }
        }
    }

    /// Why an answer asks for a replay at all; none if it is final. `hinted` is asked where the profile makes a refusal
    /// of the status if the server says when to come back.
    fn reason(
        &self,
        status: StatusCode,
        rejected: Option<&TokenRejected>,
        grpc: Option<GrpcStatus>,
        hinted: impl Fn() -> bool,
    ) -> Option<ReplayReason> {
        if rejected.is_some() {
            return Some(ReplayReason::TokenRejected);
        }
        match grpc.map(|grpc| grpc.code) {
            Some(grpc::RESOURCE_EXHAUSTED) => return Some(ReplayReason::Throttled),
            Some(grpc::UNAVAILABLE) => return Some(ReplayReason::Unavailable),
            Some(_) | None => {}
        }
        if !status.is_client_error() && !status.is_server_error() {
            None
        } else if self.throttled.contains(&status) || self.profile.refuses_with(status) && hinted() {
            Some(ReplayReason::Throttled)
        } else if self.unavailable.contains(&status)
            || status == StatusCode::INTERNAL_SERVER_ERROR && self.internal_errors
        {
            Some(ReplayReason::Unavailable)
        } else {
            None
        }
    }

    fn hint(&self, answer: &Answer<'_>) -> Option<Hint<'_>> {
        rate_limit::hint(&self.profile, answer.status, answer.headers.0, answer.now)
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
    ) -> Result<Wait<'_>, StopReason> {
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
        Ok(Wait { delay, requested: None })
    }

    /// After an answer that a wait may help.
    fn retry<'a>(
        &self,
        view: &View<'_>,
        answer: &Answer<'_>,
        reason: ReplayReason,
        hint: Option<Hint<'a>>,
        chance: &Chance,
    ) -> Result<Wait<'a>, StopReason> {
        // A server that says 429 says that it refused the work; after any other answer it may have been done.
        let throttled = reason == ReplayReason::Throttled;
        // A gRPC client counts what something on the way answers as a call that was not served.
        let no_call = view.is_grpc && answer.grpc.is_none() && grpc::is_unavailable(answer.status);
        self.permit(view, (throttled || no_call) && !self.is_strict(view))?;
        match hint {
            None => {
                let delay = match self.profile.wait_without_hint() {
                    Some(wait) if throttled => {
                        chance.lengthen(wait.saturating_mul(2_u32.saturating_pow(view.retries)))
                    }
                    _ => self.backoff(view, chance),
                };
                Ok(Wait { delay, requested: None })
            }
            Some(Hint { delay, source }) => self.wait_as_asked(view, delay, source, chance),
        }
    }

    /// A wait that the server asks for.
    fn wait_as_asked<'a>(
        &self,
        view: &View<'_>,
        asked: Duration,
        source: &'a HeaderName,
        chance: &Chance,
    ) -> Result<Wait<'a>, StopReason> {
        if asked > self.longest_hint {
            return Err(StopReason::DelayExceedsCap { requested: asked });
        }
        let delay = chance.lengthen(asked);
        // A hint that was just proved wrong is a minimum, and no more.
        let delay = if view.retries == 0 { delay } else { delay.max(self.backoff(view, chance)) };
        Ok(Wait { delay, requested: Some((asked, source)) })
    }

    /// After a gRPC status that allows another attempt. The server's pushback is exact (gRFC A6).
    fn call_again(
        &self,
        view: &View<'_>,
        grpc: GrpcStatus,
        chance: &Chance,
    ) -> Result<Wait<'static>, StopReason> {
        self.permit(view, !self.is_strict(view))?;
        match grpc.pushback {
            Pushback::Unsaid => match grpc.retry_info {
                Some(asked) => self.wait_as_asked(view, asked, &grpc::DETAILS, chance),
                None => Ok(Wait { delay: self.backoff(view, chance), requested: None }),
            },
            Pushback::Never => Err(StopReason::PushedBack),
            Pushback::After(requested) if requested > self.longest_hint => {
                Err(StopReason::DelayExceedsCap { requested })
            }
            Pushback::After(delay) => Ok(Wait { delay, requested: Some((delay, &grpc::PUSHBACK)) }),
        }
    }

    /// After an error of the inner service.
    fn resend(&self, view: &View<'_>, unsent: bool, chance: &Chance) -> Result<Wait<'static>, StopReason> {
        self.permit(view, unsent)?;
        Ok(Wait { delay: self.backoff(view, chance), requested: None })
    }

    /// Refuses a retry that this request may not have, whatever the wait.
    fn permit(&self, view: &View<'_>, whatever_the_method: bool) -> Result<(), StopReason> {
        let told_to = view.options.is_some_and(|options| options.repeatable);
        if !view.repeat.is_allowed() && !told_to && !whatever_the_method {
            return Err(StopReason::NotIdempotent);
        }
        if view.retries >= self.retries_of(view.options) {
            return Err(StopReason::AttemptsExhausted);
        }
        view.body.map_err(|cause| StopReason::NotReplayable { cause })
    }

    fn is_strict(&self, view: &View<'_>) -> bool {
        view.options.and_then(|options| options.strict_methods).unwrap_or(self.strict_methods)
    }

    fn backoff(&self, view: &View<'_>, chance: &Chance) -> Duration {
        let doubled = view.backoffs.unwrap_or(view.retries);
        chance.equal_jitter(self.first_delay, self.longest_delay, doubled)
    }

    /// Refuses a wait that cannot be waited out.
    fn fit<'a>(&self, view: &View<'_>, wait: Wait<'a>) -> Result<Wait<'a>, StopReason> {
        let needed = wait.delay;
        match view.time_left {
            Some(left) if needed >= left => Err(StopReason::DeadlineTooClose { needed }),
            None if view.waited.saturating_add(needed) > self.total_wait => {
                Err(StopReason::WaitsExhausted { needed })
            }
            Some(_) | None => Ok(wait),
        }
    }
}

#[cfg(test)]
mod tests;
