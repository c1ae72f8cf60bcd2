//! Asks an issuer for its metadata, and remembers what it said.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use http::{Request, StatusCode, Uri};
use tracing::Instrument as _;
use tracing::instrument::WithSubscriber as _;

use crate::clock::{self, WallClock};
use crate::error::{Error, ErrorKind};
use crate::grants::discovery::issuer::Issuer;
use crate::grants::discovery::metadata::{Metadata, check_issuer, well_known};
use crate::grants::endpoint::deadline::Deadline;
use crate::grants::endpoint::target::{Registration, Target};
use crate::grants::endpoint::transport::{self, Retries, Transport};
use crate::grants::endpoint::url;
use crate::grants::response::body::Body;
use crate::grants::response::expected::Expected;
use crate::grants::response::messages;
use crate::grants::response::refused::Refused;
use crate::grants::response::verdict;
use crate::origin::Origin;
use crate::runtime;
use crate::source::SourceIdentity;
use crate::text::Redactor;

/// An [`Issuer`] that was checked.
pub(crate) struct Discovery {
    pub(crate) issuer: Issuer,
    pub(crate) registration: Registration,
    /// Where its metadata may be, and the name of each place in messages: the URL may hold a secret.
    addresses: Vec<(Uri, &'static str)>,
    expected: Expected,
    insecure_http: bool,
    is_https: bool,
    transport: Transport,
}

impl Discovery {
    /// Checks what can be checked before anything is asked. The issuer stands in for the URL, which is not known yet.
    ///
    /// # Errors
    ///
    /// A configuration error that names the setting and the remedy.
    pub(crate) fn new(
        issuer: Issuer,
        mut registration: Registration,
        insecure_http: bool,
        transport: Transport,
    ) -> Result<Self, Error> {
        let identifiers = &mut registration.identifiers;
        identifiers.token_url = issuer.identifier.as_str().into();
        if identifiers.issuer.is_empty() {
            identifiers.issuer.clone_from(&issuer.identifier);
        }
        let allows_http = |origin: &Origin| insecure_http || origin.is_loopback();
        let mut origin = check_issuer(&issuer.identifier, allows_http)?;
        let is_https = origin.is_https();
        let places = match &issuer.metadata_url {
            Some(url) => vec![(url.clone(), "its metadata_url")],
            None => well_known(&issuer.identifier),
        };
        let mut addresses = Vec::new();
        for (url, name) in places {
            let address = url::read(&url, allows_http)
                .map_err(|flaw| Error::config(format!("metadata_url: it {flaw}")))?;
            addresses.push((address.0, name));
            origin = address.1;
        }
        let who = format!("the server of the metadata of the issuer {} at {origin}", issuer.identifier);
        let expected = Expected { who, url: "issuer".to_owned(), ..Expected::default() };
        Ok(Self { issuer, registration, addresses, expected, insecure_http, is_https, transport })
    }

    /// Adds where the metadata come from, and which of their endpoints are used.
    pub(crate) fn describe(&self, identity: SourceIdentity) -> SourceIdentity {
        let named_by = (&self.addresses, self.issuer.mtls_aliases);
        identity.with("metadata of", &self.issuer.identifier).with("metadata", format!("{named_by:?}"))
    }

    /// Returns where to send, as the metadata say. They are fetched if there are none.
    ///
    /// The redactor knows what else the server may repeat.
    pub(crate) async fn target(
        self: &Arc<Self>,
        deadline: Deadline,
        redactor: &Redactor,
    ) -> Result<Target, Error> {
        match self.issuer.cache.newest() {
            (None, rounds) => self.named_by(&*self.renew(rounds, deadline, redactor).await?),
            (Some(metadata), rounds) => {
                if self.issuer.cache.is_due(WallClock::default().moment()) {
                    // No fetch waits for new metadata while the old ones serve on. The outcome is noted where it is found.
                    let (this, redactor) = (Arc::clone(self), redactor.clone());
                    let renewal =
                        async move { this.renew(rounds, Deadline::default(), &redactor).await.map(drop) };
                    runtime::current()?.spawn(renewal.in_current_span().with_current_subscriber());
                }
                let target = self.named_by(&metadata)?;
                Ok(Target { metadata: Some(metadata), ..target })
            }
        }
    }

