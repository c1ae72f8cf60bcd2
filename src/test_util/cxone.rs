//! NICE CXone, as far as its clients see it: discovery, tokens, and one list.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Method, Response, StatusCode, header, request};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::emulator::{Emulator, Vendor, emulator_service};
use super::line::Line;
use super::strict::{self, Refusal, fault, json_response};
use super::tokens::random;
use super::trouble::Trouble;
use crate::body::Body;
use crate::clock;

/// An emulator of NICE CXone within the process. Clones are the same one.
///
/// | request | response |
/// |---|---|
/// | `GET login.cxone.test/.well-known/openid-configuration` | where tokens are |
/// | `POST login.cxone.test/auth/token` | password grant by an access key, client credentials, refresh token; HTTP Basic |
/// | `POST na1.cxone.test/authentication/v1/token/access-key` | the same access key as JSON, without a client |
/// | `GET login.cxone.test/.well-known/cxone-configuration?tenantId=` | where the API of the tenant is |
/// | `GET api-na1.cxone.test/incontactapi/services/v30.0/agents?skip=&top=` | pages of agents |
///
/// It is strict: what is wrong or too much is a 400, and is kept in [`faults`](Self::faults). Its shapes were read in the code
/// of others, and are *not confirmed* by the vendor.
///
/// # Examples
///
/// ```
/// # #[cfg(all(feature = "providers", feature = "stack"))] {
/// use tower_oauth2::providers::cxone::Cxone;
/// use tower_oauth2::test_util::FakeCxone;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let fake = FakeCxone::builder().client("reports", "s3cr=t").access_key("key", "k=y").agents(3).build();
/// let cxone = Cxone::new("reports", "s3cr=t").access_key("key", "k=y");
/// let cxone = cxone.issuer(FakeCxone::ISSUER).domains([FakeCxone::DOMAIN]);
/// let api = cxone.connect_with(fake.clone()).await?;
/// assert_eq!(api.get("incontactapi/services/v30.0/agents").send().await?.status(), 200);
/// assert!(fake.faults().is_empty());
/// # Ok::<_, tower::BoxError>(()) })?;
/// # }
/// # Ok::<_, tower::BoxError>(())
/// ```
#[derive(Clone)]
pub struct FakeCxone {
    shared: Arc<Shared>,
    line: Line,
}

/// Sets up a [`FakeCxone`].
///
/// Defaults:
///
/// - no client, no access key, no agents
/// - tokens live for an hour, and the response says so
/// - no refresh tokens
/// - the API is at `https://api-na1.cxone.test`
#[derive(Debug)]
pub struct FakeCxoneBuilder {
    client: Option<(String, String)>,
    access_key: Option<(String, String)>,
    agents: u64,
    lifetime: Duration,
    says_lifetime: bool,
    has_refresh_tokens: bool,
    takes_refresh_tokens: bool,
    api: String,
}

/// The counts of a [`FakeCxone`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CxoneCounts {
    /// Requests that came to a token endpoint.
    pub token_requests: u64,
    /// Tokens that were issued.
    pub tokens: u64,
    /// Those of them that were issued for a refresh token.
    pub refreshed: u64,
    /// Times that the configuration of the tenant was read.
    pub discoveries: u64,
    /// Requests that came to the API with a good token.
    pub ok: u64,
    /// Requests that came to the API with another one.
    pub unauthorized: u64,
}

type Shared = Emulator<FakeCxoneBuilder, State>;

#[derive(Default)]
struct State {
    tokens: HashMap<String, Instant>,
    refresh_tokens: HashSet<String>,
    counts: CxoneCounts,
}

const TENANT: &str = "11eb-tenant";
const AGENTS: &str = "/incontactapi/services/v30.0/agents";

// --- FakeCxone ---

impl FakeCxone {
    /// The issuer.
    pub const ISSUER: &'static str = "https://login.cxone.test";
    /// The domain of all hosts.
    pub const DOMAIN: &'static str = "cxone.test";
    /// The origin of the `UserHub`.
    pub const USER_HUB: &'static str = "https://na1.cxone.test";

    /// Starts an emulator.
    #[must_use]
    pub fn builder() -> FakeCxoneBuilder {
        FakeCxoneBuilder {
            client: None,
            access_key: None,
            agents: 0,
            lifetime: Duration::from_secs(3600),
            says_lifetime: true,
            has_refresh_tokens: false,
            takes_refresh_tokens: true,
            api: "https://api-na1.cxone.test".to_owned(),
        }
    }

    /// Makes the next `times` requests of the API fail like this.
    pub fn fail_next(&self, times: usize, trouble: Trouble) {
        self.shared.troubles.order(times, trouble);
    }

