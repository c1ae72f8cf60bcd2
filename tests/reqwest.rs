//! reqwest below the layers and at the token endpoint, over real HTTP/1.1 and h2 on loopback.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body as AxumBody;
use axum::extract::State;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, LOCATION, TRANSFER_ENCODING, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version, request};
use http_body::{Body, Frame, SizeHint};
use http_body_util::channel::Channel;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use proptest::prelude::*;
use reqwest::redirect::Policy;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceBuilder, ServiceExt as _};
use tower_oauth2::retry::{Failure, RetryReport};
use tower_oauth2::test_util::Loopback;
use tower_oauth2::transport::{ReqwestClient, classify_reqwest};
use tower_oauth2::{
    AccessToken, ApiClient, AuthLayer, ClientAuth, ClientCredentials, Error, ErrorKind, FetchReason,
    RetryPolicy, TokenRequest, TokenSource, source_fn,
};

// --- A server ---

/// Answers as it is told and remembers what came.
#[derive(Clone)]
struct Server {
    seen: Arc<Mutex<Vec<Seen>>>,
    answer: Arc<Answer>,
}

type Answer = dyn Fn(&request::Parts) -> Response<AxumBody> + Send + Sync;

struct Seen {
    head: request::Parts,
    body: Bytes,
}

impl Server {
    fn new(answer: impl Fn(&request::Parts) -> Response<AxumBody> + Send + Sync + 'static) -> Self {
        Self { seen: Arc::default(), answer: Arc::new(answer) }
    }

    async fn start(&self) -> Loopback {
        Loopback::start(Router::new().fallback(serve).with_state(self.clone())).await.unwrap()
    }

    fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

async fn serve(State(server): State<Server>, request: Request<AxumBody>) -> Response<AxumBody> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let response = (server.answer)(&head);
    server.seen.lock().unwrap().push(Seen { head, body });
    response
}

fn ok() -> Response<AxumBody> {
    Response::new(AxumBody::from("fine"))
}

fn refused() -> Response<AxumBody> {
    let response = Response::builder().status(StatusCode::UNAUTHORIZED);
    response.header(WWW_AUTHENTICATE, "Bearer error=\"invalid_token\"").body(AxumBody::empty()).unwrap()
}

fn redirect(status: StatusCode, to: &str) -> Response<AxumBody> {
    Response::builder().status(status).header(LOCATION, to).body(AxumBody::empty()).unwrap()
}

fn client() -> ReqwestClient {
    ReqwestClient::build(|builder| builder).unwrap()
}

fn h2() -> ReqwestClient {
    ReqwestClient::build(reqwest::ClientBuilder::http2_prior_knowledge).unwrap()
}

fn token() -> AccessToken {
    AccessToken::bearer("A1").unwrap()
}

/// A source of `T1`, `T2` and so on.
fn numbered() -> impl TokenSource {
    let fetched = AtomicUsize::new(0);
    source_fn(move |_| {
        let number = fetched.fetch_add(1, Ordering::SeqCst) + 1;
        async move { AccessToken::bearer(format!("T{number}")) }
    })
}

/// An address at which nobody listens.
async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

// --- Bodies ---

#[tokio::test]
async fn a_length_that_is_known_goes_along_and_one_that_is_not_is_no_length() {
    let server = Server::new(|_| ok());
    let listener = server.start().await;
    let chunks = || {
        let chunks =
            ["one ", "two ", "three"].map(|text| Ok::<_, Infallible>(Frame::data(Bytes::from(text))));
        StreamBody::new(futures_util::stream::iter(chunks))
    };
    let known = Request::post(listener.origin()).body(Full::<Bytes>::from("known")).unwrap();
    client().oneshot(known).await.unwrap();
    let unknown = Request::post(listener.origin()).body(chunks()).unwrap();
    client().oneshot(unknown).await.unwrap();
    let none = Request::get(listener.origin()).body(Empty::<Bytes>::new()).unwrap();
    client().oneshot(none).await.unwrap();

    let seen = server.seen();
    let header = |at: usize, name: HeaderName| seen[at].head.headers.get(name).map(|v| v.to_str().unwrap());
    assert_eq!((header(0, CONTENT_LENGTH), header(0, TRANSFER_ENCODING)), (Some("5"), None));
    assert_eq!((header(1, CONTENT_LENGTH), header(1, TRANSFER_ENCODING)), (None, Some("chunked")));
    assert_eq!((header(2, CONTENT_LENGTH), header(2, TRANSFER_ENCODING)), (None, None));
    assert_eq!((&seen[0].body[..], &seen[1].body[..]), (&b"known"[..], &b"one two three"[..]));
}

