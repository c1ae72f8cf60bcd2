//! Every failure of the page "When it fails", produced for real, with the very words that the page gives.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "servers have clocks of their own")]

#[path = "support/log.rs"]
mod log;
#[path = "support/servers/mod.rs"]
mod servers;

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::Html;
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{Full, StreamBody};
use servers::{Api, PrivateKey};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Layer as _, ServiceBuilder, ServiceExt as _, service_fn};
use tower_oauth2::auth::AuthOverride;
use tower_oauth2::client::ApiClient;
use tower_oauth2::client::pages::{Next, NextPage, Pages};
use tower_oauth2::extensions::{ScopeMissing, TokenWithheld};
use tower_oauth2::grants::jwt::{Assertion, JwtAlgorithm};
use tower_oauth2::grants::{
    CustomGrant, GrantBuilder, Issuer, Revocation, SecurityToken, TokenExchange, TokenType,
    read_token_response,
};
use tower_oauth2::retry::RetryReport;
use tower_oauth2::stack::Stack;
use tower_oauth2::store::{Acquired, Entry, MemoryStore, SealingKey, Shared, StoreKey, TokenStore, Write};
use tower_oauth2::tenants::TenantCaches;
use tower_oauth2::test_util::{FakeAuthorizationServer, FakeClient, Loopback, Trouble};
use tower_oauth2::transport::ReqwestClient;
use tower_oauth2::transport::{HyperClient, Proxy};
use tower_oauth2::{
    AccessToken, AuthLayer, ClientAuth, ClientCredentials, Error, ErrorKind, FetchReason, Origin,
    RefreshTokenGrant, RetryPolicy, Secret, TokenCache, TokenRequest, TokenRevoker as _, TokenSource,
    source_fn,
};

use log::Log;

type Body = Full<Bytes>;

const PAGE: &str = include_str!("../src/guide/failures.md");

/// What the page calls the servers, whose real addresses differ from run to run.
const LOGIN: &str = "https://login.example.com";
const API: &str = "https://api.example.com";

#[tokio::test]
async fn the_page_shows_every_message_as_it_is_printed_and_no_other() {
    if std::env::var_os(BARE).is_some() {
        let source = ClientCredentials::builder(format!("{LOGIN}/token"), "billing", "hunter2-hunter2");
        println!("said: {}", failure("nothing", source.retries(0).build().unwrap()).await);
        return;
    }
    let mut printed = BTreeSet::new();
    printed.insert(a_machine_without_root_certificates());
    printed.extend(a_client_that_is_refused().await);
    printed.extend(a_grant_that_is_refused().await);
    printed.extend(a_refresh_token_that_is_no_good().await);
    printed.extend(an_assertion_by_a_wrong_clock().await);
    printed.extend(a_token_that_cannot_be_shared().await);
    printed.extend(an_endpoint_that_is_none().await);
    printed.extend(a_server_that_cannot_be_reached().await);
    printed.extend(a_server_that_is_busy_or_down().await);
    printed.extend(a_secret_that_is_not_there().await);
    printed.extend(a_url_over_which_secrets_do_not_go());
    printed.extend(a_token_that_is_kept_back().await);
    printed.extend(a_path_that_leads_elsewhere().await);
    printed.extend(headers_that_cannot_be_sent().await);
    printed.insert(a_body_that_is_short().await);
    printed.extend(pages_that_cannot_go_on().await);
    printed.extend(responses_that_are_not_the_json().await);
    printed.extend(an_api_that_does_not_respond().await);
    printed.extend(reqwest_at_the_wrong_place().await);
    printed.extend(a_request_without_its_tenant().await);
    printed.extend(a_token_that_the_api_does_not_take().await);
    printed.extend(a_request_that_is_not_sent_again().await);
    printed.extend(a_call_at_the_wrong_place());
    let shown: BTreeSet<String> = messages_of_the_page().into_iter().collect();
    let missing: Vec<_> = printed.difference(&shown).collect();
    let made_up: Vec<_> = shown.difference(&printed).collect();
    assert!(missing.is_empty() && made_up.is_empty(), "missing: {missing:#?}\nmade up: {made_up:#?}");
}

#[test]
fn every_message_is_one_line_that_begins_in_lower_case_and_has_no_full_stop() {
    for message in messages_of_the_page() {
        let first = message.chars().next().unwrap();
        assert!(first.is_lowercase() && !message.ends_with('.') && !message.contains('\n'), "{message}");
    }
}

/// Returns the blocks of plain text, which are what is printed.
fn messages_of_the_page() -> Vec<String> {
    let blocks = PAGE.split("```text\n").skip(1);
    blocks.map(|block| block.split("\n```").next().unwrap().to_owned()).collect()
}

