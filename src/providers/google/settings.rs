//! The preset: credentials and scopes, and what is made of them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use secrecy::ExposeSecret as _;
use secrecy::zeroize::Zeroizing;

use super::credentials::{Credentials, External, Found};
use super::identity::text_as_object;
use crate::cache::{TokenCache, TokenCacheBuilder};
#[cfg(feature = "stack")]
use crate::client::ApiClient;
use crate::error::Error;
use crate::file::SecretFile;
use crate::grants::jwt::{Assertion, JwtAlgorithm};
use crate::grants::{
    ClientAuth, CustomGrant, GrantBuilder, JwtBearer, RefreshTokenGrant, Secret, SecurityToken,
    TokenExchange, TokenType,
};
use crate::http_transport::HttpTransport;
use crate::providers::environment::Environment;
use crate::providers::headers;
use crate::source::{AnySource, FileToken, TokenSource};

/// Credentials of Google, and the scopes that tokens are for. It fills in the builders of this crate.
///
/// Defaults:
///
/// - scope: `https://www.googleapis.com/auth/cloud-platform`
/// - the user that a service account stands for: none
/// - the addresses are those of the file, or else in the domain `googleapis.com`
///
/// # Examples
///
/// ```
/// use tower_oauth2::providers::google::Google;
///
/// let google = Google::metadata().scope("https://www.googleapis.com/auth/devstorage.read_only");
/// assert_eq!(google.kind(), "metadata server");
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Google {
    credentials: Credentials,
    scopes: Vec<String>,
    subject: Option<String>,
    universe: String,
    quota_project: Option<String>,
}

/// The use of a token.
enum Wanted {
    /// APIs of Google, by scopes.
    Access(Vec<String>),
    /// A service that knows callers by an ID token for this audience.
    Identity(String),
}

const CREDENTIALS: &str = "GOOGLE_APPLICATION_CREDENTIALS";
const METADATA_HOST: &str = "metadata.google.internal";
const QUOTA_PROJECT: HeaderName = HeaderName::from_static("x-goog-user-project");
/// As Google's libraries have it.
const LONGEST_ASSERTION: Duration = Duration::from_secs(3600);
const CLOUD_PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";

impl Google {
    /// Creates the preset for the metadata server, which gives the tokens of the account that a machine or a service has.
    pub fn metadata() -> Self {
        Self::of(Credentials::Metadata { host: METADATA_HOST.to_owned() })
    }

    fn of(credentials: Credentials) -> Self {
        Self {
            credentials,
            scopes: Vec::new(),
            subject: None,
            universe: "googleapis.com".to_owned(),
            quota_project: None,
        }
    }

    /// Finds the credentials of the environment. The page of the [module](super) says where, and lists the variables. Files are
    /// read at once, by a call that blocks for as long as the disk takes.
    ///
    /// # Errors
    ///
    /// A configuration error that names the variable or the file, and says what is wrong with it.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// Finds the same by variables from elsewhere: a file, a test.
    ///
    /// # Errors
    ///
    /// As [`from_env`](Self::from_env).
    pub fn from_variables(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let environment = Environment::new(lookup);
        let mut google = match environment.find(&[CREDENTIALS]) {
            Some(path) => {
                Self::from_file(&path).map_err(|error| Error::config(format!("{CREDENTIALS}: {error}")))?
            }
            None => match of_gcloud(&environment).filter(|path| path.is_file()) {
                Some(path) => Self::from_file(path)?,
                None => {
                    let host = environment.find(&["GCE_METADATA_HOST"]);
                    Self::of(Credentials::Metadata { host: host.unwrap_or_else(|| METADATA_HOST.to_owned()) })
                }
            },
        };
        if let Some(project) = environment.find(&["GOOGLE_CLOUD_QUOTA_PROJECT"]) {
            google.quota_project = Some(project);
        }
        tracing::debug!(kind = google.kind(), "found credentials of Google");
        Ok(google)
    }

