//! What a second attempt means where the server may have acted on the first.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use tokio::time::Instant;
use tower::BoxError;
use tower_oauth2::RetryPolicy;
use tower_oauth2::extensions::Deadline;
use tower_oauth2::retry::{Failure, ReportSlot, RetryOptions, RetryReport, StopReason, Unsent};
use tower_oauth2::test_util::{Script, ScriptedResponse, reply};

use super::{Outcome, hinted, send};

fn cut() -> ScriptedResponse {
    ScriptedResponse::Fail(io::Error::from(io::ErrorKind::ConnectionReset).into())
}

fn refused() -> ScriptedResponse {
    ScriptedResponse::Fail(Unsent::new("connection refused").into())
}

fn status(status: u16) -> ScriptedResponse {
    ScriptedResponse::Reply(reply(status, "the server's own words"))
}

fn request(method: &str, headers: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri("https://api.example.com/items/7");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::from("item")).unwrap()
}

const KEY: (&str, &str) = ("idempotency-key", "\"k-1\"");

fn keyed() -> Request<Full<Bytes>> {
    request("POST", &[KEY])
}

async fn run(
    answers: impl IntoIterator<Item = ScriptedResponse>,
    mut request: Request<Full<Bytes>>,
) -> (Outcome, RetryReport, usize) {
    let (script, slot) = (Script::new(answers), ReportSlot::new());
    let options = request.extensions_mut().remove::<RetryOptions>().unwrap_or_default();
    request.extensions_mut().insert(options.report_to(&slot));
    let outcome = send(&RetryPolicy::default(), &script, request).await;
    (outcome, slot.take().unwrap(), script.seen().len())
}

fn class(error: &BoxError) -> Failure {
    Failure::of(&**error)
}

