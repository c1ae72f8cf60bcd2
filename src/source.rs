//! The contract of a token source, and the small sources: a closure, a fixed token, a file, one source or another.

mod file_token;
mod identity;
mod lineage;
mod wrapped;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

pub(crate) use self::identity::RefreshTokenUse;
#[cfg(feature = "store")]
pub(crate) use self::lineage::LineageFuture;
pub(crate) use self::lineage::{LineageStore, SharedRefreshToken};
#[cfg(all(feature = "jwt", feature = "providers"))]
pub(crate) use self::wrapped::AnySource;
pub(crate) use self::wrapped::{AroundFetch, WrappedSource};

pub use self::file_token::FileToken;
pub use self::identity::SourceIdentity;

use crate::error::Error;
use crate::runtime::or_panicked;
use crate::token::AccessToken;

/// How to *get* a token: the one trait that a user implements.
///
/// A source fetches; it does not cache, and it need not lock. A [`TokenCache`](crate::TokenCache) calls it from a task
/// of its own, one call at a time, with a [deadline](TokenRequest::deadline), and decides when.
///
/// # Cancel safety
///
/// The cache lets a call run to its end even if no caller waits any more. It drops the future only at its own deadline or
/// when the runtime shuts down.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_oauth2::{AccessToken, Error, ErrorKind, TokenRequest, TokenSource};
///
/// struct Vault;
///
/// impl TokenSource for Vault {
///     async fn token(&self, _request: TokenRequest) -> Result<AccessToken, Error> {
///         let lease = read_lease().await.map_err(|error| {
///             Error::new(ErrorKind::Transient, "the vault did not respond").with_source(error)
///         })?;
///         Ok(AccessToken::bearer(lease)?.with_lifetime(Duration::from_secs(900)))
///     }
/// }
/// # async fn read_lease() -> Result<String, std::io::Error> { Ok("token".into()) }
/// ```
///
/// # One type for several sources
///
/// The trait is not dyn-compatible: there is no `Box<dyn TokenSource>`. A [`TokenCache`](crate::TokenCache) hides the type of
/// its source, so where the configuration chooses a source, each branch makes its cache:
///
/// ```
/// use tower_oauth2::{AccessToken, TokenCache, Error, source_fn};
///
/// fn configured(api_key: Option<&str>) -> Result<TokenCache, Error> {
///     Ok(match api_key {
///         Some(key) => TokenCache::new(AccessToken::bearer(key)?),
///         None => TokenCache::new(source_fn(|_request| async { AccessToken::bearer("from-a-closure") })),
///     })
/// }
/// # assert!(configured(Some("key")).is_ok() && configured(None).is_ok());
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a source of tokens",
    label = "this is not a `TokenSource`",
    note = "finish a builder by `.build()?` or `.build_with(http_client)?`",
    note = "a fixed token is an `AccessToken::bearer(token)?`, and a closure becomes a source by `source_fn`",
    note = "a source is given by value, and a `TokenCache` needs no other around it: clone it to share it"
)]
#[doc(alias = "TokenProvider")]
#[doc(alias = "TokenCredential")]
#[doc(alias = "TokenFetcher")]
pub trait TokenSource: Send + Sync + 'static {
    /// Fetches a token. Called by at most one task at a time per cache.
    ///
    /// # Errors
    ///
    /// The error that stopped the source; its class decides when the cache asks again.
    fn token(&self, request: TokenRequest) -> impl Future<Output = Result<AccessToken, Error>> + Send;

    /// Returns whether nothing is lost for good if the source is dropped now; what it can fetch again is not lost. One
    /// that keeps a refresh token which is stored nowhere else says no.
    ///
    /// A set of caches ([`TenantCaches`](crate::tenants::TenantCaches)) keeps a cache whose source says no. It asks
    /// often and under a lock, so it must return at once.
    fn is_disposable(&self) -> bool {
        true
    }

    /// Takes the word that an API accepted this token. The cache says so when it learns it, as a rule once for each token.
    ///
    /// A source that stands on another source passes it on, so that a cache below knows that its tokens are good. Others
    /// need not care.
    fn accepted(&self, token: &AccessToken) {
        let _ = token;
    }

    /// Returns what to call the tokens of this source in the log, such as the client id and the host of the token endpoint.
    /// No secret may be in it. A cache asks once, when it is built; its own
    /// [`name`](crate::cache::TokenCacheBuilder::name) goes before.
    fn name(&self) -> Option<String> {
        None
    }

    /// Returns whether something that the source reads locally, such as a file with a secret, has changed since it failed,
    /// so that asking it again is worth while.
    ///
    /// A cache asks once a second at most, while it has no token and leaves the source alone after a failure; with a yes
    /// the wait ends at once. The call must be quick: it may look at the time of a file, and must not wait for a network.
    fn has_changed(&self) -> bool {
        false
    }

    /// Describes which tokens the source fetches, so that processes with the same source can share them (`store::Shared`).
    /// `None`: that is not known, as with a closure.
    ///
    /// A source that stands on another source passes it on. The call must be quick, and must not wait for anything.
    fn identity(&self) -> Option<SourceIdentity> {
        None
    }

    /// Falls back on `other` if this source fails for good: a refresh token if there is one, else the grant.
    ///
    /// For good means that a server refused the client or the grant with an error of OAuth 2.0, or that the source itself
    /// says so (a configuration or grant error): a setting is missing, or no user has signed in yet. Every other failure is
    /// returned as it is: an outage, a proxy or a gateway that refuses, a certificate that is not trusted, a response that
    /// is not OAuth 2.0.
    ///
    /// The tokens of the other may be in another name. If a server has refused this one, each fetch logs a warning.
    ///
    /// # Examples
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
    /// use tower_oauth2::{AccessToken, Error, ErrorKind, TokenCache, TokenSource as _, source_fn};
    ///
    /// let expired = source_fn(|_| async { Err(Error::new(ErrorKind::Grant, "the refresh token was revoked")) });
    /// let fallback = AccessToken::bearer("mF_9.B5f-4.1JqM")?;
    /// let cache = TokenCache::new(expired.or(fallback));
    /// assert_eq!(cache.get().await?.expose(), "mF_9.B5f-4.1JqM");
    /// # Ok::<_, tower_oauth2::Error>(()) })?;
    /// # Ok::<_, tower::BoxError>(())
    /// ```
    fn or<S: TokenSource>(self, other: S) -> impl TokenSource
    where
        Self: Sized,
    {
        Or { first: self, second: other }
    }
}

