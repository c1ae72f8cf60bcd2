//! The default transport: hyper's client, with TLS by rustls and the platform's root certificates.

mod certificates;
mod connect;
mod no_proxy;
mod proxy;
mod resolver;
mod settings;
pub(super) mod tunnel;

use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::uri::Scheme;
use http::{Request, Response, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{CaptureConnection, Connect, Connected, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tower::BoxError;
use tower_service::Service;

use self::connect::{Plain, Tls};
pub use self::proxy::Proxy;
use self::settings::Settings;
use self::tunnel::TunnelError;
use crate::body::Body;
use crate::error::{Error, Futile, Lasting, Unsent, chain};
use crate::extensions::SlowConnection;
use crate::grants::{Grant, GrantBuilder};
use crate::headers::grpc;
use crate::retry::Failure;
use crate::transport::classify::{classify_hyper, is_for_http1};
use crate::transport::incoming::IncomingBody;
use crate::transport::lasting;
use crate::{clock, runtime};

/// After so much silence an h2 connection on which a request waits is asked for a sign of life. The two together leave the
/// token endpoint's default retries the time to go over a new one.
const PING_AFTER: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// The ping interval that gRPC servers accept by default without closing the connection.
const CALM_PING_AFTER: Duration = Duration::from_secs(300);

/// A caller that gives a request up after this may have met a connection that is dead.
const SUSPICIOUS: Duration = Duration::from_secs(5);

/// An HTTP client over HTTP/1.1 and h2. Clones share its connections.
///
/// It takes requests with any body, and gives it to hyper as a [`Body`]: one allocation, unless it is one already. The same
/// client serves an API and, given to a source by `build_with`, its token endpoint: connections, proxy and certificates are
/// given once.
///
/// Defaults:
///
/// - root certificates: the platform's; read when they are first needed
/// - client certificate: none
/// - proxy: the one that the environment names
/// - resolver: the system's
/// - `connect_timeout`: 10 s, from looking up the name to the end of the TLS handshake
/// - `idle_timeout`: 90 s
/// - `max_headers`: 256 per response, over HTTP/1.1; `max_header_bytes`: 256 KiB per response, over h2
/// - `keep_alive`: after 10 s of silence, while a request waits; after five minutes for gRPC
///
/// # Rules
///
/// 1. HTTP/1.1 or h2, as the server chooses by ALPN. Connections are kept and shared by all clones.
/// 2. Redirects are not followed, and nothing is decompressed or retried, but for a request that a closing connection
///    never took.
/// 3. The root certificates are read at the first request to an `https` URL, off the async thread. A machine without
///    any is a configuration error, not a panic.
/// 4. An h2 connection that says nothing for 10 s while a request waits on it is asked for a sign of life (PING), and given
///    up after 5 s more without one. Else all requests would wait on a dead connection until the system notices.
///    A server that takes this for a flood (`ENHANCE_YOUR_CALM`) is asked every five minutes only from then on. gRPC servers
///    do by default, so gRPC calls have connections of their own that are asked no more often than that.
/// 5. A connection on which a request was given up after 5 s without a response is not used for further ones. So a retry
///    gets a new one; also where the old one belongs to a tokio runtime that is not driven any more.
/// 6. A URI whose scheme is neither `http` nor `https`, by the letter, is an error: nothing else goes over plain text.
/// 7. A certificate that is not trusted, and a server that speaks no TLS, or none that fits, are told from failures that
///    may pass: the token endpoint is not asked again and the error is one of the configuration. A certificate that is
///    expired or not yet valid may pass: the clock of this machine may be wrong for a while. A server that wants a client
///    certificate, where there is none, counts as the former.
/// 8. An error of a request that was provably not sent is marked by [`Unsent`], so that a retry layer above sends it again
///    even if its method is not idempotent. [`classify_hyper`](super::classify_hyper) says which those are.
/// 9. `https` goes through the proxy that `HTTPS_PROXY` or `ALL_PROXY` names, by CONNECT, so that the proxy sees no more
///    than the host; or through the one that is [set](Self::proxy). Never to loopback, nor to what `NO_PROXY` lists.
///    A proxy's 407 is final, and so is a 403 without `Retry-After`; any other refusal may pass, and its `Retry-After` is waited for.
///    No URL of a proxy is shown anywhere.
/// 10. Cryptography is ring's, named explicitly: the process-wide default of rustls is neither read nor set.
///
/// # Examples
///
/// ```
/// use tower_oauth2::ClientCredentials;
/// use tower_oauth2::transport::HyperClient;
///
/// let client = HyperClient::new();
/// let source = ClientCredentials::builder("https://login.example.com/token", "billing", "secret")
///     .build_with(client.clone())?;
/// # Ok::<(), tower_oauth2::Error>(())
/// ```
///
/// Behind a proxy that wants a password, to a server of a private authority that wants a certificate:
///
/// ```no_run
/// use tower_oauth2::transport::{HyperClient, Proxy};
///
/// let client = HyperClient::new()
///     .proxy(Proxy::new("http", "proxy.example.net", 3128)?.credentials("billing", "secret"))
///     .add_root_certificates(std::fs::read("private-ca.pem")?)?
///     .identity(std::fs::read("client.pem")?, std::fs::read("client-key.pem")?)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[must_use = "a client sends nothing by itself"]
pub struct HyperClient {
    shared: Arc<ClientShared>,
}

struct ClientShared {
    settings: Settings,
    pools: Pools,
    /// Asks for hardly any signs of life: for gRPC, and for all once a server has taken them for a flood.
    calm: Pools,
    /// A server has.
    flooded: Arc<AtomicBool>,
}

/// One client per scheme, so that plain http to loopback works on a machine without root certificates.
#[derive(Default)]
struct Pools {
    plain: OnceLock<legacy::Client<Plain, Body>>,
    tls: OnceCell<legacy::Client<Tls, Body>>,
}

impl ClientShared {
    /// Returns the pools for a request, and after how much silence their connections are asked for a sign of life. A gRPC call
    /// may be quiet for long, and its server ends the connection at the third sign that it is asked for.
    fn pools(&self, is_grpc: bool) -> (&Pools, Option<Duration>) {
        match self.settings.keep_alive {
            Some(after) if is_grpc || self.flooded.load(Ordering::Relaxed) => {
                (&self.calm, Some(after.max(CALM_PING_AFTER)))
            }
            after => (&self.pools, after),
        }
    }
}

impl HyperClient {
    /// Creates a client with the defaults. Nothing is read before the first request.
    pub fn new() -> Self {
        Self::with(Settings::default())
    }

    fn with(settings: Settings) -> Self {
        let (pools, calm) = (Pools::default(), Pools::default());
        Self { shared: Arc::new(ClientShared { settings, pools, calm, flooded: Arc::default() }) }
    }

    fn settings(&self) -> Settings {
        self.shared.settings.clone()
    }
}

impl Default for HyperClient {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for HyperClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HyperClient").field("settings", &self.shared.settings).finish_non_exhaustive()
    }
}

impl<B> Service<Request<B>> for HyperClient
where
    B: HttpBody + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<IncomingBody>;
    type Error = BoxError;
    type Future = HyperResponseFuture;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> HyperResponseFuture {
        if let Err(error) = runtime::current() {
            let failed = Box::pin(std::future::ready(Err(Unsent::new(error).into())));
            return HyperResponseFuture { state: ResponseState::Starting(failed) };
        }
        let request = request.map(Body::new);
        let is_grpc = grpc::is_grpc_content(request.headers());
        let (pools, ping) = self.shared.pools(is_grpc);
        let flooded = Arc::clone(&self.shared.flooded);
        // Whatever else the scheme is, the connector for `https` refuses it.
        if request.uri().scheme() == Some(&Scheme::HTTP) {
            let settings = &self.shared.settings;
            let start = || pool(settings, ping).build(connect::plain(settings));
            let client = pools.plain.get_or_init(start);
            return HyperResponseFuture {
                state: ResponseState::SentRequest(SentRequest::new(client, request, flooded, ping)),
            };
        }
        if let Some(client) = pools.tls.get() {
            return HyperResponseFuture {
                state: ResponseState::SentRequest(SentRequest::new(client, request, flooded, ping)),
            };
        }
        let shared = Arc::clone(&self.shared);
        let sent = Box::pin(async move {
            let (pools, ping) = shared.pools(is_grpc);
            let client = pools.tls.get_or_try_init(|| start(&shared.settings, ping)).await?;
            SentRequest::new(client, request, flooded, ping).await
        });
        HyperResponseFuture { state: ResponseState::Starting(sent) }
    }
}

