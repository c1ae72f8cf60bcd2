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

use super::request::{Exchange, HttpService};
use super::timeouts::{self, TimedOut};
use crate::clock;
use crate::retry::gate::Ticket;
use crate::retry::replay_body::RequestBody;
use crate::retry::report::StopReason;

pin_project! {
    #[project = StateProj]
    /// Where the attempt is.
    pub(super) enum AttemptState<F, B> {
        // It is in flight.
        Calling { #[pin] future: F, timer: Option<Pin<Box<Sleep>>> },
        // Boxed, since most requests do not come to it, and its size would slow down all.
        Preparing { attempt: Box<NextAttempt<B>> },
        // What was recorded is freed, also where the future is dropped late.
        Done,
    }
}

/// An attempt that is prepared. Each step holds only what it needs:
///
/// 1. The request waits, for itself and at the gate. The attempt before is dropped, and with it what an inner limit lent it; its
///    response is drained.
/// 2. The body is opened, if a factory makes it: after the wait, so that no file stays open for it, and before the service is
///    ready, so that no permit of it is held meanwhile.
/// 3. The inner service is made ready. Both steps have the time that is left.
pub(super) struct NextAttempt<B> {
    request: Request<RequestBody<B>>,
    sleep: Option<Pin<Box<Sleep>>>,
    /// It asks the gate once its own wait is over.
    asks: bool,
    ticket: Option<Box<Ticket>>,
    has_waited: bool,
    is_open: bool,
    /// Since when the second or third step takes time, and until when it may.
    limit: Option<(Instant, Pin<Box<Sleep>>)>,
}

/// The result of a step, or why the attempt is not sent.
type Prepared<T> = Result<T, (StopReason, BoxError)>;

impl<F, B> AttemptState<F, B> {
    #[inline]
    pub(super) fn calling(future: F) -> Self {
        Self::Calling { future, timer: None }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Calling { .. } => "calling",
            Self::Preparing { .. } => "preparing",
            Self::Done => "done",
        }
    }
}

// --- NextAttempt ---

impl<B> NextAttempt<B> {
    /// Waits for so long, and then at the gate, or at the gate alone where a ticket is taken already.
    pub(super) fn new(
        request: Request<RequestBody<B>>,
        wait: Duration,
        ticket: Option<Box<Ticket>>,
    ) -> Box<Self> {
        let sleep = (!wait.is_zero()).then(|| Box::pin(tokio::time::sleep(wait)));
        let asks = ticket.is_none();
        Box::new(Self { request, sleep, asks, ticket, has_waited: false, is_open: false, limit: None })
    }

    /// Prepares the attempt. Returns its request once it can be sent, or why it cannot.
    pub(super) fn poll<S: HttpService<B>>(
        &mut self,
        exchange: &mut Exchange<S, B>,
        cx: &mut Context<'_>,
    ) -> Poll<Prepared<Request<RequestBody<B>>>> {
        let deadline = exchange.deadline;
        if !self.has_waited {
            // It may have passed already, before anything was sent.
            if !timeouts::is_over(deadline) {
                ready!(self.poll_wait(exchange, cx));
            }
            self.has_waited = !timeouts::is_over(deadline);
        }
        let ready = if self.has_waited { ready!(self.poll_ready(exchange, cx)) } else { Ok(()) };
        Poll::Ready(match ready {
            Ok(()) if timeouts::is_over(deadline) => {
                Err((StopReason::DeadlineExceeded, TimedOut::Deadline.into()))
            }
            Ok(()) => Ok(mem::take(&mut self.request)),
            Err(failed) => Err(failed),
        })
    }

    /// Waits, and drains the response before meanwhile.
    fn poll_wait<S: HttpService<B>>(
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

    /// Opens the body, and makes the inner service ready.
    fn poll_ready<S: HttpService<B>>(
        &mut self,
        exchange: &mut Exchange<S, B>,
        cx: &mut Context<'_>,
    ) -> Poll<Prepared<()>> {
        if !self.is_open {
            let Poll::Ready(opened) = self.request.body_mut().poll_open(cx) else {
                ready!(self.poll_limit(exchange, cx));
                let error = "the request body was not opened again in time";
                return Poll::Ready(Err((StopReason::BodyNotReopened, error.into())));
            };
            self.end_wait(exchange);
            self.is_open = true;
            if let Err(error) = opened {
                return Poll::Ready(Err((StopReason::BodyNotReopened, error)));
            }
        }
        if let Poll::Ready(ready) = exchange.sender.inner().poll_ready(cx) {
            self.end_wait(exchange);
            return Poll::Ready(ready.map_err(|error| (StopReason::NotReady, error.into())));
        }
        let never_sent = exchange.past().outcome.is_none();
        if never_sent && exchange.deadline.is_none() {
            // There is no outcome to go back to, so it waits as long as its caller would have had to.
            return Poll::Pending;
        }
        ready!(self.poll_limit(exchange, cx));
        let error = match never_sent {
            true => TimedOut::Deadline.into(),
            false => "the inner service was not ready in time for the replay".into(),
        };
        Poll::Ready(Err((StopReason::NotReady, error)))
    }

    /// Is ready when there is no time left.
    fn poll_limit<S: HttpService<B>>(&mut self, exchange: &Exchange<S, B>, cx: &mut Context<'_>) -> Poll<()> {
        let (_, limit) = self.limit.get_or_insert_with(|| {
            let since = clock::now();
            (since, Box::pin(tokio::time::sleep_until(since + exchange.time_left())))
        });
        limit.as_mut().poll(cx)
    }

    /// Counts the wait as one like any other.
    fn end_wait<S: HttpService<B>>(&mut self, exchange: &mut Exchange<S, B>) {
        if let Some((since, _)) = self.limit.take() {
            exchange.past().add_wait(clock::now() - since);
        }
    }
}
