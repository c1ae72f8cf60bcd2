//! A gateway that stands in for both hosts.

use crate::error::Error;
use crate::origin::Origin;

/// Where a gateway takes the requests for the two hosts.
#[derive(Clone, Debug)]
pub(super) struct Gateway {
    /// The URL in front of `/oauth/token`.
    pub(super) login: String,
    /// The URL in front of `/api/v2`.
    pub(super) api: String,
}

impl Gateway {
    /// Reads two URLs, each an origin and perhaps a path.
    pub(super) fn new(login_url: &str, api_url: &str) -> Result<Self, Error> {
        Ok(Self { login: without_end(login_url)?, api: without_end(api_url)? })
    }
}

fn without_end(url: &str) -> Result<String, Error> {
    let (origin, path) = Origin::split_url(url);
    let origin = Origin::parse(origin)?;
    if path.contains(['?', '#', '\\']) {
        return Err(Error::config(
            "the URL of the gateway has a query, a fragment or a backslash; leave it out",
        ));
    }
    let path = path.trim_matches('/');
    Ok(if path.is_empty() { origin.to_string() } else { format!("{origin}/{path}") })
}
