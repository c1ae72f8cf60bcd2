//! Servers, sources and services in memory, for tests of programs that use this crate (feature `test-util`).
//!
//! ```toml
//! [dev-dependencies]
//! # It adds the kit, and nothing that the program itself would then miss.
//! tower-oauth2 = { version = "0.1", default-features = false, features = ["test-util"] }
//! ```
//!
//! | to test | take |
//! |---|---|
//! | what a program does when there is no token, an old one, a slow one | [`ScriptedSource`] in place of its source |
//! | what it sends, and what it makes of a response | [`Script`] in place of the API |
//! | all of it together | [`FakeAuthorizationServer`] and [`FakeApi`], within the process or on loopback |
//! | a client of Genesys Cloud or of NICE CXone | [`FakeGenesys`], [`FakeCxone`], which are strict and throttle |
//! | a client of Microsoft Entra, of GitHub or of Google Cloud | `FakeEntra`, `FakeGithub`, `FakeGoogle` (feature `jwt`), which verify signatures too |
//! | your own layer | [`Probe`], which insists on being polled ready, and [`BodyLog`] |
//! | time | [`pass`], [`settle`] and [`timed`], on tokio's paused clock |
//! | your own service over real connections | [`Loopback`] |
//!
//! 1. Within the process only the clock is waited for, so a test with a paused one takes milliseconds, even one about
//!    an hour of token lifetimes, a rate limit or an outage.
//! 2. The fakes check for real: clients, grants, scopes, lifetimes, revocations. They can be told to revoke, to be slow, to
//!    hang, to say 429 or 503, to break connections, and to go away and come back.
//! 3. They count. The count of a server is better evidence than the belief of a client.
//! 4. All that has a pace goes by tokio's clock; an assertion's `exp` alone goes by the machine's.
//! 5. Within the process they respond to every call, to any host in the URL. The layer keeps a token from other hosts; to
//!    check that, use a [`Script`].
//! 6. A cache that has met an outage without a valid token gives the same error for a while, also when the server is back:
//!    see [the rules](crate::cache), number 6. A test lets that time [`pass`].
//!
//! They keep everything in memory and hold no defence against strangers: no servers to put on a network.
//!
//! # Examples
//!
//! A program whose client takes its source and its HTTP service from outside can be tested without any server. Here a
//! token is refused, and the request must go out again with a new one:
//!
//! ```
//! use bytes::Bytes;
//! use http::Request;
//! use http_body_util::Full;
//! use tower::{Layer as _, ServiceExt as _};
//! use tower_oauth2::auth::AuthService;
//! use tower_oauth2::retry::RetryService;
//! use tower_oauth2::test_util::{ScriptedResponse, Script, ScriptedSource};
//! use tower_oauth2::{AuthLayer, RetryPolicy, Error, TokenSource};
//!
//! // The program:
//! fn client<S: Clone>(
//!     source: impl TokenSource,
//!     http: S,
//! ) -> Result<RetryService<AuthService<S>>, Error> {
//!     let auth = AuthLayer::for_origin(source, "https://api.example.com")?;
//!     Ok(RetryPolicy::default().layer(auth.layer(http)))
//! }
//!
//! // The test, under #[tokio::test(start_paused = true)]:
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?.block_on(async {
//! let source = ScriptedSource::new();
//! let api = Script::new([ScriptedResponse::invalid_token()]);
//! let client = client(source.clone(), api.probe())?;
//!
//! let request = Request::post("https://api.example.com/orders").body(Full::<Bytes>::from("an order"))?;
//! assert_eq!(client.oneshot(request).await?.status(), 200);
//!
//! let seen = api.seen();
//! assert_eq!(seen[0].head.headers["authorization"], "Bearer token-1");
//! assert_eq!(seen[1].head.headers["authorization"], "Bearer token-2");
//! assert_eq!(seen[1].body, "an order");
//! # Ok::<_, tower::BoxError>(())
//! # })?;
//! # Ok::<_, tower::BoxError>(())
//! ```
//!
//! An integration test with both servers in the process: revocation, a rate limit, expiry and an outage, in one go and in
//! no time:
//!
//! ```
//! use std::time::Duration;
//! use bytes::Bytes;
//! use http::Request;
//! use http_body_util::Full;
//! use tower::{ServiceBuilder, ServiceExt as _};
//! use tower_oauth2::test_util::{FakeApi, FakeAuthorizationServer, FakeClient, Trouble, pass, timed};
//! use tower_oauth2::{AuthLayer, ClientCredentials, RetryPolicy};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?.block_on(async {
//! let server = FakeAuthorizationServer::builder()
//!     .client(FakeClient::confidential("billing", "hunter2").scopes("orders:read"))
//!     .lifetime(Duration::from_secs(600))
//!     .build();
//! let api = FakeApi::builder(&server).required_scope("orders:read").build();
//!
//! let source =
//!     ClientCredentials::builder(server.token_url(), "billing", "hunter2").build_with(server.clone())?;
//! let client = ServiceBuilder::new()
//!     .layer(RetryPolicy::default())
//!     .layer(AuthLayer::for_origin(source, api.origin())?)
//!     .service(api.clone());
//! let get = async || {
//!     let request = Request::get(format!("{}/orders", api.origin())).body(Full::<Bytes>::default())?;
//!     Ok::<_, tower::BoxError>(client.clone().oneshot(request).await?.status())
//! };
//!
//! // The first request fetches a token, the second has it.
//! assert_eq!((get().await?, get().await?), (http::StatusCode::OK, http::StatusCode::OK));
//! assert_eq!(server.counts().tokens, 1);
//!
//! // Somebody revokes it: one 401, one new token, and the program never knows.
//! server.revoke_all();
//! assert_eq!(get().await?, 200);
//! assert_eq!((api.counts().revoked, server.counts().tokens), (1, 2));
//!
//! // The API wants a pause, and gets it.
//! api.fail_next(1, Trouble::TooManyRequests { retry_after: Duration::from_secs(30) });
//! let (status, took) = timed(get()).await;
//! assert_eq!(status?, 200);
//! assert!(took >= Duration::from_secs(30));
//!
//! // The authorization server is away while the token is renewed: the old one serves on.
//! server.stop().await;
//! pass(Duration::from_secs(500)).await;
//! assert_eq!(get().await?, 200);
//!
//! // It comes back after the end of that token: the next request waits for another.
//! pass(Duration::from_secs(200)).await;
//! server.restart().await?;
//! assert_eq!(get().await?, 200);
//! assert_eq!((api.counts().unauthorized, server.counts().tokens), (1, 3));
//! # Ok::<_, tower::BoxError>(())
//! # })?;
//! # Ok::<_, tower::BoxError>(())
//! ```

mod api;
mod assertions;
mod authorization_server;
mod body_log;
mod client;
mod cxone;
mod devices;
mod emulator;
mod endpoints;
#[cfg(feature = "jwt")]
mod entra;
mod genesys;
#[cfg(feature = "jwt")]
mod github;
#[cfg(feature = "jwt")]
mod google;
mod line;
mod loopback;
mod presence;
mod probe;
mod script;
#[cfg(feature = "jwt")]
mod signatures;
mod source;
mod strict;
mod time;
#[cfg(feature = "store")]
mod token_store;
mod tokens;
mod trouble;

pub use self::api::{ApiCounts, Caller, FakeApi, FakeApiBuilder};
pub use self::authorization_server::{
    AuthorizationServerCounts, FakeAuthorizationServer, FakeAuthorizationServerBuilder,
};
pub use self::body_log::{BodyLog, LoggedBody};
pub use self::client::FakeClient;
pub use self::cxone::{CxoneCounts, FakeCxone, FakeCxoneBuilder};
#[cfg(feature = "jwt")]
#[cfg_attr(docsrs, doc(cfg(feature = "jwt")))]
pub use self::entra::{EntraCounts, FakeEntra, FakeEntraBuilder};
pub use self::genesys::{FakeGenesys, FakeGenesysBuilder, GenesysCounts};
#[cfg(feature = "jwt")]
#[cfg_attr(docsrs, doc(cfg(feature = "jwt")))]
pub use self::github::{FakeGithub, FakeGithubBuilder, GithubCounts};
#[cfg(feature = "jwt")]
#[cfg_attr(docsrs, doc(cfg(feature = "jwt")))]
pub use self::google::{FakeGoogle, FakeGoogleBuilder, GoogleCounts};
pub use self::line::FakeFuture;
pub use self::loopback::Loopback;
pub use self::probe::{Probe, ProbeFuture, Readiness};
pub use self::script::{Script, ScriptedResponse, Seen, reply};
pub use self::source::ScriptedSource;
pub use self::time::{pass, settle, timed};
#[cfg(feature = "store")]
pub use self::token_store::check_token_store;
pub use self::trouble::Trouble;