/// Builds the client for `https`. A failure is not remembered.
async fn start(settings: &Settings, ping: Option<Duration>) -> Result<legacy::Client<Tls, Body>, Error> {
    let (own, to_proxy) = settings.certificates.configs().await?;
    Ok(pool(settings, ping).build(connect::tls(settings, own, to_proxy)))
}

fn pool(settings: &Settings, ping: Option<Duration>) -> legacy::Builder {
    let mut builder = legacy::Client::builder(TokioExecutor::new());
    builder.pool_timer(TokioTimer::new()).timer(TokioTimer::new());
    builder.pool_idle_timeout(settings.idle_timeout);
    builder.http2_keep_alive_interval(ping).http2_keep_alive_timeout(PING_TIMEOUT);
    builder.http1_max_headers(settings.max_headers).http2_max_header_list_size(settings.max_header_bytes);
    builder
}

// --- HyperResponseFuture ---

/// The future of [`HyperClient`].
#[allow(unnameable_types, reason = "a client is named, and not its future")]
pub struct HyperResponseFuture {
    state: ResponseState,
}

enum ResponseState {
    SentRequest(SentRequest),
    /// The client itself must be made first.
    Starting(Pin<Box<dyn Future<Output = Result<Response<IncomingBody>, BoxError>> + Send>>),
}

