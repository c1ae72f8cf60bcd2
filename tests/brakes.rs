//! The brakes over whole stacks: a healthy service is never slowed down, and a storm is. Paused clock.
//!
//! `cargo test --test brakes -- --nocapture` prints the table of days.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "tests look at the paused clock")]

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Full};
use tokio::time::{Instant, sleep};
use tower::util::BoxCloneService;
use tower::{BoxError, Layer as _, ServiceExt as _, service_fn};
use tower_oauth2::grants::{SecurityToken, TokenExchange, TokenType};
use tower_oauth2::tenants::TenantCaches;
use tower_oauth2::{
    AccessToken, AuthLayer, Error, ErrorKind, RetryPolicy, TokenCache, TokenRequest, TokenSource as _,
    source_fn,
};

const API: &str = "https://api.example.com";
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// Makes tokens `NAME-1`, `NAME-2` and so on, and knows which of them are revoked: all up to a number.
#[derive(Clone)]
struct Tokens {
    name: &'static str,
    made: Arc<AtomicUsize>,
    revoked: Arc<AtomicUsize>,
}

impl Tokens {
    fn new(name: &'static str) -> Self {
        Self { name, made: Arc::default(), revoked: Arc::default() }
    }

    fn make(&self) -> String {
        format!("{}-{}", self.name, self.made.fetch_add(1, Ordering::SeqCst) + 1)
    }

    fn made(&self) -> usize {
        self.made.load(Ordering::SeqCst)
    }

    fn revoke_all(&self) {
        self.revoked.store(self.made(), Ordering::SeqCst);
    }

    fn takes(&self, token: &str) -> bool {
        let number = token.rsplit('-').next().and_then(|number| number.parse::<usize>().ok());
        number.is_some_and(|number| number > self.revoked.load(Ordering::SeqCst))
    }

    /// A cache whose tokens live for an hour.
    fn cache(&self) -> TokenCache {
        let tokens = self.clone();
        TokenCache::new(source_fn(move |_: TokenRequest| {
            let token = AccessToken::bearer(tokens.make());
            std::future::ready(token.map(|token| token.with_lifetime(SECOND * 3600)))
        }))
    }
}

type Client = BoxCloneService<Request<Full<Bytes>>, StatusCode, BoxError>;

