//! A request for which there is no token: it fails at once, or waits if the policy says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use http::header::AUTHORIZATION;
use tokio::time::Instant;
use tower::{ServiceBuilder, ServiceExt as _};
use tower_oauth2::auth::AuthLayer;
use tower_oauth2::extensions::{Attempt, Deadline};
use tower_oauth2::retry::{
    NotReplayable, ReplayReason, ReportSlot, RetryBudget, RetryOptions, RetryPolicyBuilder, RetryReport,
    StopReason, Unsent,
};
use tower_oauth2::test_util::{Script, ScriptedResponse, reply};
use tower_oauth2::{AccessToken, Error, ErrorKind, RetryPolicy, TokenCache, source_fn};

use super::{Outcome, post, report, send, text};

const SECOND: Duration = Duration::from_secs(1);

fn waiting() -> RetryPolicyBuilder {
    RetryPolicy::builder().retry_token_failures(true)
}

fn away() -> ScriptedResponse {
    ScriptedResponse::Fail(Error::new(ErrorKind::Transient, "the token endpoint is away").into())
}

fn busy_for(wait: Duration) -> ScriptedResponse {
    ScriptedResponse::Fail(
        Error::new(ErrorKind::Throttled, "the token endpoint is busy").with_retry_after(wait).into(),
    )
}

/// Sends a POST, which may not be repeated. Returns what came of it, its report, and how long it took.
async fn run(
    policy: RetryPolicyBuilder,
    options: RetryOptions,
    deadline: Option<Duration>,
    answers: impl IntoIterator<Item = ScriptedResponse>,
) -> (Outcome, RetryReport, Duration) {
    let (slot, start) = (ReportSlot::new(), Instant::now());
    let mut request = post();
    request.extensions_mut().insert(options.report_to(&slot));
    if let Some(within) = deadline {
        request.extensions_mut().insert(Deadline::within(within));
    }
    let outcome = send(&policy.build().unwrap(), &Script::new(answers), request).await;
    (outcome, slot.take().unwrap(), start.elapsed())
}

