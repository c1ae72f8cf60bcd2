//! The origin that a token response names as the one of its API.

use std::sync::Arc;

use secrecy::ExposeSecret as _;

use crate::error::Error;
use crate::origin::Origin;
use crate::text::Redactor;
use crate::token::AccessToken;

/// The member of a token response that names the origin of the API, and the domains in which that may be.
#[derive(Clone, Debug)]
pub(super) struct NamedOrigin {
    member: Arc<str>,
    /// In lower case, as in an [`Origin`].
    domains: Vec<String>,
}

impl NamedOrigin {
    pub(super) fn new<I>(member: &str, domains: I) -> Result<Self, Error>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let domains: Vec<_> =
            domains.into_iter().map(|domain| read_domain(domain.as_ref())).collect::<Result<_, _>>()?;
        if domains.is_empty() {
            return Err(Error::config(
                "AuthLayer::for_origin_named_by has no domain, so the token response could name any host; name the \
                 domains of the provider",
            ));
        }
        Ok(Self { member: member.into(), domains })
    }

    /// Returns whether the host is one of the domains, or in one. Labels count as a whole.
    pub(super) fn covers(&self, origin: &Origin) -> bool {
        let host = origin.host();
        self.domains.iter().any(|domain| match host.strip_suffix(&**domain) {
            Some("") => true,
            // In an address nothing stands for a domain.
            Some(labels) => labels.ends_with('.') && !is_address(domain),
            None => false,
        })
    }

    /// Reads the origin that the response of a token names.
    ///
    /// # Errors
    ///
    /// A configuration error if it names none, or one that may not have the token.
    pub(super) fn read(&self, token: &AccessToken) -> Result<Origin, Error> {
        let member = &*self.member;
        let Some(value) = token.extra(member) else {
            return Err(Error::config(format!(
                "the token response has no member {member}, by which AuthLayer::for_origin_named_by learns where the \
                 token may go; the request was not sent"
            )));
        };
        let origin = Origin::parse_with_insecure_http(value.expose_secret()).map_err(|error| {
            Error::config(format!(
                "the member {member} of the token response, by which AuthLayer::for_origin_named_by learns where the \
                 token may go, names no origin; the request was not sent"
            ))
            .with_source(error)
        })?;
        let why = if !self.covers(&origin) {
            "is in none of the allowed domains"
        } else if !origin.is_https() && !origin.is_loopback() {
            "is plain http"
        } else {
            return Ok(origin);
        };
        let mut redactor = Redactor::default();
        token.teach(&mut redactor);
        let (origin, domains) = (redactor.clean(&origin.to_string()), self.domains.join(", "));
        Err(Error::config(format!(
            "the member {member} of the token response names {origin}, which {why} ({domains}); if it may have the \
             token, say so in AuthLayer::for_origin_named_by; the request was not sent"
        )))
    }
}

/// Reads a domain of at least two labels, or a host of this machine.
fn read_domain(domain: &str) -> Result<String, Error> {
    let refused = |why: &str| Error::config(format!("a domain of AuthLayer::for_origin_named_by {why}"));
    let origin = Origin::parse_with_insecure_http(&format!("https://{domain}"))
        .map_err(|error| refused("is no host name such as example.com").with_source(error))?;
    let host = origin.host();
    if !host.eq_ignore_ascii_case(domain) || host.ends_with('.') {
        return Err(refused("goes on behind the host name; leave out port, slash and the dot at the end"));
    }
    if !host.contains('.') && !origin.is_loopback() {
        return Err(refused(
            "has one label alone, in which anyone can register a host; name the provider's own domain",
        ));
    }
    Ok(host.to_owned())
}

/// Returns whether a host is an IP address: names do not end in a number.
fn is_address(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    host.starts_with('[') || last.bytes().all(|byte| byte.is_ascii_digit())
}
