//! What a server asks for, in which header, and what is done about it.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, Request, StatusCode};
use http_body_util::Full;
use tokio::time::Instant;
use tower_oauth2::RetryPolicy;
use tower_oauth2::extensions::Deadline;
use tower_oauth2::retry::{RateLimitProfile, ReplayReason, RetryReport, StopReason};
use tower_oauth2::test_util::{Script, ScriptedResponse, reply};

use super::{get, post, report, send, text, too_much};

fn said(status: u16, headers: &[(&'static str, &str)]) -> ScriptedResponse {
    let mut response = reply(status, "the server's own words");
    for (name, value) in headers {
        response.headers_mut().append(*name, value.parse().unwrap());
    }
    ScriptedResponse::Reply(response)
}

fn with(profile: RateLimitProfile) -> RetryPolicy {
    // A gate would let the second request of a policy wait a little, too.
    RetryPolicy::builder().rate_limit_profile(profile).gate(None).build().unwrap()
}

/// Sends a request whose first answer is this one, and returns how long it waited and what the report says was asked
/// for.
async fn waited(policy: &RetryPolicy, answer: ScriptedResponse) -> (Duration, Option<Duration>) {
    let (script, start) = (Script::new([answer]), Instant::now());
    let response = send(policy, &script, post()).await.unwrap();
    assert_eq!((response.status(), script.seen().len()), (StatusCode::OK, 2));
    let replayed = &report(&response).history()[0];
    assert_eq!(replayed.reason(), ReplayReason::Throttled);
    (start.elapsed(), replayed.requested_delay())
}

fn assert_waited(policy: &str, (waited, requested): (Duration, Option<Duration>), asked: Duration) {
    assert_eq!(requested, Some(asked), "{policy}");
    // A tenth by chance, at most a second; the timer wheel turns in whole milliseconds.
    let most = asked + (asked / 10).min(Duration::from_secs(1)) + Duration::from_millis(1);
    assert!((asked..=most).contains(&waited), "{policy}: {waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_429_waits_as_each_header_says() {
    let in_twenty_seconds = |unit: u32| {
        let at = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap() + Duration::from_secs(20);
        (at.as_millis() * u128::from(unit) / 1000).to_string()
    };
    let seconds = Duration::from_secs;
    for (name, value, asked) in [
        ("retry-after-ms", "1500", Duration::from_millis(1500)),
        ("x-ms-retry-after-ms", "2500", Duration::from_millis(2500)),
        ("retry-after", "3", seconds(3)),
        ("ratelimit", "\"burst\";r=0;t=4, \"day\";r=90;t=4000", seconds(4)),
        ("ratelimit", "limit=10, remaining=0, reset=5", seconds(5)),
        ("ratelimit-reset", "6", seconds(6)),
        ("x-ratelimit-reset-after", "7.5", Duration::from_millis(7500)),
        ("x-ratelimit-retry-after", "8", seconds(8)),
        ("x-ratelimit-reset", "9", seconds(9)),
        ("x-rate-limit-reset", "10", seconds(10)),
    ] {
        let answer = said(429, &[(name, value)]);
        assert_waited(name, waited(&RetryPolicy::default(), answer).await, asked);
    }
    // A point in time, against the machine's clock, which goes on while the test's stands still.
    for unit in [1, 1000] {
        let answer = said(429, &[("x-ratelimit-reset", &in_twenty_seconds(unit))]);
        let (waited, requested) = waited(&RetryPolicy::default(), answer).await;
        assert!(waited >= requested.unwrap() && requested.unwrap() > seconds(15), "{waited:?}");
        assert!(requested.unwrap() <= seconds(20));
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_header_that_asks_for_a_wait_counts() {
    let mut all = vec![
        ("x-ratelimit-reset", "7"),
        ("x-ratelimit-reset-after", "6"),
        ("ratelimit-reset", "5"),
        ("ratelimit", "\"a\";r=0;t=4"),
        ("retry-after", "3"),
        ("x-ms-retry-after-ms", "2000"),
        ("retry-after-ms", "1000"),
    ];
    for asked in 1..=7 {
        let answer = said(429, &all);
        let (name, _) = all.pop().unwrap();
        assert_waited(name, waited(&RetryPolicy::default(), answer).await, Duration::from_secs(asked));
    }
}

fn epoch() -> Duration {
    std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_hint_of_no_wait_is_believed_once() {
    let (past, date) = ("1700000000", "Tue, 14 Nov 2023 22:13:20 GMT");
    for header in [
        ("retry-after", "0"),
        ("retry-after", date),
        ("retry-after-ms", "0"),
        ("x-ratelimit-reset", past),
        ("ratelimit", "\"a\";r=0;t=0"),
        ("retry-after", "0.2"),
    ] {
        for builder in [RetryPolicy::builder(), RetryPolicy::builder().gate(None)] {
            for status in [429, 503] {
                let policy = builder.clone().build().unwrap();
                let (script, start) = (Script::new((0..4).map(|_| said(status, &[header]))), Instant::now());
                let response = send(&policy, &script, get()).await.unwrap();
                let at: Vec<_> = script.seen().iter().map(|seen| seen.after(start)).collect();
                assert_eq!((response.status().as_u16(), at.len()), (status, 4), "{header:?}");
                // The second wait is our own, half of 1 s at least, and so is the third.
                let waits: Vec<_> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
                // Only a 429 says that a quota of which nothing is said is used up.
                let asks = status == 429 || header.0 != "x-ratelimit-reset";
                assert!(!asks || waits[0] < Duration::from_millis(400), "{header:?} {waits:?}");
                assert!(waits[1] >= Duration::from_millis(500), "{header:?} {waits:?}");
                assert!(waits[2] >= Duration::from_secs(1), "{header:?} {waits:?}");
            }
        }
    }
    // One that asks for more than that stands.
    let (script, start) = (Script::new((0..3).map(|_| said(429, &[("retry-after", "9")]))), Instant::now());
    send(&RetryPolicy::builder().gate(None).build().unwrap(), &script, get()).await.unwrap();
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(27) && took < Duration::from_secs(30), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_may_be_given_as_a_point_in_time_in_any_header() {
    let at = epoch() + Duration::from_secs(20);
    let in_seconds = at.as_secs().to_string();
    let in_millis = at.as_millis().to_string();
    let date = httpdate::fmt_http_date(std::time::UNIX_EPOCH + at);
    let quota = format!("\"a\";r=0;t={in_seconds}");
    for (name, value) in [
        ("retry-after", &in_seconds),
        ("retry-after", &in_millis),
        ("retry-after", &date),
        ("retry-after-ms", &in_millis),
        ("x-ms-retry-after-ms", &in_seconds),
        ("x-ratelimit-after", &in_seconds),
        ("x-ratelimit-retry-after", &date),
        ("ratelimit", &quota),
        ("x-rate-limit-reset", &in_millis),
    ] {
        let (waited, requested) =
            waited(&with(RateLimitProfile::generic()), said(429, &[(name, value)])).await;
        let requested = requested.unwrap();
        assert!(waited >= requested && requested > Duration::from_secs(15), "{name}: {value}: {requested:?}");
        assert!(requested <= Duration::from_secs(20), "{name}: {value}: {requested:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_not_to_retry_is_heard() {
    let own = with(RateLimitProfile::llm().should_retry(HeaderName::from_static("x-again")));
    for (policy, header) in [
        (&RetryPolicy::default(), ("x-should-retry", "false")),
        (&RetryPolicy::default(), ("stripe-should-retry", "False")),
        (&RetryPolicy::default(), ("x-should-retry", " no")),
        (&own, ("x-should-retry", "false")),
        (&own, ("x-again", "0")),
        (&own, ("x-should-retry", "true, false")),
    ] {
        for status in [408, 429, 503] {
            let script = Script::new([said(status, &[header, ("retry-after", "1")])]);
            let response = send(policy, &script, get()).await.unwrap();
            assert_eq!((response.status().as_u16(), script.seen().len()), (status, 1), "{header:?}");
            assert_eq!(report(&response).stop_reason(), &StopReason::DoNotRetry);
            assert_eq!(report(&response).requested_delay(), Some(Duration::from_secs(1)));
        }
    }
    for header in [("x-should-retry", "true"), ("x-should-retry", ""), ("x-again", "false")] {
        let script = Script::new([said(503, &[header])]);
        let response = send(&RetryPolicy::default(), &script, get()).await.unwrap();
        assert_eq!((response.status(), script.seen().len()), (StatusCode::OK, 2), "{header:?}");
    }
    for (policy, header, again) in [
        (&RetryPolicy::default(), ("stripe-should-retry", "true"), true),
        (&RetryPolicy::default(), ("x-should-retry", "True"), true),
        (&own, ("x-again", "yes"), true),
        (&RetryPolicy::default(), ("x-should-retry", "true, false"), false),
        (&RetryPolicy::default(), ("x-should-retry", "perhaps"), false),
    ] {
        for status in [400, 409, 500] {
            let script = Script::new([said(status, &[header])]);
            let mut keyed = post();
            keyed.headers_mut().insert("idempotency-key", "k-1".parse().unwrap());
            let response = send(policy, &script, keyed).await.unwrap();
            assert_eq!(response.status().is_success(), again, "{status} {header:?}");
        }
        let script = Script::new([said(401, &[header])]);
        assert_eq!(send(policy, &script, get()).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    }
    // A "yes" is no promise that the work was not done.
    let script = Script::new([said(503, &[("x-should-retry", "true")])]);
    let response = send(&RetryPolicy::default(), &script, post()).await.unwrap();
    assert_eq!(report(&response).stop_reason(), &StopReason::NotIdempotent);
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_says_when_to_come_back_is_no_final_one() {
    for status in [403, 404, 409, 413, 423, 500, 507] {
        for header in ["retry-after", "retry-after-ms", "x-ms-retry-after-ms"] {
            let wait = if header == "retry-after" { "3" } else { "3000" };
            let (script, start) = (Script::new([said(status, &[(header, wait)])]), Instant::now());
            let response = send(&RetryPolicy::default(), &script, get()).await.unwrap();
            assert_eq!((response.status(), script.seen().len()), (StatusCode::OK, 2), "{status} {header}");
            assert!(start.elapsed() >= Duration::from_secs(3));
            let replayed = &report(&response).history()[0];
            assert_eq!(replayed.reason(), ReplayReason::Unavailable);
        }
        // A server that fails may have done the work, and one that refuses has not; neither says that it may be done again.
        let script = Script::new([said(status, &[("retry-after", "3")])]);
        let response = send(&RetryPolicy::default(), &script, post()).await.unwrap();
        assert_eq!((response.status().as_u16(), script.seen().len()), (status, 1));
        assert_eq!(report(&response).stop_reason(), &StopReason::NotIdempotent);
        let script = Script::new([said(status, &[("retry-after", "3")])]);
        let put = Request::put("https://api.example.com/items/7").body(Full::<Bytes>::from("item")).unwrap();
        let response = send(&RetryPolicy::default(), &script, put).await.unwrap();
        assert_eq!(report(&response).may_have_acted(), status >= 500, "{status}");
    }
    // So says a header that the caller has named.
    let own = with(RateLimitProfile::generic().delay(HeaderName::from_static("x-come-back")));
    for (policy, sent) in [(&own, 2), (&RetryPolicy::default(), 1)] {
        let script = Script::new([said(500, &[("x-come-back", "3")])]);
        send(policy, &script, get()).await.unwrap();
        assert_eq!(script.seen().len(), sent);
    }
    // A quota that is used up is no word about this failure, and some are about credentials.
    for (status, header) in [
        (404, ("x-ratelimit-reset", "3")),
        (500, ("ratelimit", "\"a\";r=0;t=3")),
        (401, ("retry-after", "3")),
        (407, ("retry-after", "3")),
    ] {
        let script = Script::new([said(status, &[("x-ratelimit-remaining", "0"), header])]);
        let response = send(&RetryPolicy::default(), &script, get()).await.unwrap();
        assert_eq!((response.status().as_u16(), script.seen().len()), (status, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_reset_above_the_cap_is_handed_out_at_once() {
    for (name, value, secs) in [
        ("x-ratelimit-reset", "3600", 3600),
        ("ratelimit", "\"hour\";r=0;t=61", 61),
        ("retry-after-ms", "61000", 61),
    ] {
        let (script, start) = (Script::new([said(429, &[(name, value)])]), Instant::now());
        let response = send(&RetryPolicy::default(), &script, post()).await.unwrap();
        assert_eq!((start.elapsed(), script.seen().len()), (Duration::ZERO, 1), "{name}");
        let requested = Duration::from_secs(secs);
        assert_eq!(report(&response).requested_delay(), Some(requested));
        assert_eq!(too_much(&response), Some(requested));
        assert_eq!(response.headers()[name], value);
        assert_eq!(text(response).await, "the server's own words");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reset_behind_the_deadline_is_not_waited_for() {
    let (script, start) = (Script::new([said(429, &[("ratelimit-reset", "10")])]), Instant::now());
    let mut request = post();
    request.extensions_mut().insert(Deadline::within(Duration::from_secs(5)));
    let response = send(&RetryPolicy::default(), &script, request).await.unwrap();
    assert_eq!((start.elapsed(), script.seen().len()), (Duration::ZERO, 1));
    assert!(matches!(report(&response).stop_reason(), StopReason::DeadlineTooClose { .. }));
    assert_eq!(report(&response).requested_delay(), Some(Duration::from_secs(10)));
}

#[tokio::test(start_paused = true)]
async fn a_quota_that_is_not_used_up_does_not_lengthen_the_backoff() {
    for quota in [
        &[("x-ratelimit-remaining", "4999"), ("x-ratelimit-reset", "3600")][..],
        &[("ratelimit", "\"hour\";r=7;t=3600")],
    ] {
        for (status, request) in [(429, post()), (503, get())] {
            let (script, start) = (Script::new([said(status, quota)]), Instant::now());
            let response = send(&RetryPolicy::default(), &script, request).await.unwrap();
            assert_eq!((response.status(), script.seen().len()), (StatusCode::OK, 2));
            assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
            assert_eq!(report(&response).history()[0].requested_delay(), None);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_success_asks_for_no_wait() {
    let spent = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "5"), ("retry-after", "7")];
    let start = Instant::now();
    let script = Script::new([said(200, &spent)]);
    let response = send(&RetryPolicy::default(), &script, get()).await.unwrap();
    assert!(response.extensions().get::<RetryReport>().is_none());

    // Nor is one reported where there is something to report.
    let script = Script::new([said(429, &[("retry-after", "0")]), said(200, &spent)]);
    let response = send(&RetryPolicy::default(), &script, get()).await.unwrap();
    assert_eq!(report(&response).requested_delay(), None);
    assert!(start.elapsed() < Duration::from_millis(200), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_quotas_of_a_vendor_are_read_with_its_profile_alone() {
    let genesys =
        [("inin-ratelimit-count", "301"), ("inin-ratelimit-allowed", "300"), ("inin-ratelimit-reset", "21")];
    let llm = [("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", "0m21s")];
    for (profile, headers) in [(RateLimitProfile::genesys(), &genesys[..]), (RateLimitProfile::llm(), &llm)] {
        let policy = with(profile);
        assert_waited(headers[0].0, waited(&policy, said(429, headers)).await, Duration::from_secs(21));
        let (backoff, requested) = waited(&RetryPolicy::default(), said(429, headers)).await;
        assert!(requested.is_none() && backoff < Duration::from_secs(1), "{backoff:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_profile_of_ones_own_may_add_to_a_named_one() {
    let [delay, reset, left] = ["x-come-back", "x-renewal", "x-tickets"].map(HeaderName::from_static);
    let own = RateLimitProfile::genesys().delay(delay).quota(reset, left).refusal(StatusCode::CONFLICT);
    let policy = with(own);
    for answer in [
        said(429, &[("x-come-back", "12s")]),
        said(409, &[("x-come-back", "12s")]),
        said(409, &[("x-tickets", "0"), ("x-renewal", "12")]),
        said(429, &[("inin-ratelimit-reset", "12")]),
    ] {
        assert_waited("own", waited(&policy, answer).await, Duration::from_secs(12));
    }
}

#[tokio::test(start_paused = true)]
async fn a_403_of_github_is_a_rate_limit_if_it_gives_a_hint_and_only_with_its_profile() {
    let github = with(RateLimitProfile::github());
    let primary = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "30")];
    let secondary = [("x-ratelimit-remaining", "4999"), ("x-ratelimit-reset", "3000"), ("retry-after", "30")];
    for limit in [&primary[..], &secondary] {
        assert_waited("github", waited(&github, said(403, limit)).await, Duration::from_secs(30));
        // Without it a POST is not known to be refused for that.
        let script = Script::new([said(403, limit)]);
        let response = send(&RetryPolicy::default(), &script, post()).await.unwrap();
        assert_eq!((response.status(), script.seen().len()), (StatusCode::FORBIDDEN, 1));
    }
    for refusal in [&secondary[..2], &primary[1..], &[]] {
        let script = Script::new([said(403, refusal)]);
        let response = send(&github, &script, get()).await.unwrap();
        assert_eq!((response.status(), script.seen().len()), (StatusCode::FORBIDDEN, 1));
        assert!(response.extensions().get::<RetryReport>().is_none());
    }
    // One above the cap is handed out with what was asked for.
    let hour = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "3600")];
    let response = send(&github, &Script::new([said(403, &hour)]), get()).await.unwrap();
    let requested = Duration::from_secs(3600);
    assert_eq!(too_much(&response), Some(requested));
}

#[tokio::test(start_paused = true)]
async fn github_without_a_hint_is_left_alone_for_a_minute_and_then_for_longer() {
    let minute = Duration::from_secs(60);
    let (at, requested) =
        waited(&with(RateLimitProfile::github()), said(429, &[("x-ratelimit-remaining", "4999")])).await;
    assert!(requested.is_none() && at >= minute && at < minute * 11 / 10, "{at:?}");

    let patient = RetryPolicy::builder()
        .rate_limit_profile(RateLimitProfile::github())
        .max_total_delay(Duration::from_secs(600))
        .build()
        .unwrap();
    let (script, start) = (Script::new([said(429, &[]), said(429, &[])]), Instant::now());
    assert_eq!(send(&patient, &script, get()).await.unwrap().status(), StatusCode::OK);
    let at: Vec<_> = script.seen().iter().map(|seen| seen.after(start)).collect();
    assert!(at[2] - at[1] >= 2 * minute, "{at:?}");

    // It is for rate limits, not for failures.
    let (script, start) = (Script::new([said(503, &[])]), Instant::now());
    send(&patient, &script, get()).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(1));
}