// --- Helpers ---

async fn fetch(source: impl TokenSource) -> Result<AccessToken, Error> {
    source.token(TokenRequest::new(FetchReason::Initial)).await
}

/// Fetches, and returns the words of the error as the page has them.
async fn failure(at: &str, source: impl TokenSource) -> String {
    let error = fetch(source).await.unwrap_err();
    let line = error.to_string().replace(at, LOGIN);
    // The number is the operating system's.
    match line.split_once("(os error ").and_then(|(head, tail)| Some((head, tail.split_once(')')?.1))) {
        Some((head, tail)) => format!("{head}(os error 111){tail}"),
        None => line,
    }
}

fn client_of(server: &FakeAuthorizationServer, id: &str, secret: &str) -> GrantBuilder<ClientCredentials> {
    ClientCredentials::builder(server.token_url(), id, secret).retries(0)
}

async fn authorization_server() -> FakeAuthorizationServer {
    let billing = FakeClient::confidential("billing", "hunter2-hunter2").scopes("items:read");
    let app = FakeClient::public("app").scopes("items:read");
    FakeAuthorizationServer::builder().client(billing).client(app).start().await.unwrap()
}

/// Serves a router, and returns its origin with what keeps it alive.
async fn serve(router: Router) -> (String, Loopback) {
    let listener = Loopback::start(router).await.unwrap();
    (listener.origin(), listener)
}

/// An address at which nobody listens.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Asks the token endpoint at [`LOGIN`], whose name leads to `address`.
async fn unreachable(client: HyperClient, address: SocketAddr) -> String {
    let client = client.resolver(move |_| async move { Ok(vec![address]) });
    let source =
        ClientCredentials::builder(format!("{LOGIN}/token"), "billing", "hunter2-hunter2").retries(0);
    failure("nothing", source.build_with(client).unwrap()).await
}

fn told(error: &BoxError) -> String {
    error.downcast_ref::<Error>().unwrap().to_string()
}

fn a_token() -> AccessToken {
    AccessToken::bearer("mF_9.B5f-4.1JqM").unwrap()
}

fn request(uri: &str) -> Request<Body> {
    Request::get(uri).body(Body::default()).unwrap()
}

/// An API that says the same to everybody.
fn api(
    answer: impl Fn() -> Response<Body> + Clone + Send + Sync + 'static,
) -> BoxCloneSyncService<Request<Body>, Response<Body>, BoxError> {
    BoxCloneSyncService::new(service_fn(move |_: Request<Body>| {
        let answer = answer();
        async move { Ok(answer) }
    }))
}

/// Set where the test has started itself again, on a machine that trusts nobody.
const BARE: &str = "TOWER_OAUTH2_BARE_MACHINE";

fn a_machine_without_root_certificates() -> String {
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["the_page_shows_every_message_as_it_is_printed_and_no_other", "--exact", "--nocapture"]);
    again.env(BARE, "1").env("SSL_CERT_FILE", "/dev/null").env_remove("SSL_CERT_DIR");
    let output = String::from_utf8(again.output().unwrap().stdout).unwrap();
    output.lines().find_map(|line| line.split_once("said: ")).unwrap().1.to_owned()
}

// --- The authorization server refuses ---

async fn a_client_that_is_refused() -> Vec<String> {
    let server = authorization_server().await;
    let wrong_secret = client_of(&server, "billing", "hunter3-hunter3").build().unwrap();
    let unknown = client_of(&server, "nobody", "hunter2-hunter2").build().unwrap();
    let anonymous = CustomGrant::builder(server.token_url(), "password").retries(0).build().unwrap();
    let body = r#"{"message":"Bad credentials"}"#;
    let router = Router::new().route("/token", post(async move || (StatusCode::UNAUTHORIZED, body)));
    let (origin, _listener) = serve(router).await;
    let authorized = CustomGrant::json(format!("{origin}/token"))
        .authorized_by(AccessToken::bearer("of-an-app").unwrap())
        .response_member("error", "message");
    vec![
        failure(&origin, authorized.retries(0).build().unwrap()).await,
        failure(&server.origin(), wrong_secret).await,
        failure(&server.origin(), unknown).await,
        failure(&server.origin(), anonymous).await,
    ]
}