    /// Returns another place than this one, if newer metadata name one. They are fetched if no other task has done so since.
    pub(crate) async fn newer_target(
        &self,
        target: &Target,
        deadline: Deadline,
        redactor: &Redactor,
    ) -> Option<Target> {
        let known = target.metadata.as_ref()?;
        tracing::debug!(origin = %target.origin, "the endpoint may have moved; fetching the metadata of the issuer again");
        let metadata = match self.issuer.cache.newest() {
            (Some(newest), _) if !Arc::ptr_eq(&newest, known) => newest,
            (_, rounds) => self.renew(rounds, deadline, redactor).await.ok()?,
        };
        self.named_by(&metadata).ok().filter(|newer| newer.uri != target.uri)
    }

    /// Makes a target of what the issuer says, or an error that says what is wrong. Nothing was sent then.
    fn named_by(&self, metadata: &Metadata) -> Result<Target, Error> {
        let Registration { expected, auth, .. } = &self.registration;
        let (issuer, kind) = (&self.issuer.identifier, expected.terms.kind);
        let names = metadata.methods(kind);
        // Where there is no client, there is none to authenticate.
        let supported = if expected.is_anonymous { Some(auth.clone()) } else { auth.supported(&names) };
        let supported = supported.ok_or_else(|| {
            Error::config(format!(
                "the {} endpoint of the issuer {issuer} does not support the client authentication that is configured ({}), \
                 but: {}; use another ClientAuth, or register the client for it; nothing was sent",
                kind.name(),
                auth.name(),
                if names.is_empty() { "none that is known here".to_owned() } else { names.join(", ") },
            ))
        })?;
        let url = metadata.url(kind, self.issuer.mtls_aliases || supported.is_tls()).ok_or_else(|| {
            Error::config(format!(
                "the metadata of the issuer {issuer} do not say where the {} endpoint is; if there is one, give its URL in \
                 place of the issuer",
                kind.name()
            ))
        })?;
        // An https server that names a port of this machine is a mistake or an attack.
        let allows_http = |origin: &Origin| self.insecure_http || (origin.is_loopback() && !self.is_https);
        let registration = Registration { auth: supported, ..self.registration.clone() };
        registration.at(url, allows_http).map_err(|flaw| {
            Error::protocol(format!(
                "the metadata of the issuer {issuer} cannot be used: the URL of the {} endpoint in them {flaw}",
                kind.name()
            ))
        })
    }

    /// Fetches, or takes what another task has fetched since `rounds` were counted. Where that fails, the old metadata serve
    /// on.
    async fn renew(
        &self,
        rounds: u64,
        deadline: Deadline,
        redactor: &Redactor,
    ) -> Result<Arc<Metadata>, Error> {
        let Self { issuer, transport, .. } = self;
        // The holder of the turn may be on a runtime that is no longer driven.
        let limit = deadline.cap(transport.patience.attempt_timeout);
        let _turn = tokio::time::timeout(limit, issuer.cache.turn.acquire()).await;
        if let Some(outcome) = issuer.cache.outcome_since(rounds) {
            return outcome;
        }
        // Where there are metadata, the next minute is early enough.
        let retries = if issuer.cache.newest().0.is_some() { 0 } else { transport.patience.retries };
        let asked = WallClock::default().moment();
        // The outcome is noted before the turn ends: the next one looks for it first.
        match self.send(retries, deadline, redactor).await {
            Ok(metadata) => Ok(issuer.cache.found(metadata, asked.saturating_add(issuer.lifetime))),
            Err(error) => issuer.cache.failed(&error, WallClock::default().moment(), &issuer.identifier),
        }
    }

    /// Asks at all addresses in turn, until one has metadata or no more retries are left.
    async fn send(&self, most: u32, deadline: Deadline, redactor: &Redactor) -> Result<Metadata, Error> {
        let mut retries = Retries::new(most);
        loop {
            let refused = match self.round(deadline, redactor).await {
                Ok(metadata) => return Ok(metadata),
                Err(refused) => refused,
            };
            let waited = self.transport.wait(refused, &mut retries, deadline, &self.expected.who);
            waited.await.map_err(|refused| refused.error)?;
        }
    }

