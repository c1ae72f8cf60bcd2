//! The choice of the token for one request, made by the caller.

use std::iter;
use std::time::Duration;

use http::HeaderName;

use crate::cache::TokenCache;
use crate::error::Error;

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
/// use tower_oauth2::{AccessToken, TokenCache};
///
/// let tenant = TokenCache::new(AccessToken::bearer("of-this-tenant")?);
/// let request = http::Request::get("https://api.example.com/items")
///     .extension(AuthOverride::cache(tenant))
///     .body(http_body_util::Full::<bytes::Bytes>::default())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Two layers
///
/// Where one layer sends an API key and another a bearer token, name the header of the layer that is meant. A cache without
/// a header is for the first layer that sends a token: a second one that would do so too refuses the request, so that no
/// token goes out under the header of another.
///
/// ```
/// use http::header::AUTHORIZATION;
/// use tower_oauth2::auth::AuthOverride;
/// # use tower_oauth2::{AccessToken, TokenCache};
///
/// # let tenant = TokenCache::new(AccessToken::bearer("of-this-tenant")?);
/// # let key = TokenCache::new(AccessToken::bearer("key-of-this-tenant")?);
/// let token = AuthOverride::cache(tenant).for_header(AUTHORIZATION);
/// let both = token.and(AuthOverride::cache(key).for_header("x-api-key".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct AuthOverride {
    wish: Wish,
    /// Those for other layers.
    others: Vec<Wish>,
}

/// The choice for one layer.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) from: OverrideToken,
    pub(super) min_validity: Option<Duration>,
    /// The layer that is meant: the one that sends this header.
    header: Option<HeaderName>,
    /// Whether a layer has taken the cache that is meant for one layer alone.
    taken: bool,
}

#[derive(Clone, Debug)]
pub(super) enum OverrideToken {
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
        Self::new(OverrideToken::Nobody)
    }

    /// Sends the request with a token of this cache: another user's, another tenant's, another scope's.
    #[must_use]
    pub fn cache(cache: TokenCache) -> Self {
        Self::new(OverrideToken::Cache(cache))
    }

    /// Sends the request with the layer's own token, said out loud where the layer
    /// [requires](crate::auth::AuthLayer::require_override) an override, or with a minimum.
    #[must_use]
    pub fn layer() -> Self {
        Self::new(OverrideToken::Layer)
    }

    fn new(from: OverrideToken) -> Self {
        let wish = Wish { from, min_validity: None, header: None, taken: false };
        Self { wish, others: Vec::new() }
    }

    /// Sets how long the token must at least be valid, for a request that takes long. With less left the request waits
    /// for another token, if tokens live that long. Of a need beyond three quarters of their life only as much is waited
    /// for. A request with a [`Deadline`](crate::extensions::Deadline) waits for half of its time, and then goes out with the
    /// token in use.
    #[must_use]
    pub fn min_validity(mut self, validity: Duration) -> Self {
        self.wish.min_validity = Some(validity);
        self
    }

    /// Addresses the layer that sends its token in this header. Others on the way take no notice.
    #[must_use]
    pub fn for_header(mut self, header: HeaderName) -> Self {
        self.wish.header = Some(header);
        self
    }

    /// Adds an override for another layer.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.others.push(other.wish);
        self.others.extend(other.others);
        self
    }

    /// Returns whether a pool may choose among its tokens: no choice was made but for other layers, by their headers.
    pub(crate) fn leaves_choice(&self) -> bool {
        let mut all = iter::once(&self.wish).chain(&self.others);
        let common = all.find(|wish| wish.header.is_none());
        common.is_none_or(|wish| matches!(wish.from, OverrideToken::Layer))
    }

    /// Makes the choice, and keeps what else is said.
    pub(crate) fn choosing(mut self, cache: TokenCache) -> Self {
        let mut all = iter::once(&mut self.wish).chain(&mut self.others);
        match all.find(|wish| wish.header.is_none()) {
            Some(common) => (common.from, common.taken) = (OverrideToken::Cache(cache), false),
            None => return self.and(Self::cache(cache)),
        }
        self
    }

    /// Returns what is said to the layer that sends this header, if anything is.
    pub(super) fn wish(&mut self, header: &HeaderName) -> Option<&mut Wish> {
        let all = || iter::once(&self.wish).chain(&self.others);
        let index = all()
            .position(|wish| wish.header.as_ref() == Some(header))
            .or_else(|| all().position(|wish| wish.header.is_none()))?;
        iter::once(&mut self.wish).chain(&mut self.others).nth(index)
    }
}

impl Wish {
    /// Notes that the layer that sends this header sends the token that is wished for.
    ///
    /// # Errors
    ///
    /// A cache that is for one layer alone, and that another layer has taken already.
    pub(super) fn take(&mut self, header: &HeaderName) -> Result<(), Error> {
        let is_for_one = self.header.is_none() && matches!(self.from, OverrideToken::Cache(_));
        if is_for_one && std::mem::replace(&mut self.taken, true) {
            return Err(Error::config(format!(
                "the cache in the request's AuthOverride was used by another AuthLayer already, and does not say whether the \
                 one that sends {header} is meant too; say AuthOverride::for_header"
            )));
        }
        Ok(())
    }
}
