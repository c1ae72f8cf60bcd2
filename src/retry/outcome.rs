//! What follows from the outcome of an attempt: the next one, or the end of the request.

use std::error::Error;
use std::time::Duration;

use http::{HeaderMap, Response, StatusCode, request};
use http_body::Body;
use tower::BoxError;
use tower::load_shed::error::Overloaded;

use super::account::{Account, Aim, Target};
use super::budget::{Price, RetryBudget, Spent};
use super::classify::{Failure, has};
use super::decide::{Decision, Reading};
use super::drain::Draining;
use super::facts::Facts;
use super::gate::{Ask, GateKey, Held, Place};
use super::idempotency::Repeat;
use super::late;
use super::replay::{Again, Earlier, HttpService, Previous, Progress, Replay};
use super::replay_body::NotReplayable;
use super::report::{self, ReplayReason, Replayed, RetryReport, StopReason};
use super::retry_body::RetryBody;
use super::timeouts::{self, AttemptTimeout, DeadlineExceeded, Over};
use super::view::{Outcome, View};
use crate::backoff::Chance;
use crate::error::TokenError;
use crate::extensions::TokenRejected;
use crate::headers::grpc;
use crate::runtime;

/// What is left of a request that is not kept: where it went, for the gate.
pub(super) struct SentTo {
    /// None for the first account of the budget, where nearly every request goes, so that nothing need be copied.
    aim: Option<Aim>,
    key: Option<String>,
}

/// The outcome of an attempt, or of the try to make one.
pub(super) enum Step<RB: Body> {
    Replay,
    Done(Result<Response<RetryBody<RB>>, BoxError>),
}

impl SentTo {
    /// Keeps where a request goes, and whether that is where the first one went of which the budget knows.
    #[inline]
    pub(super) fn of(head: &request::Parts, key: &GateKey, is_first: bool) -> Self {
        Self { aim: (!is_first).then(|| Aim::of(head)), key: key.of(|| head) }
    }

    fn place(&self, budget: Option<&RetryBudget>) -> Option<Place> {
        let account = match &self.aim {
            Some(aim) => Account::of(aim.target()),
            None => budget?.first_account()?.clone(),
        };
        Some(Place::of(account, self.key.clone()))
    }
}

impl Facts {
    /// Whether an answer is final, and the first.
    pub(super) fn is_plain<S, B, T>(
        &self,
        replay: Option<&Replay<S, B>>,
        response: &Response<T>,
        trailers: Option<&HeaderMap>,
    ) -> bool
    where
        S: HttpService<B>,
    {
        let first = replay.is_none_or(Replay::is_first);
        first && self.policy.rules().is_final(response, trailers)
    }

    /// An answer came that needs a closer look: the next attempt is prepared, or the answer is handed out with a report.
    #[cold]
    pub(super) fn answered<S, B>(
        &self,
        mut replay: Option<&mut Replay<S, B>>,
        sent_to: Option<&SentTo>,
        response: Response<S::ResponseBody>,
    ) -> Step<S::ResponseBody>
    where
        S: HttpService<B>,
    {
        let (response, trailers) = match grpc::is_late(&response) {
            true => late::look(response),
            false => (response.map(RetryBody::whole), None),
        };
        if self.is_plain(replay.as_deref(), &response, trailers.as_ref()) {
            if let Some(replay) = replay {
                replay.accepted();
            }
            return Step::Done(Ok(response));
        }
        let view = View::answered(&response, self.repeat);
        let view = match &trailers {
            Some(trailers) => view.trailers(trailers),
            None => view,
        };
        let view = self.view(replay.as_deref(), view);
        let reading = self.policy.rules().read(&view);
        let requested_delay = reading.requested_delay();
        let status = Some(response.status());
        let held = self.tell_gate(replay.as_deref_mut(), sent_to, &reading);
        let stop = match self.again(replay.as_deref_mut(), &view, &reading, status, None, held) {
            Ok((replay, again)) => {
                let allowance = &self.policy.rules().allowance;
                let draining = Draining::new(response, timeouts::left(self.deadline), allowance);
                replay.prepare(again, Previous::Answered(Box::new(draining)));
                return Step::Replay;
            }
            Err(stop) => stop,
        };
        let progress = replay.map_or_else(Progress::first, Replay::finish);
        Step::Done(Ok(self.hand_out(response, report::Inner { requested_delay, ..progress.end(stop) })))
    }

