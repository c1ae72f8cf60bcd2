//! A client that has a key and no secret: it signs an assertion for each token request, and its key is rotated while it
//! runs.
//!
//! `cargo run --example private_key_jwt --features jwt`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

#[path = "../support/servers/mod.rs"]
mod support;

use std::process::ExitCode;
use std::time::Duration;

use http::Request;
use support::{Api, PrivateKey};
use tower::{BoxError, ServiceBuilder, ServiceExt as _};
use tower_oauth2::grants::jwt::{JwtAlgorithm, SigningKey};
use tower_oauth2::test_util::{FakeAuthorizationServer, FakeClient, Trouble};
use tower_oauth2::transport::HyperClient;
use tower_oauth2::{AuthLayer, Body, ClientAuth, ClientCredentials, RetryPolicy, Secret};

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    // What others run: a server that knows the public half of a key, and whoever mounts the private half as a file.
    let first = PrivateKey::generate();
    let file = std::env::temp_dir().join(format!("private_key_jwt-{}.pem", std::process::id()));
    std::fs::write(&file, first.pem())?;
    let billing = FakeClient::by_assertion("billing", first.public().verifier()).scopes("reports:read");
    let server = FakeAuthorizationServer::builder().client(billing).start().await?;
    let api = Api::builder(&server).start().await?;

    // What you write, once. There is no secret, and the key is read each time it signs.
    let key = SigningKey::new(JwtAlgorithm::Es256, Secret::from_file(&file));
    let source = ClientCredentials::builder(server.token_url(), "billing", ClientAuth::private_key_jwt(key))
        .issuer(server.origin())
        .scope("reports:read")
        .build()?;
    let client = ServiceBuilder::new()
        .layer(RetryPolicy::default())
        .layer(AuthLayer::for_origin(source, api.origin())?)
        .service(HyperClient::new());

    for id in 1..=9 {
        match id {
            4 => {
                // The retry carries an assertion of its own: the server would refuse one that it has seen.
                server.answer_next(1, Trouble::Unavailable { retry_after: Duration::from_secs(1) });
                server.revoke_all();
                println!("(all tokens are revoked, and the server is busy for a second)");
            }
            7 => {
                let second = PrivateKey::generate();
                server.register(
                    FakeClient::by_assertion("billing", second.public().verifier()).scopes("reports:read"),
                );
                std::fs::write(&file, second.pem())?;
                server.revoke_all();
                println!("(the key is rotated, and all tokens are revoked)");
            }
            _ => {}
        }
        let request = Request::get(format!("{}/items/{id}", api.origin())).body(Body::empty())?;
        let response = client.clone().oneshot(request).await?;
        println!("GET /items/{id}: {}", response.status());
    }
    std::fs::remove_file(&file)?;

    let (asked, answered) = (server.counts(), api.counts());
    println!(
        "private_key_jwt: ok={} replayed_401={} token_requests={} assertions={} seen_twice={} refused={}",
        answered.ok,
        answered.unauthorized,
        asked.token_requests,
        asked.assertions,
        asked.replayed_assertions,
        asked.refusals
    );
    let as_it_should = answered.ok == 9
        && answered.unauthorized == 2
        && asked.token_requests == 4
        && asked.assertions == 3
        && asked.replayed_assertions == 0
        && asked.refusals == 0;
    Ok(if as_it_should { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
