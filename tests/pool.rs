//! Several tokens of one client, against an API that limits each token.

#![cfg(feature = "stack")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "tests look at the paused clock")]
#![allow(clippy::print_stdout, reason = "figures that were measured")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::header::AUTHORIZATION;
use http::{HeaderName, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use tokio::time::{Instant, sleep, timeout};
use tower::{BoxError, Layer as _, Service as _, ServiceBuilder, ServiceExt as _, service_fn};
use tower_oauth2::auth::AuthOverride;
use tower_oauth2::client::ApiService;
use tower_oauth2::extensions::Deadline;
use tower_oauth2::pool::{TokenPool, TokenPoolBuilder};
use tower_oauth2::retry::{Failure, RateLimitProfile, RequestBody, RetryPolicy, Unsent};
use tower_oauth2::stack::Stack;
use tower_oauth2::test_util::{
    FakeApi, FakeAuthorizationServer, FakeClient, Script, ScriptedResponse, Trouble, pass, reply, settle,
    timed,
};
use tower_oauth2::{
    AccessToken, ApiClient, AuthLayer, Body, ClientCredentials, Error, ErrorKind, TokenCache, source_fn,
};

use self::log::Log;

#[path = "support/log.rs"]
mod log;

/// How many requests a token has in a minute.
const LIMIT: u64 = 300;
const MINUTE: Duration = Duration::from_secs(60);

/// An API that counts the requests of each token in windows of a minute, as Genesys Cloud does.
#[derive(Clone, Default)]
struct Limiter {
    windows: Arc<Mutex<HashMap<String, (Instant, u64)>>>,
    /// How many were served, and how many refused, by token.
    served: Arc<Mutex<HashMap<String, u64>>>,
    refused: Arc<AtomicUsize>,
    is_silent: bool,
}

impl Limiter {
    fn respond(&self, request: &Request<Body>) -> Response<Body> {
        let token = request.headers()["authorization"].to_str().unwrap().to_owned();
        let now = Instant::now();
        let (count, left) = {
            let mut windows = self.windows.lock().unwrap();
            let window = windows.entry(token.clone()).or_insert((now, 0));
            if now - window.0 >= MINUTE {
                *window = (now, 0);
            }
            window.1 += 1;
            (window.1, MINUTE - (now - window.0))
        };
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        if !self.is_silent {
            headers.insert("inin-ratelimit-count", count.min(LIMIT).into());
            headers.insert("inin-ratelimit-allowed", LIMIT.into());
            headers.insert("inin-ratelimit-reset", left.as_secs().into());
        }
        if count > LIMIT {
            headers.insert("retry-after", (left.as_secs() + 1).into());
            *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
            self.refused.fetch_add(1, SeqCst);
        } else {
            *self.served.lock().unwrap().entry(token).or_default() += 1;
        }
        response
    }
}

struct World {
    login: FakeAuthorizationServer,
    server: FakeApi,
    limiter: Limiter,
}

impl World {
    fn new(limiter: Limiter) -> Self {
        let client = FakeClient::confidential("reports", "hunter2");
        let login =
            FakeAuthorizationServer::builder().client(client).lifetime(Duration::from_secs(900)).build();
        let behind = limiter.clone();
        let service = service_fn(move |request: Request<Body>| {
            let response = behind.respond(&request);
            async move {
                request.into_body().collect().await?;
                Ok::<_, BoxError>(response)
            }
        });
        let server = FakeApi::builder(&login).service(service).latency(Duration::from_millis(40)).build();
        Self { login, server, limiter }
    }

    fn pool(&self, size: usize) -> TokenPoolBuilder {
        let login = self.login.clone();
        TokenPool::builder(size, move |_| {
            ClientCredentials::builder(login.token_url(), "reports", "hunter2").build_with(login.clone())
        })
        .profile(RateLimitProfile::genesys())
    }

    fn client(&self, pool: &TokenPool, policy: RetryPolicy) -> ApiClient {
        let layers = Stack::with_auth(AuthLayer::per_request([FakeApi::ORIGIN]).unwrap()).retry(policy);
        let service = pool.layer(layers.build(self.server.clone()));
        ApiClient::new(FakeApi::ORIGIN, ApiService::new(pool.first().clone(), service)).unwrap()
    }
}

fn policy() -> RetryPolicy {
    RetryPolicy::builder().rate_limit_profile(RateLimitProfile::genesys()).build().unwrap()
}

/// Has `tasks` tasks send `requests` requests between them, each its next one when it has a response. Returns how long it
/// took, and how many were not 200.
async fn press(api: &ApiClient, tasks: usize, requests: usize) -> (Duration, usize) {
    let (begun, failed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let run = (0..tasks).map(|_| {
        let (api, begun, failed) = (api.clone(), Arc::clone(&begun), Arc::clone(&failed));
        tokio::spawn(async move {
            while begun.fetch_add(1, SeqCst) < requests {
                let status = api.post("query").body("all").send().await.map(|response| response.status());
                if status.ok() != Some(StatusCode::OK) {
                    failed.fetch_add(1, SeqCst);
                }
            }
        })
    });
    let (_, took) = timed(join_all(run)).await;
    (took, failed.load(SeqCst))
}

#[tokio::test(start_paused = true)]
async fn four_tokens_have_four_times_the_throughput_of_one_and_no_request_fails() {
    const REQUESTS: usize = 12_000;
    let mut times = Vec::new();
    for size in [1, 4] {
        let world = World::new(Limiter::default());
        let pool = world.pool(size).longest_wait(Duration::from_secs(600)).build().unwrap();
        let (took, failed) = press(&world.client(&pool, policy()), 64, REQUESTS).await;
        assert_eq!(failed, 0);
        // One token request for each token and lifetime. A fifth of its life is left when a token is renewed, or a bit more.
        let lifetimes = took.as_secs().div_ceil(660);
        let tokens = world.login.counts().token_requests;
        assert!(tokens <= size as u64 * lifetimes, "{tokens} tokens in {took:?}");
        let refused = world.limiter.refused.load(SeqCst);
        println!("{size} tokens: {took:?}, {tokens} token requests, {refused} refused by the API");
        assert!(refused <= REQUESTS / 100, "{refused} of {REQUESTS} were refused on the way");
        times.push(took.as_secs_f64());
    }
    let factor = times[0] / times[1];
    println!("{factor:.2} times the throughput");
    assert!(factor >= 3.5, "{factor}");
}

#[tokio::test(start_paused = true)]
async fn an_api_that_says_nothing_but_429_is_learned_from_its_refusals() {
    const REQUESTS: usize = 6_000;
    let mut times = Vec::new();
    for size in [1, 4] {
        let world = World::new(Limiter { is_silent: true, ..Limiter::default() });
        let pool = world.pool(size).longest_wait(Duration::from_secs(600)).build().unwrap();
        let (took, failed) = press(&world.client(&pool, policy()), 64, REQUESTS).await;
        println!("{size} tokens: {took:?}, {} refused by the API", world.limiter.refused.load(SeqCst));
        assert_eq!(failed, 0);
        times.push(took.as_secs_f64());
    }
    assert!(times[0] / times[1] >= 3.0, "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn equal_tokens_are_used_equally() {
    let world = World::new(Limiter::default());
    let pool = world.pool(4).build().unwrap();
    let api = world.client(&pool, policy());
    // Until all four are there.
    press(&api, 1, 20).await;
    world.limiter.served.lock().unwrap().clear();
    press(&api, 8, 400).await;
    let served = world.limiter.served.lock().unwrap().clone();
    assert_eq!(served.len(), 4);
    assert!(served.values().all(|count| (90..=110).contains(count)), "{served:?}");
}

#[tokio::test(start_paused = true)]
async fn tokens_are_fetched_one_after_the_other_and_keep_no_request_waiting_but_the_first() {
    let world = World::new(Limiter::default());
    // Beyond two seconds a source would ask a second time.
    world.login.set_latency(Duration::from_secs(1));
    let pool = world.pool(4).build().unwrap();
    let api = world.client(&pool, policy());
    let login = world.login.clone();
    let most = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&most);
    let watcher = tokio::spawn(async move {
        loop {
            seen.fetch_max(login.counts().in_progress, SeqCst);
            sleep(Duration::from_millis(100)).await;
        }
    });
    let (took, failed) = press(&api, 100, 100).await;
    assert_eq!((failed, took.as_secs()), (0, 1));
    assert_eq!(world.login.counts().token_requests, 1);
    for _ in 0..30 {
        let (took, failed) = press(&api, 5, 5).await;
        assert_eq!(failed, 0);
        assert!(took < Duration::from_secs(1), "{took:?}");
        pass(Duration::from_secs(1)).await;
    }
    watcher.abort();
    assert_eq!((most.load(SeqCst), world.login.counts().token_requests), (1, 4));
}

#[tokio::test(start_paused = true)]
async fn a_pool_grows_when_its_tokens_are_used_up_and_no_sooner() {
    let world = World::new(Limiter::default());
    let pool = world.pool(1).grow_to(3).build().unwrap();
    let api = world.client(&pool, policy());
    press(&api, 8, 280).await;
    assert_eq!(world.login.counts().token_requests, 1);
    let (took, failed) = press(&api, 8, 200).await;
    assert_eq!((failed, world.login.counts().token_requests), (0, 2));
    assert!(took < Duration::from_secs(5), "{took:?}");
    press(&api, 8, 1000).await;
    assert_eq!(world.login.counts().token_requests, 3);
    assert_eq!(pool.status().iter().filter(|member| member.has_token()).count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_cannot_be_fetched_keeps_no_request_waiting() {
    let world = World::new(Limiter::default());
    let fetches = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&fetches);
    let login = world.login.clone();
    let good =
        move || ClientCredentials::builder(login.token_url(), "reports", "hunter2").build_with(login.clone());
    let pool = TokenPool::builder(3, move |number| {
        let (good, counted) = (good()?, Arc::clone(&counted));
        let good = Arc::new(good);
        Ok::<_, Error>(source_fn(move |request| {
            let (good, counted) = (Arc::clone(&good), Arc::clone(&counted));
            async move {
                if number == 1 {
                    counted.fetch_add(1, SeqCst);
                    return Err::<AccessToken, _>(Error::new(ErrorKind::Config, "no such client"));
                }
                tower_oauth2::TokenSource::token(&*good, request).await
            }
        }))
    })
    .build()
    .unwrap();
    let api = world.client(&pool, policy());
    for _ in 0..20 {
        let (took, failed) = press(&api, 4, 20).await;
        assert_eq!(failed, 0);
        assert!(took < Duration::from_secs(1), "{took:?}");
        pass(Duration::from_secs(2)).await;
    }
    assert_eq!(world.login.counts().token_requests, 2);
    // The cache's own wait after a refusal holds.
    assert!((1..=6).contains(&fetches.load(SeqCst)), "{fetches:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_goes_to_another_token_at_once_where_the_policy_says_so() {
    let world = World::new(Limiter::default());
    let pool = world.pool(4).build().unwrap();
    let at_once = RetryPolicy::builder().max_retry_after(Duration::from_secs(1)).build().unwrap();
    let api = world.client(&pool, at_once);
    press(&api, 1, 20).await;
    world.server.fail_next(2, Trouble::TooManyRequests { retry_after: Duration::from_secs(50) });
    let (status, took) = timed(api.post("x").body("a body").send()).await;
    assert_eq!(status.unwrap().status(), 200);
    assert!(took < Duration::from_secs(1), "{took:?}");
    // The two that were refused are left alone.
    assert_eq!(pool.status().iter().filter(|member| member.opens_in().is_some()).count(), 2);
    world.limiter.served.lock().unwrap().clear();
    press(&api, 4, 40).await;
    assert_eq!(world.limiter.served.lock().unwrap().len(), 2);
    // If all refuse, the last refusal is returned.
    world.server.fail_next(8, Trouble::TooManyRequests { retry_after: Duration::from_secs(50) });
    assert_eq!(api.get("x").send().await.unwrap().status(), 429);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_the_profile_counts_as_a_429_goes_to_another_token_too() {
    for (headers, expected) in [
        (&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "50")][..], 200),
        // Without a hint it is a refusal of the request, and not one for a limit.
        (&[], 403),
    ] {
        let mut refused = reply(403, "");
        for (name, value) in headers {
            refused.headers_mut().insert(*name, value.parse().unwrap());
        }
        let source = |_| Ok::<_, Error>(source_fn(async |_| AccessToken::bearer("A1")));
        let pool = TokenPool::builder(2, source).profile(RateLimitProfile::github()).build().unwrap();
        let at_once = RetryPolicy::builder().max_retry_after(Duration::from_secs(1));
        let at_once = at_once.rate_limit_profile(RateLimitProfile::github()).build().unwrap();
        let layers = Stack::with_auth(AuthLayer::per_request([FakeApi::ORIGIN]).unwrap()).retry(at_once);
        let script = Script::new([ScriptedResponse::Reply(refused)]);
        let request = Request::post(format!("{}/x", FakeApi::ORIGIN)).body(Full::<Bytes>::from("a body"));
        let response = pool.layer(layers.build(script.probe())).oneshot(request.unwrap()).await.unwrap();
        assert_eq!(response.status(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_doubt_goes_with_a_request_to_the_next_token() {
    let lost = || ScriptedResponse::Fail(Unsent::new("connection refused").into());
    let busy = || {
        let mut response = reply(429, "");
        response.headers_mut().insert("retry-after", "50".parse().unwrap());
        ScriptedResponse::Reply(response)
    };
    let status = |status| ScriptedResponse::Reply(reply(status, ""));
    for (answers, class, conflict) in [
        (vec![ScriptedResponse::Fail("connection reset".into()), busy()], Failure::Ambiguous, 200),
        (vec![busy()], Failure::Unsent, 409),
    ] {
        let source = |_| Ok::<_, Error>(source_fn(async |_| AccessToken::bearer("A1")));
        let send = async |behind: [ScriptedResponse; 4]| {
            let pool = TokenPool::builder(2, source).build().unwrap();
            let at_once = RetryPolicy::builder().max_retry_after(Duration::from_secs(1)).build().unwrap();
            let layers = Stack::with_auth(AuthLayer::per_request([FakeApi::ORIGIN]).unwrap()).retry(at_once);
            let again = |answer: &ScriptedResponse| match answer {
                ScriptedResponse::Reply(_) => busy(),
                _ => ScriptedResponse::Fail("connection reset".into()),
            };
            let script = Script::new(answers.iter().map(again).chain(behind));
            let request =
                Request::post(format!("{}/x", FakeApi::ORIGIN)).header("idempotency-key", "\"k-1\"");
            let request = request.body(Full::<Bytes>::from("a body")).unwrap();
            pool.layer(layers.build(script.probe())).oneshot(request).await
        };
        let error = send([lost(), lost(), lost(), lost()]).await.unwrap_err();
        assert_eq!(Failure::of(&*error), class, "{error}");
        // A conflict is one with our own attempt, if there may have been one.
        let response = send([status(409), status(200), status(200), status(200)]).await.unwrap();
        assert_eq!(response.status(), conflict);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_of_one_token_does_not_hold_the_others() {
    let world = World::new(Limiter { is_silent: true, ..Limiter::default() });
    let pool = world.pool(2).build().unwrap();
    let api = world.client(&pool, policy());
    press(&api, 1, 10).await;
    world.server.fail_next(1, Trouble::TooManyRequests { retry_after: Duration::from_secs(50) });
    let paused = tokio::spawn({
        let api = api.clone();
        async move { timed(api.get("x").send()).await }
    });
    pass(Duration::from_millis(200)).await;
    let (took, failed) = press(&api, 4, 100).await;
    assert_eq!(failed, 0);
    assert!(took < Duration::from_secs(5), "{took:?}");
    let (response, took) = paused.await.unwrap();
    assert_eq!(response.unwrap().status(), 200);
    assert!(took >= Duration::from_secs(50), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_room_comes_in_the_order_of_arrival_and_a_deadline_is_kept() {
    let world = World::new(Limiter::default());
    let pool = world.pool(1).build().unwrap();
    let api = world.client(&pool, policy());
    press(&api, 1, usize::try_from(LIMIT).unwrap()).await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for number in 0..5 {
        let (api, order) = (api.clone(), Arc::clone(&order));
        tasks.push(tokio::spawn(async move {
            let status = api.get("x").send().await.unwrap().status();
            order.lock().unwrap().push((number, status.as_u16()));
        }));
        settle().await;
    }
    // One that is dropped leaves the line.
    assert!(timeout(Duration::from_secs(1), api.get("x").send()).await.is_err());
    // One that cannot wait is sent, and gets what there is.
    let (response, took) =
        timed(api.get("x").extension(Deadline::within(Duration::from_secs(2))).send()).await;
    assert!(took <= Duration::from_secs(2), "{took:?}");
    assert!(response.is_err() || response.unwrap().status() == 429);
    let (_, took) = timed(join_all(tasks)).await;
    assert!(took < MINUTE, "{took:?}");
    assert_eq!(*order.lock().unwrap(), (0..5).map(|number| (number, 200)).collect::<Vec<_>>());
    let member = &pool.status()[0];
    assert_eq!((member.in_flight(), member.credential().to_string().as_str()), (0, "token 1 of 1"));
}

#[tokio::test(start_paused = true)]
async fn a_revocation_of_all_costs_one_token_request_each() {
    let world = World::new(Limiter::default());
    let pool = world.pool(4).build().unwrap();
    let api = world.client(&pool, policy());
    press(&api, 8, 100).await;
    assert_eq!(world.login.counts().token_requests, 4);
    world.login.revoke_all();
    let (_, failed) = press(&api, 8, 200).await;
    assert_eq!((failed, world.login.counts().token_requests), (0, 8));
    pool.shutdown(Duration::from_secs(1)).await.unwrap();
    assert!(api.get("x").send().await.unwrap_err().token_error().is_some());
}

#[test]
fn a_pool_that_could_not_work_is_not_built() {
    let pool =
        |size| TokenPool::builder(size, |_| Ok::<_, Error>(source_fn(async |_| AccessToken::bearer("A1"))));
    assert!(pool(1).build().is_ok() && pool(50).build().is_ok() && pool(2).grow_to(50).build().is_ok());
    for wrong in [pool(0), pool(51), pool(2).grow_to(1), pool(2).grow_to(51)] {
        assert_eq!(wrong.build().unwrap_err().kind(), ErrorKind::Config);
    }
    let refused = TokenPool::builder(2, |number| match number {
        0 => Ok(source_fn(async |_| AccessToken::bearer("A1"))),
        _ => Err(Error::new(ErrorKind::Config, "no second one")),
    });
    assert!(refused.build().is_err());
}

// --- Hostile servers ---

/// A client of one token, of a server that is a function of the path and gives the headers of a rate limit. A request for
/// `slow` takes five minutes.
fn limited(
    respond: impl Fn(&str) -> [(&'static str, u64); 2] + Clone + Send + Sync + 'static,
) -> (TokenPool, ApiClient) {
    let source = |_| Ok::<_, Error>(source_fn(async |_| AccessToken::bearer("A1")));
    let pool = TokenPool::builder(1, source).build().unwrap();
    let server = service_fn(move |request: Request<Body>| {
        let respond = respond.clone();
        async move {
            let path = request.uri().path();
            if path == "/slow" {
                sleep(5 * MINUTE).await;
            }
            let mut response = Response::new(Body::empty());
            if path == "/refuse" {
                *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
            }
            for (name, value) in respond(path) {
                response.headers_mut().insert(name, value.into());
            }
            Ok::<_, BoxError>(response)
        }
    });
    let server = server.map_request(|request: Request<_>| request.map(Body::new));
    let layers = Stack::with_auth(AuthLayer::per_request([FakeApi::ORIGIN]).unwrap()).retry(policy());
    let service = pool.layer(layers.build(server));
    let api = ApiClient::new(FakeApi::ORIGIN, ApiService::new(pool.first().clone(), service)).unwrap();
    (pool, api)
}

#[tokio::test(start_paused = true)]
async fn one_reset_that_is_a_year_away_is_not_believed_for_a_year() {
    let (pool, api) = limited(|path| match path {
        "/lie" => [("ratelimit-remaining", 0), ("ratelimit-reset", 365 * 86_400)],
        _ => [("ratelimit-remaining", 299), ("ratelimit-reset", 60)],
    });
    api.get("lie").send().await.unwrap();
    assert_eq!(pool.status()[0].left(), Some(0));
    sleep(MINUTE).await;
    api.get("x").send().await.unwrap();
    assert_eq!((pool.status()[0].left(), pool.status()[0].opens_in()), (Some(299), None));
}

#[tokio::test(start_paused = true)]
async fn a_window_that_ends_makes_room_also_where_slow_requests_have_taken_it_all() {
    let left = |path: &str| if path == "/first" { 9 } else { 2 };
    let (_pool, api) = limited(move |path| [("ratelimit-remaining", left(path)), ("ratelimit-reset", 10)]);
    for path in ["first", "x"] {
        api.get(path).send().await.unwrap();
    }
    let slow = [0, 1].map(|_| tokio::spawn(api.get("slow").send()));
    settle().await;
    let (_, took) = timed(api.get("x").send()).await;
    assert!(took <= Duration::from_secs(12), "{took:?}");
    slow.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_leave_requests_waiting_for_room() {
    let (pool, api) = limited(|_| [("ratelimit-remaining", 0), ("ratelimit-reset", 60)]);
    api.get("x").send().await.unwrap();
    let waiting: Vec<_> = (0..3).map(|_| tokio::spawn(api.get("x").send())).collect();
    settle().await;
    pool.shutdown(Duration::from_secs(1)).await.unwrap();
    let (ended, took) = timed(join_all(waiting)).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(ended.into_iter().all(|ended| ended.unwrap().unwrap_err().token_error().is_some()));
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_dropped_leave_nothing_in_flight() {
    let (pool, api) = limited(|_| [("ratelimit-remaining", 1), ("ratelimit-reset", 60)]);
    api.get("x").send().await.unwrap();
    let all: Vec<_> = (0..5).map(|_| tokio::spawn(api.get("slow").send())).collect();
    settle().await;
    assert_eq!(pool.status()[0].in_flight(), 1);
    for task in all {
        task.abort();
        let _ = task.await;
    }
    assert_eq!((pool.status()[0].in_flight(), pool.status()[0].left()), (0, Some(1)));
}

#[tokio::test(start_paused = true)]
async fn no_word_of_a_server_takes_a_token_out_of_the_pool_for_a_year() {
    const YEAR: u64 = 365 * 86_400;
    for path in ["empty", "refuse"] {
        let (pool, api) = limited(|path| match path {
            "/refuse" => [("retry-after", YEAR), ("ratelimit-reset", YEAR)],
            _ => [("ratelimit-remaining", 0), ("ratelimit-reset", YEAR)],
        });
        api.get(path).send().await.unwrap();
        let opens_in = pool.status()[0].opens_in().unwrap();
        // A pool of several would not ask this token before.
        assert!(opens_in <= Duration::from_secs(3_601) && opens_in > MINUTE, "{path}: {opens_in:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_lines_of_a_pool_say_which_token_they_are_about() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .without_time()
        .with_writer(log.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let make =
        |number| Ok(source_fn(move |_| async move { AccessToken::bearer(format!("S3CR3T-{number}")) }));
    let pool = TokenPool::builder(2, make).build().unwrap();
    // The first token is refused.
    let server = service_fn(async |request: Request<RequestBody<Body>>| {
        let is_first = request.headers()["authorization"] == "Bearer S3CR3T-0";
        let mut response = Response::new(Body::empty());
        if is_first {
            *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        }
        Ok::<_, BoxError>(response)
    });
    let auth = AuthLayer::per_request(["https://api.example.com"]).unwrap();
    let service = ServiceBuilder::new().layer(pool.clone()).layer(auth).service(server);
    let request = || Request::get("https://api.example.com/").body(Body::empty()).unwrap();
    service.clone().oneshot(request()).await.unwrap();
    assert_eq!(service.oneshot(request()).await.unwrap().status(), 200);
    let text = log.text();
    assert!(!text.contains("S3CR3T"), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    let about = |text: &str| -> Vec<&str> {
        let found = lines.iter().filter(|line| line.contains(text));
        found.map(|line| line.split_once(text).unwrap().1.trim()).collect()
    };
    assert_eq!(
        about("a token of the pool is fetched"),
        [r#"credential="token 1 of 2""#, r#"credential="token 2 of 2""#]
    );
    let refused = about("a token of the pool has no room");
    assert!(!refused.is_empty(), "{lines:#?}");
    assert!(refused.iter().all(|line| line.starts_with(r#"credential="token 1 of 2" wait="#)), "{refused:?}");
    let moved = about("the request goes to the next token of the pool that has room");
    assert!(!moved.is_empty() && moved.iter().all(|line| *line == r#"from="token 1 of 2""#), "{lines:#?}");
    let got = about("a request gets a token of the pool");
    assert_eq!(got.first(), Some(&r#"credential="token 1 of 2""#));
    assert_eq!(got.last(), Some(&r#"credential="token 2 of 2""#));
}

/// Two pools of one retry policy. The one token of the first pool is refused for half a minute.
async fn wait_of_another_pool(names: [Option<&str>; 2]) -> Duration {
    let server = service_fn(async |request: Request<_>| {
        let mut response = Response::new(Body::empty());
        if request.headers()["authorization"] == "Bearer first" && request.uri().path() == "/refused" {
            *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
            response.headers_mut().insert("retry-after", 30.into());
        }
        Ok::<_, BoxError>(response)
    });
    let server = server.map_request(|request: Request<_>| request.map(Body::new));
    let policy = policy();
    let [first, second] = [("first", names[0]), ("second", names[1])].map(|(token, name)| {
        let make = move |_| Ok(source_fn(move |_| async move { AccessToken::bearer(token) }));
        let mut pool = TokenPool::builder(1, make);
        if let Some(name) = name {
            pool = pool.name(name);
        }
        let pool = pool.build().unwrap();
        let layers =
            Stack::with_auth(AuthLayer::per_request([FakeApi::ORIGIN]).unwrap()).retry(policy.clone());
        let service = pool.layer(layers.build(server.clone()));
        ApiClient::new(FakeApi::ORIGIN, ApiService::new(pool.first().clone(), service)).unwrap()
    });
    let refused = tokio::spawn(first.get("refused").send());
    settle().await;
    let (response, took) = timed(second.get("x").send()).await;
    assert_eq!(response.unwrap().status(), 200);
    refused.abort();
    took
}

#[tokio::test(start_paused = true)]
async fn pools_with_names_that_share_a_policy_do_not_wait_for_each_other() {
    assert_eq!(wait_of_another_pool([Some("a"), Some("b")]).await, Duration::ZERO);
    // As the page of `name` says.
    assert!(wait_of_another_pool([None, None]).await >= Duration::from_secs(29));
}

#[tokio::test(start_paused = true)]
async fn the_caches_of_a_pool_with_a_name_have_it_and_their_number() {
    let log = Log::default();
    let subscriber =
        tracing_subscriber::fmt().with_ansi(false).without_time().with_writer(log.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let make = |_| Ok(source_fn(|_| async { AccessToken::bearer("A1") }));
    let pool = TokenPool::builder(4, make).name("billing").build().unwrap();
    pool.first().get().await.unwrap();
    assert!(log.text().contains("cache=\"billing, token 1 of 4\""), "{}", log.text());
    assert_eq!(pool.status()[3].credential().to_string(), "billing, token 4 of 4");
}

#[tokio::test(start_paused = true)]
async fn a_pool_learns_from_its_own_requests_alone() {
    let make = |_| Ok(source_fn(|_| async { AccessToken::bearer("A1") }));
    let pool = TokenPool::builder(2, make).build().unwrap();
    let server = service_fn(async |request: Request<Body>| {
        let mut response = Response::new(Body::empty());
        if request.uri().path() == "/refuse" {
            *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
            response.headers_mut().insert("retry-after", 30.into());
        }
        Ok::<_, BoxError>(response)
    });
    // One layer for both: the cache is the same, and so is the token.
    let auth = AuthLayer::for_origin(pool.first(), FakeApi::ORIGIN).unwrap();
    let mut beside = auth.layer(server);
    let request =
        |path: &str| Request::get(format!("{}/{path}", FakeApi::ORIGIN)).body(Body::empty()).unwrap();
    let below = beside.clone().map_request(|request: Request<RequestBody<Body>>| request.map(Body::new));
    let mut lent = pool.layer(below);
    lent.ready().await.unwrap().call(request("x")).await.unwrap();
    for path in ["x", "refuse", "refuse"] {
        beside.ready().await.unwrap().call(request(path)).await.unwrap();
    }
    assert_eq!(pool.status()[0].opens_in(), None);
    lent.ready().await.unwrap().call(request("refuse")).await.unwrap();
    assert!(pool.status().iter().any(|member| member.opens_in() == Some(Duration::from_secs(30))));
}

#[tokio::test(start_paused = true)]
async fn what_a_request_says_of_its_token_is_kept() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let server = service_fn(move |request: Request<Body>| {
        let sent = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        log.lock().unwrap().push((sent("authorization"), sent("x-api-key")));
        async { Ok::<_, BoxError>(Response::new(Body::empty())) }
    });
    let fetched = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&fetched);
    let pool = TokenPool::builder(1, move |_| {
        let count = Arc::clone(&count);
        Ok(source_fn(move |_| {
            let number = count.fetch_add(1, SeqCst);
            let token = AccessToken::bearer(format!("P{number}"));
            async move { token.map(|token| token.with_lifetime(MINUTE)) }
        }))
    });
    let pool = pool.build().unwrap();
    let key = AuthLayer::for_origin(AccessToken::bearer("K0").unwrap(), FakeApi::ORIGIN).unwrap();
    let key = key.header(HeaderName::from_static("x-api-key"));
    let auth = AuthLayer::per_request([FakeApi::ORIGIN]).unwrap();
    let below = server.map_request(|request: Request<RequestBody<Body>>| request.map(Body::new));
    let api = pool.layer(auth.layer(key.layer(below)));
    let other = |secret: &str| AuthOverride::cache(TokenCache::new(AccessToken::bearer(secret).unwrap()));
    let of_key = |wish: AuthOverride| wish.for_header(HeaderName::from_static("x-api-key"));
    let send = async |wish: AuthOverride| {
        let mut request = Request::get(FakeApi::ORIGIN).body(Body::empty()).unwrap();
        request.extensions_mut().insert(wish);
        api.clone().oneshot(request).await.unwrap();
        seen.lock().unwrap().pop().unwrap()
    };
    let some = |value: &str| Some(value.to_owned());
    assert_eq!(send(of_key(other("K7"))).await, (some("Bearer P0"), some("K7")));
    assert_eq!(send(AuthOverride::anonymous().and(of_key(AuthOverride::layer()))).await, (None, some("K0")));
    let both = other("T7").for_header(AUTHORIZATION).and(of_key(other("K7")));
    assert_eq!(send(both).await, (some("Bearer T7"), some("K7")));
    pass(MINUTE / 2).await;
    let long = AuthOverride::layer().min_validity(Duration::from_secs(40));
    assert_eq!(send(long.and(of_key(AuthOverride::layer()))).await.0, some("Bearer P1"));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_was_waited_out_closes_its_token_no_second_time() {
    // Refused for ten seconds, and then nothing: the deadline gives the old refusal back.
    let again = Arc::new(AtomicBool::new(false));
    let server = service_fn(move |_: Request<Body>| {
        let again = again.swap(true, SeqCst);
        async move {
            if again {
                sleep(5 * MINUTE).await;
            }
            Ok::<_, BoxError>(
                Response::builder().status(429).header("retry-after", "10").body(Body::empty())?,
            )
        }
    });
    let server = server.map_request(|request: Request<_>| request.map(Body::new));
    let source = |_| Ok::<_, Error>(source_fn(async |_| AccessToken::bearer("A1")));
    let pool = TokenPool::builder(1, source).build().unwrap();
    let layers = Stack::with_auth(AuthLayer::per_request([FakeApi::ORIGIN]).unwrap());
    let service = pool.layer(layers.build(server));
    let api: ApiClient =
        ApiClient::new(FakeApi::ORIGIN, ApiService::new(pool.first().clone(), service)).unwrap();
    let (response, took) = timed(api.get("x").timeout(Duration::from_secs(15)).send()).await;
    assert_eq!((response.unwrap().status(), took), (StatusCode::TOO_MANY_REQUESTS, Duration::from_secs(15)));
    assert_eq!(pool.status()[0].opens_in(), None);
}
