//! Lives on the refresh token of a user who has signed in, and stores each one that the provider puts in its place.
//!
//! ```sh
//! cargo run --example refresh_token
//! ```

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::path::{Path, PathBuf};
use std::{env, io, process};

use tower::BoxError;
use tower_oauth2::test_util::{FakeApi, FakeAuthorizationServer, FakeClient};
use tower_oauth2::{ApiClient, ClientAuth, Error, ErrorKind, RefreshTokenGrant};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // These stand for your provider and your API.
    let phone = FakeClient::public("phone").scopes("items:read offline_access");
    let provider = FakeAuthorizationServer::builder().client(phone).start().await?;
    let server = FakeApi::builder(&provider).start().await?;

    // The login of the user is made elsewhere, such as by the `oauth2` crate. What comes of it is a refresh token.
    let file = env::temp_dir().join(format!("refresh_token-{}", process::id()));
    store(&file, &provider.sign_in("phone", "items:read offline_access")).await?;

    // Each start of the program begins with what the last one stored.
    for start in 1..=2 {
        let source = source(&provider.token_url(), &file).await?;
        let api = ApiClient::connect(server.origin(), source)?;
        println!("start {start}: GET items: {}", api.get("items").send().await?.status());
        // A refresh token is good for once. The next one is stored before the access token is used.
        provider.revoke_all();
        println!("start {start}: GET items: {}", api.get("items").send().await?.status());
    }
    println!("refresh tokens that were sent twice: {}", provider.counts().reuses);

    tokio::fs::remove_file(file).await?;
    Ok(())
}

async fn source(token_url: &str, file: &Path) -> Result<RefreshTokenGrant, BoxError> {
    let stored = tokio::fs::read_to_string(file).await?;
    let file = file.to_owned();
    let source = RefreshTokenGrant::builder(token_url, "phone", ClientAuth::none())
        .refresh_token(stored)
        .on_rotate(move |token| {
            let file = file.clone();
            async move { Ok(store(&file, token.expose_refresh_token()).await?) }
        })
        .build()?;
    if !source.has_refresh_token() {
        return Err(Error::new(
            ErrorKind::Grant,
            "there is no refresh token; sign in, with the scope offline_access",
        )
        .into());
    }
    Ok(source)
}

/// Writes the file in one step: half a refresh token is worthless. In a program of yours only its owner may read it.
async fn store(file: &Path, refresh_token: &str) -> io::Result<()> {
    let draft: PathBuf = file.with_extension("new");
    tokio::fs::write(&draft, refresh_token).await?;
    tokio::fs::rename(draft, file).await
}
