//! What becomes of a response that a replay is to replace.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tower::{BoxError, Layer as _, ServiceBuilder, ServiceExt as _};
use tower_oauth2::auth::AuthLayer;
use tower_oauth2::extensions::{Attempt, Deadline};
use tower_oauth2::retry::{RequestBody, ResponseBody, StopReason};
use tower_oauth2::{AccessToken, RetryPolicy, TokenCache, source_fn};

use super::{get, report};
use tower_oauth2::test_util::{BodyLog, Probe, Readiness};

type Body = UnsyncBoxBody<Bytes, BoxError>;

type Inner = Probe<Request<RequestBody<Full<Bytes>>>, Response<Body>>;

/// Makes a response whose body the log sees.
fn watched(
    log: &BodyLog,
    frames: impl Stream<Item = Result<Frame<Bytes>, BoxError>> + Send + 'static,
) -> Response<Body> {
    Response::new(log.body(StreamBody::new(frames)).boxed_unsync())
}

/// Makes a response whose body nobody watches.
fn plain(frames: impl Stream<Item = Result<Frame<Bytes>, BoxError>> + Send + 'static) -> Response<Body> {
    watched(&BodyLog::new(), frames)
}

fn data(data: &'static str) -> Result<Frame<Bytes>, BoxError> {
    Ok(Frame::data(Bytes::from_static(data.as_bytes())))
}

/// Gives `frames` at once, and never ends.
fn then_nothing(frames: &[&'static str]) -> impl Stream<Item = Result<Frame<Bytes>, BoxError>> + use<> {
    let frames: Vec<_> = frames.iter().copied().map(data).collect();
    stream::iter(frames).chain(stream::pending())
}

/// A service that gives these answers, then 200.
fn answering(answers: impl IntoIterator<Item = Response<Body>>) -> Inner {
    let answers = Mutex::new(answers.into_iter().collect::<VecDeque<_>>());
    Probe::new(move |_| {
        let answer = answers.lock().unwrap().pop_front();
        std::future::ready(Ok(answer.unwrap_or_else(|| plain(stream::iter([data("done")])))))
    })
}

/// Makes it a 503 that asks for a wait in seconds.
fn busy(mut response: Response<Body>, wait: &'static str) -> Response<Body> {
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(wait));
    response
}

/// Sends a request that is answered by `refused` and cannot be sent again, since the service breaks before.
async fn handed_back(refused: Response<Body>) -> Response<ResponseBody<Body>> {
    let inner = answering([refused]).readiness([Readiness::Ready, Readiness::Broken]);
    let response = RetryPolicy::default().layer(inner).oneshot(get()).await.unwrap();
    assert_eq!(report(&response).stop_reason(), &StopReason::NotReady);
    response
}

/// Gives another token at each fetch.
fn tokens() -> TokenCache {
    let number = AtomicUsize::new(0);
    TokenCache::new(source_fn(move |_| {
        let token = AccessToken::bearer(format!("token-{}", number.fetch_add(1, Ordering::SeqCst)));
        std::future::ready(token.map(|token| token.with_lifetime(Duration::from_secs(3_600))))
    }))
}