    /// The inner service failed: the next attempt is prepared, or the error is handed out. What auth or a limit refused to
    /// send does not replace an answer already had.
    #[cold]
    pub(super) fn failed<S, B>(
        &self,
        mut replay: Option<&mut Replay<S, B>>,
        error: BoxError,
    ) -> Step<S::ResponseBody>
    where
        S: HttpService<B>,
    {
        if let Some(stop) = refused(&*error) {
            match replay {
                Some(replay) => {
                    replay.take_back();
                    return self.unsent(replay, stop, error);
                }
                None => {
                    self.report(Progress { sent: 0, ..Progress::first() }.end(stop));
                    return Step::Done(Err(error));
                }
            }
        }
        let failure = self.policy.rules().classifier.classify(&*error);
        let view = self.view(replay.as_deref(), View::of(Outcome::Failure(failure), self.repeat));
        let reading = self.policy.rules().read(&view);
        let stop = match self.again(replay.as_deref_mut(), &view, &reading, None, Some(failure), Held::No) {
            Ok((replay, again)) => {
                replay.prepare(again, Previous::Failed(error));
                return Step::Replay;
            }
            Err(stop) => stop,
        };
        let did_no_work = failure != Failure::Ambiguous;
        match replay {
            // An error that says so would speak for the earlier attempts as well.
            Some(replay) if did_no_work && replay.is_in_doubt() => self.unsent(replay, stop, error),
            replay => {
                let mut progress = replay.map_or_else(Progress::first, Replay::finish);
                progress.in_doubt |= !did_no_work && self.repeat != Repeat::Safe;
                self.report(progress.end(stop));
                Step::Done(Err(error))
            }
        }
    }

    /// The time of the attempt in flight is over. That does not replace an answer already had.
    #[cold]
    pub(super) fn ended<S, B>(
        &self,
        mut replay: Option<&mut Replay<S, B>>,
        over: &Over,
    ) -> Step<S::ResponseBody>
    where
        S: HttpService<B>,
    {
        let (stop, error): (_, BoxError) = match over {
            Over::Request => (StopReason::DeadlineExceeded, DeadlineExceeded::new().into()),
            Over::Attempt { limit } => {
                let error = AttemptTimeout::new(*limit).into();
                let failure = Failure::Ambiguous;
                let view = self.view(replay.as_deref(), View::of(Outcome::Failure(failure), self.repeat));
                let reading = self.policy.rules().read(&view);
                match self.again(replay.as_deref_mut(), &view, &reading, None, Some(failure), Held::No) {
                    Ok((replay, again)) => {
                        replay.prepare(again, Previous::Failed(error));
                        return Step::Replay;
                    }
                    Err(stop) => (stop, error),
                }
            }
        };
        let in_doubt = self.repeat != Repeat::Safe;
        match replay {
            Some(replay) => {
                replay.doubt(in_doubt);
                self.unsent(replay, stop, error)
            }
            None => {
                self.report(Progress { in_doubt, ..Progress::first() }.end(stop));
                Step::Done(Err(error))
            }
        }
    }

    /// The deadline had passed before anything was sent.
    #[cold]
    pub(super) fn never_sent<RB: Body>(&self) -> Step<RB> {
        let progress = Progress { sent: 0, ..Progress::first() };
        self.report(progress.end(StopReason::DeadlineExceeded));
        Step::Done(Err(DeadlineExceeded::new().into()))
    }

    /// The deadline passed before the next attempt could be sent.
    #[cold]
    pub(super) fn too_late<S, B>(&self, replay: &mut Replay<S, B>) -> Step<S::ResponseBody>
    where
        S: HttpService<B>,
    {
        self.unsent(replay, StopReason::DeadlineExceeded, DeadlineExceeded::new().into())
    }

    /// Adds to a view what is known here.
    fn view<'a, S, B>(&'a self, replay: Option<&Replay<S, B>>, view: View<'a>) -> View<'a>
    where
        S: HttpService<B>,
    {
        let view = view.options(self.options.as_ref()).time_left(timeouts::left(self.deadline));
        match replay {
            None => view.body(Err(self.not_replayable())),
            Some(replay) => replay.complete(view, self.not_replayable()),
        }
    }

