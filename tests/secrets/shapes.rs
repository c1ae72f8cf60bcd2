//! Debug of every public type that comes near a secret.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use tower::{Layer as _, Service as _, ServiceExt as _};
use tower_oauth2::auth::AuthOverride;
use tower_oauth2::grants::{CustomGrant, SecurityToken, TokenExchange, TokenType};
use tower_oauth2::retry::RetryOptions;
use tower_oauth2::transport::HyperClient;
use tower_oauth2::{
    AccessToken, AuthLayer, ClientAuth, ClientCredentials, ClientCredentialsConfig, Error, ErrorKind,
    FetchReason, FileToken, RetryPolicy, Secret, TokenCache, TokenRequest, TokenSource, source_fn,
};

use crate::trail::Trail;
use crate::words::{CLIENT_ID, CLIENT_SECRET, JWT, OPAQUE, PIN, REFRESH, SESSION};

fn token() -> AccessToken {
    AccessToken::bearer(OPAQUE)
        .unwrap()
        .with_refresh_token(REFRESH)
        .with_extra("session_token", SESSION)
        .with_extra("instance_url", JWT)
        .with_lifetime(Duration::from_secs(60))
        .with_scopes(["read"])
}

#[tokio::test]
async fn debug_of_no_public_type_shows_a_secret() {
    let trail = Trail::begin();
    trail.debug("AccessToken", &token());
    trail.debug("header", token().header_value());
    for secret in [
        Secret::new(CLIENT_SECRET),
        Secret::from(CLIENT_SECRET),
        Secret::from(CLIENT_SECRET.to_owned()),
        Secret::from_fn(|| async { Ok(CLIENT_SECRET) }),
    ] {
        trail.debug("Secret", &secret);
    }
    for auth in [
        ClientAuth::basic(CLIENT_SECRET),
        ClientAuth::basic_raw(CLIENT_SECRET),
        ClientAuth::post(CLIENT_SECRET),
        ClientAuth::none(),
    ] {
        trail.debug("ClientAuth", &auth);
    }
    // A password in the URL is refused, but may be looked at before.
    for url in [
        "https://login.example.com/token",
        &format!("https://x:{OPAQUE}@login.example.com/{JWT}?{JWT}#{JWT}"),
    ] {
        let builder = ClientCredentials::builder(url, CLIENT_ID, CLIENT_SECRET)
            .secret_param("pin", PIN)
            .param("organization", "north")
            .classifier(|_| None);
        trail.debug("builder", &builder);
        match builder.build() {
            Ok(source) => trail.debug("ClientCredentials", &source),
            Err(error) => trail.error("build", &error),
        }
    }
    let config = serde_json::json!({
        "token_url": format!("https://x:{OPAQUE}@login.example.com/"), "client_id": CLIENT_ID,
        "client_secret_env": "BILLING_SECRET", "parameters": {"organization": SESSION},
    });
    let config: ClientCredentialsConfig = serde_json::from_value(config).unwrap();
    trail.debug("ClientCredentialsConfig", &config);
    trail.error("build", &config.into_builder().build().unwrap_err());

    let request =
        TokenRequest::new(FetchReason::Rejected).with_previous(Some(token())).with_rejected(Some(token()));
    trail.debug("TokenRequest", &request);
    let (secret, held) = (CLIENT_SECRET, token());
    let closure = source_fn(move |_| {
        let held = held.clone();
        async move { if secret.is_empty() { Err(Error::new(ErrorKind::Config, "empty")) } else { Ok(held) } }
    });
    trail.debug("source_fn", &closure);

    let builder = TokenCache::builder(closure);
    trail.debug("TokenCacheBuilder", &builder);
    let cache = builder.build();
    trail.debug("TokenCache", &cache);
    trail.debug("get", &cache.get().await);
    trail.debug("TokenCache", &cache);
    trail.debug("Status", &cache.status());
    trail.debug("StatusWatch", &cache.watch());

    let layer = AuthLayer::for_origin(cache.clone(), "http://127.0.0.1:1").unwrap();
    trail.debug("AuthLayer", &layer);
    let over = AuthOverride::cache(cache.clone());
    trail.debug("AuthOverride", &over);
    trail.debug("RetryOptions", &RetryOptions::new());
    let mut client = RetryPolicy::default().layer(layer.layer(HyperClient::new()));
    trail.debug("RetryService over AuthService", &client);
    let mut request = http::Request::get("http://127.0.0.1:1/").body(Full::new(Bytes::new())).unwrap();
    request.extensions_mut().insert(over);
    trail.debug("request", &request);
    let ready = tower::ServiceExt::<http::Request<tower_oauth2::Body>>::ready(&mut client);
    let response = ready.await.unwrap().call(request);
    trail.debug("ResponseFuture", &response);
    trail.error("unreachable", &*response.await.unwrap_err());
    trail.debug("after use", &client);
    trail.assert_clean();
}