async fn a_grant_that_is_refused() -> Vec<String> {
    let server = authorization_server().await;
    let not_allowed = ClientCredentials::builder(server.token_url(), "app", ClientAuth::none());
    let scope = client_of(&server, "billing", "hunter2-hunter2").scope("items:write");
    let required = client_of(&server, "billing", "hunter2-hunter2").required_scope("items:write");
    let password = CustomGrant::builder(server.token_url(), "password").client("billing", "hunter2-hunter2");
    let foreign = SecurityToken::new("e30.e30.c2ln", TokenType::JWT);
    let exchange = TokenExchange::builder(server.token_url(), foreign).client("app", ClientAuth::none());
    vec![
        failure(&server.origin(), exchange.build().unwrap()).await,
        failure(&server.origin(), not_allowed.build().unwrap()).await,
        failure(&server.origin(), scope.build().unwrap()).await,
        failure(&server.origin(), required.build().unwrap()).await,
        failure(&server.origin(), password.build().unwrap()).await,
    ]
}

async fn a_refresh_token_that_is_no_good() -> Vec<String> {
    let server = authorization_server().await;
    let app = |refresh_token: &str| {
        RefreshTokenGrant::builder(server.token_url(), "app", ClientAuth::none())
            .refresh_token(refresh_token)
            .retries(0)
            .attempt_timeout(Duration::from_millis(200))
    };

    // A user who did not agree to offline_access.
    let token =
        read_token_response(r#"{"access_token":"AT1","token_type":"bearer","expires_in":0}"#).unwrap();
    assert!(token.expose_refresh_token().is_none());
    let mut lines = vec![failure(&server.origin(), app("").build().unwrap()).await];

    // Revoked in the middle of its life.
    let source = app(&server.sign_in("app", "items:read")).build().unwrap();
    let token = fetch(source.clone()).await.unwrap();
    let revocation = Revocation::builder(server.revocation_url(), "app", ClientAuth::none());
    revocation.build().unwrap().revoke(token).await.unwrap();
    lines.push(failure(&server.origin(), source).await);

    // Spent by a process that did not store the next one.
    let stored = server.sign_in("app", "items:read");
    fetch(app(&stored).build().unwrap()).await.unwrap();
    lines.push(failure(&server.origin(), app(&stored).build().unwrap()).await);

    // An answer that was lost, and a server that has meanwhile ended the token.
    let lost = server.sign_in("app", "items:read");
    let source = app(&lost).build().unwrap();
    server.fail_next(1, Trouble::Hang);
    fetch(source.clone()).await.unwrap_err();
    fetch(app(&lost).build().unwrap()).await.unwrap();
    lines.push(failure(&server.origin(), source).await);

    // A server that has another code for it, and says it again and again.
    let refuses = post(async || (StatusCode::BAD_REQUEST, r#"{"error":"invalid_request"}"#));
    let (silent, _listener) = serve(Router::new().route("/token", refuses)).await;
    let source =
        RefreshTokenGrant::builder(format!("{silent}/token"), "app", ClientAuth::none()).refresh_token("RT1");
    let source = source.build().unwrap();
    fetch(source.clone()).await.unwrap_err();
    fetch(source.clone()).await.unwrap_err();
    lines.push(failure(&silent, source).await);
    lines
}

async fn an_assertion_by_a_wrong_clock() -> Vec<String> {
    let refuses = |server_is_ahead: Duration, description: &'static str| {
        post(move || async move {
            let date = httpdate::fmt_http_date(SystemTime::now() + server_is_ahead);
            let body = format!(r#"{{"error":"invalid_client","error_description":"{description}"}}"#);
            (StatusCode::UNAUTHORIZED, [(header::DATE, date)], body)
        })
    };
    let router = Router::new()
        .route("/ahead", refuses(Duration::from_secs(300), "the assertion has expired"))
        .route("/key", refuses(Duration::ZERO, "no key of that kid"));
    let (origin, _listener) = serve(router).await;
    let ask = async |path: &str| {
        let key = Assertion::by_key(JwtAlgorithm::Es256, PrivateKey::generate().pem());
        let source = ClientCredentials::builder(
            format!("{origin}{path}"),
            "billing",
            ClientAuth::private_key_jwt(key),
        )
        .issuer(LOGIN)
        .retries(0);
        failure(&origin, source.build().unwrap()).await
    };
    // Dates have whole seconds.
    vec![ask("/ahead").await.replace("299 s", "300 s"), ask("/key").await]
}

// --- What answers is no token endpoint, or nothing does ---

async fn an_endpoint_that_is_none() -> Vec<String> {
    let router = Router::new()
        .route("/page", post(async || Html("<html>Please sign in</html>")))
        .route("/refused", post(async || (StatusCode::FORBIDDEN, Html("<html>Blocked by policy</html>"))))
        .route("/other", post(async || axum::Json(serde_json::json!({ "status": "fine" }))))
        .route("/moved", post(async || (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, "https://sso.example.com/token")])))
        .route("/.well-known/oauth-authorization-server", get(async || {
            axum::Json(serde_json::json!({ "issuer": "https://elsewhere.example.com", "token_endpoint": "https://elsewhere.example.com/token" }))
        }));
    let (origin, _listener) = serve(router).await;
    let mut lines = Vec::new();
    for path in ["/page", "/refused", "/other", "/moved", "/nowhere"] {
        let source = ClientCredentials::builder(format!("{origin}{path}"), "billing", "hunter2-hunter2");
        lines.push(failure(&origin, source.retries(0).build().unwrap()).await);
    }
    let foreign = ClientCredentials::builder(Issuer::new(&origin), "billing", "hunter2-hunter2");
    lines.push(failure(&origin, foreign.retries(0).build().unwrap()).await);
    lines
}

async fn a_server_that_cannot_be_reached() -> Vec<String> {
    let own = rcgen::generate_simple_self_signed(["login.example.com".to_owned()]).unwrap();
    let mut other = rcgen::CertificateParams::new([]).unwrap();
    other.distinguished_name.push(rcgen::DnType::CommonName, "another authority");
    let other = other.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
    let trusting = |pem: String| HyperClient::new().only_root_certificates(pem).unwrap().proxy(None);

    let key = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let over_tls = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = acceptor.accept(stream).await;
        }
    });
    let plain = answers_at_once("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
    let mut lines = vec![
        unreachable(trusting(other.pem()), over_tls).await,
        unreachable(trusting(own.cert.pem()), plain).await,
        unreachable(trusting(own.cert.pem()), nobody().await).await,
    ];
    for answer in ["HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "HTTP/1.1 403 Forbidden\r\n\r\n"] {
        let address = answers_at_once(answer).await;
        let proxy = Proxy::new("http", "127.0.0.1", address.port()).unwrap();
        let client = HyperClient::new().only_root_certificates(own.cert.pem()).unwrap().proxy(proxy);
        lines.push(unreachable(client, address).await);
    }
    let nobody = nobody().await;
    let proxy = Proxy::new("http", "127.0.0.1", nobody.port()).unwrap();
    let client = HyperClient::new().only_root_certificates(own.cert.pem()).unwrap().proxy(proxy);
    lines.push(unreachable(client, nobody).await);
    lines
}

