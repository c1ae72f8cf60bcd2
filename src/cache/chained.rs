//! A cache as the source of another.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::handle::TokenCache;
use super::shared::Want;
use crate::clock;
use crate::error::Error;
use crate::source::{FetchReason, SourceIdentity, TokenRequest, TokenSource};
use crate::token::AccessToken;

/// Kept from the deadline of the cache in front, so that the error of the one behind arrives before it; a tenth of what is
/// left where that is less.
const MARGIN: Duration = Duration::from_millis(100);

#[derive(Clone, Debug)]
struct CachedSource {
    cache: TokenCache,
}

impl TokenCache {
    /// Makes a source of the cache, to stand behind another cache or behind `or`. Rejections, acceptances, deadlines and
    /// [`refresh`](Self::refresh) pass through.
    #[must_use]
    pub fn as_source(&self) -> impl TokenSource + Clone + fmt::Debug + use<> {
        CachedSource { cache: self.clone() }
    }
}

impl TokenSource for CachedSource {
    /// Passes a rejection on, and renews only what the asker has already: of many that stand before one cache, the
    /// first to want a new token has it fetched, and the others get that one.
    async fn token(&self, request: TokenRequest) -> Result<AccessToken, Error> {
        // The asker names it in each fetch until one succeeds, and it was rejected once.
        if let Some(rejected) = request.rejected().filter(|rejected| self.cache.shared.keeps(rejected)) {
            self.cache.reject(rejected);
        }
        let held = self.cache.peek();
        let is_known = match (&held, request.previous()) {
            (Some(held), Some(previous)) => held.id() == previous.id(),
            (_, _) => false,
        };
        let new = match request.reason() {
            FetchReason::Expiring | FetchReason::Expired => is_known,
            FetchReason::Forced => is_known || held.is_none(),
            FetchReason::Initial | FetchReason::Rejected => false,
        };
        let by = request.deadline().map(|deadline| {
            let left = Instant::from_std(deadline).saturating_duration_since(clock::now());
            Instant::from_std(deadline - MARGIN.min(left / 10))
        });
        self.cache.token(Want { new, by, min_validity: None }).await
    }

    fn name(&self) -> Option<String> {
        self.cache.shared.settings.name.as_deref().map(str::to_owned)
    }

    fn is_disposable(&self) -> bool {
        self.cache.shared.source.may_be_dropped()
    }

    fn accepted(&self, token: &AccessToken) {
        self.cache.accept(token);
    }

    fn has_changed(&self) -> bool {
        self.cache.shared.source.may_differ()
    }

    fn identity(&self) -> Option<SourceIdentity> {
        self.cache.shared.source.own_identity().map(SourceIdentity::behind)
    }
}
