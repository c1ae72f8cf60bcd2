//! A source of tokens that is no OAuth server: a vault that leases them.
//!
//! ```sh
//! cargo run --example custom_source
//! ```
//!
//! The one trait to write is [`TokenSource`]. It fetches; the cache decides when, shares the token among all requests, and
//! asks again where a lease runs out or an API refuses it. This source keeps nothing: the id of the lease travels in the
//! token, and comes back with the next request for one.
//!
//! Leases are for two seconds and can be renewed once. The vault takes one back without a word. The exit code is 1 if a
//! request failed, if no lease was renewed or replaced, or if one was left open.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a program that measures and prints")]

#[path = "custom_source/vault.rs"]
mod vault;

use std::process::ExitCode;
use std::time::Duration;

use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::{BoxError, ServiceBuilder, ServiceExt as _};
use tower_oauth2::transport::HyperClient;
use tower_oauth2::{
    AccessToken, AuthLayer, Body, Error, FetchReason, RetryPolicy, TokenCache, TokenRequest, TokenRevoker,
    TokenSource,
};

use vault::VaultServer;

// --- What you write ---

/// The member of a token that holds the name of its lease.
const LEASE: &str = "lease_id";

/// The source: where the vault is, and the client to ask it with.
#[derive(Clone)]
struct Vault {
    url: String,
    http: HyperClient,
}

impl TokenSource for Vault {
    async fn token(&self, request: TokenRequest) -> Result<AccessToken, Error> {
        // A token that runs out can be renewed, though not for ever. One that an API refused cannot be helped.
        if let (FetchReason::Expiring, Some(lease)) = (request.reason(), lease_of(request.previous()))
            && let Some(renewed) = self.ask(Method::PUT, &format!("leases/{lease}")).await?
        {
            return token_of(&renewed);
        }
        let leased = self.ask(Method::POST, "leases").await?;
        token_of(&leased.ok_or_else(|| Error::grant("the vault leases nothing; ask for its role"))?)
    }
}

/// Leases are given back at the end, not left to run out.
impl TokenRevoker for Vault {
    async fn revoke(&self, token: AccessToken) -> Result<(), Error> {
        let Some(lease) = lease_of(Some(&token)) else { return Ok(()) };
        self.ask(Method::DELETE, &format!("leases/{lease}")).await.map(drop)
    }
}

impl Vault {
    /// Asks the vault. It has no answer where there is no such lease, or none that it would renew.
    async fn ask(&self, method: Method, path: &str) -> Result<Option<Value>, Error> {
        let unreachable = |error: BoxError| {
            Error::transient("the vault did not answer; is it unsealed?").with_source(error)
        };
        let request = Request::builder().method(method).uri(format!("{}/{path}", self.url));
        let request = request.body(Body::empty()).map_err(|error| unreachable(error.into()))?;
        let answer = self.http.clone().oneshot(request).await.map_err(unreachable)?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(unreachable)?.to_bytes();
        match status {
            StatusCode::NOT_FOUND | StatusCode::CONFLICT => Ok(None),
            status if status.is_success() => Ok(Some(serde_json::from_slice(&body).unwrap_or_default())),
            // Never what the vault wrote: a token could be in it.
            status if status.is_server_error() => {
                Err(Error::transient("the vault fails; is it unsealed?").with_status(status))
            }
            // Asking again would not help.
            status => {
                let line = "the vault refuses; check its policy and what this service shows to it";
                Err(Error::config(line).with_status(status))
            }
        }
    }
}

fn lease_of(token: Option<&AccessToken>) -> Option<&str> {
    token?.expose_extra(LEASE)
}

fn token_of(lease: &Value) -> Result<AccessToken, Error> {
    let (Some(id), Some(token), Some(seconds)) =
        (lease["id"].as_str(), lease["token"].as_str(), lease["seconds"].as_u64())
    else {
        return Err(Error::protocol("the vault leased something else than a token"));
    };
    Ok(AccessToken::bearer(token)?.with_lifetime(Duration::from_secs(seconds)).with_extra(LEASE, id))
}

// --- What it is good for ---

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let server = VaultServer::start().await?;
    let vault = Vault { url: server.origin(), http: HyperClient::new() };
    let cache = TokenCache::builder(vault.clone()).revoke_with(vault).revoke_at_shutdown(true).build();
    let client = ServiceBuilder::new()
        .layer(RetryPolicy::default())
        .layer(AuthLayer::for_origin(cache.clone(), server.origin())?)
        .service(HyperClient::new());

    let (mut requests, mut failed) = (0, 0);
    while requests < 200 {
        if requests == 100 {
            // Nobody tells the client. It meets a 401, leases another token and sends the request again.
            server.take_back();
        }
        let request = Request::get(format!("{}/report", server.origin())).body(Body::empty())?;
        let answer = client.clone().oneshot(request).await?;
        requests += 1;
        failed += u32::from(!answer.status().is_success());
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    cache.shutdown(Duration::from_secs(5)).await?;

    let counts = server.counts();
    println!(
        "custom_source: requests={requests} failed={failed} leases={} renewals={} refused={} open={}",
        counts.leases, counts.renewals, counts.refused, counts.open
    );
    let as_it_should =
        (failed, counts.open) == (0, 0) && (counts.leases > 2 && counts.renewals > 0 && counts.refused > 0);
    Ok(if as_it_should { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
