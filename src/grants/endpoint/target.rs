//! Where a request goes, and for which client: known from the start, or told by the issuer.

use std::fmt;
use std::sync::Arc;

use http::Uri;

use crate::error::Error;
use crate::grants::client::auth::ClientAuth;
use crate::grants::discovery::fetch::Discovery;
use crate::grants::discovery::metadata::Metadata;
use crate::grants::endpoint::deadline::Deadline;
use crate::grants::endpoint::identifiers::Identifiers;
use crate::grants::endpoint::location::Endpoint;
use crate::grants::endpoint::transport::Transport;
use crate::grants::endpoint::url;
use crate::grants::response::expected::{Acceptance, Expected};
use crate::origin::Origin;
use crate::source::SourceIdentity;
use crate::text::Redactor;

/// A place to ask, and the client as it shows itself there.
pub(crate) struct Target {
    pub(crate) uri: Uri,
    /// For messages and events, which never show more of the URL.
    pub(crate) origin: Origin,
    /// With one way to authenticate.
    pub(crate) registration: Registration,
    /// What names it, if there may be newer metadata by now.
    pub(crate) metadata: Option<Arc<Metadata>>,
}

/// Where requests go: to a place that is known, or to the one that the issuer names.
pub(crate) enum Destination {
    Fixed(Arc<Target>),
    Discovered(Arc<Discovery>, Box<Registration>),
}

/// A client as an authorization server knows it, and what is expected of a response.
#[derive(Clone, Debug)]
pub(crate) struct Registration {
    /// The token URL is missing until it is known.
    pub(crate) identifiers: Identifiers,
    /// All ways that are configured.
    pub(crate) auth: ClientAuth,
    pub(crate) expected: Expected,
}

impl Destination {
    /// Checks where an endpoint is. Where its issuer is given, its URL is not known yet, and the issuer stands in for it.
    pub(crate) fn new(
        endpoint: Endpoint,
        mut registration: Registration,
        insecure_http: bool,
        transport: &Transport,
    ) -> Result<Self, Error> {
        match endpoint {
            Endpoint::Url(url) => {
                let kind = registration.expected.terms.kind.name();
                let address = url::read(&url, |origin| insecure_http || origin.is_loopback())
                    .map_err(|flaw| Error::config(format!("{kind}_url: it {flaw}")))?;
                registration.auth = registration.auth.strongest();
                Ok(Self::Fixed(Arc::new(registration.at(&url, address))))
            }
            Endpoint::Issuer(issuer) => {
                let identifiers = &mut registration.identifiers;
                identifiers.token_url.clone_from(&issuer.identifier);
                if identifiers.issuer.is_empty() {
                    identifiers.issuer.clone_from(&issuer.identifier);
                }
                registration.expected.is_discovered = true;
                let discovery = Discovery::new(issuer, insecure_http, transport.clone())?;
                Ok(Self::Discovered(Arc::new(discovery), Box::new(registration)))
            }
        }
    }

    /// Returns the client; all ways in which it authenticates where that is not decided yet.
    pub(crate) fn registration(&self) -> &Registration {
        match self {
            Self::Fixed(target) => &target.registration,
            Self::Discovered(_, registration) => registration,
        }
    }

    /// Returns where to send. The metadata of the issuer are fetched if there are none.
    pub(crate) async fn target(&self, deadline: Deadline, redactor: &Redactor) -> Result<Arc<Target>, Error> {
        match self {
            Self::Fixed(target) => Ok(Arc::clone(target)),
            Self::Discovered(discovery, registration) => {
                let (metadata, is_new) = discovery.current(deadline, redactor).await?;
                let target = registration.target(discovery, &metadata)?;
                Ok(Arc::new(Target { metadata: Some(metadata).filter(|_| !is_new), ..target }))
            }
        }
    }

