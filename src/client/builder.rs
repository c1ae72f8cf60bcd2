//! The options of a client.

use std::time::Duration;

use http::{HeaderMap, HeaderName, Request, StatusCode};
use tower::ServiceExt as _;

use super::api_client::ApiClient;
use super::base::Base;
use super::service::ApiService;
use crate::auth::{AuthLayer, Rejection};
use crate::body::Body;
use crate::cache::TokenCache;
use crate::error::Error;
use crate::http_transport::HttpTransport;
use crate::origin::Origin;
use crate::retry::RetryPolicy;
use crate::stack::{Stack, StackBody, StackSettings};

/// Builds an [`ApiClient`]: a base URL, tokens, and the [layers](crate::stack) between them in the right order.
///
/// Defaults:
///
/// - tokens go to the origin of the base URL, in `Authorization`; requests to other origins are refused
/// - `retry`: [`RetryPolicy::default`]
/// - `concurrency_limit`: none
/// - `attempt_timeout`: 30 s, to the head of the response
/// - `total_timeout`: none; the waits of the retries are bounded by their policy
/// - `redirects`: 10, within the origin of the request
/// - `rejection`: status 401 by its challenge, and gRPC's UNAUTHENTICATED over HTTP/2
///
/// # Examples
///
/// ```no_run
/// # #[cfg(feature = "hyper-client")] {
/// use std::time::Duration;
/// use tower_oauth2::{ApiClient, ClientCredentials};
///
/// let source =
///     ClientCredentials::builder("https://login.example.com/token", "billing", "secret").build()?;
/// let api = ApiClient::builder("https://api.example.com/v2", source)
///     .concurrency_limit(64)
///     .total_timeout(Duration::from_secs(60))
///     .build()?;
/// # }
/// # Ok::<(), tower_oauth2::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct ApiClientBuilder {
    base_url: String,
    tokens: TokenCache,
    insecure_http: bool,
    /// Without an origin until the base URL is read.
    auth: AuthLayer,
    origins: Vec<Result<Origin, Error>>,
    settings: StackSettings,
}

impl ApiClientBuilder {
    pub(super) fn new(base_url: String, tokens: TokenCache) -> Self {
        let auth = AuthLayer::without_origins(tokens.clone());
        let (origins, settings) = (Vec::new(), StackSettings::default());
        Self { base_url, tokens, insecure_http: false, auth, origins, settings }
    }

    /// Sends the token in another header, without a scheme in front: `X-Auth-Token`, an API key.
    pub fn header(mut self, name: HeaderName) -> Self {
        self.auth = self.auth.header(name);
        self
    }

    /// Lets requests by way of [`ApiService`] go to another origin too, with the token: a second region, a host of files.
    pub fn allow_origin<O>(mut self, origin: O) -> Self
    where
        O: TryInto<Origin>,
        O::Error: Into<Error>,
    {
        self.origins.push(origin.try_into().map_err(Into::into));
        self
    }

    /// Sets whether a base URL of plain http on a host that is not loopback is allowed. Off by default. Anyone on the way
    /// can read the token then (RFC 6750 §5.3 demands TLS). For closed networks only.
    pub fn allow_insecure_http(mut self, on: bool) -> Self {
        self.insecure_http = on;
        self
    }

    /// Sets which statuses mean that the token was rejected, beside 401. None by default; some servers say 419 when a token
    /// has expired.
    pub fn rejection_statuses(mut self, statuses: impl IntoIterator<Item = StatusCode>) -> Self {
        self.auth = self.auth.rejection_statuses(statuses);
        self
    }

    /// Asks a rule of your own first what a response means for the token. It sees every response to a request with a token,
    /// so it should be quick.
    ///
    /// # Examples
    ///
    /// An API that says 403 when a session has ended:
    ///
    /// ```
    /// use http::StatusCode;
    /// use tower_oauth2::auth::Rejection;
    /// use tower_oauth2::{AccessToken, ApiClient};
    ///
    /// let token = AccessToken::bearer("mF_9.B5f-4.1JqM")?;
    /// let api = ApiClient::builder("https://api.example.com/v2", token).rejection(|status, headers| match status {
    ///     StatusCode::FORBIDDEN if headers.contains_key("x-session-ended") => Rejection::Token,
    ///     _ => Rejection::Standard,
    /// });
    /// # let _ = api;
    /// # Ok::<_, tower_oauth2::Error>(())
    /// ```
    pub fn rejection<F>(mut self, rule: F) -> Self
    where
        F: Fn(StatusCode, &HeaderMap) -> Rejection + Send + Sync + 'static,
    {
        self.auth = self.auth.rejection(rule);
        self
    }

