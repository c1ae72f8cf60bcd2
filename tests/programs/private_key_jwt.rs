//! A client that has a key and no secret. It signs an assertion for each token request, and its key is rotated underway.

use std::time::Duration;

use http::Request;
use tower::{BoxError, ServiceBuilder, ServiceExt as _};
use tower_oauth2::grants::jwt::{Assertion, JwtAlgorithm};
use tower_oauth2::test_util::{FakeAuthorizationServer, FakeClient, Trouble};
use tower_oauth2::{AuthLayer, Body, ClientAuth, ClientCredentials, RetryPolicy, Secret};

use crate::servers::{Api, PrivateKey};

#[tokio::test(start_paused = true)]
async fn each_token_request_has_an_assertion_of_its_own() -> Result<(), BoxError> {
    let client_of = |key: &PrivateKey| {
        FakeClient::by_assertion("billing", key.public().verifier()).scopes("reports:read")
    };
    let first = PrivateKey::generate();
    let file = std::env::temp_dir().join(format!("private_key_jwt-{}.pem", std::process::id()));
    std::fs::write(&file, first.pem())?;
    let server = FakeAuthorizationServer::builder().client(client_of(&first)).build();
    let api = Api::builder(&server).build();

    // The key is read each time it signs.
    let key = Assertion::by_key(JwtAlgorithm::Es256, Secret::from_file(&file));
    let source = ClientCredentials::builder(server.token_url(), "billing", ClientAuth::private_key_jwt(key))
        .issuer(server.origin())
        .scope("reports:read")
        .build_with(server.clone())?;
    let client = ServiceBuilder::new()
        .layer(RetryPolicy::default())
        .layer(AuthLayer::for_origin(source, api.origin())?)
        .service(api.service());

    for id in 1..=9 {
        if id == 4 {
            // The second attempt needs an assertion of its own: the server refuses one that it has seen.
            server.fail_next(1, Trouble::Unavailable { retry_after: Duration::from_secs(1) });
            server.revoke_all();
        }
        if id == 7 {
            let second = PrivateKey::generate();
            server.register(client_of(&second));
            std::fs::write(&file, second.pem())?;
            server.revoke_all();
        }
        let request = Request::get(format!("{}/items/{id}", api.origin())).body(Body::empty())?;
        assert_eq!(client.clone().oneshot(request).await?.status(), 200, "item {id}");
    }
    std::fs::remove_file(&file)?;

    assert_eq!((api.counts().ok, api.counts().unauthorized), (9, 2));
    let counts = server.counts();
    assert_eq!((counts.token_requests, counts.assertions), (4, 3));
    assert_eq!((counts.replayed_assertions, counts.refusals), (0, 0));
    Ok(())
}
