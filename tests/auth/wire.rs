//! Under hyper-util's client, over HTTP/1.1 and HTTP/2 on loopback.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, WWW_AUTHENTICATE};
use http::{Request, Response, StatusCode, Version};
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tower::{Layer as _, Service as _, ServiceBuilder, ServiceExt as _};
use tower_oauth2::extensions::TokenWithheld;
use tower_oauth2::retry::{RequestBody, RetryReport};
use tower_oauth2::{AuthLayer, RetryPolicy};

use super::fixture::{Body, Issuer};

/// A server that takes tokens from a number on, and says no in the words of HTTP or of gRPC.
#[derive(Clone, Default)]
struct Server {
    valid_from: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<(Version, String, Bytes)>>>,
}

impl Server {
    async fn start(&self) -> String {
        let app = Router::new().fallback(answer).with_state(self.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        origin
    }

    fn seen(&self) -> Vec<(Version, String, Bytes)> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

async fn answer(State(server): State<Server>, request: Request<axum::body::Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let token = head.headers.get(AUTHORIZATION).map_or("", |value| value.to_str().unwrap()).to_owned();
    let body = body.collect().await.unwrap().to_bytes();
    let is_grpc = head.headers.get(CONTENT_TYPE).is_some_and(|kind| kind == "application/grpc");
    let number = token.strip_prefix("Bearer token-").and_then(|number| number.parse().ok()).unwrap_or(0);
    server.seen.lock().unwrap().push((head.version, token, body));
    let welcome = number >= server.valid_from.load(Ordering::SeqCst);
    let response = match (is_grpc, welcome) {
        (false, true) => Response::builder().status(StatusCode::OK),
        (false, false) => Response::builder()
            .status(StatusCode::UNAUTHORIZED)
            .header(WWW_AUTHENTICATE, "Basic realm=\"x\", Bearer error=\"invalid_token\""),
        (true, true) => {
            Response::builder().header(CONTENT_TYPE, "application/grpc").header("grpc-status", "0")
        }
        (true, false) => {
            Response::builder().header(CONTENT_TYPE, "application/grpc").header("grpc-status", "16")
        }
    };
    response.body(Body::from("answer")).unwrap()
}

type Http<B> = Client<hyper_util::client::legacy::connect::HttpConnector, B>;

fn http<B>(version: Version) -> Http<B>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
{
    Client::builder(TokioExecutor::new()).http2_only(version == Version::HTTP_2).build_http()
}

fn post(uri: &str) -> Request<Body> {
    Request::post(uri).body(Body::from("an order")).unwrap()
}

#[tokio::test]
async fn the_token_arrives() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let (server, issuer) = (Server::default(), Issuer::new("token"));
        let origin = server.start().await;
        let layer = AuthLayer::for_origin(issuer.clone(), origin.as_str()).unwrap();
        let mut client = ServiceBuilder::new().layer(layer).service(http::<Body>(version));
        for _ in 0..3 {
            let response =
                client.ready().await.unwrap().call(post(&format!("{origin}/items"))).await.unwrap();
            assert_eq!((response.status(), response.version()), (StatusCode::OK, version));
        }
        let expected = (version, "Bearer token-1".to_owned(), Bytes::from("an order"));
        assert_eq!(server.seen(), [expected.clone(), expected.clone(), expected]);
        assert_eq!(issuer.issued(), 1);
    }
}