/// Says the same to whoever connects, once it has heard something.
async fn answers_at_once(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    address
}

async fn a_server_that_is_busy_or_down() -> Vec<String> {
    let server = authorization_server().await;
    let ask = async || {
        let source = client_of(&server, "billing", "hunter2-hunter2").attempt_timeout(Duration::from_secs(1));
        failure(&server.origin(), source.build().unwrap()).await
    };
    server.fail_next(1, Trouble::TooManyRequests { retry_after: Duration::from_secs(60) });
    server.fail_next(1, Trouble::Hang);
    let mut lines = vec![ask().await, ask().await];
    let (origin, _listener) =
        serve(Router::new().route("/token", post(async || StatusCode::BAD_GATEWAY))).await;
    let source = ClientCredentials::builder(format!("{origin}/token"), "billing", "hunter2-hunter2");
    lines.push(failure(&origin, source.retries(0).build().unwrap()).await);

    let silent = source_fn(|_| std::future::pending());
    let silent = TokenCache::builder(silent).fetch_timeout(Duration::from_secs(1)).build();
    let broken = TokenCache::new(source_fn(async |_| -> Result<AccessToken, Error> { panic!("on purpose") }));
    for cache in [silent, broken] {
        lines.push(cache.get().await.unwrap_err().to_string());
    }
    lines
}

// --- The configuration ---

async fn a_secret_that_is_not_there() -> Vec<String> {
    let url = format!("{LOGIN}/token");
    let ask = async |secret: Secret| {
        failure("nothing", ClientCredentials::builder(&url, "billing", secret).build().unwrap()).await
    };
    vec![
        ask(Secret::from_env("BILLING_SECRET_THAT_NOBODY_SETS")).await.replace("_THAT_NOBODY_SETS", ""),
        ask(Secret::from_file("/run/secrets/billing-that-is-not-there"))
            .await
            .replace("-that-is-not-there", ""),
        ClientCredentials::builder(&url, "billing", "").build().unwrap_err().to_string(),
        AccessToken::bearer("mF_9.B5f-4.1JqM\n").unwrap_err().to_string(),
    ]
}

/// A store that does not respond.
struct Broken;

