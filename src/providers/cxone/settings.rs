//! The preset: a client, an access key, and what is made of them.

use std::fmt;
use std::sync::atomic::AtomicBool;

use super::discovery::{find_api, tenant_of};
use super::renewal::Renewing;
use crate::cache::TokenCache;
#[cfg(feature = "stack")]
use crate::client::ApiClient;
use crate::error::Error;
use crate::grants::{
    ClientAuth, ClientCredentials, CustomGrant, Endpoint, GrantBuilder, Issuer, RefreshTokenGrant, Secret,
};
use crate::http_transport::HttpTransport;
use crate::providers::environment::Environment;
use crate::text::origin_only;
use crate::token::AccessToken;

/// A client of NICE CXone: an OAuth client, and perhaps an access key. It fills in the builders of this crate.
///
/// Defaults:
///
/// - issuer: `https://cxone.niceincontact.com`
/// - HTTP Basic as RFC 6749 has it; [`auth`](Self::auth) sets another way
/// - domains in which an API may be: `niceincontact.com` and `nice-incontact.com`
/// - the base URL of the API comes from the discovery
#[derive(Clone)]
#[must_use]
pub struct Cxone {
    issuer: String,
    token_url: Option<String>,
    client_id: String,
    auth: ClientAuth,
    access_key: Option<(String, Secret)>,
    domains: Vec<String>,
    base_uri: Option<String>,
}

const ISSUER: &str = "https://cxone.niceincontact.com";
const DOMAINS: [&str; 2] = ["niceincontact.com", "nice-incontact.com"];

impl Cxone {
    /// Creates the preset of an OAuth client.
    pub fn new(client_id: impl Into<String>, client_secret: impl Into<Secret>) -> Self {
        Self {
            issuer: ISSUER.to_owned(),
            token_url: None,
            client_id: client_id.into(),
            auth: ClientAuth::basic(client_secret),
            access_key: None,
            domains: DOMAINS.map(str::to_owned).to_vec(),
            base_uri: None,
        }
    }

