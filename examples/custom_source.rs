//! A source of tokens that is no OAuth server: a vault that leases them.
//!
//! The one trait to write is [`TokenSource`]. It fetches; the cache decides when, shares the token among all requests,
//! and fetches again where a lease ends or an API refuses it.

#![allow(clippy::print_stdout, reason = "an example shows what it did")]

mod support;

use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use tower::{BoxError, ServiceBuilder, ServiceExt as _};
use tower_oauth2::transport::hyper::Client;
use tower_oauth2::{AccessToken, AuthLayer, RetryPolicy, TokenError, TokenRequest, TokenSource};

/// The source: where the vault is, and the client to ask it with.
struct Vault {
    lease_url: String,
    http: Client,
}

impl TokenSource for Vault {
    async fn token(&self, _request: TokenRequest) -> Result<AccessToken, TokenError> {
        let lease = self.lease().await.map_err(|error| {
            TokenError::transient("the vault leased no token; is it unsealed?").with_source(error)
        })?;
        let token = lease["token"].as_str().ok_or_else(|| TokenError::protocol("a lease without a token"))?;
        let seconds = lease["seconds"].as_u64().unwrap_or(60);
        Ok(AccessToken::bearer(token)?.expires_in(Duration::from_secs(seconds)))
    }
}

impl Vault {
    async fn lease(&self) -> Result<serde_json::Value, BoxError> {
        let request = Request::get(&self.lease_url).body(Full::<Bytes>::default())?;
        let answer = self.http.clone().oneshot(request).await?;
        Ok(serde_json::from_slice(&answer.into_body().collect().await?.to_bytes())?)
    }
}

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let server = support::VaultServer::start().await?;
    let origin = server.origin();
    let vault = Vault { lease_url: format!("{origin}/lease"), http: Client::new() };
    let client = ServiceBuilder::new()
        .layer(RetryPolicy::default())
        .layer(AuthLayer::for_origin(vault, server.origin())?)
        .service(Client::new());

    let mut failed = 0;
    for number in 0..20 {
        if number == 10 {
            // Nobody tells the client. It meets a 401, leases another token and sends the request again.
            server.end_lease();
        }
        let request = Request::get(format!("{origin}/report")).body(Full::<Bytes>::default())?;
        let answer = client.clone().oneshot(request).await?;
        failed += u32::from(!answer.status().is_success());
    }

    println!("custom_source: requests=20 failed={failed} leases={}", server.leases());
    Ok(ExitCode::from(u8::from(failed > 0 || server.leases() != 2)))
}
