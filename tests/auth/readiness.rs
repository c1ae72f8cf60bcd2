//! Readiness and permits: nothing is called unready, and nothing is held during a wait.
//!
//! The probe panics when it is called without having been polled ready, and counts who holds what.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::body::Body as AxumBody;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{Request, Response};
use tokio::time::Instant;
use tower::limit::ConcurrencyLimit;
use tower::{Layer as _, Service as _, ServiceBuilder, ServiceExt as _};
use tower_oauth2::auth::{AuthOverride, AuthService};
use tower_oauth2::extensions::Deadline;
use tower_oauth2::retry::RequestBody;
use tower_oauth2::test_util::{Probe, Readiness, Script, ScriptedResponse, reply};
use tower_oauth2::{AccessToken, AuthLayer, ClientCredentials, RetryPolicy, TokenCache, source_fn};

use super::fixture::{API, Api, Body, Client, Issuer, challenged, get, item, send, tokens, with};

const SECOND: Duration = Duration::from_secs(1);

/// A service over a limit, with all ends to look at it.
struct World {
    script: Script,
    probe: Api,
    issuer: Issuer,
    cache: TokenCache,
    client: Client,
}

impl World {
    /// Creates an API with one permit, in front of it tokens that take a second.
    fn new() -> Self {
        Self::of(Issuer::new("token").latency(SECOND), Script::default())
    }

    fn of(issuer: Issuer, script: Script) -> Self {
        let probe = script.probe_with_permits(1);
        let cache = issuer.cache();
        let client = AuthLayer::for_origin(cache.clone(), API).unwrap().layer(probe.clone());
        Self { script, probe, issuer, cache, client }
    }

    /// Polls the service ready and calls it.
    async fn call(&mut self) -> Pin<Box<<Client as tower::Service<Request<Body>>>::Future>> {
        Box::pin(self.client.ready().await.unwrap().call(item()))
    }

    /// How many permits are reserved, and how many are in use.
    fn permits(&self) -> (usize, usize) {
        (self.probe.reserved(), self.probe.in_flight())
    }

    /// Takes the only permit away, until what comes back is dropped.
    async fn occupy(&self) -> Api {
        let mut occupant = self.probe.clone();
        occupant.ready().await.unwrap();
        occupant
    }
}

