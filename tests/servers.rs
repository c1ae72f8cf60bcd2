//! The servers of the quickstart and of the tests keep the promises that those rely on.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test may panic, its helpers too, and it looks at the clock from outside"
)]

#[path = "support/servers/mod.rs"]
mod support;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tower_oauth2::test_util::{FakeAuthorizationServer, FakeClient, Trouble};

use support::{Api, PrivateKey};

type Body = Full<bytes::Bytes>;

/// An answer, read to its end.
struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: bytes::Bytes,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn challenge(&self) -> Option<&str> {
        self.headers.get(header::WWW_AUTHENTICATE).map(|value| value.to_str().unwrap())
    }

    fn access_token(&self) -> String {
        self.json()["access_token"].as_str().unwrap().to_owned()
    }
}

async fn send(request: Request<Body>) -> Reply {
    let client = HttpClient::builder(TokioExecutor::new()).build_http();
    let (head, body) = client.request(request).await.unwrap().into_parts();
    Reply { status: head.status, headers: head.headers, body: body.collect().await.unwrap().to_bytes() }
}

async fn post(url: &str, authorization: Option<&str>, form: &[(&str, &str)]) -> Reply {
    let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let mut request = Request::post(url).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    if let Some(value) = authorization {
        request = request.header(header::AUTHORIZATION, value);
    }
    send(request.body(form.into()).unwrap()).await
}

fn basic(id: &str, secret: &str) -> String {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    format!("Basic {}", BASE64_STANDARD.encode(format!("{}:{}", encode(id), encode(secret))))
}

async fn server() -> FakeAuthorizationServer {
    FakeAuthorizationServer::builder()
        .client(FakeClient::confidential("reports", "hunter2").scopes("read write"))
        .client(FakeClient::confidential("odd: ü&=+%", "s:ecret &=+%/ß").scopes("read"))
        .client(FakeClient::public("phone"))
        .client(FakeClient::trusted("neighbour"))
        .lifetime(Duration::from_secs(60))
        .start()
        .await
        .unwrap()
}

const GRANT: (&str, &str) = ("grant_type", "client_credentials");

#[tokio::test]
async fn clients_are_let_in_by_basic_by_the_body_and_by_name() {
    let server = server().await;
    let url = server.token_url();
    let by_basic = post(&url, Some(&basic("reports", "hunter2")), &[GRANT, ("scope", "read")]).await;
    assert_eq!(by_basic.status, StatusCode::OK);
    assert_eq!(by_basic.headers[header::CACHE_CONTROL], "no-store");
    let answer = by_basic.json();
    assert_eq!((&answer["token_type"], &answer["expires_in"]), (&"Bearer".into(), &60.into()));
    assert_eq!(answer["scope"], "read");
    assert_eq!(answer.get("refresh_token"), None);

    let odd = post(&url, Some(&basic("odd: ü&=+%", "s:ecret &=+%/ß")), &[GRANT]).await;
    assert_eq!(odd.status, StatusCode::OK);
    let form = [GRANT, ("client_id", "odd: ü&=+%"), ("client_secret", "s:ecret &=+%/ß")];
    assert_eq!(post(&url, None, &form).await.status, StatusCode::OK);
    assert_eq!(post(&url, None, &[GRANT, ("client_id", "neighbour")]).await.status, StatusCode::OK);
    assert_eq!(server.counts().tokens, 4);
    assert_eq!(server.counts().refusals, 0);
}

