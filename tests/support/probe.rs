//! A service that holds its callers to the contract of `tower::Service`.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tower::{BoxError, Service};

type Answer<Res> = Pin<Box<dyn Future<Output = Result<Res, BoxError>> + Send>>;

/// A fake service that panics when it is called without having been polled ready.
///
/// - A clone is not ready, however ready the original was.
/// - Readiness takes a permit; the call carries it, and the response future gives it back. So `reserved()` counts the
///   instances that hold one without being called, `busy()` the calls in flight.
/// - `readiness` scripts what the next polls say; after the script it is ready as soon as there is a permit.
pub(crate) struct Probe<Req, Res> {
    shared: Arc<Shared<Req, Res>>,
    permit: Option<Permit>,
}

/// One scripted answer of `poll_ready`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// Ready, if there is a permit.
    Ready,
    /// Not ready for 100 ms, then woken.
    Soon,
    /// Not ready, and never woken for it.
    Never,
    /// The service is broken.
    Broken,
}

struct Shared<Req, Res> {
    handler: Box<dyn Fn(Req) -> Answer<Res> + Send + Sync>,
    permits: Arc<Mutex<Permits>>,
}

struct Permits {
    limit: usize,
    ready: usize,
    busy: usize,
    most_busy: usize,
    calls: usize,
    script: VecDeque<Readiness>,
    waiting: Vec<Waker>,
}

impl<Req, Res> Probe<Req, Res> {
    /// Creates a probe with permits for everybody.
    pub(crate) fn new<F, Fut>(handler: F) -> Self
    where
        F: Fn(Req) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Res, BoxError>> + Send + 'static,
    {
        Self::with_permits(usize::MAX, handler)
    }

    /// Creates a probe that is ready or busy at most `limit` times at once, over all clones.
    pub(crate) fn with_permits<F, Fut>(limit: usize, handler: F) -> Self
    where
        F: Fn(Req) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Res, BoxError>> + Send + 'static,
    {
        let permits = Permits {
            limit,
            ready: 0,
            busy: 0,
            most_busy: 0,
            calls: 0,
            script: VecDeque::new(),
            waiting: Vec::new(),
        };
        let handler = Box::new(move |request| Box::pin(handler(request)) as Answer<Res>);
        Self { shared: Arc::new(Shared { handler, permits: Arc::new(Mutex::new(permits)) }), permit: None }
    }

    /// Scripts the next answers of `poll_ready`, of whichever clone is asked.
    pub(crate) fn readiness(self, script: impl IntoIterator<Item = Readiness>) -> Self {
        self.permits(|permits| permits.script.extend(script));
        self
    }

    /// How many instances were polled ready and not called.
    pub(crate) fn reserved(&self) -> usize {
        self.permits(|permits| permits.ready)
    }

    /// How many calls are in flight.
    pub(crate) fn busy(&self) -> usize {
        self.permits(|permits| permits.busy)
    }

    /// How many calls were in flight at most.
    pub(crate) fn most_busy(&self) -> usize {
        self.permits(|permits| permits.most_busy)
    }

    /// How many calls there were.
    pub(crate) fn calls(&self) -> usize {
        self.permits(|permits| permits.calls)
    }

    fn permits<T>(&self, look: impl FnOnce(&mut Permits) -> T) -> T {
        look(&mut self.shared.permits.lock().expect("no test panics under this lock"))
    }
}

impl<Req, Res> Service<Req> for Probe<Req, Res> {
    type Response = Res;
    type Error = BoxError;
    type Future = Busy<Res>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.permit.is_some() {
            return Poll::Ready(Ok(()));
        }
        let mut permits = self.shared.permits.lock().expect("no test panics under this lock");
        match permits.script.pop_front() {
            None | Some(Readiness::Ready) => {}
            Some(Readiness::Soon) => {
                permits.script.push_front(Readiness::Never);
                let (waker, shared) = (cx.waker().clone(), Arc::clone(&self.shared.permits));
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    shared.lock().expect("no test panics under this lock").script.pop_front();
                    waker.wake();
                });
                return Poll::Pending;
            }
            Some(Readiness::Never) => {
                // The script stays on this answer: nobody wakes the caller, and a second look sees the same.
                permits.script.push_front(Readiness::Never);
                return Poll::Pending;
            }
            Some(Readiness::Broken) => return Poll::Ready(Err("the service is broken".into())),
        }
        if permits.ready + permits.busy >= permits.limit {
            permits.waiting.push(cx.waker().clone());
            return Poll::Pending;
        }
        permits.ready += 1;
        self.permit = Some(Permit { permits: Arc::clone(&self.shared.permits), busy: false });
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Busy<Res> {
        let mut permit = self.permit.take().expect("called without having been polled ready");
        permit.begin();
        Busy { answer: (self.shared.handler)(request), permit: Some(permit) }
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

// --- Busy ---

/// The response future of a [`Probe`]; it holds the permit until it is done or dropped.
pub(crate) struct Busy<Res> {
    answer: Answer<Res>,
    permit: Option<Permit>,
}

impl<Res> Future for Busy<Res> {
    type Output = Result<Res, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = self.answer.as_mut().poll(cx);
        if answer.is_ready() {
            self.permit = None;
        }
        answer
    }
}

// --- Permit ---

struct Permit {
    permits: Arc<Mutex<Permits>>,
    busy: bool,
}

impl Permit {
    fn begin(&mut self) {
        let mut permits = self.permits.lock().expect("no test panics under this lock");
        permits.ready -= 1;
        permits.busy += 1;
        permits.calls += 1;
        permits.most_busy = permits.most_busy.max(permits.busy);
        self.busy = true;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        // A test that panics under the lock must not abort the process on its way out.
        let Ok(mut permits) = self.permits.lock() else { return };
        if self.busy {
            permits.busy -= 1;
        } else {
            permits.ready -= 1;
        }
        for waker in permits.waiting.drain(..) {
            waker.wake();
        }
    }
}
