//! A command-line tool: the user signs in once, and every later call of the tool goes on from there, in any terminal.
//!
//! ```sh
//! cargo run --example cli_login --features file-store
//! ```
//!
//! The tokens are in a directory that only this user can read, sealed. Two processes never send the same refresh token.

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::time::Duration;
use std::{env, process};

use http::Request;
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::process::Command;
use tower::{BoxError, ServiceExt as _};
use tower_oauth2::grants::CustomGrant;
use tower_oauth2::store::{FileStore, SealingKey, Shared};
use tower_oauth2::test_util::{FakeApi, FakeAuthorizationServer, FakeClient};
use tower_oauth2::transport::HyperClient;
use tower_oauth2::{ApiClient, Body, ClientAuth, RefreshTokenGrant, TokenCache};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // A process that this one started: it is told where the servers are.
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [token_url, api_url, folder] = arguments.as_slice() {
        let api = ApiClient::connect(api_url, tokens(token_url, folder, "")?)?;
        println!("process {}: GET items: {}", process::id(), api.get("items").send().await?.status());
        return Ok(());
    }
    // These stand for your provider and your API. A token lives for a second, so that each process needs a new one.
    let client = FakeClient::public("cli").scopes("items:read offline_access");
    let provider =
        FakeAuthorizationServer::builder().client(client).lifetime(Duration::from_secs(1)).start().await?;
    let server = FakeApi::builder(&provider).start().await?;
    let folder = env::temp_dir().join(format!("cli_login-{}", process::id())).display().to_string();

    let refresh_token = sign_in(&provider).await?;
    tokens(&provider.token_url(), &folder, &refresh_token)?.get().await?;
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut program = Command::new(env::current_exe()?);
        program.args([provider.token_url(), server.origin(), folder.clone()]).status().await?;
    }
    let counts = provider.counts();
    println!("token requests: {}, refresh tokens sent twice: {}", counts.tokens, counts.reuses);
    Ok(tokio::fs::remove_dir_all(folder).await?)
}

/// Each call of the tool begins with this. Only the login has a refresh token to give; the others find it in the store.
fn tokens(token_url: &str, folder: &str, new: &str) -> Result<TokenCache, BoxError> {
    let grant = RefreshTokenGrant::builder(token_url, "cli", ClientAuth::none()).refresh_token(new);
    // A tool of yours: FileStore::for_program("cli"), and a key from the keychain of the platform.
    let shared = Shared::builder(grant.build()?, FileStore::open(folder)?, SealingKey::new([7; 32]));
    Ok(TokenCache::new(shared.principal("the user of this machine").build()?))
}

/// The device flow (RFC 8628): the user types a code into a browser, while the tool asks whether that has happened.
async fn sign_in(provider: &FakeAuthorizationServer) -> Result<String, BoxError> {
    let begun = post(provider.device_url(), "client_id=cli&scope=items%3Aread%20offline_access").await?;
    let [code, user_code, page] =
        ["device_code", "user_code", "verification_uri"].map(|name| begun[name].as_str().unwrap_or_default());
    println!("open {page} and type {user_code}");
    // The user does.
    post(page.to_owned(), &format!("user_code={user_code}")).await?;
    let device = CustomGrant::builder(provider.token_url(), "urn:ietf:params:oauth:grant-type:device_code");
    let device = device.client("cli", ClientAuth::none()).param("device_code", code).build()?;
    let token = TokenCache::new(device).get().await?;
    Ok(token.expose_refresh_token().unwrap_or_default().to_owned())
}

async fn post(url: String, form: &str) -> Result<Value, BoxError> {
    let request = Request::post(url).header("content-type", "application/x-www-form-urlencoded");
    let response = HyperClient::new().oneshot(request.body(Body::from(form.to_owned()))?).await?;
    let body = response.into_body().collect().await?.to_bytes();
    Ok(serde_json::from_slice(&body).unwrap_or_default())
}
