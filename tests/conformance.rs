//! The same promises under every HTTP client, over real connections, in one table.
//!
//! | case | promise |
//! |---|---|
//! | cold start | 50 requests at once without a token make one token request |
//! | revocation | all tokens are revoked while 16 tasks send: no request fails, and one token request more is made |
//! | upload | a 401 in the middle of a streamed body of 8 MiB: it arrives whole, and once |
//! | limit | an API that cannot keep up is waited for: no request fails |
//! | redirect | one that leads to another origin takes no token there |
//!
//! A cell that makes no sense for a client says why, and counts neither as passed nor as failed.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test may panic, its helpers too; it looks at the clock from outside, and shows its table"
)]

#[path = "support/grpc/introspection.rs"]
mod introspection;
#[path = "support/grpc/items.rs"]
mod items;
#[path = "support/servers/mod.rs"]
mod support;

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::response::Redirect;
use axum::routing::get;
use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use futures_util::stream::{self, StreamExt as _};
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::{BoxBody, UnsyncBoxBody};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tonic::Status;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::Endpoint;
use tonic::transport::server::TcpIncoming;
use tower::util::{BoxCloneSyncService, MapRequest};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt as _};
use tower_http::follow_redirect::FollowRedirect;
use tower_oauth2::auth::AuthService;
use tower_oauth2::extensions::TokenWithheld;
use tower_oauth2::retry::{RequestBody, ResponseBody, RetryOptions, RetryService};
use tower_oauth2::test_util::{FakeAuthorizationServer, FakeClient, Loopback};
use tower_oauth2::transport::{HyperClient, ReqwestClient};
use tower_oauth2::{AuthLayer, ClientCredentials, RetryPolicy, TokenCache};

use introspection::Introspection;
use items::{ItemsClient, ItemsServer, Refusal};
use support::Api;

// --- The table ---

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Under {
    HyperHttp1,
    HyperH2,
    ReqwestHttp1,
    ReqwestH2,
    Tonic,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    ColdStart,
    Revocation,
    Upload,
    Limit,
    Redirect,
}

const CLIENTS: [Under; 5] =
    [Under::HyperHttp1, Under::HyperH2, Under::ReqwestHttp1, Under::ReqwestH2, Under::Tonic];
const CASES: [Case; 5] = [Case::ColdStart, Case::Revocation, Case::Upload, Case::Limit, Case::Redirect];

