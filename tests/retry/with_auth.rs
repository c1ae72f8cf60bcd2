//! Retry and auth, one above the other: they know nothing of each other but the marker.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tokio::time::Instant;
use tower::{BoxError, Layer as _, ServiceBuilder, ServiceExt as _};
use tower_oauth2::auth::{AuthLayer, AuthService};
use tower_oauth2::extensions::{Deadline, TokenRejected};
use tower_oauth2::retry::{ReportSlot, RequestBody, ResponseBody, RetryOptions, RetryService, StopReason};
use tower_oauth2::test_util::{Probe, ScriptedResponse, pass, reply};
use tower_oauth2::{AccessToken, Error, ErrorKind, RetryPolicy, TokenCache, TokenSource, source_fn};

use super::{get, post, report, text};

type Api = Probe<Request<RequestBody<Full<Bytes>>>, Response<Full<Bytes>>>;

type Client = RetryService<AuthService<Api>>;

/// An authorization server and an API that knows its tokens: `token-1`, `token-2`, and so on.
#[derive(Clone, Default)]
struct World {
    issued: Arc<AtomicUsize>,
    /// The API takes tokens from this number on.
    valid_from: Arc<AtomicUsize>,
    /// What the API saw: the value of every `Authorization` header of a request, joined.
    seen: Arc<Mutex<Vec<String>>>,
    /// What the API says before it looks at the token.
    first: Arc<Mutex<Vec<ScriptedResponse>>>,
    lifetime: Option<Duration>,
}

impl World {
    fn source(&self) -> impl TokenSource + use<> {
        let world = self.clone();
        source_fn(move |_| {
            let number = world.issued.fetch_add(1, Ordering::SeqCst) + 1;
            let token = AccessToken::bearer(format!("token-{number}"));
            let lifetime = world.lifetime.unwrap_or(Duration::from_secs(3600));
            std::future::ready(token.map(|token| token.with_lifetime(lifetime)))
        })
    }

