//! The names of the client and of the server.

use secrecy::SecretString;

/// The client and the authorization server, by the names that they have for each other.
#[derive(Clone, Debug, Default)]
#[cfg_attr(not(feature = "jwt"), allow(dead_code, reason = "only assertions name the server"))]
pub(crate) struct Identifiers {
    /// Empty if there is no client.
    pub(crate) client_id: String,
    /// The server's issuer identifier (RFC 8414 §2), as it is written; empty if it is not set.
    pub(crate) issuer: String,
    /// The token URL, as it was given. Some servers want a key in it.
    pub(crate) token_url: SecretString,
}
