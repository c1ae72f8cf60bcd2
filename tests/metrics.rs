//! The page on metrics lists what the crate reports, and no more.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "a test may look at the clock")]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::time::sleep;
use tower::{BoxError, Layer as _, Service, ServiceExt as _, service_fn};
use tower_oauth2::pool::TokenPool;
use tower_oauth2::test_util::settle;
use tower_oauth2::{AccessToken, Body, Error, ErrorKind, RetryPolicy, TokenCache, source_fn};

/// Runs with a recorder of its own, on a paused clock, and returns what an exporter shows afterwards.
fn recorded<F: Future<Output = ()>>(run: impl FnOnce() -> F) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    metrics::with_local_recorder(&recorder, || runtime.block_on(async { run().await }));
    handle.render()
}

/// A token of 100 s, or an outage; each fetch takes a second.
fn cache(is_up: &Arc<AtomicBool>) -> TokenCache {
    let is_up = Arc::clone(is_up);
    let source = source_fn(move |_| {
        let is_up = is_up.load(Ordering::Relaxed);
        async move {
            sleep(Duration::from_secs(1)).await;
            if !is_up {
                return Err(Error::new(ErrorKind::Transient, "login.example.com responded with 503"));
            }
            Ok(AccessToken::bearer("S3CR3T")?.with_lifetime(Duration::from_secs(100)))
        }
    });
    TokenCache::builder(source).name("billing").build()
}

async fn an_outage() {
    let is_up = Arc::new(AtomicBool::new(true));
    let cache = cache(&is_up);
    let waiting = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get().await }
    });
    settle().await;
    let token = waiting.await.unwrap().unwrap();
    cache.accept(&token);
    cache.reject(&token);
    cache.reject(&token);
    cache.get().await.unwrap();
    is_up.store(false, Ordering::Relaxed);
    cache.refresh().await.unwrap_err();
}

fn value(shown: &str, series: &str) -> f64 {
    let line = shown.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
    line.unwrap_or_else(|| panic!("{series} is not in:\n{shown}"))
        .rsplit(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn an_outage_is_counted() {
    let shown = recorded(an_outage);
    let requests = |result| {
        value(&shown, &format!("tower_oauth2_token_requests_total{{cache=\"billing\",result=\"{result}\"}}"))
    };
    assert_eq!((requests("ok"), requests("transient")), (2.0, 1.0));
    let rejections = |verdict| {
        value(
            &shown,
            &format!("tower_oauth2_token_rejections_total{{cache=\"billing\",verdict=\"{verdict}\"}}"),
        )
    };
    assert_eq!((rejections("invalidated"), rejections("superseded")), (1.0, 1.0));
    let took = "tower_oauth2_token_request_duration_seconds_sum{cache=\"billing\",result=\"ok\"}";
    assert_eq!(value(&shown, took), 2.0);
    assert_eq!(value(&shown, "tower_oauth2_token_waiters{cache=\"billing\"}"), 0.0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let left = value(&shown, "tower_oauth2_token_expiry_timestamp_seconds{cache=\"billing\"}") - now;
    assert!((50.0..=200.0).contains(&left), "{left}");
    assert!(!shown.contains("S3CR3T"));
}

#[test]
fn one_that_waits_is_counted_while_it_waits() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let cache = cache(&Arc::new(AtomicBool::new(true)));
            let waiting: Vec<_> = (0..3)
                .map(|_| {
                    let cache = cache.clone();
                    tokio::spawn(async move { cache.get().await })
                })
                .collect();
            settle().await;
            assert_eq!(value(&handle.render(), "tower_oauth2_token_waiters{cache=\"billing\"}"), 3.0);
            // One that gives up does not wait any more.
            waiting[0].abort();
            settle().await;
            assert_eq!(value(&handle.render(), "tower_oauth2_token_waiters{cache=\"billing\"}"), 2.0);
        });
    });
}

/// An API with these statuses, one after the other. A 429 asks for a second.
fn api<B>(
    statuses: Vec<u16>,
) -> impl Service<Request<B>, Response = Response<Body>, Error = BoxError, Future: Send> + Clone + Send {
    let statuses = Arc::new(Mutex::new(statuses.into_iter()));
    service_fn(move |_request: Request<B>| {
        let status = statuses.lock().unwrap().next().unwrap();
        async move {
            let response = Response::builder().status(status);
            let response = if status == 429 { response.header("retry-after", "1") } else { response };
            Ok(response.body(Body::empty())?)
        }
    })
}

