//! What the default transport takes from a server, and what it makes of a server that had enough.

#![cfg(feature = "hyper-client")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, Method, Request, Response, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tower::{Layer as _, ServiceExt as _};
use tower_oauth2::RetryPolicy;
use tower_oauth2::retry::{Failure, ReportSlot, RequestBody, RetryOptions};
use tower_oauth2::transport::{HyperClient, classify_hyper};

type Body = Full<Bytes>;

const MS: Duration = Duration::from_millis(1);

/// A server whose responses have so many headers of so many bytes each, and how often it was asked.
async fn server(headers: usize, bytes: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let count = Arc::clone(&count);
            let answer = service_fn(move |request: Request<Incoming>| {
                count.fetch_add(1, Ordering::SeqCst);
                let mut response = Response::new(Body::from("served"));
                let few = request.uri().path() == "/few";
                for at in 0..if few { 1 } else { headers } {
                    let name: HeaderName = format!("x-header-{at}").parse().unwrap();
                    response.headers_mut().insert(name, "v".repeat(bytes).parse().unwrap());
                }
                async { Ok::<_, Infallible>(response) }
            });
            tokio::spawn(async move {
                let builder = auto::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    });
    (address, asked)
}

/// h2 without TLS is spoken by a client that is told to.
fn over_h2()
-> hyper_util::client::legacy::Client<hyper_util::client::legacy::connect::HttpConnector, RequestBody<Body>> {
    let mut builder = hyper_util::client::legacy::Client::builder(TokioExecutor::new());
    builder.http2_only(true).http2_max_header_list_size(16 * 1024).build_http()
}

fn get(address: SocketAddr, path: &str) -> Request<Body> {
    Request::get(format!("http://{address}{path}")).body(Body::default()).unwrap()
}

#[tokio::test]
async fn a_response_with_many_headers_is_taken() {
    let (address, asked) = server(200, 8).await;
    let client = HyperClient::new();
    let response = RetryPolicy::default().layer(client).oneshot(get(address, "/")).await.unwrap();
    assert!(response.headers().len() >= 200 && asked.load(Ordering::SeqCst) == 1);
}

#[tokio::test]
async fn a_response_that_this_side_refuses_is_asked_for_once() {
    let (address, asked) = server(60, 8).await;
    let client = HyperClient::new().max_headers(50);
    let (slot, mut post) = (ReportSlot::new(), get(address, "/"));
    *post.method_mut() = Method::POST;
    post.extensions_mut().insert(RetryOptions::new().report_to(&slot));
    let error = RetryPolicy::default().layer(client).oneshot(post).await.err().unwrap();
    assert_eq!((classify_hyper(&*error), asked.load(Ordering::SeqCst)), (Failure::Fatal, 1), "{error:?}");
    // The server has done it.
    assert!(slot.take().unwrap().may_have_acted());

    // Over h2 it is the stream that is refused, and others on the connection go on.
    let (address, asked) = server(20, 1024).await;
    let client = over_h2();
    let policy = RetryPolicy::builder().classifier(classify_hyper).build().unwrap();
    let error = policy.layer(client.clone()).oneshot(get(address, "/")).await.err().unwrap();
    assert_eq!((classify_hyper(&*error), asked.load(Ordering::SeqCst)), (Failure::Fatal, 1), "{error:?}");
    policy.layer(client).oneshot(get(address, "/few")).await.unwrap();
}

/// A server of h2 that answers no request, counts the PINGs on each connection, and closes one with `ENHANCE_YOUR_CALM` at the
/// third.
async fn easily_flooded(mut tls: impl AsyncRead + AsyncWrite + Unpin, pings: Arc<AtomicUsize>) {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let mut preface = [0; 24];
    tls.read_exact(&mut preface).await.unwrap();
    tls.write_all(&SETTINGS).await.unwrap();
    let mut head = [0; 9];
    while tls.read_exact(&mut head).await.is_ok() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        tls.read_exact(&mut payload).await.unwrap();
        match (head[3], head[4] & 1) {
            // A SETTINGS or a PING that is no acknowledgement gets one.
            (4, 0) => tls.write_all(&[0, 0, 0, 4, 1, 0, 0, 0, 0]).await.unwrap(),
            (6, 0) if pings.fetch_add(1, Ordering::SeqCst) < 2 => {
                tls.write_all(&[0, 0, 8, 6, 1, 0, 0, 0, 0]).await.unwrap();
                tls.write_all(&payload).await.unwrap();
            }
            (6, 0) => {
                let last_stream_and_reason = [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 11];
                tls.write_all(&[0, 0, 22, 7, 0, 0, 0, 0, 0]).await.unwrap();
                tls.write_all(&last_stream_and_reason).await.unwrap();
                tls.write_all(b"too_many_pings").await.unwrap();
                return;
            }
            _ => {}
        }
    }
}

