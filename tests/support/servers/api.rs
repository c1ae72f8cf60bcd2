//! An API of items to read and to write, for callers with a good token.

use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Extension, Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tower_oauth2::test_util::{Caller, FakeApi, FakeApiBuilder, FakeAuthorizationServer};

/// A [`FakeApi`] and what is behind it, in the process or on loopback. Clones are the same API; with the last of them a port is
/// closed.
///
/// | request | response |
/// |---|---|
/// | `GET /items/{id}` | 200 with the item |
/// | `POST /items` with [`Api::ITEM_ID`] and [`Api::CONTENT_DIGEST`] | 201; 400 if the digest is not that of the body; 409 if the id came before |
/// | `GET /tenants/{tenant}/items/{id}` | 200 with the item; 403 if the token is not that client's |
/// | `POST /echo` | 200 with the body, as it comes |
/// | `GET /headers` | 200 with the headers that came, one a line; of the token only the scheme |
#[derive(Clone, Debug)]
pub struct Api {
    door: FakeApi,
    items: Arc<Items>,
}

/// Sets up an [`Api`].
///
/// Defaults: no limit, responds at once.
#[derive(Debug)]
pub struct ApiBuilder {
    door: FakeApiBuilder,
}

/// What an [`Api`] has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApiCounts {
    /// Requests that came, whatever the response.
    pub requests: u64,
    /// Requests that came and whose token was not looked at yet.
    pub waiting: u64,
    /// Requests that got what they wanted.
    pub ok: u64,
    /// Requests refused with 401.
    pub unauthorized: u64,
    /// Requests refused with 401 since their token was revoked, and not merely expired.
    pub revoked: u64,
    /// Requests refused with 429.
    pub limited: u64,
    /// Requests whose body was not the one that the digest was made of.
    pub wrong_bodies: u64,
    /// Requests whose item had been accepted before.
    pub duplicates: u64,
    /// Requests for a tenant with the token of another.
    pub crossed: u64,
}

#[derive(Debug, Default)]
struct Items {
    accepted: Mutex<HashSet<String>>,
    wrong_bodies: AtomicU64,
    duplicates: AtomicU64,
    crossed: AtomicU64,
}

impl Api {
    /// The header with the digest of the body (RFC 9530): `sha-256=:…:`.
    pub const CONTENT_DIGEST: &'static str = "content-digest";
    /// The header that names the item. No name is accepted twice.
    pub const ITEM_ID: &'static str = "item-id";

    /// Creates an API that accepts the tokens of `server`.
    pub fn builder(server: &FakeAuthorizationServer) -> ApiBuilder {
        ApiBuilder { door: FakeApi::builder(server) }
    }

    pub fn origin(&self) -> String {
        self.door.origin()
    }

    /// Returns the API as a tower service, for clients in the process.
    pub fn service(&self) -> FakeApi {
        self.door.clone()
    }

    /// Returns the value of [`Api::CONTENT_DIGEST`] for a body.
    pub fn content_digest(body: &[u8]) -> String {
        format!("sha-256=:{}:", BASE64_STANDARD.encode(Sha256::digest(body)))
    }

    pub fn counts(&self) -> ApiCounts {
        let door = self.door.counts();
        ApiCounts {
            requests: door.requests,
            waiting: door.waiting,
            ok: door.ok,
            unauthorized: door.unauthorized,
            revoked: door.revoked,
            limited: door.limited,
            wrong_bodies: self.items.wrong_bodies.load(Relaxed),
            duplicates: self.items.duplicates.load(Relaxed),
            crossed: self.items.crossed.load(Relaxed),
        }
    }

    /// Holds every request before its token is looked at, or lets those that are held go on.
    pub fn hold(&self, on: bool) {
        self.door.hold(on);
    }

    /// Returns how many requests were refused with 401 because of the revocation of that number (as told by
    /// [`FakeAuthorizationServer::revoke_all`]).
    pub fn unauthorized_by_revocation(&self, number: u64) -> u64 {
        self.door.unauthorized_by_revocation(number)
    }
}

impl ApiBuilder {
    /// Sets how many requests per second are served; as many may come at once after a pause.
    #[must_use]
    pub fn limit(mut self, per_second: u32) -> Self {
        self.door = self.door.limit(per_second);
        self
    }

    /// Sets how many requests per second of one client are served, whatever the others do.
    #[must_use]
    pub fn limit_for(mut self, client: impl Into<String>, per_second: u32) -> Self {
        self.door = self.door.limit_for(client, per_second);
        self
    }

    /// Sets how long a request lies around before its token is looked at.
    #[must_use]
    pub fn latency(mut self, latency: Duration) -> Self {
        self.door = self.door.latency(latency);
        self
    }

    /// Makes the API within the process. It suits a paused clock.
    pub fn build(self) -> Api {
        let (door, items) = self.with_items();
        Api { door: door.build(), items }
    }

    /// Starts the API on a free port.
    pub async fn start(self) -> io::Result<Api> {
        let (door, items) = self.with_items();
        Ok(Api { door: door.start().await?, items })
    }

    fn with_items(self) -> (FakeApiBuilder, Arc<Items>) {
        let items = Arc::new(Items::default());
        let router = Router::new()
            .route("/items/{id}", get(read))
            .route("/items", post(write))
            .route("/tenants/{tenant}/items/{id}", get(read_of_tenant))
            .route("/echo", post(async |body: Body| body))
            .route("/headers", get(headers))
            .layer(DefaultBodyLimit::max(16 << 20))
            .with_state(Arc::clone(&items));
        (self.door.service(router), items)
    }
}

async fn read(Path(id): Path<String>) -> Response {
    Json(json!({ "id": id, "name": format!("item {id}") })).into_response()
}

async fn read_of_tenant(
    State(items): State<Arc<Items>>,
    Extension(caller): Extension<Caller>,
    Path((tenant, id)): Path<(String, String)>,
) -> Response {
    if caller.client_id() != tenant {
        items.crossed.fetch_add(1, Relaxed);
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

async fn write(State(items): State<Arc<Items>>, headers: HeaderMap, body: Bytes) -> Response {
    let field = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let (Some(id), Some(digest)) = (field(Api::ITEM_ID), field(Api::CONTENT_DIGEST)) else {
        return (StatusCode::BAD_REQUEST, "item-id and content-digest are required").into_response();
    };
    if digest != Api::content_digest(&body) {
        items.wrong_bodies.fetch_add(1, Relaxed);
        return (StatusCode::BAD_REQUEST, "the digest is not that of the body").into_response();
    }
    // Every change under the lock is a single step, so what a panic leaves behind is sound.
    let is_new = items.accepted.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned());
    if !is_new {
        items.duplicates.fetch_add(1, Relaxed);
        return (StatusCode::CONFLICT, "this item exists").into_response();
    }
    (StatusCode::CREATED, Json(json!({ "id": id }))).into_response()
}
