//! An API that gives the token back: in challenges, in headers, in where it sends the client, over both HTTPs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio_rustls::TlsAcceptor;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceBuilder, ServiceExt as _};
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_http::trace::{DefaultMakeSpan, DefaultOnFailure, DefaultOnRequest, DefaultOnResponse, TraceLayer};
use tower_oauth2::extensions::{Challenges, ScopeMissing, TokenWithheld};
use tower_oauth2::retry::{ReportSlot, RetryOptions, RetryReport, StopReason};
use tower_oauth2::transport::HyperClient;
use tower_oauth2::{AccessToken, AuthLayer, ClientCredentials, RetryPolicy, TokenCache};

use crate::server::{Says, Server};
use crate::trail::Trail;
use crate::words::{self, CLIENT_ID, CLIENT_SECRET, JWT, OPAQUE, PIN, REFRESH, SESSION, echoes};

type Body = Full<Bytes>;
type Service = BoxCloneSyncService<Request<Body>, Response<()>, BoxError>;

/// The stack as users build it, with tower-http's own log of each attempt, headers included.
fn stack(cache: &TokenCache, origin: &str) -> Service {
    // What an API says is its own: the response headers would be a copy of what it echoes.
    let trace = TraceLayer::new_for_http()
        .make_span_with(DefaultMakeSpan::new().level(tracing::Level::TRACE).include_headers(true))
        .on_request(DefaultOnRequest::new().level(tracing::Level::TRACE))
        .on_response(DefaultOnResponse::new().level(tracing::Level::TRACE))
        .on_failure(DefaultOnFailure::new().level(tracing::Level::TRACE));
    let service = ServiceBuilder::new()
        .map_response(|response: Response<_>| response.map(drop))
        .layer(RetryPolicy::default())
        .layer(AuthLayer::for_origin(cache.clone(), origin).unwrap())
        .layer(trace)
        .service(HyperClient::new());
    BoxCloneSyncService::new(service)
}

fn asking(server: &Server) -> TokenCache {
    let builder = ClientCredentials::builder(format!("{}/token", server.origin), CLIENT_ID, CLIENT_SECRET);
    TokenCache::new(builder.secret_param("pin", PIN).retries(0).build().unwrap())
}

fn get(url: &str, slot: &ReportSlot) -> Request<Body> {
    let mut request = Request::get(url).body(Full::default()).unwrap();
    request.extensions_mut().insert(RetryOptions::new().report_to(slot));
    request
}

