//! The refresh token grant: a service lives on what a user once agreed to (RFC 6749 §6).

pub(crate) mod lineage;
pub(crate) mod rotation;

use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::OwnedSemaphorePermit;
use tower::{BoxError, service_fn};
use tracing::Instrument as _;
use tracing::instrument::WithSubscriber as _;

use crate::clock::{FARTHEST, WallClock};
use crate::error::{Error, ErrorKind};
use crate::grants::builder::{Grant, GrantBuilder};
use crate::grants::client::auth::ClientAuth;
use crate::grants::client::secret::{self, Secret};
use crate::grants::endpoint::client::EndpointClient;
use crate::grants::endpoint::deadline::Deadline;
use crate::grants::endpoint::location::Endpoint;
use crate::grants::flows::refresh_token::lineage::{BEAT, Held, Lineage, Standing};
use crate::grants::flows::refresh_token::rotation::{OnRotate, RotatedToken};
use crate::grants::parameters::Parameters;
use crate::grants::response::expected::Terms;
use crate::grants::response::refused::Refused;
use crate::grants::response::verdict::Evidence;
use crate::runtime;
use crate::source::{FetchReason, SourceIdentity, TokenRequest, TokenSource};
use crate::token::AccessToken;

/// Gets tokens by the refresh token grant (RFC 6749 §6): a service lives on what a user once agreed to.
///
/// Many servers accept a refresh token once, return the next one, and end the whole grant when one arrives a second
/// time (RFC 9700 §4.14). So:
///
/// 1. The newest refresh token is in memory as soon as the response is read, and [`on_rotate`](GrantBuilder::on_rotate) has
///    stored it before the access token is returned. A response without one, or with an empty one, keeps the old one.
/// 2. Clones share the refresh token and exchange it one after another, whichever caches they are in. A fetch that
///    waited goes on with the newest. (Sources that were *built* from the same refresh token know nothing of each other: build one, and
///    best put it into one cache, whose clones share the access token as well.)
/// 3. An exchange runs in a task of its own. If its caller gives up, nothing is lost: the next fetch returns the access
///    token that it brought.
/// 4. From when a request may have left until its response is read, the refresh token may be spent. If the response is
///    lost, it is sent once more.
/// 5. It is declared dead only by proof: an OAuth error of the endpoint itself, `invalid_grant` or a code that names the
///    refresh token, whose words are not about the moment. One that worked here and was never rotated is sent once more
///    after 2 s. A dead one is not sent again: every fetch fails at once, until [`replace`](Self::replace) brings another.
/// 6. Refusals that may be about it and prove nothing (`invalid_request`, a bare 401, an unknown code, another status) are counted. After
///    three in a row the error says to sign in again, and the pauses grow from a minute to four hours.
///    [`refresh`](crate::TokenCache::refresh) asks at once.
/// 7. Processes that share the refresh token (`store::Shared`) exchange it one at a time as well: each goes on with the newest
///    of the store, and so may start without one.
/// 8. An exchange always ends, even if the server or a store hangs. One on a runtime that is no longer driven is taken over
///    after 10 s.
///
/// Each access token carries the refresh token that was the newest when it came
/// ([`expose_refresh_token`](AccessToken::expose_refresh_token)), so that both can be revoked.
///
/// # What a response does to the refresh token
///
/// | an attempt ended with | the refresh token | sent again in the same fetch |
/// |---|---|---|
/// | an access token | is good, or replaced by the one that came | |
/// | an access token that cannot be used (a required scope is missing, it is not a bearer token) | likewise | no |
/// | `invalid_grant`, or a code that names the refresh token, with 200, 400, 401 or 403 | is dead | once, if it worked before |
/// | the same, whose words are about the moment | as it was | as with every grant |
/// | any other 4xx; a redirect; an `error` with 200 | as it was | as with every grant: 429, or one that gives a wait |
/// | 503 with `Retry-After` | as it was: the server did nothing | as with every grant |
/// | no connection | as it was: nothing was sent | as with every grant |
/// | every other 5xx; the status may be a gateway's | may be spent | once |
/// | no response, or one that breaks off; timeout | may be spent | once |
/// | a 2xx that cannot be read: HTML, cut off, too long | may be spent | no |
///
/// A refresh token that may be spent is sent once per fetch. So an outage of any length ends with the first response, while a
/// server that issued the next one already sees the old one soon: some allow for that within seconds.
///
/// # Cancel safety
///
/// Dropping a fetch leaves its exchange running to its end. Only the end of its runtime stops it; then the refresh token
/// may be spent.
///
/// # Examples
///
/// Begin with the refresh token that the last run stored; a first start, without any, is told apart:
///
/// ```
/// use tower_oauth2::{ClientAuth, RefreshTokenGrant};
/// # use bytes::Bytes;
/// # let http_client = tower::service_fn(|_request: http::Request<tower_oauth2::Body>| async {
/// #     Ok::<_, tower::BoxError>(http::Response::new(tower_oauth2::Body::empty()))
/// # });
///
/// let stored = std::fs::read_to_string("/var/lib/reports/refresh_token").unwrap_or_default();
/// let source = RefreshTokenGrant::builder("https://login.example.com/token", "reports", ClientAuth::none())
///     .refresh_token(stored)
///     .on_rotate(|token| async move {
///         // In one step: half a file is not a refresh token.
///         let new = "/var/lib/reports/refresh_token.new";
///         tokio::fs::write(new, token.expose_refresh_token()).await?;
///         tokio::fs::rename(new, "/var/lib/reports/refresh_token").await?;
///         Ok(())
///     })
///     .build_with(http_client)?;
/// if !source.has_refresh_token() {
///     eprintln!("no user has signed in yet, or the scope offline_access was missing");
/// }
/// # Ok::<(), tower_oauth2::Error>(())
/// ```
///
/// The token response of an interactive login is where it begins, whichever crate made the login:
///
/// ```
/// use tower_oauth2::grants::read_token_response;
/// use tower_oauth2::{RefreshTokenGrant, Error};
///
/// # fn seeded(response: &[u8]) -> Result<(), Error> {
/// // Of the `oauth2` crate: `serde_json::to_vec(&response)`.
/// let token = read_token_response(response)?;
/// let refresh_token = token.expose_refresh_token().unwrap_or_default().to_owned();
/// let builder = RefreshTokenGrant::builder("https://login.example.com/token", "reports", "secret")
///     .refresh_token(refresh_token)
///     .access_token(token);
/// # let _ = builder; Ok(()) }
/// # seeded(br#"{"access_token":"AT1","token_type":"bearer","expires_in":3600,"refresh_token":"RT1"}"#)?;
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct RefreshTokenGrant {
    client: Arc<EndpointClient>,
    lineage: Arc<Lineage>,
    on_rotate: Option<OnRotate>,
}