    /// Reads the environment. The page of the [module](super) lists the variables.
    ///
    /// # Errors
    ///
    /// A configuration error that names the variable that is missing.
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
        let client_id = environment.required("the client id", &["CXONE_CLIENT_ID"])?;
        let secret = environment.required("the client secret", &["CXONE_CLIENT_SECRET"])?;
        let mut preset = Self::new(client_id, secret);
        let key = environment.find(&["CXONE_ACCESS_KEY_ID", "CXONE_ACCESS_KEY"]);
        let secret = environment.find(&["CXONE_ACCESS_KEY_SECRET", "CXONE_ACCESS_SECRET"]);
        match (key, secret) {
            (Some(key), Some(secret)) => preset = preset.access_key(key, secret),
            (None, None) => {}
            (Some(_), None) => {
                return Err(Error::config("CXONE_ACCESS_KEY_ID is set, but CXONE_ACCESS_KEY_SECRET is not"));
            }
            (None, Some(_)) => {
                return Err(Error::config("CXONE_ACCESS_KEY_SECRET is set, but CXONE_ACCESS_KEY_ID is not"));
            }
        }
        preset.base_uri = environment.find(&["CXONE_BASE_URI"]);
        Ok(preset)
    }

    /// Sets the access key of an API user.
    pub fn access_key(mut self, id: impl Into<String>, secret: impl Into<Secret>) -> Self {
        self.access_key = Some((id.into(), secret.into()));
        self
    }

    /// Sets how the client authenticates, such as [`ClientAuth::post`].
    pub fn auth(mut self, auth: ClientAuth) -> Self {
        self.auth = auth;
        self
    }

    /// Sets the issuer.
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.issuer = issuer.into().trim_end_matches('/').to_owned();
        self
    }

    /// Sets the token endpoint, such as `https://cxone.niceincontact.com/auth/token`, and leaves the OpenID configuration out.
    pub fn token_url(mut self, url: impl Into<String>) -> Self {
        self.token_url = Some(url.into());
        self
    }

    /// Sets the domains in which the API of a tenant may be, in place of the vendor's.
    pub fn domains<I>(mut self, domains: I) -> Self
    where
        I: IntoIterator<Item: Into<String>>,
    {
        self.domains = domains.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the base URL of the API, and leaves the discovery out.
    pub fn base_uri(mut self, base_uri: impl Into<String>) -> Self {
        self.base_uri = Some(base_uri.into());
        self
    }

    fn endpoint(&self) -> Endpoint {
        match &self.token_url {
            Some(url) => url.clone().into(),
            None => Issuer::new(self.issuer.clone()).into(),
        }
    }

    /// Starts a source for the grant that the vendor documents for back ends: an access key of an API user as user name and
    /// password.
    ///
    /// # Errors
    ///
    /// A configuration error if there is no access key.
    pub fn password(&self) -> Result<GrantBuilder<CustomGrant>, Error> {
        let Some((id, secret)) = &self.access_key else {
            return Err(Error::config("the password grant of CXone wants an access key; set access_key"));
        };
        Ok(CustomGrant::builder(self.endpoint(), "password")
            .client(self.client_id.clone(), self.auth.clone())
            .param("username", id.clone())
            .secret_param("password", secret.clone()))
    }

    /// Starts a source for the client credentials grant.
    pub fn client_credentials(&self) -> GrantBuilder<ClientCredentials> {
        ClientCredentials::builder(self.endpoint(), self.client_id.clone(), self.auth.clone())
    }

    /// Starts a source for the endpoint of the `UserHub`, which takes an access key as JSON and knows no client, such as
    /// `https://na1.nice-incontact.com`. The members of its response are *not confirmed*;
    /// [`response_member`](GrantBuilder::response_member) names members that differ from those of OAuth.
    ///
    /// # Errors
    ///
    /// As [`password`](Self::password).
    pub fn user_hub(&self, origin: &str) -> Result<GrantBuilder<CustomGrant>, Error> {
        let Some((id, secret)) = &self.access_key else {
            return Err(Error::config("the UserHub of CXone wants an access key; set access_key"));
        };
        Ok(CustomGrant::json(format!("{}/authentication/v1/token/access-key", origin.trim_end_matches('/')))
            .param("accessKeyId", id.clone())
            .secret_param("accessKeySecret", secret.clone()))
    }

    /// Starts a cache: by the access key if there is one, or else in the name of the client.
    ///
    /// A token of the access key is renewed by its refresh token, if the response has one, and by the access key again when the
    /// refresh token is refused. That the endpoint takes refresh tokens is *not confirmed*; one that does not is asked once.
    ///
    /// # Errors
    ///
    /// That of the builder: an empty client id, an issuer that is not of https.
    pub fn tokens(&self, transport: impl HttpTransport) -> Result<TokenCache, Error> {
        if self.access_key.is_none() {
            return Ok(TokenCache::new(self.client_credentials().build_with(transport)?));
        }
        Ok(TokenCache::new(Renewing {
            by_key: self.password()?.build_with(transport.clone())?,
            by_refresh_token: RefreshTokenGrant::builder(
                self.endpoint(),
                self.client_id.clone(),
                self.auth.clone(),
            )
            .build_with(transport)?,
            is_unsupported: AtomicBool::new(false),
        }))
    }

    /// Returns the base URL of the API of the tenant that a token is of.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the request.
    ///
    /// # Errors
    ///
    /// A configuration error if the token names no tenant, or the tenant an API that is not of https in one of the domains; a
    /// transient one if the issuer did not respond; a protocol error if its response cannot be read.
    pub async fn discover(
        &self,
        token: &AccessToken,
        transport: impl HttpTransport,
    ) -> Result<String, Error> {
        let tenant = tenant_of(token).ok_or_else(|| {
            Error::config(
                "the token of CXone names no tenant, neither in its id_token nor in itself; set base_uri",
            )
        })?;
        find_api(&self.issuer, &tenant, &self.domains, transport).await
    }

    /// Fetches the first token, finds the API, and returns a client of it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops its requests.
    ///
    /// # Errors
    ///
    /// Those of the first token, of [`discover`](Self::discover), and of the client's builder.
    #[cfg(feature = "stack")]
    #[cfg_attr(docsrs, doc(cfg(feature = "stack")))]
    pub async fn connect_with(&self, http: impl HttpTransport) -> Result<ApiClient, Error> {
        let tokens = self.tokens(http.clone())?;
        let base_uri = match &self.base_uri {
            Some(base_uri) => base_uri.clone(),
            None => self.discover(&tokens.get().await?, http.clone()).await?,
        };
        ApiClient::builder(base_uri, tokens).build_with(http)
    }
}

/// Of a URL it shows the origin: what else it has was not checked yet.
impl fmt::Debug for Cxone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cxone")
            .field("issuer", &origin_only(&self.issuer))
            .field("token_url", &self.token_url.as_deref().map(origin_only))
            .field("client_id", &self.client_id)
            .field("auth", &self.auth)
            .field("domains", &self.domains)
            .field("base_uri", &self.base_uri.as_deref().map(origin_only))
            .finish_non_exhaustive()
    }
}
