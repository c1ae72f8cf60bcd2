//! Asks an issuer for its metadata, and remembers what it said.

use std::sync::Arc;

use http::{Request, Uri};
use tokio::runtime::Handle;
use tracing::Instrument as _;
use tracing::instrument::WithSubscriber as _;

use crate::clock::{self, WallClock};
use crate::error::{Error, ErrorKind};
use crate::grants::discovery::issuer::Issuer;
use crate::grants::discovery::metadata::{Metadata, check_issuer, well_known};
use crate::grants::endpoint::deadline::Deadline;
use crate::grants::endpoint::transport::{self, Transport};
use crate::grants::endpoint::url::{self, PlainHttp};
use crate::grants::response::body::{Body, EndpointResponse};
use crate::grants::response::classifier::Refusal;
use crate::grants::response::messages;
use crate::grants::response::refused::Refused;
use crate::grants::response::verdict;
use crate::grants::response::wording::{EndpointKind, Wording};
use crate::headers::rate_limit;
use crate::source::SourceIdentity;
use crate::text::Redactor;

/// An [`Issuer`] that was checked.
pub(crate) struct Discovery {
    pub(crate) issuer: Issuer,
    addresses: Vec<Address>,
    /// To whom the endpoints that it names may be plain http.
    pub(crate) plain_http: PlainHttp,
}

/// Where metadata may be.
struct Address {
    uri: Uri,
    /// The name of the address in messages: the URL may hold a secret.
    name: &'static str,
    wording: Wording,
}

impl Discovery {
    /// Checks what can be checked before anything is asked.
    ///
    /// # Errors
    ///
    /// A configuration error that names the setting and the remedy.
    pub(crate) fn new(issuer: Issuer, plain_http: PlainHttp) -> Result<Self, Error> {
        let origin = check_issuer(&issuer.identifier, plain_http)?;
        let places = match &issuer.metadata_url {
            Some(url) => vec![(url.clone(), "its metadata_url")],
            None => well_known(&issuer.identifier),
        };
        let mut addresses = Vec::new();
        for (url, name) in places {
            let kind = EndpointKind::Metadata;
            let (uri, at) = url::read(&url, plain_http).map_err(|flaw| flaw.in_setting(kind))?;
            let who = format!("the server of the metadata of the issuer {} at {at}", issuer.identifier);
            addresses.push(Address { uri, name, wording: Wording { who, kind, ..Wording::default() } });
        }
        // An https server that names a port of this machine is a mistake or an attack.
        let plain_http = match plain_http {
            PlainHttp::Loopback if origin.is_https() => PlainHttp::Nobody,
            plain_http => plain_http,
        };
        Ok(Self { issuer, addresses, plain_http })
    }

    /// Adds where the metadata come from, and which of their endpoints are used.
    pub(crate) fn describe(&self, identity: SourceIdentity) -> SourceIdentity {
        let identity = identity.with("metadata of", &self.issuer.identifier);
        let addresses = self.addresses.iter().map(|address| address.uri.to_string());
        let identity = addresses.fold(identity, |identity, uri| identity.with("metadata", uri));
        if self.issuer.mtls_aliases { identity.with("mtls", "") } else { identity }
    }

    /// Returns metadata that hold, and whether they were asked for just now.
    ///
    /// The redactor knows what else the server may repeat.
    pub(crate) async fn current(
        self: &Arc<Self>,
        transport: &Transport,
        deadline: Deadline,
        redactor: &Redactor,
    ) -> Result<(Arc<Metadata>, bool), Error> {
        let rounds = self.issuer.cache.rounds();
        let now = WallClock::default().moment();
        match (self.issuer.cache.fresh(now), self.issuer.cache.newest()) {
            (Some(metadata), _) => Ok((metadata, false)),
            (None, Some(old)) => {
                if self.issuer.cache.begins(now) {
                    self.renew_behind(rounds, transport, redactor);
                }
                Ok((old, false))
            }
            (None, None) => {
                self.renew(rounds, transport, deadline, redactor).await.map(|metadata| (metadata, true))
            }
        }
    }

    /// Renews metadata while the old ones serve on, so that no fetch waits for that.
    fn renew_behind(self: &Arc<Self>, rounds: u64, transport: &Transport, redactor: &Redactor) {
        // Without a runtime nothing is fetched anyway.
        let Ok(runtime) = Handle::try_current() else { return };
        let (this, transport, redactor) = (Arc::clone(self), transport.clone(), redactor.clone());
        let renewal = async move {
            // The outcome is noted where it is found.
            let _ = this.renew(rounds, &transport, Deadline::default(), &redactor).await;
        };
        runtime.spawn(renewal.in_current_span().with_current_subscriber());
    }

    /// Returns other metadata than these, if there are any by now. They are fetched if no other task has done so since.
    pub(crate) async fn newer(
        &self,
        known: &Arc<Metadata>,
        transport: &Transport,
        deadline: Deadline,
        redactor: &Redactor,
    ) -> Option<Arc<Metadata>> {
        let rounds = self.issuer.cache.rounds();
        let is_newer = |metadata: &Arc<Metadata>| !Arc::ptr_eq(metadata, known);
        match self.issuer.cache.newest().filter(is_newer) {
            Some(newest) => Some(newest),
            None => self.renew(rounds, transport, deadline, redactor).await.ok().filter(is_newer),
        }
    }