    async fn round(&self, deadline: Deadline, redactor: &Redactor) -> Result<Metadata, Refused> {
        let (mut failing, mut absent) = (None, Vec::new());
        let is_absent = |refused: &Refused| {
            let status = refused.error.status().map(|status| status.as_u16());
            refused.error.is_throttled() && matches!(status, Some(404 | 410))
        };
        let (place, count) = (&self.issuer.cache.place, self.addresses.len());
        let first = place.load(Relaxed) % count;
        for (at, (uri, name)) in self.addresses.iter().enumerate().cycle().skip(first).take(count) {
            match self.get(uri, deadline, redactor.clone()).await {
                Ok(metadata) => {
                    place.store(at, Relaxed);
                    return Ok(metadata);
                }
                // It may do better at another address, or later.
                Err(refused)
                    if refused.silence.is_none() && (refused.error.is_transient() || is_absent(&refused)) =>
                {
                    failing = Some(refused);
                }
                // The server cannot be reached, or asks clients to wait. It may be so at one place alone: the next round begins
                // behind it.
                Err(refused) if refused.silence.is_some() || refused.error.is_throttled() => {
                    place.store(at + 1, Relaxed);
                    return Err(refused);
                }
                // There are no metadata of this issuer: perhaps at another address.
                Err(refused) => absent.push((*name, refused)),
            }
        }
        Err(failing.unwrap_or_else(|| self.nowhere(&absent)))
    }

    /// Says in one line what stood at each address. Only a document can prove that there are none.
    fn nowhere(&self, absent: &[(&str, Refused)]) -> Refused {
        let what: Vec<String> =
            absent.iter().map(|(name, refused)| format!("{name} {}", refused.error)).collect();
        let line = format!(
            "the issuer {} has no metadata that can be used: {}; check the issuer, or give the URL of the endpoint in its \
             place",
            self.issuer.identifier,
            what.join(", ")
        );
        let kind = absent.last().map_or(ErrorKind::Config, |(_, refused)| refused.error.kind());
        let error = Error::new(kind, line);
        let is_proven = absent.iter().any(|(_, refused)| refused.error.is_final());
        let mut nowhere = Refused::from(if is_proven { error } else { error.hearsay() });
        nowhere.verdict.is_repeatable = absent.iter().any(|(_, refused)| refused.verdict.is_repeatable);
        nowhere
    }

    async fn get(&self, uri: &Uri, deadline: Deadline, mut redactor: Redactor) -> Result<Metadata, Refused> {
        let mut request = Request::new(crate::body::Body::empty());
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = transport::headers();
        if let Some(query) = uri.query().filter(|query| query.contains('=')) {
            redactor.add(query);
        }
        let response = self.transport.attempt(request, &self.expected, deadline, &redactor, || ()).await?;
        let status = response.status.as_u16();
        tracing::debug!(issuer = %self.issuer.identifier, status, "the server of the metadata responded");
        // RFC 8414 §3.2: 200 with a JSON object, or nothing of use.
        let body = Body::read(&response);
        if response.status != StatusCode::OK {
            body.teach(&mut redactor);
            let refused =
                Refused::by_response(&response, &body, &self.expected, &redactor, clock::unix_time());
            if refused.error.is_temporary() {
                return Err(refused);
            }
            let redirect = messages::redirect(&response, &redactor).unwrap_or_default();
            return Err(Error::config(format!("returned {status}{redirect}")).hearsay().into());
        }
        // It may be a gateway's, as at the token endpoint.
        let useless = |what: String| Refused::by(verdict::useless(ErrorKind::Protocol, false), what);
        if let Some(flaw) = &body.flaw {
            return Err(useless(format!("returned 200 with {}", redactor.clean(flaw))));
        }
        let document = response.body.as_deref().unwrap_or_default();
        Metadata::read(document, &self.issuer.identifier, &redactor)
            .map_err(|error| if error.is_protocol() { useless(error.to_string()) } else { error.into() })
    }
}
