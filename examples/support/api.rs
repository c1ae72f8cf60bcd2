//! The protected API: items to read and to write for whoever brings a good token and is patient.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Extension, Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::authorization_server::{AuthorizationServer, Introspector};
use super::listener::Listener;
use super::presence::Presence;
use super::tokens::{Access, Worth};

/// An API on loopback that wants a bearer token of an [`AuthorizationServer`]. Dropping it ends it.
///
/// | request | answer |
/// |---|---|
/// | `GET /items/{id}` | 200 with the item |
/// | `POST /items` with [`Api::ITEM_ID`] and [`Api::CONTENT_DIGEST`] | 201; 400 if the digest is not that of the body; 409 if the id came before |
/// | `GET /tenants/{tenant}/items/{id}` | 200 with the item; 403 if the token is not that client's |
/// | `GET /headers` | 200 with the headers that came, one a line; of the token only the scheme |
/// | without a token | 401 `Bearer` |
/// | with a token that is unknown, expired or revoked | 401 `Bearer error="invalid_token"` |
/// | over the limit | 429 with `Retry-After: 1` |
#[derive(Debug)]
pub struct Api {
    shared: Arc<Shared>,
    listener: Listener,
}

/// Sets up an [`Api`].
///
/// Defaults: no limit, answers at once.
#[derive(Debug)]
pub struct ApiBuilder {
    introspector: Introspector,
    limit: Option<u32>,
    limits_of: HashMap<String, u32>,
    think_time: Duration,
}

/// What an [`Api`] has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApiCounts {
    /// Requests that came, whatever the answer.
    pub requests: u64,
    /// Requests that came and whose token was not looked at yet.
    pub waiting: u64,
    /// Requests that got what they wanted.
    pub ok: u64,
    /// Requests answered 401.
    pub unauthorized: u64,
    /// Requests answered 401 since their token was revoked, and not merely expired.
    pub revoked: u64,
    /// Requests answered 429.
    pub limited: u64,
    /// Requests whose body was not the one that the digest was made of.
    pub wrong_bodies: u64,
    /// Requests whose item had been accepted before.
    pub duplicates: u64,
    /// Requests for a tenant with the token of another.
    pub crossed: u64,
}

impl Api {
    /// The header with the digest of the body (RFC 9530): `sha-256=:…:`.
    pub const CONTENT_DIGEST: &'static str = "content-digest";
    /// The header that names the item. No name is accepted twice.
    pub const ITEM_ID: &'static str = "item-id";

    /// Creates an API that accepts the tokens of `server`.
    pub fn builder(server: &AuthorizationServer) -> ApiBuilder {
        ApiBuilder {
            introspector: server.introspector(),
            limit: None,
            limits_of: HashMap::new(),
            think_time: Duration::ZERO,
        }
    }

    pub fn origin(&self) -> String {
        self.listener.origin()
    }

    /// Returns the value of [`Api::CONTENT_DIGEST`] for a body.
    pub fn content_digest(body: &[u8]) -> String {
        format!("sha-256=:{}:", BASE64_STANDARD.encode(Sha256::digest(body)))
    }

    pub fn counts(&self) -> ApiCounts {
        self.shared.counters.read()
    }

    /// Returns how many requests were answered 401 because of the revocation of that number (as told by
    /// [`AuthorizationServer::revoke_all`]).
    pub fn met_revocation(&self, number: u64) -> u64 {
        self.shared.ledger().revoked.get(&number).copied().unwrap_or_default()
    }
}

// --- ApiBuilder ---

impl ApiBuilder {
    /// Sets how many requests per second are answered; as many may come at once after a pause.
    #[must_use]
    pub fn limit(mut self, per_second: u32) -> Self {
        self.limit = Some(per_second);
        self
    }

    /// Sets how many requests per second of one client are answered, whatever the others do.
    #[must_use]
    pub fn limit_of(mut self, client: impl Into<String>, per_second: u32) -> Self {
        self.limits_of.insert(client.into(), per_second);
        self
    }

    /// Sets how long a request lies around before its token is looked at.
    #[must_use]
    pub fn think_time(mut self, think_time: Duration) -> Self {
        self.think_time = think_time;
        self
    }

    /// Starts the API on a free port.
    pub async fn start(self) -> io::Result<Api> {
        let shared = Arc::new(Shared {
            introspector: self.introspector,
            think_time: self.think_time,
            bucket: self.limit.map(|limit| Mutex::new(Bucket::full(limit))),
            buckets_of: self
                .limits_of
                .into_iter()
                .map(|(client, limit)| (client, Mutex::new(Bucket::full(limit))))
                .collect(),
            ledger: Mutex::default(),
            counters: Counters::default(),
        });
        let router = Router::new()
            .route("/items/{id}", get(read))
            .route("/items", post(write))
            .route("/tenants/{tenant}/items/{id}", get(read_of_tenant))
            .route("/headers", get(headers))
            .layer(DefaultBodyLimit::max(16 << 20))
            .layer(middleware::from_fn_with_state(Arc::clone(&shared), admit))
            .with_state(Arc::clone(&shared));
        Ok(Api { shared, listener: Listener::start(router).await? })
    }
}

// --- Shared ---

