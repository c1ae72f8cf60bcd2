//! The end of an attempt on the wire that takes too long.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower::BoxError;
use tower_service::Service;

use crate::retry::TimedOut;

/// A service whose requests end after a while, with the error that the retry layer's own limit has: users see one kind.
#[derive(Clone, Debug)]
pub(super) struct Limited<S> {
    inner: S,
    limit: Duration,
}

impl<S> Limited<S> {
    pub(super) fn new(inner: S, limit: Duration) -> Self {
        Self { inner, limit }
    }
}

impl<S, R> Service<R> for Limited<S>
where
    S: Service<R>,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = LimitedFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let limit = self.limit;
        LimitedFuture { inner: self.inner.call(request), sleep: tokio::time::sleep(limit), limit }
    }
}

pin_project! {
    pub(super) struct LimitedFuture<F> {
        #[pin]
        inner: F,
        #[pin]
        sleep: Sleep,
        limit: Duration,
    }
}

impl<F, T, E> Future for LimitedFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(outcome) = this.inner.poll(cx) {
            return Poll::Ready(outcome.map_err(Into::into));
        }
        ready!(this.sleep.poll(cx));
        Poll::Ready(Err(TimedOut::Attempt { limit: *this.limit }.into()))
    }
}
