//! What one 429 means for the other requests.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody};
use tokio::time::Instant;
use tower::limit::ConcurrencyLimit;
use tower::{BoxError, Layer as _, Service as _, ServiceExt as _};
use tower_oauth2::RetryPolicy;
use tower_oauth2::extensions::{Attempt, CredentialId, Deadline};
use tower_oauth2::retry::{
    GateStatus, RateLimitProfile, ReportSlot, RequestBody, RetryBudget, RetryGate, RetryOptions, RetryReport,
    StopReason, TimedOut,
};
use tower_oauth2::test_util::{Probe, Readiness, Script, ScriptedResponse, Seen, reply};

use super::{answers, get, hinted, post, report, send, text};

type Inner = Probe<Request<RequestBody<Full<Bytes>>>, Response<Full<Bytes>>>;

const SECOND: Duration = Duration::from_secs(1);

fn to(uri: &str) -> Request<Full<Bytes>> {
    Request::get(uri).body(Full::default()).unwrap()
}

fn of(tenant: &str) -> Request<Full<Bytes>> {
    let mut request = get();
    request.extensions_mut().insert(CredentialId::new(tenant));
    request
}

/// A policy and its gate.
fn gated() -> (RetryPolicy, RetryGate) {
    let gate = RetryGate::new();
    (RetryPolicy::builder().gate(gate.clone()).build().unwrap(), gate)
}

/// Sends a request that is refused for so many seconds, and drops it once it waits, so that the gate stays closed.
async fn close(policy: &RetryPolicy, request: Request<Full<Bytes>>, seconds: &str) {
    let script = Script::new([hinted(429, seconds)]);
    let mut refused = pin!(send(policy, &script, request));
    assert!(waits(&mut refused));
}

/// A server that answers by the script, so long after it was asked.
fn after(latency: Duration, script: &Script) -> Inner {
    let script = script.probe::<RequestBody<Full<Bytes>>>();
    Probe::new(move |request| {
        let answer = script.clone().oneshot(request);
        async move {
            tokio::time::sleep(latency).await;
            answer.await
        }
    })
}

/// Sends requests at once to a server that takes some time for each, and returns whether all succeeded.
async fn all_succeed(
    policy: &RetryPolicy,
    script: &Script,
    requests: impl IntoIterator<Item = Request<Full<Bytes>>>,
) -> bool {
    let client = policy.layer(after(SECOND / 20, script));
    let sent = requests.into_iter().map(|request| client.clone().oneshot(request));
    join_all(sent).await.into_iter().all(|response| response.unwrap().status() == StatusCode::OK)
}

