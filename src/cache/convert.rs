//! The argument that gives a client or a layer its tokens.

use super::handle::TokenCache;
use crate::source::TokenSource;

/// Gives a client or a layer its tokens: a [`TokenSource`], which gets a cache of its own, or a [`TokenCache`] that
/// others share.
///
/// # Examples
///
/// ```
/// use tower_oauth2::cache::IntoTokenCache;
/// use tower_oauth2::{AccessToken, AuthLayer, Error, TokenCache};
///
/// fn layer(tokens: impl IntoTokenCache) -> Result<AuthLayer, Error> {
///     AuthLayer::for_origin(tokens, "https://api.example.com")
/// }
///
/// let cache = TokenCache::new(AccessToken::bearer("mF_9.B5f-4.1JqM")?);
/// layer(&cache)?;
/// layer(AccessToken::bearer("mF_9.B5f-4.1JqM")?)?;
/// # Ok::<_, Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is neither a source of tokens nor a `TokenCache`",
    label = "this is not a `TokenSource`, and not a `TokenCache`",
    note = "finish a builder by `.build()?` or `.build_with(http_client)?`",
    note = "a token that you have is a source as `AccessToken::bearer(token)?`, and a closure by `source_fn`",
    note = "an `ApiClient` takes its base URL first and its tokens second; an `AuthLayer` and a `Stack` take their tokens first",
    note = "give a source by value, and a `TokenCache` that others share by value or by reference"
)]
pub trait IntoTokenCache {
    /// Returns the cache: a new one of a source, or a handle of the same one.
    fn into_token_cache(self) -> TokenCache;
}

impl<S: TokenSource> IntoTokenCache for S {
    fn into_token_cache(self) -> TokenCache {
        TokenCache::new(self)
    }
}

impl IntoTokenCache for TokenCache {
    fn into_token_cache(self) -> TokenCache {
        self
    }
}

impl IntoTokenCache for &TokenCache {
    fn into_token_cache(self) -> TokenCache {
        self.clone()
    }
}