#[tokio::test]
async fn a_revoked_token_is_renewed_and_the_request_replayed() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let (server, issuer) = (Server::default(), Issuer::new("token"));
        let origin = server.start().await;
        let layer = AuthLayer::for_origin(issuer.clone(), origin.as_str()).unwrap();
        let client = ServiceBuilder::new().layer(RetryPolicy::default()).layer(layer).service(http::<
            RequestBody<Body>,
        >(
            version
        ));
        client.clone().oneshot(post(&origin)).await.unwrap();
        server.valid_from.store(2, Ordering::SeqCst);
        let requests = (0..20).map(|_| client.clone().oneshot(post(&origin)));
        for response in futures_util::future::join_all(requests.collect::<Vec<_>>()).await {
            let response = response.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "answer");
        }
        let response = client.oneshot(post(&origin)).await.unwrap();
        assert!(response.extensions().get::<RetryReport>().is_none());
        assert_eq!(issuer.issued(), 2);
        let seen = server.seen();
        assert!(seen.iter().all(|(seen, _, body)| *seen == version && body == "an order"));
        assert_eq!(seen.iter().filter(|(_, token, _)| token == "Bearer token-2").count(), 21);
        assert!(seen.iter().all(|(_, token, _)| token == "Bearer token-1" || token == "Bearer token-2"));
    }
}

#[tokio::test]
async fn a_grpc_refusal_is_read_over_http_2() {
    let (server, issuer) = (Server::default(), Issuer::new("token"));
    let origin = server.start().await;
    let layer = AuthLayer::for_origin(issuer.clone(), origin.as_str()).unwrap();
    let client = ServiceBuilder::new().layer(RetryPolicy::default()).layer(layer).service(http::<
        RequestBody<Body>,
    >(
        Version::HTTP_2
    ));
    server.valid_from.store(2, Ordering::SeqCst);
    let mut request = post(&origin);
    request.headers_mut().insert(CONTENT_TYPE, "application/grpc".parse().unwrap());
    let response = client.oneshot(request).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "0");
    assert_eq!(issuer.issued(), 2);
    let sent: Vec<_> = server.seen().into_iter().map(|(_, token, _)| token).collect();
    assert_eq!(sent, ["Bearer token-1", "Bearer token-2"]);
}

#[tokio::test]
async fn over_one_connection_a_path_goes_where_the_layer_was_told() {
    let server = Server::default();
    let origin = server.start().await;
    let address = origin.strip_prefix("http://").unwrap().to_owned();
    let stream = tokio::net::TcpStream::connect(&address).await.unwrap();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let sender = Arc::new(tokio::sync::Mutex::new(sender));
    let connection = tower::service_fn(move |request: Request<Body>| {
        let sender = Arc::clone(&sender);
        async move { sender.lock().await.send_request(request).await }
    });
    let layer = Issuer::new("token").layer();
    let request = || Request::get("/items").header(HOST, &address).body(Body::default()).unwrap();
    let error = layer.layer(connection.clone()).oneshot(request()).await.unwrap_err();
    assert!(error.to_string().contains("default_origin"), "{error}");
    let layer = layer.default_origin(origin.as_str()).unwrap();
    assert_eq!(layer.layer(connection).oneshot(request()).await.unwrap().status(), StatusCode::OK);
    assert_eq!(server.seen(), [(Version::HTTP_11, "Bearer token-1".to_owned(), Bytes::new())]);
}

#[tokio::test]
async fn another_server_sees_no_token() {
    let (server, other) = (Server::default(), Server::default());
    let (origin, elsewhere) = (server.start().await, other.start().await);
    let layer = AuthLayer::for_origin(Issuer::new("token"), origin.as_str()).unwrap();
    let client = ServiceBuilder::new().layer(layer).service(http::<Body>(Version::HTTP_11));
    let response = client.clone().oneshot(post(&elsewhere)).await.unwrap();
    let marker: &TokenWithheld = response.extensions().get().unwrap();
    assert_eq!(marker.origin(), Some(elsewhere.as_str()));
    // The port is part of the name: another server on the same machine is another server.
    let mut disguised = post(&origin);
    disguised.headers_mut().insert(HOST, elsewhere.strip_prefix("http://").unwrap().parse().unwrap());
    client.oneshot(disguised).await.unwrap();
    let tokens = |server: &Server| server.seen().into_iter().map(|(_, token, _)| token).collect::<Vec<_>>();
    assert_eq!((tokens(&other), tokens(&server)), (vec![String::new()], vec![String::new()]));
}