    /// Fetches, or takes what another task has fetched since `rounds` were counted. Where that fails, the old metadata serve
    /// on.
    async fn renew(
        &self,
        rounds: u64,
        transport: &Transport,
        deadline: Deadline,
        redactor: &Redactor,
    ) -> Result<Arc<Metadata>, Error> {
        let turn = self.issuer.cache.turn(deadline.cap(transport.patience.attempt_timeout)).await;
        if self.issuer.cache.rounds() != rounds
            && let Some(outcome) = self.issuer.cache.outcome()
        {
            return outcome;
        }
        // Where there are metadata, the next minute is early enough.
        let retries = if self.issuer.cache.newest().is_some() { 0 } else { transport.patience.retries };
        let asked = WallClock::default().moment();
        let result = self.send(transport, retries, deadline, redactor).await;
        drop(turn);
        let error = match result {
            Ok(metadata) => {
                return Ok(self.issuer.cache.found(metadata, asked.saturating_add(self.issuer.lifetime)));
            }
            Err(error) => error,
        };
        match self.issuer.cache.failed(error.clone(), WallClock::default().moment()) {
            None => Err(error),
            Some((metadata, is_first)) => {
                if is_first {
                    tracing::warn!(issuer = %self.issuer.identifier, %error, "metadata could not be renewed; those from before serve on");
                }
                Ok(metadata)
            }
        }
    }

    /// Asks at all addresses in turn, until one has metadata or no more retries are left.
    async fn send(
        &self,
        transport: &Transport,
        most: u32,
        deadline: Deadline,
        redactor: &Redactor,
    ) -> Result<Metadata, Error> {
        let mut retries = 0;
        loop {
            let refused = match self.round(transport, deadline, redactor).await {
                Ok(metadata) => return Ok(metadata),
                Err(refused) => refused,
            };
            let Some(delay) = transport.pause(&refused, retries, most, deadline) else {
                return Err(refused.told_when().error);
            };
            retries += 1;
            tracing::debug!(
                issuer = %self.issuer.identifier,
                retry = retries,
                delay_ms = delay.as_millis(),
                "metadata are asked for again after a wait"
            );
            tokio::time::sleep(delay).await;
        }
    }

    async fn round(
        &self,
        transport: &Transport,
        deadline: Deadline,
        redactor: &Redactor,
    ) -> Result<Metadata, Refused> {
        let mut failing = None;
        let mut absent = Vec::new();
        for address in &self.addresses {
            match self.get(address, transport, deadline, redactor.clone()).await {
                Ok(metadata) => return Ok(metadata),
                // The server cannot be reached, or asks clients to wait.
                Err(refused) if refused.cause.is_some() || refused.error.is_throttled() => {
                    return Err(refused);
                }
                // It may do better at another address, or later.
                Err(refused) if refused.error.is_transient() => failing = Some(refused),
                // There are no metadata of this issuer: perhaps at another address.
                Err(refused) => absent.push((address.name, refused.error)),
            }
        }
        Err(failing.unwrap_or_else(|| self.nowhere(&absent).into()))
    }

    async fn get(
        &self,
        address: &Address,
        transport: &Transport,
        deadline: Deadline,
        mut redactor: Redactor,
    ) -> Result<Metadata, Refused> {
        let Address { uri, wording, .. } = address;
        let mut request = Request::new(crate::body::Body::empty());
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = transport::headers();
        if let Some(query) = uri.query().filter(|query| query.contains('=')) {
            redactor.add(query);
        }
        let response = transport.attempt(request, wording, deadline, &redactor, || ()).await?;
        tracing::debug!(issuer = %self.issuer.identifier, status = response.status.as_u16(), "{} responded", address.name);
        self.read(&response, wording.who(), &redactor)
    }

    /// Reads a response (RFC 8414 §3.2): 200 with a JSON object, or nothing of use.
    fn read(&self, response: &EndpointResponse, who: &str, redactor: &Redactor) -> Result<Metadata, Refused> {
        let EndpointResponse { status, headers, body } = response;
        let code = status.as_u16();
        let hint = rate_limit::wait(*status, headers, clock::unix_time());
        let verdict = verdict::refused(&Refusal::new(*status, headers, None, None), hint, None);
        let refused = |what: &str| {
            let refused = Refused::by(verdict, format!("{who} returned {code}: {what}"));
            Refused { error: refused.error.with_status(*status), ..refused }
        };
        match code {
            200 => {}
            _ if verdict.class == ErrorKind::Throttled => {
                return Err(refused("it asks clients to wait"));
            }
            500..=599 => {
                let what = "the failure is on the server's side and may be temporary";
                return Err(refused(what));
            }
            300..=399 => {
                let to = messages::redirect_target(headers, redactor);
                let what = format!("returned {code} with a redirect{to}, which is not followed");
                return Err(Error::config(what).into());
            }
            _ => return Err(Error::config(format!("returned {code}")).into()),
        }
        let what = match (Body::read(response), body) {
            (Body::Object(_), Ok(document)) => {
                let metadata = Metadata::read(document, &self.issuer.identifier, redactor);
                return metadata.map_err(Refused::from);
            }
            (Body::Nonsense(what), _) => what,
            (Body::Object(_) | Body::Form(_), _) => "a form instead of JSON".into(),
        };
        let what = format!("returned 200 with {}", redactor.clean(&what));
        Err(Error::protocol(what).into())
    }

    /// Says in one line what stood at each address.
    fn nowhere(&self, absent: &[(&str, Error)]) -> Error {
        let what: Vec<String> = absent.iter().map(|(name, error)| format!("{name} {error}")).collect();
        let line = format!(
            "the issuer {} has no metadata that can be used: {}; check the issuer, or give the URL of the endpoint in its \
             place",
            self.issuer.identifier,
            what.join(", ")
        );
        match absent.last() {
            Some((_, error)) if error.is_protocol() => Error::protocol(line),
            Some(_) | None => Error::config(line),
        }
    }
}
