//! The protected API: lets in a request with a good token, within its rate.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::sync::watch;
use tokio::time::Instant;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceExt as _};

use super::authorization_server::{FakeAuthorizationServer, Introspector};
use super::line::{Line, fake_service};
use super::loopback::Loopback;
use super::presence::Presence;
use super::tokens::Worth;
use super::trouble::{Trouble, Troubles};
use crate::body::Body;
use crate::clock;
use crate::http_transport::HttpTransport;

/// An API that requires a bearer token of a [`FakeAuthorizationServer`]: a tower service, or a server on loopback. Clones are
/// the same API; with the last of them a port is closed.
///
/// | request | response |
/// |---|---|
/// | without a token | 401 `Bearer` |
/// | with a token that is unknown, expired or revoked | 401 `Bearer error="invalid_token"` |
/// | with a token that lacks the required scope | 403 `Bearer error="insufficient_scope"` |
/// | over the limit | 429 with `Retry-After: 1` |
/// | any other | that of the service behind it, which finds the [`Caller`] in the extensions; by default 200, when the body was read to its end |
///
/// # Examples
///
/// ```
/// use bytes::Bytes;
/// use http::Request;
/// use http_body_util::Full;
/// use tower::ServiceExt as _;
/// use tower_oauth2::Body;
/// use tower_oauth2::test_util::{FakeApi, FakeAuthorizationServer};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let server = FakeAuthorizationServer::builder().build();
/// let items = tower::service_fn(async |request: Request<Body>| {
///     Ok::<_, std::convert::Infallible>(http::Response::new(Body::from(request.uri().path().to_owned())))
/// });
/// let api = FakeApi::builder(&server).service(items).build();
///
/// let request = Request::get("https://api.test/items/7").body(Full::<Bytes>::default())?;
/// assert_eq!(api.clone().oneshot(request).await?.status(), 401);
/// assert_eq!(api.counts().unauthorized, 1);
/// # Ok::<_, tower::BoxError>(())
/// # })?;
/// # Ok::<_, tower::BoxError>(())
/// ```
#[derive(Clone)]
pub struct FakeApi {
    shared: Arc<Shared>,
    line: Line,
}

/// Sets up a [`FakeApi`].
///
/// Defaults:
///
/// - no service behind it: 200 and an empty body
/// - no scope is required
/// - no limit
/// - tokens are looked at at once
pub struct FakeApiBuilder {
    introspector: Introspector,
    service: Behind,
    scope: Option<String>,
    limit: Option<u32>,
    limits_of: HashMap<String, u32>,
    latency: Duration,
}

/// The caller of a request, in the extensions of a request behind a [`FakeApi`].
#[derive(Clone, Debug)]
pub struct Caller {
    client: String,
    scopes: Vec<String>,
}

/// The counts of a [`FakeApi`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ApiCounts {
    /// Requests that came, with any response.
    pub requests: u64,
    /// Requests that came and whose token was not looked at yet.
    pub waiting: u64,
    /// Requests that succeeded.
    pub ok: u64,
    /// Requests refused with 401.
    pub unauthorized: u64,
    /// Requests refused with 401 since their token was revoked, and not merely expired.
    pub revoked: u64,
    /// Requests refused with 403.
    pub forbidden: u64,
    /// Requests refused with 429 because they were over the limit.
    pub limited: u64,
}

type Behind = BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;

struct Shared {
    introspector: Introspector,
    service: Behind,
    scope: Option<String>,
    latency: Duration,
    held: watch::Sender<bool>,
    bucket: Option<Mutex<Bucket>>,
    buckets_of: HashMap<String, Mutex<Bucket>>,
    troubles: Troubles,
    /// How many requests came too late, by revocation.
    revoked: Mutex<HashMap<u64, u64>>,
    counters: Counters,
}

/// A bucket of requests that fills up evenly.
struct Bucket {
    size: f64,
    level: f64,
    filled: Instant,
}

#[derive(Default)]
struct Counters {
    requests: AtomicU64,
    waiting: AtomicU64,
    ok: AtomicU64,
    unauthorized: AtomicU64,
    revoked: AtomicU64,
    forbidden: AtomicU64,
    limited: AtomicU64,
}

/// For how long a body is read on that was refused.
const LINGER: Duration = Duration::from_secs(2);

// --- FakeApi ---

impl FakeApi {
    /// The origin of an API that is not on loopback. It needs no DNS: its requests stay in the process.
    pub const ORIGIN: &'static str = "https://api.test";

    /// Starts an API that accepts the tokens of `server`.
    #[must_use]
    pub fn builder(server: &FakeAuthorizationServer) -> FakeApiBuilder {
        let service = tower::service_fn(async |request: Request<Body>| {
            request.into_body().collect().await?;
            Ok(Response::new(Body::default()))
        });
        FakeApiBuilder {
            introspector: server.introspector(),
            service: BoxCloneSyncService::new(service),
            scope: None,
            limit: None,
            limits_of: HashMap::new(),
            latency: Duration::ZERO,
        }
    }

