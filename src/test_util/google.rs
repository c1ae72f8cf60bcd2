//! Google Cloud, as far as its clients see it: the ways to a token, a list of buckets, and a service that wants ID tokens.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header, request};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::emulator::{Emulator, Vendor, emulator_service};
use super::line::Line;
use super::signatures::ServiceKey;
use super::strict::{self, Refusal, fault, json_response};
use super::tokens::{Tokens, Worth, random};
use super::trouble::Trouble;
use crate::body::Body;
use crate::clock;

/// An emulator of Google Cloud within the process (feature `jwt`). Clones are the same one.
///
/// | request | response |
/// |---|---|
/// | `POST oauth2.google.test/token` | a token for the signed assertion of [`ACCOUNT`](Self::ACCOUNT), or for the refresh token of a user; an ID token for a `target_audience` |
/// | `POST sts.google.test/v1/token` | a token for that of another provider |
/// | `POST iamcredentials.google.test/v1/projects/-/serviceAccounts/{email}:generateAccessToken`, `:generateIdToken` | a token of another account |
/// | `GET metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token`, `/identity` | a token of the machine's account, [`MACHINE`](Self::MACHINE); an ID token as text |
/// | `GET storage.google.test/storage/v1/b?project=` | a list of buckets, for a token with a scope for it |
/// | `GET app.google.test/{path}` | the name of the caller, by an ID token for [`APP`](Self::APP) |
///
/// It is strict: a method, host, path, header, query parameter or field that is wrong or too much is a 400, and is kept in
/// [`faults`](Self::faults). Assertions must be signed by the key in the [key file](Self::key_file).
///
/// # Examples
///
/// ```
/// # #[cfg(all(feature = "providers", feature = "stack"))] {
/// use tower_oauth2::providers::google::Google;
/// use tower_oauth2::test_util::FakeGoogle;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let fake = FakeGoogle::builder().build();
/// let google = Google::from_json(FakeGoogle::key_file())?;
/// let api = google.connect_with("https://storage.google.test/storage/v1", fake.clone())?;
/// let buckets = api.get("b").query(&[("project", "test")]).send().await?;
/// assert_eq!(buckets.status(), 200);
/// assert!(fake.faults().is_empty());
/// # Ok::<_, tower::BoxError>(()) })?;
/// # }
/// # Ok::<_, tower::BoxError>(())
/// ```
#[derive(Clone)]
pub struct FakeGoogle {
    shared: Arc<Shared>,
    line: Line,
}

/// Sets up a [`FakeGoogle`].
///
/// Defaults:
///
/// - tokens live for an hour
/// - no account may be impersonated
#[derive(Debug)]
pub struct FakeGoogleBuilder {
    lifetime: Duration,
    /// The account that may, and the account that it may stand for.
    impersonations: Vec<(String, String)>,
}

/// The counts of a [`FakeGoogle`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GoogleCounts {
    /// Requests for tokens, wherever they came.
    pub token_requests: u64,
    /// Access tokens that were issued.
    pub tokens: u64,
    /// ID tokens that were issued.
    pub id_tokens: u64,
    /// Requests of the API and of the service that succeeded.
    pub ok: u64,
    /// Those whose token was not valid.
    pub unauthorized: u64,
}

type Shared = Emulator<FakeGoogleBuilder, State>;

struct State {
    tokens: Tokens,
    /// By the token: the audience, the account, and the end.
    id_tokens: HashMap<String, (String, String, Instant)>,
    counts: GoogleCounts,
}

const TOKEN_URL: &str = "https://oauth2.google.test/token";
const KEY_ID: &str = "key-1";
const USER: &str = "ann@example.com";
const USER_CLIENT: (&str, &str) = ("user-client", "user-s3cr=t");
const USER_REFRESH_TOKEN: &str = "1//user-refresh";
const AUDIENCE: &str =
    "//iam.google.test/projects/1/locations/global/workloadIdentityPools/pool/providers/test";
const JWT_TYPE: &str = "urn:ietf:params:oauth:token-type:jwt";
const ACCESS_TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:access_token";
const SCOPES: &str = "https://www.googleapis.com/auth/";
const ACCOUNTS: &str = "/v1/projects/-/serviceAccounts/";
const MACHINE_PATH: &str = "/computeMetadata/v1/instance/service-accounts/default/";
/// The difference allowed between the clocks of two machines, in seconds.
const DRIFT: u64 = 5;