    /// Revokes every token.
    pub fn revoke_all(&self) {
        self.shared.state().tokens.clear();
    }

    /// Ends every refresh token.
    pub fn revoke_refresh_tokens(&self) {
        self.shared.state().refresh_tokens.clear();
    }
}

emulator_service!(FakeCxone, CxoneCounts);

// --- FakeCxoneBuilder ---

impl FakeCxoneBuilder {
    /// Sets the OAuth client.
    #[must_use]
    pub fn client(mut self, id: impl Into<String>, secret: impl Into<String>) -> Self {
        self.client = Some((id.into(), secret.into()));
        self
    }

    /// Sets the access key of an API user.
    #[must_use]
    pub fn access_key(mut self, id: impl Into<String>, secret: impl Into<String>) -> Self {
        self.access_key = Some((id.into(), secret.into()));
        self
    }

    /// Sets how many agents there are.
    #[must_use]
    pub fn agents(mut self, agents: u64) -> Self {
        self.agents = agents;
        self
    }

    /// Sets how long tokens live.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Sets whether a token response has `expires_in`. Without it the token itself says when it ends.
    #[must_use]
    pub fn expires_in(mut self, is_said: bool) -> Self {
        self.says_lifetime = is_said;
        self
    }

    /// Sets whether a token of an access key comes with a refresh token. Each is good for one use.
    #[must_use]
    pub fn refresh_tokens(mut self, are_issued: bool) -> Self {
        self.has_refresh_tokens = are_issued;
        self
    }

    /// Sets whether the token endpoint takes refresh tokens; otherwise it returns `unsupported_grant_type`.
    #[must_use]
    pub fn refresh_grant(mut self, is_known: bool) -> Self {
        self.takes_refresh_tokens = is_known;
        self
    }

    /// Sets what the configuration of the tenant names as its API.
    #[must_use]
    pub fn api(mut self, url: impl Into<String>) -> Self {
        self.api = url.into();
        self
    }

    /// Makes the emulator.
    #[must_use]
    pub fn build(self) -> FakeCxone {
        let shared = Shared::new(self, State::default());
        FakeCxone { shared: Arc::new(shared), line: Line::within(FakeCxone::ISSUER) }
    }
}

// --- Responses ---

impl Vendor for Shared {
    fn trouble(&self, head: &request::Parts) -> Option<Trouble> {
        if head.uri.path() == AGENTS { self.troubles.next() } else { None }
    }

    fn respond(&self, head: &request::Parts, body: &Bytes) -> Result<Response<Body>, Refusal> {
        match (&head.method, head.uri.host().unwrap_or_default(), head.uri.path()) {
            (&Method::GET, "login.cxone.test", "/.well-known/openid-configuration") => Ok(json_response(
                StatusCode::OK,
                &json!({ "issuer": FakeCxone::ISSUER, "token_endpoint": "https://login.cxone.test/auth/token" }),
            )),
            (&Method::GET, "login.cxone.test", "/.well-known/oauth-authorization-server") => {
                Ok(json_response(StatusCode::NOT_FOUND, &json!({})))
            }
            (&Method::GET, "login.cxone.test", "/.well-known/cxone-configuration") => {
                self.configuration(head)
            }
            (&Method::POST, "login.cxone.test", "/auth/token") => self.token(head, body),
            (&Method::POST, "na1.cxone.test", "/authentication/v1/token/access-key") => {
                self.access_key(head, body)
            }
            (&Method::GET, "api-na1.cxone.test", AGENTS) => self.agents(head),
            (method, host, path) => Err(fault(format!("{method} {path} is not at {host}"))),
        }
    }
}

impl Shared {
    fn configuration(&self, head: &request::Parts) -> Result<Response<Body>, Refusal> {
        if head.headers.contains_key(header::AUTHORIZATION) {
            return Err(fault("a token was sent to the discovery"));
        }
        let query = strict::query(head)?;
        strict::expect(&query, &["tenantId"], &[])?;
        strict::expect_value(&query, "tenantId", TENANT)?;
        self.state().counts.discoveries += 1;
        let found = json!({ "tenantId": TENANT, "api_endpoint": self.setup.api, "area": "na1", "domain": "cxone.test" });
        Ok(json_response(StatusCode::OK, &found))
    }