#[tokio::test]
async fn both_bodies_stream_at_the_same_time_and_end_in_trailers() {
    // An echo: it answers before the upload has ended, and sends back what comes.
    let echo = Router::new().fallback(async |request: Request<AxumBody>| Response::new(request.into_body()));
    let listener = Loopback::start(echo).await.unwrap();
    let (mut upload, body) = Channel::<Bytes, Infallible>::new(1);
    let request = Request::post(listener.origin()).version(Version::HTTP_2).body(body).unwrap();
    let response = tokio::spawn(h2().oneshot(request));
    upload.send_data(Bytes::from("ping")).await.unwrap();
    let mut body = response.await.unwrap().unwrap().into_body();
    for word in ["ping", "pong", "ping again"] {
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), word);
        match word {
            "ping" => upload.send_data(Bytes::from("pong")).await.unwrap(),
            "pong" => upload.send_data(Bytes::from("ping again")).await.unwrap(),
            _ => {
                let trailers = HeaderMap::from_iter([(
                    HeaderName::from_static("checksum"),
                    HeaderValue::from_static("77"),
                )]);
                upload.send_trailers(trailers).await.unwrap();
            }
        }
    }
    drop(upload);
    let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(trailers["checksum"], "77");
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn the_length_of_an_answer_is_known() {
    let listener = Server::new(|_| ok()).start().await;
    let request = Request::get(listener.origin()).body(Empty::<Bytes>::new()).unwrap();
    let body = client().oneshot(request).await.unwrap().into_body();
    assert_eq!(body.size_hint().exact(), Some(4));
    assert_eq!(body.collect().await.unwrap().to_bytes(), "fine");
}

/// A body as axum's are: `Send`, but not `Sync`.
struct NotSync(std::cell::Cell<Option<Bytes>>);

impl Body for NotSync {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|data| Ok(Frame::data(data))))
    }

    fn size_hint(&self) -> SizeHint {
        let data = self.0.take();
        let length = data.as_ref().map_or(0, Bytes::len);
        self.0.set(data);
        SizeHint::with_exact(u64::try_from(length).unwrap())
    }
}

#[tokio::test]
async fn a_body_need_not_be_sync() {
    let server = Server::new(|_| ok());
    let listener = server.start().await;
    let body = NotSync(std::cell::Cell::new(Some(Bytes::from("mine alone"))));
    client().oneshot(Request::post(listener.origin()).body(body).unwrap()).await.unwrap();
    assert_eq!(server.seen()[0].body, "mine alone");
}

type Uploads = Arc<Mutex<Vec<Bytes>>>;

/// Takes uploads, but for those with the first token: they are refused after the first frame, and read on, as by most
/// servers.
async fn take_upload(State(uploads): State<Uploads>, request: Request<AxumBody>) -> Response<AxumBody> {
    let (head, mut body) = request.into_parts();
    if head.headers[AUTHORIZATION] == "Bearer T1" {
        body.frame().await;
        tokio::spawn(body.collect());
        return refused();
    }
    let body = body.collect().await.unwrap().to_bytes();
    uploads.lock().unwrap().push(body);
    ok()
}

