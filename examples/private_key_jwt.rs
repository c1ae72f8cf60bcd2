//! Authenticates a client by a private key instead of a secret (`private_key_jwt`, RFC 7523).
//!
//! ```sh
//! cargo run --example private_key_jwt --features jwt
//! ```

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::{env, fs, process};

use tower::BoxError;
use tower_oauth2::grants::jwt::{Assertion, JwtAlgorithm};
use tower_oauth2::test_util::{FakeApi, FakeAuthorizationServer, FakeClient};
use tower_oauth2::{ApiClient, ClientAuth, ClientCredentials, Secret};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // These stand for your provider and your API. Your provider has the public half of the key and checks the signature; this
    // one checks everything but that.
    let billing = FakeClient::by_assertion("billing", |_assertion| true);
    let provider = FakeAuthorizationServer::builder().client(billing).start().await?;
    let server = FakeApi::builder(&provider).start().await?;

    // This stands for a key that is mounted into the container of your service.
    let file = env::temp_dir().join(format!("private_key_jwt-{}.pem", process::id()));
    fs::write(&file, rcgen::KeyPair::generate()?.serialize_pem())?;

    // The file is read each time the key signs, so a new key needs no restart. The key id tells the provider which public key
    // it is.
    let key = Assertion::by_key(JwtAlgorithm::Es256, Secret::from_file(&file)).key_id("2026-11");
    let source =
        ClientCredentials::builder(provider.token_url(), "billing", ClientAuth::private_key_jwt(key))
            // The audience of the assertions.
            .issuer(provider.origin())
            .build()?;
    let api = ApiClient::connect(server.origin(), source)?;

    println!("GET reports: {}", api.get("reports").send().await?.status());
    // Each token request has an assertion of its own, good for once.
    provider.revoke_all();
    println!("GET reports: {}", api.get("reports").send().await?.status());
    println!("assertions accepted: {}", provider.counts().assertions);

    fs::remove_file(file)?;
    Ok(())
}
