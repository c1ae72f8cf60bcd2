//! An axum gateway in front of an API: callers prove to *it* who they are, and it calls on with tokens of their tenants or
//! of its own. Bodies are streamed both ways.
//!
//! ```sh
//! cargo run --example axum_gateway
//! ```
//!
//! What to write is in `axum_gateway/gateway.rs`; here is what callers and a load balancer do with it, and what the
//! servers saw. The exit code is 1 if a caller's proof came through, a request failed or met another tenant's token, a
//! stream was held up, the gateway called itself ready when it was not, a request was lost at the shutdown, or a token
//! outlived it.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a program that measures and prints")]

#[path = "axum_gateway/callers.rs"]
mod callers;
#[path = "axum_gateway/gateway.rs"]
mod gateway;
#[path = "../support/servers/mod.rs"]
mod support;

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::Duration;

use http::StatusCode;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tower::BoxError;
use tower_oauth2::grants::Revocation;
use tower_oauth2::test_util::{FakeAuthorizationServer, FakeAuthorizationServerBuilder, FakeClient};
use tower_oauth2::transport::HyperClient;
use tower_oauth2::{ClientCredentials, TokenCache};

use callers::Caller;
use gateway::Gateway;
use support::Api;

const TENANTS: [&str; 3] = ["north", "south", "west"];
const REQUESTS_OF_EACH: usize = 50;
/// How long the upstream takes to look at a token.
const THINK_TIME: Duration = Duration::from_millis(60);

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let clients = TENANTS.iter().chain(&["gateway"]).map(|name| FakeClient::confidential(*name, "hunter2"));
    let server = clients
        .fold(FakeAuthorizationServer::builder(), FakeAuthorizationServerBuilder::client)
        .latency(Duration::from_millis(300))
        .start()
        .await?;
    let upstream = Api::builder(&server).think_time(THINK_TIME).start().await?;

    // The gateway, with a token of its own and one for each tenant. At the end all are taken back.
    let (token_url, revocation_url) = (server.token_url(), server.revocation_url());
    // All share the connections to the authorization server.
    let transport = HyperClient::new();
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
    let running = tokio::spawn(gateway.run(listener, async move { drop(stopped.await) }));

    // A load balancer sends nothing before there is a token.
    let balancer = Caller::new(&url, "key-of-nobody");
    let ready_without_a_token = balancer.get("/ready").await?.status() == StatusCode::OK;
    while balancer.get("/ready").await?.status() != StatusCode::OK {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    // What proves a caller to the gateway must not come through. The upstream answers with the headers that it got.
    let (planted, kept) = Caller::new(&url, "key-of-north").planted().await?;
    let stranger = balancer.get("/mine/items/1").await?.status();
    let climber = Caller::new(&url, "key-of-north").get("/mine/%2E./south/items/1").await?.status();
    let intruder = Caller::new(&url, "key-of-north").get("/tenants/south/items/1").await?.status();

    // Requests of all tenants at once, and underway every token is revoked.
    server.set_latency(Duration::ZERO);
    let [north, south, west] = TENANTS.map(|tenant| Caller::new(&url, format!("key-of-{tenant}")));
    let mut failed = north.crowd(1).await + south.crowd(1).await + west.crowd(1).await;
    let revoke = async {
        tokio::time::sleep(THINK_TIME / 2).await;
        server.revoke_all()
    };
    let (of_north, of_south, of_west, revocation) = tokio::join!(
        north.crowd(REQUESTS_OF_EACH),
        south.crowd(REQUESTS_OF_EACH),
        west.crowd(REQUESTS_OF_EACH),
        revoke
    );
    failed += of_north + of_south + of_west;
    let refused = upstream.met_revocation(revocation);

    // A stream: each piece must come back before the next is sent. In its midst the gateway is told to stop.
    let mut stream = north.echo().await?;
    let mut echoed = usize::from(stream.pass("one piece").await?);
    drop(stop);
    while balancer.get("/ready").await?.status() == StatusCode::OK {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    while balancer.get("/ready").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    echoed += usize::from(stream.pass("and another").await?);
    echoed += usize::from(stream.finish().await?);
    running.await??;

    let (tokens, seen) = (server.counts(), upstream.counts());
    let outlived = server.active_tokens();
    println!(
        "axum_gateway: requests={} failed={failed} replayed={refused} crossed={} secrets_passed_on={planted} others_passed_on={kept} \
         stream_pieces={echoed} tokens={} outlived={outlived}",
        TENANTS.len() * (REQUESTS_OF_EACH + 1),
        seen.crossed,
        tokens.tokens
    );
    let as_it_should = (failed, seen.crossed, planted, kept, echoed, outlived) == (0, 0, 0, 1, 3, 0)
        && (stranger, climber) == (StatusCode::UNAUTHORIZED, StatusCode::BAD_REQUEST)
        && intruder == StatusCode::NOT_FOUND
        // One for the gateway and each tenant, and one more for each after the revocation.
        && (refused > 0 && tokens.tokens == 2 * (TENANTS.len() as u64 + 1))
        && !ready_without_a_token;
    Ok(if as_it_should { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