impl TokenStore for Broken {
    async fn load(&self, _key: &StoreKey) -> Result<Option<Entry>, Error> {
        Err(Error::new(ErrorKind::Transient, "connection refused"))
    }

    async fn swap(&self, _key: &StoreKey, _write: Write) -> Result<bool, Error> {
        Err(Error::new(ErrorKind::Transient, "connection refused"))
    }

    async fn acquire(&self, _key: &StoreKey, _period: Duration) -> Result<Acquired, Error> {
        Err(Error::new(ErrorKind::Transient, "connection refused"))
    }

    async fn extend(&self, _key: &StoreKey, _fence: u64, _period: Duration) -> Result<bool, Error> {
        Err(Error::new(ErrorKind::Transient, "connection refused"))
    }

    async fn release(&self, _key: &StoreKey, _fence: u64) -> Result<(), Error> {
        Err(Error::new(ErrorKind::Transient, "connection refused"))
    }
}

async fn a_token_that_cannot_be_shared() -> Vec<String> {
    let sealing = || SealingKey::new([7; 32]);
    let path = std::env::temp_dir().join(format!("tower-oauth2-sealing-key-{}", std::process::id()));
    std::fs::write(&path, "hunter2").unwrap();
    let too_short = SealingKey::from_file(&path).unwrap_err().to_string();
    std::fs::remove_file(&path).unwrap();
    let mut lines = vec![
        SealingKey::from_env("TOKEN_KEY_THAT_NOBODY_SETS")
            .unwrap_err()
            .to_string()
            .replace("_THAT_NOBODY_SETS", ""),
        too_short.replace(path.to_str().unwrap(), "/run/secrets/token_key"),
    ];

    let closure = source_fn(|_request| async { AccessToken::bearer("AT1") });
    let refused = Shared::builder(closure, MemoryStore::new(), sealing()).build().unwrap_err();
    lines.push(refused.to_string());
    let login =
        RefreshTokenGrant::builder(format!("{LOGIN}/token"), "app", ClientAuth::none()).refresh_token("RT1");
    let login = login.build().unwrap();
    let refused = Shared::builder(login.clone(), MemoryStore::new(), sealing()).build().unwrap_err();
    lines.push(refused.to_string());
    let cached = TokenCache::new(login.clone()).as_source();
    let refused =
        Shared::builder(cached, MemoryStore::new(), sealing()).principal("ada").build().unwrap_err();
    lines.push(refused.to_string());
    let hasty = Shared::builder(a_token(), MemoryStore::new(), sealing()).lease(Duration::from_secs(1));
    let refused = hasty.store_timeout(Duration::from_millis(500)).build().unwrap_err();
    lines.push(refused.to_string());

    let store = MemoryStore::new();
    let waiting = Shared::builder(a_token(), store.clone(), sealing()).build().unwrap();
    store.acquire(waiting.key(), Duration::from_secs(60)).await.unwrap();
    let cache = TokenCache::builder(waiting).fetch_timeout(Duration::from_secs(2)).build();
    lines.push(cache.get().await.unwrap_err().to_string());
    lines.push(an_error_that_another_process_got().await);
    let broken = Shared::builder(login, Broken, sealing()).principal("ada").build().unwrap();
    lines.push(failure("nothing", broken).await);
    lines
}

/// What the second of two processes says, while the server asks clients to wait.
async fn an_error_that_another_process_got() -> String {
    let server = FakeAuthorizationServer::builder().client(FakeClient::confidential("billing", "secret"));
    let server = server.start().await.unwrap();
    server.fail_next(1, Trouble::TooManyRequests { retry_after: Duration::from_secs(60) });
    let store = MemoryStore::new();
    let process = || {
        let source = client_of(&server, "billing", "secret").build().unwrap();
        Shared::builder(source, store.clone(), SealingKey::new([7; 32])).build().unwrap()
    };
    let lines = join_all([failure(&server.origin(), process()), failure(&server.origin(), process())]).await;
    lines.into_iter().find(|line| line.starts_with("another process")).unwrap()
}

fn a_url_over_which_secrets_do_not_go() -> Vec<String> {
    let source = ClientCredentials::builder("http://login.example.com/token", "billing", "hunter2-hunter2");
    let base_url = |url: &str| ApiClient::builder(url, a_token()).build().unwrap_err().to_string();
    vec![
        source.build().unwrap_err().to_string(),
        base_url("http://api.example.com/v2"),
        base_url("api.example.com/v2"),
        "http://api.example.com".parse::<Origin>().unwrap_err().to_string(),
    ]
}

// --- The request ---