async fn frames(body: &mut ResponseBody<Body>) -> (Vec<String>, Result<(), BoxError>) {
    let mut seen = Vec::new();
    loop {
        match body.frame().await {
            None => return (seen, Ok(())),
            Some(Err(error)) => return (seen, Err(error)),
            Some(Ok(frame)) => seen.push(match frame.into_data() {
                Ok(data) => String::from_utf8(data.to_vec()).unwrap(),
                Err(trailers) => format!("{:?}", trailers.into_trailers().unwrap()),
            }),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_that_was_drained_is_handed_back_whole() {
    let log = BodyLog::new();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("9"));
    let slow = stream::iter([data("please"), data(""), Ok(Frame::trailers(trailers))]).then(|frame| async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        frame
    });
    let mut response = handed_back(busy(watched(&log, slow), "1")).await;
    assert_eq!(log.last_drop(), Some(Duration::from_millis(150)), "it was read while the wait went on");
    assert_eq!(
        (response.status(), response.headers()[RETRY_AFTER].as_bytes()),
        (StatusCode::SERVICE_UNAVAILABLE, &b"1"[..])
    );
    assert_eq!(response.body().size_hint().exact(), Some(6));
    let (seen, end) = frames(response.body_mut()).await;
    assert_eq!(seen, ["please", "", "{\"x-sum\": \"9\"}"]);
    assert!(end.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_response_that_does_not_end_in_time_is_let_go_and_says_so() {
    let (log, start) = (BodyLog::new(), Instant::now());
    let mut response = handed_back(busy(watched(&log, then_nothing(&["half ", "of it"])), "1")).await;
    assert_eq!(log.last_drop(), Some(Duration::from_millis(200)));
    assert!(start.elapsed() >= Duration::from_secs(1));
    let hint = response.body().size_hint();
    assert_eq!((hint.lower(), hint.upper(), response.body().is_end_stream()), (10, None, false));
    let (seen, end) = frames(response.body_mut()).await;
    assert_eq!(seen, ["half ", "of it"]);
    assert!(end.unwrap_err().to_string().starts_with("the rest of this response was given up"));
}

#[tokio::test(start_paused = true)]
async fn reading_does_not_make_a_wait_longer() {
    let (log, start) = (BodyLog::new(), Instant::now());
    let inner = answering([busy(watched(&log, then_nothing(&["never whole"])), "0")]);
    let response = RetryPolicy::default().layer(inner).oneshot(get()).await.unwrap();
    let wait = report(&response).history()[0].delay();
    assert!(wait >= Duration::from_millis(100) && wait < Duration::from_millis(200));
    let (dropped, sent) = (log.last_drop().unwrap(), start.elapsed());
    // Timers are good to a millisecond.
    assert!(dropped <= sent && sent <= wait + Duration::from_millis(1), "{dropped:?} {sent:?} {wait:?}");
}

#[tokio::test(start_paused = true)]
async fn before_a_replay_at_once_only_what_is_there_is_read() {
    let auth = AuthLayer::for_origin(tokens(), "https://api.example.com").unwrap();
    let client = ServiceBuilder::new().layer(RetryPolicy::default()).layer(auth);
    for (whole, read_for) in [(true, Duration::ZERO), (false, Duration::from_millis(10))] {
        let (log, start) = (BodyLog::new(), Instant::now());
        let mut response = match whole {
            true => watched(&log, stream::iter([data("refused")])),
            false => watched(&log, then_nothing(&["refus"])),
        };
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\"");
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        let response = client.service(answering([response])).oneshot(get()).await.unwrap();
        assert_eq!((response.status(), report(&response).attempts()), (StatusCode::OK, 2));
        assert_eq!((log.last_drop(), start.elapsed()), (Some(read_for), read_for));
    }
}

#[tokio::test(start_paused = true)]
async fn reading_does_not_outlast_the_deadline() {
    let log = BodyLog::new();
    let millisecond = Duration::from_millis(1);
    let policy = RetryPolicy::builder().min_delay(millisecond).build().unwrap();
    let mut response = watched(&log, then_nothing(&[]));
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    let mut request = get();
    request.extensions_mut().insert(Deadline::within(5 * millisecond));
    policy.layer(answering([response])).oneshot(request).await.unwrap();
    assert_eq!(log.last_drop(), Some(5 * millisecond));
}

#[tokio::test(start_paused = true)]
async fn an_endless_response_is_read_up_to_a_size() {
    for (frame, most) in [(16 * 1024, 5), (64 * 1024, 2), (10 << 20, 1), (64, 1024), (0, 1024)] {
        let log = BodyLog::new();
        let chunk = Bytes::from(vec![b'x'; frame]);
        let endless = stream::repeat_with(move || Ok(Frame::data(chunk.clone())));
        let mut response = handed_back(busy(watched(&log, endless), "1")).await;
        assert_eq!(log.frames(), most, "frames of {frame} bytes");
        let (seen, end) = frames(response.body_mut()).await;
        assert_eq!(seen.len(), most);
        assert!(end.unwrap_err().to_string().starts_with("the rest of this response was given up"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_of_just_that_size_is_whole() {
    let log = BodyLog::new();
    let four = (0..4).map(|_| Ok(Frame::data(Bytes::from(vec![b'x'; 16 * 1024]))));
    let response = handed_back(busy(watched(&log, stream::iter(four)), "1")).await;
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), 64 * 1024);
}

#[tokio::test(start_paused = true)]
async fn a_response_that_breaks_off_does_not_stop_the_replay() {
    let broken = || stream::iter([data("half"), Err("connection reset".into())]);
    let inner = answering([busy(plain(broken()), "1")]);
    let response = RetryPolicy::default().layer(inner).oneshot(get()).await.unwrap();
    assert_eq!((response.status(), report(&response).attempts()), (StatusCode::OK, 2));
    // Handed back, it breaks off at the same place and for the same reason.
    let mut response = handed_back(busy(plain(broken()), "1")).await;
    let (seen, end) = frames(response.body_mut()).await;
    assert_eq!(
        (seen, end.unwrap_err().to_string()),
        (vec!["half".to_owned()], "connection reset".to_owned())
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_given_up_lets_the_response_go() {
    let log = BodyLog::new();
    let inner = answering([busy(watched(&log, then_nothing(&["half"])), "1")]);
    let request = RetryPolicy::default().layer(inner).oneshot(get());
    let outcome = tokio::time::timeout(Duration::from_millis(150), request).await;
    assert!(outcome.is_err());
    assert_eq!(log.last_drop(), Some(Duration::from_millis(150)));
}

#[tokio::test(start_paused = true)]
async fn a_newer_answer_takes_the_place_of_the_one_that_was_kept() {
    let refused = |text| busy(plain(stream::iter([data(text)])), "1");
    let inner = answering([refused("first"), refused("second")]);
    let inner = inner.readiness([Readiness::Ready, Readiness::Ready, Readiness::Broken]);
    let mut response = RetryPolicy::default().layer(inner).oneshot(get()).await.unwrap();
    assert_eq!(report(&response).attempts(), 2);
    assert_eq!(frames(response.body_mut()).await.0, ["second"]);
}

// --- Connections ---

/// A server on loopback that refuses every second request. On h2 it allows one stream at a time.
struct Server {
    url: String,
    /// How many connections it accepted.
    connections: Arc<AtomicUsize>,
    /// How many responses were not sent to their end or given up.
    open: Arc<AtomicUsize>,
}

type Refusal = fn() -> Response<Body>;

/// Counts a response as open until its body is dropped.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Server {
    async fn start(refuse: Refusal) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (connections, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let server = Self { url, connections: Arc::clone(&connections), open: Arc::clone(&open) };
        tokio::spawn(async move {
            let requests = Arc::new(AtomicUsize::new(0));
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // Else the second piece of an answer waits 40 ms for the client's acknowledgement of the first.
                stream.set_nodelay(true).unwrap();
                connections.fetch_add(1, Ordering::SeqCst);
                let (requests, open) = (Arc::clone(&requests), Arc::clone(&open));
                let service = service_fn(move |_: Request<Incoming>| {
                    let refused = requests.fetch_add(1, Ordering::SeqCst).is_multiple_of(2);
                    open.fetch_add(1, Ordering::SeqCst);
                    let open = Open(Arc::clone(&open));
                    async move {
                        let response = match refused {
                            true => refuse(),
                            false => Response::new(Full::from("done").map_err(Into::into).boxed_unsync()),
                        };
                        let hold = move |frame| {
                            let _ = &open;
                            frame
                        };
                        Ok::<_, Infallible>(response.map(|body| body.map_frame(hold).boxed_unsync()))
                    }
                });
                tokio::spawn(async move {
                    let mut builder = auto::Builder::new(TokioExecutor::new());
                    builder.http2().max_concurrent_streams(1);
                    builder.serve_connection(TokioIo::new(stream), service).await
                });
            }
        });
        server
    }

    fn request(&self) -> Request<Full<Bytes>> {
        Request::post(&self.url).body(Full::from("order")).unwrap()
    }
}

fn client(h2: bool) -> Client<HttpConnector, RequestBody<Full<Bytes>>> {
    Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).http2_only(h2).build_http()
}

/// One piece of 64 KiB.
fn large() -> Response<Body> {
    Response::new(Full::from(vec![b'x'; 64 * 1024]).map_err(Into::into).boxed_unsync())
}

/// 200 bytes in two pieces, 20 ms apart.
fn dribbled() -> Response<Body> {
    let chunk = || Ok(Frame::data(Bytes::from(vec![b'x'; 100])));
    let second = async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        chunk()
    };
    let frames = stream::iter([chunk()]).chain(stream::once(second));
    Response::new(StreamBody::new(frames).boxed_unsync())
}

fn too_many(mut response: Response<Body>) -> Response<Body> {
    *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("0"));
    response
}

#[tokio::test]
async fn refused_responses_leave_their_connection_usable() {
    let refusals: [Refusal; 2] = [|| too_many(large()), || too_many(dribbled())];
    let runs = refusals.into_iter().flat_map(|refusal| [(refusal, false), (refusal, true)]);
    let runs = runs.map(|(refusal, h2)| async move {
        let server = Server::start(refusal).await;
        let client = RetryPolicy::default().layer(client(h2));
        for _ in 0..10 {
            let response = client.clone().oneshot(server.request()).await.unwrap();
            assert_eq!((response.status(), report(&response).attempts()), (StatusCode::OK, 2));
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "done");
        }
        assert_eq!(server.connections.load(Ordering::SeqCst), 1, "h2: {h2}");
    });
    futures_util::future::join_all(runs).await;
}

