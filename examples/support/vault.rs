//! A vault that leases tokens in a way of its own, and a report that wants one of them.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use tower_oauth2::test_util::Loopback;

/// `GET /lease` answers `{"token": …, "seconds": …}`; `GET /report` wants the token that was leased last.
#[derive(Debug)]
pub struct VaultServer {
    shared: Arc<Shared>,
    listener: Loopback,
}

#[derive(Debug, Default)]
struct Shared {
    leased: Mutex<Option<String>>,
    leases: AtomicU64,
}

impl VaultServer {
    pub async fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let router = Router::new()
            .route("/lease", get(lease))
            .route("/report", get(report))
            .with_state(Arc::clone(&shared));
        Ok(Self { shared, listener: Loopback::start(router).await? })
    }

    pub fn origin(&self) -> String {
        self.listener.origin()
    }

    /// Ends the lease, without a word to whoever has it.
    pub fn end_lease(&self) {
        *self.shared.leased.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Returns how many tokens were leased.
    pub fn leases(&self) -> u64 {
        self.shared.leases.load(Relaxed)
    }
}

async fn lease(State(shared): State<Arc<Shared>>) -> Response {
    let token = format!("lease-{}", shared.leases.fetch_add(1, Relaxed) + 1);
    *shared.leased.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
    Json(json!({ "token": token, "seconds": 60 })).into_response()
}

async fn report(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let sent =
        headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let leased = shared.leased.lock().unwrap_or_else(PoisonError::into_inner);
    if sent.is_some() && sent == leased.as_deref() {
        return "all is well\n".into_response();
    }
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer error=\"invalid_token\"")]).into_response()
}