    /// Returns the origin.
    #[must_use]
    pub fn origin(&self) -> String {
        self.line.origin().to_owned()
    }

    /// Makes the next `times` requests fail like this, after those that were set before. The token is not checked.
    pub fn fail_next(&self, times: usize, trouble: Trouble) {
        self.shared.troubles.order(times, trouble);
    }

    /// Holds every request before its token is looked at (`true`), or lets those that are held go on (`false`). How many
    /// are held is [`ApiCounts::waiting`].
    ///
    /// A test uses it to revoke or expire tokens while a known number of requests is in flight.
    pub fn hold(&self, on: bool) {
        self.shared.held.send_replace(on);
    }

    /// Stops the server: closes the port and every connection, and fails every call in the process.
    ///
    /// # Cancel safety
    ///
    /// Once it was polled, the API is gone.
    pub async fn stop(&self) {
        self.line.stop().await;
    }

    /// Starts the server again, at the same port.
    ///
    /// # Errors
    ///
    /// The system's, if another program has the port by now.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it leaves a port closed; another call opens it.
    pub async fn restart(&self) -> io::Result<()> {
        self.line.restart().await
    }

    /// Returns the counts so far.
    #[must_use]
    pub fn counts(&self) -> ApiCounts {
        self.shared.counters.read()
    }

    /// Returns how many requests were refused with 401 because of the revocation of that number (as told by
    /// [`FakeAuthorizationServer::revoke_all`]).
    #[must_use]
    pub fn unauthorized_by_revocation(&self, number: u64) -> u64 {
        self.shared.revoked().get(&number).copied().unwrap_or_default()
    }
}

// Within the process a request body need not be read on.
fake_service!(FakeApi, |fake, request| respond(Arc::clone(&fake.shared), request, drop));

impl fmt::Debug for FakeApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeApi").field("origin", &self.line.origin()).finish_non_exhaustive()
    }
}

// --- FakeApiBuilder ---

impl FakeApiBuilder {
    /// Sets the service for the requests that were let in, such as an axum router. An error of it breaks the connection.
    #[must_use]
    pub fn service<S: HttpTransport>(mut self, service: S) -> Self {
        let service = service.map_response(|response: Response<S::ResponseBody>| response.map(Body::new));
        let service = service.map_err(Into::into);
        self.service = BoxCloneSyncService::new(service);
        self
    }

    /// Sets the scope that a token must have been granted.
    #[must_use]
    pub fn required_scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Some(scope.into());
        self
    }

    /// Sets how many requests per second are served; as many may come at once after a pause.
    #[must_use]
    pub fn limit(mut self, per_second: u32) -> Self {
        self.limit = Some(per_second);
        self
    }

    /// Sets how many requests per second of one client are served, independently of the other clients.
    #[must_use]
    pub fn limit_for(mut self, client_id: impl Into<String>, per_second: u32) -> Self {
        self.limits_of.insert(client_id.into(), per_second);
        self
    }

    /// Sets how long a request lies around before its token is looked at.
    #[must_use]
    pub fn latency(mut self, latency: Duration) -> Self {
        self.latency = latency;
        self
    }

    /// Makes an API within the process, at [`FakeApi::ORIGIN`]: a tower service, and nothing else.
    #[must_use]
    pub fn build(self) -> FakeApi {
        FakeApi { shared: self.shared(), line: Line::within(FakeApi::ORIGIN) }
    }

    /// Starts an API on a free port of 127.0.0.1, for clients that want a connection. A paused clock does not suit it:
    /// while a connection is waited for, the clock runs on to the next timeout.
    ///
    /// # Errors
    ///
    /// The system's, if it has no free port.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it starts nothing.
    pub async fn start(self) -> io::Result<FakeApi> {
        let shared = self.shared();
        let served = Arc::clone(&shared);
        let service = tower::service_fn(move |request| respond(Arc::clone(&served), request, linger));
        Ok(FakeApi { shared, line: Line::over(Loopback::start(service).await?) })
    }

    fn shared(self) -> Arc<Shared> {
        Arc::new(Shared {
            introspector: self.introspector,
            service: self.service,
            scope: self.scope,
            latency: self.latency,
            held: watch::Sender::new(false),
            bucket: self.limit.map(Bucket::full),
            buckets_of: self.limits_of.into_iter().map(|(id, limit)| (id, Bucket::full(limit))).collect(),
            troubles: Troubles::default(),
            revoked: Mutex::default(),
            counters: Counters::default(),
        })
    }
}

impl fmt::Debug for FakeApiBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeApiBuilder").finish_non_exhaustive()
    }
}

// --- Caller ---

impl Caller {
    /// Returns the name of the client that the token was issued to.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.client
    }

    /// Returns the scopes that were granted.
    #[must_use]
    pub fn scopes(&self) -> &[String] {
        &self.scopes
    }
}

