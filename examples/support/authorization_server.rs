//! The authorization server: RFC 6749 (client credentials, refresh), RFC 8628 (device flow), RFC 7009 (revocation),
//! RFC 7662 (introspection), RFC 7523 (clients with a key), RFC 8693 (token exchange).

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{Form, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::json;
use tokio::time::Instant;

use super::assertions::Assertions;
use super::client::{self, Client, Refusal};
use super::devices::{self, Devices};
use super::jwt::PublicKey;
use super::listener::Listener;
use super::presence::Presence;
use super::tokens::{Rotation, Tokens, Worth};

/// An authorization server on loopback. Dropping it ends it.
///
/// # Examples
///
/// ```
/// let server = AuthorizationServer::builder()
///     .client(Client::confidential("reports", "hunter2").scopes("items:read items:write"))
///     .lifetime(Duration::from_secs(2))
///     .start()
///     .await?;
/// let token_url = server.token_url();
/// ```
#[derive(Debug)]
pub struct AuthorizationServer {
    shared: Arc<Shared>,
    listener: Listener,
}

/// Sets up an [`AuthorizationServer`].
///
/// Defaults: no clients, tokens for an hour, answers at once.
#[derive(Debug)]
pub struct AuthorizationServerBuilder {
    clients: HashMap<String, Client>,
    platform: Option<PublicKey>,
    lifetime: Duration,
    latency: Duration,
}

/// What the token endpoint says instead of what it would say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 429 with `Retry-After`, in whole seconds.
    TooManyRequests { retry_after: Duration },
    /// 503 with `Retry-After`, in whole seconds.
    Unavailable { retry_after: Duration },
    /// Nothing, until the client gives up.
    Hang,
}

/// What an [`AuthorizationServer`] has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that came to the token endpoint, whatever the answer.
    pub token_requests: u64,
    /// Requests at the token endpoint that are not answered yet.
    pub in_progress: u64,
    /// Access tokens that were issued.
    pub tokens: u64,
    /// Token requests that were refused: a wrong secret, a spent refresh token, a scope out of reach.
    pub refusals: u64,
    /// Revocations, whether by request or by [`AuthorizationServer::revoke_all`].
    pub revocations: u64,
    /// Refresh tokens that came a second time.
    pub reuses: u64,
    /// Requests that came to the introspection endpoint.
    pub introspections: u64,
    /// Assertions that proved who a client is.
    pub assertions: u64,
    /// Assertions that came a second time.
    pub replayed_assertions: u64,
}

impl AuthorizationServer {
    pub fn builder() -> AuthorizationServerBuilder {
        AuthorizationServerBuilder {
            clients: HashMap::new(),
            platform: None,
            lifetime: Duration::from_secs(3600),
            latency: Duration::ZERO,
        }
    }

    pub fn origin(&self) -> String {
        self.listener.origin()
    }

    pub fn token_url(&self) -> String {
        self.origin() + "/token"
    }

    pub fn introspection_url(&self) -> String {
        self.origin() + "/introspect"
    }

    /// Returns where a device begins a login (RFC 8628 §3.1). Its user agrees by a POST of `user_code` to the address
    /// that the device is told.
    pub fn device_url(&self) -> String {
        self.origin() + "/device_authorization"
    }

    pub fn revocation_url(&self) -> String {
        self.origin() + "/revoke"
    }

    /// Sets how long tokens live that are issued from now on. Clients are told whole seconds.
    pub fn set_lifetime(&self, lifetime: Duration) {
        self.shared.script().lifetime = lifetime;
    }

    /// Sets how long the token endpoint thinks before it answers.
    pub fn set_latency(&self, latency: Duration) {
        self.shared.script().latency = latency;
    }

    /// Makes the token endpoint answer the next `times` requests with `answer`, after what was ordered before.
    pub fn answer_next(&self, times: usize, answer: Answer) {
        self.shared.script().answers.extend(std::iter::repeat_n(answer, times));
    }

    /// Issues a refresh token, as when a user has just signed in and agreed to `scopes`.
    pub fn sign_in(&self, client_id: &str, scopes: &str) -> String {
        let scopes = scopes.split_whitespace().map(str::to_owned).collect();
        self.shared.tokens().issue_refresh(client_id, scopes)
    }

    /// Revokes every access token that is still good, and returns the number of this revocation.
    pub fn revoke_all(&self) -> u64 {
        self.shared.counters.revocations.fetch_add(1, Relaxed);
        self.shared.tokens().revoke_all()
    }

