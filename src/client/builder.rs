//! The options of a client.

use std::sync::Arc;
use std::{fmt, iter};

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use tower::ServiceExt as _;

use super::api_client::ApiClient;
use super::base::Base;
use super::service::ApiService;
use crate::auth::AuthLayer;
use crate::body::Body;
use crate::cache::{IntoTokenCache, TokenCache};
use crate::error::Error;
use crate::headers;
use crate::http_transport::{HttpTransport, add_missing};
use crate::origin::Origin;
use crate::stack::{Stack, StackBody, StackBuilder, StackSettings, StackTarget};
use crate::text;

/// Headers about the target or the body of one request. The auth layer, which is above, would not see that a `Host` names another
/// server than the URL.
const OF_ONE_REQUEST: [HeaderName; 3] = [HOST, CONTENT_LENGTH, TRANSFER_ENCODING];

/// The start of a client: its base URL and its tokens.
#[derive(Clone)]
#[allow(unnameable_types, reason = "it belongs to the sealed trait")]
pub struct ClientStart {
    base_url: String,
    tokens: TokenCache,
    insecure_http: bool,
    origins: Vec<Result<Origin, Error>>,
    headers: Result<HeaderMap, Error>,
}

impl fmt::Debug for ClientStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It was not checked yet that the URL holds no password.
        f.debug_struct("ClientStart")
            .field("base_url", &text::origin_only(&self.base_url))
            .field("tokens", &self.tokens)
            .finish_non_exhaustive()
    }
}

impl StackTarget for ApiClient {
    type Start = ClientStart;
}

impl ApiClient {
    /// Starts a client with options: retries, timeouts, limits, or an HTTP client of your own.
    #[cfg_attr(docsrs, doc(cfg(feature = "stack")))]
    pub fn builder(base_url: impl AsRef<str>, source: impl IntoTokenCache) -> StackBuilder<Self> {
        let tokens = source.into_token_cache();
        // Without an origin until the base URL is read.
        let auth = AuthLayer::without_origins(tokens.clone());
        let base_url = base_url.as_ref().to_owned();
        let (origins, headers) = (Vec::new(), Ok(HeaderMap::new()));
        let start = ClientStart { base_url, tokens, insecure_http: false, origins, headers };
        StackBuilder { auth, settings: StackSettings::default(), start }
    }
}

impl StackBuilder<ApiClient> {
    /// Sets options of the [auth layer](AuthLayer): another header, what counts as a rejected token. Origins and tokens stay
    /// those of the client.
    ///
    /// # Examples
    ///
    /// An API with keys in a header of its own, that says by a 403 with a header when a key has ended. A 403 that only means "not
    /// allowed" must not be [`Rejection::Token`](crate::auth::Rejection): it would cost the token of all requests.
    ///
    /// ```
    /// use http::{HeaderName, StatusCode};
    /// use tower_oauth2::auth::Rejection;
    /// use tower_oauth2::{AccessToken, ApiClient};
    ///
    /// let key = AccessToken::bearer("mF_9.B5f-4.1JqM")?;
    /// let api = ApiClient::builder("https://api.example.com/v2", key).auth(|layer| {
    ///     layer.header(HeaderName::from_static("x-api-key")).rejection(|status, headers| match status {
    ///         StatusCode::FORBIDDEN if headers.contains_key("x-key-ended") => Rejection::Token,
    ///         _ => Rejection::Standard,
    ///     })
    /// });
    /// # let _ = api;
    /// # Ok::<_, tower_oauth2::Error>(())
    /// ```
    pub fn auth(mut self, change: impl FnOnce(AuthLayer) -> AuthLayer) -> Self {
        self.auth = change(self.auth);
        self
    }