#[tokio::test]
async fn wrong_clients_are_refused_in_the_words_of_the_rfc() {
    let server = server().await;
    let url = server.token_url();
    let wrong = post(&url, Some(&basic("reports", "hunter3")), &[GRANT]).await;
    assert_eq!(
        (wrong.status, wrong.json()["error"].as_str()),
        (StatusCode::UNAUTHORIZED, Some("invalid_client"))
    );
    assert!(wrong.challenge().unwrap().starts_with("Basic "));
    let wrong = post(&url, None, &[GRANT, ("client_id", "reports"), ("client_secret", "no")]).await;
    assert_eq!((wrong.status, wrong.challenge()), (StatusCode::UNAUTHORIZED, None));
    // A name alone is no authentication for a client with a secret; nor are raw halves of Basic that need encoding.
    assert_eq!(post(&url, None, &[GRANT, ("client_id", "reports")]).await.status, StatusCode::UNAUTHORIZED);
    let raw = format!("Basic {}", BASE64_STANDARD.encode("odd: ü&=+%:s:ecret &=+%/ß"));
    assert_eq!(post(&url, Some(&raw), &[GRANT]).await.status, StatusCode::UNAUTHORIZED);

    let code = async |authorization: Option<String>, form: &[(&str, &str)]| {
        let reply = post(&url, authorization.as_deref(), form).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST);
        reply.json()["error"].as_str().unwrap().to_owned()
    };
    let good = || Some(basic("reports", "hunter2"));
    assert_eq!(code(good(), &[GRANT, ("client_secret", "hunter2")]).await, "invalid_request");
    assert_eq!(code(None, &[GRANT]).await, "invalid_request");
    assert_eq!(code(good(), &[]).await, "invalid_request");
    assert_eq!(code(good(), &[("grant_type", "password")]).await, "unsupported_grant_type");
    assert_eq!(code(good(), &[GRANT, ("scope", "read admin")]).await, "invalid_scope");
    assert_eq!(code(None, &[GRANT, ("client_id", "phone")]).await, "unauthorized_client");
    assert_eq!((server.counts().token_requests, server.counts().refusals), (10, 10));
}

