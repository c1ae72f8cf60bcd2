//! A service that an operator can watch: metrics, health checks and logs as JSON.
//!
//! ```sh
//! cargo run --all-features --example observed 2> observed.log
//! ```
//!
//! It calls a protected API for 22 seconds. All tokens are revoked after 4 s, and the authorization server is away from 7 s to
//! 16 s, for longer than a token lives. Each second shows what the probes and the metrics say; the log is on stderr.
//! `docs/observability` has a dashboard for Grafana and alert rules for these metrics.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a program that measures and prints")]

#[path = "observed/outage.rs"]
mod outage;

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tower::BoxError;
use tower_oauth2::cache::Health;
use tower_oauth2::{ApiClient, ClientCredentials, TokenCache};
use tracing_subscriber::EnvFilter;

#[derive(Clone)]
struct AppState {
    api: ApiClient,
    tokens: TokenCache,
    metrics: PrometheusHandle,
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // `RUST_LOG=info,tower_oauth2=debug` shows more.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).init();
    let metrics = PrometheusBuilder::new().install_recorder()?;

    let servers = outage::Servers::start().await?;
    let source = ClientCredentials::builder(servers.token_url(), "observed", "a secret").build()?;
    // Tokens live for six seconds here, and are renewed after two.
    let tokens = TokenCache::builder(source).name("observed").refresh_before(Duration::from_secs(4)).build();
    let api = ApiClient::connect(servers.api_url(), tokens.clone())?;

    let app = Router::new()
        .route("/report", get(report))
        .route("/metrics", get(|State(state): State<AppState>| async move { state.metrics.render() }))
        .route("/healthz", get(|| async { StatusCode::OK }))
        .route("/readyz", get(ready))
        .with_state(AppState { api, tokens, metrics });
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    println!("{url}/metrics  {url}/healthz  {url}/readyz");
    tokio::spawn(async move { axum::serve(listener, app).await });
    servers.show(&url).await
}

/// The work of the service: it asks the API.
async fn report(State(state): State<AppState>) -> Result<String, StatusCode> {
    let response = state.api.get("items/1").send().await.map_err(|_error| StatusCode::BAD_GATEWAY)?;
    response.error_for_status().map_err(|_error| StatusCode::BAD_GATEWAY)?;
    Ok("a report".to_owned())
}

/// Not ready while requests would fail for want of a token. A service that was asked for nothing yet is ready.
async fn ready(State(state): State<AppState>) -> (StatusCode, String) {
    let status = state.tokens.status();
    let code = match status.health() {
        Health::Idle | Health::Ready | Health::Degraded => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    (code, format!("{}\n", status.health()))
}
