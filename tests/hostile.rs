//! Servers that mean harm, on loopback: each ends in one clear error or the right result, in bounded time and memory.

#![cfg(feature = "hyper-client")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that cannot go on has failed, and it looks at the clock from outside"
)]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tower::{BoxError, ServiceBuilder, ServiceExt as _};
use tower_oauth2::extensions::{ScopeMissing, TokenRejected, TokenWithheld};
use tower_oauth2::retry::{ResponseBody, RetryReport, StopReason};
use tower_oauth2::transport::{HyperClient, IncomingBody};
use tower_oauth2::{
    AccessToken, AuthLayer, ClientCredentials, Error, ErrorKind, RetryPolicy, TokenCache, source_fn,
};

/// Longer than anything here takes on a slow machine, and shorter than a hang.
const SOON: Duration = Duration::from_secs(20);

/// Long enough for a mebibyte on a machine with much else to do.
const ATTEMPT: Duration = Duration::from_secs(2);

type Act = Pin<Box<dyn Future<Output = std::io::Result<()>> + Send>>;

// --- Server ---

/// A server that reads the head of one request per connection, and then does what it likes with the connection.
struct Server {
    origin: String,
    requests: Arc<AtomicUsize>,
    /// What an endless one got rid of, in bytes.
    sent: Arc<AtomicUsize>,
}

impl Server {
    async fn start(act: impl Fn(usize, TcpStream) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let (count, act) = (Arc::clone(&requests), Arc::new(act));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (count, act) = (Arc::clone(&count), Arc::clone(&act));
                tokio::spawn(async move {
                    if read_head(&mut stream).await {
                        let number = count.fetch_add(1, Ordering::SeqCst);
                        // A client that has had enough closes the connection.
                        let _ = act(number, stream).await;
                    }
                });
            }
        });
        Self { origin, requests, sent: Arc::default() }
    }

    /// Writes the same to every request, and closes.
    async fn saying(text: impl Into<Vec<u8>>) -> Self {
        let text: Arc<[u8]> = text.into().into();
        Self::start(move |_, mut stream| {
            let text = Arc::clone(&text);
            Box::pin(async move {
                stream.write_all(&text).await?;
                stream.shutdown().await?;
                // To close on what was not read would reset the connection, and the answer with it.
                tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map(drop)
            })
        })
        .await
    }

    /// Writes a beginning, and then the same over and over, with a pause in between.
    async fn endless(beginning: &'static str, again: &'static str, pause: Duration) -> Self {
        let sent = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&sent);
        let server = Self::start(move |_, mut stream| {
            let count = Arc::clone(&count);
            Box::pin(async move {
                stream.write_all(beginning.as_bytes()).await?;
                loop {
                    stream.write_all(again.as_bytes()).await?;
                    count.fetch_add(again.len(), Ordering::SeqCst);
                    tokio::time::sleep(pause).await;
                }
            })
        });
        Self { sent, ..server.await }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn read_head(stream: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read_buf(&mut head).await {
            Ok(read) if read > 0 => {}
            _ => return false,
        }
    }
    true
}