    /// Returns another place than this one, if newer metadata name one.
    pub(crate) async fn newer_target(
        &self,
        target: &Target,
        deadline: Deadline,
        redactor: &Redactor,
    ) -> Option<Target> {
        let Self::Discovered(discovery, registration) = self else { return None };
        let known = target.metadata.as_ref()?;
        tracing::debug!(origin = %target.origin, "the endpoint may have moved; fetching the metadata of the issuer again");
        let metadata = discovery.newer(known, deadline, redactor).await?;
        registration.target(discovery, &metadata).ok().filter(|newer| newer.uri != target.uri)
    }

    /// Adds where the requests go, for which client, and how a response is read.
    pub(crate) fn describe(&self, identity: SourceIdentity) -> SourceIdentity {
        let identity = match self {
            Self::Fixed(target) => identity.with("url", target.uri.to_string()),
            Self::Discovered(discovery, _) => discovery.describe(identity),
        };
        let Registration { identifiers, auth, expected } = self.registration();
        let identity = identity
            .with("issuer", &identifiers.issuer)
            .with("client", &identifiers.client_id)
            .with("client authentication", auth.name());
        let Acceptance { required, strict_bearer, renamed, token_types, .. } = &expected.acceptance;
        let identity =
            required.iter().fold(identity, |identity, scope| identity.with("required scope", scope));
        let identity = token_types.iter().fold(identity, |identity, name| identity.with("token type", name));
        let identity = renamed
            .iter()
            .fold(identity, |identity, (name, theirs)| identity.with(format!("member {name}"), theirs));
        if *strict_bearer { identity.with("strict bearer", "") } else { identity }
    }
}

/// For messages and events: the origin of the endpoint, or the issuer.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(target) => target.origin.fmt(f),
            Self::Discovered(discovery, _) => f.write_str(&discovery.issuer.identifier),
        }
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Destination").field(&format_args!("{self}")).field(self.registration()).finish()
    }
}

// --- Registration ---

impl Registration {
    /// Makes a target of it.
    fn at(mut self, url: &str, (uri, origin): (Uri, Origin)) -> Target {
        url.clone_into(&mut self.identifiers.token_url);
        self.expected.who = format!("the {} endpoint at {origin}", self.expected.terms.kind.name());
        self.expected.client_asserts = self.auth.is_assertion();
        Target { uri, origin, registration: self, metadata: None }
    }

    /// Makes a target of what the issuer says, or an error that says what is wrong. Nothing was sent then.
    fn target(&self, discovery: &Discovery, metadata: &Metadata) -> Result<Target, Error> {
        let issuer = &discovery.issuer.identifier;
        let kind = self.expected.terms.kind;
        let names = metadata.methods(kind);
        // Where there is no client, there is none to authenticate.
        let is_anonymous = self.expected.is_anonymous;
        let auth = if is_anonymous { Some(self.auth.clone()) } else { self.auth.supported(&names) };
        let auth = auth.ok_or_else(|| {
            Error::config(format!(
                "the {} endpoint of the issuer {issuer} does not support the client authentication that is configured ({}), \
                 but: {}; use another ClientAuth, or register the client for it; nothing was sent",
                kind.name(),
                self.auth.name(),
                if names.is_empty() { "none that is known here".to_owned() } else { names.join(", ") },
            ))
        })?;
        let mtls = discovery.issuer.mtls_aliases || auth.is_tls();
        let url = metadata.url(kind, mtls).ok_or_else(|| {
            Error::config(format!(
                "the metadata of the issuer {issuer} do not say where the {} endpoint is; if there is one, give its URL in \
                 place of the issuer",
                kind.name()
            ))
        })?;
        let address = url::read(url, |origin| discovery.allows_http(origin)).map_err(|flaw| {
            Error::protocol(format!(
                "the metadata of the issuer {issuer} cannot be used: the URL of the {} endpoint in them {flaw}",
                kind.name()
            ))
        })?;
        Ok(Self { auth, ..self.clone() }.at(url, address))
    }
}
