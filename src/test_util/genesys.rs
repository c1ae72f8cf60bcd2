//! Genesys Cloud, as far as its clients see it: the token endpoint, a few lists, and the limits of both.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header, request};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::time::Instant;
use tower::BoxError;

use super::line::{Line, fake_service};
use super::loopback::Loopback;
use super::tokens::{Rotation, Tokens, Worth};
use crate::body::Body;
use crate::clock;

/// An emulator of Genesys Cloud, within the process or on loopback. Clones are the same one.
///
/// | request | response |
/// |---|---|
/// | `POST login.{region}/oauth/token` | client credentials, refresh tokens, SAML 2.0 bearer; by raw HTTP Basic, or for public clients by `client_id` |
/// | `GET /api/v2/tokens/me`, `DELETE` | what the token is; its end |
/// | `GET /api/v2/users/me`, `GET /api/v2/users` | a user; pages of users |
/// | `POST /api/v2/analytics/conversations/details/query` | pages of conversations |
///
/// It is strict: a method, host, path, header, query parameter or field that is wrong or too much is a 400, and is kept in
/// [`faults`](Self::faults). Requests are limited by token, in windows of a minute, with `inin-ratelimit-*` on each response.
/// What the vendor's servers say in a 401 and a 403 is *not confirmed* in each word.
///
/// # Examples
///
/// ```
/// # #[cfg(all(feature = "hyper-client", feature = "providers", feature = "stack"))] {
/// use tower_oauth2::providers::genesys::{self, Genesys};
/// use tower_oauth2::test_util::FakeGenesys;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let fake = FakeGenesys::builder().client("reports", "s3cr/t").users(120).build();
/// let api = Genesys::new(fake.region().parse()?, "reports", "s3cr/t").connect_with(fake.clone())?;
///
/// let mut pages = api.get("users").query(&[("pageSize", 50)]).pages(genesys::entities());
/// while let Some(page) = pages.next().await {
///     page?;
/// }
/// assert_eq!(pages.progress().to_string(), "page 3 of 3, 120 of 120 items");
/// assert!(fake.faults().is_empty());
/// # Ok::<_, tower::BoxError>(()) })?;
/// # }
/// # Ok::<_, tower::BoxError>(())
/// ```
#[derive(Clone)]
pub struct FakeGenesys {
    shared: Arc<Shared>,
    line: Line,
}

/// Sets up a [`FakeGenesys`].
///
/// Defaults:
///
/// - no clients, no users, no conversations
/// - tokens live for a day
/// - 300 requests a minute for each token
/// - a request takes no time
#[derive(Debug, Default)]
pub struct FakeGenesysBuilder {
    clients: HashMap<String, Option<String>>,
    scopes: Vec<String>,
    users: u64,
    conversations: u64,
    lifetime: Option<Duration>,
    limit: Option<u64>,
    latency: Duration,
}

/// What a [`FakeGenesys`] has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GenesysCounts {
    /// Requests that came to the token endpoint.
    pub token_requests: u64,
    /// Tokens that were issued.
    pub tokens: u64,
    /// Token requests that were throttled.
    pub throttled: u64,
    /// Requests that came to the API.
    pub requests: u64,
    /// Those that got what they wanted.
    pub ok: u64,
    /// Those whose token was no good.
    pub unauthorized: u64,
    /// Those that were over the limit.
    pub limited: u64,
}

struct Shared {
    setup: FakeGenesysBuilder,
    state: Mutex<State>,
}

struct State {
    tokens: Tokens,
    counts: GenesysCounts,
    faults: Vec<String>,
    throttle: u64,
    windows: HashMap<String, (Instant, u64)>,
    denied: HashMap<String, String>,
}

/// Why a request is refused.
enum Refusal {
    /// It is wrong.
    Fault(String),
    Status(StatusCode, &'static str, String),
}

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
const LIMIT: u64 = 300;
const TOKEN: &str = "/oauth/token";
const API: &str = "/api/v2/";

// --- FakeGenesys ---

impl FakeGenesys {
    /// The region of an emulator that is not on loopback. It needs no DNS: its requests stay in the process.
    pub const REGION: &'static str = "genesys.test";

    /// Starts an emulator.
    #[must_use]
    pub fn builder() -> FakeGenesysBuilder {
        FakeGenesysBuilder::default()
    }

