//! The responses of the authorization server: RFC 6749 (client credentials, refresh), RFC 8628 (device flow), RFC 7009
//! (revocation), RFC 7662 (introspection), RFC 7523 (clients with a key), RFC 8693 (token exchange), RFC 8414 (metadata).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::BoxError;

use super::assertions::Assertions;
use super::authorization_server::AuthorizationServerCounts;
use super::client::{self, FakeClient, Refusal, Verifier};
use super::devices::{self, Devices};
use super::presence::Presence;
use super::tokens::{Rotation, Tokens, Worth};
use super::trouble::Troubles;
use crate::body::Body;
use crate::clock;

pub(super) const TOKEN: &str = "/token";
pub(super) const REVOCATION: &str = "/revoke";
pub(super) const INTROSPECTION: &str = "/introspect";
pub(super) const DEVICE_AUTHORIZATION: &str = "/device_authorization";
const DEVICE: &str = "/device";
const METADATA: &str = "/.well-known/oauth-authorization-server";

/// The state of an authorization server.
pub(super) struct Shared {
    pub(super) clients: Mutex<HashMap<String, FakeClient>>,
    pub(super) platform: Option<Verifier>,
    pub(super) assertions: Assertions,
    pub(super) tokens: Mutex<Tokens>,
    pub(super) devices: Mutex<Devices>,
    pub(super) pace: Mutex<Pace>,
    pub(super) troubles: Troubles,
    pub(super) counters: Counters,
}

/// How the token endpoint behaves.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    pub(super) lifetime: Duration,
    pub(super) latency: Duration,
}

#[derive(Default)]
pub(super) struct Counters {
    token_requests: AtomicU64,
    in_progress: AtomicU64,
    tokens: AtomicU64,
    refusals: AtomicU64,
    revocations: AtomicU64,
    reuses: AtomicU64,
    introspections: AtomicU64,
}

/// Why there is no token but an error (RFC 6749 §5.2).
enum Refused {
    Client(Refusal),
    Request(&'static str, &'static str),
}

type Form = HashMap<String, String>;

/// Responds to a request at any of the endpoints.
pub(super) async fn respond(shared: Arc<Shared>, request: Request<Body>) -> Result<Response<Body>, BoxError> {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let allowed = match path {
        TOKEN | REVOCATION | INTROSPECTION | DEVICE_AUTHORIZATION | DEVICE => Method::POST,
        METADATA => Method::GET,
        _ => return Ok(empty(StatusCode::NOT_FOUND)),
    };
    if head.method != allowed {
        return Ok(empty(StatusCode::METHOD_NOT_ALLOWED));
    }
    let form = body.collect().await?.to_bytes();
    let Some(form) = read_form(&head.method, &head.headers, &form) else {
        return Ok(refuse(&Refused::Request("invalid_request", "the body is not a form")));
    };
    let result = match path {
        TOKEN => return token(&shared, &head.headers, &form).await,
        REVOCATION => revoke(&shared, &head.headers, &form),
        INTROSPECTION => introspect(&shared, &head.headers, &form),
        DEVICE_AUTHORIZATION => begin_device(&shared, &head.headers, &form),
        DEVICE => Ok(agree_to_device(&shared, &form)),
        _ => Ok(metadata(&shared)),
    };
    Ok(result.unwrap_or_else(|refused| refuse(&refused)))
}

// --- Shared ---

impl Shared {
    // No lock guards a step that can be left half done, so what a panic leaves behind is sound.
    pub(super) fn clients(&self) -> MutexGuard<'_, HashMap<String, FakeClient>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tokens(&self) -> MutexGuard<'_, Tokens> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn devices(&self) -> MutexGuard<'_, Devices> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn authenticate(&self, headers: &HeaderMap, form: &Form) -> Result<FakeClient, Refused> {
        client::authenticate(&self.clients(), headers, form, &self.assertions)
            .cloned()
            .map_err(Refused::Client)
    }
}

impl Counters {
    pub(super) fn note_revocation(&self) {
        self.revocations.fetch_add(1, Relaxed);
    }

    pub(super) fn read(&self) -> AuthorizationServerCounts {
        AuthorizationServerCounts {
            token_requests: self.token_requests.load(Relaxed),
            in_progress: self.in_progress.load(Relaxed),
            tokens: self.tokens.load(Relaxed),
            refusals: self.refusals.load(Relaxed),
            revocations: self.revocations.load(Relaxed),
            reuses: self.reuses.load(Relaxed),
            introspections: self.introspections.load(Relaxed),
            ..AuthorizationServerCounts::default()
        }
    }
}

// --- The token endpoint ---