#[derive(Debug)]
struct Shared {
    introspector: Introspector,
    think_time: Duration,
    bucket: Option<Mutex<Bucket>>,
    buckets_of: HashMap<String, Mutex<Bucket>>,
    ledger: Mutex<Ledger>,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Ledger {
    /// The items that were accepted.
    items: HashSet<String>,
    /// How many requests came too late, by revocation.
    revoked: HashMap<u64, u64>,
}

/// A bucket of requests that fills up evenly.
#[derive(Debug)]
struct Bucket {
    size: f64,
    level: f64,
    filled: Instant,
}

#[derive(Debug, Default)]
struct Counters {
    requests: AtomicU64,
    waiting: AtomicU64,
    ok: AtomicU64,
    unauthorized: AtomicU64,
    revoked: AtomicU64,
    limited: AtomicU64,
    wrong_bodies: AtomicU64,
    duplicates: AtomicU64,
    crossed: AtomicU64,
}

impl Shared {
    // Every change under these locks is a single step, so what a panic leaves behind is sound.
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn within_limits(&self, client: &str) -> bool {
        let mut buckets = self.buckets_of.get(client).into_iter().chain(&self.bucket);
        buckets.all(|bucket| bucket.lock().unwrap_or_else(PoisonError::into_inner).take())
    }
}

impl Bucket {
    fn full(per_second: u32) -> Self {
        Self { size: per_second.into(), level: per_second.into(), filled: Instant::now() }
    }

    fn take(&mut self) -> bool {
        let now = Instant::now();
        let gained = now.duration_since(self.filled).as_secs_f64() * self.size;
        self.level = (self.level + gained).min(self.size);
        self.filled = now;
        let enough = self.level >= 1.0;
        if enough {
            self.level -= 1.0;
        }
        enough
    }
}

impl Counters {
    fn read(&self) -> ApiCounts {
        ApiCounts {
            requests: self.requests.load(Relaxed),
            waiting: self.waiting.load(Relaxed),
            ok: self.ok.load(Relaxed),
            unauthorized: self.unauthorized.load(Relaxed),
            revoked: self.revoked.load(Relaxed),
            limited: self.limited.load(Relaxed),
            wrong_bodies: self.wrong_bodies.load(Relaxed),
            duplicates: self.duplicates.load(Relaxed),
            crossed: self.crossed.load(Relaxed),
        }
    }
}

// --- Endpoints ---

/// For how long a body is read on that was refused.
const LINGER: Duration = Duration::from_secs(2);

/// Lets a request through to its endpoint, or not. The body is not read before that. If it is refused it is read on for a
/// while, as by most servers: closing the connection at once could take the answer along.
async fn admit(State(shared): State<Arc<Shared>>, mut request: Request, next: Next) -> Response {
    let counters = &shared.counters;
    counters.requests.fetch_add(1, Relaxed);
    let waiting = Presence::enter(&counters.waiting);
    tokio::time::sleep(shared.think_time).await;
    let worth = bearer(request.headers()).map(|secret| shared.introspector.worth(secret));
    drop(waiting);
    let challenge = match worth {
        Some(Worth::Active(access)) if shared.within_limits(&access.client) => {
            request.extensions_mut().insert(access);
            let response = next.run(request).await;
            if response.status().is_success() {
                counters.ok.fetch_add(1, Relaxed);
            }
            return response;
        }
        Some(Worth::Active(_)) => {
            counters.limited.fetch_add(1, Relaxed);
            linger(request);
            return (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "1")]).into_response();
        }
        Some(Worth::Expired) => {
            r#"Bearer realm="items", error="invalid_token", error_description="the token expired""#
        }
        Some(Worth::Revoked(number)) => {
            counters.revoked.fetch_add(1, Relaxed);
            *shared.ledger().revoked.entry(number).or_default() += 1;
            r#"Bearer realm="items", error="invalid_token", error_description="the token was revoked""#
        }
        Some(Worth::Unknown) => {
            r#"Bearer realm="items", error="invalid_token", error_description="the token is unknown""#
        }
        // RFC 6750 §3.1: no error code for a request that brought no token.
        None => r#"Bearer realm="items""#,
    };
    counters.unauthorized.fetch_add(1, Relaxed);
    linger(request);
    let challenge = HeaderValue::from_static(challenge);
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response()
}

/// Reads what is left of a request, for nothing.
fn linger(request: Request) {
    let mut body = request.into_body();
    if !body.is_end_stream() {
        tokio::spawn(tokio::time::timeout(
            LINGER,
            async move { while let Some(Ok(_)) = body.frame().await {} },
        ));
    }
}

async fn read(Path(id): Path<String>) -> Response {
    Json(json!({ "id": id, "name": format!("item {id}") })).into_response()
}

async fn read_of_tenant(
    State(shared): State<Arc<Shared>>,
    Extension(access): Extension<Access>,
    Path((tenant, id)): Path<(String, String)>,
) -> Response {
    if access.client != tenant {
        shared.counters.crossed.fetch_add(1, Relaxed);
        return (StatusCode::FORBIDDEN, "the token is another tenant's").into_response();
    }
    read(Path(id)).await
}

async fn headers(headers: HeaderMap) -> String {
    let line = |(name, value): (&header::HeaderName, &HeaderValue)| {
        let shown = if name == header::AUTHORIZATION { &b"Bearer ..."[..] } else { value.as_bytes() };
        format!("{name}: {}\n", String::from_utf8_lossy(shown))
    };
    headers.iter().map(line).collect()
}

async fn write(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let field = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let (Some(id), Some(digest)) = (field(Api::ITEM_ID), field(Api::CONTENT_DIGEST)) else {
        return (StatusCode::BAD_REQUEST, "item-id and content-digest are required").into_response();
    };
    if digest != Api::content_digest(&body) {
        shared.counters.wrong_bodies.fetch_add(1, Relaxed);
        return (StatusCode::BAD_REQUEST, "the digest is not that of the body").into_response();
    }
    if !shared.ledger().items.insert(id.to_owned()) {
        shared.counters.duplicates.fetch_add(1, Relaxed);
        return (StatusCode::CONFLICT, "this item exists").into_response();
    }
    (StatusCode::CREATED, Json(json!({ "id": id }))).into_response()
}

/// Returns the token of a request (RFC 6750 §2.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, secret) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(secret)
}