#[tokio::test]
async fn a_streamed_upload_that_is_refused_under_way_arrives_whole_with_the_next_token() {
    const CHUNK: usize = 64 * 1024;
    const CHUNKS: usize = 128;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let uploads = Uploads::default();
        let app = Router::new().fallback(take_upload).with_state(Arc::clone(&uploads));
        let listener = Loopback::start(app).await.unwrap();
        let http = if version == Version::HTTP_2 { h2() } else { client() };
        let policy = RetryPolicy::builder()
            .classifier(classify_reqwest)
            .replay_stream_limit(16 << 20)
            .build()
            .unwrap();
        let client = ServiceBuilder::new()
            .layer(policy)
            .layer(AuthLayer::for_origin(numbered(), listener.origin()).unwrap())
            .service(http);

        let chunk = |at: usize| Bytes::from(vec![u8::try_from(at % 251).unwrap(); CHUNK]);
        let stream = (0..CHUNKS).map(move |at| Ok::<_, Infallible>(Frame::data(chunk(at))));
        let body = StreamBody::new(futures_util::stream::iter(stream));
        let request = Request::post(listener.origin()).version(version).body(body).unwrap();
        let response = client.oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{version:?}");
        assert_eq!(response.extensions().get::<RetryReport>().unwrap().attempts(), 2);
        let uploads = std::mem::take(&mut *uploads.lock().unwrap());
        let whole: Vec<u8> = (0..CHUNKS).flat_map(chunk).collect();
        assert_eq!(uploads.len(), 1, "{version:?}");
        assert!(uploads[0] == whole, "{version:?}: the body was not the one that was sent");
    }
}

// --- Errors ---

async fn failed(client: ReqwestClient, uri: &str) -> BoxError {
    let request = Request::post(uri).body(Full::<Bytes>::from("an order")).unwrap();
    client.oneshot(request).await.unwrap_err()
}

#[tokio::test]
async fn errors_are_reqwests_own_under_all_layers() {
    let origin = nobody().await;
    let client = ServiceBuilder::new()
        .layer(RetryPolicy::builder().classifier(classify_reqwest).max_retries(1).build().unwrap())
        .layer(AuthLayer::for_origin(token(), origin.as_str()).unwrap())
        .service(client());
    let request = Request::post(origin).body(Full::<Bytes>::from("an order")).unwrap();
    let error = client.oneshot(request).await.unwrap_err();
    assert!(error.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_connect), "{error:?}");
}

#[tokio::test]
async fn a_connection_that_cannot_be_made_means_unsent() {
    let error = failed(client(), &nobody().await).await;
    assert_eq!(classify_reqwest(&*error), Failure::Unsent);
}

#[tokio::test]
async fn a_connection_that_takes_too_long_means_unsent_and_an_answer_that_does_not() {
    // It takes connections and says nothing. A name that is never looked up stands for one that does not connect.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", silent.local_addr().unwrap());
    let short = Duration::from_millis(50);
    let slow = ReqwestClient::build(|builder| builder.timeout(short)).unwrap();
    let error = failed(slow, &origin).await;
    assert!(error.downcast_ref::<reqwest::Error>().unwrap().is_timeout());
    assert_eq!(classify_reqwest(&*error), Failure::Ambiguous);

    struct Never;
    impl reqwest::dns::Resolve for Never {
        fn resolve(&self, _: reqwest::dns::Name) -> reqwest::dns::Resolving {
            Box::pin(std::future::pending())
        }
    }
    let never =
        ReqwestClient::build(|builder| builder.connect_timeout(short).dns_resolver(Arc::new(Never))).unwrap();
    let error = failed(never, "http://api.example.test").await;
    assert!(error.downcast_ref::<reqwest::Error>().unwrap().is_timeout());
    assert_eq!(classify_reqwest(&*error), Failure::Unsent);
}

#[tokio::test]
async fn what_cannot_be_built_and_what_cannot_be_spoken_is_fatal() {
    for uri in ["ftp://api.example.test/", "/no/authority"] {
        let error = failed(client(), uri).await;
        assert_eq!(classify_reqwest(&*error), Failure::Fatal, "{uri}: {error:?}");
    }
    // This test is built without TLS.
    let error = failed(client(), "https://127.0.0.1:9/").await;
    assert_eq!(classify_reqwest(&*error), Failure::Fatal, "{error:?}");
}

/// What an h2 server does with the first stream.
#[derive(Clone, Copy, Debug)]
enum Nack {
    Refuse,
    Cancel,
    WantHttp1,
    GoAway,
}

