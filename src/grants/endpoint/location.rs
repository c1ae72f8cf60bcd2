//! Where an endpoint is: what is given to a builder first, and where requests go then.

use std::fmt;
use std::sync::Arc;

use crate::error::Error;
use crate::grants::discovery::fetch::Discovery;
use crate::grants::discovery::issuer::Issuer;
use crate::grants::endpoint::target::{Registration, Target};
use crate::grants::endpoint::transport::Transport;
use crate::text;

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

/// Where requests go: to a place that is known, or to the one that the issuer names.
pub(crate) enum Destination {
    Fixed(Arc<Target>),
    Discovered(Arc<Discovery>),
}

// --- Endpoint ---

impl<T: Into<String>> From<T> for Endpoint {
    fn from(url: T) -> Self {
        Self::Url(text::visible(&url.into()).to_owned())
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

// --- Destination ---

impl Destination {
    /// Checks where an endpoint is.
    pub(crate) fn new(
        endpoint: Endpoint,
        mut registration: Registration,
        insecure_http: bool,
        transport: &Transport,
    ) -> Result<Self, Error> {
        let kind = registration.expected.terms.kind.name();
        match endpoint {
            Endpoint::Url(url) => {
                registration.auth = registration.auth.strongest();
                registration.expected.url = format!("{kind} URL");
                let target = registration.at(&url, |origin| insecure_http || origin.is_loopback());
                let target = target.map_err(|flaw| Error::config(format!("{kind}_url: it {flaw}")))?;
                Ok(Self::Fixed(Arc::new(target)))
            }
            Endpoint::Issuer(issuer) => {
                registration.expected.url = format!("{kind} endpoint in the metadata of the issuer");
                let discovery = Discovery::new(issuer, registration, insecure_http, transport.clone())?;
                Ok(Self::Discovered(Arc::new(discovery)))
            }
        }
    }

    /// Returns the client; all ways in which it authenticates where that is not decided yet.
    pub(crate) fn registration(&self) -> &Registration {
        match self {
            Self::Fixed(target) => &target.registration,
            Self::Discovered(discovery) => &discovery.registration,
        }
    }
}

/// For messages and events: the origin of the endpoint, or the issuer.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(target) => target.origin.fmt(f),
            Self::Discovered(discovery) => f.write_str(&discovery.issuer.identifier),
        }
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Destination").field(&format_args!("{self}")).field(self.registration()).finish()
    }
}
