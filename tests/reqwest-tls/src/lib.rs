//! TLS is reqwest's, and its features are the user's: here it has those that it comes with. What its errors mean is still told
//! apart, as with the default transport.

#![cfg(test)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;
use tower_oauth2::retry::Failure;
use tower_oauth2::transport::{ReqwestClient, ReqwestTokenClient, classify_reqwest};
use tower_oauth2::{AccessToken, ClientCredentials, FetchReason, TokenError, TokenRequest, TokenSource as _};

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

async fn fetch(client: ReqwestTokenClient, port: u16) -> Result<AccessToken, TokenError> {
    let url = format!("https://{HOST}:{port}/token");
    let source = ClientCredentials::builder(url, "billing", "hunter2").retries(0).build_with(client)?;
    source.token(TokenRequest::new(FetchReason::Initial)).await
}

#[tokio::test]
async fn a_token_is_fetched_over_tls_from_a_server_of_a_private_authority() {
    let (authority, address) = server().await;
    let authority = reqwest::Certificate::from_pem(authority.as_bytes()).unwrap();
    let client = ReqwestTokenClient::build(|builder| to(address, builder).tls_certs_merge([authority])).unwrap();
    assert_eq!(fetch(client, address.port()).await.unwrap().header_value(), "Bearer AT1");
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_an_error_of_the_configuration() {
    let (_, address) = server().await;
    let client = ReqwestTokenClient::build(|builder| to(address, builder)).unwrap();
    let error = fetch(client, address.port()).await.unwrap_err();
    assert!(
        error.is_config() && error.to_string().contains("the authority that signed its certificate"),
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
    let client = ReqwestTokenClient::build(|builder| to(address, builder)).unwrap();
    let error = fetch(client, address.port()).await.unwrap_err();
    assert!(error.is_config() && error.to_string().contains("does not speak TLS"), "{error:?}");
}
