//! Which errors of a real connection are retried: hyper's clients against servers on loopback that break in every way.

#![cfg(feature = "hyper-client")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body::Body;
use http_body_util::Full;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tower::{BoxError, Layer as _, Service, ServiceExt as _};
use tower_oauth2::retry::{
    Failure, ReplayReason, ReportSlot, RequestBody, RetryOptions, RetryReport, StopReason, Unsent,
};
use tower_oauth2::transport::{HyperClient, classify_hyper};
use tower_oauth2::{
    AccessToken, ApiClient, ClientCredentials, ErrorKind, FetchReason, RetryPolicy, TokenRequest,
    TokenSource as _,
};

type Sent = RequestBody<Full<Bytes>>;

/// What became of one request.
struct Outcome {
    status: Result<StatusCode, BoxError>,
    report: Option<RetryReport>,
}

impl Outcome {
    fn reasons(&self) -> Vec<ReplayReason> {
        let history = self.report.iter().flat_map(|report| report.history());
        history.map(|replayed| replayed.reason()).collect()
    }

    fn attempts(&self) -> u32 {
        self.report.as_ref().map_or(1, RetryReport::attempts)
    }

    fn stop(&self) -> &StopReason {
        self.report.as_ref().unwrap().stop_reason()
    }
}

fn quick() -> tower_oauth2::retry::RetryPolicyBuilder {
    RetryPolicy::builder().min_delay(Duration::from_millis(1))
}

/// Sends a request through a retry layer. The answer's body is not read.
async fn send<S, B>(client: S, policy: &RetryPolicy, method: Method, url: &str) -> Outcome
where
    S: Service<Request<Sent>, Response = http::Response<B>> + Clone,
    S::Error: Into<BoxError>,
    B: Body,
    B::Error: Into<BoxError>,
{
    let slot = ReportSlot::new();
    let request = Request::builder()
        .method(method)
        .uri(url)
        .header("content-type", "text/plain")
        .extension(RetryOptions::new().report_to(&slot))
        .body(Full::from("order"))
        .unwrap();
    let response = policy.layer(client).oneshot(request).await;
    Outcome { status: response.map(|response| response.status()), report: slot.take() }
}

async fn post<S, B>(client: S, url: &str) -> Outcome
where
    S: Service<Request<Sent>, Response = http::Response<B>> + Clone,
    S::Error: Into<BoxError>,
    B: Body,
    B::Error: Into<BoxError>,
{
    send(client, &quick().build().unwrap(), Method::POST, url).await
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn nobody() -> SocketAddr {
    listener().await.1
}

/// A certificate of its own, and what serves it for h2.
fn tls() -> (TlsAcceptor, String) {
    tls_in_years(1975, 4096)
}

/// One that is good in these years alone.
fn tls_in_years(from: i32, to: i32) -> (TlsAcceptor, String) {
    let signing_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(from, 1, 1);
    params.not_after = rcgen::date_time_ymd(to, 1, 1);
    let cert = params.self_signed(&signing_key).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    (TlsAcceptor::from(Arc::new(config)), cert.pem())
}

// --- No connection ---

#[tokio::test]
async fn a_post_is_sent_again_while_nobody_takes_the_connection() {
    let outcome = post(HyperClient::new(), &format!("http://{}/", nobody().await)).await;
    assert_eq!(outcome.reasons(), [ReplayReason::Unsent; 3]);
    assert_eq!((outcome.attempts(), outcome.stop()), (4, &StopReason::AttemptsExhausted));
    let error = outcome.status.unwrap_err();
    assert!(error.is::<Unsent>() && error.source().unwrap().is::<legacy::Error>(), "{error:?}");
}

#[tokio::test]
async fn a_server_that_comes_up_meanwhile_gets_the_post_once() {
    let address = nobody().await;
    let server = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let listener = TcpListener::bind(address).await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let request = read_request(&mut stream).await.unwrap();
        stream.write_all(OK).await.unwrap();
        request
    });
    let policy = quick().min_delay(Duration::from_millis(50)).max_retries(8).build().unwrap();
    let outcome = send(HyperClient::new(), &policy, Method::POST, &format!("http://{address}/")).await;
    assert_eq!(*outcome.status.as_ref().unwrap(), StatusCode::OK);
    assert!(outcome.reasons().iter().all(|reason| *reason == ReplayReason::Unsent));
    assert!(server.await.unwrap().ends_with("order"));
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_does_not_get_better() {
    let ((listener, address), (acceptor, _), (_, other)) = (listener().await, tls(), tls());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = acceptor.accept(stream).await;
        }
    });
    let client = HyperClient::new().only_root_certificates(other).unwrap();
    let outcome = post(client, &format!("https://{address}/")).await;
    assert_eq!((outcome.attempts(), outcome.stop()), (1, &StopReason::Failed));
    assert!(outcome.status.is_err());
}

