//! The default transport for people behind things: proxies, private authorities, client certificates, resolvers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "a test that started itself again tells what it saw")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tower::{BoxError, Layer as _, ServiceExt as _};
use tower_oauth2::retry::{Failure, ReportSlot, RetryOptions, StopReason};
use tower_oauth2::transport::{HyperClient, Proxy};
use tower_oauth2::{
    AccessToken, ClientCredentials, Error, ErrorKind, FetchReason, RetryPolicy, TokenRequest,
    TokenSource as _,
};

type Body = Full<Bytes>;

/// A name that nobody looks up by the system's resolver.
const HOST: &str = "api.example.test";
const TOKEN: &str = r#"{"access_token":"AT1","token_type":"Bearer","expires_in":60}"#;

// --- Certificates ---

/// A private certificate authority.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key.
struct Certified {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    fn pem(&self) -> String {
        self.issuer.pem()
    }

    fn certify(&self, name: &str) -> Certified {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        Certified { certificate: params.signed_by(&key, &self.issuer).unwrap(), key }
    }

    /// Makes a server's configuration; with `clients`, it demands a certificate of that authority.
    fn config(&self, name: &str, clients: Option<&Self>) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                roots.add(clients.issuer.der().clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let own = self.certify(name);
        let key = PrivateKeyDer::try_from(own.key.serialize_der()).unwrap();
        builder.with_single_cert(vec![own.certificate.der().clone()], key).unwrap()
    }
}

// --- Servers ---

/// Answers every request with a token, after noting its path.
#[derive(Clone, Default)]
struct Api {
    paths: Arc<Mutex<Vec<String>>>,
}

impl Api {
    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let service = service_fn(move |request: Request<Incoming>| {
            self.paths.lock().unwrap().push(request.uri().path().to_owned());
            async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(TOKEN))) }
        });
        // Clients go away as they like.
        let _ =
            auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
    }

    async fn start(&self, config: ServerConfig) -> SocketAddr {
        let api = self.clone();
        over_tls(config, move |stream| api.clone().serve(stream)).await
    }

    fn asked(&self) -> usize {
        self.paths.lock().unwrap().len()
    }
}

/// A proxy that leads every CONNECT to one address, or refuses it.
#[derive(Clone)]
struct Gate {
    to: SocketAddr,
    status: &'static str,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Gate {
    fn to(to: SocketAddr) -> Self {
        Self { to, status: "200 OK", heads: Arc::default() }
    }

    fn refusing(status: &'static str) -> Self {
        Self { status, ..Self::to(([127, 0, 0, 1], 1).into()) }
    }

    async fn serve(self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        self.heads.lock().unwrap().push(String::from_utf8(head).unwrap());
        let end = if self.status.ends_with('\n') { "" } else { "\r\n\r\n" };
        stream.write_all(format!("HTTP/1.1 {}{end}", self.status).as_bytes()).await.unwrap();
        if self.status.contains("200") {
            let mut there = TcpStream::connect(self.to).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut there).await;
        }
    }

    async fn start(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, gate) = (listener.local_addr().unwrap(), self.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(gate.clone().serve(stream));
            }
        });
        address
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

/// Serves TLS as long as the runtime of the test lives.
async fn over_tls<F, Fut>(config: ServerConfig, serve: F) -> SocketAddr
where
    F: Fn(tokio_rustls::server::TlsStream<TcpStream>) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not trust us, or that we do not trust, goes away.
            if let Ok(stream) = acceptor.accept(stream).await {
                tokio::spawn(serve(stream));
            }
        }
    });
    address
}

// --- Requests ---

async fn get(client: HyperClient, uri: &str) -> Result<Response<Bytes>, BoxError> {
    let (head, body) = client.oneshot(Request::get(uri).body(Body::default()).unwrap()).await?.into_parts();
    Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
}

async fn token_error(client: HyperClient, url: &str) -> Error {
    let source = ClientCredentials::builder(url, "billing", "hunter2-hunter2").retries(0);
    let source = source.build_with(client).unwrap();
    source.token(TokenRequest::new(FetchReason::Initial)).await.unwrap_err()
}

