//! The default transport against real servers on loopback.

use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Request, Response, Uri, Version};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tower::{BoxError, ServiceExt as _};
use tower_oauth2::grants::GrantBuilder;
use tower_oauth2::test_util::{FakeAuthorizationServer, FakeClient};
use tower_oauth2::transport::HyperClient;
use tower_oauth2::{ClientAuth, ClientCredentials, ErrorKind, RefreshTokenGrant};

use crate::rotating::renew;
use crate::scripted::{Body, TOKEN, body, fetch, response};

type Handler = Arc<dyn Fn(Request<Incoming>) -> Response<Body> + Send + Sync>;

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, handler: Handler) {
    let service = service_fn(move |request| {
        let response = handler(request);
        async move { Ok::<_, Infallible>(response) }
    });
    // Clients go away as they like.
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

/// An http server that lives as long as the runtime of the test.
struct HttpServer {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

async fn http_server(
    handler: impl Fn(Request<Incoming>) -> Response<Body> + Send + Sync + 'static,
) -> HttpServer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, handler): (_, Handler) = (listener.local_addr().unwrap(), Arc::new(handler));
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(serve(stream, Arc::clone(&handler)));
        }
    });
    HttpServer { address, connections }
}

/// Starts an https server with a certificate of its own, and returns that in PEM too.
async fn https_server(
    alpn: &[&str],
    handler: impl Fn(Request<Incoming>) -> Response<Body> + Send + Sync + 'static,
) -> (SocketAddr, String) {
    let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let mut config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)
            .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, handler): (_, Handler) = (listener.local_addr().unwrap(), Arc::new(handler));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, handler) = (acceptor.clone(), Arc::clone(&handler));
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve(stream, handler).await;
                }
            });
        }
    });
    (address, own.cert.pem())
}

fn asking(url: String) -> GrantBuilder<ClientCredentials> {
    ClientCredentials::builder(url, "billing", "hunter2-hunter2").retries(0)
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(|error| format!("{error}; ")).collect()
}

#[tokio::test]
async fn a_token_is_had_from_a_server_that_checks_its_clients() {
    let server = FakeAuthorizationServer::builder()
        .client(FakeClient::confidential("odd: ü&=+%", "s:ecret &=+%/ß").scopes("read write"))
        .lifetime(Duration::from_secs(60))
        .start()
        .await
        .unwrap();
    let secret = "s:ecret &=+%/ß";
    for auth in [ClientAuth::basic(secret), ClientAuth::post(secret)] {
        let source = ClientCredentials::builder(server.token_url(), "odd: ü&=+%", auth)
            .scope("read")
            .required_scope("read")
            .build()
            .unwrap();
        let token = fetch(&source).await.unwrap();
        assert_eq!(token.lifetime(), Some(Duration::from_secs(60)));
        assert_eq!(token.scopes().unwrap(), ["read"]);
    }
    let wrong = ClientCredentials::builder(server.token_url(), "odd: ü&=+%", "wrong").build().unwrap();
    let error = fetch(&wrong).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Config, Some("invalid_client")));
}

#[tokio::test]
async fn https_is_spoken_over_h2_or_http_1_as_the_server_likes() {
    for (alpn, version) in [
        (&["h2", "http/1.1"][..], Version::HTTP_2),
        (&["http/1.1"], Version::HTTP_11),
        (&[], Version::HTTP_11),
    ] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let (address, pem) = https_server(alpn, move |request| {
            log.lock().unwrap().push((request.version(), request.uri().path().to_owned()));
            response(200, &[], TOKEN)
        })
        .await;
        let client = HyperClient::new().only_root_certificates(&pem).unwrap();
        let source = asking(format!("https://{address}/token?x=1")).build_with(client).unwrap();
        fetch(&source).await.unwrap();
        fetch(&source).await.unwrap();
        assert_eq!(*seen.lock().unwrap(), [(version, "/token".to_owned()), (version, "/token".to_owned())]);
    }
}

