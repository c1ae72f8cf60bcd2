//! A tonic client whose tokens are revoked while 16 tasks call. The server asks the authorization server about each token
//! (RFC 7662), and responds with UNAUTHENTICATED to those that are not good.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use http::Request;
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

use crate::introspection::Introspection;
use crate::items::{ItemsClient, ItemsServer, Refusal};

const TASKS: u64 = 16;
const CALLS_PER_TASK: u64 = 100;
const CALLS: u64 = TASKS * CALLS_PER_TASK;
const REVOCATIONS: u64 = 3;
/// After so many calls the next revocation is due.
const BETWEEN: u64 = CALLS / (REVOCATIONS + 1);

#[tokio::test]
async fn calls_over_a_channel_do_not_notice_revocations() -> Result<(), BoxError> {
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

    let source =
        ClientCredentials::builder(server.token_url(), "reports", "hunter2").scope("items:read").build()?;
    let channel = ServiceBuilder::new()
        .layer(RetryPolicy::default())
        .layer(AuthLayer::for_origin(source, origin.as_str())?.default_origin(origin.as_str())?)
        .map_request(|request: Request<_>| request.map(Body::new))
        .service(Endpoint::from_shared(origin)?.connect_lazy());
    let client = ItemsClient::new(channel);

    let done = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (mut client, server, done) = (client.clone(), server.clone(), Arc::clone(&done));
        tasks.spawn(async move {
            for call in 0..CALLS_PER_TASK {
                let item = Bytes::from(format!("item {task}-{call}"));
                assert_eq!(*client.read(item.clone()).await?.get_ref(), item);
                let done = done.fetch_add(1, Relaxed) + 1;
                if done.is_multiple_of(BETWEEN) && done < CALLS {
                    server.revoke_all();
                }
            }
            Ok::<_, Status>(())
        });
    }
    for task in tasks.join_all().await {
        task?;
    }
    service.abort();

    // The first token, and one for each revocation.
    assert_eq!(server.counts().token_requests, 1 + REVOCATIONS);
    assert!(refused.load(Relaxed) >= REVOCATIONS);
    Ok(())
}
