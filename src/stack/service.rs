//! The stack as a service.

use std::fmt;
use std::future::{Future, Ready};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future;
use http::header::CONTENT_LENGTH;
use http::{Request, Response, request};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep_until};
use tower::BoxError;
use tower::limit::ConcurrencyLimit;
use tower::util::Either;
use tower_http::follow_redirect::FollowRedirect;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestId, SetRequestId};
use tower_layer::Layer as _;
use tower_service::Service;

use super::attempt_timeout;
use super::builder::StackSettings;
use super::redirects::SameOrigin;
use crate::auth::{AuthLayer, AuthService};
use crate::extensions::Deadline;
use crate::headers;
use crate::retry::{BodyFactory, RequestBody, ResponseBody, RetryService, TimedOut, add_key};
use crate::runtime;

/// An HTTP client with everything around it: redirects, retries, limits, tokens, timeouts.
///
/// The [order of the layers](super) and what happens to a request stand on the page of the module. Clones share the
/// limit, the tokens and the client.
///
/// `S` is the client. To keep one in a struct, name it: `Stack<tower_oauth2::transport::HyperClient>`.
///
/// # Examples
///
/// ```
/// use http::{Request, Response};
/// use tower::{BoxError, ServiceExt as _, service_fn};
/// use tower_oauth2::stack::{Stack, StackBody};
/// use tower_oauth2::{AccessToken, Body};
///
/// let http_client = service_fn(async |_: Request<StackBody<Body>>| Ok::<_, BoxError>(Response::new(Body::from("ok"))));
/// let token = AccessToken::bearer("mF_9.B5f-4.1JqM")?;
/// let api = Stack::for_base_url(token, "https://api.example.com")?.build(http_client);
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let response = api.oneshot(Request::get("https://api.example.com/orders").body(Body::empty())?).await?;
/// assert_eq!(response.status(), 200);
/// # Ok::<_, BoxError>(()) })?;
/// # Ok::<_, BoxError>(())
/// ```
#[derive(Clone)]
pub struct Stack<S> {
    layers: Layers<S>,
    total_timeout: Option<Duration>,
    /// Requests are given their idempotency keys here, so that it is one for all hops.
    generates_keys: bool,
}

/// The body type of requests at the client below a [`Stack`], where the caller sends a `B`: a body that can be sent again, for
/// redirects and for retries.
pub type StackBody<B> = RequestBody<RequestBody<B>>;

/// Outermost first, as on the page of the module.
type Layers<S> = Identified<Redirecting<RetryService<Limited<AuthService<attempt_timeout::Limited<S>>>>>>;
type Identified<S> = Either<SetRequestId<PropagateRequestId<S>, MakeRequestUuid>, S>;
type Redirecting<S> = Either<FollowRedirect<S, SameOrigin>, S>;
type Limited<S> = Either<ConcurrencyLimit<S>, S>;

impl<S> Stack<S> {
    pub(crate) fn with_settings(auth: AuthLayer, settings: StackSettings, client: S) -> Self {
        let (total_timeout, generates_keys) = (settings.total_timeout(), settings.policy.generates_keys());
        let authorized = auth
            .refuse_other_origins(true)
            .layer(attempt_timeout::Limited::new(client, settings.attempt_timeout));
        let limited = match settings.concurrency {
            Some(most) => Either::Left(ConcurrencyLimit::new(authorized, most)),
            None => Either::Right(authorized),
        };
        let retried = settings.policy.layer(limited);
        let redirected = match settings.redirects {
            0 => Either::Right(retried),
            most => Either::Left(FollowRedirect::with_policy(retried, SameOrigin::up_to(most))),
        };
        let layers = match settings.request_id {
            Some(header) => {
                let redirected = PropagateRequestId::new(redirected, header.clone());
                Either::Left(SetRequestId::new(redirected, header, MakeRequestUuid))
            }
            None => Either::Right(redirected),
        };
        Self { layers, total_timeout, generates_keys }
    }
}

