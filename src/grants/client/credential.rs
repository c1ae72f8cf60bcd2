//! A credential as grants send it: a secret that is read, or the token of a source.

use std::fmt;
use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};

use crate::error::Error;
use crate::grants::client::secret::Secret;
use crate::source::{DynTokenSource, RefreshTokenUse, SourceIdentity, TokenRequest, TokenSource};
use crate::token::AccessToken;

/// A secret that is read, or a source that is asked, each time.
#[derive(Clone)]
#[allow(unnameable_types, reason = "it seals the trait below")]
pub struct Credential {
    origin: CredentialOrigin,
}

#[derive(Clone)]
enum CredentialOrigin {
    Secret(Secret),
    Source(Arc<dyn DynTokenSource>),
}

/// What is sent as a token or an assertion: a string, a [`Secret`], or any [`TokenSource`]. There is nothing to implement.
pub trait IntoCredential {
    #[doc(hidden)]
    fn into_credential(self) -> Credential;
}

impl IntoCredential for Secret {
    fn into_credential(self) -> Credential {
        Credential { origin: CredentialOrigin::Secret(self) }
    }
}

impl IntoCredential for String {
    fn into_credential(self) -> Credential {
        Secret::from(self).into_credential()
    }
}

impl IntoCredential for &str {
    fn into_credential(self) -> Credential {
        Secret::from(self).into_credential()
    }
}

impl<S: TokenSource> IntoCredential for S {
    fn into_credential(self) -> Credential {
        Credential { origin: CredentialOrigin::Source(Arc::new(self)) }
    }
}

impl Credential {
    /// Reads the secret, which messages call `name`, or fetches a token, which comes along.
    pub(crate) async fn read(
        &self,
        name: &str,
        request: TokenRequest,
    ) -> Result<(SecretString, Option<AccessToken>), Error> {
        match &self.origin {
            CredentialOrigin::Secret(secret) => Ok((secret.read_as(name).await?, None)),
            CredentialOrigin::Source(source) => {
                let token = source.fetch(request).await?;
                Ok((token.secret().clone(), Some(token)))
            }
        }
    }

    /// Returns the source that is asked, if there is one.
    pub(crate) fn source(&self) -> Option<&dyn DynTokenSource> {
        match &self.origin {
            CredentialOrigin::Secret(_) => None,
            CredentialOrigin::Source(source) => Some(&**source),
        }
    }

    /// Adds what it stands for, if that is known before it is read.
    pub(crate) fn describe(&self, name: &str, identity: SourceIdentity) -> Option<SourceIdentity> {
        match &self.origin {
            CredentialOrigin::Secret(secret) => Some(identity.with(name, secret.value()?.expose_secret())),
            // The user of a refresh token is not known.
            CredentialOrigin::Source(source) => source
                .own_identity()
                .filter(|source| source.refresh_token() == RefreshTokenUse::None && !source.is_partial())
                .map(|source| identity.within(name, source)),
        }
    }

    /// Returns whether reading again can give another one.
    pub(crate) fn may_change(&self) -> bool {
        match &self.origin {
            CredentialOrigin::Secret(secret) => secret.may_change(),
            CredentialOrigin::Source(_) => true,
        }
    }

    /// Returns whether there may be another one than was read last.
    pub(crate) fn has_changed(&self) -> bool {
        match &self.origin {
            CredentialOrigin::Secret(secret) => secret.has_changed(),
            CredentialOrigin::Source(source) => source.may_differ(),
        }
    }

    /// Returns whether it is a plain value without anything in it.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(&self.origin, CredentialOrigin::Secret(secret) if secret.is_empty_value())
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            CredentialOrigin::Secret(secret) => secret.fmt(f),
            CredentialOrigin::Source(_) => f.write_str("source"),
        }
    }
}