/// The cells that make no sense, and why. There is no other way out of a cell but to pass it.
const NOT_APPLICABLE: [(Case, Under, &str); 1] = [(Case::Redirect, Under::Tonic, "gRPC knows no redirects")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_client_keeps_every_promise() {
    let cells = CASES.iter().flat_map(|case| CLIENTS.iter().map(|under| (*case, *under)));
    let outcomes = join_all(cells.map(async |(case, under)| (case, under, outcome(case, under).await))).await;
    let (mut passed, mut not_applicable, mut failed) = (0, 0, 0);
    for (case, under, outcome) in outcomes {
        println!("{case:?} under {under:?}: {outcome}");
        match outcome {
            Outcome::Passed => passed += 1,
            Outcome::NotApplicable(_) => not_applicable += 1,
            Outcome::Failed(_) => failed += 1,
        }
    }
    println!("conformance: passed={passed} not_applicable={not_applicable} failed={failed}");
    let cells = CASES.len() * CLIENTS.len();
    assert_eq!(
        (passed, not_applicable, failed),
        (cells - NOT_APPLICABLE.len(), NOT_APPLICABLE.len(), 0),
        "see the table above"
    );
}

async fn outcome(case: Case, under: Under) -> Outcome {
    if let Some((.., reason)) = NOT_APPLICABLE.iter().find(|cell| (cell.0, cell.1) == (case, under)) {
        return Outcome::NotApplicable(reason);
    }
    match tokio::time::timeout(Duration::from_secs(60), run(case, under)).await {
        Ok(Ok(())) => Outcome::Passed,
        Ok(Err(error)) => Outcome::Failed(error.to_string()),
        Err(_) => Outcome::Failed("it hangs".to_owned()),
    }
}

enum Outcome {
    Passed,
    NotApplicable(&'static str),
    Failed(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passed"),
            Self::NotApplicable(reason) => write!(f, "not applicable: {reason}"),
            Self::Failed(reason) => write!(f, "FAILED: {reason}"),
        }
    }
}

async fn run(case: Case, under: Under) -> Result<(), BoxError> {
    match (case, under) {
        (Case::ColdStart, Under::Tonic) => grpc::cold_start().await,
        (Case::Revocation, Under::Tonic) => grpc::revocation().await,
        (Case::Upload, Under::Tonic) => grpc::upload().await,
        (Case::Limit, Under::Tonic) => grpc::limit().await,
        (Case::Redirect, Under::Tonic) => Err("there is no such case".into()),
        (Case::ColdStart, _) => cold_start(under).await,
        (Case::Revocation, _) => revocation(under).await,
        (Case::Upload, _) => upload(under).await,
        (Case::Limit, _) => limit(under).await,
        (Case::Redirect, _) => redirect(under).await,
    }
}

/// Fails a cell if a figure is off.
#[allow(clippy::needless_pass_by_value, reason = "figures come as they are")]
fn expect<T: PartialEq + fmt::Debug>(what: &str, seen: T, expected: T) -> Result<(), BoxError> {
    match seen == expected {
        true => Ok(()),
        false => Err(format!("{what}: {seen:?}, expected {expected:?}").into()),
    }
}

fn expect_that(what: &str, holds: bool) -> Result<(), BoxError> {
    if holds { Ok(()) } else { Err(what.into()) }
}

// --- The clients ---

type SentBody = BoxBody<Bytes, BoxError>;
type ReceivedBody = UnsyncBoxBody<Bytes, BoxError>;

/// A client with all its layers, whatever it is made of.
type Http = BoxCloneSyncService<Request<SentBody>, Response<ReceivedBody>, BoxError>;

fn http(under: Under, policy: RetryPolicy, auth: &AuthLayer) -> Result<Http, BoxError> {
    let client = match under {
        Under::HyperHttp1 | Under::HyperH2 => {
            let client = legacy::Client::builder(TokioExecutor::new())
                .http2_only(under == Under::HyperH2)
                .build_http::<RequestBody<SentBody>>();
            erase(policy, auth, client)
        }
        Under::ReqwestHttp1 => erase(policy, auth, ReqwestClient::build(|builder| builder.http1_only())?),
        Under::ReqwestH2 => {
            erase(policy, auth, ReqwestClient::build(|builder| builder.http2_prior_knowledge())?)
        }
        Under::Tonic => return Err("its cases are in a module of their own".into()),
    };
    Ok(client)
}

/// Puts the layers on a client, and forgets what it is.
fn erase<S, R>(policy: RetryPolicy, auth: &AuthLayer, client: S) -> Http
where
    S: Service<Request<RequestBody<SentBody>>, Response = Response<R>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    R: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let client = ServiceBuilder::new()
        .map_response(|response: Response<ResponseBody<R>>| response.map(|body| body.boxed_unsync()))
        .layer(policy)
        .layer(auth)
        .service(client);
    BoxCloneSyncService::new(client)
}

fn empty() -> SentBody {
    Empty::new().map_err(|never: Infallible| match never {}).boxed()
}

async fn get_ok(client: Http, url: String) -> Result<(), BoxError> {
    let response = client.oneshot(Request::get(url).body(empty())?).await?;
    let status = response.status();
    response.into_body().collect().await?;
    expect("status", status, StatusCode::OK)
}

// --- The servers ---

/// A token takes so long that every request of a cold start comes meanwhile.
const LATENCY: Duration = Duration::from_millis(100);

async fn authorization_server(under: Under) -> Result<(FakeAuthorizationServer, TokenCache), BoxError> {
    let service = FakeClient::confidential("service", "hunter2").scopes("items:read items:write");
    let server = FakeAuthorizationServer::builder().client(service).latency(LATENCY).start().await?;
    let source = ClientCredentials::builder(server.token_url(), "service", "hunter2");
    let cache = match under {
        Under::HyperHttp1 | Under::HyperH2 | Under::Tonic => TokenCache::new(source.build()?),
        // Who has reqwest asks for tokens by it.
        Under::ReqwestHttp1 | Under::ReqwestH2 => {
            TokenCache::new(source.build_with(ReqwestClient::build(|builder| builder)?)?)
        }
    };
    Ok((server, cache))
}

