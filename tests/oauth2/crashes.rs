//! A refresh token is not lost: not by who gives up, not by a runtime that ends, not behind a cache.

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};
use tower_oauth2::{ErrorKind, RefreshTokenGrant, TokenCache};

use crate::rotating::{Rotating, builder, renew};
use crate::scripted::{Scripted, Step, response};

const SECOND: Duration = Duration::from_secs(1);

/// More than there are points at which a fetch waits.
const POINTS: usize = 100;

/// What was stored, and a source that stores it in three steps.
fn storing(server: &Rotating) -> (RefreshTokenGrant, Arc<Mutex<Vec<String>>>) {
    let stored = Arc::new(Mutex::new(Vec::new()));
    let store = Arc::clone(&stored);
    let source = server.build(builder(Some("RT0")).on_rotate(move |token| {
        let store = Arc::clone(&store);
        async move {
            yield_now().await;
            store.lock().unwrap().push(token.expose_refresh_token().to_owned());
            yield_now().await;
            Ok(())
        }
    }));
    (source, stored)
}

#[tokio::test]
async fn a_fetch_that_is_dropped_at_any_point_loses_neither_token() {
    let mut points = 0;
    for polls in 0..POINTS {
        let server = Rotating::default();
        let (source, stored) = storing(&server);
        let is_done = {
            let mut fetch = pin!(renew(&source));
            let mut is_done = false;
            for _ in 0..polls {
                is_done = fetch.as_mut().now_or_never().is_some();
                if is_done {
                    break;
                }
                yield_now().await;
            }
            is_done
        };
        if is_done {
            points = polls;
            break;
        }
        // What was dropped before its first step asked for nothing; else its exchange goes on.
        for _ in 0..POINTS {
            yield_now().await;
        }
        assert_eq!(renew(&source).await.unwrap().header_value(), "Bearer AT1", "{polls}");
        assert_eq!((server.sent(), server.reuses()), (vec!["RT0".to_owned()], 0), "{polls}");
        assert_eq!(*stored.lock().unwrap(), ["RT1"], "{polls}");
    }
    assert!(points > 6, "{points}");
}

#[test]
fn a_runtime_that_ends_at_any_point_loses_no_refresh_token_that_arrived() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (mut before, mut underway, mut after) = (0, 0, 0);
    for steps in 0..POINTS {
        let server = Rotating::default();
        let (source, stored) = storing(&server);
        let fetching = source.clone();
        let first = runtime();
        let fetch = first.spawn(async move { renew(&fetching).await });
        first.block_on(async {
            for _ in 0..steps {
                yield_now().await;
            }
        });
        let is_done = fetch.is_finished();
        drop(first);
        if is_done {
            break;
        }
        let (spent, delivered) = server.spent_and_delivered();
        let second = runtime().block_on(renew(&source));
        match (spent, delivered) {
            (0, _) => {
                // Nothing had happened; or it had not been looked at, and the same token is as good as before.
                assert_eq!(second.unwrap().header_value(), "Bearer AT1", "{steps}");
                assert_eq!(*stored.lock().unwrap(), ["RT1"]);
                before += 1;
            }
            (_, 0) => {
                // The answer went down with the runtime. The token is tried once, and the error says why it was lost.
                let error = second.unwrap_err();
                assert!(
                    error.kind() == ErrorKind::Grant && error.to_string().contains("was lost before"),
                    "{steps}: {error}"
                );
                assert_eq!(server.sent(), ["RT0", "RT0"]);
                assert!(runtime().block_on(renew(&source)).is_err());
                assert_eq!(server.sent().len(), 2);
                underway += 1;
            }
            (_, _) => {
                // The answer was there: whatever was cut off after that, the next fetch has its tokens, and stores first.
                assert_eq!(second.unwrap().header_value(), "Bearer AT1", "{steps}");
                assert_eq!((server.sent(), server.reuses()), (vec!["RT0".to_owned()], 0));
                let stored = stored.lock().unwrap();
                assert!(!stored.is_empty() && stored.iter().all(|token| token == "RT1"), "{stored:?}");
                after += 1;
            }
        }
    }
    assert!(before >= 2 && underway >= 3 && after >= 2, "{before} {underway} {after}");
}

// --- Behind a cache ---

