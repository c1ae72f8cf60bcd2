//! GitHub, as far as an app sees it: installation tokens, repositories, issues, and rate limits.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, request};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::emulator::{Emulator, Vendor, emulator_service};
use super::line::Line;
use super::signatures::ServiceKey;
use super::strict::{self, Refusal, fault, json_response};
use super::tokens::{Tokens, Worth};
use crate::body::Body;
use crate::clock;

/// An emulator of GitHub for tests of an app, within the process (feature `jwt`). Clones are the same one.
///
/// | request | response |
/// |---|---|
/// | `GET /app` by the JWT of the app | the app |
/// | `POST /app/installations/{id}/access_tokens` by the JWT of the app | a token, perhaps narrowed; 404, 422 |
/// | `DELETE /installation/token` | 204; the end of the token |
/// | `GET /installation/repositories?per_page=&page=` | pages of repositories, with `Link` |
/// | `POST /repos/{owner}/{name}/issues` | an issue; 403 without the permission, 404 for another repository |
///
/// It is strict: a method, host, path, header, query parameter or field that is wrong or too much is a 400, and is kept in
/// [`faults`](Self::faults). A JWT must be signed by the app's [key](Self::private_key), and hold for ten minutes from now at most.
/// Requests without a `user-agent` are refused. Each installation has a limit of requests an hour, which responses tell by
/// `x-ratelimit-*`.
///
/// # Examples
///
/// ```
/// # #[cfg(all(feature = "providers", feature = "stack"))] {
/// use tower_oauth2::providers::github::GithubApp;
/// use tower_oauth2::test_util::FakeGithub;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let fake = FakeGithub::builder("Iv23liABC").installation(4711, ["site", "docs"]).build();
/// let app = GithubApp::new("Iv23liABC", FakeGithub::private_key()).base_url(FakeGithub::BASE_URL);
/// let api = app.connect_with(4711, fake.clone())?;
/// assert_eq!(api.get("installation/repositories").send().await?.status(), 200);
/// assert!(fake.faults().is_empty());
/// # Ok::<_, tower::BoxError>(()) })?;
/// # }
/// # Ok::<_, tower::BoxError>(())
/// ```
#[derive(Clone)]
pub struct FakeGithub {
    shared: Arc<Shared>,
    line: Line,
}

/// Sets up a [`FakeGithub`].
///
/// Defaults:
///
/// - no installations
/// - each installation granted `contents: read`, `issues: write` and `metadata: read`
/// - 5,000 requests an hour for each installation
/// - tokens live for an hour
#[derive(Debug)]
pub struct FakeGithubBuilder {
    client_id: String,
    installations: HashMap<u64, Vec<String>>,
    permissions: BTreeMap<String, String>,
    limit: u64,
    lifetime: Duration,
}

/// The counts of a [`FakeGithub`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GithubCounts {
    /// Requests for tokens of installations.
    pub token_requests: u64,
    /// Tokens that were issued.
    pub tokens: u64,
    /// Requests that succeeded, token requests excluded.
    pub ok: u64,
    /// Requests whose token was not valid.
    pub unauthorized: u64,
    /// Requests that were over a limit.
    pub limited: u64,
}

type Shared = Emulator<FakeGithubBuilder, State>;

struct State {
    tokens: Tokens,
    counts: GithubCounts,
    /// When the hour of an installation began, and how many requests it had.
    windows: HashMap<String, (Instant, u64)>,
    secondary: VecDeque<(StatusCode, Option<Duration>)>,
}

const HOST: &str = "api.github.test";
const OWNER: &str = "octo";
const HOUR: Duration = Duration::from_secs(3600);
/// The difference allowed between the clocks of two machines, in seconds.
const DRIFT: u64 = 5;

// --- FakeGithub ---

impl FakeGithub {
    /// The base URL of the API.
    pub const BASE_URL: &'static str = "https://api.github.test";

