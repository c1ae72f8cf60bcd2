//! Lets the members of a pool fetch their tokens one after the other.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::error::Error;
use crate::extensions::CredentialId;
use crate::source::{AroundFetch, DynTokenSource, TokenRequest};
use crate::token::AccessToken;

/// Has a token request wait for its turn.
pub(super) struct OneAtATime {
    pub(super) turn: Arc<Semaphore>,
    pub(super) credential: CredentialId,
}

impl AroundFetch for OneAtATime {
    async fn fetch(&self, source: &dyn DynTokenSource, request: TokenRequest) -> Result<AccessToken, Error> {
        // It is never closed. The cache ends the wait at its deadline.
        let _turn = self.turn.acquire().await;
        // In the span of the cache's fetch, whose other lines name the client alone.
        tracing::debug!(credential = self.credential.as_str(), "a token of the pool is fetched");
        source.fetch(request).await
    }
}