impl<S, B, RB> Service<Request<B>> for Stack<S>
where
    S: Service<Request<StackBody<B>>, Response = Response<RB>> + Clone,
    RB: Body<Error: Into<BoxError>>,
    S::Error: Into<BoxError>,
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody<RB>>;
    type Error = BoxError;
    type Future = ResponseFuture<S, B, RB>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.layers.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The time-out of an attempt would panic where there is no timer.
        if let Err(error) = runtime::current() {
            let inner = future::Either::Right(std::future::ready(Err(error.into())));
            return ResponseFuture { inner, deadline: None, timer: None };
        }
        let (head, body) = request.into_parts();
        let body = for_hops(body, &head);
        let mut request = Request::from_parts(head, body);
        if let Some(timeout) = self.total_timeout {
            Deadline::narrow(request.extensions_mut(), timeout);
        }
        if self.generates_keys {
            add_key(&mut request);
        }
        let deadline = request.extensions().get().copied();
        ResponseFuture { inner: future::Either::Left(self.layers.call(request)), deadline, timer: None }
    }
}

impl<S: fmt::Debug> fmt::Debug for Stack<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let below = match &self.layers {
            Either::Left(identified) => identified.get_ref().get_ref(),
            Either::Right(layers) => layers,
        };
        f.debug_struct("Stack").field("layers", below).field("total_timeout", &self.total_timeout).finish()
    }
}

/// Makes a body that a redirect can share if it is in memory, or repeat if there is a factory for it, and that passes by
/// otherwise: what retry records once need not be recorded twice.
fn for_hops<B>(body: B, head: &request::Parts) -> RequestBody<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    let original = match head.extensions.get::<BodyFactory>().filter(|_| !body.is_end_stream()) {
        Some(factory) => {
            // A transport goes by the header.
            let announced = head.headers.get(CONTENT_LENGTH).and_then(headers::content_length);
            let length = announced.or(body.size_hint().exact());
            RequestBody::reopenable(body, factory.clone(), length)
        }
        None => RequestBody::new(body),
    };
    match original.shared() {
        Some(_) => original,
        // With its original gone nothing of it is kept.
        None => original.replay().unwrap_or(original),
    }
}

// --- ResponseFuture ---

type SentFuture<S, B> = <Layers<S> as Service<Request<RequestBody<B>>>>::Future;

pin_project! {
    /// The future of a [`Stack`] over the client `S`, for request bodies `B` and response bodies `RB`.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the request, wherever it is. A token request that it waited for goes on for everybody else.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, B, RB>
    where
        S: Service<Request<StackBody<B>>, Response = Response<RB>>,
        RB: Body<Error: Into<BoxError>>,
        S: Clone,
        S::Error: Into<BoxError>,
        B: Body,
        B: Unpin,
        B::Error: Into<BoxError>,
    {
        #[pin]
        inner: future::Either<SentFuture<S, B>, Ready<Result<Response<ResponseBody<RB>>, BoxError>>>,
        deadline: Option<Deadline>,
        timer: Option<Pin<Box<Sleep>>>,
    }
}

impl<S, B, RB> Future for ResponseFuture<S, B, RB>
where
    S: Service<Request<StackBody<B>>, Response = Response<RB>> + Clone,
    RB: Body<Error: Into<BoxError>>,
    S::Error: Into<BoxError>,
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    type Output = Result<Response<ResponseBody<RB>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(outcome) = this.inner.poll(cx) {
            return Poll::Ready(outcome);
        }
        // The retries keep to it. But a request that was redirected may still wait for the limit.
        let Some(deadline) = this.deadline else { return Poll::Pending };
        let until = deadline.of_outer_layers();
        ready!(this.timer.get_or_insert_with(|| Box::pin(sleep_until(until))).as_mut().poll(cx));
        Poll::Ready(Err(TimedOut::Deadline.into()))
    }
}

impl<S, B, RB> fmt::Debug for ResponseFuture<S, B, RB>
where
    S: Service<Request<StackBody<B>>, Response = Response<RB>> + Clone,
    RB: Body<Error: Into<BoxError>>,
    S::Error: Into<BoxError>,
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
