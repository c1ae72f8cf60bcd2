//! A service that lives on reqwest: its client below the layers, another of its make at the token endpoint.
//!
//! `cargo run --example reqwest_client --features reqwest`
//!
//! 16 tasks read items and write them, while all tokens are revoked three times. The last line is checked, and the exit code
//! is 1 if a figure in it is off.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

#[path = "../support/servers/mod.rs"]
mod support;

use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use support::Api;
use tokio::task::JoinSet;
use tower::{BoxError, ServiceBuilder, ServiceExt as _};
use tower_oauth2::test_util::{FakeAuthorizationServer, FakeClient};
use tower_oauth2::transport::{ReqwestClient, ReqwestTokenClient, classify_reqwest};
use tower_oauth2::{AuthLayer, ClientCredentials, RetryPolicy};

const TASKS: u64 = 16;
const ITEMS_PER_TASK: u64 = 20;
/// Each item is written, and read again.
const REQUESTS: u64 = 2 * TASKS * ITEMS_PER_TASK;
const REVOCATIONS: u64 = 3;

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    // What others run: an authorization server, and an API that wants its tokens.
    let billing = FakeClient::confidential("billing", "hunter2").scopes("items");
    let server = FakeAuthorizationServer::builder().client(billing).start().await?;
    let api = Api::builder(&server).think_time(Duration::from_millis(5)).start().await?;

    // The client that is there already. Redirects and retries are left to the layers.
    let http_client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .user_agent("billing/1.0")
        .build()?;

    // What you write, once.
    let source = ClientCredentials::builder(server.token_url(), "billing", "hunter2")
        .build_with(ReqwestTokenClient::build(|builder| builder.user_agent("billing/1.0"))?)?;
    let client = ServiceBuilder::new()
        .layer(RetryPolicy::builder().classifier(classify_reqwest).build()?)
        .layer(AuthLayer::for_origin(source, api.origin())?)
        .service(ReqwestClient::new(http_client));

    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (client, origin) = (client.clone(), api.origin());
        tasks.spawn(async move {
            for item in 0..ITEMS_PER_TASK {
                let id = format!("{task}-{item}");
                let body = Bytes::from(id.repeat(10_000));
                let write = Request::post(format!("{origin}/items"))
                    .header(Api::ITEM_ID, &id)
                    .header(Api::CONTENT_DIGEST, Api::content_digest(&body))
                    .body(Full::new(body))?;
                client.clone().oneshot(write).await?.into_body().collect().await?;
                let read = Request::get(format!("{origin}/items/{id}")).body(Full::<Bytes>::default())?;
                client.clone().oneshot(read).await?.into_body().collect().await?;
            }
            Ok::<_, BoxError>(())
        });
    }
    for number in 1..=REVOCATIONS {
        // By what was sent, not by the clock: on a busy machine a request could meet two of them, and is sent again once.
        while api.counts().requests < number * REQUESTS / (REVOCATIONS + 1) {
            if let Some(task) = tasks.try_join_next() {
                task??;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        server.revoke_all();
        println!("(all tokens are revoked, for the {number}. time)");
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }

    let (asked, answered) = (server.counts().token_requests, api.counts());
    let failed = REQUESTS - answered.ok;
    println!(
        "reqwest_client: ok={} failed={failed} wrong_bodies={} duplicates={} replayed_401={} revocations={REVOCATIONS} \
         token_requests={asked}",
        answered.ok, answered.wrong_bodies, answered.duplicates, answered.unauthorized
    );
    let is_as_promised = failed == 0
        && answered.wrong_bodies + answered.duplicates == 0
        && answered.unauthorized > 0
        && (2..=1 + REVOCATIONS).contains(&asked);
    Ok(if is_as_promised { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
