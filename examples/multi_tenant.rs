//! Calls an API in the names of many tenants, each with credentials, tokens and rate limits of its own.
//!
//! ```sh
//! cargo run --example multi_tenant
//! ```

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::time::Duration;

use axum::{Extension, Router, routing::get};
use tower::BoxError;
use tower_oauth2::stack::Stack;
use tower_oauth2::tenants::TenantCaches;
use tower_oauth2::test_util::{Caller, FakeApi, FakeAuthorizationServer, FakeClient};
use tower_oauth2::transport::HyperClient;
use tower_oauth2::{ApiClient, AuthLayer, ClientCredentials};

const TENANTS: [&str; 3] = ["north", "south", "west"];

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // These stand for your provider and your API.
    let mut provider = FakeAuthorizationServer::builder();
    for tenant in TENANTS {
        provider = provider.client(FakeClient::confidential(tenant, format!("the secret of {tenant}")));
    }
    let provider = provider.start().await?;
    let owner = async |Extension(caller): Extension<Caller>| format!("a report of {}", caller.client_id());
    let reports = Router::new().route("/reports", get(owner));
    let server = FakeApi::builder(&provider).service(reports).start().await?;

    // Makes the cache of a tenant when its first request comes. Look up the secret where you keep it.
    // One HTTP client: `build()` would make one for each tenant, with connections of its own.
    let http = HyperClient::new();
    let (token_url, token_http) = (provider.token_url(), http.clone());
    let caches = TenantCaches::builder(move |tenant: &String| {
        let secret = format!("the secret of {tenant}");
        ClientCredentials::builder(&token_url, tenant.as_str(), secret).build_with(token_http.clone())
    })
    .idle_after(Duration::from_secs(600))
    .build()?;

    // One client for all. It has no token of its own, so a request without a tenant is refused.
    let auth = AuthLayer::per_request([server.origin()])?;
    let api = ApiClient::new(server.origin(), Stack::with_auth(auth).build(http))?;

    for tenant in TENANTS.iter().chain(&TENANTS) {
        let mut request = api.get("reports");
        caches.authorize(request.extensions_mut(), *tenant)?;
        println!("{}", request.send().await?.error_for_status()?.text().await?);
    }
    println!("caches: {}, tokens fetched: {}", caches.len(), provider.counts().tokens);
    if let Err(error) = api.get("reports").send().await {
        println!("without a tenant: {error}");
    }

    // Waits for token requests that are on their way.
    caches.shutdown(Duration::from_secs(5)).await?;
    Ok(())
}
