//! One request on its way: sent, waited for, sent again.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response, StatusCode, request, response};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};
use tower::BoxError;
use tower::load_shed::error::Overloaded;
use tower_service::Service;

use super::decide::{Decision, View};
use super::options::RetryOptions;
use super::policy::RetryPolicy;
use super::replay_body::{NotReplayable, ReplayBody};
use super::report::{self, ReplayReason, Replayed, RetryReport, StopReason};
use super::retry_body::RetryBody;
use crate::backoff::Chance;
use crate::clock;
use crate::error::TokenError;
use crate::extensions::{Attempt, Deadline, TokenRejected};

pin_project! {
    /// The response future of a [`RetryService`](super::RetryService).
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the attempt in flight, or ends the wait for the next one. Nothing goes on behind it.
    ///
    /// # Panics
    ///
    /// Waits need a tokio runtime with its timer enabled.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<ReplayBody<B>>>,
    {
        #[pin]
        state: State<S::Future>,
        // None: another retry layer resends this request, and nothing is looked at here.
        facts: Option<Facts>,
        // None: no replay can follow.
        replay: Option<Replay<S, B>>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        // An attempt is in flight.
        Calling { #[pin] future: F },
        // The wait before the next attempt. The attempt before is dropped, and with it what an inner limit lent it.
        Waiting,
        // The inner service is being made ready for the next attempt.
        Readying,
        Done,
    }
}

/// What is known of a request whether or not it can be replayed.
pub(super) struct Facts {
    pub(super) policy: RetryPolicy,
    pub(super) options: Option<Box<RetryOptions>>,
    /// The method is idempotent, or an `Idempotency-Key` makes it so.
    pub(super) repeatable: bool,
    /// Why the body cannot be sent again, as far as that was known at once.
    pub(super) body: Option<NotReplayable>,
}

/// What replays are made from, and how they went so far.
///
/// 1. `service` is never held ready: it is polled ready for an attempt, and called at once.
/// 2. `next` is there from the decision to replay until the replay is sent.
/// 3. `previous` is the newest answer there is. It is kept until a newer outcome replaces it, so that it can be handed
///    out should the replay not come about.
pub(super) struct Replay<S, B>
where
    S: Service<Request<ReplayBody<B>>>,
{
    service: S,
    head: request::Parts,
    /// None once no replay can follow, so that the last attempt is not recorded.
    original: Option<ReplayBody<B>>,
    next: Option<ReplayBody<B>>,
    previous: Option<Box<Previous<S::Response>>>,
    sleep: Option<Pin<Box<Sleep>>>,
    patience: Patience,
    progress: Progress,
}

/// What went on so far.
struct Progress {
    sent: u32,
    retries: u32,
    auth_replays: u32,
    waited: Duration,
    history: Vec<Replayed>,
}

/// The answer before, while a replay is tried.
enum Previous<R> {
    Whole(R),
    /// Its body was given up; see [`Patience`].
    Head(response::Parts),
}

/// How the inner service is waited for. A connection pool may wait for the very response that is being kept: then it is
/// let go.
#[derive(Clone, Copy)]
enum Patience {
    Fresh,
    Begun { since: Instant, give_up: Instant },
}

/// The outcome of an attempt, or of the try to make one.
enum Step<RB> {
    Replay,
    Done(Result<Response<RetryBody<RB>>, BoxError>),
}

/// For how long the previous response is kept while the inner service is not ready.
const KEEP_PREVIOUS: Duration = Duration::from_millis(200);

impl<S, B> ResponseFuture<S, B>
where
    S: Service<Request<ReplayBody<B>>>,
{
    pub(super) fn passing(future: S::Future) -> Self {
        Self { state: State::Calling { future }, facts: None, replay: None }
    }

    pub(super) fn watching(future: S::Future, facts: Facts, replay: Option<Replay<S, B>>) -> Self {
        Self { state: State::Calling { future }, facts: Some(facts), replay }
    }
}

impl<S, B, RB> Future for ResponseFuture<S, B>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<RB>>,
    S::Error: Into<BoxError>,
{
    type Output = Result<Response<RetryBody<RB>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let step = match (this.state.as_mut().project(), this.facts.as_ref(), this.replay.as_mut()) {
                (StateProj::Calling { future }, Some(facts), replay) => match ready!(future.poll(cx)) {
                    // Nearly every answer: it is handed out without a second look.
                    Ok(response) if facts.is_plain(replay.as_deref(), &response) => {
                        *this.replay = None;
                        this.state.set(State::Done);
                        return Poll::Ready(Ok(response.map(RetryBody::whole)));
                    }
                    Ok(response) => facts.answered(replay, response),
                    Err(error) => facts.failed(replay, error.into()),
                },
                (StateProj::Calling { future }, None, _) => {
                    let answer = ready!(future.poll(cx));
                    Step::Done(answer.map(|response| response.map(RetryBody::whole)).map_err(Into::into))
                }
                (StateProj::Waiting, _, Some(replay)) => {
                    ready!(replay.poll_wait(cx));
                    this.state.set(State::Readying);
                    continue;
                }
                (StateProj::Readying, Some(facts), Some(replay)) => {
                    match ready!(replay.poll_ready(facts, cx)) {
                        Ok(()) => {
                            let future = replay.send(facts);
                            this.state.set(State::Calling { future });
                            continue;
                        }
                        Err(error) => facts.unsent(replay, StopReason::NotReady, error),
                    }
                }
                (StateProj::Waiting | StateProj::Readying | StateProj::Done, _, _) => {
                    panic!("a response future was polled after it was done")
                }
            };
            match step {
                Step::Replay => this.state.set(State::Waiting),
                Step::Done(result) => {
                    // What was recorded is freed now, even if nobody drops this future for long.
                    *this.replay = None;
                    this.state.set(State::Done);
                    return Poll::Ready(result);
                }
            }
        }
    }
}

