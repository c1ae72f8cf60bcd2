//! What an operator reads in the log of an outage: when it began, until when requests went on, when they failed, and when it
//! was over. And what the lines about retries and refusals say.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::env;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use tokio::time::sleep;
use tower::{ServiceBuilder, ServiceExt as _};
use tower_oauth2::cache::CacheEvent;
use tower_oauth2::pool::TokenPool;
use tower_oauth2::retry::{RequestBody, Unsent};
use tower_oauth2::test_util::{Script, ScriptedResponse, reply};
use tower_oauth2::{
    AccessToken, AuthLayer, ClientCredentials, Error, ErrorKind, RetryPolicy, TokenCache, source_fn,
};

use crate::log::Log;

#[path = "support/log.rs"]
mod log;

const SECOND: Duration = Duration::from_secs(1);

fn logging(level: tracing::Level) -> (Log, tracing::subscriber::DefaultGuard) {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .with_writer(log.clone())
        .finish();
    (log, tracing::subscriber::set_default(subscriber))
}

/// A cache over a source that can be switched off, with tokens of 100 s.
fn cache(is_up: &Arc<AtomicBool>) -> TokenCache {
    let is_up = Arc::clone(is_up);
    let source = source_fn(move |_| {
        let is_up = is_up.load(Ordering::Relaxed);
        async move {
            if !is_up {
                return Err(Error::new(ErrorKind::Transient, "login.example.com responded with 503"));
            }
            let token = AccessToken::bearer("S3CR3T")?.with_lifetime(100 * SECOND);
            Ok(token.with_scopes(["orders:read", "orders:write"]))
        }
    });
    TokenCache::builder(source).name("billing").build()
}

/// The lines, without what stands before the message and differs by chance.
fn lines(log: &Log) -> Vec<String> {
    let text = log.text();
    assert!(
        !text.contains("S3CR3T") && !text.contains("Instant {") && !text.contains("SystemTime {"),
        "{text}"
    );
    text.lines().map(|line| line.trim_start().to_owned()).collect()
}

/// Asks once a second, as requests do, for so long.
async fn requests(cache: &TokenCache, seconds: u32) -> Vec<bool> {
    let mut served = Vec::new();
    for _ in 0..seconds {
        served.push(cache.get().await.is_ok());
        sleep(SECOND).await;
    }
    served
}

#[tokio::test(start_paused = true)]
async fn an_outage_can_be_read_from_the_log_alone() {
    let (log, _guard) = logging(tracing::Level::INFO);
    let is_up = Arc::new(AtomicBool::new(true));
    let cache = cache(&is_up);
    let mut watch = cache.watch();
    assert!(requests(&cache, 10).await.iter().all(|served| *served));
    is_up.store(false, Ordering::Relaxed);
    let served = requests(&cache, 180).await;
    let valid = served.iter().take_while(|served| **served).count();
    assert!((85..=95).contains(&valid), "{valid}");
    assert!(!served[valid..].contains(&true), "{served:?}");
    is_up.store(true, Ordering::Relaxed);
    let served = requests(&cache, 60).await;
    assert!(served.iter().filter(|served| !**served).count() < 10, "{served:?}");

    let lines = lines(&log);
    println!("{}", lines.join("\n"));
    let [first, failing, down, over] = lines.as_slice() else { panic!("{lines:#?}") };
    assert!(first.starts_with("INFO ") && first.contains("got a token cache=\"billing\""), "{first}");
    assert!(first.contains("lifetime=\"1m40s\" scopes=\"orders:read orders:write\""), "{first}");
    assert!(
        failing.starts_with("WARN ") && failing.contains("requests go on with the current one"),
        "{failing}"
    );
    assert!(
        failing.contains(
            "cache=\"billing\" error=login.example.com responded with 503 kind=transient retry_in="
        ),
        "{failing}"
    );
    // Renewal began so long before the end.
    let valid_for = failing.split("valid_for=\"").nth(1).unwrap().split('s').next().unwrap();
    assert!((10..=30).contains(&valid_for.parse().unwrap()), "{failing}");
    assert!(down.starts_with("ERROR ") && down.contains("no valid token: requests fail"), "{down}");
    assert!(down.contains("failures=") && down.contains("retry_in="), "{down}");
    assert!(over.starts_with("INFO ") && over.contains("token requests succeed again"), "{over}");
    // The page on logging shows these lines.
    let page = include_str!("../src/guide/logging.md");
    for line in &lines {
        let message = line.split("}: ").nth(1).unwrap().split(" cache=").next().unwrap();
        assert!(page.contains(message), "{message}");
        for field in line.split(message).nth(1).unwrap().split(' ').filter_map(|field| field.split_once('='))
        {
            assert!(page.contains(&format!(" {}=", field.0)), "{field:?}");
        }
    }
    assert!(over.contains("outage=\"1m") && over.contains("failures="), "{over}");

    // A program reads the same without the log.
    drop(cache);
    let mut events = Vec::new();
    while let Some(event) = watch.next().await {
        events.push(event);
    }
    let [
        CacheEvent::Fetched { .. },
        CacheEvent::Degraded { error: first, .. },
        CacheEvent::Failing { error: last, .. },
        CacheEvent::Fetched { .. },
        CacheEvent::Recovered,
    ] = events.as_slice()
    else {
        panic!("{events:#?}")
    };
    assert!(first.to_string().contains("503") && last.to_string().contains("503"));
}

