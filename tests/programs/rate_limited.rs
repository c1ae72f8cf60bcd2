//! 64 tasks call an API that serves 50 requests per second, with the gate that a `RetryPolicy` has by default and without it.
//!
//! Each task sends its next request when it has the response to the one before, so all 64 press on the API all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use tokio::task::JoinSet;
use tower::{BoxError, ServiceBuilder, ServiceExt as _};
use tower_oauth2::test_util::{FakeAuthorizationServer, FakeClient, timed};
use tower_oauth2::{AuthLayer, Body, ClientCredentials, RetryPolicy};

use crate::servers::Api;

const TASKS: u64 = 64;
const REQUESTS: u64 = 650;
const PER_SECOND: u32 = 50;
/// How long the API takes for a request.
const THINK_TIME: Duration = Duration::from_millis(20);

#[tokio::test(start_paused = true)]
async fn with_the_gate_no_request_fails_and_few_are_sent_in_vain() -> Result<(), BoxError> {
    let with = run(RetryPolicy::default()).await?;
    assert_eq!((with.served, with.failed), (REQUESTS, 0));
    assert!(with.sent_per_served() <= 1.25, "{with:?}");
    assert!(with.time_per_ideal() <= 1.5, "{with:?}");

    let without = run(RetryPolicy::builder().gate(None).build()?).await?;
    assert!(without.sent_per_served() > with.sent_per_served(), "{without:?}");
    Ok(())
}

/// What became of the requests, by the API's own count where it has one.
#[derive(Debug)]
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

    /// The first 50 can be served at once, then 50 per second.
    fn time_per_ideal(&self) -> f64 {
        let after_the_first = self.served.saturating_sub(u64::from(PER_SECOND));
        self.took.as_secs_f64() * f64::from(PER_SECOND) / after_the_first as f64
    }
}

async fn run(policy: RetryPolicy) -> Result<Run, BoxError> {
    let tenant = FakeClient::confidential("tenant", "hunter2").scopes("items:read");
    let server = FakeAuthorizationServer::builder().client(tenant).build();
    let api = Api::builder(&server).limit(PER_SECOND).latency(THINK_TIME).build();
    let source = ClientCredentials::builder(server.token_url(), "tenant", "hunter2")
        .scope("items:read")
        .build_with(server.clone())?;
    let client = ServiceBuilder::new()
        .layer(policy)
        .layer(AuthLayer::for_origin(source, api.origin())?)
        .service(api.service());

    let left = Arc::new(AtomicU64::new(REQUESTS));
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
    let (failed, took) = timed(tasks.join_all()).await;
    let failed: u64 = failed.into_iter().sum::<Result<_, _>>()?;
    let counts = api.counts();
    Ok(Run { sent: counts.requests, served: counts.ok, failed, took })
}