#[tokio::test]
async fn a_server_that_nobody_vouches_for_gets_no_secret() {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    let (address, _) = https_server(&["h2"], move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        response(200, &[], TOKEN)
    })
    .await;
    let (_, other_root) = https_server(&[], |_| response(200, &[], TOKEN)).await;
    let client = HyperClient::new().only_root_certificates(other_root).unwrap();
    let source = asking(format!("https://{address}/token")).build_with(client).unwrap();
    let error = fetch(&source).await.unwrap_err();
    let text = error.to_string();
    assert!(error.kind() == ErrorKind::Config && text.contains("invalid peer certificate: "), "{text}");
    assert!(text.contains("the authority that signed its certificate"), "{text}");
    assert_eq!(requests.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn tls_that_meets_plain_http_is_told_at_once_and_not_tried_again() {
    let HttpServer { address, connections } = http_server(|_| response(200, &[], TOKEN)).await;
    let (_, pem) = https_server(&[], |_| response(200, &[], TOKEN)).await;
    let source = asking(format!("https://{address}/token?key=K3y")).retries(3);
    let source = source.build_with(HyperClient::new().only_root_certificates(pem).unwrap()).unwrap();
    let error = fetch(&source).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    let text = error.to_string();
    let start = format!("the token endpoint at https://{address} could not be reached: ");
    assert!(text.starts_with(&start) && text.contains("does not speak TLS"), "{text}");
    assert!(!text.contains('\n') && !text.contains("K3y"), "{text}");
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[test]
fn roots_that_are_none_are_refused() {
    for (pem, reason) in [
        ("", "holds no certificate"),
        ("no pem", "holds no certificate"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no root certificate"),
        ("-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n", "broken"),
    ] {
        let error = HyperClient::new().only_root_certificates(pem).unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains(reason), "{error}");
    }
}

/// Root certificates are found by the environment, which a test can set for another process only: this one starts
/// itself.
#[test]
fn a_machine_without_root_certificates_is_an_error_and_no_panic() {
    const INSIDE: &str = "TOWER_OAUTH2_TEST_WITHOUT_ROOTS";
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let source =
            ClientCredentials::builder("https://127.0.0.1:1/token", "billing", "hunter2").build().unwrap();
        let start = Instant::now();
        let error = runtime.block_on(fetch(&source)).unwrap_err();
        assert!(
            error.kind() == ErrorKind::Config && error.to_string().contains("no root certificates"),
            "{error}"
        );
        // Three retries would take 1.75 s at least.
        assert!(start.elapsed() < Duration::from_millis(1500), "waiting does not help, so it is not retried");
        return;
    }
    let name = "transport::a_machine_without_root_certificates_is_an_error_and_no_panic";
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(INSIDE, "1")
        .env("SSL_CERT_FILE", "/dev/null")
        .env_remove("SSL_CERT_DIR")
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_its_target_receives_nothing() {
    for status in [301, 302, 303, 307, 308] {
        let connections = Arc::new(AtomicUsize::new(0));
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let location = format!("http://{}/token", target.local_addr().unwrap());
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            while target.accept().await.is_ok() {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        let HttpServer { address, .. } =
            http_server(move |_| response(status, &[("location", &location)], "")).await;
        let error = fetch(&asking(format!("http://{address}/token")).build().unwrap()).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains("redirect"), "{error}");
        assert_eq!(connections.load(Ordering::Relaxed), 0, "{status}");
    }
}

#[tokio::test]
async fn a_gibibyte_over_the_wire_is_given_up_at_the_cap() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let HttpServer { address, .. } = http_server(move |_| {
        let (chunk, count) = (Bytes::from(vec![b' '; 64 * 1024]), Arc::clone(&count));
        let frames = stream::iter(0..16 * 1024).map(move |_| {
            count.fetch_add(chunk.len(), Ordering::Relaxed);
            Ok::<_, BoxError>(Frame::data(chunk.clone()))
        });
        Response::new(StreamBody::new(frames).boxed_unsync())
    })
    .await;
    let error = fetch(&asking(format!("http://{address}/token")).build().unwrap()).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Protocol && error.to_string().contains("more than 1024 KiB"),
        "{error}"
    );
    // The rest is what the buffers between the two can hold.
    assert!(sent.load(Ordering::Relaxed) < 64 * 1024 * 1024);
}

#[tokio::test]
async fn an_answer_cut_off_on_the_wire_is_asked_for_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for length in [TOKEN.len() + 100, TOKEN.len()] {
            let (mut stream, _) = listener.accept().await.unwrap();
            // What is left unread when a socket is closed resets the connection, answer and all.
            let mut request = Vec::new();
            while !request.ends_with(b"grant_type=client_credentials") {
                assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
            }
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{TOKEN}");
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    let patient = asking(format!("http://{address}/token")).retries(1).min_delay(Duration::from_millis(1));
    assert_eq!(fetch(&patient.build().unwrap()).await.unwrap().header_value(), "Bearer AT1");
}

#[tokio::test]
async fn nobody_at_the_address_is_transient_and_says_where() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = fetch(&asking(format!("http://{free}/token")).build().unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    let start = format!("the token endpoint at http://{free} could not be reached: connection refused");
    assert!(error.to_string().starts_with(&start), "{error}");
    assert!(
        error.to_string().ends_with("; check the token URL, and the network route from this machine"),
        "{error}"
    );
    assert!(
        chain(std::error::Error::source(&error).unwrap()).contains("Connection refused"),
        "{}",
        chain(&error)
    );
}

#[tokio::test]
async fn only_a_connection_that_was_made_puts_a_refresh_token_in_doubt() {
    let source = |address: SocketAddr| {
        let url = format!("http://{address}/token");
        RefreshTokenGrant::builder(url, "reports", "secret").refresh_token("RT1").retries(0).build().unwrap()
    };
    let is_in_doubt = async |source: RefreshTokenGrant| {
        assert_eq!(renew(&source).await.unwrap_err().kind(), ErrorKind::Transient);
        format!("{source:?}").contains("raised: true")
    };
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert!(!is_in_doubt(source(free)).await);

    // It takes the request, and goes away.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"refresh_token=RT1") {
            assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
        }
    });
    assert!(is_in_doubt(source(address)).await);

    // It speaks no TLS: the request never left.
    let HttpServer { address, .. } = http_server(|_| response(200, &[], TOKEN)).await;
    let url = format!("https://{address}/token");
    let source = RefreshTokenGrant::builder(url, "reports", "secret").refresh_token("RT1").build_with(
        HyperClient::new()
            .only_root_certificates(https_server(&[], |_| response(200, &[], TOKEN)).await.1)
            .unwrap(),
    );
    let source = source.unwrap();
    assert_eq!(renew(&source).await.unwrap_err().kind(), ErrorKind::Config);
    assert!(format!("{source:?}").contains("raised: false"));
}

