//! What the whole stack does about an answer: retry over auth over a server in memory, under the paused clock.
//!
//! The vectors say what is right for one answer; the tests after them, what many answers may cost.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "tests look at the paused clock")]

#[path = "../src/vectors.rs"]
mod vectors;

use std::future::{Future, pending};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{FutureExt as _, join_all};
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use serde_json::{Value, json};
use tokio::time::Instant;
use tower::{BoxError, ServiceBuilder, ServiceExt as _};
use tower_oauth2::auth::{AuthLayer, AuthService};
use tower_oauth2::cache::Health;
use tower_oauth2::extensions::{RejectionVerdict, ScopeMissing};
use tower_oauth2::retry::{RequestBody, ResponseBody, RetryReport, RetryService, StopReason};
use tower_oauth2::test_util::{Probe, Script, ScriptedResponse, Seen, reply};
use tower_oauth2::{AccessToken, Error, ErrorKind, RetryPolicy, TokenCache, TokenSource, source_fn};

const SECOND: Duration = Duration::from_secs(1);
const INVALID: &str = "Bearer error=\"invalid_token\"";

type Body = UnsyncBoxBody<Bytes, BoxError>;
type Api = Probe<Request<RequestBody<Body>>, Response<Full<Bytes>>>;
type Client = RetryService<AuthService<Api>>;

fn client(cache: &TokenCache, api: Api) -> Client {
    let auth = AuthLayer::for_origin(cache.clone(), "https://api.example.com").unwrap();
    ServiceBuilder::new().layer(RetryPolicy::default()).layer(auth).service(api)
}

/// Creates a request with a body that is in memory, or one that turns out to be longer than what is recorded.
fn request(method: &str, replayable: bool) -> Request<Body> {
    let long = Bytes::from(vec![b'x'; 64 * 1024 + 1]);
    let frames = futures_util::stream::iter([Ok::<_, BoxError>(Frame::data(long))]);
    let body = match (method, replayable) {
        ("GET", true) => Full::default().map_err(Into::into).boxed_unsync(),
        (_, true) => Full::from("an order").map_err(Into::into).boxed_unsync(),
        (_, false) => StreamBody::new(frames).boxed_unsync(),
    };
    Request::builder().method(method).uri("https://api.example.com/orders").body(body).unwrap()
}

fn get() -> Request<Body> {
    request("GET", true)
}

/// A source of `token-1`, `token-2`, and so on, and how many there were.
fn issuer(scheme: &str) -> (impl TokenSource + use<>, Arc<AtomicUsize>) {
    let issued = Arc::<AtomicUsize>::default();
    let (count, scheme) = (Arc::clone(&issued), scheme.to_owned());
    let source = source_fn(move |_| {
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        let token = AccessToken::with_scheme(&scheme, format!("token-{number}"));
        std::future::ready(token.map(|token| token.with_lifetime(SECOND * 86_400)))
    });
    (source, issued)
}

fn challenged(challenge: &str) -> Response<Full<Bytes>> {
    let mut response = reply(401, "refused");
    response.headers_mut().insert(WWW_AUTHENTICATE, challenge.parse().unwrap());
    response
}

fn token(seen: &Seen) -> &str {
    seen.head.headers[AUTHORIZATION].to_str().unwrap()
}

fn report<B>(response: &Response<B>) -> &RetryReport {
    response.extensions().get().expect("no report")
}

// --- The vectors ---