fn proxy(address: SocketAddr) -> Proxy {
    Proxy::new("http", &address.ip().to_string(), address.port()).unwrap()
}

/// Looks every name up at one address.
fn all_at(client: HyperClient, address: SocketAddr) -> HyperClient {
    client.resolver(move |_| async move { Ok(vec![address]) })
}

fn whole(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(|error| format!("error; {error:?}; "))
        .collect()
}

// --- Tests ---

#[tokio::test]
async fn https_goes_through_the_proxy_which_learns_the_host_alone() {
    let (authority, api) = (Authority::new(), Api::default());
    let gate = Gate::to(api.start(authority.config(HOST, None)).await);
    let through = proxy(gate.start().await).credentials("billing", "pass:word");
    let client = HyperClient::new().only_root_certificates(authority.pem()).unwrap().proxy(through);
    for uri in [format!("https://{HOST}/secret-path"), format!("https://{HOST}:8443/x")] {
        assert_eq!(get(client.clone(), &uri).await.unwrap().into_body(), TOKEN);
    }
    let heads = gate.heads();
    let basic = format!("Basic {}", BASE64_STANDARD.encode("billing:pass:word"));
    for (head, target) in heads.iter().zip([format!("{HOST}:443"), format!("{HOST}:8443")]) {
        assert!(head.starts_with(&format!("CONNECT {target} HTTP/1.1\r\n")), "{head}");
        assert!(head.contains(&basic) && !head.contains("secret-path"), "{head}");
    }
    assert_eq!((heads.len(), api.asked()), (2, 2));
}

#[tokio::test]
async fn the_proxy_may_be_asked_over_tls_and_gets_no_client_certificate() {
    let (authority, clients, api) = (Authority::new(), Authority::new(), Api::default());
    let gate = Gate::to(api.start(authority.config(HOST, Some(&clients))).await);
    let serving = gate.clone();
    let at =
        over_tls(authority.config("proxy.example.test", None), move |stream| serving.clone().serve(stream))
            .await;
    let own = clients.certify("client");
    let client = HyperClient::new()
        .only_root_certificates(authority.pem())
        .unwrap()
        .identity(own.certificate.pem(), own.key.serialize_pem())
        .unwrap()
        .proxy(Proxy::new("https", "proxy.example.test", at.port()).unwrap());
    let response = get(all_at(client, at), &format!("https://{HOST}/")).await.unwrap();
    assert_eq!((response.status().as_u16(), api.asked(), gate.heads().len()), (200, 1, 1));
}

#[tokio::test]
async fn loopback_and_what_is_excepted_never_go_through_a_proxy() {
    let (authority, api) = (Authority::new(), Api::default());
    let local = api.start(authority.config("localhost", None)).await;
    let named = api.start(authority.config(HOST, None)).await;
    let gate = Gate::refusing("403 Forbidden");
    let through = proxy(gate.start().await).except("example.test");
    let client = HyperClient::new().only_root_certificates(authority.pem()).unwrap().proxy(through);
    get(client.clone(), &format!("https://localhost:{}/", local.port())).await.unwrap();
    get(all_at(client, named), &format!("https://{HOST}/")).await.unwrap();
    assert_eq!((api.asked(), gate.heads().len()), (2, 0));
}

#[tokio::test]
async fn a_proxy_that_refuses_is_an_error_of_the_configuration_that_names_it() {
    for (status, said) in [
        ("407 Proxy Authentication Required", "the proxy on the way wants a user and a password"),
        ("403 Forbidden", "the proxy on the way refuses the connection"),
    ] {
        let gate = Gate::refusing(status);
        let through = proxy(gate.start().await).credentials("billing", "S3CR3T-PW");
        let client =
            HyperClient::new().only_root_certificates(Authority::new().pem()).unwrap().proxy(through);
        let error = token_error(client.clone(), &format!("https://{HOST}/token")).await;
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains(said), "{error}");
        let shown = format!("{} {client:?}", whole(&error));
        let encoded = BASE64_STANDARD.encode("billing:S3CR3T-PW");
        assert!(!shown.contains("S3CR3T-PW") && !shown.contains(&encoded), "{shown}");
    }
}

