//! reqwest at the token endpoint.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use reqwest::ClientBuilder;
use tower::BoxError;
use tower_service::Service;

use super::body::ReqwestResponseBody;
use super::classify::{advice, classify_reqwest};
use super::client::{ReqwestClient, ReqwestResponseFuture};
use crate::error::{Error, Lasting, Unsent};
use crate::retry::Failure;

/// A client for the token endpoint, which follows no redirect and repeats nothing. Clones share its connections.
///
/// It goes into `build_with` of any source. Its errors are marked by [`Unsent`] where nothing was sent, and do not name the
/// URL, since a token URL may hold a secret in its query.
///
/// # Defaults
///
/// - redirects, retries and `connection_verbose`: off, and they stay so
/// - everything else: reqwest's
///
/// # Examples
///
/// ```no_run
/// use tower_oauth2::ClientCredentials;
/// use tower_oauth2::transport::ReqwestTokenClient;
///
/// let proxy = reqwest::Proxy::https("http://proxy.example.net:3128")?;
/// let source = ClientCredentials::builder("https://login.example.com/oauth/token", "billing", "secret")
///     .build_with(ReqwestTokenClient::build(|builder| builder.proxy(proxy))?)?;
/// # Ok::<_, tower::BoxError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ReqwestTokenClient {
    inner: ReqwestClient,
}

impl ReqwestTokenClient {
    /// Builds a client with reqwest's defaults.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub fn new() -> Result<Self, Error> {
        Self::build(|builder| builder)
    }

    /// Builds a client by reqwest's own builder, then switches its redirects and retries off, and the log of what goes over
    /// its connections.
    ///
    /// # Errors
    ///
    /// As [`ReqwestClient::build`].
    pub fn build(configure: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Result<Self, Error> {
        Ok(Self { inner: ReqwestClient::build(|builder| configure(builder).connection_verbose(false))? })
    }
}

impl<B> Service<Request<B>> for ReqwestTokenClient
where
    B: Body + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<ReqwestResponseBody>;
    type Error = BoxError;
    type Future = ReqwestTokenResponseFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        <ReqwestClient as Service<Request<B>>>::poll_ready(&mut self.inner, cx)
    }

    fn call(&mut self, request: Request<B>) -> ReqwestTokenResponseFuture {
        ReqwestTokenResponseFuture { inner: self.inner.call(request) }
    }
}

/// Marks an error by what it says of the request.
fn marked(error: BoxError) -> BoxError {
    let error = match error.downcast::<reqwest::Error>() {
        Ok(native) => native.without_url().into(),
        Err(other) => other,
    };
    match (advice(&*error), classify_reqwest(&*error)) {
        (Some(advice), Failure::Fatal) => Lasting { advice, source: error }.into(),
        (_, Failure::Unsent) => Unsent::new(error).into(),
        _ => error,
    }
}

// --- ReqwestTokenResponseFuture ---

type Sent = ReqwestResponseFuture<<reqwest::Client as Service<reqwest::Request>>::Future>;

pin_project! {
    /// The future of [`ReqwestTokenClient`].
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the request.
    #[must_use = "futures do nothing unless polled"]
    pub struct ReqwestTokenResponseFuture {
        #[pin]
        inner: Sent,
    }
}

impl Future for ReqwestTokenResponseFuture {
    type Output = Result<Response<ReqwestResponseBody>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(ready!(self.project().inner.poll(cx)).map_err(marked))
    }
}

impl fmt::Debug for ReqwestTokenResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReqwestTokenResponseFuture").finish_non_exhaustive()
    }
}