impl<S, B> fmt::Debug for ResponseFuture<S, B>
where
    S: Service<Request<ReplayBody<B>>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Calling { .. } => "calling",
            State::Waiting => "waiting",
            State::Readying => "readying",
            State::Done => "done",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}

// --- Facts ---

impl Facts {
    /// Whether an answer is final, and the first.
    fn is_plain<S, B, RB>(&self, replay: Option<&Replay<S, B>>, response: &Response<RB>) -> bool
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
    fn answered<S, B, RB>(&self, mut replay: Option<&mut Replay<S, B>>, response: Response<RB>) -> Step<RB>
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
    fn failed<S, B, RB>(&self, replay: Option<&mut Replay<S, B>>, error: BoxError) -> Step<RB>
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
    fn unsent<S, B, RB>(&self, replay: &mut Replay<S, B>, stop: StopReason, error: BoxError) -> Step<RB>
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

// --- Replay ---

impl<S, B, RB> Replay<S, B>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<RB>>,
{
    pub(super) fn new(service: S, head: request::Parts, original: ReplayBody<B>) -> Self {
        Self {
            service,
            head,
            original: Some(original),
            next: None,
            previous: None,
            sleep: None,
            patience: Patience::Fresh,
            progress: Progress::first(),
        }
    }

    /// Adds to a view what only this side knows.
    fn complete<'a>(&self, view: View<'a>) -> View<'a> {
        let replayable = self.original.as_ref().map_or(Err(NotReplayable::Released), ReplayBody::replayable);
        view.body(replayable)
            .retries(self.progress.retries)
            .auth_replays(self.progress.auth_replays)
            .waited(self.progress.waited)
            .time_left(self.time_left())
    }

    fn time_left(&self) -> Option<Duration> {
        let deadline = Instant::from_std(self.head.extensions.get::<Deadline>()?.instant());
        Some(deadline.saturating_duration_since(clock::now()))
    }

    /// Makes the body of the next attempt, now: an upload that goes on during the wait would be in vain.
    fn claim(&self) -> Result<ReplayBody<B>, NotReplayable> {
        self.original.as_ref().ok_or(NotReplayable::Released)?.replay()
    }

    /// Notes a replay that was decided, and starts its wait.
    fn prepare(&mut self, body: ReplayBody<B>, replayed: Replayed, previous: S::Response) {
        let Replayed { status, reason, delay, requested_delay } = replayed;
        tracing::debug!(
            status = status.as_ref().map(StatusCode::as_u16),
            %reason,
            ?delay,
            ?requested_delay,
            resend_count = self.progress.sent,
            "the request is sent again"
        );
        self.next = Some(body);
        self.previous = Some(Box::new(Previous::Whole(previous)));
        self.patience = Patience::Fresh;
        self.sleep = (!delay.is_zero()).then(|| Box::pin(tokio::time::sleep(delay)));
        self.progress.note(replayed);
    }

    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(sleep) = &mut self.sleep {
            ready!(sleep.as_mut().poll(cx));
            self.sleep = None;
        }
        Poll::Ready(())
    }

    /// Makes the inner service ready, within the time that is left.
    fn poll_ready(&mut self, facts: &Facts, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>>
    where
        S::Error: Into<BoxError>,
    {
        if let Poll::Ready(ready) = self.service.poll_ready(cx) {
            if let Patience::Begun { since, .. } = self.patience {
                // It was a wait like any other.
                self.progress.waited = self.progress.waited.saturating_add(clock::now() - since);
            }
            return Poll::Ready(ready.map_err(Into::into));
        }
        loop {
            match (self.patience, &mut self.sleep) {
                (Patience::Begun { give_up, .. }, Some(sleep)) => {
                    ready!(sleep.as_mut().poll(cx));
                    if clock::now() >= give_up {
                        return Poll::Ready(Err(
                            "the inner service was not ready in time for the replay".into()
                        ));
                    }
                    self.previous = self.previous.take().map(Previous::without_body);
                    sleep.as_mut().reset(give_up);
                }
                (Patience::Fresh | Patience::Begun { .. }, _) => {
                    // Where the waits were all that is allowed, a service that is busy for a moment is not given up yet.
                    let left = self.time_left().unwrap_or_else(|| {
                        let left = facts.policy.rules().total_wait.saturating_sub(self.progress.waited);
                        left.max(KEEP_PREVIOUS)
                    });
                    let since = clock::now();
                    let give_up = since + left.min(clock::FARTHEST);
                    self.sleep = Some(Box::pin(tokio::time::sleep(KEEP_PREVIOUS.min(left))));
                    self.patience = Patience::Begun { since, give_up };
                }
            }
        }
    }

    /// Sends the attempt that was prepared. The service is ready.
    fn send(&mut self, facts: &Facts) -> S::Future {
        let body = self.next.take().expect("a replay is prepared before it is sent");
        let Progress { sent, retries, auth_replays, .. } = self.progress;
        if !facts.policy.rules().may_replay(facts.options.as_deref(), retries, auth_replays) {
            self.original = None;
        }
        let mut head = self.head.clone();
        head.extensions.insert(Attempt::new(sent));
        self.progress.sent += 1;
        self.sleep = None;
        self.service.call(Request::from_parts(head, body))
    }
}

// --- Previous ---

impl<RB> Previous<Response<RB>> {
    fn without_body(self: Box<Self>) -> Box<Self> {
        match *self {
            Self::Whole(response) => Box::new(Self::Head(response.into_parts().0)),
            Self::Head(_) => self,
        }
    }
}

// --- Progress ---

impl Progress {
    /// The first attempt has been sent.
    fn first() -> Self {
        Self { sent: 1, retries: 0, auth_replays: 0, waited: Duration::ZERO, history: Vec::new() }
    }

    fn note(&mut self, replayed: Replayed) {
        match replayed.reason {
            ReplayReason::TokenRejected => self.auth_replays += 1,
            ReplayReason::Throttled | ReplayReason::Unavailable => self.retries += 1,
        }
        self.waited = self.waited.saturating_add(replayed.delay);
        self.history.push(replayed);
    }

    fn finish(&mut self) -> Self {
        mem::replace(self, Self::first())
    }
}
