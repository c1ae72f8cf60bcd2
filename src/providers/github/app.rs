//! The preset: an app and its key, and what is made of them.

use std::time::Duration;

use http::header::{ACCEPT, USER_AGENT};
use http::{HeaderName, HeaderValue, StatusCode};

use super::installation::Installation;
#[cfg(feature = "stack")]
use crate::cache::IntoTokenCache;
use crate::cache::TokenCache;
#[cfg(feature = "stack")]
use crate::client::ApiClient;
use crate::error::{Error, ErrorKind};
use crate::grants::jwt::{Assertion, JwtAlgorithm, SelfSigned};
use crate::grants::{CustomGrant, GrantBuilder, Refusal, Secret};
use crate::http_transport::HttpTransport;
use crate::providers::environment::Environment;
use crate::providers::headers::with_headers;
use crate::providers::revoke;
use crate::retry::{RateLimitProfile, RetryPolicy, RetryPolicyBuilder};
use crate::revoke::TokenRevoker;
#[cfg(feature = "stack")]
use crate::stack::StackBuilder;
use crate::tenants::{TenantCaches, TenantCachesBuilder};
use crate::text::origin_only;

/// A GitHub App: its client id and its private key. It fills in the builders of this crate.
///
/// Defaults:
///
/// - the API is at `https://api.github.com`
/// - the JWT of the app: RS256, `iat` a minute back, for nine minutes
/// - the API's rate limits by [`RateLimitProfile::github`]; a wait of up to 3 minutes, and up to 5 minutes in all
///
/// # Examples
///
/// An app on a GitHub Enterprise Server:
///
/// ```
/// use tower_oauth2::Secret;
/// use tower_oauth2::providers::github::GithubApp;
///
/// let app = GithubApp::new("Iv23liABC", Secret::from_file("/run/secrets/app.pem"))
///     .base_url("https://github.example.com/api/v3");
/// # let _ = app;
/// ```
#[derive(Clone)]
#[must_use]
pub struct GithubApp {
    client_id: String,
    private_key: Secret,
    base_url: String,
    /// That of the environment.
    installation: Option<u64>,
}

const BASE_URL: &str = "https://api.github.com";
const CLIENT_ID: &[&str] = &["GITHUB_APP_CLIENT_ID", "GITHUB_APP_ID"];
const PRIVATE_KEY: &str = "GITHUB_APP_PEM_FILE";
const INSTALLATION: &str = "GITHUB_APP_INSTALLATION_ID";

/// GitHub recommends it, for clocks that differ.
const DATED_BACK: Duration = Duration::from_secs(60);
/// GitHub takes ten minutes from now at most, by its own clock.
const LIFETIME: Duration = Duration::from_secs(540);

/// A secondary limit asks for a minute or two. The limit of an hour is longer than a request should wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(180);
const LONGEST_WAIT: Duration = Duration::from_secs(300);

impl GithubApp {
    /// Creates the preset of an app. The client id is on the page of the app; its numeric id will do as well. The key is the PEM
    /// file that GitHub made.
    pub fn new(client_id: impl Into<String>, private_key: impl Into<Secret>) -> Self {
        Self {
            client_id: client_id.into(),
            private_key: private_key.into(),
            base_url: BASE_URL.to_owned(),
            installation: None,
        }
    }

    /// Reads the environment. The page of the [module](super) lists the variables.
    ///
    /// # Errors
    ///
    /// A configuration error that names the variable that is missing or wrong.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// Reads the same variables from elsewhere: a file, a test.
    ///
    /// # Errors
    ///
    /// As [`from_env`](Self::from_env).
    pub fn from_variables(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let environment = Environment::new(lookup);
        let client_id = environment.required("the client id of the GitHub App", CLIENT_ID)?;
        let key = environment.required("the private key of the GitHub App", &[PRIVATE_KEY])?;
        let installation = match environment.find(&[INSTALLATION]) {
            None => None,
            Some(id) => {
                Some(id.parse().map_err(|_| Error::config(format!("{INSTALLATION} is not a number")))?)
            }
        };
        let mut app = Self::new(client_id, private_key(&key));
        if let Some(url) = environment.find(&["GITHUB_API_URL"]) {
            app.base_url = url;
        } else if let Some(url) = environment.find(&["GITHUB_BASE_URL"]) {
            app.base_url = api_of(&url);
        }
        Ok(Self { installation, ..app })
    }

