//! A client of one API: paths, queries and JSON, and tokens and retries below.
//!
//! `cargo run --example base_url_client`
//!
//! It reads items, one of them by a name that a user gave, writes some, and tries paths that would leave the base. All tokens
//! are revoked underway. The last line is checked, and the exit code is 1 if a figure in it is off.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

#[path = "../support/servers/mod.rs"]
mod support;

use std::process::ExitCode;

use serde::Deserialize;
use support::Api;
use tower::BoxError;
use tower_oauth2::test_util::{FakeAuthorizationServer, FakeClient};
use tower_oauth2::{ApiClient, ClientCredentials};

#[derive(Deserialize)]
struct Item {
    id: String,
}

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    // What others run: an authorization server, and an API that wants its tokens.
    let billing = FakeClient::confidential("billing", "hunter2").scopes("items");
    let server = FakeAuthorizationServer::builder().client(billing).start().await?;
    let items = Api::builder(&server).start().await?;

    // What you write, once.
    let source = ClientCredentials::builder(server.token_url(), "billing", "hunter2").build()?;
    let api = ApiClient::connect(items.origin() + "/items", source)?;

    let mut right = 0;
    for id in 1..=4 {
        if id == 3 {
            server.revoke_all();
            println!("(all tokens are revoked)");
        }
        let item: Item = api.get(format!("{id}")).send().await?.error_for_status()?.json().await?;
        right += u32::from(item.id == id.to_string());
    }

    // A name that a user gave: one segment, whatever is in it.
    let name = "50% off? yes & no";
    let item: Item =
        api.get("").segment(name).query(&[("page", 1)]).send().await?.error_for_status()?.json().await?;
    right += u32::from(item.id == name);

    let order = serde_json::json!({ "pieces": 3 });
    let digest = Api::content_digest(order.to_string().as_bytes());
    let write = api.post("").header(Api::ITEM_ID, "order-1").header(Api::CONTENT_DIGEST, digest).json(&order);
    right += u32::from(write.send().await?.status() == 201);

    // None of these is sent.
    let mut refused = 0;
    for path in
        ["//evil.example", "https://evil.example/", "/../headers", "\\\\evil.example", "%2e%2e/headers"]
    {
        match api.get(path).send().await {
            Err(error) if error.is_path() => {
                println!("{path}: {error}");
                refused += 1;
            }
            Ok(_) | Err(_) => {}
        }
    }

    let (asked, answered) = (server.counts().token_requests, items.counts());
    println!(
        "base_url_client: right={right} refused_paths={refused} requests={} replayed_401={} token_requests={asked}",
        answered.requests, answered.unauthorized
    );
    let is_as_promised = (right, refused, answered.requests, answered.unauthorized, asked) == (6, 5, 7, 1, 2);
    Ok(if is_as_promised { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
