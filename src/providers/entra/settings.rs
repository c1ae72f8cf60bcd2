//! The preset: an identity and what its tokens are for, and what is made of them.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::StatusCode;

use super::environment;
use crate::cache::{TokenCache, TokenCacheBuilder};
use crate::error::{Error, ErrorKind};
use crate::grants::jwt::{Assertion, JwtAlgorithm};
use crate::grants::{ClientAuth, ClientCredentials, CustomGrant, GrantBuilder, Refusal, Secret};
use crate::http_transport::HttpTransport;
use crate::source::FileToken;
use crate::text::origin_only;

/// An identity of Microsoft Entra ID, and the scope that its tokens are for. It fills in the builders of this crate.
///
/// Defaults:
///
/// - the cloud of an app: [`PUBLIC`](Self::PUBLIC)
/// - scope: none; `connect` takes that of the base URL
/// - the assertion of a certificate: PS256, for ten minutes
/// - the managed identity: the one that the system assigned
///
/// # Examples
///
/// ```
/// use tower_oauth2::providers::entra::Entra;
///
/// let machine = Entra::managed_identity().scope("https://vault.azure.net/.default");
/// let pod = Entra::with_token_file("TENANT", "CLIENT-ID", "/var/run/secrets/azure/tokens/azure-identity-token");
/// assert_eq!((machine.kind(), pod.kind()), ("managed identity of a virtual machine", "federated token file"));
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Entra {
    pub(super) identity: Identity,
    pub(super) scope: Option<String>,
    /// One of several managed identities.
    user_assigned: Option<String>,
}

/// The identity that asks for tokens.
#[derive(Clone)]
pub(super) enum Identity {
    /// An app, by a proof of this kind.
    App { tenant: String, client_id: String, auth: ClientAuth, kind: &'static str, authority: String },
    /// A managed identity, by the server beside its machine.
    Machine { host: String },
    /// A managed identity, by the server beside its process.
    AppService { endpoint: String, header: Secret },
}

pub(super) const VM_HOST: &str = "http://169.254.169.254";

/// Microsoft's libraries have it so.
const ASSERTION_LIFETIME: Duration = Duration::from_secs(600);
/// The server beside a machine is updated for up to 70 s.
const FETCH_TIMEOUT: Duration = Duration::from_secs(90);

impl Entra {
    /// The public cloud.
    pub const PUBLIC: &'static str = "https://login.microsoftonline.com";
    /// The cloud of the government of the United States.
    pub const US_GOVERNMENT: &'static str = "https://login.microsoftonline.us";
    /// The cloud in China, by the name that Microsoft's libraries have for it.
    pub const CHINA: &'static str = "https://login.chinacloudapi.cn";

    /// Creates the preset of an app with a client secret.
    pub fn with_secret(
        tenant: impl Into<String>,
        client_id: impl Into<String>,
        secret: impl Into<Secret>,
    ) -> Self {
        Self::app(tenant.into(), client_id.into(), ClientAuth::post(secret), "client secret")
    }

    /// Creates the preset of an app with a certificate. The key and the certificate are PEM, perhaps in one file.
    pub fn with_certificate(
        tenant: impl Into<String>,
        client_id: impl Into<String>,
        key: impl Into<Secret>,
        certificate: impl Into<Secret>,
    ) -> Self {
        let assertion = Assertion::by_key(JwtAlgorithm::Ps256, key)
            .certificate(certificate)
            .token_url_as_audience(true)
            .lifetime(ASSERTION_LIFETIME);
        let auth = ClientAuth::private_key_jwt(assertion);
        Self::app(tenant.into(), client_id.into(), auth, "certificate")
    }

    /// Creates the preset of an app whose platform puts a token into a file, which is read for each token request (workload
    /// identity federation).
    pub fn with_token_file(
        tenant: impl Into<String>,
        client_id: impl Into<String>,
        path: impl Into<PathBuf>,
    ) -> Self {
        let auth = ClientAuth::assertion(FileToken::new(path));
        Self::app(tenant.into(), client_id.into(), auth, "federated token file")
    }

    /// Creates the preset for the managed identity of a virtual machine.
    pub fn managed_identity() -> Self {
        Self::of(Identity::Machine { host: VM_HOST.to_owned() })
    }

    /// Creates the preset for the managed identity of App Service, Functions or Container Apps, from `IDENTITY_ENDPOINT` and
    /// `IDENTITY_HEADER`.
    pub fn app_service(endpoint: impl Into<String>, header: impl Into<Secret>) -> Self {
        Self::of(Identity::AppService { endpoint: endpoint.into(), header: header.into() })
    }

    fn app(tenant: String, client_id: String, auth: ClientAuth, kind: &'static str) -> Self {
        Self::of(Identity::App { tenant, client_id, auth, kind, authority: Self::PUBLIC.to_owned() })
    }

    pub(super) fn of(identity: Identity) -> Self {
        Self { identity, scope: None, user_assigned: None }
    }

    /// Reads the environment. The page of the [module](super) lists the variables, and which of them count.
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
        let entra = environment::read(lookup)?;
        tracing::debug!(kind = entra.kind(), "found an identity of Entra");
        Ok(entra)
    }