async fn token(shared: &Shared, headers: &HeaderMap, form: &Form) -> Result<Response<Body>, BoxError> {
    shared.counters.token_requests.fetch_add(1, Relaxed);
    let _in_progress = Presence::enter(&shared.counters.in_progress);
    let (pace, trouble) = (*shared.pace(), shared.troubles.next());
    if !pace.latency.is_zero() {
        tokio::time::sleep(pace.latency).await;
    }
    if let Some(trouble) = trouble {
        return trouble.make().await;
    }
    Ok(match grant(shared, headers, form, pace.lifetime) {
        Ok(granted) => {
            shared.counters.tokens.fetch_add(1, Relaxed);
            uncached(&granted)
        }
        Err(refused) => {
            shared.counters.refusals.fetch_add(1, Relaxed);
            refuse(&refused)
        }
    })
}

fn grant(shared: &Shared, headers: &HeaderMap, form: &Form, lifetime: Duration) -> Result<Value, Refused> {
    let client = shared.authenticate(headers, form)?;
    match form.get("grant_type").map(String::as_str) {
        Some("client_credentials") => {
            if !client.may_use_client_credentials() {
                return Err(Refused::Request("unauthorized_client", "this client may not use this grant"));
            }
            let scopes = granted_scopes(&client, form)?;
            let access = shared.tokens().issue(client.id(), scopes.clone(), lifetime);
            Ok(granted(&access, None, &scopes, lifetime))
        }
        Some("refresh_token") => refresh(shared, &client, form, lifetime),
        Some("urn:ietf:params:oauth:grant-type:token-exchange") => exchange(shared, &client, form, lifetime),
        Some("urn:ietf:params:oauth:grant-type:device_code") => poll_device(shared, &client, form, lifetime),
        Some(_) => Err(Refused::Request("unsupported_grant_type", "this grant is not known here")),
        None => Err(Refused::Request("invalid_request", "the grant type is missing")),
    }
}

fn refresh(shared: &Shared, client: &FakeClient, form: &Form, lifetime: Duration) -> Result<Value, Refused> {
    let secret = form
        .get("refresh_token")
        .ok_or(Refused::Request("invalid_request", "the refresh token is missing"))?;
    let asked = form.get("scope").map(String::as_str);
    let rotation = shared.tokens().rotate(secret, client.id(), asked, lifetime);
    match rotation {
        Rotation::Rotated { access, refresh, scopes } => {
            Ok(granted(&access, Some(&refresh), &scopes, lifetime))
        }
        Rotation::TooManyScopes => Err(Refused::Request("invalid_scope", "more scopes than were agreed to")),
        Rotation::Reused => {
            shared.counters.reuses.fetch_add(1, Relaxed);
            Err(Refused::Request("invalid_grant", "the refresh token was used before; sign in again"))
        }
        Rotation::Unknown => {
            Err(Refused::Request("invalid_grant", "the refresh token is unknown or revoked"))
        }
    }
}

fn exchange(shared: &Shared, client: &FakeClient, form: &Form, lifetime: Duration) -> Result<Value, Refused> {
    let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    if field("subject_token_type") != "urn:ietf:params:oauth:token-type:jwt" {
        return Err(Refused::Request("invalid_request", "the subject token must be a JWT"));
    }
    let platform = shared.platform.as_ref();
    let claims = platform.and_then(|verifies| shared.assertions.current(field("subject_token"), verifies));
    if !claims.is_some_and(|claims| client.is_workload(&claims["sub"])) {
        return Err(Refused::Request(
            "invalid_grant",
            "the subject token is expired, or not of this workload",
        ));
    }
    let scopes = granted_scopes(client, form)?;
    let access = shared.tokens().issue(client.id(), scopes.clone(), lifetime);
    let mut body = granted(&access, None, &scopes, lifetime);
    body["issued_token_type"] = "urn:ietf:params:oauth:token-type:access_token".into();
    Ok(body)
}

fn poll_device(
    shared: &Shared,
    client: &FakeClient,
    form: &Form,
    lifetime: Duration,
) -> Result<Value, Refused> {
    let code = form.get("device_code");
    let code = code.ok_or(Refused::Request("invalid_request", "the device code is missing"))?;
    let polled = shared.devices().poll(code, client.id());
    match polled {
        devices::Poll::Agreed(scopes) => {
            let (access, refresh) = shared.tokens().issue_both(client.id(), scopes.clone(), lifetime);
            let is_kept = scopes.iter().any(|scope| scope == "offline_access");
            Ok(granted(&access, is_kept.then_some(&*refresh), &scopes, lifetime))
        }
        devices::Poll::Pending => {
            Err(Refused::Request("authorization_pending", "the user has not agreed yet"))
        }
        devices::Poll::Expired => Err(Refused::Request("expired_token", "the code has expired; begin again")),
        devices::Poll::Unknown => Err(Refused::Request("invalid_grant", "the device code is unknown")),
    }
}

fn granted_scopes(client: &FakeClient, form: &Form) -> Result<Vec<String>, Refused> {
    client
        .grant(form.get("scope").map(String::as_str))
        .ok_or(Refused::Request("invalid_scope", "a scope is unknown or out of reach for this client"))
}