fn is_pending(future: Pin<&mut impl Future>) -> bool {
    matches!(future.poll(&mut Context::from_waker(Waker::noop())), Poll::Pending)
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_token_holds_no_permit() {
    let mut world = World::new();
    world.client.ready().await.unwrap();
    assert_eq!(world.permits(), (1, 0));
    let mut first = pin!(world.client.call(item()));
    assert_eq!(world.permits(), (0, 0));
    assert!(is_pending(first.as_mut()));
    assert_eq!(world.permits(), (0, 0));

    // A request whose token is at hand passes.
    let tenant = AuthOverride::cache(Issuer::new("tenant").warm().await);
    world.client.clone().oneshot(with(tenant)).await.unwrap();
    assert!(is_pending(first.as_mut()));
    first.await.unwrap();
    assert_eq!(tokens(&world.script), ["Bearer tenant-1", "Bearer token-1"]);
    assert_eq!(world.permits(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_token_is_at_hand_goes_to_the_instance_that_was_polled_ready() {
    let mut world = World::of(Issuer::new("token"), Script::default());
    world.cache.get().await.unwrap();
    world.client.ready().await.unwrap();
    // The permit goes from the reservation straight into the call: nobody can come between.
    let response = world.client.call(item());
    assert_eq!(world.permits(), (0, 1));
    response.await.unwrap();
    assert_eq!((world.permits(), world.probe.calls()), ((0, 0), 1));
}

#[tokio::test(start_paused = true)]
async fn the_same_holds_under_towers_own_limit() {
    let script = Script::default();
    let issuer = Issuer::new("token").latency(SECOND * 20);
    let limited = ConcurrencyLimit::new(script.probe::<Body>(), 1);
    let mut client = issuer.layer().layer(limited);
    let first = client.ready().await.unwrap().call(item());
    let first = tokio::spawn(first);
    tokio::task::yield_now().await;
    let tenant = AuthOverride::cache(Issuer::new("tenant").cache());
    let second = client.ready().await.unwrap().call(with(tenant.clone()));
    tokio::time::timeout(SECOND, second).await.unwrap().unwrap();
    let third = client.clone().oneshot(with(tenant));
    tokio::time::timeout(SECOND, third).await.unwrap().unwrap();
    first.await.unwrap().unwrap();
    assert_eq!(tokens(&script), ["Bearer tenant-1", "Bearer tenant-1", "Bearer token-1"]);
}

#[tokio::test(start_paused = true)]
async fn a_token_request_through_the_same_limited_client_does_not_deadlock() {
    // One server for both, one request at a time; it takes each token for seven requests.
    let issued = Arc::new(AtomicUsize::new(0));
    let taken = Arc::new(AtomicUsize::new(0));
    let (issues, takes) = (Arc::clone(&issued), Arc::clone(&taken));
    let server = Probe::new(move |request: Request<AxumBody>| {
        let (issued, taken) = (Arc::clone(&issues), Arc::clone(&takes));
        async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if request.uri().host() == Some("login.example.com") {
                let number = issued.fetch_add(1, Ordering::SeqCst) + 1;
                let token = format!(r#"{{"access_token":"token-{number}","token_type":"Bearer"}}"#);
                return Ok(Response::new(Body::from(token)));
            }
            let current = format!("Bearer token-{}", taken.load(Ordering::SeqCst) / 7 + 1);
            if request.headers()[AUTHORIZATION].as_bytes() != current.as_bytes() {
                let refused =
                    Response::builder().status(401).header(WWW_AUTHENTICATE, "Bearer error=invalid_token");
                return Ok(refused.body(Body::default())?);
            }
            taken.fetch_add(1, Ordering::SeqCst);
            Ok(Response::new(Body::default()))
        }
    });
    let limited = ConcurrencyLimit::new(server.clone(), 1);
    let transport =
        limited.clone().map_request(|request: Request<tower_oauth2::Body>| request.map(AxumBody::new));
    let source = ClientCredentials::builder("https://login.example.com/token", "billing", "hunter2")
        .build_with(transport)
        .unwrap();
    let client = ServiceBuilder::new()
        .layer(RetryPolicy::default())
        .layer(AuthLayer::for_origin(source, API).unwrap())
        .map_request(|request: Request<RequestBody<Body>>| request.map(AxumBody::new))
        .service(limited);
    let requests = (0..20).map(|_| client.clone().oneshot(item()));
    let all = futures_util::future::join_all(requests.collect::<Vec<_>>());
    for response in tokio::time::timeout(Duration::from_secs(60), all).await.unwrap() {
        assert_eq!(response.unwrap().status(), 200);
    }
    assert_eq!((server.max_in_flight(), server.reserved(), server.in_flight()), (1, 0, 0));
    assert_eq!((taken.load(Ordering::SeqCst), issued.load(Ordering::SeqCst)), (20, 3));
}

#[tokio::test(start_paused = true)]
async fn a_token_request_that_fails_frees_the_permit() {
    for latency in [Duration::ZERO, SECOND] {
        let issuer = Issuer::new("token").latency(latency).fails_from(1);
        let mut world = World::of(issuer, Script::default());
        // The second one fails at once: the source is left alone for a while.
        for _ in 0..2 {
            let error = world.call().await.await.unwrap_err();
            assert!(error.is::<tower_oauth2::Error>());
            assert_eq!(world.permits(), (0, 0));
        }
        assert_eq!((world.issuer.issued(), world.probe.calls()), (1, 0));
        world.client.ready().await.unwrap().call(with(AuthOverride::anonymous())).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_refused_frees_the_permit() {
    let world = World::new();
    let layer = AuthLayer::for_origin(world.cache.clone(), API).unwrap().refuse_other_origins(true);
    let mut client = layer.layer(world.probe.clone());
    for uri in ["https://elsewhere.example.com/", "/path-only"] {
        let response = client.ready().await.unwrap().call(get(uri));
        assert_eq!(world.permits(), (0, 0));
        response.await.unwrap_err();
    }
    assert_eq!(world.permits(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_fails_after_the_wait_frees_the_permit_even_if_its_future_is_kept() {
    let mut world = World::of(Issuer::new("token").latency(SECOND).fails_from(2), Script::default());
    let mut kept = world.call().await;
    let occupant = world.occupy().await;
    tokio::time::timeout(SECOND * 2, &mut kept).await.unwrap_err();
    // The token is gone when the service is ready at last, and the source is left alone for a while.
    world.cache.refresh().await.unwrap_err();
    world.cache.invalidate();
    drop(occupant);
    assert!((&mut kept).await.unwrap_err().is::<tower_oauth2::Error>());
    assert_eq!((world.permits(), world.probe.calls()), ((0, 0), 0));
    drop(kept);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_breaks_during_the_wait_is_reported_unchanged() {
    let script = Script::default();
    let probe = script.probe::<Body>().readiness([Readiness::Ready, Readiness::Broken]);
    let mut client = Issuer::new("token").latency(SECOND).layer().layer(probe.clone());
    let error = client.ready().await.unwrap().call(item()).await.unwrap_err();
    assert_eq!((error.to_string().as_str(), probe.calls()), ("the service is broken", 0));

    let probe = script.probe::<Body>().readiness([Readiness::Broken]);
    let error = Issuer::new("token").layer().layer(probe).oneshot(item()).await.unwrap_err();
    assert_eq!(error.to_string(), "the service is broken");
}

// --- Dropped futures ---

#[tokio::test(start_paused = true)]
async fn a_future_dropped_unpolled_leaks_nothing_and_the_token_comes_all_the_same() {
    let mut world = World::new();
    drop(world.call().await);
    assert_eq!(world.permits(), (0, 0));
    tokio::time::sleep(SECOND * 2).await;
    assert!(world.cache.peek().is_some());
    send(&world.client, item()).await.unwrap();
    assert_eq!((world.issuer.issued(), tokens(&world.script)), (1, vec!["Bearer token-1".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_future_dropped_while_it_waits_for_a_token_leaks_nothing() {
    let mut world = World::new();
    let waiting = world.call().await;
    tokio::time::timeout(SECOND / 2, waiting).await.unwrap_err();
    assert_eq!(world.permits(), (0, 0));
    // The flight goes on for everybody else.
    let response = send(&world.client, item());
    tokio::time::timeout(SECOND / 2 + SECOND / 10, response).await.unwrap().unwrap();
    assert_eq!((world.issuer.issued(), world.probe.calls(), world.permits()), (1, 1, (0, 0)));
}

#[tokio::test(start_paused = true)]
async fn a_future_dropped_while_it_waits_for_readiness_leaks_nothing() {
    let mut world = World::new();
    let waiting = world.call().await;
    let occupant = world.occupy().await;
    tokio::time::timeout(SECOND * 2, waiting).await.unwrap_err();
    assert!(world.cache.peek().is_some());
    drop(occupant);
    assert_eq!(world.permits(), (0, 0));
    send(&world.client, item()).await.unwrap();
    assert_eq!((world.issuer.issued(), world.probe.calls(), world.permits()), (1, 1, (0, 0)));
}

#[tokio::test(start_paused = true)]
async fn a_future_dropped_in_flight_leaks_nothing() {
    let mut world =
        World::of(Issuer::new("token"), Script::new([ScriptedResponse::Hang, ScriptedResponse::Hang]));
    for _ in 0..2 {
        let in_flight = world.call().await;
        tokio::time::timeout(SECOND, in_flight).await.unwrap_err();
        assert_eq!(world.permits(), (0, 0));
    }
    send(&world.client, item()).await.unwrap();
    assert_eq!((world.issuer.issued(), world.probe.calls()), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn a_service_dropped_after_it_was_polled_ready_gives_its_permit_back() {
    let mut world = World::new();
    for _ in 0..3 {
        world.client.ready().await.unwrap();
        world.client.ready().await.unwrap();
        assert_eq!(world.permits(), (1, 0));
        world.client = world.client.clone();
        assert_eq!(world.permits(), (0, 0));
    }
}

// --- A long wait for readiness ---

/// Lets a request get its token and then wait for readiness; meanwhile `happens`. Returns the tokens that were sent.
async fn after_a_wait<Fut>(
    lifetime: Duration,
    request: Request<Body>,
    happens: impl FnOnce(TokenCache) -> Fut,
) -> (Vec<String>, usize)
where
    Fut: Future<Output = ()>,
{
    let mut world = World::of(Issuer::new("token").latency(SECOND).lifetime(lifetime), Script::default());
    let waiting = tokio::spawn(world.client.ready().await.unwrap().call(request));
    let occupant = world.occupy().await;
    tokio::time::sleep(SECOND * 2).await;
    assert_eq!(world.issuer.issued(), 1);
    happens(world.cache.clone()).await;
    drop(occupant);
    // If it waits for another token now, the permit is free for others.
    tokio::time::sleep(SECOND / 2).await;
    assert_eq!(world.permits(), (0, 0));
    waiting.await.unwrap().unwrap();
    assert_eq!(world.permits(), (0, 0));
    (tokens(&world.script), world.issuer.issued())
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_still_good_after_the_wait_is_sent() {
    let sent = after_a_wait(SECOND * 3600, item(), |_| async {}).await;
    assert_eq!(sent, (vec!["Bearer token-1".to_owned()], 1));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_ended_during_the_wait_is_not_sent() {
    let sent = after_a_wait(SECOND * 30, item(), |_| tokio::time::sleep(SECOND * 60)).await;
    assert_eq!(sent, (vec!["Bearer token-2".to_owned()], 2));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_rejected_during_the_wait_is_not_sent() {
    let sent = after_a_wait(SECOND * 3600, item(), |cache| async move {
        cache.reject(&cache.peek().unwrap());
    })
    .await;
    assert_eq!(sent, (vec!["Bearer token-2".to_owned()], 2));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_replaced_during_the_wait_is_not_sent() {
    let sent = after_a_wait(SECOND * 3600, item(), |cache| async move {
        cache.refresh().await.unwrap();
    })
    .await;
    assert_eq!(sent, (vec!["Bearer token-2".to_owned()], 2));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_lives_too_short_after_the_wait_is_not_sent() {
    let long = with(AuthOverride::layer().min_validity(SECOND * 80));
    let sent = after_a_wait(SECOND * 100, long, |_| tokio::time::sleep(SECOND * 40)).await;
    assert_eq!(sent, (vec!["Bearer token-2".to_owned()], 2));
}

// --- Deadlines ---

/// A cache whose first token has ten seconds left, half of which requests would wait for the next one. It never comes.
async fn ending() -> TokenCache {
    let calls = AtomicUsize::new(0);
    let source = source_fn(move |_| {
        let is_first = calls.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if !is_first {
                std::future::pending::<()>().await;
            }
            Ok(AccessToken::bearer("token")?.with_lifetime(SECOND * 100))
        }
    });
    let cache = TokenCache::builder(source).min_validity(SECOND * 20).build();
    cache.get().await.unwrap();
    tokio::time::sleep(SECOND * 90).await;
    cache
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_close_to_its_end_serves_a_request_that_cannot_wait_for_the_next() {
    for needs in [false, true] {
        let (script, cache) = (Script::default(), ending().await);
        let client = AuthLayer::for_origin(cache, API).unwrap().layer(script.probe_with_permits(1));
        let mut request = if needs { with(AuthOverride::layer().min_validity(SECOND * 30)) } else { item() };
        request.extensions_mut().insert(Deadline::within(SECOND * 2));
        let begun = Instant::now();
        client.oneshot(request).await.unwrap();
        assert_eq!(
            (tokens(&script), begun.elapsed().as_millis() / 10),
            (vec!["Bearer token".to_owned()], 100)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_token_ends_while_it_waits_waits_until_its_deadline() {
    let (script, cache) = (Script::default(), ending().await);
    let client = AuthLayer::for_origin(cache, API).unwrap().layer(script.probe_with_permits(1));
    let mut request = item();
    request.extensions_mut().insert(Deadline::within(SECOND * 25));
    let begun = Instant::now();
    let error = client.oneshot(request).await.unwrap_err();
    assert!(error.to_string().starts_with("no token came before the deadline"), "{error}");
    assert_eq!((script.seen().len(), begun.elapsed().as_millis() / 100), (0, 249));
}

// --- Under retry ---

#[tokio::test(start_paused = true)]
async fn under_retry_every_attempt_is_polled_ready_and_waits_hold_nothing() {
    let busy = || ScriptedResponse::Reply(reply(503, ""));
    let script = Script::new([busy(), challenged("Bearer error=invalid_token"), busy()]);
    let probe = script.probe_with_permits(1);
    let issuer = Issuer::new("token").latency(SECOND);
    let mut client: tower_oauth2::retry::RetryService<AuthService<_>> =
        RetryPolicy::default().layer(issuer.layer().layer(probe.clone()));
    let running = tokio::spawn(client.ready().await.unwrap().call(item()));
    let mut held = 0;
    while !running.is_finished() {
        tokio::time::sleep(Duration::from_millis(10)).await;
        held = held.max(probe.reserved() + probe.in_flight());
    }
    assert_eq!(running.await.unwrap().unwrap().status(), 200);
    assert_eq!((probe.calls(), probe.max_in_flight(), held), (4, 1, 0));
    let sent = tokens(&script);
    assert_eq!(sent, ["Bearer token-1", "Bearer token-1", "Bearer token-2", "Bearer token-2"]);
}

/// Every clone of it takes two seconds to become ready.
struct Slow {
    api: Api,
    wait: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Clone for Slow {
    fn clone(&self) -> Self {
        Self { api: self.api.clone(), wait: None }
    }
}

impl tower::Service<Request<Body>> for Slow {
    type Response = <Api as tower::Service<Request<Body>>>::Response;
    type Error = <Api as tower::Service<Request<Body>>>::Error;
    type Future = <Api as tower::Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let wait = self.wait.get_or_insert_with(|| Box::pin(tokio::time::sleep(SECOND * 2)));
        std::task::ready!(wait.as_mut().poll(context));
        self.api.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.wait = None;
        self.api.call(request)
    }
}

#[tokio::test(start_paused = true)]
async fn a_minimum_validity_that_readiness_always_outlasts_does_not_keep_a_request_for_ever() {
    let issuer = Issuer::new("token").latency(SECOND).lifetime(SECOND * 8);
    let script = Script::default();
    let slow = Slow { api: script.probe_with_permits(1), wait: None };
    let client = issuer.layer().layer(slow);
    // Three quarters of the life, of which readiness takes a quarter each time.
    let request = with(AuthOverride::layer().min_validity(SECOND * 6));
    tokio::time::timeout(SECOND * 60, client.oneshot(request)).await.expect("it ends").unwrap();
    assert_eq!((tokens(&script), issuer.issued()), (vec!["Bearer token-2".to_owned()], 2));
}
