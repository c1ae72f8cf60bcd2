//! The authorization server as tests see it. Its responses are in `endpoints`.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::assertions::Assertions;
use super::client::{FakeClient, Verifier};
use super::devices::Devices;
use super::endpoints::{self, Counters, Shared};
use super::line::{Line, fake_service};
use super::loopback::Loopback;
use super::tokens::{Tokens, Worth};
use super::trouble::{Trouble, Troubles};

/// An OAuth 2.0 authorization server: a tower service for the `build_with` of a source, or a server on loopback. Clones are
/// the same server; with the last of them a port is closed.
///
/// | request | response |
/// |---|---|
/// | `POST /token` | client credentials, refresh tokens (rotated; one that comes twice ends its lineage), token exchange, device codes |
/// | `POST /revoke` | RFC 7009 |
/// | `POST /introspect` | RFC 7662 |
/// | `POST /device_authorization`, `POST /device` | RFC 8628: a device begins a login, and its user agrees by `user_code` |
/// | `GET /.well-known/oauth-authorization-server` | RFC 8414: where the others are |
///
/// Clients are checked for real: by Basic, by the body, by an assertion, or by name. Tokens are random and live by tokio's
/// clock, so also by a paused one.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_oauth2::test_util::{FakeAuthorizationServer, FakeClient};
/// use tower_oauth2::{ClientCredentials, TokenCache};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let server = FakeAuthorizationServer::builder()
///     .client(FakeClient::confidential("billing", "hunter2").scopes("items:read items:write"))
///     .lifetime(Duration::from_secs(60))
///     .build();
/// let source =
///     ClientCredentials::builder(server.token_url(), "billing", "hunter2").build_with(server.clone())?;
/// let token = TokenCache::new(source).get().await?;
/// assert_eq!(token.lifetime(), Some(Duration::from_secs(60)));
/// assert_eq!(server.counts().tokens, 1);
/// # Ok::<_, tower_oauth2::Error>(())
/// # })?;
/// # Ok::<_, tower::BoxError>(())
/// ```
#[derive(Clone)]
pub struct FakeAuthorizationServer {
    shared: Arc<Shared>,
    line: Line,
}

/// Sets up a [`FakeAuthorizationServer`].
///
/// Defaults:
///
/// - no clients
/// - no platform whose tokens could be exchanged
/// - tokens live for an hour
/// - the token endpoint responds at once
pub struct FakeAuthorizationServerBuilder {
    clients: HashMap<String, FakeClient>,
    platform: Option<Verifier>,
    lifetime: Duration,
    latency: Duration,
}

/// The counts of a [`FakeAuthorizationServer`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuthorizationServerCounts {
    /// Requests that came to the token endpoint, with any response.
    pub token_requests: u64,
    /// Requests at the token endpoint without a response so far.
    pub in_progress: u64,
    /// Access tokens that were issued.
    pub tokens: u64,
    /// Token requests that were refused: a wrong secret, a spent refresh token, a scope out of reach.
    pub refusals: u64,
    /// Revocations, whether by request or by [`FakeAuthorizationServer::revoke_all`].
    pub revocations: u64,
    /// Refresh tokens that came a second time.
    pub reuses: u64,
    /// Requests that came to the introspection endpoint.
    pub introspections: u64,
    /// Assertions that proved who a client is.
    pub assertions: u64,
    /// Assertions that came a second time.
    pub replayed_assertions: u64,
}

// --- FakeAuthorizationServer ---

impl FakeAuthorizationServer {
    /// The origin of a server that is not on loopback. It needs no DNS: its requests stay in the process.
    pub const ORIGIN: &'static str = "https://login.test";

    /// Starts a server with clients and a pace of its own.
    #[must_use]
    pub fn builder() -> FakeAuthorizationServerBuilder {
        FakeAuthorizationServerBuilder {
            clients: HashMap::new(),
            platform: None,
            lifetime: Duration::from_secs(3600),
            latency: Duration::ZERO,
        }
    }

    /// Returns the origin, which is the issuer too.
    #[must_use]
    pub fn origin(&self) -> String {
        self.line.origin().to_owned()
    }

    /// Returns where tokens are asked for.
    #[must_use]
    pub fn token_url(&self) -> String {
        self.origin() + endpoints::TOKEN
    }

    /// Returns where tokens are taken back.
    #[must_use]
    pub fn revocation_url(&self) -> String {
        self.origin() + endpoints::REVOCATION
    }

    /// Returns the introspection endpoint (RFC 7662).
    #[must_use]
    pub fn introspection_url(&self) -> String {
        self.origin() + endpoints::INTROSPECTION
    }

    /// Returns where a device begins a login (RFC 8628 §3.1). Its user agrees by a POST of `user_code` to the address
    /// that the device is told.
    #[must_use]
    pub fn device_url(&self) -> String {
        self.origin() + endpoints::DEVICE_AUTHORIZATION
    }

    /// Adds a client, or knows one of that name by other means from now on.
    pub fn register(&self, client: FakeClient) {
        self.shared.clients().insert(client.id().to_owned(), client);
    }

    /// Sets how long tokens live that are issued from now on. Clients are told whole seconds.
    pub fn set_lifetime(&self, lifetime: Duration) {
        self.shared.pace().lifetime = lifetime;
    }