    /// Decides, and claims the body of the attempt that follows.
    fn again<'r, S, B>(
        &self,
        replay: Option<&'r mut Replay<S, B>>,
        view: &View<'_>,
        reading: &Reading<'_>,
        status: Option<StatusCode>,
        failure: Option<Failure>,
        held: Held,
    ) -> Result<(&'r mut Replay<S, B>, Again<B>), StopReason>
    where
        S: HttpService<B>,
    {
        match self.policy.rules().decide(view, reading, &Chance::default()) {
            Decision::Stop(stop) => Err(stop),
            Decision::Replay { delay, reason, requested_delay, requested_by } => {
                runtime::current().map_err(|_| StopReason::NoTimer)?;
                let not_replayable = |cause| StopReason::NotReplayable { cause };
                let replay = replay.ok_or(not_replayable(self.not_replayable()))?;
                let queued = held == Held::Now && replay.queue_again(self, requested_delay);
                // While it waits at the gate it waits for nothing else, unless its own wait is the longer one.
                let own = !queued || delay > Chance::at_most(requested_delay.unwrap_or_default());
                let sleep = if own { delay } else { Duration::ZERO };
                let delay = if queued { Duration::ZERO } else { delay };
                let free = queued || held == Held::Later;
                let bill = if free { Bill::Free } else { self.pay(replay, reason)? };
                let body = replay.claim().map_err(|cause| {
                    bill.cancel(replay.target());
                    not_replayable(cause)
                })?;
                let replayed = Replayed { status, failure, reason, delay, requested_delay };
                let in_doubt = self.repeat != Repeat::Safe && replayed.may_have_acted();
                Ok((replay, Again { body, replayed, requested_by, sleep, in_doubt, budget: bill.left() }))
            }
        }
    }

    /// Tells the gate what a response says about the pace. Returns how the retry of what was refused stands with it.
    fn tell_gate<S, B>(
        &self,
        replay: Option<&mut Replay<S, B>>,
        sent_to: Option<&SentTo>,
        reading: &Reading<'_>,
    ) -> Held
    where
        S: HttpService<B>,
    {
        let rules = self.policy.rules();
        let Some(gate) = &rules.gate else { return Held::No };
        if !reading.is_throttled {
            if let Some(replay) = replay {
                replay.accepted();
            }
            return Held::No;
        }
        // What is asked for in earnest; more than that no request waits for.
        let Some(wait) = reading.requested_delay().filter(|wait| *wait <= rules.longest_hint) else {
            return Held::No;
        };
        let held = match (replay, sent_to) {
            (Some(replay), _) => {
                let pass = replay.take_pass();
                let place = replay.place(&rules.gate_key);
                gate.refused(&place, replay.ask(self, replay.retries() + 1, wait), pass.as_deref(), wait)
            }
            (None, Some(to)) => {
                if let Some(place) = to.place(rules.budget.as_ref()) {
                    gate.refused(&place, Ask::ONCE, None, wait);
                }
                Held::No
            }
            (None, None) => Held::No,
        };
        if self.gate().is_some() { held } else { Held::No }
    }

    /// Takes what a replay costs from the budget.
    fn pay<S, B>(&self, replay: &Replay<S, B>, reason: ReplayReason) -> Result<Bill<'_>, StopReason>
    where
        S: HttpService<B>,
    {
        let (Some(budget), Some(price)) = (&self.policy.rules().budget, Price::of(reason)) else {
            return Ok(Bill::Free);
        };
        let left = budget.withdraw(replay.target(), price).map_err(|Spent| StopReason::BudgetExhausted)?;
        Ok(Bill::Paid { budget, price, left })
    }

    fn not_replayable(&self) -> NotReplayable {
        self.body.unwrap_or(NotReplayable::Released)
    }

    /// An attempt could not be sent, or came to nothing: the answer before is handed out, if there is one.
    pub(super) fn unsent<S, B>(
        &self,
        replay: &mut Replay<S, B>,
        stop: StopReason,
        error: BoxError,
    ) -> Step<S::ResponseBody>
    where
        S: HttpService<B>,
    {
        let mut progress = replay.finish();
        let Some(previous) = replay.take_previous() else {
            self.report(progress.end(stop));
            return Step::Done(Err(error));
        };
        let Earlier { outcome, at } = previous;
        let response = match outcome {
            Previous::Answered(draining) => draining.into_response(),
            // An end that we made is news; that an attempt was not sent is none.
            Previous::Failed(earlier) => {
                let (error, why) = match is_ours(&*error) {
                    true => (error, earlier),
                    false => {
                        progress.history.remove(at);
                        (earlier, error)
                    }
                };
                self.report(report::Inner { error: Some(why.into()), ..progress.end(stop) });
                return Step::Done(Err(error));
            }
        };
        // What was to be replaced is handed out after all.
        let requested_delay = progress.history.remove(at).requested_delay;
        let error = Some(error.into());
        let report = report::Inner { requested_delay, error, ..progress.end(stop) };
        Step::Done(Ok(self.hand_out(response, report)))
    }

    /// Finishes a response that was replayed for, or refused to be.
    fn hand_out<RB: Body>(&self, mut response: Response<RB>, report: report::Inner) -> Response<RB> {
        let rejected = response.extensions_mut().remove::<TokenRejected>();
        let report = self.report(report::Inner { rejected, ..report });
        response.extensions_mut().insert(report);
        response
    }

    fn report(&self, report: report::Inner) -> RetryReport {
        let report = RetryReport::new(report);
        report.tell(self.options.as_ref().and_then(|options| options.slot.as_ref()));
        report
    }
}

/// What a replay cost.
enum Bill<'a> {
    Free,
    Paid { budget: &'a RetryBudget, price: Price, left: f64 },
}

impl Bill<'_> {
    /// The replay did not come about.
    fn cancel(&self, target: Target<'_>) {
        if let Self::Paid { budget, price, .. } = self {
            budget.give_back(target, *price);
        }
    }

    /// Returns how many retries are left, where they are counted.
    fn left(&self) -> Option<f64> {
        match self {
            Self::Free => None,
            Self::Paid { left, .. } => Some(*left),
        }
    }
}

/// Returns whether an error says that an attempt was ended here.
fn is_ours(error: &(dyn Error + 'static)) -> bool {
    error.is::<DeadlineExceeded>() || error.is::<AttemptTimeout>()
}

/// Returns why an attempt was not sent at all, if one of our own kind says so.
pub(super) fn refused(error: &(dyn Error + 'static)) -> Option<StopReason> {
    if has::<TokenError>(error) {
        Some(StopReason::TokenUnavailable)
    } else if has::<Overloaded>(error) {
        Some(StopReason::NotReady)
    } else {
        None
    }
}