// --- The cases over HTTP ---

async fn cold_start(under: Under) -> Result<(), BoxError> {
    let (server, cache) = authorization_server(under).await?;
    let api = Api::builder(&server).start().await?;
    let client = http(under, RetryPolicy::default(), &AuthLayer::for_origin(cache, api.origin())?)?;
    let url = format!("{}/items/1", api.origin());
    try_join_all((0..50).map(|_| get_ok(client.clone(), url.clone()))).await?;
    expect("requests served", api.counts().ok, 50)?;
    expect("token requests", server.counts().token_requests, 1)
}

async fn revocation(under: Under) -> Result<(), BoxError> {
    let (server, cache) = authorization_server(under).await?;
    let api = Arc::new(Api::builder(&server).start().await?);
    let client = http(under, RetryPolicy::default(), &AuthLayer::for_origin(cache, api.origin())?)?;
    let url = format!("{}/items/1", api.origin());
    let load = (0..TASKS).map(|_| {
        let (client, url) = (client.clone(), url.clone());
        async move {
            for _ in 0..REQUESTS_PER_TASK {
                get_ok(client.clone(), url.clone()).await?;
            }
            Ok::<_, BoxError>(())
        }
    });
    let revoke = async {
        while api.counts().ok < TASKS * REQUESTS_PER_TASK / 4 {
            sleep(Duration::from_millis(1)).await;
        }
        server.revoke_all();
        Ok(())
    };
    tokio::try_join!(try_join_all(load), revoke)?;
    expect("requests served", api.counts().ok, TASKS * REQUESTS_PER_TASK)?;
    expect_that("no request met the revocation", api.counts().revoked > 0)?;
    expect("token requests", server.counts().token_requests, 2)
}

const TASKS: u64 = 16;
const REQUESTS_PER_TASK: u64 = 50;

async fn upload(under: Under) -> Result<(), BoxError> {
    let (server, cache) = authorization_server(under).await?;
    let api = Arc::new(Api::builder(&server).start().await?);
    let policy = RetryPolicy::builder().replay_body_limit(u64::try_from(Chunks::LENGTH)?).build()?;
    let client = http(under, policy, &AuthLayer::for_origin(cache.clone(), api.origin())?)?;
    // The token in the cache is revoked, and nobody here knows.
    cache.get().await?;
    server.revoke_all();

    let whole: Vec<u8> = (0..Chunks::COUNT).flat_map(Chunks::chunk).collect();
    let request = Request::post(format!("{}/items", api.origin()))
        .header(Api::ITEM_ID, "upload")
        .header(Api::CONTENT_DIGEST, Api::content_digest(&whole))
        .body(Chunks { at: 0, api: Arc::clone(&api) }.map_err(|never| match never {}).boxed())?;
    let response = client.oneshot(request).await?;
    expect("status", response.status(), StatusCode::CREATED)?;
    let seen = api.counts();
    expect("refused", seen.revoked, 1)?;
    expect("accepted", seen.ok, 1)?;
    expect("arrived wrong or twice", seen.wrong_bodies + seen.duplicates, 0)?;
    expect("token requests", server.counts().token_requests, 2)
}

/// A body of 8 MiB whose second half comes only when the API has refused the first.
struct Chunks {
    at: usize,
    api: Arc<Api>,
}

impl Chunks {
    const SIZE: usize = 16 * 1024;
    const COUNT: usize = 512;
    const LENGTH: usize = Self::SIZE * Self::COUNT;