    /// Sets the base URL of the API, such as `https://github.example.com/api/v3` or `https://api.octo.ghe.com`.
    pub fn base_url(mut self, url: impl Into<String>) -> Self {
        self.base_url = url.into();
        self
    }

    /// Returns the installation that the environment names.
    ///
    /// # Errors
    ///
    /// A configuration error if it names none.
    pub fn installation(&self) -> Result<Installation, Error> {
        let missing =
            || Error::config(format!("the installation is not in the environment; set {INSTALLATION}"));
        self.installation.map(Installation::new).ok_or_else(missing)
    }

    /// Makes the source of the app's own tokens, for requests such as `GET /app`: a JWT that its key signs.
    ///
    /// # Errors
    ///
    /// A configuration error if a key that is given as a value cannot be used.
    pub fn jwt(&self) -> Result<SelfSigned, Error> {
        let assertion = Assertion::by_key(JwtAlgorithm::Rs256, self.private_key.clone())
            .issuer(self.client_id.trim())
            .without_subject()
            .clock_ahead_by(DATED_BACK)
            .lifetime(LIFETIME);
        SelfSigned::new(assertion)
    }

    /// Starts a source of the tokens of an installation. Further parameters, such as `repository_ids`, go in by
    /// [`param_json`](GrantBuilder::param_json).
    ///
    /// # Errors
    ///
    /// As [`jwt`](Self::jwt).
    pub fn installation_token(
        &self,
        installation: impl Into<Installation>,
    ) -> Result<GrantBuilder<CustomGrant>, Error> {
        let installation = installation.into();
        let base_url = self.base_url.trim_end_matches('/');
        let url = format!("{base_url}/app/installations/{}/access_tokens", installation.id());
        let mut builder = CustomGrant::json(url)
            .authorized_by(self.jwt()?)
            .response_member("access_token", "token")
            .response_member("error", "message")
            .classifier(class_of);
        if !installation.repositories().is_empty() {
            builder = builder.param_json("repositories", json_of(installation.repositories()));
        }
        if !installation.permissions().is_empty() {
            builder = builder.param_json("permissions", json_of(installation.permissions()));
        }
        Ok(builder)
    }

    /// Starts a set of caches, one for each [`Installation`]. Tokens of evicted caches are not revoked.
    pub fn installations(&self, transport: impl HttpTransport) -> TenantCachesBuilder<Installation> {
        let app = self.clone();
        TenantCaches::builder(move |installation: &Installation| {
            let source = app.installation_token(installation.clone())?.build_with(transport.clone())?;
            Ok(TokenCache::builder(source).revoke_with(app.revoker(transport.clone())))
        })
    }

    /// Starts a retry policy that knows the rate limits of the API. Where it asks for more than 3 minutes, as it does when the
    /// requests of an hour are used up, its response is returned.
    pub fn retry_policy() -> RetryPolicyBuilder {
        RetryPolicy::builder()
            .rate_limit_profile(RateLimitProfile::github())
            .max_retry_after(LONGEST_PAUSE)
            .max_total_delay(LONGEST_WAIT)
    }

    /// Makes what revokes a token of an installation: `DELETE /installation/token`.
    #[must_use]
    pub fn revoker(&self, transport: impl HttpTransport) -> impl TokenRevoker {
        let url = format!("{}/installation/token", self.base_url.trim_end_matches('/'));
        revoke::by_delete(url, with_headers(transport, headers()))
    }

    /// Starts a client of the API: `api.get("installation/repositories")`. Its requests have the headers that the API wants:
    /// `user-agent`, `accept`, `x-github-api-version`.
    ///
    /// # Errors
    ///
    /// That of the retry policy; there is none.
    #[cfg(feature = "stack")]
    #[cfg_attr(docsrs, doc(cfg(feature = "stack")))]
    pub fn api(&self, tokens: impl IntoTokenCache) -> Result<StackBuilder<ApiClient>, Error> {
        let api = ApiClient::builder(&self.base_url, tokens).retry(Self::retry_policy().build()?);
        Ok(headers().into_iter().fold(api, |api, (name, value)| api.default_header(name, value)))
    }

