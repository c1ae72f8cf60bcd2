//! Calls an API with tokens of the client credentials grant, through tower layers over hyper's client.
//!
//! ```sh
//! cargo run --example client_credentials
//! ```

#![allow(clippy::print_stdout, reason = "an example prints")]

use http::Request;
use tower::{BoxError, ServiceBuilder, ServiceExt as _};
use tower_oauth2::test_util::{FakeApi, FakeAuthorizationServer, FakeClient};
use tower_oauth2::transport::HyperClient;
use tower_oauth2::{AuthLayer, Body, ClientCredentials, RetryPolicy};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // These stand for your provider and your API.
    let billing = FakeClient::confidential("billing", "hunter2").scopes("reports:read");
    let provider = FakeAuthorizationServer::builder().client(billing).start().await?;
    let api = FakeApi::builder(&provider).start().await?;

    // In a program of yours the secret is a `Secret::from_env` or a `Secret::from_file`.
    let source = ClientCredentials::builder(provider.token_url(), "billing", "hunter2")
        .scope("reports:read")
        .build()?;
    let client = ServiceBuilder::new()
        .layer(RetryPolicy::default())
        .layer(AuthLayer::for_origin(source, api.origin())?)
        .service(HyperClient::new());

    for id in 1..=4 {
        if id == 3 {
            // The API refuses the token from now on. The client fetches a new one and sends the request again.
            provider.revoke_all();
            println!("the token was revoked");
        }
        let request = Request::get(format!("{}/reports/{id}", api.origin())).body(Body::empty())?;
        let response = client.clone().oneshot(request).await?;
        println!("GET /reports/{id}: {}", response.status());
    }
    println!("tokens fetched: {}", provider.counts().tokens);
    Ok(())
}
