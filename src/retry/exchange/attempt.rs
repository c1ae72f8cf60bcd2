//! An attempt from its preparation to its outcome: each state has what it needs, and a timer of its own.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};
use tower::BoxError;

use super::body_source::ToOpen;
use super::record::{Exchange, HttpService};
use super::timeouts::{self, DeadlineExceeded, Timer};
use crate::clock;
use crate::headers::grpc;
use crate::retry::body_factory;
use crate::retry::gate::Ticket;
use crate::retry::replay_body::RequestBody;
use crate::retry::report::StopReason;
use crate::retry::retry_body::ResponseBody;

pin_project! {
    #[project = StateProj]
    /// Where the attempt is.
    pub(super) enum AttemptState<F, B> {
        // The deadline had passed before anything was sent.
        Late,
        // An attempt is in flight.
        Calling { #[pin] future: F, timer: Timer },
        // Boxed, since most requests come to none of these, and their size would slow down all.
        Waiting { waiting: Box<Waiting<B>> },
        Opening { opening: Box<Opening<B>> },
        Readying { readying: Box<Readying<B>> },
    }
}

/// What follows from what became of an attempt, or of the try to make one.
pub(super) enum Step<F, B, RB: Body> {
    Next(AttemptState<F, B>),
    Done(Result<Response<ResponseBody<RB>>, BoxError>),
}

/// The wait, for itself and at the gate. The attempt before is dropped, and with it what an inner limit lent it; its response is
/// drained.
pub(super) struct Waiting<B> {
    request: Request<RequestBody<B>>,
    /// None where the body is there.
    to_open: Option<ToOpen>,
    sleep: Option<Pin<Box<Sleep>>>,
    turn: Turn,
}

/// How the attempt stands with the gate.
enum Turn {
    /// It will ask once its own wait is over.
    Unasked,
    Queued(Box<Ticket>),
    Come,
}

/// A factory opens the body, within the time that is left. After the wait, so that no file stays open for it; before the
/// service is ready, so that no permit of it is held meanwhile.
pub(super) struct Opening<B> {
    request: Request<RequestBody<B>>,
    to_open: Option<ToOpen>,
    opening: body_factory::OpenFuture,
    since: Instant,
    limit: Pin<Box<Sleep>>,
}

/// The inner service is being made ready, within the time that is left.
pub(super) struct Readying<B> {
    request: Request<RequestBody<B>>,
    /// Since when it is waited for, and until when.
    wait: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl<F, B> AttemptState<F, B> {
    #[inline]
    pub(super) fn calling(future: F) -> Self {
        Self::Calling { future, timer: Timer::default() }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Calling { .. } => "calling",
            Self::Waiting { .. } => "waiting",
            Self::Opening { .. } => "reopening",
            Self::Readying { .. } => "readying",
        }
    }

    /// Takes the request to its end, by as many attempts as that takes.
    #[inline]
    pub(super) fn poll<S>(
        mut self: Pin<&mut Self>,
        exchange: &mut Exchange<S, B>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<ResponseBody<S::ResponseBody>>, BoxError>>
    where
        S: HttpService<B, Future = F>,
        F: Future<Output = Result<S::Response, S::Error>>,
    {
        loop {
            let step = match self.as_mut().project() {
                StateProj::Late => exchange.never_sent(),
                StateProj::Calling { future, timer } => match future.poll(cx) {
                    Poll::Pending => {
                        let limit = exchange.sender.rules().attempt_timeout;
                        let over = ready!(timer.poll_over(exchange.deadline, limit, cx));
                        exchange.ended(&over)
                    }
                    // Nearly every response: it is returned without a second look.
                    Poll::Ready(Ok(response))
                        if !grpc::is_late(&response) && exchange.is_plain(&response, None) =>
                    {
                        exchange.accepted();
                        return Poll::Ready(Ok(response.map(ResponseBody::whole)));
                    }
                    Poll::Ready(Ok(response)) => exchange.answered(response),
                    Poll::Ready(Err(error)) => exchange.failed(error.into()),
                },
                StateProj::Waiting { waiting } => {
                    ready!(waiting.poll(exchange, cx));
                    match timeouts::is_over(exchange.deadline) {
                        true => exchange.too_late(),
                        false => Step::Next(waiting.next(exchange.time_left())),
                    }
                }
                StateProj::Opening { opening } => match ready!(opening.poll(exchange, cx)) {
                    Ok(readying) => Step::Next(Self::Readying { readying }),
                    Err(error) => exchange.unsent(StopReason::BodyNotReopened, error),
                },
                StateProj::Readying { readying } => match ready!(readying.poll(exchange, cx)) {
                    Ok(_) if timeouts::is_over(exchange.deadline) => exchange.too_late(),
                    Ok(request) => Step::Next(Self::calling(exchange.send(request))),
                    Err(error) => exchange.unsent(StopReason::NotReady, error),
                },
            };
            match step {
                Step::Next(state) => self.set(state),
                Step::Done(result) => return Poll::Ready(result),
            }
        }
    }
}

// --- Waiting ---

impl<B> Waiting<B> {
    /// Waits for so long, and then at the gate, or at the gate alone where a ticket is taken already.
    pub(super) fn new(
        request: Request<RequestBody<B>>,
        to_open: Option<ToOpen>,
        wait: Duration,
        ticket: Option<Box<Ticket>>,
    ) -> Box<Self> {
        let sleep = (!wait.is_zero()).then(|| Box::pin(tokio::time::sleep(wait)));
        Box::new(Self { request, to_open, sleep, turn: ticket.map_or(Turn::Unasked, Turn::Queued) })
    }

    /// Waits, and drains the response before meanwhile.
    fn poll<S: HttpService<B>>(&mut self, exchange: &mut Exchange<S, B>, cx: &mut Context<'_>) -> Poll<()> {
        let drained = exchange.poll_drained(cx);
        if let Some(sleep) = &mut self.sleep {
            ready!(sleep.as_mut().poll(cx));
            self.sleep = None;
        }
        if let Turn::Unasked = self.turn {
            let ticket = exchange.ask_gate(exchange.retries(), Duration::ZERO);
            self.turn = ticket.map_or(Turn::Come, Turn::Queued);
        }
        if let Turn::Queued(ticket) = &mut self.turn {
            let pass = ready!(ticket.poll(cx));
            exchange.pass = Some(Box::new(pass));
            exchange.progress().held(clock::now().saturating_duration_since(ticket.since()));
            self.turn = Turn::Come;
        }
        match drained {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => exchange.poll_drained_soon(cx),
        }
    }

    /// Goes on after the wait. A body that is to be opened may take so long.
    fn next<F>(&mut self, time_left: Duration) -> AttemptState<F, B> {
        let request = mem::take(&mut self.request);
        match self.to_open.take() {
            Some(to_open) => AttemptState::Opening { opening: Opening::new(request, to_open, time_left) },
            None => AttemptState::Readying { readying: Readying::new(request) },
        }
    }
}

// --- Opening ---

impl<B> Opening<B> {
    fn new(request: Request<RequestBody<B>>, to_open: ToOpen, time_left: Duration) -> Box<Self> {
        let opening = to_open.factory.open();
        let limit = Box::pin(tokio::time::sleep(time_left));
        Box::new(Self { request, to_open: Some(to_open), opening, since: clock::now(), limit })
    }

    fn poll<S: HttpService<B>>(
        &mut self,
        exchange: &mut Exchange<S, B>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Box<Readying<B>>, BoxError>> {
        let Poll::Ready(opened) = self.opening.as_mut().poll(cx) else {
            ready!(self.limit.as_mut().poll(cx));
            return Poll::Ready(Err("the request body was not opened again in time".into()));
        };
        // It was a wait like any other.
        exchange.progress().waited(clock::now() - self.since);
        let mut request = mem::take(&mut self.request);
        if let Some(to_open) = self.to_open.take() {
            *request.body_mut() = to_open.opened(opened?, request.headers())?;
        }
        Poll::Ready(Ok(Readying::new(request)))
    }
}

// --- Readying ---

impl<B> Readying<B> {
    fn new(request: Request<RequestBody<B>>) -> Box<Self> {
        Box::new(Self { request, wait: None })
    }

    fn poll<S: HttpService<B>>(
        &mut self,
        exchange: &mut Exchange<S, B>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Request<RequestBody<B>>, BoxError>> {
        if let Poll::Ready(ready) = exchange.sender.inner().poll_ready(cx) {
            if let Some((since, _)) = &self.wait {
                // It was a wait like any other.
                exchange.progress().waited(clock::now() - *since);
            }
            return Poll::Ready(ready.map(|()| mem::take(&mut self.request)).map_err(Into::into));
        }
        let never_sent = exchange.progress().sent == 0;
        if never_sent && exchange.deadline.is_none() {
            // There is no response to go back to, so it waits as long as its caller would have had to.
            return Poll::Pending;
        }
        let (_, limit) = self.wait.get_or_insert_with(|| {
            let since = clock::now();
            (since, Box::pin(tokio::time::sleep_until(since + exchange.time_left())))
        });
        ready!(limit.as_mut().poll(cx));
        Poll::Ready(Err(match never_sent {
            true => DeadlineExceeded::new().into(),
            false => "the inner service was not ready in time for the replay".into(),
        }))
    }
}