    /// Sets a header of each request that does not have it: `user-agent`, the version of an API. Set again, it replaces the value.
    ///
    /// It may be a key of the API. A request without a token to an origin that is neither that of the base URL nor
    /// [allowed](Self::allow_origin) is sent without it. `host`, `content-length` and `transfer-encoding` are refused when the client is
    /// built. Values are marked as sensitive as [`ApiRequest::header`](super::ApiRequest::header) says.
    ///
    /// ```
    /// use tower_oauth2::{AccessToken, ApiClient};
    ///
    /// let token = AccessToken::bearer("mF_9.B5f-4.1JqM")?;
    /// let api = ApiClient::builder("https://api.example.com/v2", token)
    ///     .default_header("user-agent", "billing/1.4")
    ///     .default_header("accept", "application/vnd.example.v3+json");
    /// # let _ = api;
    /// # Ok::<_, tower_oauth2::Error>(())
    /// ```
    #[doc(alias = "default_headers")]
    #[doc(alias = "user_agent")]
    pub fn default_header<N, V>(mut self, name: N, value: V) -> Self
    where
        N: TryInto<HeaderName, Error: Into<http::Error>>,
        V: TryInto<HeaderValue, Error: Into<http::Error>>,
    {
        let unfit = |what: &str, error: http::Error| {
            Error::config(format!("default_header: {what} that no header may have")).with_source(error)
        };
        let name = name.try_into().map_err(|error| unfit("it has a name", error.into()));
        let header = name.and_then(|name| match value.try_into() {
            Ok(_) if OF_ONE_REQUEST.contains(&name) => Err(Error::config(format!(
                "default_header: {name} is different for each request, and set by the HTTP client; leave it out"
            ))),
            Ok(mut value) => {
                headers::mark_credential(&name, &mut value);
                Ok((name, value))
            }
            Err(error) => Err(unfit(&format!("{name} has a value"), error.into())),
        });
        match (&mut self.start.headers, header) {
            (Ok(headers), Ok((name, value))) => drop(headers.insert(name, value)),
            (headers @ Ok(_), Err(error)) => *headers = Err(error),
            (Err(_), _) => {}
        }
        self
    }

    /// Lets requests by way of [`ApiService`] go to another origin too, with the token: a second region, a host of files.
    pub fn allow_origin<O>(mut self, origin: O) -> Self
    where
        O: TryInto<Origin>,
        O::Error: Into<Error>,
    {
        self.start.origins.push(origin.try_into().map_err(Into::into));
        self
    }

    /// Sets whether a base URL of plain http on a host that is not loopback is allowed. Off by default. Anyone on the way
    /// can read the token then (RFC 6750 §5.3 demands TLS). For closed networks only.
    pub fn allow_insecure_http(mut self, on: bool) -> Self {
        self.start.insecure_http = on;
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
    /// fragment, or a segment of dots; if an allowed origin cannot be read; or if a timeout is zero.
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
        let Self { auth, settings, start } = self;
        settings.check()?;
        // It begins with the request, and not once the limit lets it through.
        let total_timeout = settings.total_timeout();
        let base = Base::parse(&start.base_url)?;
        let mut origin = base.origin().clone();
        if !start.insecure_http {
            let allowed_by = "allow_insecure_http(true) of ApiClient::builder";
            origin = origin.without_insecure_http("the base URL", allowed_by)?;
        }
        // Whatever became of the layer: these are the tokens that the client speaks of.
        let mut auth = auth.with_cache(start.tokens.clone());
        let origins = iter::once(Ok(origin)).chain(start.origins).collect::<Result<Vec<_>, _>>()?;
        for origin in &origins {
            auth = auth.allow_origin(origin.clone())?;
        }
        let defaults = Arc::new((origins, start.headers?));
        let client = client.map_request(move |mut request: Request<StackBody<Body>>| {
            let (origins, headers) = &*defaults;
            // A header may be a key, which is for no other origin.
            let uri = request.uri();
            if uri.authority().is_none() || origins.iter().any(|origin| origin.matches(uri)) {
                add_missing(headers, request.headers_mut());
            }
            request.map(Body::new)
        });
        let stack = Stack::with_settings(auth, settings, client);
        Ok(ApiClient::over(base, ApiService::new(start.tokens, stack).total_timeout(total_timeout)))
    }
}