#[tokio::test]
async fn an_assertion_is_taken_once_and_only_if_all_of_it_is_right() {
    let (key, other) = (PrivateKey::generate(), PrivateKey::generate());
    let client = FakeClient::by_assertion("robot", key.public().verifier()).scopes("read");
    let server = FakeAuthorizationServer::builder().client(client).start().await.unwrap();
    let claims = |change: fn(&mut Value)| {
        let exp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 60;
        let mut claims =
            json!({ "iss": "robot", "sub": "robot", "aud": server.origin(), "exp": exp, "jti": "one" });
        change(&mut claims);
        claims
    };
    let ask = async |assertion: &str| {
        let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        let form =
            [GRANT, ("client_id", "robot"), ("client_assertion_type", kind), ("client_assertion", assertion)];
        post(&server.token_url(), None, &form).await.status
    };
    let wrong: [fn(&mut Value); 5] = [
        |claims| claims["sub"] = "human".into(),
        |claims| claims["aud"] = "https://elsewhere.example.com".into(),
        |claims| claims["exp"] = 1.into(),
        |claims| claims["exp"] = u64::MAX.into(),
        |claims| claims["jti"] = Value::Null,
    ];
    for change in wrong {
        assert_eq!(ask(&key.sign(&claims(change))).await, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(ask(&other.sign(&claims(|_| ()))).await, StatusCode::UNAUTHORIZED);
    let right = key.sign(&claims(|_| ()));
    assert_eq!(ask(&right).await, StatusCode::OK);
    assert_eq!(ask(&right).await, StatusCode::UNAUTHORIZED);
    server.register(FakeClient::by_assertion("robot", other.public().verifier()).scopes("read"));
    let after = claims(|claims| claims["jti"] = "two".into());
    assert_eq!(ask(&key.sign(&after)).await, StatusCode::UNAUTHORIZED);
    assert_eq!(ask(&other.sign(&after)).await, StatusCode::OK);
    let by_name = post(&server.token_url(), None, &[GRANT, ("client_id", "robot")]).await;
    assert_eq!(by_name.status, StatusCode::UNAUTHORIZED);
    let counts = server.counts();
    assert_eq!((counts.assertions, counts.replayed_assertions, counts.tokens), (2, 1, 2));
}

#[tokio::test]
async fn a_token_of_the_platform_is_exchanged_for_its_workload_alone() {
    let platform = PrivateKey::generate();
    let server = FakeAuthorizationServer::builder()
        .client(FakeClient::workload("billing", "pod-7").scopes("read"))
        .client(FakeClient::public("phone"))
        .platform(platform.public().verifier())
        .start()
        .await
        .unwrap();
    let exp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 60;
    let signed = |sub: &str| platform.sign(&json!({ "sub": sub, "aud": server.origin(), "exp": exp }));
    let ask = async |client: &str, subject: &str| {
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("client_id", client),
            ("subject_token", subject),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        ];
        post(&server.token_url(), None, &form).await
    };
    let granted = ask("billing", &signed("pod-7")).await;
    assert_eq!(granted.status, StatusCode::OK);
    assert_eq!(granted.json()["issued_token_type"], "urn:ietf:params:oauth:token-type:access_token");
    for refused in [ask("billing", &signed("pod-8")).await, ask("phone", &signed("pod-7")).await] {
        assert_eq!(
            (refused.status, &refused.json()["error"]),
            (StatusCode::BAD_REQUEST, &json!("invalid_grant"))
        );
    }
}

#[tokio::test]
async fn a_device_gets_its_tokens_when_its_user_has_agreed() {
    let offline = FakeClient::public("tv").scopes("read offline_access");
    let server = FakeAuthorizationServer::builder().client(offline).start().await.unwrap();
    let client = ("client_id", "tv");
    let begin = async |scope: &str| post(&server.device_url(), None, &[client, ("scope", scope)]).await;
    let poll = async |code: &str| {
        let grant = ("grant_type", "urn:ietf:params:oauth:grant-type:device_code");
        post(&server.token_url(), None, &[client, grant, ("device_code", code)]).await.json()
    };
    assert_eq!(begin("admin").await.json()["error"], "invalid_scope");
    for (scope, is_kept) in [("read offline_access", true), ("read", false)] {
        let told = begin(scope).await.json();
        let text = |name: &str| told[name].as_str().unwrap().to_owned();
        let code = text("device_code");
        assert_eq!(poll(&code).await["error"], "authorization_pending");
        let wrong = post(&text("verification_uri"), None, &[("user_code", "WRONG")]).await;
        assert_eq!(wrong.status, StatusCode::NOT_FOUND);
        let agreed = post(&text("verification_uri"), None, &[("user_code", &text("user_code"))]).await;
        assert_eq!(agreed.status, StatusCode::NO_CONTENT);
        let tokens = poll(&code).await;
        assert_eq!((&tokens["scope"], tokens["refresh_token"].is_string()), (&scope.into(), is_kept));
        // It is good for once.
        assert_eq!(poll(&code).await["error"], "invalid_grant");
    }
}

#[tokio::test]
async fn a_refresh_token_that_comes_twice_ends_everything_of_its_lineage() {
    let server = server().await;
    let api = Api::builder(&server).start().await.unwrap();
    let refresh = async |secret: &str| {
        let form = [("grant_type", "refresh_token"), ("refresh_token", secret), ("client_id", "phone")];
        post(&server.token_url(), None, &form).await
    };
    let first = server.sign_in("phone", "read");
    let other = server.sign_in("phone", "read");
    let reply = refresh(&first).await;
    let second = reply.json()["refresh_token"].as_str().unwrap().to_owned();
    assert_eq!(get(&api, Some(&reply.access_token())).await.status, StatusCode::OK);

    let reused = refresh(&first).await;
    assert_eq!(
        (reused.status, reused.json()["error"].as_str()),
        (StatusCode::BAD_REQUEST, Some("invalid_grant"))
    );
    assert_eq!(server.counts().reuses, 1);
    assert_eq!(refresh(&second).await.json()["error"], "invalid_grant");
    assert_eq!(get(&api, Some(&reply.access_token())).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(refresh(&other).await.status, StatusCode::OK);
}

#[tokio::test]
async fn revocation_and_introspection_agree() {
    let server = server().await;
    let good = basic("reports", "hunter2");
    let token = post(&server.token_url(), Some(&good), &[GRANT]).await.access_token();
    let active = async || {
        let form = [("token", token.as_str())];
        post(&server.introspection_url(), Some(&good), &form).await.json()["active"].as_bool().unwrap()
    };
    assert!(active().await);
    let form = [("token", token.as_str())];
    // Another client cannot revoke it, and is not told so.
    let other = basic("odd: ü&=+%", "s:ecret &=+%/ß");
    assert_eq!(post(&server.revocation_url(), Some(&other), &form).await.status, StatusCode::OK);
    assert!(active().await);
    assert_eq!(post(&server.revocation_url(), Some(&good), &form).await.status, StatusCode::OK);
    assert!(!active().await);
    let stranger = post(&server.introspection_url(), Some(&basic("reports", "no")), &form).await;
    assert_eq!(stranger.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_token_endpoint_says_what_it_was_told_to_say() {
    let server = server().await;
    let good = basic("reports", "hunter2");
    server.fail_next(2, Trouble::TooManyRequests { retry_after: Duration::from_secs(7) });
    server.fail_next(1, Trouble::Unavailable { retry_after: Duration::from_secs(9) });
    let mut seen = Vec::new();
    for _ in 0..4 {
        let reply = post(&server.token_url(), Some(&good), &[GRANT]).await;
        let hint = reply.headers.get(header::RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned());
        seen.push((reply.status.as_u16(), hint));
    }
    let seven = Some("7".to_owned());
    assert_eq!(seen, [(429, seven.clone()), (429, seven), (503, Some("9".to_owned())), (200, None)]);

    server.fail_next(1, Trouble::Hang);
    let url = server.token_url();
    let hanging = post(&url, Some(&good), &[GRANT]);
    assert!(tokio::time::timeout(Duration::from_millis(100), hanging).await.is_err());
    server.stop().await;
    assert!(tokio::net::TcpStream::connect(address(&server.origin())).await.is_err());
    server.restart().await.unwrap();
    assert_eq!(post(&server.token_url(), Some(&good), &[GRANT]).await.status, StatusCode::OK);
    assert_eq!(server.counts().in_progress, 0);
}

#[tokio::test]
async fn the_api_tells_why_it_refuses() {
    let server = server().await;
    let api = Api::builder(&server).start().await.unwrap();
    let good = basic("reports", "hunter2");
    let issue = async || post(&server.token_url(), Some(&good), &[GRANT]).await.access_token();

    assert_eq!(get(&api, None).await.challenge(), Some("Bearer realm=\"items\""));
    let unknown = get(&api, Some("mF_9.B5f-4.1JqM")).await;
    assert!(unknown.challenge().unwrap().contains("error=\"invalid_token\""));
    server.set_lifetime(Duration::ZERO);
    let expired = get(&api, Some(&issue().await)).await;
    assert!(expired.challenge().unwrap().contains("expired"));
    server.set_lifetime(Duration::from_secs(60));
    let (first, second) = (issue().await, issue().await);
    let number = server.revoke_all();
    assert!(get(&api, Some(&first)).await.challenge().unwrap().contains("revoked"));
    assert_eq!(get(&api, Some(&second)).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(get(&api, Some(&issue().await)).await.status, StatusCode::OK);
    assert_eq!(api.unauthorized_by_revocation(number), 2);
    let counts = api.counts();
    assert_eq!((counts.requests, counts.ok, counts.unauthorized, counts.revoked), (6, 1, 5, 2));
}

#[tokio::test]
async fn the_api_takes_a_body_once_and_only_whole() {
    let server = server().await;
    let api = Api::builder(&server).start().await.unwrap();
    let token = post(&server.token_url(), Some(&basic("reports", "hunter2")), &[GRANT]).await.access_token();
    let write = async |id: &str, body: &'static str, digest_of: &str| {
        let request = Request::post(api.origin() + "/items")
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(Api::ITEM_ID, id)
            .header(Api::CONTENT_DIGEST, Api::content_digest(digest_of.as_bytes()));
        send(request.body(body.into()).unwrap()).await.status
    };
    assert_eq!(write("1", "half", "half and half").await, StatusCode::BAD_REQUEST);
    assert_eq!(write("1", "whole", "whole").await, StatusCode::CREATED);
    assert_eq!(write("1", "whole", "whole").await, StatusCode::CONFLICT);
    let counts = api.counts();
    assert_eq!((counts.ok, counts.wrong_bodies, counts.duplicates), (1, 1, 1));
}

#[tokio::test]
async fn the_api_answers_429_over_its_limit() {
    let server = server().await;
    let api = Api::builder(&server).limit(2).start().await.unwrap();
    let token = post(&server.token_url(), Some(&basic("reports", "hunter2")), &[GRANT]).await.access_token();
    for _ in 0..2 {
        assert_eq!(get(&api, Some(&token)).await.status, StatusCode::OK);
    }
    let limited = get(&api, Some(&token)).await;
    assert_eq!(limited.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(limited.headers[header::RETRY_AFTER], "1");
    // A second goes by without anybody waiting for it.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(1)).await;
    tokio::time::resume();
    assert_eq!(get(&api, Some(&token)).await.status, StatusCode::OK);
    assert_eq!(api.counts().limited, 1);
}

async fn get(api: &Api, token: Option<&str>) -> Reply {
    let mut request = Request::get(api.origin() + "/items/7");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    send(request.body(Body::default()).unwrap()).await
}

fn address(origin: &str) -> &str {
    origin.strip_prefix("http://").unwrap()
}
