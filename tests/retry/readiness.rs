//! The contract of `tower::Service`, and what is held during waits.

use std::convert::Infallible;
use std::future::Future as _;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use tokio::time::Instant;
use tower::{BoxError, Layer as _, Service, ServiceBuilder, ServiceExt as _};
use tower_oauth2::RetryPolicy;
use tower_oauth2::extensions::Deadline;
use tower_oauth2::retry::{RequestBody, RetryService, StopReason};
use tower_oauth2::test_util::{Probe, Readiness, Script, ScriptedResponse, reply};

use super::{answers, get, hinted, post, report, text};

type Inner = Probe<Request<RequestBody<Full<Bytes>>>, Response<Full<Bytes>>>;

fn over(inner: &Inner) -> RetryService<Inner> {
    RetryPolicy::default().layer(inner.clone())
}

#[tokio::test(start_paused = true)]
async fn every_attempt_is_made_by_a_service_that_was_ready() {
    // The probe panics otherwise.
    let probe = answers(429, 3).probe();
    let mut service = over(&probe);
    for _ in 0..2 {
        let response = service.ready().await.unwrap().call(post()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
    assert_eq!((probe.calls(), probe.reserved(), probe.in_flight()), (5, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn requests_of_one_instance_are_in_flight_at_once_and_each_is_retried() {
    let probe = answers(429, 4).probe();
    let mut service = over(&probe);
    let mut in_flight = Vec::new();
    for _ in 0..4 {
        in_flight.push(service.ready().await.unwrap().call(post()));
    }
    drop(service);
    for response in futures_util::future::join_all(in_flight).await {
        let response = response.unwrap();
        assert_eq!((response.status(), report(&response).attempts()), (StatusCode::OK, 2));
    }
    assert_eq!((probe.calls(), probe.reserved(), probe.in_flight()), (8, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn further_attempts_go_through_what_the_inner_service_was_changed_to() {
    let (before, after): (Inner, Inner) = (Script::default().probe(), answers(503, 1).probe());
    let mut service = over(&before);
    for _ in 0..3 {
        service.ready().await.unwrap().call(get()).await.unwrap();
    }
    *service.get_mut() = after.clone();
    let response = service.ready().await.unwrap().call(get()).await.unwrap();
    assert_eq!((response.status(), report(&response).attempts()), (StatusCode::OK, 2));
    assert_eq!((before.calls(), after.calls()), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn readiness_that_was_not_used_is_given_back() {
    let probe: Inner = Script::default().probe_with_permits(1);
    let mut service = over(&probe);
    service.ready().await.unwrap();
    assert_eq!(probe.reserved(), 1);
    drop(service);
    assert_eq!(probe.reserved(), 0);
    over(&probe).oneshot(get()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn nothing_is_held_during_a_wait() {
    let script = Script::new([hinted(429, "10")]);
    let probe: Inner = script.probe_with_permits(1);
    let waiting = tokio::spawn(over(&probe).oneshot(post()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((probe.calls(), probe.reserved(), probe.in_flight()), (1, 0, 0));
    // Somebody else gets through meanwhile, through the one permit there is.
    let start = Instant::now();
    over(&probe).oneshot(get()).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(waiting.await.unwrap().unwrap().status(), StatusCode::OK);
    assert_eq!((probe.calls(), probe.max_in_flight()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_one_does_not_lock_itself_out() {
    let inner = ServiceBuilder::new().concurrency_limit(1).service(answers(503, 3).probe());
    let response = RetryPolicy::default().layer(inner).oneshot(get()).await.unwrap();
    assert_eq!((response.status(), report(&response).attempts()), (StatusCode::OK, 4));
}

#[tokio::test(start_paused = true)]
async fn many_requests_share_a_limit_of_one() {
    let inner = ServiceBuilder::new().concurrency_limit(1).service(answers(429, 30).probe());
    let policy = RetryPolicy::builder().max_retries(30).max_total_delay(Duration::from_secs(9_999));
    let service = policy.budget(None).build().unwrap().layer(inner);
    let requests = (0..10).map(|_| service.clone().oneshot(post()));
    for response in futures_util::future::join_all(requests).await {
        assert_eq!(response.unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_breaks_before_the_replay_does_not_cost_the_answer() {
    let probe: Inner = answers(429, 1).probe().readiness([Readiness::Ready, Readiness::Broken]);
    let response = over(&probe).oneshot(post()).await.unwrap();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    let told = report(&response);
    assert_eq!((told.attempts(), told.stop_reason()), (1, &StopReason::NotReady));
    assert_eq!(told.error().unwrap().to_string(), "the service is broken");
    assert_eq!(text(response).await, "the server's own words");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_broken_from_the_start_says_so() {
    let probe: Inner = Script::default().probe().readiness([Readiness::Broken]);
    assert_eq!(over(&probe).oneshot(get()).await.unwrap_err().to_string(), "the service is broken");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_sheds_the_replay_does_not_cost_the_answer() {
    let script = Script::new([ScriptedResponse::Reply(reply(503, "whole")), ScriptedResponse::Hang]);
    let probe: Inner = script.probe_with_permits(1);
    let inner = ServiceBuilder::new().load_shed().service(probe.clone());
    let waiting = tokio::spawn(RetryPolicy::default().layer(inner).oneshot(get()));
    tokio::time::sleep(Duration::from_millis(1)).await;
    let _other = tokio::spawn(over(&probe).oneshot(get()));
    let response = waiting.await.unwrap().unwrap();
    assert_eq!((response.status(), probe.calls()), (StatusCode::SERVICE_UNAVAILABLE, 2));
    assert_eq!((report(&response).attempts(), report(&response).stop_reason()), (1, &StopReason::NotReady));
    assert!(report(&response).error().unwrap().is::<tower::load_shed::error::Overloaded>());
    assert_eq!(text(response).await, "whole");
}

#[tokio::test(start_paused = true)]
async fn readiness_is_waited_for_until_the_deadline() {
    let (script, start) = (Script::new([hinted(429, "1")]), Instant::now());
    let probe: Inner = script.probe().readiness([Readiness::Ready, Readiness::Never]);
    let mut request = post();
    request.extensions_mut().insert(Deadline::within(Duration::from_secs(5)));
    let response = over(&probe).oneshot(request).await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(5));
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(report(&response).stop_reason(), &StopReason::NotReady);
    assert_eq!(report(&response).requested_delay(), Some(Duration::from_secs(1)));
    assert_eq!(text(response).await, "the server's own words");
}

#[tokio::test(start_paused = true)]
async fn without_a_deadline_readiness_is_waited_for_as_long_as_waits_may_be_in_all() {
    let (script, start) = (Script::new([hinted(429, "60")]), Instant::now());
    let probe: Inner = script.probe().readiness([Readiness::Ready, Readiness::Never]);
    let response = over(&probe).oneshot(post()).await.unwrap();
    assert!(start.elapsed() > Duration::from_secs(119) && start.elapsed() <= Duration::from_secs(121));
    assert_eq!(report(&response).stop_reason(), &StopReason::NotReady);
}

#[tokio::test(start_paused = true)]
async fn the_time_until_the_service_is_ready_is_one_of_the_waits() {
    let script = answers(503, 9);
    let probe: Inner = script.probe_with_permits(1);
    let waiting = tokio::spawn(over(&probe).oneshot(get()));
    let start = Instant::now();
    // Somebody else has the one permit, all but a moment of the time.
    while !waiting.is_finished() {
        let other = probe.clone().ready_oneshot().await.unwrap();
        tokio::time::sleep(Duration::from_secs(100)).await;
        drop(other);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let response = waiting.await.unwrap().unwrap();
    assert!(start.elapsed() < Duration::from_secs(301), "{:?}", start.elapsed());
    assert_eq!(report(&response).attempts(), 2, "the second replay would come after more than 120 s");
    assert_eq!(report(&response).stop_reason(), &StopReason::NotReady);
}

#[tokio::test(start_paused = true)]
async fn where_waits_may_be_of_any_length_readiness_is_waited_for() {
    let policy = RetryPolicy::builder().max_total_delay(Duration::MAX).build().unwrap();
    let probe: Inner = answers(503, 1).probe_with_permits(1);
    let waiting = tokio::spawn(policy.layer(probe.clone()).oneshot(get()));
    tokio::time::sleep(Duration::from_millis(1)).await;
    let other = probe.clone().ready_oneshot().await.unwrap();
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    drop(other);
    assert_eq!(waiting.await.unwrap().unwrap().status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_busy_for_a_moment_is_waited_for_though_the_waits_are_used_up() {
    let second = Duration::from_secs(1);
    let policy = RetryPolicy::builder().min_delay(second).max_delay(second).max_total_delay(second);
    let policy = policy.build().unwrap();
    // By chance the wait leaves up to half a second, or nothing at all.
    for _ in 0..100 {
        let probe: Inner = answers(429, 1).probe().readiness([Readiness::Ready, Readiness::Soon]);
        let response = policy.layer(probe).oneshot(post()).await.unwrap();
        assert_eq!((response.status(), report(&response).attempts()), (StatusCode::OK, 2));
    }
}

/// A pool with one connection, which is free again when the body of its response is dropped.
#[derive(Clone)]
struct OneConnection {
    inner: Inner,
    taken: Arc<Mutex<Option<Vec<Waker>>>>,
}

struct Taken(Arc<Mutex<Option<Vec<Waker>>>>);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.lock().unwrap().take().into_iter().flatten().for_each(Waker::wake);
    }
}

impl Service<Request<RequestBody<Full<Bytes>>>> for OneConnection {
    type Response = Response<UnsyncBoxBody<Bytes, Infallible>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match &mut *self.taken.lock().unwrap() {
            Some(waiting) => {
                waiting.push(cx.waker().clone());
                Poll::Pending
            }
            None => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, request: Request<RequestBody<Full<Bytes>>>) -> Self::Future {
        assert!(self.taken.lock().unwrap().replace(Vec::new()).is_none(), "the connection is taken");
        let (inner, taken) = (self.inner.clone(), Taken(Arc::clone(&self.taken)));
        Box::pin(async move {
            let response = inner.oneshot(request).await?;
            let hold = move |frame| {
                let _ = &taken;
                frame
            };
            Ok(response.map(|body| body.map_frame(hold).boxed_unsync()))
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_waits_for_the_answer_before_has_it_when_the_wait_is_over() {
    let inner = OneConnection { inner: answers(429, 2).probe(), taken: Arc::default() };
    let start = Instant::now();
    let response = RetryPolicy::default().layer(inner).oneshot(post()).await.unwrap();
    assert_eq!((response.status(), report(&response).attempts()), (StatusCode::OK, 3));
    let waits: Duration = report(&response).history().iter().map(|replayed| replayed.delay()).sum();
    assert!(start.elapsed() >= waits && start.elapsed() <= waits + Duration::from_millis(6));
}

#[test]
fn it_does_nothing_until_it_is_polled_and_needs_no_runtime_for_an_answer_at_once() {
    let probe: Inner = Script::default().probe();
    let mut service = over(&probe);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    let mut call = pin!(service.call(get()));
    assert!(call.as_mut().poll(&mut cx).is_ready());
}