    /// Reads a file with credentials, such as the JSON file of a service account's key, by a call that blocks for as long as the
    /// disk takes. The key is read again for each token request.
    ///
    /// # Errors
    ///
    /// A configuration error that names the file, and says what is wrong with it.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let unusable = |what: &dyn std::fmt::Display| {
            Error::config(format!("{} cannot be used: {what}", path.display()))
        };
        let text = std::fs::read_to_string(path)
            .map(Zeroizing::new)
            .map_err(|error| unusable(&"it cannot be read").with_source(error))?;
        Self::read(&text, Secret::from_file(path)).map_err(|error| unusable(&error))
    }

    /// Reads the same from a text in memory.
    ///
    /// # Errors
    ///
    /// A configuration error that says what is wrong with the text, and shows no part of it.
    pub fn from_json(text: impl Into<String>) -> Result<Self, Error> {
        let text = text.into();
        Self::read(&text, Secret::new(text.clone()))
            .map_err(|error| Error::config(format!("the credentials of Google cannot be used: {error}")))
    }

    fn read(text: &str, key: Secret) -> Result<Self, Error> {
        // Editors leave a byte order mark at its begin.
        let found = Found::read(crate::text::trimmed(text), key)?;
        let mut google = Self::of(found.credentials);
        google.universe = found.universe.unwrap_or(google.universe);
        google.quota_project = found.quota_project;
        Ok(google)
    }

    /// Adds a scope; call it for each of several. The tokens of a user have the scopes that the user agreed to, even if you set
    /// others here.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scopes.push(scope.into());
        self
    }

    /// Sets the user for whom a service account acts (domain-wide delegation).
    pub fn subject(mut self, user: impl Into<String>) -> Self {
        self.subject = Some(user.into());
        self
    }

    /// Takes the tokens of another service account, by its email. These credentials must be allowed to (Service Account Token
    /// Creator).
    pub fn impersonate(mut self, account: &str) -> Self {
        let account_url =
            format!("https://iamcredentials.{}/v1/projects/-/serviceAccounts/{account}", self.universe);
        let base = Box::new(self.credentials);
        self.credentials = Credentials::Impersonated { base, account_url, delegates: Vec::new() };
        self
    }

    /// Sets the domain of the addresses that no file names, for clouds beside the public one. Call it before
    /// [`impersonate`](Self::impersonate).
    pub fn universe_domain(mut self, domain: impl Into<String>) -> Self {
        self.universe = domain.into();
        self
    }

    /// Sets the project that is billed for requests (`x-goog-user-project`), in place of the one in the file.
    pub fn quota_project(mut self, project: impl Into<String>) -> Self {
        self.quota_project = Some(project.into());
        self
    }

    /// Returns what the credentials are, by the name that files have for it: `service_account`, `authorized_user`,
    /// `external_account`, `impersonated_service_account`; or `metadata server`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.credentials.kind()
    }

    /// Starts a source of access tokens by the key of a service account, for a cache with a grant of your own settings.
    ///
    /// # Errors
    ///
    /// A configuration error if the credentials are of another [kind](Self::kind).
    pub fn service_account(&self) -> Result<GrantBuilder<JwtBearer>, Error> {
        match &self.credentials {
            Credentials::ServiceAccount { key, token_url } => Ok(self.by_key(key, token_url, self.wanted())),
            other => Err(is_another(other, "service_account")),
        }
    }

    /// Starts a source of access tokens by the refresh token of a user.
    ///
    /// # Errors
    ///
    /// As [`service_account`](Self::service_account).
    pub fn authorized_user(&self) -> Result<GrantBuilder<RefreshTokenGrant>, Error> {
        let Credentials::User { client_id, client_secret, refresh_token } = &self.credentials else {
            return Err(is_another(&self.credentials, "authorized_user"));
        };
        Ok(self.by_user(client_id, client_secret, refresh_token.expose_secret()))
    }

    /// Starts a source of access tokens for the token of another provider, before an account is impersonated.
    ///
    /// # Errors
    ///
    /// As [`service_account`](Self::service_account).
    pub fn external_account(&self) -> Result<GrantBuilder<TokenExchange>, Error> {
        match &self.credentials {
            Credentials::External(external) => Ok(external.exchange(&self.scopes())),
            other => Err(is_another(other, "external_account")),
        }
    }

    /// Starts a source of the metadata server's access tokens.
    ///
    /// # Errors
    ///
    /// As [`service_account`](Self::service_account).
    pub fn metadata_server(&self) -> Result<GrantBuilder<CustomGrant>, Error> {
        match &self.credentials {
            Credentials::Metadata { host } => Ok(of_metadata_server(host, self.wanted())),
            other => Err(is_another(other, "metadata server")),
        }
    }

    /// Starts a source of the access tokens of an account that is impersonated by the tokens of `base`.
    ///
    /// # Errors
    ///
    /// As [`service_account`](Self::service_account).
    pub fn impersonated(&self, base: impl TokenSource) -> Result<GrantBuilder<CustomGrant>, Error> {
        match &self.credentials {
            Credentials::Impersonated { account_url, delegates, .. } => {
                Ok(of_account(account_url, delegates, base, self.wanted()))
            }
            other => Err(is_another(other, "impersonated_service_account")),
        }
    }

    /// Starts a cache of access tokens.
    ///
    /// # Errors
    ///
    /// A configuration error: a key that cannot be used, an address that is not of https.
    pub fn tokens(&self, transport: impl HttpTransport) -> Result<TokenCacheBuilder, Error> {
        Ok(TokenCache::builder(self.source(&self.credentials, self.wanted(), transport)?))
    }

    /// Starts a cache of ID tokens for an audience, such as the URL of a service on Cloud Run.
    ///
    /// # Errors
    ///
    /// As [`tokens`](Self::tokens), and if these credentials can get none.
    pub fn id_tokens(
        &self,
        audience: impl Into<String>,
        transport: impl HttpTransport,
    ) -> Result<TokenCacheBuilder, Error> {
        let wanted = Wanted::Identity(audience.into());
        Ok(TokenCache::builder(self.source(&self.credentials, wanted, transport)?))
    }

    /// Puts the project that is billed on requests that do not name one, if there is one.
    ///
    /// # Errors
    ///
    /// A configuration error if its name cannot stand in a header.
    pub fn with_headers(&self, http: impl HttpTransport) -> Result<impl HttpTransport, Error> {
        let project = self.quota_project.as_deref().map(HeaderValue::try_from).transpose();
        let project = project.map_err(|error| {
            Error::config("the quota project cannot stand in a header").with_source(error)
        })?;
        Ok(headers::with_headers(http, project.map(|project| (QUOTA_PROJECT, project))))
    }

    /// Connects to an API of Google, such as `https://storage.googleapis.com/storage/v1`. Nothing is sent before the first
    /// request.
    ///
    /// # Errors
    ///
    /// As [`tokens`](Self::tokens), and a base URL that is not of https.
    #[cfg(all(feature = "hyper-client", feature = "stack"))]
    #[cfg_attr(docsrs, doc(cfg(all(feature = "hyper-client", feature = "stack"))))]
    pub fn connect(&self, base_url: impl AsRef<str>) -> Result<ApiClient, Error> {
        self.connect_with(base_url, crate::transport::HyperClient::new())
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
        base_url: impl AsRef<str>,
        http: impl HttpTransport,
    ) -> Result<ApiClient, Error> {
        let tokens = self.tokens(http.clone())?.build();
        ApiClient::builder(base_url, tokens).build_with(self.with_headers(http)?)
    }

    fn scopes(&self) -> Vec<String> {
        match self.scopes.is_empty() {
            true => vec![CLOUD_PLATFORM.to_owned()],
            false => self.scopes.clone(),
        }
    }

    fn wanted(&self) -> Wanted {
        Wanted::Access(self.scopes())
    }

    fn source(
        &self,
        credentials: &Credentials,
        wanted: Wanted,
        transport: impl HttpTransport,
    ) -> Result<AnySource, Error> {
        Ok(match (credentials, &wanted) {
            (Credentials::ServiceAccount { key, token_url }, _) => {
                AnySource::of(self.by_key(key, token_url, wanted).build_with(transport)?)
            }
            (Credentials::Impersonated { base, account_url, delegates }, _) => {
                let for_account = Wanted::Access(vec![CLOUD_PLATFORM.to_owned()]);
                let base = self.source(base, for_account, transport.clone())?;
                AnySource::of(of_account(account_url, delegates, base, wanted).build_with(transport)?)
            }
            (Credentials::Metadata { host }, Wanted::Access(_)) => {
                AnySource::of(of_metadata_server(host, wanted).build_with(transport)?)
            }
            (Credentials::Metadata { host }, Wanted::Identity(_)) => {
                AnySource::of(of_metadata_server(host, wanted).build_with(text_as_object(transport))?)
            }
            (Credentials::User { client_id, client_secret, refresh_token }, Wanted::Access(_)) => {
                let user = self.by_user(client_id, client_secret, refresh_token.expose_secret());
                AnySource::of(user.build_with(transport)?)
            }
            (Credentials::External(external), Wanted::Access(scopes)) => {
                AnySource::of(external.exchange(scopes).build_with(transport)?)
            }
            (Credentials::User { .. } | Credentials::External(_), Wanted::Identity(_)) => {
                return Err(Error::config(format!(
                    "credentials of the type {} give no ID token for an audience; impersonate a service account by \
                     Google::impersonate",
                    credentials.kind()
                )));
            }
        })
    }

    fn by_key(&self, key: &Secret, token_url: &str, wanted: Wanted) -> GrantBuilder<JwtBearer> {
        // Account and key id stand in the file beside the key.
        let assertion = Assertion::by_key(JwtAlgorithm::Rs256, key.clone())
            .token_url_as_audience(true)
            .lifetime(LONGEST_ASSERTION);
        let assertion = match &self.subject {
            Some(user) => assertion.subject(user.as_str()),
            None => assertion.without_subject(),
        };
        match wanted {
            Wanted::Access(scopes) => {
                JwtBearer::builder(token_url, assertion.claim("scope", scopes.join(" ")))
            }
            Wanted::Identity(audience) => {
                JwtBearer::builder(token_url, assertion.claim("target_audience", audience))
                    .response_member("access_token", "id_token")
            }
        }
    }

    fn by_user(&self, id: &str, secret: &Secret, refresh_token: &str) -> GrantBuilder<RefreshTokenGrant> {
        let url = format!("https://oauth2.{}/token", self.universe);
        RefreshTokenGrant::builder(url, id, ClientAuth::post(secret.clone())).refresh_token(refresh_token)
    }
}

