//! What the other grants send, and what they make of an answer.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tower_oauth2::grants::{CustomGrant, SecurityToken, TokenExchange, TokenType};
use tower_oauth2::{
    AccessToken, ClientAuth, Error, ErrorKind, FetchReason, FileToken, Secret, TokenCache, TokenRequest,
    TokenSource, source_fn,
};

use crate::scripted::{Scripted, URL, a_token, answer};

async fn ask(source: &impl TokenSource) -> Result<AccessToken, Error> {
    source.token(TokenRequest::new(FetchReason::Initial)).await
}

/// Sends what a builder makes of a vector's parameters, and returns the body.
macro_rules! body_of {
    ($builder:expr) => {{
        let endpoint = Scripted::new([a_token()]);
        ask(&$builder.build_with(endpoint.clone()).unwrap()).await.unwrap();
        endpoint.seen().remove(0)
    }};
}

fn vector(set: &str, id: &str) -> Value {
    let path = format!("{}/tests/vectors/{set}.json", env!("CARGO_MANIFEST_DIR"));
    let set: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    set["vectors"].as_array().unwrap().iter().find(|vector| vector["id"] == id).unwrap().clone()
}

/// The order of parameters is free (the vectors say so), so pairs are compared.
#[track_caller]
fn assert_sends(body: &str, id: &str) {
    let mut sent: Vec<(String, String)> = form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    let vector = vector("token_request", id);
    let pairs = vector["expect"]["decoded"].as_array().unwrap().iter();
    let mut expected: Vec<(String, String)> = pairs
        .map(|pair| (pair[0].as_str().unwrap().to_owned(), pair[1].as_str().unwrap().to_owned()))
        .collect();
    sent.sort();
    expected.sort();
    assert_eq!(sent, expected, "{id}");
}

fn subject() -> SecurityToken {
    SecurityToken::new("S", TokenType::JWT)
}

// --- TokenExchange ---

#[tokio::test]
async fn an_exchange_sends_what_its_vectors_do() {
    let token = SecurityToken::new("accVkjcJyb4BWCxGsndESCJQbdFMogUC5PbRDqceLTC", TokenType::ACCESS_TOKEN);
    let seen = body_of!(
        TokenExchange::builder(URL, token)
            .client("rs08", "secret")
            .resource("https://backend.example.com/api")
    );
    assert_sends(&seen.body, "TQ-013");
    assert!(seen.headers["authorization"].to_str().unwrap().starts_with("Basic "));

    let seen = body_of!(
        TokenExchange::builder(URL, subject())
            .actor(SecurityToken::new("A", TokenType::JWT))
            .requested_token_type(TokenType::ACCESS_TOKEN)
            .audience("backend")
    );
    assert_sends(&seen.body, "TQ-014");
    assert!(!seen.headers.contains_key("authorization"));
}

#[tokio::test]
async fn audience_and_resource_may_repeat() {
    let seen = body_of!(
        TokenExchange::builder(URL, subject())
            .audience("a")
            .audience("b")
            .resource("urn:a")
            .resource("urn:b")
    );
    assert!(seen.body.ends_with("&audience=a&audience=b&resource=urn%3Aa&resource=urn%3Ab"), "{}", seen.body);
}

#[tokio::test]
async fn the_type_of_the_issued_token_can_be_read() {
    for (id, issued) in [("TR-073", Some("urn:ietf:params:oauth:token-type:access_token")), ("TR-075", None)]
    {
        let body = vector("token_response", id)["input"]["body"].as_str().unwrap().to_owned();
        let endpoint = Scripted::new([answer(200, &body)]);
        let source = TokenExchange::builder(URL, subject()).build_with(endpoint).unwrap();
        let token = ask(&source).await.unwrap();
        assert_eq!(token.header_value(), "Bearer AT1");
        assert_eq!(token.expose_extra("issued_token_type"), issued, "{id}");
    }
}

#[tokio::test]
async fn a_token_that_is_no_access_token_is_never_one() {
    let body = vector("token_response", "TR-074")["input"]["body"].as_str().unwrap().to_owned();
    let endpoint = Scripted::new([answer(200, &body)]);
    let source = TokenExchange::builder(URL, subject()).build_with(endpoint).unwrap();
    let error = ask(&source).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Protocol && error.to_string().contains("N_A"), "{error}");
}