    fn api(&self) -> Api {
        let world = self.clone();
        Probe::new(move |request: Request<RequestBody<Full<Bytes>>>| {
            let world = world.clone();
            async move {
                if request.uri().path() == "/slow" {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                world.answer(&request)
            }
        })
    }

    fn answer<B>(&self, request: &Request<B>) -> Result<Response<Full<Bytes>>, BoxError> {
        let values = request.headers().get_all(AUTHORIZATION).iter();
        let values: Vec<_> = values.map(|value| value.to_str().unwrap().to_owned()).collect();
        let joined = values.join(" and ");
        let number = joined.strip_prefix("Bearer token-").and_then(|number| number.parse().ok()).unwrap_or(0);
        self.seen.lock().unwrap().push(joined);
        match self.first.lock().unwrap().pop() {
            Some(ScriptedResponse::Reply(response)) => return Ok(response),
            Some(ScriptedResponse::Fail(error)) => return Err(error),
            _ => {}
        }
        if number >= self.valid_from.load(Ordering::SeqCst) {
            return Ok(reply(200, "welcome"));
        }
        Ok(challenge(401, "Bearer error=\"invalid_token\""))
    }

    fn revoke(&self) {
        self.valid_from.store(self.issued.load(Ordering::SeqCst) + 1, Ordering::SeqCst);
    }

    fn issued(&self) -> usize {
        self.issued.load(Ordering::SeqCst)
    }

    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    fn client(&self) -> Client {
        self.client_over(self.source())
    }

    fn client_over(&self, source: impl TokenSource) -> Client {
        let auth = AuthLayer::for_origin(TokenCache::new(source), "https://api.example.com");
        ServiceBuilder::new().layer(RetryPolicy::default()).layer(auth.unwrap()).service(self.api())
    }
}

fn challenge(status: u16, challenge: &'static str) -> Response<Full<Bytes>> {
    let mut response = reply(status, "refused");
    response.headers_mut().insert(WWW_AUTHENTICATE, challenge.parse().unwrap());
    response
}

#[tokio::test(start_paused = true)]
async fn a_revoked_token_costs_one_token_request_and_no_failure() {
    let world = World::default();
    let client = world.client();
    assert_eq!(client.clone().oneshot(get()).await.unwrap().status(), StatusCode::OK);
    world.revoke();
    let response = client.oneshot(post()).await.unwrap();
    assert_eq!((response.status(), world.issued()), (StatusCode::OK, 2));
    // The new token, once, and no trace of the old one.
    assert_eq!(world.seen(), ["Bearer token-1", "Bearer token-1", "Bearer token-2"]);
}

/// Sends a request whose token is renewed while it is in flight. Before it is answered the API refuses all tokens below that
/// number.
async fn revoked_in_flight(world: &World, valid_from: usize) -> Response<ResponseBody<Full<Bytes>>> {
    let client = world.client();
    client.clone().oneshot(get()).await.unwrap();
    pass(Duration::from_secs(90)).await;
    let mut slow = get();
    *slow.uri_mut() = "https://api.example.com/slow".parse().unwrap();
    let slow = tokio::spawn(client.oneshot(slow));
    pass(Duration::from_millis(500)).await;
    assert_eq!(world.issued(), 2, "the request began the renewal");
    world.valid_from.store(valid_from, Ordering::SeqCst);
    slow.await.unwrap().unwrap()
}

const ONE_MORE: [&str; 4] = ["Bearer token-1", "Bearer token-1", "Bearer token-2", "Bearer token-3"];

#[tokio::test(start_paused = true)]
async fn a_token_from_before_the_refusal_proves_nothing_about_a_new_one() {
    let world = World { lifetime: Some(Duration::from_secs(100)), ..World::default() };
    let response = revoked_in_flight(&world, 3).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(world.seen(), ONE_MORE);
    assert!(report(&response).history().iter().all(|replayed| replayed.delay().is_zero()));
}

#[tokio::test(start_paused = true)]
async fn after_a_token_from_before_the_refusal_there_is_one_more_replay() {
    let world = World { lifetime: Some(Duration::from_secs(100)), ..World::default() };
    let response = revoked_in_flight(&world, usize::MAX).await;
    assert_eq!(report(&response).stop_reason(), &StopReason::AuthReplaysExhausted);
    assert_eq!(
        (response.status(), world.seen()),
        (StatusCode::UNAUTHORIZED, ONE_MORE.map(str::to_owned).into())
    );
}

/// Two processes share tokens; one renews, all are revoked, and the other has the one before still.
#[cfg(feature = "store")]
#[tokio::test(start_paused = true)]
async fn a_token_that_another_process_fetched_before_the_refusal_proves_nothing_either() {
    use tower_oauth2::store::{MemoryStore, SealingKey, Shared, StoreKey};

    let world = World { lifetime: Some(Duration::from_secs(100)), ..World::default() };
    let store = MemoryStore::new();
    let shared = || {
        let shared = Shared::builder(world.source(), store.clone(), SealingKey::new([7; 32]));
        shared.key(StoreKey::new("billing").unwrap()).build().unwrap()
    };
    let client = world.client_over(shared());
    let other = TokenCache::builder(shared()).refresh_before(Duration::from_secs(70)).build();
    client.clone().oneshot(get()).await.unwrap();
    other.get().await.unwrap();
    pass(Duration::from_secs(50)).await;
    other.get().await.unwrap();
    pass(Duration::from_secs(1)).await;
    assert_eq!((world.issued(), other.get().await.unwrap().expose()), (2, "token-2"));
    world.revoke();
    let response = client.oneshot(get()).await.unwrap();
    assert_eq!((response.status(), world.seen()), (StatusCode::OK, ONE_MORE.map(str::to_owned).into()));
}

#[tokio::test(start_paused = true)]
async fn a_hundred_refused_at_once_cost_one_token_request() {
    let world = World::default();
    let client = world.client();
    client.clone().oneshot(get()).await.unwrap();
    world.revoke();
    let requests = (0..100).map(|_| tokio::spawn(client.clone().oneshot(post())));
    for response in futures_util::future::join_all(requests.collect::<Vec<_>>()).await {
        assert_eq!(response.unwrap().unwrap().status(), StatusCode::OK);
    }
    assert_eq!(world.issued(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_second_refusal_is_handed_out() {
    let world = World::default();
    world.valid_from.store(usize::MAX, Ordering::SeqCst);
    let response = world.client().oneshot(post()).await.unwrap();
    assert_eq!((response.status(), world.seen().len()), (StatusCode::UNAUTHORIZED, 2));
    assert_eq!(report(&response).stop_reason(), &StopReason::AuthReplaysExhausted);
    assert_eq!(report(&response).token_rejected().unwrap().error(), Some("invalid_token"));
    assert!(response.extensions().get::<TokenRejected>().is_none());
    assert_eq!(text(response).await, "refused");
}

#[tokio::test(start_paused = true)]
async fn a_429_never_causes_a_token_request() {
    let world = World::default();
    let busy = || ScriptedResponse::Reply(challenge(429, "Bearer error=\"invalid_token\""));
    world.first.lock().unwrap().extend([busy(), busy()]);
    let response = world.client().oneshot(post()).await.unwrap();
    assert_eq!((response.status(), report(&response).attempts()), (StatusCode::OK, 3));
    assert_eq!((world.issued(), world.seen().len()), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn after_a_wait_the_token_is_looked_at_again() {
    let world = World { lifetime: Some(Duration::from_secs(30)), ..World::default() };
    let mut busy = reply(429, "");
    busy.headers_mut().insert("retry-after", "50".parse().unwrap());
    world.first.lock().unwrap().push(ScriptedResponse::Reply(busy));
    let start = Instant::now();
    let response = world.client().oneshot(post()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(start.elapsed() >= Duration::from_secs(50));
    // No 401 in between: the expired token was not sent.
    assert_eq!(world.seen(), ["Bearer token-1", "Bearer token-2"]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_no_token_cures_is_handed_out_untouched() {
    for refused in [
        "Bearer error=\"insufficient_scope\", scope=\"admin\"",
        "Bearer error=\"insufficient_user_authentication\"",
        "Basic realm=\"x\"",
        "Negotiate",
    ] {
        let world = World::default();
        world.first.lock().unwrap().push(ScriptedResponse::Reply(challenge(401, refused)));
        let response = world.client().oneshot(get()).await.unwrap();
        assert_eq!((response.status(), world.seen().len()), (StatusCode::UNAUTHORIZED, 1), "{refused}");
        assert_eq!(world.issued(), 1, "{refused}");
        assert_eq!(text(response).await, "refused");
    }
}

#[tokio::test(start_paused = true)]
async fn a_403_is_never_replayed() {
    for refused in ["Bearer error=\"invalid_token\"", "Bearer error=\"insufficient_scope\""] {
        let world = World::default();
        world.first.lock().unwrap().push(ScriptedResponse::Reply(challenge(403, refused)));
        let response = world.client().oneshot(get()).await.unwrap();
        assert_eq!((response.status(), world.seen().len()), (StatusCode::FORBIDDEN, 1));
        assert_eq!(world.issued(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_of_the_callers_own_is_not_replayed() {
    let world = World::default();
    let mut request = get();
    request.headers_mut().insert(AUTHORIZATION, "Bearer mine".parse().unwrap());
    world.revoke();
    let response = world.client().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!((world.seen(), world.issued()), (vec!["Bearer mine".to_owned()], 0));
}

#[tokio::test(start_paused = true)]
async fn a_foreign_origin_gets_no_token_and_no_replay() {
    let world = World::default();
    world.revoke();
    let mut request = get();
    *request.uri_mut() = "https://elsewhere.example.com/".parse().unwrap();
    let response = world.client().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!((world.seen(), world.issued()), (vec![String::new()], 0));
}

#[tokio::test(start_paused = true)]
async fn if_there_is_no_new_token_the_401_is_handed_back_with_the_reason() {
    let world = World::default();
    let issued = Arc::clone(&world.issued);
    let source = source_fn(move |_| {
        std::future::ready(match issued.fetch_add(1, Ordering::SeqCst) {
            0 => AccessToken::bearer("token-1"),
            _ => Err(Error::new(ErrorKind::Grant, "the client was removed")),
        })
    });
    let client = world.client_over(source);
    assert_eq!(client.clone().oneshot(get()).await.unwrap().status(), StatusCode::OK);
    world.valid_from.store(usize::MAX, Ordering::SeqCst);
    let response = client.oneshot(post()).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let told = report(&response);
    assert_eq!((told.attempts(), told.stop_reason()), (1, &StopReason::TokenUnavailable));
    assert_eq!(told.error().unwrap().downcast_ref::<Error>().unwrap().kind(), ErrorKind::Grant);
    assert_eq!(text(response).await, "refused");
    assert_eq!(world.seen().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_cannot_be_sent_again_still_costs_the_token() {
    let world = World::default();
    let api = world.clone();
    let api = Probe::new(move |request: Request<RequestBody<Full<Bytes>>>| {
        let api = api.clone();
        async move { api.answer(&request) }
    });
    let cache = TokenCache::new(world.source());
    let auth = AuthLayer::for_origin(cache, "https://api.example.com").unwrap();
    let client = RetryPolicy::builder().replay_body_limit(3).build().unwrap().layer(auth.layer(api));
    client.clone().oneshot(post()).await.unwrap();
    world.revoke();
    let response = client.clone().oneshot(post()).await.unwrap();
    assert_eq!((response.status(), world.seen().len()), (StatusCode::UNAUTHORIZED, 2));
    assert!(matches!(report(&response).stop_reason(), StopReason::NotReplayable { .. }));
    // The next request is right at once.
    assert_eq!(client.oneshot(post()).await.unwrap().status(), StatusCode::OK);
    assert_eq!(world.seen(), ["Bearer token-2"]);
}

#[tokio::test(start_paused = true)]
async fn under_a_limit_no_permit_is_held_while_a_token_is_fetched_for_the_replay() {
    let world = World::default();
    let probe = Probe::with_permits(1, {
        let world = world.clone();
        move |request: Request<RequestBody<Full<Bytes>>>| {
            let world = world.clone();
            async move { world.answer(&request) }
        }
    });
    let issued = Arc::clone(&world.issued);
    let watched = probe.clone();
    // The source looks whether the limit is free while it fetches, as a token call through the same limit needs it.
    let source = source_fn(move |_| {
        let (issued, watched) = (Arc::clone(&issued), watched.clone());
        async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!((watched.reserved(), watched.in_flight()), (0, 0));
            AccessToken::bearer(format!("token-{}", issued.fetch_add(1, Ordering::SeqCst) + 1))
        }
    });
    let auth = AuthLayer::for_origin(TokenCache::new(source), "https://api.example.com").unwrap();
    let client = RetryPolicy::default().layer(auth.layer(probe.clone()));
    client.clone().oneshot(get()).await.unwrap();
    world.revoke();
    assert_eq!(client.oneshot(post()).await.unwrap().status(), StatusCode::OK);
    assert_eq!((world.issued(), probe.calls()), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_token_comes_at_its_deadline_is_not_sent() {
    let second = Duration::from_secs(1);
    for retries in [true, false] {
        let source = source_fn(move |_| async move {
            tokio::time::sleep(second).await;
            AccessToken::bearer("late")
        });
        let auth = AuthLayer::for_any_https_origin_unchecked(source);
        let sent = Arc::<AtomicUsize>::default();
        let mut request = get();
        request.extensions_mut().insert(Deadline::within(second));
        let outcome = match retries {
            true => {
                let count = Arc::clone(&sent);
                let api = Probe::new(move |_: Request<RequestBody<Full<Bytes>>>| {
                    count.fetch_add(1, Ordering::SeqCst);
                    std::future::ready(Ok::<_, BoxError>(reply(200, "welcome")))
                });
                RetryPolicy::default().layer(auth.layer(api)).oneshot(request).await.map(drop)
            }
            false => {
                let count = Arc::clone(&sent);
                let api = Probe::new(move |_: Request<Full<Bytes>>| {
                    count.fetch_add(1, Ordering::SeqCst);
                    std::future::ready(Ok::<_, BoxError>(reply(200, "welcome")))
                });
                auth.layer(api).oneshot(request).await.map(drop)
            }
        };
        let error = outcome.unwrap_err();
        assert_eq!(sent.load(Ordering::SeqCst), 0, "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_total_timeout_that_ends_while_there_is_no_token_says_that_nothing_was_sent() {
    let world = World::default();
    let never = source_fn(async |_| std::future::pending::<Result<AccessToken, Error>>().await);
    let auth = AuthLayer::for_origin(never, "https://api.example.com").unwrap();
    let policy = RetryPolicy::builder().total_timeout(Duration::from_secs(5)).build().unwrap();
    let client = ServiceBuilder::new().layer(policy).layer(auth).service(world.api());
    let (slot, mut order, start) = (ReportSlot::new(), post(), Instant::now());
    order.extensions_mut().insert(RetryOptions::new().report_to(&slot));
    let error = client.oneshot(order).await.unwrap_err();
    assert!(start.elapsed() <= Duration::from_secs(5), "{:?}", start.elapsed());
    let told = slot.take().unwrap();
    assert_eq!((told.may_have_acted(), told.attempts()), (false, 0));
    assert!(Error::find_in(&*error).is_some(), "{error}");
    assert!(world.seen().is_empty());
}
