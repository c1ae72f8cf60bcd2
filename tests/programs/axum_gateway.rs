//! An axum gateway in front of an API: callers prove to the gateway who they are, and it calls on with tokens of their tenants
//! or of its own. Bodies are streamed both ways.

mod callers;
mod gateway;

use std::net::Ipv4Addr;

use http::{Request, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::yield_now;
use tower::{BoxError, ServiceExt as _, service_fn};
use tower_oauth2::grants::Revocation;
use tower_oauth2::test_util::{FakeAuthorizationServer, FakeAuthorizationServerBuilder, FakeClient};
use tower_oauth2::transport::HyperClient;
use tower_oauth2::{Body, ClientCredentials, TokenCache};

use crate::servers::Api;
use callers::Caller;
use gateway::Gateway;

const TENANTS: [&str; 3] = ["north", "south", "west"];
const REQUESTS_OF_EACH: usize = 50;

#[tokio::test]
async fn a_gateway_keeps_callers_apart_and_loses_nothing_at_its_end() -> Result<(), BoxError> {
    let clients = TENANTS.iter().chain(&["gateway"]).map(|name| FakeClient::confidential(*name, "hunter2"));
    let server = clients
        .fold(FakeAuthorizationServer::builder(), FakeAuthorizationServerBuilder::client)
        .start()
        .await?;
    let upstream = Api::builder(&server).start().await?;

    // The gateway, with a token of its own and one for each tenant. At the end all are revoked. Token requests wait until this
    // test lets them go.
    let (token_url, revocation_url) = (server.token_url(), server.revocation_url());
    let (let_go, held) = watch::channel(false);
    let http = HyperClient::new();
    let transport = service_fn(move |request: Request<Body>| {
        let (mut held, http) = (held.clone(), http.clone());
        async move {
            held.wait_for(|is_free| *is_free).await?;
            http.oneshot(request).await
        }
    });
    let cache_of = move |client: &String| {
        let source = ClientCredentials::builder(&token_url, client, "hunter2");
        let revocation = Revocation::builder(&revocation_url, client, "hunter2");
        Ok(TokenCache::builder(source.build_with(transport.clone())?)
            .revoke_with(revocation.build_with(transport.clone())?)
            .revoke_at_shutdown(true))
    };
    let callers = TENANTS.map(|tenant| (format!("key-of-{tenant}"), tenant.to_owned()));
    let gateway =
        Gateway::new(upstream.origin(), cache_of(&"gateway".to_owned())?.build(), cache_of, callers)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    let (stop, stopped) = oneshot::channel::<()>();
    let (noticed, notice) = oneshot::channel::<()>();
    let ends = |signal: oneshot::Receiver<()>| async move { drop(signal.await) };
    let running = tokio::spawn(gateway.run(listener, ends(stopped), ends(notice)));

    // A load balancer sends nothing before there is a token.
    let balancer = Caller::new(&url, "an unknown key");
    assert_eq!(balancer.get("/ready").await?.status(), StatusCode::SERVICE_UNAVAILABLE);
    let_go.send(true)?;
    while balancer.get("/ready").await?.status() != StatusCode::OK {}

    // What proves a caller to the gateway must not come through. The upstream returns the headers that it got.
    let [north, south, west] = TENANTS.map(|tenant| Caller::new(&url, format!("key-of-{tenant}")));
    assert_eq!(north.planted().await?, (0, 1));
    assert_eq!(balancer.get("/mine/items/1").await?.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(north.get("/mine/%2E./south/items/1").await?.status(), StatusCode::BAD_REQUEST);
    assert_eq!(north.get("/tenants/south/items/1").await?.status(), StatusCode::NOT_FOUND);

    // Requests of all tenants at once. When all have come to the upstream, every token is revoked.
    for caller in [&north, &south, &west] {
        assert_eq!(caller.crowd(1).await, 0);
    }
    let all = (TENANTS.len() * REQUESTS_OF_EACH) as u64;
    upstream.hold(true);
    let revoke = async {
        while upstream.counts().waiting < all {
            yield_now().await;
        }
        let revocation = server.revoke_all();
        upstream.hold(false);
        revocation
    };
    let (of_north, of_south, of_west, revocation) = tokio::join!(
        north.crowd(REQUESTS_OF_EACH),
        south.crowd(REQUESTS_OF_EACH),
        west.crowd(REQUESTS_OF_EACH),
        revoke
    );
    assert_eq!((of_north, of_south, of_west), (0, 0, 0));
    assert_eq!(upstream.unauthorized_by_revocation(revocation), all);

    // A stream: each piece must come back before the next is sent. In its midst the gateway is told to stop.
    let mut stream = north.echo().await?;
    assert!(stream.pass("one piece").await?);
    drop(stop);
    while balancer.get("/ready").await?.status() == StatusCode::OK {}
    drop(noticed);
    while balancer.get("/ready").await.is_ok() {}
    assert!(stream.pass("and another").await?);
    assert!(stream.finish().await?);
    running.await??;

    assert_eq!(upstream.counts().crossed, 0);
    // One for the gateway and each tenant, and one more for each after the revocation.
    assert_eq!(server.counts().tokens, 2 * (TENANTS.len() as u64 + 1));
    assert_eq!(server.active_tokens(), 0);
    Ok(())
}