#[tokio::test(start_paused = true)]
async fn an_error_does_not_say_not_sent_for_a_request_that_the_server_received() {
    for answers in [
        vec![cut(), refused(), refused(), refused()],
        vec![refused(), cut(), refused(), refused()],
        vec![refused(), refused(), cut(), refused()],
    ] {
        let (outcome, told, sent) = run(answers, keyed()).await;
        let error = outcome.unwrap_err();
        assert_eq!((sent, class(&error)), (4, Failure::Ambiguous), "{error}");
        assert!(error.is::<io::Error>(), "{error}");
        assert!(told.may_have_acted() && told.error().unwrap().is::<Unsent>());
        assert_eq!((told.attempts(), told.stop_reason()), (4, &StopReason::AttemptsExhausted));
    }
    // A 504 says no more about the work than an error does.
    let (outcome, told, sent) = run([status(504), refused(), refused(), refused()], keyed()).await;
    assert_eq!((outcome.unwrap().status().as_u16(), sent), (504, 4));
    assert!(told.may_have_acted() && told.error().unwrap().is::<Unsent>());
    // Nor does a 429 in between take the doubt away.
    let (outcome, told, _) = run([cut(), hinted(429, "1"), refused(), refused()], keyed()).await;
    assert_eq!(outcome.unwrap().status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(told.may_have_acted());
}

#[tokio::test(start_paused = true)]
async fn a_write_with_a_condition_of_whatever_kind_is_not_repeated_after_an_ambiguous_failure() {
    for condition in [
        ("if", "(<urn:uuid:181d4fae-7d8c-11d0-a765-00a0c91e6bf2>)"),
        ("if-schedule-tag-match", "\"12ab34cd\""),
        ("x-goog-if-generation-match", "0"),
        ("x-ms-if-tags", "\"a\"='b'"),
    ] {
        for method in ["PUT", "DELETE"] {
            let (outcome, told, sent) = run([cut(), status(412)], request(method, &[condition])).await;
            assert_eq!((sent, class(&outcome.unwrap_err())), (1, Failure::Ambiguous), "{condition:?}");
            assert!(told.may_have_acted());
        }
        // Where it provably did not arrive it is sent again, and so is a read.
        let (outcome, _, sent) = run([refused(), status(201)], request("PUT", &[condition])).await;
        assert_eq!((outcome.unwrap().status().as_u16(), sent), (201, 2));
        let (outcome, _, sent) = run([cut(), status(200)], request("GET", &[condition])).await;
        assert_eq!((outcome.unwrap().status().as_u16(), sent), (200, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_never_arrived_is_told_as_that() {
    for answers in [
        vec![refused(), refused(), refused(), refused()],
        vec![hinted(429, "1"), refused(), refused(), refused()],
    ] {
        let (outcome, told, sent) = run(answers, keyed()).await;
        assert_eq!((sent, class(&outcome.unwrap_err())), (4, Failure::Unsent));
        assert!(!told.may_have_acted());
    }
    // A method that changes nothing leaves no doubt behind.
    let (outcome, told, _) = run([cut(), refused(), refused(), refused()], request("GET", &[])).await;
    assert_eq!(class(&outcome.unwrap_err()), Failure::Unsent);
    assert!(!told.may_have_acted());
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_was_in_flight_at_the_deadline_may_have_acted() {
    for (answers, acted) in
        [(vec![hinted(429, "1"), ScriptedResponse::Hang], true), (vec![hinted(429, "9")], false)]
    {
        let mut request = request("POST", &[]);
        request.extensions_mut().insert(Deadline::within(Duration::from_secs(5)));
        let (outcome, told, _) = run(answers, request).await;
        assert_eq!(outcome.unwrap().status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(told.may_have_acted(), acted);
    }
}

#[tokio::test(start_paused = true)]
async fn a_conditional_write_is_not_repeated_after_an_ambiguous_failure() {
    const WHEN: &str = "Tue, 14 Nov 2023 22:13:20 GMT";
    for (method, condition) in [
        ("PUT", ("if-none-match", "*")),
        ("PUT", ("if-match", "\"v1\"")),
        ("DELETE", ("if-match", "\"v1\"")),
        ("PUT", ("if-unmodified-since", WHEN)),
    ] {
        for first in [cut, || status(504)] {
            let (outcome, told, sent) = run([first(), status(412)], request(method, &[condition])).await;
            assert_eq!((sent, told.stop_reason()), (1, &StopReason::NotIdempotent), "{method} {condition:?}");
            assert!(outcome.is_err() || outcome.is_ok_and(|response| response.status() == 504));
        }
        // The server did nothing, or knows the request by its key, or the caller knows what a 412 means.
        let mut told_to = request(method, &[condition]);
        told_to.extensions_mut().insert(RetryOptions::new().repeatable(true));
        for (first, request) in [
            (refused(), request(method, &[condition])),
            (hinted(429, "1"), request(method, &[condition])),
            (cut(), request(method, &[condition, KEY])),
            (cut(), told_to),
        ] {
            let (outcome, _, sent) = run([first], request).await;
            assert_eq!((outcome.unwrap().status(), sent), (StatusCode::OK, 2), "{method} {condition:?}");
        }
    }
    // A conditional read may be repeated as any other.
    let (outcome, _, sent) = run([cut(), status(304)], request("GET", &[("if-none-match", "\"v1\"")])).await;
    assert_eq!((outcome.unwrap().status().as_u16(), sent), (304, 2));
}

#[tokio::test(start_paused = true)]
async fn a_conflict_with_our_own_earlier_attempt_is_waited_for() {
    let start = Instant::now();
    let (outcome, told, sent) = run([cut(), status(409), hinted(409, "2"), status(201)], keyed()).await;
    assert_eq!((outcome.unwrap().status().as_u16(), sent), (201, 4));
    assert!(told.may_have_acted() && start.elapsed() >= Duration::from_secs(2));
    let response = send(&RetryPolicy::default(), &Script::new([status(409)]), keyed()).await.unwrap();
    assert_eq!(response.status(), StatusCode::CONFLICT);
    // It is handed out if nothing was in doubt, if nothing tells the attempts to be one, or when patience ends.
    for (answers, request, expected) in [
        (vec![refused(), status(409)], keyed(), 2),
        (vec![hinted(429, "1"), status(409)], keyed(), 2),
        (vec![cut(), status(409)], request("PUT", &[]), 2),
        (vec![cut(), status(409), status(409), status(409), status(201)], keyed(), 4),
    ] {
        let (outcome, _, sent) = run(answers, request).await;
        assert_eq!((outcome.unwrap().status(), sent), (StatusCode::CONFLICT, expected));
    }
}

#[tokio::test(start_paused = true)]
async fn the_report_says_that_an_earlier_attempt_may_have_done_it() {
    let mut told_to = request("PUT", &[("if-none-match", "*")]);
    told_to.extensions_mut().insert(RetryOptions::new().repeatable(true));
    for (first, last, request, acted) in [
        (cut(), 404, request("DELETE", &[]), true),
        (status(503), 404, request("DELETE", &[]), true),
        (cut(), 412, told_to, true),
        (refused(), 404, request("DELETE", &[]), false),
        (hinted(429, "1"), 404, request("DELETE", &[]), false),
        (status(425), 404, request("DELETE", &[]), false),
        (cut(), 404, request("GET", &[]), false),
    ] {
        let (outcome, told, sent) = run([first, status(last)], request).await;
        let response = outcome.unwrap();
        assert_eq!((response.status().as_u16(), sent), (last, 2));
        assert_eq!(told.may_have_acted(), acted, "{last}");
        let report = response.extensions().get::<RetryReport>().unwrap();
        assert_eq!(report.may_have_acted(), acted);
    }
}

#[tokio::test(start_paused = true)]
async fn a_method_that_changes_nothing_is_repeated_whatever_its_name() {
    for method in ["QUERY", "PROPFIND", "REPORT", "SEARCH", "GET", "HEAD", "OPTIONS"] {
        let (outcome, told, sent) = run([cut(), status(503)], request(method, &[])).await;
        assert_eq!((outcome.unwrap().status(), sent), (StatusCode::OK, 3), "{method}");
        assert!(!told.may_have_acted());
    }
    // These do twice what they do once. A copy that must not overwrite would meet its own first result.
    for method in ["PROPPATCH", "MKCOL", "MKCALENDAR", "COPY", "MOVE", "UNLOCK", "ACL", "PUT", "DELETE"] {
        let (outcome, told, sent) = run([cut(), status(503)], request(method, &[])).await;
        assert_eq!((outcome.unwrap().status(), sent), (StatusCode::OK, 3), "{method}");
        assert!(told.may_have_acted());
    }
    for (method, headers) in [
        ("POST", &[][..]),
        ("PATCH", &[]),
        ("LOCK", &[]),
        ("query", &[]),
        ("copy", &[]),
        ("COPY", &[("overwrite", "F")]),
        ("MOVE", &[("overwrite", " f")]),
        (Method::CONNECT.as_str(), &[]),
    ] {
        let (outcome, told, sent) = run([cut()], request(method, headers)).await;
        assert!(outcome.is_err() && sent == 1, "{method}");
        assert_eq!(told.stop_reason(), &StopReason::NotIdempotent);
    }
    let (outcome, _, sent) = run([cut()], request("COPY", &[("overwrite", "T")])).await;
    assert!(outcome.is_ok() && sent == 2);
}

#[tokio::test(start_paused = true)]
async fn a_key_counts_under_the_names_that_vendors_give_it() {
    for name in [
        "x-idempotency-key",
        "idempotence-key",
        "x-idempotence-key",
        "idempotency-token",
        "x-idempotency-token",
        "cko-idempotency-key",
        "klarna-idempotency-key",
        "x-docusign-idempotency-key",
        "x-idempotence-uuid",
        "paypal-request-id",
        "repeatability-request-id",
    ] {
        let (outcome, told, sent) = run([cut(), status(409)], request("POST", &[(name, "k-1")])).await;
        assert_eq!((outcome.unwrap().status(), sent), (StatusCode::OK, 3), "{name}");
        assert!(told.may_have_acted());
        let (outcome, _, sent) = run([cut()], request("POST", &[(name, "\"\"")])).await;
        assert!(outcome.is_err() && sent == 1, "{name}");
        // It needs no other key beside it.
        let policy = RetryPolicy::builder().generated_idempotency_keys(true).build().unwrap();
        let script = Script::new([]);
        send(&policy, &script, request("POST", &[(name, "k-1")])).await.unwrap();
        assert!(!script.seen()[0].head.headers.contains_key("idempotency-key"), "{name}");
    }
    for name in ["x-request-id", "x-correlation-id", "x-amz-request-id", "idempotency-key-status"] {
        let (outcome, _, sent) = run([cut()], request("POST", &[(name, "k-1")])).await;
        assert!(outcome.is_err() && sent == 1, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_425_says_that_nothing_was_done_whatever_the_method() {
    for method in ["POST", "PATCH"] {
        let (outcome, told, sent) = run([status(425), status(425)], request(method, &[])).await;
        assert_eq!((outcome.unwrap().status(), sent), (StatusCode::OK, 3));
        assert!(!told.may_have_acted());
        let mut strictly = request(method, &[]);
        strictly.extensions_mut().insert(RetryOptions::new().strict_methods(true));
        let (outcome, told, sent) = run([status(425)], strictly).await;
        assert_eq!((outcome.unwrap().status().as_u16(), sent), (425, 1));
        assert_eq!(told.stop_reason(), &StopReason::NotIdempotent);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_is_not_believed_leaves_a_doubt() {
    for (first, strict, doubtful) in [(429, true, true), (409, true, false), (429, false, false)] {
        for (method, acts) in [("DELETE", doubtful), ("GET", false)] {
            let strictly = || {
                let mut request = request(method, &[]);
                request.extensions_mut().insert(RetryOptions::new().strict_methods(strict));
                request
            };
            let (outcome, told, sent) = run([hinted(first, "1"), status(404)], strictly()).await;
            assert_eq!((outcome.unwrap().status().as_u16(), sent), (404, 2));
            assert_eq!(told.may_have_acted(), acts, "{first} {method}");
            // An attempt that did no work does not take its place.
            let (outcome, _, _) =
                run([hinted(first, "1"), refused(), refused(), refused()], strictly()).await;
            assert_eq!(outcome.is_ok(), acts, "{first} {method}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_that_would_come_again_may_have_come_after_the_work() {
    let policy = RetryPolicy::builder().classifier(|_| Failure::Fatal).build().unwrap();
    for (method, error, acted) in
        [("POST", cut(), true), ("PUT", cut(), true), ("GET", cut(), false), ("POST", refused(), false)]
    {
        let (script, slot) = (Script::new([error]), ReportSlot::new());
        let mut request = request(method, &[]);
        request.extensions_mut().insert(RetryOptions::new().report_to(&slot));
        assert!(send(&policy, &script, request).await.is_err());
        let told = slot.take().unwrap();
        assert_eq!((told.stop_reason(), told.may_have_acted()), (&StopReason::Failed, acted), "{method}");
    }
    // So it is the newest outcome, also where an earlier attempt was in doubt.
    let fatal = |error: &(dyn std::error::Error + 'static)| match error.is::<io::Error>() {
        true => Failure::Ambiguous,
        false => Failure::Fatal,
    };
    let policy = RetryPolicy::builder().classifier(fatal).build().unwrap();
    let script = Script::new([cut(), ScriptedResponse::Fail("too large".into())]);
    let error = send(&policy, &script, keyed()).await.unwrap_err();
    assert_eq!(error.to_string(), "too large");
}

#[tokio::test(start_paused = true)]
async fn a_post_that_only_reads_is_repeated_if_the_caller_says_so() {
    for first in [cut, || status(503), || status(504)] {
        let mut request = request("POST", &[]);
        request.extensions_mut().insert(RetryOptions::new().repeatable(true));
        let (outcome, _, sent) = run([first()], request).await;
        assert_eq!((outcome.unwrap().status(), sent), (StatusCode::OK, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_key_makes_nothing_repeatable() {
    for key in ["", " ", "\"\""] {
        let (outcome, told, sent) = run([cut()], request("POST", &[("idempotency-key", key)])).await;
        assert!(outcome.is_err() && sent == 1, "{key:?}");
        assert_eq!(told.stop_reason(), &StopReason::NotIdempotent);
    }
    let policy = RetryPolicy::builder().generated_idempotency_keys(true).build().unwrap();
    let script = Script::new([cut()]);
    let response = send(&policy, &script, request("POST", &[("idempotency-key", "")])).await.unwrap();
    let seen = script.seen();
    assert_eq!((response.status(), seen.len()), (StatusCode::OK, 2));
    assert!(seen.iter().all(|seen| seen.head.headers["idempotency-key"].len() == 38));
}