    fn token(&self, head: &request::Parts, body: &Bytes) -> Result<Response<Body>, Refusal> {
        self.state().counts.token_requests += 1;
        let form = strict::form(head, body)?;
        let pair = strict::basic(head)?;
        // RFC 6749 §2.3.1: both halves are form-encoded.
        let half = |text: &str| strict::pairs(format!("x={text}").as_bytes()).ok()?.remove("x");
        let client = pair.split_once(':').and_then(|(id, secret)| Some((half(id)?, half(secret)?)));
        if client.is_none() || client != self.setup.client {
            return Err(refused(StatusCode::UNAUTHORIZED, "invalid_client"));
        }
        match form.get("grant_type").map(String::as_str) {
            Some("client_credentials") => {
                strict::expect(&form, &["grant_type"], &[])?;
                Ok(self.issue(false))
            }
            Some("refresh_token") => {
                strict::expect(&form, &["grant_type", "refresh_token"], &[])?;
                if !self.setup.takes_refresh_tokens {
                    return Err(refused(StatusCode::BAD_REQUEST, "unsupported_grant_type"));
                }
                let is_good = self.state().refresh_tokens.remove(&form["refresh_token"]);
                if !is_good {
                    return Err(refused(StatusCode::BAD_REQUEST, "invalid_grant"));
                }
                self.state().counts.refreshed += 1;
                Ok(self.issue(true))
            }
            Some("password") => {
                strict::expect(&form, &["grant_type", "username", "password"], &[])?;
                self.check_key(&form["username"], &form["password"])?;
                Ok(self.issue(true))
            }
            _ => Err(fault("the grant is unknown")),
        }
    }

    fn access_key(&self, head: &request::Parts, body: &Bytes) -> Result<Response<Body>, Refusal> {
        self.state().counts.token_requests += 1;
        let key = strict::object(head, body)?;
        if head.headers.contains_key(header::AUTHORIZATION) {
            return Err(fault("the UserHub knows no client"));
        }
        strict::expect(&key, &["accessKeyId", "accessKeySecret"], &[])?;
        let (Some(id), Some(secret)) = (key["accessKeyId"].as_str(), key["accessKeySecret"].as_str()) else {
            return Err(fault("accessKeyId or accessKeySecret is not a string"));
        };
        self.check_key(id, secret)?;
        Ok(self.issue(false))
    }

    fn check_key(&self, id: &str, secret: &str) -> Result<(), Refusal> {
        match &self.setup.access_key {
            Some((known, its)) if known == id && its == secret => Ok(()),
            Some(_) | None => Err(refused(StatusCode::BAD_REQUEST, "invalid_grant")),
        }
    }

    fn issue(&self, is_renewable: bool) -> Response<Body> {
        let (now, lifetime) = (clock::unix_time().as_secs(), self.setup.lifetime.as_secs());
        let jwt = |claims: Value| {
            let claims = BASE64_URL_SAFE_NO_PAD.encode(claims.to_string());
            format!("e30.{claims}.{}", random())
        };
        let access = jwt(json!({ "iat": now, "exp": now + lifetime }));
        let mut granted = json!({
            "access_token": access, "token_type": "Bearer", "id_token": jwt(json!({ "tenantId": TENANT })),
        });
        if self.setup.says_lifetime {
            granted["expires_in"] = lifetime.into();
        }
        let mut state = self.state();
        if is_renewable && self.setup.has_refresh_tokens {
            let refresh_token = random();
            granted["refresh_token"] = refresh_token.clone().into();
            state.refresh_tokens.insert(refresh_token);
        }
        state.tokens.insert(access, clock::now() + self.setup.lifetime);
        state.counts.tokens += 1;
        json_response(StatusCode::OK, &granted)
    }

    fn agents(&self, head: &request::Parts) -> Result<Response<Body>, Refusal> {
        let mut state = self.state();
        let bearer = strict::authorization(head, "Bearer")?;
        if state.tokens.get(bearer).is_none_or(|ends| *ends <= clock::now()) {
            state.counts.unauthorized += 1;
            return Err(refused(StatusCode::UNAUTHORIZED, "invalid_token"));
        }
        let query = strict::query(head)?;
        strict::expect(&query, &[], &["skip", "top"])?;
        let number = |name: &str, or: u64| match query.get(name) {
            None => Ok(or),
            Some(value) => value.parse().map_err(|_| fault(format!("{name} is not a number"))),
        };
        let (skip, top) = (number("skip", 0)?.min(self.setup.agents), number("top", 100)?);
        let agents: Vec<Value> = (skip..skip.saturating_add(top).min(self.setup.agents))
            .map(|number| json!({ "agentId": number }))
            .collect();
        state.counts.ok += 1;
        let list = json!({ "resultSet": { "totalRecords": self.setup.agents }, "agents": agents });
        Ok(json_response(StatusCode::OK, &list))
    }
}

// --- Helpers ---

fn refused(status: StatusCode, code: &str) -> Refusal {
    Refusal::status(status, &json!({ "error": code }))
}
