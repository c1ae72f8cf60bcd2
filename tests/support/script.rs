//! A server in memory that answers by script and remembers what it was asked.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, request};
use http_body::Body;
use http_body_util::{BodyExt as _, Full};
use tokio::time::{Duration, Instant};
use tower::BoxError;

use super::probe::Probe;

/// Answers by script; clones share the script and the record.
#[derive(Clone, Default)]
pub(crate) struct Script {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// What one request gets. After the script every request gets an empty 200.
pub(crate) enum Answer {
    /// The request body is read to its end, then this is the response.
    Reply(Response<Full<Bytes>>),
    /// The request body is dropped unread.
    Unread(Response<Full<Bytes>>),
    /// The request body is kept, unread after its first frame, until the script is dropped.
    Stuck(Response<Full<Bytes>>),
    /// The call fails.
    Fail(BoxError),
    /// The call never ends.
    Hang,
}

/// A request as the server saw it.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) head: request::Parts,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
    pub(crate) at: Instant,
}

impl Script {
    pub(crate) fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self { answers: Arc::new(Mutex::new(answers.into_iter().collect())), seen: Arc::default() }
    }

    /// Creates a service that answers by this script.
    pub(crate) fn probe<B>(&self) -> Probe<Request<B>, Response<Full<Bytes>>>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        self.probe_with_permits(usize::MAX)
    }

    /// Creates a service that answers by this script, at most `limit` requests at once.
    pub(crate) fn probe_with_permits<B>(&self, limit: usize) -> Probe<Request<B>, Response<Full<Bytes>>>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let script = self.clone();
        Probe::with_permits(limit, move |request| {
            let script = script.clone();
            async move { script.answer(request).await }
        })
    }

    /// Takes the record of what was seen so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().expect("no test panics under this lock"))
    }

    #[allow(clippy::disallowed_methods, reason = "tests look at the paused clock")]
    async fn answer<B>(&self, request: Request<B>) -> Result<Response<Full<Bytes>>, BoxError>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let at = Instant::now();
        let answer = self.answers.lock().expect("no test panics under this lock").pop_front();
        let answer = answer.unwrap_or_else(|| Answer::Reply(reply(200, "")));
        let (head, mut body) = request.into_parts();
        let note = |body, trailers| {
            let seen = Seen { head, body, trailers, at };
            self.seen.lock().expect("no test panics under this lock").push(seen);
        };
        match answer {
            Answer::Reply(response) => {
                let whole = body.collect().await.map_err(Into::into)?;
                let trailers = whole.trailers().cloned();
                note(whole.to_bytes(), trailers);
                Ok(response)
            }
            Answer::Unread(response) => {
                note(Bytes::new(), None);
                Ok(response)
            }
            Answer::Stuck(response) => {
                let first = body.frame().await.transpose().map_err(Into::into)?;
                note(first.and_then(|frame| frame.into_data().ok()).unwrap_or_default(), None);
                tokio::spawn(async move {
                    pending::<()>().await;
                    drop(body);
                });
                Ok(response)
            }
            Answer::Fail(error) => {
                note(Bytes::new(), None);
                Err(error)
            }
            Answer::Hang => {
                note(Bytes::new(), None);
                pending().await
            }
        }
    }
}

impl Seen {
    /// How long after `start` the request came.
    pub(crate) fn after(&self, start: Instant) -> Duration {
        self.at - start
    }
}

/// Makes a response.
pub(crate) fn reply(status: u16, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response
}
