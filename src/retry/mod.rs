//! Sends a request again when that is right.
//!
//! What happens to a request:
//!
//! 1. It is sent. Its body is kept, so that it can be sent again: see [request bodies](#request-bodies).
//! 2. If auth says that the token was refused ([`TokenRejected`](crate::extensions::TokenRejected)), the request is sent
//!    again at once with another token, even if its method is not idempotent. This happens once and does not count as a retry.
//!    If that token was older than the refusal it may have been revoked together with the first, and a new one is sent.
//! 3. Any other failure that may pass by itself is retried, three times by default: see the [first
//!    table](#what-is-retried-when).
//! 4. The wait is what the server asks for, and up to a tenth more: see the [second table](#what-servers-ask-for). If it asks
//!    for none, the wait is 500 ms, doubled each time up to 30 s, half of it random. From the second retry on, the longer of
//!    the two counts.
//! 5. A wait that is too long is not begun, and the response is returned at once. Too long is more than 60 s at a time, a wait
//!    past the [`Deadline`](crate::extensions::Deadline) or `total_timeout`, or, without either, more than 120 s in all. An
//!    attempt in flight at the deadline is ended, and none is sent after it.
//! 6. A wait holds neither a connection nor the permit of an inner limit. After it the inner service is made ready again, so
//!    each attempt carries a token of its own time.
//! 7. Giving up is not an error: the newest response is returned, whole, with a [`RetryReport`] in its extensions. See
//!    [what is returned](#what-is-returned).
//! 8. The response before is read during the wait, so that its connection can be used again: see [responses during a
//!    wait](#responses-during-a-wait).
//! 9. Retries are kept to a share of the requests by a [`RetryBudget`] per origin and
//!    [`CredentialId`](crate::extensions::CredentialId): one for five requests and 3 per second, at most 10 at once. A
//!    retry of a request that provably was not sent costs a tenth. When the budget is spent, the response is returned.
//!    Replays with a new token are free, and so are retries that wait for a token or at the gate.
//! 10. A first 429 with a wait of up to 60 s closes the [`RetryGate`] of its origin and credential. The other requests
//!     wait there as in rule 6; see [the gate](#the-gate). A request that cannot wait (rule 5) is sent at once. A request
//!     that was never sent has no response to go back to: for it readiness is waited for until the deadline.
//!
//! # The gate
//!
//! The gate learns from 429 responses with a wait, their own or the [profile's](RateLimitProfile::unhinted_wait), and other statuses
//! that count as a 429, but not from gRPC statuses. Until the first of them it does nothing.
//!
//! 1. A request that was not refused itself waits for the server's own pause and 2 s
//!    ([`max_hold`](RetryPolicyBuilder::max_hold)), and is then sent. It waits longer only while requests are
//!    accepted at the pace and no more wait than three times as many as were refused at once. A request with
//!    [`RetryOptions::never`] does not wait longer.
//! 2. After the pause one request is tried. If it is refused, the pause begins anew, and another request is tried next. If it
//!    is accepted, the others follow at a pace that doubles, in the order of the times from which they may be sent. A request
//!    that was refused may be sent when its own wait is over, which goes on in the queue.
//! 3. After two refusals in a row, or three of the last eight, the pace falls to 72 %. It comes back in three seconds to
//!    nearly what was too much, stays there, and rises ever faster while nothing is refused. It is never below one per second.
//!    Three refusals in a row close the gate again.
//! 4. One refusal among many holds no other request.
//! 5. A request that cannot wait, or waited long enough, is sent beyond the pace. If one of four of those is accepted, the
//!    limit is not about your own rate (another client uses it up, or chance decides), and nothing is held. A dozen more
//!    refusals than that, and the pace counts again. At one request per second the gate tries this once in 4 s.
//! 6. If the paths of all refusals begin alike, such as with `/v1/search`, and five requests for other paths were accepted, only
//!    paths that begin like this are held. The same applies to one method. A refusal elsewhere undoes that.
//! 7. Retries at the gate cost no budget, unless the gate cannot hold them. At the pace a second retry counts as two requests,
//!    a third one as three. From the third on, the wait of the request itself is four times as long, up to `max_delay`, if at
//!    least half of its time is left after that.
//! 8. A gate that nothing needed for 30 s is open, and what it learned is forgotten.
//!
//! The gate is on by default. In simulations of the default policy (`tests/simulation`) requests that were not refused take as long
//! as without it: the median under random refusals is that of one response, and where a neighbour uses up the limit no more
//! requests fail. Under a limit on your own rate it keeps 200 requests from 50 tasks at 1.4 sent per request served and none
//! failed. Turn it off with [`gate(None)`](RetryPolicyBuilder::gate), for one request with
//! [`RetryOptions::gate`].
//!
//! # What is retried when
//!
//! | outcome of an attempt | is retried for | as |
//! |---|---|---|
//! | a refused token, by auth's marker | any method, at once | [`TokenRejected`](ReplayReason::TokenRejected) |
//! | 429 | any method: the server says that it refused the work | [`Throttled`](ReplayReason::Throttled) |
//! | a status that the [`RateLimitProfile`] names, such as GitHub's 403, if it asks for a wait | any method | `Throttled` |
//! | gRPC `RESOURCE_EXHAUSTED` (8) | any method | `Throttled` |
//! | gRPC `UNAVAILABLE` (14); 502, 503, 504 without a gRPC status to a gRPC request | any method | [`Unavailable`](ReplayReason::Unavailable) |
//! | any other gRPC failure with `google.rpc.RetryInfo` or a pushback that names a wait, but UNAUTHENTICATED | calls that may be [repeated](#what-may-be-repeated) | `Unavailable` |
//! | 425 | any method: the server did not dare to do it | `Unavailable` |
//! | 408, 502, 503, 504, 520 to 524, 529 | requests that may be [repeated](#what-may-be-repeated) | `Unavailable` |
//! | any other 4xx or 5xx with `Retry-After`, its forms in milliseconds, a header of [`RateLimitProfile::delay`], or `x-should-retry: true`, but 401 and 407 | the same | `Unavailable` |
//! | 500, if [`unavailable_statuses`](RetryPolicyBuilder::unavailable_statuses) names it | the same | `Unavailable` |
//! | 409 to a request with an idempotency key, if the server may have acted on an earlier attempt | that request: the earlier attempt may still be at work | `Unavailable` |
//! | an error after which the server provably did no work ([`Failure::Unsent`]) | any method | [`Unsent`](ReplayReason::Unsent) |
//! | any other error, or an attempt that took too long ([`Failure::Ambiguous`]) | requests that may be repeated | [`Ambiguous`](ReplayReason::Ambiguous) |
//! | an error that another attempt would not change ([`Failure::Fatal`]) | never | |
//! | an [`Error`](crate::Error): there was no token | never, or with [`retry_token_failures`](RetryPolicyBuilder::retry_token_failures) any method, if the failure may pass | [`TokenUnavailable`](ReplayReason::TokenUnavailable) |
//! | an overloaded inner service | never: that was not sent, and will not be | |
//! | any other response | never | |
//!
//! - With strict methods (a setting, also of one request) "any method" of a response that blames no token becomes "requests that
//!   may be repeated".
//! - Which statuses count as 429 and which as 503 is a setting, and whether a request without an `Idempotency-Key` is given
//!   one.
//! - A gRPC status counts on HTTP/2 with a content type that begins with `application/grpc`: in the headers, and in the
//!   trailers of a response without data. For those the body is polled once when the head is there, which never waits;
//!   what came goes with the response. UNAUTHENTICATED (16) goes the way of a 401, if auth is below. In trailers after data
//!   it drops the token, and nothing is replayed.
//! - `grpc-retry-pushback-ms` is waited to the millisecond, and at once if it is 0. If it is negative, unreadable or there
//!   twice, the server wants no other attempt. It counts for one attempt; afterwards the policy's own waits begin anew.
//! - Markers tell the kind of an error ([`Unsent`]), which the client of this crate sets, or a
//!   [`classifier`](RetryPolicyBuilder::classifier) does.
//! - `google.rpc.RetryInfo` in `grpc-status-details-bin` is a hint, as `Retry-After` is one.
//! - A request is one of gRPC if its content type begins with `application/grpc`. One message is kept for a replay, however
//!   its frames are cut.
//!
//! # What may be repeated
//!
//! After some outcomes the server may have done the work. Then only these requests are sent again:
//!
//! 1. Safe methods: `GET`, `HEAD`, `OPTIONS`, `TRACE`, `QUERY`, `PROPFIND`, `REPORT`, `SEARCH`.
//! 2. Idempotent methods: `PUT`, `DELETE`, and those of `WebDAV` (`PROPPATCH`, `MKCOL`, `MKCALENDAR`, `COPY`, `MOVE`, `UNLOCK`,
//!    `ACL`). Not with a condition such as `If-Match`, `If-None-Match`, `Overwrite: F` or a vendor's own
//!    (`x-goog-if-generation-match`): a repeated conditional write gets a 412 because the first one succeeded.
//! 3. Any request with an idempotency key that is not empty: a header whose name ends in `Idempotency-Key`, `Idempotence-Key`,
//!    `Idempotency-Token` or `Idempotence-UUID`, `PayPal-Request-Id` or `Repeatability-Request-ID`.
//! 4. Any request with [`RetryOptions::repeatable`], such as a POST that only reads.
//!
//! [`RetryReport::may_have_acted`] says whether the server may have acted on an attempt of which you do not have the response.
//! A later 404, 405, 409 or 412 may then be the trace of your own earlier attempt. An error that says "not sent"
//! ([`Failure::Unsent`]) is returned only if that holds for all attempts: an attempt that did no work does not replace the
//! outcome of one that may have.
//!
//! # What servers ask for
//!
//! | header, in this order | what it says |
//! |---|---|
//! | `retry-after-ms`, `x-ms-retry-after-ms` | a wait in milliseconds |
//! | `Retry-After` (RFC 9110 §10.2.3) | a wait in seconds, or a date |
//! | `RateLimit` | the quotas of draft-ietf-httpapi-ratelimit-headers, `"name";r=0;t=30` or `remaining=0, reset=30`: of those with nothing left the longest wait |
//! | `RateLimit-Reset`, with `RateLimit-Remaining` | when the quota is renewed |
//! | `x-ratelimit-reset-after`, with `x-ratelimit-remaining` | the same |
//! | `x-ratelimit-retry-after`, `x-ratelimit-after` | a wait |
//! | `x-ratelimit-reset`, with `x-ratelimit-remaining` | when the quota is renewed |
//! | `x-rate-limit-reset`, with `x-rate-limit-remaining` | the same |
//! | those of the [`RateLimitProfile`] | the longest wait among them |
//!
//! - A quota asks for a wait where nothing is left of it, and on a 429 also where the server does not say what is left. So it
//!   does on the other [`throttled_statuses`](RetryPolicyBuilder::throttled_statuses).
//!   While something is left, it asks for none. A quota in a response from a cache (`Age`) is that of another time, and
//!   is passed over.
//! - Waits are read from a 4xx or 5xx only, in every header. A gRPC status of 8 counts as a 429 and one of 14 as a 503; then the
//!   headers or trailers are read in which it stands.
//! - Every header may give a span or a point in time. A number below 10^9 counts seconds (or milliseconds, if the header
//!   does), one from 10^9 on is seconds since the Unix epoch, one from 10^12 on milliseconds since then. Dates are those of
//!   RFC 3339, with or without seconds, and of RFC 9110 §5.6.7, also with `UTC` or `+0000` for the zone. Durations look like `1m30s`,
//!   `1d2h` or `00:01:30`.
//! - Points in time are measured against the server's `Date` plus `Age`, if it sends them.
//! - The same headers are read at the token endpoint and at discovery, and of a proxy that refuses `HyperClient` a connection.
//! - `x-should-retry: false` and `stripe-should-retry: false` forbid another attempt, and so do the headers that
//!   [`RateLimitProfile::should_retry`] names. `true` asks for one of a request that may be repeated. They say nothing about a
//!   refused token.
//! - A value that cannot be read is ignored, a malformed `RateLimit` as a whole. `RateLimit-Policy` asks for no wait.
//!
//! # Request bodies
//!
//! - A body of one frame in memory is shared and never copied. Any other is recorded while it is sent: up to 1 MiB if its
//!   length is known (by the body or by `Content-Length`), up to 64 KiB if not.
//! - All requests of the policy together keep up to 32 MiB: recorded bodies, bodies in memory above 1 MiB, and kept responses.
//! - A body above these limits ([`replay_body_limit`](RetryPolicyBuilder::replay_body_limit) and the next two) is sent once.
//!   The recording is freed as soon as no other attempt can follow.
//! - Of a gRPC call one message is kept and no stream: the server may have acted on the messages before the last.
//! - With a [`BodyFactory`] nothing is recorded. Each further attempt opens the body again, of any length.
//!
//! # Responses during a wait
//!
//! - The response before is read for as long as the wait, at least 10 ms and at most 200 ms, and up to 64 KiB or 1024 frames.
//!   The rest is dropped before the inner service is made ready.
//! - The data that was read is kept until there is a newer outcome. If the response has to be returned after all, it is whole,
//!   or ends in an error.
//! - The inner service has until the deadline to become ready. Without a deadline it has what is left of all waits, and 200 ms
//!   at least.
//!
//! # What is returned
//!
//! - An attempt that could not be sent (no token, service not ready, body not opened) or was ended here by a timeout does not
//!   replace a response. Nor does one that did no work replace the outcome of one that may have.
//! - A newer error of the transport replaces a response otherwise.
//! - The report is in the response's extensions, and in the [`ReportSlot`] of the request, if it has one, also on an error.
//!
//! # Settings
//!
//! All defaults stand in one list on [`RetryPolicyBuilder`], those of the budget on [`RetryBudget`]. Settings for one request
//! go into its extensions:
//!
//! | extension | says |
//! |---|---|
//! | [`RetryOptions`] | what is other than the policy says; where the report is to be put besides |
//! | [`Deadline`](crate::extensions::Deadline) | by when the head of the response must be there |
//! | [`CredentialId`](crate::extensions::CredentialId) | whose budget and gate it is, where one client serves several tenants |
//! | [`BodyFactory`] | how its body is opened anew |
//!
//! The place of this layer among others is on the page of `stack`.
//!
//! # Examples
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response, StatusCode};
//! use http_body_util::Full;
//! use tower::{BoxError, ServiceBuilder, ServiceExt as _, service_fn};
//! use tower_oauth2::RetryPolicy;
//! use tower_oauth2::extensions::Attempt;
//! use tower_oauth2::retry::RequestBody;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?.block_on(async {
//! // A server that is busy at first.
//! let server = service_fn(|request: Request<RequestBody<Full<Bytes>>>| async move {
//!     let status = match request.extensions().get::<Attempt>() {
//!         None => StatusCode::TOO_MANY_REQUESTS,
//!         Some(_) => StatusCode::CREATED,
//!     };
//!     Ok::<_, BoxError>(Response::builder().status(status).body(Full::<Bytes>::default())?)
//! });
//! let client = ServiceBuilder::new().layer(RetryPolicy::default()).service(server);
//!
//! let request = Request::post("https://api.example.com/orders").body(Full::from("one more"))?;
//! assert_eq!(client.oneshot(request).await?.status(), StatusCode::CREATED);
//! # Ok::<_, BoxError>(()) })?;
//! # Ok::<_, BoxError>(())
//! ```
//!
//! More patience in general, and none for one request:
//!
//! ```
//! use std::time::Duration;
//! use tower_oauth2::RetryPolicy;
//! use tower_oauth2::extensions::Deadline;
//! use tower_oauth2::retry::{ReportSlot, RetryOptions};
//!
//! let policy = RetryPolicy::builder()
//!     .max_retries(8)
//!     .max_retry_after(Duration::from_secs(300))
//!     .max_total_delay(Duration::from_secs(900))
//!     .build()?;
//!
//! let slot = ReportSlot::new();
//! let mut request = http::Request::get("https://api.example.com/now").body(())?;
//! request.extensions_mut().insert(RetryOptions::new().max_retries(1).report_to(&slot));
//! request.extensions_mut().insert(Deadline::within(Duration::from_secs(2)));
//! # Ok::<_, tower::BoxError>(())
//! ```
//!
//! # Spans
//!
//! OpenTelemetry wants one span per attempt, with `http.request.resend_count` on all but the first. A trace layer below
//! makes one per attempt, and [`Attempt`](crate::extensions::Attempt) says which it is. The decision between two attempts
//! is a debug event in the caller's span: see [logging](crate::guide::logging).
//!
//! ```
//! use http::Request;
//! use tower::ServiceBuilder;
//! use tower_http::trace::TraceLayer;
//! use tower_oauth2::RetryPolicy;
//! use tower_oauth2::extensions::Attempt;
//!
//! fn attempt_span<B>(request: &Request<B>) -> tracing::Span {
//!     let span = tracing::info_span!(
//!         "HTTP",
//!         otel.kind = "client",
//!         http.request.method = %request.method(),
//!         http.request.resend_count = tracing::field::Empty,
//!     );
//!     if let Some(attempt) = request.extensions().get::<Attempt>() {
//!         span.record("http.request.resend_count", attempt.resend_count());
//!     }
//!     span
//! }
//!
//! let layers = ServiceBuilder::new()
//!     .layer(RetryPolicy::default())
//!     .layer(TraceLayer::new_for_http().make_span_with(attempt_span::<()>));
//! ```
//!
//! # What to know
//!
//! - Where a response comes before all of the body was sent, a replay cuts the upload short: the attempt's body ends in an
//!   error, and so the transport resets the stream (h2) or closes the connection (HTTP/1.1). Over HTTP/1.1 the body of that
//!   response may be cut with it, if it has to be returned after all; then it ends in an error. A response that is
//!   final leaves the upload alone.
//! - A server that closes an HTTP/1.1 connection right after an early response may have that response lost on the way: the
//!   transport sees its upload fail first. That is an error after which the server may have acted, so only methods that
//!   may be repeated are sent again. Most servers read on for a while; over h2 it does not happen.
//! - The request's extensions go with every replay, as clones. A value for one attempt only does not belong
//!   there. [`Attempt`](crate::extensions::Attempt) tells the attempts apart.
//! - Under another `RetryService` a resend of the outer one is sent once here, so that retries add up and do not
//!   multiply.
//! - A deadline is for the head of the response. The time for its body is up to the caller, or to a timeout below. An attempt
//!   that is ended in flight may have been taken by the server nevertheless: what that did is unknown, and the error
//!   ([`TimedOut::Deadline`]) says so by saying no more. Layers below see the deadline in the extensions of the request, also
//!   that of a `total_timeout`: auth ends a wait for a token at it, with an error that nothing was sent.
//! - Request bodies must be `Unpin`; any other becomes so by `BodyExt::boxed_unsync`.
//! - Waits need tokio's timer.
//!
//! # Body types
//!
//! The service below gets a `Request<RequestBody<B>>` where the caller sends a `Request<B>`, and the caller gets a
//! `Response<ResponseBody<R>>` where the service below responds with a `Response<R>`. A client that is generic over its body
//! needs nothing: hyper's takes any body, be it axum's, tonic's or a boxed one.
//!
//! | request body | what it needs |
//! |---|---|
//! | `Full<Bytes>`, `Empty`, `axum::body::Body`, `tonic::body::Body`, `BoxBody`, `UnsyncBoxBody` | nothing |
//! | one that is not `Unpin`, such as some streams | `BodyExt::boxed_unsync` |
//! | one whose data is not `Bytes` | nothing; each frame is copied once |
//! | one that must be `Sync` below, as `BodyExt::boxed` asks | to be `Sync` itself |
//!
//! One that was made for one body type is not a service for the other, and the compiler says so by "the
//! method `oneshot` exists .. but its trait bounds were not satisfied". (Which of them it was, it says where the request is
//! named: `ServiceExt::<Request<B>>::oneshot(client, request)`.) It gets the body that it knows by `map_request`, tonic's
//! `Channel` by `tonic::body::Body::new`:
//!
//! ```
//! use axum::body::Body;
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use tower::{BoxError, ServiceBuilder, ServiceExt as _, service_fn};
//! use tower_oauth2::RetryPolicy;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
//! let client = service_fn(|_: Request<Body>| async { Ok::<_, BoxError>(Response::new(Body::empty())) });
//! let client = ServiceBuilder::new()
//!     .layer(RetryPolicy::default())
//!     .map_request(|request: Request<_>| request.map(Body::new))
//!     .service(client);
//! client.oneshot(Request::new(Full::<Bytes>::from("any body"))).await?;
//! # Ok::<_, BoxError>(()) })?;
//! # Ok::<_, BoxError>(())
//! ```

mod body_factory;
mod exchange;
mod gate;
mod limits;
mod policy;
mod replay_body;
mod report;
mod retry_body;

pub use self::body_factory::BodyFactory;
pub use self::exchange::future::ResponseFuture;
pub use self::exchange::service::RetryService;
pub use self::exchange::timeouts::TimedOut;
pub use self::gate::{GateStatus, RetryGate};
pub use self::limits::budget::RetryBudget;
pub use self::policy::builder::{RetryPolicy, RetryPolicyBuilder};
pub use self::policy::classify::Failure;
#[cfg(feature = "stack")]
pub(crate) use self::policy::idempotency::{add_key, is_condition, is_key, is_safe};
pub(crate) use self::policy::options::Before;
pub use self::policy::options::RetryOptions;
pub use self::replay_body::{NotReplayable, RequestBody};
pub use self::report::{ReplayReason, Replayed, ReportSlot, RetryReport, StopReason};
pub use self::retry_body::ResponseBody;
pub use crate::error::Unsent;
pub use crate::headers::profile::RateLimitProfile;

#[cfg(test)]
mod tests;
