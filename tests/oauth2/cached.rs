//! The source behind a cache: what many callers make of one endpoint.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};
use tower_oauth2::{Error, ErrorKind, TokenCache};

use crate::scripted::{Scripted, Step, TOKEN, a_token, answer, answer_with, billing, response};

const SECOND: Duration = Duration::from_secs(1);

fn cached(endpoint: &Scripted) -> TokenCache {
    TokenCache::new(billing().build_with(endpoint.clone()).unwrap())
}

async fn get_by_many(cache: &TokenCache, callers: usize) -> Vec<Result<String, Error>> {
    let get = || async { cache.get().await.map(|token| token.header_value().to_str().unwrap().to_owned()) };
    join_all((0..callers).map(|_| get())).await
}

#[tokio::test(start_paused = true)]
async fn two_hundred_callers_on_a_cold_cache_cause_one_token_request() {
    let endpoint = Scripted::new([Step::AnswerAfter(SECOND, response(200, &[], TOKEN))]);
    let cache = cached(&endpoint);
    let tokens = get_by_many(&cache, 200).await;
    assert!(tokens.iter().all(|token| token.as_ref().is_ok_and(|token| token == "Bearer AT1")));
    assert_eq!(endpoint.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_throttled_endpoint_is_left_alone_by_all_for_as_long_as_it_asked() {
    let endpoint = Scripted::new([answer_with(429, &[("retry-after", "30")], ""), a_token()]);
    let cache = cached(&endpoint);
    let start = Instant::now();
    for _ in 0..29 {
        let answers = get_by_many(&cache, 50).await;
        assert!(
            answers
                .iter()
                .all(|answer| answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::Throttled))
        );
        sleep(SECOND).await;
    }
    assert_eq!(endpoint.seen().len(), 1);
    sleep(2 * SECOND).await;
    assert!(cache.get().await.is_ok());
    assert!(start.elapsed() >= 30 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_refused_client_is_told_to_all_and_not_asked_for_again_at_once() {
    let endpoint = Scripted::new([answer(401, r#"{"error":"invalid_client"}"#)]);
    let cache = cached(&endpoint);
    for _ in 0..10 {
        let answers = get_by_many(&cache, 100).await;
        assert!(answers.iter().all(|answer| {
            answer.as_ref().is_err_and(|error| {
                error.kind() == ErrorKind::Config && error.code() == Some("invalid_client")
            })
        }));
        sleep(SECOND).await;
    }
    assert_eq!(endpoint.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_over_at_birth_serves_those_who_wait_and_causes_no_storm() {
    for expires_in in ["0", "-1"] {
        let token = format!(r#"{{"access_token":"AT1","token_type":"Bearer","expires_in":{expires_in}}}"#);
        let endpoint = Scripted::new((0..100).map(|_| answer(200, &token)));
        let cache = cached(&endpoint);
        let answers = get_by_many(&cache, 100).await;
        assert!(answers.iter().all(Result::is_ok), "{expires_in}: {answers:?}");
        assert!(endpoint.seen().len() <= 2, "{expires_in}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_life_of_a_token_is_measured_from_before_its_request() {
    let token = |name: &str| format!(r#"{{"access_token":"{name}","token_type":"Bearer","expires_in":100}}"#);
    let endpoint = Scripted::new([
        Step::AnswerAfter(8 * SECOND, response(200, &[], &token("AT1"))),
        answer(200, &token("AT2")),
    ]);
    let source = billing().second_attempt_after(None).build_with(endpoint.clone()).unwrap();
    let cache = TokenCache::new(source);
    assert_eq!(cache.get().await.unwrap().header_value(), "Bearer AT1");
    // Born 8 s old: it is over now. Counted from the answer it would have 8 s left, and be handed out.
    sleep(92 * SECOND).await;
    assert_eq!(cache.get().await.unwrap().header_value(), "Bearer AT2");
}
