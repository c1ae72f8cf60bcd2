//! The next step after an attempt: another one, or the end of the request.

use std::error::Error as StdError;
use std::ops::ControlFlow;
use std::time::Duration;

use http::{HeaderMap, Request, Response, StatusCode};
use tokio::time::Instant;
use tower::BoxError;
use tower::load_shed::error::Overloaded;
use tower_service::Service;

use super::attempt::{AttemptState, NextAttempt};
use super::draining::Draining;
use super::head::HeadSnapshot;
use super::journal;
use super::late;
use super::request::{Exchange, HttpService};
use super::timeouts::{self, TimedOut};
use crate::backoff::Chance;
use crate::clock;
use crate::error::{Error, Unsent, chain};
use crate::extensions::{PastRetry, TokenRejected};
use crate::headers::grpc;
use crate::retry::gate::HeldRetry;
use crate::retry::policy::classify::{Failure, has};
use crate::retry::policy::decide::OutcomeReading;
use crate::retry::policy::idempotency::Repeatability;
use crate::retry::policy::options::Before;
use crate::retry::policy::view::{Outcome, OutcomeView};
use crate::retry::replay_body::{NotReplayable, RequestBody};
use crate::retry::report::{ReplayReason, Replayed, ReportDetails, RetryReport, StopReason};
use crate::retry::retry_body::ResponseBody;
use crate::runtime;

/// The next step after an attempt, or after the try to make one, for a request that goes through `S`: the next state, or the
/// end.
pub(super) type Step<S, B> = ControlFlow<
    Result<Response<ResponseBody<<S as HttpService<B>>::ResponseBody>>, BoxError>,
    AttemptState<<S as Service<Request<RequestBody<B>>>>::Future, B>,
>;

/// After how many retries a request waits longer at the gate, and how many times as long. Four loads of several processes on one
/// limit lose 32 requests in 60 seeds each; with 3 times as long 50, with 5 times 39, and 69 without. Where the second wait is
/// twice as long too, a window of 30 takes 1.60 of the ideal time, not 1.28.
const MANY: u32 = 2;
const LONGER: u32 = 4;