    /// Returns the region, for a preset.
    #[must_use]
    pub fn region(&self) -> &'static str {
        Self::REGION
    }

    /// Returns the origin of an emulator on loopback, for the gateway of a preset.
    #[must_use]
    pub fn origin(&self) -> String {
        self.line.origin().to_owned()
    }

    /// Throttles the next token requests, by the 400 by which Genesys Cloud does it.
    pub fn throttle_tokens(&self, times: u64) {
        self.shared.state().throttle = times;
    }

    /// Has a path of the API, such as `users`, want a permission that no client has.
    pub fn deny(&self, path: impl Into<String>, permission: impl Into<String>) {
        self.shared.state().denied.insert(path.into(), permission.into());
    }

    /// Revokes every token.
    pub fn revoke_all(&self) {
        self.shared.state().tokens.revoke_all();
    }

    /// Issues a refresh token, as when a user has just signed in.
    #[must_use]
    pub fn sign_in(&self, client_id: &str) -> String {
        self.shared.state().tokens.issue_refresh(client_id, Vec::new())
    }

    /// Returns what was wrong with requests so far; nothing, if all were as they should be.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        self.shared.state().faults.clone()
    }

    /// Returns what was counted so far.
    #[must_use]
    pub fn counts(&self) -> GenesysCounts {
        self.shared.state().counts
    }

    /// Goes away.
    ///
    /// # Cancel safety
    ///
    /// Once it was polled, it is gone.
    pub async fn stop(&self) {
        self.line.stop().await;
    }

    /// Comes back, at the same port.
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
}

fake_service!(FakeGenesys, |fake, request| respond(Arc::clone(&fake.shared), request));

impl fmt::Debug for FakeGenesys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeGenesys").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

// --- FakeGenesysBuilder ---

impl FakeGenesysBuilder {
    /// Adds an OAuth client with a secret.
    #[must_use]
    pub fn client(mut self, id: impl Into<String>, secret: impl Into<String>) -> Self {
        self.clients.insert(id.into(), Some(secret.into()));
        self
    }

    /// Adds a client without a secret, which logs in by PKCE.
    #[must_use]
    pub fn public_client(mut self, id: impl Into<String>) -> Self {
        self.clients.insert(id.into(), None);
        self
    }

    /// Adds a scope that all clients are authorized for.
    #[must_use]
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scopes.push(scope.into());
        self
    }

    /// Sets how many users there are.
    #[must_use]
    pub fn users(mut self, users: u64) -> Self {
        self.users = users;
        self
    }

    /// Sets how many conversations there are.
    #[must_use]
    pub fn conversations(mut self, conversations: u64) -> Self {
        self.conversations = conversations;
        self
    }

    /// Sets how long tokens live.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = Some(lifetime);
        self
    }

    /// Sets how many requests a minute each token has.
    #[must_use]
    pub fn limit(mut self, per_minute: u64) -> Self {
        self.limit = Some(per_minute);
        self
    }

    /// Sets how long a request takes.
    #[must_use]
    pub fn latency(mut self, latency: Duration) -> Self {
        self.latency = latency;
        self
    }

    /// Makes an emulator within the process, in [`FakeGenesys::REGION`].
    #[must_use]
    pub fn build(self) -> FakeGenesys {
        FakeGenesys { shared: self.shared(), line: Line::within("https://api.genesys.test") }
    }

    /// Starts an emulator on a free port of 127.0.0.1, which stands in for both hosts as a gateway does.
    ///
    /// # Errors
    ///
    /// The system's, if there is no port to be had.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it starts nothing.
    pub async fn start(self) -> io::Result<FakeGenesys> {
        let shared = self.shared();
        let served = Arc::clone(&shared);
        let service = tower::service_fn(move |request| respond(Arc::clone(&served), request));
        Ok(FakeGenesys { shared, line: Line::over(Loopback::start(service).await?) })
    }

    fn shared(self) -> Arc<Shared> {
        let state = State {
            tokens: Tokens::new(),
            counts: GenesysCounts::default(),
            faults: Vec::new(),
            throttle: 0,
            windows: HashMap::new(),
            denied: HashMap::new(),
        };
        Arc::new(Shared { setup: self, state: Mutex::new(state) })
    }
}

// --- Responses ---

