//! Thirty flows of real providers, each written as a user writes it, against an emulator that takes a request to the letter:
//! method, URL, every header that is not the crate's own, and every field of the body.

#![cfg(feature = "jwt")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "support/strict.rs"]
mod strict;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tower_oauth2::grants::jwt::{Assertion, JwtAlgorithm, SelfSigned};
use tower_oauth2::grants::{CustomGrant, Issuer, JwtBearer, SecurityToken, TokenExchange, TokenType};
use tower_oauth2::{
    AccessToken, ClientAuth, ClientCredentials, Error, ErrorKind, FetchReason, FileToken, RefreshTokenGrant,
    Secret, TokenRequest, TokenSource,
};

use self::strict::{Turn, check_value, get, pem, post, provider, rsa_pair};

async fn fetch(source: &impl TokenSource) -> Result<AccessToken, Error> {
    source.token(TokenRequest::new(FetchReason::Initial)).await
}

/// Fetches once, and says token and lifetime.
async fn gets(source: Result<impl TokenSource, Error>) -> (String, Option<u64>) {
    let token = fetch(&source.unwrap()).await.unwrap();
    let lifetime = token.lifetime().map(|lifetime| lifetime.as_secs());
    (token.header_value().to_str().unwrap().trim_start_matches("Bearer ").to_owned(), lifetime)
}

fn token(name: &str, lifetime: u64) -> (String, Option<u64>) {
    (name.to_owned(), Some(lifetime))
}

fn a_token() -> Value {
    json!({ "access_token": "AT1", "token_type": "Bearer", "expires_in": 3600 })
}

fn rsa_key() -> String {
    pem(&rsa_pair())
}

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

// --- 1 to 4: contact centres ---

#[tokio::test]
async fn genesys_cloud() {
    let url = "https://login.mypurecloud.de/oauth/token";
    let turn = post(url).basic("ID", "SECRET").form(&[("grant_type", "client_credentials")]);
    let (http, done) = provider([turn.answers(200, &a_token())]);
    let source = ClientCredentials::builder(url, "ID", "SECRET").build_with(http);
    assert_eq!(gets(source).await, token("AT1", 3600));
    done();
}

#[tokio::test(start_paused = true)]
async fn genesys_cloud_that_calls_throttling_a_bad_request() {
    let url = "https://login.mypurecloud.de/oauth/token";
    let turn = || post(url).basic("ID", "SECRET").form(&[("grant_type", "client_credentials")]);
    let busy = json!({ "error": "invalid_request", "description": "rate limit exceeded; wait", "error_description": null });
    let (http, done) = provider([turn().answers(400, &busy), turn().answers(200, &a_token())]);
    let source = ClientCredentials::builder(url, "ID", "SECRET").build_with(http);
    assert_eq!(gets(source).await, token("AT1", 3600));
    done();
}

#[tokio::test]
async fn nice_cxone_by_access_key() {
    let url = "https://na1.nice-incontact.com/authentication/v1/token/access-key";
    let turn = post(url).json(json!({ "accessKeyId": "KEY", "accessKeySecret": "SECRET" }));
    let (http, done) = provider([turn.answers(200, &json!({ "accessToken": "AT1", "expiresIn": 3600 }))]);
    let source = CustomGrant::json(url)
        .param("accessKeyId", "KEY")
        .secret_param("accessKeySecret", "SECRET")
        .response_member("access_token", "accessToken")
        .response_member("expires_in", "expiresIn")
        .build_with(http);
    assert_eq!(gets(source).await, token("AT1", 3600));
    done();
}

#[tokio::test]
async fn nice_cxone_by_password() {
    let url = "https://cxone.niceincontact.com/auth/token";
    let fields = [("grant_type", "password"), ("username", "KEY"), ("password", "SECRET")];
    let (http, done) = provider([post(url).basic("ID", "S1").form(&fields).answers(200, &a_token())]);
    let source = CustomGrant::builder(url, "password")
        .client("ID", "S1")
        .param("username", "KEY")
        .secret_param("password", "SECRET")
        .build_with(http);
    assert_eq!(gets(source).await, token("AT1", 3600));
    done();
}

