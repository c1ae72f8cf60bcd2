//! Where an endpoint is: what is given to a builder first.

use std::borrow::Cow;
use std::fmt;

use crate::grants::discovery::issuer::Issuer;

/// Where an endpoint is: its URL, as any string, or an [`Issuer`] that is asked for it.
///
/// The first argument of every builder is one of both:
///
/// ```
/// use tower_oauth2::grants::Issuer;
/// use tower_oauth2::{ClientCredentials, Secret};
///
/// let secret = Secret::from_env("BILLING_SECRET");
/// let by_url = ClientCredentials::builder("https://login.example.com/oauth/token", "billing", secret.clone());
/// let by_issuer = ClientCredentials::builder(Issuer::new("https://login.example.com"), "billing", secret);
/// # let _ = (by_url, by_issuer);
/// ```
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub(crate) location: Location,
}

/// What was given.
#[derive(Clone)]
pub(crate) enum Location {
    Url(String),
    Issuer(Issuer),
}

impl Endpoint {
    fn url(url: String) -> Self {
        Self { location: Location::Url(url) }
    }
}

impl From<&str> for Endpoint {
    fn from(url: &str) -> Self {
        Self::url(url.into())
    }
}

impl From<String> for Endpoint {
    fn from(url: String) -> Self {
        Self::url(url)
    }
}

impl From<&String> for Endpoint {
    fn from(url: &String) -> Self {
        Self::url(url.clone())
    }
}

impl From<Cow<'_, str>> for Endpoint {
    fn from(url: Cow<'_, str>) -> Self {
        Self::url(url.into_owned())
    }
}

impl From<Issuer> for Endpoint {
    fn from(issuer: Issuer) -> Self {
        Self { location: Location::Issuer(issuer) }
    }
}

impl From<&Issuer> for Endpoint {
    fn from(issuer: &Issuer) -> Self {
        issuer.clone().into()
    }
}

// --- Location ---

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // It was not checked yet that it holds no password.
            Self::Url(_) => f.write_str("a URL"),
            Self::Issuer(issuer) => issuer.fmt(f),
        }
    }
}
