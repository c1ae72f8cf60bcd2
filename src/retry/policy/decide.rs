//! Decides what follows from an outcome: values in, verdict out.

use std::time::Duration;

use http::{HeaderMap, HeaderName, Response, StatusCode, Version};

use super::classify::Failure;
use super::idempotency::Repeatability;
use super::options::RetryOptions;
use super::rules::RetryRules;
use super::view::{self, Outcome, OutcomeView, ReceivedResponse};
use crate::backoff::Chance;
use crate::clock;
use crate::extensions::{RejectionVerdict, TokenRejected};
use crate::headers::grpc::{self, GrpcStatus, Pushback};
use crate::headers::rate_limit::{self, Hint};
use crate::retry::report::{ReplayReason, Replayed, StopReason};

/// An outcome, read once.
#[derive(Default)]
pub(in crate::retry) struct OutcomeReading {
    /// Why another attempt may help. None if the outcome is one to return.
    reason: Option<ReplayReason>,
    /// The wait that the server asks for, and the header in which it does so.
    pub(in crate::retry) requested_delay: Option<Duration>,
    requested_by: Option<HeaderName>,
    /// It is not to be changed: gRPC's pushback (gRFC A6).
    is_exact: bool,
    /// The server wants no other attempt.
    is_forbidden: bool,
    /// The request came too early, and so would others.
    pub(in crate::retry) is_throttled: bool,
    /// The server says that it did not do the work, so the method does not matter.
    is_refused: bool,
}

impl RetryRules {
    /// Returns whether a response is one to return at once: what nearly every one is.
    #[inline]
    pub(in crate::retry) fn is_final<B>(&self, response: &Response<B>, trailers: Option<&HeaderMap>) -> bool {
        // A gRPC response says with a 200 what others say with a status.
        let is_plain = response.status().is_success() && response.version() != Version::HTTP_2;
        is_plain && response.extensions().is_empty() || self.is_final_read(response, trailers)
    }

    #[cold]
    fn is_final_read<B>(&self, response: &Response<B>, trailers: Option<&HeaderMap>) -> bool {
        let status = response.status();
        let rejected = response.extensions().get::<TokenRejected>();
        let grpc = view::grpc_status(response, trailers);
        let headers = response.headers();
        let hint = || self.hint(status, headers, clock::unix_time());
        self.reason(status, rejected, grpc, headers, hint).is_none()
    }