/// A server of h2 alone, which turns the first stream away.
async fn nacking(nack: Nack) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let streams = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&streams);
    tokio::spawn(async move {
        if let Nack::GoAway = nack {
            let (stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(go_away(stream));
        }
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(accepted) = connection.accept().await {
                    let Ok((_, mut respond)) = accepted else { return };
                    match (count.fetch_add(1, Ordering::SeqCst), nack) {
                        (0, Nack::Refuse) => respond.send_reset(h2::Reason::REFUSED_STREAM),
                        (_, Nack::WantHttp1) => respond.send_reset(h2::Reason::HTTP_1_1_REQUIRED),
                        (0, Nack::Cancel) => respond.send_reset(h2::Reason::CANCEL),
                        _ => drop(respond.send_response(Response::new(()), true).unwrap()),
                    }
                }
            });
        }
    });
    (origin, streams)
}

/// Waits for the first stream, and says by GOAWAY that it looked at none (RFC 9113 §6.8).
async fn go_away(mut stream: TcpStream) {
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    stream.write_all(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]).await.unwrap();
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.unwrap();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let length = u64::from(u32::from_be_bytes([0, head[0], head[1], head[2]]));
        tokio::io::copy(&mut (&mut stream).take(length), &mut tokio::io::sink()).await.unwrap();
        let is_headers = head[3] == 1;
        if is_headers {
            break;
        }
    }
    // The last stream that it looked at is number 0, and nothing is wrong.
    stream.write_all(&[0, 0, 8, GOAWAY, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await.unwrap();
    // It goes when the client does.
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
}

#[tokio::test]
async fn a_stream_that_h2_refuses_is_unsent_and_one_that_it_resets_is_not() {
    for (nack, failure) in [
        (Nack::Refuse, Failure::Unsent),
        (Nack::GoAway, Failure::Unsent),
        (Nack::Cancel, Failure::Ambiguous),
        // It would be reset again.
        (Nack::WantHttp1, Failure::Fatal),
    ] {
        let (origin, streams) = nacking(nack).await;
        let error = failed(h2(), &origin).await;
        assert!(error.is::<reqwest::Error>());
        assert_eq!(classify_reqwest(&*error), failure, "{nack:?}: {error:?}");
        assert_eq!(streams.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn a_post_that_h2_refused_is_sent_again() {
    for nack in [Nack::Refuse, Nack::GoAway] {
        let (origin, streams) = nacking(nack).await;
        let policy = RetryPolicy::builder().classifier(classify_reqwest).min_delay(Duration::from_millis(1));
        let client = ServiceBuilder::new().layer(policy.build().unwrap()).service(h2());
        let request = Request::post(origin).body(Full::<Bytes>::from("an order")).unwrap();
        assert_eq!(client.oneshot(request).await.unwrap().status(), StatusCode::OK, "{nack:?}");
        assert_eq!(streams.load(Ordering::SeqCst), 2, "{nack:?}");
    }
}

// --- Where requests go ---

#[tokio::test]
async fn a_host_that_reqwest_would_write_in_another_way_is_not_gone_to() {
    let server = Server::new(|_| ok());
    let listener = server.start().await;
    let port = listener.origin().rsplit_once(':').unwrap().1.to_owned();
    for host in ["127.1", "0x7f.0.0.1"] {
        let error = failed(client(), &format!("http://{host}:{port}/")).await;
        assert!(
            error.downcast_ref::<Error>().is_some_and(|error| error.kind() == ErrorKind::Config),
            "{host}: {error:?}"
        );
        assert!(error.to_string().contains("127.0.0.1"), "{error}");
    }
    let request =
        Request::get(format!("http://127.0.0.1:{port}/a/../b")).body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(client().oneshot(request).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn an_address_that_reqwest_writes_in_another_way_is_gone_to() {
    let server = Server::new(|_| ok());
    let listener = server.start().await;
    let port = listener.origin().rsplit_once(':').unwrap().1.to_owned();
    for host in ["[::ffff:127.0.0.1]", "[::FFFF:7f00:1]", "[0:0:0:0:0:ffff:7f00:1]"] {
        let request = Request::get(format!("http://{host}:{port}/")).body(Empty::<Bytes>::new()).unwrap();
        assert_eq!(client().oneshot(request).await.unwrap().status(), StatusCode::OK, "{host}");
    }
}

#[tokio::test]
async fn an_error_of_a_client_shows_no_query() {
    let api = ApiClient::new("http://127.0.0.1:9", client()).unwrap();
    let error = api.get("items").query([("key", "S3CR3T")]).send().await.unwrap_err();
    assert!(error.is_connect(), "{error}");
    let shown = format!("{error} {error:?} {error:#?}");
    let causes = format!("{:?} {0:#}", anyhow::Error::from(error));
    assert!(
        shown.contains("Connection refused") && causes.contains("error sending request"),
        "{shown} {causes}"
    );
    assert!(!shown.contains("S3CR3T") && !causes.contains("S3CR3T"), "{shown} {causes}");
}

proptest! {
    /// Whatever is let through goes to the host that the URI names.
    #[test]
    fn no_uri_leads_reqwest_elsewhere(uri in r"https?://[a-zA-Z0-9.%@:\[\]_~!$&'()*+,;=-]{1,24}(/[ -~]{0,12})?") {
        let Ok(request) = Request::get(&uri).body(Full::<Bytes>::default()) else { return Ok(()) };
        let named = request.uri().clone();
        let gone = Arc::new(Mutex::new(None));
        let note = Arc::clone(&gone);
        let below = tower::service_fn(move |request: reqwest::Request| {
            *note.lock().unwrap() = Some(request.url().clone());
            std::future::ready(Err::<reqwest::Response, BoxError>("noted".into()))
        });
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(ReqwestClient::new(below).oneshot(request)).unwrap_err();
        if let Some(url) = gone.lock().unwrap().take() {
            prop_assert_eq!(url.host_str().unwrap(), named.host().unwrap().to_ascii_lowercase());
            prop_assert_eq!(url.scheme(), named.scheme_str().unwrap());
            prop_assert!(named.port_u16().is_none_or(|port| url.port_or_known_default() == Some(port)));
        }
    }
}

/// An API that sends everybody to a stranger, and what the stranger gets.
async fn api_and_stranger(status: StatusCode) -> (Loopback, Loopback, Server) {
    let stranger = Server::new(|_| {
        Response::builder().status(StatusCode::UNAUTHORIZED).body(AxumBody::empty()).unwrap()
    });
    let elsewhere = stranger.start().await;
    let to = elsewhere.origin() + "/collect";
    let api = Server::new(move |_| redirect(status, &to)).start().await;
    (api, elsewhere, stranger)
}

#[tokio::test]
async fn with_redirects_on_reqwest_strips_authorization_and_carries_another_header_along() {
    let (api, _elsewhere, stranger) = api_and_stranger(StatusCode::FOUND).await;
    let following =
        || ReqwestClient::new(reqwest::Client::builder().redirect(Policy::limited(3)).build().unwrap());
    let get = || Request::get(api.origin()).body(Full::<Bytes>::default()).unwrap();

    let layer = AuthLayer::for_origin(token(), api.origin()).unwrap();
    let response = ServiceBuilder::new().layer(layer).service(following()).oneshot(get()).await.unwrap();
    let seen = stranger.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].head.headers.get(AUTHORIZATION), None);
    // The stranger's answer is taken for that of the API.
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);

    let header = HeaderName::from_static("x-api-key");
    let layer = AuthLayer::for_origin(token(), api.origin()).unwrap().header(header);
    ServiceBuilder::new().layer(layer).service(following()).oneshot(get()).await.unwrap();
    assert!(
        stranger.seen()[0].head.headers.contains_key("x-api-key"),
        "then the page of the module is wrong"
    );
}

#[tokio::test]
async fn with_redirects_on_a_307_of_a_request_with_a_body_is_handed_out() {
    let (api, _elsewhere, stranger) = api_and_stranger(StatusCode::TEMPORARY_REDIRECT).await;
    let client = ReqwestClient::new(reqwest::Client::builder().redirect(Policy::limited(3)).build().unwrap());
    let request = Request::post(api.origin()).body(Full::<Bytes>::from("an order")).unwrap();
    assert_eq!(client.oneshot(request).await.unwrap().status(), StatusCode::TEMPORARY_REDIRECT);
    assert!(stranger.seen().is_empty());
}

#[tokio::test]
async fn a_client_that_was_built_here_follows_nothing_whatever_its_options_say() {
    let (api, _elsewhere, stranger) = api_and_stranger(StatusCode::FOUND).await;
    let client = ReqwestClient::build(|builder| builder.redirect(Policy::limited(3))).unwrap();
    let request = Request::get(api.origin()).body(Full::<Bytes>::default()).unwrap();
    let response = client.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::FOUND);
    assert!(stranger.seen().is_empty());
}

#[tokio::test]
async fn nothing_is_repeated_below_the_layers() {
    let busy = Server::new(|_| Response::builder().status(503).body(AxumBody::empty()).unwrap());
    let listener = busy.start().await;
    let eager = || reqwest::retry::for_host("127.0.0.1").classify_fn(|answer| answer.retryable());
    let send = async |client: reqwest::Client| client.get(listener.origin()).send().await.unwrap().status();
    send(reqwest::Client::builder().retry(eager()).build().unwrap()).await;
    assert_eq!(busy.seen().len(), 3, "then reqwest no longer repeats, and this test shows nothing");
    send(ReqwestClient::build(|builder| builder.retry(eager())).unwrap().into_inner()).await;
    assert_eq!(busy.seen().len(), 1);
    // Nor does one that was just taken: to it the bodies of the layers are streams.
    let taken = ReqwestClient::new(reqwest::Client::builder().retry(eager()).build().unwrap());
    taken.oneshot(Request::get(listener.origin()).body(Full::<Bytes>::default()).unwrap()).await.unwrap();
    assert_eq!(busy.seen().len(), 1);
}

// --- The token endpoint ---

async fn fetch(source: &ClientCredentials) -> Result<AccessToken, Error> {
    source.token(TokenRequest::new(FetchReason::Initial)).await
}

#[tokio::test]
async fn a_307_of_the_token_endpoint_sends_the_secret_nowhere() {
    let (login, _elsewhere, stranger) = api_and_stranger(StatusCode::TEMPORARY_REDIRECT).await;
    let url = login.origin() + "/token";
    // What happens with a client that is just taken: reqwest repeats the form, secret included.
    let form = "grant_type=client_credentials&client_id=billing&client_secret=hunter2";
    reqwest::Client::new().post(&url).body(form).send().await.unwrap();
    assert_eq!(stranger.seen()[0].body, form, "then reqwest no longer does so, and this test shows nothing");

    for follow in [false, true] {
        let client = ReqwestClient::build(|builder| match follow {
            true => builder.redirect(Policy::limited(3)),
            false => builder,
        });
        let source = ClientCredentials::builder(&url, "billing", ClientAuth::post("hunter2"));
        let error = fetch(&source.build_with(client.unwrap()).unwrap()).await.unwrap_err();
        assert_eq!(
            (error.kind() == ErrorKind::Config, error.status()),
            (true, Some(StatusCode::TEMPORARY_REDIRECT))
        );
        assert!(stranger.seen().is_empty(), "something arrived at the other origin");
    }
}

#[tokio::test]
async fn a_client_that_is_there_already_is_refused_at_the_token_endpoint() {
    let login = Server::new(|_| ok());
    let listener = login.start().await;
    let url = listener.origin() + "/token";
    let ready_made = || reqwest::Client::builder().redirect(Policy::none()).build().unwrap();
    let source = || ClientCredentials::builder(&url, "billing", "hunter2");
    let taken = source().build_with(ReqwestClient::new(ready_made())).unwrap();
    let error = fetch(&taken).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Config && error.to_string().contains("ReqwestClient::build"),
        "{error}"
    );
    // Nor by way of a layer or of reqwest-middleware.
    let by_middleware = reqwest_middleware::ClientBuilder::new(ready_made()).build();
    let taken = ServiceBuilder::new()
        .map_request(|request: Request<_>| request)
        .service(ReqwestClient::new(by_middleware));
    assert_eq!(fetch(&source().build_with(taken).unwrap()).await.unwrap_err().kind(), ErrorKind::Config);
    assert!(login.seen().is_empty(), "something was sent");
}

#[tokio::test]
async fn a_token_is_fetched_by_reqwest() {
    let login = Server::new(|_| {
        Response::new(AxumBody::from(r#"{"access_token":"AT1","token_type":"Bearer","expires_in":60}"#))
    });
    let listener = login.start().await;
    let source = ClientCredentials::builder(listener.origin() + "/token", "billing", "hunter2")
        .build_with(ReqwestClient::build(|builder| builder).unwrap())
        .unwrap();
    assert_eq!(fetch(&source).await.unwrap().header_value(), "Bearer AT1");
    let seen = login.seen();
    assert_eq!(seen[0].head.headers["accept-encoding"], "identity");
    assert_eq!(seen[0].head.headers[CONTENT_LENGTH], "29");
    assert_eq!(seen[0].body, "grant_type=client_credentials");
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_reached_is_named_without_its_query() {
    let url = nobody().await + "/token?key=of-the-query";
    let source = ClientCredentials::builder(url, "billing", "hunter2").retries(0);
    let error = fetch(&source.build_with(ReqwestClient::build(|builder| builder).unwrap()).unwrap())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient);
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("of-the-query") && !shown.contains("hunter2"), "{shown}");
}

#[tokio::test]
async fn https_without_tls_is_an_error_of_the_configuration_that_says_so() {
    let source = ClientCredentials::builder("https://127.0.0.1:9/token", "billing", "hunter2");
    let error = fetch(&source.build_with(ReqwestClient::build(|builder| builder).unwrap()).unwrap())
        .await
        .unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("built without TLS"), "{error}");
}

#[test]
fn options_that_reqwest_refuses_are_an_error_of_the_configuration() {
    let error = ReqwestClient::build(|builder| builder.user_agent("line\nbreak")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
}

// --- reqwest-middleware ---

#[tokio::test]
async fn the_client_of_reqwest_middleware_stands_below_the_layers() {
    let server = Server::new(|_| ok());
    let listener = server.start().await;
    let below = reqwest_middleware::ClientBuilder::new(client().into_inner()).build();
    let client = ServiceBuilder::new()
        .layer(RetryPolicy::builder().classifier(classify_reqwest).max_retries(0).build().unwrap())
        .layer(
            AuthLayer::for_origin(token(), listener.origin())
                .unwrap()
                .allow_origin("http://127.0.0.1:9")
                .unwrap(),
        )
        .service(ReqwestClient::new(below));
    let request = Request::get(listener.origin()).body(Full::<Bytes>::default()).unwrap();
    assert_eq!(client.clone().oneshot(request).await.unwrap().status(), StatusCode::OK);
    assert_eq!(server.seen()[0].head.headers[AUTHORIZATION], "Bearer A1");

    let request = Request::post("http://127.0.0.1:9/").body(Full::<Bytes>::default()).unwrap();
    let error = client.oneshot(request).await.unwrap_err();
    assert!(error.is::<reqwest_middleware::Error>());
    assert_eq!(classify_reqwest(&*error), Failure::Unsent);
}

type Layered = BoxCloneSyncService<Request<reqwest::Body>, Response<reqwest::Body>, BoxError>;

/// The middleware of the module's page.
struct Authorized(Layered);

#[async_trait::async_trait]
impl reqwest_middleware::Middleware for Authorized {
    async fn handle(
        &self,
        request: reqwest::Request,
        _: &mut http::Extensions,
        _: reqwest_middleware::Next<'_>,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        let response = self.0.clone().oneshot(Request::try_from(request)?).await;
        Ok(response.map_err(anyhow::Error::from_boxed)?.into())
    }
}

#[tokio::test]
async fn the_layers_are_a_middleware_of_reqwest_middleware() {
    let server = Server::new(|head| match head.headers[AUTHORIZATION] == "Bearer T1" {
        true => refused(),
        false => ok(),
    });
    let listener = server.start().await;
    let layered = ServiceBuilder::new()
        .map_response(|response: Response<_>| response.map(reqwest::Body::wrap))
        .layer(RetryPolicy::builder().classifier(classify_reqwest).build().unwrap())
        .layer(AuthLayer::for_origin(numbered(), listener.origin()).unwrap())
        .service(client());
    let client = reqwest_middleware::ClientBuilder::new(reqwest::Client::new())
        .with(Authorized(BoxCloneSyncService::new(layered)))
        .build();
    let response =
        client.post(listener.origin()).header("x-order", "7").body("an order").send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "fine");
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|seen| seen.head.headers["x-order"] == "7" && seen.body == "an order"));
}