async fn respond(shared: Arc<Shared>, request: Request<Body>) -> Result<Response<Body>, BoxError> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    if !shared.setup.latency.is_zero() {
        tokio::time::sleep(shared.setup.latency).await;
    }
    let path = head.uri.path().to_owned();
    let result = match path.strip_prefix(API) {
        _ if path == TOKEN => shared.at_host(&head, "login").and_then(|()| shared.token(&head, &body)),
        Some(path) => shared.at_host(&head, "api").and_then(|()| shared.api(&head, path, &body)),
        None => Err(Refusal::Fault(format!("nothing is at {path}"))),
    };
    Ok(result.unwrap_or_else(|refusal| shared.refuse(refusal, path == TOKEN)))
}

impl Shared {
    // Every change under this lock is a single step, so what a panic leaves behind is sound.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Within the process the two hosts are told apart; on loopback a gateway stands in for both.
    fn at_host(&self, head: &request::Parts, sub: &str) -> Result<(), Refusal> {
        match head.uri.host() {
            None | Some("127.0.0.1") => Ok(()),
            Some(host) if host == format!("{sub}.{}", FakeGenesys::REGION) => Ok(()),
            Some(host) => Err(fault(format!("{} is not at {host}", head.uri.path()))),
        }
    }

    fn token(&self, head: &request::Parts, body: &Bytes) -> Result<Response<Body>, Refusal> {
        let mut state = self.state();
        state.counts.token_requests += 1;
        if head.method != Method::POST || head.uri.query().is_some() {
            return Err(fault("a token request is a POST without a query"));
        }
        if text(head, header::CONTENT_TYPE) != Some("application/x-www-form-urlencoded") {
            return Err(fault("the content type of a token request is not that of a form"));
        }
        let pairs: Vec<(String, String)> = form_urlencoded::parse(body).into_owned().collect();
        let form: HashMap<&str, &str> = pairs.iter().map(|(name, value)| (&**name, &**value)).collect();
        if form.len() != pairs.len() {
            return Err(fault("a field stands twice"));
        }
        if state.throttle > 0 {
            state.throttle -= 1;
            state.counts.throttled += 1;
            return Ok(oauth_error("invalid_request", "rate limit exceeded; please try again later"));
        }
        let client = self.authenticate(head, &form)?;
        let is_public = self.setup.clients[&client].is_none();
        let fields: HashSet<&str> =
            form.keys().copied().filter(|field| !(is_public && *field == "client_id")).collect();
        let grant = form.get("grant_type").copied().unwrap_or_default();
        let expected: &[&str] = match grant {
            "client_credentials" if !is_public => &["grant_type"],
            "refresh_token" => &["grant_type", "refresh_token"],
            "urn:ietf:params:oauth:grant-type:saml2-bearer" if !is_public => {
                &["grant_type", "orgName", "assertion"]
            }
            _ => return Err(fault(format!("the grant type {grant:?} is not one of this client"))),
        };
        if fields != expected.iter().copied().collect() || form.values().any(|value| value.is_empty()) {
            return Err(fault(format!("the fields of {grant} are {expected:?}, each with a value")));
        }
        let lifetime = self.setup.lifetime.unwrap_or(DAY);
        let mut granted = json!({ "token_type": "bearer", "expires_in": lifetime.as_secs() });
        if let Some(refresh) = form.get("refresh_token") {
            match state.tokens.rotate(refresh, &client, None, lifetime) {
                Rotation::Rotated { access, refresh, .. } => {
                    granted["access_token"] = access.into();
                    granted["refresh_token"] = refresh.into();
                }
                Rotation::TooManyScopes | Rotation::Reused | Rotation::Unknown => {
                    return Ok(oauth_error("invalid_grant", "the refresh token is invalid"));
                }
            }
        } else {
            granted["access_token"] = state.tokens.issue(&client, self.setup.scopes.clone(), lifetime).into();
        }
        state.counts.tokens += 1;
        Ok(json_response(StatusCode::OK, &granted))
    }

