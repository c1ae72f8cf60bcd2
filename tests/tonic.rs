//! The layers under a tonic client, over a real channel to a real tonic server.
//!
//! 1. A refusal that comes before any data is answered by another token, and the call is made again.
//! 2. One that comes after data drops the token, and the next call has another.
//! 3. What a caller streams is sent once, unless the caller says how much of it is to be kept.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test may panic, its helpers too, and it looks at the clock from outside"
)]

#[path = "support/grpc/items.rs"]
mod items;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::error::Error as StdError;
use std::future::{Ready, ready};
use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use allocation_counter::measure;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri, Version};
use http_body_util::combinators::WithTrailers;
use http_body_util::{BodyExt as _, Full};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::body::Body;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, ServerTlsConfig};
use tonic::{Code, ConnectError, Request as Call, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::util::MapRequest;
use tower::{BoxError, Layer as _, Service, ServiceBuilder};
use tower_oauth2::auth::{AuthLayer, AuthService};
use tower_oauth2::extensions::Deadline;
use tower_oauth2::retry::{
    Failure, ReplayReason, ReportSlot, RequestBody, RetryOptions, RetryReport, RetryService, StopReason,
};
use tower_oauth2::transport::classify_hyper;
use tower_oauth2::{AccessToken, Error, ErrorKind, RetryPolicy, TokenCache, source_fn};

use items::{ItemsClient, ItemsServer, Refusal};

/// The stack, by name, as somebody keeps it in a struct.
type Api = RetryService<AuthService<MapRequest<Channel, fn(Request<RequestBody<Body>>) -> Request<Body>>>>;

// --- Both ends ---

/// A server that refuses calls by script, and serves afterwards.
struct Server {
    origin: String,
    items: ItemsServer,
    tokens: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(script: impl IntoIterator<Item = Refusal>) -> Self {
        Self::start_with(script, None).await
    }

    async fn start_with(script: impl IntoIterator<Item = Refusal>, tls: Option<ServerTlsConfig>) -> Self {
        let script = Arc::new(Mutex::new(script.into_iter().collect::<VecDeque<_>>()));
        let tokens = Arc::<Mutex<Vec<String>>>::default();
        let log = Arc::clone(&tokens);
        let items = ItemsServer::new(move |metadata| {
            log.lock().unwrap().push(token(&metadata));
            ready(script.lock().unwrap().pop_front().map_or(Ok(()), Err))
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let origin = format!("{scheme}://{}", listener.local_addr().unwrap());
        let mut server = tonic::transport::Server::builder();
        if let Some(tls) = tls {
            server = server.tls_config(tls).unwrap();
        }
        let serve = server.add_service(items.clone()).serve_with_incoming(TcpIncoming::from(listener));
        let task = tokio::spawn(async move { serve.await.unwrap() });
        Self { origin, items, tokens, task }
    }

    fn channel(&self) -> Channel {
        Endpoint::from_shared(self.origin.clone()).unwrap().connect_lazy()
    }

    fn client(&self, cache: &TokenCache) -> ItemsClient<Api> {
        ItemsClient::new(stack(RetryPolicy::default(), &self.layer(cache), self.channel()))
    }

    fn layer(&self, cache: &TokenCache) -> AuthLayer {
        let layer = AuthLayer::for_origin(cache.clone(), self.origin.as_str()).unwrap();
        layer.default_origin(self.origin.as_str()).unwrap()
    }

    /// The tokens of the calls that came.
    fn tokens(&self) -> Vec<String> {
        self.tokens.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn stack(policy: RetryPolicy, auth: &AuthLayer, channel: Channel) -> Api {
    let to_tonic: fn(Request<RequestBody<Body>>) -> Request<Body> = |request| request.map(Body::new);
    ServiceBuilder::new().layer(policy).layer(auth).map_request(to_tonic).service(channel)
}

fn token(metadata: &MetadataMap) -> String {
    metadata.get("authorization").map_or("none", |value| value.to_str().unwrap()).to_owned()
}

/// Tokens `token-1`, `token-2`, and so on.
fn tokens() -> TokenCache {
    let issued = AtomicUsize::new(0);
    TokenCache::new(source_fn(move |_| {
        let number = issued.fetch_add(1, Ordering::SeqCst) + 1;
        ready(AccessToken::bearer(format!("token-{number}")))
    }))
}

fn refused() -> Status {
    Status::unauthenticated("the token was revoked")
}

fn busy(pushback: &'static str) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert("grpc-retry-pushback-ms", MetadataValue::from_static(pushback));
    Status::with_metadata(Code::ResourceExhausted, "busy", metadata)
}

const HELLO: Bytes = Bytes::from_static(b"hello");

// --- Where requests go ---

#[tokio::test]
async fn a_channel_knows_the_host_and_the_layer_is_told() {
    let server = Server::start([]).await;
    let cache = tokens();
    assert_eq!(server.client(&cache).read(HELLO).await.unwrap().into_inner(), HELLO);
    assert_eq!(server.tokens(), ["Bearer token-1"]);
}

#[tokio::test]
async fn a_client_with_an_origin_names_the_host_itself() {
    let server = Server::start([]).await;
    let auth = AuthLayer::for_origin(tokens(), server.origin.as_str()).unwrap();
    let api = stack(RetryPolicy::default(), &auth, server.channel());
    let origin: Uri = server.origin.parse().unwrap();
    let mut client = ItemsClient::with_origin(api, origin);
    assert_eq!(client.read(HELLO).await.unwrap().into_inner(), HELLO);
    assert_eq!(server.tokens(), ["Bearer token-1"]);
}

#[tokio::test]
async fn a_layer_that_was_not_told_the_host_says_what_to_do() {
    let server = Server::start([]).await;
    let auth = AuthLayer::for_origin(tokens(), server.origin.as_str()).unwrap();
    let mut client = ItemsClient::new(stack(RetryPolicy::default(), &auth, server.channel()));
    let status = client.read(HELLO).await.unwrap_err();
    assert!(status.message().contains("AuthLayer::default_origin"), "{status}");
    assert!(server.tokens().is_empty());
}

#[tokio::test]
async fn an_origin_that_is_not_on_the_list_gets_no_token() {
    let server = Server::start([]).await;
    let auth = AuthLayer::for_origin(tokens(), "https://api.example.com").unwrap();
    let origin: Uri = server.origin.parse().unwrap();
    let api = stack(RetryPolicy::default(), &auth, server.channel());
    ItemsClient::with_origin(api, origin).read(HELLO).await.unwrap();
    assert_eq!(server.tokens(), ["none"]);
}

// --- Refused tokens ---

#[tokio::test]
async fn a_unary_call_that_is_refused_is_made_again_with_another_token() {
    let server = Server::start([Refusal::AtOnce(refused())]).await;
    let response = server.client(&tokens()).read(HELLO).await.unwrap();
    let report = response.extensions().get::<RetryReport>().unwrap();
    assert_eq!((report.attempts(), report.history()[0].reason()), (2, ReplayReason::TokenRejected));
    assert_eq!(response.into_inner(), HELLO);
    assert_eq!(server.tokens(), ["Bearer token-1", "Bearer token-2"]);
}

#[tokio::test]
async fn a_second_refusal_is_the_callers() {
    let server = Server::start([Refusal::AtOnce(refused()), Refusal::AtOnce(refused())]).await;
    let slot = ReportSlot::new();
    let mut call = Call::new(HELLO);
    call.extensions_mut().insert(RetryOptions::new().report_to(&slot));
    let status = server.client(&tokens()).read(call).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "the token was revoked"));
    assert_eq!(slot.take().unwrap().stop_reason(), &StopReason::AuthReplaysExhausted);
    assert_eq!(server.tokens(), ["Bearer token-1", "Bearer token-2"]);
}

/// Headers and trailers may come in one piece or one after the other: whether the call can be made again depends on that.
/// The token is dropped either way, and the caller never gets anything but an answer of the server's.
#[tokio::test]
async fn a_refusal_in_trailers_without_data_never_keeps_the_token() {
    let server = Server::start([Refusal::WithoutData(refused())]).await;
    let cache = tokens();
    let mut client = server.client(&cache);
    match client.read(HELLO).await {
        Ok(response) => assert_eq!(response.into_inner(), HELLO),
        Err(status) => assert_eq!((status.code(), cache.peek().is_none()), (Code::Unauthenticated, true)),
    }
    assert_eq!(client.read(HELLO).await.unwrap().into_inner(), HELLO);
    assert_eq!(server.tokens()[..2], ["Bearer token-1", "Bearer token-2"]);
}

#[tokio::test]
async fn a_refusal_after_data_drops_the_token_and_nothing_is_sent_again() {
    let server = Server::start([Refusal::AtTheEnd(refused())]).await;
    let cache = tokens();
    let mut client = server.client(&cache);
    let mut answer = client.list(HELLO).await.unwrap().into_inner();
    for _ in 0..3 {
        assert_eq!(answer.message().await.unwrap().unwrap(), HELLO);
    }
    assert!(cache.peek().is_some());
    assert_eq!(answer.message().await.unwrap_err().code(), Code::Unauthenticated);
    assert!(cache.peek().is_none());
    assert_eq!(server.tokens(), ["Bearer token-1"]);
    client.read(HELLO).await.unwrap();
    assert_eq!(server.tokens(), ["Bearer token-1", "Bearer token-2"]);
}

#[tokio::test]
async fn another_refusal_keeps_the_token() {
    let denied = Status::permission_denied("not for you");
    let server = Server::start([Refusal::AtOnce(denied)]).await;
    let cache = tokens();
    let status = server.client(&cache).read(HELLO).await.unwrap_err();
    assert_eq!((status.code(), server.tokens().len()), (Code::PermissionDenied, 1));
    assert!(cache.peek().is_some());
}

#[tokio::test]
async fn without_a_token_the_status_says_whose_side_it_is() {
    let server = Server::start([]).await;
    let cache = TokenCache::new(source_fn(|_| {
        ready(Err::<AccessToken, _>(Error::new(ErrorKind::Grant, "the client was refused")))
    }));
    let status = server.client(&cache).read(HELLO).await.unwrap_err();
    assert_eq!(status.code(), Code::Unknown);
    assert!(status.source().unwrap().is::<Error>());
    assert!(status.message().contains("the client was refused") && server.tokens().is_empty());
}

// --- Streams ---

/// More than is kept of a body whose length nobody knows.
fn long_stream() -> Vec<Bytes> {
    (0..8).map(|at| Bytes::from(vec![at; 100 * 1024])).collect()
}

#[tokio::test]
async fn a_stream_of_the_servers_comes_as_it_is_sent() {
    let server = Server::start([]).await;
    let answer = server.client(&tokens()).list(HELLO).await.unwrap();
    assert!(answer.extensions().get::<RetryReport>().is_none());
    let messages: Vec<_> = answer.into_inner().map(Result::unwrap).collect().await;
    assert_eq!(messages, [HELLO, HELLO, HELLO]);
}

#[tokio::test]
async fn a_stream_of_the_servers_that_is_refused_at_once_is_asked_for_again() {
    let server = Server::start([Refusal::AtOnce(refused())]).await;
    let answer = server.client(&tokens()).list(HELLO).await.unwrap();
    assert_eq!(answer.into_inner().count().await, 3);
    assert_eq!(server.tokens(), ["Bearer token-1", "Bearer token-2"]);
}

#[tokio::test]
async fn a_client_stream_arrives_whole_and_once() {
    let server = Server::start([]).await;
    let messages = long_stream();
    let answer = server.client(&tokens()).write(stream::iter(messages.clone())).await.unwrap();
    let digest = ItemsServer::digest(&messages);
    assert_eq!(answer.into_inner(), digest);
    assert_eq!(server.items.received(), [digest]);
}

#[tokio::test]
async fn a_client_stream_is_not_sent_again() {
    for messages in [long_stream(), vec![HELLO, Bytes::new(), HELLO]] {
        for refusal in [Refusal::AtOnce(refused()), Refusal::AtTheEnd(refused())] {
            let read_first = matches!(refusal, Refusal::AtTheEnd(_));
            let server = Server::start([refusal]).await;
            let cache = tokens();
            let mut client = server.client(&cache);
            let status = client.write(stream::iter(messages.clone())).await.unwrap_err();
            assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "the token was revoked"));
            assert_eq!(server.tokens(), ["Bearer token-1"]);
            // The token is dropped all the same, so that the caller's own next try is right.
            assert!(cache.peek().is_none());
            client.write(stream::iter(messages.clone())).await.unwrap();
            assert_eq!(server.tokens(), ["Bearer token-1", "Bearer token-2"]);
            let digest = ItemsServer::digest(&messages);
            assert_eq!(server.items.received(), vec![digest; if read_first { 2 } else { 1 }]);
        }
    }
}

#[tokio::test]
async fn a_client_stream_that_is_refused_at_its_first_message_arrives_whole_and_once() {
    let server = Server::start([Refusal::AtOnce(refused())]).await;
    let (sender, receiver) = mpsc::channel(1);
    let stream = stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
    let mut client = server.client(&tokens());
    let answer = tokio::spawn(async move { client.write(Box::pin(stream)).await });
    // What comes later is sent by the second attempt, after what the first had sent.
    sender.send(HELLO).await.unwrap();
    while server.tokens().len() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    sender.send(HELLO).await.unwrap();
    drop(sender);
    let digest = ItemsServer::digest(&[HELLO, HELLO]);
    assert_eq!(answer.await.unwrap().unwrap().into_inner(), digest);
    assert_eq!(server.items.received(), [digest]);
    assert_eq!(server.tokens(), ["Bearer token-1", "Bearer token-2"]);
}

#[tokio::test]
async fn a_client_stream_is_sent_again_whose_caller_says_how_much_of_it_is_kept() {
    let server = Server::start([Refusal::AtOnce(refused())]).await;
    let messages = long_stream();
    let mut call = Call::new(stream::iter(messages.clone()));
    call.extensions_mut().insert(RetryOptions::new().replay_limit(1024 * 1024));
    let answer = server.client(&tokens()).write(call).await.unwrap();
    let digest = ItemsServer::digest(&messages);
    assert_eq!(answer.into_inner(), digest);
    assert_eq!(server.items.received(), [digest]);
    assert_eq!(server.tokens(), ["Bearer token-1", "Bearer token-2"]);
}

#[tokio::test]
async fn a_call_that_must_not_be_made_twice_says_so() {
    let server = Server::start([Refusal::AtTheEnd(refused())]).await;
    let cache = tokens();
    let mut call = Call::new(stream::iter([HELLO]));
    call.extensions_mut().insert(RetryOptions::never());
    let status = server.client(&cache).write(call).await.unwrap_err();
    assert_eq!((status.code(), server.items.received().len()), (Code::Unauthenticated, 1));
    assert!(cache.peek().is_none() && server.tokens().len() == 1);
}

#[tokio::test]
async fn a_conversation_goes_to_and_fro_and_its_end_counts_for_the_next() {
    let server = Server::start([Refusal::AtTheEnd(refused())]).await;
    let cache = tokens();
    let mut client = server.client(&cache);
    let (sender, receiver) = mpsc::channel(1);
    let stream = stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
    let mut answers = client.talk(Box::pin(stream)).await.unwrap().into_inner();
    // Longer than what is kept: nothing of it may be held back.
    for round in 0..20_u8 {
        let message = Bytes::from(vec![round; 8 * 1024]);
        sender.send(message.clone()).await.unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(10), answers.message()).await;
        assert_eq!(answer.expect("a message is held back").unwrap().unwrap(), message);
    }
    drop(sender);
    assert!(cache.peek().is_some());
    assert_eq!(answers.message().await.unwrap_err().code(), Code::Unauthenticated);
    assert!(cache.peek().is_none());
    assert_eq!(server.tokens(), ["Bearer token-1"]);
}

