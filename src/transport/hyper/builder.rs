//! The options of a client.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::certificates::Certificates;
use super::proxy::Proxy;
use super::resolver::Resolver;
use super::{HyperClient, PING_AFTER};
use crate::error::Error;

/// Builds a [`HyperClient`].
///
/// Defaults:
///
/// - root certificates: the platform's; read when they are first needed
/// - client certificate: none
/// - proxy: [`Proxy::from_environment`]
/// - resolver: the system's
/// - `connect_timeout`: 10 s, from looking up the name to the end of the TLS handshake
/// - `idle_timeout`: 90 s
/// - `max_headers`: 256 per response, over HTTP/1.1; `max_header_bytes`: 256 KiB per response, over h2
/// - `keep_alive`: after 10 s of silence, while a request waits; after five minutes for gRPC
///
/// # Examples
///
/// Behind a proxy that wants a password, to a server of a private authority that wants a certificate:
///
/// ```no_run
/// use tower_oauth2::transport::{HyperClient, Proxy};
///
/// let client = HyperClient::builder()
///     .proxy(Proxy::new("http", "proxy.example.net", 3128)?.credentials("billing", "secret"))
///     .add_root_certificates(std::fs::read("private-ca.pem")?)?
///     .identity(std::fs::read("client.pem")?, std::fs::read("client-key.pem")?)?
///     .build();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until it is built"]
pub struct HyperClientBuilder {
    settings: Settings,
}

#[derive(Clone)]
pub(super) struct Settings {
    pub(super) certificates: Certificates,
    pub(super) proxy: Proxy,
    pub(super) resolver: Resolver,
    pub(super) connect_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) max_headers: usize,
    pub(super) max_header_bytes: u32,
    pub(super) keep_alive: Option<Duration>,
}

impl HyperClientBuilder {
    /// Trusts these root certificates besides those of the platform, in PEM.
    ///
    /// # Errors
    ///
    /// A configuration error if `pem` holds no certificate, or one that cannot be read.
    #[doc(alias = "ca")]
    #[doc(alias = "certificate")]
    pub fn add_root_certificates(mut self, pem: impl AsRef<[u8]>) -> Result<Self, Error> {
        self.settings.certificates.add_roots(pem.as_ref())?;
        Ok(self)
    }

    /// Trusts these root certificates alone, in PEM.
    ///
    /// # Errors
    ///
    /// As [`add_root_certificates`](Self::add_root_certificates).
    pub fn only_root_certificates(mut self, pem: impl AsRef<[u8]>) -> Result<Self, Error> {
        self.settings.certificates.replace_roots(pem.as_ref())?;
        Ok(self)
    }

    /// Sets the certificate that proves who this client is (mutual TLS, RFC 8705): its chain and its private key, in PEM.
    /// A proxy does not get it. A source whose client proves itself by nothing else authenticates by
    /// [`ClientAuth::tls`](crate::ClientAuth::tls).
    ///
    /// It is the same for every connection of the client, so tokens that are bound to it never go by another. For a new
    /// certificate make a new client, and [`invalidate`](crate::TokenCache::invalidate) the tokens that were bound to the old one.
    ///
    /// # Errors
    ///
    /// A configuration error if either holds none, cannot be read, or the key is of a kind that TLS does not know. Nothing
    /// of the key is shown.
    #[doc(alias = "mtls")]
    #[doc(alias = "client_certificate")]
    pub fn identity(mut self, chain: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<Self, Error> {
        self.settings.certificates.set_identity(chain.as_ref(), key.as_ref())?;
        Ok(self)
    }

    /// Sets the proxy for `https`. With `None` there is no proxy, even if the environment names one.
    pub fn proxy(mut self, proxy: impl Into<Option<Proxy>>) -> Self {
        self.settings.proxy = proxy.into().unwrap_or_else(Proxy::none);
        self
    }

    /// Sets the function that looks up names. It is given a host as it stands in the URL, and never an address. An address that
    /// it returns with port 0 takes the port of the URL.
    pub fn resolver<F, Fut>(mut self, resolve: F) -> Self
    where
        F: Fn(String) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
    {
        self.settings.resolver = Resolver::new(resolve);
        self
    }

    /// Sets how long connecting may take, from looking up the name to the end of the TLS handshake, proxy included.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.connect_timeout = timeout;
        self
    }

    /// Sets how long an unused connection is kept.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.settings.idle_timeout = timeout;
        self
    }

    /// Sets how many headers a response may have over HTTP/1.1. One with more is refused on this side, and not asked for
    /// again ([`Failure::Fatal`](crate::retry::Failure::Fatal)).
    pub fn max_headers(mut self, headers: usize) -> Self {
        self.settings.max_headers = headers;
        self
    }

    /// Sets how large the headers of a response may be over h2, as RFC 9113 §6.5.2 counts them. Larger ones are refused on
    /// this side, and not asked for again. Much larger ones end the connection, and with it the other requests on it.
    pub fn max_header_bytes(mut self, bytes: u32) -> Self {
        self.settings.max_header_bytes = bytes;
        self
    }

    /// Sets after how much silence an h2 connection on which a request waits is asked for a sign of life (PING). One on which
    /// none waits is never asked.
    ///
    /// A server that takes this for a flood closes the connection with `ENHANCE_YOUR_CALM` ("too many pings"); gRPC servers do
    /// if it happens more than twice in five minutes. So gRPC calls, by their content type, have connections of their own that
    /// are asked every five minutes at most, and after the first such response all connections are.
    ///
    /// With `None` no connection is asked. A request on a dead connection then waits until its own timeout.
    pub fn keep_alive(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.settings.keep_alive = after.into();
        self
    }

    /// Builds the client.
    #[must_use]
    pub fn build(self) -> HyperClient {
        HyperClient::with(self.settings)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            certificates: Certificates::default(),
            proxy: Proxy::from_environment(),
            resolver: Resolver::default(),
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(90),
            // Four times what hyper takes by itself: gateways and cookies make many.
            max_headers: 256,
            // Sixteen times, for the same reason. Servers rarely send more than 64 KiB.
            max_header_bytes: 256 * 1024,
            keep_alive: Some(PING_AFTER),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("certificates", &self.certificates)
            .field("proxy", &self.proxy)
            .field("connect_timeout", &self.connect_timeout)
            .field("idle_timeout", &self.idle_timeout)
            .field("max_headers", &self.max_headers)
            .field("max_header_bytes", &self.max_header_bytes)
            .field("keep_alive", &self.keep_alive)
            .finish_non_exhaustive()
    }
}