// --- FakeGoogle ---

impl FakeGoogle {
    /// The service account of the [key file](Self::key_file).
    pub const ACCOUNT: &'static str = "robot@test.iam.gserviceaccount.com";
    /// The service account of the machine.
    pub const MACHINE: &'static str = "machine@test.iam.gserviceaccount.com";
    /// The account that the token of another provider stands for.
    pub const WORKLOAD: &'static str = "workload@example.com";
    /// The token of another provider that is taken.
    pub const SUBJECT_TOKEN: &'static str = "e30.e30.workload";
    /// The service that wants ID tokens, which is their audience too.
    pub const APP: &'static str = "https://app.google.test";
    /// The domain of all addresses that no file names.
    pub const UNIVERSE: &'static str = "google.test";

    /// Starts an emulator.
    #[must_use]
    pub fn builder() -> FakeGoogleBuilder {
        FakeGoogleBuilder { lifetime: Duration::from_secs(3600), impersonations: Vec::new() }
    }

    /// Returns the key file of [`ACCOUNT`](Self::ACCOUNT), as Google makes it. The key is made once in a process.
    #[must_use]
    pub fn key_file() -> String {
        let file = json!({
            "type": "service_account", "project_id": "test", "private_key_id": KEY_ID,
            "private_key": ServiceKey::shared().private_pem, "client_email": Self::ACCOUNT, "client_id": "1",
            "auth_uri": "https://accounts.google.test/o/oauth2/auth", "token_uri": TOKEN_URL,
            "universe_domain": Self::UNIVERSE,
        });
        file.to_string()
    }

    /// Returns the file that a login by `gcloud` leaves, of a user whose project `billed` pays.
    #[must_use]
    pub fn user_file() -> String {
        let mut file = user();
        file["quota_project_id"] = "billed".into();
        file["universe_domain"] = Self::UNIVERSE.into();
        file.to_string()
    }

    /// Returns the file of a user who impersonates an account.
    #[must_use]
    pub fn impersonated_file(account: &str) -> String {
        let file = json!({
            "type": "impersonated_service_account", "delegates": [], "source_credentials": user(),
            "service_account_impersonation_url": account_url(account), "universe_domain": Self::UNIVERSE,
        });
        file.to_string()
    }

    /// Returns the file of a workload whose token is in another file, as text; or in this member of its JSON.
    #[must_use]
    pub fn external_file(token: &Path, member: Option<&str>, impersonated: Option<&str>) -> String {
        let mut file = json!({
            "type": "external_account", "audience": AUDIENCE, "subject_token_type": JWT_TYPE,
            "token_url": "https://sts.google.test/v1/token", "universe_domain": Self::UNIVERSE,
            "credential_source": { "file": token },
        });
        if let Some(member) = member {
            file["credential_source"]["format"] =
                json!({ "type": "json", "subject_token_field_name": member });
        }
        if let Some(account) = impersonated {
            file["service_account_impersonation_url"] = account_url(account).into();
        }
        file.to_string()
    }

    /// Makes the next `times` requests of the API and the service fail like this.
    pub fn fail_next(&self, times: usize, trouble: Trouble) {
        self.shared.troubles.order(times, trouble);
    }

    /// Makes the next `times` token requests fail like this.
    pub fn fail_next_tokens(&self, times: usize, trouble: Trouble) {
        self.shared.token_troubles.order(times, trouble);
    }

    /// Revokes every token.
    pub fn revoke_all(&self) {
        let mut state = self.shared.state();
        state.tokens.revoke_all();
        state.id_tokens.clear();
    }
}

fn user() -> Value {
    let ((id, secret), token) = (USER_CLIENT, USER_REFRESH_TOKEN);
    json!({ "type": "authorized_user", "client_id": id, "client_secret": secret, "refresh_token": token })
}

fn account_url(account: &str) -> String {
    format!("https://iamcredentials.google.test{ACCOUNTS}{account}:generateAccessToken")
}

emulator_service!(FakeGoogle, GoogleCounts);

// --- FakeGoogleBuilder ---

impl FakeGoogleBuilder {
    /// Lets an account, or a user, impersonate another account.
    #[must_use]
    pub fn impersonation(mut self, by: impl Into<String>, account: impl Into<String>) -> Self {
        self.impersonations.push((by.into(), account.into()));
        self
    }

    /// Lets the user of the files impersonate an account.
    #[must_use]
    pub fn impersonation_by_user(self, account: impl Into<String>) -> Self {
        self.impersonation(USER, account)
    }