impl<S, B> Exchange<S, B>
where
    S: HttpService<B>,
{
    /// Whether a response is final, and the first.
    #[inline]
    pub(super) fn is_plain<T>(&self, response: &Response<T>, trailers: Option<&HeaderMap>) -> bool {
        // What else comes after a doubt may be its trace.
        let is_clear = response.status().is_success() || self.before() != Before::Doubt;
        is_clear && self.is_first() && self.sender.rules().is_final(response, trailers)
    }

    /// A response came that needs a closer look: the next attempt is prepared, or the response is returned with a report.
    #[cold]
    pub(super) fn answered(&mut self, response: Response<S::ResponseBody>) -> Step<S, B> {
        let (response, trailers) = match grpc::is_late(&response) {
            true => late::look(response),
            false => (response.map(ResponseBody::whole), None),
        };
        if self.is_plain(&response, trailers.as_ref()) {
            self.accepted();
            return ControlFlow::Break(Ok(response));
        }
        let (decision, reading) = self.judge(Outcome::of(&response, trailers.as_ref()));
        let requested_delay = reading.requested_delay;
        let held = self.tell_gate(reading.is_throttled, requested_delay);
        let token = response.extensions().get().and_then(TokenRejected::token_id);
        match decision.and_then(|replayed| self.again(replayed, None, token, held)) {
            Ok(next) => {
                let allowance = &self.sender.rules().allowance;
                let draining = Draining::new(response, timeouts::left(self.deadline), allowance);
                self.wait(next, Ok(Box::new(draining)))
            }
            Err(stop) => {
                let report = ReportDetails { requested_delay, ..self.past().end(stop) };
                ControlFlow::Break(Ok(self.hand_out(response, report)))
            }
        }
    }

    /// The inner service failed: the next attempt is prepared, or the error is returned. A refusal to send, by auth or by a
    /// limit, does not replace a response already had.
    #[cold]
    pub(super) fn failed(&mut self, error: BoxError) -> Step<S, B> {
        if let Some(stop) = refused(&*error) {
            self.past().sent -= 1;
            return match self.again_without_token(&*error).unwrap_or(Err(stop)) {
                Ok(next) => self.wait(next, Err(error)),
                Err(stop) => self.unsent(stop, error),
            };
        }
        let failure = self.sender.rules().classify(&*error);
        let stop = match self.again_after(failure, &*error) {
            Ok(next) => return self.wait(next, Err(error)),
            Err(stop) => stop,
        };
        let did_no_work = failure.did_no_work(&*error);
        // An error that says so would speak for the earlier attempts as well.
        if did_no_work && self.is_in_doubt() {
            return self.unsent(stop, error);
        }
        if !did_no_work && self.repeat != Repeatability::Safe {
            self.past().counts.in_doubt = true;
        }
        // The time of an attempt may also end below, as in a stack.
        if error.is::<TimedOut>() {
            return self.unsent(stop, error);
        }
        let report = self.past().end(stop);
        self.report(report, None, Some(&*error));
        ControlFlow::Break(Err(error))
    }

    /// The time of the attempt in flight is over, or that of the request. That does not replace a response already had.
    #[cold]
    pub(super) fn ended(&mut self, timed_out: TimedOut) -> Step<S, B> {
        let stop = match timed_out {
            TimedOut::Attempt { .. } => match self.again_after(Failure::Ambiguous, &timed_out) {
                Ok(next) => return self.wait(next, Err(timed_out.into())),
                Err(stop) => stop,
            },
            TimedOut::Deadline => StopReason::DeadlineExceeded,
        };
        if self.repeat != Repeatability::Safe {
            self.past().counts.in_doubt = true;
        }
        self.unsent(stop, timed_out.into())
    }

    /// Decides on an outcome, with what is known of the request.
    fn judge(&self, outcome: Outcome<'_>) -> (Result<Replayed, StopReason>, OutcomeReading) {
        let mut view = OutcomeView {
            options: self.options.as_ref(),
            time_left: timeouts::left(self.deadline),
            body: self.replayable(),
            ..OutcomeView::of(outcome, self.repeat)
        };
        if let Some(resend) = &self.resend {
            view.repeat = resend.head.repeat();
            view.is_grpc = resend.head.is_grpc();
        }
        if let Some(past) = &self.past {
            view.earlier = past.counts;
        }
        view.earlier.in_doubt = self.is_in_doubt();
        let rules = self.sender.rules();
        let reading = rules.read(&view);
        (rules.decide(&view, &reading, &Chance::default()), reading)
    }

    /// Decides on a failure, and prepares the next attempt.
    fn again_after(
        &mut self,
        failure: Failure,
        error: &(dyn StdError + 'static),
    ) -> Result<Box<NextAttempt<B>>, StopReason> {
        let (decision, _) = self.judge(Outcome::Failure(failure, Unsent::wait_in(error)));
        self.again(decision?, Some(error), None, HeldRetry::No)
    }

    /// Decides on a request for which there was no token, if the policy waits for one and the failure may pass, and prepares the
    /// next attempt. None if it does not wait.
    fn again_without_token(
        &mut self,
        error: &(dyn StdError + 'static),
    ) -> Option<Result<Box<NextAttempt<B>>, StopReason>> {
        let failure = Error::find_in(error).filter(|failure| failure.is_temporary())?;
        if !self.sender.rules().retry_token_failures {
            return None;
        }
        let until = failure.retry_at().map(Instant::from_std);
        let wait = until.map(|until| until.saturating_duration_since(clock::now()));
        let (decision, _) = self.judge(Outcome::NoToken(wait));
        Some(decision.and_then(|replayed| self.again(replayed, Some(error), None, HeldRetry::No)))
    }

    /// Prepares the attempt that was decided on, and claims its body. `error` or the number of the refused `token` say why, as
    /// far as the log shows it.
    fn again(
        &mut self,
        mut replayed: Replayed,
        error: Option<&(dyn StdError + 'static)>,
        token: Option<u64>,
        held: HeldRetry,
    ) -> Result<Box<NextAttempt<B>>, StopReason> {
        runtime::current().map_err(|_| StopReason::NoTimer)?;
        if held != HeldRetry::No {
            replayed.delay = self.wait_at_gate(replayed.delay);
        }
        let (delay, reason) = (replayed.delay, replayed.reason);
        // Its own wait goes on while it stands at the gate, which lengthens what was asked for, for all of them at once.
        let requested = replayed.requested_delay.unwrap_or_default();
        let least = if delay > Chance::at_most(requested) { delay } else { requested };
        let ticket = match held {
            // Where it cannot wait for its turn, it waits for itself.
            HeldRetry::Now => self.ask_gate(self.retries() + 1, least),
            HeldRetry::Later | HeldRetry::No => None,
        };
        let queued = ticket.is_some();
        if queued {
            replayed.delay = Duration::ZERO;
        }
        // A token that was refused or missing is nothing that the server suffers from.
        let is_for_token = matches!(reason, ReplayReason::TokenRejected | ReplayReason::TokenUnavailable);
        let is_free = queued || held == HeldRetry::Later || is_for_token;
        let budget = if is_free { None } else { self.pay(reason)? };
        let request = self.claim()?;
        let attempt = self.past().sent;
        journal::sent_again(self.head(), &replayed, error, token, budget, queued, attempt);
        let next = NextAttempt::new(request, replayed.delay, ticket);
        self.past().note(replayed);
        Ok(next)
    }

    /// How long a request waits for itself at the gate. One that was refused in its turn again and again competes with other
    /// processes, and leaves them more time if it has enough.
    fn wait_at_gate(&self, delay: Duration) -> Duration {
        let longer = delay.saturating_mul(LONGER).min(self.sender.rules().max_delay);
        let is_late = self.retries() >= MANY && longer <= self.time_left() / 2;
        if is_late { delay.max(longer) } else { delay }
    }

    /// Makes the request of the next attempt, and ends the attempt before.
    fn claim(&mut self) -> Result<Request<RequestBody<B>>, StopReason> {
        let not_replayable = |cause| StopReason::NotReplayable { cause };
        let sent = self.past().sent;
        let Some(resend) = &self.resend else {
            return Err(not_replayable(NotReplayable::Released));
        };
        resend.claim(sent).map_err(not_replayable)
    }

    /// Takes what the next attempt costs from the budget. Returns what is left of it.
    fn pay(&self, reason: ReplayReason) -> Result<Option<f64>, StopReason> {
        let (Some(budget), Some(resend)) = (&self.sender.rules().budget, &self.resend) else {
            return Ok(None);
        };
        let left = match self.is_of_first {
            true => budget.pay_as_first(reason),
            false => budget.pay(resend.head.target(), reason),
        };
        left.map(Some).ok_or(StopReason::BudgetExhausted)
    }

    /// Keeps the outcome that the next attempt is to replace, and waits.
    fn wait(
        &mut self,
        attempt: Box<NextAttempt<B>>,
        outcome: Result<Box<Draining<S::ResponseBody>>, BoxError>,
    ) -> Step<S, B> {
        let is_strict = self.sender.rules().is_strict(self.options.as_ref());
        let repeat = self.repeat;
        self.past().keep(outcome, repeat, is_strict);
        ControlFlow::Continue(AttemptState::Preparing { attempt })
    }

    /// Tells the gate what a response says about the pace. Returns how the retry of what was refused stands with it.
    fn tell_gate(&mut self, is_throttled: bool, requested_delay: Option<Duration>) -> HeldRetry {
        if !is_throttled {
            self.accepted();
            return HeldRetry::No;
        }
        // What is asked for in earnest, or known of the server; more than that no request waits for.
        let rules = self.sender.rules();
        let wait = requested_delay.or(rules.profile.wait_without_hint());
        let Some(wait) = wait.filter(|wait| *wait <= rules.max_retry_after) else { return HeldRetry::No };
        let pass = self.take_pass();
        let Some(place) = self.place() else { return HeldRetry::No };
        let Some(gate) = &self.sender.rules().gate else { return HeldRetry::No };
        let held = gate.refused(&place, self.ask(self.retries() + 1, wait), pass.as_ref(), wait);
        if self.gate().is_some() { held } else { HeldRetry::No }
    }

    /// An attempt could not be sent, or came to nothing: the outcome before is returned, if there is one.
    pub(super) fn unsent(&mut self, stop: StopReason, error: BoxError) -> Step<S, B> {
        let past = self.past();
        let had_no_token = past.is_without_token();
        let (outcome, at) = (past.outcome.take(), past.at);
        let mut report = past.end(stop);
        match outcome {
            None => {
                self.report(report, None, Some(&*error));
                ControlFlow::Break(Err(self.after_all(error)))
            }
            // An end that we made is news; that an attempt was not sent is none, unless there was no token before either.
            Some(Err(earlier)) => {
                let is_news = error.is::<TimedOut>() || had_no_token && has::<Error>(&*error);
                let (error, why) = match is_news {
                    true => (error, earlier),
                    false => {
                        report.history.remove(at);
                        (earlier, error)
                    }
                };
                self.report(ReportDetails { error: Some(why.into()), ..report }, None, Some(&*error));
                ControlFlow::Break(Err(self.after_all(error)))
            }
            // What was to be replaced is returned after all.
            Some(Ok(draining)) => {
                let requested_delay = report.history.remove(at).requested_delay;
                let report = ReportDetails { requested_delay, error: Some(error.into()), ..report };
                ControlFlow::Break(Ok(self.hand_out(draining.into_response(), report)))
            }
        }
    }

    /// Where the server did the work before, or may have done it, the error must not say that nothing was sent.
    fn after_all(&self, error: BoxError) -> BoxError {
        let done = match self.before() {
            _ if error.is::<TimedOut>() => return error,
            Before::Nothing => return error,
            Before::Doubt => "the request may have been done, and could not be sent again",
            Before::Work => "the request was done, and what it was redirected to could not be asked",
        };
        // What is below an error of ours, such as a connection that was refused, would read as if it were the API's.
        let why = match Error::find_in(&*error) {
            Some(own) => own.to_string(),
            None => chain(&*error).last().map_or(String::new(), ToString::to_string),
        };
        format!("{done}: {why}").into()
    }

    /// Finishes a response that was replayed for, or refused to be.
    fn hand_out<RB>(&self, mut response: Response<RB>, report: ReportDetails) -> Response<RB> {
        let rejected = response.extensions_mut().remove::<TokenRejected>();
        let status = Some(response.status());
        let report = self.report(ReportDetails { rejected, ..report }, status, None);
        response.extensions_mut().insert(report);
        response
    }

    /// Tells the log, and the caller.
    fn report(
        &self,
        details: ReportDetails,
        status: Option<StatusCode>,
        error: Option<&(dyn StdError + 'static)>,
    ) -> RetryReport {
        let error = error.or(details.error.as_deref().map(|error| error as _));
        journal::ended(self.head(), status, error, &details);
        let report = RetryReport::new(details);
        if let Some(options) = &self.options {
            options.put_report(&report);
        }
        report
    }

    fn head(&self) -> Option<&HeadSnapshot> {
        self.resend.as_ref().map(|resend| &resend.head)
    }
}

/// Marks a 401 of which auth said nothing below, for one that stands above: it cannot have its token replaced.
#[cold]
pub(super) fn mark_unauthorized<RB>(response: &mut Response<RB>) {
    if response.extensions().get::<TokenRejected>().is_none() {
        response.extensions_mut().insert(PastRetry);
    }
}

/// Returns why an attempt was not sent at all, if one of our own kind says so.
pub(in crate::retry) fn refused(error: &(dyn StdError + 'static)) -> Option<StopReason> {
    if has::<Error>(error) {
        Some(StopReason::TokenUnavailable)
    } else if has::<Overloaded>(error) {
        Some(StopReason::NotReady)
    } else {
        None
    }
}
