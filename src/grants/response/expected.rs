//! The expectations of an endpoint, on which depend the reading of a response and the messages about it.

use crate::grants::parameters::Encoding;
use crate::grants::response::classifier::Classifier;

/// The expectations of an endpoint before it responds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expected {
    pub(crate) acceptance: Acceptance,
    pub(crate) terms: Terms,
    /// The party that responds, as the subject of a sentence.
    pub(crate) who: String,
    /// The name of its address in messages.
    pub(crate) url: String,
    /// Whether no client is set.
    pub(crate) is_anonymous: bool,
    /// Whether a header authorizes the request in place of a client.
    pub(crate) is_authorized: bool,
    /// Whether an assertion authenticates the client.
    pub(crate) client_asserts: bool,
}

/// Which responses are taken for a token.
#[derive(Clone, Debug, Default)]
pub(crate) struct Acceptance {
    pub(crate) requested: Vec<String>,
    pub(crate) required: Vec<String>,
    pub(crate) strict_bearer: bool,
    pub(crate) classifier: Option<Classifier>,
    /// The name of a member in RFC 6749, and its name at this endpoint.
    pub(crate) renamed: Vec<(String, String)>,
    /// The token types that are accepted beside `Bearer`.
    pub(crate) token_types: Vec<String>,
    /// Members that say by their value, which is JSON text, that the response refuses.
    pub(crate) refusals: Vec<(String, String)>,
}

/// The properties of a grant, as opposed to the settings of its user.
#[derive(Clone, Debug, Default)]
pub(crate) struct Terms {
    pub(crate) kind: EndpointKind,
    /// An encoding other than that of forms is the endpoint's own: it knows nothing of RFC 6749, so that its parameters are its
    /// own too, even if they are called the same.
    pub(crate) encoding: Encoding,
    /// The parameters that it sends by itself, besides `grant_type`.
    pub(crate) own: &'static [&'static str],
}

/// The kind of endpoint that a request is made to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum EndpointKind {
    #[default]
    Token,
    Revocation,
}

// --- EndpointKind ---

impl EndpointKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Revocation => "revocation",
        }
    }
}
