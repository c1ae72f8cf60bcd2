//! A service on a free port of the loopback interface, with an end that a client notices.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use http::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;

use crate::body::Body;
use crate::http_transport::HttpTransport;

/// Any HTTP service, such as an axum router, served over HTTP/1.1 and h2 (with prior knowledge) on a free port of
/// 127.0.0.1. Dropping it closes the port and every connection.
pub struct Loopback {
    address: SocketAddr,
    service: Served,
    /// Until it is stopped.
    task: Option<JoinHandle<()>>,
}

pub(super) type Served = BoxCloneSyncService<Request<Body>, Response<Body>, io::Error>;

impl Loopback {
    /// Serves `service`. An error of the service ends its connection without a response.
    ///
    /// # Errors
    ///
    /// The system's, if it has no free port.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it serves nothing.
    pub async fn start<S: HttpTransport>(service: S) -> io::Result<Self> {
        let service = service.map_response(|response: Response<S::ResponseBody>| response.map(Body::new));
        let service = service.map_err(io::Error::other);
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), BoxCloneSyncService::new(service)).await
    }

    pub(super) async fn start_at(address: SocketAddr, service: Served) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(serve(listener, service.clone()));
        Ok(Self { address, service, task: Some(task) })
    }

    /// Returns the origin, such as `http://127.0.0.1:4711`.
    #[must_use]
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Closes the port and every connection, as when the process died.
    ///
    /// # Cancel safety
    ///
    /// Once it was polled, both will be closed.
    pub async fn stop(&mut self) {
        if let Some(ending) = self.close() {
            // The end of an aborted task is an error by design.
            let _ = ending.await;
        }
    }

    /// Serves again on the same port.
    ///
    /// # Errors
    ///
    /// The system's, if another program has the port by now.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it leaves the port closed; another call opens it.
    pub async fn restart(&mut self) -> io::Result<()> {
        self.stop().await;
        let (address, service) = self.place();
        *self = Self::start_at(address, service).await?;
        Ok(())
    }

    /// Returns where to serve again, and what.
    pub(super) fn place(&self) -> (SocketAddr, Served) {
        (self.address, self.service.clone())
    }

    /// Begins to close. The port and the connections are closed when the task has ended.
    pub(super) fn close(&mut self) -> Option<JoinHandle<()>> {
        let task = self.task.take()?;
        task.abort();
        Some(task)
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Loopback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loopback").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Accepts until it is aborted. The connections are in a set that ends with it.
async fn serve(listener: TcpListener, service: Served) {
    let mut connections = JoinSet::new();
    loop {
        // Out of file handles, or the client has gone: the next one may be luckier.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        // Small responses must not wait for more to send. Where the option is unknown, they just wait.
        let _ = stream.set_nodelay(true);
        let service = service.clone().map_request(|request: Request<_>| request.map(Body::new));
        connections.spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new());
            // A client that goes away in mid-request is no error of the server's.
            let _ = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)).await;
        });
    }
}
