//! Puts tokens on requests, and reads the answers for what they say about them.
//!
//! What happens to a request:
//!
//! 1. A header of the caller's own wins: the request passes as it is. (A gateway says
//!    [`replace_authorization`](AuthLayer::replace_authorization).)
//! 2. An [`AuthOverride`] in its extensions decides whose token it gets, if any.
//! 3. Its origin (scheme, host, port) must be on the list, and its `Host` header, if there is one, must agree. Else it is
//!    sent without a token and its response marked [`TokenWithheld`](crate::extensions::TokenWithheld), or refused.
//!    A URI that is a path alone is an error, unless the layer was told
//!    [where those go](AuthLayer::relative_uris_go_to). Plain http is for loopback.
//! 4. The token comes from the cache, at once as a rule. Where it has to be waited for, the inner service that was polled
//!    ready is given up first, with whatever it reserved. No token, no request.
//! 5. The header is marked sensitive, so HTTP/2 does not index it and `Debug` does not show it.
//!
//! What happens to its answer:
//!
//! 6. A 401 is judged by its challenges. Where the token is to blame it is dropped, if it is still the one in use, and
//!    the answer is marked [`TokenRejected`](crate::extensions::TokenRejected); the retry layer replays on that word.
//!
//!    | challenge | drops the token |
//!    |---|---|
//!    | `Bearer` (or the token's own scheme) with `invalid_token`, or a code that nobody knows | yes |
//!    | `Bearer` without a code; no challenge; only unknown schemes | if it was accepted before, or is 30 seconds old (never with [`strict_challenges`](AuthLayer::strict_challenges)) |
//!    | `insufficient_scope`, `insufficient_user_authentication`, `insufficient_claims`, `invalid_request` | no |
//!    | only `Basic`, `Negotiate`, `Digest`; `DPoP` where it was not sent | no |
//!
//! 7. gRPC's UNAUTHENTICATED (16) in the headers of an HTTP/2 answer drops the token as well. In the trailers only a retry
//!    layer above sees it, which tells this one.
//! 8. `insufficient_scope` with 401 or 403 marks the answer [`ScopeMissing`](crate::extensions::ScopeMissing): another
//!    token of the same kind would not help.
//! 9. Text of a server stands in a marker only after control characters and the token itself were taken out of it.
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
//!     .replace_authorization()
//!     .refuse_other_origins();
//! let client = ServiceBuilder::new().layer(layer).service(http_client);
//! # Ok::<(), tower_oauth2::TokenError>(())
//! ```
//!
//! A gateway that passes a request on gives it the URI of the next server and takes `Host` off, which still names the
//! gateway itself and so would keep the token back; `examples/axum_gateway.rs` shows it.
//!
//! # Order
//!
//! This layer belongs below the retry layer: above it, a replay would carry the refused token again, so none is made.
//!
//! Whatever follows redirects belongs outside this layer, so that each hop is checked here. The HTTP client's own
//! redirects must be off: it would carry the header to wherever a server points.

mod future;
mod layer;
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
