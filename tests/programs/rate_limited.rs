//! 64 tasks call an API that takes 50 requests per second, with the gate and without it.
//!
//! ```sh
//! cargo run --example rate_limited
//! ```
//!
//! The API is a bucket of 50 requests that fills up by 50 per second; beyond that it answers 429 with `Retry-After: 1`.
//! Each task sends its next request when it has the answer, so that all 64 press on it all the time. Two clients do the
//! same work, each with an API of its own: one whose requests find out for themselves that the API refuses, and one with
//! the gate that a `RetryPolicy` has by default, which tells them all and learns the pace.
//!
//! With the gate no request fails, at most 1.25 are sent for each that is served, and all takes at most 1.5 times as
//! long as it must (the first 50 at once, then 50 per second). The exit code is 1 if that is not so.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a program that measures and prints")]

#[path = "../support/servers/mod.rs"]
mod support;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tower::{BoxError, ServiceBuilder, ServiceExt as _};
use tower_oauth2::retry::{RetryGate, RetryPolicy};
use tower_oauth2::test_util::{FakeAuthorizationServer, FakeClient};
use tower_oauth2::transport::HyperClient;
use tower_oauth2::{AuthLayer, Body, ClientCredentials};

use support::Api;

const TASKS: u64 = 64;
const REQUESTS: u64 = 650;
const PER_SECOND: u32 = 50;
/// How long the API takes for a request.
const THINK_TIME: Duration = Duration::from_millis(20);

const SENT_PER_SERVED: f64 = 1.25;
const TIME_PER_IDEAL: f64 = 1.5;

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let gate = RetryGate::new();
    let with = RetryPolicy::builder().gate(gate.clone()).build()?;
    let without = RetryPolicy::builder().gate(None).build()?;
    println!("{REQUESTS} requests from {TASKS} tasks; the API takes {PER_SECOND} per second");

    let (with, without, ()) = tokio::join!(run(with), run(without), watch(&gate));
    let (with, without) = (with?, without?);
    println!("             served  failed  sent per served  time per ideal");
    for (name, run) in [("with gate", &with), ("without gate", &without)] {
        let [sent, time] = [run.sent_per_served(), run.time_per_ideal()];
        println!("{name:12} {:>6} {:>7} {sent:>16.2} {time:>15.2}", run.served, run.failed);
    }
    println!(
        "rate_limited: served={} failed={} sent_per_served={:.2} time_per_ideal={:.2}",
        with.served,
        with.failed,
        with.sent_per_served(),
        with.time_per_ideal()
    );
    let kept = with.failed == 0
        && with.served == REQUESTS
        && with.sent_per_served() <= SENT_PER_SERVED
        && with.time_per_ideal() <= TIME_PER_IDEAL;
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What became of the requests, by the API's own count where it has one.
struct Run {
    sent: u64,
    served: u64,
    failed: u64,
    took: Duration,
}

impl Run {
    fn sent_per_served(&self) -> f64 {
        self.sent as f64 / self.served as f64
    }

    fn time_per_ideal(&self) -> f64 {
        let at_once = u64::from(PER_SECOND);
        let ideal = (self.served.saturating_sub(at_once)) as f64 / f64::from(PER_SECOND);
        self.took.as_secs_f64() / ideal
    }
}

async fn run(policy: RetryPolicy) -> Result<Run, BoxError> {
    let tenant = FakeClient::confidential("tenant", "hunter2").scopes("items:read");
    let server = FakeAuthorizationServer::builder().client(tenant).start().await?;
    let api = Api::builder(&server).limit(PER_SECOND).think_time(THINK_TIME).start().await?;
    let source =
        ClientCredentials::builder(server.token_url(), "tenant", "hunter2").scope("items:read").build()?;
    let client = ServiceBuilder::new()
        .layer(policy)
        .layer(AuthLayer::for_origin(source, api.origin())?)
        .service(HyperClient::new());

    let (left, start) = (Arc::new(AtomicU64::new(REQUESTS)), Instant::now());
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let (client, left, origin) = (client.clone(), Arc::clone(&left), api.origin());
        tasks.spawn(async move {
            let mut failed = 0;
            while let Ok(id) = left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)) {
                let request = Request::get(format!("{origin}/items/{id}")).body(Body::empty())?;
                let response = client.clone().oneshot(request).await?;
                failed += u64::from(response.status() != StatusCode::OK);
                response.into_body().collect().await?;
            }
            Ok::<_, BoxError>(failed)
        });
    }
    let mut failed = 0;
    while let Some(task) = tasks.join_next().await {
        failed += task??;
    }
    let counts = api.counts();
    Ok(Run { sent: counts.requests, served: counts.ok, failed, took: start.elapsed() })
}

/// Shows what the gate does in the first seconds.
async fn watch(gate: &RetryGate) {
    for second in 1..=6 {
        sleep(Duration::from_secs(1)).await;
        for status in gate.status() {
            let state = match status.opens_in() {
                Some(left) => format!("closed for {left:.1?}"),
                None => format!("lets out {:.0} per second", status.pace()),
            };
            println!("{second:>2} s  the gate: {state}, {} wait", status.waiting());
        }
    }
}
