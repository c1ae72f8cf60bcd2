//! A service that calls an API in the names of a thousand tenants, each with credentials and a rate limit of its own.
//!
//! ```sh
//! cargo run --example multi_tenant
//! ```
//!
//! The API knows which token came for which tenant, and the authorization server how often it was asked. The exit code is
//! 1 if a request failed or met another tenant's token, if a token was asked for twice, if the limit of one tenant held up
//! another, if tenants who were quiet were not forgotten, or if a token outlived the shutdown.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a program that measures and prints")]

#[path = "multi_tenant/crowd.rs"]
mod crowd;
#[path = "../support/servers/mod.rs"]
mod support;

use std::process::ExitCode;
use std::time::Duration;

use http::{Request, Response};
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceBuilder};
use tower_oauth2::grants::Revocation;
use tower_oauth2::retry::ResponseBody;
use tower_oauth2::tenants::TenantCaches;
use tower_oauth2::test_util::{FakeAuthorizationServer, FakeAuthorizationServerBuilder, FakeClient};
use tower_oauth2::transport::{HyperClient, HyperResponseBody};
use tower_oauth2::{AuthLayer, Body, ClientCredentials, RetryPolicy, TokenCache};

use crowd::{at_once, in_turn};
use support::Api;

const TENANTS: usize = 1_000;
const REQUESTS_OF_EACH: usize = 20;
/// The API answers so many requests a second of tenant 0, and then 429 with `Retry-After: 1`.
const LIMIT: u32 = 10;
/// A tenant without a request for so long is forgotten until its next one.
const IDLE: Duration = Duration::from_secs(2);

// --- What you write, once ---

/// Calls an API in the name of whoever it is told.
struct OnBehalf {
    api: String,
    /// One cache for each tenant, made when its first request comes.
    caches: TenantCaches<String>,
    /// One client for all of them.
    client: ApiClient,
}

type ApiClient = BoxCloneSyncService<Request<Body>, Response<ResponseBody<HyperResponseBody>>, BoxError>;

impl OnBehalf {
    fn new(api: String, token_url: String, revocation_url: String) -> Result<Self, BoxError> {
        // Tenants share the connections to the authorization server.
        let transport = ServiceBuilder::new().concurrency_limit(32).service(HyperClient::new());
        let caches = TenantCaches::builder(move |tenant: &String| {
            // All tenants begin in the same moment here, so a late response means a full server and no lost request.
            let source = ClientCredentials::builder(&token_url, tenant, secret_of(tenant))
                .scope("items:read")
                .second_attempt_after(None);
            let revocation = Revocation::builder(&revocation_url, tenant, secret_of(tenant));
            Ok(TokenCache::builder(source.build_with(transport.clone())?)
                .revoke_with(revocation.build_with(transport.clone())?)
                .revoke_at_shutdown(true))
        });
        let client = ServiceBuilder::new()
            .layer(RetryPolicy::default())
            .layer(AuthLayer::per_request([api.as_str()])?)
            .concurrency_limit(128)
            .service(HyperClient::new());
        Ok(Self { api, caches: caches.idle_after(IDLE).build()?, client: BoxCloneSyncService::new(client) })
    }

    /// Makes a request of a tenant: with a token of its own cache, and with waits for its own rate limit alone.
    fn request(&self, tenant: &str, item: usize) -> Result<Request<Body>, BoxError> {
        let url = format!("{}/tenants/{tenant}/items/{item}", self.api);
        let mut request = Request::get(url).body(Body::empty())?;
        self.caches.authorize(request.extensions_mut(), tenant)?;
        Ok(request)
    }
}

/// Stands for wherever you keep them.
fn secret_of(tenant: &str) -> String {
    format!("the secret of {tenant}")
}

// --- What others run, and what comes of it ---

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let client = |name: String| FakeClient::confidential(&name, secret_of(&name)).scopes("items:read");
    let clients = (0..TENANTS).map(name).map(client);
    let server = clients
        .fold(FakeAuthorizationServer::builder(), FakeAuthorizationServerBuilder::client)
        .start()
        .await?;
    let api = Api::builder(&server).limit_of(name(0), LIMIT).start().await?;
    let service = OnBehalf::new(api.origin(), server.token_url(), server.revocation_url())?;

    // All at once, 20 requests of each.
    let all = at_once(&service, (0..TENANTS * REQUESTS_OF_EACH).map(|number| number % TENANTS)).await?;
    let token_requests = server.counts().token_requests;
    println!("{} requests of {} tenants: {:.1?}", all.requests, service.caches.len(), all.took);

    // Tenant 0 wants more than it may. Its requests wait, those of tenant 1 do not.
    let eager = at_once(&service, std::iter::repeat_n(0, 30));
    let neighbour = in_turn(&service, std::iter::repeat_n(1, 20));
    let (eager, neighbour) = tokio::try_join!(eager, neighbour)?;
    println!("tenant 0 over its limit: {:.1?}; tenant 1 meanwhile: {:.1?}", eager.took, neighbour.took);

    // In a quiet time all are forgotten. Then some come back.
    tokio::time::sleep(2 * IDLE).await;
    let back = at_once(&service, 0..100).await?;
    let forgotten = TENANTS - service.caches.len();

    // At the end the tokens that are left are revoked.
    service.caches.shutdown(Duration::from_secs(10)).await?;
    let revoked = server.counts().revocations;

    let failed = all.failed + eager.failed + neighbour.failed + back.failed;
    let (requests, answered) = (all.requests, api.counts());
    println!(
        "multi_tenant: tenants={TENANTS} requests={requests} failed={failed} token_requests={token_requests} \
         crossed={} limited={} forgotten={forgotten} revoked={revoked}",
        answered.crossed, answered.limited
    );
    let as_it_should = (failed, answered.crossed, token_requests) == (0, 0, TENANTS as u64)
        && (answered.limited > 0 && neighbour.took < Duration::from_secs(1))
        && (forgotten, revoked) == (TENANTS - back.requests, back.requests as u64);
    Ok(if as_it_should { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn name(tenant: usize) -> String {
    format!("tenant-{tenant}")
}
