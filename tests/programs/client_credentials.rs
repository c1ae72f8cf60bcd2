//! The smallest program: a service calls an API with tokens of its own.

use http::Request;
use tower::{BoxError, ServiceBuilder, ServiceExt as _};
use tower_oauth2::test_util::{FakeAuthorizationServer, FakeClient};
use tower_oauth2::transport::HyperClient;
use tower_oauth2::{AuthLayer, Body, ClientCredentials, RetryPolicy};

use crate::servers::Api;

#[tokio::test]
async fn a_revoked_token_costs_one_token_request_and_no_failure() -> Result<(), BoxError> {
    let billing = FakeClient::confidential("billing", "hunter2").scopes("reports:read");
    let server = FakeAuthorizationServer::builder().client(billing).start().await?;
    let api = Api::builder(&server).start().await?;
    let source =
        ClientCredentials::builder(server.token_url(), "billing", "hunter2").scope("reports:read").build()?;
    let client = ServiceBuilder::new()
        .layer(RetryPolicy::default())
        .layer(AuthLayer::for_origin(source, api.origin())?)
        .service(HyperClient::new());

    for id in 1..=6 {
        if id == 4 {
            server.revoke_all();
        }
        let request = Request::get(format!("{}/items/{id}", api.origin())).body(Body::empty())?;
        assert_eq!(client.clone().oneshot(request).await?.status(), 200, "item {id}");
    }

    assert_eq!((api.counts().ok, api.counts().unauthorized), (6, 1));
    assert_eq!(server.counts().token_requests, 2);
    Ok(())
}
