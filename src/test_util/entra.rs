//! Microsoft Entra ID, as far as its clients see it: apps, managed identities, and an API that challenges for claims.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header, request};
use serde_json::{Value, json};

use super::emulator::{Emulator, Vendor, emulator_service};
use super::line::Line;
use super::signatures::ServiceKey;
use super::strict::{self, Fields, Refusal, fault, json_response};
use super::tokens::{Access, Tokens, Worth};
use super::trouble::Trouble;
use crate::body::Body;
use crate::clock;

/// An emulator of Microsoft Entra ID, of the servers beside the machines of Azure, and of an API, within the process (feature
/// `jwt`). Clones are the same one.
///
/// | request | response |
/// |---|---|
/// | `POST login.entra.test/{tenant}/oauth2/v2.0/token` | client credentials by a secret, by an assertion of the [certificate](Self::certificate), or by the [token](Self::FEDERATED_TOKEN) of a platform |
/// | `GET http://169.254.169.254/metadata/identity/oauth2/token` | a token of a virtual machine |
/// | `GET` [`IDENTITY_ENDPOINT`](Self::IDENTITY_ENDPOINT) | a token of App Service |
/// | `GET graph.entra.test/v1.0/users`, `POST` | a list of users; one more |
///
/// It is strict: a method, host, path, header, query parameter or field that is wrong or too much is a 400, and is kept in
/// [`faults`](Self::faults). Assertions are PS256, name the certificate by `x5t#S256`, hold for ten minutes at most, and come once.
/// The text of refusals is *not confirmed* word by word.
///
/// # Examples
///
/// ```
/// # #[cfg(all(feature = "providers", feature = "stack"))] {
/// use tower_oauth2::providers::entra::Entra;
/// use tower_oauth2::test_util::FakeEntra;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let fake = FakeEntra::builder().client("reports", "s3cr~t").build();
/// let entra = Entra::with_secret(FakeEntra::TENANT, "reports", "s3cr~t").authority(FakeEntra::AUTHORITY);
/// let graph = entra.connect_with("https://graph.entra.test/v1.0", fake.clone())?;
/// assert_eq!(graph.get("users").send().await?.status(), 200);
/// assert!(fake.faults().is_empty());
/// # Ok::<_, tower::BoxError>(()) })?;
/// # }
/// # Ok::<_, tower::BoxError>(())
/// ```
#[derive(Clone)]
pub struct FakeEntra {
    shared: Arc<Shared>,
    line: Line,
}

/// Sets up a [`FakeEntra`].
///
/// Defaults:
///
/// - no apps
/// - one managed identity, which the system assigned
/// - tokens live for an hour
#[derive(Debug)]
pub struct FakeEntraBuilder {
    secrets: HashMap<String, String>,
    certificate_clients: HashSet<String>,
    workloads: HashSet<String>,
    identities: HashSet<String>,
    lifetime: Duration,
}

/// The counts of a [`FakeEntra`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EntraCounts {
    /// Requests for tokens, wherever they came.
    pub token_requests: u64,
    /// Tokens that were issued.
    pub tokens: u64,
    /// Requests that the API challenged for claims.
    pub challenged: u64,
    /// Requests of the API that succeeded.
    pub ok: u64,
    /// Requests of the API whose token was not valid.
    pub unauthorized: u64,
}

type Shared = Emulator<FakeEntraBuilder, State>;

struct State {
    tokens: Tokens,
    counts: EntraCounts,
    /// Assertions that came.
    seen: HashSet<String>,
    /// The claim that the API asks for, in the `access_token` of the claims.
    demand: Option<Value>,
    /// The next statuses of the servers beside machines in place of a token.
    machine: VecDeque<StatusCode>,
}

const TOKEN_URL: &str = "https://login.entra.test/7d1a4f0c-tenant/oauth2/v2.0/token";
const SCOPE: &str = "https://graph.entra.test/.default";
const RESOURCE: &str = "https://graph.entra.test";
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const SYSTEM: &str = "system";
/// The difference allowed between the clocks of two machines, in seconds.
const DRIFT: u64 = 5;

// --- FakeEntra ---

impl FakeEntra {
    /// The tenant.
    pub const TENANT: &'static str = "7d1a4f0c-tenant";
    /// The origin of the authorization server.
    pub const AUTHORITY: &'static str = "https://login.entra.test";
    /// The token of a platform that is taken.
    pub const FEDERATED_TOKEN: &'static str = "e30.e30.federated";
    /// Where App Service has its tokens, and the header that a request for one has.
    pub const IDENTITY_ENDPOINT: &'static str = "http://169.254.129.1:8081/msi/token";
    /// The value of `X-IDENTITY-HEADER`.
    pub const IDENTITY_HEADER: &'static str = "853b9a84";