/// Looks at what the layers say of an answer.
fn look<B>(trail: &Trail, response: &Response<B>, slot: &ReportSlot) {
    let extensions = response.extensions();
    trail.debug("slot", slot);
    let reports = [slot.take(), extensions.get::<RetryReport>().cloned()];
    let markers = reports.iter().flatten().filter_map(RetryReport::token_rejected).chain(extensions.get());
    for marker in markers {
        trail.debug("TokenRejected", marker);
        trail.note("TokenRejected", format!("{:?} {:?}", marker.error(), marker.description()));
    }
    for report in reports.iter().flatten() {
        trail.debug("RetryReport", report);
        trail.note("StopReason", format!("{} {:?}", report.stop_reason(), report.stop_reason()));
        if let Some(error) = report.error() {
            trail.error("RetryReport::error", error);
        }
    }
    trail.debug("ScopeMissing", &extensions.get::<ScopeMissing>());
    trail.debug("TokenWithheld", &extensions.get::<TokenWithheld>());
    for challenge in extensions.get::<Challenges>().into_iter().flat_map(|challenges| challenges.iter()) {
        trail.debug("Challenge", challenge);
        let params: Vec<_> = challenge.params().collect();
        trail.note("Challenges", format!("{} {:?} {params:?}", challenge.scheme(), challenge.token68()));
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// All places of a refusal that are read, with this text in each.
fn refusals(echo: &str) -> Vec<Says> {
    let text = quoted(echo);
    let with = |status, challenge: String| {
        Says::reply(status, echo).header("www-authenticate", challenge).header("x-echo", echo)
    };
    vec![
        with(
            401,
            format!("Bearer error=\"invalid_token\", error_description={text}, scope={text}, realm={text}"),
        ),
        with(401, format!("Bearer error={text}, error_uri={text}")),
        with(401, format!("Basic realm={text}, error={text}")),
        with(401, format!("Bearer error=\"insufficient_scope\", scope={text}, error_description={text}")),
        with(403, format!("Bearer error=\"insufficient_scope\", scope={text}, realm={text}")),
        with(401, echo.to_owned()),
        with(429, format!("Bearer {echo}")).header("retry-after", echo).header("retry-after", "900"),
    ]
}

#[tokio::test]
async fn what_an_api_echoes_is_in_no_marker_and_no_report() {
    let api = Server::start(Says::Nothing);
    for secret in [OPAQUE, JWT] {
        let trail = Trail::begin();
        let token = AccessToken::bearer(secret).unwrap();
        let (mut redacted, mut count) = (0, 0);
        for echo in echoes(secret) {
            for says in refusals(&echo) {
                api.say(says);
                // A cache for each, so that no brake is on.
                let cache = TokenCache::new(token.clone());
                let slot = ReportSlot::new();
                let response = stack(&cache, &api.origin).oneshot(get(&api.origin, &slot)).await.unwrap();
                assert!(response.status().is_client_error());
                look(&trail, &response, &slot);
                redacted += usize::from(
                    format!("{:?}", response.extensions().get::<ScopeMissing>()).contains("[redacted]"),
                );
                count += 1;
            }
        }
        assert!(count > 100 && redacted * 5 > count, "{redacted} of {count}");
        trail.assert_clean();
    }
}

#[tokio::test]
async fn refusals_by_both_servers_show_nothing_through_the_stack() {
    let (server, api) = (Server::start(Says::token(OPAQUE)), Server::start(Says::reply(200, "fine")));
    let trail = Trail::begin();
    let cache = asking(&server);
    let client = stack(&cache, &api.origin);
    let mut statuses = Vec::new();
    let mut errors = 0;
    for round in 0..12 {
        // Accepted, rejected and replayed, rejected until a brake is on, and no token in the end.
        let everything = [OPAQUE, REFRESH, SESSION, CLIENT_SECRET, PIN].join(" / ");
        // An API was never told what the client proves itself with.
        let all_of_the_token = [OPAQUE, REFRESH, SESSION].join(" / ");
        match round {
            0 => api.say(Says::reply(200, "fine")),
            1 => api.say(refusals(&all_of_the_token).remove(0)),
            8 => {
                server.say(Says::reply(
                    401,
                    serde_json::json!({"error": "invalid_client", "error_description": everything})
                        .to_string(),
                ));
                cache.invalidate();
            }
            _ => {}
        }
        let slot = ReportSlot::new();
        match client.clone().oneshot(get(&api.origin, &slot)).await {
            Ok(response) => {
                statuses.push(response.status().as_u16());
                look(&trail, &response, &slot);
            }
            Err(error) => {
                errors += 1;
                trail.error("an error of the stack", &*error);
                trail.debug("slot", &slot);
                let message = error.to_string();
                assert!(message.contains("invalid_client ([redacted]"), "{message}");
            }
        }
        trail.debug("cache", &cache);
        trail.debug("client", &client);
    }
    assert_eq!((statuses[0], statuses[1], statuses.len(), errors), (200, 401, 8, 4));
    assert!(cache.status().last_error().is_some());
    assert!(trail.log().contains("too many tokens were rejected"), "a brake was on");
    // tower-http shows the headers of each request: the token is marked sensitive.
    assert!(trail.log().contains("\"authorization\": Sensitive"), "tower-http logs");
    trail.assert_clean();
}

#[tokio::test]
async fn a_replay_that_got_no_token_reports_why_and_shows_nothing() {
    let (server, api) = (Server::start(Says::token(JWT)), Server::start(Says::reply(200, "fine")));
    let trail = Trail::begin();
    let cache = asking(&server);
    let client = stack(&cache, &api.origin);
    let slot = ReportSlot::new();
    client.clone().oneshot(get(&api.origin, &slot)).await.unwrap();
    api.say(refusals(JWT).remove(0));
    server.say(Says::reply(
        400,
        serde_json::json!({"error": "invalid_grant", "error_description": format!("{JWT} {REFRESH} {CLIENT_SECRET}")})
            .to_string(),
    ));
    let response = client.oneshot(get(&api.origin, &slot)).await.unwrap();
    let report = response.extensions().get::<RetryReport>().unwrap();
    assert_eq!(*report.stop_reason(), StopReason::TokenUnavailable);
    assert!(report.error().unwrap().to_string().contains("invalid_grant"), "{report:?}");
    look(&trail, &response, &slot);
    trail.assert_clean();
}

#[tokio::test]
async fn a_redirect_to_a_host_that_is_the_token_shows_nothing() {
    let trail = Trail::begin();
    let token = AccessToken::bearer(OPAQUE).unwrap();
    let host = token_as_host();
    let below = tower::service_fn(move |request: Request<Body>| {
        let host = host.clone();
        async move {
            let mut response = Response::new(Body::default());
            if request.uri().host() == Some("api.example.com") {
                *response.status_mut() = http::StatusCode::FOUND;
                let target = format!("https://{host}.example.net/");
                response.headers_mut().insert("location", target.parse().unwrap());
            }
            Ok::<_, BoxError>(response)
        }
    });
    let cache = TokenCache::new(token);
    cache.get().await.unwrap();
    let layer = AuthLayer::for_origin(cache, "https://api.example.com").unwrap();
    let request = || Request::get("https://api.example.com/").body(Body::default()).unwrap();

    let client =
        ServiceBuilder::new().layer(FollowRedirectLayer::new()).layer(layer.clone()).service(below.clone());
    let response = client.oneshot(request()).await.unwrap();
    let withheld = response.extensions().get::<TokenWithheld>().unwrap();
    assert_eq!(withheld.origin(), Some("https://[redacted].example.net"));
    trail.debug("TokenWithheld", withheld);

    let strict = layer.refuse_other_origins(true);
    let client = ServiceBuilder::new().layer(FollowRedirectLayer::new()).layer(strict).service(below);
    let error = client.oneshot(request()).await.unwrap_err();
    assert!(error.to_string().contains("https://[redacted].example.net"), "{error}");
    trail.error("a refusal", &*error);
    trail.assert_clean();
    assert!(trail.log().contains("a request was sent without a token"), "a warning");
}

/// The token in letters that a host may have.
fn token_as_host() -> String {
    OPAQUE.bytes().map(|byte| format!("{byte:02x}")).collect::<String>()[..60].to_owned()
}

// --- h2 over TLS ---

/// An https server with a certificate of its own, on a thread of its own.
fn https_server(answer: impl Fn() -> Response<Body> + Send + Sync + Clone + 'static) -> (SocketAddr, String) {
    let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let mut config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)
            .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answer) = (acceptor.clone(), answer.clone());
                tokio::spawn(async move {
                    let stream = acceptor.accept(stream).await.unwrap();
                    let service = hyper::service::service_fn(move |_request| {
                        let response = answer();
                        async { Ok::<_, std::convert::Infallible>(response) }
                    });
                    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
    });
    (address, own.cert.pem())
}

