//! One request on its way: sent, waited for, sent again.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::BoxError;
use tower_service::Service;

use super::facts::Facts;
use super::outcome::{SentTo, Step};
use super::replay::{HttpService, Replay};
use super::replay_body::ReplayBody;
use super::report::StopReason;
use super::retry_body::RetryBody;
use super::timeouts::{self, Timer};
use crate::headers::grpc;

pin_project! {
    /// The response future of a [`RetryService`](super::RetryService).
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the attempt in flight, or ends the wait for the next one. Nothing goes on behind it.
    ///
    /// # Panics
    ///
    /// Waits need a tokio runtime with its timer enabled. It must not be polled again after it was ready.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, B>
    where
        S: HttpService<B>,
    {
        #[pin]
        state: State<S::Future>,
        // None: another retry layer resends this request, and nothing is looked at here.
        facts: Option<Facts>,
        kept: Kept<S, B>,
        timer: Timer,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        // The deadline had passed before anything was sent.
        Late,
        // An attempt is in flight.
        Calling { #[pin] future: F },
        // The wait before the next attempt, at the gate or for itself. The attempt before is dropped, and with it what an
        // inner limit lent it; its answer is drained.
        Waiting,
        // The body of the next attempt is being opened, if a factory makes it.
        Reopening,
        // The inner service is being made ready for the next attempt.
        Readying,
        Done,
    }
}

/// What is kept of a request while it is in flight.
pub(super) enum Kept<S, B>
where
    S: HttpService<B>,
{
    /// What replays are made from.
    Replay(Replay<S, B>),
    /// No replay can follow: where it went, for the gate.
    Place(SentTo),
    Nothing,
}

impl<S, B> ResponseFuture<S, B>
where
    S: HttpService<B>,
{
    #[inline]
    pub(super) fn passing(future: S::Future) -> Self {
        Self { state: State::Calling { future }, facts: None, kept: Kept::Nothing, timer: Timer::default() }
    }

    #[cold]
    pub(super) fn late(facts: Facts) -> Self {
        Self { state: State::Late, facts: Some(facts), kept: Kept::Nothing, timer: Timer::default() }
    }

    pub(super) fn held_back(facts: Facts, replay: Replay<S, B>) -> Self {
        let kept = Kept::Replay(replay);
        Self { state: State::Waiting, facts: Some(facts), kept, timer: Timer::default() }
    }

    #[inline]
    pub(super) fn watching(future: S::Future, facts: Facts, kept: Kept<S, B>) -> Self {
        Self { state: State::Calling { future }, facts: Some(facts), kept, timer: Timer::default() }
    }
}

impl<S, B, RB> Future for ResponseFuture<S, B>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<RB>>,
    RB: Body<Error: Into<BoxError>>,
    S::Error: Into<BoxError>,
{
    type Output = Result<Response<RetryBody<RB>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let (replay, sent_to) = this.kept.parts();
            let step = match (this.state.as_mut().project(), this.facts.as_ref(), replay) {
                (StateProj::Calling { future }, Some(facts), replay) => match future.poll(cx) {
                    Poll::Pending => {
                        let limit = facts.policy.rules().attempt_timeout;
                        let over = ready!(this.timer.poll_over(facts.deadline, limit, cx));
                        facts.ended(replay, &over)
                    }
                    // Nearly every answer: it is handed out without a second look.
                    Poll::Ready(Ok(response))
                        if !grpc::is_late(&response)
                            && facts.is_plain(replay.as_deref(), &response, None) =>
                    {
                        if let Some(replay) = replay {
                            replay.accepted();
                        }
                        *this.kept = Kept::Nothing;
                        this.state.set(State::Done);
                        return Poll::Ready(Ok(response.map(RetryBody::whole)));
                    }
                    Poll::Ready(Ok(response)) => facts.answered(replay, sent_to, response),
                    Poll::Ready(Err(error)) => facts.failed(replay, error.into()),
                },
                (StateProj::Calling { future }, None, _) => {
                    let answer = ready!(future.poll(cx));
                    Step::Done(answer.map(|response| response.map(RetryBody::whole)).map_err(Into::into))
                }
                (StateProj::Late, Some(facts), _) => facts.never_sent(),
                (StateProj::Waiting, Some(facts), Some(replay)) => {
                    ready!(replay.poll_wait(facts, cx));
                    if !timeouts::is_over(facts.deadline) {
                        this.state.set(State::Reopening);
                        continue;
                    }
                    facts.too_late(replay)
                }
                (StateProj::Reopening, Some(facts), Some(replay)) => {
                    match ready!(replay.poll_reopen(facts, cx)) {
                        Ok(()) => {
                            this.state.set(State::Readying);
                            continue;
                        }
                        Err(error) => facts.unsent(replay, StopReason::BodyNotReopened, error),
                    }
                }
                (StateProj::Readying, Some(facts), Some(replay)) => {
                    match ready!(replay.poll_ready(facts, cx)) {
                        Ok(()) if timeouts::is_over(facts.deadline) => facts.too_late(replay),
                        Ok(()) => {
                            this.timer.reset();
                            let future = replay.send(facts);
                            this.state.set(State::Calling { future });
                            continue;
                        }
                        Err(error) => facts.unsent(replay, StopReason::NotReady, error),
                    }
                }
                (
                    StateProj::Late
                    | StateProj::Waiting
                    | StateProj::Reopening
                    | StateProj::Readying
                    | StateProj::Done,
                    _,
                    _,
                ) => {
                    panic!("a response future was polled after it was done")
                }
            };
            match step {
                Step::Replay => this.state.set(State::Waiting),
                Step::Done(result) => {
                    // What was recorded is freed now, even if nobody drops this future for long.
                    *this.kept = Kept::Nothing;
                    this.state.set(State::Done);
                    return Poll::Ready(result);
                }
            }
        }
    }
}

impl<S, B> Kept<S, B>
where
    S: HttpService<B>,
{
    fn parts(&mut self) -> (Option<&mut Replay<S, B>>, Option<&SentTo>) {
        match self {
            Self::Replay(replay) => (Some(replay), None),
            Self::Place(to) => (None, Some(to)),
            Self::Nothing => (None, None),
        }
    }
}

impl<S, B> fmt::Debug for ResponseFuture<S, B>
where
    S: HttpService<B>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Late => "late",
            State::Calling { .. } => "calling",
            State::Waiting => "waiting",
            State::Reopening => "reopening",
            State::Readying => "readying",
            State::Done => "done",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}
