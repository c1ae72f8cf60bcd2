//! Implements `TokenSource` for a vault that leases tokens. The cache shares the token and decides when to fetch the next.
//!
//! ```sh
//! cargo run --example custom_source
//! ```

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::time::Duration;

use axum::{Json, Router, extract::Path, routing::post};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tower::{BoxError, ServiceExt as _, service_fn};
use tower_oauth2::test_util::Loopback;
use tower_oauth2::transport::HyperClient;
use tower_oauth2::{AccessToken, ApiClient, Body, Error, ErrorKind, FetchReason, TokenRequest, TokenSource};

struct Vault {
    url: String,
    http: HyperClient,
}

#[derive(Deserialize)]
struct Lease {
    id: String,
    token: String,
    seconds: u64,
}

impl TokenSource for Vault {
    async fn token(&self, request: TokenRequest) -> Result<AccessToken, Error> {
        // A lease that expires is renewed. If the API refused the token, another is leased.
        let id = match request.reason() {
            FetchReason::Expiring => request.previous().and_then(|token| token.expose_extra("lease_id")),
            _ => None,
        };
        let url = format!("{}/leases/{}", self.url, id.unwrap_or("new"));
        let request = Request::post(url).body(Body::empty());
        let wrong = |error| Error::new(ErrorKind::Config, "the vault's URL is wrong").with_source(error);
        let lost = |error: BoxError| Error::new(ErrorKind::Transient, "no response").with_source(error);
        let request = request.map_err(wrong)?;
        let response = self.http.clone().oneshot(request).await.map_err(lost)?;
        if !response.status().is_success() {
            let none = Error::new(ErrorKind::Transient, "the vault leased no token");
            return Err(none.with_status(response.status()));
        }
        let body = response.into_body().collect().await.map_err(lost)?.to_bytes();
        // The error of the reader stays here: it could quote the token.
        let lease: Lease = serde_json::from_slice(&body)
            .map_err(|_| Error::new(ErrorKind::Protocol, "the vault leased something else than a token"))?;
        let token = AccessToken::bearer(lease.token)?.with_lifetime(Duration::from_secs(lease.seconds));
        Ok(token.with_extra("lease_id", lease.id))
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // These stand for your vault, whose leases end after 3 s, and your API.
    let leases = Router::new().route("/leases/{id}", post(lease));
    let server = Loopback::start(leases).await?;
    let fake =
        service_fn(async |_request: Request<Body>| Ok::<_, BoxError>(Response::new(Body::from("a report"))));

    let vault = Vault { url: server.origin(), http: HyperClient::new() };
    let api = ApiClient::builder("https://api.example.com", vault).build_with(fake)?;
    for _ in 0..10 {
        println!("{}", api.get("reports").send().await?.error_for_status()?.text().await?);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

async fn lease(Path(id): Path<String>) -> Json<Value> {
    println!("(the vault is asked for the lease {id:?})");
    Json(json!({ "id": "7", "token": "mF_9.B5f-4.1JqM", "seconds": 3 }))
}
