//! Many requests, at once or one after the other, and what became of them.

use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower::{BoxError, ServiceExt as _};
use tower_oauth2::Body;

use super::{ApiClient, OnBehalf, name};

/// What became of some requests.
pub(crate) struct Calls {
    pub(crate) requests: usize,
    /// Those without a 200.
    pub(crate) failed: usize,
    pub(crate) took: Duration,
}

/// Sends a request of each of these tenants, all at the same time.
pub(crate) async fn at_once(
    service: &OnBehalf,
    tenants: impl Iterator<Item = usize>,
) -> Result<Calls, BoxError> {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for (item, tenant) in tenants.enumerate() {
        let request = service.request(&name(tenant), item)?;
        tasks.spawn(succeeds(service.client.clone(), request));
    }
    let mut calls = Calls { requests: tasks.len(), failed: 0, took: Duration::ZERO };
    while let Some(task) = tasks.join_next().await {
        calls.failed += usize::from(!task?);
    }
    calls.took = start.elapsed();
    Ok(calls)
}

/// Sends a request of each of these tenants, each after the response to the one before.
pub(crate) async fn in_turn(
    service: &OnBehalf,
    tenants: impl Iterator<Item = usize>,
) -> Result<Calls, BoxError> {
    let start = Instant::now();
    let mut calls = Calls { requests: 0, failed: 0, took: Duration::ZERO };
    for (item, tenant) in tenants.enumerate() {
        let request = service.request(&name(tenant), item)?;
        calls.requests += 1;
        calls.failed += usize::from(!succeeds(service.client.clone(), request).await);
    }
    calls.took = start.elapsed();
    Ok(calls)
}

/// Sends a request and reads the response to its end.
async fn succeeds(client: ApiClient, request: Request<Body>) -> bool {
    let Ok(response) = client.oneshot(request).await else { return false };
    response.status() == StatusCode::OK && response.into_body().collect().await.is_ok()
}