// --- Waits ---

#[tokio::test]
async fn an_exhausted_server_is_asked_again_when_it_says() {
    for (pushback, wait) in [("0", Duration::ZERO), ("80", Duration::from_millis(80))] {
        let server = Server::start([Refusal::AtOnce(busy(pushback))]).await;
        let mut client = server.client(&tokens());
        let started = Instant::now();
        let response = client.read(HELLO).await.unwrap();
        let report = response.extensions().get::<RetryReport>().unwrap();
        assert_eq!(report.history()[0].reason(), ReplayReason::Throttled);
        assert_eq!(report.history()[0].requested_delay(), Some(wait));
        assert!(started.elapsed() >= wait);
        assert_eq!(server.tokens(), ["Bearer token-1", "Bearer token-1"]);
    }
}

#[tokio::test]
async fn an_exhausted_server_that_forbids_is_not_asked_again() {
    let server = Server::start([Refusal::AtOnce(busy("-1"))]).await;
    let slot = ReportSlot::new();
    let mut call = Call::new(HELLO);
    call.extensions_mut().insert(RetryOptions::new().report_to(&slot));
    let status = server.client(&tokens()).read(call).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, "busy"));
    assert_eq!(slot.take().unwrap().stop_reason(), &StopReason::DoNotRetry);
    assert_eq!(server.tokens().len(), 1);
}

