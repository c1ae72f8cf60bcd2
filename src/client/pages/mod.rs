//! The pages of a list, one after the other. Read them by `while let Some(page) = pages.next().await`.
//!
//! 1. [`ApiRequest::pages`](super::ApiRequest::pages) makes [`Pages`] of a request. [`Next`] says where a response tells what
//!    comes next: in the header `Link`, as a URL in the body, as a cursor, by counting pages or items, or by a function of
//!    your own.
//! 2. One page is asked for at a time, when you want it. Each request goes through all layers below: a token that expires or
//!    is revoked and a 429 between two pages cost time and no page.
//! 3. A URL of the server is followed under the base URL of the client only, and under those of
//!    [`also_under`](Next::also_under). Any other is an error, and nothing is sent. A relative one begins at the URL of its
//!    page. `http` is taken for `https` where the host is the same.
//! 4. A page that was asked for already is not asked for again: a server that names the same next page twice ends in an error
//!    and not in a loop. So does one that takes no notice of a page number and sends the same page twice. Against a list that
//!    never ends, because there is always another cursor, set [`max_pages`](Pages::max_pages).
//! 5. A status of 4xx or 5xx is an error, and so is a redirect that was not followed. After an error the pages end;
//!    [`try_again`](Pages::try_again) asks for the failed one once more. A page whose body breaks off is asked for up to twice
//!    more by itself, if its method may be repeated or its [`RetryOptions`](crate::retry::RetryOptions::repeatable) say so.
//! 6. [`position`](Pages::position) is a text to save, with which [`resume`](Pages::resume) goes on later. Saved after a page
//!    was dealt with, it is that of the page behind it.
//! 7. Dropping a [`next`](Pages::next) loses no page. The request stays under way.
//! 8. A [`timeout`](super::ApiRequest::timeout) of the request is for each page, to the end of its body. A
//!    [`Deadline`](crate::extensions::Deadline) among its extensions is for all of them.
//! 9. The body of the request must be in memory. Query, headers and extensions go along with each page, but for the query
//!    where the server gave a URL, which has its own.
//! 10. A page is read to its end, without a limit, before you get it.
//!
//! # Examples
//!
//! ```
//! # #[cfg(feature = "stack")] {
//! use serde_json::Value;
//! use tower_oauth2::client::pages::Next;
//! # use http::{Request, Response};
//! # use tower::{BoxError, service_fn};
//! # use tower_oauth2::{AccessToken, ApiClient, Body};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
//! # let http_client = service_fn(async |request: Request<Body>| {
//! #     let page = if request.uri().query() == Some("limit=2") {
//! #         r#"{"users": [{"name": "ann"}, {"name": "bob"}], "next": "/v2/users?limit=2&after=b"}"#
//! #     } else {
//! #         r#"{"users": [{"name": "eve"}], "next": null}"#
//! #     };
//! #     Ok::<_, BoxError>(Response::new(Body::from(page)))
//! # });
//! # let source = AccessToken::bearer("mF_9.B5f-4.1JqM")?;
//! # let api = ApiClient::builder("https://api.example.com/v2", source).build_with(http_client)?;
//! let mut names = Vec::new();
//! let mut pages = api.get("users").query(&[("limit", 2)]).pages(Next::url("next").items("users"));
//! while let Some(page) = pages.next().await {
//!     for user in page?.items::<Value>()? {
//!         names.push(user["name"].to_string());
//!     }
//!     println!("{}", pages.progress());
//! }
//! assert_eq!(names.len(), 3);
//! # Ok::<_, BoxError>(()) })?;
//! # }
//! # Ok::<_, tower::BoxError>(())
//! ```
//!
//! A long query that goes on where it was when the program ended. The page number stands in the JSON body:
//!
//! ```no_run
//! use serde_json::{Value, json};
//! use tower_oauth2::ApiClient;
//! use tower_oauth2::client::pages::Next;
//!
//! # async fn example(api: &ApiClient, saved: Option<String>) -> Result<(), tower::BoxError> {
//! let query = json!({ "interval": "2026-11-01/2026-12-01", "paging": { "pageSize": 100, "pageNumber": 1 } });
//! let next = Next::page_number("/paging/pageNumber").items("conversations").total("totalHits");
//! let mut pages = api.post("analytics/conversations/details/query").json(&query).pages(next);
//! if let Some(saved) = saved {
//!     pages = pages.resume(saved)?;
//! }
//! while let Some(page) = pages.next().await {
//!     keep(page?.items()?)?;
//!     match pages.position() {
//!         // In one step, so that a crash leaves the old one or the new one.
//!         Some(position) => {
//!             std::fs::write("position.new", position)?;
//!             std::fs::rename("position.new", "position")?;
//!         }
//!         // There is none after a list of a single page.
//!         None => drop(std::fs::remove_file("position")),
//!     }
//! }
//! # Ok(())
//! # }
//! # fn keep(conversations: Vec<Value>) -> Result<(), tower::BoxError> { Ok(()) }
//! ```

mod link;
mod member;
mod next;
mod page;
mod position;
mod progress;
mod reference;
mod stream;

pub use self::next::Next;
pub use self::page::Page;
pub use self::position::NextPage;
pub use self::progress::Progress;
pub use self::stream::Pages;
