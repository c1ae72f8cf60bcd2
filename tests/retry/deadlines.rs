//! The end of a request that takes too long.

use std::error::Error;
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;
use tower::{BoxError, Service as _, ServiceExt as _};
use tower_oauth2::RetryPolicy;
use tower_oauth2::extensions::Deadline;
use tower_oauth2::retry::{
    ReplayReason, ReportSlot, RetryOptions, RetryPolicyBuilder, RetryReport, StopReason, TimedOut, Unsent,
};
use tower_oauth2::test_util::{Script, ScriptedResponse, reply};

use super::{Outcome, get, hinted, post, report, send, text};

const SECOND: Duration = Duration::from_secs(1);

fn policy(adjust: impl FnOnce(RetryPolicyBuilder) -> RetryPolicyBuilder) -> RetryPolicy {
    adjust(RetryPolicy::builder()).build().unwrap()
}

/// Sends a GET, and returns what came of it, its report, the attempts that were seen, and how long it took.
async fn run(
    policy: &RetryPolicy,
    answers: Vec<ScriptedResponse>,
    deadline: Option<Duration>,
) -> (Outcome, RetryReport, usize, Duration) {
    let (slot, script, start) = (ReportSlot::new(), Script::new(answers), Instant::now());
    let mut request = get();
    request.extensions_mut().insert(RetryOptions::new().report_to(&slot));
    if let Some(within) = deadline {
        request.extensions_mut().insert(Deadline::within(within));
    }
    let outcome = send(policy, &script, request).await;
    (outcome, slot.take().unwrap(), script.seen().len(), start.elapsed())
}

fn is_deadline(error: &BoxError) -> bool {
    error.downcast_ref() == Some(&TimedOut::Deadline)
}

fn is_attempt(error: &(dyn Error + Send + Sync + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(TimedOut::Attempt { limit, .. }) if *limit == 2 * SECOND)
}