    /// Starts an emulator that knows one app.
    #[must_use]
    pub fn builder(client_id: impl Into<String>) -> FakeGithubBuilder {
        let permissions = [("contents", "read"), ("issues", "write"), ("metadata", "read")];
        FakeGithubBuilder {
            client_id: client_id.into(),
            installations: HashMap::new(),
            permissions: permissions.map(|(name, access)| (name.to_owned(), access.to_owned())).into(),
            limit: 5_000,
            lifetime: HOUR,
        }
    }

    /// Returns the private key of the app, in PEM. It is made once in a process.
    #[must_use]
    pub fn private_key() -> String {
        ServiceKey::shared().private_pem.clone()
    }

    /// Refuses the next requests for a secondary limit: with 403 or 429, and with `retry-after` if one is given.
    pub fn limit_next(&self, times: usize, status: StatusCode, retry_after: Option<Duration>) {
        self.shared.state().secondary.extend(std::iter::repeat_n((status, retry_after), times));
    }

    /// Revokes every token.
    pub fn revoke_all(&self) {
        self.shared.state().tokens.revoke_all();
    }
}

emulator_service!(FakeGithub, GithubCounts);

// --- FakeGithubBuilder ---

impl FakeGithubBuilder {
    /// Adds an installation with its repositories, which are of the owner `octo`.
    #[must_use]
    pub fn installation<I>(mut self, id: u64, repositories: I) -> Self
    where
        I: IntoIterator<Item: Into<String>>,
    {
        self.installations.insert(id, repositories.into_iter().map(Into::into).collect());
        self
    }

    /// Sets a permission that the installations granted: `read` or `write`.
    #[must_use]
    pub fn permission(mut self, name: impl Into<String>, access: impl Into<String>) -> Self {
        self.permissions.insert(name.into(), access.into());
        self
    }

    /// Sets how many requests an hour each installation has.
    #[must_use]
    pub fn limit(mut self, per_hour: u64) -> Self {
        self.limit = per_hour;
        self
    }

    /// Sets how long tokens live.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Makes the emulator.
    #[must_use]
    pub fn build(self) -> FakeGithub {
        let state = State {
            tokens: Tokens::new(),
            counts: GithubCounts::default(),
            windows: HashMap::new(),
            secondary: VecDeque::new(),
        };
        let shared = Shared::new(self, state);
        FakeGithub { shared: Arc::new(shared), line: Line::within(FakeGithub::BASE_URL) }
    }
}

// --- Responses ---

impl Vendor for Shared {
    fn refuse(&self, _head: &request::Parts, fault: &str) -> Response<Body> {
        message(StatusCode::BAD_REQUEST, fault)
    }

    fn respond(&self, head: &request::Parts, body: &Bytes) -> Result<Response<Body>, Refusal> {
        if head.uri.host() != Some(HOST) {
            return Err(fault(format!("{:?} is not the host of the API", head.uri.host())));
        }
        if strict::text(head, header::USER_AGENT).is_none_or(str::is_empty) {
            self.faults.keep("a request without a user-agent");
            return Err(message(StatusCode::FORBIDDEN, "Request forbidden by administrative rules.").into());
        }
        let secondary = self.state().secondary.pop_front();
        if let Some((status, retry_after)) = secondary {
            self.state().counts.limited += 1;
            let mut response = message(status, "You have exceeded a secondary rate limit.");
            if let Some(wait) = retry_after {
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs()));
            }
            return Err(response.into());
        }
        let path: Vec<&str> = head.uri.path().split('/').skip(1).collect();
        match (&head.method, &path[..]) {
            (&Method::GET, ["app"]) => {
                self.app(head)?;
                strict::expect(&strict::query(head)?, &[], &[])?;
                self.state().counts.ok += 1;
                Ok(json_response(
                    StatusCode::OK,
                    &json!({ "client_id": self.setup.client_id, "slug": "test" }),
                ))
            }
            (&Method::POST, ["app", "installations", id, "access_tokens"]) => {
                self.state().counts.token_requests += 1;
                self.app(head)?;
                self.token(head, id, body)
            }
            (method, path) => {
                let bearer = strict::authorization(head, "Bearer")?;
                let Worth::Active(access) = self.state().tokens.worth(bearer) else {
                    self.state().counts.unauthorized += 1;
                    return Err(message(StatusCode::UNAUTHORIZED, "Bad credentials").into());
                };
                let limits = self.count(&access.client)?;
                let mut response = match (method, path) {
                    (&Method::GET, ["installation", "repositories"]) => repositories(head, &access.scopes)?,
                    (&Method::DELETE, ["installation", "token"]) => {
                        self.state().tokens.revoke(bearer, &access.client);
                        let mut response = Response::new(Body::empty());
                        *response.status_mut() = StatusCode::NO_CONTENT;
                        response
                    }
                    (&Method::POST, ["repos", owner, name, "issues"]) => {
                        issue(head, body, (owner, name), &access.scopes)?
                    }
                    (method, path) => {
                        return Err(fault(format!("{method} /{} is not played", path.join("/"))));
                    }
                };
                self.state().counts.ok += 1;
                response.headers_mut().extend(limits);
                Ok(response)
            }
        }
    }
}

