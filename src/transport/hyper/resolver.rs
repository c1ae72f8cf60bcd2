//! The lookup of names.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::vec;

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tower_service::Service;

type Addresses = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// The system's resolver, or the caller's.
#[derive(Clone, Default)]
pub(super) struct Resolver {
    own: Option<Arc<dyn Fn(String) -> Addresses + Send + Sync>>,
}

impl Resolver {
    pub(super) fn new<F, Fut>(resolve: F) -> Self
    where
        F: Fn(String) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
    {
        Self { own: Some(Arc::new(move |name| Box::pin(resolve(name)))) }
    }
}

impl Service<Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        if let Some(resolve) = &self.own {
            let addresses = resolve(name.as_str().to_owned());
            return Box::pin(async { Ok(addresses.await?.into_iter()) });
        }
        let addresses = GaiResolver::new().call(name);
        Box::pin(async { Ok(addresses.await?.collect::<Vec<_>>().into_iter()) })
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("own", &self.own.is_some()).finish()
    }
}