// --- 5 and 6: Salesforce ---

#[tokio::test]
async fn salesforce_for_a_user() {
    let url = "https://login.salesforce.com/services/oauth2/token";
    let claims = r#"jwt:{"iss":"CONSUMER","sub":"robot@example.com","aud":"https://login.salesforce.com","alg":"RS256"}"#;
    let turn = post(url).form(&[("grant_type", JWT_BEARER), ("assertion", claims)]);
    let (http, done) =
        provider([turn.answers(200, &json!({ "access_token": "00D!AQ", "token_type": "Bearer" }))]);
    let assertion = Assertion::by_key(JwtAlgorithm::Rs256, rsa_key())
        .issuer("CONSUMER")
        .subject("robot@example.com")
        .audience("https://login.salesforce.com")
        .lifetime(Duration::from_secs(180));
    let source = JwtBearer::builder(url, assertion).build_with(http);
    assert_eq!(gets(source).await, ("00D!AQ".to_owned(), None));
    done();
}

#[tokio::test]
async fn salesforce_as_a_client_says_where_the_api_is() {
    let url = "https://example.my.salesforce.com/services/oauth2/token";
    let fields = [("grant_type", "client_credentials"), ("client_id", "ID"), ("client_secret", "SECRET")];
    let answer = json!({ "access_token": "00D!AQ", "instance_url": "https://x.salesforce.com", "issued_at": "1700000000000" });
    let (http, done) = provider([post(url).form(&fields).answers(200, &answer)]);
    let source = ClientCredentials::builder(url, "ID", ClientAuth::post("SECRET")).build_with(http).unwrap();
    let token = fetch(&source).await.unwrap();
    assert!(token.expose_extra("instance_url").is_some() && token.lifetime().is_none());
    done();
}

// --- 7 to 11: Microsoft ---

const ENTRA: &str = "https://login.microsoftonline.com/TENANT/oauth2/v2.0/token";
const GRAPH: &str = "https://graph.microsoft.com/.default";

#[tokio::test]
async fn entra_by_secret() {
    let fields = [
        ("grant_type", "client_credentials"),
        ("scope", GRAPH),
        ("client_id", "ID"),
        ("client_secret", "S~1"),
    ];
    let (http, done) = provider([post(ENTRA).form(&fields).answers(200, &a_token())]);
    let source =
        ClientCredentials::builder(ENTRA, "ID", ClientAuth::post("S~1")).scope(GRAPH).build_with(http);
    assert_eq!(gets(source).await, token("AT1", 3600));
    done();
}

fn federated(assertion: &str) -> Turn {
    post(ENTRA).form(&[
        ("grant_type", "client_credentials"),
        ("scope", GRAPH),
        ("client_id", "ID"),
        ("client_assertion_type", ASSERTION),
        ("client_assertion", assertion),
    ])
}

#[tokio::test]
async fn entra_by_workload_identity() {
    let path = std::env::temp_dir().join(format!("tower-oauth2-entra-{}", std::process::id()));
    std::fs::write(&path, "e30.e30.one\n").unwrap();
    let (http, done) = provider([
        federated("e30.e30.one").answers(200, &a_token()),
        federated("e30.e30.two").answers(200, &a_token()),
    ]);
    let source = ClientCredentials::builder(ENTRA, "ID", ClientAuth::assertion(FileToken::new(&path)))
        .scope(GRAPH)
        .build_with(http)
        .unwrap();
    fetch(&source).await.unwrap();
    std::fs::write(&path, "e30.e30.two\n").unwrap();
    fetch(&source).await.unwrap();
    std::fs::remove_file(path).unwrap();
    done();
}