    /// Closes the port and every connection. What was issued stays good.
    pub async fn stop(&mut self) {
        self.listener.stop().await;
    }

    /// Opens the port again.
    pub async fn restart(&mut self) -> io::Result<()> {
        self.listener.restart().await
    }

    pub fn counts(&self) -> Counts {
        let (assertions, replayed_assertions) = self.shared.assertions.counts();
        Counts { assertions, replayed_assertions, ..self.shared.counters.read() }
    }

    /// Knows a client by another key from now on, and no longer by the one before.
    pub fn replace_key(&self, client_id: &str, key: PublicKey) {
        if let Some(client) = self.shared.clients.get(client_id) {
            client.replace_key(key);
        }
    }

    /// Returns how the API next door asks about tokens without a request.
    pub(super) fn introspector(&self) -> Introspector {
        Introspector { shared: Arc::clone(&self.shared) }
    }
}

// --- AuthorizationServerBuilder ---

impl AuthorizationServerBuilder {
    /// Adds a client.
    #[must_use]
    pub fn client(mut self, client: Client) -> Self {
        self.clients.insert(client.id().to_owned(), client);
        self
    }

    /// Trusts a platform, whose key signs tokens that its workloads may give for those of this server.
    #[must_use]
    pub fn platform(mut self, key: PublicKey) -> Self {
        self.platform = Some(key);
        self
    }

    /// Sets how long tokens live. Clients are told whole seconds.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Sets how long the token endpoint thinks before it answers.
    #[must_use]
    pub fn latency(mut self, latency: Duration) -> Self {
        self.latency = latency;
        self
    }

    /// Starts the server on a free port.
    pub async fn start(self) -> io::Result<AuthorizationServer> {
        let script = Script { lifetime: self.lifetime, latency: self.latency, answers: VecDeque::new() };
        let shared = Arc::new(Shared {
            clients: self.clients,
            platform: self.platform,
            assertions: Assertions::default(),
            tokens: Mutex::new(Tokens::new()),
            devices: Mutex::default(),
            script: Mutex::new(script),
            counters: Counters::default(),
        });
        let router = Router::new()
            .route("/token", post(token))
            .route("/device_authorization", post(begin_device))
            .route("/device", post(agree_to_device))
            .route("/revoke", post(revoke))
            .route("/introspect", post(introspect))
            .with_state(Arc::clone(&shared));
        let listener = Listener::start(router).await?;
        shared.assertions.name(listener.origin());
        Ok(AuthorizationServer { shared, listener })
    }
}

// --- Introspector ---

/// Asks about tokens in the same process.
#[derive(Clone, Debug)]
pub(super) struct Introspector {
    shared: Arc<Shared>,
}

impl Introspector {
    pub(super) fn worth(&self, secret: &str) -> Worth {
        self.shared.tokens().worth(secret)
    }
}

// --- Shared ---

#[derive(Debug)]
struct Shared {
    clients: HashMap<String, Client>,
    platform: Option<PublicKey>,
    assertions: Assertions,
    tokens: Mutex<Tokens>,
    devices: Mutex<Devices>,
    script: Mutex<Script>,
    counters: Counters,
}

/// How the token endpoint behaves.
#[derive(Debug)]
struct Script {
    lifetime: Duration,
    latency: Duration,
    answers: VecDeque<Answer>,
}

#[derive(Debug, Default)]
struct Counters {
    token_requests: AtomicU64,
    in_progress: AtomicU64,
    tokens: AtomicU64,
    refusals: AtomicU64,
    revocations: AtomicU64,
    reuses: AtomicU64,
    introspections: AtomicU64,
}