#[tokio::test(start_paused = true)]
async fn a_hundred_rejections_of_one_token_cause_one_exchange() {
    let server = Rotating::default();
    let (source, stored) = storing(&server);
    let cache = TokenCache::new(source);
    for round in 1..=5 {
        let token = cache.get().await.unwrap();
        cache.accept(&token);
        let tasks = (0..100).map(|_| {
            let (cache, token) = (cache.clone(), token.clone());
            tokio::spawn(async move {
                yield_now().await;
                cache.reject(&token);
                cache.get().await.unwrap().header_value().clone()
            })
        });
        for next in join_all(tasks).await {
            assert_eq!(next.unwrap(), format!("Bearer AT{}", round + 1));
        }
    }
    assert_eq!((server.sent().len(), server.reuses(), server.most_at_once()), (6, 0, 1));
    assert_eq!(*stored.lock().unwrap(), (1..=6).map(|number| format!("RT{number}")).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn caches_that_share_a_source_never_send_a_refresh_token_twice() {
    let server = Rotating::default();
    let source = server.source();
    let caches: Vec<TokenCache> = (0..8).map(|_| TokenCache::new(source.clone())).collect();
    for _ in 0..5 {
        for token in join_all(caches.iter().map(TokenCache::get)).await {
            assert!(token.is_ok());
        }
        caches.iter().for_each(TokenCache::invalidate);
    }
    assert_eq!((server.sent().len(), server.reuses(), server.most_at_once()), (40, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn the_first_to_wait_may_go_and_the_others_get_the_token() {
    let rotated = r#"{"access_token":"AT1","expires_in":3600,"refresh_token":"RT2"}"#;
    let endpoint = Scripted::new([Step::AnswerAfter(SECOND, response(200, &[], rotated))]);
    let stored = Arc::new(Mutex::new(Vec::new()));
    let store = Arc::clone(&stored);
    let builder = builder(Some("RT1")).on_rotate(move |token| {
        store.lock().unwrap().push(token.expose_refresh_token().to_owned());
        async { Ok(()) }
    });
    let cache = TokenCache::new(builder.build_with(endpoint.clone()).unwrap());
    let first = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get().await }
    });
    sleep(SECOND / 4).await;
    let others = (0..20).map(|_| {
        let cache = cache.clone();
        tokio::spawn(async move { cache.get().await })
    });
    let others: Vec<_> = others.collect();
    sleep(SECOND / 4).await;
    first.abort();
    for token in join_all(others).await {
        assert_eq!(token.unwrap().unwrap().header_value(), "Bearer AT1");
    }
    assert_eq!(endpoint.seen().len(), 1);
    assert_eq!(*stored.lock().unwrap(), ["RT2"]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_panics_takes_no_waiter_along() {
    let server = Rotating::default();
    let source = server.build(builder(Some("RT0")).on_rotate(|_| async { panic!("the store panics") }));
    let cache = TokenCache::new(source.clone());
    for number in 1..=3 {
        for token in join_all((0..10).map(|_| cache.get())).await {
            assert_eq!(token.unwrap().header_value(), &format!("Bearer AT{number}"));
        }
        cache.invalidate();
    }
    assert_eq!((server.sent().len(), server.reuses()), (3, 0));
    assert!(source.store_error().unwrap().to_string().contains("panicked"));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_after_the_end_of_its_flight_is_for_the_next() {
    let rotated = r#"{"access_token":"AT1","expires_in":3600,"refresh_token":"RT2"}"#;
    let endpoint = Scripted::new([Step::AnswerAfter(3 * SECOND, response(200, &[], rotated))]);
    let source = builder(Some("RT1")).build_with(endpoint.clone()).unwrap();
    let cache = TokenCache::builder(source).fetch_timeout(SECOND).build();
    assert_eq!(cache.get().await.unwrap_err().kind(), ErrorKind::Transient);
    sleep(5 * SECOND).await;
    assert_eq!(cache.get().await.unwrap().header_value(), "Bearer AT1");
    assert_eq!(endpoint.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_what_is_stored() {
    let server = Rotating::default();
    let stored = Arc::new(Mutex::new(Vec::new()));
    let store = Arc::clone(&stored);
    let source = server.build(builder(Some("RT0")).on_rotate(move |token| {
        let store = Arc::clone(&store);
        async move {
            sleep(SECOND).await;
            store.lock().unwrap().push(token.expose_refresh_token().to_owned());
            Ok(())
        }
    }));
    let cache = TokenCache::new(source);
    assert!(timeout(SECOND / 2, cache.get()).await.is_err());
    cache.shutdown(5 * SECOND).await.unwrap();
    assert_eq!(*stored.lock().unwrap(), ["RT1"]);
}
