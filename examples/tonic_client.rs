//! Calls a gRPC service through tonic: the layers go between the channel and the generated client.
//!
//! ```sh
//! cargo run --example tonic_client
//! ```

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use http::Request;
use tokio::net::TcpListener;
use tonic::Status;
use tonic::body::Body;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::{BoxError, ServiceBuilder};
use tower_oauth2::test_util::{FakeAuthorizationServer, FakeClient};
use tower_oauth2::transport::HyperClient;
use tower_oauth2::{AuthLayer, ClientCredentials, RetryPolicy};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // These stand for your provider and your service.
    let reports = FakeClient::confidential("reports", "hunter2");
    let provider = FakeAuthorizationServer::builder().client(reports).start().await?;
    let origin = start_service().await?;

    let source = ClientCredentials::builder(provider.token_url(), "reports", "hunter2")
        .build_with(HyperClient::new())?;
    let channel = ServiceBuilder::new()
        .layer(RetryPolicy::default())
        // A generated client names no host in its requests, so the layer has to know it.
        .layer(AuthLayer::for_origin(source, origin.as_str())?.default_origin(origin.as_str())?)
        // A channel takes only bodies of tonic's type.
        .map_request(|request: Request<_>| request.map(Body::new))
        .service(Endpoint::from_shared(origin)?.connect_lazy());

    // So it is with every client that tonic generates.
    let mut client = HealthClient::new(channel);
    let response = client.check(HealthCheckRequest::default()).await?;
    println!("the service is {:?}", response.into_inner().status());
    println!("tokens fetched: {}", provider.counts().tokens);
    Ok(())
}

/// Starts a service that refuses the first call, as if its token had been revoked.
async fn start_service() -> Result<String, BoxError> {
    let (_reporter, health) = tonic_health::server::health_reporter();
    let calls = Arc::new(AtomicU32::new(0));
    let guarded = InterceptedService::new(health, move |call: tonic::Request<()>| {
        match (calls.fetch_add(1, Relaxed), call.metadata().get("authorization")) {
            (0, _) | (_, None) => Err(Status::unauthenticated("the token is not active")),
            (_, Some(_)) => Ok(call),
        }
    });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let origin = format!("http://{}", listener.local_addr()?);
    let server = Server::builder().add_service(guarded);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    Ok(origin)
}
