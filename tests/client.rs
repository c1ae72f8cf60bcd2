//! The handle with a base URL, over the layers and a server in memory.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::error::Error as _;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tower::{BoxError, Layer as _, ServiceBuilder};
use tower_oauth2::client::{ApiClient, ApiRequest};
use tower_oauth2::extensions::Deadline;
use tower_oauth2::retry::{RetryOptions, StopReason};
use tower_oauth2::test_util::{Answer, Script};
use tower_oauth2::{AccessToken, AuthLayer, RetryPolicy, StaticToken, TokenError, source_fn};

const BASE: &str = "https://api.example.com/v2";

type Body = Full<Bytes>;

fn reply(status: u16, body: &'static str) -> Answer {
    Answer::Reply(Response::builder().status(status).body(Body::from(body)).unwrap())
}

fn layer() -> AuthLayer {
    AuthLayer::for_origin(StaticToken::new(AccessToken::bearer("A1").unwrap()), "https://api.example.com")
        .unwrap()
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
    let requests: [ApiRequest<_>; 6] =
        [api.get("x"), api.post("x"), api.put("x"), api.patch("x"), api.delete("x"), api.head("x")];
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
    let own = api.post("x").header(CONTENT_LENGTH, "7");
    for request in [api.get("x"), api.delete("x"), api.head("x"), api.post("x").body("item"), own] {
        request.send().await.unwrap();
    }
    let lengths: Vec<_> =
        server.seen().iter().map(|seen| seen.head.headers.get(CONTENT_LENGTH).cloned()).collect();
    assert_eq!(lengths, [None, None, None, None, Some("7".parse().unwrap())]);
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
            error.is_path() && error.to_string().starts_with("the request was not sent"),
            "{shown}: {error}"
        );
    }
    let odd = api.get("x").header("no header", "x").send().await.unwrap_err();
    assert!(odd.is_request() && odd.source().is_some());
    let odd = api.get("x").json(&std::collections::HashMap::from([((1, 2), 3)])).send().await.unwrap_err();
    assert!(odd.is_request(), "{odd}");
    assert!(server.seen().is_empty(), "something was sent");
}

#[tokio::test]
async fn an_answer_is_read_as_what_is_asked_for() {
    let server = Script::new([
        reply(200, r#"{"id":7}"#),
        reply(200, "plain"),
        reply(200, "bytes"),
        reply(200, r#"{"id":"of-somebody"}"#),
        reply(404, "no such thing"),
    ]);
    let api = ApiClient::new(BASE, server.probe::<Body>()).unwrap();
    // As a task, since what cannot be one is of little use.
    let request = api.get("x");
    let read = async move { request.send().await?.error_for_status()?.json::<Value>().await };
    assert_eq!(tokio::spawn(read).await.unwrap().unwrap()["id"], 7);
    assert_eq!(api.get("x").send().await.unwrap().text().await.unwrap(), "plain");
    assert_eq!(api.get("x").send().await.unwrap().bytes().await.unwrap(), "bytes");
    let error = api.get("x").send().await.unwrap().json::<u32>().await.unwrap_err();
    assert!(error.is_decode() && !error.to_string().contains("of-somebody"), "{error}");
    let response = api.get("x").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    let error = response.error_for_status().unwrap_err();
    assert_eq!(error.status_code(), Some(StatusCode::NOT_FOUND));
    assert_eq!(error.to_string(), "https://api.example.com answered 404 Not Found");
    let response = api.get("x").send().await.unwrap().into_inner();
    assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_error_tells_what_the_layers_know() {
    let server = Script::new([reply(503, ""), reply(503, "")]);
    let stack = ServiceBuilder::new()
        .layer(RetryPolicy::builder().max_retries(1).build().unwrap())
        .layer(layer())
        .service(server.probe());
    let api = ApiClient::new(BASE, stack).unwrap();
    let error = api.get("x").send().await.unwrap().error_for_status().unwrap_err();
    let report = error.retry_report().unwrap();
    assert_eq!((report.attempts(), report.stop_reason()), (2, &StopReason::AttemptsExhausted));

    let unsent = Script::new([Answer::Fail(BoxError::from("the line is cut"))]);
    let api = ApiClient::new(BASE, unsent.probe::<Body>()).unwrap();
    let error = api.get("x").extension(RetryOptions::new()).send().await.unwrap_err();
    assert!(error.is_transport() && error.token_error().is_none());
    assert_eq!(error.source().unwrap().to_string(), "the line is cut");

    let nothing = source_fn(|_| async { Err::<AccessToken, _>(TokenError::grant("nobody agreed")) });
    let layer = AuthLayer::for_origin(nothing, "https://api.example.com").unwrap();
    let never = Script::new([]);
    let api = ApiClient::new(BASE, layer.layer(never.probe::<Body>())).unwrap();
    let error = api.get("x").send().await.unwrap_err();
    assert!(error.is_transport() && error.token_error().unwrap().is_grant());
    assert!(never.seen().is_empty());
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
fn the_readme_gets_to_the_first_call_in_20_lines_with_hyper_and_in_15_with_reqwest() {
    let readme = include_str!("../README.md");
    for (name, client, most) in [("A whole program", "hyper", 20), ("reqwest", "reqwest", 15)] {
        let title = format!("{name}\n");
        let section = readme.split("\n### ").find(|section| section.starts_with(&title)).unwrap();
        let code = section.split("```rust,no_run\n").nth(1).unwrap().split("```").next().unwrap();
        let lines = code.lines().filter(|line| !line.trim().is_empty()).count();
        assert!(code.contains("fn main()") && code.contains(&format!("transport::{client}")), "{code}");
        assert!((10..=most).contains(&lines), "{lines} lines with {client}");
    }
}