    /// Sets how long tokens live.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Makes the emulator.
    #[must_use]
    pub fn build(self) -> FakeGoogle {
        let state =
            State { tokens: Tokens::new(), id_tokens: HashMap::new(), counts: GoogleCounts::default() };
        let shared = Shared::new(self, state);
        FakeGoogle { shared: Arc::new(shared), line: Line::within("https://google.test") }
    }
}

// --- Responses ---

impl Vendor for Shared {
    fn trouble(&self, head: &request::Parts) -> Option<Trouble> {
        if matches!(head.uri.host(), Some("storage.google.test" | "app.google.test")) {
            return self.troubles.next();
        }
        self.state().counts.token_requests += 1;
        self.token_troubles.next()
    }

    fn respond(&self, head: &request::Parts, body: &Bytes) -> Result<Response<Body>, Refusal> {
        let (host, path) = (head.uri.host().unwrap_or_default(), head.uri.path());
        match (&head.method, host, path) {
            (&Method::POST, "oauth2.google.test", "/token") => {
                let form = strict::form(head, body)?;
                anonymous(head)?;
                match form.get("grant_type").map(String::as_str) {
                    Some("refresh_token") => self.by_user(&form),
                    _ => self.by_assertion(&form),
                }
            }
            (&Method::POST, "sts.google.test", "/v1/token") => self.exchange(head, body),
            (&Method::POST, "iamcredentials.google.test", _) => self.impersonate(head, path, body),
            (&Method::GET, "metadata.google.internal", _) => self.metadata(head, path),
            (&Method::GET, "storage.google.test", "/storage/v1/b") => self.buckets(head),
            (&Method::GET, "app.google.test", _) => self.app(head),
            (method, host, path) => Err(fault(format!("{method} {path} is not at {host}"))),
        }
    }
}

impl Shared {
    /// The JWT bearer grant of a service account.
    fn by_assertion(&self, form: &strict::Fields) -> Result<Response<Body>, Refusal> {
        strict::expect(form, &["grant_type", "assertion"], &[])?;
        strict::expect_value(form, "grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer")?;
        let invalid = |what: &str| oauth_error("invalid_grant", what);
        let verified = ServiceKey::shared().verify(&form["assertion"], "RS256");
        let verified = verified.ok_or_else(|| invalid("Invalid JWT Signature."))?;
        let (head, claims) = (verified.header, verified.claims);
        if head["kid"] != KEY_ID || head["typ"] != "JWT" {
            return Err(fault("kid is not that of the key, or typ is not JWT"));
        }
        if claims["iss"] != FakeGoogle::ACCOUNT {
            return Err(invalid("Invalid grant: account not found"));
        }
        if claims["aud"] != TOKEN_URL {
            return Err(fault("aud is not the token URL"));
        }
        let now = clock::unix_time().as_secs();
        let (issued, ends) =
            (claims["iat"].as_u64().unwrap_or(u64::MAX), claims["exp"].as_u64().unwrap_or(0));
        if issued > now + DRIFT || ends <= now || ends - issued > 3600 {
            return Err(invalid(
                "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe.",
            ));
        }
        let account = claims["sub"].as_str().unwrap_or(FakeGoogle::ACCOUNT);
        match (claims["scope"].as_str(), claims["target_audience"].as_str()) {
            (Some(scope), None) if !scope.is_empty() => Ok(self.issue(account, scope)),
            (None, Some(audience)) => {
                let id_token = self.issue_identity(account, audience);
                Ok(json_response(StatusCode::OK, &json!({ "id_token": id_token })))
            }
            _ => Err(fault("an assertion has either scope or target_audience")),
        }
    }

    fn by_user(&self, form: &strict::Fields) -> Result<Response<Body>, Refusal> {
        strict::expect(form, &["grant_type", "client_id", "client_secret", "refresh_token"], &[])?;
        if (form["client_id"].as_str(), form["client_secret"].as_str()) != USER_CLIENT {
            return Err(Refusal::status(StatusCode::UNAUTHORIZED, &json!({ "error": "invalid_client" })));
        }
        match form["refresh_token"] == USER_REFRESH_TOKEN {
            true => Ok(self.issue(USER, &format!("{SCOPES}cloud-platform"))),
            false => Err(oauth_error("invalid_grant", "Bad Request")),
        }
    }

