//! Where an endpoint is: what is given to a builder first.

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
#[derive(Clone)]
#[non_exhaustive]
pub enum Endpoint {
    /// Its URL.
    Url(String),
    /// The authorization server that says where it is.
    Issuer(Issuer),
}

impl<T: Into<String>> From<T> for Endpoint {
    fn from(url: T) -> Self {
        Self::Url(url.into())
    }
}

impl From<Issuer> for Endpoint {
    fn from(issuer: Issuer) -> Self {
        Self::Issuer(issuer)
    }
}

impl From<&Issuer> for Endpoint {
    fn from(issuer: &Issuer) -> Self {
        issuer.clone().into()
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // It was not checked yet that it holds no password.
            Self::Url(_) => f.write_str("a URL"),
            Self::Issuer(issuer) => issuer.fmt(f),
        }
    }
}
