//! Streamed uploads that are refused with a 401 before, during or after the upload, over real HTTP/1.1 and h2.
//!
//! Every body of 8 MiB in chunks of 16 KiB must arrive whole and as a 2xx exactly once, and no server may ever be given less
//! than the whole body as if it were the whole. Where the server cuts, whether it goes on reading, when the source keeps
//! the transport waiting, and whether the body is recorded or opened anew is by chance. The seed is printed with a
//! failure:
//!
//! - `UPLOADS=200` in the environment sets how many uploads each test makes (5 by default); `tests/uploads.sh` does so.
//! - `UPLOADS_SEED` repeats a run.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::convert::Infallible;
use std::fmt;
use std::future::ready;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tower::{BoxError, ServiceBuilder, ServiceExt as _};
use tower_oauth2::retry::{BodyFactory, RetryReport};
use tower_oauth2::{AccessToken, AuthLayer, RetryPolicy, TokenRequest, source_fn};

const CHUNK: usize = 16 * 1024;
const CHUNKS: usize = 512;
const LENGTH: usize = CHUNK * CHUNKS;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

/// When the server refuses a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Before,
    During,
    After,
}

/// How an upload is made replayable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replay {
    KnownLength,
    UnknownLength,
    Factory,
}

// --- The body ---

/// 8 MiB by seed, in chunks, as a slow disk gives them: now and then there is nothing yet.
struct Chunks {
    random: Rng,
    left: usize,
    known_length: bool,
    hesitates: Rng,
}

impl Chunks {
    fn new(seed: u64, replay: Replay) -> Self {
        let known_length = replay != Replay::UnknownLength;
        Self { random: Rng::with_seed(seed), left: CHUNKS, known_length, hesitates: Rng::with_seed(!seed) }
    }

    fn next(&mut self) -> Option<Bytes> {
        self.left = self.left.checked_sub(1)?;
        let word = self.random.u64(..).to_le_bytes();
        Some(Bytes::from(word.repeat(CHUNK / word.len())))
    }

    fn digest(seed: u64) -> [u8; 32] {
        let (mut hash, mut chunks) = (Sha256::new(), Self::new(seed, Replay::KnownLength));
        while let Some(chunk) = chunks.next() {
            hash.update(chunk);
        }
        hash.finalize().into()
    }
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.hesitates.u8(..8) == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(self.next().map(|chunk| Ok(Frame::data(chunk))))
    }

    fn size_hint(&self) -> SizeHint {
        match self.known_length {
            true => SizeHint::with_exact(u64::try_from(self.left * CHUNK).unwrap()),
            false => SizeHint::default(),
        }
    }
}

// --- The server ---

/// What the server does with the next upload, and what it saw of it.
#[derive(Default)]
struct Shared {
    /// After how many bytes a token is refused.
    cut: AtomicUsize,
    /// 0: an upload that was refused is not read any further. 1: it is.
    reads_on: AtomicUsize,
    valid_from: AtomicU64,
    connections: AtomicUsize,
    refused: AtomicUsize,
    /// The bodies that were accepted.
    accepted: Mutex<Vec<[u8; 32]>>,
    /// The lengths of bodies that ended as if they were whole, and were not.
    short: Mutex<Vec<usize>>,
}

struct Server {
    shared: Arc<Shared>,
    origin: String,
    task: JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        let shared = Arc::<Shared>::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                state.connections.fetch_add(1, Ordering::SeqCst);
                let state = Arc::clone(&state);
                tokio::spawn(async move {
                    let answer = service_fn(move |request| answer(Arc::clone(&state), request));
                    let server = auto::Builder::new(TokioExecutor::new());
                    // A connection that the client gives up is no error of the server's.
                    let _ = server.serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        });
        Self { shared, origin, task }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let token = request.headers()[header::AUTHORIZATION].to_str().unwrap().rsplit('-').next().unwrap();
    let refuse = token.parse::<u64>().unwrap() < shared.valid_from.load(Ordering::SeqCst);
    let cut = if refuse { shared.cut.load(Ordering::SeqCst) } else { usize::MAX };
    let (mut body, mut hash, mut length) = (request.into_body(), Sha256::new(), 0);
    while length < cut {
        let Some(frame) = body.frame().await else { break };
        let data = frame?.into_data().expect("a frame of data");
        length += data.len();
        hash.update(data);
    }
    let mut response = Response::new(Full::default());
    if !refuse {
        let digest = hash.finalize().into();
        match length {
            LENGTH => shared.accepted.lock().unwrap().push(digest),
            _ => shared.short.lock().unwrap().push(length),
        }
        *response.status_mut() = StatusCode::CREATED;
        return Ok(response);
    }
    shared.refused.fetch_add(1, Ordering::SeqCst);
    if shared.reads_on.load(Ordering::SeqCst) == 1 {
        tokio::spawn(async move {
            while let Some(Ok(frame)) = body.frame().await {
                length += frame.data_ref().map_or(0, Bytes::len);
            }
            if body.is_end_stream() && length != LENGTH {
                shared.short.lock().unwrap().push(length);
            }
        });
    }
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    let challenge = HeaderValue::from_static(r#"Bearer error="invalid_token""#);
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    Ok(response)
}

// --- The uploads ---

/// What one upload was like, to be told with a failure.
struct Upload {
    seed: u64,
    protocol: Protocol,
    refusal: Refusal,
    replay: Replay,
    cut: usize,
    reads_on: bool,
}

impl Upload {
    fn by_chance(seed: u64, protocol: Protocol, refusal: Refusal) -> Self {
        let mut random = Rng::with_seed(seed);
        let replay = [Replay::KnownLength, Replay::UnknownLength, Replay::Factory][random.usize(..3)];
        let cut = match refusal {
            Refusal::Before => 0,
            Refusal::During => random.usize(1..LENGTH),
            Refusal::After => usize::MAX,
        };
        Self { seed, protocol, refusal, replay, cut, reads_on: random.bool() }
    }

