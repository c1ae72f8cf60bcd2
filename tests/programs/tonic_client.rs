//! A tonic client whose tokens are revoked while 16 tasks call, and none of them notices.
//!
//! `cargo run --example tonic_client`
//!
//! The server asks the authorization server about each token (RFC 7662) and answers UNAUTHENTICATED to those that are no
//! longer good; the call is made again with another. The last line is checked, and the exit code is 1 if a figure in it is
//! off.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

#[path = "../support/grpc/introspection.rs"]
mod introspection;
#[path = "../support/grpc/items.rs"]
mod items;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use introspection::Introspection;
use items::{ItemsClient, ItemsServer, Refusal};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};
use tower::{BoxError, ServiceBuilder};
use tower_oauth2::test_util::{FakeAuthorizationServer, FakeClient};
use tower_oauth2::transport::HyperClient;
use tower_oauth2::{AuthLayer, ClientCredentials, RetryPolicy};

const TASKS: u64 = 16;
const CALLS_PER_TASK: u64 = 100;
const CALLS: u64 = TASKS * CALLS_PER_TASK;
const REVOCATIONS: u64 = 3;

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    // What others run: an authorization server, and a service that asks it about each token.
    let reports = FakeClient::confidential("reports", "hunter2").scopes("items:read");
    let server = FakeAuthorizationServer::builder().client(reports).start().await?;
    let refused = Arc::new(AtomicU64::new(0));
    let introspection = Introspection {
        url: server.introspection_url(),
        client_id: "reports",
        client_secret: "hunter2",
        http_client: HyperClient::new(),
    };
    let count = Arc::clone(&refused);
    let items = ItemsServer::new(move |call| {
        let (introspection, count) = (introspection.clone(), Arc::clone(&count));
        async move {
            match introspection.is_active(&call).await {
                Ok(true) => Ok(()),
                Ok(false) => {
                    count.fetch_add(1, Relaxed);
                    Err(Refusal::AtOnce(Status::unauthenticated("the token is not active")))
                }
                Err(error) => Err(Refusal::AtOnce(Status::internal(error.to_string()))),
            }
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let origin = format!("http://{}", listener.local_addr()?);
    let service = Server::builder().add_service(items).serve_with_incoming(TcpIncoming::from(listener));
    let service = tokio::spawn(service);

    // What you write, once.
    let source =
        ClientCredentials::builder(server.token_url(), "reports", "hunter2").scope("items:read").build()?;
    let channel = ServiceBuilder::new()
        .layer(RetryPolicy::default())
        .layer(AuthLayer::for_origin(source, origin.as_str())?.default_origin(origin.as_str())?)
        .map_request(|request: Request<_>| request.map(Body::new))
        .service(Endpoint::from_shared(origin)?.connect_lazy());
    let client = ItemsClient::new(channel);

    // From here on nobody thinks of tokens.
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let mut client = client.clone();
        tasks.spawn(async move {
            let mut failed = 0;
            for call in 0..CALLS_PER_TASK {
                let item = Bytes::from(format!("item {task}-{call}"));
                let answer = client.read(item.clone()).await;
                if let Err(status) = &answer {
                    println!("a call failed: {status}");
                }
                failed += u64::from(!answer.is_ok_and(|answer| *answer.get_ref() == item));
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            failed
        });
    }
    let mut failed = 0;
    for number in 1..=REVOCATIONS {
        // By what was sent, not by the clock: on a busy machine a call could meet two of them, and is made again once.
        while server.counts().introspections < number * CALLS / (REVOCATIONS + 1) && !tasks.is_empty() {
            if let Some(task) = tasks.try_join_next() {
                failed += task?;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        server.revoke_all();
        println!("(all tokens are revoked; {} calls were refused so far)", refused.load(Relaxed));
    }
    while let Some(task) = tasks.join_next().await {
        failed += task?;
    }
    service.abort();

    let refused = refused.load(Relaxed);
    let token_requests = server.counts().token_requests;
    println!("tonic_client: calls={CALLS} failed={failed} token_requests={token_requests} refused={refused}");
    // The first token, and one for each revocation.
    let as_promised = failed == 0 && token_requests == 1 + REVOCATIONS && refused >= REVOCATIONS;
    Ok(if as_promised { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