fn granted(access: &str, refresh: Option<&str>, scopes: &[String], lifetime: Duration) -> Value {
    let mut body = json!({
        "access_token": access,
        "token_type": "Bearer",
        "expires_in": lifetime.as_secs(),
        "scope": scopes.join(" "),
    });
    if let Some(refresh) = refresh {
        body["refresh_token"] = refresh.into();
    }
    body
}

// --- The other endpoints ---

fn begin_device(shared: &Shared, headers: &HeaderMap, form: &Form) -> Result<Response<Body>, Refused> {
    let client = shared.authenticate(headers, form)?;
    let scopes = granted_scopes(&client, form)?;
    let (device_code, user_code) = shared.devices().begin(client.id(), scopes);
    Ok(uncached(&json!({
        "device_code": device_code,
        "user_code": user_code,
        "verification_uri": format!("{}{DEVICE}", shared.assertions.issuer()),
        "expires_in": devices::LIFETIME.as_secs(),
        "interval": devices::INTERVAL.as_secs(),
    })))
}

fn agree_to_device(shared: &Shared, form: &Form) -> Response<Body> {
    let is_known = form.get("user_code").is_some_and(|code| shared.devices().agree(code));
    empty(if is_known { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND })
}

fn revoke(shared: &Shared, headers: &HeaderMap, form: &Form) -> Result<Response<Body>, Refused> {
    let client = shared.authenticate(headers, form)?;
    let secret = form.get("token").ok_or(Refused::Request("invalid_request", "the token is missing"))?;
    shared.counters.note_revocation();
    // RFC 7009 §2.2: a token that is unknown, or not this client's, is 200 as well.
    shared.tokens().revoke(secret, client.id());
    Ok(empty(StatusCode::OK))
}

fn introspect(shared: &Shared, headers: &HeaderMap, form: &Form) -> Result<Response<Body>, Refused> {
    shared.counters.introspections.fetch_add(1, Relaxed);
    shared.authenticate(headers, form)?;
    let secret = form.get("token").ok_or(Refused::Request("invalid_request", "the token is missing"))?;
    let worth = shared.tokens().worth(secret);
    let Worth::Active(access) = worth else {
        // RFC 7662 §2.2: not a word about why.
        return Ok(uncached(&json!({ "active": false })));
    };
    let expiry = clock::unix_time() + access.expires.saturating_duration_since(clock::now());
    Ok(uncached(&json!({
        "active": true,
        "client_id": access.client,
        "scope": access.scopes.join(" "),
        "token_type": "Bearer",
        "exp": expiry.as_secs(),
    })))
}

fn metadata(shared: &Shared) -> Response<Body> {
    let issuer = shared.assertions.issuer();
    let at = |path: &str| format!("{issuer}{path}");
    json_response(
        StatusCode::OK,
        &json!({
            "issuer": issuer,
            "token_endpoint": at(TOKEN),
            "revocation_endpoint": at(REVOCATION),
            "introspection_endpoint": at(INTROSPECTION),
            "device_authorization_endpoint": at(DEVICE_AUTHORIZATION),
            "grant_types_supported": [
                "client_credentials",
                "refresh_token",
                "urn:ietf:params:oauth:grant-type:token-exchange",
                "urn:ietf:params:oauth:grant-type:device_code",
            ],
            "token_endpoint_auth_methods_supported":
                ["client_secret_basic", "client_secret_post", "private_key_jwt", "none"],
            "response_types_supported": [],
        }),
    )
}

// --- Forms and responses ---

/// Reads a form. A request without a body has an empty one.
fn read_form(method: &Method, headers: &HeaderMap, body: &Bytes) -> Option<Form> {
    if method == Method::POST {
        let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return None;
        }
    }
    Some(form_urlencoded::parse(body).into_owned().collect())
}

fn refuse(refused: &Refused) -> Response<Body> {
    let (status, code, description) = match refused {
        Refused::Client(Refusal::Unknown { .. }) => {
            (StatusCode::UNAUTHORIZED, "invalid_client", "client authentication failed")
        }
        Refused::Client(Refusal::Malformed) => {
            (StatusCode::BAD_REQUEST, "invalid_request", "one way of client authentication, please")
        }
        Refused::Request(code, description) => (StatusCode::BAD_REQUEST, *code, *description),
    };
    let mut response = json_response(status, &json!({ "error": code, "error_description": description }));
    if let Refused::Client(Refusal::Unknown { by_basic: true }) = refused {
        let challenge = HeaderValue::from_static("Basic realm=\"tokens\", charset=\"UTF-8\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

/// RFC 6749 §5.1: what carries a token is not to be stored on the way.
fn uncached(body: &Value) -> Response<Body> {
    let mut response = json_response(StatusCode::OK, body);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn json_response(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = status;
    response
}
