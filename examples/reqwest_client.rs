//! Uses reqwest's client, below an `ApiClient` and for the token endpoint.
//!
//! ```sh
//! cargo run --example reqwest_client --features reqwest
//! ```

#![allow(clippy::print_stdout, reason = "an example prints")]

use axum::Router;
use axum::http::{HeaderMap, header};
use axum::routing::get;
use tower::BoxError;
use tower_oauth2::test_util::{FakeApi, FakeAuthorizationServer, FakeClient};
use tower_oauth2::transport::{ReqwestClient, classify_reqwest};
use tower_oauth2::{ApiClient, ClientCredentials, RetryPolicy};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // These stand for your provider and your API.
    let billing = FakeClient::confidential("billing", "hunter2");
    let provider = FakeAuthorizationServer::builder().client(billing).start().await?;
    let report = async |headers: HeaderMap| format!("a report for {:?}", headers[header::USER_AGENT]);
    let reports = Router::new().route("/reports", get(report));
    let server = FakeApi::builder(&provider).service(reports).start().await?;

    // A client that your program has already. Redirects and retries are left to the layers.
    let http = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .user_agent("billing/1.0")
        .build()?;

    // The token endpoint has a client of its own, which never follows a redirect.
    let source = ClientCredentials::builder(provider.token_url(), "billing", "hunter2")
        .build_with(ReqwestClient::build(|builder| builder.user_agent("billing/1.0"))?)?;
    let api = ApiClient::builder(server.origin(), source)
        .retry(RetryPolicy::builder().classifier(classify_reqwest).build()?)
        .build_with(ReqwestClient::new(http))?;

    println!("{}", api.get("reports").send().await?.error_for_status()?.text().await?);
    // A new token is fetched, and the request is sent again.
    provider.revoke_all();
    println!("{}", api.get("reports").send().await?.error_for_status()?.text().await?);
    println!("tokens fetched: {}", provider.counts().tokens);
    Ok(())
}
