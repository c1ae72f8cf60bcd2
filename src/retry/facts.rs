//! What is known of a request, and what follows from the outcome of an attempt.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use tower::BoxError;
use tower::load_shed::error::Overloaded;
use tower_service::Service;

use super::decide::{Decision, View};
use super::options::RetryOptions;
use super::policy::RetryPolicy;
use super::replay::{Previous, Progress, Replay};
use super::replay_body::{NotReplayable, ReplayBody};
use super::report::{self, Replayed, RetryReport, StopReason};
use super::retry_body::RetryBody;
use crate::backoff::Chance;
use crate::clock;
use crate::error::TokenError;
use crate::extensions::TokenRejected;

/// What is known of a request whether or not it can be replayed.
pub(super) struct Facts {
    pub(super) policy: RetryPolicy,
    pub(super) options: Option<Box<RetryOptions>>,
    /// The method is idempotent, or an `Idempotency-Key` makes it so.
    pub(super) repeatable: bool,
    /// Why the body cannot be sent again, as far as that was known at once.
    pub(super) body: Option<NotReplayable>,
}

/// The outcome of an attempt, or of the try to make one.
pub(super) enum Step<RB> {
    Replay,
    Done(Result<Response<RetryBody<RB>>, BoxError>),
}

impl Facts {
    /// Whether an answer is final, and the first.
    pub(super) fn is_plain<S, B, RB>(&self, replay: Option<&Replay<S, B>>, response: &Response<RB>) -> bool
    where
        S: Service<Request<ReplayBody<B>>, Response = Response<RB>>,
    {
        let rejected = response.extensions().get::<TokenRejected>().is_some();
        let replayed = replay.is_some_and(|replay| !replay.progress.history.is_empty());
        let (rules, status) = (self.policy.rules(), response.status());
        let hinted = || rules.hint(status, response.headers(), clock::unix_time()).is_some();
        !replayed && rules.reason(status, rejected, hinted).is_none()
    }

    /// An answer came that is not plain: the next attempt is prepared, or the answer is handed out with a report.
    #[cold]
    pub(super) fn answered<S, B, RB>(
        &self,
        mut replay: Option<&mut Replay<S, B>>,
        response: Response<RB>,
    ) -> Step<RB>
    where
        S: Service<Request<ReplayBody<B>>, Response = Response<RB>>,
    {
        let not_replayable = self.body.unwrap_or(NotReplayable::Released);
        let view = View::of(&response, self.repeatable).options(self.options.as_deref());
        let view = match &replay {
            None => view.body(Err(not_replayable)),
            Some(replay) => replay.complete(view),
        };
        let requested_delay = self.policy.requested_delay(&view);
        let stop = match self.policy.decide(&view, Chance::default().fraction()) {
            Decision::Stop(stop) => stop,
            Decision::Replay { delay, reason, requested_delay } => {
                let replayed = Replayed { status: Some(response.status()), reason, delay, requested_delay };
                let claimed = replay
                    .as_deref_mut()
                    .ok_or(not_replayable)
                    .and_then(|replay| replay.claim().map(|body| (replay, body)));
                match claimed {
                    Ok((replay, body)) => {
                        replay.prepare(body, replayed, response);
                        return Step::Replay;
                    }
                    Err(cause) => StopReason::NotReplayable { cause },
                }
            }
        };
        let progress = replay.map_or_else(Progress::first, |replay| replay.progress.finish());
        Step::Done(Ok(self.hand_out(progress, response.map(RetryBody::whole), stop, requested_delay, None)))
    }

    /// The inner service failed. What was surely never sent does not replace an answer already had.
    pub(super) fn failed<S, B, RB>(&self, replay: Option<&mut Replay<S, B>>, error: BoxError) -> Step<RB>
    where
        S: Service<Request<ReplayBody<B>>, Response = Response<RB>>,
    {
        let stop = if has::<TokenError>(&*error) {
            StopReason::TokenUnavailable
        } else if has::<Overloaded>(&*error) {
            StopReason::NotReady
        } else {
            StopReason::Failed
        };
        let sent = stop == StopReason::Failed;
        let progress = match replay {
            None => Progress { sent: u32::from(sent), ..Progress::first() },
            Some(replay) if sent => replay.progress.finish(),
            Some(replay) => {
                replay.progress.sent -= 1;
                return self.unsent(replay, stop, error);
            }
        };
        self.report(progress, stop, None, None, None);
        Step::Done(Err(error))
    }

    /// An attempt could not be sent: the answer before is handed out, if there is one.
    pub(super) fn unsent<S, B, RB>(
        &self,
        replay: &mut Replay<S, B>,
        stop: StopReason,
        error: BoxError,
    ) -> Step<RB>
    where
        S: Service<Request<ReplayBody<B>>, Response = Response<RB>>,
    {
        let mut progress = replay.progress.finish();
        let Some(previous) = replay.previous.take() else {
            self.report(progress, stop, None, None, None);
            return Step::Done(Err(error));
        };
        let response = match *previous {
            Previous::Whole(response) => response.map(RetryBody::whole),
            Previous::Head(head) => Response::from_parts(head, RetryBody::abandoned()),
        };
        // The answer that was to be replaced is handed out after all.
        let requested_delay = progress.history.pop().and_then(|last| last.requested_delay);
        Step::Done(Ok(self.hand_out(progress, response, stop, requested_delay, Some(error))))
    }

    /// Finishes a response that was replayed for, or refused to be.
    fn hand_out<RB>(
        &self,
        progress: Progress,
        mut response: Response<RB>,
        stop: StopReason,
        requested_delay: Option<Duration>,
        error: Option<BoxError>,
    ) -> Response<RB> {
        let rejected = response.extensions_mut().remove::<TokenRejected>();
        let report = self.report(progress, stop, requested_delay, rejected, error);
        response.extensions_mut().insert(report);
        response
    }

    fn report(
        &self,
        progress: Progress,
        stop_reason: StopReason,
        requested_delay: Option<Duration>,
        rejected: Option<TokenRejected>,
        error: Option<BoxError>,
    ) -> RetryReport {
        let report = RetryReport::new(report::Inner {
            attempts: progress.sent,
            history: progress.history,
            stop_reason,
            requested_delay,
            rejected,
            error: error.map(Arc::from),
        });
        tracing::debug!(
            reason = %report.stop_reason(),
            attempts = report.attempts(),
            ?requested_delay,
            "the request is not sent again"
        );
        if let Some(slot) = self.options.as_ref().and_then(|options| options.slot.as_ref()) {
            slot.put(report.clone());
        }
        report
    }
}

/// Returns whether the error or one of its sources is an `E`.
fn has<E: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| (*error).source()).any(<dyn Error>::is::<E>)
}