fn json(body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn empty(status: &str, headers: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n{headers}\r\n").into_bytes()
}

// --- Token endpoints ---

async fn ask(server: &Server) -> Result<AccessToken, Error> {
    let source = ClientCredentials::builder(format!("{}/token", server.origin), "billing", "hunter2-hunter2")
        .retries(0)
        .attempt_timeout(ATTEMPT);
    let started = Instant::now();
    let result = TokenCache::new(source.build().unwrap()).get().await;
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    result
}

async fn refused(server: &Server) -> Error {
    let error = ask(server).await.unwrap_err();
    let line = error.to_string();
    assert!(line.chars().count() <= 1024 && !line.contains('\n') && !line.contains("hunter2"), "{line}");
    error
}

#[tokio::test]
async fn headers_without_end_are_an_error() {
    let flood = Server::endless(
        "HTTP/1.1 200 OK\r\n",
        "X-Filler: 0123456789012345678901234567890123456789\r\n",
        Duration::ZERO,
    );
    assert_eq!(refused(&flood.await).await.kind(), ErrorKind::Transient);
    let one_line = Server::endless(
        "HTTP/1.1 200 OK\r\nX-Filler: ",
        "0123456789012345678901234567890123456789",
        Duration::ZERO,
    );
    assert_eq!(refused(&one_line.await).await.kind(), ErrorKind::Transient);
}

#[tokio::test]
async fn an_answer_that_dribbles_is_given_up_after_the_time_of_an_attempt() {
    let pause = Duration::from_millis(20);
    for beginning in [
        "HTTP/1.1 200 OK\r\nX-Slow: ",
        "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{\"access_token\":\"",
    ] {
        let error = refused(&Server::endless(beginning, "a", pause).await).await;
        assert!(error.kind() == ErrorKind::Transient && error.to_string().contains("within 2s"), "{error}");
    }
}

#[tokio::test]
async fn a_body_without_end_or_of_a_gibibyte_is_not_read() {
    let chunk = "10000\r\n".to_owned() + &"x".repeat(1 << 16) + "\r\n";
    let chunks = Server::endless(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        chunk.leak(),
        Duration::ZERO,
    );
    let announced = Server::endless(
        "HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n",
        "x",
        Duration::from_secs(60),
    );
    for server in [chunks.await, announced.await] {
        let error = refused(&server).await;
        assert!(
            error.kind() == ErrorKind::Protocol && error.to_string().contains("more than 1024 KiB"),
            "{error}"
        );
        // The answer's cap, and what the buffers of two sockets hold.
        assert!(server.sent.load(Ordering::SeqCst) < 16 << 20, "it was read on");
    }
}

#[tokio::test]
async fn a_compressed_answer_is_not_unpacked() {
    let bomb = [
        &b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1000\r\n\r\n\x1f\x8b\x08"[..],
        &[0; 997],
    ];
    let error = refused(&Server::saying(bomb.concat()).await).await;
    assert!(error.kind() == ErrorKind::Protocol && error.to_string().contains("gzip"), "{error}");
}

#[tokio::test]
async fn a_redirect_carries_nothing_to_another_origin() {
    let thief = Server::saying(json(r#"{"access_token":"stolen"}"#)).await;
    for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"] {
        let server = Server::saying(empty(status, &format!("Location: {}/token\r\n", thief.origin))).await;
        let error = refused(&server).await;
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains("redirect"), "{error}");
    }
    assert_eq!(thief.requests(), 0);
}

#[tokio::test]
async fn a_token_that_would_break_a_header_or_contradicts_itself_is_refused() {
    for (body, class) in [
        (r#"{"access_token":"a\r\nX-Evil: 1"}"#, ErrorKind::Protocol),
        (r#"{"access_token":"a\u0000b"}"#, ErrorKind::Protocol),
        (r#"{"access_token":"tökén"}"#, ErrorKind::Protocol),
        (r#"{"access_token":"Bearer a"}"#, ErrorKind::Protocol),
        (r#"{"access_token":"\ud800"}"#, ErrorKind::Protocol),
        (r#"{"access_token":""}"#, ErrorKind::Protocol),
        (r#"{"access_token":["a"]}"#, ErrorKind::Protocol),
        (r#"{"access_token":"a","access_token":"b"}"#, ErrorKind::Protocol),
        (r#"{"access_token":"a","error":"invalid_client"}"#, ErrorKind::Config),
        (r#"{"access_token":"a","token_type":"mac"}"#, ErrorKind::Protocol),
        (r#"{"access_token":"a""#, ErrorKind::Protocol),
    ] {
        assert_eq!(refused(&Server::saying(json(body)).await).await.kind(), class, "{body}");
    }
}

#[tokio::test]
async fn a_huge_token_is_a_token_up_to_the_cap_of_the_answer() {
    let large = format!(r#"{{"access_token":"{}"}}"#, "t".repeat(1_000_000));
    assert_eq!(ask(&Server::saying(json(&large)).await).await.unwrap().header_value().len(), 1_000_007);
    let larger = format!(r#"{{"access_token":"{}"}}"#, "t".repeat(1 << 20));
    assert_eq!(refused(&Server::saying(json(&larger)).await).await.kind(), ErrorKind::Protocol);
    // Where everything is an echo, looking for it takes no longer than a moment.
    let echo =
        format!(r#"{{"error":"odd","error_description":"{0}","refresh_token":"{0}"}}"#, "t".repeat(500_000));
    assert_eq!(refused(&Server::saying(json(&echo)).await).await.description(), Some("[redacted]…"));
}

#[tokio::test]
async fn json_of_any_depth_or_width_overflows_nothing() {
    let deep = "[".repeat(500_000);
    assert_eq!(refused(&Server::saying(json(&deep)).await).await.kind(), ErrorKind::Protocol);
    let inside = format!(r#"{{"x":{}{},"access_token":"a"}}"#, "[".repeat(200_000), "]".repeat(200_000));
    // A member that nobody asks for is skipped, not interpreted.
    let token = ask(&Server::saying(json(&inside)).await).await.unwrap();
    assert_eq!(token.header_value(), "Bearer a");
    let wide = |width: usize| {
        let members: Vec<String> = (0..width).map(|n| format!(r#""m{n}":"v""#)).collect();
        format!(r#"{{{},"access_token":"a"}}"#, members.join(","))
    };
    assert!(ask(&Server::saying(json(&wide(200))).await).await.is_ok());
    let error = refused(&Server::saying(json(&wide(50_000))).await).await;
    assert!(error.kind() == ErrorKind::Protocol && error.to_string().contains("members"), "{error}");
}

#[tokio::test]
async fn a_lifetime_that_makes_no_sense_makes_no_loop() {
    for lifetime in [
        "-1",
        "0",
        "1e308",
        "-1e308",
        "18446744073709551616",
        r#""99999999999999999999999999""#,
        r#""NaN""#,
        r#""inf""#,
        "null",
        "true",
        "[]",
        r#""soon""#,
    ] {
        let server =
            Server::saying(json(&format!(r#"{{"access_token":"a","expires_in":{lifetime}}}"#))).await;
        let source = ClientCredentials::builder(format!("{}/token", server.origin), "billing", "hunter2");
        let cache = TokenCache::new(source.build().unwrap());
        for _ in 0..5 {
            let token = tokio::time::timeout(SOON, cache.get()).await.unwrap().unwrap();
            assert_eq!(token.header_value(), "Bearer a");
        }
        // A token that is dead at birth is fetched for each use, and no other more than once.
        let most = if lifetime.starts_with('-') || lifetime == "0" { 5 } else { 1 };
        assert!(server.requests() <= most, "{lifetime}: {} token requests", server.requests());
    }
}

// --- APIs ---

/// A cache that counts its token requests.
fn counted() -> (TokenCache, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let fetches = Arc::clone(&count);
    let source = source_fn(move |_| {
        let number = fetches.fetch_add(1, Ordering::SeqCst) + 1;
        async move { AccessToken::bearer(format!("token-{number}")) }
    });
    (TokenCache::new(source), count)
}

async fn get(cache: &TokenCache, api: &Server) -> Result<Response<ResponseBody<IncomingBody>>, BoxError> {
    let client = ServiceBuilder::new()
        .layer(RetryPolicy::default())
        .layer(AuthLayer::for_origin(cache.clone(), api.origin.as_str()).unwrap())
        .service(HyperClient::new());
    let request = Request::get(&api.origin).body(Full::<Bytes>::default()).unwrap();
    tokio::time::timeout(SOON, client.oneshot(request)).await.expect("a hang")
}

#[tokio::test]
async fn ten_thousand_challenges_are_read_in_a_moment() {
    let line = |challenge: &str| vec![challenge; 10_000].join(", ");
    for challenges in [
        line("Basic realm=x"),
        line(r#"Bearer error="invalid_token""#),
        line("="),
        line(r#"""#),
        ",".repeat(90_000),
    ] {
        let api =
            Server::saying(empty("401 Unauthorized", &format!("WWW-Authenticate: {challenges}\r\n"))).await;
        let (cache, count) = counted();
        let response = get(&cache, &api).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        let extensions = response.extensions();
        let said = extensions.get::<RetryReport>().and_then(RetryReport::token_rejected);
        assert!(said.or(extensions.get::<TokenRejected>()).is_some(), "{}", &challenges[..20]);
        assert!(api.requests() <= 2 && count.load(Ordering::SeqCst) <= 2);
    }
}

#[tokio::test]
async fn headers_of_a_mebibyte_are_an_error_of_the_client_below() {
    let api = Server::saying(empty("200 OK", &format!("X-Filler: {}\r\n", "x".repeat(1 << 20)))).await;
    let (cache, _) = counted();
    let error = get(&cache, &api).await.unwrap_err();
    assert!(error.downcast_ref::<Error>().is_none(), "{error}");
    assert!(cache.peek().is_some(), "the token is not to blame");
}

#[tokio::test]
async fn a_retry_after_that_makes_no_sense_neither_hangs_nor_hammers() {
    for hint in ["99999999999999999999999", "18446744073709551615", "Fri, 31 Dec 9999 23:59:59 GMT", "3601"] {
        let api = Server::saying(empty("429 Too Many Requests", &format!("Retry-After: {hint}\r\n"))).await;
        let response = get(&counted().0, &api).await.unwrap();
        let reason = response.extensions().get::<RetryReport>().unwrap().stop_reason().clone();
        assert!(matches!(reason, StopReason::DelayExceedsCap { .. }), "{hint}: {reason:?}");
        assert_eq!(api.requests(), 1, "{hint}");
    }
    for hint in ["-1", "+5x", "1.5.2", "soon", "\u{1}", "Fri, 99 Foo 2026 99:99:99 GMT", "0"] {
        let api = Server::saying(empty("429 Too Many Requests", &format!("Retry-After: {hint}\r\n"))).await;
        let started = Instant::now();
        let (cache, _) = counted();
        let client = ServiceBuilder::new()
            .layer(
                RetryPolicy::builder().max_retries(2).min_delay(Duration::from_millis(50)).build().unwrap(),
            )
            .layer(AuthLayer::for_origin(cache, api.origin.as_str()).unwrap())
            .service(HyperClient::new());
        let request = Request::get(&api.origin).body(Full::<Bytes>::default()).unwrap();
        match tokio::time::timeout(SOON, client.oneshot(request)).await.expect("a hang") {
            Ok(response) => assert_eq!((response.status().as_u16(), api.requests()), (429, 3), "{hint}"),
            // What no header may hold is an error of the client below.
            Err(error) => assert!(hint == "\u{1}", "{hint}: {error}"),
        }
        assert!(hint == "\u{1}" || started.elapsed() >= Duration::from_millis(70), "{hint}: no pause");
    }
}

#[tokio::test]
async fn an_api_that_refuses_everything_costs_few_tokens_and_no_loop() {
    let api =
        Server::saying(empty("401 Unauthorized", "WWW-Authenticate: Bearer error=\"invalid_token\"\r\n"))
            .await;
    let (cache, count) = counted();
    for _ in 0..100 {
        assert_eq!(get(&cache, &api).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    }
    assert!(count.load(Ordering::SeqCst) <= 4, "{} token requests", count.load(Ordering::SeqCst));
    assert!(api.requests() <= 104, "{} requests", api.requests());
}

#[tokio::test]
async fn a_refusal_whose_body_never_ends_does_not_hold_the_replay_up() {
    for silent in [true, false] {
        let api = Server::start(move |number, mut stream| {
            Box::pin(async move {
                if number > 0 {
                    return stream.write_all(&json("fine")).await;
                }
                let head = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer error=\"invalid_token\"\r\n\
                            Transfer-Encoding: chunked\r\n\r\n";
                stream.write_all(head.as_bytes()).await?;
                if silent {
                    return std::future::pending().await;
                }
                loop {
                    stream.write_all(b"4\r\nwait\r\n").await?;
                    tokio::task::yield_now().await;
                }
            })
        })
        .await;
        let started = Instant::now();
        let response = get(&counted().0, &api).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "fine");
        assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
        assert_eq!(api.requests(), 2);
    }
}

#[tokio::test]
async fn nothing_on_the_wire_becomes_a_marker() {
    let names =
        ["TokenRejected", "Token-Rejected", "TokenWithheld", "ScopeMissing", "RetryReport", "X-Attempt"];
    let headers: String = names.iter().map(|name| format!("{name}: Invalidated\r\n")).collect();
    let api = Server::saying(empty("200 OK", &headers)).await;
    let (cache, count) = counted();
    let response = get(&cache, &api).await.unwrap();
    let extensions = response.extensions();
    assert!(extensions.get::<TokenRejected>().is_none() && extensions.get::<TokenWithheld>().is_none());
    assert!(extensions.get::<ScopeMissing>().is_none() && extensions.get::<RetryReport>().is_none());
    assert_eq!((api.requests(), count.load(Ordering::SeqCst)), (1, 1));
}
