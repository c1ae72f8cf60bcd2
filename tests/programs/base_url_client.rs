//! A client of one API: JSON, a user's text in a path, and paths that would leave the base.

use serde::Deserialize;
use tower::BoxError;
use tower_oauth2::test_util::{FakeAuthorizationServer, FakeClient};
use tower_oauth2::{ApiClient, ClientCredentials};

use crate::servers::Api;

#[derive(Deserialize)]
struct Item {
    id: String,
}

#[tokio::test]
async fn requests_stay_below_the_base_url() -> Result<(), BoxError> {
    let billing = FakeClient::confidential("billing", "hunter2").scopes("items");
    let server = FakeAuthorizationServer::builder().client(billing).start().await?;
    let items = Api::builder(&server).start().await?;
    let source = ClientCredentials::builder(server.token_url(), "billing", "hunter2").build()?;
    let api = ApiClient::connect(items.origin() + "/items", source)?;

    for id in 1..=4 {
        if id == 3 {
            server.revoke_all();
        }
        let item: Item = api.get(format!("{id}")).send().await?.error_for_status()?.json().await?;
        assert_eq!(item.id, id.to_string());
    }

    // A name that a user gave: one segment, whatever is in it.
    let name = "50% off? yes & no";
    let item: Item =
        api.get("").segment(name).query(&[("page", 1)]).send().await?.error_for_status()?.json().await?;
    assert_eq!(item.id, name);

    let order = serde_json::json!({ "pieces": 3 });
    let digest = Api::content_digest(order.to_string().as_bytes());
    let write = api.post("").header(Api::ITEM_ID, "order-1").header(Api::CONTENT_DIGEST, digest).json(&order);
    assert_eq!(write.send().await?.status(), 201);

    // None of these is sent.
    for path in
        ["//evil.example", "https://evil.example/", "/../headers", "\\\\evil.example", "%2e%2e/headers"]
    {
        match api.get(path).send().await {
            Err(error) => {
                assert!(error.is_builder() && error.to_string().contains("its path"), "{path}: {error}");
            }
            Ok(response) => panic!("{path}: {}", response.status()),
        }
    }

    // Six requests, one of them twice.
    assert_eq!((items.counts().requests, items.counts().unauthorized), (7, 1));
    assert_eq!(server.counts().token_requests, 2);
    Ok(())
}
