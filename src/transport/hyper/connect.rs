//! How a connection is made: a name looked up, a proxy asked, TLS begun, and all that within a time.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower::BoxError;
use tower_service::Service;

use super::proxy::Proxies;
use super::resolver::Resolver;
use super::settings::Settings;
use super::tunnel::{self, TunnelError};
use crate::error::Lasting;
use crate::runtime::unless_panicked;
use crate::transport::lasting::{advice, panicked};

/// The connector for plain http.
pub(super) type Plain = Bounded<HttpConnector<Resolver>>;

/// The connector for https.
pub(super) type Tls = Bounded<HttpsConnector<Route>>;

pub(super) fn plain(settings: &Settings) -> Plain {
    Bounded { inner: tcp(settings), timeout: settings.connect_timeout }
}

/// `own` is the configuration for servers, `to_proxy` that for a proxy which is asked over TLS.
pub(super) fn tls(settings: &Settings, own: ClientConfig, to_proxy: ClientConfig) -> Tls {
    let to_proxy = HttpsConnectorBuilder::new().with_tls_config(to_proxy).https_or_http().enable_http1();
    let route = Route {
        direct: tcp(settings),
        to_proxy: to_proxy.wrap_connector(tcp(settings)),
        proxies: Arc::new(settings.proxy.find()),
    };
    let https = HttpsConnectorBuilder::new().with_tls_config(own).https_only().enable_all_versions();
    Bounded { inner: https.wrap_connector(route), timeout: settings.connect_timeout }
}

fn tcp(settings: &Settings) -> HttpConnector<Resolver> {
    let mut connector = HttpConnector::new_with_resolver(settings.resolver.clone());
    // The scheme is looked at where a request comes in.
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(settings.connect_timeout));
    connector
}

// --- Route ---

/// Goes straight to where TLS is to be spoken, or through a proxy.
#[derive(Clone)]
pub(super) struct Route {
    direct: HttpConnector<Resolver>,
    to_proxy: HttpsConnector<HttpConnector<Resolver>>,
    proxies: Arc<Proxies>,
}

impl Service<Uri> for Route {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // Both are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, destination: Uri) -> Self::Future {
        match self.proxies.detour(&destination) {
            Err(error) => Box::pin(async { Err(error.into()) }),
            Ok(None) => {
                let connecting = self.direct.call(destination);
                Box::pin(async { Ok(MaybeHttpsStream::Http(connecting.await?)) })
            }
            Ok(Some(detour)) => {
                let connecting = self.to_proxy.call(detour.address.clone());
                Box::pin(async move {
                    let proxy = connecting.await.map_err(TunnelError::NoProxy)?;
                    Ok(tunnel::open(proxy, &detour, &destination).await?)
                })
            }
        }
    }
}

// --- Bounded ---

/// A connector with an end to its patience. That of [`HttpConnector`] is for TCP alone.
#[derive(Clone)]
pub(super) struct Bounded<C> {
    inner: C,
    timeout: Duration,
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
        let (connecting, timeout) = (unless_panicked(self.inner.call(uri)), self.timeout);
        Box::pin(async move {
            match tokio::time::timeout(timeout, connecting).await {
                Ok(Some(connected)) => connected.map_err(|error| told_apart(error.into())),
                Ok(None) => Err(panicked()),
                Err(_) => {
                    let reason = format!("connecting took longer than {timeout:?}");
                    Err(io::Error::new(io::ErrorKind::TimedOut, reason).into())
                }
            }
        })
    }
}

/// Marks what would fail again.
fn told_apart(error: BoxError) -> BoxError {
    match advice(&*error) {
        Some(advice) => Lasting { advice, source: error }.into(),
        None => error,
    }
}
