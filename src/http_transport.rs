//! The trait of HTTP clients, stated once.

use http::{HeaderMap, Request, Response};
use http_body::Body as HttpBody;
use tower::BoxError;
use tower_service::Service;

use crate::body::Body;

/// An HTTP client: a tower service that takes a `Request<`[`Body`]`>` and returns a `Response`, of any body.
///
/// You do not implement it. Every service with these properties has it:
///
/// - it is a `Service<Request<tower_oauth2::Body>>`, or of any request body;
/// - its response is an [`http::Response`] whose body and future are `Send`;
/// - its error can become a [`BoxError`];
/// - it is `Clone + Send + Sync + 'static`.
///
/// `HyperClient` and `ReqwestClient` of [`transport`](crate::transport), a [`service_fn`](tower::service_fn) and any of them below
/// layers of tower-http qualify.
///
/// # Examples
///
/// ```
/// use http::{Request, Response};
/// use tower::{BoxError, service_fn};
/// use tower_oauth2::Body;
/// use tower_oauth2::transport::HttpTransport;
///
/// fn fake() -> impl HttpTransport {
///     service_fn(async |_request: Request<Body>| Ok::<_, BoxError>(Response::new(Body::from("ok"))))
/// }
/// # let _ = fake();
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an HTTP client for tower-oauth2",
    label = "not a `Service<Request<tower_oauth2::Body>>` that is `Clone + Send + Sync + 'static`",
    note = "a raw client needs an adapter: `transport::HyperClient` for hyper, `transport::ReqwestClient` for reqwest",
    note = "in place of a `BoxService` take tower's `BoxCloneSyncService`",
    note = "a client that takes one body type goes below `.map_request(|request: Request<tower_oauth2::Body>| …)`"
)]
pub trait HttpTransport:
    Service<
        Request<Body>,
        Response = Response<<Self as HttpTransport>::ResponseBody>,
        Error: Into<BoxError>,
        Future: Send,
    > + Clone
    + Send
    + Sync
    + 'static
{
    /// The body of a response.
    #[doc(hidden)]
    type ResponseBody: HttpBody<Data: Send, Error: Into<BoxError>> + Send + 'static;
}

impl<S, B> HttpTransport for S
where
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
    B: HttpBody<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    type ResponseBody = B;
}

/// Puts headers on a request that it does not have.
#[cfg_attr(
    not(any(feature = "stack", all(feature = "providers", feature = "jwt"))),
    allow(dead_code, reason = "clients and some presets have headers of their own")
)]
pub(crate) fn add_missing(defaults: &HeaderMap, headers: &mut HeaderMap) {
    for (name, value) in defaults {
        headers.entry(name).or_insert_with(|| value.clone());
    }
}
