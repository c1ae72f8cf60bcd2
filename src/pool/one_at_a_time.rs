//! Lets the members of a pool fetch their tokens one after the other.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::error::Error;
use crate::extensions::CredentialId;
use crate::source::{DynTokenSource, SourceIdentity, TokenRequest, TokenSource};
use crate::token::AccessToken;

/// A source that waits for its turn.
pub(super) struct OneAtATime {
    pub(super) source: Box<dyn DynTokenSource>,
    pub(super) turn: Arc<Semaphore>,
    pub(super) credential: CredentialId,
}

impl TokenSource for OneAtATime {
    async fn token(&self, request: TokenRequest) -> Result<AccessToken, Error> {
        // It is never closed. The cache ends the wait at its deadline.
        let _turn = self.turn.acquire().await;
        // In the span of the cache's fetch, whose other lines name the client alone.
        tracing::debug!(credential = self.credential.as_str(), "a token of the pool is fetched");
        self.source.fetch(request).await
    }

    fn name(&self) -> Option<String> {
        self.source.own_name()
    }

    fn is_disposable(&self) -> bool {
        self.source.may_be_dropped()
    }

    fn accepted(&self, token: &AccessToken) {
        self.source.note_accepted(token);
    }

    fn has_changed(&self) -> bool {
        self.source.may_differ()
    }

    fn identity(&self) -> Option<SourceIdentity> {
        self.source.own_identity()
    }
}
