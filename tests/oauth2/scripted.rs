//! A token endpoint that follows a script, and the source in front of it.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use tokio::time::Instant;
use tower::{BoxError, Service};
use tower_oauth2::grants::GrantBuilder;
use tower_oauth2::{AccessToken, ClientCredentials, Error, FetchReason, TokenRequest, TokenSource as _};

pub(crate) const URL: &str = "https://login.example.com/oauth/token";
pub(crate) const TOKEN: &str = r#"{"access_token":"AT1","token_type":"Bearer","expires_in":3600}"#;

pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// What the endpoint does at one attempt.
pub(crate) enum Step {
    Answer(Response<Body>),
    AnswerAfter(Duration, Response<Body>),
    Fail(BoxError),
    Hang,
}

/// A request as it arrived.
pub(crate) struct Seen {
    pub(crate) at: Instant,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

/// The endpoint. It panics on an attempt that is not in its script, and when it is called without being ready.
#[derive(Default)]
pub(crate) struct Scripted {
    shared: Arc<Shared>,
    is_ready: bool,
}

#[derive(Default)]
struct Shared {
    steps: Mutex<VecDeque<Step>>,
    seen: Mutex<Vec<Seen>>,
    never_ready: bool,
}

impl Scripted {
    pub(crate) fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        let shared = Shared { steps: Mutex::new(steps.into_iter().collect()), ..Shared::default() };
        Self { shared: Arc::new(shared), is_ready: false }
    }

    pub(crate) fn never_ready() -> Self {
        Self { shared: Arc::new(Shared { never_ready: true, ..Shared::default() }), is_ready: false }
    }

    /// Returns what arrived until now, and forgets it.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.shared.seen.lock().unwrap())
    }

    /// Returns the time between one attempt and the next.
    pub(crate) fn gaps(&self) -> Vec<Duration> {
        self.seen().windows(2).map(|pair| pair[1].at - pair[0].at).collect()
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.shared.steps.lock().unwrap().is_empty()
    }

    /// Fetches once by a source with the settings of `builder`.
    pub(crate) async fn ask(&self, builder: GrantBuilder<ClientCredentials>) -> Result<AccessToken, Error> {
        fetch(&builder.build_with(self.clone()).unwrap()).await
    }
}

impl Clone for Scripted {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), is_ready: false }
    }
}

impl Service<Request<tower_oauth2::Body>> for Scripted {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.is_ready = !self.shared.never_ready;
        if self.is_ready { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn call(&mut self, request: Request<tower_oauth2::Body>) -> Self::Future {
        assert!(std::mem::take(&mut self.is_ready), "called without being ready");
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            shared.seen.lock().unwrap().push(Seen {
                at: Instant::now(),
                method: parts.method,
                uri: parts.uri,
                headers: parts.headers,
                body: String::from_utf8(body.to_vec())?,
            });
            let step =
                shared.steps.lock().unwrap().pop_front().expect("an attempt that is not in the script");
            match step {
                Step::Answer(response) => Ok(response),
                Step::AnswerAfter(delay, response) => {
                    tokio::time::sleep(delay).await;
                    Ok(response)
                }
                Step::Fail(error) => Err(error),
                Step::Hang => pending().await,
            }
        })
    }
}

pub(crate) fn billing() -> GrantBuilder<ClientCredentials> {
    ClientCredentials::builder(URL, "billing", "hunter2-hunter2")
}

pub(crate) async fn fetch(source: &ClientCredentials) -> Result<AccessToken, Error> {
    source.token(TokenRequest::new(FetchReason::Initial)).await
}

pub(crate) fn body(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn response(status: u16, headers: &[(&str, &str)], text: &str) -> Response<Body> {
    let mut response = Response::new(body(text.to_owned()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        response.headers_mut().append(name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap());
    }
    response
}

pub(crate) fn answer(status: u16, text: &str) -> Step {
    Step::Answer(response(status, &[("content-type", "application/json")], text))
}

pub(crate) fn answer_with(status: u16, headers: &[(&str, &str)], text: &str) -> Step {
    Step::Answer(response(status, headers, text))
}

pub(crate) fn a_token() -> Step {
    answer(200, TOKEN)
}
