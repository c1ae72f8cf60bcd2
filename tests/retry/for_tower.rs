//! tower's own retry layer with the policy that is made for it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tokio::time::Instant;
use tower::{BoxError, ServiceBuilder, ServiceExt as _, service_fn};
use tower_oauth2::auth::AuthLayer;
use tower_oauth2::extensions::{Attempt, Deadline, TokenRejected};
use tower_oauth2::retry::{
    Failure, ReplayReason, ReportSlot, RetryBudget, RetryOptions, RetryReport, StopReason, Unsent,
};
use tower_oauth2::test_util::{Answer, Script, reply};
use tower_oauth2::{AccessToken, Error, RetryPolicy, TokenCache, source_fn};

use super::{answers, get, hinted, post, report};

const SECOND: Duration = Duration::from_secs(1);

async fn send_by(
    policy: &RetryPolicy,
    script: &Script,
    request: Request<Full<Bytes>>,
) -> Result<Response<Full<Bytes>>, BoxError> {
    ServiceBuilder::new().retry(policy.for_tower()).service(script.probe()).oneshot(request).await
}

async fn send(script: &Script, request: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, BoxError> {
    send_by(&RetryPolicy::default(), script, request).await
}

#[tokio::test(start_paused = true)]
async fn what_is_retried_and_how_long_is_waited_is_the_same() {
    let (script, start) = (Script::new([hinted(429, "10"), Answer::Reply(reply(429, ""))]), Instant::now());
    let response = send(&script, post()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    // The hint with its jitter, then the second wait of the policy's own.
    assert!(start.elapsed() >= Duration::from_millis(10_500) && start.elapsed() < 12 * SECOND + SECOND / 10);
    let told = report(&response);
    assert_eq!((told.attempts(), told.stop_reason()), (3, &StopReason::Final));
    assert_eq!(told.history()[0].requested_delay(), Some(10 * SECOND));
    let counts = |script: &Script| -> Vec<_> {
        let count = |head: &http::request::Parts| head.extensions.get::<Attempt>().map(|a| a.resend_count());
        script.seen().iter().map(|seen| (count(&seen.head), seen.body.clone())).collect()
    };
    let item = Bytes::from("item");
    assert_eq!(counts(&script), [(None, item.clone()), (Some(1), item.clone()), (Some(2), item)]);

    let script = answers(503, 9);
    let response = send(&script, post()).await.unwrap();
    assert_eq!((script.seen().len(), report(&response).stop_reason()), (1, &StopReason::NotIdempotent));
    let response = send(&script, get()).await.unwrap();
    assert_eq!((script.seen().len(), report(&response).stop_reason()), (4, &StopReason::AttemptsExhausted));

    let script = Script::new([hinted(429, "61")]);
    let response = send(&script, get()).await.unwrap();
    let requested = 61 * SECOND;
    assert_eq!(report(&response).stop_reason(), &StopReason::DelayExceedsCap { requested });
    assert_eq!(report(&response).requested_delay(), Some(requested));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_final_at_once_has_no_report() {
    let response = send(&answers(404, 1), get()).await.unwrap();
    assert!(response.extensions().get::<RetryReport>().is_none());
}

#[tokio::test(start_paused = true)]
async fn errors_are_told_apart_alike() {
    let slot = ReportSlot::new();
    let mut request = post();
    request.extensions_mut().insert(RetryOptions::new().report_to(&slot));
    let script = Script::new([Answer::Fail(Unsent::new("refused").into()), Answer::Fail("reset".into())]);
    let error = send(&script, request).await.unwrap_err();
    assert_eq!((error.to_string(), script.seen().len()), ("reset".to_owned(), 2));
    let told = slot.take().unwrap();
    assert_eq!(told.stop_reason(), &StopReason::NotIdempotent);
    assert_eq!(told.history()[0].failure(), Some(Failure::Unsent));

    let script = Script::new([Answer::Fail(Error::grant("refused").into())]);
    send(&script, get()).await.unwrap_err();
    assert_eq!(script.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn deadlines_and_the_budget_count() {
    let mut request = get();
    request.extensions_mut().insert(Deadline::within(5 * SECOND));
    let (script, start) = (Script::new([hinted(429, "10")]), Instant::now());
    let response = send(&script, request).await.unwrap();
    assert!(matches!(report(&response).stop_reason(), StopReason::DeadlineTooClose { .. }));
    assert_eq!(start.elapsed(), Duration::ZERO);

    let total = RetryPolicy::builder().total_timeout(15 * SECOND).build().unwrap();
    let script = Script::new((0..9).map(|_| hinted(429, "10")));
    let response = send_by(&total, &script, get()).await.unwrap();
    assert!(matches!(report(&response).stop_reason(), StopReason::DeadlineTooClose { .. }));
    assert_eq!(script.seen().len(), 2);

    let budget = RetryBudget::builder().share(0.0).floor(0).burst(1).build().unwrap();
    let policy = RetryPolicy::builder().budget(budget).build().unwrap();
    let script = answers(503, 9);
    let response = send_by(&policy, &script, get()).await.unwrap();
    assert_eq!((script.seen().len(), report(&response).stop_reason()), (2, &StopReason::BudgetExhausted));
}

#[tokio::test(start_paused = true)]
async fn a_resend_of_another_retry_layer_is_sent_once() {
    let script = answers(503, 99);
    let (inner, outer) = (RetryPolicy::default(), RetryPolicy::default());
    let client =
        ServiceBuilder::new().retry(outer.for_tower()).retry(inner.for_tower()).service(script.probe());
    client.oneshot(get()).await.unwrap();
    assert_eq!(script.seen().len(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_replayed_once_with_a_new_one() {
    let issued = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&issued);
    let cache = TokenCache::new(source_fn(move |_| {
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        std::future::ready(AccessToken::bearer(format!("token-{number}")))
    }));
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let log = Arc::clone(&seen);
    let api = service_fn(move |request: Request<Full<Bytes>>| {
        log.lock().unwrap().push(request.headers()[AUTHORIZATION].to_str().unwrap().to_owned());
        let mut response = reply(401, "");
        response.headers_mut().insert(WWW_AUTHENTICATE, "Bearer error=\"invalid_token\"".parse().unwrap());
        async { Ok::<_, BoxError>(response) }
    });
    let client = ServiceBuilder::new()
        .retry(RetryPolicy::default().for_tower())
        .layer(AuthLayer::for_origin(cache, "https://api.example.com").unwrap())
        .service(api);
    let response = client.oneshot(post()).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), ["Bearer token-1", "Bearer token-2"]);
    let told = report(&response);
    assert_eq!(
        (told.stop_reason(), told.history()[0].reason()),
        (&StopReason::AuthReplaysExhausted, ReplayReason::TokenRejected)
    );
    assert!(response.extensions().get::<TokenRejected>().is_none() && told.token_rejected().is_some());
}

#[tokio::test(start_paused = true)]
async fn two_sessions_do_not_wait_alike() {
    let script = answers(429, 20);
    let start = Instant::now();
    futures_util::future::join_all((0..20).map(|_| async { send(&script, get()).await.unwrap() })).await;
    let mut second: Vec<_> = script.seen().iter().map(|seen| seen.after(start)).collect();
    second.sort_unstable();
    second.dedup();
    assert!(second.len() > 10, "{second:?}");
}
