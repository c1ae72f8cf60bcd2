//! What happens on the marker's word. (All else is tested from outside, in `tests/retry`.)

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use tower::{BoxError, Layer as _, Service as _, ServiceExt as _};

use super::*;
use crate::error::Error;
use crate::extensions::{Attempt, RejectionVerdict, TokenRejected};
use crate::test_util::{Script, ScriptedResponse, reply};

fn refusal(body: &'static str) -> Response<Full<Bytes>> {
    refusal_with(RejectionVerdict::Invalidated, body)
}

fn refusal_with(verdict: RejectionVerdict, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = reply(401, body);
    response.extensions_mut().insert(TokenRejected::new(verdict, Some("invalid_token".into()), None));
    response
}

#[derive(Clone, Debug, PartialEq)]
struct Note(&'static str);

fn order() -> Request<Full<Bytes>> {
    let mut request = Request::post("https://api.example.com/orders?a=1&b=%2F")
        .version(Version::HTTP_2)
        .header("x-multi", "1")
        .header("content-length", "5")
        .header("x-multi", "2")
        .header("expect", "100-continue")
        .extension(Note("kept"))
        .body(Full::from("order"))
        .unwrap();
    let mut secret = HeaderValue::from_static("quiet");
    secret.set_sensitive(true);
    request.headers_mut().append("x-multi", secret);
    request
}

async fn send(
    script: &Script,
    policy: &RetryPolicy,
    request: Request<Full<Bytes>>,
) -> Result<Response<ResponseBody<Full<Bytes>>>, BoxError> {
    policy.layer(script.probe()).oneshot(request).await
}

fn report<B>(response: &Response<B>) -> &RetryReport {
    response.extensions().get().expect("no report")
}

async fn text(response: Response<ResponseBody<Full<Bytes>>>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_replayed_at_once_with_the_same_request() {
    let script =
        Script::new([ScriptedResponse::Reply(refusal("")), ScriptedResponse::Reply(reply(201, "done"))]);
    let start = crate::clock::now();
    let response = send(&script, &RetryPolicy::default(), order()).await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(crate::clock::now(), start);
    assert!(response.extensions().get::<TokenRejected>().is_none());
    let told = report(&response);
    assert_eq!((told.attempts(), told.stop_reason()), (2, &StopReason::Final));
    assert_eq!(told.history().len(), 1);
    assert_eq!(told.history()[0].status(), Some(StatusCode::UNAUTHORIZED));
    assert_eq!(told.history()[0].reason(), ReplayReason::TokenRejected);
    assert_eq!(told.history()[0].delay(), Duration::ZERO);

    let seen = script.seen();
    assert_eq!(seen.len(), 2);
    let (expected, _) = order().into_parts();
    for seen in &seen {
        assert_eq!(seen.body, "order");
        assert_eq!((&seen.head.method, &seen.head.uri), (&expected.method, &expected.uri));
        assert_eq!((seen.head.version, &seen.head.headers), (expected.version, &expected.headers));
        assert!(seen.head.headers.get_all("x-multi").iter().next_back().unwrap().is_sensitive());
        assert_eq!(seen.head.extensions.get(), Some(&Note("kept")));
    }
    let counts: Vec<_> =
        seen.iter().map(|seen| seen.head.extensions.get::<Attempt>().map(|a| a.resend_count())).collect();
    assert_eq!(counts, [None, Some(1)]);
}

#[tokio::test(start_paused = true)]
async fn a_second_401_is_returned_not_replayed() {
    let script =
        Script::new([ScriptedResponse::Reply(refusal("first")), ScriptedResponse::Reply(refusal("second"))]);
    let response = send(&script, &RetryPolicy::default(), order()).await.unwrap();
    assert_eq!(script.seen().len(), 2);
    let told = report(&response);
    assert_eq!((told.attempts(), told.stop_reason()), (2, &StopReason::AuthReplaysExhausted));
    assert_eq!(told.token_rejected().unwrap().error(), Some("invalid_token"));
    // An outer retry layer must not take it up again.
    assert!(response.extensions().get::<TokenRejected>().is_none());
    assert_eq!(text(response).await, "second");
}

#[tokio::test(start_paused = true)]
async fn refused_tokens_and_429s_do_not_eat_each_others_attempts() {
    let busy = || ScriptedResponse::Reply(reply(429, ""));
    let script = Script::new([
        busy(),
        ScriptedResponse::Reply(refusal("")),
        busy(),
        busy(),
        ScriptedResponse::Reply(refusal("last")),
    ]);
    let response = send(&script, &RetryPolicy::default(), order()).await.unwrap();
    assert_eq!(script.seen().len(), 5);
    assert_eq!(report(&response).stop_reason(), &StopReason::AuthReplaysExhausted);
    let reasons: Vec<_> = report(&response).history().iter().map(Replayed::reason).collect();
    let (throttled, rejected) = (ReplayReason::Throttled, ReplayReason::TokenRejected);
    assert_eq!(reasons, [throttled, rejected, throttled, throttled]);
    assert_eq!(text(response).await, "last");
}

#[tokio::test(start_paused = true)]
async fn an_endless_mix_of_refusals_is_bounded() {
    let answers =
        (0..100).map(|n| ScriptedResponse::Reply(if n % 2 == 0 { refusal("") } else { reply(429, "") }));
    let script = Script::new(answers);
    let policy = RetryPolicy::builder().auth_replays(3).build().unwrap();
    let response = send(&script, &policy, order()).await.unwrap();
    assert_eq!(script.seen().len(), 7);
    assert_eq!(report(&response).attempts(), 7);
}

/// A layer between retry and auth, such as a buffer, may have put an error of its own around.
#[derive(Debug)]
struct Outer(Error);

impl std::fmt::Display for Outer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("outer")
    }
}