#[tokio::test]
async fn an_interim_response_of_a_proxy_is_not_its_last_word() {
    let (authority, api) = (Authority::new(), Api::default());
    let to = api.start(authority.config(HOST, None)).await;
    let interim = "100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\nHTTP/1.1 200 OK";
    let gate = Gate { status: interim, ..Gate::to(to) };
    let through = proxy(gate.start().await).credentials("billing", "pass:word\r\n");
    let client = HyperClient::new().only_root_certificates(authority.pem()).unwrap().proxy(through);
    assert_eq!(get(client, &format!("https://{HOST}/")).await.unwrap().status(), 200);
    assert!(gate.heads()[0].contains("Basic YmlsbGluZzpwYXNzOndvcmQ=\r\n"), "{}", gate.heads()[0]);
}

#[tokio::test]
async fn a_proxy_may_end_its_lines_by_a_line_feed_alone() {
    let (authority, api) = (Authority::new(), Api::default());
    let to = api.start(authority.config(HOST, None)).await;
    for (status, expected) in [
        ("200 OK\n\n", Some(200)),
        ("200 OK\nVia: x\n\r\n", Some(200)),
        ("103 Early Hints\n\nHTTP/1.1 200 OK\r\n\r\n", Some(200)),
        ("503 Service Unavailable\nRetry-After: 3600\n\n", None),
    ] {
        let gate = Gate { status, ..Gate::to(to) };
        let trusting = HyperClient::new().only_root_certificates(authority.pem()).unwrap();
        let client = trusting.proxy(proxy(gate.start().await)).connect_timeout(Duration::from_secs(2));
        let outcome = get(client, &format!("https://{HOST}/")).await;
        assert_eq!(outcome.as_ref().ok().map(|response| response.status().as_u16()), expected, "{status:?}");
        if let Err(error) = outcome {
            assert!(whole(&*error).contains("Some(3600s)"), "{}", whole(&*error));
        }
    }
}

#[tokio::test]
async fn a_proxy_that_is_in_trouble_passes_and_changes_no_identity() {
    for status in [
        "502 Bad Gateway",
        "503 Service Unavailable",
        "504 Gateway Timeout",
        "429 Too Many Requests",
        "500 Oops",
        "404 No Host",
    ] {
        let gate = Gate::refusing(status);
        let client = HyperClient::new()
            .only_root_certificates(Authority::new().pem())
            .unwrap()
            .proxy(proxy(gate.start().await));
        let source =
            ClientCredentials::builder(format!("https://{HOST}/token"), "billing", "hunter2-hunter2")
                .retries(2)
                .min_delay(Duration::from_millis(1))
                .build_with(client.clone())
                .unwrap();
        let other = AccessToken::bearer("somebody-else").unwrap();
        let error = source.or(other).token(TokenRequest::new(FetchReason::Initial)).await.unwrap_err();
        assert!(
            error.kind() == ErrorKind::Transient
                && error.to_string().contains("the proxy refuses the connection, which may"),
            "{error}"
        );
        assert_eq!(gate.heads().len(), 3, "{status}");

        // Below the API it is as good as unsent.
        let policy =
            RetryPolicy::builder().min_delay(Duration::from_millis(1)).max_retries(2).build().unwrap();
        let request = Request::post(format!("https://{HOST}/items")).body(Body::default()).unwrap();
        policy.layer(client).oneshot(request).await.unwrap_err();
        assert_eq!(gate.heads().len(), 6, "{status}");
    }
}

