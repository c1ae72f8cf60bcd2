//! The preset: a region and a client, and what is made of them.

use std::time::Duration;

use super::environment::{Environment, ProxyAddress};
use super::gateway::Gateway;
use super::patient::Patient;
use super::region::Region;
#[cfg(feature = "stack")]
use crate::cache::IntoTokenCache;
use crate::cache::{TokenCache, TokenCacheBuilder};
#[cfg(feature = "stack")]
use crate::client::ApiClient;
use crate::error::{Error, ErrorKind};
use crate::grants::{
    ClientAuth, ClientCredentials, CustomGrant, GrantBuilder, RefreshTokenGrant, Refusal, Secret,
};
use crate::http_transport::HttpTransport;
use crate::pool::{TokenPool, TokenPoolBuilder};
use crate::providers::revoke;
use crate::retry::{RateLimitProfile, RetryPolicy, RetryPolicyBuilder};
use crate::revoke::TokenRevoker;
use crate::source::TokenSource;
#[cfg(feature = "stack")]
use crate::stack::StackBuilder;
use crate::token::AccessToken;

/// A client of Genesys Cloud: a region, an OAuth client, and perhaps a gateway. It fills in the builders of this crate.
///
/// It sets:
///
/// - the token endpoint, `/oauth/token` at `login.` of the region, and HTTP Basic without form-encoding, as the vendor's SDKs
///   send it; a [public](Self::public) client (PKCE) sends its id alone
/// - a 400 `invalid_request` whose description begins with `rate limit exceeded` is throttling; a [cache](Self::cache) of the
///   preset asks again for a minute
/// - the base URL of the API, `/api/v2` at `api.` of the region
/// - the rate limits of the API by [`RateLimitProfile::genesys`]; a 429 is waited for up to 180 s, as the Go SDK does, and up to
///   five minutes in all
/// - `connect`: a [pool](crate::pool) of `GENESYSCLOUD_TOKEN_POOL_SIZE` tokens, which waits before the API
///   refuses; one by default
#[derive(Clone, Debug)]
#[must_use]
#[cfg_attr(
    not(all(feature = "hyper-client", feature = "stack")),
    allow(dead_code, reason = "a proxy is for the default HTTP client, a token for a client of the API")
)]
pub struct Genesys {
    region: Region,
    gateway: Option<Gateway>,
    client_id: String,
    auth: ClientAuth,
    access_token: Option<AccessToken>,
    proxy: Option<ProxyAddress>,
    pool_size: usize,
}

/// Long enough for a minute of further attempts, with the last of them at its end.
const FETCH_TIMEOUT: Duration = Duration::from_secs(90);

/// The longest `Retry-After` that the vendor's Go SDK waits for.
const LONGEST_PAUSE: Duration = Duration::from_secs(180);

/// How long a request waits for room in all: some windows of a minute.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

impl Genesys {
    /// Creates the preset of an OAuth client in a region.
    pub fn new(region: Region, client_id: impl Into<String>, secret: impl Into<Secret>) -> Self {
        Self::with_auth(region, client_id.into(), ClientAuth::basic_raw(secret))
    }

    /// Creates the preset of a client without a secret, which logs in by PKCE and has a refresh token from there.
    pub fn public(region: Region, client_id: impl Into<String>) -> Self {
        Self::with_auth(region, client_id.into(), ClientAuth::none())
    }

    fn with_auth(region: Region, client_id: String, auth: ClientAuth) -> Self {
        Self { region, gateway: None, client_id, auth, access_token: None, proxy: None, pool_size: 1 }
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
        let Environment { region, client_id, secret, access_token, pool_size, proxy, gateway } =
            Environment::read(lookup)?;
        let auth = secret.map_or_else(ClientAuth::none, ClientAuth::basic_raw);
        let preset = Self::with_auth(region, client_id.unwrap_or_default(), auth);
        Ok(Self {
            gateway,
            access_token: access_token.map(AccessToken::bearer).transpose()?,
            proxy,
            pool_size: pool_size.unwrap_or(1),
            ..preset
        })
    }

    /// Sends all requests to a gateway of your own, by what stands there in front of `/oauth/token` and of `/api/v2`, such as
    /// `https://gateway.example.com:8443/login` and `https://gateway.example.com:8443`. The gateway gets the tokens.
    ///
    /// # Errors
    ///
    /// A configuration error if one of the two is not a URL of https, or of http to loopback, or has a query.
    pub fn gateway(mut self, login_url: impl AsRef<str>, api_url: impl AsRef<str>) -> Result<Self, Error> {
        self.gateway = Some(Gateway::new(login_url.as_ref(), api_url.as_ref())?);
        Ok(self)
    }

