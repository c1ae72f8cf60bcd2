//! Tenants over all layers at once: retry, auth per request, sources behind a set of caches, and the stack.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "tests look at the paused clock")]

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::header::{AUTHORIZATION, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use tokio::time::{Instant, advance, sleep};
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Layer as _, ServiceBuilder, ServiceExt as _, service_fn};
use tower_oauth2::auth::AuthOverride;
use tower_oauth2::extensions::CredentialId;
use tower_oauth2::grants::Revocation;
use tower_oauth2::retry::RetryReport;
use tower_oauth2::tenants::{TenantCaches, TenantCachesBuilder};
use tower_oauth2::test_util::{Probe, reply};
use tower_oauth2::{
    AccessToken, AuthLayer, ClientAuth, ClientCredentials, Error, ErrorKind, RefreshTokenGrant, RetryPolicy,
    TokenCache,
};

type Body = Full<Bytes>;
type Client = BoxCloneSyncService<Request<Body>, Response<()>, BoxError>;

const API: &str = "https://api.example.com";
const SECOND: Duration = Duration::from_secs(1);

// --- World ---

/// An authorization server that hands out `tenant.1`, `tenant.2`, and so on, and an API that knows whose they are.
#[derive(Clone, Default)]
struct World {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Token requests by tenant.
    asked: HashMap<String, usize>,
    /// Tokens that are good no more.
    revoked: HashSet<String>,
    /// Until when the API refuses a tenant.
    closed: HashMap<String, Instant>,
    /// What the API was asked, by tenant and token.
    seen: Vec<(String, String)>,
    /// Requests that came with another tenant's token.
    crossed: usize,
    /// Tenants whose token requests are never answered, and those whose source panics.
    silent: HashSet<String>,
    broken: HashSet<String>,
}

impl World {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn asked(&self, tenant: &str) -> usize {
        self.state().asked.get(tenant).copied().unwrap_or_default()
    }

    /// Returns how many requests of a tenant the API saw.
    fn seen(&self, tenant: &str) -> usize {
        self.state().seen.iter().filter(|(of, _)| of == tenant).count()
    }

    /// Revokes the tokens of a tenant, behind its back.
    fn revoke(&self, tenant: &str) {
        let mut state = self.state();
        let last = state.asked.get(tenant).copied().unwrap_or_default();
        state.revoked.extend((1..=last).map(|number| format!("{tenant}.{number}")));
    }

    fn caches(&self) -> TenantCachesBuilder<String> {
        let world = self.clone();
        TenantCaches::builder(move |tenant: &String| {
            let source = ClientCredentials::builder(
                "https://login.example.com/token",
                tenant,
                ClientAuth::post("a long secret"),
            )
            .build_with(world.authorization_server())?;
            let revocation = Revocation::builder(
                "https://login.example.com/revoke",
                tenant,
                ClientAuth::post("a long secret"),
            )
            .build_with(world.authorization_server())?;
            Ok(TokenCache::builder(source).revoke_with(revocation).revoke_at_shutdown(true))
        })
    }

