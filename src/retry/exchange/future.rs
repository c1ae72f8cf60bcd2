//! One request on its way: sent, waited for, sent again.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use pin_project_lite::pin_project;
use tower::BoxError;

use super::attempt::{AttemptState, Waiting};
use super::record::{Exchange, HttpService};
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
        way: Way<S, B>,
    }
}

pin_project! {
    #[project = WayProj]
    enum Way<S, B>
    where
        S: HttpService<B>,
    {
        // Another retry layer resends this request, and nothing is looked at here.
        Passing { #[pin] future: S::Future },
        Watched { #[pin] state: AttemptState<S::Future, B>, exchange: Exchange<S, B> },
        // What was recorded is freed, even if nobody drops the future for long.
        Done,
    }
}

impl<S, B> ResponseFuture<S, B>
where
    S: HttpService<B>,
{
    #[inline]
    pub(super) fn passing(future: S::Future) -> Self {
        Self { way: Way::Passing { future } }
    }

    #[cold]
    pub(super) fn late(exchange: Exchange<S, B>) -> Self {
        Self { way: Way::Watched { state: AttemptState::Late, exchange } }
    }

    #[cold]
    pub(super) fn held_back(exchange: Exchange<S, B>, waiting: Box<Waiting<B>>) -> Self {
        Self { way: Way::Watched { state: AttemptState::Waiting { waiting }, exchange } }
    }

    #[inline]
    pub(super) fn calling(future: S::Future, exchange: Exchange<S, B>) -> Self {
        Self { way: Way::Watched { state: AttemptState::calling(future), exchange } }
    }
}

impl<S, B> Future for ResponseFuture<S, B>
where
    S: HttpService<B>,
{
    type Output = Result<Response<ResponseBody<S::ResponseBody>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut way = self.project().way;
        let result = match way.as_mut().project() {
            WayProj::Passing { future } => {
                let result = ready!(future.poll(cx));
                result.map(|response| response.map(ResponseBody::whole)).map_err(Into::into)
            }
            WayProj::Watched { state, exchange } => ready!(state.poll(exchange, cx)),
            WayProj::Done => panic!("a response future was polled after it was done"),
        };
        way.set(Way::Done);
        Poll::Ready(result)
    }
}

impl<S, B> fmt::Debug for ResponseFuture<S, B>
where
    S: HttpService<B>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.way {
            Way::Passing { .. } => "calling",
            Way::Watched { state, .. } => state.name(),
            Way::Done => "done",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}
