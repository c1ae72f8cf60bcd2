//! A service that holds its callers to the contract of `tower::Service`.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tower::BoxError;
use tower_service::Service;

type CallFuture<Res> = Pin<Box<dyn Future<Output = Result<Res, BoxError>> + Send>>;

/// A fake service that panics when it is called without having been polled ready. Clones share permits, script and
/// counts.
///
/// - A clone is not ready, however ready the original was.
/// - Readiness takes a permit; the call carries it, and the response future gives it back. So `reserved()` counts the
///   instances that hold one without being called, `in_flight()` the calls in flight.
/// - [`readiness`](Self::readiness) scripts what the next polls say; after the script it is ready as soon as there is a
///   permit.
///
/// # Examples
///
/// A middleware that calls a clone that was not polled ready fails its test:
///
/// ```should_panic
/// use tower::{Service as _, ServiceExt as _};
/// use tower_oauth2::test_util::Probe;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let mut inner = Probe::new(|n: u32| async move { Ok(n + 1) });
/// inner.ready().await.unwrap();
/// let _ = inner.clone().call(1).await;
/// # })
/// ```
pub struct Probe<Req, Res> {
    shared: Arc<Shared<Req, Res>>,
    permit: Option<Permit>,
}

/// One scripted result of a [`Probe`]'s `poll_ready`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Readiness {
    /// Ready, if there is a permit.
    Ready,
    /// Not ready for 100 ms, then woken.
    Soon,
    /// Not ready, and never woken for it.
    Never,
    /// The service is broken.
    Broken,
}

/// The response future of a [`Probe`]; it holds the permit until it is done or dropped.
pub struct ProbeFuture<Res> {
    response: CallFuture<Res>,
    permit: Option<Permit>,
}

struct Shared<Req, Res> {
    handler: Box<dyn Fn(Req) -> CallFuture<Res> + Send + Sync>,
    permits: Arc<Permits>,
}

#[derive(Default)]
struct Permits {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    limit: usize,
    ready: usize,
    in_flight: usize,
    max_in_flight: usize,
    calls: usize,
    script: VecDeque<Readiness>,
    waiting: Vec<Waker>,
}

// --- Probe ---

impl<Req, Res> Probe<Req, Res> {
    /// Creates a probe without a limit.
    pub fn new<F, Fut>(handler: F) -> Self
    where
        F: Fn(Req) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Res, BoxError>> + Send + 'static,
    {
        Self::with_permits(usize::MAX, handler)
    }

    /// Creates a probe that is ready or in flight at most `limit` times at once, over all clones.
    pub fn with_permits<F, Fut>(limit: usize, handler: F) -> Self
    where
        F: Fn(Req) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Res, BoxError>> + Send + 'static,
    {
        let permits = Permits { state: Mutex::new(State { limit, ..State::default() }) };
        let handler = Box::new(move |request| Box::pin(handler(request)) as CallFuture<Res>);
        Self { shared: Arc::new(Shared { handler, permits: Arc::new(permits) }), permit: None }
    }

    /// Scripts the next results of `poll_ready`, for the clone that is polled next. [`Readiness::Soon`] wants a tokio runtime
    /// with a clock.
    #[must_use]
    pub fn readiness(self, script: impl IntoIterator<Item = Readiness>) -> Self {
        self.state().script.extend(script);
        self
    }

    /// Returns how many instances were polled ready and not called.
    #[must_use]
    pub fn reserved(&self) -> usize {
        self.state().ready
    }

    /// Returns how many calls are in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.state().in_flight
    }

    /// Returns how many calls were in flight at most.
    #[must_use]
    pub fn max_in_flight(&self) -> usize {
        self.state().max_in_flight
    }

    /// Returns how many calls there were.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.state().calls
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.permits.state()
    }
}

impl<Req, Res> Service<Req> for Probe<Req, Res> {
    type Response = Res;
    type Error = BoxError;
    type Future = ProbeFuture<Res>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.permit.is_some() {
            return Poll::Ready(Ok(()));
        }
        let mut state = self.shared.permits.state();
        match state.script.pop_front() {
            None | Some(Readiness::Ready) => {}
            Some(Readiness::Soon) => {
                state.script.push_front(Readiness::Never);
                let (waker, permits) = (cx.waker().clone(), Arc::clone(&self.shared.permits));
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    permits.state().script.pop_front();
                    waker.wake();
                });
                return Poll::Pending;
            }
            Some(Readiness::Never) => {
                // The script stays on this response: the caller is not woken, and a second look sees the same.
                state.script.push_front(Readiness::Never);
                return Poll::Pending;
            }
            Some(Readiness::Broken) => return Poll::Ready(Err("the service is broken".into())),
        }
        if state.ready + state.in_flight >= state.limit {
            state.waiting.push(cx.waker().clone());
            return Poll::Pending;
        }
        state.ready += 1;
        drop(state);
        self.permit = Some(Permit { permits: Arc::clone(&self.shared.permits), in_flight: false });
        Poll::Ready(Ok(()))
    }

    /// Calls the handler.
    ///
    /// # Panics
    ///
    /// If this instance was not polled ready since its last call.
    fn call(&mut self, request: Req) -> ProbeFuture<Res> {
        let mut permit = self.permit.take().expect("called without having been polled ready");
        permit.begin();
        ProbeFuture { response: (self.shared.handler)(request), permit: Some(permit) }
    }
}

impl<Req, Res> Clone for Probe<Req, Res> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), permit: None }
    }
}

impl<Req, Res> fmt::Debug for Probe<Req, Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe").field("ready", &self.permit.is_some()).finish_non_exhaustive()
    }
}

// --- ProbeFuture ---

impl<Res> Future for ProbeFuture<Res> {
    type Output = Result<Res, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = self.response.as_mut().poll(cx);
        if response.is_ready() {
            self.permit = None;
        }
        response
    }
}

impl<Res> fmt::Debug for ProbeFuture<Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProbeFuture").finish_non_exhaustive()
    }
}

// --- Permit ---

/// A place in a probe: taken by readiness, given back when it is dropped.
struct Permit {
    permits: Arc<Permits>,
    in_flight: bool,
}

impl Permits {
    // Every change under the lock is a single step, so what a panicking test leaves behind is sound.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    fn begin(&mut self) {
        let mut state = self.permits.state();
        state.ready -= 1;
        state.in_flight += 1;
        state.calls += 1;
        state.max_in_flight = state.max_in_flight.max(state.in_flight);
        self.in_flight = true;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.permits.state();
        if self.in_flight {
            state.in_flight -= 1;
        } else {
            state.ready -= 1;
        }
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }
}