/// Why a token is wanted, and which tokens went before. Owned, so that closures and tasks can keep it.
///
/// # Examples
///
/// A test of a source asks it as a cache would:
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// use tower_oauth2::{AccessToken, FetchReason, TokenRequest, TokenSource as _};
///
/// let source = AccessToken::bearer("mF_9.B5f-4.1JqM")?;
/// let rejected = AccessToken::bearer("revoked")?;
/// let request = TokenRequest::new(FetchReason::Rejected).with_rejected(Some(rejected));
/// assert_eq!(source.token(request).await?.expose(), "mF_9.B5f-4.1JqM");
/// # Ok::<_, tower_oauth2::Error>(()) })?;
/// # Ok::<_, tower::BoxError>(())
/// ```
#[derive(Clone, Debug)]
pub struct TokenRequest {
    reason: FetchReason,
    previous: Option<AccessToken>,
    rejected: Option<AccessToken>,
    deadline: Option<Instant>,
    /// Where the refresh token is, if processes share it.
    lineage: Option<Arc<dyn LineageStore>>,
}

/// Why a source is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FetchReason {
    /// There was no token yet.
    Initial,
    /// The token will expire soon; it is still in use.
    Expiring,
    /// The token has expired, or is too close to it.
    Expired,
    /// An API rejected the token.
    Rejected,
    /// A new token was asked for.
    Forced,
}

impl TokenRequest {
    /// Creates a request without earlier tokens, as a test of a source needs it.
    #[must_use]
    pub fn new(reason: FetchReason) -> Self {
        Self { reason, previous: None, rejected: None, deadline: None, lineage: None }
    }

    /// Sets the token that was in use.
    #[must_use]
    pub fn with_previous(mut self, token: Option<AccessToken>) -> Self {
        self.previous = token;
        self
    }

    /// Sets the token that an API rejected.
    #[must_use]
    pub fn with_rejected(mut self, token: Option<AccessToken>) -> Self {
        self.rejected = token;
        self
    }

    /// Sets when the source is given up.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Returns why a token is wanted.
    #[must_use]
    pub fn reason(&self) -> FetchReason {
        self.reason
    }

    /// Returns the token that is or was in use.
    #[must_use]
    pub fn previous(&self) -> Option<&AccessToken> {
        self.previous.as_ref()
    }