#[tokio::test]
async fn a_certificate_of_another_time_may_get_better() {
    // The clock of a machine that just started is wrong for a while, and a certificate is renewed.
    for (from, to) in [(2200, 2300), (1990, 2000)] {
        let ((listener, address), (wrong, root), (right, other)) =
            (listener().await, tls_in_years(from, to), tls());
        tokio::spawn(async move {
            for acceptor in [&wrong, &right] {
                let Ok(stream) = acceptor.accept(listener.accept().await.unwrap().0).await else { continue };
                serve_h2(stream, Arc::default()).await;
            }
        });
        let client = HyperClient::new().only_root_certificates(root + &other).unwrap();
        let outcome = post(client, &format!("https://{address}/")).await;
        assert_eq!(outcome.reasons(), [ReplayReason::Unsent]);
        assert_eq!(outcome.status.unwrap(), StatusCode::OK);
    }
}

#[tokio::test]
async fn a_certificate_of_another_time_is_named_as_the_cause_and_not_the_url() {
    for (from, to, said) in [(2200, 2300, "certificate not valid yet"), (1990, 2000, "certificate expired")] {
        let ((listener, address), (wrong, root)) = (listener().await, tls_in_years(from, to));
        tokio::spawn(async move {
            for _ in 0..2 {
                drop(wrong.accept(listener.accept().await.unwrap().0).await);
            }
        });
        let client = HyperClient::new().only_root_certificates(root).unwrap();
        let api = ApiClient::builder(format!("https://{address}"), AccessToken::bearer("A1").unwrap());
        let api = api
            .retry(RetryPolicy::builder().max_retries(0).build().unwrap())
            .build_with(client.clone())
            .unwrap();
        let text = api.get("x").send().await.unwrap_err().to_string();
        assert!(text.contains(said) && text.contains("check this machine's clock"), "{text}");
        let url = format!("https://{address}/token");
        let source = ClientCredentials::builder(url, "billing", "hunter2-hunter2").retries(0);
        let source = source.build_with(client).unwrap();
        let error = source.token(TokenRequest::new(FetchReason::Initial)).await.unwrap_err();
        let text = error.to_string();
        assert!(error.kind() == ErrorKind::Transient && text.contains(said), "{text}");
        assert!(text.contains("check this machine's clock") && !text.contains("token URL"), "{text}");
    }
}

// --- HTTP/1.1 ---

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// Reads one request with the body `order`; none at the end of the connection.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut request = Vec::new();
    while !request.ends_with(b"order") {
        if stream.read_buf(&mut request).await.ok()? == 0 {
            return None;
        }
    }
    Some(String::from_utf8(request).unwrap())
}