    fn request(&self, origin: &str) -> Request<Chunks> {
        let (seed, replay) = (self.seed, self.replay);
        let request = Request::put(format!("{origin}/files/{seed}"));
        let request = match replay {
            Replay::KnownLength | Replay::UnknownLength => request,
            Replay::Factory => request
                .extension(BodyFactory::new(move || ready(Ok::<_, Infallible>(Chunks::new(seed, replay))))),
        };
        request.body(Chunks::new(seed, replay)).unwrap()
    }
}

impl fmt::Display for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, protocol, refusal, replay, cut, reads_on } = self;
        write!(
            f,
            "UPLOADS=1 UPLOADS_SEED={seed}: {protocol:?}, refused {refusal:?} at {cut}, {replay:?}, server reads on: {reads_on}"
        )
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// Makes uploads one after another over one client, each with a token that is refused first.
async fn uploads(protocol: Protocol, refusal: Refusal) {
    let server = Server::start().await;
    let shared = &server.shared;
    let issued = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&issued);
    let issue = move |_: TokenRequest| {
        let number = counter.fetch_add(1, Ordering::SeqCst) + 1;
        ready(AccessToken::bearer(format!("token-{number}")))
    };
    let limit = u64::try_from(LENGTH).unwrap();
    let policy = RetryPolicy::builder()
        .replay_body_limit(limit)
        .replay_stream_limit(limit)
        // On a busy machine nearly every answer of a server that closes in the middle of an upload is lost on the way.
        .max_retries(200)
        .min_delay(Duration::from_millis(5))
        .max_delay(Duration::from_millis(20))
        .budget(None)
        .build()
        .unwrap();
    let client = Client::builder(TokioExecutor::new()).http2_only(protocol == Protocol::Http2).build_http();

    let mut seeds = Rng::with_seed(setting("UPLOADS_SEED").unwrap_or_else(|| getrandom::u64().unwrap()));
    for at in 0..setting("UPLOADS").unwrap_or(5) {
        let seed = match setting("UPLOADS_SEED") {
            Some(seed) if at == 0 => seed,
            _ => seeds.u64(..),
        };
        let upload = Upload::by_chance(seed, protocol, refusal);
        // A cache for each: in one and the same, so many refusals would be braked. Its first token is refused.
        let auth = AuthLayer::for_origin(source_fn(issue.clone()), &server.origin).unwrap();
        let client = ServiceBuilder::new().layer(policy.clone()).layer(auth).service(client.clone());
        shared.valid_from.store(issued.load(Ordering::SeqCst) + 2, Ordering::SeqCst);
        shared.cut.store(upload.cut, Ordering::SeqCst);
        shared.reads_on.store(usize::from(upload.reads_on), Ordering::SeqCst);
        shared.refused.store(0, Ordering::SeqCst);

        let sent = client.oneshot(upload.request(&server.origin));
        let response = tokio::time::timeout(Duration::from_secs(60), sent).await;
        let response = response.unwrap_or_else(|_| panic!("{upload}: it hangs"));
        let response = response.unwrap_or_else(|error: BoxError| panic!("{upload}: {error:?}"));

        let report = response.extensions().get::<RetryReport>();
        assert_eq!(response.status(), StatusCode::CREATED, "{upload}: {report:?}");
        let accepted = std::mem::take(&mut *shared.accepted.lock().unwrap());
        assert_eq!(accepted, [Chunks::digest(seed)], "{upload}");
        assert_eq!(*shared.short.lock().unwrap(), [0; 0], "{upload}: less than the whole");
        // A server that closes an HTTP/1.1 connection in the middle of an upload may have its answer lost on the way, and
        // is asked again.
        let refused = shared.refused.load(Ordering::SeqCst);
        let once = protocol == Protocol::Http2 || upload.reads_on;
        assert!(refused == 1 || (refused > 1 && !once), "{upload}: refused {refused} times");
    }
    // Over h2 an upload that is cut costs a stream and not the connection.
    if protocol == Protocol::Http2 {
        assert_eq!(shared.connections.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_before_the_upload_over_http_1_1() {
    uploads(Protocol::Http1, Refusal::Before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_during_the_upload_over_http_1_1() {
    uploads(Protocol::Http1, Refusal::During).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_after_the_upload_over_http_1_1() {
    uploads(Protocol::Http1, Refusal::After).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_before_the_upload_over_h2() {
    uploads(Protocol::Http2, Refusal::Before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_during_the_upload_over_h2() {
    uploads(Protocol::Http2, Refusal::During).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_after_the_upload_over_h2() {
    uploads(Protocol::Http2, Refusal::After).await;
}
