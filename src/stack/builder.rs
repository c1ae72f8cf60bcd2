//! The options of a stack.

use std::time::Duration;

use http::HeaderName;
use tokio::sync::Semaphore;

use super::service::Stack;
use crate::auth::AuthLayer;
use crate::cache::IntoTokenCache;
use crate::error::Error;
use crate::origin::Origin;
use crate::retry::RetryPolicy;

/// The settings of all layers but auth.
#[derive(Clone, Debug)]
pub(crate) struct StackSettings {
    pub(crate) policy: RetryPolicy,
    pub(crate) concurrency: Option<usize>,
    pub(crate) attempt_timeout: Duration,
    pub(crate) total_timeout: Option<Duration>,
    pub(crate) redirects: u32,
    pub(crate) request_id: Option<HeaderName>,
}

impl Default for StackSettings {
    fn default() -> Self {
        Self {
            policy: RetryPolicy::default(),
            concurrency: None,
            attempt_timeout: Duration::from_secs(30),
            total_timeout: None,
            redirects: 10,
            request_id: None,
        }
    }
}

impl StackSettings {
    /// Returns how long a request may take. That of the policy is for all hops together too.
    pub(crate) fn total_timeout(&self) -> Option<Duration> {
        [self.total_timeout, self.policy.total_timeout()].into_iter().flatten().min()
    }

    /// Says which setting is wrong.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.attempt_timeout.is_zero() {
            return Err(Error::config("attempt_timeout must not be zero"));
        }
        if self.total_timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(Error::config("total_timeout must not be zero; leave it out to have none"));
        }
        Ok(())
    }
}

/// The result of a [`StackBuilder`].
#[allow(unnameable_types, reason = "it is sealed: a builder starts at Stack or at ApiClient")]
pub trait StackTarget {
    /// The part of it that is no layer.
    type Start;
}

impl StackTarget for Stack<()> {
    type Start = ();
}

/// Builds a [`Stack`], or as `StackBuilder<ApiClient>` an [`ApiClient`](crate::client::ApiClient) over one. The
/// [order of the layers](super) is not among the options.
///
/// Defaults:
///
/// - requests to other origins: refused
/// - `retry`: [`RetryPolicy::default`]
/// - `concurrency_limit`: none
/// - `attempt_timeout`: 30 s, to the head of the response
/// - `total_timeout`: none; the waits of the retries are bounded by their policy
/// - `redirects`: 10, within the origin of the request
/// - `request_id`: none
/// - of a client: the defaults of [`AuthLayer`]; tokens go to the origin of the base URL
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_oauth2::stack::Stack;
/// use tower_oauth2::{AccessToken, RetryPolicy};
///
/// let token = AccessToken::bearer("mF_9.B5f-4.1JqM")?;
/// let stack = Stack::for_base_url(token, "https://api.example.com")?
///     .retry(RetryPolicy::builder().max_retries(2).build()?)
///     .attempt_timeout(Duration::from_secs(10))
///     .concurrency_limit(64);
/// # let _ = stack;
/// # Ok::<_, tower_oauth2::Error>(())
/// ```
///
/// A client with the same options:
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
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct StackBuilder<T: StackTarget = Stack<()>> {
    pub(crate) auth: AuthLayer,
    pub(crate) settings: StackSettings,
    pub(crate) start: T::Start,
}

impl Stack<()> {
    /// Starts a stack for the API at a base URL, such as `https://api.example.com/v2`. Takes a source, or a cache that others
    /// share.
    ///
    /// The tokens go to the origin of the URL, `https://api.example.com` here, for requests to any path. Each request
    /// brings its whole URI. To have the path of the base URL put in front of it, use an
    /// [`ApiClient`](crate::client::ApiClient).
    ///
    /// # Errors
    ///
    /// A configuration error if the URL is not of https, or of http to loopback, or has a user name.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_oauth2::stack::Stack;
    /// use tower_oauth2::AccessToken;
    ///
    /// let token = AccessToken::bearer("mF_9.B5f-4.1JqM")?;
    /// let stack = Stack::for_base_url(token, "https://api.example.com/v2")?;
    /// # let _ = stack;
    /// # Ok::<_, tower_oauth2::Error>(())
    /// ```
    pub fn for_base_url(
        source: impl IntoTokenCache,
        base_url: impl AsRef<str>,
    ) -> Result<StackBuilder, Error> {
        let (origin, _path) = Origin::of_base_url(base_url.as_ref())?;
        let allowed_by = "Stack::with_auth with an Origin::parse_with_insecure_http";
        let origin = origin.without_insecure_http("the base URL", allowed_by)?;
        Ok(Self::with_auth(AuthLayer::for_origin(source, origin)?))
    }

    /// Starts a stack around an auth layer with options of its own: more origins, another header, a token per request.
    /// The stack refuses requests to origins that the layer does not know, even if the layer would send them.
    pub fn with_auth(auth: AuthLayer) -> StackBuilder {
        StackBuilder { auth, settings: StackSettings::default(), start: () }
    }
}

impl<T: StackTarget> StackBuilder<T> {
    /// Sets when a request is sent again.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.settings.policy = policy;
        self
    }

    /// Sets how many requests of all clones may be on their way at once, each until the head of its response; at least
    /// one. Requests that wait for a retry or a token are not on their way.
    pub fn concurrency_limit(mut self, requests: usize) -> Self {
        // The semaphore panics beyond that.
        self.settings.concurrency = Some(requests.clamp(1, Semaphore::MAX_PERMITS));
        self
    }

    /// Sets how long an attempt may take on the wire, to the head of the response.
    ///
    /// The policy's own [`attempt_timeout`](crate::retry::RetryPolicyBuilder::attempt_timeout) counts from outside: the
    /// waits for a permit and for a token are in it. Either can be set; the earlier ends the attempt.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.settings.attempt_timeout = timeout;
        self
    }

    /// Sets by when a request must have its response, redirects, waits and retries included, by a
    /// [`Deadline`](crate::extensions::Deadline). A request that brings its own, as by
    /// [`ApiRequest::timeout`](crate::client::ApiRequest::timeout), keeps the earlier of both.
    pub fn total_timeout(mut self, timeout: Duration) -> Self {
        self.settings.total_timeout = Some(timeout);
        self
    }

    /// Sets how many redirects of one request are followed, within its origin. The next one is returned. With 0 every redirect is returned, and
    /// a request costs a copy of its head less.
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
}

impl StackBuilder {
    /// Builds the stack around any tower HTTP client. Its own redirects and retries must be off.
    pub fn build<S>(self, client: S) -> Stack<S> {
        Stack::with_settings(self.auth, self.settings, client)
    }
}
