//! The default transport: hyper's client, with TLS by rustls and the platform's root certificates.
//!
//! 1. HTTP/1.1 or h2, as the server chooses by ALPN. Connections are kept and shared by all clones.
//! 2. Redirects are not followed, and nothing is decompressed or retried, but for a request that a closing connection
//!    never took.
//! 3. The root certificates are read at the first request to an `https` URL, off the async thread. A machine without
//!    any is a configuration error, not a panic.
//! 4. An h2 connection that says nothing for 10 s while a request waits on it is asked for a sign of life (PING), and given
//!    up after 5 s more without one. Else all requests would wait on a dead connection until the system notices.
//! 5. A connection on which a request was given up after 5 s without an answer is not used for further ones. So a retry
//!    gets a new one; also where the old one belongs to a tokio runtime that nobody drives any more.
//! 6. A URI whose scheme is neither `http` nor `https`, by the letter, is an error: nothing else goes over plain text.
//! 7. A certificate that is not trusted, and a server that speaks no TLS, or none that fits, are told from failures that
//!    may pass: the token endpoint is not asked again and the error is one of the configuration.
//! 8. An error of a request that was provably not sent is marked by [`Unsent`], so that a retry layer above sends it again
//!    whatever its method. [`classify`] says which those are.
//! 9. `https` goes through the proxy that `HTTPS_PROXY` or `ALL_PROXY` names, by CONNECT, so that the proxy sees no more
//!    than the host; or through the one that is [set](ClientBuilder::proxy). Never to loopback, nor to what `NO_PROXY` lists.
//!    A proxy that answers 403 or 407 does so again; any other refusal may pass. No URL of a proxy is shown anywhere.
//! 10. Cryptography is ring's, named explicitly: the process-wide default of rustls is neither read nor set.

mod builder;
mod certificates;
mod connect;
mod no_proxy;
mod proxy;
mod resolver;
pub(super) mod tunnel;

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::uri::Scheme;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{CaptureConnection, Connect, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tower::BoxError;
use tower_service::Service;

pub use self::builder::ClientBuilder;
use self::builder::Settings;
use self::connect::{Plain, Tls};
pub use self::proxy::Proxy;
use crate::clock;
use crate::error::{TokenError, Unsent};
use crate::extensions::SlowConnection;
use crate::oauth2::{
    ClientCredentials, ClientCredentialsBuilder, CustomGrant, CustomGrantBuilder, RefreshToken,
    RefreshTokenBuilder, Revocation, RevocationBuilder, TokenExchange, TokenExchangeBuilder,
};
#[cfg(feature = "jwt")]
use crate::oauth2::{JwtBearer, JwtBearerBuilder};
use crate::retry::Failure;
pub use crate::transport::classify::classify;

/// After so much silence an h2 connection on which a request waits is asked for a sign of life. The two together leave the
/// token endpoint's default retries the time to go over a new one.
const PING_AFTER: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Whoever gives a request up after this may have met a connection that is dead.
const SUSPICIOUS: Duration = Duration::from_secs(5);

/// An HTTP client over HTTP/1.1 and h2. Clones share its connections.
///
/// `B` is the body of its requests: one that the layers above produce, or `Full<Bytes>`.
///
/// Its defaults are those of [`ClientBuilder`].
///
/// # Examples
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use tower_oauth2::transport::hyper::Client;
///
/// let client: Client<Full<Bytes>> = Client::new();
/// ```
pub struct Client<B = Full<Bytes>> {
    shared: Arc<Shared<B>>,
}

/// One client per scheme, so that plain http to loopback works on a machine without root certificates.
struct Shared<B> {
    settings: Settings,
    plain: OnceLock<legacy::Client<Plain, B>>,
    tls: OnceCell<legacy::Client<Tls, B>>,
}

impl<B> Client<B> {
    /// Creates a client with the defaults. Nothing is read before the first request.
    #[must_use]
    pub fn new() -> Self {
        Self::with(Settings::default())
    }

    /// Creates a client that trusts these root certificates alone, in PEM, for a private certificate authority.
    ///
    /// # Errors
    ///
    /// A configuration error if `pem` holds no certificate, or one that cannot be read.
    pub fn with_roots(pem: impl AsRef<[u8]>) -> Result<Self, TokenError> {
        Ok(ClientBuilder::default().only_roots(pem)?.build())
    }

    fn with(settings: Settings) -> Self {
        Self { shared: Arc::new(Shared { settings, plain: OnceLock::new(), tls: OnceCell::new() }) }
    }
}

impl Client {
    /// Starts a client with a proxy, certificates, a resolver or time-outs of its own.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }
}

impl<B> Default for Client<B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<B> Clone for Client<B> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<B> fmt::Debug for Client<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl<B> Service<Request<B>> for Client<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = BoxError;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        // Whatever else the scheme is, the connector for `https` refuses it.
        if request.uri().scheme() == Some(&Scheme::HTTP) {
            let settings = &self.shared.settings;
            let client = self.shared.plain.get_or_init(|| pool(settings).build(connect::plain(settings)));
            return ResponseFuture { state: State::Sent(Sent::new(client, request)) };
        }
        if let Some(client) = self.shared.tls.get() {
            return ResponseFuture { state: State::Sent(Sent::new(client, request)) };
        }
        let shared = Arc::clone(&self.shared);
        let sent = Box::pin(async move {
            let client = shared.tls.get_or_try_init(|| start(&shared.settings)).await?;
            Sent::new(client, request).await
        });
        ResponseFuture { state: State::Starting(sent) }
    }
}

