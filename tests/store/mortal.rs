//! A process that is killed at a step of its work: from then on nothing that it does has an effect.

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{Request, Response};
use tower::{BoxError, Service, ServiceExt as _};
use tower_oauth2::store::{Acquired, Entry, MemoryStore, StoreKey, TokenStore, Write};
use tower_oauth2::test_util::FakeAuthorizationServer;
use tower_oauth2::{Body, Error};

/// How many steps a process has before it dies. Clones are the same process.
#[derive(Clone)]
pub(crate) struct Life {
    state: Arc<Mutex<State>>,
}

struct State {
    left: usize,
    steps: Vec<&'static str>,
}

impl Life {
    pub(crate) fn of(steps: usize) -> Self {
        Self { state: Arc::new(Mutex::new(State { left: steps, steps: Vec::new() })) }
    }

    pub(crate) fn is_over(&self) -> bool {
        let state = self.state.lock().unwrap();
        state.steps.len() > state.left
    }

    /// The steps so far; the last one is that at which it died.
    pub(crate) fn steps(&self) -> Vec<&'static str> {
        self.state.lock().unwrap().steps.clone()
    }

    async fn step(&self, name: &'static str) {
        let is_dead = {
            let mut state = self.state.lock().unwrap();
            let is_dead = state.steps.len() > state.left;
            if !is_dead {
                state.steps.push(name);
            }
            state.steps.len() > state.left
        };
        if is_dead {
            pending::<()>().await;
        }
    }

    async fn around<T>(&self, names: [&'static str; 2], work: impl Future<Output = T>) -> T {
        self.step(names[0]).await;
        let done = work.await;
        self.step(names[1]).await;
        done
    }
}

// --- MortalStore ---

pub(crate) struct MortalStore {
    inner: MemoryStore,
    life: Life,
}

impl MortalStore {
    pub(crate) fn new(inner: &MemoryStore, life: &Life) -> Self {
        Self { inner: inner.clone(), life: life.clone() }
    }
}

/// Whatever a process asks for: its leases end as those of the others do.
const PERIOD: Duration = Duration::from_secs(10);

impl TokenStore for MortalStore {
    async fn load(&self, key: &StoreKey) -> Result<Option<Entry>, Error> {
        self.life.around(["load<", "load>"], self.inner.load(key)).await
    }

    async fn swap(&self, key: &StoreKey, write: Write) -> Result<bool, Error> {
        self.life.around(["swap<", "swap>"], self.inner.swap(key, write)).await
    }

    async fn acquire(&self, key: &StoreKey, _period: Duration) -> Result<Acquired, Error> {
        self.life.around(["acquire<", "acquire>"], self.inner.acquire(key, PERIOD)).await
    }

    async fn extend(&self, key: &StoreKey, fence: u64, _period: Duration) -> Result<bool, Error> {
        self.life.around(["extend<", "extend>"], self.inner.extend(key, fence, PERIOD)).await
    }

    async fn release(&self, key: &StoreKey, fence: u64) -> Result<(), Error> {
        self.life.around(["release<", "release>"], self.inner.release(key, fence)).await
    }
}

// --- MortalServer ---

/// The server as the process reaches it.
#[derive(Clone)]
pub(crate) struct MortalServer {
    inner: FakeAuthorizationServer,
    life: Life,
}

impl MortalServer {
    pub(crate) fn new(inner: &FakeAuthorizationServer, life: &Life) -> Self {
        Self { inner: inner.clone(), life: life.clone() }
    }
}

impl Service<Request<Body>> for MortalServer {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self { inner, life } = self.clone();
        Box::pin(async move {
            let sending = inner.oneshot(request);
            life.around(["request<", "request>"], sending).await
        })
    }
}
