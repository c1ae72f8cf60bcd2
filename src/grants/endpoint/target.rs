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
use crate::grants::endpoint::location::{Endpoint, Location};
use crate::grants::endpoint::transport::Transport;
use crate::grants::endpoint::url::{self, PlainHttp};
use crate::grants::response::body::{Acceptance, Expected};
use crate::grants::response::wording::{EndpointKind, Naming, Wording};
use crate::origin::Origin;
use crate::source::SourceIdentity;
use crate::text::{self, Redactor};

/// A place to ask, and the client as it shows itself there.
pub(crate) struct Target {
    pub(crate) uri: Uri,
    /// For messages and events, which never show more of the URL.
    pub(crate) origin: Origin,
    pub(crate) identifiers: Identifiers,
    /// One way to authenticate.
    pub(crate) auth: ClientAuth,
    pub(crate) expected: Expected,
}

/// Where requests go: to a place that is known, or to the one that the issuer names.
pub(crate) enum Destination {
    Fixed(Arc<Target>),
    Discovered(Arc<Discovery>, Box<Registration>),
}

/// What is known of a target without its address.
pub(crate) struct Registration {
    pub(crate) kind: EndpointKind,
    pub(crate) insecure_http: bool,
    /// Of which the URL is still missing.
    pub(crate) identifiers: Identifiers,
    /// All ways that are configured.
    pub(crate) auth: ClientAuth,
    pub(crate) expected: Expected,
}

impl Destination {
    /// Checks where an endpoint is. Where its issuer is given, its URL is not known yet, and the issuer stands in for it.
    pub(crate) fn new(location: Endpoint, mut registration: Registration) -> Result<Self, Error> {
        let Registration { kind, insecure_http, .. } = registration;
        match location.location {
            Location::Url(url) => {
                let plain_http = if insecure_http { PlainHttp::Everybody } else { PlainHttp::Loopback };
                let address = url::read(&url, plain_http).map_err(|flaw| flaw.in_setting(kind.naming()))?;
                let auth = registration.auth.strongest();
                Ok(Self::Fixed(Arc::new(registration.at(&url, address, auth, kind.naming()))))
            }
            Location::Issuer(issuer) => {
                let discovery = Arc::new(Discovery::new(issuer, insecure_http)?);
                let (identifiers, known) = (&mut registration.identifiers, discovery.identifier().as_str());
                if identifiers.issuer.is_empty() {
                    identifiers.issuer = known.to_owned();
                }
                identifiers.token_url = known.to_owned();
                Ok(Self::Discovered(discovery, Box::new(registration)))
            }
        }
    }

    /// Returns where to send, with the metadata that say so, if there may be newer ones by now. They are fetched if there are
    /// none that hold.
    pub(crate) async fn target(
        &self,
        transport: &Transport,
        deadline: Deadline,
        redactor: &Redactor,
    ) -> Result<(Arc<Target>, Option<Arc<Metadata>>), Error> {
        match self {
            Self::Fixed(target) => Ok((Arc::clone(target), None)),
            Self::Discovered(discovery, registration) => {
                let (metadata, is_new) = discovery.current(transport, deadline, redactor).await?;
                let target = Arc::new(registration.target(discovery, &metadata)?);
                Ok((target, Some(metadata).filter(|_| !is_new)))
            }
        }
    }

    /// Returns where to send instead, if there are metadata by now that say so.
    pub(crate) async fn newer_target(
        &self,
        target: &Target,
        metadata: &Arc<Metadata>,
        transport: &Transport,
        deadline: Deadline,
        redactor: &Redactor,
    ) -> Option<Arc<Target>> {
        let Self::Discovered(discovery, registration) = self else { return None };
        tracing::debug!(origin = %target.origin, "the endpoint may have moved; fetching the metadata of the issuer again");
        let metadata = discovery.newer(metadata, transport, deadline, redactor).await?;
        let newer = registration.target(discovery, &metadata).ok()?;
        (newer.uri != target.uri).then(|| Arc::new(newer))
    }

    /// Returns how the client authenticates; all ways of it where that is not decided yet.
    pub(crate) fn auth(&self) -> &ClientAuth {
        match self {
            Self::Fixed(target) => &target.auth,
            Self::Discovered(_, registration) => &registration.auth,
        }
    }

    /// Adds where the requests go, for which client, and how a response is read.
    pub(crate) fn describe(&self, identity: SourceIdentity) -> SourceIdentity {
        let (identity, identifiers, expected) = match self {
            Self::Fixed(target) => {
                (identity.with("url", target.uri.to_string()), &target.identifiers, &target.expected)
            }
            Self::Discovered(discovery, registration) => {
                (discovery.describe(identity), &registration.identifiers, &registration.expected)
            }
        };
        let identity = identity
            .with("issuer", &identifiers.issuer)
            .with("client", &identifiers.client_id)
            .with("client authentication", self.auth().name());
        describe(&expected.acceptance, identity)
    }

