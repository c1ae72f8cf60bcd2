//! What the token endpoint asks for, in whatever header.

use std::time::Duration;

use tokio::time::Instant;
use tower_oauth2::ErrorKind;

use crate::scripted::{Scripted, Step, a_token, answer_with, billing};

const SECOND: Duration = Duration::from_secs(1);

fn limited(headers: &[(&'static str, &str)]) -> Step {
    answer_with(429, headers, "")
}

#[tokio::test(start_paused = true)]
async fn a_limit_is_waited_for_whatever_the_header_that_says_so() {
    let in_five_seconds = (std::time::UNIX_EPOCH.elapsed().unwrap() + 5 * SECOND).as_millis().to_string();
    for headers in [
        &[("x-rate-limit-remaining", "0"), ("x-rate-limit-reset", "4")][..],
        &[("x-ratelimit-reset", "4")],
        &[("ratelimit", "\"default\";r=0;t=4")],
        &[("retry-after-ms", "4000")],
        &[("retry-after", &in_five_seconds)],
    ] {
        let (endpoint, start) = (Scripted::new([limited(headers), a_token()]), Instant::now());
        endpoint.ask(billing()).await.unwrap();
        let took = start.elapsed();
        assert!(took >= 4 * SECOND && took <= 6 * SECOND, "{headers:?}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_ends_later_than_is_waited_for_is_asked_once() {
    let (endpoint, start) = (Scripted::new([limited(&[("x-rate-limit-reset", "30")])]), Instant::now());
    let error = endpoint.ask(billing()).await.unwrap_err();
    assert!(endpoint.is_finished() && start.elapsed() == Duration::ZERO);
    assert_eq!(error.kind(), ErrorKind::Throttled);
    let Some(until) = error.retry_at() else { panic!("{error}") };
    assert_eq!(until.duration_since(start.into()), 30 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_hint_of_no_wait_is_believed_once() {
    let endpoint = Scripted::new((0..4).map(|_| limited(&[("retry-after", "0")])));
    endpoint.ask(billing()).await.unwrap_err();
    assert!(endpoint.is_finished());
    let gaps = endpoint.gaps();
    assert!(gaps[1] >= SECOND / 2 && gaps[2] >= SECOND, "{gaps:?}");
}
