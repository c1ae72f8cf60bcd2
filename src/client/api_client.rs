//! The client.

use std::fmt;
use std::sync::Arc;

use http::Method;

use super::base::Base;
use super::request::ApiRequest;
use super::service::ApiService;
#[cfg(all(feature = "hyper-client", feature = "stack"))]
use crate::cache::IntoTokenCache;
use crate::cache::TokenCache;
use crate::error::Error;
use crate::origin::Origin;

/// A client of one API: a base URL, and below it tokens, retries and an HTTP client. Rules and examples are on the page of
/// the [module](super).
///
/// Without a parameter it is a type to keep in a struct and to pass on. Clones are cheap and share everything.
///
/// `S` is the service that sends. It is [`ApiService`] unless you compose layers of your own and give them to
/// [`new`](Self::new), at no cost per request.
///
/// # Examples
///
/// ```no_run
/// # #[cfg(all(feature = "hyper-client", feature = "stack"))] {
/// use tower_oauth2::{ApiClient, ClientCredentials, Secret};
///
/// #[derive(Clone)]
/// struct AppState {
///     api: ApiClient,
/// }
///
/// # async fn example() -> Result<(), tower::BoxError> {
/// let secret = Secret::from_env("CLIENT_SECRET");
/// let source = ClientCredentials::builder("https://login.example.com/token", "billing", secret).build()?;
/// let state = AppState { api: ApiClient::connect("https://api.example.com/v2", source)? };
///
/// state.api.tokens().get().await?;
/// let reports = state.api.get("reports").send().await?.error_for_status()?.text().await?;
/// # Ok(()) }
/// # }
/// ```
#[derive(Clone)]
#[doc(alias = "base_url")]
#[doc(alias = "HttpClient")]
#[doc(alias = "RestClient")]
pub struct ApiClient<S = ApiService> {
    service: S,
    base: Arc<Base>,
}

impl ApiClient {
    /// Creates a client for the API at a base URL, such as `https://api.example.com/v2`, with the defaults of its
    /// [builder](Self::builder). Takes a source of tokens, or a cache that others share. Nothing is sent before the first
    /// request.
    ///
    /// # Errors
    ///
    /// As [`StackBuilder::build_with`](crate::stack::StackBuilder::build_with).
    #[cfg(all(feature = "hyper-client", feature = "stack"))]
    #[cfg_attr(docsrs, doc(cfg(all(feature = "hyper-client", feature = "stack"))))]
    pub fn connect(base_url: impl AsRef<str>, source: impl IntoTokenCache) -> Result<Self, Error> {
        Self::builder(base_url, source).build()
    }

    #[cfg(feature = "stack")]
    pub(super) fn over(base: Base, service: ApiService) -> Self {
        Self { service, base: Arc::new(base) }
    }

    /// Returns the cache of the client's tokens, for readiness, warm-up and shutdown.
    #[must_use]
    pub fn tokens(&self) -> &TokenCache {
        self.service.tokens()
    }
}

impl<S> ApiClient<S> {
    /// Puts a base URL, such as `https://api.example.com/v2`, before any tower HTTP service, which brings tokens and retries
    /// of its own. A slash at its end makes no difference.
    ///
    /// # Errors
    ///
    /// A configuration error if the URL is not of http or https, or has a user name, a query, a fragment, or a segment of
    /// dots.
    pub fn new(base_url: impl AsRef<str>, service: S) -> Result<Self, Error> {
        Ok(Self { service, base: Arc::new(Base::parse(base_url.as_ref())?) })
    }

    /// Returns the origin of the base URL.
    pub fn origin(&self) -> &Origin {
        self.base.origin()
    }

    /// Returns the service that sends. Clone it to send requests of your own, with whole URLs.
    pub fn get_ref(&self) -> &S {
        &self.service
    }
}

impl<S: Clone> ApiClient<S> {
    /// Starts a GET.
    pub fn get(&self, path: impl AsRef<str>) -> ApiRequest<S> {
        self.request(Method::GET, path)
    }

    /// Starts a POST.
    pub fn post(&self, path: impl AsRef<str>) -> ApiRequest<S> {
        self.request(Method::POST, path)
    }

    /// Starts a PUT.
    pub fn put(&self, path: impl AsRef<str>) -> ApiRequest<S> {
        self.request(Method::PUT, path)
    }

    /// Starts a PATCH.
    pub fn patch(&self, path: impl AsRef<str>) -> ApiRequest<S> {
        self.request(Method::PATCH, path)
    }

    /// Starts a DELETE.
    pub fn delete(&self, path: impl AsRef<str>) -> ApiRequest<S> {
        self.request(Method::DELETE, path)
    }

    /// Starts a request of any method. [`send`](ApiRequest::send) returns what is wrong with the path.
    #[doc(alias = "head")]
    pub fn request(&self, method: Method, path: impl AsRef<str>) -> ApiRequest<S> {
        ApiRequest::new(self.service.clone(), Arc::clone(&self.base), method, path.as_ref())
    }
}

impl<S: fmt::Debug> fmt::Debug for ApiClient<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiClient")
            .field("base_url", &format_args!("{}", self.base))
            .field("service", &self.service)
            .finish()
    }
}