impl Shared {
    /// Checks the JWT of the app.
    fn app(&self, head: &request::Parts) -> Result<(), Refusal> {
        let jwt = strict::authorization(head, "Bearer")?;
        let refused = |what: &str| Refusal::from(message(StatusCode::UNAUTHORIZED, what));
        let verified = ServiceKey::shared().verify(jwt, "RS256");
        let claims = verified.ok_or_else(|| refused("A JSON web token could not be decoded"))?.claims;
        if claims["iss"] != *self.setup.client_id {
            return Err(refused("'Issuer' claim ('iss') is not the app"));
        }
        let now = clock::unix_time().as_secs();
        let (Some(issued), Some(ends)) = (claims["iat"].as_u64(), claims["exp"].as_u64()) else {
            return Err(refused(
                "'Issued at' claim ('iat') and 'Expiration time' claim ('exp') must be integers",
            ));
        };
        if issued > now {
            return Err(refused("'Issued at' claim ('iat') is in the future"));
        }
        match ends {
            _ if ends <= now => Err(refused("'Expiration time' claim ('exp') is in the past")),
            _ if ends > now + 600 + DRIFT => {
                Err(refused("'Expiration time' claim ('exp') is too far in the future"))
            }
            _ => Ok(()),
        }
    }

    fn token(&self, head: &request::Parts, id: &str, body: &Bytes) -> Result<Response<Body>, Refusal> {
        let installed = id.parse().ok().and_then(|id: u64| self.setup.installations.get(&id));
        let installed =
            installed.ok_or_else(|| Refusal::from(message(StatusCode::NOT_FOUND, "Not Found")))?;
        let wanted = match body.is_empty() {
            true => BTreeMap::new(),
            false => strict::object(head, body)?,
        };
        strict::expect(&wanted, &[], &["repositories", "permissions"])?;
        let repositories: Vec<String> = read(&wanted, "repositories")?.unwrap_or_else(|| installed.clone());
        if !repositories.iter().all(|name| installed.contains(name)) {
            let what = "There is at least one repository that does not exist or is not accessible.";
            return Err(message(StatusCode::UNPROCESSABLE_ENTITY, what).into());
        }
        let permissions: BTreeMap<String, String> =
            read(&wanted, "permissions")?.unwrap_or_else(|| self.setup.permissions.clone());
        let may = |(name, access): (&String, &String)| match self.setup.permissions.get(name) {
            Some(granted) => granted == "write" || access == "read",
            None => false,
        };
        if !permissions.iter().all(may) {
            let what = "The permissions requested are not granted to this installation.";
            return Err(message(StatusCode::UNPROCESSABLE_ENTITY, what).into());
        }
        let mut state = self.state();
        let scopes = repositories.iter().map(|name| format!("repository:{name}"));
        let scopes = scopes.chain(permissions.iter().map(|(name, access)| format!("{name}:{access}")));
        let token = state.tokens.issue(id, scopes.collect(), self.setup.lifetime);
        state.counts.tokens += 1;
        let ends = clock::unix_time() + self.setup.lifetime;
        let granted = json!({
            "token": token, "expires_at": strict::rfc3339(ends), "permissions": permissions,
            "repository_selection": "selected",
        });
        Ok(json_response(StatusCode::CREATED, &granted))
    }

