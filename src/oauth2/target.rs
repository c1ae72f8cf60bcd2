//! Where a request goes, and as whom: known from the start, or told by the issuer.

use std::fmt;
use std::sync::Arc;

use http::Uri;

use crate::error::TokenError;
use crate::oauth2::answer::{EndpointKind, Expected, Naming};
use crate::oauth2::client_auth::ClientAuth;
use crate::oauth2::deadline::Deadline;
use crate::oauth2::discovery::Discovery;
use crate::oauth2::identifiers::Identifiers;
use crate::oauth2::metadata::Metadata;
use crate::oauth2::transport::Transport;
use crate::oauth2::url::{self, PlainHttp};
use crate::origin::Origin;
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

/// A [`Target`] that is known, or how it is found.
pub(crate) enum Endpoint {
    Known(Arc<Target>),
    Discovered(Box<Discovered>),
}

/// How an issuer's endpoint becomes a [`Target`].
pub(crate) struct Discovered {
    pub(crate) discovery: Arc<Discovery>,
    pub(crate) kind: EndpointKind,
    pub(crate) insecure_http: bool,
    pub(crate) registration: Registration,
}

/// What is known of a target without its address.
pub(crate) struct Registration {
    /// Of which the URL is still missing.
    pub(crate) identifiers: Identifiers,
    /// All ways that are configured.
    pub(crate) auth: ClientAuth,
    pub(crate) expected: Expected,
}

/// A target, and what it was made of.
pub(crate) struct Found {
    pub(crate) target: Arc<Target>,
    metadata: Option<Arc<Metadata>>,
    /// Whether the metadata were asked for just now.
    is_new: bool,
}

impl Endpoint {
    /// Returns where to ask. The metadata are asked for if there are none that hold.
    pub(crate) async fn find(
        &self,
        transport: &Transport,
        deadline: Deadline,
        redactor: &Redactor,
    ) -> Result<Found, TokenError> {
        match self {
            Self::Known(target) => Ok(Found { target: Arc::clone(target), metadata: None, is_new: false }),
            Self::Discovered(discovered) => {
                let (metadata, is_new) = discovered.discovery.current(transport, deadline, redactor).await?;
                let target = Arc::new(discovered.target(&metadata)?);
                Ok(Found { target, metadata: Some(metadata), is_new })
            }
        }
    }

    /// Returns where to ask instead, if there are metadata by now that say so.
    pub(crate) async fn find_another(
        &self,
        found: &Found,
        transport: &Transport,
        deadline: Deadline,
        redactor: &Redactor,
    ) -> Option<Arc<Target>> {
        let (Self::Discovered(discovered), Found { target, metadata: Some(metadata), is_new: false }) =
            (self, found)
        else {
            return None;
        };
        tracing::debug!(origin = %target.origin, "the endpoint may have moved; asking the issuer again");
        let metadata = discovered.discovery.newer(metadata, transport, deadline, redactor).await?;
        let newer = discovered.target(&metadata).ok()?;
        (newer.uri != target.uri).then(|| Arc::new(newer))
    }

    /// Returns how the client authenticates; all ways of it where that is not decided yet.
    pub(crate) fn auth(&self) -> &ClientAuth {
        match self {
            Self::Known(target) => &target.auth,
            Self::Discovered(discovered) => &discovered.registration.auth,
        }
    }

    /// Returns the client and the server by their names, the URL of the endpoint left out where it is not known.
    #[cfg(feature = "jwt")]
    pub(crate) fn identifiers(&self) -> &Identifiers {
        match self {
            Self::Known(target) => &target.identifiers,
            Self::Discovered(discovered) => &discovered.registration.identifiers,
        }
    }
}

/// For messages and events: the origin of the endpoint, or the issuer.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(target) => target.origin.fmt(f),
            Self::Discovered(discovered) => discovered.discovery.identifier().fmt(f),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, identifiers, auth, expected) = match self {
            Self::Known(target) => ("origin", &target.identifiers, &target.auth, &target.expected),
            Self::Discovered(discovered) => {
                let Registration { identifiers, auth, expected } = &discovered.registration;
                ("issuer", identifiers, auth, expected)
            }
        };
        f.debug_struct("Place")
            .field(name, &format_args!("{self}"))
            .field("client_id", &identifiers.client_id)
            .field("auth", auth)
            .field("expected", expected)
            .finish_non_exhaustive()
    }
}

// --- Draft ---

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
                who: format!("{} at {origin}", naming.endpoint),
                naming,
                client_asserts: auth.is_assertion(),
                ..expected.clone()
            },
            origin,
            auth,
        }
    }
}

// --- Discovered ---

impl Discovered {
    /// Makes a target of what the issuer says, or an error that says what is wrong. Nothing was sent then.
    fn target(&self, metadata: &Metadata) -> Result<Target, TokenError> {
        let Self { discovery, kind, registration, .. } = self;
        let (issuer, endpoint) = (discovery.identifier(), kind.naming().endpoint);
        let auth = self.auth(metadata)?;
        let mtls = discovery.mtls_aliases() || auth.is_tls();
        let Some(url) = metadata.url(*kind, mtls) else {
            return Err(TokenError::config(format!(
                "the metadata of the issuer {issuer} do not say where {endpoint} is; if there is one, give its URL in \
                 place of the issuer"
            )));
        };
        // An https server that names a port of this machine is not one that anybody means.
        let plain_http = match (self.insecure_http, issuer.is_https()) {
            (true, _) => PlainHttp::Everybody,
            (false, true) => PlainHttp::Nobody,
            (false, false) => PlainHttp::Loopback,
        };
        let address = url::read(url, plain_http).map_err(|flaw| {
            TokenError::protocol(format!(
                "the metadata of the issuer {issuer} cannot be used: the URL of {endpoint} in them {}",
                flaw.elsewhere()
            ))
        })?;
        Ok(registration.at(url, address, auth, kind.naming_in_metadata()))
    }

    fn auth(&self, metadata: &Metadata) -> Result<ClientAuth, TokenError> {
        let Self { discovery, kind, registration, .. } = self;
        // There is no client to authenticate.
        if registration.expected.is_anonymous {
            return Ok(registration.auth.clone());
        }
        let names = metadata.methods(*kind);
        registration.auth.supported(names).ok_or_else(|| {
            TokenError::config(format!(
                "{} of the issuer {} does not support the client authentication that is configured ({}), but: {}; \
                 change auth(), or register the client for it; nothing was sent",
                kind.naming().endpoint,
                discovery.identifier(),
                registration.auth.name(),
                text::clean(&names.join(", ")),
            ))
        })
    }
}
