//! A service without any secret of its own: its platform keeps a short-lived token in a file, as Kubernetes does, and the
//! service gives that for a token of the authorization server.
//!
//! `cargo run --example workload_identity`

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a platform has a clock, and an example shows what it does"
)]

#[path = "../support/servers/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Request;
use serde_json::json;
use support::{Api, PrivateKey};
use tower::{BoxError, ServiceBuilder, ServiceExt as _};
use tower_oauth2::grants::{SecurityToken, TokenExchange, TokenType};
use tower_oauth2::test_util::{FakeAuthorizationServer, FakeClient};
use tower_oauth2::transport::HyperClient;
use tower_oauth2::{AuthLayer, Body, ClientAuth, FileToken, RetryPolicy};

const SUBJECT: &str = "system:serviceaccount:shop:billing";

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    // What others run: a platform that signs tokens for its workloads, and a server that trusts it.
    let platform = PrivateKey::generate();
    let billing = FakeClient::workload("billing", SUBJECT).scopes("reports:read");
    let server = FakeAuthorizationServer::builder()
        .client(billing)
        .platform(platform.public().verifier())
        .lifetime(Duration::from_secs(2))
        .start()
        .await?;
    let api = Api::builder(&server).start().await?;
    let file = Projected::new(platform, server.origin())?;

    // What you write, once.
    let workload = SecurityToken::new(FileToken::new(file.path()), TokenType::jwt());
    let source = TokenExchange::builder(server.token_url(), workload)
        .client("billing", ClientAuth::none())
        .scope("reports:read")
        .build()?;
    let client = ServiceBuilder::new()
        .layer(RetryPolicy::default())
        .layer(AuthLayer::for_origin(source, api.origin())?)
        .service(HyperClient::new());

    // Five seconds of traffic: longer than the platform's tokens live, and than those of the server.
    let (mut failed, mut projected) = (0, 1);
    for number in 1..=50 {
        if number % 10 == 0 {
            file.renew()?;
            projected += 1;
        }
        let request = Request::get(format!("{}/items/{number}", api.origin())).body(Body::empty())?;
        let response = client.clone().oneshot(request).await?;
        failed += u32::from(!response.status().is_success());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    let asked = server.counts();
    println!(
        "workload_identity: requests=50 failed={failed} platform_tokens={projected} exchanges={} refused={}",
        asked.tokens, asked.refusals
    );
    // One at the start, then one for each 1.5 s or so: a 2 s token is renewed ahead of its end.
    let as_it_should = failed == 0 && (2..=6).contains(&asked.tokens) && asked.refusals == 0;
    Ok(if as_it_should { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A file that the platform writes a token into, good for three seconds. It goes with this.
struct Projected {
    platform: PrivateKey,
    audience: String,
    path: PathBuf,
}

impl Projected {
    fn new(platform: PrivateKey, audience: String) -> Result<Self, BoxError> {
        let path = std::env::temp_dir().join(format!("workload_identity-{}", std::process::id()));
        let projected = Self { platform, audience, path };
        projected.renew()?;
        Ok(projected)
    }

    fn path(&self) -> &Path {
        &self.path
    }

    /// Puts another token there in one step, so that nobody reads half of one.
    fn renew(&self) -> Result<(), BoxError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let claims =
            json!({ "iss": "platform", "sub": SUBJECT, "aud": self.audience, "iat": now, "exp": now + 3 });
        let aside = self.path.with_extension("new");
        std::fs::write(&aside, self.platform.sign(&claims))?;
        Ok(std::fs::rename(aside, &self.path)?)
    }
}

impl Drop for Projected {
    fn drop(&mut self) {
        // A file that stays in the temporary folder harms nobody.
        let _ = std::fs::remove_file(&self.path);
    }
}