    /// Sets how long the token endpoint waits before it responds.
    pub fn set_latency(&self, latency: Duration) {
        self.shared.pace().latency = latency;
    }

    /// Makes the next `times` requests at the token endpoint fail like this, after those that were set before. The other
    /// endpoints go on.
    pub fn fail_next(&self, times: usize, trouble: Trouble) {
        self.shared.troubles.order(times, trouble);
    }

    /// Issues a refresh token, as when a user has just signed in and agreed to `scopes`, separated by spaces.
    #[must_use]
    pub fn sign_in(&self, client_id: &str, scopes: &str) -> String {
        let scopes = scopes.split_whitespace().map(str::to_owned).collect();
        self.shared.tokens().issue_refresh(client_id, scopes)
    }

    /// Revokes every access token that is still good, and returns the number of this revocation.
    #[allow(clippy::must_use_candidate, reason = "the number is for whoever wants to know who met it")]
    pub fn revoke_all(&self) -> u64 {
        self.shared.counters.note_revocation();
        self.shared.tokens().revoke_all()
    }

    /// Returns how many access tokens are still good.
    #[must_use]
    pub fn active_tokens(&self) -> usize {
        self.shared.tokens().active()
    }

    /// Stops the server: closes the port and every connection, and fails every call in the process. Issued tokens stay
    /// good.
    ///
    /// # Cancel safety
    ///
    /// Once it was polled, the server is gone.
    pub async fn stop(&self) {
        self.line.stop().await;
    }

    /// Starts the server again, at the same port.
    ///
    /// # Errors
    ///
    /// The system's, if another program has the port by now.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it leaves a port closed; another call opens it.
    pub async fn restart(&self) -> io::Result<()> {
        self.line.restart().await
    }

    /// Returns the counts so far.
    #[must_use]
    pub fn counts(&self) -> AuthorizationServerCounts {
        let (assertions, replayed_assertions) = self.shared.assertions.counts();
        AuthorizationServerCounts { assertions, replayed_assertions, ..self.shared.counters.read() }
    }

    /// Returns a handle by which the fake API asks about tokens without a request.
    pub(super) fn introspector(&self) -> Introspector {
        Introspector { shared: Arc::clone(&self.shared) }
    }
}

fake_service!(FakeAuthorizationServer, |fake, request| endpoints::respond(Arc::clone(&fake.shared), request));

impl fmt::Debug for FakeAuthorizationServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeAuthorizationServer").field("origin", &self.line.origin()).finish_non_exhaustive()
    }
}

// --- FakeAuthorizationServerBuilder ---

impl FakeAuthorizationServerBuilder {
    /// Adds a client.
    #[must_use]
    pub fn client(mut self, client: FakeClient) -> Self {
        self.clients.insert(client.id().to_owned(), client);
        self
    }

    /// Trusts a platform whose signed tokens its [workloads](FakeClient::workload) may give for those of this server.
    /// `verifies` tells whether a token has the platform's signature.
    #[must_use]
    pub fn platform(mut self, verifies: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.platform = Some(Arc::new(verifies));
        self
    }

    /// Sets how long tokens live. Clients are told whole seconds.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Sets how long the token endpoint waits before it responds.
    #[must_use]
    pub fn latency(mut self, latency: Duration) -> Self {
        self.latency = latency;
        self
    }

    /// Makes a server within the process, at [`FakeAuthorizationServer::ORIGIN`]: a tower service, and nothing else.
    #[must_use]
    pub fn build(self) -> FakeAuthorizationServer {
        let shared = self.shared();
        let line = Line::within(FakeAuthorizationServer::ORIGIN);
        shared.assertions.name(line.origin());
        FakeAuthorizationServer { shared, line }
    }

    /// Starts a server on a free port of 127.0.0.1, for clients that want a connection. A paused clock does not suit it:
    /// while a connection is waited for, the clock runs on to the next timeout.
    ///
    /// # Errors
    ///
    /// The system's, if it has no free port.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it starts nothing.
    pub async fn start(self) -> io::Result<FakeAuthorizationServer> {
        let shared = self.shared();
        let served = Arc::clone(&shared);
        let service = tower::service_fn(move |request| endpoints::respond(Arc::clone(&served), request));
        let line = Line::over(Loopback::start(service).await?);
        shared.assertions.name(line.origin());
        Ok(FakeAuthorizationServer { shared, line })
    }

    fn shared(self) -> Arc<Shared> {
        Arc::new(Shared {
            clients: Mutex::new(self.clients),
            platform: self.platform,
            assertions: Assertions::default(),
            tokens: Mutex::new(Tokens::new()),
            devices: Mutex::new(Devices::default()),
            pace: Mutex::new(endpoints::Pace { lifetime: self.lifetime, latency: self.latency }),
            troubles: Troubles::default(),
            counters: Counters::default(),
        })
    }
}

impl fmt::Debug for FakeAuthorizationServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeAuthorizationServerBuilder").finish_non_exhaustive()
    }
}

// --- Introspector ---

/// Asks about tokens in the same process.
#[derive(Clone)]
pub(super) struct Introspector {
    shared: Arc<Shared>,
}

impl Introspector {
    pub(super) fn worth(&self, secret: &str) -> Worth {
        self.shared.tokens().worth(secret)
    }
}