#[tokio::test]
async fn a_wait_beyond_the_deadline_is_not_begun() {
    let server = Server::start([Refusal::AtOnce(busy("30000"))]).await;
    let mut call = Call::new(HELLO);
    call.extensions_mut().insert(Deadline::within(Duration::from_secs(10)));
    let started = Instant::now();
    let status = server.client(&tokens()).read(call).await.unwrap_err();
    assert_eq!((status.code(), server.tokens().len()), (Code::ResourceExhausted, 1));
    assert!(started.elapsed() < Duration::from_secs(10));
}

/// tonic has an error type of its own for a connection that could not be made.
fn classify(error: &(dyn StdError + 'static)) -> Failure {
    let mut causes = std::iter::successors(Some(error), |&error| error.source());
    match causes.any(<dyn StdError>::is::<ConnectError>) {
        true => Failure::Unsent,
        false => classify_hyper(error),
    }
}

#[tokio::test]
async fn a_call_that_found_no_server_is_made_again_if_the_policy_knows_tonics_errors() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let origin = format!("http://{address}");
    for (policy, calls) in [
        (RetryPolicy::default(), 1),
        (RetryPolicy::builder().max_retries(1).classifier(classify).build().unwrap(), 2),
    ] {
        let auth = AuthLayer::for_origin(tokens(), origin.as_str()).unwrap();
        let auth = auth.default_origin(origin.as_str()).unwrap();
        let channel = Endpoint::from_shared(origin.clone()).unwrap().connect_lazy();
        let slot = ReportSlot::new();
        let mut call = Call::new(HELLO);
        call.extensions_mut().insert(RetryOptions::new().report_to(&slot));
        let status = ItemsClient::new(stack(policy, &auth, channel)).read(call).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(slot.take().map_or(1, |report| report.attempts()), calls);
    }
}