    /// Returns the token that an API rejected. A source that keeps tokens of its own must not return it again.
    #[must_use]
    pub fn rejected(&self) -> Option<&AccessToken> {
        self.rejected.as_ref()
    }

    /// Returns when the source is given up: the future is dropped then, and callers get a timeout error. A source that
    /// makes several attempts plans them to end before it and returns the error of the last one. `None`: no limit is known.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Has the source exchange the refresh token that is kept there, to the end of the exchange.
    #[cfg(feature = "store")]
    pub(crate) fn with_lineage(mut self, lineage: Arc<dyn LineageStore>) -> Self {
        self.lineage = Some(lineage);
        self.deadline = None;
        self
    }

    /// Returns where the refresh token is kept that several processes share.
    pub(crate) fn lineage(&self) -> Option<&Arc<dyn LineageStore>> {
        self.lineage.as_ref()
    }
}

/// A source that is shared, with other caches or with your own code.
impl<S: TokenSource> TokenSource for Arc<S> {
    fn token(&self, request: TokenRequest) -> impl Future<Output = Result<AccessToken, Error>> + Send {
        S::token(self, request)
    }

    fn name(&self) -> Option<String> {
        S::name(self)
    }

    fn is_disposable(&self) -> bool {
        S::is_disposable(self)
    }

    fn accepted(&self, token: &AccessToken) {
        S::accepted(self, token);
    }

    fn has_changed(&self) -> bool {
        S::has_changed(self)
    }

    fn identity(&self) -> Option<SourceIdentity> {
        S::identity(self)
    }
}

// --- DynTokenSource ---

pub(crate) type TokenFuture<'a> = Pin<Box<dyn Future<Output = Result<AccessToken, Error>> + Send + 'a>>;

/// The private twin of [`TokenSource`] that can be a trait object. Boxing is once per token request.
pub(crate) trait DynTokenSource: Send + Sync {
    fn fetch(&self, request: TokenRequest) -> TokenFuture<'_>;

    /// See [`TokenSource::name`].
    fn own_name(&self) -> Option<String>;

    /// See [`TokenSource::is_disposable`].
    fn may_be_dropped(&self) -> bool;

    /// See [`TokenSource::accepted`].
    fn note_accepted(&self, token: &AccessToken);

    /// See [`TokenSource::has_changed`].
    fn may_differ(&self) -> bool;

    /// See [`TokenSource::identity`].
    fn own_identity(&self) -> Option<SourceIdentity>;
}

impl<S: TokenSource> DynTokenSource for S {
    fn fetch(&self, request: TokenRequest) -> TokenFuture<'_> {
        Box::pin(self.token(request))
    }

    fn own_name(&self) -> Option<String> {
        or_panicked(None, || self.name())
    }

    fn may_be_dropped(&self) -> bool {
        or_panicked(false, || self.is_disposable())
    }

    fn note_accepted(&self, token: &AccessToken) {
        or_panicked((), || self.accepted(token));
    }

    fn may_differ(&self) -> bool {
        or_panicked(false, || self.has_changed())
    }

    fn own_identity(&self) -> Option<SourceIdentity> {
        or_panicked(None, || self.identity())
    }
}

// --- A closure ---

#[derive(Clone)]
struct SourceFn<F> {
    fetch: F,
}

/// Makes a source of a closure that returns a future.
///
/// # Examples
///
/// ```
/// use tower_oauth2::{AccessToken, TokenCache, source_fn};
///
/// let source = source_fn(|_request| async { AccessToken::bearer("from-a-closure") });
/// let cache = TokenCache::new(source);
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// assert_eq!(cache.get().await?.scheme(), "Bearer");
/// # Ok::<_, Box<dyn std::error::Error>>(()) })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// A closure with a state is called many times, and the future of each call outlives it. So each call clones what it
/// needs, and moves the clone into its future; `async` alone, or `async move` with what the closure holds, does not
/// compile:
///
/// ```
/// use std::sync::Arc;
/// use tower_oauth2::{AccessToken, TokenCache, Error, ErrorKind, source_fn};
///
/// struct Vault;
///
/// impl Vault {
///     async fn lease(&self, path: &str) -> Result<String, std::io::Error> {
///         Ok(format!("token-for-{path}"))
///     }
/// }
///
/// let vault = Arc::new(Vault);
/// let source = source_fn(move |_request| {
///     let vault = Arc::clone(&vault);
///     async move {
///         let lease = vault.lease("billing").await.map_err(|error| {
///             Error::new(ErrorKind::Transient, "the vault did not respond").with_source(error)
///         })?;
///         AccessToken::bearer(lease)
///     }
/// });
/// let cache = TokenCache::new(source);
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// # assert_eq!(cache.get().await?.header_value(), "Bearer token-for-billing");
/// # Ok::<_, Box<dyn std::error::Error>>(()) })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "closure")]
pub fn source_fn<F, Fut>(fetch: F) -> impl TokenSource + fmt::Debug
where
    F: Fn(TokenRequest) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<AccessToken, Error>> + Send,
{
    SourceFn { fetch }
}