#[tokio::test]
async fn a_connection_that_breaks_after_the_request_was_taken_tells_nothing() {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        for number in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_request(&mut stream).await.unwrap();
            if number >= 2 {
                stream.write_all(OK).await.unwrap();
            }
        }
    });
    let url = format!("http://{address}/");
    let outcome = post(HyperClient::new(), &url).await;
    assert_eq!((outcome.attempts(), outcome.stop()), (1, &StopReason::NotIdempotent));
    assert!(!outcome.status.unwrap_err().is::<Unsent>());
    let put = send(HyperClient::new(), &quick().build().unwrap(), Method::PUT, &url).await;
    assert_eq!(
        (put.status.as_ref().unwrap(), put.reasons()),
        (&StatusCode::OK, vec![ReplayReason::Ambiguous])
    );
}

#[tokio::test]
async fn an_idle_connection_that_the_server_closes_costs_no_post_twice() {
    let (listener, address) = listener().await;
    let seen = Arc::new(Mutex::new(HashMap::new()));
    let log = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                if let Some(request) = read_request(&mut stream).await {
                    let path = request.split(' ').nth(1).unwrap().to_owned();
                    *log.lock().unwrap().entry(path).or_insert(0) += 1;
                    // It promises to stay, and goes.
                    stream.write_all(OK).await.unwrap();
                }
            });
        }
    });
    let client = HyperClient::new();
    for number in 0..50 {
        let outcome = post(client.clone(), &format!("http://{address}/{number}")).await;
        match &outcome.status {
            Ok(status) => assert_eq!(*status, StatusCode::OK),
            Err(_) => assert_eq!((outcome.attempts(), outcome.stop()), (1, &StopReason::NotIdempotent)),
        }
    }
    let seen = seen.lock().unwrap();
    assert!(!seen.is_empty() && seen.values().all(|times| *times == 1), "{seen:?}");
}

// --- h2 ---

/// What the server does with the requests on its connections, in turn. Afterwards it answers.
#[derive(Clone, Copy)]
enum H2 {
    Answer,
    /// It refuses the stream.
    Refuse,
    /// It resets the stream for another reason.
    Cancel,
    /// It goes away, and says that it has not looked at the stream.
    LeaveBefore,
    /// It goes away, says that it has looked at the stream, and closes.
    LeaveAfter,
    /// It goes away with an error, says that it has not looked at the stream.
    LeaveInAnger,
}

/// Speaks just enough of RFC 9113, frame by frame: no library sends what is sent here.
async fn serve_h2(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    script: Arc<Mutex<Vec<H2>>>,
) -> Option<()> {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.ok()?;
    stream.write_all(&frame(4, 0, 0, &[])).await.ok()?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.ok()?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await.ok()?;
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let reply = match (head[3], head[4]) {
            // SETTINGS are acknowledged.
            (4, 0) => frame(4, 1, 0, &[]),
            // HEADERS: a request.
            (1, _) => {
                let next = script.lock().unwrap().pop().unwrap_or(H2::Answer);
                let leave =
                    |last: u32, code: u32| frame(7, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat());
                match next {
                    H2::Answer => frame(1, 5, id, &[0x88]),
                    H2::Refuse => frame(3, 0, id, &7_u32.to_be_bytes()),
                    H2::Cancel => frame(3, 0, id, &8_u32.to_be_bytes()),
                    H2::LeaveBefore => leave(0, 0),
                    H2::LeaveInAnger => leave(0, 11),
                    H2::LeaveAfter => {
                        stream.write_all(&leave(id, 0)).await.ok()?;
                        return None;
                    }
                }
            }
            _ => continue,
        };
        stream.write_all(&reply).await.ok()?;
    }
}

fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &id.to_be_bytes(), payload].concat()
}

/// Starts a server, and returns its address and a client that trusts it.
async fn h2_server(mut script: Vec<H2>) -> (String, HyperClient) {
    script.reverse();
    let ((listener, address), (acceptor, pem)) = (listener().await, tls());
    let script = Arc::new(Mutex::new(script));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, script) = (acceptor.clone(), Arc::clone(&script));
            tokio::spawn(async move { serve_h2(acceptor.accept(stream).await.ok()?, script).await });
        }
    });
    (format!("https://{address}/"), HyperClient::new().only_root_certificates(pem).unwrap())
}