    fn exchange(&self, head: &request::Parts, body: &Bytes) -> Result<Response<Body>, Refusal> {
        let form = strict::form(head, body)?;
        anonymous(head)?;
        let fields = [
            "grant_type",
            "audience",
            "scope",
            "requested_token_type",
            "subject_token",
            "subject_token_type",
        ];
        strict::expect(&form, &fields, &[])?;
        strict::expect_value(&form, "grant_type", "urn:ietf:params:oauth:grant-type:token-exchange")?;
        strict::expect_value(&form, "audience", AUDIENCE)?;
        strict::expect_value(&form, "requested_token_type", ACCESS_TOKEN_TYPE)?;
        strict::expect_value(&form, "subject_token_type", JWT_TYPE)?;
        if form["subject_token"] != FakeGoogle::SUBJECT_TOKEN {
            return Err(oauth_error("invalid_grant", "The subject token is not one of the provider's."));
        }
        let mut granted = self.granted(FakeGoogle::WORKLOAD, &form["scope"]);
        granted["issued_token_type"] = ACCESS_TOKEN_TYPE.into();
        Ok(json_response(StatusCode::OK, &granted))
    }

    fn impersonate(
        &self,
        head: &request::Parts,
        path: &str,
        body: &Bytes,
    ) -> Result<Response<Body>, Refusal> {
        let (account, method) = path
            .strip_prefix(ACCOUNTS)
            .and_then(|rest| rest.split_once(':'))
            .ok_or_else(|| fault(format!("{path} is not played")))?;
        let fields = strict::object(head, body)?;
        let caller = self.caller(head, &["cloud-platform", "iam"])?;
        let is_allowed = self.setup.impersonations.iter().any(|(by, who)| *by == caller && who == account);
        let forbidden = || {
            let message = "Permission 'iam.serviceAccounts.getAccessToken' denied on resource.";
            Refusal::from(api_error(StatusCode::FORBIDDEN, "PERMISSION_DENIED", message))
        };
        match method {
            "generateAccessToken" => {
                strict::expect(&fields, &["scope", "lifetime"], &["delegates"])?;
                let scopes: Vec<String> = serde_json::from_value(fields["scope"].clone())
                    .map_err(|_| fault("scope is not a list of strings"))?;
                if scopes.is_empty() || fields["lifetime"] != "3600s" {
                    return Err(fault("scope is empty, or lifetime is not 3600s"));
                }
                if !is_allowed {
                    return Err(forbidden());
                }
                let granted = self.granted(account, &scopes.join(" "));
                let ends = strict::rfc3339(clock::unix_time() + self.setup.lifetime);
                let granted = json!({ "accessToken": granted["access_token"], "expireTime": ends });
                Ok(json_response(StatusCode::OK, &granted))
            }
            "generateIdToken" => {
                strict::expect(&fields, &["audience", "includeEmail"], &["delegates"])?;
                let audience =
                    fields["audience"].as_str().ok_or_else(|| fault("audience is not a string"))?;
                if fields["includeEmail"] != true {
                    return Err(fault("includeEmail is not true"));
                }
                if !is_allowed {
                    return Err(forbidden());
                }
                let token = self.issue_identity(account, audience);
                Ok(json_response(StatusCode::OK, &json!({ "token": token })))
            }
            method => Err(fault(format!("{method} is not played"))),
        }
    }

    fn metadata(&self, head: &request::Parts, path: &str) -> Result<Response<Body>, Refusal> {
        if head.uri.scheme_str() != Some("http") {
            return Err(fault("the metadata server knows no TLS"));
        }
        let flavor = "metadata-flavor";
        if head.headers.get(flavor).is_none_or(|value| value != "Google") {
            self.faults.keep("a request without Metadata-Flavor: Google");
            return Err(Refusal::status(StatusCode::FORBIDDEN, &json!({})));
        }
        anonymous(head)?;
        let query = strict::query(head)?;
        let mut response = match path.strip_prefix(MACHINE_PATH) {
            Some("token") => {
                strict::expect(&query, &["scopes"], &[])?;
                self.issue(FakeGoogle::MACHINE, &query["scopes"].replace(',', " "))
            }
            Some("identity") => {
                strict::expect(&query, &["audience"], &["format"])?;
                let token = self.issue_identity(FakeGoogle::MACHINE, &query["audience"]);
                Response::new(Body::from(token))
            }
            _ => return Err(fault(format!("{path} is not played"))),
        };
        response.headers_mut().insert(flavor, HeaderValue::from_static("Google"));
        Ok(response)
    }