impl Future for HyperResponseFuture {
    type Output = Result<Response<IncomingBody>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.state {
            ResponseState::SentRequest(sent) => Pin::new(sent).poll(cx),
            ResponseState::Starting(starting) => starting.as_mut().poll(cx),
        }
    }
}

impl fmt::Debug for HyperResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HyperResponseFuture").finish_non_exhaustive()
    }
}

// --- SentRequest ---

/// A request on its way, and the connection it went by.
struct SentRequest {
    response: legacy::ResponseFuture,
    /// None once there is an outcome.
    connection: Option<CaptureConnection>,
    since: Instant,
    /// The request says that it is one of h2.
    wants_h2: bool,
    flooded: Arc<AtomicBool>,
    keep_alive: Option<Duration>,
}

impl SentRequest {
    fn new<C>(
        client: &legacy::Client<C, Body>,
        mut request: Request<Body>,
        flooded: Arc<AtomicBool>,
        keep_alive: Option<Duration>,
    ) -> Self
    where
        C: Connect + Clone + Send + Sync + 'static,
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
        let wants_h2 = request.version() == Version::HTTP_2;
        Self {
            response: client.request(request),
            connection,
            since: clock::now(),
            wants_h2,
            flooded,
            keep_alive,
        }
    }
}

impl SentRequest {
    /// Returns whether the connection was asked for signs of life three times while nothing else came on it.
    fn was_asked_often(&self, connection: Option<&CaptureConnection>) -> bool {
        let Some(after) = self.keep_alive else { return false };
        let is_h2 = |connection: &CaptureConnection| {
            connection.connection_metadata().as_ref().is_some_and(Connected::is_negotiated_h2)
        };
        clock::now() - self.since >= 3 * after && connection.is_some_and(is_h2)
    }
}

