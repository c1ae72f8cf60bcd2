//! What the retry room's log tells, and what it must not.
//!
//! A process of its own: whether an event is wanted is settled once per process by whoever comes by it first, and that
//! must not be a test without a subscriber.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use support::{Answer, Log, Script, reply};
use tower::{Layer as _, ServiceExt as _};
use tower_oauth2::RetryPolicy;
use tower_oauth2::retry::{ReplayBody, RetryReport};

#[tokio::test(start_paused = true)]
async fn every_decision_is_told_once_and_without_bodies_or_header_values() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);

    let mut busy = reply(429, "PLANTED-answer");
    busy.headers_mut().insert("retry-after", "7".parse().unwrap());
    busy.headers_mut().insert("x-secret", "PLANTED-answer-header".parse().unwrap());
    let policy = RetryPolicy::builder().without_gate().build().unwrap();
    let script = Script::new([Answer::Reply(busy), Answer::Fail("PLANTED-error".into())]);
    let request = Request::post("https://api.example.com/PLANTED-path?PLANTED-query")
        .header("authorization", "Bearer PLANTED-token")
        .body(Full::from("PLANTED-body"))
        .unwrap();
    let client = policy.layer(script.probe::<ReplayBody<Full<Bytes>>>());
    client.oneshot(request).await.unwrap_err();

    let script = Script::new([Answer::Reply(reply(503, "PLANTED-answer"))]);
    let request = Request::post("https://api.example.com/").body(Full::from("PLANTED-body")).unwrap();
    let client = policy.layer(script.probe::<ReplayBody<Full<Bytes>>>());
    let response = client.oneshot(request).await.unwrap();
    let report: &RetryReport = response.extensions().get().unwrap();
    let told = format!("{report:?} {}", report.stop_reason());

    let policy = RetryPolicy::default();
    let mut busy = reply(429, "PLANTED-answer");
    busy.headers_mut().insert("retry-after", "1".parse().unwrap());
    let script = Script::new([Answer::Reply(busy)]);
    for _ in 0..2 {
        let request = Request::get("https://api.example.com/PLANTED-path").body(Full::default()).unwrap();
        let client = policy.layer(script.probe::<ReplayBody<Full<Bytes>>>());
        assert!(client.oneshot(request).await.unwrap().status().is_success());
    }
    drop(guard);

    let text = log.text();
    assert_eq!(text.lines().count(), 6, "{text}");
    for part in [
        "the request is sent again",
        "status=429",
        "reason=the server asked for patience",
        "requested_delay=7s",
        "requested_by=\"retry-after\"",
        "budget=9.0",
        "resend_count=1",
        "the request is not sent again reason=the method may not be repeated attempts=2",
        "the request is not sent again reason=the method may not be repeated attempts=1",
        "delay=0ns requested_delay=1s requested_by=\"retry-after\" at_gate=true resend_count=1",
        "the request is held back, since the server asked for patience",
    ] {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
    assert!(!text.contains("PLANTED") && !told.contains("PLANTED"), "{text}{told}");
}