    /// Starts an emulator.
    #[must_use]
    pub fn builder() -> FakeEntraBuilder {
        FakeEntraBuilder {
            secrets: HashMap::new(),
            certificate_clients: HashSet::new(),
            workloads: HashSet::new(),
            identities: HashSet::new(),
            lifetime: Duration::from_secs(3600),
        }
    }

    /// Returns the private key of the [certificate](Self::certificate), in PEM. It is made once in a process.
    #[must_use]
    pub fn private_key() -> String {
        ServiceKey::shared().private_pem.clone()
    }

    /// Returns the certificate that the apps by certificate have, in PEM.
    #[must_use]
    pub fn certificate() -> String {
        ServiceKey::shared().certificate_pem.clone()
    }

    /// Makes the API demand claims from now on, given as the JSON object that the `access_token` of a claims parameter holds, such
    /// as `{"nbf": {"essential": true, "value": "1700000000"}}`. Tokens of clients that do not know challenges go on.
    ///
    /// # Panics
    ///
    /// If it is not JSON.
    pub fn demand_claims(&self, access_token: &str) {
        let demand = serde_json::from_str(access_token).expect("claims are JSON");
        self.shared.state().demand = Some(demand);
    }

    /// Makes the next `times` requests of the API fail like this.
    pub fn fail_next(&self, times: usize, trouble: Trouble) {
        self.shared.troubles.order(times, trouble);
    }

    /// Makes the next `times` token requests of apps fail like this.
    pub fn fail_next_tokens(&self, times: usize, trouble: Trouble) {
        self.shared.token_troubles.order(times, trouble);
    }

    /// Makes the servers beside machines respond with these statuses next, in this order, without a hint when to come back: 404
    /// while they do not know an identity yet, 410 while they are updated, 429.
    pub fn machine_responds(&self, statuses: impl IntoIterator<Item = StatusCode>) {
        self.shared.state().machine.extend(statuses);
    }

    /// Revokes every token.
    pub fn revoke_all(&self) {
        self.shared.state().tokens.revoke_all();
    }
}

emulator_service!(FakeEntra, EntraCounts);

// --- FakeEntraBuilder ---

impl FakeEntraBuilder {
    /// Adds an app with a secret.
    #[must_use]
    pub fn client(mut self, id: impl Into<String>, secret: impl Into<String>) -> Self {
        self.secrets.insert(id.into(), secret.into());
        self
    }

    /// Adds an app with the [certificate](FakeEntra::certificate).
    #[must_use]
    pub fn certificate_client(mut self, id: impl Into<String>) -> Self {
        self.certificate_clients.insert(id.into());
        self
    }

    /// Adds an app that trusts the [token](FakeEntra::FEDERATED_TOKEN) of a platform.
    #[must_use]
    pub fn workload(mut self, id: impl Into<String>) -> Self {
        self.workloads.insert(id.into());
        self
    }

    /// Adds a managed identity that a user assigned to the machine, by its client id.
    #[must_use]
    pub fn user_assigned(mut self, client_id: impl Into<String>) -> Self {
        self.identities.insert(client_id.into());
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
    pub fn build(self) -> FakeEntra {
        let state = State {
            tokens: Tokens::new(),
            counts: EntraCounts::default(),
            seen: HashSet::new(),
            demand: None,
            machine: VecDeque::new(),
        };
        let shared = Shared::new(self, state);
        FakeEntra { shared: Arc::new(shared), line: Line::within(FakeEntra::AUTHORITY) }
    }
}

// --- Responses ---

impl Vendor for Shared {
    fn trouble(&self, head: &request::Parts) -> Option<Trouble> {
        let host = head.uri.host().unwrap_or_default();
        if host != "graph.entra.test" {
            self.state().counts.token_requests += 1;
        }
        match host {
            "login.entra.test" => self.token_troubles.next(),
            "graph.entra.test" => self.troubles.next(),
            _ => None,
        }
    }