/// Builds the client for `https`. A failure is not remembered.
async fn start<B>(settings: &Settings) -> Result<legacy::Client<Tls, B>, TokenError>
where
    B: Body + Send,
    B::Data: Send,
{
    let (own, to_proxy) = settings.certificates.configs().await?;
    Ok(pool(settings).build(connect::tls(settings, own, to_proxy)))
}

fn pool(settings: &Settings) -> legacy::Builder {
    let mut builder = legacy::Client::builder(TokioExecutor::new());
    builder.pool_timer(TokioTimer::new()).timer(TokioTimer::new());
    builder.pool_idle_timeout(settings.idle_timeout);
    builder.http2_keep_alive_interval(PING_AFTER).http2_keep_alive_timeout(PING_TIMEOUT);
    builder
}

// --- ResponseFuture ---

/// The future of [`Client`].
pub struct ResponseFuture {
    state: State,
}

enum State {
    Sent(Sent),
    /// The client itself must be made first.
    Starting(Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, BoxError>> + Send>>),
}

impl Future for ResponseFuture {
    type Output = Result<Response<ResponseBody>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.state {
            State::Sent(sent) => Pin::new(sent).poll(cx),
            State::Starting(starting) => starting.as_mut().poll(cx),
        }
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

// --- Sent ---

/// A request on its way, and the connection it went by.
struct Sent {
    response: legacy::ResponseFuture,
    /// None once there is an outcome.
    connection: Option<CaptureConnection>,
    since: Instant,
}

impl Sent {
    fn new<C, B>(client: &legacy::Client<C, B>, mut request: Request<B>) -> Self
    where
        C: Connect + Clone + Send + Sync + 'static,
        B: Body + Send + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let captured = capture_connection(&mut request);
        if let Some(slow) = request.extensions().get::<SlowConnection>() {
            let captured = captured.clone();
            slow.on_abandon(move || {
                if let Some(connected) = &*captured.connection_metadata() {
                    connected.poison();
                }
            });
        }
        let connection = Some(captured);
        Self { response: client.request(request), connection, since: clock::now() }
    }
}

impl Future for Sent {
    type Output = Result<Response<ResponseBody>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = ready!(Pin::new(&mut self.response).poll(cx));
        self.connection = None;
        Poll::Ready(match outcome {
            Ok(response) => Ok(response.map(ResponseBody::new)),
            Err(error) if classify(&error) == Failure::Unsent => Err(Unsent::new(error).into()),
            Err(error) => Err(error.into()),
        })
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        let Some(connection) = &self.connection else { return };
        if let Some(connected) = &*connection.connection_metadata()
            && clock::now() - self.since >= SUSPICIOUS
        {
            connected.poison();
        }
    }
}

// --- ResponseBody ---

/// The body of a response of [`Client`].
pub struct ResponseBody {
    inner: Incoming,
}

impl ResponseBody {
    fn new(inner: Incoming) -> Self {
        Self { inner }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.inner).poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}

// --- build() of the sources ---

impl ClientCredentialsBuilder {
    /// Builds the source over the default transport, a [`Client`] of its own. Sources that are many share one, by
    /// [`build_with`](Self::build_with) and clones of it.
    ///
    /// # Errors
    ///
    /// As [`build_with`](Self::build_with).
    #[cfg_attr(docsrs, doc(cfg(feature = "hyper-client")))]
    pub fn build(self) -> Result<ClientCredentials, TokenError> {
        self.build_with(Client::new())
    }
}

impl RefreshTokenBuilder {
    /// Builds the source over the default transport, a [`Client`] of its own.
    ///
    /// # Errors
    ///
    /// As [`build_with`](Self::build_with).
    #[cfg_attr(docsrs, doc(cfg(feature = "hyper-client")))]
    pub fn build(self) -> Result<RefreshToken, TokenError> {
        self.build_with(Client::new())
    }
}

impl RevocationBuilder {
    /// Builds the revocation over the default transport, a [`Client`] of its own.
    ///
    /// # Errors
    ///
    /// As [`build_with`](Self::build_with).
    #[cfg_attr(docsrs, doc(cfg(feature = "hyper-client")))]
    pub fn build(self) -> Result<Revocation, TokenError> {
        self.build_with(Client::new())
    }
}

impl CustomGrantBuilder {
    /// Builds the source over the default transport, a [`Client`] of its own.
    ///
    /// # Errors
    ///
    /// As [`build_with`](Self::build_with).
    #[cfg_attr(docsrs, doc(cfg(feature = "hyper-client")))]
    pub fn build(self) -> Result<CustomGrant, TokenError> {
        self.build_with(Client::new())
    }
}

impl TokenExchangeBuilder {
    /// Builds the source over the default transport, a [`Client`] of its own.
    ///
    /// # Errors
    ///
    /// As [`build_with`](Self::build_with).
    #[cfg_attr(docsrs, doc(cfg(feature = "hyper-client")))]
    pub fn build(self) -> Result<TokenExchange, TokenError> {
        self.build_with(Client::new())
    }
}

#[cfg(feature = "jwt")]
impl JwtBearerBuilder {
    /// Builds the source over the default transport, a [`Client`] of its own.
    ///
    /// # Errors
    ///
    /// As [`build_with`](Self::build_with).
    #[cfg_attr(docsrs, doc(cfg(all(feature = "hyper-client", feature = "jwt"))))]
    pub fn build(self) -> Result<JwtBearer, TokenError> {
        self.build_with(Client::new())
    }
}