async fn a_token_that_is_kept_back() -> Vec<String> {
    let (log, _guard) = logging();
    let layer = AuthLayer::for_origin(a_token(), API).unwrap();
    let client = layer.layer(api(|| Response::new(Body::default())));
    let response = client.oneshot(request("https://eu.api.example.com/items")).await.unwrap();
    assert!(response.extensions().get::<TokenWithheld>().is_some());
    let mut lines = log.lines();
    assert_eq!(lines.len(), 1, "{lines:?}");

    let refusing = layer.refuse_other_origins(true).layer(api(|| Response::new(Body::default())));
    let mut renamed = request("https://api.example.com/items");
    renamed.headers_mut().insert(header::HOST, "gateway.example.com".parse().unwrap());
    for request in [request("https://eu.api.example.com/items"), renamed, request("/items")] {
        lines.push(told(&refusing.clone().oneshot(request).await.unwrap_err()));
    }
    lines
}

async fn an_api_that_does_not_respond() -> Vec<String> {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("http://{}", silent.local_addr().unwrap());
    let closed = format!("http://{}", nobody().await);
    let once = RetryPolicy::builder().max_retries(0).build().unwrap();
    let client = |origin: &str| {
        let builder = ApiClient::builder(origin, a_token()).retry(once.clone());
        builder.attempt_timeout(Duration::from_millis(100)).build().unwrap()
    };
    let refused = client(&closed).get("items").send().await.unwrap_err();
    assert!(refused.is_connect());
    let there = nobody().await;
    let proxy = Proxy::new("http", &there.ip().to_string(), there.port()).unwrap();
    let proxied = ApiClient::builder(API, a_token()).retry(once.clone());
    let proxied = proxied.build_with(HyperClient::new().proxy(proxy)).unwrap();
    let by_proxy = proxied.get("items").send().await.unwrap_err();
    assert!(by_proxy.is_connect());
    let attempt = client(&silent).get("items").send().await.unwrap_err();
    let total = client(&silent).get("items").timeout(Duration::from_millis(10)).send().await.unwrap_err();
    let hangs = source_fn(|_| std::future::pending::<Result<AccessToken, Error>>());
    let hanging = ApiClient::builder(&silent, hangs).build().unwrap();
    let token = hanging.get("items").timeout(Duration::from_millis(10)).send().await.unwrap_err();
    let busy = ApiClient::builder(&silent, a_token()).concurrency_limit(1).build().unwrap();
    let ask = |milliseconds| busy.get("items").timeout(Duration::from_millis(milliseconds)).send();
    let (_, turn) = tokio::join!(ask(200), ask(10));
    let turn = turn.unwrap_err();
    assert!(attempt.is_timeout() && total.is_timeout() && token.is_timeout() && turn.is_timeout());
    let lines =
        [refused, by_proxy, attempt, total, token, turn].map(|error| error.to_string().replace(&silent, API));
    lines.map(|line| line.replace(&closed, API)).to_vec()
}

async fn a_request_without_its_tenant() -> Vec<String> {
    let layer = AuthLayer::per_request([API]).unwrap();
    let client = layer.layer(api(|| Response::new(Body::default())));
    let mut own = request("https://api.example.com/items");
    own.extensions_mut().insert(AuthOverride::layer());
    let mut lines = Vec::new();
    for request in [request("https://api.example.com/items"), own] {
        lines.push(told(&client.clone().oneshot(request).await.unwrap_err()));
    }
    let caches = TenantCaches::builder(|_: &u8| Ok::<_, Error>(a_token())).capacity(1).build().unwrap();
    let _held = caches.get(&1).unwrap();
    lines.push(caches.get(&2).unwrap_err().to_string());

    let crowd = TenantCaches::builder(|_: &u8| Ok::<_, Error>(a_token())).token_requests(1, 1);
    let crowd = crowd.build().unwrap();
    let waiting = (0..12).map(|number| {
        let cache = crowd.get(&number).unwrap();
        async move { tokio::time::timeout(Duration::from_millis(100), cache.get()).await }
    });
    let told = join_all(waiting).await.into_iter().filter_map(|answer| answer.ok()?.err());
    lines.extend(told.map(|error| error.to_string()));
    lines
}