    /// Counts a request of an installation, and returns the headers that say what it has left.
    fn count(&self, installation: &str) -> Result<HeaderMap, Refusal> {
        let (mut state, now) = (self.state(), clock::now());
        let window = state.windows.entry(installation.to_owned()).or_insert((now, 0));
        if now.saturating_duration_since(window.0) >= HOUR {
            *window = (now, 0);
        }
        window.1 += 1;
        let (used, limit) = (window.1, self.setup.limit);
        let ends = clock::unix_time() + HOUR.saturating_sub(now.saturating_duration_since(window.0));
        let mut limits = HeaderMap::new();
        limits.insert("x-ratelimit-limit", limit.into());
        limits.insert("x-ratelimit-remaining", limit.saturating_sub(used).into());
        limits.insert("x-ratelimit-used", used.min(limit).into());
        // Seconds are cut off, and no request may come before the end.
        limits.insert("x-ratelimit-reset", (ends.as_secs() + 1).into());
        if used <= limit {
            return Ok(limits);
        }
        state.counts.limited += 1;
        let mut response = message(StatusCode::FORBIDDEN, "API rate limit exceeded for installation.");
        response.headers_mut().extend(limits);
        Err(response.into())
    }
}

fn repositories(head: &request::Parts, scopes: &[String]) -> Result<Response<Body>, Refusal> {
    let query = strict::query(head)?;
    strict::expect(&query, &[], &["per_page", "page"])?;
    let number = |name: &str, or: usize| match query.get(name).map(|value| value.parse()) {
        None => Ok(or),
        Some(Ok(number)) if (1..=100).contains(&number) => Ok(number),
        Some(_) => Err(fault(format!("{name} is not a number from 1 to 100"))),
    };
    let (size, page) = (number("per_page", 30)?, number("page", 1)?);
    let all: Vec<&str> = scopes.iter().filter_map(|scope| scope.strip_prefix("repository:")).collect();
    let found = all.iter().skip((page - 1) * size).take(size);
    let found: Vec<Value> = found.map(|name| json!({ "full_name": format!("{OWNER}/{name}") })).collect();
    let list = json!({ "total_count": all.len(), "repositories": found });
    let mut response = json_response(StatusCode::OK, &list);
    if page * size < all.len() {
        let next = format!(
            "<https://{HOST}/installation/repositories?per_page={size}&page={}>; rel=\"next\"",
            page + 1
        );
        let next = HeaderValue::try_from(next).map_err(|_| fault("a link that is no header"))?;
        response.headers_mut().insert(header::LINK, next);
    }
    Ok(response)
}

fn issue(
    head: &request::Parts,
    body: &Bytes,
    (owner, name): (&str, &str),
    scopes: &[String],
) -> Result<Response<Body>, Refusal> {
    let fields = strict::object(head, body)?;
    strict::expect(&fields, &["title"], &["body"])?;
    if owner != OWNER || !scopes.contains(&format!("repository:{name}")) {
        return Err(message(StatusCode::NOT_FOUND, "Not Found").into());
    }
    if !scopes.iter().any(|scope| scope == "issues:write") {
        return Err(message(StatusCode::FORBIDDEN, "Resource not accessible by integration").into());
    }
    Ok(json_response(StatusCode::CREATED, &json!({ "number": 1, "title": fields["title"] })))
}

// --- Helpers ---

/// Reads a field that is of this type, if it is there.
fn read<T: serde::de::DeserializeOwned>(
    fields: &BTreeMap<String, Value>,
    name: &str,
) -> Result<Option<T>, Refusal> {
    let value = fields.get(name).map(|value| serde_json::from_value(value.clone()));
    value.transpose().map_err(|_| fault(format!("{name} is of another type")))
}

fn message(status: StatusCode, message: &str) -> Response<Body> {
    json_response(status, &json!({ "message": message, "documentation_url": "https://docs.github.com/rest" }))
}