impl Shared {
    // No lock guards a step that can be left half done, so what a panic leaves behind is sound.
    fn tokens(&self) -> MutexGuard<'_, Tokens> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn devices(&self) -> MutexGuard<'_, Devices> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counters {
    fn read(&self) -> Counts {
        Counts {
            token_requests: self.token_requests.load(Relaxed),
            in_progress: self.in_progress.load(Relaxed),
            tokens: self.tokens.load(Relaxed),
            refusals: self.refusals.load(Relaxed),
            revocations: self.revocations.load(Relaxed),
            reuses: self.reuses.load(Relaxed),
            introspections: self.introspections.load(Relaxed),
            ..Counts::default()
        }
    }
}

// --- Endpoints ---

type Fields = Form<HashMap<String, String>>;

async fn token(State(shared): State<Arc<Shared>>, headers: HeaderMap, Form(form): Fields) -> Response {
    shared.counters.token_requests.fetch_add(1, Relaxed);
    let _in_progress = Presence::enter(&shared.counters.in_progress);
    let (lifetime, latency, answer) = {
        let mut script = shared.script();
        (script.lifetime, script.latency, script.answers.pop_front())
    };
    tokio::time::sleep(latency).await;
    match answer {
        Some(Answer::TooManyRequests { retry_after }) => {
            return busy(StatusCode::TOO_MANY_REQUESTS, retry_after);
        }
        Some(Answer::Unavailable { retry_after }) => {
            return busy(StatusCode::SERVICE_UNAVAILABLE, retry_after);
        }
        Some(Answer::Hang) => std::future::pending().await,
        None => {}
    }
    match grant(&shared, &headers, &form, lifetime) {
        Ok(granted) => {
            shared.counters.tokens.fetch_add(1, Relaxed);
            uncached(Json(granted))
        }
        Err(refused) => {
            shared.counters.refusals.fetch_add(1, Relaxed);
            refused.into_response()
        }
    }
}

fn grant(
    shared: &Shared,
    headers: &HeaderMap,
    form: &HashMap<String, String>,
    lifetime: Duration,
) -> Result<serde_json::Value, Refused> {
    let client =
        client::authenticate(&shared.clients, headers, form, &shared.assertions).map_err(Refused::Client)?;
    let error = Refused::Request;
    let asked = form.get("scope").map(String::as_str);
    let answer = |access: String, refresh: Option<String>, scopes: Vec<String>| {
        let mut answer = json!({
            "access_token": access,
            "token_type": "Bearer",
            "expires_in": lifetime.as_secs(),
            "scope": scopes.join(" "),
        });
        if let Some(refresh) = refresh {
            answer["refresh_token"] = refresh.into();
        }
        answer
    };
    match form.get("grant_type").map(String::as_str) {
        Some("client_credentials") => {
            if !client.may_use_client_credentials() {
                return Err(error("unauthorized_client", "this client may not use this grant"));
            }
            let scopes = client.grant(asked).ok_or_else(|| {
                error("invalid_scope", "a scope is unknown or out of reach for this client")
            })?;
            Ok(answer(shared.tokens().issue(client.id(), scopes.clone(), lifetime), None, scopes))
        }
        Some("refresh_token") => {
            let secret = form
                .get("refresh_token")
                .ok_or_else(|| error("invalid_request", "the refresh token is missing"))?;
            match shared.tokens().rotate(secret, client.id(), asked, lifetime) {
                Rotation::Rotated { access, refresh, scopes } => Ok(answer(access, Some(refresh), scopes)),
                Rotation::TooManyScopes => Err(error("invalid_scope", "more scopes than were agreed to")),
                Rotation::Reused => {
                    shared.counters.reuses.fetch_add(1, Relaxed);
                    Err(error("invalid_grant", "the refresh token was used before; sign in again"))
                }
                Rotation::Unknown => Err(error("invalid_grant", "the refresh token is unknown or revoked")),
            }
        }
        Some("urn:ietf:params:oauth:grant-type:token-exchange") => {
            let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
            if field("subject_token_type") != "urn:ietf:params:oauth:token-type:jwt" {
                return Err(error("invalid_request", "the subject token must be a JWT"));
            }
            let platform = shared.platform.as_ref();
            let claims = platform.and_then(|key| shared.assertions.current(field("subject_token"), key));
            if !claims.is_some_and(|claims| client.is_workload(&claims["sub"])) {
                return Err(error("invalid_grant", "the subject token is expired, or not of this workload"));
            }
            let scopes = client.grant(asked).ok_or_else(|| {
                error("invalid_scope", "a scope is unknown or out of reach for this client")
            })?;
            let mut answer =
                answer(shared.tokens().issue(client.id(), scopes.clone(), lifetime), None, scopes);
            answer["issued_token_type"] = "urn:ietf:params:oauth:token-type:access_token".into();
            Ok(answer)
        }
        Some("urn:ietf:params:oauth:grant-type:device_code") => {
            let code = form.get("device_code");
            let code = code.ok_or_else(|| error("invalid_request", "the device code is missing"))?;
            let polled = shared.devices().poll(code, client.id());
            match polled {
                devices::Poll::Agreed(scopes) => {
                    let (access, refresh) = shared.tokens().issue_both(client.id(), scopes.clone(), lifetime);
                    let is_kept = scopes.iter().any(|scope| scope == "offline_access");
                    Ok(answer(access, is_kept.then_some(refresh), scopes))
                }
                devices::Poll::Pending => Err(error("authorization_pending", "nobody has agreed yet")),
                devices::Poll::Expired => Err(error("expired_token", "the code has expired; begin again")),
                devices::Poll::Unknown => Err(error("invalid_grant", "the device code is unknown")),
            }
        }
        Some(_) => Err(error("unsupported_grant_type", "this grant is not known here")),
        None => Err(error("invalid_request", "the grant type is missing")),
    }
}

async fn begin_device(State(shared): State<Arc<Shared>>, headers: HeaderMap, Form(form): Fields) -> Response {
    let client = match client::authenticate(&shared.clients, &headers, &form, &shared.assertions) {
        Ok(client) => client,
        Err(refusal) => return Refused::Client(refusal).into_response(),
    };
    let Some(scopes) = client.grant(form.get("scope").map(String::as_str)) else {
        return Refused::Request("invalid_scope", "a scope is unknown or out of reach for this client")
            .into_response();
    };
    let (device_code, user_code) = shared.devices().begin(client.id(), scopes);
    // The address is the one by which the device came.
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    uncached(Json(json!({
        "device_code": device_code,
        "user_code": user_code,
        "verification_uri": format!("http://{host}/device"),
        "expires_in": devices::LIFETIME.as_secs(),
        "interval": devices::INTERVAL.as_secs(),
    })))
}

async fn agree_to_device(State(shared): State<Arc<Shared>>, Form(form): Fields) -> Response {
    let is_known = form.get("user_code").is_some_and(|code| shared.devices().agree(code));
    if is_known { StatusCode::NO_CONTENT.into_response() } else { StatusCode::NOT_FOUND.into_response() }
}

async fn revoke(State(shared): State<Arc<Shared>>, headers: HeaderMap, Form(form): Fields) -> Response {
    let client = match client::authenticate(&shared.clients, &headers, &form, &shared.assertions) {
        Ok(client) => client,
        Err(refusal) => return Refused::Client(refusal).into_response(),
    };
    let Some(secret) = form.get("token") else {
        return Refused::Request("invalid_request", "the token is missing").into_response();
    };
    shared.counters.revocations.fetch_add(1, Relaxed);
    // RFC 7009 §2.2: a token that is unknown, or not this client's, is 200 as well.
    shared.tokens().revoke(secret, client.id());
    StatusCode::OK.into_response()
}

async fn introspect(State(shared): State<Arc<Shared>>, headers: HeaderMap, Form(form): Fields) -> Response {
    shared.counters.introspections.fetch_add(1, Relaxed);
    if let Err(refusal) = client::authenticate(&shared.clients, &headers, &form, &shared.assertions) {
        return Refused::Client(refusal).into_response();
    }
    let Some(secret) = form.get("token") else {
        return Refused::Request("invalid_request", "the token is missing").into_response();
    };
    let Worth::Active(access) = shared.tokens().worth(secret) else {
        // RFC 7662 §2.2: not a word about why.
        return uncached(Json(json!({ "active": false })));
    };
    let expiry = SystemTime::now() + access.expires.saturating_duration_since(Instant::now());
    uncached(Json(json!({
        "active": true,
        "client_id": access.client,
        "scope": access.scopes.join(" "),
        "token_type": "Bearer",
        "exp": expiry.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
    })))
}

/// RFC 6749 §5.1: what carries a token is not to be stored on the way.
fn uncached(answer: impl IntoResponse) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], answer).into_response()
}

fn busy(status: StatusCode, retry_after: Duration) -> Response {
    (status, [(header::RETRY_AFTER, HeaderValue::from(retry_after.as_secs()))]).into_response()
}

// --- Refused ---

/// Why there is no answer but an error (RFC 6749 §5.2).
enum Refused {
    Client(Refusal),
    Request(&'static str, &'static str),
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, code, description) = match self {
            Self::Client(Refusal::Unknown { .. }) => {
                (StatusCode::UNAUTHORIZED, "invalid_client", "client authentication failed")
            }
            Self::Client(Refusal::Malformed) => {
                (StatusCode::BAD_REQUEST, "invalid_request", "one way of client authentication, please")
            }
            Self::Request(code, description) => (StatusCode::BAD_REQUEST, code, description),
        };
        let body = Json(json!({ "error": code, "error_description": description }));
        let mut response = (status, body).into_response();
        if let Self::Client(Refusal::Unknown { by_basic: true }) = self {
            let challenge = HeaderValue::from_static("Basic realm=\"tokens\", charset=\"UTF-8\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
