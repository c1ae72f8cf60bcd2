//! How clients reach a fake: in the same process or over loopback, and not at all while it is stopped.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use http::Response;
use tokio::sync::watch;
use tower::BoxError;

use super::body::FakeBody;
use super::loopback::Loopback;
use crate::error::Unsent;

/// The way to a fake. Clones are the same way; with the last of them a port is closed.
#[derive(Clone, Debug)]
pub(super) struct Line {
    origin: String,
    /// Whether the fake is there for whoever calls it in the same process.
    is_up: Arc<watch::Sender<bool>>,
    /// Taken out while it is being stopped or started.
    loopback: Arc<Mutex<Option<Loopback>>>,
}

/// The future of a fake's answer.
pub struct FakeFuture {
    inner: Pin<Box<dyn Future<Output = Result<Response<FakeBody>, BoxError>> + Send>>,
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

    /// Creates a way over loopback. Whoever has the fake may still call it in the process.
    pub(super) fn over(loopback: Loopback) -> Self {
        let line = Self::within(&loopback.origin());
        line.keep(loopback);
        line
    }

    pub(super) fn origin(&self) -> &str {
        &self.origin
    }

    pub(super) async fn stop(&self) {
        self.is_up.send_replace(false);
        if let Some(mut loopback) = self.take() {
            loopback.stop().await;
            self.keep(loopback);
        }
    }

    pub(super) async fn restart(&self) -> io::Result<()> {
        if let Some(mut loopback) = self.take() {
            let restarted = loopback.restart().await;
            self.keep(loopback);
            restarted?;
        }
        self.is_up.send_replace(true);
        Ok(())
    }

    /// Carries a request and its answer within the process.
    pub(super) fn carry<F>(&self, answer: F) -> FakeFuture
    where
        F: Future<Output = Result<Response<FakeBody>, BoxError>> + Send + 'static,
    {
        // An answer that is on its way comes, though the last handle went meanwhile.
        let is_up = Arc::clone(&self.is_up);
        let inner = Box::pin(async move {
            let mut watching = is_up.subscribe();
            if !*watching.borrow_and_update() {
                return Err(Unsent::new(io::Error::from(io::ErrorKind::ConnectionRefused)).into());
            }
            let mut answer = pin!(answer);
            let mut cut = pin!(async move { watching.wait_for(|is_up| !is_up).await.is_ok() });
            poll_fn(|cx| {
                if cut.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Err(io::Error::from(io::ErrorKind::ConnectionReset).into()));
                }
                answer.as_mut().poll(cx)
            })
            .await
        });
        FakeFuture { inner }
    }

    // No lock guards a step that can be left half done, so what a panic leaves behind is sound.
    fn take(&self) -> Option<Loopback> {
        self.loopback.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn keep(&self, loopback: Loopback) {
        *self.loopback.lock().unwrap_or_else(PoisonError::into_inner) = Some(loopback);
    }
}

// --- FakeFuture ---

impl Future for FakeFuture {
    type Output = Result<Response<FakeBody>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.inner.as_mut().poll(cx)
    }
}

impl fmt::Debug for FakeFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeFuture").finish_non_exhaustive()
    }
}
