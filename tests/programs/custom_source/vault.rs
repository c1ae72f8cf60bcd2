//! A vault that leases tokens in a way of its own, and a report that wants one of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde_json::json;
use tokio::time::Instant;

/// How long a lease is good for, and how often it can be renewed.
const SECONDS: u64 = 2;
const RENEWALS: u32 = 1;

/// Where the vault is. Its requests stay in the process.
pub(crate) const ORIGIN: &str = "https://vault.test";

/// | request | response |
/// |---|---|
/// | `POST /leases` | `{"id": …, "token": …, "seconds": …}` |
/// | `PUT /leases/{id}` | the same lease for as long again; 409 if it was renewed too often, 404 if there is none |
/// | `DELETE /leases/{id}` | the lease ends |
/// | `GET /report` | wants the token of a lease that has not ended |
#[derive(Debug)]
pub(crate) struct VaultServer {
    leases: Shared,
}

/// What a [`VaultServer`] has counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) leases: u64,
    pub(crate) renewals: u64,
    /// Requests for the report without a good token.
    pub(crate) refused: u64,
    /// Leases that were not ended and have not expired.
    pub(crate) open: usize,
}

type Shared = Arc<Mutex<Leases>>;

#[derive(Debug, Default)]
struct Leases {
    open: HashMap<String, Lease>,
    counts: Counts,
}

#[derive(Debug)]
struct Lease {
    token: String,
    ends: Instant,
    renewals: u32,
}

impl VaultServer {
    pub(crate) fn new() -> Self {
        Self { leases: Shared::default() }
    }

    pub(crate) fn service(&self) -> Router {
        Router::new()
            .route("/leases", post(lease))
            .route("/leases/{id}", put(renew).delete(end))
            .route("/report", get(report))
            .with_state(Arc::clone(&self.leases))
    }

    /// Ends every lease, without a word to its holder.
    pub(crate) fn take_back(&self) {
        lock(&self.leases).open.clear();
    }

    pub(crate) fn counts(&self) -> Counts {
        let leases = lock(&self.leases);
        let now = Instant::now();
        Counts { open: leases.open.values().filter(|lease| lease.ends > now).count(), ..leases.counts }
    }
}

async fn lease(State(leases): State<Shared>) -> Response {
    let mut leases = lock(&leases);
    leases.counts.leases += 1;
    let id = leases.counts.leases.to_string();
    let lease = Lease { token: format!("leased-{id}"), ends: Instant::now(), renewals: 0 };
    let lease = leases.open.entry(id.clone()).insert_entry(lease).into_mut();
    extend(lease, &id)
}

async fn renew(State(leases): State<Shared>, Path(id): Path<String>) -> Response {
    let mut leases = lock(&leases);
    let Some(lease) = leases.open.get_mut(&id).filter(|lease| lease.ends > Instant::now()) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    if lease.renewals == RENEWALS {
        return StatusCode::CONFLICT.into_response();
    }
    lease.renewals += 1;
    let renewed = extend(lease, &id);
    leases.counts.renewals += 1;
    renewed
}

fn extend(lease: &mut Lease, id: &str) -> Response {
    lease.ends = Instant::now() + Duration::from_secs(SECONDS);
    Json(json!({ "id": id, "token": lease.token, "seconds": SECONDS })).into_response()
}

async fn end(State(leases): State<Shared>, Path(id): Path<String>) -> StatusCode {
    let known = lock(&leases).open.remove(&id).is_some();
    if known { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }
}

async fn report(State(leases): State<Shared>, headers: HeaderMap) -> Response {
    let sent =
        headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let mut leases = lock(&leases);
    let now = Instant::now();
    if leases.open.values().any(|lease| lease.ends > now && Some(&*lease.token) == sent) {
        return "all is well\n".into_response();
    }
    leases.counts.refused += 1;
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer error=\"invalid_token\"")]).into_response()
}

// Every change under the lock is a single step, so what a panic leaves behind is sound.
fn lock(leases: &Shared) -> MutexGuard<'_, Leases> {
    leases.lock().unwrap_or_else(PoisonError::into_inner)
}
