//! A service without a secret. Its platform keeps a short-lived token in a file, and the service exchanges that for a token of
//! the authorization server.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Request;
use serde_json::json;
use tower::{BoxError, ServiceBuilder, ServiceExt as _};
use tower_oauth2::grants::{SecurityToken, TokenExchange, TokenType};
use tower_oauth2::test_util::{FakeAuthorizationServer, FakeClient};
use tower_oauth2::{AuthLayer, Body, ClientAuth, FileToken, RetryPolicy};

use crate::servers::{Api, PrivateKey};

const SUBJECT: &str = "system:serviceaccount:shop:billing";

#[tokio::test(start_paused = true)]
async fn the_token_in_the_file_is_read_anew_for_each_exchange() -> Result<(), BoxError> {
    let file = Projected::new();
    let billing = FakeClient::workload("billing", SUBJECT).scopes("reports:read");
    // The server trusts the platform, and only the token that is in the file at this time.
    let (signed, path) = (file.platform.public().verifier(), file.path.clone());
    let server = FakeAuthorizationServer::builder()
        .client(billing)
        .platform(move |jwt| signed(jwt) && fs::read_to_string(&path).is_ok_and(|current| current == jwt))
        .lifetime(Duration::from_secs(2))
        .build();
    let api = Api::builder(&server).build();
    file.renew(&server.origin(), 0)?;

    let workload = SecurityToken::new(FileToken::new(&file.path), TokenType::JWT);
    let source = TokenExchange::builder(server.token_url(), workload)
        .client("billing", ClientAuth::none())
        .scope("reports:read")
        .build_with(server.clone())?;
    let client = ServiceBuilder::new()
        .layer(RetryPolicy::default())
        .layer(AuthLayer::for_origin(source, api.origin())?)
        .service(api.service());

    // Five seconds: longer than a token of the server lives.
    for number in 1..=50 {
        if number % 10 == 0 {
            file.renew(&server.origin(), number)?;
        }
        let request = Request::get(format!("{}/items/{number}", api.origin())).body(Body::empty())?;
        assert_eq!(client.clone().oneshot(request).await?.status(), 200, "item {number}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    let counts = server.counts();
    // One at the start, then one for each 1.5 s or so: a 2 s token is renewed ahead of its end.
    assert!((2..=6).contains(&counts.tokens), "{counts:?}");
    assert_eq!(counts.refusals, 0);
    Ok(())
}

/// A file that the platform writes a token into. It goes away with this.
struct Projected {
    platform: PrivateKey,
    path: PathBuf,
}

impl Projected {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("workload_identity-{}", std::process::id()));
        Self { platform: PrivateKey::generate(), path }
    }

    /// Puts another token there in one step, so that a reader never finds half of one.
    fn renew(&self, audience: &str, number: u32) -> Result<(), BoxError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let claims = json!({
            "iss": "platform", "sub": SUBJECT, "aud": audience, "iat": now, "exp": now + 600, "jti": number.to_string(),
        });
        let aside = self.path.with_extension("new");
        fs::write(&aside, self.platform.sign(&claims))?;
        Ok(fs::rename(aside, &self.path)?)
    }
}

impl Drop for Projected {
    fn drop(&mut self) {
        // A file that stays in the temporary folder does no harm.
        let _ = fs::remove_file(&self.path);
    }
}
