//! The settings of a client.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::certificates::Certificates;
use super::proxy::Proxy;
use super::resolver::Resolver;
use super::{HyperClient, PING_AFTER};
use crate::clock::FARTHEST;
use crate::error::Error;

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

/// A map of headers panics beyond that. hyper takes memory for as many as are allowed, for each response.
const MOST_HEADERS: usize = 24_576;

/// Each of these returns a client with connections of its own, so set it up before you clone it.
impl HyperClient {
    /// Trusts these root certificates besides those of the platform, in PEM.
    ///
    /// # Errors
    ///
    /// A configuration error if `pem` holds no certificate, or one that cannot be read.
    #[doc(alias = "ca")]
    #[doc(alias = "certificate")]
    pub fn add_root_certificates(self, pem: impl AsRef<[u8]>) -> Result<Self, Error> {
        let mut settings = self.settings();
        settings.certificates.add_roots(pem.as_ref())?;
        Ok(Self::with(settings))
    }

    /// Trusts these root certificates alone, in PEM.
    ///
    /// # Errors
    ///
    /// As [`add_root_certificates`](Self::add_root_certificates).
    pub fn only_root_certificates(self, pem: impl AsRef<[u8]>) -> Result<Self, Error> {
        let mut settings = self.settings();
        settings.certificates.replace_roots(pem.as_ref())?;
        Ok(Self::with(settings))
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
    pub fn identity(self, chain: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<Self, Error> {
        let mut settings = self.settings();
        settings.certificates.set_identity(chain.as_ref(), key.as_ref())?;
        Ok(Self::with(settings))
    }

    /// Sets the proxy for `https`. With `None` there is no proxy, even if the environment names one.
    pub fn proxy(self, proxy: impl Into<Option<Proxy>>) -> Self {
        Self::with(Settings { proxy: proxy.into().unwrap_or_else(Proxy::none), ..self.settings() })
    }

    /// Sets the function that looks up names. It is given a host as it stands in the URL, and never an address. An address that
    /// it returns with port 0 takes the port of the URL.
    pub fn resolver<F, Fut>(self, resolve: F) -> Self
    where
        F: Fn(String) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
    {
        Self::with(Settings { resolver: Resolver::new(resolve), ..self.settings() })
    }

    /// Sets how long connecting may take, from looking up the name to the end of the TLS handshake, proxy included.
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        Self::with(Settings { connect_timeout: timeout, ..self.settings() })
    }

    /// Sets how long an unused connection is kept.
    pub fn idle_timeout(self, timeout: Duration) -> Self {
        Self::with(Settings { idle_timeout: timeout.min(FARTHEST), ..self.settings() })
    }

    /// Sets how many headers a response may have over HTTP/1.1. One with more is refused on this side, and not asked for
    /// again ([`Failure::Fatal`](crate::retry::Failure::Fatal)). More than 24576 are never taken.
    pub fn max_headers(self, headers: usize) -> Self {
        Self::with(Settings { max_headers: headers.min(MOST_HEADERS), ..self.settings() })
    }

    /// Sets how large the headers of a response may be over h2, as RFC 9113 §6.5.2 counts them. Larger ones are refused on
    /// this side, and not asked for again. Much larger ones end the connection, and with it the other requests on it.
    pub fn max_header_bytes(self, bytes: u32) -> Self {
        Self::with(Settings { max_header_bytes: bytes, ..self.settings() })
    }

    /// Sets after how much silence an h2 connection on which a request waits is asked for a sign of life (PING). One on which
    /// none waits is never asked.
    ///
    /// A server that takes this for a flood closes the connection with `ENHANCE_YOUR_CALM` ("too many pings"); gRPC servers do
    /// if it happens more than twice in five minutes. So gRPC calls, by their content type, have connections of their own that
    /// are asked every five minutes at most, and after the first such response all connections are.
    ///
    /// With `None`, or zero, no connection is asked. A request on a dead connection then waits until its own timeout.
    pub fn keep_alive(self, after: impl Into<Option<Duration>>) -> Self {
        // hyper would ask again as soon as it has a sign of life.
        let keep_alive = after.into().filter(|after| !after.is_zero()).map(|after| after.min(FARTHEST));
        Self::with(Settings { keep_alive, ..self.settings() })
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