/// The settings that the refresh token grant has of its own.
#[derive(Clone, Debug, Default)]
#[allow(unnameable_types, reason = "it belongs to the sealed trait")]
pub struct RefreshSettings {
    refresh_token: Option<SecretString>,
    access_token: Option<AccessToken>,
    on_rotate: Option<OnRotate>,
}

impl RefreshTokenGrant {
    /// Starts with what is required: the token endpoint, the client, and how it authenticates. A public client has
    /// [`ClientAuth::none`].
    ///
    /// # Defaults
    ///
    /// Those of [`GrantBuilder`], and:
    ///
    /// - refresh token: none, so that every fetch is a grant error that says so; [`or`](TokenSource::or) falls back on another
    ///   grant then
    /// - an access token to begin with: none
    /// - scopes: none, so that the token is for what the user agreed to (RFC 6749 §6)
    /// - resources, audience and further parameters are sent at every renewal
    /// - `on_rotate`: nothing is stored; storing may take half as long as an attempt, 5 s
    pub fn builder(
        endpoint: impl Into<Endpoint>,
        client_id: impl Into<String>,
        auth: impl Into<ClientAuth>,
    ) -> GrantBuilder<Self> {
        let terms = Terms { own: &["refresh_token"], ..Terms::default() };
        GrantBuilder::new(endpoint, terms, RefreshSettings::default()).client(client_id, auth)
    }

    /// Returns whether there is a refresh token that was not refused: at a start, whether one was granted.
    #[must_use]
    pub fn has_refresh_token(&self) -> bool {
        self.lineage.is_alive()
    }

    /// Goes on with another refresh token, such as after the user has signed in again. All clones do.
    ///
    /// It is not given to [`on_rotate`](GrantBuilder::on_rotate): store it before. The result of an exchange in flight is
    /// ignored. A [`TokenCache`](crate::TokenCache) that has just been refused asks again by itself within half a minute, and
    /// at once by [`refresh`](crate::TokenCache::refresh).
    ///
    /// # Errors
    ///
    /// A configuration error if it is empty, or holds a character that no refresh token may hold.
    pub fn replace(&self, refresh_token: impl Into<String>) -> Result<(), Error> {
        let refresh_token = SecretString::from(refresh_token.into());
        check(&refresh_token)?;
        self.lineage.replace(refresh_token);
        Ok(())
    }