impl Future for SentRequest {
    type Output = Result<Response<IncomingBody>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = ready!(Pin::new(&mut self.response).poll(cx));
        let connection = self.connection.take();
        let error = match outcome {
            Ok(response) => {
                let flooded = Arc::clone(&self.flooded);
                return Poll::Ready(Ok(
                    response.map(|body| IncomingBody::of_hyper(HyperBody { inner: body, flooded }))
                ));
            }
            Err(error) => error,
        };
        let failure = classify_hyper(&error);
        note_flood(&error, &self.flooded);
        if failure == Failure::Ambiguous && self.was_asked_often(connection.as_ref()) {
            // Servers send the reason and close the connection at once, so that it is not always read.
            calm_down(&self.flooded);
        }
        Poll::Ready(Err(match failure {
            Failure::Unsent => {
                let wait = TunnelError::wait_in(&error);
                Unsent::new(error).with_wait(wait).into()
            }
            Failure::Fatal if chain(&error).any(<dyn StdError>::is::<Lasting>) => error.into(),
            Failure::Fatal => match lasting::advice(&error) {
                Some(advice) => Unsent::new(Lasting { advice, source: error.into() }).into(),
                None => {
                    let (advice, is_sent) = (advice(&error, self.wants_h2), error.source().is_some());
                    let source = if is_sent { error.into() } else { Unsent::new(error).into() };
                    Futile { advice, source }.into()
                }
            },
            Failure::Ambiguous => error.into(),
        }))
    }
}

impl Drop for SentRequest {
    fn drop(&mut self) {
        let Some(connection) = &self.connection else { return };
        if let Some(connected) = &*connection.connection_metadata()
            && clock::now() - self.since >= SUSPICIOUS
        {
            connected.poison();
        }
    }
}

/// Notes that a server took the signs of life that connections are asked for as a flood.
fn note_flood(error: &(dyn StdError + 'static), flooded: &AtomicBool) {
    let calm = Some(h2::Reason::ENHANCE_YOUR_CALM);
    let is_flood = |error: &h2::Error| error.is_remote() && error.is_go_away() && error.reason() == calm;
    if chain(error).filter_map(|error| error.downcast_ref()).any(is_flood) {
        calm_down(flooded);
    }
}

fn calm_down(flooded: &AtomicBool) {
    if !flooded.swap(true, Ordering::Relaxed) {
        tracing::debug!(
            "a server was asked for signs of life too often; from now on it is every five minutes"
        );
    }
}

/// Says what to do about an error that would come again.
fn advice(error: &legacy::Error, wants_h2: bool) -> &'static str {
    // What the client refuses has no cause but itself.
    match error.source() {
        None if wants_h2 => {
            "the request was not sent: its version is HTTP/2, and the server speaks HTTP/1.1; leave the version as it is by \
             default, since the connection decides"
        }
        None => {
            "the request was not sent: its method, its version or its URI is one that this client cannot send"
        }
        Some(_) if chain(error).filter_map(<dyn StdError>::downcast_ref).any(is_for_http1) => {
            "the server takes this request over HTTP/1.1 alone, but agreed to h2; use a client without h2, such as one of reqwest"
        }
        Some(_) => {
            "this side refused the response; raise max_headers or max_header_bytes of the client if it may be that large"
        }
    }
}

// --- HyperBody ---

/// The body of a response, whose errors may tell of a flood.
pub(super) struct HyperBody {
    inner: Incoming,
    flooded: Arc<AtomicBool>,
}

impl HttpBody for HyperBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Err(error)) = &frame {
            note_flood(error, &self.flooded);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

// --- build() of the sources ---

impl<G: Grant> GrantBuilder<G> {
    /// Builds the source over the default transport, a [`HyperClient`] of its own. Sources that are many share one, by
    /// [`build_with`](Self::build_with) and clones of it.
    ///
    /// # Errors
    ///
    /// As [`build_with`](Self::build_with).
    #[cfg_attr(docsrs, doc(cfg(feature = "hyper-client")))]
    pub fn build(self) -> Result<G, Error> {
        self.build_with(HyperClient::new())
    }
}