    /// Returns the region.
    #[must_use]
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// Returns how many tokens the environment wants to share the load; one by default.
    #[must_use]
    pub fn pool_size(&self) -> usize {
        self.pool_size
    }

    /// Returns the token endpoint.
    #[must_use]
    pub fn token_url(&self) -> String {
        format!("{}/oauth/token", self.login_origin())
    }

    fn login_origin(&self) -> String {
        self.gateway.as_ref().map_or_else(|| self.region.login_origin(), |gateway| gateway.login.clone())
    }

    /// Returns the base URL of the API.
    #[must_use]
    pub fn base_url(&self) -> String {
        let api =
            self.gateway.as_ref().map_or_else(|| self.region.api_origin(), |gateway| gateway.api.clone());
        format!("{api}/api/v2")
    }

    /// Starts a source for the client credentials grant: a service in its own name.
    pub fn client_credentials(&self) -> GrantBuilder<ClientCredentials> {
        ClientCredentials::builder(self.token_url(), self.client_id.clone(), self.auth.clone())
            .classifier(is_throttled)
    }

    /// Starts a source for a refresh token, of a login by code or by PKCE.
    pub fn refresh_token(&self, refresh_token: impl Into<String>) -> GrantBuilder<RefreshTokenGrant> {
        RefreshTokenGrant::builder(self.token_url(), self.client_id.clone(), self.auth.clone())
            .refresh_token(refresh_token)
            .classifier(is_throttled)
    }

    /// Starts a source for the SAML 2.0 bearer grant: an assertion of your identity provider, for an organization by its
    /// short name.
    pub fn saml2_bearer(
        &self,
        organization: impl Into<String>,
        assertion: impl Into<Secret>,
    ) -> GrantBuilder<CustomGrant> {
        CustomGrant::builder(self.token_url(), "urn:ietf:params:oauth:grant-type:saml2-bearer")
            .client(self.client_id.clone(), self.auth.clone())
            .param("orgName", organization)
            .secret_param("assertion", assertion)
            .classifier(is_throttled)
    }

    /// Starts a cache that has the patience for a token endpoint that is throttled: it is asked again for a minute. Revocation
    /// ends the token at the API.
    pub fn cache(&self, source: impl TokenSource, transport: impl HttpTransport) -> TokenCacheBuilder {
        TokenCache::builder(source)
            .around(Patient)
            .fetch_timeout(FETCH_TIMEOUT)
            .revoke_with(self.revoker(transport))
    }

    /// Starts a retry policy that knows the rate limits of the API.
    pub fn retry_policy() -> RetryPolicyBuilder {
        RetryPolicy::builder()
            .rate_limit_profile(RateLimitProfile::genesys())
            .max_retry_after(LONGEST_PAUSE)
            .max_total_delay(LONGEST_WAIT)
    }

    /// Starts a client of the API. Its paths begin behind `/api/v2`: `api.get("users/me")`.
    ///
    /// # Errors
    ///
    /// That of the retry policy; there is none.
    #[cfg(feature = "stack")]
    #[cfg_attr(docsrs, doc(cfg(feature = "stack")))]
    pub fn api(&self, tokens: impl IntoTokenCache) -> Result<StackBuilder<ApiClient>, Error> {
        Ok(ApiClient::builder(self.base_url(), tokens).retry(Self::retry_policy().build()?))
    }

