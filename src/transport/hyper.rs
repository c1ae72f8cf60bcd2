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
//! 9. Cryptography is ring's, named explicitly: the process-wide default of rustls is neither read nor set.

mod classify;

use std::error::Error;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::uri::Scheme;
use http::{Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{CaptureConnection, Connect, HttpConnector, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tower::BoxError;
use tower_service::Service;

pub use self::classify::classify;
use crate::clock;
use crate::error::{Lasting, TokenError, Unsent};
use crate::oauth2::{
    ClientCredentials, ClientCredentialsBuilder, CustomGrant, CustomGrantBuilder, RefreshToken,
    RefreshTokenBuilder, Revocation, RevocationBuilder, TokenExchange, TokenExchangeBuilder,
};
#[cfg(feature = "jwt")]
use crate::oauth2::{JwtBearer, JwtBearerBuilder};
use crate::retry::Failure;

/// Connecting takes longer than this only where nobody is.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

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
/// # Defaults
///
/// - root certificates: the platform's
/// - connecting: at most 10 s, from looking up the name to the end of the TLS handshake
/// - an idle connection is kept for 90 s
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
    roots: Roots,
    plain: OnceLock<legacy::Client<Bounded<HttpConnector>, B>>,
    tls: OnceCell<TlsClient<B>>,
}

type TlsClient<B> = legacy::Client<Bounded<HttpsConnector<HttpConnector>>, B>;

enum Roots {
    Platform,
    These(Arc<RootCertStore>),
}

impl<B> Client<B> {
    /// Creates a client that trusts the platform's root certificates. They are read when they are first needed.
    #[must_use]
    pub fn new() -> Self {
        Self::trusting(Roots::Platform)
    }

    /// Creates a client that trusts these root certificates alone, in PEM, for a private certificate authority.
    ///
    /// # Errors
    ///
    /// A configuration error if `pem` holds no certificate, or one that cannot be read.
    pub fn with_roots(pem: impl AsRef<[u8]>) -> Result<Self, TokenError> {
        let refuse = |what: &str| TokenError::config(format!("the root certificates cannot be used: {what}"));
        let mut store = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem.as_ref()) {
            let certificate = certificate.map_err(|error| refuse("the PEM is broken").with_source(error))?;
            store
                .add(certificate)
                .map_err(|error| refuse("one is no root certificate").with_source(error))?;
        }
        if store.is_empty() {
            return Err(refuse("the PEM holds no certificate"));
        }
        Ok(Self::trusting(Roots::These(Arc::new(store))))
    }

    fn trusting(roots: Roots) -> Self {
        Self { shared: Arc::new(Shared { roots, plain: OnceLock::new(), tls: OnceCell::new() }) }
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
            let client = self.shared.plain.get_or_init(|| builder().build(Bounded { inner: connector() }));
            return ResponseFuture { state: State::Sent(Sent::new(client, request)) };
        }
        if let Some(client) = self.shared.tls.get() {
            return ResponseFuture { state: State::Sent(Sent::new(client, request)) };
        }
        let shared = Arc::clone(&self.shared);
        let sent = Box::pin(async move {
            let client = shared.tls.get_or_try_init(|| start(&shared.roots)).await?;
            Sent::new(client, request).await
        });
        ResponseFuture { state: State::Starting(sent) }
    }
}

/// Reads the root certificates and builds the client for `https`. A failure is not remembered.
async fn start<B>(roots: &Roots) -> Result<TlsClient<B>, TokenError>
where
    B: Body + Send,
    B::Data: Send,
{
    let config = match roots {
        Roots::These(store) => tls()?.with_root_certificates(Arc::clone(store)).with_no_client_auth(),
        Roots::Platform => tokio::task::spawn_blocking(platform_config).await.map_err(|_| {
            TokenError::transient("the runtime shut down while the root certificates were read")
        })??,
    };
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_only()
        .enable_all_versions()
        .wrap_connector(connector());
    Ok(builder().build(Bounded { inner: connector }))
}

fn platform_config() -> Result<ClientConfig, TokenError> {
    let config = tls()?.with_native_roots().map_err(|error| {
        TokenError::config(
            "this machine has no root certificates to check a server by: install them (the package is often called \
             ca-certificates), or name a file of them in SSL_CERT_FILE",
        )
        .with_source(error)
    })?;
    Ok(config.with_no_client_auth())
}

fn tls() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, TokenError> {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| TokenError::config("TLS cannot be set up").with_source(error))
}

fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    // The scheme is looked at above.
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector
}

fn builder() -> legacy::Builder {
    let mut builder = legacy::Client::builder(TokioExecutor::new());
    builder.pool_timer(TokioTimer::new()).timer(TokioTimer::new());
    builder.http2_keep_alive_interval(PING_AFTER).http2_keep_alive_timeout(PING_TIMEOUT);
    builder
}

// --- Bounded ---

/// A connector with an end to its patience. That of [`HttpConnector`] is for TCP alone.
#[derive(Clone)]
struct Bounded<C> {
    inner: C,
}

impl<C> Service<Uri> for Bounded<C>
where
    C: Service<Uri>,
    C::Error: Into<BoxError>,
    C::Future: Send + 'static,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.inner.call(uri);
        Box::pin(async move {
            match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
                Ok(connected) => connected.map_err(|error| told_apart(error.into())),
                Err(_) => Err(format!("connecting took longer than {CONNECT_TIMEOUT:?}").into()),
            }
        })
    }
}

/// Marks a handshake that would fail again, as far as rustls says so beyond doubt. An alert may be a server that is just
/// being set up, and a broken connection may be anything.
fn told_apart(error: BoxError) -> BoxError {
    let advice = match in_tls(&*error) {
        Some(rustls::Error::InvalidCertificate(_)) => {
            "check that the URL names the right host, and that the authority that signed its certificate is trusted here"
        }
        Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => {
            "the server does not speak TLS there; check the scheme and the port of the URL"
        }
        Some(rustls::Error::PeerIncompatible(_)) => {
            "the server knows no version or cipher of TLS that this client does; check what it offers"
        }
        _ => return error,
    };
    Lasting { advice, source: error }.into()
}

/// Finds the error of TLS in a chain, and in the I/O errors there, which do not name what they carry as their source.
fn in_tls<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    for _ in 0..16 {
        let error = next?;
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(carried) => Some(carried),
            None => error.source(),
        };
    }
    None
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
        let connection = Some(capture_connection(&mut request));
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
    /// Builds the source over the default transport, a [`Client`] of its own.
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
