//! How a cache behaves: paused clock, scripted sources, both clocks in hand.

mod judgement;
mod kinds;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::time::{advance, sleep};

use super::single_flight::{SingleFlight, Waiter};
use super::snapshot::Snapshot;
use super::{CacheEvent, CacheWatch, Health, TokenCache, TokenCacheBuilder};
use crate::clock::{self, WallClock, nanos, unix_time};
use crate::error::Error;
use crate::extensions::RejectionVerdict;
use crate::source::{FetchReason, TokenRequest, TokenSource, source_fn};
use crate::token::AccessToken;

type Answer = Pin<Box<dyn Future<Output = Result<AccessToken, Error>> + Send>>;
type Script = dyn Fn(usize, TokenRequest) -> Answer + Send + Sync;

/// A cache over a scripted source, with its wall clock in hand.
struct Rig {
    cache: TokenCache,
    wall: Arc<AtomicU64>,
    calls: Arc<AtomicUsize>,
    reasons: Arc<Mutex<Vec<FetchReason>>>,
}

impl Rig {
    fn new(script: impl Fn(usize, TokenRequest) -> Answer + Send + Sync + 'static) -> Self {
        Self::with(script, |builder| builder)
    }

    fn with(
        script: impl Fn(usize, TokenRequest) -> Answer + Send + Sync + 'static,
        options: impl FnOnce(TokenCacheBuilder) -> TokenCacheBuilder,
    ) -> Self {
        let wall = Arc::new(AtomicU64::new(nanos(unix_time())));
        let calls = Arc::new(AtomicUsize::new(0));
        let reasons = Arc::new(Mutex::new(Vec::new()));
        let (script, counter, noted): (Arc<Script>, _, _) =
            (Arc::new(script), calls.clone(), reasons.clone());
        let source = source_fn(move |request: TokenRequest| {
            noted.lock().unwrap().push(request.reason());
            script(counter.fetch_add(1, Ordering::SeqCst) + 1, request)
        });
        let builder = TokenCache::builder(source).rigged(WallClock::by_hand(wall.clone()), 0.0);
        Self { cache: options(builder).build(), wall, calls, reasons }
    }