    /// Reads what the headers ask for. A status that the caller counts as a 429 says by itself that a limit was met.
    fn hint(&self, status: StatusCode, headers: &HeaderMap, now: Duration) -> Option<Hint<'_>> {
        let is_limit = self.throttled.contains(&status);
        let status = if is_limit { StatusCode::TOO_MANY_REQUESTS } else { status };
        rate_limit::hint(&self.profile, status, headers, now)
    }

    /// Reads what an outcome says.
    pub(in crate::retry) fn read(&self, view: &OutcomeView<'_>) -> OutcomeReading {
        let (reason, is_refused, requested_delay) = match &view.outcome {
            Outcome::Response(received) => return self.read_response(view, received),
            Outcome::Failure(Failure::Unsent, wait) => (Some(ReplayReason::Unsent), true, *wait),
            Outcome::Failure(Failure::Ambiguous, _) => (Some(ReplayReason::Ambiguous), false, None),
            Outcome::Failure(Failure::Fatal, _) => (None, false, None),
            Outcome::NoToken(wait) => (Some(ReplayReason::TokenUnavailable), true, *wait),
        };
        OutcomeReading { reason, requested_delay, is_refused, ..OutcomeReading::default() }
    }

    fn read_response(&self, view: &OutcomeView<'_>, received: &ReceivedResponse<'_>) -> OutcomeReading {
        let ReceivedResponse { status, rejected, headers, grpc, now } = *received;
        let hint = self.hint(grpc.and_then(GrpcStatus::as_http).unwrap_or(status), headers, now);
        let reason = match self.reason(status, rejected, grpc, headers, || hint) {
            None if is_still_at_work(view, status) => Some(ReplayReason::Unavailable),
            reason => reason,
        };
        let (hint, is_exact) = match grpc.map(|grpc| (grpc.pushback, grpc.retry_info)) {
            Some((Pushback::After(delay), _)) => (Some(Hint { delay, source: &grpc::PUSHBACK }), true),
            Some((Pushback::Unsaid, Some(delay))) => (Some(Hint { delay, source: &grpc::DETAILS }), false),
            Some((Pushback::Unsaid | Pushback::Never, _)) | None => (hint, false),
        };
        let is_pushed_back = grpc.is_some_and(|grpc| grpc.pushback == Pushback::Never);
        let is_forbidden = is_pushed_back || self.profile.verdict(headers) == Some(false);
        // A gRPC client counts what something on the way answers as a call that was not served.
        let is_no_call = view.is_grpc && grpc.is_none() && grpc::is_unavailable(status);
        // A server that finds a request too early did not dare to do it (RFC 8470 §5.2).
        let is_refused = reason == Some(ReplayReason::Throttled)
            || status == StatusCode::TOO_EARLY
            || grpc.is_some_and(GrpcStatus::is_retried)
            || is_no_call;
        // gRPC's own words are about one call.
        let is_throttled = reason == Some(ReplayReason::Throttled) && grpc.is_none();
        let requested_delay = hint.map(|hint| hint.delay);
        let requested_by = hint.map(|hint| hint.source.clone());
        OutcomeReading {
            reason,
            requested_delay,
            requested_by,
            is_exact,
            is_forbidden,
            is_throttled,
            is_refused,
        }
    }

    /// Decides what follows from an outcome that was read: how the request is sent again, or why it is not.
    pub(in crate::retry) fn decide(
        &self,
        view: &OutcomeView<'_>,
        reading: &OutcomeReading,
        chance: &Chance,
    ) -> Result<Replayed, StopReason> {
        let status = view.outcome.status();
        let Some(reason) = reading.reason else {
            return Err(if status.is_none() { StopReason::Failed } else { StopReason::Final });
        };
        if view.options.is_some_and(|options| options.never) {
            return Err(StopReason::TurnedOff);
        }
        let mut replayed =
            Replayed { status, reason, delay: Duration::ZERO, requested_delay: None, requested_by: None };
        match &view.outcome {
            Outcome::Response(ReceivedResponse { rejected: Some(rejected), .. }) => {
                replayed.delay = self.auth_replay(view, rejected, chance)?;
            }
            Outcome::Response(_) | Outcome::Failure(..) | Outcome::NoToken(_) => {
                replayed.delay = self.retry(view, reading, chance)?;
                replayed.requested_delay = reading.requested_delay;
                replayed.requested_by = reading.requested_by.clone();
            }
        }
        self.fit(view, replayed.delay)?;
        Ok(replayed)
    }

    /// Why a response asks for a replay at all; none if it is final. `hint` is asked where that depends on whether the server says
    /// when to come back.
    fn reason<'a>(
        &self,
        status: StatusCode,
        rejected: Option<&TokenRejected>,
        grpc: Option<GrpcStatus>,
        headers: &HeaderMap,
        hint: impl Fn() -> Option<Hint<'a>>,
    ) -> Option<ReplayReason> {
        if rejected.is_some() {
            return Some(ReplayReason::TokenRejected);
        }
        match grpc {
            Some(GrpcStatus { code: grpc::RESOURCE_EXHAUSTED, .. }) => return Some(ReplayReason::Throttled),
            Some(said) if said.is_retried() || said.says_when() => return Some(ReplayReason::Unavailable),
            Some(_) | None => {}
        }
        if !status.is_client_error() && !status.is_server_error() {
            None
        } else if self.throttled.contains(&status) || self.profile.refuses_with(status) && hint().is_some() {
            Some(ReplayReason::Throttled)
        } else if self.unavailable.contains(&status)
            // Those two are about credentials.
            || !matches!(status.as_u16(), 401 | 407)
                && (hint().is_some_and(|hint| hint.is_of_this_failure(&self.profile))
                    || self.profile.verdict(headers) == Some(true))
        {
            Some(ReplayReason::Unavailable)
        } else {
            None
        }
    }

    /// Returns whether any response could still lead to a replay.
    pub(in crate::retry) fn may_replay(
        &self,
        options: Option<&RetryOptions>,
        retries: u32,
        auth_replays: u32,
    ) -> bool {
        let (never, no_auth_replay) = options.map_or((false, false), |o| (o.never, o.no_auth_replay));
        // The one more of `auth_replay` comes after others.
        let by_auth = !no_auth_replay && auth_replays < self.auth_replays + u32::from(auth_replays > 0);
        !never && (by_auth || retries < self.retries_of(options))
    }

    /// Returns whether a 429 does not prove that nothing was done.
    pub(in crate::retry) fn is_strict(&self, options: Option<&RetryOptions>) -> bool {
        options.and_then(|options| options.strict_methods).unwrap_or(self.strict_methods)
    }

    fn retries_of(&self, options: Option<&RetryOptions>) -> u32 {
        options.and_then(|options| options.max_retries).unwrap_or(self.max_retries)
    }

    /// A refused token says that the request was not applied (RFC 9110 §15.5.2), so the method does not matter.
    fn auth_replay(
        &self,
        view: &OutcomeView<'_>,
        rejected: &TokenRejected,
        chance: &Chance,
    ) -> Result<Duration, StopReason> {
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
        // A token from before the refusal may have been revoked together with the one that was refused. What that proves
        // about a new one is nothing, so there is one more replay.
        let earlier = view.earlier;
        let is_old = earlier.refused_at.is_some_and(|refused_at| rejected.is_older_than(refused_at));
        if earlier.auth_replays >= self.auth_replays + u32::from(is_old) {
            return Err(StopReason::AuthReplaysExhausted);
        }
        view.body.map_err(|cause| StopReason::NotReplayable { cause })?;
        Ok(match earlier.auth_replays {
            0 => Duration::ZERO,
            _ if is_old => Duration::ZERO,
            _ => chance.lengthen(self.auth_replay_delay),
        })
    }

    /// After an outcome that a wait may help.
    fn retry(
        &self,
        view: &OutcomeView<'_>,
        reading: &OutcomeReading,
        chance: &Chance,
    ) -> Result<Duration, StopReason> {
        // An error says by itself that nothing was sent; a server that says so may be believed or not.
        let is_response = view.outcome.status().is_some();
        self.permit(view, reading.is_refused && !(self.is_strict(view.options) && is_response))?;
        if reading.is_forbidden {
            return Err(StopReason::DoNotRetry);
        }
        let Some(requested) = reading.requested_delay else {
            return Ok(self.own_wait(view, reading, chance));
        };
        if requested > self.max_retry_after {
            return Err(StopReason::DelayExceedsCap { requested });
        }
        Ok(match reading.is_exact {
            true => requested,
            // A hint that was just proved wrong is a minimum, and no more.
            false if view.earlier.retries > 0 => chance.lengthen(requested).max(self.backoff(view, chance)),
            false => chance.lengthen(requested),
        })
    }

    /// The wait where the server asks for none.
    fn own_wait(&self, view: &OutcomeView<'_>, reading: &OutcomeReading, chance: &Chance) -> Duration {
        match self.profile.wait_without_hint() {
            Some(wait) if reading.is_throttled => {
                chance.lengthen(wait.saturating_mul(2_u32.saturating_pow(view.earlier.retries)))
            }
            Some(_) | None => self.backoff(view, chance),
        }
    }

    /// Refuses a retry that this request may not have after any wait.
    fn permit(&self, view: &OutcomeView<'_>, whatever_the_method: bool) -> Result<(), StopReason> {
        let told_to = view.options.is_some_and(|options| options.repeatable);
        if !view.repeat.is_allowed() && !told_to && !whatever_the_method {
            return Err(StopReason::NotIdempotent);
        }
        if view.earlier.retries >= self.retries_of(view.options) {
            return Err(StopReason::AttemptsExhausted);
        }
        view.body.map_err(|cause| StopReason::NotReplayable { cause })
    }

    fn backoff(&self, view: &OutcomeView<'_>, chance: &Chance) -> Duration {
        chance.equal_jitter(self.min_delay, self.max_delay, view.earlier.backoffs)
    }

    /// Refuses a wait that cannot be waited out.
    fn fit(&self, view: &OutcomeView<'_>, needed: Duration) -> Result<(), StopReason> {
        match view.time_left {
            Some(left) if needed >= left => Err(StopReason::DeadlineTooClose { needed }),
            None if view.earlier.waited.saturating_add(needed) > self.max_total_delay => {
                Err(StopReason::WaitsExhausted { needed })
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Returns whether a conflict is one with the attempt before, which has the same key and may not be done yet.
fn is_still_at_work(view: &OutcomeView<'_>, status: StatusCode) -> bool {
    view.earlier.in_doubt && view.repeat == Repeatability::Keyed && status == StatusCode::CONFLICT
}

#[cfg(test)]
mod tests;
