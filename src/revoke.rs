//! The contract of what can take a token back before its end, and the closure that can.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use crate::error::Error;
use crate::token::AccessToken;

/// How to take a token back before its end: [`Revocation`](crate::grants::Revocation) does as RFC 7009 has it,
/// [`revoker_fn`] as a vendor may have it.
///
/// It is given to [`TokenCacheBuilder::revoke_with`](crate::cache::TokenCacheBuilder::revoke_with).
///
/// # Examples
///
/// ```
/// use tower_oauth2::{AccessToken, Error, TokenRevoker};
///
/// struct Portal;
///
/// impl TokenRevoker for Portal {
///     async fn revoke(&self, token: AccessToken) -> Result<(), Error> {
///         // Send `token.header_value()` to where your provider ends a session.
///         # let _ = token;
///         Ok(())
///     }
/// }
/// # let _ = Portal;
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot revoke tokens",
    label = "this is not a `TokenRevoker`",
    note = "finish a builder by `.build()?` or `.build_with(http_client)?`",
    note = "a closure becomes one by `revoker_fn`"
)]
pub trait TokenRevoker: Send + Sync + 'static {
    /// Revokes the token, and the refresh token that it carries ([`expose_refresh_token`](AccessToken::expose_refresh_token)).
    ///
    /// # Errors
    ///
    /// The error that stopped it. A temporary one means that the token counts as still valid.
    fn revoke(&self, token: AccessToken) -> impl Future<Output = Result<(), Error>> + Send;
}

// --- Revoker ---

/// Any revoker, erased.
pub(crate) struct Revoker {
    inner: Box<dyn DynTokenRevoker>,
}

impl Revoker {
    pub(crate) fn new(revoker: impl TokenRevoker) -> Self {
        Self { inner: Box::new(revoker) }
    }

    /// See [`TokenRevoker::revoke`].
    pub(crate) async fn revoke(&self, token: AccessToken) -> Result<(), Error> {
        self.inner.take_back(token).await
    }
}

impl fmt::Debug for Revoker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revoker").finish_non_exhaustive()
    }
}

type RevokeFuture<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>;

/// The private twin of [`TokenRevoker`] that can be a trait object.
trait DynTokenRevoker: Send + Sync {
    fn take_back(&self, token: AccessToken) -> RevokeFuture<'_>;
}

impl<R: TokenRevoker> DynTokenRevoker for R {
    fn take_back(&self, token: AccessToken) -> RevokeFuture<'_> {
        Box::pin(self.revoke(token))
    }
}

// --- A closure ---

struct RevokerFn<F> {
    revoke: F,
}

/// Makes a revoker of a closure that returns a future, for vendors with a way of their own.
///
/// # Examples
///
/// Genesys Cloud ends the token that a `DELETE` brings along:
///
/// ```
/// use http::Request;
/// use http::header::AUTHORIZATION;
/// use tower::ServiceExt as _;
/// use tower_oauth2::{AccessToken, Body, Error, ErrorKind, TokenCache, revoker_fn};
///
/// # let http_client = tower::service_fn(|_request: Request<Body>| async {
/// #     Ok::<_, tower::BoxError>(http::Response::new(Body::empty()))
/// # });
/// # let source = AccessToken::bearer("mF_9.B5f-4.1JqM")?;
/// let revoker = revoker_fn(move |token: AccessToken| {
///     let client = http_client.clone();
///     async move {
///         let request = Request::delete("https://api.mypurecloud.com/api/v2/tokens/me")
///             .header(AUTHORIZATION, token.header_value())
///             .body(Body::empty())
///             .map_err(|error| Error::new(ErrorKind::Config, "the request cannot be built").with_source(error))?;
///         let response = client.oneshot(request).await.map_err(|error| {
///             Error::new(ErrorKind::Transient, "the API did not respond; the token counts as still valid").with_source(error)
///         })?;
///         match response.status() {
///             status if status.is_success() => Ok(()),
///             status => Err(Error::new(ErrorKind::Transient, "the API did not revoke the token").with_status(status)),
///         }
///     }
/// });
/// let cache = TokenCache::builder(source).revoke_with(revoker).build();
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// # cache.get().await?;
/// cache.revoke().await?;
/// # Ok::<_, Error>(()) })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub fn revoker_fn<F, Fut>(revoke: F) -> impl TokenRevoker
where
    F: Fn(AccessToken) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Error>> + Send,
{
    RevokerFn { revoke }
}

impl<F, Fut> TokenRevoker for RevokerFn<F>
where
    F: Fn(AccessToken) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Error>> + Send,
{
    fn revoke(&self, token: AccessToken) -> impl Future<Output = Result<(), Error>> + Send {
        (self.revoke)(token)
    }
}

impl<F> fmt::Debug for RevokerFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RevokerFn").finish_non_exhaustive()
    }
}