#[tokio::test]
async fn a_proxy_that_says_when_to_come_back_is_heard() {
    let asked = 150 * Duration::from_millis(1);
    for (status, sent) in [
        ("429 Too Many Requests\r\nServer: proxy\r\nretry-after-ms: 150", 2),
        ("503 Service Unavailable\r\nRetry-After: 0.15", 2),
        ("403 Forbidden\r\nRetry-After: 0.15", 2),
        ("503 Service Unavailable\r\nRetry-After: 3600", 1),
    ] {
        let gate = Gate::refusing(status);
        let client = HyperClient::new()
            .only_root_certificates(Authority::new().pem())
            .unwrap()
            .proxy(proxy(gate.start().await));
        let policy =
            RetryPolicy::builder().min_delay(Duration::from_millis(1)).max_retries(1).build().unwrap();
        let slot = ReportSlot::new();
        let request = Request::post(format!("https://{HOST}/items"))
            .extension(RetryOptions::new().report_to(&slot))
            .body(Body::default())
            .unwrap();
        let error = policy.layer(client.clone()).oneshot(request).await.unwrap_err();
        let report = slot.take().unwrap();
        assert_eq!((gate.heads().len(), report.history().len()), (sent, sent - 1), "{error:?}");
        match report.history().first() {
            Some(replayed) => assert_eq!(replayed.requested_delay(), Some(asked)),
            None => assert!(matches!(report.stop_reason(), StopReason::DelayExceedsCap { .. })),
        }

        let source =
            ClientCredentials::builder(format!("https://{HOST}/token"), "billing", "hunter2-hunter2")
                .retries(1)
                .min_delay(Duration::from_millis(1))
                .build_with(client)
                .unwrap();
        let token = source.token(TokenRequest::new(FetchReason::Initial));
        let ended = tokio::time::timeout(asked * 2 / 3, token).await;
        assert_eq!((gate.heads().len(), ended.is_ok()), (sent + 1, sent == 1), "{status}");
    }
}

#[tokio::test]
async fn a_proxy_that_is_not_there_may_come_back() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client =
        HyperClient::new().only_root_certificates(Authority::new().pem()).unwrap().proxy(proxy(free));
    let error = token_error(client, &format!("https://{HOST}/token")).await;
    let said = error.to_string();
    assert!(
        error.kind() == ErrorKind::Transient
            && said.contains("the proxy cannot be reached; check its host and port"),
        "{said}"
    );
    assert!(!whole(&error).contains(&free.port().to_string()), "{}", whole(&error));
}

#[test]
fn what_is_no_proxy_is_refused_and_not_shown() {
    for (scheme, host) in [
        ("socks5", "proxy.example.net"),
        ("", "proxy.example.net"),
        ("http", ""),
        ("http", "user:S3CR3T@proxy.example.net"),
        ("http", "http://proxy.example.net"),
        ("http", "two words"),
    ] {
        let error = Proxy::new(scheme, host, 3128).unwrap_err();
        assert!(error.kind() == ErrorKind::Config && !format!("{error:?}").contains("S3CR3T"), "{error:?}");
    }
    let shown = format!("{:?}", Proxy::new("http", "[::1]", 1).unwrap().credentials("u", "S3CR3T"));
    assert_eq!(shown, "Proxy(..)");
}

/// Set where a test has started itself again, with an environment of its own.
const AGAIN: &str = "TOWER_OAUTH2_PROXY_TEST";