    /// Starts a pool of tokens, since the API limits each. Whether you may do that is for the terms of use to say; see
    /// [`pool`](crate::pool). `connect` makes one of `GENESYSCLOUD_TOKEN_POOL_SIZE` tokens by itself.
    ///
    /// # Examples
    ///
    /// A pool of four whose state a health check shows, here against the emulator of the test kit:
    ///
    /// ```
    /// # #[cfg(all(feature = "stack", feature = "test-util"))] {
    /// use tower::Layer as _;
    /// use tower_oauth2::client::ApiService;
    /// use tower_oauth2::providers::genesys::Genesys;
    /// use tower_oauth2::stack::Stack;
    /// use tower_oauth2::test_util::FakeGenesys;
    /// use tower_oauth2::{ApiClient, AuthLayer};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
    /// let http = FakeGenesys::builder().client("reports", "s3cr/t").build();
    /// let genesys = Genesys::new(http.region().parse()?, "reports", "s3cr/t");
    /// let pool = genesys.pool(4, http.clone()).build()?;
    ///
    /// let auth = AuthLayer::per_request([genesys.region().api_origin().as_str()])?;
    /// let layers = Stack::with_auth(auth).retry(Genesys::retry_policy().build()?);
    /// let service = pool.layer(layers.build(http));
    /// let api = ApiClient::new(genesys.base_url(), ApiService::new(pool.first().clone(), service))?;
    /// assert_eq!(api.get("users/me").send().await?.status(), 200);
    /// for member in pool.status() {
    ///     println!("{}: {:?} requests left", member.credential(), member.left());
    /// }
    /// # assert_eq!(pool.status().len(), 4);
    /// # Ok::<_, tower::BoxError>(()) })?;
    /// # }
    /// # Ok::<_, tower::BoxError>(())
    /// ```
    pub fn pool(&self, size: usize, transport: impl HttpTransport) -> TokenPoolBuilder {
        let preset = self.clone();
        let make = move |_number| {
            let source = preset.client_credentials().build_with(transport.clone())?;
            Ok(preset.cache(source, transport.clone()))
        };
        TokenPool::builder(size, make)
            .name(format!("{} at {}", self.client_id, self.login_origin()))
            .profile(RateLimitProfile::genesys())
            .longest_wait(LONGEST_WAIT)
    }

    /// Makes what revokes a token: `DELETE tokens/me`, by which a token ends itself (*not confirmed* by the vendor's pages).
    #[must_use]
    pub fn revoker(&self, transport: impl HttpTransport) -> impl TokenRevoker {
        revoke::by_delete(format!("{}/tokens/me", self.base_url()), transport)
    }
}

/// Tells the 400 by which the token endpoint means 429, as the vendor's Terraform provider tells it.
fn is_throttled(refusal: &Refusal<'_>) -> Option<ErrorKind> {
    let is_limit = refusal.status() == http::StatusCode::BAD_REQUEST
        && refusal.code() == Some("invalid_request")
        && refusal
            .description()
            .is_some_and(|text| text.trim_start().to_ascii_lowercase().starts_with("rate limit exceeded"));
    is_limit.then_some(ErrorKind::Throttled)
}

#[cfg(feature = "stack")]
mod connect {
    use http::Request;
    use tower::{Layer as _, ServiceExt as _};

    use super::Genesys;
    use crate::auth::AuthLayer;
    use crate::body::Body;
    use crate::client::{ApiClient, ApiService};
    use crate::error::Error;
    use crate::http_transport::HttpTransport;
    use crate::retry::RequestBody;
    use crate::stack::{Stack, StackBody};
    #[cfg(feature = "hyper-client")]
    use crate::transport::{HyperClient, Proxy};

    impl Genesys {
        /// Connects to the API with all that the environment says: proxy, gateway, an access token or the client, and the
        /// size of the pool. Nothing is sent before the first request.
        ///
        /// # Errors
        ///
        /// A configuration error: an empty client id, a proxy that is none, a pool that is too large.
        #[cfg(feature = "hyper-client")]
        #[cfg_attr(docsrs, doc(cfg(all(feature = "hyper-client", feature = "stack"))))]
        pub fn connect(&self) -> Result<ApiClient, Error> {
            let mut http = HyperClient::new();
            if let Some(proxy) = &self.proxy {
                let address = Proxy::new(&proxy.scheme, &proxy.host, proxy.port)?;
                http = http.proxy(match &proxy.credentials {
                    Some((user, password)) => address.credentials(user, password.clone()),
                    None => address,
                });
            }
            self.connect_with(http)
        }

        /// Connects over an HTTP client of your own, which serves the token endpoint too, and knows its own proxy.
        ///
        /// # Errors
        ///
        /// A configuration error: an empty client id, a pool that is too large.
        #[cfg_attr(docsrs, doc(cfg(feature = "stack")))]
        pub fn connect_with(&self, http: impl HttpTransport) -> Result<ApiClient, Error> {
            if let Some(token) = &self.access_token {
                return self.api(token.clone())?.build_with(http);
            }
            // Also for one token: it knows of the limit before the API refuses.
            let pool = self.pool(self.pool_size, http.clone()).build()?;
            let base_url = self.base_url();
            let origin = ApiClient::new(&base_url, ())?.origin().clone();
            let http =
                http.map_request(|request: Request<StackBody<RequestBody<Body>>>| request.map(Body::new));
            let layers = Stack::with_auth(AuthLayer::per_request([origin])?)
                .retry(Self::retry_policy().build()?)
                .build(http);
            ApiClient::new(base_url, ApiService::new(pool.first().clone(), pool.layer(layers)))
        }
    }
}