async fn a_token_that_the_api_does_not_take() -> Vec<String> {
    // One whose tokens are another server's.
    let (server, elsewhere) = (authorization_server().await, authorization_server().await);
    let api_of = Api::builder(&elsewhere).start().await.unwrap();
    let (log, _guard) = logging();
    let source = client_of(&server, "billing", "hunter2-hunter2").build().unwrap();
    let client = ServiceBuilder::new()
        .layer(RetryPolicy::default())
        .layer(AuthLayer::for_origin(source, api_of.origin()).unwrap())
        .service(HyperClient::new());
    let mut lines = Vec::new();
    for _ in 0..3 {
        let response =
            client.clone().oneshot(request(&format!("{}/items/7", api_of.origin()))).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        lines.push(response.extensions().get::<RetryReport>().unwrap().stop_reason().to_string());
    }
    // The page has the words, and not the fields that differ from cache to cache.
    lines.extend(log.lines().iter().map(|line| line.split(" cache=").next().unwrap().to_owned()));

    // One that wants another scope.
    let refuses = || {
        let challenge = r#"Bearer error="insufficient_scope", scope="items:write""#;
        let response = Response::builder().status(403).header(header::WWW_AUTHENTICATE, challenge);
        response.body(Body::default()).unwrap()
    };
    let client = AuthLayer::for_origin(a_token(), API).unwrap().layer(api(refuses));
    let response = client.oneshot(request("https://api.example.com/items")).await.unwrap();
    assert_eq!(response.extensions().get::<ScopeMissing>().unwrap().scope(), Some("items:write"));

    // The errors that a client makes of both.
    let source = client_of(&server, "billing", "hunter2-hunter2").build().unwrap();
    let client = ApiClient::builder(api_of.origin(), source);
    let response = client.build().unwrap().get("items/7").send().await.unwrap();
    lines.push(response.error_for_status().unwrap_err().to_string().replace(&api_of.origin(), API));
    let fake = service_fn(move |_: Request<tower_oauth2::Body>| {
        let response = refuses();
        async move { Ok::<_, BoxError>(response) }
    });
    let client = ApiClient::builder(API, a_token()).build_with(fake).unwrap();
    let response = client.get("items").send().await.unwrap();
    lines.push(response.error_for_status().unwrap_err().to_string());
    lines
}

async fn a_request_that_is_not_sent_again() -> Vec<String> {
    let (origin, _listener) = serve(
        Router::new().route(
            "/items",
            get(async || StatusCode::BAD_GATEWAY)
                .post(async || StatusCode::BAD_GATEWAY)
                .put(async || StatusCode::BAD_GATEWAY),
        ),
    )
    .await;
    let policy = RetryPolicy::builder().replay_body_limit(1 << 20).build().unwrap();
    let stack =
        Stack::for_base_url(a_token(), origin.as_str()).unwrap().retry(policy).build(HyperClient::new());
    let mut lines = Vec::new();
    for (method, length) in [("PUT", 2 << 20), ("POST", 10)] {
        let request = Request::builder()
            .method(method)
            .uri(format!("{origin}/items"))
            .body(Body::from(vec![b' '; length]))
            .unwrap();
        let response = stack.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
        let report = response.extensions().get::<RetryReport>().unwrap();
        lines.push(report.stop_reason().to_string());
    }
    lines
}

fn a_call_at_the_wrong_place() -> Vec<String> {
    let outside = || {
        let cache = TokenCache::new(a_token());
        let error = cache.get().now_or_never().unwrap().unwrap_err();
        let no_timer = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let without = no_timer.block_on(TokenCache::new(a_token()).get()).unwrap_err();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let closed = runtime.block_on(async {
            cache.shutdown(Duration::ZERO).await.unwrap();
            cache.get().await.unwrap_err()
        });
        let asleep = runtime.block_on(async { TokenCache::new(a_token()).blocking_get().unwrap_err() });
        [error, without, closed, asleep].map(|error| error.to_string()).to_vec()
    };
    // The tests themselves run inside of a runtime.
    std::thread::spawn(outside).join().unwrap()
}

async fn a_path_that_leads_elsewhere() -> Vec<String> {
    let unused = service_fn(async |_: Request<tower_oauth2::Body>| {
        Err::<Response<Body>, _>(BoxError::from("a path led somewhere"))
    });
    let api = ApiClient::new(API, unused).unwrap();
    let requests = [
        api.get("//evil.example.com"),
        api.get("https://evil.example.com"),
        api.get("../admin"),
        api.get("\\\\evil.example.com"),
        api.get("a b"),
        api.get("users").segment(""),
    ];
    join_all(requests.map(|request| async { request.send().await.unwrap_err().to_string() })).await
}