/// Runs this test alone in a process with these variables.
fn again(test: &str, variables: &[(&str, String)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]).env(AGAIN, "1");
    for name in
        ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy", "REQUEST_METHOD"]
    {
        command.env_remove(name);
    }
    let output = command.envs(variables.iter().map(|(name, value)| (name, value))).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_names_the_proxy() {
    if std::env::var_os(AGAIN).is_some() {
        let client = HyperClient::new().only_root_certificates(Authority::new().pem()).unwrap();
        let error = token_error(client, &format!("https://{HOST}/token")).await;
        println!("said: {}", whole(&error));
        return;
    }
    let test = "the_environment_names_the_proxy";
    let gate = Gate::refusing("407 Proxy Authentication Required");
    let at = gate.start().await;
    let url = format!("http://billing:S3CR3T-PW@{at}");
    for (name, value) in [
        ("HTTPS_PROXY", url.clone()),
        ("https_proxy", format!(" {url}\r\n")),
        ("ALL_PROXY", format!("\u{feff}{url}\n")),
    ] {
        let variables = [("HTTPS_PROXY", String::new()), (name, value)];
        let said = tokio::task::spawn_blocking(move || again(test, &variables)).await.unwrap();
        assert!(said.contains("wants a user and a password") && !said.contains("S3CR3T-PW"), "{said}");
    }
    assert_eq!(gate.heads().len(), 3);
    assert!(gate.heads()[0].contains(&BASE64_STANDARD.encode("billing:S3CR3T-PW")));
    // Of these the first is for another host, and the second for none.
    for no in [HOST, "*"] {
        let variables = [("HTTPS_PROXY", url.clone()), ("NO_PROXY", no.to_owned())];
        tokio::task::spawn_blocking(move || again(test, &variables)).await.unwrap();
    }
    assert_eq!(gate.heads().len(), 3);
    // What names no proxy does not hide the one that is named.
    let variables = [("HTTPS_PROXY", "ftp://S3CR3T-PW@proxy".to_owned()), ("ALL_PROXY", url.clone())];
    let said = tokio::task::spawn_blocking(move || again(test, &variables)).await.unwrap();
    assert!(gate.heads().len() == 4 && !said.contains("S3CR3T-PW"), "{said}");
    let socks = [("ALL_PROXY", format!("socks5://billing:S3CR3T-PW@{at}"))];
    let said = tokio::task::spawn_blocking(move || again(test, &socks)).await.unwrap();
    assert!(said.contains("speaks neither http nor https") && !said.contains("S3CR3T-PW"), "{said}");
}

#[tokio::test]
async fn a_server_that_demands_a_certificate_gets_it() {
    let (authority, clients, api) = (Authority::new(), Authority::new(), Api::default());
    let at = api.start(authority.config("localhost", Some(&clients))).await;
    let uri = format!("https://localhost:{}/", at.port());
    let own = clients.certify("client");
    let trusting = || HyperClient::new().only_root_certificates(authority.pem()).unwrap();
    let client = trusting().identity(own.certificate.pem(), own.key.serialize_pem()).unwrap();
    assert_eq!(get(client, &uri).await.unwrap().status(), 200);

    get(trusting(), &uri).await.unwrap_err();
    let stranger = Authority::new().certify("client");
    let client = trusting().identity(stranger.certificate.pem(), stranger.key.serialize_pem()).unwrap();
    get(client, &uri).await.unwrap_err();
    assert_eq!(api.asked(), 1);
}

#[tokio::test]
async fn a_request_that_was_written_before_its_certificate_was_refused_was_not_looked_at() {
    let (authority, clients) = (Authority::new(), Authority::new());
    // With TLS 1.3 the handshake is over for the client when it has sent its certificate, or none.
    for alpn in ["http/1.1", "h2"] {
        let mut config = authority.config("localhost", Some(&clients));
        config.alpn_protocols = vec![alpn.into()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
        let asked = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let (_, mut stream) = acceptor.accept(stream).into_fallible().await.err().unwrap();
                // So that the alert arrives, and no reset in its place.
                tokio::spawn(async move { tokio::io::copy(&mut stream, &mut tokio::io::sink()).await });
            }
        });
        let trusting = || HyperClient::new().only_root_certificates(authority.pem()).unwrap();
        let stranger = Authority::new().certify("client");
        let strange = trusting().identity(stranger.certificate.pem(), stranger.key.serialize_pem()).unwrap();
        // One that is refused may be known later. One that is missing will be missing.
        for (client, failure, attempts) in [(strange, Failure::Unsent, 4), (trusting(), Failure::Fatal, 1)] {
            let (slot, mut post) =
                (ReportSlot::new(), Request::post(&uri).body(Body::from("an order")).unwrap());
            post.extensions_mut().insert(RetryOptions::new().report_to(&slot));
            let policy = RetryPolicy::builder().min_delay(Duration::from_millis(1)).build().unwrap();
            let error = policy.layer(client.clone()).oneshot(post).await.err().unwrap();
            assert_eq!(
                (Failure::of(&*error), asked.swap(0, Ordering::SeqCst)),
                (failure, attempts),
                "{error:?}"
            );
            assert!(!slot.take().unwrap().may_have_acted());
            let (error, lasts) = (token_error(client, &uri).await, failure == Failure::Fatal);
            assert_eq!(error.kind() == ErrorKind::Config, lasts, "{error}");
            assert_eq!(error.to_string().contains("wants a client certificate"), lasts, "{error}");
            asked.store(0, Ordering::SeqCst);
        }
    }
}

