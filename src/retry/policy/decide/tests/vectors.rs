//! The shared vectors, through the whole decision: what a response asks for, and what follows from it.

use http::{HeaderName, HeaderValue, Response};
use serde_json::{Value, json};

use super::*;
use crate::headers::profile::RateLimitProfile;
use crate::headers::profile::tests::profile;
use crate::retry::policy::builder::RetryPolicy;
use crate::vectors::rows;

fn response(status: u64, headers: &[Value]) -> Response<()> {
    let mut response = Response::builder().status(u16::try_from(status).unwrap()).body(()).unwrap();
    for pair in headers {
        let name: HeaderName = pair[0].as_str().unwrap().parse().unwrap();
        response.headers_mut().append(name, HeaderValue::from_str(pair[1].as_str().unwrap()).unwrap());
    }
    response
}

fn policy(profile: RateLimitProfile) -> RetryPolicy {
    let patient = RetryPolicy::builder().max_retry_after(Duration::MAX).max_total_delay(Duration::MAX);
    patient.rate_limit_profile(profile).build().unwrap()
}

fn at(now_ms: &Value) -> Duration {
    Duration::from_millis(now_ms.as_u64().unwrap())
}

/// How long a response asks to be left alone, in milliseconds, and the header that does so.
fn asked(policy: &RetryPolicy, response: &Response<()>, now: Duration) -> (Option<u64>, Option<String>) {
    let mut outcome = Outcome::of(response, None);
    if let Outcome::Response(received) = &mut outcome {
        received.now = now;
    }
    let (view, rules) = (OutcomeView::of(outcome, Repeatability::Safe), policy.rules());
    let reading = rules.read(&view);
    let delay = reading.requested_delay.map(|delay| u64::try_from(delay.as_millis()).unwrap());
    let source = rules.decide(&view, &reading, &Chance::drawn(0.5)).ok().and_then(|it| it.requested_by);
    (delay, source.map(|name| name.as_str().to_owned()))
}

fn fits(expected: &Value, delay: Option<u64>) -> bool {
    match expected["at_least"].as_u64() {
        Some(least) => delay.is_some_and(|delay| delay >= least),
        None => *expected == json!(delay),
    }
}

#[test]
fn every_row_of_retry_after_is_read_as_it_says() {
    let rows = rows("retry_after");
    assert_eq!(rows.len(), 25);
    for row in rows {
        let response = response(503, row["input"]["headers"].as_array().unwrap());
        let (delay, _) =
            asked(&policy(RateLimitProfile::generic()), &response, at(&row["input"]["now_unix_ms"]));
        assert!(fits(&row["expect"]["delay_ms"], delay), "{}: {delay:?}", row["id"]);
    }
}

#[test]
fn every_row_of_rate_limits_is_read_as_it_says() {
    let rows = rows("ratelimit");
    assert_eq!(rows.len(), 58);
    for row in rows {
        let (id, input, expect) = (&row["id"], &row["input"], &row["expect"]);
        let policy = policy(profile(input["profile"].as_str().unwrap()));
        let response = response(input["status"].as_u64().unwrap(), input["headers"].as_array().unwrap());
        let (delay, source) = asked(&policy, &response, at(&input["now_unix_ms"]));
        assert!(fits(&expect["delay_ms"], delay), "{id}: {delay:?}");
        assert!(expect["source"] == json!(source), "{id}: {source:?}");
        // Of the state of a quota this crate shows only whether it asks for a wait.
        if expect["remaining"].as_u64().is_none_or(|left| left > 0) && expect.get("remaining").is_some() {
            assert_eq!(delay, None, "{id}");
        }
        if let Some(policies) = expect["policies"].as_array() {
            let exhausted = policies.iter().filter(|policy| policy["remaining"] == 0);
            let longest = exhausted.filter_map(|policy| policy["reset_s"].as_u64()).max();
            assert_eq!(delay, longest.map(|seconds| 1000 * seconds), "{id}");
        }
    }
}

/// No wait is longer, whatever is asked for.
const CENTURY: u64 = 100 * 365 * 86_400;

#[test]
fn every_row_of_dates_is_read_as_it_says() {
    let rows = rows("http_date");
    assert_eq!(rows.len(), 20);
    let policy = policy(RateLimitProfile::generic());
    for row in rows {
        let (value, now) =
            (row["input"]["value"].as_str().unwrap(), row["input"]["now_unix"].as_u64().unwrap());
        let mut response = Response::builder().status(503).body(()).unwrap();
        response.headers_mut().insert("retry-after", value.parse().unwrap());
        let (delay, _) = asked(&policy, &response, Duration::from_secs(now));
        let expect = &row["expect"]["unix"];
        let until = expect.as_i64().map(|unix| u64::try_from(unix - i64::try_from(now).unwrap()));
        // A date in the past asks for no wait; which one it was, the tests beside the code compare.
        let expected = until.map(|until| 1000 * until.unwrap_or(0).min(CENTURY));
        assert!(delay == expected && (until.is_some() || expect.is_null()), "{}: {delay:?}", row["id"]);
    }
}
