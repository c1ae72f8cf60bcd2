//! The names of the client and of the server.

use std::fmt;

/// The client and the authorization server, by the names that they have for each other.
#[derive(Clone, Default)]
#[cfg_attr(not(feature = "jwt"), allow(dead_code, reason = "only assertions name the server"))]
pub(crate) struct Identifiers {
    /// Empty if there is no client.
    pub(crate) client_id: String,
    /// The server's issuer identifier (RFC 8414 §2), as it is written; empty if it is not set.
    pub(crate) issuer: String,
    /// The token URL, as it was given.
    pub(crate) token_url: String,
}

/// The token URL is left out: some servers want a key in it.
impl fmt::Debug for Identifiers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = f.debug_struct("Identifiers");
        names.field("client_id", &self.client_id).field("issuer", &self.issuer).finish_non_exhaustive()
    }
}
