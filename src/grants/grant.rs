//! What makes a source of a builder's settings: one trait, so that building stands once.

use crate::error::Error;
use crate::grants::endpoint::client::EndpointClient;
use crate::grants::parameters::Parameters;

/// A grant that a [`GrantBuilder`](crate::grants::GrantBuilder) makes a source of, or the revocation of tokens. There is
/// nothing to implement.
pub trait Grant: Sized {
    /// What is built.
    type Source;

    #[doc(hidden)]
    fn assemble(self, checked: Checked) -> Result<Self::Source, Error>;
}

/// What was checked of the settings that all grants share. It seals [`Grant`]: nobody else can make one or look into it.
#[derive(Debug)]
#[allow(unnameable_types, reason = "it seals the trait")]
pub struct Checked {
    pub(crate) endpoint: EndpointClient,
    pub(crate) common: Parameters,
}
