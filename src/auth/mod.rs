//! Puts tokens on requests, and reads the responses for what they say about the tokens.
//!
//! What happens to a request:
//!
//! 1. A header of the caller's own wins: the request passes as it is. (A gateway says
//!    [`replace_authorization`](AuthLayer::replace_authorization).)
//! 2. An [`AuthOverride`] in its extensions decides whose token it gets, if any.
//! 3. Its origin (scheme, host, port) must be on the list, and on that of the token's cache
//!    ([`only_for`](crate::cache::TokenCacheBuilder::only_for)) if that has one. Its `Host` header, if there is one, must agree. Else
//!    it is sent without a token and its response marked [`TokenWithheld`](crate::extensions::TokenWithheld), or refused.
//!    A URI that is a path alone is an error, unless the layer was told
//!    [where those go](AuthLayer::default_origin). Plain http is for loopback.
//!    A layer [whose tokens name their origin](AuthLayer::for_origin_named_by) compares with that once it has the token.
//! 4. The token comes from the cache, at once as a rule. Where it has to be waited for, the inner service that was polled
//!    ready is given up first, together with everything that it reserved. The wait ends just before the
//!    [`Deadline`](crate::extensions::Deadline) of the request, with an error that says so. No token, no request. If the token
//!    in use is valid and only close to its end, the request waits for another one for half of its time, and then goes out with
//!    the one in use.
//! 5. The header is marked sensitive, so HTTP/2 does not index it and `Debug` does not show it.
//!
//! What happens to its response:
//!
//! 6. A 401 is judged by its challenges. If the token is to blame it is dropped, if it is still the one in use, and
//!    the response is marked [`TokenRejected`](crate::extensions::TokenRejected), upon which the retry layer replays.
//!
//!    | challenge | drops the token |
//!    |---|---|
//!    | `Bearer` (or the token's own scheme) with `invalid_token`, or an unknown code | yes |
//!    | `Bearer` without a code; no challenge; only unknown schemes | if it is [proven](crate::cache#rejections), or the token before it is and still valid (never with [`strict_challenges`](AuthLayer::strict_challenges)) |
//!    | `insufficient_scope`, `insufficient_user_authentication`, `insufficient_claims`, `invalid_request` | no |
//!    | only `Basic`, `Negotiate`, `Digest`; `DPoP` where it was not sent | no |
//!
//! 7. gRPC's UNAUTHENTICATED (16) in the headers of an HTTP/2 response drops the token as well. In the trailers only a retry
//!    layer above sees it, which tells this one.
//! 8. `insufficient_scope` with 401 or 403 marks the response [`ScopeMissing`](crate::extensions::ScopeMissing): another
//!    token of the same kind would not help.
//!    All challenges of such a response, and of one that is rejected, are in [`Challenges`](crate::extensions::Challenges), for what is built on them.
//! 9. Any other response shows that the API took the token, but those that may be sent before it is looked at: a redirect, a
//!    403, 407, 408, 421, 425, 429, 431 and a 5xx. A gRPC call shows it at its end.
//! 10. Text of a server stands in a marker only after control characters and the token itself were taken out of it.
//!
//! # Examples
//!
//! A gateway in front of two regions, for tenants of its own:
//!
//! ```
//! use tower::ServiceBuilder;
//! use tower_oauth2::AuthLayer;
//! # let http_client = tower::service_fn(|_: http::Request<String>| async { Ok::<_, tower::BoxError>(http::Response::new(())) });
//!
//! let layer = AuthLayer::per_request(["https://eu.api.example.com", "https://us.api.example.com"])?
//!     .replace_authorization(true)
//!     .refuse_other_origins(true);
//! let client = ServiceBuilder::new().layer(layer).service(http_client);
//! # Ok::<(), tower_oauth2::Error>(())
//! ```
//!
//! A gateway that passes a request on gives it the URI of the next server and takes `Host` off, which still names the
//! gateway itself and so would keep the token back; `examples/axum_gateway.rs` shows it.
//!
//! # An API key and a bearer token
//!
//! Two layers, each with a header of its own. An [`AuthOverride`] says by its header which of them it is for. A cache
//! without a header is for the first layer that sends a token; if a second would send one too, the request is refused. A 401 is read by the inner layer first: if that finds its own
//! token at fault, the outer one keeps its token, and the retry layer replays.
//!
//! ```
//! use http::header::{AUTHORIZATION, HeaderName};
//! use tower::ServiceBuilder;
//! use tower_oauth2::auth::AuthOverride;
//! use tower_oauth2::{AccessToken, AuthLayer, RetryPolicy, TokenCache};
//! # let http_client = tower::service_fn(|_: http::Request<tower_oauth2::retry::RequestBody<http_body_util::Full<bytes::Bytes>>>| async {
//! #     Ok::<_, tower::BoxError>(http::Response::new(http_body_util::Full::<bytes::Bytes>::default()))
//! # });
//! # let (key, tokens, tenant) = ("key", AccessToken::bearer("ours")?, TokenCache::new(AccessToken::bearer("theirs")?));
//!
//! let key = AccessToken::bearer(key)?;
//! let client = ServiceBuilder::new()
//!     .layer(RetryPolicy::default())
//!     .layer(AuthLayer::for_origin(key, "https://api.example.com")?.header(HeaderName::from_static("x-api-key")))
//!     .layer(AuthLayer::for_origin(tokens, "https://api.example.com")?)
//!     .service(http_client);
//!
//! let mut request = http::Request::get("https://api.example.com/items").body(http_body_util::Full::<bytes::Bytes>::default())?;
//! request.extensions_mut().insert(AuthOverride::cache(tenant).for_header(AUTHORIZATION));
//! # let _ = client;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! # Order
//!
//! This layer belongs below the retry layer: above it, a replay would carry the refused token again, so none is made.
//!
//! A service that follows redirects belongs outside this layer, so that each hop is checked here. The HTTP client's own
//! redirects must be off: it would carry the header to wherever a server points.

mod future;
mod layer;
mod named_origin;
mod per_request;
mod rules;
mod service;
mod terms;
mod ticket;
mod verdict;

pub use self::future::ResponseFuture;
pub use self::layer::AuthLayer;
pub use self::per_request::AuthOverride;
pub use self::service::AuthService;
pub use self::terms::Rejection;
pub use crate::headers::challenge::Challenge;
