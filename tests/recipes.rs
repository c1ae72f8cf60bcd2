//! The recipes of `guide::recipes`, as they stand on the page, each against a provider that takes a request to the letter. Each
//! request is then changed in one place after the other, and the provider must refuse each of these.

#![cfg(all(feature = "jwt", feature = "stack"))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(unreachable_pub, reason = "the functions are written for those who copy them")]

#[path = "support/strict.rs"]
mod strict;

#[path = "../src/guide/recipes/auth0.rs"]
mod auth0;
#[path = "../src/guide/recipes/cognito.rs"]
mod cognito;
#[path = "../src/guide/recipes/docker_registry.rs"]
mod docker_registry;
#[path = "../src/guide/recipes/keycloak.rs"]
mod keycloak;
#[path = "../src/guide/recipes/keycloak_exchange.rs"]
mod keycloak_exchange;
#[path = "../src/guide/recipes/kubernetes_projected.rs"]
mod kubernetes_projected;
#[path = "../src/guide/recipes/kubernetes_token_request.rs"]
mod kubernetes_token_request;
#[path = "../src/guide/recipes/okta.rs"]
mod okta;
#[path = "../src/guide/recipes/salesforce_api.rs"]
mod salesforce_api;
#[path = "../src/guide/recipes/salesforce_client.rs"]
mod salesforce_client;
#[path = "../src/guide/recipes/salesforce_user.rs"]
mod salesforce_user;
#[path = "../src/guide/recipes/sap.rs"]
mod sap;
#[path = "../src/guide/recipes/shopify.rs"]
mod shopify;
#[path = "../src/guide/recipes/slack.rs"]
mod slack;
#[path = "../src/guide/recipes/spotify.rs"]
mod spotify;
#[path = "../src/guide/recipes/uipath.rs"]
mod uipath;
#[path = "../src/guide/recipes/vault.rs"]
mod vault;
#[path = "../src/guide/recipes/zoom.rs"]
mod zoom;

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};
use tower_oauth2::grants::jwt::{Assertion, JwtAlgorithm};
use tower_oauth2::{
    AccessToken, Error, ErrorKind, FetchReason, FileToken, Secret, TokenCache, TokenRequest, TokenSource,
};

use self::strict::{
    Transport, Turn, check_value, get, pem, post, provider, rsa_pair, wrong_claims, wrong_ones,
};

const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

async fn fetch(source: &impl TokenSource) -> Result<AccessToken, Error> {
    source.token(TokenRequest::new(FetchReason::Initial)).await
}

fn a_token() -> Value {
    json!({ "access_token": "AT1", "token_type": "Bearer", "expires_in": 3600 })
}

fn secret() -> Secret {
    Secret::from("s3cr=t+")
}

/// Each request that was taken is refused when one thing in it is wrong.
fn one_wrong_thing_is_refused(played: &[(Turn, Request<Bytes>)]) {
    assert!(!played.is_empty());
    for (turn, request) in played {
        assert_eq!(turn.check(request), Ok(()));
        let wrong = wrong_ones(request);
        assert!(wrong.len() >= 6, "only {} wrong requests were made of {request:?}", wrong.len());
        for (what, wrong) in wrong {
            assert!(turn.check(&wrong).is_err(), "the provider takes a request with another {what}");
        }
    }
}

/// Runs a recipe that makes one request, and returns its token and lifetime.
async fn runs<S: TokenSource>(
    turn: Turn,
    recipe: impl FnOnce(Transport) -> Result<S, Error>,
) -> (String, Option<u64>) {
    let (http, done) = provider([turn]);
    let token = fetch(&recipe(http).unwrap()).await.unwrap();
    one_wrong_thing_is_refused(&done());
    (token.expose().to_owned(), token.lifetime().map(|lifetime| lifetime.as_secs()))
}

fn token(name: &str, lifetime: u64) -> (String, Option<u64>) {
    (name.to_owned(), Some(lifetime))
}

// --- The page ---