/// Lets the stack meet the answer of a vector, and says what it did.
async fn observe(input: &Value) -> Value {
    let scheme = input["sent_scheme"].as_str().unwrap();
    let (source, issued) = issuer(scheme);
    let cache = TokenCache::new(source);

    let mut answer = reply(input["status"].as_u64().unwrap().try_into().unwrap(), "the server's own words");
    for pair in input["headers"].as_array().unwrap() {
        let name: http::HeaderName = pair[0].as_str().unwrap().parse().unwrap();
        answer.headers_mut().append(name, pair[1].as_str().unwrap().parse().unwrap());
    }
    let status = answer.status();
    // An API that took the token before; the vectors suppose one.
    let mut answers = vec![ScriptedResponse::Reply(reply(200, ""))];
    let attempt = input["attempt"].as_u64().unwrap();
    for _ in 1..attempt {
        answers.push(ScriptedResponse::Reply(challenged(&format!("{scheme} error=\"invalid_token\""))));
    }
    answers.push(ScriptedResponse::Reply(answer));

    let script = Script::new(answers);
    let (api, renewing) = (script.probe(), cache.clone());
    let is_current = input["token_is_current"].as_bool().unwrap();
    let server = Probe::new(move |request| {
        let renewing = renewing.clone();
        let renew = !is_current && api.calls() == 1;
        let response = api.clone().oneshot(request).boxed();
        async move {
            let response = response.await;
            if renew {
                renewing.refresh().await?;
            }
            response
        }
    });
    let client = client(&cache, server);
    client.clone().oneshot(get()).await.unwrap();
    script.seen();

    let sent = request(input["method"].as_str().unwrap(), input["body_replayable"].as_bool().unwrap());
    let response = client.oneshot(sent).await.unwrap();
    let seen = script.seen();
    let (before, after) = seen.split_at(attempt.try_into().unwrap());
    let refused = before.last().unwrap();
    let known = issued.load(Ordering::SeqCst);
    // Whether the token that met the answer would be sent again.
    let current = cache.peek().map(|token| token.header_value().to_str().unwrap().to_owned());
    let dropped = current.as_deref() != Some(token(refused));

    let mut did = json!({"invalidate": dropped && is_current});
    if let Some(missing) = response.extensions().get::<ScopeMissing>() {
        did["required_scope"] = missing.scope().into();
    }
    did["action"] = match after {
        [] => {
            assert_eq!(response.status(), status);
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "the server's own words");
            "pass_through".into()
        }
        [replay] => {
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!((&replay.body, &replay.head.method), (&refused.body, &refused.head.method));
            let wait = replay.at - refused.at;
            if token(replay) == token(refused) {
                let asked = report(&response).history().last().unwrap().requested_delay().unwrap();
                let longest = asked + (asked / 10).min(SECOND) + Duration::from_millis(1);
                assert!((asked..=longest).contains(&wait), "{asked:?} {wait:?}");
                did["delay_ms"] = u64::try_from(asked.as_millis()).unwrap().into();
                "backoff".into()
            } else {
                assert_eq!((wait, current.as_deref()), (Duration::ZERO, Some(token(replay))));
                // The first token and one per earlier replay were there before; so was one that came in flight.
                let fetched = known as u64 > attempt + u64::from(!is_current);
                if fetched { "refresh_and_replay".into() } else { "replay_with_current_token".into() }
            }
        }
        more => panic!("{} replays of one answer", more.len()),
    };
    did
}

#[tokio::test(start_paused = true)]
async fn every_vector_is_decided_as_it_says() {
    let vectors = vectors::rows("decisions");
    for vector in &vectors {
        let id = vector["id"].as_str().unwrap();
        let did = observe(&vector["input"]).await;
        for (name, expected) in vector["expect"].as_object().unwrap() {
            assert_eq!(did.get(name), Some(expected), "{id}: {name}");
        }
    }
    assert_eq!(vectors.len(), 27);
}

#[tokio::test(start_paused = true)]
async fn replays_for_a_token_and_for_patience_are_counted_apart_and_both_end() {
    let (source, issued) = issuer("Bearer");
    let refused = || ScriptedResponse::Reply(challenged(INVALID));
    let busy = || ScriptedResponse::Reply(reply(429, ""));
    let script = Script::new([refused(), busy(), refused(), busy()]);
    let response = client(&TokenCache::new(source), script.probe()).oneshot(get()).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(report(&response).stop_reason(), &StopReason::AuthReplaysExhausted);
    assert_eq!((script.seen().len(), issued.load(Ordering::SeqCst)), (3, 2));

    let (source, issued) = issuer("Bearer");
    let script = Script::new([busy(), busy(), refused(), busy(), busy(), refused()]);
    let response = client(&TokenCache::new(source), script.probe()).oneshot(get()).await.unwrap();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(report(&response).stop_reason(), &StopReason::AttemptsExhausted);
    assert_eq!((script.seen().len(), issued.load(Ordering::SeqCst)), (5, 2));
}

// --- Many at once ---

/// An API that is told how to answer by a token's number and by how many requests there were before.
struct World {
    cache: TokenCache,
    issued: Arc<AtomicUsize>,
    /// The numbers of the tokens that the API saw.
    seen: Arc<Mutex<Vec<usize>>>,
    client: Client,
}

impl World {
    /// Creates a world whose API says 200 where `takes` is true, after a latency.
    fn new(latency: Duration, takes: impl Fn(usize, usize) -> bool + Send + Sync + 'static) -> Self {
        let (source, issued) = issuer("Bearer");
        Self::of(source, issued, move |_, _| latency, takes)
    }