#[tokio::test]
async fn a_request_that_is_wanted_over_http_1_is_not_repeated_over_h2() {
    let (authority, asked) = (Authority::new(), Arc::<AtomicUsize>::default());
    let mut config = authority.config("localhost", None);
    config.alpn_protocols = vec!["h2".into()];
    let count = Arc::clone(&asked);
    let at = over_tls(config, move |stream| {
        let count = Arc::clone(&count);
        async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                respond.send_reset(h2::Reason::HTTP_1_1_REQUIRED);
            }
        }
    })
    .await;
    let client = HyperClient::new().only_root_certificates(authority.pem()).unwrap();
    let request = Request::get(format!("https://localhost:{}/", at.port())).body(Body::default()).unwrap();
    let error = RetryPolicy::default().layer(client).oneshot(request).await.err().unwrap();
    assert_eq!((Failure::of(&*error), asked.load(Ordering::SeqCst)), (Failure::Fatal, 1), "{error:?}");
    assert!(error.to_string().contains("over HTTP/1.1 alone"), "{error}");
}

#[test]
fn a_client_certificate_that_is_none_is_refused_at_once_and_its_key_not_shown() {
    let authority = Authority::new();
    let (own, other) = (authority.certify("client"), authority.certify("other"));
    let (pem, key) = (own.certificate.pem(), own.key.serialize_pem());
    let broken = key.replace("-----END PRIVATE KEY-----", "");
    for (chain, key) in
        [("", &*key), (&*pem, ""), (&pem, &pem), (&pem, &broken), (&pem, &other.key.serialize_pem())]
    {
        let error = HyperClient::new().identity(chain, key).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        let secret = own.key.serialize_pem().lines().nth(1).unwrap().to_owned();
        assert!(!whole(&error).contains(&secret));
    }
    let builder = HyperClient::new().identity(pem, key).unwrap();
    assert!(format!("{builder:?}").contains("identity: true"), "{builder:?}");
}

#[tokio::test]
async fn more_roots_are_trusted_besides_those_of_the_platform_or_alone() {
    let (one, two, api) = (Authority::new(), Authority::new(), Api::default());
    let first = api.start(one.config("localhost", None)).await;
    let second = api.start(two.config("localhost", None)).await;
    let uri = |at: SocketAddr| format!("https://localhost:{}/", at.port());
    let both = HyperClient::new()
        .add_root_certificates(one.pem())
        .unwrap()
        .add_root_certificates(two.pem())
        .unwrap();
    get(both.clone(), &uri(first)).await.unwrap();
    get(both.clone(), &uri(second)).await.unwrap();
    let alone = both.only_root_certificates(one.pem()).unwrap();
    get(alone.clone(), &uri(first)).await.unwrap();
    assert_eq!(token_error(alone, &uri(second)).await.kind(), ErrorKind::Config);
    for pem in ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        assert_eq!(
            HyperClient::new().add_root_certificates(pem).unwrap_err().kind(),
            ErrorKind::Config,
            "{pem}"
        );
    }
}

#[tokio::test]
async fn names_are_looked_up_by_the_resolver_that_was_set() {
    let (authority, api) = (Authority::new(), Api::default());
    let at = api.start(authority.config(HOST, None)).await;
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let client = HyperClient::new().only_root_certificates(authority.pem()).unwrap().proxy(None);
    let client = client.resolver(move |name| {
        log.lock().unwrap().push(name);
        async move { Ok(vec![at]) }
    });
    get(client, &format!("https://{HOST}:{}/", at.port())).await.unwrap();
    assert_eq!(*asked.lock().unwrap(), [HOST]);

    let broken = HyperClient::new().only_root_certificates(authority.pem()).unwrap().proxy(None);
    let broken = broken.resolver(|_| async { Err(std::io::Error::other("no such name")) });
    let error = token_error(broken, &format!("https://{HOST}/token")).await;
    assert!(error.kind() == ErrorKind::Transient && error.to_string().contains("no such name"), "{error}");
}