#[test]
fn the_page_shows_every_recipe_and_every_recipe_is_run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    let (page, tests) = (read("src/guide/recipes.rs"), read("tests/recipes.rs"));
    let mut count = 0;
    for file in fs::read_dir(root.join("src/guide/recipes")).unwrap() {
        let file = file.unwrap().file_name().into_string().unwrap();
        let (name, text) = (file.strip_suffix(".rs").unwrap(), read(&format!("src/guide/recipes/{file}")));
        assert!(text.lines().count() <= 15, "{file} has more than 15 lines");
        let shown = format!("#![doc = include_str!(\"recipes/{file}\")]");
        assert_eq!(page.matches(&shown).count(), 1, "the page does not show {file}");
        assert!(tests.contains(&format!("{name}::{name}(")), "no test runs {file}");
        count += 1;
    }
    assert_eq!(count, 18);
}

// --- Salesforce ---

#[tokio::test]
async fn salesforce_in_the_name_of_a_user() {
    let url = "https://login.salesforce.com/services/oauth2/token";
    let claims = json!({ "iss": "CONSUMER-KEY", "sub": "robot@example.com", "aud": "https://login.salesforce.com",
        "alg": "RS256" });
    let wanted = format!("jwt:{claims}");
    let fields =
        [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", wanted.as_str())];
    let pair = rsa_pair();
    let turn = post(url).form(&fields).signed_by(&pair);
    let turn = turn.answers(200, &json!({ "access_token": "00D!AQ", "token_type": "Bearer" }));
    let key = Assertion::by_key(JwtAlgorithm::Rs256, pem(&pair));
    let got = runs(turn, |http| salesforce_user::salesforce_user(key, http)).await;
    assert_eq!(got, ("00D!AQ".to_owned(), None));
}

#[tokio::test]
async fn an_assertion_of_another_key_or_with_another_claim_is_refused() {
    let url = "https://login.salesforce.com/services/oauth2/token";
    let claims =
        r#"jwt:{"iss":"CONSUMER-KEY","sub":"robot@example.com","aud":"https://login.salesforce.com"}"#;
    let fields = [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", claims)];
    let (http, done) = provider([post(url).form(&fields).answers(200, &a_token())]);
    let key = Assertion::by_key(JwtAlgorithm::Rs256, pem(&rsa_pair()));
    fetch(&salesforce_user::salesforce_user(key, http).unwrap()).await.unwrap();
    let (turn, request) = done().remove(0);
    assert!(turn.signed_by(&rsa_pair()).check(&request).unwrap_err().contains("the signature"));
    let form = form_urlencoded::parse(request.body()).into_owned();
    let jwt = form.into_iter().find(|(name, _)| name == "assertion").unwrap().1;
    assert_eq!(check_value("assertion", &jwt, claims), Ok(()));
    let refused =
        wrong_claims(&jwt).iter().filter(|jwt| check_value("assertion", jwt, claims).is_err()).count();
    // Missing, another text or null: iss, sub and aud. Missing, a text or 1: exp and iat.
    assert!(refused >= 13, "only {refused}");
}

fn salesforce_org() -> Turn {
    let url = "https://example.my.salesforce.com/services/oauth2/token";
    post(url).form(&[
        ("grant_type", "client_credentials"),
        ("client_id", "CONSUMER-KEY"),
        ("client_secret", "s3cr=t+"),
    ])
}

#[tokio::test]
async fn salesforce_as_an_app_at_the_api_that_the_response_names() {
    let granted = json!({ "access_token": "00D!AQ", "token_type": "Bearer", "issued_at": "1700000000000",
        "instance_url": "https://example.my.salesforce.com" });
    let (http, done) = provider([
        salesforce_org().answers(200, &granted),
        get("https://example.my.salesforce.com/services/data/v62.0/limits")
            .header("authorization", "Bearer 00D!AQ")
            .answers(200, &json!({})),
    ]);
    let source = salesforce_client::salesforce_client(secret(), http.clone()).unwrap();
    let api = salesforce_api::salesforce_api(TokenCache::new(source), http).await.unwrap();
    assert_eq!(api.get("v62.0/limits").send().await.unwrap().status(), 200);
    one_wrong_thing_is_refused(&done());
}

#[tokio::test]
async fn a_token_of_salesforce_goes_to_no_other_host() {
    for elsewhere in ["https://evil.com", "https://salesforce.com.evil.com", "http://127.0.0.1", ""] {
        let granted = json!({ "access_token": "00D!AQ", "instance_url": elsewhere });
        let (http, done) = provider([salesforce_org().answers(200, &granted)]);
        let source = salesforce_client::salesforce_client(secret(), http.clone()).unwrap();
        let error = salesforce_api::salesforce_api(TokenCache::new(source), http).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{elsewhere}: {error}");
        done();
    }
}

// --- Identity providers ---

#[tokio::test]
async fn auth0() {
    let turn = post("https://example.eu.auth0.com/oauth/token").form(&[
        ("grant_type", "client_credentials"),
        ("audience", "https://api.example.com/"),
        ("client_id", "CLIENT-ID"),
        ("client_secret", "s3cr=t+"),
    ]);
    let got = runs(turn.answers(200, &a_token()), |http| auth0::auth0(secret(), http)).await;
    assert_eq!(got, token("AT1", 3600));
}

fn okta_turn() -> (Turn, Assertion) {
    let url = "https://example.okta.com/oauth2/v1/token";
    let pair = rsa_pair();
    let claims = json!({ "iss": "CLIENT-ID", "sub": "CLIENT-ID", "aud": url, "alg": "RS256", "kid": "K1" });
    let turn = post(url).signed_by(&pair).form(&[
        ("grant_type", "client_credentials"),
        ("scope", "okta.users.read"),
        ("client_id", "CLIENT-ID"),
        ("client_assertion_type", ASSERTION),
        ("client_assertion", &format!("jwt:{claims}")),
    ]);
    (turn, Assertion::by_key(JwtAlgorithm::Rs256, pem(&pair)).key_id("K1"))
}

#[tokio::test]
async fn okta() {
    let (turn, key) = okta_turn();
    let got = runs(turn.answers(200, &a_token()), |http| okta::okta(key, http)).await;
    assert_eq!(got, token("AT1", 3600));
}

#[tokio::test]
async fn okta_that_demands_dpop_says_so() {
    let (turn, key) = okta_turn();
    let demand = json!({ "error": "invalid_dpop_proof", "error_description": "The DPoP proof JWT header is missing." });
    let (http, done) = provider([turn.answers(400, &demand)]);
    let error = fetch(&okta::okta(key, http).unwrap()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("DPoP"), "{error}");
    done();
}

const KEYCLOAK: &str = "https://id.example.com/realms/shop/protocol/openid-connect/token";

fn keycloak_token() -> Value {
    json!({ "access_token": "AT1", "token_type": "Bearer", "expires_in": 300, "refresh_expires_in": 0,
        "not-before-policy": 0 })
}

#[tokio::test]
async fn keycloak() {
    let turn = post(KEYCLOAK).basic("CLIENT-ID", "s3cr%3Dt%2B").form(&[("grant_type", "client_credentials")]);
    let got = runs(turn.answers(200, &keycloak_token()), |http| keycloak::keycloak(secret(), http)).await;
    assert_eq!(got, token("AT1", 300));
}

#[tokio::test]
async fn keycloak_exchanges_the_token_of_a_user() {
    let turn = post(KEYCLOAK).basic("CLIENT-ID", "s3cr%3Dt%2B").form(&[
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", "USER"),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("audience", "reports"),
    ]);
    let got = runs(turn.answers(200, &keycloak_token()), |http| {
        keycloak_exchange::keycloak_exchange(Secret::from("USER"), secret(), http)
    })
    .await;
    assert_eq!(got, token("AT1", 300));
}

#[tokio::test]
async fn cognito() {
    let turn = post("https://example.auth.eu-central-1.amazoncognito.com/oauth2/token")
        .basic("CLIENT-ID", "s3cr%3Dt%2B")
        .form(&[("grant_type", "client_credentials"), ("scope", "reports/read")]);
    let got = runs(turn.answers(200, &a_token()), |http| cognito::cognito(secret(), http)).await;
    assert_eq!(got, token("AT1", 3600));
}

// --- Services ---

#[tokio::test]
async fn zoom() {
    let turn = post("https://zoom.us/oauth/token")
        .basic("CLIENT-ID", "s3cr%3Dt%2B")
        .form(&[("grant_type", "account_credentials"), ("account_id", "ACCOUNT-ID")]);
    let got = runs(turn.answers(200, &a_token()), |http| zoom::zoom(secret(), http)).await;
    assert_eq!(got, token("AT1", 3600));
}

#[tokio::test]
async fn spotify() {
    let turn = post("https://accounts.spotify.com/api/token")
        .basic("CLIENT-ID", "s3cr%3Dt%2B")
        .form(&[("grant_type", "client_credentials")]);
    let got = runs(turn.answers(200, &a_token()), |http| spotify::spotify(secret(), http)).await;
    assert_eq!(got, token("AT1", 3600));
}

#[tokio::test]
async fn slack_gives_another_refresh_token_each_time() {
    let turn = |refresh_token: &str| {
        post("https://slack.com/api/oauth.v2.access").form(&[
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token),
            ("client_id", "CLIENT-ID"),
            ("client_secret", "s3cr=t+"),
        ])
    };
    let rotated = json!({ "ok": true, "access_token": "xoxe.xoxb-1", "token_type": "bot", "expires_in": 43200,
        "refresh_token": "xoxe-2" });
    let dead = json!({ "ok": false, "error": "invalid_refresh_token" });
    let (http, done) = provider([turn("xoxe-1").answers(200, &rotated), turn("xoxe-2").answers(200, &dead)]);
    let stored = Arc::new(Mutex::new(String::new()));
    let store = Arc::clone(&stored);
    let source = slack::slack("xoxe-1".to_owned(), secret())
        .on_rotate(move |rotated| {
            *store.lock().unwrap() = rotated.expose_refresh_token().to_owned();
            async { Ok(()) }
        })
        .build_with(http)
        .unwrap();
    assert_eq!(fetch(&source).await.unwrap().lifetime().unwrap().as_secs(), 43_200);
    assert_eq!(*stored.lock().unwrap(), "xoxe-2");
    assert!(fetch(&source).await.unwrap_err().kind() == ErrorKind::Grant && !source.has_refresh_token());
    one_wrong_thing_is_refused(&done());
}

fn shopify_turn() -> Turn {
    post("https://example.myshopify.com/admin/oauth/access_token").form(&[
        ("grant_type", "client_credentials"),
        ("client_id", "CLIENT-ID"),
        ("client_secret", "s3cr=t+"),
    ])
}

#[tokio::test]
async fn shopify() {
    let granted =
        json!({ "access_token": "shpat_1", "scope": "read_orders,write_products", "expires_in": 86399 });
    let got = runs(shopify_turn().answers(200, &granted), |http| shopify::shopify(secret(), http)).await;
    assert_eq!(got, token("shpat_1", 86_399));
}

#[tokio::test]
async fn shopify_without_the_scope_is_refused() {
    let granted = json!({ "access_token": "shpat_1", "scope": "write_products", "expires_in": 86399 });
    let (http, done) = provider([shopify_turn().answers(200, &granted)]);
    let error = fetch(&shopify::shopify(secret(), http).unwrap()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("read_orders"), "{error}");
    done();
}

#[tokio::test(start_paused = true)]
async fn uipath_that_shows_a_page_first() {
    let turn = post("https://cloud.uipath.com/identity_/connect/token").form(&[
        ("grant_type", "client_credentials"),
        ("scope", "OR.Jobs OR.Queues.Read"),
        ("client_id", "APP-ID"),
        ("client_secret", "s3cr=t+"),
    ]);
    let page = turn.clone().answers_text(200, "<html>sign in</html>");
    let (http, done) = provider([page, turn.answers(200, &a_token())]);
    let token = fetch(&uipath::uipath(secret(), http).unwrap()).await.unwrap();
    assert_eq!(token.expose(), "AT1");
    one_wrong_thing_is_refused(&done());
}

#[tokio::test]
async fn sap() {
    let turn = post("https://example.accounts.ondemand.com/oauth2/token")
        .basic("sb-app%21t1", "s3cr%3Dt%2B")
        .form(&[("grant_type", "client_credentials")]);
    let got = runs(turn.answers(200, &a_token()), |http| sap::sap(secret(), http)).await;
    assert_eq!(got, token("AT1", 3600));
}

#[tokio::test]
async fn vault() {
    let turn = post("https://vault.example.com/v1/auth/approle/login")
        .json(json!({ "role_id": "ROLE-ID", "secret_id": "s3cr=t+" }));
    let granted = json!({ "lease_duration": 0, "auth": { "client_token": "hvs.1", "lease_duration": 1200 } });
    let got = runs(turn.answers(200, &granted), |http| vault::vault(secret(), http)).await;
    assert_eq!(got, token("hvs.1", 1200));
}

// --- Clusters and registries ---

/// A file with a token, which goes away with this.
struct TokenFile(std::path::PathBuf);

impl TokenFile {
    fn new(name: &str, token: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tower-oauth2-{name}-{}", std::process::id()));
        fs::write(&path, token).unwrap();
        Self(path)
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        fs::remove_file(&self.0).unwrap();
    }
}

#[tokio::test]
async fn kubernetes_renews_the_projected_token() {
    let file = TokenFile::new("projected", "POD-1\n");
    let turn = |token: &str| {
        get("https://reports.shop.svc/daily").header("authorization", &format!("Bearer {token}"))
    };
    let (http, done) = provider([
        turn("POD-1").answers(200, &json!({})),
        turn("POD-1").answers(401, &json!({})),
        turn("POD-2").answers(200, &json!({})),
    ]);
    let api = kubernetes_projected::kubernetes_projected(file.0.clone(), http).unwrap();
    assert_eq!(api.get("daily").send().await.unwrap().status(), 200);
    fs::write(&file.0, "POD-2\n").unwrap();
    assert_eq!(api.get("daily").send().await.unwrap().status(), 200);
    one_wrong_thing_is_refused(&done());
}

#[tokio::test]
async fn kubernetes_token_request() {
    let file = TokenFile::new("pod", "POD-1\n");
    let turn = post("https://kubernetes.default.svc/api/v1/namespaces/shop/serviceaccounts/billing/token")
        .header("authorization", "Bearer POD-1")
        .json(json!({ "spec": { "audiences": ["vault"], "expirationSeconds": 3600 } }));
    let status = json!({ "status": { "token": "AT1", "expirationTimestamp": "2099-01-01T00:00:00Z" } });
    let (name, lifetime) = runs(turn.answers(201, &status), |http| {
        kubernetes_token_request::kubernetes_token_request(FileToken::new(&file.0), http)
    })
    .await;
    assert!(name == "AT1" && lifetime.is_some_and(|lifetime| lifetime > 1_000_000), "{lifetime:?}");
}

#[tokio::test]
async fn docker_registry() {
    let scope = "repository%3Alibrary%2Falpine%3Apull";
    let turn = get(&format!("https://auth.docker.io/token?service=registry.docker.io&scope={scope}"))
        .basic("USER", "s3cr=t+")
        .answers(200, &json!({ "token": "AT1", "expires_in": 300, "issued_at": "2026-01-01T00:00:00Z" }));
    let got = runs(turn, |http| docker_registry::docker_registry(secret(), http)).await;
    assert_eq!(got, token("AT1", 300));
}

#[tokio::test]
async fn a_wrong_secret_is_an_error_that_names_none() {
    let refused = json!({ "error": "invalid_client", "error_description": "s3cr=t+ is wrong" });
    let turn = post("https://accounts.spotify.com/api/token")
        .basic("CLIENT-ID", "s3cr%3Dt%2B")
        .form(&[("grant_type", "client_credentials")]);
    let (http, done) = provider([turn.answers(400, &refused)]);
    let error = fetch(&spotify::spotify(secret(), http).unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(!error.to_string().contains("s3cr=t+"), "{error}");
    done();
}
