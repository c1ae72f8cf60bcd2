//! A service on reqwest: its client below the layers, another of its make at the token endpoint.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use tokio::task::JoinSet;
use tower::{BoxError, ServiceBuilder, ServiceExt as _};
use tower_oauth2::test_util::{FakeAuthorizationServer, FakeClient};
use tower_oauth2::transport::{ReqwestClient, classify_reqwest};
use tower_oauth2::{AuthLayer, ClientCredentials, RetryPolicy};

use crate::servers::Api;

const TASKS: u64 = 16;
const ITEMS_PER_TASK: u64 = 20;
/// Each item is written, and read again.
const REQUESTS: u64 = 2 * TASKS * ITEMS_PER_TASK;
const REVOCATIONS: u64 = 3;
/// After so many requests the next revocation is due.
const BETWEEN: u64 = REQUESTS / (REVOCATIONS + 1);

#[tokio::test]
async fn tasks_that_share_a_reqwest_client_do_not_notice_revocations() -> Result<(), BoxError> {
    let billing = FakeClient::confidential("billing", "hunter2").scopes("items");
    let server = FakeAuthorizationServer::builder().client(billing).start().await?;
    let api = Api::builder(&server).start().await?;

    // Redirects and retries are left to the layers.
    let http_client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .user_agent("billing/1.0")
        .build()?;
    let source = ClientCredentials::builder(server.token_url(), "billing", "hunter2")
        .build_with(ReqwestClient::build(|builder| builder.user_agent("billing/1.0"))?)?;
    let client = ServiceBuilder::new()
        .layer(RetryPolicy::builder().classifier(classify_reqwest).build()?)
        .layer(AuthLayer::for_origin(source, api.origin())?)
        .service(ReqwestClient::new(http_client));

    let done = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (client, server, origin) = (client.clone(), server.clone(), api.origin());
        let done = Arc::clone(&done);
        tasks.spawn(async move {
            for item in 0..ITEMS_PER_TASK {
                let id = format!("{task}-{item}");
                let body = Bytes::from(id.repeat(10_000));
                let write = Request::post(format!("{origin}/items"))
                    .header(Api::ITEM_ID, &id)
                    .header(Api::CONTENT_DIGEST, Api::content_digest(&body))
                    .body(Full::new(body))?;
                let read = Request::get(format!("{origin}/items/{id}")).body(Full::<Bytes>::default())?;
                for (request, expected) in [(write, 201), (read, 200)] {
                    let response = client.clone().oneshot(request).await?;
                    assert_eq!(response.status(), expected, "item {id}");
                    response.into_body().collect().await?;
                    let done = done.fetch_add(1, Relaxed) + 1;
                    if done.is_multiple_of(BETWEEN) && done < REQUESTS {
                        server.revoke_all();
                    }
                }
            }
            Ok::<_, BoxError>(())
        });
    }
    for task in tasks.join_all().await {
        task?;
    }

    let counts = api.counts();
    assert_eq!((counts.ok, counts.wrong_bodies, counts.duplicates), (REQUESTS, 0, 0));
    assert!(counts.unauthorized >= REVOCATIONS, "{counts:?}");
    assert_eq!(server.counts().token_requests, 1 + REVOCATIONS);
    Ok(())
}
