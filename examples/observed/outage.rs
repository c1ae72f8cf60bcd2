//! The servers of the example, the load, and the outage.

use std::collections::VecDeque;
use std::time::Duration;

use http::Request;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tower::{BoxError, ServiceExt as _};
use tower_oauth2::Body;
use tower_oauth2::test_util::{FakeApi, FakeAuthorizationServer, FakeClient};
use tower_oauth2::transport::HyperClient;

const LIFETIME: Duration = Duration::from_secs(6);
/// The seconds at which something happens.
const REVOKED: u64 = 4;
const AWAY: u64 = 7;
const BACK: u64 = 16;
const END: u64 = 22;
/// Reports asked for in a second.
const LOAD: u32 = 20;

pub(crate) struct Servers {
    authorization: FakeAuthorizationServer,
    api: FakeApi,
}

impl Servers {
    pub(crate) async fn start() -> Result<Self, BoxError> {
        let client = FakeClient::confidential("observed", "a secret");
        let server = FakeAuthorizationServer::builder().client(client).lifetime(LIFETIME);
        let authorization = server.start().await?;
        let api = FakeApi::builder(&authorization).start().await?;
        Ok(Self { authorization, api })
    }

    pub(crate) fn token_url(&self) -> String {
        self.authorization.token_url()
    }

    pub(crate) fn api_url(&self) -> String {
        self.api.origin()
    }

    /// Asks for reports, shows each second what an operator sees, and fails if the outage is not to be seen.
    pub(crate) async fn show(&self, url: &str) -> Result<(), BoxError> {
        let begun = Instant::now();
        let (mut requests, mut failed, mut not_ready) = (0, 0, Vec::new());
        let mut open = VecDeque::new();
        println!("second  readyz    failed  token requests ok/transient  rejected");
        for second in 0..END {
            match second {
                REVOKED => drop(self.authorization.revoke_all()),
                AWAY => self.authorization.stop().await,
                BACK => self.authorization.restart().await?,
                _ => {}
            }
            let mut reports = JoinSet::new();
            for number in 0..LOAD {
                sleep_until(begun + Duration::from_secs(second) + Duration::from_secs(1) * number / LOAD)
                    .await;
                reports.spawn(fetch(format!("{url}/report")));
            }
            sleep_until(begun + Duration::from_secs(second + 1)).await;
            open.push_back(reports);
            let mut failed_now = 0;
            for reports in &mut open {
                while let Some(report) = reports.try_join_next() {
                    failed_now += u32::from(report??.0 != 200);
                }
            }
            let (ready, health) = fetch(format!("{url}/readyz")).await?;
            let (_, metrics) = fetch(format!("{url}/metrics")).await?;
            let sum = |part: &str| sum(&metrics, part);
            println!(
                "{second:>6}  {ready} {:<9} {failed_now:>2}  {:>3}/{:<3} {:>28}",
                health.trim(),
                sum("token_requests_total{cache=\"observed\",result=\"ok\""),
                sum("token_requests_total{cache=\"observed\",result=\"transient\""),
                sum("token_rejections_total"),
            );
            requests += LOAD;
            failed += failed_now;
            if ready != 200 {
                not_ready.push(second);
            }
        }
        for reports in open {
            failed += u32::try_from(
                reports.join_all().await.into_iter().flatten().filter(|(status, _)| *status != 200).count(),
            )?;
        }
        println!("observed: requests={requests} failed={failed} not_ready={not_ready:?}");
        let only_then = not_ready.iter().all(|second| (AWAY..BACK + 5).contains(second));
        match (not_ready.is_empty(), only_then, failed) {
            (true, ..) => Err("the outage was not to be seen in the readiness".into()),
            (_, false, _) => Err("the service was not ready outside of the outage".into()),
            (_, _, 0) => Err("the outage had no failed request".into()),
            _ => Ok(()),
        }
    }
}

async fn fetch(url: String) -> Result<(u16, String), BoxError> {
    let response = HyperClient::new().oneshot(Request::get(url).body(Body::empty())?).await?;
    let status = response.status().as_u16();
    let body = http_body_util::BodyExt::collect(response.into_body()).await?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

/// Adds up the series of a metric whose line begins so.
fn sum(metrics: &str, part: &str) -> f64 {
    let lines = metrics
        .lines()
        .filter(|line| line.strip_prefix("tower_oauth2_").is_some_and(|line| line.starts_with(part)));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).fold(0.0, |sum, value| sum + value)
}