#[tokio::test]
async fn entra_by_certificate() {
    let claims = format!(r#"jwt:{{"iss":"ID","sub":"ID","aud":"{ENTRA}","alg":"PS256","kid":"7"}}"#);
    let (http, done) = provider([federated(&claims).answers(200, &a_token())]);
    let key = Assertion::by_key(JwtAlgorithm::Ps256, rsa_key()).key_id("7");
    let source =
        ClientCredentials::builder(ENTRA, "ID", ClientAuth::private_key_jwt(key.token_url_as_audience(true)))
            .scope(GRAPH)
            .build_with(http);
    assert_eq!(gets(source).await, token("AT1", 3600));
    done();
}

#[tokio::test]
async fn azure_managed_identity_of_a_machine() {
    let url = "http://169.254.169.254/metadata/identity/oauth2/token";
    let turn = get(&format!("{url}?api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net"));
    let answer = json!({ "access_token": "AT1", "expires_in": "86399", "token_type": "Bearer" });
    let (http, done) = provider([turn.header("metadata", "true").answers(200, &answer)]);
    let source = CustomGrant::get(url)
        .insecure_http(true)
        .param("api-version", "2018-02-01")
        .param("resource", "https://vault.azure.net")
        .header("metadata", "true")
        .build_with(http);
    assert_eq!(gets(source).await, token("AT1", 86_399));
    done();
}

#[tokio::test]
async fn azure_managed_identity_of_an_app_service() {
    let turn =
        get("http://127.0.0.1:41741/msi/token?api-version=2019-08-01&resource=https%3A%2F%2Fvault.azure.net");
    let answer = json!({ "access_token": "AT1", "expires_on": "4070908800", "token_type": "Bearer" });
    let (http, done) = provider([turn.header("x-identity-header", "SECRET").answers(200, &answer)]);
    let source = CustomGrant::get("http://127.0.0.1:41741/msi/token")
        .param("api-version", "2019-08-01")
        .param("resource", "https://vault.azure.net")
        .secret_header("X-IDENTITY-HEADER", "SECRET")
        .response_member("expires_at", "expires_on")
        .build_with(http);
    assert!(gets(source).await.1.is_some_and(|lifetime| lifetime > 1_000_000));
    done();
}

// --- 12 to 15: Google ---

fn google_key() -> String {
    json!({ "type": "service_account", "private_key_id": "K1", "private_key": rsa_key(),
        "client_email": "robot@p.iam.gserviceaccount.com", "token_uri": "https://oauth2.googleapis.com/token" })
    .to_string()
}

#[tokio::test]
async fn google_service_account() {
    let url = "https://oauth2.googleapis.com/token";
    let claims = format!(
        r#"jwt:{{"iss":"robot@p.iam.gserviceaccount.com","aud":"{url}","scope":"S","kid":"K1","sub":null}}"#
    );
    let turn = post(url).form(&[("grant_type", JWT_BEARER), ("assertion", &claims)]);
    let (http, done) = provider([turn.answers(200, &a_token())]);
    let assertion = Assertion::by_key(JwtAlgorithm::Rs256, google_key())
        .without_subject()
        .token_url_as_audience(true)
        .claim("scope", "S");
    assert_eq!(gets(JwtBearer::builder(url, assertion).build_with(http)).await, token("AT1", 3600));
    done();
}

#[tokio::test]
async fn google_id_token() {
    let url = "https://oauth2.googleapis.com/token";
    let claims = format!(r#"jwt:{{"aud":"{url}","target_audience":"https://run.app"}}"#);
    let turn = post(url).form(&[("grant_type", JWT_BEARER), ("assertion", &claims)]);
    let id_token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(r#"{"exp":4070908800}"#));
    let (http, done) = provider([turn.answers(200, &json!({ "id_token": id_token }))]);
    let assertion = Assertion::by_key(JwtAlgorithm::Rs256, google_key())
        .token_url_as_audience(true)
        .claim("target_audience", "https://run.app");
    let source =
        JwtBearer::builder(url, assertion).response_member("access_token", "id_token").build_with(http);
    let (name, lifetime) = gets(source).await;
    assert!(name == id_token && lifetime.is_some_and(|lifetime| lifetime > 1_000_000), "{lifetime:?}");
    done();
}

#[tokio::test]
async fn google_impersonation() {
    let url = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/robot@p.iam.gserviceaccount.com:generateAccessToken";
    let turn = post(url)
        .header("authorization", "Bearer BASE")
        .json(json!({ "delegates": null, "scope": ["S"], "lifetime": "3600s" }));
    let (http, done) =
        provider([turn.answers(200, &json!({ "accessToken": "AT1", "expireTime": "2099-01-01T00:00:00Z" }))]);
    let source = CustomGrant::json(url)
        .authorized_by(AccessToken::bearer("BASE").unwrap())
        .param_json("delegates", "null")
        .param_json("scope", r#"["S"]"#)
        .param("lifetime", "3600s")
        .response_member("access_token", "accessToken")
        .response_member("expires_at", "expireTime")
        .build_with(http);
    assert!(gets(source).await.1.is_some_and(|lifetime| lifetime > 1_000_000));
    done();
}

#[tokio::test]
async fn google_metadata_server() {
    let url = "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token";
    let turn = get(&format!("{url}?scopes=A%2CB")).header("metadata-flavor", "Google");
    let (http, done) = provider([turn.answers(200, &a_token())]);
    let source = CustomGrant::get(url)
        .insecure_http(true)
        .param("scopes", "A,B")
        .header("Metadata-Flavor", "Google")
        .build_with(http);
    assert_eq!(gets(source).await, token("AT1", 3600));
    done();
}

// --- 16 to 19 ---

#[tokio::test]
async fn aws_cognito() {
    let url = "https://example.auth.eu-central-1.amazoncognito.com/oauth2/token";
    let fields = [("grant_type", "client_credentials"), ("scope", "api/read api/write")];
    let (http, done) = provider([post(url).basic("ID", "SECRET").form(&fields).answers(200, &a_token())]);
    let source = ClientCredentials::builder(url, "ID", "SECRET").scope("api/read api/write").build_with(http);
    assert_eq!(gets(source).await, token("AT1", 3600));
    done();
}

fn github_app() -> SelfSigned {
    let assertion = Assertion::by_key(JwtAlgorithm::Rs256, rsa_key())
        .issuer("APP")
        .without_subject()
        .clock_ahead_by(Duration::from_secs(30))
        .lifetime(Duration::from_secs(570));
    SelfSigned::new(assertion).unwrap()
}

#[tokio::test]
async fn github_app_by_itself() {
    let token = fetch(&github_app()).await.unwrap();
    let jwt = token.header_value().to_str().unwrap().to_owned();
    check_value("authorization", &jwt, r#"jwt:{"iss":"APP","alg":"RS256","aud":null,"sub":null}"#).unwrap();
    assert_eq!(token.lifetime().unwrap().as_secs(), 540);
}

#[tokio::test]
async fn github_app_of_an_installation() {
    let url = "https://api.github.com/app/installations/42/access_tokens";
    let turn = post(url)
        .header("authorization", r#"jwt:{"iss":"APP","alg":"RS256"}"#)
        .header("accept", "application/vnd.github+json")
        .json(json!({ "repositories": ["one"], "permissions": { "contents": "read" } }));
    let (http, done) =
        provider([turn.answers(201, &json!({ "token": "ghs_1", "expires_at": "2099-01-01T00:00:00Z" }))]);
    let source = CustomGrant::json(url)
        .authorized_by(github_app())
        .header("Accept", "application/vnd.github+json")
        .param_json("repositories", r#"["one"]"#)
        .param_json("permissions", r#"{"contents":"read"}"#)
        .response_member("access_token", "token")
        .build_with(http);
    assert!(gets(source).await.1.is_some_and(|lifetime| lifetime > 1_000_000));
    done();
}

#[tokio::test]
async fn zoom_server_to_server() {
    let url = "https://zoom.us/oauth/token";
    let fields = [("grant_type", "account_credentials"), ("account_id", "ACCOUNT")];
    let (http, done) = provider([post(url).basic("ID", "SECRET").form(&fields).answers(200, &a_token())]);
    let source = CustomGrant::builder(url, "account_credentials")
        .client("ID", "SECRET")
        .param("account_id", "ACCOUNT")
        .build_with(http);
    assert_eq!(gets(source).await, token("AT1", 3600));
    done();
}

// --- 20 to 25 ---

#[tokio::test]
async fn okta_by_key() {
    let url = "https://example.okta.com/oauth2/v1/token";
    let claims = format!(r#"jwt:{{"iss":"ID","sub":"ID","aud":"{url}","kid":"K1"}}"#);
    let fields = [
        ("grant_type", "client_credentials"),
        ("scope", "okta.users.read"),
        ("client_id", "ID"),
        ("client_assertion_type", ASSERTION),
        ("client_assertion", &claims),
    ];
    let (http, done) = provider([post(url).form(&fields).answers(200, &a_token())]);
    let key = Assertion::by_key(JwtAlgorithm::Rs256, rsa_key()).key_id("K1");
    let source =
        ClientCredentials::builder(url, "ID", ClientAuth::private_key_jwt(key.token_url_as_audience(true)))
            .scope("okta.users.read")
            .build_with(http);
    assert_eq!(gets(source).await, token("AT1", 3600));
    done();
}

#[tokio::test]
async fn auth0_by_json() {
    let url = "https://example.eu.auth0.com/oauth/token";
    let body = json!({ "grant_type": "client_credentials", "client_id": "ID", "client_secret": "S", "audience": "https://api/" });
    let (http, done) = provider([post(url).json(body).answers(200, &a_token())]);
    let source = CustomGrant::json(url)
        .param("grant_type", "client_credentials")
        .param("client_id", "ID")
        .secret_param("client_secret", "S")
        .param("audience", "https://api/")
        .build_with(http);
    assert_eq!(gets(source).await, token("AT1", 3600));
    done();
}

#[tokio::test]
async fn keycloak_token_exchange() {
    let url = "https://id.example.com/realms/r/protocol/openid-connect/token";
    let fields = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", "SUBJECT"),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("audience", "reports"),
    ];
    let answer =
        json!({ "access_token": "AT1", "expires_in": 300, "refresh_expires_in": 0, "not-before-policy": 0 });
    let (http, done) = provider([post(url).basic("ID", "SECRET").form(&fields).answers(200, &answer)]);
    let source = TokenExchange::builder(url, SecurityToken::new("SUBJECT", TokenType::ACCESS_TOKEN))
        .client("ID", "SECRET")
        .audience("reports")
        .build_with(http);
    assert_eq!(gets(source).await, token("AT1", 300));
    done();
}

#[tokio::test]
async fn kubernetes_token_request() {
    let url = "https://kubernetes.default.svc/api/v1/namespaces/n/serviceaccounts/s/token";
    let turn = post(url)
        .header("authorization", "Bearer POD")
        .json(json!({ "spec": { "audiences": ["vault"], "expirationSeconds": 3600 } }));
    let status = json!({ "status": { "token": "AT1", "expirationTimestamp": "2099-01-01T00:00:00Z" } });
    let (http, done) = provider([turn.answers(201, &status)]);
    let source = CustomGrant::json(url)
        .authorized_by(AccessToken::bearer("POD").unwrap())
        .param_json("spec", r#"{"audiences":["vault"],"expirationSeconds":3600}"#)
        .response_member("access_token", "/status/token")
        .response_member("expires_at", "/status/expirationTimestamp")
        .build_with(http);
    assert!(gets(source).await.1.is_some_and(|lifetime| lifetime > 1_000_000));
    done();
}

#[tokio::test]
async fn docker_registry() {
    let url = "https://auth.docker.io/token";
    let line = format!("{url}?service=registry.docker.io&scope=repository%3Aa%2Fb%3Apull");
    let (http, done) = provider([get(&line)
        .basic("robot", "SECRET")
        .answers(200, &json!({ "token": "AT1", "expires_in": 300, "issued_at": "2026-01-01T00:00:00Z" }))]);
    let source = CustomGrant::get(url)
        .client("robot", "SECRET")
        .param("service", "registry.docker.io")
        .param("scope", "repository:a/b:pull")
        .response_member("access_token", "token")
        .build_with(http);
    assert_eq!(gets(source).await, token("AT1", 300));
    done();
}

#[tokio::test]
async fn vault_approle() {
    let url = "https://vault.example.com/v1/auth/approle/login";
    let turn =
        post(url).header("x-vault-namespace", "team").json(json!({ "role_id": "R", "secret_id": "S" }));
    let answer = json!({ "lease_duration": 0, "auth": { "client_token": "hvs.1", "lease_duration": 1200 } });
    let (http, done) = provider([turn.answers(200, &answer)]);
    let source = CustomGrant::json(url)
        .header("X-Vault-Namespace", "team")
        .param("role_id", "R")
        .secret_param("secret_id", "S")
        .response_member("access_token", "/auth/client_token")
        .response_member("expires_in", "/auth/lease_duration")
        .build_with(http);
    assert_eq!(gets(source).await, token("hvs.1", 1200));
    done();
}

// --- 26 to 32 ---

#[tokio::test]
async fn spotify() {
    let url = "https://accounts.spotify.com/api/token";
    let turn = post(url).basic("ID", "SECRET").form(&[("grant_type", "client_credentials")]);
    let (http, done) = provider([turn.answers(200, &a_token())]);
    let source = ClientCredentials::builder(url, "ID", "SECRET").build_with(http);
    assert_eq!(gets(source).await, token("AT1", 3600));
    done();
}

#[tokio::test(start_paused = true)]
async fn uipath_that_answers_html_in_between() {
    let url = "https://cloud.uipath.com/identity_/connect/token";
    let fields = [
        ("grant_type", "client_credentials"),
        ("scope", "OR.Jobs"),
        ("client_id", "ID"),
        ("client_secret", "S"),
    ];
    let turn = || post(url).form(&fields);
    let (http, done) =
        provider([turn().answers_text(200, "<html>sign in</html>"), turn().answers(200, &a_token())]);
    let source =
        ClientCredentials::builder(url, "ID", ClientAuth::post("S")).scope("OR.Jobs").build_with(http);
    assert_eq!(gets(source).await, token("AT1", 3600));
    done();
}

#[tokio::test]
async fn sap_cloud_identity_by_an_assertion_of_another_issuer() {
    let url = "https://example.accounts.ondemand.com/oauth2/token";
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_id", "ID"),
        ("client_assertion_type", ASSERTION),
        ("client_assertion", "e30.e30.spiffe"),
    ];
    let (http, done) = provider([post(url).form(&fields).answers(200, &a_token())]);
    let secret = Secret::from_fn(|| async { Ok("e30.e30.spiffe") });
    let source = ClientCredentials::builder(url, "ID", ClientAuth::assertion(secret)).build_with(http);
    assert_eq!(gets(source).await, token("AT1", 3600));
    done();
}

#[tokio::test]
async fn sap_whose_basic_is_form_encoded() {
    let url = "https://example.accounts.ondemand.com/oauth2/token";
    let turn = post(url).basic("sb-app%21t1", "p%2Bq%3D").form(&[("grant_type", "client_credentials")]);
    let (http, done) = provider([turn.answers(200, &a_token())]);
    let source = ClientCredentials::builder(url, "sb-app!t1", "p+q=").build_with(http);
    assert_eq!(gets(source).await, token("AT1", 3600));
    done();
}

#[tokio::test]
async fn shopify() {
    let url = "https://shop.myshopify.com/admin/oauth/access_token";
    let fields = [("grant_type", "client_credentials"), ("client_id", "ID"), ("client_secret", "S")];
    let answer =
        json!({ "access_token": "shpat_1", "scope": "read_orders,write_orders", "expires_in": 86399 });
    let (http, done) = provider([post(url).form(&fields).answers(200, &answer)]);
    let source = ClientCredentials::builder(url, "ID", ClientAuth::post("S"))
        .required_scope("write_orders")
        .build_with(http);
    assert_eq!(gets(source).await, token("shpat_1", 86_399));
    done();
}

#[tokio::test]
async fn slack_rotation() {
    let url = "https://slack.com/api/oauth.v2.access";
    let turn = |refresh: &str| {
        let fields = [
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh),
            ("client_id", "ID"),
            ("client_secret", "S"),
        ];
        post(url).form(&fields)
    };
    let rotated = json!({ "ok": true, "access_token": "xoxe.xoxb-1", "token_type": "bot", "expires_in": 43200,
        "refresh_token": "xoxe-2" });
    let dead = json!({ "ok": false, "error": "invalid_refresh_token" });
    let (http, done) = provider([turn("xoxe-1").answers(200, &rotated), turn("xoxe-2").answers(200, &dead)]);
    let source = RefreshTokenGrant::builder(url, "ID", ClientAuth::post("S"))
        .refresh_token("xoxe-1")
        .token_type("bot")
        .build_with(http)
        .unwrap();
    assert_eq!(fetch(&source).await.unwrap().lifetime().unwrap().as_secs(), 43_200);
    let forced = source.token(TokenRequest::new(FetchReason::Forced)).await;
    assert!(forced.unwrap_err().kind() == ErrorKind::Grant && !source.has_refresh_token());
    done();
}

#[tokio::test]
async fn mcp_server_with_metadata_behind_the_path() {
    let issuer = "https://as.example.com/tenant";
    let document = json!({ "issuer": issuer, "token_endpoint": "https://as.example.com/tenant/token" });
    let fields = [("grant_type", "client_credentials"), ("resource", "https://mcp.example.com/mcp")];
    let (http, done) = provider([
        get("https://as.example.com/.well-known/oauth-authorization-server/tenant").answers(404, &json!({})),
        get("https://as.example.com/.well-known/openid-configuration/tenant").answers(200, &document),
        post("https://as.example.com/tenant/token")
            .basic("ID", "SECRET")
            .form(&fields)
            .answers(200, &a_token()),
    ]);
    let source = ClientCredentials::builder(Issuer::new(issuer), "ID", "SECRET")
        .resource("https://mcp.example.com/mcp")
        .build_with(http);
    assert_eq!(gets(source).await, token("AT1", 3600));
    done();
}

// --- What is refused ---

#[test]
fn what_would_put_a_secret_into_a_url_or_cannot_be_said_is_refused() {
    let url = "https://api.example.com/token";
    let (http, _) = provider([]);
    for (builder, said) in [
        (CustomGrant::get(url).secret_param("key", "S"), "use secret_header"),
        (CustomGrant::get(url).client("ID", ClientAuth::post("S")), "would stand in the URL"),
        (CustomGrant::get(url).param_json("a", "1"), "use CustomGrant::json"),
        (CustomGrant::json(url).param_json("a", "{"), "it is not JSON"),
        (CustomGrant::json(url).header("a b", "c"), "not a valid header name"),
        (CustomGrant::json(url).header("a", "c\n"), "none that a header may have"),
        (CustomGrant::json(url).secret_header("a", "c\nd"), "none that a header may have"),
        (CustomGrant::json(url).secret_header("a", "\n"), "it is empty"),
        (CustomGrant::json(url).header("Content-Type", "c"), "the source sets it"),
        (CustomGrant::json(url).header("Authorization", "c"), "use secret_header"),
        (CustomGrant::json(url).refusal_member("ok", "no"), "is not JSON"),
    ] {
        let error = builder.build_with(http.clone()).unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains(said), "{error} <- {said}");
    }
}

#[tokio::test]
async fn a_refusal_that_the_body_alone_tells_is_one() {
    let url = "https://api.example.com/token";
    let turn = |answer: &Value| post(url).json(json!({})).answers(200, answer);
    for (answer, member) in [
        (json!({ "ok": false, "access_token": "AT1" }), None),
        (json!({ "status": { "code": 7 }, "access_token": "AT1" }), Some(("/status/code", "7"))),
        (json!({ "result": "failed", "access_token": "AT1" }), Some(("result", "\"failed\""))),
    ] {
        let (http, done) = provider([turn(&answer)]);
        let mut builder = CustomGrant::json(url);
        if let Some((name, value)) = member {
            builder = builder.refusal_member(name, value);
        }
        let error = fetch(&builder.build_with(http).unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
        done();
    }
}
