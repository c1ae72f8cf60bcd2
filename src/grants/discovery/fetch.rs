//! Asks an issuer for its metadata, and remembers what it said.

use std::sync::Arc;
use std::time::Duration;

use http::header::LOCATION;
use http::{Request, Uri};
use tokio::runtime::Handle;
use tracing::Instrument as _;
use tracing::instrument::WithSubscriber as _;

use crate::clock::{self, WallClock};
use crate::error::{Error, ErrorKind};
use crate::grants::discovery::cache::MetadataCache;
use crate::grants::discovery::issuer::Issuer;
use crate::grants::discovery::metadata::{Identifier, Metadata, Unusable};
use crate::grants::endpoint::deadline::Deadline;
use crate::grants::endpoint::transport::{self, Transport};
use crate::grants::endpoint::url::{self, PlainHttp};
use crate::grants::response::body::{Body, EndpointResponse, ResponseBody};
use crate::grants::response::refused::Refused;
use crate::grants::response::verdict::{Ending, Refusal, judge};
use crate::grants::response::wording::{Naming, Wording};
use crate::headers::rate_limit;
use crate::origin::Origin;
use crate::source::SourceIdentity;
use crate::text::Redactor;

/// An [`Issuer`] that was checked.
pub(crate) struct Discovery {
    identifier: Identifier,
    addresses: Vec<Address>,
    lifetime: Duration,
    mtls_aliases: bool,
    cache: Arc<MetadataCache>,
}

/// Where metadata may be.
struct Address {
    uri: Uri,
    /// What it is called in messages: the URL may hold a secret.
    name: &'static str,
    wording: Wording,
}

/// Why an address brought nothing.
enum Miss {
    /// There are no metadata of this issuer: perhaps at another address.
    Absent(Unusable),
    /// The server fails at this address, and may do better at another one, or later.
    Failing(Refused),
    /// The server cannot be reached, or asks clients to wait.
    Away(Refused),
}

impl Discovery {
    /// Checks what can be checked before anything is asked.
    ///
    /// # Errors
    ///
    /// A configuration error that names the setting and the remedy.
    pub(crate) fn new(issuer: Issuer, insecure_http: bool) -> Result<Self, Error> {
        let Issuer { identifier, metadata_url, lifetime, mtls_aliases, cache } = issuer;
        let identifier = Identifier::parse(&identifier, insecure_http)?;
        let plain_http = if insecure_http { PlainHttp::Everybody } else { PlainHttp::Loopback };
        let read = |url: &str, name| -> Result<Address, Error> {
            let (uri, origin) =
                url::read(url, plain_http).map_err(|flaw| flaw.in_setting(Naming::METADATA))?;
            let who = format!("the server of the metadata of the issuer {identifier} at {origin}");
            Ok(Address {
                uri,
                name,
                wording: Wording { who, naming: Naming::METADATA, ..Wording::default() },
            })
        };
        let addresses = match metadata_url {
            Some(url) => vec![read(&url, "its metadata_url")?],
            None => {
                let mut addresses = vec![
                    read(&identifier.oauth_url(), "oauth-authorization-server")?,
                    read(&identifier.oidc_url(), "openid-configuration")?,
                ];
                // Without a path both are the same.
                if identifier.inserted_oidc_url() != identifier.oidc_url() {
                    let inserted = identifier.inserted_oidc_url();
                    addresses.insert(1, read(&inserted, "openid-configuration before the path")?);
                }
                addresses
            }
        };
        Ok(Self { identifier, addresses, lifetime, mtls_aliases, cache })
    }

    pub(crate) fn identifier(&self) -> &Identifier {
        &self.identifier
    }

    /// Adds where the metadata come from, and which of their endpoints are used.
    pub(crate) fn describe(&self, identity: SourceIdentity) -> SourceIdentity {
        let identity = identity.with("metadata of", self.identifier.as_str());
        let addresses = self.addresses.iter().map(|address| address.uri.to_string());
        let identity = addresses.fold(identity, |identity, uri| identity.with("metadata", uri));
        if self.mtls_aliases { identity.with("mtls", "") } else { identity }
    }

