//! Which token of an app is wanted.

use std::collections::{BTreeMap, BTreeSet};

/// An installation of an app: an organization or an account that has it, by its number. The key of a
/// [set of caches](super::GithubApp::installations).
///
/// Defaults:
///
/// - repositories: all that the installation has
/// - permissions: all that the installation granted
///
/// # Examples
///
/// ```
/// use tower_oauth2::providers::github::Installation;
///
/// let everything = Installation::from(4711);
/// let reader = Installation::new(4711).repository("site").permission("contents", "read");
/// assert_ne!(everything, reader);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub struct Installation {
    id: u64,
    repositories: BTreeSet<String>,
    permissions: BTreeMap<String, String>,
}

impl Installation {
    /// Creates the key of an installation by its id, as `GET /app/installations` and webhooks have it.
    pub fn new(id: u64) -> Self {
        Self { id, repositories: BTreeSet::new(), permissions: BTreeMap::new() }
    }

    /// Narrows the token to a repository, by its name without the owner; call it for each of several.
    pub fn repository(mut self, name: impl Into<String>) -> Self {
        self.repositories.insert(name.into());
        self
    }

    /// Narrows the token to a permission, such as `contents` and `read`; call it for each of several.
    pub fn permission(mut self, name: impl Into<String>, access: impl Into<String>) -> Self {
        self.permissions.insert(name.into(), access.into());
        self
    }

    /// Returns the id.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn repositories(&self) -> &BTreeSet<String> {
        &self.repositories
    }

    pub(super) fn permissions(&self) -> &BTreeMap<String, String> {
        &self.permissions
    }
}

impl From<u64> for Installation {
    fn from(id: u64) -> Self {
        Self::new(id)
    }
}
