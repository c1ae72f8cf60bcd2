//! A handle with a base URL: relative paths, query, JSON, and the stack of your choice below.
//!
//! 1. It sends by whatever tower HTTP service it is given, layers and all: tokens, retries and limits are theirs. It adds
//!    nothing to a request but what it is told, and a `content-type` where there is JSON.
//! 2. A path is put behind the base URL, with one slash between them. It may bring a query.
//! 3. What might leave the base is an error, and nothing is sent: another server (`//other`, `https://other`), a backslash, a
//!    segment of dots (`..`, `a/./b`), and either of them encoded, once or more (`%2e%2e`, `..%2f..`, `..%252f`). So are a
//!    fragment, control characters, spaces, and what is not ASCII and not encoded.
//! 4. A part of a path that comes from elsewhere goes in by [`segment`](ApiRequest::segment): it is encoded, so that a slash or
//!    a question mark in it means nothing. An empty one is an error, since `users//keys` is another resource.
//! 5. What is wrong with a request is told by [`send`](ApiRequest::send). Statuses are no errors, unless
//!    [`error_for_status`](ApiResponse::error_for_status) makes them such.
//! 6. Bodies are in memory, so that every request can be replayed. For streams, call the service itself
//!    ([`ApiClient::get_ref`]).
//!
//! # Examples
//!
//! ```
//! use serde_json::{Value, json};
//! use tower_oauth2::client::ApiClient;
//! # use bytes::Bytes;
//! # use http::{Request, Response};
//! # use http_body_util::Full;
//! # use tower::{BoxError, service_fn};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
//! # let stack = service_fn(async |request: Request<Full<Bytes>>| {
//! #     let path = request.uri().path_and_query().unwrap().as_str().to_owned();
//! #     Ok::<_, BoxError>(Response::new(Full::<Bytes>::from(json!({ "path": path }).to_string())))
//! # });
//! let api = ApiClient::new("https://api.example.com/v2", stack)?;
//!
//! let request = api.get("users").segment("ann/bob").query(&[("limit", 5)]);
//! let answer: Value = request.send().await?.error_for_status()?.json().await?;
//! assert_eq!(answer["path"], "/v2/users/ann%2Fbob?limit=5");
//!
//! let made = api.post("reports").json(&json!({ "month": "2026-11" })).send().await?;
//! assert!(made.status().is_success());
//!
//! let error = api.get("../admin").send().await.unwrap_err();
//! assert!(error.is_path());
//! # Ok::<_, BoxError>(()) })?;
//! # Ok::<_, BoxError>(())
//! ```
//!
//! What our layers read from a request's extensions goes along by [`extension`](ApiRequest::extension):
//!
//! ```
//! use std::time::Duration;
//! use tower_oauth2::client::ApiClient;
//! use tower_oauth2::extensions::Deadline;
//!
//! # fn example<S: Clone>(api: &ApiClient<S>) {
//! let request = api.get("now").extension(Deadline::within(Duration::from_secs(2)));
//! # }
//! ```

mod api_client;
mod base;
mod error;
mod request;
mod response;

pub use self::api_client::ApiClient;
pub use self::error::ApiError;
pub use self::request::ApiRequest;
pub use self::response::ApiResponse;
