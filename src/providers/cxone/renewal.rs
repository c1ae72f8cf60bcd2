//! Renewal of the token of an access key by the refresh token that came with it.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::error::Error;
use crate::grants::{CustomGrant, RefreshTokenGrant};
use crate::source::{SourceIdentity, TokenRequest, TokenSource};
use crate::token::AccessToken;

/// A source that sends the secret of the access key as seldom as the server allows.
///
/// 1. Without a refresh token it asks by the access key.
/// 2. A refresh token that is refused, for any reason, costs one request: then the access key is asked by.
/// 3. While the server is away or throttles, the access key is not tried as well.
/// 4. A server that refuses the grant itself is not asked by a refresh token again.
pub(super) struct Renewing {
    pub(super) by_key: CustomGrant,
    pub(super) by_refresh_token: RefreshTokenGrant,
    pub(super) is_unsupported: AtomicBool,
}

impl TokenSource for Renewing {
    async fn token(&self, request: TokenRequest) -> Result<AccessToken, Error> {
        if self.by_refresh_token.has_refresh_token() && !self.is_unsupported.load(Relaxed) {
            match self.by_refresh_token.token(request.clone()).await {
                Err(error) if error.is_temporary() => return Err(error),
                Err(error) => {
                    self.is_unsupported.store(error.is_config(), Relaxed);
                    tracing::debug!(%error, "the refresh token of CXone is of no use; the access key is asked by");
                }
                Ok(token) => return Ok(token),
            }
        }
        let token = self.by_key.token(request).await?;
        if let Some(refresh_token) = token.expose_refresh_token() {
            // One that no request can hold is none, and the token beside it is good.
            let _ = self.by_refresh_token.replace(refresh_token);
        }
        Ok(token)
    }

    fn name(&self) -> Option<String> {
        self.by_key.name()
    }

    // Disposable all the same: the access key gets another token at any time.

    fn has_changed(&self) -> bool {
        self.by_key.has_changed()
    }

    fn identity(&self) -> Option<SourceIdentity> {
        self.by_key.identity()
    }
}