    /// Returns why the newest refresh token is not stored, where [`on_rotate`](GrantBuilder::on_rotate) failed.
    ///
    /// Until it is, a restart would begin with one that is spent: a matter for a health check.
    #[must_use]
    pub fn store_error(&self) -> Option<Error> {
        self.lineage.store_error()
    }

    /// Stores the newest refresh token if that failed before: once more, before a process ends.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the attempt; the token is still to be stored then.
    ///
    /// # Errors
    ///
    /// A transient error that says why it is still not stored; its source is that of the callback.
    pub async fn store(&self) -> Result<(), Error> {
        // An exchange does not wait long for this turn, and may go on beside it.
        let turn = self.lineage.turn(Deadline::default()).await?;
        self.store_newest().await;
        drop(turn);
        self.store_error().map_or(Ok(()), Err)
    }

    /// Sees to it that an access token is ready, by an exchange if there is none. It ends in any case, and shows
    /// that its runtime is driven.
    async fn renew(
        self,
        turn: OwnedSemaphorePermit,
        request: TokenRequest,
    ) -> (OwnedSemaphorePermit, Result<(), Error>) {
        // It may store before the exchange and after it.
        let patience = &self.client.transport.patience;
        let most = patience.whole().saturating_add(2 * self.store_timeout());
        let limit = Deadline::default().within(most);
        if let Some(theirs) = request.lineage().and_then(|lineage| lineage.newest()) {
            self.lineage.take_over_shared(theirs);
        }
        let result = {
            let mut renewal = std::pin::pin!(self.renew_now(&turn, &request));
            loop {
                if let Ok(result) = tokio::time::timeout(BEAT, renewal.as_mut()).await {
                    break result;
                }
                self.lineage.beat(&turn);
                if limit.cap(BEAT).is_zero() {
                    break Err(Error::transient(format!(
                        "the exchange of the refresh token was given up after {most:?}; it may be spent"
                    )));
                }
            }
        };
        if let (Some(lineage), Some(ours)) = (request.lineage(), self.lineage.to_share()) {
            lineage.after_exchange(ours);
        }
        (turn, result)
    }

    async fn renew_now(&self, turn: &OwnedSemaphorePermit, request: &TokenRequest) -> Result<(), Error> {
        self.store_newest().await;
        let may_be_older = match request.reason() {
            FetchReason::Initial | FetchReason::Expiring | FetchReason::Expired => true,
            // One that waits here since before the rejection may have been revoked along with the rejected one.
            FetchReason::Rejected | FetchReason::Forced => false,
        };
        if may_be_older && self.lineage.is_ready(WallClock::default().moment()) {
            return Ok(());
        }
        let deadline = Deadline::of(request);
        // Nothing is sent to a server that has refused this refresh token again and again, unless the fetch is forced, or the
        // client has another secret by now.
        let paused = self.lineage.paused(WallClock::default().moment());
        if let Some((refused, then)) = paused.filter(|_| request.reason() != FetchReason::Forced) {
            match (self.client.proof(deadline).await, then) {
                (Some(now), Some(then)) if !secret::same(&now, &then) => {}
                _ => return Err(refused),
            }
        }
        // Another task has begun meanwhile, and takes what there is.
        if !self.lineage.beat(turn) {
            return Err(Error::transient("the exchange of the refresh token was left to another task"));
        }
        let result = self.exchange(request, deadline).await;
        self.store_newest().await;
        result
    }

