//! An issuer that counts, requests, and a look at what was sent and logged.

use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderName, Request, Response};
use http_body_util::Full;
use tower::{BoxError, Layer as _, ServiceExt as _};
use tower_oauth2::auth::{AuthLayer, AuthService};
use tower_oauth2::test_util::ScriptedSource;
use tower_oauth2::test_util::{Probe, Script, ScriptedResponse, Seen, reply};
use tower_oauth2::{AccessToken, Error, ErrorKind, TokenCache, TokenRequest, TokenSource};
use tracing::Level;
use tracing::subscriber::DefaultGuard;

pub(crate) use super::support::Log;

pub(crate) const API: &str = "https://api.example.com";

pub(crate) type Body = Full<Bytes>;
pub(crate) type Api = Probe<Request<Body>, Response<Body>>;
pub(crate) type Client = AuthService<Api>;
pub(crate) type Outcome = Result<Response<Body>, BoxError>;

// --- Issuer ---

/// Hands out `name-1`, `name-2`, and so on, and counts how often it is asked.
#[derive(Clone)]
pub(crate) struct Issuer {
    name: &'static str,
    source: ScriptedSource,
}

impl Issuer {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, source: ScriptedSource::new().name(name) }
    }

    pub(crate) fn latency(mut self, latency: Duration) -> Self {
        self.source = self.source.latency(latency);
        self
    }

    pub(crate) fn lifetime(mut self, lifetime: Duration) -> Self {
        self.source = self.source.lifetime(lifetime);
        self
    }

    /// Fails from this token on.
    pub(crate) fn fails_from(self, number: usize) -> Self {
        for number in 1..number {
            self.source.return_next(AccessToken::bearer(format!("{}-{number}", self.name)));
        }
        self.source.fail_with(Error::new(ErrorKind::Grant, "the client was removed"));
        self
    }

    pub(crate) fn issued(&self) -> usize {
        self.source.fetches()
    }

    pub(crate) fn cache(&self) -> TokenCache {
        TokenCache::new(self.clone())
    }

    /// Creates a cache that has its first token already.
    pub(crate) async fn warm(&self) -> TokenCache {
        let cache = self.cache();
        cache.get().await.unwrap();
        cache
    }

    /// Creates a layer for the API.
    pub(crate) fn layer(&self) -> AuthLayer {
        AuthLayer::for_origin(self.clone(), API).unwrap()
    }
}

impl TokenSource for Issuer {
    async fn token(&self, request: TokenRequest) -> Result<AccessToken, Error> {
        self.source.token(request).await
    }
}

// --- Requests ---

pub(crate) fn get(uri: &str) -> Request<Body> {
    Request::get(uri).body(Body::default()).unwrap()
}

pub(crate) fn item() -> Request<Body> {
    get("https://api.example.com/items/7?page=secret-query")
}

/// Creates a request with an extension.
pub(crate) fn with<T: Clone + Send + Sync + 'static>(extension: T) -> Request<Body> {
    let mut request = item();
    request.extensions_mut().insert(extension);
    request
}

/// Creates a request with a header.
pub(crate) fn item_with(name: &'static str, value: &str) -> Request<Body> {
    let mut request = item();
    request.headers_mut().append(HeaderName::from_static(name), value.parse().unwrap());
    request
}

pub(crate) fn over(layer: &AuthLayer, script: &Script) -> Client {
    layer.layer(script.probe())
}

pub(crate) async fn send(client: &Client, request: Request<Body>) -> Outcome {
    client.clone().oneshot(request).await
}

/// Sends one request through a new service of a layer, and returns the response with what the server saw.
pub(crate) async fn once(layer: &AuthLayer, request: Request<Body>) -> (Response<Body>, Seen) {
    let script = Script::default();
    let response = send(&over(layer, &script), request).await.unwrap();
    let mut seen = script.seen();
    assert_eq!(seen.len(), 1);
    (response, seen.remove(0))
}

/// Returns the error of a request that must not be sent.
pub(crate) async fn refused(layer: &AuthLayer, request: Request<Body>) -> Error {
    let script = Script::default();
    let error = send(&over(layer, &script), request).await.unwrap_err();
    assert!(script.seen().is_empty());
    error.downcast_ref::<Error>().unwrap().clone()
}

// --- What was seen ---

/// Returns the values of a header, joined; empty without the header.
pub(crate) fn values(seen: &Seen, name: &str) -> String {
    let values = seen.head.headers.get_all(name).iter().map(|value| value.to_str().unwrap());
    values.collect::<Vec<_>>().join(" and ")
}

pub(crate) fn token(seen: &Seen) -> String {
    values(seen, AUTHORIZATION.as_str())
}

/// Takes the tokens of all requests so far.
pub(crate) fn tokens(script: &Script) -> Vec<String> {
    script.seen().iter().map(token).collect()
}

/// Makes an answer with headers.
pub(crate) fn answer(status: u16, headers: &[(&'static str, &str)]) -> ScriptedResponse {
    let mut response = reply(status, "the server's own words");
    for (name, value) in headers {
        let value = http::HeaderValue::from_bytes(value.as_bytes()).unwrap();
        response.headers_mut().append(*name, value);
    }
    ScriptedResponse::Reply(response)
}

/// Makes a 401 with a challenge.
pub(crate) fn challenged(challenge: &str) -> ScriptedResponse {
    answer(401, &[("www-authenticate", challenge)])
}

// --- Log ---

impl Log {
    /// Logs while the guard lives.
    pub(crate) fn from(level: Level) -> (Self, DefaultGuard) {
        let log = Self::default();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_ansi(false)
            .with_writer(log.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }
}
