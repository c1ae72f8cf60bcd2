//! TLS is reqwest's, and its features are the user's: here it has those that it comes with. What its errors mean is still told
//! apart, as with the default transport.

#![cfg(test)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tower::{Layer as _, ServiceExt as _};
use tower_oauth2::retry::Failure;
use tower_oauth2::transport::{ReqwestClient, classify_reqwest};
use tower_oauth2::{
    AccessToken, ClientCredentials, FetchReason, RetryPolicy, Error, ErrorKind, TokenRequest, TokenSource as _,
};

const HOST: &str = "login.example.test";
const TOKEN: &str = r#"{"access_token":"AT1","token_type":"Bearer","expires_in":60}"#;

/// A private certificate authority, as PEM, and a server that has a certificate of it for [`HOST`].
async fn server() -> (String, SocketAddr) {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([HOST.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // Whoever does not trust it goes away.
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let answer =
                service_fn(|_| async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(TOKEN))) });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer),
            );
        }
    });
    (authority.pem(), address)
}

/// Nobody looks the name up, and no proxy of this machine is asked.
fn to(address: SocketAddr, builder: reqwest::ClientBuilder) -> reqwest::ClientBuilder {
    builder.resolve(HOST, address).no_proxy()
}

async fn fetch(client: ReqwestClient, port: u16) -> Result<AccessToken, Error> {
    let url = format!("https://{HOST}:{port}/token");
    let source = ClientCredentials::builder(url, "billing", "hunter2").retries(0).build_with(client)?;
    source.token(TokenRequest::new(FetchReason::Initial)).await
}

#[tokio::test]
async fn a_token_is_fetched_over_tls_from_a_server_of_a_private_authority() {
    let (authority, address) = server().await;
    let authority = reqwest::Certificate::from_pem(authority.as_bytes()).unwrap();
    let client = ReqwestClient::build(|builder| to(address, builder).tls_certs_merge([authority])).unwrap();
    assert_eq!(fetch(client, address.port()).await.unwrap().header_value(), "Bearer AT1");
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_an_error_of_the_configuration() {
    let (_, address) = server().await;
    let client = ReqwestClient::build(|builder| to(address, builder)).unwrap();
    let error = fetch(client, address.port()).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Config && error.to_string().contains("the authority that signed its certificate"),
        "{error:?}"
    );

    // For an API it is not worth another attempt either.
    let client = ReqwestClient::build(|builder| to(address, builder)).unwrap();
    let uri = format!("https://{HOST}:{}/", address.port());
    let request = Request::get(uri).body(Full::<Bytes>::default()).unwrap();
    let error = client.oneshot(request).await.unwrap_err();
    assert!(error.is::<reqwest::Error>());
    assert_eq!(classify_reqwest(&*error), Failure::Fatal, "{error:?}");
}

#[tokio::test]
async fn a_server_without_tls_is_an_error_of_the_configuration() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let answer =
                service_fn(|_| async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())) });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer),
            );
        }
    });
    let client = ReqwestClient::build(|builder| to(address, builder)).unwrap();
    let error = fetch(client, address.port()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("does not speak TLS"), "{error:?}");
}

/// Responds to each CONNECT with this status, and counts them.
async fn gate(status: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let (listener, count) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), Arc::<AtomicUsize>::default());
    let (address, counting) = (listener.local_addr().unwrap(), Arc::clone(&count));
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            assert!(head.starts_with(format!("CONNECT {HOST}:443 HTTP/1.1").as_bytes()));
            counting.fetch_add(1, Ordering::SeqCst);
            let response = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(response.as_bytes()).await.unwrap();
        }
    });
    (address, count)
}

fn through(gate: SocketAddr, builder: reqwest::ClientBuilder) -> reqwest::ClientBuilder {
    builder.no_proxy().proxy(reqwest::Proxy::https(format!("http://{gate}")).unwrap())
}

/// Fetches through a proxy, with two retries.
async fn fetch_through(gate: SocketAddr) -> Error {
    let client = ReqwestClient::build(|builder| through(gate, builder)).unwrap();
    let source = ClientCredentials::builder(format!("https://{HOST}/token"), "billing", "hunter2-hunter2")
        .retries(2)
        .min_delay(Duration::from_millis(1))
        .build_with(client)
        .unwrap();
    source.token(TokenRequest::new(FetchReason::Initial)).await.unwrap_err()
}

#[tokio::test]
async fn a_proxy_that_is_in_trouble_passes_for_tokens_and_below_the_api() {
    // reqwest tells a 403 no more apart than these, so it is asked again as well.
    for status in [
        "502 Bad Gateway",
        "503 Service Unavailable",
        "504 Gateway Timeout",
        "429 Too Many Requests",
        "403 Forbidden",
    ] {
        let (at, count) = gate(status).await;
        let error = fetch_through(at).await;
        let said = error.to_string();
        assert!(error.kind() == ErrorKind::Transient && said.contains("the proxy refuses the connection, which may be temporary"), "{said}");
        assert_eq!(count.load(Ordering::SeqCst), 3, "{status}");

        let client = ReqwestClient::build(|builder| through(at, builder)).unwrap();
        let policy = RetryPolicy::builder()
            .classifier(classify_reqwest)
            .min_delay(Duration::from_millis(1))
            .max_retries(2)
            .build()
            .unwrap();
        let request = Request::post(format!("https://{HOST}/items")).body(Full::<Bytes>::default()).unwrap();
        let error = policy.layer(client).oneshot(request).await.unwrap_err();
        assert_eq!(classify_reqwest(&*error), Failure::Unsent, "{error:?}");
        assert_eq!(count.load(Ordering::SeqCst), 6, "{status}");
    }
}

#[tokio::test]
async fn a_proxy_that_wants_a_password_is_an_error_of_the_configuration() {
    let (at, count) = gate("407 Proxy Authentication Required").await;
    let error = fetch_through(at).await;
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("wants a user and a password"), "{error:?}");
    assert_eq!(count.load(Ordering::SeqCst), 1);
}