/// A client of an API that answers a good token so, and any other with a 401.
fn client(cache: TokenCache, tokens: &Tokens, good: StatusCode, challenge: Option<&'static str>) -> Client {
    let tokens = tokens.clone();
    let api = service_fn(move |request: Request<_>| {
        let sent = request.headers().get(AUTHORIZATION).map_or("", |value| value.to_str().unwrap());
        let mut response = Response::new(Full::<Bytes>::default());
        *response.status_mut() = if tokens.takes(sent) { good } else { StatusCode::UNAUTHORIZED };
        if let (StatusCode::UNAUTHORIZED, Some(challenge)) = (response.status(), challenge) {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        std::future::ready(Ok::<_, BoxError>(response))
    });
    let client = RetryPolicy::default().layer(AuthLayer::for_origin(cache, API).unwrap().layer(api));
    client.map_response(|response| response.status()).boxed_clone()
}

fn get() -> Request<Full<Bytes>> {
    Request::get(format!("{API}/items")).body(Full::default()).unwrap()
}

/// Seven days, each with an hour of traffic, a revocation, and another quarter of an hour. Returns the seconds of each in
/// which requests failed.
async fn days(client: Client, revoke: impl Fn()) -> Vec<usize> {
    let mut table = Vec::new();
    for _ in 0..7 {
        let begun = Instant::now();
        let mut failed = 0;
        for second in 0..4_500 {
            if second == 3_600 {
                revoke();
            }
            // An hour of good traffic needs no request each second to be one.
            if second > 3_600 || second % 10 == 0 {
                let status = client.clone().oneshot(get()).await.unwrap();
                failed += usize::from(status == StatusCode::UNAUTHORIZED);
            }
            sleep(SECOND).await;
        }
        table.push(failed);
        sleep(DAY - begun.elapsed()).await;
    }
    table
}

/// An authorization server that exchanges good subject tokens.
fn exchange(subjects: &Tokens, tokens: &Tokens, subject: &TokenCache) -> TokenExchange {
    let (subjects, tokens) = (subjects.clone(), tokens.clone());
    let server = service_fn(move |request: Request<tower_oauth2::Body>| {
        let (subjects, tokens) = (subjects.clone(), tokens.clone());
        async move {
            let form = request.into_body().collect().await?.to_bytes();
            let sent = form_urlencoded::parse(&form).find(|(name, _)| name == "subject_token").unwrap().1;
            let (status, body) = if subjects.takes(&sent) {
                (
                    200,
                    format!(
                        r#"{{"access_token":"{}","token_type":"Bearer","expires_in":3600}}"#,
                        tokens.make()
                    ),
                )
            } else {
                (400, r#"{"error":"invalid_request"}"#.to_owned())
            };
            let response = Response::builder().status(status).header(CONTENT_TYPE, "application/json");
            Ok::<_, BoxError>(response.body(Full::<Bytes>::from(body))?)
        }
    });
    let subject = SecurityToken::new(subject.as_source(), TokenType::ACCESS_TOKEN);
    TokenExchange::builder("https://login.example.com/token", subject).build_with(server).unwrap()
}

#[tokio::test(start_paused = true)]
async fn one_revocation_a_day_never_takes_a_healthy_service_down() {
    let mut rows = Vec::new();
    for challenge in [Some("Bearer error=\"invalid_token\""), None] {
        let shown = if challenge.is_some() { "invalid_token" } else { "bare 401" };
        for status in [200, 304, 302, 404, 101, 204, 400, 409, 418] {
            let tokens = Tokens::new("token");
            let status = StatusCode::from_u16(status).unwrap();

            let client = client(tokens.cache(), &tokens, status, challenge);
            rows.push((
                format!("{shown}, good is {}", status.as_u16()),
                days(client, || tokens.revoke_all()).await,
            ));
        }
        let tokens = Tokens::new("token");
        let behind = TokenCache::new(TokenCache::new(tokens.cache().as_source()).as_source());
        let over = client(behind, &tokens, StatusCode::OK, challenge);
        rows.push((format!("{shown}, behind two caches"), days(over, || tokens.revoke_all()).await));

        let (subjects, tokens) = (Tokens::new("subject"), Tokens::new("token"));
        let source = exchange(&subjects, &tokens, &subjects.cache());
        let over = client(TokenCache::new(source), &tokens, StatusCode::OK, challenge);
        let revoke = || {
            subjects.revoke_all();
            tokens.revoke_all();
        };
        rows.push((format!("{shown}, exchange of a cached subject"), days(over, revoke).await));
    }
    assert_eq!(rows.len(), 22);
    println!("seconds of failed requests, day by day, with one revocation a day");
    for (name, table) in &rows {
        println!("{name:45} {table:?}");
    }
    for (name, table) in rows {
        assert_eq!(table, [0; 7], "{name}");
    }
}

/// Ten revocations, each after so many seconds of good traffic. Returns the seconds in which requests failed.
async fn revocations(client: Client, apart: usize, revoke: impl Fn()) -> usize {
    let mut failed = 0;
    for _ in 0..10 {
        for _ in 0..apart {
            let status = client.clone().oneshot(get()).await.unwrap();
            failed += usize::from(status == StatusCode::UNAUTHORIZED);
            sleep(SECOND).await;
        }
        revoke();
    }
    failed
}

#[tokio::test(start_paused = true)]
async fn revocations_within_seconds_of_one_another_do_not_brake_tokens_that_are_taken() {
    for apart in [2, 5, 20] {
        let (good, challenge) = (StatusCode::OK, Some("Bearer error=\"invalid_token\""));
        let tokens = Tokens::new("token");
        let nobody =
            source_fn(async |_: TokenRequest| Err::<AccessToken, _>(Error::new(ErrorKind::Config, "unset")));
        let shared = TokenCache::new(Arc::new(nobody.or(Arc::new(tokens.cache().as_source()))));
        let set = TenantCaches::new(move |_: &String| Ok(shared.as_source()));
        let over = client(set.get("tenant").unwrap(), &tokens, good, challenge);
        let failed = revocations(over, apart, || tokens.revoke_all()).await;
        assert_eq!(failed, 0, "{apart} s, a tenant's cache over others");

        let (subjects, tokens) = (Tokens::new("subject"), Tokens::new("token"));
        let source = exchange(&subjects, &tokens, &subjects.cache());
        let over = client(TokenCache::new(source), &tokens, good, challenge);
        let revoke = || {
            subjects.revoke_all();
            tokens.revoke_all();
        };
        assert_eq!(revocations(over, apart, revoke).await, 0, "{apart} s, exchange of a cached subject");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_reaches_the_source_of_a_subject_that_failed() {
    let (subjects, tokens) = (Tokens::new("subject"), Tokens::new("token"));
    let (maker, mended) = (subjects.clone(), Arc::new(AtomicUsize::new(0)));
    let is_mended = Arc::clone(&mended);
    let subject = TokenCache::new(source_fn(move |_: TokenRequest| {
        std::future::ready(match is_mended.load(Ordering::SeqCst) {
            0 => Err(Error::new(ErrorKind::Config, "wrong secret")),
            _ => AccessToken::bearer(maker.make()),
        })
    }));
    let cache = TokenCache::new(exchange(&subjects, &tokens, &subject));
    assert_eq!(cache.get().await.unwrap_err().kind(), ErrorKind::Config);
    mended.store(1, Ordering::SeqCst);
    assert!(cache.get().await.is_err());
    assert_eq!(cache.refresh().await.unwrap().header_value(), "Bearer token-1");
}

// --- Storms ---

/// How an API refuses every token.
#[derive(Clone, Copy, Debug)]
enum Refusal {
    Status,
    Head,
    Trailers,
    TrailersAfterData,
}

/// A gRPC body.
struct Frames(Vec<Frame<Bytes>>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop().map(Ok))
    }
}

fn refused(refusal: Refusal) -> Response<Frames> {
    let status = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("16"))]);
    let frames = match refusal {
        Refusal::Status | Refusal::Head => Vec::new(),
        Refusal::Trailers => vec![Frame::trailers(status.clone())],
        Refusal::TrailersAfterData => {
            vec![Frame::trailers(status.clone()), Frame::data(Bytes::from_static(b"data"))]
        }
    };
    let mut response = Response::new(Frames(frames));
    *response.version_mut() = Version::HTTP_2;
    match refusal {
        Refusal::Status => {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
            response
                .headers_mut()
                .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer error=invalid_token"));
        }
        Refusal::Head => response.headers_mut().extend(status),
        Refusal::Trailers | Refusal::TrailersAfterData => {}
    }
    if !matches!(refusal, Refusal::Status) {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    }
    response
}

