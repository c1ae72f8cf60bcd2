//! The options of a client.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::Client;
use super::certificates::Certificates;
use super::proxy::Proxy;
use super::resolver::Resolver;
use crate::error::TokenError;

/// Builds a [`Client`].
///
/// Defaults:
///
/// - root certificates: the platform's; read when they are first needed
/// - client certificate: none
/// - proxy: [`Proxy::from_environment`]
/// - resolver: the system's
/// - `connect_timeout`: 10 s, from looking up the name to the end of the TLS handshake
/// - `idle_timeout`: 90 s
///
/// # Examples
///
/// Behind a proxy that wants a password, to a server of a private authority that wants a certificate:
///
/// ```no_run
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use tower_oauth2::transport::hyper::{Client, Proxy};
///
/// let client: Client<Full<Bytes>> = Client::builder()
///     .proxy(Proxy::new("http", "proxy.example.net", 3128)?.credentials("billing", "secret"))
///     .also_roots(std::fs::read("private-ca.pem")?)?
///     .identity(std::fs::read("client.pem")?, std::fs::read("client-key.pem")?)?
///     .build();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until it is built"]
pub struct ClientBuilder {
    settings: Settings,
}

#[derive(Clone)]
pub(super) struct Settings {
    pub(super) certificates: Certificates,
    pub(super) proxy: Proxy,
    pub(super) resolver: Resolver,
    pub(super) connect_timeout: Duration,
    pub(super) idle_timeout: Duration,
}

impl ClientBuilder {
    /// Trusts these root certificates besides those of the platform, in PEM.
    ///
    /// # Errors
    ///
    /// A configuration error if `pem` holds no certificate, or one that cannot be read.
    pub fn also_roots(mut self, pem: impl AsRef<[u8]>) -> Result<Self, TokenError> {
        self.settings.certificates.add_roots(pem.as_ref())?;
        Ok(self)
    }

    /// Trusts these root certificates alone, in PEM.
    ///
    /// # Errors
    ///
    /// As [`also_roots`](Self::also_roots).
    pub fn only_roots(mut self, pem: impl AsRef<[u8]>) -> Result<Self, TokenError> {
        self.settings.certificates.replace_roots(pem.as_ref())?;
        Ok(self)
    }

    /// Sets the certificate that proves who this client is (mutual TLS, RFC 8705): its chain and its private key, in PEM.
    /// A proxy does not get it. A source whose client proves itself by nothing else authenticates by
    /// [`ClientAuth::tls`](crate::ClientAuth::tls).
    ///
    /// It is the same for every connection of the client, so tokens that are bound to it never go by another. For a new
    /// certificate make a new client, and [`expire`](crate::TokenCache::expire) the tokens that were bound to the old one.
    ///
    /// # Errors
    ///
    /// A configuration error if either holds none, cannot be read, or the key is of a kind that TLS does not know. Nothing
    /// of the key is shown.
    pub fn identity(mut self, chain: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<Self, TokenError> {
        self.settings.certificates.set_identity(chain.as_ref(), key.as_ref())?;
        Ok(self)
    }

    /// Sets by which proxy `https` goes.
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.settings.proxy = proxy;
        self
    }

    /// Sets who looks up names. It is given a host as it stands in the URL, and never an address. What it returns with
    /// port 0 takes the port of the URL.
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

    /// Sets how long a connection is kept that nobody uses.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.settings.idle_timeout = timeout;
        self
    }

    /// Builds the client, for whatever body its requests have.
    #[must_use]
    pub fn build<B>(self) -> Client<B> {
        Client::with(self.settings)
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
            .finish_non_exhaustive()
    }
}