    /// Sets the cloud of an app, by the origin of its authorization server, such as [`US_GOVERNMENT`](Self::US_GOVERNMENT).
    pub fn authority(mut self, origin: impl Into<String>) -> Self {
        if let Identity::App { authority, .. } = &mut self.identity {
            *authority = origin.into();
        }
        self
    }

    /// Sets what tokens are for, such as `https://graph.microsoft.com/.default`.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Some(scope.into());
        self
    }

    /// Sets which managed identity is meant if a machine has several, by its client id. For its resource id, set the
    /// parameter `msi_res_id` on the [builder](Self::managed), on App Service `mi_res_id`.
    pub fn user_assigned(mut self, client_id: impl Into<String>) -> Self {
        self.user_assigned = Some(client_id.into());
        self
    }

    /// Returns what the identity is: `client secret`, `certificate`, `federated token file`, `managed identity of a virtual
    /// machine` or `managed identity of App Service`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &self.identity {
            Identity::App { kind, .. } => kind,
            Identity::Machine { .. } => "managed identity of a virtual machine",
            Identity::AppService { .. } => "managed identity of App Service",
        }
    }

    /// Starts a source of an app's tokens.
    ///
    /// # Errors
    ///
    /// A configuration error if there is no scope, if the tenant is not an id or a domain, or for a managed identity.
    pub fn client_credentials(&self) -> Result<GrantBuilder<ClientCredentials>, Error> {
        let Identity::App { tenant, client_id, auth, authority, .. } = &self.identity else {
            return Err(Error::config(format!("the identity is the {}, not an app", self.kind())));
        };
        let tenant = tenant.trim();
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
        if tenant.is_empty() || !tenant.bytes().all(is_part) {
            return Err(Error::config("tenant: it is neither the id of a tenant nor one of its domains"));
        }
        let url = format!("{}/{tenant}/oauth2/v2.0/token", authority.trim_end_matches('/'));
        Ok(ClientCredentials::builder(url, client_id, auth.clone()).scope(self.required_scope()?))
    }

    /// Starts a source of the tokens of a managed identity.
    ///
    /// # Errors
    ///
    /// A configuration error if there is no scope, or for an app.
    pub fn managed(&self) -> Result<GrantBuilder<CustomGrant>, Error> {
        let scope = self.required_scope()?;
        // These servers are for one resource at a time, and know no scopes.
        let resource = scope.strip_suffix("/.default").unwrap_or(scope);
        let builder = match &self.identity {
            Identity::App { .. } => {
                return Err(Error::config("the identity is an app, not a managed identity"));
            }
            Identity::Machine { host } => {
                let url = format!("{}/metadata/identity/oauth2/token", host.trim_end_matches('/'));
                CustomGrant::get(url).param("api-version", "2018-02-01").header("metadata", "true")
            }
            Identity::AppService { endpoint, header } => CustomGrant::get(endpoint.as_str())
                .param("api-version", "2019-08-01")
                .secret_header("x-identity-header", header.clone())
                .response_member("expires_at", "expires_on"),
        };
        // The server is beside the machine or the process, and knows no TLS.
        let builder = builder
            .insecure_http(true)
            .param("resource", resource)
            .retries(7)
            .min_delay(Duration::from_secs(1))
            .classifier(passes);
        Ok(match &self.user_assigned {
            Some(client_id) => builder.param("client_id", client_id),
            None => builder,
        })
    }

    /// Starts a cache of tokens. Those of an app are not such as an API challenges for claims; see
    /// [`ClaimsChallenge`](super::ClaimsChallenge).
    ///
    /// # Errors
    ///
    /// As [`client_credentials`](Self::client_credentials) and [`managed`](Self::managed), and of their builders: an empty
    /// client id, a key that cannot be used.
    pub fn tokens(&self, transport: impl HttpTransport) -> Result<TokenCacheBuilder, Error> {
        Ok(match &self.identity {
            Identity::App { .. } => TokenCache::builder(self.client_credentials()?.build_with(transport)?),
            Identity::Machine { .. } | Identity::AppService { .. } => {
                TokenCache::builder(self.managed()?.build_with(transport)?).fetch_timeout(FETCH_TIMEOUT)
            }
        })
    }

    fn required_scope(&self) -> Result<&str, Error> {
        self.scope.as_deref().ok_or_else(|| {
            Error::config("there is no scope; set it, such as https://graph.microsoft.com/.default")
        })
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::App { tenant, client_id, auth, kind: _, authority } => f
                .debug_struct("App")
                .field("tenant", tenant)
                .field("client_id", client_id)
                .field("auth", auth)
                .field("authority", &origin_only(authority))
                .finish(),
            Self::Machine { host } => f.debug_struct("Machine").field("host", &origin_only(host)).finish(),
            Self::AppService { endpoint, header } => f
                .debug_struct("AppService")
                .field("endpoint", &origin_only(endpoint))
                .field("header", header)
                .finish(),
        }
    }
}

/// The server beside a machine says 404 while it does not know the identity yet, and 410 while it is updated.
fn passes(refusal: &Refusal<'_>) -> Option<ErrorKind> {
    matches!(refusal.status(), StatusCode::NOT_FOUND | StatusCode::GONE).then_some(ErrorKind::Transient)
}
