//! Several tokens of one client, for APIs that limit each token.
//!
//! Some APIs count requests by token: Genesys Cloud allows 300 a minute for each. With four tokens of the same client there is
//! room for four times as many. **Whether you may do that is for the terms of use of the API to say: read them first.**
//!
//! What happens to a request:
//!
//! 1. It gets the token with the most room left: what the API said is left, less the requests in flight. Among equals it is
//!    one token after the other.
//! 2. The pool learns from the rate-limit headers of each response, and from each 429, attempts that the retry layer sends again
//!    included. It learns nothing from requests that use [`first`](TokenPool::first) beside the pool. The headers are those of the table on
//!    the page of [`retry`](crate::retry) and of the [`RateLimitProfile`](crate::retry::RateLimitProfile). A token that has
//!    no room for longer than an hour is tried again after an hour.
//! 3. Each token has a [`CredentialId`](crate::extensions::CredentialId), so the retry layer keeps their limits apart: a pause
//!    of one token does not hold the requests of another.
//! 4. Where no token has room, the request waits for the first that has, in the order of arrival. It waits for no longer than
//!    [`longest_wait`](TokenPoolBuilder::longest_wait) and its [`Deadline`](crate::extensions::Deadline); then it is sent.
//! 5. A request whose retries end in a 429, or in what the profile counts as one, goes on with the next token that has room, if
//!    its body is in memory. With a small [`max_retry_after`](crate::retry::RetryPolicyBuilder::max_retry_after) it does so at
//!    once, instead of waiting for the token that was refused. The last 429 is returned after `longest_wait`, or when all
//!    tokens have refused the request.
//!    A request whose [`AuthOverride`](crate::auth::AuthOverride) names a cache, or none, gets that, and nothing of the pool. A minimum
//!    of validity is kept, and so is an override for another layer.
//!
//! What happens to the tokens:
//!
//! 6. Each has a [`TokenCache`](crate::TokenCache) of its own: one fetch at a time, renewed ahead of its end.
//! 7. All token requests of a pool are made one after the other. A pool begins with one token; the next is fetched while
//!    requests go on with those that are there.
//! 8. A pool that may [grow](TokenPoolBuilder::grow_to) fetches one more token when all others are used up.
//! 9. A token that cannot be fetched keeps no request waiting while another token is valid.
//! 10. Log lines of a pool name the token as `token 2 of 4`, after the [`name`](TokenPoolBuilder::name) of the pool: in the field `credential` when one is fetched, when it gets a request
//!     (trace) and when it has no room, in the field `from` when a refused request goes on to another one. Their level is debug.
//!
//! A server that returns the same token to the same client each time has one limit for all of them; a pool is of no use there.
//!
//! # Examples
//!
//! The pool is a layer itself. It goes above the retry layer, and learns from the auth layer below:
//!
//! ```
//! # #[cfg(feature = "stack")] {
//! use tower::{BoxError, Layer as _};
//! use tower_oauth2::client::ApiService;
//! use tower_oauth2::pool::TokenPool;
//! use tower_oauth2::retry::RateLimitProfile;
//! use tower_oauth2::stack::Stack;
//! use tower_oauth2::{ApiClient, AuthLayer, ClientCredentials};
//! # use bytes::Bytes;
//! # use http_body_util::Full;
//! # use tower_oauth2::test_util::{FakeApi, FakeAuthorizationServer, FakeClient};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
//! # let billing = FakeClient::confidential("billing", "hunter2");
//! # let login = FakeAuthorizationServer::builder().client(billing).build();
//! # let (http_client, token_client) = (FakeApi::builder(&login).build(), login.clone());
//! let pool = TokenPool::builder(4, move |_number| {
//!     let source = ClientCredentials::builder("https://login.test/token", "billing", "hunter2");
//!     source.build_with(token_client.clone())
//! })
//! .profile(RateLimitProfile::genesys())
//! .build()?;
//!
//! let layers = Stack::with_auth(AuthLayer::per_request(["https://api.test"])?);
//! let service = pool.layer(layers.build(http_client));
//! let api: ApiClient = ApiClient::new("https://api.test/v2", ApiService::new(pool.first().clone(), service))?;
//! assert!(api.get("users").send().await?.status().is_success());
//! # Ok::<_, BoxError>(()) })?;
//! # }
//! # Ok::<_, tower::BoxError>(())
//! ```

mod one_at_a_time;
mod room;
mod service;
mod token_pool;

pub use self::token_pool::{PoolMember, TokenPool, TokenPoolBuilder};
