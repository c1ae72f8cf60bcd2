//! The layer and its options.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, StatusCode};
use tower_layer::Layer;

use super::named_origin::NamedOrigin;
use super::rules::{AuthOptions, Origins, Rules};
use super::service::AuthService;
use super::terms::Rejection;
use crate::cache::{IntoTokenCache, TokenCache};
use crate::error::Error;
use crate::origin::Origin;

/// Puts access tokens on outgoing requests.
///
/// A token goes to the origins that were named and nowhere else. The [rules](super) say what happens to a request.
///
/// Defaults:
/// - header: `Authorization`, with the token's scheme in front
/// - a request that has the header already keeps it, and none of ours
/// - a request to another origin is sent without a token, marked [`TokenWithheld`](crate::extensions::TokenWithheld)
/// - a request whose URI is a path alone is an error
/// - rejection: status 401 by its challenge, and gRPC's UNAUTHENTICATED over HTTP/2
///
/// # Examples
///
/// ```
/// use tower::ServiceBuilder;
/// use tower_oauth2::{AccessToken, AuthLayer};
/// # let http_client = tower::service_fn(|_: http::Request<String>| async { Ok::<_, tower::BoxError>(http::Response::new(())) });
///
/// let source = AccessToken::bearer("mF_9.B5f-4.1JqM")?;
/// let client = ServiceBuilder::new()
///     .layer(AuthLayer::for_origin(source, "https://api.example.com")?.refuse_other_origins(true))
///     .service(http_client);
/// # Ok::<(), tower_oauth2::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
#[doc(alias = "bearer")]
#[doc(alias = "Authorization")]
#[doc(alias = "401")]
pub struct AuthLayer {
    options: AuthOptions,
}

impl AuthLayer {
    /// Creates a layer whose tokens go to one origin, such as `https://api.example.com`. Takes a source, or a cache that
    /// others share.
    ///
    /// # Errors
    ///
    /// Those of [`Origin`]; plain http is for loopback alone, or for an [`Origin::parse_with_insecure_http`].
    pub fn for_origin<O>(source: impl IntoTokenCache, origin: O) -> Result<Self, Error>
    where
        O: TryInto<Origin>,
        O::Error: Into<Error>,
    {
        Ok(Self::new(
            Some(source.into_token_cache()),
            Origins { listed: vec![read(origin)?], any_https: false },
        ))
    }

    /// Creates a layer whose tokens go to any https origin that a request names, and to loopback.
    ///
    /// Code that can choose the URI of a request, or redirect it above this layer, gets the token.
    pub fn for_any_https_origin_unchecked(source: impl IntoTokenCache) -> Self {
        Self::new(Some(source.into_token_cache()), Origins { listed: Vec::new(), any_https: true })
    }