#[tokio::test(start_paused = true)]
async fn an_attempt_in_flight_at_the_deadline_is_ended() {
    let total = policy(|policy| policy.total_timeout(5 * SECOND));
    let both = policy(|policy| policy.total_timeout(9 * SECOND));
    for (policy, deadline) in [
        (&total, None),
        (&both, Some(5 * SECOND)),
        (&total, Some(9 * SECOND)),
        (&RetryPolicy::default(), Some(5 * SECOND)),
    ] {
        let (outcome, told, sent, took) = run(policy, vec![ScriptedResponse::Hang], deadline).await;
        let error = outcome.unwrap_err();
        assert!(is_deadline(&error), "{error}");
        assert_eq!((sent, told.attempts(), told.stop_reason()), (1, 1, &StopReason::DeadlineExceeded));
        assert!(took >= 5 * SECOND && took < 5 * SECOND + Duration::from_millis(3), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_answer_before_is_handed_out_at_the_deadline() {
    let answers = vec![hinted(503, "1"), ScriptedResponse::Hang];
    let (outcome, told, sent, took) = run(&RetryPolicy::default(), answers, Some(5 * SECOND)).await;
    let response = outcome.unwrap();
    assert_eq!((response.status(), sent), (StatusCode::SERVICE_UNAVAILABLE, 2));
    assert_eq!((told.attempts(), told.stop_reason()), (2, &StopReason::DeadlineExceeded));
    assert!(told.history().is_empty() && told.error().unwrap().downcast_ref() == Some(&TimedOut::Deadline));
    assert_eq!(told.requested_delay(), Some(SECOND));
    assert_eq!(told.attempts(), report(&response).attempts());
    assert_eq!(text(response).await, "the server's own words");
    assert!(took < 5 * SECOND + Duration::from_millis(3), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_error_before_does_not_hide_that_the_deadline_passed() {
    let refused = ScriptedResponse::Fail(Unsent::new("connection refused").into());
    let (outcome, told, sent, _) =
        run(&RetryPolicy::default(), vec![refused, ScriptedResponse::Hang], Some(5 * SECOND)).await;
    assert!(is_deadline(&outcome.unwrap_err()));
    assert_eq!((sent, told.history().len()), (2, 1));
    assert_eq!(told.history()[0].reason(), ReplayReason::Unsent);
    assert!(told.error().unwrap().is::<Unsent>());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_sent_once_has_a_deadline_all_the_same() {
    let total = policy(|policy| policy.total_timeout(SECOND).max_retries(0).replay_body_limit(0));
    let script = Script::new([ScriptedResponse::Hang]);
    let error = send(&total, &script, post()).await.unwrap_err();
    assert!(is_deadline(&error));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_takes_too_long_is_made_again() {
    let quick = policy(|policy| policy.attempt_timeout(2 * SECOND));
    let (outcome, told, sent, took) =
        run(&quick, vec![ScriptedResponse::Hang, ScriptedResponse::Hang], None).await;
    assert_eq!((outcome.unwrap().status(), sent), (StatusCode::OK, 3));
    assert!(took >= 4 * SECOND + Duration::from_millis(750) && took < 6 * SECOND, "{took:?}");
    for replayed in told.history() {
        assert_eq!(replayed.reason(), ReplayReason::Ambiguous);
    }
    // A POST may have been done.
    let script = Script::new([ScriptedResponse::Hang]);
    let error = send(&quick, &script, post()).await.unwrap_err();
    assert!(is_attempt(&*error), "{error}");
    assert_eq!(script.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn after_the_last_attempt_that_takes_too_long_the_answer_before_is_handed_out() {
    let quick = policy(|policy| policy.attempt_timeout(2 * SECOND));
    let busy = || ScriptedResponse::Reply(reply(503, "busy"));
    let answers = vec![ScriptedResponse::Hang, busy(), ScriptedResponse::Hang, ScriptedResponse::Hang];
    let (outcome, told, sent, _) = run(&quick, answers, None).await;
    let response = outcome.unwrap();
    assert_eq!((response.status(), sent), (StatusCode::SERVICE_UNAVAILABLE, 4));
    assert_eq!((told.attempts(), told.stop_reason()), (4, &StopReason::AttemptsExhausted));
    // What was handed out is no part of the history.
    assert_eq!(told.history().iter().map(|replayed| replayed.status()).collect::<Vec<_>>(), [None, None]);
    assert!(is_attempt(told.error().unwrap()));
    assert_eq!(text(response).await, "busy");

    let (outcome, told, sent, _) = run(&quick, (0..9).map(|_| ScriptedResponse::Hang).collect(), None).await;
    assert!(is_attempt(&*outcome.unwrap_err()));
    assert_eq!((sent, told.stop_reason(), told.history().len()), (4, &StopReason::AttemptsExhausted, 3));
}

#[tokio::test(start_paused = true)]
async fn the_last_attempt_has_no_more_than_what_remains() {
    let quick = policy(|policy| policy.attempt_timeout(2 * SECOND).total_timeout(4 * SECOND));
    let (outcome, told, _, took) = run(&quick, (0..9).map(|_| ScriptedResponse::Hang).collect(), None).await;
    assert!(is_deadline(&outcome.unwrap_err()));
    assert_eq!(told.stop_reason(), &StopReason::DeadlineExceeded);
    assert!(took >= 4 * SECOND && took < 4 * SECOND + Duration::from_millis(3), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_there_counts_however_late() {
    let mut request = get();
    request.extensions_mut().insert(Deadline::within(SECOND));
    let script = Script::default();
    let mut client = tower::Layer::layer(&RetryPolicy::default(), script.probe());
    let sent = client.ready().await.unwrap().call(request);
    tokio::time::advance(2 * SECOND).await;
    assert_eq!(sent.await.unwrap().status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_deadline_has_passed_is_not_sent() {
    let (slot, script) = (ReportSlot::new(), Script::default());
    let probe = script.probe_with_permits(1);
    let mut client = tower::Layer::layer(&RetryPolicy::default(), probe.clone());
    let mut request = post();
    request.extensions_mut().insert(Deadline::within(Duration::ZERO));
    request.extensions_mut().insert(RetryOptions::new().report_to(&slot));
    let error = client.ready().await.unwrap().call(request).await.unwrap_err();
    assert!(is_deadline(&error) && script.seen().is_empty());
    let told = slot.take().unwrap();
    assert_eq!((told.attempts(), told.stop_reason()), (0, &StopReason::DeadlineExceeded));
    assert!(!told.may_have_acted());
    // Nor does it keep what the service had reserved for it.
    assert_eq!(probe.reserved(), 0);
    assert_eq!(client.ready().await.unwrap().call(get()).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn what_waits_until_its_deadline_is_not_sent_to_be_killed() {
    let policy = RetryPolicy::default();
    let script = Script::new([hinted(429, "9")]);
    let client = tower::Layer::layer(&policy, script.probe());
    let refused = client.clone().oneshot(get());
    let held = async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let mut held = Vec::new();
        for seconds in 2..30 {
            let mut request = get();
            request.extensions_mut().insert(Deadline::within(SECOND * seconds));
            held.push(client.clone().oneshot(request));
        }
        futures_util::future::join_all(held).await
    };
    let start = Instant::now();
    let (first, held) = futures_util::future::join(refused, held).await;
    assert_eq!(first.unwrap().status(), StatusCode::OK);
    let seen = script.seen();
    for seen in &seen {
        let deadline = seen.head.extensions.get::<Deadline>();
        assert!(deadline.is_none_or(|deadline| Deadline::at(seen.at) < *deadline), "{:?}", seen.after(start));
    }
    let sent = held.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(seen.len(), sent + 2);
    assert!(held.into_iter().filter_map(Result::err).all(|error| is_deadline(&error)));
}

#[tokio::test]
async fn without_limits_there_is_no_timer() {
    // A runtime of its own, which has none: a sleep would panic.
    let runtime = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let client = tower::service_fn(|_: http::Request<tower_oauth2::retry::RequestBody<_>>| async {
                tokio::task::yield_now().await;
                Ok::<_, BoxError>(reply(200, ""))
            });
            let client = tower::Layer::layer(&RetryPolicy::default(), client);
            tower::ServiceExt::oneshot(client, get()).await.unwrap().status()
        })
    });
    assert_eq!(runtime.join().unwrap(), StatusCode::OK);
}
