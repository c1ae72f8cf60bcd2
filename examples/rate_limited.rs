//! Sends more requests than an API takes. They wait as long as its 429 says, and then leave at a pace that is learned.
//!
//! ```sh
//! cargo run --example rate_limited
//! ```

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::future::ready;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use tower::BoxError;
use tower_oauth2::retry::{RetryGate, RetryPolicy};
use tower_oauth2::test_util::{FakeApi, FakeAuthorizationServer, FakeClient};
use tower_oauth2::{ApiClient, ClientCredentials};

const REQUESTS: usize = 200;
const PER_SECOND: u32 = 50;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // These stand for your provider and your API.
    let billing = FakeClient::confidential("billing", "hunter2");
    let provider = FakeAuthorizationServer::builder().client(billing).start().await?;
    let server = FakeApi::builder(&provider).limit(PER_SECOND).start().await?;

    // Every policy has a gate. This one is named, so that the program can look at it.
    let gate = RetryGate::new();
    let source = ClientCredentials::builder(provider.token_url(), "billing", "hunter2").build()?;
    let api = ApiClient::builder(server.origin(), source)
        .retry(RetryPolicy::builder().gate(gate.clone()).build()?)
        .build()?;

    tokio::spawn(watch(gate));

    let responses = stream::iter(0..REQUESTS).map(|id| api.get(format!("items/{id}")).send());
    let served = responses
        .buffer_unordered(64)
        .filter(|response| ready(response.as_ref().is_ok_and(|response| response.status().is_success())))
        .count()
        .await;

    let counts = server.counts();
    println!("{served} of {REQUESTS} served; {} sent, {} of them met a 429", counts.requests, counts.limited);
    Ok(())
}

/// Prints what the gate does, each second.
async fn watch(gate: RetryGate) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        for status in gate.status() {
            let state = match status.opens_in() {
                Some(left) => format!("closed for {left:.1?}"),
                None => format!("open, {:.0} requests per second", status.pace()),
            };
            println!("the gate is {state}; {} requests wait", status.waiting());
        }
    }
}