#[tokio::test(start_paused = true)]
async fn an_api_that_refuses_every_token_costs_few_token_requests_wherever_it_says_so() {
    for refusal in [Refusal::Status, Refusal::Head, Refusal::Trailers, Refusal::TrailersAfterData] {
        for behind_another in [false, true] {
            let tokens = Tokens::new("token");
            let cache = tokens.cache();
            let cache = if behind_another { TokenCache::new(cache.as_source()) } else { cache };
            let api =
                service_fn(move |_: Request<_>| std::future::ready(Ok::<_, BoxError>(refused(refusal))));
            let client = RetryPolicy::default().layer(AuthLayer::for_origin(cache, API).unwrap().layer(api));
            let mut minutes = Vec::new();
            for _ in 0..10 {
                let before = tokens.made();
                for _ in 0..1_000 {
                    let response = client.clone().oneshot(get()).await.unwrap();
                    drop(response.into_body().collect().await);
                    sleep(Duration::from_millis(60)).await;
                }
                minutes.push(tokens.made() - before);
            }
            println!(
                "{refusal:?}, behind another cache: {behind_another}: {minutes:?} token requests a minute"
            );
            assert!(minutes.iter().all(|minute| *minute <= 6), "{refusal:?}: {minutes:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_may_not_have_looked_proves_nothing() {
    let statuses = [302, 307, 403, 407, 408, 421, 425, 429, 431, 500, 502, 503].map(|status| (status, None));
    let of_grpc = ["4", "7", "8", "14"].map(|grpc| (200, Some(grpc)));
    for (status, grpc) in statuses.into_iter().chain(of_grpc) {
        let tokens = Tokens::new("token");
        let cache = tokens.cache();
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&calls);
        let api = service_fn(move |_: Request<_>| {
            let mut response = Response::new(Full::<Bytes>::default());
            let even = counter.fetch_add(1, Ordering::SeqCst).is_multiple_of(2);
            *response.status_mut() = StatusCode::from_u16(if even { status } else { 401 }).unwrap();
            response
                .headers_mut()
                .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer error=invalid_token"));
            if let Some(grpc) = grpc.filter(|_| even) {
                *response.version_mut() = Version::HTTP_2;
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                response.headers_mut().insert("grpc-status", HeaderValue::from_static(grpc));
            }
            std::future::ready(Ok::<_, BoxError>(response))
        });
        let client = AuthLayer::for_origin(cache, API).unwrap().layer(api);
        for _ in 0..1_000 {
            client.clone().oneshot(get()).await.unwrap();
            sleep(Duration::from_millis(60)).await;
        }
        assert!(tokens.made() <= 6, "{status} {grpc:?}: {}", tokens.made());
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_source_passes_through_a_storm() {
    let cache =
        TokenCache::new(source_fn(async |_| Err::<AccessToken, _>(Error::new(ErrorKind::Grant, "gone"))));
    let client = client(cache, &Tokens::new("token"), StatusCode::OK, None);
    let error = client.oneshot(get()).await.unwrap_err();
    assert_eq!(error.downcast_ref::<Error>().unwrap().kind(), ErrorKind::Grant);
}