    /// A source whose n-th token is `token-n`, lives for `life` seconds and takes `delay` milliseconds.
    fn steady(life: u64, delay: u64) -> Self {
        Self::new(move |call, _| answer(call, life, delay))
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn last_reason(&self) -> FetchReason {
        *self.reasons.lock().unwrap().last().unwrap()
    }

    /// Lets both clocks run.
    async fn pass(&self, seconds: f64) {
        let by = Duration::from_secs_f64(seconds);
        self.wall.fetch_add(nanos(by), Ordering::SeqCst);
        advance(by).await;
        settle().await;
    }

    async fn token(&self) -> String {
        shown(&self.cache.get().await.unwrap())
    }

    /// Has the second token, which is fetched after so many seconds, refused as soon as it comes: the first is in use again.
    async fn fall_back(&self, after: f64) {
        let first = self.cache.get().await.unwrap();
        self.cache.accept(&first);
        self.pass(after).await;
        self.token().await;
        settle().await;
        let second = self.cache.get().await.unwrap();
        assert_eq!(shown(&second), "token-2");
        self.cache.reject(&second);
        assert_eq!(self.token().await, "token-1");
    }

    /// What a request gets that cannot wait.
    fn at_once(&self) -> Option<String> {
        match std::pin::pin!(self.cache.get()).poll(&mut Context::from_waker(Waker::noop())) {
            std::task::Poll::Ready(token) => Some(shown(&token.unwrap())),
            std::task::Poll::Pending => None,
        }
    }
}

fn answer(call: usize, life: u64, delay: u64) -> Answer {
    Box::pin(async move {
        sleep(Duration::from_millis(delay)).await;
        Ok(AccessToken::bearer(format!("token-{call}"))?.with_lifetime(Duration::from_secs(life)))
    })
}

fn failure(error: &Error) -> Answer {
    Box::pin(std::future::ready(Err(error.clone())))
}

fn shown(token: &AccessToken) -> String {
    token.bare_header_value().to_str().unwrap().to_owned()
}

/// Lets the tasks that are ready run.
async fn settle() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn paused() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

// --- One flight ---

#[tokio::test(start_paused = true)]
async fn ten_thousand_tasks_on_a_cold_cache_cost_one_token_request() {
    let rig = Rig::steady(3600, 50);
    let tasks: Vec<_> = (0..10_000)
        .map(|_| {
            let cache = rig.cache.clone();
            tokio::spawn(async move { shown(&cache.get().await.unwrap()) })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), "token-1");
    }
    assert_eq!((rig.calls(), rig.last_reason()), (1, FetchReason::Initial));
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_requests_over_a_refresh_are_ready_on_first_poll() {
    let rig = Rig::steady(100, 5_000);
    rig.token().await;
    rig.pass(76.0).await;
    for _ in 0..10_000 {
        assert_eq!(rig.at_once().unwrap(), "token-1");
    }
    settle().await;
    assert_eq!((rig.calls(), rig.last_reason()), (2, FetchReason::Expiring));
    rig.pass(5.1).await;
    assert_eq!(rig.at_once().unwrap(), "token-2");
    assert_eq!(rig.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn in_the_mandatory_window_requests_wait_for_the_new_token() {
    let rig = Rig::steady(100, 1_000);
    rig.token().await;
    rig.pass(96.0).await;
    assert_eq!(rig.at_once(), None);
    assert_eq!(rig.token().await, "token-2");
    assert_eq!(rig.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_takes_nothing_with_it() {
    let rig = Rig::steady(100, 1_000);
    assert_eq!(rig.at_once(), None);
    settle().await;
    assert_eq!(rig.calls(), 1);
    rig.pass(1.1).await;
    assert_eq!(rig.at_once().unwrap(), "token-1");
    assert_eq!(rig.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_steady_client_asks_once_in_three_quarters_of_a_life() {
    let rig = Rig::steady(100, 10);
    for _ in 0..1_000 {
        rig.token().await;
        rig.pass(1.0).await;
    }
    assert!(rig.calls() <= 1 + 1_000 / 75, "{}", rig.calls());
    assert!(rig.calls() >= 1_000 / 100, "{}", rig.calls());
}

#[tokio::test(start_paused = true)]
async fn a_lead_longer_than_the_life_does_not_loop() {
    let rig = Rig::with(
        |call, _| answer(call, 30, 10),
        |builder| builder.refresh_before(Duration::from_secs(300)).min_validity(Duration::from_secs(60)),
    );
    for _ in 0..300 {
        rig.token().await;
        rig.pass(0.1).await;
    }
    assert!(rig.calls() <= 2, "{}", rig.calls());
}

#[tokio::test(start_paused = true)]
async fn a_life_of_nothing_costs_one_token_request_a_second() {
    for life in [0, 1] {
        let rig = Rig::steady(life, 0);
        for _ in 0..100 {
            rig.token().await;
            rig.pass(0.1).await;
        }
        assert!((5..=12).contains(&rig.calls()), "{life}: {}", rig.calls());
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_of_unknown_life_is_used_until_it_is_rejected() {
    let rig = Rig::new(|call, _| Box::pin(std::future::ready(AccessToken::bearer(format!("token-{call}")))));
    rig.token().await;
    rig.pass(10.0 * 365.0 * 86_400.0).await;
    let token = rig.cache.get().await.unwrap();
    assert_eq!((shown(&token).as_str(), rig.calls()), ("token-1", 1));
    rig.cache.reject(&token);
    assert_eq!(rig.token().await, "token-2");
}

#[tokio::test(start_paused = true)]
async fn ten_years_of_life_do_not_overflow_and_two_seconds_are_enough() {
    for life in [2, 10 * 365 * 86_400, u64::MAX] {
        let rig = Rig::steady(life, 10);
        rig.token().await;
        rig.pass(0.5).await;
        assert_eq!(rig.at_once().unwrap(), "token-1", "{life}");
    }
}

// --- Failing sources ---

#[tokio::test(start_paused = true)]
async fn everybody_who_waits_gets_the_same_error_and_the_next_gets_it_without_a_token_request() {
    let error = Error::grant("the client is unknown");
    let rig = Rig::new(move |_, _| failure(&error));
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let cache = rig.cache.clone();
            tokio::spawn(async move { cache.get().await.unwrap_err() })
        })
        .collect();
    for task in tasks {
        assert!(task.await.unwrap().is_grant());
    }
    for _ in 0..90 {
        assert!(rig.cache.get().await.unwrap_err().is_grant());
        rig.pass(0.1).await;
    }
    assert_eq!(rig.calls(), 1);
    rig.pass(2.0).await;
    assert!(rig.cache.get().await.unwrap_err().is_grant());
    assert_eq!(rig.calls(), 2);
    assert_eq!(rig.cache.status().health(), Health::Failing);
    assert_eq!(rig.cache.status().failures_in_a_row(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failed_refresh_leaves_the_valid_token_in_use_and_backs_off() {
    let error = Error::transient("down");
    let rig = Rig::new(move |call, _| if call == 1 { answer(1, 1000, 0) } else { failure(&error) });
    rig.token().await;
    rig.pass(800.0).await;
    for _ in 0..1_950 {
        assert_eq!(rig.at_once().unwrap(), "token-1");
        rig.pass(0.1).await;
    }
    // 195 s: backoff of 1, 2, 4 .. 60 s by chance; a few tries, not two thousand.
    assert!((4..=60).contains(&rig.calls()), "{}", rig.calls());
    assert_eq!(rig.cache.status().health(), Health::Degraded);
    assert!(rig.cache.status().last_error().unwrap().is_transient());
    rig.pass(6.0).await;
    assert!(rig.cache.get().await.unwrap_err().is_transient());
}

#[tokio::test(start_paused = true)]
async fn a_failure_in_the_mandatory_window_hands_out_the_token_that_is_still_valid() {
    let error = Error::transient("down");
    let rig = Rig::new(move |call, _| if call == 1 { answer(1, 1000, 0) } else { failure(&error) });
    rig.token().await;
    rig.pass(995.0).await;
    assert_eq!(rig.token().await, "token-1");
    assert_eq!(rig.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_throttled_source_is_left_alone_for_as_long_as_it_asked() {
    let rig = Rig::new(|call, _| {
        if call == 1 {
            failure(&Error::throttled("slow down").with_retry_after(Duration::from_secs(40)))
        } else {
            answer(call, 100, 0)
        }
    });
    assert!(rig.cache.get().await.unwrap_err().is_throttled());
    rig.pass(39.0).await;
    assert!(rig.cache.get().await.unwrap_err().is_throttled());
    assert_eq!(rig.calls(), 1);
    rig.pass(2.0).await;
    assert_eq!(rig.token().await, "token-2");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_panics_frees_the_waiters_and_is_asked_again_later() {
    let rig = Rig::new(|call, _| {
        Box::pin(async move {
            assert!(call > 1, "S3CR3T in a panic");
            answer(call, 100, 0).await
        })
    });
    let error = rig.cache.get().await.unwrap_err();
    assert!(error.is_transient() && !format!("{error:?}").contains("S3CR3T"), "{error}");
    rig.pass(1.1).await;
    assert_eq!(rig.token().await, "token-2");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_hangs_is_dropped_at_the_deadline() {
    let rig =
        Rig::new(|call, _| if call == 1 { Box::pin(std::future::pending()) } else { answer(call, 100, 0) });
    let begun = clock::now();
    let error = rig.cache.get().await.unwrap_err();
    assert!(error.is_transient());
    assert_eq!(begun.elapsed().as_secs(), 30);
    rig.pass(1.1).await;
    assert_eq!(rig.token().await, "token-2");
}

#[tokio::test(start_paused = true)]
async fn refresh_ends_the_wait_after_a_refusal() {
    let rig =
        Rig::new(
            |call, _| {
                if call == 1 { failure(&Error::config("wrong secret")) } else { answer(call, 100, 0) }
            },
        );
    assert!(rig.cache.get().await.unwrap_err().is_config());
    assert_eq!(shown(&rig.cache.refresh().await.unwrap()), "token-2");
    assert_eq!(rig.last_reason(), FetchReason::Forced);
    assert_eq!(rig.token().await, "token-2");
}

// --- Rejections ---

#[tokio::test(start_paused = true)]
async fn a_hundred_rejections_of_one_token_cost_one_token_request() {
    let rig = Rig::steady(3600, 20);
    let token = rig.cache.get().await.unwrap();
    rig.cache.accept(&token);
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let (cache, token) = (rig.cache.clone(), token.clone());
            tokio::spawn(async move {
                let verdict = cache.reject(&token);
                (verdict, shown(&cache.get().await.unwrap()))
            })
        })
        .collect();
    let mut dropped = 0;
    for task in tasks {
        let (verdict, token) = task.await.unwrap();
        dropped += usize::from(verdict == RejectionVerdict::Invalidated);
        assert_eq!(token, "token-2");
    }
    assert_eq!((dropped, rig.calls(), rig.last_reason()), (1, 2, FetchReason::Rejected));
}

#[tokio::test(start_paused = true)]
async fn a_late_rejection_keeps_the_newer_token() {
    let rig = Rig::steady(3600, 0);
    let old = rig.cache.get().await.unwrap();
    rig.cache.refresh().await.unwrap();
    assert_eq!(rig.cache.reject(&old), RejectionVerdict::Superseded);
    assert_eq!((rig.token().await.as_str(), rig.calls()), ("token-2", 2));
}

#[tokio::test(start_paused = true)]
async fn tokens_of_two_caches_never_meet() {
    let (one, two) = (Rig::steady(100, 0), Rig::steady(100, 0));
    let token = one.cache.get().await.unwrap();
    two.cache.get().await.unwrap();
    assert_eq!(two.cache.reject(&token), RejectionVerdict::Superseded);
    assert_eq!(two.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_returns_the_rejected_token_again_does_not_loop() {
    let cache = TokenCache::new(AccessToken::bearer("always-the-same").unwrap());
    let mut verdicts = Vec::new();
    for _ in 0..1_000 {
        let token = cache.get().await.unwrap();
        verdicts.push(cache.reject(&token));
    }
    assert_eq!(verdicts.iter().filter(|verdict| **verdict == RejectionVerdict::Invalidated).count(), 2);
    assert_eq!(verdicts.iter().filter(|verdict| **verdict == RejectionVerdict::Braked).count(), 998);
    assert_eq!(cache.status().health(), Health::Degraded);
    assert_eq!(cache.status().health(), Health::Degraded);
}

#[tokio::test(start_paused = true)]
async fn an_api_that_rejects_everything_costs_a_bounded_number_of_token_requests() {
    let rig = Rig::steady(3600, 1);
    for _ in 0..10_000 {
        let token = rig.cache.get().await.unwrap();
        rig.cache.reject(&token);
        rig.pass(0.06).await;
    }
    // 600 s: three, then one probe each after 30, 60, 120 and 240 s.
    assert!(rig.calls() <= 8, "{}", rig.calls());
}

#[tokio::test(start_paused = true)]
async fn a_token_fetched_before_its_predecessor_was_rejected_is_fetched_again() {
    let rig = Rig::steady(100, 1_000);
    let first = rig.cache.get().await.unwrap();
    rig.pass(81.0).await;
    assert_eq!(rig.at_once().unwrap(), "token-1");
    rig.pass(0.5).await;
    assert_eq!(rig.cache.reject(&first), RejectionVerdict::Invalidated);
    assert_eq!(rig.token().await, "token-3");
    assert_eq!((rig.calls(), rig.last_reason()), (3, FetchReason::Rejected));
}

#[tokio::test(start_paused = true)]
async fn a_rejection_passes_through_caches_that_stand_behind_one_another() {
    let inner = Rig::steady(1000, 0);
    let outer = TokenCache::new(inner.cache.as_source());
    let token = outer.get().await.unwrap();
    outer.accept(&token);
    inner.cache.accept(&token);
    assert_eq!(outer.reject(&token), RejectionVerdict::Invalidated);
    assert_eq!(shown(&outer.get().await.unwrap()), "token-2");
    assert_eq!(inner.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn caches_before_one_cache_renew_it_once() {
    let inner = Rig::steady(1000, 0);
    let outer: Vec<_> = (0..8).map(|_| TokenCache::new(inner.cache.as_source())).collect();
    for _ in 0..3_000 {
        for cache in &outer {
            cache.get().await.unwrap();
        }
        inner.pass(1.0).await;
    }
    assert!(inner.calls() <= 1 + 3_000 / 750, "{}", inner.calls());
}

// --- Two clocks ---

#[tokio::test(start_paused = true)]
async fn a_machine_that_slept_does_not_send_an_expired_token() {
    let rig = Rig::steady(100, 0);
    rig.token().await;
    // The monotonic clock stood still.
    rig.wall.fetch_add(nanos(Duration::from_secs(101)), Ordering::SeqCst);
    assert_eq!(rig.at_once(), None);
    assert_eq!(rig.token().await, "token-2");
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_steps_back_never_lengthens_a_life() {
    let rig = Rig::steady(100, 0);
    rig.token().await;
    rig.wall.fetch_sub(nanos(Duration::from_secs(86_400)), Ordering::SeqCst);
    rig.pass(101.0).await;
    assert_eq!(rig.token().await, "token-2");
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_steps_forward_costs_one_token_request() {
    let rig = Rig::steady(100, 0);
    rig.token().await;
    rig.wall.fetch_add(nanos(Duration::from_secs(86_400)), Ordering::SeqCst);
    for _ in 0..50 {
        rig.token().await;
        rig.pass(1.0).await;
    }
    assert_eq!(rig.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_life_counts_from_before_the_token_request() {
    let rig = Rig::steady(100, 20_000);
    let token = rig.cache.get().await.unwrap();
    rig.wall.fetch_add(nanos(Duration::from_secs(20)), Ordering::SeqCst);
    // 20 s of its life went by on the way; at 81 s after its request it is due, at 101 s it has ended.
    assert_eq!(token.lifetime(), Some(Duration::from_secs(100)));
    rig.pass(61.0).await;
    assert_eq!(rig.at_once().unwrap(), "token-1");
    settle().await;
    assert_eq!(rig.calls(), 2);
}

#[test]
fn a_runtime_that_nobody_drove_meanwhile_does_not_send_an_expired_token() {
    let rig = Rig::steady(100, 0);
    let runtime = runtime();
    assert_eq!(runtime.block_on(rig.token()), "token-1");
    // The timer cannot have fired between the two: only the clock tells.
    rig.wall.fetch_add(nanos(Duration::from_secs(101)), Ordering::SeqCst);
    assert_eq!(runtime.block_on(rig.token()), "token-2");
}

#[test]
fn a_second_runtime_sees_the_end_while_the_first_one_is_idle() {
    let rig = Rig::steady(100, 0);
    let (owner, other) = (runtime(), runtime());
    assert_eq!(owner.block_on(rig.token()), "token-1");
    assert_eq!(other.block_on(rig.token()), "token-1");
    rig.wall.fetch_add(nanos(Duration::from_secs(101)), Ordering::SeqCst);
    assert_eq!(other.block_on(rig.token()), "token-2");
    assert_eq!(owner.block_on(rig.token()), "token-2");
    assert_eq!(rig.calls(), 2);
}

#[test]
fn a_keeper_that_went_down_with_its_runtime_is_replaced_by_the_next() {
    let rig = Rig::steady(100, 0);
    let first = runtime();
    first.block_on(rig.token());
    drop(first);
    let second = paused();
    second.block_on(async {
        // Adopted here; then the wall clock stands still, so that only the new keeper can see the end.
        assert_eq!(rig.token().await, "token-1");
        advance(Duration::from_secs(101)).await;
        settle().await;
        assert_eq!(rig.token().await, "token-2");
    });
}

#[test]
fn a_flight_that_went_down_with_its_runtime_is_started_anew() {
    let rig = Rig::steady(100, 10);
    let first = runtime();
    first.block_on(async {
        assert_eq!(rig.at_once(), None);
        settle().await;
    });
    assert_eq!(rig.calls(), 1);
    drop(first);
    assert_eq!(runtime().block_on(rig.token()), "token-2");
}

#[test]
fn a_waiter_survives_the_runtime_of_the_flight() {
    let rig = Rig::steady(100, 50);
    let first = runtime();
    first.block_on(async {
        assert_eq!(rig.at_once(), None);
        settle().await;
    });
    runtime().block_on(async {
        let cache = rig.cache.clone();
        let waiter = tokio::spawn(async move { shown(&cache.get().await.unwrap()) });
        settle().await;
        tokio::task::spawn_blocking(move || drop(first)).await.unwrap();
        assert_eq!(waiter.await.unwrap(), "token-2");
    });
}

#[test]
fn a_flight_that_is_not_driven_past_its_deadline_is_given_up() {
    let rig =
        Rig::new(|call, _| if call == 1 { Box::pin(std::future::pending()) } else { answer(call, 100, 0) });
    let parked = runtime();
    parked.block_on(async {
        assert_eq!(rig.at_once(), None);
        settle().await;
    });
    let second = paused();
    assert_eq!(second.block_on(rig.token()), "token-2");
    // The parked one wakes up late, and its failure no longer counts.
    parked.block_on(settle());
    assert_eq!(second.block_on(rig.token()), "token-2");
    assert_eq!(rig.cache.status().health(), Health::Ready);
}

#[test]
fn outside_a_runtime_there_is_an_error_and_no_panic() {
    let rig = Rig::steady(100, 0);
    let poll = || match std::pin::pin!(rig.cache.get()).poll(&mut Context::from_waker(Waker::noop())) {
        std::task::Poll::Ready(result) => result,
        std::task::Poll::Pending => panic!("would wait for ever"),
    };
    assert!(poll().unwrap_err().is_config());
    runtime().block_on(rig.token());
    assert_eq!(shown(&poll().unwrap()), "token-1");
    assert!(rig.cache.keep_warm().unwrap_err().is_config());
}

#[test]
fn a_runtime_without_a_timer_gets_an_error_and_no_panic() {
    let rig = Rig::steady(100, 0);
    let bare = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let error = bare.block_on(rig.cache.get()).unwrap_err();
    assert!(error.is_config() && error.to_string().contains("enable_time"), "{error}");
}

// --- The handle ---

#[tokio::test(start_paused = true)]
async fn a_warm_cache_renews_its_token_without_traffic_until_the_last_handle_is_gone() {
    let rig = Rig::steady(100, 0);
    rig.cache.keep_warm().unwrap();
    settle().await;
    assert_eq!(rig.calls(), 1);
    for _ in 0..10 {
        rig.pass(80.1).await;
    }
    assert_eq!(rig.calls(), 11);
    let calls = Arc::clone(&rig.calls);
    drop(rig);
    advance(Duration::from_secs(1_000)).await;
    settle().await;
    assert_eq!(calls.load(Ordering::SeqCst), 11);
}

#[tokio::test(start_paused = true)]
async fn a_warm_cache_keeps_trying_after_failures() {
    let rig = Rig::new(
        |call, _| {
            if call < 5 { failure(&Error::config("wrong secret")) } else { answer(call, 100, 0) }
        },
    );
    rig.cache.keep_warm().unwrap();
    settle().await;
    for _ in 0..4 {
        rig.pass(30.1).await;
    }
    assert_eq!(rig.at_once().unwrap(), "token-5");
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_is_not_kept_warm_stays_quiet_without_traffic() {
    let rig = Rig::steady(100, 0);
    rig.token().await;
    rig.pass(10_000.0).await;
    assert_eq!(rig.calls(), 1);
    assert_eq!(rig.cache.peek().map(|token| shown(&token)), None);
    assert_eq!(rig.cache.status().health(), Health::Idle);
}

#[tokio::test(start_paused = true)]
async fn warm_up_shows_a_wrong_secret_at_start_up_and_spreads_a_fleet() {
    let error = Error::config("wrong secret");
    let wrong = Rig::new(move |_, _| failure(&error));
    assert!(wrong.cache.warm_up(Duration::ZERO).await.unwrap_err().is_config());
    let rig = Rig::steady(100, 0);
    let begun = clock::now();
    rig.cache.warm_up(Duration::from_secs(10)).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10) && begun.elapsed() > Duration::ZERO);
    assert_eq!(rig.at_once().unwrap(), "token-1");
}

#[tokio::test(start_paused = true)]
async fn expire_makes_the_next_use_fetch() {
    let rig = Rig::steady(100, 0);
    rig.token().await;
    rig.cache.invalidate();
    assert_eq!(rig.cache.peek().map(|token| shown(&token)), None);
    assert_eq!((rig.token().await.as_str(), rig.last_reason()), ("token-2", FetchReason::Forced));
}

#[tokio::test(start_paused = true)]
async fn refresh_joins_the_flight_that_is_in_the_air() {
    let rig = Rig::steady(100, 1_000);
    let (one, two) = (rig.cache.clone(), rig.cache.clone());
    let (one, two) =
        (tokio::spawn(async move { one.refresh().await }), tokio::spawn(async move { two.refresh().await }));
    assert_eq!(shown(&one.await.unwrap().unwrap()), "token-1");
    assert_eq!(shown(&two.await.unwrap().unwrap()), "token-1");
    assert_eq!(rig.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_the_flight_and_lets_none_start() {
    let rig = Rig::steady(100, 1_000);
    assert_eq!(rig.at_once(), None);
    settle().await;
    rig.cache.shutdown(Duration::from_secs(5)).await.unwrap();
    assert_eq!(rig.cache.status().fetched(), 1);
    assert_eq!(rig.cache.status().health(), Health::Closed);
    assert!(rig.cache.get().await.unwrap_err().is_config());
    assert!(rig.cache.refresh().await.unwrap_err().is_config());
    assert_eq!(rig.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_longer_than_it_may() {
    let rig = Rig::steady(100, 60_000);
    assert_eq!(rig.at_once(), None);
    settle().await;
    let begun = clock::now();
    assert!(rig.cache.shutdown(Duration::from_secs(5)).await.unwrap_err().is_transient());
    assert_eq!(begun.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn events_can_be_watched_and_the_watch_ends_with_the_cache() {
    let rig = Rig::steady(100, 10);
    let mut watch = rig.cache.watch();
    let token = rig.cache.get().await.unwrap();
    assert!(matches!(watch.next().await, Some(CacheEvent::Fetched { expires_at: Some(_) })));
    rig.cache.reject(&token);
    let rejected = watch.next().await;
    assert!(matches!(rejected, Some(CacheEvent::Rejected { verdict: RejectionVerdict::Invalidated })));
    rig.cache.shutdown(Duration::ZERO).await.unwrap();
    assert!(matches!(watch.next().await, Some(CacheEvent::Closed)));
    drop(rig);
    assert!(watch.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn nothing_that_is_shown_of_a_cache_holds_its_token() {
    let rig = Rig::steady(100, 10);
    rig.token().await;
    let builder = TokenCache::builder(AccessToken::bearer("token-1").unwrap());
    for shown in [format!("{:#?}", rig.cache), format!("{:?}", rig.cache.status()), format!("{builder:?}")] {
        assert!(!shown.contains("token-1"), "{shown}");
    }
}

#[test]
fn what_is_shared_between_threads_can_be() {
    fn shareable<T: Send + Sync + Clone + 'static>() {}
    fn sendable<T: Send>(_: &T) {}
    shareable::<TokenCache>();
    let rig = Rig::steady(100, 0);
    sendable(&rig.cache.get());
    sendable(&rig.cache.refresh());
    sendable(&rig.cache.shutdown(Duration::ZERO));
}

#[test]
fn a_source_or_another_makes_a_cache_by_itself() {
    let first = source_fn(|_| std::future::ready(Err(Error::grant("no refresh token"))));
    let cache = TokenCache::new(first.or(AccessToken::bearer("fallback").unwrap()));
    assert_eq!(shown(&runtime().block_on(cache.get()).unwrap()), "fallback");
}

// --- Spans ---

/// What happened to spans, in words.
#[derive(Clone, Default)]
struct Story(Arc<Mutex<Vec<String>>>);

impl Story {
    fn tell(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }
}

impl<S> tracing_subscriber::Layer<S> for Story
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    fn on_new_span(
        &self,
        _: &tracing::span::Attributes<'_>,
        id: &tracing::span::Id,
        context: tracing_subscriber::layer::Context<'_, S>,
    ) {
        let span = context.span(id).unwrap();
        let parent = span.parent().map_or("nobody", |parent| parent.name());
        self.tell(format!("{} under {parent}", span.name()));
    }

    fn on_follows_from(
        &self,
        id: &tracing::span::Id,
        from: &tracing::span::Id,
        context: tracing_subscriber::layer::Context<'_, S>,
    ) {
        let (span, from) = (context.span(id).unwrap(), context.span(from).unwrap());
        self.tell(format!("{} follows {}", span.name(), from.name()));
    }

    fn on_close(&self, id: tracing::span::Id, context: tracing_subscriber::layer::Context<'_, S>) {
        self.tell(format!("{} ends", context.span(&id).unwrap().name()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_flight_has_a_span_of_its_own_that_is_linked_to_its_callers_and_ends_with_it() {
    use tracing::Instrument as _;
    use tracing_subscriber::layer::SubscriberExt as _;
    let story = Story::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(story.clone()));
    let rig = Rig::steady(100, 1_000);
    let first = rig.token().instrument(tracing::info_span!("first"));
    let second = rig.token().instrument(tracing::info_span!("second"));
    tokio::join!(first, second);
    settle().await;
    let mut told = std::mem::take(&mut *story.0.lock().unwrap());
    told.retain(|line| line.starts_with("token_fetch"));
    assert_eq!(
        told,
        [
            "token_fetch under nobody",
            "token_fetch follows first",
            "token_fetch follows second",
            "token_fetch ends"
        ]
    );
}

// --- What went wrong once ---

#[tokio::test(start_paused = true)]
async fn a_token_of_unknown_life_is_used_without_asking() {
    let rig = Rig::new(|call, _| Box::pin(std::future::ready(AccessToken::bearer(format!("token-{call}")))));
    rig.token().await;
    assert!(rig.cache.fresh().is_some());
    rig.pass(86_400.0).await;
    assert!(rig.cache.fresh().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_warm_cache_comes_back_from_an_outage_that_outlasts_its_token() {
    let rig = Rig::new(|call, _| {
        if call == 2 {
            failure(&Error::throttled("later").with_retry_after(Duration::from_secs(60)))
        } else {
            answer(call, 100, 0)
        }
    });
    rig.cache.keep_warm().unwrap();
    settle().await;
    rig.pass(80.1).await;
    assert_eq!(rig.calls(), 2);
    for _ in 0..61 {
        rig.pass(1.0).await;
    }
    assert_eq!(rig.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_warm_cache_renews_after_a_wait_that_began_before_the_token_was_due() {
    let rig =
        Rig::new(
            |call, _| {
                if call == 2 { failure(&Error::config("wrong secret")) } else { answer(call, 100, 0) }
            },
        );
    rig.cache.keep_warm().unwrap();
    settle().await;
    rig.pass(70.0).await;
    assert!(rig.cache.refresh().await.unwrap_err().is_config());
    for _ in 0..29 {
        rig.pass(1.0).await;
        assert_eq!(rig.calls(), 2);
    }
    rig.pass(1.1).await;
    assert_eq!(rig.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_flight_that_lands_after_the_shutdown_brings_no_token_back() {
    let rig = Rig::steady(3600, 10_000);
    assert_eq!(rig.at_once(), None);
    settle().await;
    rig.cache.shutdown(Duration::from_secs(5)).await.unwrap_err();
    rig.pass(6.0).await;
    assert!(rig.cache.get().await.unwrap_err().is_config());
    assert_eq!(rig.cache.peek().map(|token| shown(&token)), None);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_served_its_time_ends_a_row_of_rejections() {
    let rig = Rig::steady(100, 0);
    for _ in 0..2 {
        let token = rig.cache.get().await.unwrap();
        assert_eq!(rig.cache.reject(&token), RejectionVerdict::Invalidated);
    }
    let token = rig.cache.get().await.unwrap();
    rig.cache.accept(&token);
    rig.pass(96.0).await;
    let token = rig.cache.get().await.unwrap();
    assert_eq!((shown(&token).as_str(), rig.calls()), ("token-4", 4));
    assert_eq!(rig.cache.reject(&token), RejectionVerdict::Invalidated);
}

#[test]
fn keep_warm_works_in_the_runtime_that_it_was_called_in() {
    let rig = Rig::steady(100, 0);
    let parked = runtime();
    parked.block_on(rig.token());
    paused().block_on(async {
        rig.cache.keep_warm().unwrap();
        settle().await;
        rig.pass(80.1).await;
        assert_eq!(rig.calls(), 2);
    });
}

#[test]
fn the_runtime_that_asked_last_keeps_a_cache_warm() {
    let rig = Rig::steady(100, 0);
    let parked = runtime();
    parked.block_on(async {
        rig.cache.keep_warm().unwrap();
        rig.token().await;
        settle().await;
    });
    paused().block_on(async {
        rig.pass(101.0).await;
        assert_eq!(rig.token().await, "token-2");
        // Nothing moves by itself: the task is where it was asked for, in a runtime that is not driven now.
        rig.pass(80.1).await;
        assert_eq!(rig.calls(), 2);
        rig.cache.keep_warm().unwrap();
        settle().await;
        assert_eq!(rig.calls(), 3);
    });
    // Its end took no task along that still counts.
    drop(parked);
    assert_eq!(rig.calls(), 3);
}

#[test]
fn keep_warm_gives_up_a_fetch_that_a_parked_runtime_sits_on() {
    let rig =
        Rig::new(|call, _| if call == 1 { Box::pin(std::future::pending()) } else { answer(call, 100, 0) });
    let parked = runtime();
    parked.block_on(async {
        assert_eq!(rig.at_once(), None);
        settle().await;
    });
    assert_eq!(rig.calls(), 1);
    paused().block_on(async {
        rig.cache.keep_warm().unwrap();
        settle().await;
        assert_eq!(rig.calls(), 1);
        for _ in 0..4 {
            rig.pass(10.0).await;
        }
        assert_eq!((rig.calls(), rig.cache.status().is_ready()), (2, true));
    });
}

#[test]
fn outside_a_runtime_a_token_is_not_used_beyond_what_the_keeper_watches() {
    let rig = Rig::steady(100, 0);
    let first = runtime();
    first.block_on(rig.token());
    drop(first);
    // No keeper is alive now, and none can be started here.
    assert_eq!(rig.at_once().unwrap(), "token-1");
    paused().block_on(async {
        advance(Duration::from_secs(101)).await;
        assert_eq!(rig.token().await, "token-2");
    });
}

#[test]
fn a_flight_that_went_down_in_the_advisory_window_is_followed_by_another() {
    let rig = Rig::steady(100, 1_000);
    let (keeper, flier) = (paused(), paused());
    keeper.block_on(rig.token());
    rig.wall.fetch_add(nanos(Duration::from_secs(81)), Ordering::SeqCst);
    flier.block_on(async {
        assert_eq!(rig.at_once().unwrap(), "token-1");
        settle().await;
    });
    assert_eq!(rig.calls(), 2);
    drop(flier);
    keeper.block_on(async {
        assert_eq!(rig.at_once().unwrap(), "token-1");
        settle().await;
    });
    assert_eq!(rig.calls(), 3);
}

/// A subscriber that asks the cache how it is whenever it is told anything, as an exporter does that sends through it.
#[test]
fn a_subscriber_that_uses_the_cache_does_not_hang() {
    use tracing::span;
    struct Asking(TokenCache, AtomicU64);
    impl tracing::Subscriber for Asking {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            drop(self.0.status());
            span::Id::from_u64(self.1.fetch_add(1, Ordering::Relaxed) + 1)
        }
        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {
            drop(self.0.status());
        }
        fn event(&self, _: &tracing::Event<'_>) {
            drop(self.0.status());
        }
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
        fn try_close(&self, _: span::Id) -> bool {
            drop(self.0.status());
            true
        }
    }
    ends(|| {
        let rig = Rig::steady(100, 1_000);
        let asking = Asking(rig.cache.clone(), AtomicU64::new(0));
        tracing::subscriber::with_default(asking, || {
            paused().block_on(async {
                let span = tracing::info_span!("a caller");
                let _entered = span.enter();
                assert_eq!(rig.at_once(), None);
                assert_eq!(rig.at_once(), None);
                rig.pass(1.1).await;
                let token = rig.cache.get().await.unwrap();
                rig.cache.reject(&token);
                rig.cache.refresh().await.unwrap();
            });
        });
    });
}

#[test]
fn a_runtime_without_a_timer_keeps_its_error_to_itself() {
    let rig = Rig::steady(100, 0);
    let (whole, bare) = (runtime(), tokio::runtime::Builder::new_current_thread().build().unwrap());
    whole.block_on(rig.token());
    rig.wall.fetch_add(nanos(Duration::from_secs(81)), Ordering::SeqCst);
    bare.block_on(async {
        for _ in 0..10 {
            assert_eq!(rig.at_once().unwrap(), "token-1");
            settle().await;
        }
    });
    assert_eq!((rig.calls(), rig.cache.status().failures_in_a_row()), (1, 0));
    rig.wall.fetch_add(nanos(Duration::from_secs(20)), Ordering::SeqCst);
    assert!(bare.block_on(rig.cache.get()).unwrap_err().to_string().contains("enable_time"));
    assert_eq!(whole.block_on(rig.token()), "token-2");
}

/// A waker may be all that holds a task, and the task may hold another waiter of the same fetch.
#[test]
fn a_waiter_that_is_dropped_with_a_waker_that_holds_another_does_not_hang() {
    struct Holding(#[allow(dead_code, reason = "held to be dropped")] Mutex<Waiter<Arc<Snapshot>, Error>>);
    impl std::task::Wake for Holding {
        fn wake(self: Arc<Self>) {}
    }
    fn sit(waiter: &mut Waiter<Arc<Snapshot>, Error>, waker: &Waker) {
        assert!(Pin::new(waiter).poll(&mut Context::from_waker(waker)).is_pending());
    }
    ends(|| {
        let flight = Arc::new(SingleFlight::<Arc<Snapshot>, Error, ()>::new(()));
        let leader = flight.lock().lead(&flight);
        let wait = || flight.lock().wait().unwrap();
        let (mut one, mut other, mut third) = (wait(), wait(), wait());
        for waiter in [&mut one, &mut other, &mut third] {
            sit(waiter, Waker::noop());
        }
        sit(&mut third, &Arc::new(Holding(Mutex::new(one))).into());
        sit(&mut third, &Arc::new(Holding(Mutex::new(other))).into());
        drop(third);
        drop(leader);
    });
}

#[test]
fn callers_that_come_and_go_during_a_fetch_leave_no_slots_behind() {
    let flight = Arc::new(SingleFlight::<Arc<Snapshot>, Error, ()>::new(()));
    let leader = flight.lock().lead(&flight);
    let mut staying = flight.lock().wait().unwrap();
    for _ in 0..1_000 {
        let mut waiter = flight.lock().wait().unwrap();
        assert!(Pin::new(&mut waiter).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    assert!(Pin::new(&mut staying).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    // What is shown of a fetch shows its slots.
    assert!(format!("{staying:?}").len() < 1_000, "{staying:?}");
    drop(leader);
    assert!(Pin::new(&mut staying).poll(&mut Context::from_waker(Waker::noop())).is_ready());
}

/// Fails where the test would hang.
fn ends(test: impl FnOnce() + Send + 'static) {
    let (done, finished) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        test();
        done.send(()).unwrap();
    });
    finished.recv_timeout(Duration::from_secs(20)).expect("it waits for a lock that it holds");
}
