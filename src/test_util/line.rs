//! How clients reach a fake: in the same process or over loopback, and not at all while it is stopped.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use http::Response;
use tokio::sync::watch;
use tower::BoxError;

use super::loopback::Loopback;
use crate::body::Body;
use crate::error::Unsent;

/// The way to a fake. Clones are the same way; with the last of them a port is closed.
#[derive(Clone, Debug)]
pub(super) struct Line {
    origin: String,
    /// Whether the fake is there for calls in the same process.
    is_up: Arc<watch::Sender<bool>>,
    loopback: Arc<Mutex<Option<Loopback>>>,
}

/// The future of a fake's response.
pub struct FakeFuture {
    inner: Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>,
}

impl Line {
    /// Creates a way within the process, by the name of `origin`.
    pub(super) fn within(origin: &str) -> Self {
        Self {
            origin: origin.to_owned(),
            is_up: Arc::new(watch::Sender::new(true)),
            loopback: Arc::default(),
        }
    }

    /// Creates a way over loopback. The fake may still be called in the process.
    pub(super) fn over(loopback: Loopback) -> Self {
        let line = Self::within(&loopback.origin());
        *line.loopback() = Some(loopback);
        line
    }

    pub(super) fn origin(&self) -> &str {
        &self.origin
    }

    pub(super) async fn stop(&self) {
        self.is_up.send_replace(false);
        let ending = self.loopback().as_mut().and_then(Loopback::close);
        if let Some(ending) = ending {
            // The end of an aborted task is an error by design.
            let _ = ending.await;
        }
    }

    pub(super) async fn restart(&self) -> io::Result<()> {
        self.stop().await;
        let place = self.loopback().as_ref().map(Loopback::place);
        if let Some((address, service)) = place {
            let loopback = Loopback::start_at(address, service).await?;
            *self.loopback() = Some(loopback);
        }
        self.is_up.send_replace(true);
        Ok(())
    }

    /// Carries a request and its response within the process.
    pub(super) fn carry<F>(&self, response: F) -> FakeFuture
    where
        F: Future<Output = Result<Response<Body>, BoxError>> + Send + 'static,
    {
        // A response that is on its way comes, though the last handle went meanwhile.
        let is_up = Arc::clone(&self.is_up);
        let inner = Box::pin(async move {
            let mut watching = is_up.subscribe();
            if !*watching.borrow_and_update() {
                return Err(Unsent::new(io::Error::from(io::ErrorKind::ConnectionRefused)).into());
            }
            let mut response = pin!(response);
            let mut cut = pin!(async move { watching.wait_for(|is_up| !is_up).await.is_ok() });
            poll_fn(|cx| {
                if cut.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Err(io::Error::from(io::ErrorKind::ConnectionReset).into()));
                }
                response.as_mut().poll(cx)
            })
            .await
        });
        FakeFuture { inner }
    }

    // No lock guards a step that can be left half done, so what a panic leaves behind is sound.
    fn loopback(&self) -> MutexGuard<'_, Option<Loopback>> {
        self.loopback.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a fake with a `line` a service of requests with any body: how it responds is the expression.
macro_rules! fake_service {
    ($fake:ty, |$this:ident, $request:ident| $respond:expr) => {
        impl<B> tower::Service<http::Request<B>> for $fake
        where
            B: http_body::Body + Send + 'static,
            B::Data: Send,
            B::Error: Into<tower::BoxError>,
        {
            type Response = http::Response<crate::body::Body>;
            type Error = tower::BoxError;
            type Future = crate::test_util::line::FakeFuture;

            fn poll_ready(
                &mut self,
                _cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Result<(), tower::BoxError>> {
                std::task::Poll::Ready(Ok(()))
            }

            fn call(&mut self, request: http::Request<B>) -> Self::Future {
                let ($this, $request) = (&*self, request.map(crate::body::Body::new));
                $this.line.carry($respond)
            }
        }
    };
}
pub(super) use fake_service;

// --- FakeFuture ---

impl Future for FakeFuture {
    type Output = Result<Response<Body>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.inner.as_mut().poll(cx)
    }
}

impl fmt::Debug for FakeFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeFuture").finish_non_exhaustive()
    }
}