async fn headers_that_cannot_be_sent() -> Vec<String> {
    let unused = service_fn(async |_: Request<tower_oauth2::Body>| {
        Err::<Response<Body>, _>(BoxError::from("a header was sent"))
    });
    let api = ApiClient::new(API, unused).unwrap();
    let requests = [
        api.get("users").header("x-tenant", "north\n"),
        api.get("users").header("x tenant", "north"),
        api.post("users").header("content-length", "7").body("north"),
    ];
    join_all(requests.map(|request| async { request.send().await.unwrap_err().to_string() })).await
}

async fn a_body_that_is_short() -> String {
    let (origin, _server) =
        serve(Router::new().route("/items", axum::routing::put(async |_: Bytes| ""))).await;
    let api = ApiClient::builder(&origin, a_token()).build().unwrap();
    let frame = Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"item")));
    let short = tower_oauth2::Body::new(StreamBody::new(futures_util::stream::iter([frame])));
    let error = api.put("items").header("content-length", 9).body(short).send().await.unwrap_err();
    error.to_string().replace(&origin, API)
}

async fn responses_that_are_not_the_json() -> Vec<String> {
    let server = service_fn(async |request: Request<tower_oauth2::Body>| {
        let (body, content_type) = match request.uri().path() {
            "/page" | "/missing" => ("<html>", Some("text/html; charset=utf-8")),
            "/empty" => ("", None),
            "/gzip" => ("\u{1f}\u{8b}", Some("application/json")),
            "/list" => (r#"{"users":[1]}"#, Some("application/json")),
            _ => (r#"{"id":"hunter2-h"}"#, Some("application/json")),
        };
        let mut response = Response::new(Body::from(body));
        if let Some(content_type) = content_type {
            response.headers_mut().insert(header::CONTENT_TYPE, content_type.parse()?);
        }
        if request.uri().path() == "/gzip" {
            response.headers_mut().insert(header::CONTENT_ENCODING, "gzip".parse()?);
        }
        if request.uri().path() == "/missing" {
            *response.status_mut() = StatusCode::NOT_FOUND;
        }
        Ok::<_, BoxError>(response)
    });
    let api = ApiClient::new(API, server).unwrap();
    let mut lines = Vec::new();
    for path in ["user", "page", "empty", "missing", "gzip"] {
        let response = api.get(path).send().await.unwrap();
        lines.push(response.json::<HashMap<String, u64>>().await.unwrap_err().to_string());
    }
    let list = api.get("list").pages(Next::url("next")).next().await.unwrap().unwrap();
    lines.push(list.items::<u64>().unwrap_err().to_string());
    lines
}

async fn pages_that_cannot_go_on() -> Vec<String> {
    const LIST: &str = r#"{
        "users": [1], "away": "https://evil.example.com/users", "out": "/v1/users", "circle": "?page=2"
    }"#;
    let server =
        service_fn(async |_: Request<tower_oauth2::Body>| Ok::<_, BoxError>(Response::new(Body::from(LIST))));
    let api = ApiClient::new(format!("{API}/v2"), server).unwrap();
    let nexts = [
        Next::url("away"),
        Next::url("out"),
        Next::url("circle"),
        Next::page_number("pgae").items("users"),
        Next::page_number("page"),
        Next::page_number("page").items("user"),
    ];
    let endless = Next::by(|page| Ok(Some(NextPage::with("at", page.number()))));
    let endless = api.get("users").pages(endless).max_pages(2);
    let pages = nexts.map(|next| api.get("users").pages(next)).into_iter().chain([endless]);
    let error = async |mut pages: Pages<_>| {
        loop {
            if let Err(error) = pages.next().await.unwrap() {
                return error.to_string();
            }
        }
    };
    join_all(pages.map(error)).await
}

async fn reqwest_at_the_wrong_place() -> Vec<String> {
    let source =
        || ClientCredentials::builder(format!("{LOGIN}/token"), "billing", "hunter2-hunter2").retries(0);
    // reqwest has no TLS in these tests.
    let no_tls = source().build_with(ReqwestClient::build(|builder| builder).unwrap()).unwrap();
    let ready_made = source().build_with(ReqwestClient::new(reqwest::Client::new())).unwrap();
    let request = Request::get("http://127.1/").body(Body::default()).unwrap();
    let other_host = ReqwestClient::build(|builder| builder).unwrap().oneshot(request).await.unwrap_err();
    vec![failure(LOGIN, no_tls).await, failure(LOGIN, ready_made).await, other_host.to_string()]
}

/// Logs warnings, without what differs from run to run.
fn logging() -> (Log, tracing::subscriber::DefaultGuard) {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_ansi(false)
        .without_time()
        .with_level(false)
        .with_target(false)
        .with_writer(log.clone())
        .finish();
    (log, tracing::subscriber::set_default(subscriber))
}
