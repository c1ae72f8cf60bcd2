//! Genesys Cloud, as far as its clients see it: the token endpoint, a few lists, and the limits of both.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header, request};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::emulator::{self, Emulator, Vendor, emulator_service};
use super::line::Line;
use super::loopback::Loopback;
use super::strict::{self, Fields, Refusal, fault};
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
/// The text of a 401 and of a 403 is *not confirmed* word by word.
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

/// The counts of a [`FakeGenesys`].
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
    /// Those that succeeded.
    pub ok: u64,
    /// Those whose token was not valid.
    pub unauthorized: u64,
    /// Those that were over the limit.
    pub limited: u64,
}

type Shared = Emulator<FakeGenesysBuilder, State>;

struct State {
    tokens: Tokens,
    counts: GenesysCounts,
    throttle: u64,
    windows: HashMap<String, (Instant, u64)>,
    denied: HashMap<String, String>,
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

    /// Stops the server: closes the port and every connection, and fails every call in the process.
    ///
    /// # Cancel safety
    ///
    /// Once it was polled, it is gone.
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
}

emulator_service!(FakeGenesys, GenesysCounts);

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
    /// The system's, if it has no free port.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it starts nothing.
    pub async fn start(self) -> io::Result<FakeGenesys> {
        let shared = self.shared();
        let served = Arc::clone(&shared);
        let service = tower::service_fn(move |request| emulator::respond(Arc::clone(&served), request));
        Ok(FakeGenesys { shared, line: Line::over(Loopback::start(service).await?) })
    }

    fn shared(self) -> Arc<Shared> {
        let state = State {
            tokens: Tokens::new(),
            counts: GenesysCounts::default(),
            throttle: 0,
            windows: HashMap::new(),
            denied: HashMap::new(),
        };
        Arc::new(Shared::new(self, state))
    }
}

// --- Responses ---

impl Vendor for Shared {
    fn latency(&self) -> Duration {
        self.setup.latency
    }

    fn respond(&self, head: &request::Parts, body: &Bytes) -> Result<Response<Body>, Refusal> {
        let path = head.uri.path();
        match path.strip_prefix(API) {
            _ if path == TOKEN => self.at_host(head, "login").and_then(|()| self.token(head, body)),
            Some(path) => self.at_host(head, "api").and_then(|()| self.api(head, path, body)),
            None => Err(fault(format!("nothing is at {path}"))),
        }
    }

    fn refuse(&self, head: &request::Parts, fault: &str) -> Response<Body> {
        match head.uri.path() == TOKEN {
            true => oauth_error("invalid_request", fault),
            false => refusal(StatusCode::BAD_REQUEST, "bad.request", fault),
        }
    }
}

impl Shared {
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
        if head.method != Method::POST {
            return Err(fault("a token request is a POST"));
        }
        let form = strict::form(head, body)?;
        if state.throttle > 0 {
            state.throttle -= 1;
            state.counts.throttled += 1;
            return Ok(oauth_error("invalid_request", "rate limit exceeded; please try again later"));
        }
        let client = self.authenticate(head, &form)?;
        let is_public = self.setup.clients[&client].is_none();
        let grant = form.get("grant_type").map_or("", String::as_str);
        let expected: &[&str] = match grant {
            "client_credentials" if !is_public => &["grant_type"],
            "refresh_token" => &["grant_type", "refresh_token"],
            "urn:ietf:params:oauth:grant-type:saml2-bearer" if !is_public => {
                &["grant_type", "orgName", "assertion"]
            }
            _ => return Err(fault(format!("the grant type {grant:?} is not one of this client"))),
        };
        let id: &[&str] = if is_public { &["client_id"] } else { &[] };
        strict::expect(&form, &[expected, id].concat(), &[])?;
        if form.values().any(String::is_empty) {
            return Err(fault(format!("the fields of {grant} each have a value")));
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
    fn authenticate(&self, head: &request::Parts, form: &Fields) -> Result<String, Refusal> {
        let unknown = || Refusal::from(oauth_error("invalid_client", "client not found"));
        if !head.headers.contains_key(header::AUTHORIZATION) {
            let id = form.get("client_id").ok_or_else(|| fault("a token request without a client"))?;
            let is_public = self.setup.clients.get(id).is_some_and(Option::is_none);
            return if is_public { Ok(id.clone()) } else { Err(unknown()) };
        }
        let pair = strict::basic(head)?;
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
        let bearer = strict::authorization(head, "Bearer")?;
        let Worth::Active(access) = state.tokens.worth(bearer) else {
            state.counts.unauthorized += 1;
            let message = "Invalid login credentials.";
            return Err(refusal(StatusCode::UNAUTHORIZED, "bad.credentials", message).into());
        };
        let limit = self.setup.limit.unwrap_or(LIMIT);
        let (count, left) = state.count(bearer);
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
            return Err(refusal(StatusCode::FORBIDDEN, "missing.any.permissions", &message).into());
        }
        let response = match (&head.method, path) {
            (&Method::GET, "tokens/me") => {
                let client = json!({ "id": access.client, "name": access.client });
                strict::query_of(head, &[])?;
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
                strict::query_of(head, &[])?;
                state.tokens.revoke(bearer, &access.client);
                json_response(StatusCode::OK, &json!({}))
            }
            (&Method::GET, "users/me") => {
                strict::query_of(head, &[])?;
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
        let query = strict::query_of(head, &["pageSize", "pageNumber"])?;
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
        strict::query_of(head, &[])?;
        let query = strict::object(head, body)?;
        if !query.get("interval").is_some_and(Value::is_string) {
            return Err(fault("a query has no interval"));
        }
        let paging = query.get("paging").unwrap_or(&Value::Null);
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
    let mut response = strict::json_response(status, body);
    let id = HeaderValue::from_static("7d1a4f0c-0001");
    response.headers_mut().insert("inin-correlation-id", id);
    response
}
