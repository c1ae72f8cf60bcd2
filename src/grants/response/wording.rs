//! What an endpoint is called in messages, and what else they depend on.

/// What the messages about an endpoint depend on.
#[derive(Clone, Debug)]
pub(crate) struct Wording {
    /// Who responds, as the subject of a sentence.
    pub(crate) who: String,
    pub(crate) naming: Naming,
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

impl Default for Wording {
    fn default() -> Self {
        Self {
            who: Naming::TOKEN.endpoint.into(),
            naming: Naming::TOKEN,
            is_anonymous: false,
            is_authorized: false,
            client_asserts: false,
            grant_asserts: false,
            exchanges: false,
        }
    }
}

/// Which endpoint of an authorization server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndpointKind {
    Token,
    Revocation,
}

impl EndpointKind {
    /// Returns what it is called where its URL is set.
    pub(crate) fn naming(self) -> Naming {
        match self {
            Self::Token => Naming::TOKEN,
            Self::Revocation => Naming::REVOCATION,
        }
    }

    /// Returns what it is called where the issuer told its URL.
    pub(crate) fn naming_in_metadata(self) -> Naming {
        let url = match self {
            Self::Token => "token endpoint in the metadata of the issuer",
            Self::Revocation => "revocation endpoint in the metadata of the issuer",
        };
        Naming { url, ..self.naming() }
    }
}

/// What an endpoint and its address are called in messages, and whether it says something by its successes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Naming {
    pub(crate) endpoint: &'static str,
    pub(crate) url: &'static str,
    /// The setting with the URL.
    pub(crate) field: &'static str,
    pub(crate) example: &'static str,
    /// Whether the body of a success is of interest.
    pub(crate) speaks: bool,
}

impl Naming {
    const TOKEN: Self = Self {
        endpoint: "the token endpoint",
        url: "token URL",
        field: "token_url",
        example: "https://login.example.com/oauth/token",
        speaks: true,
    };

    const REVOCATION: Self = Self {
        endpoint: "the revocation endpoint",
        url: "revocation URL",
        field: "revocation_url",
        example: "https://login.example.com/oauth/revoke",
        speaks: false,
    };

    pub(crate) const METADATA: Self = Self {
        endpoint: "the metadata",
        url: "issuer",
        field: "metadata_url",
        example: "https://login.example.com/.well-known/openid-configuration",
        speaks: true,
    };
}