/// h2 logs every frame at trace level. The headers in it are those of both requests, and all that came back.
#[tokio::test]
async fn the_frames_of_h2_show_nothing() {
    let answer = || {
        let body = serde_json::json!({
            "access_token": JWT, "refresh_token": REFRESH, "session_token": SESSION, "expires_in": 600,
        });
        Response::new(Body::from(body.to_string()))
    };
    let (token_server, token_pem) = https_server(answer);
    let (api, api_pem) = https_server(|| {
        let mut response = Response::new(Body::from(words::form(JWT)));
        *response.status_mut() = http::StatusCode::FORBIDDEN;
        response
    });
    let trail = Trail::begin();
    for auth in
        [tower_oauth2::ClientAuth::basic(CLIENT_SECRET), tower_oauth2::ClientAuth::post(CLIENT_SECRET)]
    {
        let source = ClientCredentials::builder(format!("https://{token_server}/token"), CLIENT_ID, auth)
            .secret_param("pin", PIN)
            .build_with(HyperClient::new().only_root_certificates(&token_pem).unwrap())
            .unwrap();
        let client = AuthLayer::for_origin(source, format!("https://{api}").as_str()).unwrap();
        let client =
            tower::Layer::layer(&client, HyperClient::new().only_root_certificates(&api_pem).unwrap());
        let request = Request::get(format!("https://{api}/")).body(Body::default()).unwrap();
        let response = client.oneshot(request).await.unwrap();
        assert_eq!((response.status().as_u16(), response.version()), (403, http::Version::HTTP_2));
        trail.debug("ScopeMissing", &response.extensions().get::<ScopeMissing>());
    }
    // The connections say goodbye.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(trail.log().contains("h2::codec::framed_write"), "{}", trail.log());
    trail.assert_clean();
}