#[tokio::test(start_paused = true)]
async fn it_waits_until_the_cache_asks_again_and_then_carries_the_token() {
    for wait in [true, false] {
        let fetches = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&fetches);
        let source = source_fn(move |_| {
            std::future::ready(match counted.fetch_add(1, Ordering::SeqCst) {
                0 => Err(Error::new(ErrorKind::Throttled, "busy").with_retry_after(7 * SECOND)),
                _ => AccessToken::bearer("token-2"),
            })
        });
        let (script, slot, start) = (Script::new([]), ReportSlot::new(), Instant::now());
        let client = ServiceBuilder::new()
            .layer(RetryPolicy::builder().retry_token_failures(wait).build().unwrap())
            .layer(AuthLayer::for_origin(TokenCache::new(source), "https://api.example.com").unwrap())
            .service(script.probe());
        let mut request = post();
        request.extensions_mut().insert(RetryOptions::new().report_to(&slot));
        let outcome = client.oneshot(request).await;
        let told = slot.take().unwrap();
        if !wait {
            assert_eq!(outcome.unwrap_err().downcast_ref::<Error>().unwrap().kind(), ErrorKind::Throttled);
            assert_eq!((told.attempts(), told.stop_reason()), (0, &StopReason::TokenUnavailable));
            assert!(told.history().is_empty() && script.seen().is_empty());
            assert_eq!(start.elapsed(), Duration::ZERO);
            continue;
        }
        assert_eq!(outcome.unwrap().status(), StatusCode::OK);
        // A tenth by chance at most.
        assert!((7 * SECOND..8 * SECOND).contains(&start.elapsed()), "{:?}", start.elapsed());
        let [seen] = &script.seen()[..] else { panic!("sent more than once") };
        assert_eq!(seen.head.headers[AUTHORIZATION], "Bearer token-2");
        assert!(seen.head.extensions.get::<Attempt>().is_none(), "the server sees a first attempt");
        assert_eq!((&seen.body[..], fetches.load(Ordering::SeqCst)), (&b"item"[..], 2));
        assert_eq!((told.attempts(), told.stop_reason()), (1, &StopReason::Final));
        let [replayed] = told.history() else { panic!("{told:?}") };
        assert_eq!(replayed.reason(), ReplayReason::TokenUnavailable);
        assert_eq!(replayed.status(), None);
        let asked = replayed.requested_delay().unwrap();
        assert!(asked > 6 * SECOND && asked <= 7 * SECOND && replayed.delay() >= asked, "{replayed:?}");
        assert!(!told.may_have_acted());
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_time_the_policys_own_waits_count() {
    let (outcome, told, took) = run(waiting(), RetryOptions::new(), None, [away(), away()]).await;
    assert_eq!(outcome.unwrap().status(), StatusCode::OK);
    assert!(took >= 750 * SECOND / 1000 && took <= 1500 * SECOND / 1000, "{took:?}");
    assert_eq!((told.attempts(), told.history().len()), (1, 2));
    assert!(told.history().iter().all(|replayed| replayed.requested_delay().is_none()));
}

#[tokio::test(start_paused = true)]
async fn what_does_not_pass_is_not_waited_for() {
    for error in [
        Error::new(ErrorKind::Config, "no client id"),
        Error::new(ErrorKind::Grant, "revoked"),
        Error::new(ErrorKind::Protocol, "not JSON"),
    ] {
        let (outcome, told, took) =
            run(waiting(), RetryOptions::new(), None, [ScriptedResponse::Fail(error.clone().into())]).await;
        assert_eq!(outcome.unwrap_err().to_string(), error.to_string());
        assert_eq!((told.attempts(), told.stop_reason()), (0, &StopReason::TokenUnavailable));
        assert_eq!(took, Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn the_newest_failure_is_returned_once_the_retries_are_used_up() {
    let failures = ["one", "two", "three"]
        .map(|text| ScriptedResponse::Fail(Error::new(ErrorKind::Transient, text).into()));
    let (outcome, told, _) = run(waiting().max_retries(2), RetryOptions::new(), None, failures).await;
    assert_eq!(outcome.unwrap_err().to_string(), "three");
    assert_eq!((told.attempts(), told.stop_reason()), (0, &StopReason::AttemptsExhausted));
    assert_eq!((told.history().len(), told.error().unwrap().to_string()), (2, "two".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn no_wait_is_begun_that_is_too_long_or_not_wanted() {
    let long = || [busy_for(10 * SECOND)];
    let stopped = async |policy, options, deadline| {
        let (outcome, told, took) = run(policy, options, deadline, long()).await;
        assert_eq!(outcome.unwrap_err().downcast_ref::<Error>().unwrap().kind(), ErrorKind::Throttled);
        assert_eq!((told.attempts(), told.history().len(), took), (0, 0, Duration::ZERO));
        told.stop_reason().clone()
    };
    let options = RetryOptions::new;
    let stop = stopped(waiting(), options(), Some(5 * SECOND)).await;
    assert!(matches!(stop, StopReason::DeadlineTooClose { needed, .. } if needed >= 10 * SECOND), "{stop:?}");
    let stop = stopped(waiting().max_retry_after(9 * SECOND), options(), None).await;
    assert!(matches!(stop, StopReason::DelayExceedsCap { .. }), "{stop:?}");
    let stop = stopped(waiting().max_total_delay(9 * SECOND), options(), None).await;
    assert!(matches!(stop, StopReason::WaitsExhausted { .. }), "{stop:?}");
    assert_eq!(stopped(waiting(), RetryOptions::never(), None).await, StopReason::TurnedOff);
    let stop = stopped(waiting().replay_body_limit(0), options(), None).await;
    assert!(matches!(stop, StopReason::NotReplayable { cause: NotReplayable::TooLong, .. }), "{stop:?}");
}

#[tokio::test(start_paused = true)]
async fn it_costs_no_budget_and_has_nothing_to_do_with_strict_methods() {
    let budget = RetryBudget::default().retry_ratio(0.0).min_per_second(0).burst(1);
    let policy = waiting().budget(budget.clone()).strict_methods(true);
    let answers = [away(), away(), away()];
    let (outcome, told, _) = run(policy, RetryOptions::new(), None, answers).await;
    assert_eq!((outcome.unwrap().status(), told.history().len()), (StatusCode::OK, 3));
    assert_eq!(budget.balance(post().uri(), None), 1.0);
}

#[tokio::test(start_paused = true)]
async fn it_replaces_neither_a_response_nor_what_may_have_been_done() {
    let busy = || ScriptedResponse::Reply(reply(429, "slow down"));
    let policy = || waiting().max_retries(2).gate(None);
    // The token comes after all: the response of that attempt counts.
    let (outcome, told, _) = run(policy(), RetryOptions::new(), None, [busy(), away()]).await;
    let reasons: Vec<_> = told.history().iter().map(|replayed| replayed.reason()).collect();
    assert_eq!(reasons, [ReplayReason::Throttled, ReplayReason::TokenUnavailable]);
    assert_eq!((outcome.unwrap().status(), told.attempts()), (StatusCode::OK, 2));
    // It does not: the response before is returned, with the reason.
    let (outcome, told, _) = run(policy(), RetryOptions::new(), None, [busy(), away(), away()]).await;
    let response = outcome.unwrap();
    assert_eq!((told.attempts(), told.stop_reason()), (1, &StopReason::AttemptsExhausted));
    assert_eq!(report(&response).error().unwrap().to_string(), "the token endpoint is away");
    assert_eq!(
        (response.status(), text(response).await.as_str()),
        (StatusCode::TOO_MANY_REQUESTS, "slow down")
    );
    // An error of the transport likewise.
    let cut = || ScriptedResponse::Fail(Unsent::new("connection refused").into());
    let (outcome, told, _) = run(policy(), RetryOptions::new(), None, [cut(), away(), away()]).await;
    assert!(outcome.unwrap_err().is::<Unsent>());
    assert_eq!(
        (told.attempts(), told.error().unwrap().to_string()),
        (1, "the token endpoint is away".into())
    );
    let doubtful = RetryOptions::new().repeatable(true);
    let reset = ScriptedResponse::Fail("connection reset".into());
    let (outcome, told, _) = run(policy(), doubtful, None, [reset, away(), away()]).await;
    assert_eq!(
        (outcome.unwrap_err().to_string().as_str(), told.may_have_acted()),
        ("connection reset", true)
    );
}