// --- As users have it ---

#[tokio::test]
async fn over_tls() {
    let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (certificate, private) = (key.cert.pem(), key.signing_key.serialize_pem());
    let tls = ServerTlsConfig::new().identity(Identity::from_pem(&certificate, private));
    let server = Server::start_with([Refusal::AtOnce(refused())], Some(tls)).await;
    assert!(server.origin.starts_with("https://"));
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(certificate));
    let endpoint = Endpoint::from_shared(server.origin.clone()).unwrap().tls_config(tls).unwrap();
    let auth = server.layer(&tokens());
    let mut client = ItemsClient::new(stack(RetryPolicy::default(), &auth, endpoint.connect_lazy()));
    assert_eq!(client.read(HELLO).await.unwrap().into_inner(), HELLO);
    assert_eq!(server.tokens(), ["Bearer token-1", "Bearer token-2"]);
}

#[tokio::test]
async fn under_a_client_that_was_generated() {
    let (_reporter, health) = tonic_health::server::health_reporter();
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let guarded = InterceptedService::new(health, move |call: Call<()>| {
        match (count.fetch_add(1, Ordering::SeqCst), token(call.metadata()).as_str()) {
            (0, "Bearer token-1") => Err(refused()),
            (_, "Bearer token-2") => Ok(call),
            (at, other) => panic!("call {at} came with {other}"),
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let server = tonic::transport::Server::builder().add_service(guarded);
    let server = tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));

    let auth = AuthLayer::for_origin(tokens(), origin.as_str()).unwrap();
    let mut client = HealthClient::new(
        ServiceBuilder::new()
            .layer(RetryPolicy::default())
            .layer(auth.default_origin(origin.as_str()).unwrap())
            .map_request(|request: Request<_>| request.map(Body::new))
            .service(Endpoint::from_shared(origin).unwrap().connect_lazy()),
    );
    let answer = client.check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(answer.into_inner().status, 1);
    let mut watched = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().status, 1);
    assert_eq!(calls.load(Ordering::SeqCst), 3);
    server.abort();
}