    fn chunk(at: usize) -> Bytes {
        Bytes::from(at.to_le_bytes().repeat(Self::SIZE / size_of::<usize>()))
    }
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.at == Self::COUNT {
            return Poll::Ready(None);
        }
        if self.at == Self::COUNT / 2 && self.api.counts().unauthorized == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.at += 1;
        Poll::Ready(Some(Ok(Frame::data(Self::chunk(self.at - 1)))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(u64::try_from((Self::COUNT - self.at) * Self::SIZE).unwrap())
    }
}

async fn limit(under: Under) -> Result<(), BoxError> {
    let (server, cache) = authorization_server(under).await?;
    let api = Api::builder(&server).limit(40).start().await?;
    let client = http(under, RetryPolicy::default(), &AuthLayer::for_origin(cache, api.origin())?)?;
    let url = format!("{}/items/1", api.origin());
    try_join_all((0..80).map(|_| get_ok(client.clone(), url.clone()))).await?;
    expect("requests served", api.counts().ok, 80)?;
    expect_that("no request met the limit", api.counts().limited > 0)?;
    expect("token requests", server.counts().token_requests, 1)
}

async fn redirect(under: Under) -> Result<(), BoxError> {
    let (_server, cache) = authorization_server(under).await?;
    let (here, there) = (Seen::default(), Seen::default());
    let foreign = Loopback::start(Router::new().route("/items", get(there.note(|| "elsewhere")))).await?;
    let target = format!("{}/items", foreign.origin());
    let home = here.note(move || Redirect::temporary(&target));
    let home = Loopback::start(Router::new().route("/items", get(home))).await?;

    let auth = AuthLayer::for_origin(cache, home.origin())?;
    let client = FollowRedirect::new(http(under, RetryPolicy::default(), &auth)?);
    let response = client.oneshot(Request::get(format!("{}/items", home.origin())).body(empty())?).await?;
    expect("status", response.status(), StatusCode::OK)?;
    expect_that("the answer is not marked", response.extensions().get::<TokenWithheld>().is_some())?;
    expect("answer", response.into_body().collect().await?.to_bytes(), Bytes::from_static(b"elsewhere"))?;
    expect("with a token at home", here.tokens(), vec![true])?;
    expect("with a token elsewhere", there.tokens(), vec![false])
}

/// Whether the requests that came had a token.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<bool>>>);

impl Seen {
    fn note<R: Send + 'static>(
        &self,
        answer: impl Fn() -> R + Clone + Send + 'static,
    ) -> impl FnOnce(HeaderMap) -> std::future::Ready<R> + Clone + Send + 'static {
        let seen = self.clone();
        move |headers| {
            seen.0.lock().unwrap().push(headers.contains_key(header::AUTHORIZATION));
            std::future::ready(answer())
        }
    }

    fn tokens(&self) -> Vec<bool> {
        self.0.lock().unwrap().clone()
    }
}

// --- The cases over gRPC ---

mod grpc {
    use super::*;

    type ToTonic = fn(Request<RequestBody<tonic::body::Body>>) -> Request<tonic::body::Body>;
    type Channel = RetryService<AuthService<MapRequest<tonic::transport::Channel, ToTonic>>>;

    /// A service that asks about each token, and refuses as many good calls as it is told to, for want of time.
    struct Service {
        origin: String,
        items: ItemsServer,
        served: Arc<AtomicU64>,
        refused: Arc<AtomicU64>,
        task: JoinHandle<()>,
    }

