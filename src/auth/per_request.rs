//! What a caller says about the token of one request.

use std::time::Duration;

use crate::cache::TokenCache;

/// Overrides the layer's token for one request, in the request's extensions.
///
/// It is looked at first, for each request anew; nothing of it is remembered in the service. It goes where the request's
/// extensions go: a retry layer keeps it, and tower-http's `FollowRedirect` drops it when a redirect leaves the origin.
/// A layer that is used with overrides should therefore
/// [require one](crate::auth::AuthLayer::require_override), so that no request falls back on a default token unnoticed.
///
/// # Examples
///
/// ```
/// use tower_oauth2::auth::AuthOverride;
/// use tower_oauth2::{AccessToken, StaticToken, TokenCache};
///
/// let tenant = TokenCache::new(StaticToken::new(AccessToken::bearer("of-this-tenant")?));
/// let request = http::Request::get("https://api.example.com/items")
///     .extension(AuthOverride::cache(tenant))
///     .body(http_body_util::Full::<bytes::Bytes>::default())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct AuthOverride {
    from: From,
    min_validity: Option<Duration>,
}

#[derive(Clone, Debug)]
pub(super) enum From {
    /// No token at all.
    Nobody,
    /// The layer's own cache.
    Layer,
    /// Another cache.
    Cache(TokenCache),
}

impl AuthOverride {
    /// Sends the request without a token.
    #[must_use]
    pub fn anonymous() -> Self {
        Self { from: From::Nobody, min_validity: None }
    }

    /// Sends the request with a token of this cache: another user's, another tenant's, another scope's.
    #[must_use]
    pub fn cache(cache: TokenCache) -> Self {
        Self { from: From::Cache(cache), min_validity: None }
    }

    /// Sends the request with the layer's own token, said out loud where the layer
    /// [requires](crate::auth::AuthLayer::require_override) an override, or with a minimum.
    #[must_use]
    pub fn layer() -> Self {
        Self { from: From::Layer, min_validity: None }
    }

    /// Sets how long the token must at least be valid, for a request that takes long. With less left the request waits
    /// for another token, if tokens live that long.
    #[must_use]
    pub fn min_validity(mut self, validity: Duration) -> Self {
        self.min_validity = Some(validity);
        self
    }

    pub(super) fn parts(&self) -> (&From, Option<Duration>) {
        (&self.from, self.min_validity)
    }
}