/// Starts such a server. Returns a client for it, its address and the count.
async fn start_easily_flooded() -> (HyperClient, String, Arc<AtomicUsize>) {
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = key.cert.pem();
    let private = rustls::pki_types::PrivateKeyDer::Pkcs8(key.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], private)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let pings = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&pings);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, count) = (acceptor.clone(), Arc::clone(&count));
            tokio::spawn(async move {
                if let Ok(tls) = acceptor.accept(stream).await {
                    easily_flooded(tls, count).await;
                }
            });
        }
    });
    let builder = HyperClient::new().only_root_certificates(certificate).unwrap().proxy(None);
    (builder, format!("https://localhost:{}/", address.port()), pings)
}

#[tokio::test]
async fn a_server_that_takes_signs_of_life_for_a_flood_is_asked_for_fewer() {
    let (builder, uri, pings) = start_easily_flooded().await;
    let request = || Request::get(&*uri).body(Body::default()).unwrap();
    let client = builder.clone().keep_alive(50 * MS);
    let ended = tokio::time::timeout(100 * 50 * MS, client.clone().oneshot(request())).await;
    assert!(ended.unwrap().is_err());
    assert_eq!(pings.swap(0, Ordering::SeqCst), 3);
    // The next connection is left in peace, also by clones of the client.
    let waits = tokio::time::timeout(400 * MS, client.clone().oneshot(request())).await;
    assert!(waits.is_err() && pings.load(Ordering::SeqCst) == 0, "{pings:?}");
    // And so is that of a client that is told so.
    for silent in [builder.clone().keep_alive(None), builder.keep_alive(Duration::ZERO)] {
        let waits = tokio::time::timeout(400 * MS, silent.oneshot(request())).await;
        assert!(waits.is_err() && pings.load(Ordering::SeqCst) == 0, "{pings:?}");
    }
}

#[tokio::test]
async fn settings_without_an_end_are_settings_like_any_other() {
    let (address, asked) = server(200, 8).await;
    let endless = |client: HyperClient| {
        let client =
            client.connect_timeout(Duration::MAX).idle_timeout(Duration::MAX).keep_alive(Duration::MAX);
        client.max_headers(usize::MAX).max_header_bytes(u32::MAX)
    };
    let client = endless(HyperClient::new());
    // What panics in the background ends no request.
    let panicked = Arc::<AtomicUsize>::default();
    let (count, before) = (Arc::clone(&panicked), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        count.fetch_add(1, Ordering::SeqCst);
        before(panic);
    }));
    for _ in 0..2 {
        let response = client.clone().oneshot(get(address, "/")).await.unwrap();
        response.into_body().collect().await.unwrap();
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    // Over h2 too.
    let (builder, uri, _) = start_easily_flooded().await;
    let request = Request::get(&*uri).body(Body::default()).unwrap();
    assert!(tokio::time::timeout(400 * MS, endless(builder).oneshot(request)).await.is_err());
    assert_eq!(panicked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_grpc_call_that_is_quiet_is_not_ended_by_signs_of_life() {
    let (builder, uri, pings) = start_easily_flooded().await;
    let client = builder.keep_alive(50 * MS);
    let call = Request::post(&*uri).header("content-type", "application/grpc+proto");
    let waits = tokio::time::timeout(400 * MS, client.clone().oneshot(call.body(Body::default()).unwrap()));
    assert!(waits.await.is_err() && pings.load(Ordering::SeqCst) == 0, "{pings:?}");
    // Other requests of the same client are still asked about.
    let get = Request::get(&*uri).body(Body::default()).unwrap();
    assert!(tokio::time::timeout(100 * 50 * MS, client.oneshot(get)).await.unwrap().is_err());
    assert_eq!(pings.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_request_of_h2_to_a_server_of_http_1_says_what_to_do() {
    let (address, asked) = server(0, 0).await;
    let (slot, mut request) = (ReportSlot::new(), get(address, "/"));
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    request.extensions_mut().insert(RetryOptions::new().report_to(&slot));
    let error = RetryPolicy::default().layer(HyperClient::new()).oneshot(request).await.err().unwrap();
    assert!(error.to_string().contains("leave the version"), "{error}");
    assert!(!slot.take().unwrap().may_have_acted());
    assert_eq!((classify_hyper(&*error), asked.load(Ordering::SeqCst)), (Failure::Fatal, 0));
}