    /// Returns whether the endpoints for clients with a certificate are wanted.
    pub(crate) fn mtls_aliases(&self) -> bool {
        self.mtls_aliases
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
        let rounds = self.cache.rounds();
        let now = WallClock::default().moment();
        match (self.cache.fresh(now), self.cache.newest()) {
            (Some(metadata), _) => Ok((metadata, false)),
            (None, Some(old)) => {
                if self.cache.begins(now) {
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
        let rounds = self.cache.rounds();
        let is_newer = |metadata: &Arc<Metadata>| !Arc::ptr_eq(metadata, known);
        match self.cache.newest().filter(is_newer) {
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
        let turn = self.cache.turn(deadline.cap(transport.patience.attempt_timeout)).await;
        if self.cache.rounds() != rounds
            && let Some(outcome) = self.cache.outcome()
        {
            return outcome;
        }
        // Where there are metadata, the next minute is early enough.
        let retries = if self.cache.newest().is_some() { 0 } else { transport.patience.retries };
        let asked = WallClock::default().moment();
        let result = self.send(transport, retries, deadline, redactor).await;
        drop(turn);
        let error = match result {
            Ok(metadata) => return Ok(self.cache.found(metadata, asked.saturating_add(self.lifetime))),
            Err(error) => error,
        };
        match self.cache.failed(error.clone(), WallClock::default().moment()) {
            None => Err(error),
            Some((metadata, is_first)) => {
                if is_first {
                    tracing::warn!(issuer = %self.identifier, %error, "metadata could not be renewed; those from before serve on");
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
                issuer = %self.identifier,
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
                Err(Miss::Absent(unusable)) => absent.push((address.name, unusable)),
                Err(Miss::Failing(refused)) => failing = Some(refused),
                Err(Miss::Away(refused)) => return Err(refused),
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
    ) -> Result<Metadata, Miss> {
        let Address { uri, wording, .. } = address;
        let mut request = Request::new(crate::body::Body::empty());
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = transport::headers();
        if let Some(query) = uri.query().filter(|query| query.contains('=')) {
            redactor.add(query);
        }
        let response =
            transport.attempt(request, wording, deadline, &redactor, || ()).await.map_err(Miss::Away)?;
        tracing::debug!(issuer = %self.identifier, status = response.status.as_u16(), "{} responded", address.name);
        self.read(&response, &wording.who, &redactor)
    }

    /// Reads a response (RFC 8414 §3.2): 200 with a JSON object, or nothing of use.
    fn read(&self, response: &EndpointResponse, who: &str, redactor: &Redactor) -> Result<Metadata, Miss> {
        let EndpointResponse { status, headers, body } = response;
        let code = status.as_u16();
        let absent = |class, what| Err(Miss::Absent(Unusable { class, what }));
        let hint = rate_limit::wait(*status, headers, clock::unix_time());
        let refused = |message: String| {
            let refusal = Refusal { status: *status, code: None, description: None, hint, named: None };
            let refused = Refused::by(judge(Ending::Refusal(refusal)), message);
            Refused { error: refused.error.with_status(*status), ..refused }
        };
        match code {
            200 => {}
            429 => {
                let line = format!("{who} returned 429: it asks clients to wait");
                return Err(Miss::Away(refused(line)));
            }
            503 if hint.is_some() => {
                let line = format!("{who} returned 503: it asks clients to wait");
                return Err(Miss::Away(refused(line)));
            }
            500..=599 => {
                let line = format!(
                    "{who} returned {code}: the failure is on the server's side and may be temporary"
                );
                return Err(Miss::Failing(refused(line)));
            }
            300..=399 => {
                let to = headers.get(LOCATION).and_then(|to| to.to_str().ok()?.parse::<Uri>().ok());
                let to = to.and_then(|to| Origin::of(&to)).map(|to| format!(" to {to}")).unwrap_or_default();
                let what = format!("returned {code} with a redirect{to}, which is not followed");
                return absent(ErrorKind::Config, redactor.clean(&what));
            }
            _ => return absent(ErrorKind::Config, format!("returned {code}")),
        }
        let what = match (Body::read(response), body) {
            (Body::Object(_), ResponseBody::Whole(document)) => {
                return Metadata::read(document, &self.identifier, redactor).map_err(Miss::Absent);
            }
            (Body::Nonsense(what), _) => what,
            (Body::Object(_) | Body::Form(_), _) => "a form instead of JSON".into(),
        };
        absent(ErrorKind::Protocol, format!("returned 200 with {}", redactor.clean(&what)))
    }

    /// Says in one line what stood at each address.
    fn nowhere(&self, absent: &[(&str, Unusable)]) -> Error {
        let what: Vec<String> =
            absent.iter().map(|(name, unusable)| format!("{name} {}", unusable.what)).collect();
        let line = format!(
            "the issuer {} has no metadata that can be used: {}; check the issuer, or give the URL of the endpoint in its \
             place",
            self.identifier,
            what.join(", ")
        );
        match absent.last().map(|(_, unusable)| unusable.class) {
            Some(ErrorKind::Protocol) => Error::protocol(line),
            Some(_) | None => Error::config(line),
        }
    }
}