#[tokio::test]
async fn an_invalid_target_is_final() {
    let endpoint = Scripted::new([answer(400, r#"{"error":"invalid_target"}"#)]);
    let source = TokenExchange::builder(URL, subject()).build_with(endpoint.clone()).unwrap();
    let error = ask(&source).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.code() == Some("invalid_target"), "{error}");
    assert!(endpoint.is_finished());
}

#[tokio::test]
async fn a_server_that_wants_a_client_is_told_apart_from_one_that_refuses_it() {
    for (builder, advice) in [
        (TokenExchange::builder(URL, subject()), "set client()"),
        (
            TokenExchange::builder(URL, subject()).client("id", "secret"),
            "check the client id, the client secret",
        ),
    ] {
        let endpoint = Scripted::new([answer(401, r#"{"error":"invalid_client"}"#)]);
        let error = ask(&builder.build_with(endpoint).unwrap()).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains(advice), "{error}");
    }
}

#[tokio::test]
async fn a_source_is_asked_at_each_exchange() {
    let count = Arc::new(AtomicUsize::new(0));
    let asked = Arc::clone(&count);
    let workload = source_fn(move |_request| {
        let number = asked.fetch_add(1, Ordering::Relaxed);
        async move { AccessToken::bearer(format!("S{number}")) }
    });
    let endpoint = Scripted::new([a_token(), a_token()]);
    let subject = SecurityToken::new(workload, TokenType::JWT);
    let source = TokenExchange::builder(URL, subject).build_with(endpoint.clone()).unwrap();
    ask(&source).await.unwrap();
    ask(&source).await.unwrap();
    let bodies: Vec<String> = endpoint.seen().into_iter().map(|seen| seen.body).collect();
    assert!(bodies[0].contains("subject_token=S0&") && bodies[1].contains("subject_token=S1&"), "{bodies:?}");
}

#[tokio::test]
async fn a_subject_that_was_revoked_is_renewed_and_tried_once_more() {
    let requests: Arc<Mutex<Vec<FetchReason>>> = Arc::default();
    let log = Arc::clone(&requests);
    let workload = source_fn(move |request: TokenRequest| {
        log.lock().unwrap().push(request.reason());
        let number = log.lock().unwrap().len();
        async move { AccessToken::bearer(format!("S{number}")) }
    });
    let cache = TokenCache::new(workload);
    let subject = SecurityToken::new(cache.as_source(), TokenType::ACCESS_TOKEN);
    let refused = || answer(400, r#"{"error":"invalid_grant"}"#);
    let endpoint = Scripted::new([refused(), a_token(), a_token(), refused(), refused()]);
    let source = TokenExchange::builder(URL, subject).build_with(endpoint.clone()).unwrap();
    ask(&source).await.unwrap();
    assert_eq!(*requests.lock().unwrap(), [FetchReason::Initial, FetchReason::Rejected]);
    ask(&source).await.unwrap();
    assert_eq!(requests.lock().unwrap().len(), 2, "the cached one serves");
    let error = ask(&source).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Grant, "{error}");
    let subjects: Vec<String> = endpoint
        .seen()
        .into_iter()
        .map(|seen| seen.body.split("subject_token=").nth(1).unwrap().split('&').next().unwrap().to_owned())
        .collect();
    assert_eq!(subjects, ["S1", "S2", "S2", "S2", "S3"]);
}

#[tokio::test]
async fn a_subject_that_was_refused_is_not_shown_when_the_next_one_is_refused() {
    let subjects = Arc::new(AtomicUsize::new(0));
    let workload = source_fn(move |_request| {
        let number = subjects.fetch_add(1, Ordering::Relaxed);
        async move { AccessToken::bearer(["9f31c07e55", "Zk42Qx88Lm"][number]) }
    });
    let echo = r#"{"error":"invalid_grant","error_description":"neither 9f31c07e55 nor Zk42Qx88Lm"}"#;
    let endpoint = Scripted::new([answer(400, r#"{"error":"invalid_grant"}"#), answer(400, echo)]);
    let subject = SecurityToken::new(workload, TokenType::JWT);
    let error =
        ask(&TokenExchange::builder(URL, subject).build_with(endpoint.clone()).unwrap()).await.unwrap_err();
    let shown = format!("{error} {error:?}");
    assert!(
        shown.contains("neither") && !shown.contains("9f31c07e55") && !shown.contains("Zk42Qx88Lm"),
        "{shown}"
    );
    assert!(endpoint.is_finished());
}

#[tokio::test]
async fn a_subject_that_stays_the_same_is_not_sent_again() {
    let endpoint = Scripted::new([answer(400, r#"{"error":"invalid_request"}"#)]);
    let source = TokenExchange::builder(URL, subject()).build_with(endpoint.clone()).unwrap();
    assert_eq!(ask(&source).await.unwrap_err().kind(), ErrorKind::Config);
    assert!(endpoint.is_finished());
}

#[tokio::test]
async fn a_token_that_is_not_taken_in_exchange_is_what_there_is_to_look_at() {
    for (code, is_grant) in [("invalid_grant", true), ("invalid_request", false)] {
        let endpoint = Scripted::new([answer(400, &format!(r#"{{"error":"{code}"}}"#))]);
        let source = TokenExchange::builder(URL, subject()).client("id", "secret").build_with(endpoint);
        let error = ask(&source.unwrap()).await.unwrap_err();
        let said = error.to_string();
        assert_eq!((error.kind() == ErrorKind::Grant, error.code()), (is_grant, Some(code)), "{said}");
        assert!(said.contains("check the token that is exchanged: its expiry, its audience"), "{said}");
        assert!(!said.contains("the grant has expired"), "{said}");
    }
}

#[test]
fn an_exchange_is_as_disposable_as_what_it_exchanges() {
    struct Keeper;

    impl TokenSource for Keeper {
        async fn token(&self, _request: TokenRequest) -> Result<AccessToken, Error> {
            AccessToken::bearer("S")
        }

        fn is_disposable(&self) -> bool {
            false
        }
    }

    let keeper = || SecurityToken::new(Keeper, TokenType::JWT);
    for (builder, is_disposable) in [
        (TokenExchange::builder(URL, subject()), true),
        (TokenExchange::builder(URL, keeper()), false),
        (TokenExchange::builder(URL, subject()).actor(keeper()), false),
    ] {
        assert_eq!(builder.build_with(Scripted::new([])).unwrap().is_disposable(), is_disposable);
    }
}

#[tokio::test]
async fn without_a_subject_nothing_is_sent() {
    let endpoint = Scripted::new([]);
    let sealed =
        source_fn(|_request| async { Err(Error::new(ErrorKind::Transient, "the pod has no token yet")) });
    let subject = SecurityToken::new(sealed, TokenType::JWT);
    let source = TokenExchange::builder(URL, subject).build_with(endpoint.clone()).unwrap();
    assert_eq!(ask(&source).await.unwrap_err().to_string(), "the pod has no token yet");
    assert!(endpoint.seen().is_empty());
}

#[tokio::test]
async fn what_an_exchange_sets_by_itself_and_types_that_are_empty_are_refused() {
    let build = |builder: tower_oauth2::grants::GrantBuilder<TokenExchange>| {
        builder.build_with(Scripted::new([])).unwrap_err().to_string()
    };
    let twice = build(TokenExchange::builder(URL, subject()).param("subject_token", "x"));
    assert!(twice.starts_with("param: \"subject_token\"") && twice.contains("own setter"), "{twice}");
    let actor = SecurityToken::new("A", TokenType::new(""));
    let untyped = build(TokenExchange::builder(URL, subject()).actor(actor));
    assert!(untyped.starts_with("actor: its token type is empty"), "{untyped}");
    let nobody = build(TokenExchange::builder(URL, subject()).client("", "hunter2-hunter2"));
    assert!(nobody.starts_with("client_id: it is empty"), "{nobody}");
}

// --- FileToken ---

#[tokio::test]
async fn a_file_that_changed_is_read_when_its_token_is_rejected_and_then_serves_all() {
    let path = std::env::temp_dir().join(format!("tower-oauth2-projected-{}", std::process::id()));
    std::fs::write(&path, "first").unwrap();
    let cache = TokenCache::new(FileToken::new(&path));
    let first = cache.get().await.unwrap();
    std::fs::write(&path, "second").unwrap();
    assert_eq!(cache.get().await.unwrap().header_value(), "Bearer first", "a token that is good is kept");
    cache.reject(&first);
    assert_eq!(cache.get().await.unwrap().header_value(), "Bearer second");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(cache.get().await.unwrap().header_value(), "Bearer second", "nothing is read without need");
    cache.invalidate();
    let error = cache.get().await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Transient && error.to_string().contains("tower-oauth2-projected"),
        "{error}"
    );
}

// --- CustomGrant ---

#[tokio::test]
async fn a_custom_grant_sends_its_type_and_its_parameters() {
    let seen = body_of!(
        CustomGrant::builder(URL, "password")
            .client("id", "secret")
            .param("username", "KEY-ID")
            .secret_param("password", "p=w d")
    );
    assert_eq!(seen.body, "grant_type=password&username=KEY-ID&password=p%3Dw+d");
    assert!(seen.headers.contains_key("authorization"));
    let jwt_bearer = "urn:ietf:params:oauth:grant-type:jwt-bearer";
    let seen = body_of!(CustomGrant::builder(URL, jwt_bearer).secret_param("assertion", "eyJh.eyJp.c2ln"));
    assert_eq!(seen.body, vector("token_request", "TQ-012")["expect"]["body"].as_str().unwrap());
    let public = body_of!(CustomGrant::builder(URL, "urn:x").client("id", ClientAuth::none()));
    assert_eq!(public.body, "grant_type=urn%3Ax&client_id=id");
    assert!(!public.headers.contains_key("authorization"));
}

#[tokio::test(start_paused = true)]
async fn a_parameter_by_closure_is_another_one_at_each_attempt() {
    let count = AtomicUsize::new(0);
    let password = Secret::from_fn(move || {
        let number = count.fetch_add(1, Ordering::Relaxed);
        async move { Ok::<_, Error>(format!("otp{number}")) }
    });
    let endpoint = Scripted::new([answer(503, ""), a_token()]);
    let source = CustomGrant::builder(URL, "urn:otp").secret_param("otp", password);
    ask(&source.build_with(endpoint.clone()).unwrap()).await.unwrap();
    let bodies: Vec<String> = endpoint.seen().into_iter().map(|seen| seen.body).collect();
    assert_eq!(bodies, ["grant_type=urn%3Aotp&otp=otp0", "grant_type=urn%3Aotp&otp=otp1"]);
}

#[tokio::test]
async fn a_json_endpoint_gets_json_and_its_members_are_renamed() {
    let answered =
        r#"{"accessToken":"AT1","expiresIn":"3600","refreshToken":"RT1","area":"na1","error":null}"#;
    let endpoint = Scripted::new([answer(200, answered)]);
    let source = CustomGrant::json(URL)
        .param("accessKeyId", "KEY \"ID\"")
        .secret_param("accessKeySecret", "s=c")
        .response_member("access_token", "accessToken")
        .response_member("expires_in", "expiresIn")
        .response_member("refresh_token", "refreshToken")
        .response_member("token_type", "tokenType")
        .build_with(endpoint.clone())
        .unwrap();
    let token = ask(&source).await.unwrap();
    assert_eq!(token.header_value(), "Bearer AT1");
    assert_eq!(token.lifetime().unwrap().as_secs(), 3600);
    assert_eq!(token.expose_refresh_token().unwrap(), "RT1");
    assert_eq!(token.expose_extra("area").unwrap(), "na1");
    let seen = endpoint.seen().remove(0);
    assert_eq!(seen.headers["content-type"], "application/json");
    assert_eq!(seen.body, r#"{"accessKeyId":"KEY \"ID\"","accessKeySecret":"s=c"}"#);
}

#[tokio::test]
async fn an_error_of_a_json_endpoint_is_read_by_its_own_name_too() {
    let refused = r#"{"errorCode":"invalid_grant","message":"the key s3cr3t-s3cr3t is disabled","accessToken":"TOK3N-0123"}"#;
    let endpoint = Scripted::new([answer(400, refused)]);
    let source = CustomGrant::json(URL)
        .secret_param("accessKeySecret", "s3cr3t-s3cr3t")
        .response_member("error", "errorCode")
        .response_member("error_description", "message")
        .build_with(endpoint)
        .unwrap();
    let error = ask(&source).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Grant && error.code() == Some("invalid_grant"), "{error}");
    assert_eq!(error.description(), Some("the key [redacted] is disabled"));
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused() {
    let twice =
        CustomGrant::json(URL).resource("urn:a").resource("urn:b").build_with(Scripted::new([])).unwrap_err();
    assert!(
        twice.kind() == ErrorKind::Config && twice.to_string().starts_with("resource: it is set twice"),
        "{twice}"
    );
    let empty = CustomGrant::builder(URL, "").build_with(Scripted::new([])).unwrap_err();
    assert!(empty.to_string().starts_with("grant_type: "), "{empty}");
    let untyped = TokenExchange::builder(URL, subject()).requested_token_type(TokenType::new(""));
    let empty = untyped.build_with(Scripted::new([])).unwrap_err();
    assert!(
        empty.kind() == ErrorKind::Config
            && empty.to_string().starts_with("requested_token_type: it is empty"),
        "{empty}"
    );
    let own = CustomGrant::json(URL).param("grant_type", "x").build_with(Scripted::new([]));
    assert!(own.is_ok());
}