// --- External ---

impl External {
    fn exchange(&self, scopes: &[String]) -> GrantBuilder<TokenExchange> {
        let subject_type = TokenType::new(self.subject_token_type.as_str());
        let subject = match &self.member {
            None => SecurityToken::new(FileToken::new(&self.path), subject_type),
            Some(member) => SecurityToken::new(member_of_file(&self.path, member), subject_type),
        };
        let builder = TokenExchange::builder(self.token_url.as_str(), subject)
            .audience(self.audience.as_str())
            .scope(scopes.join(" "))
            .requested_token_type(TokenType::ACCESS_TOKEN);
        match &self.client {
            Some((id, secret)) => builder.client(id, ClientAuth::basic(secret.clone())),
            None => builder,
        }
    }
}

/// A secret that is one member of a JSON file, read each time.
fn member_of_file(path: &str, member: &str) -> Secret {
    let (file, member) = (SecretFile::new(path), member.to_owned());
    Secret::from_fn(move || {
        let (file, member) = (file.clone(), member.clone());
        async move {
            let find = |text: &str| {
                let object: Option<serde_json::Value> = serde_json::from_str(text).ok();
                let token = object.as_ref().and_then(|object| object.get(&member)?.as_str());
                token.map(str::to_owned).ok_or_else(|| {
                    Error::transient(format!("{} has no member {member}", file.path().display()))
                })
            };
            file.read_as("subject token", find).await
        }
    })
}