impl<F, Fut> TokenSource for SourceFn<F>
where
    F: Fn(TokenRequest) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<AccessToken, Error>> + Send,
{
    fn token(&self, request: TokenRequest) -> impl Future<Output = Result<AccessToken, Error>> + Send {
        (self.fetch)(request)
    }
}

impl<F> fmt::Debug for SourceFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceFn").finish_non_exhaustive()
    }
}

// --- AccessToken ---

/// The token itself each time: for tests, and for APIs with keys. It cannot be renewed. Where an API rejects it, the cache asks
/// again, gets the same token, and its brakes keep that from becoming a loop.
impl TokenSource for AccessToken {
    async fn token(&self, _request: TokenRequest) -> Result<AccessToken, Error> {
        Ok(self.clone())
    }

    fn identity(&self) -> Option<SourceIdentity> {
        Some(SourceIdentity::new("static").with(self.scheme(), self.expose()))
    }
}

// --- Or ---

/// One source, or another where it fails for good: see [`TokenSource::or`].
struct Or<A, B> {
    first: A,
    second: B,
}

impl<A: TokenSource, B: TokenSource> TokenSource for Or<A, B> {
    async fn token(&self, request: TokenRequest) -> Result<AccessToken, Error> {
        let error = match self.first.token(request.clone()).await {
            Err(error) if error.is_final() => error,
            result => return result,
        };
        // What a server says no to is news, and the other may stand for another client.
        if error.status().is_some() {
            tracing::warn!(%error, "the source was refused; going on with the one behind it, perhaps in another name");
        } else {
            tracing::debug!(%error, "the source has no token; asking the one behind it");
        }
        self.second.token(request).await
    }

    fn is_disposable(&self) -> bool {
        self.first.is_disposable() && self.second.is_disposable()
    }

    fn name(&self) -> Option<String> {
        self.first.name().or_else(|| self.second.name())
    }

    /// Both are told: only the one that made the token knows it.
    fn accepted(&self, token: &AccessToken) {
        self.first.accepted(token);
        self.second.accepted(token);
    }

    fn has_changed(&self) -> bool {
        self.first.has_changed() || self.second.has_changed()
    }

    fn identity(&self) -> Option<SourceIdentity> {
        // What is known of one is not lost with the other: it may live on a refresh token.
        let both = [self.first.identity(), self.second.identity()];
        both.iter().any(Option::is_some).then(|| {
            both.into_iter().fold(SourceIdentity::new("or"), |identity, source| match source {
                Some(source) => identity.also(source.refresh_token()).within("source", source),
                None => identity.partial(),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(source: impl TokenSource) -> Result<String, Error> {
        let token = source.token(TokenRequest::new(FetchReason::Initial)).await?;
        Ok(token.header_value().to_str().unwrap().to_owned())
    }

    fn failing(error: Error) -> impl TokenSource {
        source_fn(move |_| std::future::ready(Err(error.clone())))
    }

    fn fixed(secret: &str) -> AccessToken {
        AccessToken::bearer(secret).unwrap()
    }

    #[tokio::test]
    async fn or_falls_back_where_the_first_fails_for_good() {
        assert_eq!(ask(fixed("a").or(fixed("b"))).await.unwrap(), "Bearer a");
        assert_eq!(ask(failing(Error::grant("revoked")).or(fixed("b"))).await.unwrap(), "Bearer b");
        assert_eq!(ask(failing(Error::config("unset")).or(fixed("b"))).await.unwrap(), "Bearer b");
        let error = ask(failing(Error::transient("down")).or(fixed("b"))).await.unwrap_err();
        assert!(error.is_transient());
    }

    #[tokio::test]
    async fn a_shared_source_is_a_source() {
        let shared = Arc::new(fixed("a"));
        assert_eq!(ask(Arc::clone(&shared)).await.unwrap(), "Bearer a");
        assert_eq!(ask(failing(Error::grant("revoked")).or(shared)).await.unwrap(), "Bearer a");
    }
}
