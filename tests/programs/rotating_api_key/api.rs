//! An API that knows its callers by keys, and makes the next key for a caller with a good one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::time::Instant;

/// How long a key is accepted after the next one was made.
const OVERLAP: Duration = Duration::from_secs(1);

/// Where the API is. Its requests stay in the process.
pub(crate) const ORIGIN: &str = "https://keyed.test";

/// `GET /items/{id}` wants a good key in `X-API-Key`, and so does `POST /keys`, which returns the next one.
#[derive(Debug)]
pub(crate) struct KeyedApi {
    keys: Shared,
}

/// What a [`KeyedApi`] has counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) rotations: u32,
    /// Requests without a good key.
    pub(crate) refused: u32,
    /// Requests with something in `Authorization`.
    pub(crate) in_authorization: u32,
}

type Shared = Arc<Mutex<Keys>>;

#[derive(Debug)]
struct Keys {
    current: String,
    /// The one before, and until when it is accepted.
    before: Option<(String, Instant)>,
    made: u32,
    counts: Counts,
}

impl KeyedApi {
    pub(crate) fn new() -> Self {
        let keys = Keys { current: "key-0".to_owned(), before: None, made: 0, counts: Counts::default() };
        Self { keys: Arc::new(Mutex::new(keys)) }
    }

    pub(crate) fn service(&self) -> Router {
        Router::new()
            .route("/items/{id}", get(async || "an item\n"))
            .route("/keys", post(rotate))
            .layer(middleware::from_fn_with_state(Arc::clone(&self.keys), admit))
            .with_state(Arc::clone(&self.keys))
    }

    pub(crate) fn first_key(&self) -> String {
        lock(&self.keys).current.clone()
    }

    /// Withdraws every key, at once, and makes a new one.
    pub(crate) fn replace_all(&self) -> String {
        let mut keys = lock(&self.keys);
        let new = keys.make();
        keys.before = None;
        new
    }

    pub(crate) fn counts(&self) -> Counts {
        lock(&self.keys).counts
    }
}

impl Keys {
    fn make(&mut self) -> String {
        self.made += 1;
        let before = std::mem::replace(&mut self.current, format!("key-{}", self.made));
        self.before = Some((before, Instant::now() + OVERLAP));
        self.current.clone()
    }

    fn accept(&self, headers: &HeaderMap) -> bool {
        let Some(sent) = headers.get("x-api-key") else { return false };
        let before = self.before.as_ref().filter(|(_, until)| *until > Instant::now());
        sent == self.current.as_str() || before.is_some_and(|(key, _)| sent == key.as_str())
    }
}

async fn admit(State(keys): State<Shared>, request: Request, next: Next) -> Response {
    let is_good = {
        let mut keys = lock(&keys);
        let is_good = keys.accept(request.headers());
        keys.counts.refused += u32::from(!is_good);
        keys.counts.in_authorization += u32::from(request.headers().contains_key(header::AUTHORIZATION));
        is_good
    };
    // No challenge: there is no scheme that it could name.
    if is_good { next.run(request).await } else { StatusCode::UNAUTHORIZED.into_response() }
}

async fn rotate(State(keys): State<Shared>) -> String {
    let mut keys = lock(&keys);
    keys.counts.rotations += 1;
    keys.make()
}

// Every change under the lock is a single step, so what a panic leaves behind is sound.
fn lock(keys: &Shared) -> MutexGuard<'_, Keys> {
    keys.lock().unwrap_or_else(PoisonError::into_inner)
}