    /// Exchanges the refresh token in use. If it is replaced meanwhile, what became of it is no error.
    async fn exchange(&self, request: &TokenRequest, deadline: Deadline) -> Result<(), Error> {
        loop {
            let held = self.lineage.held()?;
            if let (Some(lineage), Some(ours)) = (request.lineage(), self.lineage.to_share()) {
                let is_known = lineage.before_exchange(ours).await?;
                if !self.lineage.shared(&held, is_known) {
                    continue;
                }
            }
            let mut parameters = Parameters::default();
            parameters.push("grant_type", "refresh_token");
            parameters.push_secret("refresh_token", Secret::of(held.secret.clone()));
            parameters.extend(self.client.parameters.clone());
            let redactor = EndpointClient::redactor(request);
            let exchange = self.client.exchange(&parameters, Some(&held.doubt), redactor, deadline);
            // Nothing is awaited between the response and what follows: whatever ends the task finds the new token in its place.
            let refused = match exchange.await {
                Ok(token) => {
                    let refresh_token = token.refresh_secret().cloned();
                    self.lineage.take_in(&held, Some(token), refresh_token);
                    return Ok(());
                }
                Err(Refused { refresh_token: Some(newer), error, .. }) => {
                    return if self.lineage.take_in(&held, None, Some(newer)) { Err(error) } else { Ok(()) };
                }
                Err(refused) => refused,
            };
            let mut error = refused.error;
            match refused.verdict.refresh_token {
                // It was taken until now, and no other came in its place. A server that is in trouble says no too.
                Evidence::Ended if held.standing == Standing::Lasting => {
                    self.lineage.accuse(&held);
                    if deadline.leaves_room_after(SECOND_OPINION) {
                        tracing::debug!(%error, "the refresh token worked before; sending it once more");
                        tokio::time::sleep(SECOND_OPINION).await;
                        continue;
                    }
                    let line = format!("{error}; it worked before, so it is sent once more");
                    error = error.reclassified(ErrorKind::Transient).reworded(line);
                }
                Evidence::Ended => {
                    error = dead(error, &held);
                    self.lineage.bury(&held, &error);
                }
                Evidence::Suspected => {
                    let proof = self.client.proof(deadline).await;
                    error = self.lineage.suspect(&held, error, proof, WallClock::default().moment());
                }
                Evidence::None if held.doubt.is_raised() => {
                    tracing::debug!(%error, "the refresh token may be spent; it will be sent once more");
                }
                Evidence::None => {}
            }
            return if self.lineage.holds(&held) { Err(error) } else { Ok(()) };
        }
    }

    /// The error for a caller whose time is over while the exchange goes on: what the server said last, if it did.
    fn still_waiting(&self) -> Error {
        let said = self.lineage.held().ok().and_then(|held| held.doubt.said());
        said.unwrap_or_else(|| {
            Error::transient(format!(
                "the exchange of the refresh token at {} goes on, and there is no response yet; the next fetch gets what it \
                 brings",
                self.client.destination
            ))
        })
    }

    /// How long storing may take: half of an attempt, and no less than a database may need.
    fn store_timeout(&self) -> Duration {
        (self.client.transport.patience.attempt_timeout / 2).max(Duration::from_secs(5))
    }

    /// Stores the newest refresh token, if it is not stored yet. A failure is noted.
    async fn store_newest(&self) {
        let (Some(held), Some(on_rotate)) = (self.lineage.unstored(), self.on_rotate.clone()) else { return };
        let limit = self.store_timeout();
        let result = rotation::store(on_rotate, held.secret.clone(), limit).await;
        if let Err(error) = &result {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            tracing::warn!(
                %error,
                cause,
                "the refresh token in use is in memory alone: a restart would begin with one that is spent"
            );
        }
        self.lineage.stored(&held, result);
    }
}

impl TokenSource for RefreshTokenGrant {
    async fn token(&self, request: TokenRequest) -> Result<AccessToken, Error> {
        // The exchange is a task of its own.
        let runtime = runtime::current()?;
        let deadline = Deadline::of(&request);
        let mut turn = self.lineage.turn(deadline).await?;
        loop {
            // The turn goes along and comes back, so that no two exchanges run at a time, even if no caller waits here.
            let renewal = self.clone().renew(turn, request.clone());
            let task = runtime.spawn(renewal.in_current_span().with_current_subscriber());
            let Ok(ended) = tokio::time::timeout(deadline.cap(FARTHEST), task).await else {
                // The task goes on to its end, and the next fetch gets what it brings.
                return Err(self.still_waiting());
            };
            let (back, result) = ended.map_err(|_ended| {
                Error::transient(
                    "the exchange of the refresh token broke off: its runtime was shut down, or the transport panicked",
                )
            })?;
            result?;
            turn = back;
            if let Some(token) = self.lineage.take_ready() {
                return Ok(token);
            }
            // The source was given another refresh token meanwhile.
        }
    }

    /// Returns false while there is a rotated refresh token that nothing has stored: without
    /// [`on_rotate`](GrantBuilder::on_rotate), or where it failed. Likewise while one is exchanged.
    fn is_disposable(&self) -> bool {
        self.lineage.is_disposable()
    }

    fn name(&self) -> Option<String> {
        self.client.name()
    }