    /// Returns the client and the server by their names, the URL of the endpoint left out where it is not known.
    pub(crate) fn identifiers(&self) -> &Identifiers {
        match self {
            Self::Fixed(target) => &target.identifiers,
            Self::Discovered(_, registration) => &registration.identifiers,
        }
    }
}

/// For messages and events: the origin of the endpoint, or the issuer.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(target) => target.origin.fmt(f),
            Self::Discovered(discovery, _) => discovery.identifier().fmt(f),
        }
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, identifiers, auth, expected) = match self {
            Self::Fixed(target) => ("origin", &target.identifiers, &target.auth, &target.expected),
            Self::Discovered(_, registration) => {
                ("issuer", &registration.identifiers, &registration.auth, &registration.expected)
            }
        };
        f.debug_struct("Destination")
            .field(name, &format_args!("{self}"))
            .field("client_id", &identifiers.client_id)
            .field("auth", auth)
            .field("expected", expected)
            .finish_non_exhaustive()
    }
}

/// Adds what decides which token is taken from a response.
fn describe(acceptance: &Acceptance, identity: SourceIdentity) -> SourceIdentity {
    let Acceptance { required, strict_bearer, renamed, token_types, .. } = acceptance;
    let identity = required.iter().fold(identity, |identity, scope| identity.with("required scope", scope));
    let identity = token_types.iter().fold(identity, |identity, name| identity.with("token type", name));
    let members = renamed.iter();
    let identity =
        members.fold(identity, |identity, (name, theirs)| identity.with(format!("member {name}"), theirs));
    if *strict_bearer { identity.with("strict bearer", "") } else { identity }
}

// --- Registration ---

impl Registration {
    /// Makes a target of it. `auth` is the way that was chosen.
    pub(crate) fn at(
        &self,
        url: &str,
        (uri, origin): (Uri, Origin),
        auth: ClientAuth,
        naming: Naming,
    ) -> Target {
        let Self { identifiers, expected, .. } = self;
        Target {
            uri,
            identifiers: Identifiers { token_url: url.into(), ..identifiers.clone() },
            expected: Expected {
                wording: Wording {
                    who: format!("{} at {origin}", naming.endpoint),
                    naming,
                    client_asserts: auth.is_assertion(),
                    ..expected.wording.clone()
                },
                acceptance: expected.acceptance.clone(),
            },
            origin,
            auth,
        }
    }

    /// Makes a target of what the issuer says, or an error that says what is wrong. Nothing was sent then.
    fn target(&self, discovery: &Discovery, metadata: &Metadata) -> Result<Target, Error> {
        let (issuer, endpoint) = (discovery.identifier(), self.kind.naming().endpoint);
        let auth = self.supported_auth(discovery, metadata)?;
        let mtls = discovery.mtls_aliases() || auth.is_tls();
        let Some(url) = metadata.url(self.kind, mtls) else {
            return Err(Error::config(format!(
                "the metadata of the issuer {issuer} do not say where {endpoint} is; if there is one, give its URL in \
                 place of the issuer"
            )));
        };
        // An https server that names a port of this machine is a mistake or an attack.
        let plain_http = match (self.insecure_http, issuer.is_https()) {
            (true, _) => PlainHttp::Everybody,
            (false, true) => PlainHttp::Nobody,
            (false, false) => PlainHttp::Loopback,
        };
        let address = url::read(url, plain_http).map_err(|flaw| {
            Error::protocol(format!(
                "the metadata of the issuer {issuer} cannot be used: the URL of {endpoint} in them {}",
                flaw.elsewhere()
            ))
        })?;
        Ok(self.at(url, address, auth, self.kind.naming_in_metadata()))
    }

    fn supported_auth(&self, discovery: &Discovery, metadata: &Metadata) -> Result<ClientAuth, Error> {
        // There is no client to authenticate.
        if self.expected.wording.is_anonymous {
            return Ok(self.auth.clone());
        }
        let names = metadata.methods(self.kind);
        self.auth.supported(&names).ok_or_else(|| {
            Error::config(format!(
                "{} of the issuer {} does not support the client authentication that is configured ({}), but: {}; \
                 use another ClientAuth, or register the client for it; nothing was sent",
                self.kind.naming().endpoint,
                discovery.identifier(),
                self.auth.name(),
                text::clean(&names.join(", ")),
            ))
        })
    }
}