#[tokio::test(start_paused = true)]
async fn an_outage_from_the_start_is_one_error() {
    let (log, _guard) = logging(tracing::Level::INFO);
    let is_up = Arc::new(AtomicBool::new(false));
    let cache = cache(&is_up);
    assert!(!requests(&cache, 30).await.contains(&true));
    let lines = lines(&log);
    let [down] = lines.as_slice() else { panic!("{lines:#?}") };
    assert!(down.starts_with("ERROR ") && down.contains("no valid token"), "{down}");
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_ends_before_the_token_does_is_one_warning() {
    let (log, _guard) = logging(tracing::Level::INFO);
    let is_up = Arc::new(AtomicBool::new(true));
    let cache = cache(&is_up);
    requests(&cache, 10).await;
    is_up.store(false, Ordering::Relaxed);
    assert!(!requests(&cache, 80).await.contains(&false));
    is_up.store(true, Ordering::Relaxed);
    assert!(!requests(&cache, 60).await.contains(&false));
    let levels: Vec<_> = lines(&log).iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(levels, ["INFO", "WARN", "INFO"], "{}", log.text());
}

#[tokio::test(start_paused = true)]
async fn a_cache_is_called_by_its_client_and_the_server() {
    let (log, _guard) = logging(tracing::Level::INFO);
    let server = tower::service_fn(async |_: http::Request<tower_oauth2::Body>| {
        let body = r#"{"access_token":"S3CR3T","token_type":"bearer","expires_in":3600}"#;
        Ok::<_, tower::BoxError>(http::Response::new(tower_oauth2::Body::from(body)))
    });
    let source =
        ClientCredentials::builder("https://login.example.com/token?tenant=7", "billing", "hunter2-hunter2");
    let source = source.build_with(server).unwrap();
    let unnamed = TokenCache::new(source.clone());
    let behind = TokenCache::new(unnamed.as_source());
    for cache in [&unnamed, &behind] {
        cache.get().await.unwrap();
    }
    TokenCache::builder(source).name("reports").build().get().await.unwrap();
    let lines = lines(&log);
    let names = lines.iter().map(|line| line.split(" cache=").nth(2).unwrap().split(" id=").next().unwrap());
    let default = "\"billing at https://login.example.com\"";
    assert_eq!(names.collect::<Vec<_>>(), [default, default, "\"reports\""], "{lines:#?}");
    assert!(!log.text().contains("hunter2") && !log.text().contains("tenant"));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_wrapped_keeps_its_name_in_the_log() {
    let (log, _guard) = logging(tracing::Level::INFO);
    let server = tower::service_fn(async |_: http::Request<tower_oauth2::Body>| {
        let body = r#"{"access_token":"S3CR3T","token_type":"bearer","expires_in":3600}"#;
        Ok::<_, tower::BoxError>(http::Response::new(tower_oauth2::Body::from(body)))
    });
    let source =
        ClientCredentials::builder("https://login.mypurecloud.de/oauth/token", "billing", "hunter2-hunter2");
    let source = Arc::new(source.build_with(server).unwrap());
    TokenCache::new(Arc::clone(&source)).get().await.unwrap();
    let shared = Arc::clone(&source);
    let pool = TokenPool::builder(1, move |_| Ok(Arc::clone(&shared))).build().unwrap();
    pool.first().get().await.unwrap();
    #[cfg(feature = "providers")]
    {
        let region = "mypurecloud.de".parse().unwrap();
        let preset = tower_oauth2::providers::genesys::Genesys::new(region, "billing", "hunter2-hunter2");
        preset.cache(source, server).build().get().await.unwrap();
    }
    let lines = lines(&log);
    let named =
        lines.iter().filter(|line| line.contains("cache=\"billing at https://login.mypurecloud.de\""));
    assert!(lines.len() >= 2 && named.count() == lines.len(), "{lines:#?}");
}

fn get() -> Request<Full<Bytes>> {
    let request = Request::get("https://api.example.com/orders/7?key=S3CR3T").header("x-request-id", "r-17");
    request.body(Full::default()).unwrap()
}

fn refusal(status: u16, header: (&'static str, &str)) -> ScriptedResponse {
    let mut response = reply(status, "S3CR3T");
    response.headers_mut().insert(header.0, header.1.parse().unwrap());
    ScriptedResponse::Reply(response)
}

/// Sends requests one after the other with a token, and returns the lines about retries and refusals.
async fn retry_lines(policy: &RetryPolicy, answers: Vec<ScriptedResponse>, requests: usize) -> Vec<String> {
    let cache = cache(&Arc::new(AtomicBool::new(true)));
    cache.get().await.unwrap();
    let (log, guard) = logging(tracing::Level::DEBUG);
    let script = Script::new(answers);
    let client = ServiceBuilder::new()
        .layer(policy.clone())
        .layer(AuthLayer::for_origin(cache, "https://api.example.com").unwrap())
        .service(script.probe::<RequestBody<Full<Bytes>>>());
    for _ in 0..requests {
        let _ = client.clone().oneshot(get()).await;
    }
    drop(guard);
    let others = ["token_fetch", "got a token", "a token is to be dropped"];
    let of_requests = |line: &String| !others.iter().any(|other| line.contains(other));
    lines(&log).into_iter().filter(of_requests).collect()
}

/// The fields that say which request it is.
const WHICH: &str = "method=\"GET\" origin=\"https://api.example.com\" request_id=\"r-17\"";

#[tokio::test(start_paused = true)]
async fn a_retry_can_be_read_from_its_lines_alone() {
    let policy = RetryPolicy::builder().gate(None).build().unwrap();
    let refused = std::io::Error::from_raw_os_error(111);
    let answers =
        vec![refusal(503, ("retry-after", "7")), ScriptedResponse::Fail(Unsent::new(refused).into())];
    let lines = retry_lines(&policy, answers, 2).await;
    let [first, second, end] = lines.as_slice() else { panic!("{lines:#?}") };
    let again = format!("DEBUG the request is sent again {WHICH}");
    assert!(first.starts_with(&format!("{again} attempt=1 status=503 reason=")), "{first}");
    assert!(
        first.contains(" delay=\"7.") && first.contains(" requested_by=\"retry-after\" budget=9"),
        "{first}"
    );
    assert!(second.starts_with(&format!("{again} attempt=2 error=")), "{second}");
    assert!(second.contains(" error=\"Connection refused (os error 111)\" reason="), "{second}");
    assert!(
        end.starts_with(&format!("DEBUG a retry succeeded {WHICH} attempts=3 status=200 waited=\"")),
        "{end}"
    );
    check_page(&lines);
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_named_by_its_number() {
    let challenge = ("www-authenticate", "Bearer error=\"invalid_token\"");
    let refused = || refusal(401, challenge);
    let lines = retry_lines(&RetryPolicy::default(), vec![refused(), refused()], 1).await;
    let number = |line: &str, field: &str| -> u64 {
        let number = line.split(field).nth(1).unwrap_or_else(|| panic!("{line}"));
        number.split(' ').next().unwrap().parse().unwrap()
    };
    let of = |message: &str| lines.iter().find(|line| line.contains(message)).unwrap();
    let id = number(of("an API refused a token id="), " id=");
    let again = of("the request is sent again");
    assert_eq!(number(again, " token="), id, "{lines:#?}");
    assert!(again.contains(" status=401 ") && again.contains(" reason=the token was refused"), "{again}");
    let end = of("the request is not sent again");
    assert!(number(end, " token=") > id && end.contains("reason=the new token was refused too"), "{end}");
    check_page(&lines);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_at_the_gate_says_so_and_shows_no_wait_of_none() {
    let policy = RetryPolicy::default();
    let lines = retry_lines(&policy, vec![refusal(429, ("retry-after", "2"))], 1).await;
    let [again, end] = lines.as_slice() else { panic!("{lines:#?}") };
    assert!(again.contains(" requested_delay=\"2.0s\" ") && again.ends_with(" at_gate=true"), "{again}");
    assert!(!again.contains(" delay=") && end.contains(" held=\"2."), "{again} {end}");
    check_page(&lines);
}

#[tokio::test(start_paused = true)]
async fn a_success_at_once_logs_nothing() {
    assert_eq!(retry_lines(&RetryPolicy::default(), Vec::new(), 3).await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn auth_above_retry_is_warned_of_once() {
    let cache = cache(&Arc::new(AtomicBool::new(true)));
    let (log, _guard) = logging(tracing::Level::WARN);
    let script = Script::new([
        ScriptedResponse::Reply(reply(503, "")),
        ScriptedResponse::Reply(reply(200, "")),
        ScriptedResponse::Reply(reply(503, "")),
    ]);
    let client = ServiceBuilder::new()
        .layer(AuthLayer::for_origin(cache, "https://api.example.com").unwrap())
        .layer(RetryPolicy::default())
        .service(script.probe::<RequestBody<Full<Bytes>>>());
    for _ in 0..2 {
        assert!(client.clone().oneshot(get()).await.unwrap().status().is_success());
    }
    let lines = lines(&log);
    let [warning] = lines.as_slice() else { panic!("{lines:#?}") };
    assert!(
        warning.starts_with("WARN auth stands above retry: a request is sent again with the same token"),
        "{warning}"
    );
    assert!(include_str!("../src/guide/logging.md").contains("auth stands above retry"));
}

#[tokio::test(start_paused = true)]
async fn auth_above_retry_is_warned_of_at_the_first_401() {
    if env::var_os(ALONE).is_none() {
        // The warning comes once in a process, and another test may have had it.
        let mut again = Command::new(env::current_exe().unwrap());
        again.args(["auth_above_retry_is_warned_of_at_the_first_401", "--exact"]).env(ALONE, "1");
        let output = again.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let auth = || {
        let cache = cache(&Arc::new(AtomicBool::new(true)));
        AuthLayer::for_origin(cache, "https://api.example.com").unwrap()
    };
    let refusals = || Script::new([401, 401].map(|status| ScriptedResponse::Reply(reply(status, ""))));
    let (log, _guard) = logging(tracing::Level::WARN);

    let in_order = ServiceBuilder::new()
        .layer(RetryPolicy::default())
        .layer(auth())
        .service(refusals().probe::<RequestBody<Full<Bytes>>>());
    assert_eq!(in_order.oneshot(get()).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(lines(&log), Vec::<String>::new());

    let client = ServiceBuilder::new()
        .layer(auth())
        .layer(RetryPolicy::default())
        .service(refusals().probe::<RequestBody<Full<Bytes>>>());
    for _ in 0..2 {
        let response = client.clone().oneshot(get()).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    }
    let lines = lines(&log);
    let [warning] = lines.as_slice() else { panic!("{lines:#?}") };
    assert!(warning.starts_with("WARN auth stands above retry: "), "{warning}");
}

/// Set where a test has started itself again, in a process without others.
const ALONE: &str = "TOWER_OAUTH2_ALONE";

/// The page on logging shows these messages and fields.
fn check_page(lines: &[String]) {
    let page = include_str!("../src/guide/logging.md");
    for line in lines {
        let message = line.split("DEBUG ").nth(1).unwrap().split(" method=").next().unwrap();
        let message = message.split(" id=").next().unwrap();
        assert!(page.contains(message), "{message}");
        for (field, _) in
            line.split(message).nth(1).unwrap().split(' ').filter_map(|field| field.split_once('='))
        {
            assert!(page.contains(&format!(" {field}=")), "{field} of {line}");
        }
    }
}

/// A line that a token is dropped reads like a fault.
#[tokio::test(start_paused = true)]
async fn a_clean_shutdown_says_nothing_of_a_token_that_is_dropped() {
    let (log, guard) = logging(tracing::Level::DEBUG);
    let cache = cache(&Arc::new(AtomicBool::new(true)));
    cache.get().await.unwrap();
    cache.invalidate();
    let line = "a token is to be dropped reason=Forced verdict=Invalidated";
    assert_eq!(log.text().matches(line).count(), 1, "{}", log.text());
    cache.get().await.unwrap();
    cache.shutdown(SECOND).await.unwrap();
    drop(guard);
    assert_eq!(log.text().matches("dropped").count(), 1, "{}", log.text());
}