#[tokio::test]
async fn the_client_serves_an_api_as_well_and_keeps_its_connections() {
    let HttpServer { address, connections } = http_server(|request| {
        let echoed = request.headers().get("x-echo").unwrap().to_str().unwrap().to_owned();
        response(200, &[("x-version", "1")], &echoed)
    })
    .await;
    let client = HyperClient::new();
    for text in ["one", "two"] {
        let request =
            Request::get(format!("http://{address}/")).header("x-echo", text).body(body("")).unwrap();
        let answer = client.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.headers()["x-version"], "1");
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), text);
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn what_is_neither_http_nor_https_is_not_sent_over_plain_text() {
    let HttpServer { address, connections } = http_server(|_| response(200, &[], "")).await;
    let (_, pem) = https_server(&[], |_| response(200, &[], "")).await;
    let client = HyperClient::new().only_root_certificates(pem).unwrap();
    for scheme in ["HTTPS", "wss", "ftp"] {
        let uri = Uri::builder().scheme(scheme).authority(address.to_string()).path_and_query("/");
        let request = Request::get(uri.build().unwrap()).body(body("")).unwrap();
        let error = client.clone().oneshot(request).await.unwrap_err();
        assert!(chain(&*error).contains(&format!("unsupported scheme {scheme}")), "{}", chain(&*error));
    }
    assert_eq!(connections.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_server_that_says_nothing_in_the_handshake_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("https://{}/", silent.local_addr().unwrap());
    let (_, pem) = https_server(&[], |_| response(200, &[], "")).await;
    let client = HyperClient::new().only_root_certificates(pem).unwrap();
    let waiting = tokio::spawn(client.oneshot(Request::get(uri).body(body("")).unwrap()));
    let _connection = silent.accept().await.unwrap();
    tokio::time::pause();
    let start = tokio::time::Instant::now();
    let outcome = tokio::time::timeout(Duration::from_secs(3_600), waiting).await.expect("it hangs");
    let error = outcome.unwrap().unwrap_err();
    assert!(chain(&*error).contains("longer than 10s"), "{}", chain(&*error));
    assert!(start.elapsed() < Duration::from_secs(11));
}

/// Stands between a client and a server, until the connections of that moment go dead and nobody is told.
async fn relay(to: SocketAddr) -> (SocketAddr, Arc<Notify>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, dead) = (listener.local_addr().unwrap(), Arc::new(Notify::new()));
    let killed = Arc::clone(&dead);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let (mut far, killed) = (TcpStream::connect(to).await.unwrap(), Arc::clone(&killed));
            tokio::spawn(async move {
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    () = killed.notified() => pending().await,
                }
            });
        }
    });
    (address, dead)
}

#[tokio::test]
async fn an_h2_connection_that_went_dead_is_noticed_and_replaced() {
    let (server, pem) = https_server(&["h2"], |_| response(200, &[], "")).await;
    let (address, dead) = relay(server).await;
    let client = HyperClient::new().only_root_certificates(pem).unwrap();
    let ask = || {
        let request = Request::get(format!("https://{address}/")).body(body("")).unwrap();
        tokio::time::timeout(Duration::from_secs(3_600), client.clone().oneshot(request))
    };
    ask().await.unwrap().unwrap();
    dead.notify_waiters();
    tokio::time::pause();
    let start = tokio::time::Instant::now();
    ask().await.expect("it hangs").unwrap_err();
    // In time for what the default retries of a token request have left.
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    tokio::time::resume();
    ask().await.unwrap().unwrap();
}

/// Connections are driven by the runtime that opened them.
#[test]
fn a_runtime_that_is_parked_does_not_keep_others_from_connecting() {
    let server = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let client_runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for alpn in [&["h2"][..], &[]] {
        let (address, pem) = server.block_on(https_server(alpn, |_| response(200, &[], "")));
        let client = HyperClient::new().only_root_certificates(pem).unwrap();
        let ask = || {
            let request = Request::get(format!("https://{address}/")).body(body("")).unwrap();
            tokio::time::timeout(Duration::from_secs(6), client.clone().oneshot(request))
        };
        let (parked, driven) = (client_runtime(), client_runtime());
        parked.block_on(async { ask().await }).unwrap().unwrap();
        driven.block_on(async {
            tokio::time::pause();
            assert!(ask().await.is_err(), "the connection of the other runtime answered");
            tokio::time::resume();
            ask().await.expect("it hangs").unwrap();
        });
    }
}