    fn respond(&self, head: &request::Parts, body: &Bytes) -> Result<Response<Body>, Refusal> {
        let (scheme, authority) = (head.uri.scheme_str(), head.uri.authority().map_or("", |it| it.as_str()));
        let url = format!("{}://{authority}{}", scheme.unwrap_or_default(), head.uri.path());
        match (&head.method, url.as_str()) {
            (&Method::POST, TOKEN_URL) => self.token(head, body),
            (&Method::GET, "http://169.254.169.254/metadata/identity/oauth2/token") => self.machine(head),
            (&Method::GET, FakeEntra::IDENTITY_ENDPOINT) => self.app_service(head),
            (method, "https://graph.entra.test/v1.0/users") => self.users(method, head, body),
            (method, url) => Err(fault(format!("{method} {url} is not played"))),
        }
    }
}

impl Shared {
    fn token(&self, head: &request::Parts, body: &Bytes) -> Result<Response<Body>, Refusal> {
        let form = strict::form(head, body)?;
        if head.headers.contains_key(header::AUTHORIZATION) {
            return Err(fault("an app authenticates in the form"));
        }
        let proof: &[&str] = match form.contains_key("client_secret") {
            true => &["client_secret"],
            false => &["client_assertion_type", "client_assertion"],
        };
        let required = [&["grant_type", "scope", "client_id"], proof].concat();
        strict::expect(&form, &required, &["claims"])?;
        strict::expect_value(&form, "grant_type", "client_credentials")?;
        strict::expect_value(&form, "scope", SCOPE)?;
        self.authenticate(&form)?;
        // Among the scopes of the record stands what the token was asked for besides.
        let claims = match form.get("claims") {
            None => Vec::new(),
            Some(claims) => capable(claims)?,
        };
        let token = self.issue(&form["client_id"], claims);
        let seconds = self.setup.lifetime.as_secs();
        let granted = json!({
            "token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds, "access_token": token,
        });
        Ok(json_response(StatusCode::OK, &granted))
    }

    fn authenticate(&self, form: &Fields) -> Result<(), Refusal> {
        let id = &form["client_id"];
        if let Some(secret) = form.get("client_secret") {
            return match self.setup.secrets.get(id) {
                Some(known) if known == secret => Ok(()),
                Some(_) => Err(aadsts(7_000_215, "Invalid client secret provided.")),
                None => Err(aadsts(700_016, "The application was not found in the directory.")),
            };
        }
        strict::expect_value(form, "client_assertion_type", ASSERTION_TYPE)?;
        let assertion = &form["client_assertion"];
        if self.setup.workloads.contains(id) {
            return match assertion == FakeEntra::FEDERATED_TOKEN {
                true => Ok(()),
                false => {
                    Err(aadsts(700_211, "No matching federated identity record found for the assertion."))
                }
            };
        }
        if !self.setup.certificate_clients.contains(id) {
            return Err(aadsts(700_016, "The application was not found in the directory."));
        }
        let key = ServiceKey::shared();
        let invalid =
            || aadsts(700_027, "The certificate used to sign the client assertion is not registered.");
        let verified = key.verify(assertion, "PS256").ok_or_else(invalid)?;
        let (head, claims) = (verified.header, verified.claims);
        if head["x5t#S256"] != *key.thumbprint || head["typ"] != "JWT" {
            return Err(invalid());
        }
        if claims["iss"] != **id || claims["sub"] != **id || claims["aud"] != TOKEN_URL {
            return Err(fault("iss and sub are not the client, or aud is not the token URL"));
        }
        let (now, ends) = (clock::unix_time().as_secs(), claims["exp"].as_u64().unwrap_or(0));
        if ends <= now || ends > now + 600 + DRIFT {
            return Err(aadsts(700_024, "Client assertion is not within its valid time range."));
        }
        let name = claims["jti"].as_str().ok_or_else(|| fault("an assertion has no jti"))?;
        match self.state().seen.insert(name.to_owned()) {
            true => Ok(()),
            false => Err(fault("an assertion came twice")),
        }
    }

    fn machine(&self, head: &request::Parts) -> Result<Response<Body>, Refusal> {
        let client = self.managed(head, ("metadata", "true"), "2018-02-01")?;
        let token = self.issue(&client, Vec::new());
        let (seconds, now) = (self.setup.lifetime.as_secs(), clock::unix_time().as_secs());
        let granted = json!({
            "access_token": token, "client_id": client, "expires_in": seconds.to_string(),
            "expires_on": (now + seconds).to_string(), "not_before": now.to_string(), "resource": RESOURCE,
            "token_type": "Bearer",
        });
        Ok(json_response(StatusCode::OK, &granted))
    }

    fn app_service(&self, head: &request::Parts) -> Result<Response<Body>, Refusal> {
        let client = self.managed(head, ("x-identity-header", FakeEntra::IDENTITY_HEADER), "2019-08-01")?;
        let token = self.issue(&client, Vec::new());
        let ends = clock::unix_time().as_secs() + self.setup.lifetime.as_secs();
        let granted = json!({
            "access_token": token, "client_id": client, "expires_on": ends.to_string(), "resource": RESOURCE,
            "token_type": "Bearer",
        });
        Ok(json_response(StatusCode::OK, &granted))
    }