/// The code itself is compiled with the docs.
#[test]
fn the_page_gets_to_the_first_call_in_20_lines() {
    let page = include_str!("../src/guide/tonic.rs");
    let code = page.split("```no_run\n").nth(1).unwrap().split("```").next().unwrap();
    let lines = code.lines().map(|line| line.trim_start_matches("//!").trim());
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#')).count();
    assert!(code.contains("client.check(") && (10..=20).contains(&lines), "{lines} lines");
}

#[tokio::test]
async fn many_calls_share_one_token_and_one_refresh() {
    let server = Server::start([]).await;
    let cache = tokens();
    let client = server.client(&cache);
    let calls = (0..64).map(|_| {
        let mut client = client.clone();
        async move { client.read(HELLO).await.unwrap() }
    });
    futures_util::future::join_all(calls).await;
    assert_eq!(server.tokens(), vec!["Bearer token-1"; 64]);
}

// --- What it costs ---

/// A channel that answers at once.
#[derive(Clone, Copy, Debug)]
struct AtOnce {
    /// Whether it says only in trailers what became of a call.
    late: bool,
}

type Said = WithTrailers<Full<Bytes>, Ready<Option<Result<HeaderMap, Infallible>>>>;

/// One message of no bytes.
const MESSAGE: Bytes = Bytes::from_static(&[0; 5]);

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))])
}