    fn authorization_server(&self) -> Probe<Request<tower_oauth2::Body>, Response<Body>> {
        let world = self.clone();
        Probe::new(move |request: Request<tower_oauth2::Body>| {
            let world = world.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await?.to_bytes();
                let form: HashMap<_, _> = form_urlencoded::parse(&body).into_owned().collect();
                if head.uri.path() == "/revoke" {
                    world.state().revoked.insert(form["token"].clone());
                    return Ok(reply(200, ""));
                }
                let tenant = &form["client_id"];
                let number = {
                    let mut state = world.state();
                    let asked = state.asked.entry(tenant.clone()).or_default();
                    *asked += 1;
                    *asked
                };
                let (silent, broken) = {
                    let state = world.state();
                    (state.silent.contains(tenant), state.broken.contains(tenant))
                };
                assert!(!broken, "this source is meant to panic");
                sleep(if silent { 1000 * SECOND } else { SECOND / 20 }).await;
                // Who comes with a refresh token gets another.
                let rotated = form.get("refresh_token").map(|_| format!(r#","refresh_token":"RT{number}""#));
                let rotated = rotated.unwrap_or_default();
                let token = format!(
                    r#"{{"access_token":"{tenant}.{number}","token_type":"Bearer","expires_in":36000{rotated}}}"#
                );
                Ok(Response::new(Full::from(token)))
            }
        })
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        let tenant = request.uri().path().split('/').nth(1).unwrap_or_default().to_owned();
        let token =
            request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let token = token.strip_prefix("Bearer ").unwrap_or_default().to_owned();
        let mut state = self.state();
        state.seen.push((tenant.clone(), token.clone()));
        let now = Instant::now();
        if token.split_once('.').is_none_or(|(of, _)| of != tenant) {
            state.crossed += 1;
            return reply(403, "");
        }
        if state.revoked.contains(&token) {
            let mut refused = reply(401, "");
            let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\"");
            refused.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            return refused;
        }
        if let Some(until) = state.closed.get(&tenant).filter(|until| **until > now) {
            let mut refused = reply(429, "");
            let seconds = (*until - now).as_secs() + 1;
            refused.headers_mut().insert(RETRY_AFTER, seconds.into());
            return refused;
        }
        if request.uri().path().ends_with("/moved") {
            let mut moved = reply(307, "");
            moved.headers_mut().insert(LOCATION, HeaderValue::try_from(format!("/{tenant}/items")).unwrap());
            return moved;
        }
        reply(200, "")
    }

    /// An API that takes a moment for each request.
    fn api<B: Send + 'static>(&self) -> Probe<Request<B>, Response<Body>> {
        let world = self.clone();
        Probe::new(move |request: Request<B>| {
            let world = world.clone();
            async move {
                sleep(SECOND / 50).await;
                Ok(world.answer(&request))
            }
        })
    }
}

// --- Clients ---

/// All layers, by hand and as a stack.
fn clients(world: &World) -> Vec<Client> {
    let by_hand = ServiceBuilder::new()
        .map_response(|response: Response<_>| response.map(drop))
        .layer(RetryPolicy::default())
        .layer(AuthLayer::per_request([API]).unwrap())
        .service(world.api());
    vec![
        BoxCloneSyncService::new(by_hand),
        #[cfg(feature = "stack")]
        stack(world),
    ]
}

#[cfg(feature = "stack")]
fn stack(world: &World) -> Client {
    let stack = tower_oauth2::stack::Stack::with_auth(AuthLayer::per_request([API]).unwrap());
    let stack = stack.concurrency_limit(64).build(world.api());
    BoxCloneSyncService::new(stack.map_response(|response: Response<_>| response.map(drop)))
}

/// A new world for each client.
fn worlds() -> Vec<(World, Client, TenantCaches<String>)> {
    (0..clients(&World::default()).len())
        .map(|number| {
            let world = World::default();
            let client = clients(&world).swap_remove(number);
            let caches = world.caches().build().unwrap();
            (world, client, caches)
        })
        .collect()
}

fn bare(path: &str) -> Request<Body> {
    Request::get(format!("{API}{path}")).body(Body::default()).unwrap()
}

fn get(caches: &TenantCaches<String>, tenant: &str, path: &str) -> Request<Body> {
    let mut request = bare(&format!("/{tenant}{path}"));
    caches.authorize(request.extensions_mut(), tenant).unwrap();
    request
}

/// Sends so many requests of a tenant at once. Returns how long the longest took, if all succeeded.
async fn all_succeed(client: &Client, caches: &TenantCaches<String>, tenant: &str, count: usize) -> Duration {
    let start = Instant::now();
    let requests = (0..count).map(|_| client.clone().oneshot(get(caches, tenant, "/items")));
    for answer in join_all(requests).await {
        assert_eq!(answer.unwrap().status(), StatusCode::OK, "{tenant}");
    }
    start.elapsed()
}

fn token_error(error: &BoxError) -> &Error {
    error.downcast_ref().unwrap()
}

// --- Whose token ---

