//! What a builder makes: one trait, so that building stands once, and what all grants share when it is built.

use std::fmt;
use std::sync::Arc;

use crate::error::Error;
use crate::grants::endpoint::client::EndpointClient;
use crate::grants::parameters::Parameters;
use crate::source::{SourceIdentity, TokenRequest};
use crate::token::AccessToken;

/// What a [`GrantBuilder`](crate::grants::GrantBuilder) builds: a source, or the revocation of tokens. There is nothing to
/// implement.
pub trait Grant: Sized {
    /// The settings that the grant has of its own.
    #[doc(hidden)]
    type Settings: Clone;

    #[doc(hidden)]
    fn assemble(settings: Self::Settings, exchange: Exchange) -> Result<Self, Error>;
}

/// An endpoint, and the parameters of every request there: what was checked of the settings that all grants share. It seals
/// [`Grant`], since no other crate can name it.
#[derive(Debug)]
#[allow(unnameable_types, reason = "it seals the trait")]
pub struct Exchange {
    pub(crate) endpoint: EndpointClient,
    pub(crate) parameters: Parameters,
}

impl Exchange {
    /// Returns it with these parameters before the others, for all clones of a source.
    pub(crate) fn beginning_with(self, mut first: Parameters) -> Arc<Self> {
        first.extend(self.parameters);
        Arc::new(Self { endpoint: self.endpoint, parameters: first })
    }

    /// Returns what the grant with these parameters is about, if that is known before they are read.
    pub(crate) fn identity(&self, grant: &str) -> Option<SourceIdentity> {
        self.parameters.describe(self.endpoint.identity(grant))
    }

    pub(crate) async fn token(&self, request: &TokenRequest) -> Result<AccessToken, Error> {
        self.endpoint.exchange(&self.parameters, request).await
    }

    /// Writes the debug output of the source of that name.
    pub(crate) fn fmt_as(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name).field("endpoint", &self.endpoint).field("parameters", &self.parameters).finish()
    }
}