#[tokio::test]
async fn what_an_h2_server_says_it_did_not_look_at_is_sent_again() {
    for refusal in [H2::Refuse, H2::LeaveBefore, H2::LeaveInAnger] {
        let (url, client) = h2_server(vec![H2::Answer, refusal]).await;
        let first = post(client.clone(), &url).await;
        assert_eq!((first.status.unwrap(), first.report.is_none()), (StatusCode::OK, true));
        let outcome = post(client, &url).await;
        assert_eq!(*outcome.status.as_ref().unwrap(), StatusCode::OK);
        assert_eq!(outcome.reasons(), [ReplayReason::Unsent]);
    }
}

#[tokio::test]
async fn what_an_h2_server_may_have_looked_at_is_not() {
    for end in [H2::Cancel, H2::LeaveAfter] {
        let (url, client) = h2_server(vec![end]).await;
        let outcome = post(client, &url).await;
        assert_eq!((outcome.attempts(), outcome.stop()), (1, &StopReason::NotIdempotent));
        assert!(outcome.status.is_err());
        let (url, client) = h2_server(vec![end]).await;
        let outcome = send(client, &quick().build().unwrap(), Method::PUT, &url).await;
        assert_eq!(outcome.reasons(), [ReplayReason::Ambiguous]);
        assert_eq!(outcome.status.unwrap(), StatusCode::OK);
    }
}

// --- A client of one's own ---

fn own(builder: &mut legacy::Builder) -> legacy::Client<HttpConnector, Sent> {
    builder.build_http()
}

#[tokio::test]
async fn the_classifier_knows_the_errors_of_a_client_of_ones_own() {
    let client = || own(&mut legacy::Client::builder(TokioExecutor::new()));
    let http2 = || own(legacy::Client::builder(TokioExecutor::new()).http2_only(true));
    let failure = async |client: legacy::Client<HttpConnector, Sent>, uri: String| {
        let request = Request::post(uri).body(RequestBody::default()).unwrap();
        let error = client.oneshot(request).await.unwrap_err();
        (classify_hyper(&error), Failure::of(&error))
    };
    // Without the classifier nothing is known of them.
    let unsent = (Failure::Unsent, Failure::Ambiguous);
    let ambiguous = (Failure::Ambiguous, Failure::Ambiguous);
    let fatal = (Failure::Fatal, Failure::Ambiguous);
    assert_eq!(failure(client(), format!("http://{}/", nobody().await)).await, unsent);
    assert_eq!(failure(client(), "/relative".to_owned()).await, fatal);

    // Closed before the request had a connection.
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    assert_eq!(failure(http2(), format!("http://{address}/")).await, unsent);

    for (script, expected) in [
        (H2::Refuse, unsent),
        (H2::LeaveBefore, unsent),
        (H2::Cancel, ambiguous),
        (H2::LeaveAfter, ambiguous),
    ] {
        let (listener, address) = self::listener().await;
        let script = Arc::new(Mutex::new(vec![script]));
        tokio::spawn(async move { serve_h2(listener.accept().await.unwrap().0, script).await });
        assert_eq!(failure(http2(), format!("http://{address}/")).await, expected);
    }
}

#[tokio::test]
async fn with_the_classifier_a_client_of_ones_own_is_retried_alike() {
    let client = own(&mut legacy::Client::builder(TokioExecutor::new()));
    let url = format!("http://{}/", nobody().await);
    let policy = quick().classifier(classify_hyper).build().unwrap();
    let outcome = send(client.clone(), &policy, Method::POST, &url).await;
    assert_eq!(outcome.reasons(), [ReplayReason::Unsent; 3]);
    let outcome = post(client, &url).await;
    assert_eq!((outcome.attempts(), outcome.stop()), (1, &StopReason::NotIdempotent));
}
