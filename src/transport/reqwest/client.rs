//! reqwest's client as a tower HTTP service.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response, Uri};
use http_body::Body;
use pin_project_lite::pin_project;
use reqwest::{ClientBuilder, Url};
use tower::BoxError;
use tower_service::Service;

use super::body::into_native;
use super::classify::{advice, classify_reqwest};
use crate::error::{Error, Lasting, Unsent};
use crate::extensions::FollowNothing;
use crate::origin::ipv6;
use crate::retry::Failure;
use crate::runtime::{self, poll_unless_panicked};
use crate::transport::incoming::IncomingBody;
use crate::transport::lasting::panicked;

/// A `reqwest::Client`, or what behaves like one, as a tower HTTP service. Clones share its connections.
///
/// One that is [built here](Self::build) serves an API and, by `build_with` of a source, its token endpoint. Its errors of token
/// requests are marked by [`Unsent`] where nothing was sent, and do not name the URL, since a token URL may hold a secret in its
/// query. [A page of its own](crate::guide::reqwest) says what the client does to a request.
///
/// # Examples
///
/// ```no_run
/// use tower_oauth2::ClientCredentials;
/// use tower_oauth2::transport::ReqwestClient;
///
/// let proxy = reqwest::Proxy::https("http://proxy.example.net:3128")?;
/// let client = ReqwestClient::build(|builder| builder.user_agent("billing/1.0").proxy(proxy))?;
/// let source = ClientCredentials::builder("https://login.example.com/oauth/token", "billing", "secret")
///     .build_with(client)?;
/// # Ok::<_, tower::BoxError>(())
/// ```
#[derive(Clone)]
pub struct ReqwestClient<S = reqwest::Client> {
    inner: S,
    /// Whether it was built here, so that nothing below follows a redirect.
    follows_nothing: bool,
}

impl ReqwestClient {
    /// Builds a client by reqwest's own builder, then switches its redirects and retries off, and the log of what goes over its
    /// connections (`connection_verbose`).
    ///
    /// # Errors
    ///
    /// A configuration error if reqwest refuses the options, or wants something that the process lacks, such as a provider
    /// of cryptography where its feature `rustls-no-provider` is on.
    pub fn build(configure: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Result<Self, Error> {
        let builder = configure(reqwest::Client::builder())
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connection_verbose(false);
        // Where reqwest has no provider of cryptography, it panics; a library must not.
        match catch_unwind(AssertUnwindSafe(|| builder.build())) {
            Ok(Ok(inner)) => Ok(Self { inner, follows_nothing: true }),
            Ok(Err(error)) => Err(Error::config(
                "reqwest refuses the options of its client; see the cause, and check certificates and proxies",
            )
            .with_source(error)),
            Err(_panic) => Err(Error::config(
                "reqwest could not set up TLS; with its feature `rustls-no-provider` a provider must be installed first",
            )),
        }
    }
}

impl<S> ReqwestClient<S> {
    /// Takes a client that is there already. Its own redirects and retries should be off. It refuses token requests, since it
    /// may follow a redirect; for those [build](ReqwestClient::build) one.
    ///
    /// It may be any service of that shape, such as the client of `reqwest-middleware`.
    pub fn new(client: S) -> Self {
        Self { inner: client, follows_nothing: false }
    }

    /// Unwraps the client below.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, B> Service<Request<B>> for ReqwestClient<S>
where
    S: Service<reqwest::Request, Response = reqwest::Response>,
    S::Error: Into<BoxError>,
    B: Body + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<IncomingBody>;
    type Error = BoxError;
    type Future = ReqwestResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> ReqwestResponseFuture<S::Future> {
        if let Err(error) = runtime::current() {
            return ReqwestResponseFuture {
                state: ReqwestState::Refused { error: Some(Unsent::new(error).into()) },
            };
        }
        let is_token_request = request.extensions().get::<FollowNothing>().is_some();
        if is_token_request && !self.follows_nothing {
            return ReqwestResponseFuture { state: ReqwestState::Refused { error: Some(may_follow()) } };
        }
        let uri = request.uri().clone();
        let state = match reqwest::Request::try_from(request.map(into_native)) {
            Err(error) => ReqwestState::Refused { error: Some(error.into()) },
            Ok(native) if !is_same_place(&uri, native.url()) => {
                ReqwestState::Refused { error: Some(renamed(&native)) }
            }
            Ok(native) => ReqwestState::Sent { response: self.inner.call(native), is_token_request },
        };
        ReqwestResponseFuture { state }
    }
}

impl<S> fmt::Debug for ReqwestClient<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // That of reqwest shows default headers, which may be secrets.
        f.debug_struct("ReqwestClient").finish_non_exhaustive()
    }
}

/// Returns whether reqwest goes where the layers above believe it goes.
fn is_same_place(uri: &Uri, url: &Url) -> bool {
    let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else {
        return false;
    };
    let port = uri.port_u16();
    // An IPv4 address in one of IPv6 is written in two ways.
    let is_host = |known: &str| {
        known.eq_ignore_ascii_case(host) || ipv6(known).is_some_and(|known| ipv6(host) == Some(known))
    };
    scheme == url.scheme()
        && url.host_str().is_some_and(is_host)
        // That of the scheme is left out there.
        && (port == url.port() || port == url.port_or_known_default())
}

fn may_follow() -> BoxError {
    Error::config(
        "the authorization server was not asked: a reqwest client that is there already may follow redirects, and take the \
         client secret along; give build_with one that ReqwestClient::build has built",
    )
    .into()
}

/// Marks the error of a token request by what it says of the request, and takes the URL out.
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

fn renamed(request: &reqwest::Request) -> BoxError {
    let host = request.url().host_str().unwrap_or_default();
    Error::config(format!(
        "the request was not sent: its URI names a host that reqwest reads as {host}; write it like that"
    ))
    .into()
}

// --- ReqwestResponseFuture ---

pin_project! {
    /// The future of [`ReqwestClient`].
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the request.
    #[must_use = "futures do nothing unless polled"]
    #[allow(unnameable_types, reason = "a client is named, and not its future")]
    pub struct ReqwestResponseFuture<F> {
        #[pin]
        state: ReqwestState<F>,
    }
}

pin_project! {
    #[project = ReqwestStateProjection]
    enum ReqwestState<F> {
        Sent { #[pin] response: F, is_token_request: bool },
        Refused { error: Option<BoxError> },
    }
}

impl<F, E> Future for ReqwestResponseFuture<F>
where
    F: Future<Output = Result<reqwest::Response, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Response<IncomingBody>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            ReqwestStateProjection::Sent { response, is_token_request } => {
                let response = ready!(poll_unless_panicked(response, cx)).ok_or_else(panicked)?;
                let response = response.map_err(|error| match is_token_request {
                    true => marked(error.into()),
                    false => error.into(),
                })?;
                Poll::Ready(Ok(Response::from(response).map(IncomingBody::of_reqwest)))
            }
            ReqwestStateProjection::Refused { error } => {
                Poll::Ready(Err(error.take().expect("a future is not polled after its end")))
            }
        }
    }
}

impl<F> fmt::Debug for ReqwestResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReqwestResponseFuture").finish_non_exhaustive()
    }
}