impl std::error::Error for Outer {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_token_for_the_replay_the_401_is_handed_back_with_the_reason() {
    for wrapped in [false, true] {
        let error = Error::transient("the token endpoint is away");
        let error: BoxError = match wrapped {
            false => error.into(),
            true => Outer(error).into(),
        };
        let script =
            Script::new([ScriptedResponse::Reply(refusal("whole body")), ScriptedResponse::Fail(error)]);
        let response = send(&script, &RetryPolicy::default(), order()).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        let told = report(&response);
        assert_eq!((told.attempts(), told.stop_reason()), (1, &StopReason::TokenUnavailable));
        assert!(told.history().is_empty() && told.token_rejected().is_some());
        let error = told.error().unwrap();
        assert!(if wrapped { error.is::<Outer>() } else { error.is::<Error>() });
        assert_eq!(text(response).await, "whole body");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_token_for_the_first_attempt_the_error_passes_unchanged() {
    let slot = ReportSlot::new();
    let script = Script::new([ScriptedResponse::Fail(Error::grant("the client was refused").into())]);
    let mut request = order();
    request.extensions_mut().insert(RetryOptions::new().report_to(&slot));
    let error = send(&script, &RetryPolicy::default(), request).await.unwrap_err();
    assert!(error.downcast_ref::<Error>().unwrap().is_grant());
    let told = slot.take().unwrap();
    assert_eq!((told.attempts(), told.stop_reason()), (0, &StopReason::TokenUnavailable));
}

#[tokio::test(start_paused = true)]
async fn a_newer_transport_error_replaces_an_answer() {
    let slot = ReportSlot::new();
    let script = Script::new([
        ScriptedResponse::Reply(refusal("")),
        ScriptedResponse::Fail("connection reset".into()),
    ]);
    let mut request = order();
    request.extensions_mut().insert(RetryOptions::new().report_to(&slot));
    let error = send(&script, &RetryPolicy::default(), request).await.unwrap_err();
    assert_eq!(error.to_string(), "connection reset");
    let told = slot.take().unwrap();
    assert_eq!((told.attempts(), told.stop_reason()), (2, &StopReason::NotIdempotent));
    assert_eq!(told.history().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_does_not_blame_the_token_is_handed_out() {
    for verdict in [RejectionVerdict::NotRefreshable, RejectionVerdict::Braked] {
        let script = Script::new([ScriptedResponse::Reply(refusal_with(verdict, "why"))]);
        let response = send(&script, &RetryPolicy::default(), order()).await.unwrap();
        assert_eq!(script.seen().len(), 1);
        let told = report(&response);
        assert_eq!((told.attempts(), told.history()), (1, &[][..]));
        let stop = match verdict {
            RejectionVerdict::Braked => StopReason::Braked,
            _ => StopReason::ChallengeNotRefreshable { error: Some("invalid_token".into()) },
        };
        assert_eq!(told.stop_reason(), &stop);
        assert_eq!(text(response).await, "why");
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_forbids_it_gets_the_401() {
    let script = Script::new([ScriptedResponse::Reply(refusal(""))]);
    let mut request = order();
    request.extensions_mut().insert(RetryOptions::new().auth_replay(false));
    let response = send(&script, &RetryPolicy::default(), request).await.unwrap();
    assert_eq!(script.seen().len(), 1);
    assert_eq!(report(&response).stop_reason(), &StopReason::TurnedOff);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passed_meanwhile_forbids_even_a_replay_at_once() {
    let deadline = crate::extensions::Deadline::within(Duration::from_secs(1));
    let script = Script::new([ScriptedResponse::Reply(refusal("in time"))]);
    let mut request = order();
    request.extensions_mut().insert(deadline);
    let mut client = RetryPolicy::default().layer(script.probe());
    let sent = client.ready().await.unwrap().call(request);
    tokio::time::advance(Duration::from_secs(2)).await;
    let response = sent.await.unwrap();
    let needed = Duration::ZERO;
    assert_eq!(report(&response).stop_reason(), &StopReason::DeadlineTooClose { needed });
    assert_eq!(text(response).await, "in time");
}

#[tokio::test(start_paused = true)]
async fn two_retry_layers_do_not_multiply() {
    let script = Script::new((0..100).map(|_| ScriptedResponse::Reply(reply(429, ""))));
    let policy = RetryPolicy::default();
    let stacked = policy.layer(policy.layer(script.probe()));
    let response = stacked.oneshot(order()).await.unwrap();
    // Once, three retries by the inner layer, three by the outer one, at which the inner one looks on.
    assert_eq!(script.seen().len(), 7);
    assert_eq!(report(&response).stop_reason(), &StopReason::AttemptsExhausted);

    let script = Script::new([
        ScriptedResponse::Reply(reply(503, "")),
        ScriptedResponse::Reply(refusal("")),
        ScriptedResponse::Reply(reply(200, "")),
    ]);
    let none = RetryPolicy::builder().max_retries(0).build().unwrap();
    let mut request = order();
    *request.method_mut() = Method::PUT;
    let response = policy.layer(none.layer(script.probe())).oneshot(request).await.unwrap();
    // The marker of a resend is left for the layer that resent.
    assert_eq!((response.status(), script.seen().len()), (StatusCode::OK, 3));
}

#[tokio::test(start_paused = true)]
async fn a_replay_with_a_new_token_costs_no_budget() {
    let budget = RetryBudget::default().min_per_second(0);
    let policy = RetryPolicy::builder().budget(budget.clone()).build().unwrap();
    for _ in 0..20 {
        let script =
            Script::new([ScriptedResponse::Reply(refusal("")), ScriptedResponse::Reply(reply(201, "done"))]);
        assert_eq!(send(&script, &policy, order()).await.unwrap().status(), StatusCode::CREATED);
    }
    assert_eq!(budget.balance(order().uri(), None), 10.0);
}

#[tokio::test(start_paused = true)]
async fn the_last_attempt_is_not_recorded_and_yet_whole() {
    let frames = ["one ", "two"].map(|data| Ok::<_, BoxError>(Frame::data(Bytes::from(data))));
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let mut request = Request::put("https://api.example.com/items/1").body(body).unwrap();
    request.extensions_mut().insert(RetryOptions::new().max_retries(1).auth_replay(false));
    let script =
        Script::new([ScriptedResponse::Unread(reply(503, "")), ScriptedResponse::Reply(reply(503, "last"))]);
    let (kept, seen) = (Arc::new(Mutex::new(Vec::new())), script.probe());
    let log = Arc::clone(&kept);
    let look = seen.map_request(move |request: Request<RequestBody<_>>| {
        log.lock().unwrap().push(request.body().replayable());
        request
    });
    let response = RetryPolicy::default().layer(look).oneshot(request).await.unwrap();
    assert_eq!(*kept.lock().unwrap(), [Ok(()), Err(NotReplayable::Released)]);
    let seen = script.seen();
    assert_eq!((seen.len(), &seen[1].body[..]), (2, &b"one two"[..]));
    assert_eq!(report(&response).stop_reason(), &StopReason::AttemptsExhausted);
}
