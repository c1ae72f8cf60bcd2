//! An API that asks the authorization server about every token (RFC 7662), as a client of its own.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use tower::BoxError;
use tower_oauth2::test_util::Loopback;

use super::server::{Registered, Server};

/// The client as which the API introspects.
pub(crate) const INTROSPECTOR: Registered =
    Registered { id: "items-api", secret: "of-the-api", method: "client_secret_basic" };

/// An API of one route, `GET /items`. Dropping it ends it.
pub(crate) struct Api {
    listener: Loopback,
}

/// How the API finds out about tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// It asks at every request.
    EveryTime,
    /// It asks at every request, after 0, 50, 100 or 150 ms: so refusals of one token arrive when there is another.
    AfterAWhile,
    /// It believes what it was told until the token expires, as many APIs do; so it can do without the server.
    Remembering,
    /// It asks at every request, but one of its four nodes says `invalid_token` whatever comes.
    WithOneBadNode,
}

struct Shared {
    introspection_url: String,
    authorization: HeaderValue,
    check: Check,
    requests: AtomicU64,
    /// When a token ends that was seen before, in seconds since the epoch.
    remembered: Mutex<HashMap<String, u64>>,
    http: HttpClient<HttpConnector, Full<Bytes>>,
}

/// What introspection says (RFC 7662 §2.2), as far as it matters here.
#[derive(Deserialize)]
struct Introspection {
    active: bool,
    exp: Option<u64>,
}

impl Api {
    pub(crate) async fn start(server: &Server, check: Check) -> io::Result<Self> {
        let pair = format!("{}:{}", INTROSPECTOR.id, INTROSPECTOR.secret);
        let authorization = HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(pair)))
            .map_err(io::Error::other)?;
        let shared = Arc::new(Shared {
            introspection_url: server.introspection_url(),
            authorization,
            check,
            requests: AtomicU64::new(0),
            remembered: Mutex::default(),
            http: HttpClient::builder(TokioExecutor::new()).build_http(),
        });
        let router = Router::new().route("/items", get(items)).with_state(shared);
        Ok(Self { listener: Loopback::start(router).await? })
    }

    pub(crate) fn origin(&self) -> String {
        self.listener.origin()
    }
}

impl Shared {
    async fn is_good(&self, token: &str) -> Result<bool, BoxError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if self.check == Check::Remembering && self.remembered().get(token).is_some_and(|end| *end > now) {
            return Ok(true);
        }
        let form = form_urlencoded::Serializer::new(String::new()).append_pair("token", token).finish();
        let request = Request::post(&self.introspection_url)
            .header(header::AUTHORIZATION, &self.authorization)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::from(form))?;
        let answer = tokio::time::timeout(Duration::from_secs(10), self.http.request(request)).await??;
        if answer.status() != StatusCode::OK {
            return Err(format!("introspection answered {}", answer.status()).into());
        }
        let told: Introspection = serde_json::from_slice(&answer.into_body().collect().await?.to_bytes())?;
        if let (Check::Remembering, true, Some(end)) = (self.check, told.active, told.exp) {
            self.remembered().insert(token.to_owned(), end);
        }
        Ok(told.active)
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, HashMap<String, u64>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn items(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let number = shared.requests.fetch_add(1, Relaxed);
    let refused =
        |challenge| (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response();
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some(token) = value.and_then(|value| value.strip_prefix("Bearer ")) else { return refused("Bearer") };
    if shared.check == Check::WithOneBadNode && number % 4 == 3 {
        return refused("Bearer error=\"invalid_token\"");
    }
    if shared.check == Check::AfterAWhile {
        tokio::time::sleep(Duration::from_millis(number % 4 * 50)).await;
    }
    match shared.is_good(token).await {
        Ok(true) => "items\n".into_response(),
        Ok(false) => refused("Bearer error=\"invalid_token\""),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