/// Polls a request once, and returns whether it goes on.
fn waits(request: &mut (impl Future + Unpin)) -> bool {
    Pin::new(request).poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

/// How long a request takes.
async fn time(policy: &RetryPolicy, request: Request<Full<Bytes>>) -> Duration {
    let start = Instant::now();
    let response = send(policy, &Script::default(), request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    start.elapsed()
}

fn assert_held_back(waited: Duration, least: Duration) {
    assert!((least..=least * 11 / 10 + Duration::from_millis(1)).contains(&waited), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn one_429_holds_back_the_other_requests_of_its_origin_and_credential_and_no_others() {
    let (policy, gate) = gated();
    close(&policy, of("seven"), "10").await;
    let [status] = &gate.status()[..] else { panic!("{:?}", gate.status()) };
    assert_eq!(status.origin().unwrap().to_string(), "https://api.example.com");
    assert_eq!((status.credential(), status.part()), (Some(&CredentialId::new("seven")), None));
    assert!((SECOND * 10..=SECOND * 11).contains(&status.opens_in().unwrap()));
    assert_eq!(time(&policy, of("eight")).await, Duration::ZERO);
    assert_eq!(time(&policy, get()).await, Duration::ZERO);
    let mut other = to("https://other.example.com/items");
    other.extensions_mut().insert(CredentialId::new("seven"));
    assert_eq!(time(&policy, other).await, Duration::ZERO);
    assert_held_back(time(&policy, of("seven")).await, SECOND * 10);
}

#[tokio::test(start_paused = true)]
async fn a_third_wait_at_the_gate_is_longer_if_there_is_time() {
    let took = async |policy: RetryPolicy, deadline: Duration| {
        let script = Script::new([hinted(429, "1"), hinted(429, "1"), hinted(429, "1")]);
        let mut request = get();
        request.extensions_mut().insert(Deadline::within(deadline));
        let start = Instant::now();
        assert_eq!(send(&policy, &script, request).await.unwrap().status(), StatusCode::OK);
        start.elapsed()
    };
    assert!(took(gated().0, SECOND * 60).await >= SECOND * 6);
    assert!(took(gated().0, SECOND * 9).await < SECOND * 5);
    let without = RetryPolicy::builder().gate(None).build().unwrap();
    assert!(took(without, SECOND * 60).await < SECOND * 5);
}

#[tokio::test(start_paused = true)]
async fn the_limit_of_one_endpoint_need_not_stop_the_others() {
    let gate = RetryGate::new();
    let policy = RetryPolicy::builder()
        .gate(gate.clone())
        .gate_key(|head| head.uri.path().split('/').nth(1).unwrap_or_default().to_owned());
    let policy = policy.build().unwrap();
    close(&policy, to("https://api.example.com/search/1"), "5").await;
    assert_eq!(gate.status()[0].part(), Some("search"));
    assert_eq!(time(&policy, to("https://api.example.com/items/1")).await, Duration::ZERO);
    assert_held_back(time(&policy, to("https://api.example.com/search/2")).await, SECOND * 5);
}

#[tokio::test(start_paused = true)]
async fn while_it_is_open_no_request_is_asked_for_its_key_and_then_each_once() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let policy = RetryPolicy::builder().gate_key(move |_| count.fetch_add(1, Ordering::SeqCst).to_string());
    let policy = policy.build().unwrap();
    send(&policy, &Script::default(), get()).await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    let mut once = get();
    once.extensions_mut().insert(RetryOptions::never());
    send(&policy, &Script::default(), once).await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    close(&policy, get(), "1").await;
    assert_eq!(asked.load(Ordering::SeqCst), 1, "once, for the closing and for the place in the queue");
}

#[tokio::test(start_paused = true)]
async fn only_a_429_with_a_delay_within_the_cap_closes_it() {
    for answer in [
        hinted(429, "61"),
        hinted(429, "99999999999999999999"),
        ScriptedResponse::Reply(reply(429, "")),
        hinted(503, "10"),
        hinted(404, "10"),
        hinted(200, "10"),
    ] {
        let (policy, gate) = gated();
        let script = Script::new([answer]);
        let mut request = pin!(send(&policy, &script, get()));
        waits(&mut request);
        assert_eq!((script.seen().len(), gate.status().len()), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_that_counts_as_a_429_closes_it_and_one_of_grpc_does_not() {
    // A profile knows the wait of a 429 without one.
    let unhinted = || ScriptedResponse::Reply(reply(429, ""));
    for (answer, closed) in [
        (hinted(403, "1"), Some(1)),
        (hinted(429, "1"), Some(1)),
        (unhinted(), Some(60)),
        (hinted(404, "1"), None),
    ] {
        let gate = RetryGate::new();
        let github = RetryPolicy::builder().rate_limit_profile(RateLimitProfile::github()).gate(gate.clone());
        let (policy, script) = (github.build().unwrap(), Script::new([answer]));
        let mut request = pin!(send(&policy, &script, get()));
        assert!(waits(&mut request));
        let opens_in = gate.status().first().and_then(GateStatus::opens_in);
        assert_eq!(opens_in.map(|wait| wait.as_secs()), closed);
    }

    let (policy, gate) = gated();
    let mut exhausted = reply(200, "");
    *exhausted.version_mut() = http::Version::HTTP_2;
    for (name, value) in
        [("content-type", "application/grpc"), ("grpc-status", "8"), ("grpc-retry-pushback-ms", "1000")]
    {
        exhausted.headers_mut().insert(name, value.parse().unwrap());
    }
    let script = Script::new([ScriptedResponse::Reply(exhausted)]);
    let mut request = pin!(send(&policy, &script, get()));
    assert!(waits(&mut request), "the call is made again");
    assert_eq!((script.seen().len(), gate.status().len()), (1, 0), "and others need not wait for it");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_sent_again_closes_it_nevertheless() {
    let never = || {
        let mut request = get();
        request.extensions_mut().insert(RetryOptions::never());
        request
    };
    let (policy, gate) = gated();
    let response = send(&policy, &Script::new([hinted(429, "3")]), never()).await.unwrap();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(report(&response).stop_reason(), &StopReason::TurnedOff);
    assert_eq!(gate.status().len(), 1);
    // And it is held back as any other, though it has nothing to fall back on.
    assert_held_back(time(&policy, never()).await, SECOND * 3);
}

/// A server that takes two per second.
fn two_per_second() -> Inner {
    let next = Mutex::new(Instant::now());
    Probe::new(move |_| {
        let mut next = next.lock().unwrap();
        let busy = Instant::now() < *next;
        if !busy {
            *next = Instant::now() + SECOND / 2;
        }
        async move {
            tokio::time::sleep(SECOND / 20).await;
            Ok::<_, BoxError>(match busy {
                true => Response::builder().status(429).header("retry-after", "1").body(Full::default())?,
                false => Response::new(Full::default()),
            })
        }
    })
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_once_is_not_held_longer_because_it_would_be_refused() {
    let (policy, gate) = gated();
    let client = policy.layer(two_per_second());
    let crowd: Vec<_> = (0..40).map(|_| tokio::spawn(client.clone().oneshot(get()))).collect();
    tokio::time::sleep(SECOND * 3).await;
    assert!(gate.status()[0].waiting() > 20, "{:?}", gate.status());
    let timed = |options: RetryOptions| {
        let mut request = get();
        request.extensions_mut().insert(options);
        let (client, start) = (client.clone(), Instant::now());
        async move {
            client.oneshot(request).await.unwrap();
            start.elapsed()
        }
    };
    let (once, again) = tokio::join!(timed(RetryOptions::never()), timed(RetryOptions::new()));
    assert!(once <= SECOND * 31 / 10, "the pause and two seconds: {once:?}");
    assert!(again > SECOND * 5, "{again:?}");
    join_all(crowd).await;
}

#[tokio::test(start_paused = true)]
async fn what_goes_past_the_gate_waits_for_nobody_and_is_heard_of() {
    let (policy, gate) = gated();
    close(&policy, get(), "10").await;
    for options in [RetryOptions::new().gate(false), RetryOptions::never().gate(false)] {
        let mut request = get();
        request.extensions_mut().insert(options);
        assert_eq!(time(&policy, request).await, Duration::ZERO);
    }
    let mut held = get();
    held.extensions_mut().insert(RetryOptions::new().gate(false).gate(true));
    assert_held_back(time(&policy, held).await, SECOND * 10);

    // Its retry waits for itself, and others for what it was told.
    let (policy, other) = gated();
    let (script, start) = (Script::new([hinted(429, "3")]), Instant::now());
    let mut request = get();
    request.extensions_mut().insert(RetryOptions::new().gate(false));
    let past = async {
        let response = send(&policy, &script, request).await.unwrap();
        assert_eq!((report(&response).held(), report(&response).attempts()), (Duration::ZERO, 2));
        start.elapsed()
    };
    let watch = async {
        tokio::time::sleep(SECOND).await;
        assert_eq!(other.status().len(), 1);
        time(&policy, get()).await
    };
    let (past, waited) = tokio::join!(past, watch);
    assert_held_back(past, SECOND * 3);
    assert!(waited >= SECOND * 2, "{waited:?}");
    assert!(gate.status().len() == 1, "its own");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_held_says_for_how_long_and_no_other_does() {
    let (policy, _gate) = gated();
    let free = send(&policy, &Script::default(), get()).await.unwrap();
    assert!(free.extensions().get::<RetryReport>().is_none(), "nothing is to be said");
    close(&policy, get(), "10").await;
    let slot = ReportSlot::new();
    let mut request = get();
    request.extensions_mut().insert(RetryOptions::new().report_to(&slot));
    let response = send(&policy, &Script::default(), request).await.unwrap();
    assert_held_back(report(&response).held(), SECOND * 10);
    assert_eq!((report(&response).attempts(), slot.take().unwrap().held()), (1, report(&response).held()));
    // One that closed it waits there, too, and the wait is said once.
    let (policy, _gate) = gated();
    let response = send(&policy, &Script::new([hinted(429, "5")]), get()).await.unwrap();
    assert_held_back(report(&response).held(), SECOND * 5);
    assert_eq!(report(&response).history()[0].delay(), report(&response).held());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_can_be_sent_only_once_waits_for_its_turn_whole() {
    let (policy, gate) = gated();
    let frames = |count| {
        let frame = || Ok::<_, BoxError>(http_body::Frame::data(Bytes::from(vec![7; 64 * 1024])));
        let frames = futures_util::stream::iter((0..count).map(move |_| frame()));
        Request::post("https://api.example.com/items").body(StreamBody::new(frames).boxed_unsync()).unwrap()
    };
    let policy_once = RetryPolicy::builder().gate(gate).replay_body_limit(0).build().unwrap();
    close(&policy, get(), "2").await;
    let (script, start) = (Script::new([hinted(429, "1")]), Instant::now());
    let response = send(&policy_once, &script, frames(20)).await.unwrap();
    assert_held_back(start.elapsed(), SECOND * 2);
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(matches!(report(&response).stop_reason(), StopReason::NotReplayable { .. }));
    let seen: Vec<Seen> = script.seen();
    assert_eq!((seen.len(), seen[0].body.len()), (1, 20 * 64 * 1024));
    assert!(seen[0].head.extensions.get::<Attempt>().is_none(), "it was sent once");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_waited_out_is_let_through_at_once() {
    let (policy, gate) = gated();
    close(&policy, get(), "10").await;
    let start = Instant::now();
    let mut request = get();
    request.extensions_mut().insert(Deadline::within(SECOND * 5));
    let response = send(&policy, &Script::new([hinted(429, "10")]), request).await.unwrap();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(matches!(report(&response).stop_reason(), StopReason::DeadlineTooClose { .. }));
    assert_eq!(text(response).await, "the server's own words");
    // Without a deadline it is the sum of all waits that counts.
    let brief = RetryPolicy::builder().gate(gate).max_total_delay(SECOND * 5).build().unwrap();
    assert_eq!(time(&brief, get()).await, Duration::ZERO);
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn those_who_hurry_do_not_keep_the_others_waiting() {
    let (policy, _gate) = gated();
    close(&policy, get(), "2").await;
    let hurry = async {
        for _ in 0..100 {
            let mut request = get();
            request.extensions_mut().insert(Deadline::within(SECOND / 2));
            // It is refused, or its deadline passes before its turn comes.
            if let Err(error) = send(&policy, &Script::new([hinted(429, "2")]), request).await {
                assert!(error.downcast_ref() == Some(&TimedOut::Deadline), "{error}");
            }
            tokio::time::sleep(SECOND / 10).await;
        }
    };
    let (waited, ()) = tokio::join!(time(&policy, get()), hurry);
    assert_held_back(waited, SECOND * 2);
}

#[tokio::test(start_paused = true)]
async fn a_closing_that_outlasts_a_waiter_lets_it_through_but_not_before_its_own_time() {
    let (policy, _gate) = gated();
    let start = Instant::now();
    // It was on its way already when the gate closed, and is refused for longer.
    let slow = Script::new([hinted(429, "30")]);
    let slow_client = policy.layer(after(SECOND / 2, &slow));
    let mut slow = pin!(slow_client.oneshot(get()));
    assert!(waits(&mut slow));
    let script = Script::new([hinted(429, "2")]);
    let mut request = post();
    request.extensions_mut().insert(Deadline::within(SECOND * 20));
    let (response, waited) = tokio::join!(send(&policy, &script, request), async {
        let _ = tokio::time::timeout(SECOND, slow).await;
        let mut request = get();
        request.extensions_mut().insert(Deadline::within(SECOND * 20));
        time(&policy, request).await
    });
    assert_eq!(waited, Duration::ZERO, "a fresh one goes at once");
    let seen = script.seen();
    assert_eq!((response.unwrap().status(), seen.len()), (StatusCode::OK, 2));
    assert_held_back(seen[1].after(start), SECOND * 2);
}

#[tokio::test(start_paused = true)]
async fn the_waits_at_the_gate_are_among_those_of_the_report_and_of_the_sum() {
    let policy = RetryPolicy::builder().max_total_delay(SECOND * 25).max_retries(9).build().unwrap();
    close(&policy, get(), "10").await;
    let script = Script::new((0..9).map(|_| hinted(429, "10")));
    let start = Instant::now();
    let response = send(&policy, &script, get()).await.unwrap();
    assert_eq!(script.seen().len(), 2, "held back once, and once for itself");
    assert!(matches!(report(&response).stop_reason(), StopReason::WaitsExhausted { .. }));
    assert!((SECOND * 20..=SECOND * 22).contains(&start.elapsed()), "{:?}", start.elapsed());
    assert_held_back(report(&response).history()[0].delay(), SECOND * 10);
}

#[tokio::test(start_paused = true)]
async fn retries_at_the_gate_cost_no_budget() {
    let budget = RetryBudget::default().min_per_second(0).retry_ratio(0.0);
    let policy = RetryPolicy::builder().budget(budget.clone()).build().unwrap();
    let script = Script::new((0..50).map(|_| hinted(429, "1")));
    assert!(all_succeed(&policy, &script, (0..50).map(|_| get())).await);
    assert_eq!((script.seen().len(), budget.balance(get().uri(), None)), (100, 10.0));
}

#[tokio::test(start_paused = true)]
async fn they_go_in_the_order_in_which_they_may_go_and_not_all_at_one_instant() {
    let (policy, gate) = gated();
    let script = Script::new((0..20).map(|_| hinted(429, "1")));
    let start = Instant::now();
    let send_at = |at: Duration, path: &'static str| {
        let (policy, script) = (&policy, &script);
        async move {
            tokio::time::sleep(at).await;
            all_succeed(policy, script, (0..20).map(|_| to(path))).await
        }
    };
    let watch = async {
        tokio::time::sleep(SECOND / 2).await;
        assert_eq!(gate.status()[0].waiting(), 40);
    };
    // One path, so that the gate takes them for requests under one limit.
    let paths = ["/items?refused", "/items?early", "/items?late"];
    let refused = send_at(Duration::ZERO, paths[0]);
    let (early, late) = (send_at(SECOND / 10, paths[1]), send_at(SECOND * 12 / 10, paths[2]));
    let (refused, early, late, ()) = tokio::join!(refused, early, late, watch);
    assert!(refused && early && late);
    let seen = script.seen();
    assert_eq!(seen.len(), 80, "each of the fresh ones was sent once");
    let sent: Vec<&str> =
        seen.iter().skip(20).map(|seen| seen.head.uri.path_and_query().unwrap().as_str()).collect();
    // The refused ones were asked to come after a second, and so are behind those that came meanwhile.
    for (n, path) in [paths[1], paths[0], paths[2]].into_iter().enumerate() {
        assert!(sent[n * 20..][..20].iter().all(|other| *other == path), "{sent:?}");
    }
    let at: Vec<Duration> = seen.iter().skip(20).map(|seen| seen.after(start)).collect();
    assert!(at[0] >= SECOND && at.iter().filter(|next| **next == at[0]).count() == 1, "{at:?}");
    assert!(at[59] - at[0] > SECOND / 2, "{at:?}");
    assert!(at.is_sorted());
}

#[tokio::test(start_paused = true)]
async fn refusals_of_what_was_on_its_way_do_not_slow_it_down_again() {
    let (policy, gate) = gated();
    let script = Script::new((0..10).map(|_| hinted(429, "1")));
    // Each takes longer than the one before it.
    let late = |n| policy.layer(after(SECOND / 20 * n, &script)).oneshot(get());
    let requests = join_all((1..=10).map(late));
    let watch = async {
        tokio::time::sleep(SECOND / 20 * 3 / 2).await;
        let pace = gate.status()[0].pace();
        tokio::time::sleep(SECOND / 2).await;
        assert_eq!((gate.status()[0].pace(), gate.status()[0].waiting()), (pace, 10));
        pace
    };
    let (answered, pace) = tokio::join!(requests, watch);
    assert!(answered.into_iter().all(|answer| answer.unwrap().status() == StatusCode::OK));
    assert_eq!(script.seen().len(), 20);
    assert!(gate.status()[0].pace() > pace, "it grew, since the server took all");
}

#[tokio::test(start_paused = true)]
async fn nobody_behind_a_gate_keeps_an_inner_permit_from_others() {
    let (policy, _gate) = gated();
    close(&policy, get(), "10").await;
    let limited = ConcurrencyLimit::new(Script::default().probe::<RequestBody<Full<Bytes>>>(), 2);
    let client = policy.layer(limited);
    let mut gated: Vec<_> = (0..2).map(|_| Box::pin(client.clone().oneshot(get()))).collect();
    for request in &mut gated {
        assert!(waits(request));
    }
    let start = Instant::now();
    let other = client.clone().oneshot(to("https://other.example.com/")).await.unwrap();
    assert_eq!((other.status(), start.elapsed()), (StatusCode::OK, Duration::ZERO));
    for response in join_all(gated).await {
        assert_eq!(response.unwrap().status(), StatusCode::OK);
    }
    assert!(start.elapsed() >= SECOND * 10);
}

#[tokio::test(start_paused = true)]
async fn the_instance_that_was_ready_is_given_back_and_another_made_ready_afterwards() {
    let (policy, _gate) = gated();
    close(&policy, get(), "10").await;
    let probe: Inner = Script::default().probe_with_permits(1);
    let mut service = policy.layer(probe.clone());
    service.ready().await.unwrap();
    assert_eq!(probe.reserved(), 1);
    let waiting = service.call(get());
    assert_eq!((probe.reserved(), probe.in_flight()), (0, 0));
    assert_eq!(waiting.await.unwrap().status(), StatusCode::OK);
    assert_eq!((probe.calls(), probe.reserved(), probe.in_flight()), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_not_ready_afterwards_is_waited_for_until_the_deadline() {
    let (policy, _gate) = gated();
    close(&policy, get(), "2").await;
    let never = |script: &Script| {
        script.probe::<RequestBody<Full<Bytes>>>().readiness([Readiness::Ready, Readiness::Never])
    };
    let (script, slot, start) = (Script::default(), ReportSlot::new(), Instant::now());
    let mut request = get();
    request.extensions_mut().insert(Deadline::within(SECOND * 10));
    request.extensions_mut().insert(RetryOptions::new().report_to(&slot));
    let error = policy.layer(never(&script)).oneshot(request).await.unwrap_err();
    assert!(error.downcast_ref() == Some(&TimedOut::Deadline), "{error}");
    assert_eq!((start.elapsed(), script.seen().len()), (SECOND * 10, 0));
    let report = slot.take().unwrap();
    assert_eq!((report.attempts(), report.stop_reason()), (0, &StopReason::NotReady));

    // Without one it is waited for as its caller would have done.
    close(&policy, get(), "2").await;
    let waiting = policy.layer(never(&script)).oneshot(get());
    assert!(tokio::time::timeout(SECOND * 9_999, waiting).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_goes_away_leaves_no_gap() {
    let (policy, gate) = gated();
    close(&policy, get(), "1").await;
    let (script, start) = (Script::default(), Instant::now());
    let client = policy.layer(script.probe::<RequestBody<Full<Bytes>>>());
    let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(client.clone().oneshot(get()))).collect();
    for request in &mut waiting {
        assert!(waits(request));
    }
    assert_eq!(gate.status()[0].waiting(), 3);
    drop(waiting.remove(0));
    assert_eq!(gate.status()[0].waiting(), 2);
    tokio::time::sleep(SECOND * 9 / 10).await;
    drop(waiting.remove(0));
    waiting.remove(0).await.unwrap();
    assert_held_back(script.seen()[0].after(start), SECOND);
    assert_eq!(gate.status()[0].waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_is_not_polled_keeps_nobody_waiting_for_long() {
    let (policy, _gate) = gated();
    close(&policy, get(), "1").await;
    let client = policy.layer(Script::default().probe::<RequestBody<Full<Bytes>>>());
    let mut stuck: Vec<_> = (0..4).map(|_| Box::pin(client.clone().oneshot(get()))).collect();
    for request in &mut stuck {
        assert!(waits(request));
    }
    let start = Instant::now();
    client.oneshot(get()).await.unwrap();
    assert!(start.elapsed() < SECOND * 4, "{:?}", start.elapsed());
    drop(stuck);
}

#[tokio::test(start_paused = true)]
async fn it_can_be_shared_and_it_can_be_off() {
    let (one, gate) = gated();
    let other = RetryPolicy::builder().gate(gate).max_retries(1).build().unwrap();
    let (alone, off) = (RetryPolicy::default(), RetryPolicy::builder().gate(None).build().unwrap());
    close(&one, get(), "10").await;
    close(&off, get(), "10").await;
    assert_eq!(time(&alone, get()).await, Duration::ZERO);
    assert_eq!(time(&off, get()).await, Duration::ZERO);
    let clone = one.clone();
    let (waited, clone) = tokio::join!(time(&other, get()), time(&clone, get()));
    assert!(waited >= SECOND * 10 && clone >= SECOND * 10);
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_nobody_needs_is_open_again() {
    let (policy, gate) = gated();
    close(&policy, get(), "2").await;
    for seconds in 0..31 {
        assert_eq!(gate.status().len(), 1, "after {seconds} s");
        tokio::time::sleep(SECOND).await;
    }
    tokio::time::sleep(SECOND * 2).await;
    assert!(gate.status().is_empty());
    // Nothing is left of the pace.
    let start = Instant::now();
    join_all((0..100).map(|_| time(&policy, get()))).await;
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn five_thousand_tenants_take_bounded_room() {
    let (policy, gate) = gated();
    for n in 0..5_000 {
        close(&policy, of(&n.to_string()), "10").await;
    }
    assert_eq!(gate.status().len(), 1_024);
    assert!(time(&policy, of("4999")).await >= SECOND * 10, "the newest are kept");
}

#[test]
fn it_needs_no_runtime_until_it_has_to_wait() {
    let (policy, gate) = gated();
    let mut service = policy.layer(answers(429, 0).probe::<RequestBody<Full<Bytes>>>());
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    assert!(pin!(service.call(get())).as_mut().poll(&mut cx).is_ready());
    assert!(gate.status().is_empty());
}
