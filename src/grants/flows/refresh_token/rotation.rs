//! The hook that stores a rotated refresh token before the access token that came with it is used.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceExt as _};

use crate::error::Error;
use crate::grants::endpoint::transport::cause;
use crate::runtime;
use crate::text::Redactor;

/// A refresh token that has just replaced another one, to be stored where the next start finds it.
///
/// The one before it is spent. `Debug` does not show it.
///
/// # Examples
///
/// ```
/// use tower_oauth2::RefreshTokenGrant;
/// use tower_oauth2::grants::RotatedToken;
///
/// async fn store(token: RotatedToken) -> Result<(), tower::BoxError> {
///     Ok(tokio::fs::write("/var/lib/reports/refresh_token", token.expose_refresh_token()).await?)
/// }
///
/// let builder =
///     RefreshTokenGrant::builder("https://login.example.com/token", "reports", "secret").on_rotate(store);
/// # let _ = builder;
/// ```
#[derive(Clone, Debug)]
pub struct RotatedToken {
    refresh_token: SecretString,
}

impl RotatedToken {
    /// Returns the refresh token itself. It is a secret: access tokens can be fetched with it.
    #[must_use]
    pub fn expose_refresh_token(&self) -> &str {
        self.refresh_token.expose_secret()
    }
}

// --- OnRotate ---

/// A closure that stores refresh tokens.
pub(crate) type OnRotate = BoxCloneSyncService<RotatedToken, (), BoxError>;

/// Stores a token. A closure that fails, panics or takes longer than `limit` is an error, and no more than that: the
/// token in memory is good all the same.
pub(crate) async fn store(
    on_rotate: OnRotate,
    refresh_token: SecretString,
    limit: Duration,
) -> Result<(), Error> {
    const WHAT: &str = "the new refresh token was not stored: on_rotate";
    let mut redactor = Redactor::default();
    redactor.add(refresh_token.expose_secret());
    let storing = async {
        on_rotate.oneshot(RotatedToken { refresh_token }).await.map_err(|error| {
            // Databases repeat what they could not store, and show more of it by `Debug`.
            Error::transient(format!("{WHAT} failed")).with_source(cause(&*error, &redactor))
        })
    };
    let stored = tokio::time::timeout(limit, runtime::caught(WHAT, storing)).await;
    stored.unwrap_or_else(|_elapsed| Err(Error::transient(format!("{WHAT} took longer than {limit:?}"))))
}