    fn buckets(&self, head: &request::Parts) -> Result<Response<Body>, Refusal> {
        let caller = self.caller(head, &["devstorage.read_only", "cloud-platform"])?;
        strict::expect(&strict::query(head)?, &["project"], &[])?;
        let billed = strict::text(head, http::HeaderName::from_static("x-goog-user-project"));
        if (caller == USER) != (billed == Some("billed")) {
            return Err(fault("x-goog-user-project is not that of the user's file"));
        }
        self.state().counts.ok += 1;
        Ok(json_response(StatusCode::OK, &json!({ "items": [{ "name": "bucket" }], "caller": caller })))
    }

    fn app(&self, head: &request::Parts) -> Result<Response<Body>, Refusal> {
        let token = strict::authorization(head, "Bearer")?;
        let mut state = self.state();
        let now = clock::now();
        let known = state.id_tokens.get(token).filter(|(_, _, ends)| *ends > now);
        let Some((audience, account, _)) = known.cloned() else {
            state.counts.unauthorized += 1;
            return Err(unauthorized());
        };
        if audience != FakeGoogle::APP {
            return Err(fault("the ID token is for another audience"));
        }
        state.counts.ok += 1;
        Ok(json_response(StatusCode::OK, &json!({ "caller": account })))
    }

    /// Returns the account of a request's token, if it has one of these scopes.
    fn caller(&self, head: &request::Parts, scopes: &[&str]) -> Result<String, Refusal> {
        let token = strict::authorization(head, "Bearer")?;
        let mut state = self.state();
        let Worth::Active(access) = state.tokens.worth(token) else {
            state.counts.unauthorized += 1;
            return Err(unauthorized());
        };
        let has = |scope: &String| scope.strip_prefix(SCOPES).is_some_and(|scope| scopes.contains(&scope));
        match access.scopes.iter().any(has) {
            true => Ok(access.client),
            false => {
                let message = "Request had insufficient authentication scopes.";
                let mut response = api_error(StatusCode::FORBIDDEN, "PERMISSION_DENIED", message);
                let challenge = HeaderValue::from_static("Bearer error=\"insufficient_scope\"");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
                Err(response.into())
            }
        }
    }

    fn granted(&self, account: &str, scopes: &str) -> Value {
        let scopes = scopes.split_whitespace().map(str::to_owned).collect();
        let mut state = self.state();
        state.counts.tokens += 1;
        let token = state.tokens.issue(account, scopes, self.setup.lifetime);
        json!({ "access_token": token, "expires_in": self.setup.lifetime.as_secs(), "token_type": "Bearer" })
    }

    fn issue(&self, account: &str, scopes: &str) -> Response<Body> {
        json_response(StatusCode::OK, &self.granted(account, scopes))
    }

    fn issue_identity(&self, account: &str, audience: &str) -> String {
        let ends = (clock::unix_time() + self.setup.lifetime).as_secs();
        let claims =
            json!({ "aud": audience, "email": account, "exp": ends, "iss": "https://accounts.google.test" });
        let token = format!("e30.{}.{}", BASE64_URL_SAFE_NO_PAD.encode(claims.to_string()), random());
        let mut state = self.state();
        state.counts.id_tokens += 1;
        let identity = (audience.to_owned(), account.to_owned(), clock::now() + self.setup.lifetime);
        state.id_tokens.insert(token.clone(), identity);
        token
    }
}

// --- Helpers ---

fn anonymous(head: &request::Parts) -> Result<(), Refusal> {
    match head.headers.contains_key(header::AUTHORIZATION) {
        true => Err(fault("an authorization is too much here")),
        false => Ok(()),
    }
}

fn oauth_error(code: &str, description: &str) -> Refusal {
    Refusal::status(StatusCode::BAD_REQUEST, &json!({ "error": code, "error_description": description }))
}

fn api_error(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    json_response(
        status,
        &json!({ "error": { "code": status.as_u16(), "message": message, "status": code } }),
    )
}

fn unauthorized() -> Refusal {
    let mut response = api_error(
        StatusCode::UNAUTHORIZED,
        "UNAUTHENTICATED",
        "Request had invalid authentication credentials.",
    );
    let challenge =
        HeaderValue::from_static("Bearer realm=\"https://accounts.google.test/\", error=\"invalid_token\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response.into()
}
