//! A client of one API: paths under a base URL, query, JSON, and tokens and retries below.
//!
//! 1. [`ApiClient::connect`] takes a base URL and a source of tokens. Tokens go to the origin of that URL and nowhere else.
//!    The layers below stand in the [right order](crate::stack), and the [builder](ApiClient::builder) sets their options.
//!    [`ApiClient::new`] takes a service of your own instead, layers and all.
//! 2. The client adds to a request what you set, a `content-type` for JSON and forms, and
//!    `content-length: 0` where a body is usual and there is none.
//! 3. A path is put behind the base URL, with one slash between them. It may bring a query. An empty path is the base URL itself,
//!    and `/` is the base URL with a slash at its end.
//! 4. A path that might leave the base URL is an error, and nothing is sent: another server (`//other`, `https://other`), a backslash, a
//!    segment of dots (`..`, `a/./b`), and either of them encoded, once or more (`%2e%2e`, `..%2f..`, `..%252f`). So are a
//!    fragment, control characters, spaces, and what is not ASCII and not encoded.
//! 5. A part of a path that comes from elsewhere goes in by [`segment`](ApiRequest::segment): it is encoded, so that a slash or
//!    a question mark in it means nothing. An empty one is an error, since `users//keys` is another resource.
//! 6. [`send`](ApiRequest::send) returns the first error of the setters. A response of any status is not an error, unless you
//!    call [`error_for_status`](ApiResponse::error_for_status).
//! 7. A [`Body`](crate::Body) in memory is sent again as it is. A stream is recorded up to the limits of the [retry
//!    layer](crate::retry#request-bodies); with a [`BodyFactory`](crate::retry::BodyFactory) among the
//!    [extensions](ApiRequest::extension) it is opened again.
//! 8. Lists that come in pages are read by [`ApiRequest::pages`]: see [`pages`].
//!
//! # Examples
//!
//! ```
//! # #[cfg(feature = "stack")] {
//! use serde_json::{Value, json};
//! use tower_oauth2::{AccessToken, ApiClient};
//! # use http::{Request, Response};
//! # use tower::{BoxError, service_fn};
//! # use tower_oauth2::Body;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
//! # let http_client = service_fn(async |request: Request<Body>| {
//! #     let path = request.uri().path_and_query().unwrap().as_str().to_owned();
//! #     Ok::<_, BoxError>(Response::new(Body::from(json!({ "path": path }).to_string())))
//! # });
//! let source = AccessToken::bearer("mF_9.B5f-4.1JqM")?;
//! let api = ApiClient::builder("https://api.example.com/v2", source).build_with(http_client)?;
//!
//! let request = api.get("users").segment("ann/bob").query(&[("limit", 5)]);
//! let user: Value = request.send().await?.error_for_status()?.json().await?;
//! assert_eq!(user["path"], "/v2/users/ann%2Fbob?limit=5");
//!
//! let made = api.post("reports").json(&json!({ "month": "2026-11" })).send().await?;
//! assert!(made.status().is_success());
//!
//! let error = api.get("../admin").send().await.unwrap_err();
//! assert!(error.is_builder());
//! # Ok::<_, BoxError>(()) })?;
//! # }
//! # Ok::<_, tower::BoxError>(())
//! ```
//!
//! [`extension`](ApiRequest::extension) sets options of the layers for one request:
//!
//! ```
//! use std::time::Duration;
//! use tower_oauth2::client::ApiClient;
//! use tower_oauth2::retry::RetryOptions;
//!
//! # fn example(api: &ApiClient) {
//! let request = api.get("now").timeout(Duration::from_secs(2)).extension(RetryOptions::never());
//! # }
//! ```

#![cfg_attr(
    not(all(feature = "hyper-client", feature = "stack")),
    allow(rustdoc::broken_intra_doc_links, reason = "the page speaks of the default features")
)]

mod announced;
mod api_client;
mod base;
#[cfg(feature = "stack")]
mod builder;
mod decode;
mod error;
mod multipart;
pub mod pages;
mod request;
mod response;
mod service;

pub use self::api_client::ApiClient;
pub use self::error::ApiError;
pub use self::multipart::MultipartForm;
pub use self::request::ApiRequest;
pub use self::response::ApiResponse;
pub use self::service::ApiService;