    /// Connects to the API in the name of an installation. Nothing is sent before the first request.
    ///
    /// # Errors
    ///
    /// A configuration error: a key that cannot be used, a base URL that is not of https.
    #[cfg(all(feature = "hyper-client", feature = "stack"))]
    #[cfg_attr(docsrs, doc(cfg(all(feature = "hyper-client", feature = "stack"))))]
    pub fn connect(&self, installation: impl Into<Installation>) -> Result<ApiClient, Error> {
        self.connect_with(installation, crate::transport::HyperClient::new())
    }

    /// Connects over an HTTP client of your own, which serves the token requests too.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    #[cfg(feature = "stack")]
    #[cfg_attr(docsrs, doc(cfg(feature = "stack")))]
    pub fn connect_with(
        &self,
        installation: impl Into<Installation>,
        http: impl HttpTransport,
    ) -> Result<ApiClient, Error> {
        let source = self.installation_token(installation)?.build_with(http.clone())?;
        let tokens = TokenCache::builder(source).revoke_with(self.revoker(http.clone())).build();
        self.api(tokens)?.build_with(http)
    }
}

impl std::fmt::Debug for GithubApp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GithubApp")
            .field("client_id", &self.client_id)
            .field("private_key", &self.private_key)
            .field("base_url", &origin_only(&self.base_url))
            .field("installation", &self.installation)
            .finish()
    }
}

/// The headers that the API wants on each request. It refuses those without a `user-agent`.
fn headers() -> [(HeaderName, HeaderValue); 3] {
    [
        (USER_AGENT, concat!("tower-oauth2/", env!("CARGO_PKG_VERSION"))),
        (ACCEPT, "application/vnd.github+json"),
        (HeaderName::from_static("x-github-api-version"), "2022-11-28"),
    ]
    .map(|(name, value)| (name, HeaderValue::from_static(value)))
}

/// The text of the key, perhaps with its line ends escaped, or the path of its file.
fn private_key(value: &str) -> Secret {
    if value.contains("-----BEGIN") { value.replace("\\n", "\n").into() } else { Secret::from_file(value) }
}

/// The address of a GitHub Enterprise Server stands for that of its API.
fn api_of(url: &str) -> String {
    let url = url.trim_end_matches('/');
    match url.split_once("://") {
        Some((_, host)) if !host.contains('/') && !host.starts_with("api.") => format!("{url}/api/v3"),
        Some(_) | None => url.to_owned(),
    }
}

/// A limit of the API holds for token requests too, and a 422 says that more is wanted than the installation has.
fn class_of(refusal: &Refusal<'_>) -> Option<ErrorKind> {
    let headers = refusal.headers();
    // Its message is read as the code. A secondary limit may be told by that alone.
    let message = refusal.code()?.to_ascii_lowercase();
    let is_limit = headers.contains_key(http::header::RETRY_AFTER)
        || headers.get("x-ratelimit-remaining").is_some_and(|left| left == "0")
        || ["rate limit", "abuse detection"].iter().any(|limit| message.contains(limit));
    match refusal.status() {
        StatusCode::FORBIDDEN if is_limit => Some(ErrorKind::Throttled),
        StatusCode::UNAUTHORIZED
        | StatusCode::FORBIDDEN
        | StatusCode::NOT_FOUND
        | StatusCode::UNPROCESSABLE_ENTITY => Some(ErrorKind::Config),
        _ => None,
    }
}

fn json_of(value: &impl serde::Serialize) -> String {
    // Strings, and maps of strings to strings, can always be written.
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_server_stands_for_its_api() {
        for (url, api) in [
            ("https://api.github.com/", "https://api.github.com"),
            ("https://github.example.com", "https://github.example.com/api/v3"),
            ("https://github.example.com:8443/", "https://github.example.com:8443/api/v3"),
            ("https://github.example.com/api/v3/", "https://github.example.com/api/v3"),
            ("https://api.octo.ghe.com", "https://api.octo.ghe.com"),
        ] {
            assert_eq!(api_of(url), api, "{url}");
        }
    }
}
