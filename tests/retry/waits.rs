//! How long is waited, and when not.

use std::collections::HashSet;
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;
use tower_oauth2::extensions::Deadline;
use tower_oauth2::retry::{ReplayReason, ReportSlot, RetryOptions, RetryReport, StopReason, Unsent};
use tower_oauth2::test_util::{Script, ScriptedResponse, reply};
use tower_oauth2::{Error, ErrorKind, RetryPolicy};

use super::{answers, get, hinted, post, report, send, text, too_much};

const MS: Duration = Duration::from_millis(1);

/// How long after the start each attempt came.
fn arrivals(script: &Script, start: Instant) -> Vec<Duration> {
    script.seen().iter().map(|seen| seen.after(start)).collect()
}

fn assert_between(waited: Duration, least: Duration, most: Duration) {
    // The timer wheel turns in whole milliseconds.
    assert!(waited >= least && waited <= most + MS, "{waited:?} is not within {least:?} and {most:?}");
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_is_used_again_forgets_the_report_before() {
    let slot = ReportSlot::new();
    let slotted = || {
        let mut request = get();
        request.extensions_mut().insert(RetryOptions::new().report_to(&slot));
        request
    };
    send(&RetryPolicy::default(), &answers(503, 1), slotted()).await.unwrap();
    // Nothing is to be said of the second.
    send(&RetryPolicy::default(), &Script::default(), slotted()).await.unwrap();
    assert!(slot.take().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_429_without_a_hint_backs_off_with_half_of_the_wait_for_certain() {
    let (script, start) = (answers(429, 3), Instant::now());
    let response = send(&RetryPolicy::default(), &script, post()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let at = arrivals(&script, start);
    assert_eq!(at.len(), 4);
    for (n, base) in [500, 1_000, 2_000].into_iter().enumerate() {
        assert_between(at[n + 1] - at[n], base / 2 * MS, base * MS);
    }
    let report = report(&response);
    assert_eq!((report.attempts(), report.stop_reason()), (4, &StopReason::Final));
    let waited: Duration = report.history().iter().map(|replayed| replayed.delay()).sum();
    assert_between(start.elapsed(), waited, waited + 3 * MS);
    for replayed in report.history() {
        assert_eq!(replayed.status(), Some(StatusCode::TOO_MANY_REQUESTS));
        assert_eq!((replayed.reason(), replayed.requested_delay()), (ReplayReason::Throttled, None));
    }
}

#[tokio::test(start_paused = true)]
async fn two_requests_that_failed_together_do_not_come_back_together() {
    let script = answers(429, 40);
    let start = Instant::now();
    let requests = (0..40).map(|_| async { send(&RetryPolicy::default(), &script, get()).await.unwrap() });
    futures_util::future::join_all(requests).await;
    let second: Vec<_> = arrivals(&script, start).into_iter().filter(|at| !at.is_zero()).collect();
    assert_eq!(second.len(), 40);
    assert!(second.iter().collect::<HashSet<_>>().len() > 20, "{second:?}");
}

#[tokio::test(start_paused = true)]
async fn a_hint_is_a_lower_bound() {
    for (hint, least) in [("10", 10_000), ("0", 100), ("60", 60_000)] {
        let (script, start) = (Script::new([hinted(429, hint)]), Instant::now());
        let response = send(&RetryPolicy::default(), &script, post()).await.unwrap();
        assert_between(start.elapsed(), least * MS, least * MS * 11 / 10);
        let asked = Duration::from_secs(hint.parse().unwrap());
        assert_eq!(report(&response).history()[0].requested_delay(), Some(asked));
    }
}

#[tokio::test(start_paused = true)]
async fn a_503_is_waited_out_for_a_get_and_handed_out_for_a_post() {
    let (script, start) = (Script::new([hinted(503, "3")]), Instant::now());
    assert_eq!(send(&RetryPolicy::default(), &script, get()).await.unwrap().status(), StatusCode::OK);
    assert_between(start.elapsed(), 3_000 * MS, 3_300 * MS);

    let (script, start) = (Script::new([hinted(503, "3")]), Instant::now());
    let response = send(&RetryPolicy::default(), &script, post()).await.unwrap();
    assert_eq!((start.elapsed(), script.seen().len()), (Duration::ZERO, 1));
    assert_eq!(report(&response).stop_reason(), &StopReason::NotIdempotent);
    assert_eq!(report(&response).requested_delay(), Some(Duration::from_secs(3)));
    assert_eq!(text(response).await, "the server's own words");
}

#[tokio::test(start_paused = true)]
async fn a_post_with_an_idempotency_key_may_be_repeated() {
    let mut request = post();
    request.headers_mut().insert("Idempotency-Key", "8e03978e-40d5-43dd-bc93-6894a57f9324".parse().unwrap());
    let script = answers(503, 1);
    let response = send(&RetryPolicy::default(), &script, request).await.unwrap();
    assert_eq!((response.status(), script.seen().len()), (StatusCode::OK, 2));
}

#[tokio::test(start_paused = true)]
async fn a_generated_key_is_the_same_for_all_attempts_and_another_for_each_request() {
    let policy = RetryPolicy::builder().generated_idempotency_keys(true).build().unwrap();
    let mut keys = HashSet::new();
    for _ in 0..2 {
        let script =
            Script::new([ScriptedResponse::Reply(reply(503, "")), ScriptedResponse::Fail("reset".into())]);
        let response = send(&policy, &script, post()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let seen = script.seen();
        let mut sent: Vec<_> = seen.iter().map(|seen| seen.head.headers["idempotency-key"].clone()).collect();
        assert_eq!(sent.len(), 3);
        sent.dedup();
        assert_eq!((sent.len(), sent[0].len()), (1, 38));
        keys.extend(sent);
    }
    assert_eq!(keys.len(), 2);
    // A GET may be repeated as it is, and a key of the caller's own stays.
    let script = answers(503, 1);
    send(&policy, &script, get()).await.unwrap();
    assert!(script.seen().iter().all(|seen| !seen.head.headers.contains_key("idempotency-key")));
    let mut request = post();
    request.headers_mut().insert("idempotency-key", "mine".parse().unwrap());
    let script = answers(503, 1);
    send(&policy, &script, request).await.unwrap();
    assert!(script.seen().iter().all(|seen| seen.head.headers["idempotency-key"] == "mine"));
}

#[tokio::test(start_paused = true)]
async fn after_the_last_retry_the_last_answer_is_handed_out() {
    let script = answers(503, 9);
    let response = send(&RetryPolicy::default(), &script, get()).await.unwrap();
    assert_eq!((response.status(), script.seen().len()), (StatusCode::SERVICE_UNAVAILABLE, 4));
    assert_eq!(report(&response).stop_reason(), &StopReason::AttemptsExhausted);
    assert_eq!(text(response).await, "the server's own words");
}

#[tokio::test(start_paused = true)]
async fn a_hint_above_the_cap_is_handed_out_at_once() {
    for hint in ["61", "10000", "18446744073709551615", "99999999999999999999"] {
        let (script, start) = (Script::new([hinted(429, hint)]), Instant::now());
        let response = send(&RetryPolicy::default(), &script, post()).await.unwrap();
        assert_eq!((start.elapsed(), script.seen().len()), (Duration::ZERO, 1), "{hint}");
        let report = report(&response);
        let requested = report.requested_delay().unwrap();
        assert!(requested > Duration::from_secs(60));
        assert_eq!(too_much(&response), Some(requested));
        assert_eq!(response.headers()["retry-after"], hint);
        assert_eq!(text(response).await, "the server's own words");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_would_miss_the_deadline_is_not_begun() {
    let (script, start) = (Script::new([hinted(429, "10")]), Instant::now());
    let mut request = post();
    request.extensions_mut().insert(Deadline::within(Duration::from_secs(5)));
    let response = send(&RetryPolicy::default(), &script, request).await.unwrap();
    assert_eq!((start.elapsed(), script.seen().len()), (Duration::ZERO, 1));
    assert!(matches!(report(&response).stop_reason(), StopReason::DeadlineTooClose { .. }));
    assert_eq!(report(&response).requested_delay(), Some(Duration::from_secs(10)));
}

#[tokio::test(start_paused = true)]
async fn the_deadline_counts_from_when_it_was_set_and_not_from_each_answer() {
    let (script, start) = (Script::new((0..9).map(|_| hinted(503, "10"))), Instant::now());
    let mut request = get();
    request.extensions_mut().insert(Deadline::within(Duration::from_secs(25)));
    let response = send(&RetryPolicy::default(), &script, request).await.unwrap();
    assert_eq!(script.seen().len(), 3);
    assert!(start.elapsed() < Duration::from_secs(25));
    assert!(matches!(report(&response).stop_reason(), StopReason::DeadlineTooClose { .. }));
}

#[tokio::test(start_paused = true)]
async fn without_a_deadline_the_waits_are_bounded_in_all() {
    let (script, start) = (Script::new((0..9).map(|_| hinted(429, "50"))), Instant::now());
    let policy = RetryPolicy::builder().max_retries(9).build().unwrap();
    let response = send(&policy, &script, post()).await.unwrap();
    assert_eq!(script.seen().len(), 3);
    assert_between(start.elapsed(), 100_000 * MS, 120_000 * MS);
    assert!(matches!(report(&response).stop_reason(), StopReason::WaitsExhausted { .. }));
}

#[tokio::test(start_paused = true)]
async fn what_is_final_is_handed_out_without_a_report() {
    let plain = |status| ScriptedResponse::Reply(reply(status, ""));
    let plain = [400, 401, 403, 404, 407, 409, 500, 501, 505].map(|status| (status, plain(status)));
    let hinted = [200, 204, 301, 401, 407].map(|status| (status, hinted(status, "5")));
    for (status, answer) in plain.into_iter().chain(hinted) {
        let (script, start) = (Script::new([answer]), Instant::now());
        let response = send(&RetryPolicy::default(), &script, get()).await.unwrap();
        assert_eq!((start.elapsed(), script.seen().len()), (Duration::ZERO, 1), "{status}");
        assert!(response.extensions().get::<RetryReport>().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_that_may_have_come_after_the_work_is_returned_at_once_for_a_post() {
    let (slot, start) = (ReportSlot::new(), Instant::now());
    let script = Script::new([ScriptedResponse::Fail("connection refused".into())]);
    let mut request = post();
    request.extensions_mut().insert(RetryOptions::new().report_to(&slot));
    let error = send(&RetryPolicy::default(), &script, request).await.unwrap_err();
    assert_eq!(error.to_string(), "connection refused");
    assert_eq!((start.elapsed(), script.seen().len()), (Duration::ZERO, 1));
    assert_eq!(slot.take().unwrap().stop_reason(), &StopReason::NotIdempotent);
    assert!(slot.take().is_none());
}

#[tokio::test(start_paused = true)]
async fn the_slot_gets_what_the_response_says() {
    let slot = ReportSlot::new();
    let script = answers(429, 1);
    let mut request = post();
    request.extensions_mut().insert(RetryOptions::new().report_to(&slot));
    let response = send(&RetryPolicy::default(), &script, request).await.unwrap();
    assert_eq!(format!("{:?}", slot.take().unwrap()), format!("{:?}", report(&response)));
}

#[tokio::test(start_paused = true)]
async fn a_request_may_have_rules_of_its_own() {
    let run = async |options: RetryOptions, status| {
        let script = answers(status, 9);
        let mut request = post();
        request.extensions_mut().insert(options);
        let response = send(&RetryPolicy::default(), &script, request).await.unwrap();
        (script.seen().len(), report(&response).stop_reason().clone())
    };
    assert_eq!(run(RetryOptions::never(), 429).await, (1, StopReason::TurnedOff));
    assert_eq!(run(RetryOptions::new().max_retries(1), 429).await, (2, StopReason::AttemptsExhausted));
    assert_eq!(run(RetryOptions::new().strict_methods(true), 429).await, (1, StopReason::NotIdempotent));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_wait_sends_nothing_more() {
    let script = Script::new([hinted(429, "10")]);
    let policy = RetryPolicy::default();
    let request = tokio::time::timeout(Duration::from_secs(5), send(&policy, &script, post()));
    assert!(request.await.is_err());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(script.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_answer_of_a_replay_counts_and_not_the_one_before() {
    let script = Script::new([hinted(429, "1"), ScriptedResponse::Reply(reply(404, "gone"))]);
    let response = send(&RetryPolicy::default(), &script, post()).await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(report(&response).stop_reason(), &StopReason::Final);
    assert_eq!(text(response).await, "gone");
}

// --- Errors of the inner service ---

fn unsent() -> ScriptedResponse {
    ScriptedResponse::Fail(Unsent::new("connection refused").into())
}

#[tokio::test(start_paused = true)]
async fn what_was_not_sent_is_sent_again_whatever_the_method() {
    let (script, start) = (Script::new([unsent(), unsent()]), Instant::now());
    let response = send(&RetryPolicy::default(), &script, post()).await.unwrap();
    assert_eq!((response.status(), script.seen().len()), (StatusCode::OK, 3));
    assert_between(start.elapsed(), 750 * MS, 1_500 * MS);
    let report = report(&response);
    assert_eq!((report.attempts(), report.stop_reason()), (3, &StopReason::Final));
    for replayed in report.history() {
        assert_eq!((replayed.status(), replayed.reason()), (None, ReplayReason::Unsent));
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_replaces_the_answer_before_and_the_answer_after_replaces_the_error() {
    let script = Script::new([
        ScriptedResponse::Reply(reply(503, "busy")),
        ScriptedResponse::Fail("connection reset".into()),
        ScriptedResponse::Reply(reply(404, "gone")),
    ]);
    let response = send(&RetryPolicy::default(), &script, get()).await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    let reasons: Vec<_> = report(&response).history().iter().map(|replayed| replayed.reason()).collect();
    assert_eq!(reasons, [ReplayReason::Unavailable, ReplayReason::Ambiguous]);
}

#[tokio::test(start_paused = true)]
async fn an_error_is_the_newest_outcome_where_the_replay_after_it_cannot_be_sent() {
    let slot = ReportSlot::new();
    let refused =
        ScriptedResponse::Fail(Error::new(ErrorKind::Transient, "the token endpoint is away").into());
    let script = Script::new([hinted(503, "1"), ScriptedResponse::Fail("connection reset".into()), refused]);
    let mut request = get();
    request.extensions_mut().insert(RetryOptions::new().report_to(&slot));
    let error = send(&RetryPolicy::default(), &script, request).await.unwrap_err();
    assert_eq!(error.to_string(), "connection reset");
    let told = slot.take().unwrap();
    assert_eq!((told.attempts(), told.stop_reason()), (2, &StopReason::TokenUnavailable));
    assert_eq!((told.history().len(), told.requested_delay()), (1, None));
    assert_eq!(told.error().unwrap().to_string(), "the token endpoint is away");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_cannot_be_sent_again_is_not_sent_again_after_an_error_either() {
    let slot = ReportSlot::new();
    let mut request = post();
    request.extensions_mut().insert(RetryOptions::new().report_to(&slot));
    let policy = RetryPolicy::builder().replay_body_limit(0).build().unwrap();
    let error = send(&policy, &Script::new([unsent()]), request).await.unwrap_err();
    assert!(error.is::<Unsent>());
    let told = slot.take().unwrap();
    assert!(matches!(told.stop_reason(), StopReason::NotReplayable { .. }), "{told:?}");
}
