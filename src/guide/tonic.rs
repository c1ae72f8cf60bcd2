//! gRPC: tonic's channel below the layers, a generated client above them. That takes no code of ours, so this page is all
//! there is.
//!
//! 1. A generated client leaves the host to its channel, and its requests name a path alone.
//!    [`default_origin`](crate::AuthLayer::default_origin) says which origin that is. A client made by
//!    `with_origin` names it in each request, which is held against the list instead.
//! 2. A channel takes no body but tonic's own. `map_request` puts what the retry layer sends into one.
//! 3. UNAUTHENTICATED before any data: the token is dropped and the call made again with another, whether one message was
//!    asked for or a stream. Trailers that come by themselves after the headers may be seen too late for that. Then, and
//!    after data, the token is dropped and the caller gets the response: the next call has another token.
//! 4. `RESOURCE_EXHAUSTED` and `UNAVAILABLE` are retried when the server says (`grpc-retry-pushback-ms`, or
//!    `google.rpc.RetryInfo`), else with the policy's own waits. A 429, 502, 503 or 504 without a gRPC status counts as
//!    `UNAVAILABLE`; see [what is retried](crate::retry#what-is-retried-when).
//! 5. A client stream is not replayed: once a second message was sent, the call is made once, and the token is dropped all
//!    the same. Where the server does nothing before the stream has ended, `RetryOptions::replay_limit` in the call's
//!    extensions says how much of it is kept, and it arrives whole. Of a single message up to 64 KiB are kept, since gRPC
//!    never says how long a request is; `RetryPolicyBuilder::replay_stream_limit` raises that.
//! 6. An error of the layers becomes a `Status` with the code `Unknown` and the error as its source, where `downcast_ref`
//!    finds an [`Error`](crate::Error). A [`RetryReport`](crate::retry::RetryReport) is in the extensions of an
//!    response. A `Status` has none, but a [`ReportSlot`](crate::retry::ReportSlot) has it.
//! 7. `Request::set_timeout` is for each attempt. A [`Deadline`](crate::extensions::Deadline) in the request's extensions is
//!    for all of them and the waits between.
//!
//! An interceptor is not the place for tokens: it cannot wait for one, and never sees a response.
//!
//! # Examples
//!
//! The health service stands in for a client of your own; so it is with every one that tonic generates.
//!
//! ```no_run
//! use http::Request;
//! use tonic::body::Body;
//! use tonic::transport::{Channel, ClientTlsConfig};
//! use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
//! use tower::ServiceBuilder;
//! use tower_oauth2::{AuthLayer, RetryPolicy};
//! # use tower_oauth2::AccessToken;
//!
//! const API: &str = "https://api.example.com";
//!
//! # async fn example() -> Result<(), tower::BoxError> {
//! # let source = AccessToken::bearer("token")?;
//! let tls = ClientTlsConfig::new().with_enabled_roots();
//! let channel = ServiceBuilder::new()
//!     .layer(RetryPolicy::default())
//!     .layer(AuthLayer::for_origin(source, API)?.default_origin(API)?)
//!     .map_request(|request: Request<_>| request.map(Body::new))
//!     .service(Channel::from_static(API).tls_config(tls)?.connect_lazy());
//!
//! let mut client = HealthClient::new(channel);
//! let response = client.check(HealthCheckRequest::default()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! The name of all that, to keep it in a struct. It is not boxed, and costs a call with a token at hand no allocation on
//! its way:
//!
//! ```no_run
//! use http::Request;
//! use tonic::body::Body;
//! use tonic::transport::Channel;
//! use tonic_health::pb::health_client::HealthClient;
//! use tower::ServiceBuilder;
//! use tower::util::MapRequest;
//! use tower_oauth2::auth::{AuthLayer, AuthService};
//! use tower_oauth2::retry::{RequestBody, RetryPolicy, RetryService};
//!
//! type ToTonic = fn(Request<RequestBody<Body>>) -> Request<Body>;
//! type Api = RetryService<AuthService<MapRequest<Channel, ToTonic>>>;
//!
//! struct Billing {
//!     health: HealthClient<Api>,
//! }
//!
//! impl Billing {
//!     fn new(auth: AuthLayer, channel: Channel) -> Self {
//!         let to_tonic: ToTonic = |request| request.map(Body::new);
//!         let api = ServiceBuilder::new()
//!             .layer(RetryPolicy::default())
//!             .layer(auth)
//!             .map_request(to_tonic)
//!             .service(channel);
//!         Self { health: HealthClient::new(api) }
//!     }
//! }
//! ```
//!
//! tonic tells by an error of its own that it could not connect, after which nothing was sent and every call may be made
//! again. Errors below that are hyper's:
//!
#![cfg_attr(feature = "hyper-client", doc = "```")]
#![cfg_attr(not(feature = "hyper-client"), doc = "```text")]
//! use std::error::Error;
//! use std::iter::successors;
//!
//! use tower_oauth2::RetryPolicy;
//! use tower_oauth2::retry::Failure;
//! use tower_oauth2::transport::classify_hyper;
//!
//! fn classify(error: &(dyn Error + 'static)) -> Failure {
//!     let mut causes = successors(Some(error), |&error| error.source());
//!     match causes.any(<dyn Error>::is::<tonic::ConnectError>) {
//!         true => Failure::Unsent,
//!         false => classify_hyper(error),
//!     }
//! }
//!
//! let policy = RetryPolicy::builder().classifier(classify).build()?;
//! # Ok::<_, tower_oauth2::Error>(())
//! ```
//!
//! The example `tonic_client` is a whole program, with a server as well.
