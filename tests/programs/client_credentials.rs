//! The smallest use: a service calls an API with tokens of its own, also when they are revoked underway.
//!
//! `cargo run --example client_credentials`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

#[path = "../support/servers/mod.rs"]
mod support;

use std::process::ExitCode;

use http::Request;
use support::Api;
use tower::{BoxError, ServiceBuilder, ServiceExt as _};
use tower_oauth2::test_util::{FakeAuthorizationServer, FakeClient};
use tower_oauth2::transport::HyperClient;
use tower_oauth2::{AuthLayer, Body, ClientCredentials, RetryPolicy};

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    // What others run: an authorization server, and an API that wants its tokens.
    let billing = FakeClient::confidential("billing", "hunter2").scopes("reports:read");
    let server = FakeAuthorizationServer::builder().client(billing).start().await?;
    let api = Api::builder(&server).start().await?;

    // What you write, once.
    let source =
        ClientCredentials::builder(server.token_url(), "billing", "hunter2").scope("reports:read").build()?;
    let client = ServiceBuilder::new()
        .layer(RetryPolicy::default())
        .layer(AuthLayer::for_origin(source, api.origin())?)
        .service(HyperClient::new());

    // From here on nobody thinks of tokens.
    for id in 1..=6 {
        if id == 4 {
            server.revoke_all();
            println!("(all tokens are revoked)");
        }
        let request = Request::get(format!("{}/items/{id}", api.origin())).body(Body::empty())?;
        let response = client.clone().oneshot(request).await?;
        println!("GET /items/{id}: {}", response.status());
    }

    let (asked, answered) = (server.counts().token_requests, api.counts());
    println!(
        "client_credentials: ok={} replayed_401={} token_requests={asked}",
        answered.ok, answered.unauthorized
    );
    Ok(if answered.ok == 6 && asked == 2 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
