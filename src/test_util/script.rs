//! A server in memory that responds by script and remembers the requests.

use std::collections::VecDeque;
use std::fmt;
use std::future::pending;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header, request};
use http_body::Body;
use http_body_util::{BodyExt as _, Full};
use tower::BoxError;

use super::probe::Probe;

/// An API that responds by script and remembers each request, its body included. Clones share both.
///
/// # Examples
///
/// ```
/// use bytes::Bytes;
/// use http::Request;
/// use http_body_util::Full;
/// use tower::ServiceExt as _;
/// use tower_oauth2::test_util::{ScriptedResponse, Script, reply};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let script = Script::new([ScriptedResponse::Reply(reply(503, "soon")), ScriptedResponse::Hang]);
/// let api = script.probe::<Full<Bytes>>();
///
/// let request = Request::post("/items").body(Full::from("an item"))?;
/// assert_eq!(api.oneshot(request).await?.status(), 503);
/// assert_eq!(script.seen()[0].body, "an item");
/// # Ok::<_, tower::BoxError>(())
/// # })?;
/// # Ok::<_, tower::BoxError>(())
/// ```
#[derive(Clone, Default)]
pub struct Script {
    responses: Arc<Mutex<VecDeque<ScriptedResponse>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// The outcome of one request to a [`Script`]. After the script every request gets an empty 200.
#[non_exhaustive]
pub enum ScriptedResponse {
    /// The request body is read to its end, then this is the response.
    Reply(Response<Full<Bytes>>),
    /// The request body is dropped unread.
    Unread(Response<Full<Bytes>>),
    /// The request body is kept, unread after its first frame, until the runtime ends.
    Stalled(Response<Full<Bytes>>),
    /// The call fails.
    Fail(BoxError),
    /// The call never ends.
    Hang,
}

/// A request as a [`Script`] saw it.
#[non_exhaustive]
pub struct Seen {
    /// Method, URI, headers and extensions.
    pub head: request::Parts,
    /// The body, as far as it was read.
    pub body: Bytes,
    /// The trailers, if any came.
    pub trailers: Option<HeaderMap>,
    /// When the request came, by tokio's clock.
    pub at: Instant,
}

// --- Script ---

impl Script {
    /// Creates a script of these responses, in their order.
    pub fn new(responses: impl IntoIterator<Item = ScriptedResponse>) -> Self {
        Self { responses: Arc::new(Mutex::new(responses.into_iter().collect())), seen: Arc::default() }
    }

    /// Creates a service that responds by this script.
    #[must_use]
    pub fn probe<B>(&self) -> Probe<Request<B>, Response<Full<Bytes>>>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        self.probe_with_permits(usize::MAX)
    }

    /// Creates a service that responds by this script, at most `limit` requests at once.
    #[must_use]
    pub fn probe_with_permits<B>(&self, limit: usize) -> Probe<Request<B>, Response<Full<Bytes>>>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let script = self.clone();
        Probe::with_permits(limit, move |request| {
            let script = script.clone();
            async move { script.respond(request).await }
        })
    }

    /// Returns the requests so far, and forgets them.
    #[allow(clippy::must_use_candidate, reason = "a test may just forget what came before")]
    pub fn seen(&self) -> Vec<Seen> {
        mem::take(&mut *lock(&self.seen))
    }

    #[allow(clippy::disallowed_methods, reason = "a test looks at the clock from outside")]
    async fn respond<B>(&self, request: Request<B>) -> Result<Response<Full<Bytes>>, BoxError>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let at = tokio::time::Instant::now().into_std();
        let next = lock(&self.responses).pop_front();
        let next = next.unwrap_or_else(|| ScriptedResponse::Reply(reply(200, "")));
        let (head, mut body) = request.into_parts();
        let note = |body, trailers| lock(&self.seen).push(Seen { head, body, trailers, at });
        match next {
            ScriptedResponse::Reply(response) => {
                let whole = body.collect().await.map_err(Into::into)?;
                let trailers = whole.trailers().cloned();
                note(whole.to_bytes(), trailers);
                Ok(response)
            }
            ScriptedResponse::Unread(response) => {
                note(Bytes::new(), None);
                Ok(response)
            }
            ScriptedResponse::Stalled(response) => {
                let first = body.frame().await.transpose().map_err(Into::into)?;
                note(first.and_then(|frame| frame.into_data().ok()).unwrap_or_default(), None);
                tokio::spawn(async move {
                    pending::<()>().await;
                    drop(body);
                });
                Ok(response)
            }
            ScriptedResponse::Fail(error) => {
                note(Bytes::new(), None);
                Err(error)
            }
            ScriptedResponse::Hang => {
                note(Bytes::new(), None);
                pending().await
            }
        }
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script").finish_non_exhaustive()
    }
}

// --- ScriptedResponse ---

impl ScriptedResponse {
    /// The 401 of an API that knows the token no more: `Bearer error="invalid_token"` (RFC 6750 §3.1).
    #[must_use]
    pub fn invalid_token() -> Self {
        let mut response = reply(401, "");
        let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        Self::Reply(response)
    }
}

impl fmt::Debug for ScriptedResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, response) = match self {
            Self::Reply(response) => ("Reply", response),
            Self::Unread(response) => ("Unread", response),
            Self::Stalled(response) => ("Stalled", response),
            Self::Fail(error) => return f.debug_tuple("Fail").field(error).finish(),
            Self::Hang => return f.write_str("Hang"),
        };
        f.debug_tuple(name).field(&response.status()).finish()
    }
}

// --- Seen ---

impl Seen {
    /// Returns how long after `start` the request came.
    #[must_use]
    pub fn after(&self, start: impl Into<Instant>) -> Duration {
        self.at.saturating_duration_since(start.into())
    }
}

/// A token request has secrets in its body, and an API's in its headers: neither is shown.
impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seen")
            .field("method", &self.head.method)
            .field("path", &self.head.uri.path())
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Makes a response of a status and a body.
///
/// # Panics
///
/// If `status` is none: below 100 or above 999.
#[must_use]
pub fn reply(status: u16, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status has three digits");
    response
}

// Every change under these locks is a single step, so what a panicking test leaves behind is sound.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