    fn of(
        source: impl TokenSource,
        issued: Arc<AtomicUsize>,
        latency: impl Fn(usize, usize) -> Duration + Send + Sync + 'static,
        takes: impl Fn(usize, usize) -> bool + Send + Sync + 'static,
    ) -> Self {
        let cache = TokenCache::new(source);
        let seen = Arc::<Mutex<Vec<usize>>>::default();
        let record = Arc::clone(&seen);
        let rules = Arc::new((latency, takes));
        let api = Probe::new(move |request: Request<RequestBody<Body>>| {
            let (record, rules) = (Arc::clone(&record), Arc::clone(&rules));
            async move {
                let value = request.headers()[AUTHORIZATION].to_str().unwrap();
                let number = value.strip_prefix("Bearer token-").unwrap().parse().unwrap();
                let before = {
                    let mut record = record.lock().unwrap();
                    record.push(number);
                    record.len() - 1
                };
                tokio::time::sleep(rules.0(number, before)).await;
                if rules.1(number, before) {
                    return Ok(reply(200, "welcome"));
                }
                Ok(challenged(INVALID))
            }
        });
        let client = client(&cache, api);
        Self { cache, issued, seen, client }
    }

    fn issued(&self) -> usize {
        self.issued.load(Ordering::SeqCst)
    }

    /// How often the API saw the token with this number.
    fn seen(&self, number: usize) -> usize {
        self.seen.lock().unwrap().iter().filter(|seen| **seen == number).count()
    }

    fn send(&self) -> impl Future<Output = Result<Response<ResponseBody<Full<Bytes>>>, BoxError>> + use<> {
        self.client.clone().oneshot(request("POST", true))
    }

    /// Sends requests one after another, so many a second. Returns how many were welcome.
    async fn send_steadily(&self, count: u32, per_second: u32) -> u32 {
        let mut welcome = 0;
        for _ in 0..count {
            welcome += u32::from(self.send().await.unwrap().status() == StatusCode::OK);
            tokio::time::sleep(SECOND / per_second).await;
        }
        welcome
    }
}

#[tokio::test(start_paused = true)]
async fn a_hundred_refused_at_once_are_replayed_with_one_new_token() {
    let world = World::new(SECOND, |number, before| number >= 2 || before == 0);
    assert_eq!(world.send().await.unwrap().status(), StatusCode::OK);
    let start = Instant::now();
    for response in join_all((0..100).map(|_| world.send()).collect::<Vec<_>>()).await {
        let response = response.unwrap();
        assert_eq!((response.status(), report(&response).attempts()), (StatusCode::OK, 2));
    }
    assert_eq!((world.issued(), world.seen(1), world.seen(2)), (2, 101, 100));
    assert_eq!(start.elapsed(), SECOND * 2);
}

#[tokio::test(start_paused = true)]
async fn a_late_401_is_replayed_at_once_and_the_newer_token_survives() {
    // The first request hangs for a minute before it is refused.
    let latency = |_, before| if before == 1 { SECOND * 60 } else { Duration::ZERO };
    let (source, issued) = issuer("Bearer");
    let world = World::of(source, issued, latency, |number, before| number >= 2 || before == 0);
    assert_eq!(world.send().await.unwrap().status(), StatusCode::OK);
    let start = Instant::now();
    let late = tokio::spawn(world.send());
    tokio::task::yield_now().await;
    assert_eq!(world.send().await.unwrap().status(), StatusCode::OK);
    let newer = world.cache.peek().unwrap();
    assert_eq!((world.issued(), newer.header_value().to_str().unwrap()), (2, "Bearer token-2"));

    let response = late.await.unwrap().unwrap();
    assert_eq!((response.status(), start.elapsed()), (StatusCode::OK, SECOND * 60));
    assert_eq!(report(&response).history()[0].delay(), Duration::ZERO);
    assert_eq!((world.issued(), world.seen(2)), (2, 2));
    assert_eq!(world.cache.peek().unwrap().header_value(), newer.header_value());
}

// --- The brakes ---

#[tokio::test(start_paused = true)]
async fn an_api_that_refuses_every_token_costs_three() {
    let world = World::new(Duration::from_millis(10), |_, _| false);
    // Some at once, others one after another.
    let requests = (0..500).map(|_| world.send());
    for response in join_all(requests.collect::<Vec<_>>()).await {
        assert_eq!(response.unwrap().status(), StatusCode::UNAUTHORIZED);
    }
    assert_eq!(world.send_steadily(500, 100).await, 0);
    assert_eq!(world.issued(), 3);
    let response = world.send().await.unwrap();
    assert_eq!(report(&response).stop_reason(), &StopReason::Braked);
    assert_eq!(report(&response).token_rejected().unwrap().verdict(), RejectionVerdict::Braked);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "refused");
    assert_eq!(world.cache.status().health(), Health::Degraded);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_refusals_cost_a_handful_of_tokens() {
    let world = World::new(Duration::ZERO, |_, _| false);
    assert_eq!(world.send_steadily(10_000, 10).await, 0);
    // 1000 s: brakes of 30, 60, 120, 240 and 300 s, with one new token after each.
    assert!((7..=9).contains(&world.issued()), "{}", world.issued());
    // Only what cost a token was sent twice.
    assert!(world.seen.lock().unwrap().len() <= 10_000 + world.issued());
}

