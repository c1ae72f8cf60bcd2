//! One request on its way: sent, waited for, sent again.

use std::fmt;
use std::future::Future;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Response, StatusCode};
use pin_project_lite::pin_project;
use tower::BoxError;

use super::attempt::{AttemptState, StateProj};
use super::outcome;
use super::request::{Exchange, HttpService};
use super::timeouts;
use crate::headers::grpc;
use crate::retry::retry_body::ResponseBody;

pin_project! {
    /// The response future of a [`RetryService`](crate::retry::RetryService).
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
        state: AttemptState<S::Future, B>,
        // None where another retry layer resends this request, and nothing is looked at here.
        exchange: Option<Exchange<S, B>>,
    }
}

impl<S, B> ResponseFuture<S, B>
where
    S: HttpService<B>,
{
    #[inline]
    pub(super) fn new(state: AttemptState<S::Future, B>, exchange: Option<Exchange<S, B>>) -> Self {
        Self { state, exchange }
    }
}

impl<S, B> Future for ResponseFuture<S, B>
where
    S: HttpService<B>,
{
    type Output = Result<Response<ResponseBody<S::ResponseBody>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(exchange) = this.exchange else {
            let StateProj::Calling { future, .. } = this.state.as_mut().project() else {
                panic!("a response future was polled after it was done");
            };
            let result = ready!(future.poll(cx));
            this.state.set(AttemptState::Done);
            return Poll::Ready(result.map(|response| response.map(ResponseBody::whole)).map_err(Into::into));
        };
        let result = loop {
            let step = match this.state.as_mut().project() {
                StateProj::Calling { future, timer } => match future.poll(cx) {
                    Poll::Pending => {
                        let limit = exchange.sender.rules().attempt_timeout;
                        exchange.ended(ready!(timeouts::poll_over(timer, exchange.deadline, limit, cx)))
                    }
                    // Nearly every response: it is returned without a second look.
                    Poll::Ready(Ok(mut response))
                        if !grpc::is_late(&response) && exchange.is_plain(&response, None) =>
                    {
                        exchange.accepted();
                        this.state.set(AttemptState::Done);
                        *this.exchange = None;
                        if response.status() == StatusCode::UNAUTHORIZED {
                            outcome::mark_unauthorized(&mut response);
                        }
                        return Poll::Ready(Ok(response.map(ResponseBody::whole)));
                    }
                    Poll::Ready(Ok(response)) => exchange.answered(response),
                    Poll::Ready(Err(error)) => exchange.failed(error.into()),
                },
                StateProj::Preparing { attempt } => match ready!(attempt.poll(exchange, cx)) {
                    Ok(request) => ControlFlow::Continue(AttemptState::calling(exchange.send(request))),
                    Err((stop, error)) => exchange.unsent(stop, error),
                },
                StateProj::Done => panic!("a response future was polled after it was done"),
            };
            match step {
                ControlFlow::Continue(state) => this.state.set(state),
                ControlFlow::Break(result) => break result,
            }
        };
        this.state.set(AttemptState::Done);
        *this.exchange = None;
        Poll::Ready(result)
    }
}

impl<S, B> fmt::Debug for ResponseFuture<S, B>
where
    S: HttpService<B>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("state", &self.state.name()).finish_non_exhaustive()
    }
}
