//! The paved path: all layers around an HTTP client in the one order that is right.
//!
//! ```
//! use std::time::Duration;
//! use tower_oauth2::stack::Stack;
//! use tower_oauth2::AccessToken;
//! # let http_client = tower::service_fn(|_: http::Request<tower_oauth2::stack::StackBody<http_body_util::Full<bytes::Bytes>>>| async {
//! #     Ok::<_, tower::BoxError>(http::Response::new(http_body_util::Full::<bytes::Bytes>::default()))
//! # });
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
//! # use bytes::Bytes;
//! # use http_body_util::Full;
//! # use tower::ServiceExt as _;
//! let source = AccessToken::bearer("mF_9.B5f-4.1JqM")?;
//! let client = Stack::for_base_url(source, "https://api.example.com")?
//!     .concurrency_limit(64)
//!     .attempt_timeout(Duration::from_secs(10))
//!     .build(http_client);
//!
//! let request = http::Request::get("https://api.example.com/items").body(Full::<Bytes>::default())?;
//! let response = client.clone().oneshot(request).await?;
//! # assert_eq!(response.status(), 200);
//! # Ok::<_, tower::BoxError>(()) })?;
//! # Ok::<_, tower::BoxError>(())
//! ```
//!
//! # The order
//!
//! Outermost first. Keep to it too if you compose the layers yourself:
//!
//! | layer | why here | what goes wrong elsewhere |
//! |---|---|---|
//! | request id | One id names one call, with all its attempts. | Below retry each attempt has another, and they cannot be found together. |
//! | follow redirects | Every hop comes by retry and auth again, so the new target is checked before it gets a token, and a token that ended meanwhile is replaced. | Below auth the header goes along to wherever the response points, and a stranger's 401 costs a good token. |
//! | total timeout | It bounds what the caller waits for, hops and waits included. It is a [`Deadline`](crate::extensions::Deadline), so that a wait that would miss it is not begun, and the last real response is returned at once. | A plain timeout around retry throws that response away; one below retry bounds one attempt alone. |
//! | [retry](crate::retry) | It sees each response after auth has read it, and each replay passes by auth, so it carries the token of its own time. | Below auth a replay after a 401 sends the token that was refused. |
//! | concurrency limit | It counts requests that are on their way. A request in a wait gives its permit back. | Above retry, requests that wait hold permits, and ten throttled ones stop a hundred that could go. |
//! | [auth](crate::auth) | Last before the wire, so that the token is fresh when it leaves. A request that waits for a token gives its permit back as well. | Above a limit or a buffer a token can end while the request queues. |
//! | attempt timeout | It bounds one attempt on the wire. Not the wait for a token, which has its own deadline, nor the one for a permit. | Above auth a slow authorization server looks like a slow API. |
//! | the client | Its own redirects, retries and timeouts are off. | Two layers that retry multiply, and a client that follows redirects carries the token along. |
//!
//! The same by hand, but for redirects, whose policy is below:
//!
//! ```
//! use std::time::Duration;
//! use tower::ServiceBuilder;
//! use tower::limit::ConcurrencyLimitLayer;
//! use tower::timeout::TimeoutLayer;
//! use tower_http::request_id::{MakeRequestUuid, SetRequestIdLayer};
//! use tower_oauth2::{AccessToken, AuthLayer, RetryPolicy};
//! # let http_client = tower::service_fn(|_: http::Request<tower_oauth2::retry::RequestBody<http_body_util::Full<bytes::Bytes>>>| async {
//! #     Ok::<_, tower::BoxError>(http::Response::new(http_body_util::Full::<bytes::Bytes>::default()))
//! # });
//!
//! let source = AccessToken::bearer("mF_9.B5f-4.1JqM")?;
//! let client = ServiceBuilder::new()
//!     .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
//!     .layer(RetryPolicy::default())
//!     .layer(ConcurrencyLimitLayer::new(64))
//!     .layer(AuthLayer::for_origin(source, "https://api.example.com")?.refuse_other_origins(true))
//!     .layer(TimeoutLayer::new(Duration::from_secs(10)))
//!     .service(http_client);
//! # Ok::<_, tower_oauth2::Error>(())
//! ```
//!
//! Between auth and the client is the place of a trace layer with one span for each attempt, which reads
//! [`Attempt`](crate::extensions::Attempt); put it around the client that is given to
//! [`build`](StackBuilder::build). One span for the whole goes around the stack.
//!
//! # What happens to a request
//!
//! 1. With [`request_id`](StackBuilder::request_id) it gets a random UUID in that header, which all hops and attempts keep.
//! 2. It is sent as [retry](crate::retry) and [auth](crate::auth) say. A URI outside the origins that were named is an
//!    error before anything is sent.
//! 3. A redirect is followed if it stays within the request's own origin, ten times at most. 307 and 308 repeat method
//!    and body, if that is empty, in memory at once and of up to 1 MiB, or opened again by a [`BodyFactory`](crate::retry::BodyFactory); 303, and 301 and 302 after a POST, become a GET without one
//!    (RFC 9110 §15.4), and without `If-Match`, `Expect`, its idempotency key and the headers about the body.
//! 4. Any other redirect is returned as it is: the caller reads `Location` and decides. Neither a token nor a cookie
//!    goes to another origin unseen.
//! 5. An attempt that takes longer than the attempt timeout ends in
//!    [`TimedOut::Attempt`](crate::retry::TimedOut). It may have arrived, so it is repeated only where the method may be.
//! 6. A [`RetryReport`](crate::retry::RetryReport) on the response is that of the last hop; those of the hops before went with
//!    the redirects. A [`ReportSlot`](crate::retry::ReportSlot) holds the latest as well. If a redirect made a GET of a POST, the
//!    server has done the work: an error of the GET and its report say so. If an attempt before a 307 or 308 may have been done,
//!    the outcome behind it counts as that of a later attempt.
//!
//! # Body types
//!
//! The client gets [`StackBody<B>`](StackBody) where the caller sends a `B`. For a client that was made for one body
//! type, [`map_request`](tower::ServiceExt::map_request) makes that of it; see [body types](crate::retry#body-types).

mod attempt_timeout;
mod builder;
mod redirects;
mod service;

pub use self::builder::StackBuilder;
pub(crate) use self::builder::{StackSettings, StackTarget};
pub use self::service::{ResponseFuture, Stack, StackBody};