// --- Answers ---

/// Lets a request through to the service behind, or not. The body is not read before that; one that is refused goes to
/// `dispose`.
async fn respond(
    shared: Arc<Shared>,
    mut request: Request<Body>,
    dispose: fn(Request<Body>),
) -> Result<Response<Body>, BoxError> {
    let counters = &shared.counters;
    counters.requests.fetch_add(1, Relaxed);
    if let Some(trouble) = shared.troubles.next() {
        dispose(request);
        return trouble.make().await;
    }
    let waiting = Presence::enter(&counters.waiting);
    if !shared.latency.is_zero() {
        tokio::time::sleep(shared.latency).await;
    }
    // The sender is in `shared`, so it outlives this wait.
    let _ = shared.held.subscribe().wait_for(|held| !held).await;
    let worth = bearer(request.headers()).map(|secret| shared.introspector.worth(secret));
    drop(waiting);
    let challenge = match worth {
        Some(Worth::Active(access)) => match &shared.scope {
            Some(scope) if !access.scopes.contains(scope) => {
                counters.forbidden.fetch_add(1, Relaxed);
                dispose(request);
                let challenge =
                    format!(r#"Bearer realm="items", error="insufficient_scope", scope="{scope}""#);
                return Ok(refusal(StatusCode::FORBIDDEN, header::WWW_AUTHENTICATE, &challenge));
            }
            _ if shared.is_within_limits(&access.client) => {
                request.extensions_mut().insert(Caller { client: access.client, scopes: access.scopes });
                let response = shared.service.clone().oneshot(request).await?;
                if response.status().is_success() {
                    counters.ok.fetch_add(1, Relaxed);
                }
                return Ok(response);
            }
            _ => {
                counters.limited.fetch_add(1, Relaxed);
                dispose(request);
                return Ok(refusal(StatusCode::TOO_MANY_REQUESTS, header::RETRY_AFTER, "1"));
            }
        },
        Some(Worth::Expired) => {
            r#"Bearer realm="items", error="invalid_token", error_description="the token expired""#
        }
        Some(Worth::Revoked(number)) => {
            counters.revoked.fetch_add(1, Relaxed);
            *shared.revoked().entry(number).or_default() += 1;
            r#"Bearer realm="items", error="invalid_token", error_description="the token was revoked""#
        }
        Some(Worth::Unknown) => {
            r#"Bearer realm="items", error="invalid_token", error_description="the token is unknown""#
        }
        // RFC 6750 §3.1: no error code for a request that brought no token.
        None => r#"Bearer realm="items""#,
    };
    counters.unauthorized.fetch_add(1, Relaxed);
    dispose(request);
    Ok(refusal(StatusCode::UNAUTHORIZED, header::WWW_AUTHENTICATE, challenge))
}

/// Reads what is left of a request, for nothing, as most servers do for a while: closing the connection at once could
/// take the response along.
fn linger(request: Request<Body>) {
    let mut body = request.into_body();
    if !body.is_end_stream() {
        tokio::spawn(tokio::time::timeout(
            LINGER,
            async move { while let Some(Ok(_)) = body.frame().await {} },
        ));
    }
}

fn refusal(status: StatusCode, name: header::HeaderName, value: &str) -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = status;
    let value = HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static("Bearer"));
    response.headers_mut().insert(name, value);
    response
}

/// Returns the token of a request (RFC 6750 §2.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, secret) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(secret)
}

// --- Shared ---

impl Shared {
    // Every change under these locks is a single step, so what a panic leaves behind is sound.
    fn revoked(&self) -> MutexGuard<'_, HashMap<u64, u64>> {
        self.revoked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_within_limits(&self, client: &str) -> bool {
        let mut buckets = self.buckets_of.get(client).into_iter().chain(&self.bucket);
        buckets.all(|bucket| bucket.lock().unwrap_or_else(PoisonError::into_inner).take())
    }
}

impl Bucket {
    fn full(per_second: u32) -> Mutex<Self> {
        Mutex::new(Self { size: per_second.into(), level: per_second.into(), filled: clock::now() })
    }

    fn take(&mut self) -> bool {
        let now = clock::now();
        let gained = now.duration_since(self.filled).as_secs_f64() * self.size;
        self.level = (self.level + gained).min(self.size);
        self.filled = now;
        let enough = self.level >= 1.0;
        if enough {
            self.level -= 1.0;
        }
        enough
    }
}

impl Counters {
    fn read(&self) -> ApiCounts {
        ApiCounts {
            requests: self.requests.load(Relaxed),
            waiting: self.waiting.load(Relaxed),
            ok: self.ok.load(Relaxed),
            unauthorized: self.unauthorized.load(Relaxed),
            revoked: self.revoked.load(Relaxed),
            forbidden: self.forbidden.load(Relaxed),
            limited: self.limited.load(Relaxed),
        }
    }
}