    fn has_changed(&self) -> bool {
        self.client.has_changed()
    }

    /// The refresh token is left out: it changes, and the user is the same.
    fn identity(&self) -> Option<SourceIdentity> {
        let client = &self.client;
        let identity = client.identity("refresh token");
        Some(
            identity.unwrap_or_else(|| client.partial_identity("refresh token").partial()).by_refresh_token(),
        )
    }
}

// --- GrantBuilder ---

impl Grant for RefreshTokenGrant {
    type Settings = RefreshSettings;

    fn assemble(settings: RefreshSettings, client: EndpointClient) -> Result<Self, Error> {
        let RefreshSettings { refresh_token, access_token, on_rotate } = settings;
        refresh_token.as_ref().map_or(Ok(()), check)?;
        let lineage = Lineage::new(refresh_token, access_token);
        Ok(Self { client: Arc::new(client), lineage: Arc::new(lineage), on_rotate })
    }
}

impl GrantBuilder<RefreshTokenGrant> {
    /// Sets the refresh token to begin with: the one that was stored last. An empty one is none.
    pub fn refresh_token(mut self, refresh_token: impl Into<String>) -> Self {
        let refresh_token = Some(refresh_token.into()).filter(|token| !token.is_empty());
        self.settings.refresh_token = refresh_token.map(SecretString::from);
        self
    }

    /// Returns this access token first, as long as it is good, in place of an exchange: the one that came with the
    /// refresh token. Its lifetime counts from this call.
    pub fn access_token(mut self, token: AccessToken) -> Self {
        self.settings.access_token = Some(token.requested(WallClock::default().moment()));
        self
    }

    /// Sets what stores a refresh token that replaced another one. It is awaited before the access token that came with
    /// it is returned, so a process that starts after a crash does not find a spent token.
    ///
    /// If it fails, panics or takes longer than half of an [attempt](Self::attempt_timeout), the access token is returned
    /// all the same, and the refresh token in memory is the new one: to hold back a good token would make a full disk an
    /// outage, and would not bring back the old refresh token, which is spent. There is a warning then,
    /// [`RefreshTokenGrant::store_error`] says why, and the closure is called again before the next exchange.
    ///
    /// # Examples
    ///
    /// A closure with a state is called many times, and each call clones what it needs:
    ///
    /// ```
    /// use std::sync::Arc;
    /// use tower_oauth2::RefreshTokenGrant;
    /// # struct Vault;
    /// # impl Vault {
    /// #     async fn write(&self, _path: &str, _secret: &str) -> Result<(), std::io::Error> { Ok(()) }
    /// # }
    ///
    /// let vault = Arc::new(Vault);
    /// let builder = RefreshTokenGrant::builder("https://login.example.com/token", "reports", "secret")
    ///     .refresh_token("RT1")
    ///     .on_rotate(move |token| {
    ///         let vault = Arc::clone(&vault);
    ///         async move { Ok(vault.write("reports", token.expose_refresh_token()).await?) }
    ///     });
    /// # let _ = builder;
    /// ```
    pub fn on_rotate<F, Fut>(mut self, store: F) -> Self
    where
        F: Fn(RotatedToken) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let store = Arc::new(store);
        self.settings.on_rotate = Some(OnRotate::new(service_fn(move |token| store(token))));
        self
    }
}

// --- Helpers ---

/// A refresh token that worked before and is refused is sent once more after this.
const SECOND_OPINION: Duration = Duration::from_secs(2);

/// The grammar of RFC 6749 Appendix A.17. The token itself is not repeated.
fn check(refresh_token: &SecretString) -> Result<(), Error> {
    let text = refresh_token.expose_secret();
    if !text.is_empty() && text.bytes().all(|byte| matches!(byte, 0x20..=0x7e)) {
        return Ok(());
    }
    Err(Error::config(
        "refresh_token: it is empty, or holds a character that no refresh token may hold, such as a line end; give it as the \
         authorization server granted it, and if it was read from a file, trim it",
    ))
}

/// Says what is to be done about a refresh token that was refused for good.
fn dead(refused: Error, held: &Held) -> Error {
    let cause = if held.doubt.is_raised() {
        "; a response that may have contained the next refresh token was lost before, so this one may be spent"
    } else if held.standing == Standing::Untried {
        "; or a process that had it before spent it and exited before it stored the next one"
    } else {
        ""
    };
    let line =
        format!("{refused}{cause}; authorize again: sign in, and give the new refresh token to the source");
    refused.reworded(line)
}