// --- Helpers ---

fn of_metadata_server(host: &str, wanted: Wanted) -> GrantBuilder<CustomGrant> {
    let account = format!("http://{host}/computeMetadata/v1/instance/service-accounts/default");
    let get = |path: &str| {
        // It is beside the machine, and knows no TLS.
        CustomGrant::get(format!("{account}/{path}")).insecure_http(true).header("metadata-flavor", "Google")
    };
    match wanted {
        Wanted::Access(scopes) => get("token").param("scopes", scopes.join(",")),
        Wanted::Identity(audience) => get("identity")
            .param("audience", audience)
            .param("format", "full")
            .response_member("access_token", "id_token"),
    }
}

fn of_account(
    account_url: &str,
    delegates: &[String],
    base: impl TokenSource,
    wanted: Wanted,
) -> GrantBuilder<CustomGrant> {
    let post = |method: &str| {
        let builder = CustomGrant::json(format!("{account_url}:{method}")).authorized_by(base);
        match delegates.is_empty() {
            true => builder,
            false => builder.param_json("delegates", json_of(delegates)),
        }
    };
    match wanted {
        Wanted::Access(scopes) => post("generateAccessToken")
            .param_json("scope", json_of(&scopes))
            .param("lifetime", "3600s")
            .response_member("access_token", "accessToken")
            .response_member("expires_at", "expireTime"),
        Wanted::Identity(audience) => post("generateIdToken")
            .param("audience", audience)
            .param_json("includeEmail", "true")
            .response_member("access_token", "token"),
    }
}

fn json_of(list: &[String]) -> String {
    // A list of strings can always be written.
    serde_json::to_string(list).unwrap_or_default()
}

fn is_another(credentials: &Credentials, wanted: &str) -> Error {
    Error::config(format!("the credentials are of the kind {}, not {wanted}", credentials.kind()))
}

/// Where `gcloud auth application-default login` leaves its file.
fn of_gcloud<F: Fn(&str) -> Option<String>>(environment: &Environment<F>) -> Option<PathBuf> {
    let folder = match environment.find(&["CLOUDSDK_CONFIG"]) {
        Some(folder) => PathBuf::from(folder),
        None => match environment.find(&["APPDATA"]) {
            Some(folder) if cfg!(windows) => PathBuf::from(folder).join("gcloud"),
            Some(_) | None => PathBuf::from(environment.find(&["HOME"])?).join(".config/gcloud"),
        },
    };
    Some(folder.join("application_default_credentials.json"))
}
