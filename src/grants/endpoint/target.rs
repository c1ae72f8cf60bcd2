//! A place to send a request to, and the client as it shows itself there.

use std::sync::Arc;

use http::Uri;

use crate::grants::client::auth::ClientAuth;
use crate::grants::discovery::metadata::Metadata;
use crate::grants::endpoint::identifiers::Identifiers;
use crate::grants::endpoint::url;
use crate::grants::response::expected::{Acceptance, Expected};
use crate::origin::Origin;
use crate::source::SourceIdentity;

/// A place to ask, and the client as it shows itself there.
pub(crate) struct Target {
    pub(crate) uri: Uri,
    /// For messages and events, which never show more of the URL.
    pub(crate) origin: Origin,
    /// With one way to authenticate.
    pub(crate) registration: Registration,
    /// The metadata that name it, if there may be newer ones by now.
    pub(crate) metadata: Option<Arc<Metadata>>,
}

/// A client as an authorization server knows it, and what is expected of a response.
#[derive(Clone, Debug)]
pub(crate) struct Registration {
    /// The token URL is missing until it is known.
    pub(crate) identifiers: Identifiers,
    /// All ways that are configured.
    pub(crate) auth: ClientAuth,
    pub(crate) expected: Expected,
}

impl Registration {
    /// Makes a target of it.
    ///
    /// # Errors
    ///
    /// The end of a sentence about the URL, which cannot be used.
    pub(crate) fn at(mut self, url: &str, allows_http: impl Fn(&Origin) -> bool) -> Result<Target, String> {
        let (uri, origin) = url::read(url, allows_http)?;
        self.identifiers.token_url = url.into();
        self.expected.who = format!("the {} endpoint at {origin}", self.expected.terms.kind.name());
        self.expected.client_asserts = self.auth.is_assertion();
        Ok(Target { uri, origin, registration: self, metadata: None })
    }

    /// Adds the client, and what decides which token is taken from a response.
    pub(crate) fn describe(&self, identity: SourceIdentity) -> SourceIdentity {
        let Acceptance { required, strict_bearer, renamed, token_types, .. } = &self.expected.acceptance;
        let accepted = (required, strict_bearer, renamed, token_types);
        identity
            .with("issuer", &self.identifiers.issuer)
            .with("client", &self.identifiers.client_id)
            .with("client authentication", self.auth.name())
            .with("accepted", format!("{accepted:?}"))
    }
}