#[tokio::test(start_paused = true)]
async fn an_api_that_comes_to_its_senses_is_believed_again() {
    let world = World::new(Duration::ZERO, |_, before| before >= 200);
    assert_eq!(world.send_steadily(100, 10).await, 0);
    // One of them was replayed, the brake held the rest: 99 more refusals, and the token that was kept is taken.
    assert_eq!(world.send_steadily(200, 10).await, 101);
    assert_eq!(world.issued(), 3);
}

#[tokio::test(start_paused = true)]
async fn tokens_that_are_taken_once_each_are_fetched_at_a_bounded_rate() {
    let used = Mutex::new(0);
    // Whoever was last is taken once, and never again.
    let world = World::new(Duration::ZERO, move |number, _| {
        std::mem::replace(&mut *used.lock().unwrap(), number) < number
    });
    let welcome = world.send_steadily(10_000, 50).await;
    // 200 s: thirty in a row, then one every two seconds.
    assert!((125..=131).contains(&world.issued()), "{}", world.issued());
    assert_eq!(welcome as usize, world.issued());
}

#[tokio::test(start_paused = true)]
async fn one_bad_node_of_four_does_not_become_a_storm() {
    let world = World::new(Duration::ZERO, |_, before| before % 4 != 0);
    let welcome = world.send_steadily(12_000, 200).await;
    assert!(world.issued() <= 60, "{}", world.issued());
    // What the brake lets through is an honest 401 of the bad node; all others are served.
    let bad: Range<u32> = 12_000 / 4 - 100..12_000 / 4 + 1;
    assert!(bad.contains(&(12_000 - welcome)), "{welcome}");
}

// --- No new token ---

/// A world whose API refuses the first token after one use, with a source that gives a second one as `then` says.
fn without_a_second<Fut>(then: impl Fn() -> Fut + Send + Sync + 'static) -> World
where
    Fut: Future<Output = Result<AccessToken, Error>> + Send + 'static,
{
    let issued = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&issued);
    let source = source_fn(move |_| {
        let first = count.fetch_add(1, Ordering::SeqCst) == 0;
        let later = (!first).then(&then);
        async move {
            match later {
                None => AccessToken::bearer("token-1"),
                Some(later) => later.await,
            }
        }
    });
    World::of(source, issued, |_, _| Duration::ZERO, |_, before| before == 0)
}

#[tokio::test(start_paused = true)]
async fn if_the_refresh_fails_the_401_comes_back_with_the_reason() {
    let world = without_a_second(|| async {
        Err(Error::new(ErrorKind::Transient, "the authorization server is away"))
    });
    world.send().await.unwrap();
    let response = world.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let told = report(&response);
    assert_eq!((told.attempts(), told.stop_reason()), (1, &StopReason::TokenUnavailable));
    assert_eq!(told.error().unwrap().to_string(), "the authorization server is away");
    assert_eq!(told.token_rejected().unwrap().verdict(), RejectionVerdict::Invalidated);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "refused");
    // A new request has no 401 to show: it fails with what is wrong.
    let error = world.send().await.unwrap_err();
    assert_eq!(error.downcast_ref::<Error>().unwrap().kind(), ErrorKind::Transient);
    assert_eq!((world.issued(), world.seen(1)), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn if_the_refresh_hangs_the_401_comes_back_in_time() {
    let world = without_a_second(pending);
    world.send().await.unwrap();
    let start = Instant::now();
    let response = world.send().await.unwrap();
    assert_eq!((response.status(), start.elapsed()), (StatusCode::UNAUTHORIZED, SECOND * 30));
    assert_eq!(report(&response).stop_reason(), &StopReason::TokenUnavailable);
}

#[tokio::test(start_paused = true)]
async fn if_the_source_panics_the_401_comes_back() {
    let world = without_a_second(|| async { panic!("the source has a bug") });
    world.send().await.unwrap();
    let response = world.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let error = report(&response).error().unwrap().to_string();
    assert!(error.contains("panicked") && !error.contains("has a bug"), "{error}");
}
