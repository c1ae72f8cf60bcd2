//! Users of Genesys Cloud: who the token is, all pages of users, five tasks at once.
//!
//! ```sh
//! cargo run --example genesys_users --features providers                # against the emulator of the test kit
//! GENESYSCLOUD_REGION=eu-central-1 GENESYSCLOUD_OAUTHCLIENT_ID=.. GENESYSCLOUD_OAUTHCLIENT_SECRET=.. \
//!     cargo run --example genesys_users --features providers            # against the real thing
//! ```
//!
//! Against the emulator the exit code is 1 if a figure is off. Wherever it fails, it says why in one sentence.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints")]

use std::collections::HashSet;
use std::process::ExitCode;

use futures_util::future::join_all;
use serde_json::Value;
use tower::BoxError;
use tower_oauth2::ApiClient;
use tower_oauth2::providers::genesys::{self, Genesys};
use tower_oauth2::test_util::FakeGenesys;

const USERS: u64 = 230;

#[tokio::main]
async fn main() -> ExitCode {
    let is_real = std::env::vars().any(|(name, _)| name.starts_with("GENESYS"));
    let run = if is_real { real().await } else { emulated().await };
    run.unwrap_or_else(|error| {
        eprintln!("genesys_users: {error}");
        ExitCode::FAILURE
    })
}

async fn real() -> Result<ExitCode, BoxError> {
    users(&Genesys::from_env()?.connect()?).await?;
    Ok(ExitCode::SUCCESS)
}

async fn emulated() -> Result<ExitCode, BoxError> {
    let fake = FakeGenesys::builder().client("reports", "s3cr/t").users(USERS).start().await?;
    let genesys = Genesys::new("eu-central-1".parse()?, "reports", "s3cr/t");
    let genesys = genesys.gateway(fake.origin(), fake.origin())?;
    let (users, calls) = users(&genesys.connect()?).await?;
    let (counts, faults) = (fake.counts(), fake.faults());
    println!(
        "genesys_users: token_requests={} calls={} faults={}",
        counts.token_requests,
        counts.ok,
        faults.len()
    );
    let is_right =
        users == USERS && calls == 5 && (counts.token_requests, counts.ok) == (1, 9) && faults.is_empty();
    Ok(if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns how many users there are, and how many of five calls at once went well.
async fn users(api: &ApiClient) -> Result<(u64, usize), BoxError> {
    let info = genesys::token_info(api).await?;
    println!("client {:?} of organization {:?}", info.client().1, info.organization().1);

    let mut ids = HashSet::new();
    let mut pages = api.get("users").query(&[("pageSize", 100)]).pages(genesys::entities());
    while let Some(page) = pages.next().await {
        let users: Vec<Value> = page?.items()?;
        ids.extend(users.iter().filter_map(|user| user["id"].as_str().map(str::to_owned)));
        println!("{}", pages.progress());
    }

    let calls = ids.iter().take(5).map(async |_| {
        let response = api.get("users").query(&[("pageSize", 1)]).send().await?;
        Ok::<_, BoxError>(genesys::error_for_status(response).await?.status())
    });
    let calls = join_all(calls).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    println!("{} users, {} calls at once", ids.len(), calls.len());
    Ok((ids.len() as u64, calls.len()))
}
