//! Exchanges the token that a platform keeps in a file, as Kubernetes does, for one of the authorization server (RFC 8693). The
//! service has no secret of its own.
//!
//! ```sh
//! cargo run --example workload_identity
//! ```

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "an example prints, and its platform has a clock"
)]

use std::time::{SystemTime, UNIX_EPOCH};
use std::{env, fs, process};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::json;
use tower::BoxError;
use tower_oauth2::grants::{SecurityToken, TokenExchange, TokenType};
use tower_oauth2::test_util::{FakeApi, FakeAuthorizationServer, FakeClient};
use tower_oauth2::{ApiClient, ClientAuth, FileToken};

const SUBJECT: &str = "system:serviceaccount:shop:billing";

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // These stand for your authorization server, which trusts your platform, and your API. This one does not check the signature
    // of the platform.
    let billing = FakeClient::workload("billing", SUBJECT).scopes("reports:read");
    let provider = FakeAuthorizationServer::builder().client(billing).platform(|_token| true).start().await?;
    let server = FakeApi::builder(&provider).start().await?;

    // In a pod: /var/run/secrets/tokens/billing, which the platform writes anew before its token expires.
    let file = env::temp_dir().join(format!("workload_identity-{}", process::id()));
    fs::write(&file, platform_token(&provider.origin())?)?;

    // The file is read at each exchange.
    let workload = SecurityToken::new(FileToken::new(&file), TokenType::JWT);
    let source = TokenExchange::builder(provider.token_url(), workload)
        .client("billing", ClientAuth::none())
        .scope("reports:read")
        .build()?;
    let api = ApiClient::connect(server.origin(), source)?;

    println!("GET reports: {}", api.get("reports").send().await?.status());
    println!("exchanges: {}", provider.counts().tokens);

    fs::remove_file(file)?;
    Ok(())
}

/// Makes a token as a platform would, good for ten minutes.
fn platform_token(audience: &str) -> Result<String, BoxError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let claims = json!({ "iss": "platform", "sub": SUBJECT, "aud": audience, "iat": now, "exp": now + 600 });
    let [header, claims] = [json!({ "alg": "ES256", "typ": "JWT" }), claims]
        .map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string()));
    Ok(format!("{header}.{claims}.c2lnbmF0dXJl"))
}
