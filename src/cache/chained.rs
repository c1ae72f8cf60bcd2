//! A cache as the source of another.

use super::handle::TokenCache;
use crate::error::TokenError;
use crate::source::{FetchReason, TokenRequest, TokenSource};
use crate::token::AccessToken;

/// A cache as a source: see [`TokenCache::as_source`].
#[derive(Clone, Debug)]
pub struct CachedSource {
    cache: TokenCache,
}

impl TokenCache {
    /// Makes a source of the cache, to stand behind another cache or behind `or`. A rejection passes through.
    #[must_use]
    pub fn as_source(&self) -> CachedSource {
        CachedSource { cache: self.clone() }
    }
}

impl TokenSource for CachedSource {
    /// Passes a rejection on, and renews only what the asker has already: of many that stand before one cache, the
    /// first to want a new token has it fetched, and the others get that one.
    async fn token(&self, request: TokenRequest) -> Result<AccessToken, TokenError> {
        if let Some(rejected) = request.rejected() {
            self.cache.reject(rejected);
        }
        let token = self.cache.get().await?;
        let known = request.previous().is_some_and(|previous| previous.id() == token.id());
        match request.reason() {
            FetchReason::Expiring | FetchReason::Expired | FetchReason::Forced if known => {
                self.cache.refresh().await
            }
            FetchReason::Initial
            | FetchReason::Expiring
            | FetchReason::Expired
            | FetchReason::Rejected
            | FetchReason::Forced => Ok(token),
        }
    }

    fn is_disposable(&self) -> bool {
        self.cache.is_disposable()
    }
}
