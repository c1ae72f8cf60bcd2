//! A token that a key makes: no server is asked for it.

use crate::error::Error;
use crate::grants::endpoint::identifiers::Identifiers;
use crate::grants::jwt::assertion::Assertion;
use crate::source::{SourceIdentity, TokenRequest, TokenSource};
use crate::token::AccessToken;

/// A source whose token is its own assertion, as GitHub Apps and some APIs of Google take it. No server is asked.
///
/// `iss` is a setting of the assertion; the audience may be left out. The token lives as long as the assertion, so a
/// [`TokenCache`](crate::TokenCache) makes a new one in time.
///
/// # Cancel safety
///
/// Dropping a fetch leaves nothing behind.
///
/// # Examples
///
/// A GitHub App, whose clock may be ahead of GitHub's:
///
/// ```
/// use std::time::Duration;
/// use tower_oauth2::Secret;
/// use tower_oauth2::grants::jwt::{Assertion, JwtAlgorithm, SelfSigned};
///
/// let assertion = Assertion::by_key(JwtAlgorithm::Rs256, Secret::from_file("/run/secrets/app.pem"))
///     .issuer("APP-ID")
///     .without_subject()
///     .clock_ahead_by(Duration::from_secs(30))
///     .lifetime(Duration::from_secs(540));
/// let app = SelfSigned::new(assertion)?;
/// # let _ = app;
/// # Ok::<(), tower_oauth2::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SelfSigned {
    assertion: Assertion,
}

impl SelfSigned {
    /// Creates the source from its assertion.
    ///
    /// # Errors
    ///
    /// A configuration error if the assertion has no issuer, a lifetime of more than an hour, or a key that cannot be used.
    pub fn new(assertion: Assertion) -> Result<Self, Error> {
        assertion.check_by_itself(&Identifiers::default())?;
        Ok(Self { assertion })
    }
}

impl TokenSource for SelfSigned {
    async fn token(&self, _request: TokenRequest) -> Result<AccessToken, Error> {
        let signed = self.assertion.make(&Identifiers::default()).await?;
        Ok(AccessToken::of("Bearer", signed)?.with_lifetime(self.assertion.holds_for()))
    }

    fn identity(&self) -> Option<SourceIdentity> {
        self.assertion.describe("assertion", SourceIdentity::new("self-signed"))
    }
}
