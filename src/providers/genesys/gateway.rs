//! A gateway that stands in for both hosts.

use crate::error::Error;
use crate::origin::Origin;

/// A gateway of your own in front of Genesys Cloud: requests for the API and for tokens go to it in place of both hosts.
///
/// Defaults: `/api/v2` and `/oauth/token` are at its root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    origin: Origin,
    login_path: String,
    api_path: String,
}

impl Gateway {
    /// Creates a gateway at an origin, such as `https://gateway.example.com:8443`. Plain http is for loopback.
    ///
    /// # Errors
    ///
    /// As [`Origin::parse`].
    pub fn new(origin: &str) -> Result<Self, Error> {
        Ok(Self { origin: Origin::parse(origin)?, login_path: String::new(), api_path: String::new() })
    }

    /// Sets the path in front of `/oauth/token`.
    #[must_use]
    pub fn login_path(mut self, path: impl AsRef<str>) -> Self {
        self.login_path = below_root(path.as_ref());
        self
    }

    /// Sets the path in front of `/api/v2`.
    #[must_use]
    pub fn api_path(mut self, path: impl AsRef<str>) -> Self {
        self.api_path = below_root(path.as_ref());
        self
    }

    pub(super) fn login(&self) -> String {
        format!("{}{}", self.origin, self.login_path)
    }

    pub(super) fn api(&self) -> String {
        format!("{}{}", self.origin, self.api_path)
    }
}

fn below_root(path: &str) -> String {
    let path = path.trim_matches('/');
    if path.is_empty() { String::new() } else { format!("/{path}") }
}