    /// Creates a layer for a provider whose token response names the origin of the API: the token goes to the origin in this
    /// member (`instance_url` of Salesforce), and to no other.
    ///
    /// The origin must be https, and its host one of `domains` or in one of them: `my.salesforce.com` stands for
    /// `acme.my.salesforce.com` too, and not for `evil-my.salesforce.com`. On this machine plain http will do. If the response
    /// names anything else, the request fails with an error and the token is not sent.
    ///
    /// You give each request its URI, as always. Read the origin from [`AccessToken::expose_extra`](crate::AccessToken::expose_extra).
    ///
    /// # Errors
    ///
    /// A configuration error if there is no domain, and for one with a port, a path or a wildcard, or of one label
    /// (`com`).
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_oauth2::{AccessToken, AuthLayer, TokenCache};
    ///
    /// let token = AccessToken::bearer("00Dxx!AQ")?.with_extra("instance_url", "https://acme.my.salesforce.com");
    /// let cache = TokenCache::new(token);
    /// let layer = AuthLayer::for_origin_named_by(&cache, "instance_url", ["my.salesforce.com"])?;
    /// # let _ = layer;
    /// # Ok::<(), tower_oauth2::Error>(())
    /// ```
    pub fn for_origin_named_by<I>(
        source: impl IntoTokenCache,
        member: &str,
        domains: I,
    ) -> Result<Self, Error>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let named = NamedOrigin::new(member, domains)?;
        let mut layer =
            Self::new(Some(source.into_token_cache()), Origins { listed: Vec::new(), any_https: false });
        layer.options.named = Some(named);
        Ok(layer)
    }

    /// Creates a layer without a token of its own: each request brings its cache in an
    /// [`AuthOverride`](super::AuthOverride), and one that does not is an error.
    ///
    /// # Errors
    ///
    /// As [`for_origin`](Self::for_origin), and if there is no origin.
    pub fn per_request<I>(origins: I) -> Result<Self, Error>
    where
        I: IntoIterator,
        I::Item: TryInto<Origin>,
        <I::Item as TryInto<Origin>>::Error: Into<Error>,
    {
        let listed = origins.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
        if listed.is_empty() {
            return Err(Error::config("the list of origins is empty; name those that may have tokens"));
        }
        Ok(Self::new(None, Origins { listed, any_https: false }).require_override(true))
    }

    /// Creates a layer without an origin, for a builder that adds them.
    #[cfg(feature = "stack")]
    pub(crate) fn without_origins(cache: TokenCache) -> Self {
        Self::new(Some(cache), Origins::default())
    }

    /// Has the tokens of another cache sent.
    #[cfg(feature = "stack")]
    pub(crate) fn with_cache(mut self, cache: TokenCache) -> Self {
        self.options.cache = Some(cache);
        self
    }

    fn new(cache: Option<TokenCache>, origins: Origins) -> Self {
        Self { options: AuthOptions::new(cache, origins) }
    }

    /// Adds another origin that may have the token: a second region, a gateway. Beside
    /// [every https origin](Self::for_any_https_origin_unchecked), one with insecure http.
    ///
    /// # Errors
    ///
    /// As [`for_origin`](Self::for_origin).
    pub fn allow_origin<O>(mut self, origin: O) -> Result<Self, Error>
    where
        O: TryInto<Origin>,
        O::Error: Into<Error>,
    {
        self.options.origins.listed.push(read(origin)?);
        Ok(self)
    }

    /// Says where requests go whose URI is a path alone, as it is below tonic's channels, hyper's connections and
    /// routers. The layer cannot check it: it is the client below that knows.
    ///
    /// # Errors
    ///
    /// As [`for_origin`](Self::for_origin).
    pub fn default_origin<O>(mut self, origin: O) -> Result<Self, Error>
    where
        O: TryInto<Origin>,
        O::Error: Into<Error>,
    {
        let origin = read(origin)?;
        self.options.relative = Some(origin);
        Ok(self)
    }

    /// Sends the token in another header, without a scheme in front: `X-Auth-Token`, an API key.
    pub fn header(mut self, name: HeaderName) -> Self {
        let bare = name != AUTHORIZATION;
        self.options.terms.send_in(name, bare);
        self
    }

    /// Sends the token in another header, with its scheme in front.
    pub fn header_with_scheme(mut self, name: HeaderName) -> Self {
        self.options.terms.send_in(name, false);
        self
    }

    /// Sets whether a header that the request has already is replaced, and taken off where no token goes: for gateways, which must
    /// not forward their own caller's credential. Where the token goes in another header, `Authorization` is taken off
    /// all the same.
    pub fn replace_authorization(mut self, on: bool) -> Self {
        self.options.terms.replace = on;
        self
    }

    /// Sets whether requests to other origins are refused. By default they are sent without a token.
    pub fn refuse_other_origins(mut self, on: bool) -> Self {
        self.options.refuse = on;
        self
    }

    /// Sets whether requests without an [`AuthOverride`](super::AuthOverride) are refused, so that none falls back on the
    /// layer's token because an override was lost on the way. Off by default.
    pub fn require_override(mut self, on: bool) -> Self {
        self.options.require_override = on;
        self
    }

    /// Sets whether only a challenge with an error code counts: a 401 without one never drops a token then. Off by default.
    pub fn strict_challenges(mut self, on: bool) -> Self {
        self.options.terms.strict = on;
        self
    }

    /// Sets which statuses mean that the token was rejected, beside 401. None by default; some servers say 419 when a token
    /// has expired.
    pub fn rejection_statuses(mut self, statuses: impl IntoIterator<Item = StatusCode>) -> Self {
        self.options.terms.statuses = std::iter::once(StatusCode::UNAUTHORIZED).chain(statuses).collect();
        self
    }

    /// Asks your own rule first what a response means for the token. It sees every response to a request with a
    /// token, so it should be quick.
    pub fn rejection<F>(mut self, rule: F) -> Self
    where
        F: Fn(StatusCode, &HeaderMap) -> Rejection + Send + Sync + 'static,
    {
        self.options.terms.rejection = Some(Arc::new(rule));
        self
    }
}

impl<S> Layer<S> for AuthLayer {
    type Service = AuthService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AuthService::new(inner, Arc::new(Rules::new(self.options.clone())))
    }
}

fn read<O>(origin: O) -> Result<Origin, Error>
where
    O: TryInto<Origin>,
    O::Error: Into<Error>,
{
    origin.try_into().map_err(Into::into)
}
