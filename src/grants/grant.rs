//! What makes a source of a builder's settings: one trait, so that building stands once.

use crate::error::Error;
use crate::grants::endpoint::client::EndpointClient;
use crate::grants::parameters::Parameters;

/// What a [`GrantBuilder`](crate::grants::GrantBuilder) builds: a source, or the revocation of tokens. There is nothing to
/// implement.
pub trait Grant: Sized {
    /// The settings that the grant has of its own.
    #[doc(hidden)]
    type Settings: Clone;

    #[doc(hidden)]
    fn assemble(settings: Self::Settings, checked: Checked) -> Result<Self, Error>;
}

/// What was checked of the settings that all grants share. It seals [`Grant`]: no other crate can name it.
#[derive(Debug)]
#[allow(unnameable_types, reason = "it seals the trait")]
pub struct Checked {
    pub(crate) endpoint: EndpointClient,
    pub(crate) common: Parameters,
}