    /// Returns the client, by its raw id and secret, or by its id if it is public.
    fn authenticate(&self, head: &request::Parts, form: &HashMap<&str, &str>) -> Result<String, Refusal> {
        let unknown =
            || Refusal::Status(StatusCode::BAD_REQUEST, "invalid_client", "client not found".to_owned());
        let Some(value) = text(head, header::AUTHORIZATION) else {
            let id = form.get("client_id").ok_or_else(|| fault("a token request without a client"))?;
            let is_public = self.setup.clients.get(*id).is_some_and(Option::is_none);
            return if is_public { Ok((*id).to_owned()) } else { Err(unknown()) };
        };
        let encoded = value.strip_prefix("Basic ").ok_or_else(|| fault("a client authenticates by Basic"))?;
        let pair = BASE64_STANDARD.decode(encoded).ok().and_then(|pair| String::from_utf8(pair).ok());
        let pair = pair.ok_or_else(|| fault("the credentials of a client are not base64"))?;
        let (id, secret) =
            pair.split_once(':').ok_or_else(|| fault("the credentials of a client are no pair"))?;
        match self.setup.clients.get(id) {
            Some(Some(known)) if known == secret => Ok(id.to_owned()),
            Some(_) | None => Err(unknown()),
        }
    }

    fn api(&self, head: &request::Parts, path: &str, body: &Bytes) -> Result<Response<Body>, Refusal> {
        let mut state = self.state();
        state.counts.requests += 1;
        let bearer = text(head, header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
        let bearer = bearer.map(str::to_owned).ok_or_else(|| fault("a request without a token"))?;
        let Worth::Active(access) = state.tokens.worth(&bearer) else {
            state.counts.unauthorized += 1;
            let message = "Invalid login credentials.".to_owned();
            return Err(Refusal::Status(StatusCode::UNAUTHORIZED, "bad.credentials", message));
        };
        let limit = self.setup.limit.unwrap_or(LIMIT);
        let (count, left) = state.count(&bearer);
        if count > limit {
            state.counts.limited += 1;
            let seconds = left.as_secs() + 1;
            let message =
                format!("Rate limit exceeded the maximum. Retry the request in [{seconds}] seconds");
            let mut response = refusal(StatusCode::TOO_MANY_REQUESTS, "too.many.requests", &message);
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            return Ok(limited(response, limit, limit, left));
        }
        if let Some(permission) = state.denied.get(path) {
            let message = format!(
                "Unable to perform the requested action. You must have at least one of the following permissions assigned: \
                 [{permission}]"
            );
            return Err(Refusal::Status(StatusCode::FORBIDDEN, "missing.any.permissions", message));
        }
        let response = match (&head.method, path) {
            (&Method::GET, "tokens/me") => {
                let client = json!({ "id": access.client, "name": access.client });
                parameters(head, &[])?;
                json_response(
                    StatusCode::OK,
                    &json!({
                        "organization": { "id": "1", "name": "Test" },
                        "authorizedScope": access.scopes,
                        "OAuthClient": client,
                    }),
                )
            }
            (&Method::DELETE, "tokens/me") => {
                parameters(head, &[])?;
                state.tokens.revoke(&bearer, &access.client);
                json_response(StatusCode::OK, &json!({}))
            }
            (&Method::GET, "users/me") => {
                parameters(head, &[])?;
                json_response(StatusCode::OK, &user(0))
            }
            (&Method::GET, "users") => self.users(head)?,
            (&Method::POST, "analytics/conversations/details/query") => self.conversations(head, body)?,
            (method, path) => return Err(fault(format!("{method} {path} is not played"))),
        };
        state.counts.ok += 1;
        Ok(limited(response, count, limit, left))
    }

    fn users(&self, head: &request::Parts) -> Result<Response<Body>, Refusal> {
        let query = parameters(head, &["pageSize", "pageNumber"])?;
        let number = |name: &str, or: u64, most: u64| match query.get(name).map(|value| value.parse()) {
            None => Ok(or),
            Some(Ok(number)) if (1..=most).contains(&number) => Ok(number),
            Some(_) => Err(fault(format!("{name} is not a number from 1 to {most}"))),
        };
        let (size, page) = (number("pageSize", 25, 500)?, number("pageNumber", 1, u64::MAX)?);
        let total = self.setup.users;
        let count = total.div_ceil(size);
        let from = (page - 1).saturating_mul(size).min(total);
        let users: Vec<Value> = (from..(from + size).min(total)).map(user).collect();
        let mut list = json!({
            "entities": users, "pageSize": size, "pageNumber": page, "total": total, "pageCount": count,
        });
        if page < count {
            list["nextUri"] = format!("/api/v2/users?pageSize={size}&pageNumber={}", page + 1).into();
        }
        Ok(json_response(StatusCode::OK, &list))
    }

    fn conversations(&self, head: &request::Parts, body: &Bytes) -> Result<Response<Body>, Refusal> {
        parameters(head, &[])?;
        if text(head, header::CONTENT_TYPE) != Some("application/json") {
            return Err(fault("the content type of a query is not JSON"));
        }
        let query: Value = serde_json::from_slice(body).map_err(|_| fault("a query is not JSON"))?;
        if !query["interval"].is_string() {
            return Err(fault("a query has no interval"));
        }
        let paging = &query["paging"];
        let (size, page) = match (paging["pageSize"].as_u64(), paging["pageNumber"].as_u64()) {
            (Some(size), Some(page)) if (1..=100).contains(&size) && page > 0 => (size, page),
            _ => return Err(fault("pageSize is not a number from 1 to 100, or pageNumber is none")),
        };
        let total = self.setup.conversations;
        let from = (page - 1).saturating_mul(size).min(total);
        let found: Vec<Value> = (from..(from + size).min(total))
            .map(|number| json!({ "conversationId": format!("conversation-{number}") }))
            .collect();
        // What is empty is left out.
        let list = match found.is_empty() {
            true => json!({ "totalHits": total }),
            false => json!({ "conversations": found, "totalHits": total }),
        };
        Ok(json_response(StatusCode::OK, &list))
    }

    fn refuse(&self, why: Refusal, oauth: bool) -> Response<Body> {
        match why {
            Refusal::Fault(message) => {
                self.state().faults.push(message.clone());
                match oauth {
                    true => oauth_error("invalid_request", &message),
                    false => refusal(StatusCode::BAD_REQUEST, "bad.request", &message),
                }
            }
            Refusal::Status(_, code, message) if oauth => oauth_error(code, &message),
            Refusal::Status(status, code, message) => refusal(status, code, &message),
        }
    }
}

impl State {
    /// Counts a request of a token, and returns how many there were in its window, and what is left of that.
    fn count(&mut self, token: &str) -> (u64, Duration) {
        let now = clock::now();
        let window = self.windows.entry(token.to_owned()).or_insert((now, 0));
        if now.saturating_duration_since(window.0) >= MINUTE {
            *window = (now, 0);
        }
        window.1 += 1;
        (window.1, MINUTE.saturating_sub(now.saturating_duration_since(window.0)))
    }
}

// --- Helpers ---

fn fault(message: impl Into<String>) -> Refusal {
    Refusal::Fault(message.into())
}

fn text(head: &request::Parts, name: header::HeaderName) -> Option<&str> {
    head.headers.get(name)?.to_str().ok()
}

/// Reads the query, which has no other parameters than these, and each of them once.
fn parameters(head: &request::Parts, known: &[&str]) -> Result<HashMap<String, String>, Refusal> {
    let mut read = HashMap::new();
    let query = head.uri.query().unwrap_or_default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()).into_owned() {
        if !known.contains(&&*name) || read.insert(name.clone(), value).is_some() {
            return Err(fault(format!("the parameter {name} is unknown, or stands twice")));
        }
    }
    Ok(read)
}

fn user(number: u64) -> Value {
    json!({ "id": format!("user-{number}"), "name": format!("User {number}") })
}

fn limited(mut response: Response<Body>, count: u64, limit: u64, left: Duration) -> Response<Body> {
    let headers = response.headers_mut();
    headers.insert("inin-ratelimit-count", count.into());
    headers.insert("inin-ratelimit-allowed", limit.into());
    headers.insert("inin-ratelimit-reset", left.as_secs().into());
    response
}

/// An error of the token endpoint, which has its description twice.
fn oauth_error(code: &str, description: &str) -> Response<Body> {
    let body = json!({ "error": code, "description": description, "error_description": description });
    json_response(StatusCode::BAD_REQUEST, &body)
}

fn refusal(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    json_response(status, &json!({ "message": message, "code": code, "status": status.as_u16() }))
}

fn json_response(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("inin-correlation-id", HeaderValue::from_static("7d1a4f0c-0001"));
    response
}
