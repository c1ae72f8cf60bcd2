//! The handle with a base URL, over the layers and a server in memory.

#![cfg(feature = "stack")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "tests look at the paused clock")]

use std::convert::Infallible;
use std::error::Error as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use serde_json::{Value, json};
use tower::{BoxError, Layer as _, ServiceBuilder, ServiceExt as _, service_fn};
use tower_oauth2::auth::{AuthOverride, Rejection};
use tower_oauth2::client::{ApiError, ApiRequest, ApiService, MultipartForm};
use tower_oauth2::extensions::Deadline;
use tower_oauth2::retry::{ReportSlot, RetryOptions, StopReason};
use tower_oauth2::stack::{Stack, StackBody, StackBuilder};
use tower_oauth2::test_util::{FakeApi, FakeAuthorizationServer, FakeClient, Script, ScriptedResponse};
use tower_oauth2::{
    AccessToken, ApiClient, AuthLayer, Body, ClientCredentials, Error, ErrorKind, RetryPolicy, TokenCache,
    source_fn,
};

const BASE: &str = "https://api.example.com/v2";

fn answer(status: u16, body: &'static str) -> ScriptedResponse {
    ScriptedResponse::Reply(Response::builder().status(status).body(Full::from(body)).unwrap())
}

fn layer_token() -> AccessToken {
    AccessToken::bearer("A1").unwrap()
}

fn layer() -> AuthLayer {
    AuthLayer::for_origin(layer_token(), "https://api.example.com").unwrap()
}