    impl Service {
        async fn start(server: &FakeAuthorizationServer, too_many: u64) -> Result<Self, BoxError> {
            let introspection = Introspection {
                url: server.introspection_url(),
                client_id: "service",
                client_secret: "hunter2",
                http_client: HyperClient::new(),
            };
            let (served, refused) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
            let counters = (Arc::clone(&served), Arc::clone(&refused), Arc::new(AtomicU64::new(too_many)));
            let items = ItemsServer::new(move |call| {
                let (introspection, counters) = (introspection.clone(), counters.clone());
                async move {
                    let (served, refused, too_many) = counters;
                    let status = match introspection.is_active(&call).await {
                        Ok(true)
                            if too_many
                                .fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1))
                                .is_ok() =>
                        {
                            busy()
                        }
                        Ok(true) => {
                            served.fetch_add(1, Relaxed);
                            return Ok(());
                        }
                        Ok(false) => Status::unauthenticated("the token is not active"),
                        Err(error) => Status::internal(error.to_string()),
                    };
                    refused.fetch_add(1, Relaxed);
                    Err(Refusal::AtOnce(status))
                }
            });
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let origin = format!("http://{}", listener.local_addr()?);
            let serve = tonic::transport::Server::builder().add_service(items.clone());
            let serve = serve.serve_with_incoming(TcpIncoming::from(listener));
            let task = tokio::spawn(async move { serve.await.unwrap() });
            Ok(Self { origin, items, served, refused, task })
        }

        fn client(&self, cache: TokenCache) -> Result<ItemsClient<Channel>, BoxError> {
            let origin = self.origin.as_str();
            let to_tonic: ToTonic = |request| request.map(tonic::body::Body::new);
            let channel = ServiceBuilder::new()
                .layer(RetryPolicy::default())
                .layer(AuthLayer::for_origin(cache, origin)?.default_origin(origin)?)
                .map_request(to_tonic)
                .service(Endpoint::from_shared(origin.to_owned())?.connect_lazy());
            Ok(ItemsClient::new(channel))
        }

        /// How many calls were served, and how many refused.
        fn counts(&self) -> (u64, u64) {
            (self.served.load(Relaxed), self.refused.load(Relaxed))
        }
    }

    impl Drop for Service {
        fn drop(&mut self) {
            self.task.abort();
        }
    }

    async fn read(mut client: ItemsClient<Channel>) -> Result<(), BoxError> {
        let answer = client.read(Bytes::from_static(b"item")).await?;
        expect("answer", answer.into_inner(), Bytes::from_static(b"item"))
    }

    fn busy() -> Status {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-retry-pushback-ms", MetadataValue::from_static("20"));
        Status::with_metadata(tonic::Code::ResourceExhausted, "too many calls", metadata)
    }

    pub(super) async fn cold_start() -> Result<(), BoxError> {
        let (server, cache) = authorization_server(Under::Tonic).await?;
        let service = Service::start(&server, 0).await?;
        let client = service.client(cache)?;
        try_join_all((0..50).map(|_| read(client.clone()))).await?;
        expect("calls served and refused", service.counts(), (50, 0))?;
        expect("token requests", server.counts().token_requests, 1)
    }

    pub(super) async fn revocation() -> Result<(), BoxError> {
        let (server, cache) = authorization_server(Under::Tonic).await?;
        let service = Service::start(&server, 0).await?;
        let client = service.client(cache)?;
        let load = (0..TASKS).map(|_| {
            let client = client.clone();
            async move {
                for _ in 0..REQUESTS_PER_TASK {
                    read(client.clone()).await?;
                }
                Ok::<_, BoxError>(())
            }
        });
        let revoke = async {
            while service.counts().0 < TASKS * REQUESTS_PER_TASK / 4 {
                sleep(Duration::from_millis(1)).await;
            }
            server.revoke_all();
            Ok(())
        };
        tokio::try_join!(try_join_all(load), revoke)?;
        let (served, refused) = service.counts();
        expect("calls served", served, TASKS * REQUESTS_PER_TASK)?;
        expect_that("no call met the revocation", refused > 0)?;
        expect("token requests", server.counts().token_requests, 2)
    }

    /// Chunk by chunk, which gRPC calls a client stream: it is replayed since the call says so.
    pub(super) async fn upload() -> Result<(), BoxError> {
        let (server, cache) = authorization_server(Under::Tonic).await?;
        let service = Service::start(&server, 0).await?;
        let mut client = service.client(cache.clone())?;
        cache.get().await?;
        server.revoke_all();

        let refused = Arc::clone(&service.refused);
        let chunks = stream::iter(0..Chunks::COUNT).then(move |at| {
            let refused = Arc::clone(&refused);
            async move {
                while at == Chunks::COUNT / 2 && refused.load(Relaxed) == 0 {
                    sleep(Duration::from_millis(1)).await;
                }
                Chunks::chunk(at)
            }
        });
        let mut call = tonic::Request::new(chunks);
        call.extensions_mut().insert(RetryOptions::new().replay_limit(2 * u64::try_from(Chunks::LENGTH)?));
        let answer = client.write(call).await?.into_inner();
        let whole: Vec<_> = (0..Chunks::COUNT).map(Chunks::chunk).collect();
        expect("answer", &answer, &ItemsServer::digest(&whole))?;
        expect("arrived", service.items.received(), vec![answer])?;
        expect("calls served and refused", service.counts(), (1, 1))?;
        expect("token requests", server.counts().token_requests, 2)
    }

    pub(super) async fn limit() -> Result<(), BoxError> {
        let (server, cache) = authorization_server(Under::Tonic).await?;
        let service = Service::start(&server, 10).await?;
        let client = service.client(cache)?;
        try_join_all((0..50).map(|_| read(client.clone()))).await?;
        expect("calls served and refused", service.counts(), (50, 10))?;
        expect("token requests", server.counts().token_requests, 1)
    }
}