/// A retry after a 429, another request that waits for it, and one that fails for good.
async fn retries() {
    let policy = RetryPolicy::builder().max_retries(1).build().unwrap();
    let client = policy.layer(api(vec![429, 200, 200, 503, 503]));
    let get = || Request::get("https://api.example.com/items").body(Body::empty()).unwrap();
    let first = tokio::spawn(client.clone().oneshot(get()));
    settle().await;
    let second = tokio::spawn(client.clone().oneshot(get()));
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
    assert_eq!(second.await.unwrap().unwrap().status(), 200);
    assert_eq!(client.oneshot(get()).await.unwrap().status(), 503);
}

#[test]
fn retries_and_holds_are_counted() {
    let shown = recorded(retries);
    let retries = |reason| value(&shown, &format!("tower_oauth2_retries_total{{reason=\"{reason}\"}}"));
    assert_eq!((retries("throttled"), retries("unavailable")), (1.0, 1.0));
    let ended =
        |result| value(&shown, &format!("tower_oauth2_retried_requests_total{{result=\"{result}\"}}"));
    assert_eq!((ended("success"), ended("failure")), (1.0, 1.0));
    assert!(value(&shown, "tower_oauth2_gate_hold_duration_seconds_count") >= 1.0);
    assert!(value(&shown, "tower_oauth2_retry_budget") > 0.0);
}

#[cfg(feature = "store")]
#[test]
fn calls_to_a_store_are_counted() {
    use tower_oauth2::store::{MemoryStore, SealingKey, Shared, StoreKey};

    let shown = recorded(|| async {
        let source = source_fn(|_| async { AccessToken::bearer("S3CR3T") });
        let shared = Shared::builder(source, MemoryStore::new(), SealingKey::new([7; 32]));
        let shared = shared.key(StoreKey::new("billing").unwrap()).build().unwrap();
        TokenCache::new(shared).get().await.unwrap();
        settle().await;
    });
    let calls =
        |call| value(&shown, &format!("tower_oauth2_store_calls_total{{call=\"{call}\",result=\"ok\"}}"));
    assert_eq!((calls("load"), calls("acquire"), calls("swap")), (2.0, 1.0, 1.0));
    assert!(!shown.contains("result=\"error\""), "{shown}");
}

#[test]
fn the_tokens_of_a_pool_are_counted() {
    let shown = recorded(|| async {
        let source = |_| Ok(source_fn(|_| async { AccessToken::bearer("S3CR3T") }));
        let pool = TokenPool::builder(2, source).name("crm").build().unwrap();
        let service = pool.layer(api(vec![200; 3]));
        for _ in 0..3 {
            let request = Request::get("https://api.example.com/items").body(Body::empty()).unwrap();
            service.clone().oneshot(request).await.unwrap();
            settle().await;
        }
    });
    assert_eq!(value(&shown, "tower_oauth2_pool_tokens{pool=\"crm\"}"), 2.0);
}

#[test]
fn the_page_lists_every_metric_and_no_other() {
    let page = include_str!("../src/guide/metrics.md");
    let rows = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `tower_oauth2_"))
        .map(|row| format!("tower_oauth2_{}", row.split('`').next().unwrap()));
    let listed: BTreeSet<String> = rows.collect();
    // A name is a constant of the one file of names.
    let names =
        include_str!("../src/telemetry.rs").split('"').filter(|text| text.starts_with("tower_oauth2_"));
    let named: BTreeSet<String> = names.map(str::to_owned).collect();
    assert_eq!(listed, named);
    // So do the dashboard and the alert rules, which name the series of a histogram.
    let dashboard = include_str!("../docs/observability/dashboard.json");
    let panels: serde_json::Value = serde_json::from_str(dashboard).unwrap();
    let queries = panels["panels"]
        .as_array()
        .unwrap()
        .iter()
        .map(|panel| panel["targets"][0]["expr"].as_str().unwrap());
    let queries: Vec<&str> = queries.chain([include_str!("../docs/observability/alerts.yml")]).collect();
    assert!(queries.len() > 5, "{queries:?}");
    let mut used = BTreeSet::new();
    for query in queries {
        let names: Vec<&str> = query
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .filter(|word| word.starts_with("tower_oauth2_"))
            .map(|word| word.trim_end_matches("_sum").trim_end_matches("_count"))
            .collect();
        assert!(!names.is_empty(), "{query}");
        for name in names {
            assert!(named.contains(name), "{name} in {query}");
            used.insert(name.to_owned());
        }
    }
    assert_eq!(used, named, "each metric has a panel");
    // What the page says about alerts is about metrics that exist.
    let mentioned = page.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    for name in mentioned.filter(|word| word.starts_with("tower_oauth2_")) {
        assert!(named.contains(name), "{name}");
    }
    assert!(named.len() >= 5);
}