#[tokio::test]
async fn debug_of_no_grant_shows_a_secret() {
    let trail = Trail::begin();
    let url = "https://login.example.com/token";
    let subject = SecurityToken::new(OPAQUE, TokenType::JWT);
    let actor = SecurityToken::new(token(), TokenType::ACCESS_TOKEN);
    trail.debug("SecurityToken", &subject);
    trail.debug("SecurityToken", &actor);
    let exchange = TokenExchange::builder(url, subject).actor(actor).client(CLIENT_ID, CLIENT_SECRET);
    trail.debug("builder", &exchange);
    trail.debug("TokenExchange", &exchange.build().unwrap());
    let custom = CustomGrant::json(url).secret_param("pin", PIN).secret_param("session", SESSION);
    trail.debug("builder", &custom);
    trail.debug("CustomGrant", &custom.build().unwrap());
    let file = FileToken::new("/does/not/exist");
    trail.debug("FileToken", &file);
    trail.error("FileToken", &file.token(TokenRequest::new(FetchReason::Initial)).await.unwrap_err());
    trail.assert_clean();
}

#[cfg(feature = "jwt")]
#[test]
fn debug_of_no_assertion_shows_a_secret() {
    use tower_oauth2::grants::JwtBearer;
    use tower_oauth2::grants::jwt::{Assertion, JwtAlgorithm};

    let trail = Trail::begin();
    let key = || Assertion::by_key(JwtAlgorithm::Es256, OPAQUE).key_id("16").certificate(REFRESH);
    trail.debug("Assertion", &key());
    trail.debug("Assertion", &key());
    let auth = ClientAuth::private_key_jwt(key());
    trail.debug("ClientAuth", &auth);
    let url = "https://login.example.com/token";
    let client = ClientCredentials::builder(url, CLIENT_ID, auth).issuer(url);
    trail.debug("builder", &client);
    trail.error("build", &client.build().unwrap_err());
    let grant = JwtBearer::builder(url, key().issuer("robot")).issuer(url);
    trail.debug("builder", &grant);
    trail.error("build", &grant.build().unwrap_err());
    trail.assert_clean();
}

/// What a request carries when the client below has it.
#[tokio::test]
async fn the_request_below_auth_shows_no_token() {
    let trail = Trail::begin();
    let seen = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let below = std::sync::Arc::clone(&seen);
    let echo = tower::service_fn(move |request: http::Request<()>| {
        below.lock().unwrap().push_str(&format!("{request:?} {request:#?} {:?}", request.headers()));
        async { Ok::<_, tower::BoxError>(http::Response::new(())) }
    });
    for layer in [
        AuthLayer::for_origin(token(), "https://api.example.com").unwrap(),
        AuthLayer::for_origin(token(), "https://api.example.com")
            .unwrap()
            .header(http::HeaderName::from_static("x-auth-token")),
        AuthLayer::for_origin(token(), "https://api.example.com").unwrap().replace_authorization(true),
    ] {
        let mut client = layer.layer(echo.clone());
        // An instance makes a copy of the header for itself when it is used again.
        for _ in 0..3 {
            let request = http::Request::get("https://api.example.com/").body(()).unwrap();
            client.ready().await.unwrap().call(request).await.unwrap();
        }
    }
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen.matches("Sensitive").count(), 3 * 3 * 3, "{seen}");
    trail.note("requests", seen);
    trail.assert_clean();
}