#[tokio::test(start_paused = true)]
async fn the_name_of_a_credential_is_the_keys_own_and_does_not_show_it() {
    let name = |caches: &TenantCaches<String>, tenant| {
        get(caches, tenant, "/items").extensions().get::<CredentialId>().unwrap().clone()
    };
    let caches = World::default().caches().build().unwrap();
    let north = name(&caches, "north");
    assert!(north == name(&caches, "north") && north != name(&caches, "south"));
    assert!(!north.to_string().contains("north"), "{north:?}");
    // It outlives the cache, so that a limit is not forgotten with it.
    caches.remove("north");
    assert_eq!(name(&caches, "north"), north);
    caches.shutdown(SECOND).await.unwrap();
    let mut request = bare("/items");
    assert_eq!(caches.authorize(request.extensions_mut(), "north").unwrap_err().kind(), ErrorKind::Config);
    assert!(request.extensions().is_empty());
}

#[tokio::test(start_paused = true)]
async fn two_tenants_never_cross_while_the_tokens_of_one_are_refused() {
    for (world, client, caches) in worlds() {
        for round in 0..10 {
            let both = async {
                tokio::join!(
                    all_succeed(&client, &caches, "a", 50),
                    all_succeed(&client, &caches, "b", 50),
                    async {
                        // In the middle of the round, with requests of both on their way.
                        sleep(SECOND / 100).await;
                        if round > 0 {
                            world.revoke("a");
                        }
                    },
                )
            };
            both.await;
        }
        assert_eq!(world.state().crossed, 0);
        // One at the start, and one for each revocation, however many requests met it; none for the neighbour.
        assert_eq!((world.asked("a"), world.asked("b")), (10, 1));
        assert_eq!(world.seen("b"), 500);
        assert!(world.seen("a") > 500 && world.seen("a") <= 500 + 9 * 50, "{}", world.seen("a"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_tenants_are_each_asked_for_once_and_none_meets_another() {
    for (world, client, caches) in worlds() {
        let names: Vec<String> = (0..1_000).map(|number| format!("tenant-{number}")).collect();
        let all = names.iter().map(|name| all_succeed(&client, &caches, name, 20));
        join_all(all).await;
        let state = world.state();
        assert_eq!((state.crossed, state.seen.len()), (0, 20_000));
        assert!(names.iter().all(|name| state.asked[name] == 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_does_not_say_whose_it_is_goes_nowhere() {
    for (world, client, caches) in worlds() {
        // Not even where the service has just served somebody.
        all_succeed(&client, &caches, "a", 1).await;
        let missing = client.clone().oneshot(bare("/a/items")).await.unwrap_err();
        let told = token_error(&missing);
        assert!(told.kind() == ErrorKind::Config && told.to_string().contains("no AuthOverride"), "{told}");
        let mut own = bare("/a/items");
        own.extensions_mut().insert(AuthOverride::layer());
        let own = client.clone().oneshot(own).await.unwrap_err();
        assert!(token_error(&own).to_string().contains("no token of its own"), "{own}");
        let mut elsewhere = get(&caches, "a", "/items");
        *elsewhere.uri_mut() = "https://elsewhere.example.com/a/items".parse().unwrap();
        match client.clone().oneshot(elsewhere).await {
            // The stack refuses what the layer by itself sends without a token.
            Err(error) => assert!(token_error(&error).to_string().contains("not on the list"), "{error}"),
            Ok(response) => {
                assert_eq!(response.status(), 403);
                assert_eq!(world.state().seen.pop().unwrap(), ("a".to_owned(), String::new()));
            }
        }
        assert_eq!((world.seen("a"), world.asked("a")), (1, 1));
    }
}

#[cfg(feature = "stack")]
#[tokio::test(start_paused = true)]
async fn a_redirect_within_the_api_stays_with_its_tenant() {
    let world = World::default();
    let (client, caches) = (stack(&world), world.caches().build().unwrap());
    all_succeed(&client, &caches, "b", 1).await;
    let response = client.clone().oneshot(get(&caches, "a", "/moved")).await.unwrap();
    assert_eq!(response.status(), 200);
    let seen = world.state().seen.clone();
    assert_eq!(seen[1..], [("a".to_owned(), "a.1".to_owned()), ("a".to_owned(), "a.1".to_owned())]);
}

// --- Whose limits, and whose failures ---

#[tokio::test(start_paused = true)]
async fn the_rate_limit_of_one_tenant_delays_no_other() {
    for (world, client, caches) in worlds() {
        tokio::join!(all_succeed(&client, &caches, "a", 1), all_succeed(&client, &caches, "b", 1));
        world.state().closed.insert("a".into(), Instant::now() + 10 * SECOND);
        let neighbour = async {
            // The gate of the other has closed by now.
            sleep(SECOND).await;
            let mut longest = Duration::ZERO;
            for _ in 0..50 {
                longest = longest.max(all_succeed(&client, &caches, "b", 4).await);
            }
            longest
        };
        let (throttled, neighbour) = tokio::join!(all_succeed(&client, &caches, "a", 20), neighbour);
        assert!(throttled >= 10 * SECOND, "{throttled:?}");
        assert!(neighbour < SECOND / 10, "{neighbour:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_names_for_the_limits_they_would_be_one() {
    // What `CredentialId` is for: the same traffic without it.
    for (world, client, caches) in worlds() {
        world.state().closed.insert("a".into(), Instant::now() + 10 * SECOND);
        let nameless = |tenant: &str| {
            let mut request = get(&caches, tenant, "/items");
            request.extensions_mut().remove::<CredentialId>();
            client.clone().oneshot(request)
        };
        let start = Instant::now();
        let neighbour = async {
            sleep(SECOND).await;
            nameless("b").await
        };
        let (throttled, neighbour) = tokio::join!(nameless("a"), neighbour);
        assert_eq!(
            (throttled.unwrap().status(), neighbour.unwrap().status()),
            (StatusCode::OK, StatusCode::OK)
        );
        assert!(start.elapsed() >= 10 * SECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn a_tenant_whose_server_says_nothing_or_whose_source_panics_stands_alone() {
    for (world, client, caches) in worlds() {
        world.state().silent.insert("silent".into());
        world.state().broken.insert("broken".into());
        let start = Instant::now();
        let one = |tenant: &str| client.clone().oneshot(get(&caches, tenant, "/items"));
        let others = async {
            for number in 0..100 {
                let took = all_succeed(&client, &caches, &format!("tenant-{}", number % 7), 3).await;
                assert!(took < SECOND / 10, "{took:?}");
            }
        };
        let (silent, broken, ()) = tokio::join!(one("silent"), one("broken"), others);
        let (silent, broken) = (silent.unwrap_err(), broken.unwrap_err());
        // The attempts are planned within the deadline of 30 s, so that their error is what the caller gets.
        let took = start.elapsed();
        assert_eq!(token_error(&silent).kind(), ErrorKind::Transient, "{silent}");
        assert!(took >= 20 * SECOND && took <= 30 * SECOND, "{took:?}");
        assert!(token_error(&broken).to_string().contains("panicked"), "{broken}");
        // Both can still be had when they have recovered.
        world.state().silent.clear();
        world.state().broken.clear();
        sleep(120 * SECOND).await;
        all_succeed(&client, &caches, "silent", 1).await;
        all_succeed(&client, &caches, "broken", 1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_leaves_costs_the_others_of_his_tenant_nothing() {
    for (world, client, caches) in worlds() {
        let first = client.clone().oneshot(get(&caches, "a", "/items"));
        assert!(tokio::time::timeout(SECOND / 100, first).await.is_err());
        all_succeed(&client, &caches, "a", 5).await;
        assert_eq!((world.asked("a"), world.seen("a")), (1, 5));
    }
}

// --- Who stays ---

#[tokio::test(start_paused = true)]
async fn a_tenant_who_was_forgotten_comes_back_with_a_new_token() {
    for (world, client, _) in worlds() {
        let caches = world.caches().idle_after(600 * SECOND).build().unwrap();
        for _ in 0..2 {
            all_succeed(&client, &caches, "a", 20).await;
            for _ in 0..20 {
                all_succeed(&client, &caches, "b", 20).await;
                advance(60 * SECOND).await;
            }
            assert!(caches.peek("a").is_none() && caches.peek("b").is_some());
        }
        assert_eq!((world.asked("a"), world.asked("b"), world.state().crossed), (2, 1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_that_is_stored_nowhere_is_never_forgotten() {
    for (world, client, _) in worlds() {
        let there = world.clone();
        let caches = TenantCaches::builder(move |tenant: &String| {
            let source = RefreshTokenGrant::builder(
                "https://login.example.com/token",
                tenant,
                ClientAuth::post("a long secret"),
            )
            .refresh_token("RT0".to_owned());
            let source = match tenant.as_str() {
                "stored" => source.on_rotate(|_| async { Ok(()) }),
                _ => source,
            };
            source.build_with(there.authorization_server())
        });
        let caches = caches.idle_after(SECOND).build().unwrap();
        for tenant in ["stored", "in-memory-alone"] {
            all_succeed(&client, &caches, tenant, 3).await;
        }
        advance(3600 * SECOND).await;
        caches.get("another").unwrap();
        assert!(caches.peek("stored").is_none() && caches.peek("in-memory-alone").is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_on_its_way_keeps_the_cache_that_may_get_its_next_token() {
    for (world, client, _) in worlds() {
        let caches = world.caches().capacity(1).idle_after(SECOND).build().unwrap();
        all_succeed(&client, &caches, "a", 1).await;
        world.state().closed.insert("a".into(), Instant::now() + 30 * SECOND);
        let waiting = client.clone().oneshot(get(&caches, "a", "/items"));
        let other = async {
            sleep(10 * SECOND).await;
            // The token ends while the request waits for its turn.
            world.revoke("a");
            assert_eq!(caches.get("b").unwrap_err().kind(), ErrorKind::Throttled);
        };
        let (answer, ()) = tokio::join!(waiting, other);
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.extensions().get::<RetryReport>().unwrap().attempts(), 3);
        drop(answer);
        assert_eq!(world.asked("a"), 2);
        sleep(2 * SECOND).await;
        caches.get("b").unwrap();
        assert!(caches.peek("a").is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_revokes_what_is_left_and_ends_the_service() {
    for (world, client, caches) in worlds() {
        for tenant in ["a", "b", "c"] {
            all_succeed(&client, &caches, tenant, 5).await;
        }
        let late = get(&caches, "b", "/items");
        caches.shutdown(10 * SECOND).await.unwrap();
        let expected = ["a.1", "b.1", "c.1"].map(str::to_owned);
        assert_eq!(world.state().revoked, HashSet::from(expected));
        assert_eq!(caches.get("a").unwrap_err().kind(), ErrorKind::Config);
        let error = client.clone().oneshot(late).await.unwrap_err();
        assert!(token_error(&error).to_string().contains("was shut down"), "{error}");
        let seen = world.state().seen.len();
        assert_eq!((seen, world.asked("b")), (15, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_request_says_to_other_layers_is_kept_when_a_tenant_is_put_on_it() {
    let key = HeaderName::from_static("x-api-key");
    let below = service_fn(async |request: Request<()>| {
        let sent = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        Ok::<_, BoxError>(Response::new((sent("authorization"), sent("x-api-key"))))
    });
    let keys = AuthLayer::for_origin(AccessToken::bearer("K0").unwrap(), API).unwrap().header(key.clone());
    let api = AuthLayer::per_request([API]).unwrap().layer(keys.layer(below));
    let caches = TenantCaches::new(|tenant: &String| AccessToken::bearer(tenant.clone()));
    let mut request = Request::get(API).body(()).unwrap();
    let of_key = AuthOverride::cache(TokenCache::new(AccessToken::bearer("K7").unwrap())).for_header(key);
    request.extensions_mut().insert(of_key);
    for tenant in ["north", "south"] {
        caches.authorize(request.extensions_mut(), tenant).unwrap();
        let sent = api.clone().oneshot(request.clone()).await.unwrap().into_body();
        assert_eq!(sent, (Some(format!("Bearer {tenant}")), Some("K7".to_owned())));
    }
}