#[tokio::test]
async fn what_a_request_is_told_is_what_arrives() {
    let server = Script::new([]);
    let api = ApiClient::new(BASE, layer().layer(server.probe::<Body>())).unwrap();
    let request = api
        .post("reports?draft=1")
        .segment("ann/bob")
        .query(&[("limit", 5)])
        .query([("q", "a b&c".to_owned())])
        .header(ACCEPT, "text/csv")
        .header("x-tag", "one")
        .header("x-tag", "two")
        .extension(Deadline::within(Duration::from_secs(5)))
        .json(&json!({ "month": 11 }));
    request.send().await.unwrap();
    let seen = server.seen();
    let head = &seen[0].head;
    assert_eq!(head.method, Method::POST);
    assert_eq!(head.uri, "https://api.example.com/v2/reports/ann%2Fbob?draft=1&limit=5&q=a+b%26c");
    assert_eq!(head.headers[ACCEPT], "text/csv");
    assert_eq!(head.headers[CONTENT_TYPE], "application/json");
    assert_eq!(head.headers.get_all("x-tag").iter().collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(head.headers[AUTHORIZATION], "Bearer A1");
    assert!(head.extensions.get::<Deadline>().is_some());
    assert_eq!(seen[0].body, r#"{"month":11}"#);
}

#[tokio::test]
async fn each_method_has_its_name_and_a_content_type_of_ones_own_stays() {
    let server = Script::new([]);
    let api = ApiClient::new(BASE, server.probe::<Body>()).unwrap();
    let requests: [ApiRequest<_>; 6] = [
        api.get("x"),
        api.post("x"),
        api.put("x"),
        api.patch("x"),
        api.delete("x"),
        api.request(Method::HEAD, "x"),
    ];
    for request in requests {
        request.header(CONTENT_TYPE, "application/merge-patch+json").json(&1).send().await.unwrap();
    }
    let seen = server.seen();
    let methods: Vec<_> = seen.iter().map(|seen| seen.head.method.as_str()).collect();
    assert_eq!(methods, ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"]);
    for seen in &seen {
        let types: Vec<_> = seen.head.headers.get_all(CONTENT_TYPE).iter().collect();
        assert_eq!(types, ["application/merge-patch+json"]);
    }
}

#[tokio::test]
async fn the_content_type_is_that_of_the_last_body_and_stands_once() {
    let server = Script::new([]);
    let api = ApiClient::new(BASE, server.probe::<Body>()).unwrap();
    let form = || MultipartForm::new().text("a", "1");
    let patch = "application/merge-patch+json";
    let cases = [
        (api.patch("x").json(&1).header(CONTENT_TYPE, patch), Some(patch)),
        (api.patch("x").header(CONTENT_TYPE, patch).json(&1), Some(patch)),
        (api.post("x").json(&1).header(CONTENT_TYPE, patch).form([("a", 1)]), Some(patch)),
        (api.post("x").form([("a", 1)]).json(&1), Some("application/json")),
        (api.post("x").json(&1).form([("a", 1)]), Some("application/x-www-form-urlencoded")),
        (api.post("x").multipart(form()).json(&1), Some("application/json")),
        (api.post("x").json(&1).body("text"), None),
    ];
    for (case, (request, content_type)) in cases.into_iter().enumerate() {
        request.send().await.unwrap();
        let seen = server.seen();
        let types: Vec<_> = seen[0].head.headers.get_all(CONTENT_TYPE).iter().collect();
        assert_eq!(types, Vec::from_iter(content_type), "{case}");
    }
    for request in [
        api.post("x").json(&1).multipart(form()),
        api.post("x").header(CONTENT_TYPE, "multipart/form-data").multipart(form()),
        api.post("x").multipart(form()).header(CONTENT_TYPE, "multipart/form-data"),
    ] {
        request.send().await.unwrap();
        let seen = server.seen();
        let types: Vec<_> = seen[0].head.headers.get_all(CONTENT_TYPE).iter().collect();
        assert_eq!(types.len(), 1, "{types:?}");
        assert!(types[0].to_str().unwrap().starts_with("multipart/form-data; boundary="), "{types:?}");
    }
}

#[tokio::test]
async fn a_post_without_a_body_says_that_it_has_none() {
    let server = Script::new([]);
    let api = ApiClient::new(BASE, server.probe::<Body>()).unwrap();
    let propfind = Method::from_bytes(b"PURGE").unwrap();
    for request in
        [api.post("x"), api.put("x"), api.patch("x"), api.request(propfind, "x"), api.post("x").body("")]
    {
        request.send().await.unwrap();
    }
    assert!(server.seen().iter().all(|seen| seen.head.headers[CONTENT_LENGTH] == "0"));
    // With a body, with a header of the caller's own, and where none is expected, nothing is added.
    let own = api.post("x").header(TRANSFER_ENCODING, "chunked");
    for request in
        [api.get("x"), api.delete("x"), api.request(Method::HEAD, "x"), api.post("x").body("item"), own]
    {
        request.send().await.unwrap();
    }
    let lengths: Vec<_> =
        server.seen().iter().map(|seen| seen.head.headers.get(CONTENT_LENGTH).cloned()).collect();
    assert_eq!(lengths, [const { None }; 5]);
}

#[tokio::test]
async fn what_would_leave_the_base_sends_nothing() {
    let server = Script::new([]);
    let api = ApiClient::new(BASE, layer().layer(server.probe::<Body>())).unwrap();
    let requests = [
        api.get("//evil.com/x"),
        api.get("https://evil.com/x"),
        api.get("/../v1/x"),
        api.get("\\\\evil.com"),
        api.get("a/%2e%2e%2f%252e%252e/x"),
        api.get("<script>"),
        api.get("users").segment(".."),
        api.get("users").segment("").segment("keys"),
    ];
    for request in requests {
        let shown = format!("{request:?}");
        let error = request.send().await.unwrap_err();
        assert!(
            error.is_builder() && error.to_string().starts_with("the request was not sent: its path"),
            "{shown}: {error}"
        );
    }
    let odd = api.get("x").header("no header", "x").send().await.unwrap_err();
    assert!(odd.is_builder() && odd.source().is_some());
    let odd = api.get("x").json(&std::collections::HashMap::from([((1, 2), 3)])).send().await.unwrap_err();
    assert!(odd.is_builder(), "{odd}");
    assert!(server.seen().is_empty(), "something was sent");
}

#[tokio::test]
async fn an_answer_is_read_as_what_is_asked_for() {
    let server = Script::new([
        answer(200, r#"{"id":7}"#),
        answer(200, "\u{feff}{\"id\":8}"),
        answer(200, "\u{feff}plain"),
        answer(200, "bytes"),
        answer(200, r#"{"id":"of-somebody"}"#),
        answer(404, "no such thing"),
    ]);
    let api = ApiClient::new(BASE, server.probe::<Body>()).unwrap();
    // As a task, since what cannot be one is of little use.
    let request = api.get("x");
    let read = async move { request.send().await?.error_for_status()?.json::<Value>().await };
    assert_eq!(tokio::spawn(read).await.unwrap().unwrap()["id"], 7);
    assert_eq!(api.get("x").send().await.unwrap().json::<Value>().await.unwrap()["id"], 8);
    assert_eq!(api.get("x").send().await.unwrap().text().await.unwrap(), "plain");
    assert_eq!(api.get("x").send().await.unwrap().bytes().await.unwrap(), "bytes");
    let error = api.get("x").send().await.unwrap().json::<u32>().await.unwrap_err();
    assert!(error.is_decode() && !error.to_string().contains("of-somebody"), "{error}");
    let response = api.get("x").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    let error = response.error_for_status().unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::NOT_FOUND));
    assert_eq!(error.to_string(), "the API at https://api.example.com returned 404 Not Found");
    let response = api.get("x").send().await.unwrap().into_inner();
    assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_error_tells_what_the_layers_know() {
    let server = Script::new([answer(503, ""), answer(503, "")]);
    let stack = ServiceBuilder::new()
        .layer(RetryPolicy::builder().max_retries(1).build().unwrap())
        .layer(layer())
        .service(server.probe());
    let api = ApiClient::new(BASE, stack).unwrap();
    let error = api.get("x").send().await.unwrap().error_for_status().unwrap_err();
    let report = error.retry_report().unwrap();
    assert_eq!((report.attempts(), report.stop_reason()), (2, &StopReason::AttemptsExhausted));

    let unsent = Script::new([ScriptedResponse::Fail(BoxError::from("the line is cut"))]);
    let api = ApiClient::new(BASE, unsent.probe::<Body>()).unwrap();
    let error = api.get("x").extension(RetryOptions::new()).send().await.unwrap_err();
    assert!(error.is_request() && error.token_error().is_none());
    assert_eq!(error.source().unwrap().to_string(), "the line is cut");

    let nothing =
        source_fn(|_| async { Err::<AccessToken, _>(Error::new(ErrorKind::Grant, "nobody agreed")) });
    let layer = AuthLayer::for_origin(nothing, "https://api.example.com").unwrap();
    let never = Script::new([]);
    let api = ApiClient::new(BASE, layer.layer(never.probe::<Body>())).unwrap();
    let error = api.get("x").send().await.unwrap_err();
    assert!(error.is_request() && error.token_error().unwrap().kind() == ErrorKind::Grant);
    assert!(error.to_string().contains("was not sent: nobody agreed"), "{error}");
    assert!(never.seen().is_empty());
}

#[tokio::test(start_paused = true)]
async fn of_a_url_in_the_error_of_another_crate_the_origin_is_shown() {
    let said =
        "error sending request for url (https://u:S3CR3T@api.example.com/v2/x?api_key=S3CR3T):\nclosed";
    let broken = service_fn(async move |_: Request<Body>| Err::<Response<Body>, BoxError>(said.into()));
    let error = ApiClient::new(BASE, broken).unwrap().get("x").send().await.unwrap_err().to_string();
    assert!(
        error.ends_with("failed: error sending request for url (https://api.example.com): closed"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_error_of_a_status_says_what_the_layers_know() {
    let with = |status: u16, name: &str, value: &str| {
        let head = Response::builder().status(status).header(name, value);
        ScriptedResponse::Reply(head.body(Full::default()).unwrap())
    };
    let refused = || with(401, "www-authenticate", "Bearer error=\"invalid_token\"");
    let scope =
        |params: &str| with(403, "www-authenticate", &format!("Bearer error=\"insufficient_scope\"{params}"));
    let not_again = ", and the request was not sent again: ";
    let rows = [
        (vec![refused(), refused()], format!("401 Unauthorized{not_again}the new token was refused too")),
        (
            vec![scope(", scope=\"items:write\"")],
            "403 Forbidden: it wants a token with the scope items:write; allow it to the client at the authorization \
             server, and ask for it"
                .to_owned(),
        ),
        (
            vec![scope("")],
            "403 Forbidden: it wants a token with more scope; allow it to the client at the authorization server, and \
             ask for it"
                .to_owned(),
        ),
        (
            vec![with(503, "x-should-retry", "false")],
            format!("503 Service Unavailable{not_again}the server says not to retry"),
        ),
        (vec![answer(503, ""), answer(404, "")], "404 Not Found".to_owned()),
    ];
    for (script, expected) in rows {
        let server = Script::new(script);
        let tokens = source_fn(async |_| AccessToken::bearer("A1"));
        let stack = Stack::for_base_url(tokens, BASE).unwrap().build(server.probe());
        let error = ApiClient::new(BASE, stack).unwrap().get("x").send().await.unwrap();
        let error = error.error_for_status().unwrap_err();
        assert_eq!(error.to_string(), format!("the API at https://api.example.com returned {expected}"));
        let missing = expected.contains("the scope items:write").then_some("items:write");
        assert_eq!(error.scope_missing().and_then(|missing| missing.scope()), missing);
        assert_eq!(error.scope_missing().is_some(), expected.starts_with("403"));
    }

    let server = Script::new([with(503, "retry-after", "20")]);
    let stack = Stack::for_base_url(layer_token(), BASE).unwrap().build(server.probe());
    let request = ApiClient::new(BASE, stack).unwrap().get("x").timeout(Duration::from_secs(5));
    let error = request.send().await.unwrap().error_for_status().unwrap_err().to_string();
    let (head, tail) = error.split_once(not_again).unwrap();
    assert_eq!(head, "the API at https://api.example.com returned 503 Service Unavailable");
    assert!(tail.starts_with("a wait of 2") && tail.ends_with("would miss the deadline"), "{tail}");
}

#[test]
fn debug_shows_no_query_no_header_and_no_body() {
    let api = ApiClient::new(BASE, ()).unwrap();
    let request =
        api.get("x?key=s3cret").query(&[("also", "s3cret")]).header("x-key", "s3cret").body("s3cret");
    let shown = format!("{api:?} {request:?}");
    assert!(shown.contains("https://api.example.com/v2") && !shown.contains("s3cret"), "{shown}");
}

/// The code itself is compiled with the docs.
#[test]
fn the_readme_gets_to_the_first_call_in_few_lines() {
    let readme = include_str!("../README.md");
    let section = |name: &str| {
        let title = format!("{name}\n");
        let found = readme.split("\n## ").flat_map(|section| section.split("\n### "));
        found.into_iter().find(|section| section.starts_with(&title)).unwrap()
    };
    // In the order of the page: the program, a field and a function, a test.
    let programs = section("Use").split("```rust").skip(1).map(|code| code.split("```").next().unwrap());
    let own = |code: &str| {
        let shown = code.lines().skip(1).filter(|line| !line.starts_with("use ") && !line.trim().is_empty());
        // `main` with its attribute, its `Ok` and its brace is four lines.
        shown.count() - if code.contains("fn main()") { 4 } else { 0 }
    };
    let lines: Vec<_> = programs.map(own).collect();
    assert_eq!(lines, [4, 7, 6], "statements of the README's programs");
    let reqwest = section("reqwest").split("```rust,no_run\n").nth(1).unwrap().split("```").next().unwrap();
    let lines = reqwest.lines().filter(|line| !line.trim().is_empty()).count();
    assert!(reqwest.contains("fn main()") && (10..=15).contains(&lines), "{lines} lines with reqwest");
}

// --- The client without a parameter ---

#[derive(Clone)]
struct AppState {
    api: ApiClient,
}

async fn path_of(api: &ApiClient, path: &str) -> Result<String, ApiError> {
    api.get(path).send().await?.error_for_status()?.text().await
}

fn fixed() -> AccessToken {
    AccessToken::bearer("A1").unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_client_is_kept_in_a_struct_and_has_tokens_retries_and_a_fake_below() {
    let server =
        FakeAuthorizationServer::builder().client(FakeClient::confidential("billing", "hunter2")).build();
    let items = service_fn(async |request: Request<Body>| {
        Ok::<_, BoxError>(Response::new(Body::from(request.uri().path().to_owned())))
    });
    let api = FakeApi::builder(&server).service(items).build();
    let source = ClientCredentials::builder(server.token_url(), "billing", "hunter2")
        .build_with(server.clone())
        .unwrap();
    let base = format!("{}/v2", FakeApi::ORIGIN);
    let state = AppState { api: ApiClient::builder(base, source).build_with(api.clone()).unwrap() };

    let task = tokio::spawn({
        let state = state.clone();
        async move { path_of(&state.api, "reports").await.unwrap() }
    });
    assert_eq!(task.await.unwrap(), "/v2/reports");
    // The cache is the client's own: what it drops, the next request fetches.
    assert!(state.api.tokens().status().is_ready());
    server.revoke_all();
    assert_eq!(path_of(&state.api, "items").await.unwrap(), "/v2/items");
    assert_eq!((server.counts().token_requests, api.counts().unauthorized), (2, 1));
    assert_eq!(state.api.origin().to_string(), FakeApi::ORIGIN);
    state.api.tokens().shutdown(Duration::from_secs(1)).await.unwrap();
    assert!(path_of(&state.api, "items").await.unwrap_err().token_error().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_builder_tells_what_is_wrong_when_it_builds() {
    let built = |base: &str| ApiClient::builder(base, fixed()).build_with(Script::new([]).probe::<Body>());
    for wrong in
        ["ftp://api.example.com", "https://user@api.example.com", "https://api.example.com/?a=b", "", "x"]
    {
        let error = built(wrong).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{wrong}: {error}");
    }
    // Plain http is for loopback, unless somebody says so.
    let error = built("http://api.internal/v2").unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("plain http"), "{error}");
    assert!(built("http://127.0.0.1:8080/v2").is_ok());
    let server = Script::new([]);
    let api = ApiClient::builder("http://api.internal/v2", fixed()).allow_insecure_http(true);
    api.build_with(server.probe::<Body>()).unwrap().get("x").send().await.unwrap();
    assert_eq!(server.seen()[0].head.headers[AUTHORIZATION], "Bearer A1");
    let error = ApiClient::builder(BASE, fixed())
        .allow_origin("http://files.example.com")
        .build_with(Script::new([]).probe::<Body>())
        .unwrap_err();
    assert!(error.to_string().contains("files.example.com"), "{error}");
}

#[test]
fn what_is_wrong_with_a_base_url_is_said_of_the_base_url() {
    for (base, said) in [
        ("api.example.com/v2", "has no scheme; begin it with https://"),
        ("ftp://api.example.com", "has a scheme that is neither https nor http; begin it with https://"),
        ("wss://api.example.com/v2", "has a scheme that is neither https nor http; begin it with https://"),
        (
            "https://ann:S3CR3T@api.example.com",
            "has a user name or a password in it; take out all up to the @",
        ),
        (
            "http://api.example.com/v2",
            "http://api.example.com is plain http, over which the token can be read on the way; use https, or \
             allow_insecure_http(true) of ApiClient::builder if that is meant",
        ),
    ] {
        let built = ApiClient::builder(base, fixed()).build_with(Script::new([]).probe::<Body>());
        assert_eq!(built.unwrap_err().to_string(), format!("the base URL {said}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_header_that_cannot_be_one_is_named_without_its_value() {
    let api = ApiClient::new(BASE, Script::new([]).probe::<Body>()).unwrap();
    for (name, value, said) in [
        (
            "X-Tenant",
            "S3CR3T\n",
            "the value of the header x-tenant holds a character that no header value may have, such as a line end",
        ),
        (
            "S3CR3T: x",
            "north",
            "the name of a header is empty, or holds a character that no header name may have, such as a space",
        ),
    ] {
        let error = api.get("x").header(name, value).send().await.unwrap_err();
        assert!(error.is_builder() && !format!("{error:?}").contains("S3CR3T"), "{error:?}");
        assert_eq!(error.to_string(), format!("the request was not sent: {said}"));
    }
}

#[tokio::test]
async fn a_length_in_a_header_is_that_of_the_body_or_nothing_is_sent() {
    let server = Script::new([]);
    let api = ApiClient::new(BASE, server.probe::<Body>()).unwrap();
    let post = |length: &'static str| api.post("x").header(CONTENT_LENGTH, length);
    let stream =
        || Body::new(StreamBody::new(stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from("a")))])));
    for wrong in [
        post("3").body("0123"),
        post("5").body("0123"),
        post("four").body("0123"),
        post("4").header(CONTENT_LENGTH, "3").body("0123"),
        // A proxy that passes headers on without the body: the API would take the next request for it.
        post("3"),
        api.get("x").header(CONTENT_LENGTH, "3"),
        post("3").body(Body::new(Full::<Bytes>::from("0123"))),
    ] {
        let error = wrong.send().await.unwrap_err();
        let said = "the request was not sent: its content-length header is not the length of its body; leave the header \
                    out, and the HTTP client sets it";
        assert!(error.is_builder() && error.to_string() == said, "{error}");
    }
    assert!(server.seen().is_empty(), "something was sent");
    for right in [post("4").body("0123"), post("0"), post("1").body(stream())] {
        right.send().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_before_its_length_is_an_error_and_is_not_sent_again() {
    let server = Script::new([]);
    let api = ApiClient::builder(BASE, fixed()).build_with(server.probe::<Body>()).unwrap();
    let put = |length: u64| {
        let frames = ["01", "23"].map(|data| Ok::<_, Infallible>(Frame::data(Bytes::from(data))));
        let body = Body::new(StreamBody::new(stream::iter(frames)));
        api.put("x").header(CONTENT_LENGTH, length).body(body).send()
    };
    let start = tokio::time::Instant::now();
    let error = put(9).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the body of the request to https://api.example.com could not be sent: it ended 5 bytes before the length in its \
         content-length header; check what it is read from"
    );
    assert!(error.is_request() && start.elapsed().is_zero() && server.seen().is_empty());
    put(4).await.unwrap();
    assert_eq!(server.seen()[0].body, "0123");
}

#[tokio::test]
async fn a_credential_in_a_header_is_marked_as_one() {
    let server = Script::new([]);
    let api = ApiClient::builder(BASE, fixed()).default_header("cookie", "S3CR3T");
    let api = api.build_with(server.probe::<Body>()).unwrap();
    let request = api.get("x").header("authorization", "Basic S3CR3T").header("x-tenant", "north");
    request.header("proxy-authorization", "Basic S3CR3T").send().await.unwrap();
    let headers = &server.seen()[0].head.headers;
    assert_eq!(headers["authorization"], "Basic S3CR3T");
    let shown = format!("{headers:?}");
    assert!(!shown.contains("S3CR3T") && shown.contains("north"), "{shown}");
}

#[tokio::test]
async fn a_slash_alone_is_the_base_url_with_a_slash_behind_it() {
    let server = Script::new([]);
    let api = ApiClient::new(BASE, server.probe::<Body>()).unwrap();
    for request in [api.get(""), api.get("/"), api.get("").segment("50%fat"), api.get("/").segment("a")] {
        request.send().await.unwrap();
    }
    let asked: Vec<_> = server.seen().iter().map(|seen| seen.head.uri.path().to_owned()).collect();
    assert_eq!(asked, ["/v2", "/v2/", "/v2/50%25fat", "/v2/a"]);
}

#[tokio::test(start_paused = true)]
async fn a_default_header_is_on_each_request_that_does_not_have_it() {
    let server = Script::new([answer(503, ""), answer(200, ""), answer(200, "")]);
    let api = ApiClient::builder(BASE, fixed())
        .default_header("user-agent", "billing/1.3")
        .default_header("User-Agent", "billing/1.4")
        .default_header("accept", "text/csv")
        .default_header(AUTHORIZATION, "Bearer of-nobody");
    let api = api.build_with(server.probe::<Body>()).unwrap();
    api.get("x").send().await.unwrap();
    api.get("x").header("accept", "text/html").header("accept", "text/plain").send().await.unwrap();
    let seen = server.seen();
    let accepted = |at: usize| seen[at].head.headers.get_all("accept").iter().collect::<Vec<_>>();
    assert_eq!(accepted(0), ["text/csv"]);
    assert_eq!(accepted(1), ["text/csv"]);
    assert_eq!(accepted(2), ["text/html", "text/plain"]);
    for seen in &seen {
        let headers = &seen.head.headers;
        assert_eq!(headers.get_all("user-agent").iter().collect::<Vec<_>>(), ["billing/1.4"]);
        assert_eq!(headers.get_all(AUTHORIZATION).iter().collect::<Vec<_>>(), ["Bearer A1"]);
    }
    // It may be a key, which was meant for the API.
    let server = Script::new([answer(200, ""), answer(200, "")]);
    let api = ApiClient::builder(BASE, fixed()).default_header("x-key", "S3CR3T");
    let api = api.allow_origin("https://files.example.com").build_with(server.probe::<Body>()).unwrap();
    for (uri, has_key) in [("https://files.example.com/f", true), ("https://elsewhere.example/f", false)] {
        let request = Request::get(uri).extension(AuthOverride::anonymous()).body(Body::empty()).unwrap();
        api.get_ref().clone().oneshot(request).await.unwrap();
        let seen = server.seen();
        assert_eq!(seen.last().unwrap().head.headers.contains_key("x-key"), has_key, "{uri}");
    }
    for (name, value, said) in [
        ("x-tenant", "S3CR3T\n", "default_header: x-tenant has a value that no header may have"),
        ("S3CR3T: x", "north", "default_header: it has a name that no header may have"),
        (
            "Host",
            "other.example.com",
            "default_header: host is different for each request, and set by the HTTP client; leave it out",
        ),
        (
            "content-length",
            "7",
            "default_header: content-length is different for each request, and set by the HTTP client; leave it out",
        ),
    ] {
        let api = ApiClient::builder(BASE, fixed()).default_header(name, value).default_header("a", "b");
        assert!(!format!("{api:?}").contains("S3CR3T"));
        let error = api.build_with(server.probe::<Body>()).unwrap_err();
        assert!(error.to_string() == said && !format!("{error:?}").contains("S3CR3T"), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_options_of_the_builder_reach_the_wire() {
    let moved = || {
        let response = Response::builder().status(307).header("location", "/v2/elsewhere");
        ScriptedResponse::Reply(response.body(Full::default()).unwrap())
    };
    let server = Script::new([moved(), answer(200, "")]);
    let api = ApiClient::builder(BASE, fixed())
        .auth(|layer| layer.header("x-api-key".parse().unwrap()))
        .request_id("x-request-id".parse().unwrap())
        .allow_origin("https://files.example.com")
        .build_with(server.probe::<Body>())
        .unwrap();
    api.get("x").send().await.unwrap();
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    for seen in &seen {
        assert_eq!(seen.head.headers["x-api-key"], "A1");
        assert!(!seen.head.headers.contains_key(AUTHORIZATION));
    }
    assert_eq!(seen[0].head.headers["x-request-id"], seen[1].head.headers["x-request-id"]);
    // The service itself takes whole URLs, to the origins that were named.
    for (url, sent) in [("https://files.example.com/7", true), ("https://evil.example.com/7", false)] {
        let request = Request::get(url).body(Body::empty()).unwrap();
        assert_eq!(api.get_ref().clone().oneshot(request).await.is_ok(), sent, "{url}");
    }
    let seen = server.seen();
    assert_eq!((seen.len(), &seen[0].head.headers["x-api-key"]), (1, &"A1".parse().unwrap()));
    // No redirect is followed where none is wanted.
    let server = Script::new([moved()]);
    let api = ApiClient::builder(BASE, fixed()).redirects(0).build_with(server.probe::<Body>()).unwrap();
    assert_eq!(api.get("x").send().await.unwrap().status(), 307);
}

#[tokio::test(start_paused = true)]
async fn each_timeout_is_told_as_one() {
    let second = Duration::from_secs(1);
    let over = |builder: fn(StackBuilder<ApiClient>) -> StackBuilder<ApiClient>| {
        let server = Script::new([
            ScriptedResponse::Hang,
            ScriptedResponse::Hang,
            ScriptedResponse::Hang,
            ScriptedResponse::Hang,
        ]);
        builder(ApiClient::builder(BASE, fixed())).build_with(server.probe::<Body>()).unwrap()
    };
    let attempt = over(|builder| builder.attempt_timeout(Duration::from_secs(2))).post("x");
    let total = over(|builder| builder.total_timeout(Duration::from_secs(3))).get("x");
    let own = over(|builder| builder.total_timeout(Duration::from_secs(9))).get("x").timeout(second);
    for (name, request, limit) in [("attempt", attempt, 2), ("total", total, 3), ("own", own, 1)] {
        let start = tokio::time::Instant::now();
        let error = request.send().await.unwrap_err();
        assert!(error.is_timeout() && error.is_request() && !error.is_connect(), "{name}: {error:?}");
        let which = if name == "attempt" { "within 2s, the attempt_timeout" } else { "deadline" };
        assert!(error.to_string().contains(which), "{name}: {error}");
        assert_eq!(start.elapsed().as_secs(), limit, "{name}");
    }
    // Those of others too: tower's layer, as where layers are composed by hand, and a client with one of tokio's.
    let below =
        ServiceBuilder::new().timeout(second).service(Script::new([ScriptedResponse::Hang]).probe::<Body>());
    let api = ApiClient::new(BASE, below).unwrap();
    assert!(api.post("x").send().await.unwrap_err().is_timeout());
    let below = service_fn(async |_: Request<Body>| {
        let never = std::future::pending::<Result<Response<Body>, BoxError>>();
        tokio::time::timeout(Duration::from_secs(1), never).await?
    });
    assert!(ApiClient::new(BASE, below).unwrap().post("x").send().await.unwrap_err().is_timeout());
    // The response before is returned where there is one.
    let server = Script::new([answer(503, "busy"), ScriptedResponse::Hang]);
    let api = ApiClient::builder(BASE, fixed()).build_with(server.probe::<Body>()).unwrap();
    let response = api.get("x").timeout(5 * second).send().await.unwrap();
    assert_eq!((response.status(), server.seen().len()), (StatusCode::SERVICE_UNAVAILABLE, 2));
    // Of a timeout and a deadline the earlier counts.
    for (timeout, deadline, limit) in [(second, 5 * second, 1), (5 * second, second, 1)] {
        let start = tokio::time::Instant::now();
        let request = over(|builder| builder).get("x").timeout(timeout).extension(Deadline::within(deadline));
        assert!(request.send().await.unwrap_err().is_timeout());
        assert_eq!(start.elapsed().as_secs(), limit);
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_covers_the_wait_at_the_limit() {
    let second = Duration::from_secs(1);
    let hang = || Script::new([ScriptedResponse::Hang, ScriptedResponse::Hang]).probe();
    let bare = ServiceBuilder::new().concurrency_limit(1).layer(layer()).service(hang());
    let builder = || ApiClient::builder(BASE, fixed()).concurrency_limit(1);
    let own = builder().build_with(hang()).unwrap();
    let total = builder().total_timeout(3 * second).build_with(hang()).unwrap();
    let bare = ApiClient::new(BASE, ApiService::new(TokenCache::new(fixed()), bare)).unwrap();
    for (api, timeout, limit) in [(own, Some(second), 1), (total, None, 3), (bare, Some(second), 1)] {
        // It has the one place, and gets no response.
        let first = tokio::spawn(api.post("x").send());
        tokio::task::yield_now().await;
        let request = api.get("x");
        let request = if let Some(timeout) = timeout { request.timeout(timeout) } else { request };
        let start = tokio::time::Instant::now();
        let error = request.send().await.unwrap_err();
        assert!(error.is_timeout() && error.is_request() && !error.is_connect(), "{error:?}");
        assert_eq!(start.elapsed().as_secs(), limit);
        let is_told = error.to_string().contains("was not sent: it waited for its turn until the deadline");
        assert!(timeout.is_none() || is_told, "{error}");
        first.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_covers_the_body() {
    let second = Duration::from_secs(1);
    let stalls = || {
        service_fn(async |_: Request<Body>| {
            let begun = stream::iter([Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"{")))]);
            Ok::<_, BoxError>(Response::new(Body::new(StreamBody::new(begun.chain(stream::pending())))))
        })
    };
    let own = ApiClient::builder(BASE, fixed()).build_with(stalls()).unwrap();
    let total = ApiClient::builder(BASE, fixed()).total_timeout(3 * second).build_with(stalls()).unwrap();
    let raw = ApiClient::new(BASE, stalls()).unwrap();
    let late = Deadline::within(9 * second);
    for (request, limit) in [
        (own.get("x").extension(Deadline::within(second)), 1),
        (own.get("x").timeout(second), 1),
        (own.get("x").timeout(second).extension(late), 1),
        (total.get("x"), 3),
        (total.get("x").timeout(second), 1),
        (total.get("x").timeout(9 * second), 3),
    ] {
        let start = tokio::time::Instant::now();
        let response = request.send().await.unwrap();
        let error = response.json::<Value>().await.unwrap_err();
        assert!(error.is_timeout() && error.is_body(), "{error:?}");
        assert_eq!(start.elapsed().as_secs(), limit);
    }
    let response = raw.get("x").timeout(second).send().await.unwrap();
    assert!(response.text().await.unwrap_err().is_timeout());
}

#[tokio::test(start_paused = true)]
async fn a_report_is_never_that_of_the_request_before() {
    let slot = ReportSlot::new();
    let options = || RetryOptions::new().max_retries(0).report_to(&slot);
    let hang = || ScriptedResponse::Hang;
    let server = Script::new([answer(503, ""), hang(), answer(503, ""), hang()]);
    let api = ApiClient::builder(BASE, fixed()).concurrency_limit(1).build_with(server.probe()).unwrap();
    for wrong in [true, false] {
        api.get("x").extension(options()).send().await.unwrap();
        let first = tokio::spawn(api.post("x").send());
        tokio::task::yield_now().await;
        // Neither comes to the retries: it cannot be made, or waits for its turn.
        let request = if wrong { api.get("a b") } else { api.get("x").timeout(Duration::from_secs(1)) };
        request.extension(options()).send().await.unwrap_err();
        assert!(slot.take().is_none(), "{wrong}");
        first.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_holds_over_a_service_without_a_retry_layer() {
    let second = Duration::from_secs(1);
    let hang = || Script::new([ScriptedResponse::Hang]).probe::<Body>();
    let raw = || ApiClient::new(BASE, hang()).unwrap();
    for by_deadline in [false, true] {
        let start = tokio::time::Instant::now();
        let request = match by_deadline {
            false => raw().get("x").timeout(second),
            true => raw().get("x").extension(Deadline::within(second)),
        };
        let sent = tokio::time::timeout(Duration::from_secs(60), request.send()).await;
        let error = sent.expect("it ends by itself").unwrap_err();
        assert!(error.is_timeout() && error.is_request(), "{error:?}");
        assert_eq!(start.elapsed().as_secs(), 1);
    }
    let api = ApiClient::new(BASE, layer().layer(hang())).unwrap();
    let sent = tokio::time::timeout(Duration::from_secs(60), api.get("x").timeout(second).send()).await;
    assert!(sent.expect("it ends by itself").unwrap_err().is_timeout());
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_before_there_is_a_token_is_told_of_the_token() {
    let down = || Err(Error::new(ErrorKind::Transient, "the token endpoint is down"));
    for failures in [0, 1] {
        let asked = AtomicU32::new(0);
        let source = source_fn(move |_| {
            let fails = asked.fetch_add(1, Ordering::Relaxed) < failures;
            async move { if fails { down() } else { std::future::pending().await } }
        });
        let server = Script::new([]);
        let api = ApiClient::builder(BASE, source).build_with(server.probe::<Body>()).unwrap();
        if failures > 0 {
            api.get("x").send().await.unwrap_err();
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        for within in [Duration::from_millis(20), Duration::from_secs(3)] {
            let start = tokio::time::Instant::now();
            let error = api.get("x").timeout(within).send().await.unwrap_err();
            assert!(start.elapsed() <= within, "{:?}", start.elapsed());
            let token_error = error.token_error().unwrap_or_else(|| panic!("{error}"));
            assert_eq!(token_error.kind(), ErrorKind::Transient, "{error}");
            assert!(error.is_timeout() && error.is_request() && !error.is_connect(), "{error:?}");
            assert!(error.to_string().contains("no token came before the deadline"), "{error}");
            assert_eq!(error.to_string().contains("the token endpoint is down"), failures > 0, "{error}");
        }
        assert!(server.seen().is_empty());
    }
    // After a 401 that is what the caller gets.
    let asked = AtomicU32::new(0);
    let source = source_fn(move |_| {
        let is_first = asked.fetch_add(1, Ordering::Relaxed) == 0;
        async move { if is_first { AccessToken::bearer("A1") } else { std::future::pending().await } }
    });
    let refusal = Response::builder().status(401).header("www-authenticate", "Bearer error=invalid_token");
    let server = Script::new([ScriptedResponse::Reply(refusal.body(Full::default()).unwrap())]);
    let api = ApiClient::builder(BASE, source).build_with(server.probe::<Body>()).unwrap();
    let response = api.get("x").timeout(Duration::from_secs(3)).send().await.unwrap();
    let error = response.error_for_status().unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::UNAUTHORIZED), "{error}");
    assert!(error.to_string().contains("there was no token for it"), "{error}");
}

#[cfg(feature = "hyper-client")]
#[tokio::test]
async fn a_server_that_is_not_there_is_told_from_one_that_refuses() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let policy = RetryPolicy::builder().max_retries(0).build().unwrap();
    let api = ApiClient::builder(format!("http://127.0.0.1:{port}"), fixed()).retry(policy).build().unwrap();
    let error = api.get("x").send().await.unwrap_err();
    assert!(error.is_connect() && error.is_request() && !error.is_timeout(), "{error:?}");
    let reason = format!("the API at http://127.0.0.1:{port} cannot be reached: Connection refused");
    assert!(error.to_string().starts_with(&reason), "{error}");
}

#[tokio::test(start_paused = true)]
async fn forms_and_streams_are_bodies_too() {
    let server = Script::new([]);
    let api = ApiClient::builder(BASE, fixed()).build_with(server.probe::<Body>()).unwrap();
    api.post("x").form(&[("name", "ann & bob"), ("page", "2")]).send().await.unwrap();
    let frames = ["one ", "two"].map(|part| Ok::<_, Infallible>(Frame::data(Bytes::from(part))));
    let streamed = Body::new(StreamBody::new(stream::iter(frames)));
    let mut response = api.put("x").body(streamed).send().await.unwrap().into_inner();
    assert!(response.body_mut().frame().await.is_none());
    let seen = server.seen();
    assert_eq!(seen[0].head.headers[CONTENT_TYPE], "application/x-www-form-urlencoded");
    assert_eq!((&seen[0].body[..], &seen[1].body[..]), (&b"name=ann+%26+bob&page=2"[..], &b"one two"[..]));
    // Of a known length as of an unknown one.
    assert!(!seen[1].head.headers.contains_key(CONTENT_LENGTH));
}
#[tokio::test(start_paused = true)]
async fn a_multipart_form_is_sent_again_with_the_same_boundary() {
    let server = Script::new([ScriptedResponse::invalid_token(), answer(200, "")]);
    let tokens = source_fn(|_| async { AccessToken::bearer("A1") });
    let api = ApiClient::builder(BASE, tokens).build_with(server.probe::<Body>()).unwrap();
    let form = MultipartForm::new().text("month", "2026-11").file(
        "report",
        "7.bin",
        "application/x",
        vec![0u8; 70_000],
    );
    let shown = format!("{form:?}");
    assert_eq!(api.post("reports").multipart(form).send().await.unwrap().status(), 200);
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!((&seen[0].body, &seen[0].head.headers), (&seen[1].body, &seen[1].head.headers));
    let content_type = seen[0].head.headers[CONTENT_TYPE].to_str().unwrap();
    let boundary = content_type.strip_prefix("multipart/form-data; boundary=").unwrap();
    let parts: Vec<_> = std::str::from_utf8(&seen[0].body).unwrap().split(&format!("--{boundary}")).collect();
    assert_eq!((parts.len(), parts[0], parts[3]), (4, "", "--\r\n"));
    assert_eq!(parts[1], "\r\ncontent-disposition: form-data; name=\"month\"\r\n\r\n2026-11\r\n");
    assert!(parts[2].len() > 70_000 && !shown.contains("2026-11"), "{shown}");
    let wrong = MultipartForm::new().file("a", "b", "text/plain\nx: y", "");
    let error = api.post("reports").multipart(wrong).send().await.unwrap_err();
    assert!(error.is_builder() && error.to_string().contains("content type"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_counts_as_a_rejection_is_an_option_of_the_client() {
    type Options = fn(StackBuilder<ApiClient>) -> StackBuilder<ApiClient>;
    let by_rule: Options = |builder| {
        builder.auth(|layer| {
            layer.rejection(|status, headers| match status {
                StatusCode::FORBIDDEN if headers.contains_key("x-session-ended") => Rejection::Token,
                _ => Rejection::Standard,
            })
        })
    };
    let by_status: Options =
        |builder| builder.auth(|layer| layer.rejection_statuses([StatusCode::from_u16(419).unwrap()]));
    let plain: Options = |builder| builder;
    let ended = || {
        let response = Response::builder().status(403).header("x-session-ended", "1");
        ScriptedResponse::Reply(response.body(Full::default()).unwrap())
    };
    for (options, response, fetched, status) in [
        (by_rule, ended(), 2, 200),
        (by_status, answer(419, ""), 2, 200),
        (by_rule, answer(403, ""), 1, 403),
        (plain, ended(), 1, 403),
        (plain, answer(419, ""), 1, 419),
    ] {
        // Without a challenge only a token is dropped that the API took before.
        let server = Script::new([answer(200, ""), response]);
        let tokens = source_fn(|_| async { AccessToken::bearer("A1") });
        let builder = options(ApiClient::builder(BASE, tokens));
        let api = builder.build_with(server.probe::<Body>()).unwrap();
        assert_eq!(api.get("x").send().await.unwrap().status(), 200);
        assert_eq!(api.get("x").send().await.unwrap().status(), status);
        assert_eq!(api.tokens().status().fetched(), fetched);
    }
}

#[test]
fn hidden_types_cost_a_request_two_allocations() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let fake = || service_fn(async |_: Request<Body>| Ok::<_, BoxError>(Response::new(Body::empty())));
    let below = || fake().map_request(|request: Request<StackBody<Body>>| request.map(|_| Body::empty()));
    let composed = Stack::for_base_url(fixed(), "https://api.example.com").unwrap().build(below());
    let composed = ApiClient::new(BASE, composed).unwrap();
    let hidden = ApiClient::builder(BASE, fixed()).build_with(fake()).unwrap();
    let mut counts = Vec::new();
    // What is made once, such as the first token, is made in the first round.
    for _ in 0..2 {
        counts.clear();
        let measured = allocation_counter::measure(|| {
            drop(runtime.block_on(composed.post("x").body("text").send()).unwrap());
        });
        counts.push(measured.count_total);
        let measured = allocation_counter::measure(|| {
            drop(runtime.block_on(hidden.post("x").body("text").send()).unwrap());
        });
        counts.push(measured.count_total);
    }
    assert_eq!(counts[1] - counts[0], 2, "{counts:?}");
    // A response body of another type is boxed once, as one of this type is.
    let full =
        service_fn(async |_: Request<Body>| Ok::<_, BoxError>(Response::new(Full::<Bytes>::default())));
    let other = ApiClient::builder(BASE, fixed()).build_with(full).unwrap();
    for _ in 0..2 {
        let measured = allocation_counter::measure(|| {
            drop(runtime.block_on(other.post("x").body("text").send()).unwrap());
        });
        counts.push(measured.count_total);
    }
    assert_eq!(counts[3], counts[1], "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn an_error_of_reading_json_shows_no_value_of_the_response() {
    #[derive(serde::Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct Order {
        #[serde(rename = "id")]
        _id: u64,
    }
    for (body, told) in [
        (
            r#"{"id":"S3CR3T, expected \" at line 9"}"#,
            "is not the JSON that was asked for, at line 1, column 37: it is a string where u64 was expected",
        ),
        (r#"{"id":{"S3CR3T":1}}"#, ", at line 1, column 6: it is an object where u64 was expected"),
        (r#"{"id":["S3CR3T"]}"#, ": it is a list where u64 was expected"),
        (r#"{"id":1.5}"#, ": it is a number where u64 was expected"),
        (r#"{"id":true}"#, ": it is a boolean where u64 was expected"),
        (r#"{"id":null}"#, ": it is null where u64 was expected"),
        (r#"{"id":-7}"#, "(expected u64)"),
        (r#""S3CR3T""#, ": it is a string where struct Order was expected"),
        (r#"{"S3CR3T":1}"#, "(expected `id`)"),
        (r#"{}"#, "(missing field `id`)"),
        (r#"{"id":7"#, "(EOF while parsing an object)"),
        ("S3CR3T", "is not JSON, at line 1, column 1 (expected value); it has no content-type"),
        ("", "is not JSON: its body is empty"),
    ] {
        let fake =
            service_fn(
                move |_: Request<Body>| async move { Ok::<_, BoxError>(Response::new(Body::from(body))) },
            );
        let tokens = AccessToken::bearer("mF_9.B5f-4.1JqM").unwrap();
        let api = ApiClient::builder("https://api.example.com/v2", tokens).build_with(fake).unwrap();
        let error = api.get("orders").send().await.unwrap().json::<Order>().await.unwrap_err();
        let shown = format!("{error} {error:?} {:?}", std::error::Error::source(&error));
        assert!(error.is_decode() && shown.contains(told) && !shown.contains("S3CR3T"), "{body}: {shown}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_of_reading_json_says_the_kind_and_the_content_type() {
    let refused = |content_type: &'static str, body: &'static str| async move {
        let ScriptedResponse::Reply(mut response) = answer(200, body) else { panic!() };
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        let api =
            ApiClient::new(BASE, Script::new([ScriptedResponse::Reply(response)]).probe::<Body>()).unwrap();
        let error = api.get("x").send().await.unwrap().json::<Vec<u32>>().await.unwrap_err();
        error.to_string().replace("the response of https://api.example.com ", "")
    };
    assert_eq!(
        refused("application/json", r#"{"items":[1]}"#).await,
        "is not the JSON that was asked for: it is an object where a list was expected; check the type it is read as"
    );
    let missing =
        ScriptedResponse::Reply(Response::builder().status(404).body(Full::from("<html>")).unwrap());
    let api = ApiClient::new(BASE, Script::new([missing]).probe::<Body>()).unwrap();
    let error = api.get("x").send().await.unwrap().json::<Value>().await.unwrap_err();
    let named = "the response of https://api.example.com with the status 404 Not Found is not JSON";
    assert!(error.to_string().starts_with(named), "{error}");
    let page = "is not JSON, at line 1, column 1 (expected value); its content-type is ";
    let cure = "; check the path of the request, and that no proxy or login page responds instead";
    for (content_type, shown) in [
        ("text/html; charset=S3CR3T", "text/html"),
        ("Text/Plain", "text/plain"),
        ("application/problem+json", "application/problem+json"),
    ] {
        assert_eq!(refused(content_type, "<html>").await, format!("{page}{shown}{cure}"));
    }
    for (encoding, named) in
        [("GZIP", Some("gzip")), ("gzip, br", Some("br")), ("identity", None), ("S3CR3T", None)]
    {
        let ScriptedResponse::Reply(mut response) = answer(200, "\u{1f}\u{8}") else { panic!() };
        response.headers_mut().insert("content-encoding", HeaderValue::from_static(encoding));
        let api =
            ApiClient::new(BASE, Script::new([ScriptedResponse::Reply(response)]).probe::<Body>()).unwrap();
        let error = api.get("x").send().await.unwrap().json::<Value>().await.unwrap_err().to_string();
        let said = named.map(|name| {
            format!(
                "; its content-encoding is {name}; have the HTTP client decompress it, by tower-http's DecompressionLayer or a \
                 feature of reqwest"
            )
        });
        assert!(error.ends_with(said.as_deref().unwrap_or(cure)), "{error}");
    }
    // A text that is not a content type is not repeated.
    for unreadable in ["S3CR3T", "S3/CR/3T", "text/S3 CR3T", "/S3CR3T", ""] {
        let said = refused(unreadable, "<html>").await;
        assert!(said.contains("; its content-type is malformed; ") && !said.contains("S3"), "{said}");
    }
}

#[cfg(feature = "stack")]
#[tokio::test(start_paused = true)]
async fn a_connection_that_gives_no_sign_of_life_is_a_timeout() {
    use hyper::client::conn::http2;
    use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
    use tokio::io::AsyncWriteExt as _;

    // A server of h2 that sends its settings, and then nothing.
    let (ours, mut theirs) = tokio::io::duplex(65_536);
    theirs.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(10));
    let (sender, connection) =
        builder.keep_alive_timeout(Duration::from_secs(5)).handshake(TokioIo::new(ours)).await.unwrap();
    tokio::spawn(connection);
    let server = service_fn(move |request: Request<Body>| {
        let mut sender = sender.clone();
        async move { Ok::<_, BoxError>(sender.send_request(request).await?.map(Body::new)) }
    });
    let retry = tower_oauth2::RetryPolicy::builder().max_retries(0).build().unwrap();
    let tokens = AccessToken::bearer("A1").unwrap();
    let api = ApiClient::builder("https://api.example.com", tokens).retry(retry).build_with(server).unwrap();
    let error = api.get("x").send().await.unwrap_err();
    assert!(error.is_timeout() && error.is_request(), "{error}");
    drop(theirs);
}