    /// Sets when a request is sent again.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.settings.policy = policy;
        self
    }

    /// Sets how many requests of all clones may be on their way at once, each until the head of its response; at least one.
    /// Requests that wait for a retry or a token do not count.
    pub fn concurrency_limit(mut self, requests: usize) -> Self {
        self.settings.concurrency = Some(requests.max(1));
        self
    }

    /// Sets how long an attempt may take on the wire, to the head of the response.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.settings.attempt_timeout = timeout;
        self
    }

    /// Sets by when a request must have its response, redirects, waits and retries included. One request can have less by
    /// [`ApiRequest::timeout`](super::ApiRequest::timeout).
    pub fn total_timeout(mut self, timeout: Duration) -> Self {
        self.settings.total_timeout = Some(timeout);
        self
    }

    /// Sets how many redirects of one request are followed, within the origin of the request. The next one is returned.
    pub fn redirects(mut self, most: u32) -> Self {
        self.settings.redirects = most;
        self
    }

    /// Sends a random UUID in this header, such as `x-request-id`, where the request has none. All redirects and attempts
    /// keep it. It is in the response under the same name, unless the server sent one of its own.
    pub fn request_id(mut self, header: HeaderName) -> Self {
        self.settings.request_id = Some(header);
        self
    }

    /// Builds the client over [hyper's](crate::transport::HyperClient), with its defaults.
    ///
    /// # Errors
    ///
    /// As [`build_with`](Self::build_with).
    #[cfg(feature = "hyper-client")]
    #[cfg_attr(docsrs, doc(cfg(feature = "hyper-client")))]
    pub fn build(self) -> Result<ApiClient, Error> {
        self.build_with(crate::transport::HyperClient::new())
    }

    /// Builds the client over any tower HTTP client: one with a proxy or certificates of its own, reqwest's, or a fake in a
    /// test. Its own redirects and retries must be off.
    ///
    /// # Errors
    ///
    /// A configuration error if the base URL is not of https, or of http to loopback, or has a user name, a query, a
    /// fragment, or a segment of dots; or if an allowed origin cannot be read.
    ///
    /// # Examples
    ///
    /// A client in a test, over a server in memory:
    ///
    /// ```
    /// use http::{Request, Response};
    /// use tower::{BoxError, service_fn};
    /// use tower_oauth2::{AccessToken, ApiClient, Body};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
    /// let fake = service_fn(async |request: Request<Body>| {
    ///     Ok::<_, BoxError>(Response::new(Body::from(request.uri().path().to_owned())))
    /// });
    /// let tokens = AccessToken::bearer("mF_9.B5f-4.1JqM")?;
    /// let api: ApiClient = ApiClient::builder("https://api.example.com/v2", tokens).build_with(fake)?;
    /// assert_eq!(api.get("reports").send().await?.text().await?, "/v2/reports");
    /// # Ok::<_, BoxError>(()) })?;
    /// # Ok::<_, BoxError>(())
    /// ```
    pub fn build_with(self, client: impl HttpTransport) -> Result<ApiClient, Error> {
        let base = Base::parse(&self.base_url)?;
        let mut origin = base.origin().clone();
        if !self.insecure_http {
            let allowed_by = "allow_insecure_http(true) of ApiClient::builder";
            origin = origin.without_insecure_http("the base URL", allowed_by)?;
        }
        let mut auth = self.auth.allow_origin(origin)?;
        for origin in self.origins {
            auth = auth.allow_origin(origin?)?;
        }
        let client = client.map_request(|request: Request<StackBody<Body>>| request.map(Body::new));
        let stack = Stack::with_settings(auth, self.settings, client);
        Ok(ApiClient::over(base, ApiService::new(self.tokens, stack)))
    }
}
