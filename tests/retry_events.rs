//! The log lines of the retry layer, and the values that they must not show.
//!
//! A process of its own: the first thread that comes by an event settles for the whole process whether it is wanted, and that
//! must not be a test without a subscriber.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use support::Log;
use tower::{Layer as _, ServiceBuilder, ServiceExt as _};
use tower_http::trace::TraceLayer;
use tower_oauth2::extensions::Attempt;
use tower_oauth2::retry::{RequestBody, RetryReport};
use tower_oauth2::test_util::{Script, ScriptedResponse, reply};
use tower_oauth2::{Error, ErrorKind, RetryPolicy};
use tracing::Instrument as _;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::format::FmtSpan;

/// Records the log of this thread at level trace, until the guard is dropped.
fn recorded(spans: FmtSpan) -> (Log, DefaultGuard) {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_span_events(spans)
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    (log, guard)
}

fn attempt_span<B>(request: &Request<B>) -> tracing::Span {
    let span = tracing::info_span!("attempt", http.request.resend_count = tracing::field::Empty);
    if let Some(attempt) = request.extensions().get::<Attempt>() {
        span.record("http.request.resend_count", attempt.resend_count());
    }
    span
}

#[tokio::test(start_paused = true)]
async fn a_trace_layer_below_makes_one_span_per_attempt_and_counts_the_resends() {
    let (log, guard) = recorded(FmtSpan::CLOSE);
    let script =
        Script::new([ScriptedResponse::Reply(reply(503, "")), ScriptedResponse::Fail("reset".into())]);
    let client = ServiceBuilder::new()
        .layer(RetryPolicy::default())
        .layer(TraceLayer::new_for_http().make_span_with(attempt_span::<RequestBody<Full<Bytes>>>))
        .service(script.probe::<RequestBody<Full<Bytes>>>());
    let request = Request::get("https://api.example.com/").body(Full::default()).unwrap();
    let response = client.oneshot(request).instrument(tracing::info_span!("caller")).await.unwrap();
    drop((response, guard));

    let lines = log.lines();
    let closed = |line: &&String| line.contains("close") && line.contains(":attempt");
    let spans: Vec<_> = lines.iter().filter(closed).collect();
    assert_eq!(spans.len(), 3, "{lines:#?}");
    assert!(!spans[0].contains("resend_count"), "{spans:#?}");
    assert!(spans[1].contains("{http.request.resend_count=1}"), "{spans:#?}");
    assert!(spans[2].contains("{http.request.resend_count=2}"), "{spans:#?}");
    // The decisions belong to the caller.
    let decisions: Vec<_> = lines.iter().filter(|line| line.contains("is sent again")).collect();
    assert_eq!(decisions.len(), 2, "{lines:#?}");
    assert!(
        decisions.iter().all(|line| line.contains("caller") && !line.contains("attempt{")),
        "{decisions:#?}"
    );
    assert!(decisions[0].contains("status=503") && decisions[0].contains("budget="), "{decisions:#?}");
    assert!(
        decisions[1].contains("reason=there was no response, and the request may have been sent"),
        "{decisions:#?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_token_is_told_with_its_reason() {
    let (log, guard) = recorded(FmtSpan::NONE);
    let busy = Error::new(ErrorKind::Throttled, "the token endpoint is busy")
        .with_retry_after(Duration::from_secs(7));
    let script = Script::new([ScriptedResponse::Fail(busy.into())]);
    let policy = RetryPolicy::builder().retry_token_failures(true).build().unwrap();
    let client = policy.layer(script.probe::<RequestBody<Full<Bytes>>>());
    let request = Request::post("https://api.example.com/").body(Full::from("item")).unwrap();
    assert!(client.oneshot(request).await.unwrap().status().is_success());
    drop(guard);

    let lines = log.lines();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    for part in [
        "the request is sent again",
        "attempt=0",
        "error=\"the token endpoint is busy\"",
        "reason=there was no token for it",
        "requested_delay=\"7.0s\"",
    ] {
        assert!(lines[0].contains(part), "{part} in {lines:#?}");
    }
    assert!(!lines[0].contains("budget="), "{lines:#?}");
    assert!(lines[1].contains("a retry succeeded") && lines[1].contains("attempts=1"), "{lines:#?}");
}

#[tokio::test(start_paused = true)]
async fn every_decision_is_told_once_and_without_bodies_or_header_values() {
    let (log, guard) = recorded(FmtSpan::NONE);

    let mut busy = reply(429, "PLANTED-answer");
    busy.headers_mut().insert("retry-after", "7".parse().unwrap());
    busy.headers_mut().insert("x-secret", "PLANTED-answer-header".parse().unwrap());
    let policy = RetryPolicy::builder().gate(None).build().unwrap();
    let script = Script::new([ScriptedResponse::Reply(busy), ScriptedResponse::Fail("PLANTED-error".into())]);
    let request = Request::post("https://api.example.com/PLANTED-path?PLANTED-query")
        .header("authorization", "Bearer PLANTED-token")
        .body(Full::from("PLANTED-body"))
        .unwrap();
    let client = policy.layer(script.probe::<RequestBody<Full<Bytes>>>());
    client.oneshot(request).await.unwrap_err();

    let script = Script::new([ScriptedResponse::Reply(reply(503, "PLANTED-answer"))]);
    let request = Request::post("https://api.example.com/").body(Full::from("PLANTED-body")).unwrap();
    let client = policy.layer(script.probe::<RequestBody<Full<Bytes>>>());
    let response = client.oneshot(request).await.unwrap();
    let report: &RetryReport = response.extensions().get().unwrap();
    let told = format!("{report:?} {}", report.stop_reason());

    let policy = RetryPolicy::default();
    let mut busy = reply(429, "PLANTED-answer");
    busy.headers_mut().insert("retry-after", "1".parse().unwrap());
    let script = Script::new([ScriptedResponse::Reply(busy)]);
    for _ in 0..2 {
        let request = Request::get("https://api.example.com/PLANTED-path").body(Full::default()).unwrap();
        let client = policy.layer(script.probe::<RequestBody<Full<Bytes>>>());
        assert!(client.oneshot(request).await.unwrap().status().is_success());
    }
    drop(guard);

    let text = log.text();
    assert_eq!(text.lines().count(), 6, "{text}");
    for part in [
        "the request is sent again method=\"POST\" origin=\"https://api.example.com\" attempt=1 status=429 reason=the server",
        "reason=the server asked for patience delay=\"7.",
        "requested_delay=\"7.0s\" requested_by=\"retry-after\" budget=9.0",
        "the request is not sent again method=\"POST\" origin=\"https://api.example.com\" attempts=2 reason=the method may not",
        "attempts=1 status=503 reason=the method may not be repeated",
        "reason=the server asked for patience requested_delay=\"1.0s\" requested_by=\"retry-after\" at_gate=true",
        "the request is held back, since the server asked for patience method=\"GET\" origin=\"https://api.example.com\"",
        "a retry succeeded method=\"GET\" origin=\"https://api.example.com\" attempts=2 status=200 held=\"1.",
    ] {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
    assert!(!text.contains("PLANTED") && !told.contains("PLANTED") && !text.contains("0ns"), "{text}{told}");
}
