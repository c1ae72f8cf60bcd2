//! NICE CXone: the API of a tenant is discovered, a first call, and all pages of a list.
//!
//! ```sh
//! cargo run --example cxone_interactions --features providers           # against the emulator of the test kit
//! CXONE_CLIENT_ID=.. CXONE_CLIENT_SECRET=.. CXONE_ACCESS_KEY_ID=.. CXONE_ACCESS_KEY_SECRET=.. \
//!     cargo run --example cxone_interactions --features providers       # against the real thing
//! ```
//!
//! Against the emulator the exit code is 1 if a figure is off. If it fails, it says why in one sentence.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints")]

use std::collections::HashSet;
use std::process::ExitCode;

use serde_json::Value;
use tower::BoxError;
use tower_oauth2::ApiClient;
use tower_oauth2::client::pages::Next;
use tower_oauth2::providers::cxone::Cxone;
use tower_oauth2::test_util::FakeCxone;
use tower_oauth2::transport::HyperClient;

const AGENTS: &str = "incontactapi/services/v30.0/agents";

#[tokio::main]
async fn main() -> ExitCode {
    let is_real = std::env::vars().any(|(name, _)| name.starts_with("CXONE_"));
    let run = if is_real { real().await } else { emulated().await };
    run.unwrap_or_else(|error| {
        eprintln!("cxone_interactions: {error}");
        ExitCode::FAILURE
    })
}

async fn real() -> Result<ExitCode, BoxError> {
    agents(&Cxone::from_env()?.connect_with(HyperClient::new()).await?, || ()).await?;
    Ok(ExitCode::SUCCESS)
}

async fn emulated() -> Result<ExitCode, BoxError> {
    let fake = FakeCxone::builder().client("reports", "s3cr=t").access_key("key", "k=y").agents(250).build();
    let cxone = Cxone::new("reports", "s3cr=t").access_key("key", "k=y");
    let cxone = cxone.issuer(FakeCxone::ISSUER).domains([FakeCxone::DOMAIN]);
    let api = cxone.connect_with(fake.clone()).await?;
    // Every token is revoked after the first page.
    let agents = agents(&api, || {
        if fake.counts().unauthorized == 0 {
            fake.revoke_all()
        }
    })
    .await?;
    let (counts, faults) = (fake.counts(), fake.faults().len());
    println!(
        "cxone_interactions: agents={agents} discoveries={} token_requests={} calls={} faults={faults}",
        counts.discoveries, counts.token_requests, counts.ok
    );
    let is_right =
        (agents, counts.discoveries, counts.token_requests, counts.ok, faults) == (250, 1, 2, 4, 0);
    Ok(if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns how many agents there are.
async fn agents(api: &ApiClient, after_page: impl Fn()) -> Result<usize, BoxError> {
    println!("the API is at {}", api.origin());
    let first: Value = api.get(AGENTS).query(&[("top", 1)]).send().await?.error_for_status()?.json().await?;
    println!("{} agents, says the first call", first["resultSet"]["totalRecords"]);

    let mut ids = HashSet::new();
    let next = Next::offset("skip").items("agents").total("/resultSet/totalRecords");
    let mut pages = api.get(AGENTS).query(&[("top", 100)]).pages(next);
    while let Some(page) = pages.next().await {
        let agents: Vec<Value> = page?.items()?;
        ids.extend(agents.iter().map(|agent| agent["agentId"].to_string()));
        println!("{}", pages.progress());
        after_page();
    }
    Ok(ids.len())
}