/// A refused token, with a small body in two pieces.
fn challenge() -> Response<Body> {
    let pieces = stream::iter([data("{\"error\":"), data("\"invalid_token\"}")]).then(|frame| async {
        tokio::task::yield_now().await;
        frame
    });
    let mut response = Response::new(StreamBody::new(pieces).boxed_unsync());
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    response
        .headers_mut()
        .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer error=\"invalid_token\""));
    response
}

#[tokio::test]
async fn a_replay_at_once_finds_the_connection_free() {
    for h2 in [false, true] {
        let server = Server::start(challenge).await;
        let auth = AuthLayer::for_origin(tokens(), &server.url).unwrap();
        let client = ServiceBuilder::new().layer(RetryPolicy::default()).layer(auth).service(client(h2));
        for _ in 0..10 {
            let response = client.clone().oneshot(server.request()).await.unwrap();
            assert_eq!((response.status(), report(&response).attempts()), (StatusCode::OK, 2));
            response.into_body().collect().await.unwrap();
        }
        assert_eq!(server.connections.load(Ordering::SeqCst), 1, "h2: {h2}");
    }
}

#[tokio::test]
async fn an_endless_response_does_not_keep_its_stream() {
    // The server allows one stream at a time: the replay could not be sent otherwise.
    let server = Server::start(|| {
        let endless = stream::repeat_with(|| Ok(Frame::data(Bytes::from(vec![b'x'; 1024]))));
        too_many(Response::new(StreamBody::new(endless).boxed_unsync()))
    })
    .await;
    let client = RetryPolicy::default().layer(client(true));
    let request = client.oneshot(server.request());
    let response = tokio::time::timeout(Duration::from_secs(20), request).await.expect("it hangs").unwrap();
    assert_eq!((response.status(), report(&response).attempts()), (StatusCode::OK, 2));
    response.into_body().collect().await.unwrap();
    for _ in 0..1_000 {
        if server.open.load(Ordering::SeqCst) == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(server.open.load(Ordering::SeqCst), 0);
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

/// Data that tells how much of it is alive.
struct Tracked {
    data: Vec<u8>,
    alive: Arc<AtomicUsize>,
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.alive.fetch_sub(self.data.len(), Ordering::SeqCst);
    }
}

impl AsRef<[u8]> for Tracked {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

#[tokio::test(start_paused = true)]
async fn what_waiting_requests_keep_counts_against_the_same_memory_as_their_bodies() {
    const IN_ALL: usize = 256 * 1024;
    // Frames as transports give them, and ones that are larger than any.
    for (frames, size) in [(4, 15 * 1024), (1, 60 * 1024), (400, 150)] {
        let alive = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&alive);
        let server = Probe::new(move |request: Request<RequestBody<Full<Bytes>>>| {
            let page = (0..frames).map(|_| {
                let (data, alive) = (vec![b'x'; size], Arc::clone(&count));
                alive.fetch_add(size, Ordering::SeqCst);
                Ok::<_, BoxError>(Frame::data(Bytes::from_owner(Tracked { data, alive })))
            });
            let first = request.extensions().get::<Attempt>().is_none();
            let page: Vec<_> = if first { page.collect() } else { Vec::new() };
            let response = Response::builder().status(if first { 429 } else { 200 });
            let response = response.header("retry-after", "5");
            let response = response.body(StreamBody::new(futures_util::stream::iter(page))).unwrap();
            async { Ok::<_, BoxError>(response) }
        });
        let policy = RetryPolicy::builder().replay_total_limit(IN_ALL as u64).gate(None).budget(None);
        let policy = policy.build().unwrap();
        let client = policy.layer(server);
        let requests: Vec<_> = (0..100).map(|_| tokio::spawn(client.clone().oneshot(get()))).collect();
        tokio::time::sleep(Duration::from_secs(3)).await;
        let kept = alive.load(Ordering::SeqCst);
        assert!(kept <= IN_ALL && kept > IN_ALL / 4, "{frames} frames of {size}: {kept}");
        for request in requests {
            assert_eq!(request.await.unwrap().unwrap().status().as_u16(), 200);
        }
        // All of it is given back.
        assert_eq!(alive.load(Ordering::SeqCst), 0);
        let request = tokio::spawn(client.clone().oneshot(get()));
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(alive.load(Ordering::SeqCst), frames * size);
        drop(request);
    }
}

#[tokio::test(start_paused = true)]
async fn the_heads_of_kept_responses_count_against_the_memory_for_their_bodies() {
    const IN_ALL: usize = 256 * 1024;
    const PART: usize = 30 * 1024;
    let alive = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&alive);
    let server = Probe::new(move |request: Request<RequestBody<Full<Bytes>>>| {
        let first = request.extensions().get::<Attempt>().is_none();
        let page = first.then(|| {
            count.fetch_add(PART, Ordering::SeqCst);
            let data = Tracked { data: vec![b'x'; PART], alive: Arc::clone(&count) };
            Ok::<_, BoxError>(Frame::data(Bytes::from_owner(data)))
        });
        let response = Response::builder().status(if first { 429 } else { 200 }).header("retry-after", "5");
        let response = response.header("x-large", "v".repeat(PART));
        let response = response.body(StreamBody::new(futures_util::stream::iter(page))).unwrap();
        async { Ok::<_, BoxError>(response) }
    });
    let policy = RetryPolicy::builder().replay_total_limit(IN_ALL as u64).gate(None).budget(None);
    let client = policy.build().unwrap().layer(server);
    let requests: Vec<_> = (0..7).map(|_| tokio::spawn(client.clone().oneshot(get()))).collect();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let kept = alive.load(Ordering::SeqCst);
    // Each body that is kept has a head of its size.
    assert!(kept > 0 && 2 * kept <= IN_ALL, "{kept}");
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap().status().as_u16(), 200);
    }
    assert_eq!(alive.load(Ordering::SeqCst), 0);
}
