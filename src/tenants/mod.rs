//! A token cache for each user, tenant or scope: as many as are in use, and no more than are allowed.
//!
//! What happens when a cache is asked for:
//!
//! 1. Each key has one cache, which all who ask for it share: a thousand tasks of one tenant cause one token request.
//!    Everything that shapes the token is in the key, since the source is made from the key and nothing else. A key is any type
//!    that can be compared and hashed.
//! 2. A cache that was not asked for in an hour is evicted, and with it its token, which is not revoked. Where there are as
//!    many as are allowed, the sixteenth part that was unused the longest goes at once.
//! 3. Never one that is in use: while a handle is held, a request is on its way or a token is being fetched. And
//!    none whose source has something that would be lost for good
//!    ([`is_disposable`](crate::TokenSource::is_disposable)), such as a refresh token that is stored nowhere.
//! 4. Where all that are allowed are in use, a new key is refused.
//! 5. All caches together make so many token requests a second. Requests above that wait their turn; one that would wait
//!    for more than ten seconds, or for more than half of the time that its fetch has, fails with the time at which to come back.
//!    So a caller that can invent keys cannot make a storm of them at the authorization server. Such a caller can delay others,
//!    though: check a name from outside before you use it as a key. Revocations are not counted: a
//!    [`shutdown`](TenantCaches::shutdown) sends all of them at the same time, or as many as the transport lets through.
//!
//! # Examples
//!
//! One layer for all tenants. [`authorize`](TenantCaches::authorize) puts the cache of a tenant on a request, and a name by
//! which the retry layer keeps the limits of one tenant from holding up another:
//!
//! ```
//! use tower_oauth2::tenants::TenantCaches;
//! use tower_oauth2::{AccessToken, AuthLayer, Error, source_fn};
//!
//! let caches = TenantCaches::new(|tenant: &String| {
//!     let tenant = tenant.clone();
//!     Ok::<_, Error>(source_fn(move |_| {
//!         let token = AccessToken::bearer(format!("token-of-{tenant}"));
//!         async move { token }
//!     }))
//! });
//! let layer = AuthLayer::per_request(["https://api.example.com"])?;
//!
//! let mut request = http::Request::get("https://api.example.com/items").body(())?;
//! caches.authorize(request.extensions_mut(), "north")?;
//! # let _ = layer;
//! # Ok::<_, tower::BoxError>(())
//! ```
//!
//! Sources that ask an authorization server share one transport, by `build_with` and clones of it. `build` makes a client
//! for each, which shares no connection with another and reads the root certificates for itself:
//!
//! ```
//! use tower_oauth2::grants::Revocation;
//! use tower_oauth2::tenants::TenantCaches;
//! use tower_oauth2::{ClientCredentials, Secret, TokenCache};
//!
//! // Such as `HyperClient::new()`, perhaps under a limit.
//! # use bytes::Bytes;
//! # let transport = tower::service_fn(|_request: http::Request<tower_oauth2::Body>| async {
//! #     Ok::<_, tower::BoxError>(http::Response::new(tower_oauth2::Body::empty()))
//! # });
//! let caches = TenantCaches::new(move |tenant: &String| {
//!     let secret = secret_of(tenant);
//!     let source = ClientCredentials::builder("https://login.example.com/token", tenant, secret.clone());
//!     let revocation = Revocation::builder("https://login.example.com/revoke", tenant, secret);
//!     Ok(TokenCache::builder(source.build_with(transport.clone())?)
//!         .revoke_with(revocation.build_with(transport.clone())?)
//!         .revoke_at_shutdown(true))
//! });
//! # let _ = caches.get("north")?;
//! # fn secret_of(_tenant: &str) -> Secret { Secret::from_env("SECRET") }
//! # Ok::<_, tower_oauth2::Error>(())
//! ```
//!
//! With windows of its own for each cache, and bounds for all:
//!
//! ```
//! use std::time::Duration;
//! use tower_oauth2::tenants::TenantCaches;
//! use tower_oauth2::{AccessToken, TokenCache, Error};
//!
//! /// What shapes the token.
//! #[derive(Clone, PartialEq, Eq, Hash)]
//! struct Key {
//!     user: String,
//!     scope: &'static str,
//! }
//!
//! let caches = TenantCaches::builder(|key: &Key| {
//!     let source = AccessToken::bearer("mF_9.B5f-4.1JqM")?;
//!     Ok::<_, Error>(TokenCache::builder(source).refresh_before(Duration::from_secs(60)))
//! })
//! .capacity(500)
//! .idle_after(Duration::from_secs(600))
//! .token_requests(20, 100)
//! .build()?;
//!
//! let key = Key { user: "user-7".to_owned(), scope: "orders:read" };
//! let cache = caches.get(&key)?;
//! # Ok::<_, Error>(())
//! ```

mod builder;
mod caches;
mod turnstile;

pub use self::builder::TenantCachesBuilder;
pub use self::caches::TenantCaches;

#[cfg(test)]
mod tests;
