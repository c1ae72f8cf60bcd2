//! The names of endpoints in messages, and further facts on which messages depend.

/// The facts on which the messages about an endpoint depend.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wording {
    /// The party that responds, as the subject of a sentence; empty: the endpoint by its name.
    pub(crate) who: String,
    pub(crate) kind: EndpointKind,
    /// Whether the issuer told its URL.
    pub(crate) is_discovered: bool,
    /// Whether no client is set.
    pub(crate) is_anonymous: bool,
    /// Whether a header authorizes the request in place of a client.
    pub(crate) is_authorized: bool,
    /// Whether an assertion authenticates the client.
    pub(crate) client_asserts: bool,
    /// Whether an assertion is the grant.
    pub(crate) grant_asserts: bool,
    /// Whether another token is the grant.
    pub(crate) exchanges: bool,
}

impl Wording {
    /// Returns who responds, as the subject of a sentence.
    pub(crate) fn who(&self) -> &str {
        if self.who.is_empty() { self.kind.name() } else { &self.who }
    }

    /// Returns what the address of the endpoint is called.
    pub(crate) fn url(&self) -> &'static str {
        match (self.kind, self.is_discovered) {
            (EndpointKind::Token, false) => "token URL",
            (EndpointKind::Token, true) => "token endpoint in the metadata of the issuer",
            (EndpointKind::Revocation, false) => "revocation URL",
            (EndpointKind::Revocation, true) => "revocation endpoint in the metadata of the issuer",
            (EndpointKind::Metadata, _) => "issuer",
        }
    }
}

/// The kind of endpoint that a request is made to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum EndpointKind {
    #[default]
    Token,
    Revocation,
    Metadata,
}

impl EndpointKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Token => "the token endpoint",
            Self::Revocation => "the revocation endpoint",
            Self::Metadata => "the metadata",
        }
    }

    /// Returns the name of the setting with its URL, and an example of one.
    pub(crate) fn setting(self) -> (&'static str, &'static str) {
        match self {
            Self::Token => ("token_url", "https://login.example.com/oauth/token"),
            Self::Revocation => ("revocation_url", "https://login.example.com/oauth/revoke"),
            Self::Metadata => ("metadata_url", "https://login.example.com/.well-known/openid-configuration"),
        }
    }
}