    /// Returns which managed identity is meant.
    fn managed(
        &self,
        head: &request::Parts,
        (name, value): (&'static str, &str),
        version: &str,
    ) -> Result<String, Refusal> {
        if strict::text(head, HeaderName::from_static(name)) != Some(value) {
            return Err(fault(format!("{name} is not {value}")));
        }
        let query = strict::query(head)?;
        strict::expect(&query, &["api-version", "resource"], &["client_id"])?;
        strict::expect_value(&query, "api-version", version)?;
        strict::expect_value(&query, "resource", RESOURCE)?;
        let said = self.state().machine.pop_front();
        if let Some(status) = said {
            let body = json!({ "statusCode": status.as_u16(), "message": "Try again." });
            return Err(Refusal::status(status, &body));
        }
        match query.get("client_id") {
            None => Ok(SYSTEM.to_owned()),
            Some(id) if self.setup.identities.contains(id) => Ok(id.clone()),
            Some(_) => {
                let body = json!({ "error": "invalid_request", "error_description": "Identity not found" });
                Err(Refusal::status(StatusCode::BAD_REQUEST, &body))
            }
        }
    }

    fn issue(&self, client: &str, claims: Vec<String>) -> String {
        let mut state = self.state();
        state.counts.tokens += 1;
        state.tokens.issue(client, claims, self.setup.lifetime)
    }

    fn users(&self, method: &Method, head: &request::Parts, body: &Bytes) -> Result<Response<Body>, Refusal> {
        let access = self.caller(head)?;
        let response = match *method {
            Method::GET => {
                strict::expect(&strict::query(head)?, &[], &[])?;
                json_response(StatusCode::OK, &json!({ "value": [{ "id": "1" }], "caller": access.client }))
            }
            Method::POST => {
                let user = strict::object(head, body)?;
                strict::expect(&user, &["displayName"], &[])?;
                json_response(StatusCode::CREATED, &json!({ "id": "2", "displayName": user["displayName"] }))
            }
            _ => return Err(fault(format!("{method} is not played"))),
        };
        self.state().counts.ok += 1;
        Ok(response)
    }

    fn caller(&self, head: &request::Parts) -> Result<Access, Refusal> {
        let token = strict::authorization(head, "Bearer")?;
        let mut state = self.state();
        let Worth::Active(access) = state.tokens.worth(token) else {
            state.counts.unauthorized += 1;
            return Err(unauthorized("error=\"invalid_token\""));
        };
        let (Some(demand), [has]) = (&state.demand, &access.scopes[..]) else { return Ok(access) };
        if serde_json::from_str::<Value>(has).is_ok_and(|has| has == *demand) {
            return Ok(access);
        }
        let claims = BASE64_STANDARD.encode(json!({ "access_token": demand }).to_string());
        state.counts.challenged += 1;
        Err(unauthorized(&format!("error=\"insufficient_claims\", claims=\"{claims}\"")))
    }
}

// --- Helpers ---

/// Reads the claims parameter of a client: what it asks for, if it knows challenges.
fn capable(claims: &str) -> Result<Vec<String>, Refusal> {
    let wrong = || fault("claims is not a JSON object with an access_token");
    let claims: BTreeMap<String, Value> = serde_json::from_str(claims).map_err(|_| wrong())?;
    strict::expect(&claims, &["access_token"], &[])?;
    let mut asked = claims["access_token"].as_object().cloned().ok_or_else(wrong)?;
    match asked.remove("xms_cc") {
        Some(capability) if capability == json!({ "values": ["cp1"] }) => {
            Ok(vec![Value::Object(asked).to_string()])
        }
        Some(_) => Err(fault("xms_cc is not the capability cp1")),
        None => Ok(Vec::new()),
    }
}

/// An error of the token endpoint, which has its number in several places.
fn aadsts(number: u32, what: &str) -> Refusal {
    let body = json!({
        "error": "invalid_client", "error_description": format!("AADSTS{number}: {what}"), "error_codes": [number],
        "trace_id": "7d1a4f0c", "correlation_id": "7d1a4f0d", "error_uri": "https://login.entra.test/error",
    });
    Refusal::status(StatusCode::UNAUTHORIZED, &body)
}

fn unauthorized(what: &str) -> Refusal {
    let body = json!({ "error": { "code": "InvalidAuthenticationToken", "message": "Access is denied." } });
    let mut response = json_response(StatusCode::UNAUTHORIZED, &body);
    let challenge =
        format!("Bearer realm=\"\", authorization_uri=\"https://login.entra.test/common\", {what}");
    if let Ok(challenge) = HeaderValue::try_from(challenge) {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response.into()
}
