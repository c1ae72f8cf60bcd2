//! reqwest: its client under the layers of this crate, and at the token endpoint.
//!
//! 1. [`ReqwestClient`](crate::transport::ReqwestClient) makes a tower HTTP service of a `reqwest::Client`, for bodies of any type. Both bodies stream, trailers and
//!    lengths included, and nothing of them is held back. The head goes out as it is, with the default headers of that client
//!    and `accept: */*` where there are none.
//! 2. Errors are reqwest's own: `downcast_ref::<reqwest::Error>()` finds them in what a layer returns. They name the URL of
//!    the request, as they always do. In the sources of an [`ApiError`](crate::client::ApiError) they do not.
//! 3. [`classify_reqwest`](crate::transport::classify_reqwest) says which of them mean that nothing was sent. Give it to the retry policy: without it a POST to a server
//!    that cannot be reached is not sent again.
//! 4. A client by [`ReqwestClient::build`](crate::transport::ReqwestClient::build) serves the token endpoint too. It is built by
//!    reqwest's own builder with the options you like. Then redirects and retries are switched off, and `connection_verbose`,
//!    which would write tokens and secrets into the log. The token endpoint refuses a ready-made client, however it was made:
//!    this crate cannot see whether it follows redirects, and after a 307 it would send the client secret to another server.
//! 5. TLS, proxies, certificates, cookies and timeouts are reqwest's. This crate switches none of its features on. Without
//!    one for TLS `https` does not work, and the error of the token endpoint says so. An h2 connection that has gone dead is
//!    found by its `http2_keep_alive_interval`, which is off unless you set it.
//! 6. reqwest reads each URI once more, by the rules of browsers. Dots in its path are resolved (`/a/../b` goes out as
//!    `/b`). A host that it would write in another way (`127.1`) is an error, so no request goes where auth has not looked.
//!    The extensions of a request end here.
//!
//! # Examples
//!
//! ```no_run
//! use tower::ServiceBuilder;
//! use tower_oauth2::transport::{ReqwestClient, classify_reqwest};
//! use tower_oauth2::{AuthLayer, ClientCredentials, Secret, RetryPolicy};
//! # use bytes::Bytes;
//! # use http_body_util::Full;
//! # use tower::ServiceExt as _;
//!
//! # async fn example() -> Result<(), tower::BoxError> {
//! let http = ReqwestClient::build(|builder| builder.user_agent("billing/1.0"))?;
//! let secret = Secret::from_env("CLIENT_SECRET");
//! let source = ClientCredentials::builder("https://login.example.com/oauth/token", "billing", secret)
//!     .build_with(http.clone())?;
//! let client = ServiceBuilder::new()
//!     .layer(RetryPolicy::builder().classifier(classify_reqwest).build()?)
//!     .layer(AuthLayer::for_origin(source, "https://api.example.com")?)
//!     .service(http);
//! # let request = http::Request::get("https://api.example.com/").body(Full::<Bytes>::default())?;
//! # client.oneshot(request).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # A client that is there already
//!
//! [`ReqwestClient::new`](crate::transport::ReqwestClient::new) takes any. Its own redirects and retries should be off:
//!
//! ```
//! use tower_oauth2::transport::ReqwestClient;
//!
//! let client = reqwest::Client::builder()
//!     .redirect(reqwest::redirect::Policy::none())
//!     .retry(reqwest::retry::never())
//!     .build()?;
//! let client = ReqwestClient::new(client);
//! # Ok::<_, reqwest::Error>(())
//! ```
//!
//! Where they are not:
//!
//! - A redirect of a request without a body is followed below auth, which sees the last response only. To another origin
//!   reqwest takes `Authorization`, `Cookie` and `Proxy-Authorization` off, and nothing else: a token in a header of its
//!   own ([`AuthLayer::header`](crate::AuthLayer::header)) goes along. The response of that origin counts as the API's: its 401
//!   costs a good token, and the replay another one.
//! - A 307 or 308 of a request with a body is returned, and reqwest's own retries repeat nothing: it can send again only
//!   what it holds in memory itself, and takes the bodies of these layers for streams.
//! - A `timeout` is one for each attempt, from connecting to the end of the body.
//!
//! # Beside reqwest-middleware
//!
//! Its client is a tower service too, so it can stand below:
//!
//! ```
//! use reqwest_middleware::ClientBuilder;
//! use tower::ServiceBuilder;
//! use tower_oauth2::transport::{ReqwestClient, classify_reqwest};
//! use tower_oauth2::{AccessToken, AuthLayer, RetryPolicy};
//! # use bytes::Bytes;
//! # use http_body_util::Full;
//! # use tower::ServiceExt as _;
//!
//! # async fn example() -> Result<(), tower::BoxError> {
//! let with_middleware = ClientBuilder::new(reqwest::Client::new()).build();
//! let client = ServiceBuilder::new()
//!     .layer(RetryPolicy::builder().classifier(classify_reqwest).build()?)
//!     .layer(AuthLayer::for_origin(AccessToken::bearer("A1")?, "https://api.example.com")?)
//!     .service(ReqwestClient::new(with_middleware));
//! # let request = http::Request::get("https://api.example.com/").body(Full::<Bytes>::default())?;
//! # client.oneshot(request).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Then every attempt passes by its middlewares, with the token on it. Where the calls must stay as they are, the layers
//! become one of them, the innermost:
//!
//! ```
//! use http::Extensions;
//! use reqwest::{Request, Response};
//! use reqwest_middleware::{ClientBuilder, Error, Middleware, Next};
//! use tower::util::BoxCloneSyncService;
//! use tower::{BoxError, ServiceBuilder, ServiceExt as _};
//! use tower_oauth2::transport::{ReqwestClient, classify_reqwest};
//! use tower_oauth2::{AccessToken, AuthLayer, RetryPolicy};
//!
//! type Layered = BoxCloneSyncService<http::Request<reqwest::Body>, http::Response<reqwest::Body>, BoxError>;
//!
//! struct Authorized(Layered);
//!
//! #[async_trait::async_trait]
//! impl Middleware for Authorized {
//!     // What follows is not asked: the client below the layers is the end of the chain.
//!     async fn handle(&self, request: Request, _: &mut Extensions, _: Next<'_>) -> Result<Response, Error> {
//!         let response = self.0.clone().oneshot(http::Request::try_from(request)?).await;
//!         Ok(response.map_err(anyhow::Error::from_boxed)?.into())
//!     }
//! }
//!
//! let layered = ServiceBuilder::new()
//!     .map_response(|response: http::Response<_>| response.map(reqwest::Body::wrap))
//!     .layer(RetryPolicy::builder().classifier(classify_reqwest).build()?)
//!     .layer(AuthLayer::for_origin(AccessToken::bearer("A1")?, "https://api.example.com")?)
//!     .service(ReqwestClient::build(|builder| builder)?);
//! let authorized = Authorized(BoxCloneSyncService::new(layered));
//! let client = ClientBuilder::new(reqwest::Client::new()).with(authorized).build();
//! # Ok::<_, BoxError>(())
//! ```
