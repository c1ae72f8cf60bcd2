//! An attempt from its preparation to its outcome: each state has what it needs, and a timer of its own.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Request;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};
use tower::BoxError;

use super::body_source::FactoryBody;
use super::request::{Exchange, HttpService};
use super::timeouts::DeadlineExceeded;
use crate::clock;
use crate::retry::body_factory;
use crate::retry::gate::Ticket;
use crate::retry::replay_body::RequestBody;

pin_project! {
    #[project = StateProj]
    /// Where the attempt is.
    pub(super) enum AttemptState<F, B> {
        // The deadline had passed before anything was sent.
        Late,
        // An attempt is in flight.
        Calling { #[pin] future: F, timer: Option<Pin<Box<Sleep>>> },
        // Boxed, since most requests come to none of these, and their size would slow down all.
        Waiting { waiting: Box<WaitingAttempt<B>> },
        Opening { opening: Box<OpeningBody<B>> },
        Readying { readying: Box<ReadyingService<B>> },
        // What was recorded is freed, also where the future is dropped late.
        Done,
    }
}

/// The wait, for itself and at the gate. The attempt before is dropped, and with it what an inner limit lent it; its response is
/// drained.
pub(super) struct WaitingAttempt<B> {
    request: Request<RequestBody<B>>,
    /// None where the body is there.
    to_open: Option<FactoryBody>,
    sleep: Option<Pin<Box<Sleep>>>,
    /// It asks once its own wait is over.
    asks: bool,
    ticket: Option<Box<Ticket>>,
}

/// A factory opens the body, within the time that is left. After the wait, so that no file stays open for it; before the
/// service is ready, so that no permit of it is held meanwhile.
pub(super) struct OpeningBody<B> {
    request: Request<RequestBody<B>>,
    to_open: Option<FactoryBody>,
    opening: body_factory::OpenFuture,
    since: Instant,
    limit: Pin<Box<Sleep>>,
}

/// The inner service is being made ready, within the time that is left.
pub(super) struct ReadyingService<B> {
    request: Request<RequestBody<B>>,
    /// Since when it is waited for, and until when.
    wait: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl<F, B> AttemptState<F, B> {
    #[inline]
    pub(super) fn calling(future: F) -> Self {
        Self::Calling { future, timer: None }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Calling { .. } => "calling",
            Self::Waiting { .. } => "waiting",
            Self::Opening { .. } => "reopening",
            Self::Readying { .. } => "readying",
            Self::Done => "done",
        }
    }
}

// --- Waiting ---

impl<B> WaitingAttempt<B> {
    /// Waits for so long, and then at the gate, or at the gate alone where a ticket is taken already.
    pub(super) fn new(
        request: Request<RequestBody<B>>,
        to_open: Option<FactoryBody>,
        wait: Duration,
        ticket: Option<Box<Ticket>>,
    ) -> Box<Self> {
        let sleep = (!wait.is_zero()).then(|| Box::pin(tokio::time::sleep(wait)));
        Box::new(Self { request, to_open, sleep, asks: ticket.is_none(), ticket })
    }

    /// Waits, and drains the response before meanwhile.
    pub(super) fn poll<S: HttpService<B>>(
        &mut self,
        exchange: &mut Exchange<S, B>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let drained = exchange.poll_drained(false, cx);
        if let Some(sleep) = &mut self.sleep {
            ready!(sleep.as_mut().poll(cx));
            self.sleep = None;
        }
        if mem::take(&mut self.asks) {
            self.ticket = exchange.ask_gate(exchange.retries(), Duration::ZERO);
        }
        if let Some(ticket) = &mut self.ticket {
            let pass = ready!(ticket.poll(cx));
            exchange.past().pass = Some(pass);
            exchange.past().add_hold(clock::now().saturating_duration_since(ticket.since()));
            self.ticket = None;
        }
        match drained {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => exchange.poll_drained(true, cx),
        }
    }

    /// Goes on after the wait. A body that is to be opened may take so long.
    pub(super) fn next<F>(&mut self, time_left: Duration) -> AttemptState<F, B> {
        let request = mem::take(&mut self.request);
        match self.to_open.take() {
            Some(to_open) => AttemptState::Opening { opening: OpeningBody::new(request, to_open, time_left) },
            None => AttemptState::Readying { readying: ReadyingService::new(request) },
        }
    }
}

// --- Opening ---

impl<B> OpeningBody<B> {
    fn new(request: Request<RequestBody<B>>, to_open: FactoryBody, time_left: Duration) -> Box<Self> {
        let opening = to_open.factory.open();
        let limit = Box::pin(tokio::time::sleep(time_left));
        Box::new(Self { request, to_open: Some(to_open), opening, since: clock::now(), limit })
    }

    pub(super) fn poll<S: HttpService<B>>(
        &mut self,
        exchange: &mut Exchange<S, B>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Box<ReadyingService<B>>, BoxError>> {
        let Poll::Ready(opened) = self.opening.as_mut().poll(cx) else {
            ready!(self.limit.as_mut().poll(cx));
            return Poll::Ready(Err("the request body was not opened again in time".into()));
        };
        // It was a wait like any other.
        exchange.past().add_wait(clock::now() - self.since);
        let mut request = mem::take(&mut self.request);
        if let Some(to_open) = self.to_open.take() {
            *request.body_mut() = to_open.opened(opened?, request.headers())?;
        }
        Poll::Ready(Ok(ReadyingService::new(request)))
    }
}

// --- Readying ---

impl<B> ReadyingService<B> {
    fn new(request: Request<RequestBody<B>>) -> Box<Self> {
        Box::new(Self { request, wait: None })
    }

    pub(super) fn poll<S: HttpService<B>>(
        &mut self,
        exchange: &mut Exchange<S, B>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Request<RequestBody<B>>, BoxError>> {
        if let Poll::Ready(ready) = exchange.sender.inner().poll_ready(cx) {
            if let Some((since, _)) = &self.wait {
                // It was a wait like any other.
                exchange.past().add_wait(clock::now() - *since);
            }
            return Poll::Ready(ready.map(|()| mem::take(&mut self.request)).map_err(Into::into));
        }
        let never_sent = exchange.past().outcome.is_none();
        if never_sent && exchange.deadline.is_none() {
            // There is no outcome to go back to, so it waits as long as its caller would have had to.
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
