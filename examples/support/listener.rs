//! A router on a free port of the loopback interface, with an end that a client notices.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

/// A router that is being served. Dropping it closes the port and every connection.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    router: Router,
    task: JoinHandle<()>,
}

impl Listener {
    /// Serves `router` on a free port of 127.0.0.1.
    pub async fn start(router: Router) -> io::Result<Self> {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), router).await
    }

    async fn start_at(address: SocketAddr, router: Router) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(serve(listener, router.clone()));
        Ok(Self { address, router, task })
    }

    /// Returns the origin, such as `http://127.0.0.1:4711`.
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Closes the port and every connection, as when the process died.
    pub async fn stop(&mut self) {
        self.task.abort();
        // The end of an aborted task is an error by design.
        let _ = (&mut self.task).await;
    }

    /// Serves again on the same port.
    pub async fn restart(&mut self) -> io::Result<()> {
        *self = Self::start_at(self.address, self.router.clone()).await?;
        Ok(())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Accepts until it is aborted. The connections are in a set that ends with it.
async fn serve(listener: TcpListener, router: Router) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // Out of file handles, or the client has gone: the next one may be luckier.
                let Ok((stream, _)) = accepted else {
                    tokio::task::yield_now().await;
                    continue;
                };
                // Small answers must not wait for more to send. Where the option is unknown, they just wait.
                let _ = stream.set_nodelay(true);
                let service = TowerToHyperService::new(router.clone());
                connections.spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    // A client that goes away in mid-request is no error of the server's.
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}