#[tokio::test]
async fn connecting_takes_no_longer_than_it_may() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("https://localhost:{}/token", silent.local_addr().unwrap().port());
    let client = HyperClient::new().only_root_certificates(Authority::new().pem()).unwrap();
    let error = token_error(client.connect_timeout(Duration::from_millis(50)), &uri).await;
    assert!(error.to_string().contains("connecting took longer than 50ms"), "{error}");
}

#[cfg(feature = "stack")]
#[tokio::test]
async fn connecting_that_takes_too_long_is_a_timeout_of_the_client() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("https://localhost:{}", silent.local_addr().unwrap().port());
    let client = HyperClient::new().only_root_certificates(Authority::new().pem()).unwrap();
    let client = client.connect_timeout(Duration::from_millis(50));
    let tokens = tower_oauth2::AccessToken::bearer("A1").unwrap();
    let retry = tower_oauth2::RetryPolicy::builder().max_retries(0).build().unwrap();
    let api = tower_oauth2::ApiClient::builder(base, tokens).retry(retry).build_with(client).unwrap();
    let error = api.get("x").send().await.unwrap_err();
    assert!(error.is_connect() && error.is_timeout(), "{error}");
    assert!(error.to_string().contains("connecting took longer than 50ms"), "{error}");
}

// --- A second attempt ---

/// Responds with a token but to the second request, which hangs. Notes on which connection each request came.
#[derive(Clone, Default)]
struct Hanging {
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<usize>>>,
    given_up: Arc<Notify>,
}

/// Tells when a handler is dropped.
struct Dropped(Arc<Notify>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Hanging {
    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let connection = self.connections.fetch_add(1, Ordering::SeqCst);
        let service = service_fn(move |_: Request<Incoming>| {
            let number = {
                let mut requests = self.requests.lock().unwrap();
                requests.push(connection);
                requests.len()
            };
            let dropped = Dropped(Arc::clone(&self.given_up));
            async move {
                if number == 2 {
                    std::future::pending::<()>().await;
                }
                std::mem::forget(dropped);
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(TOKEN)))
            }
        });
        let _ =
            auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
    }
}

#[tokio::test]
async fn a_second_attempt_goes_over_a_connection_of_its_own_and_the_first_is_given_up() {
    for protocol in ["h2", "http/1.1"] {
        let (authority, server) = (Authority::new(), Hanging::default());
        let mut config = authority.config(HOST, None);
        config.alpn_protocols = vec![protocol.into()];
        let serving = server.clone();
        let at = over_tls(config, move |stream| serving.clone().serve(stream)).await;
        let client = all_at(HyperClient::new().only_root_certificates(authority.pem()).unwrap(), at);
        let source = |second_attempt: bool| {
            let url = format!("https://{HOST}/token");
            let builder = ClientCredentials::builder(url, "billing", "hunter2-hunter2").retries(1);
            let builder = match second_attempt {
                true => builder.second_attempt_after(Duration::from_millis(50)),
                false => builder.second_attempt_after(None),
            };
            builder.build_with(client.clone()).unwrap()
        };
        // How long a handshake takes must not matter, so only the request that hangs has another beside it.
        for source in [source(false), source(true), source(false)] {
            let token = source.token(TokenRequest::new(FetchReason::Forced)).await.unwrap();
            assert_eq!(token.header_value(), "Bearer AT1", "{protocol}");
        }
        let requests = server.requests.lock().unwrap().clone();
        assert_eq!(requests.len(), 4, "{protocol}: {requests:?}");
        assert!(!requests[2..].contains(&requests[1]), "{protocol}: {requests:?}");
        // Over h2 the one that hangs shares its connection.
        assert!(protocol != "h2" || requests[0] == requests[1], "{requests:?}");
        tokio::time::timeout(Duration::from_secs(10), server.given_up.notified()).await.unwrap();
    }
}