/// A future that would be seen if it were boxed, by its size.
struct Answered {
    late: bool,
    bulk: [u8; 4096],
}

impl Future for Answered {
    type Output = Result<Response<Said>, BoxError>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        let mut response = Response::new(Full::from(MESSAGE).with_trailers(ready(Some(Ok(trailers())))));
        *response.version_mut() = Version::HTTP_2;
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        if !self.late {
            response.headers_mut().extend(trailers());
        }
        assert_eq!(self.bulk[0], 0);
        Poll::Ready(Ok(response))
    }
}

impl<B> Service<Request<B>> for AtOnce {
    type Response = Response<Said>;
    type Error = BoxError;
    type Future = Answered;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Answered {
        drop(request);
        Answered { late: self.late, bulk: [0; 4096] }
    }
}

#[test]
fn no_future_of_ours_is_boxed() {
    type Future<S> = <S as Service<Request<Body>>>::Future;
    let inner = mem::size_of::<Answered>();
    assert!(mem::size_of::<Future<AuthService<AtOnce>>>() >= inner);
    assert!(mem::size_of::<Future<RetryService<AuthService<AtOnce>>>>() >= inner);
    // Nor does anything stand between them and the channel's own: this compiles for no boxed one.
    fn is<S, I, R>()
    where
        S: Service<Request<Body>, Future = tower_oauth2::retry::ResponseFuture<I, Body>>,
        I: Service<Request<RequestBody<Body>>, Response = Response<R>, Error: Into<BoxError>> + Clone,
        R: http_body::Body<Error: Into<BoxError>>,
    {
    }
    is::<Api, AuthService<MapRequest<Channel, fn(Request<RequestBody<Body>>) -> Request<Body>>>, _>();
}

#[test]
fn a_call_whose_token_is_at_hand_allocates_nothing_for_it() {
    // Where the end of the call is still to come, auth hangs on the answer whom to tell of a refusal: the three are
    // those that a map of extensions makes for its first entry.
    for (channel, added) in [(AtOnce { late: false }, 0), (AtOnce { late: true }, 3)] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let cache = tokens();
        runtime.block_on(cache.get()).unwrap();
        let layer = AuthLayer::for_origin(cache, "https://api.example.com").unwrap();
        let layer = layer.default_origin("https://api.example.com").unwrap();
        let (mut bare, mut ours) = (ItemsClient::new(channel), ItemsClient::new(layer.layer(channel)));
        let mut allocations = Vec::new();
        // The first calls make what the later ones share.
        for _ in 0..5 {
            let bare = measure(|| drop(runtime.block_on(bare.read(HELLO)).unwrap()));
            let ours = measure(|| drop(runtime.block_on(ours.read(HELLO)).unwrap()));
            allocations.push((bare.count_total, ours.count_total));
        }
        let (bare, ours) = allocations[4];
        assert!(bare > 0 && ours == bare + added, "{channel:?}: {allocations:?}");
    }
}
