//! A service that calls an API in the names of a thousand tenants, each with credentials and a rate limit of its own.

mod crowd;

use std::time::Duration;

use http::{Request, Response};
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceBuilder};
use tower_oauth2::grants::Revocation;
use tower_oauth2::retry::ResponseBody;
use tower_oauth2::tenants::TenantCaches;
use tower_oauth2::test_util::{FakeAuthorizationServer, FakeAuthorizationServerBuilder, FakeClient};
use tower_oauth2::{AuthLayer, Body, ClientCredentials, RetryPolicy, TokenCache};

use crate::servers::Api;
use crowd::{at_once, in_turn};

const TENANTS: usize = 1_000;
const REQUESTS_OF_EACH: usize = 20;
/// The API serves so many requests a second of tenant 0, then it responds with 429 and `Retry-After: 1`.
const LIMIT: u32 = 10;
/// A tenant without a request for so long is forgotten until its next one.
const IDLE: Duration = Duration::from_secs(2);

/// Calls an API in the name of a tenant.
struct OnBehalf {
    api: String,
    /// One cache for each tenant, made when its first request comes.
    caches: TenantCaches<String>,
    /// One client for all of them.
    client: ApiClient,
}

type ApiClient = BoxCloneSyncService<Request<Body>, Response<ResponseBody<Body>>, BoxError>;

impl OnBehalf {
    fn new(api: &Api, server: &FakeAuthorizationServer) -> Result<Self, BoxError> {
        // Tenants share the way to the authorization server.
        let transport = ServiceBuilder::new().concurrency_limit(32).service(server.clone());
        let (token_url, revocation_url) = (server.token_url(), server.revocation_url());
        let caches = TenantCaches::builder(move |tenant: &String| {
            // All tenants begin at the same time here, so a late response means a full server, not a lost request.
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
            .layer(AuthLayer::per_request([api.origin()])?)
            .concurrency_limit(128)
            .service(api.service());
        Ok(Self {
            api: api.origin(),
            caches: caches.idle_after(IDLE).build()?,
            client: BoxCloneSyncService::new(client),
        })
    }

    /// Makes a request of a tenant: with a token of its own cache, and with waits for its own rate limit alone.
    fn request(&self, tenant: &str, item: usize) -> Result<Request<Body>, BoxError> {
        let url = format!("{}/tenants/{tenant}/items/{item}", self.api);
        let mut request = Request::get(url).body(Body::empty())?;
        self.caches.authorize(request.extensions_mut(), tenant)?;
        Ok(request)
    }
}

/// Stands for the place where you keep them.
fn secret_of(tenant: &str) -> String {
    format!("the secret of {tenant}")
}

#[tokio::test(start_paused = true)]
async fn each_tenant_has_its_own_token_and_its_own_rate_limit() -> Result<(), BoxError> {
    let client = |name: String| FakeClient::confidential(&name, secret_of(&name)).scopes("items:read");
    let clients = (0..TENANTS).map(name).map(client);
    let server =
        clients.fold(FakeAuthorizationServer::builder(), FakeAuthorizationServerBuilder::client).build();
    let api = Api::builder(&server).limit_for(name(0), LIMIT).build();
    let service = OnBehalf::new(&api, &server)?;

    // All at once, 20 requests of each.
    let all = at_once(&service, (0..TENANTS * REQUESTS_OF_EACH).map(|number| number % TENANTS)).await?;
    assert_eq!((all.requests, all.failed), (TENANTS * REQUESTS_OF_EACH, 0));
    assert_eq!((service.caches.len(), server.counts().token_requests), (TENANTS, TENANTS as u64));

    // Tenant 0 wants more than it may. Its requests wait, those of tenant 1 do not.
    let eager = at_once(&service, std::iter::repeat_n(0, 30));
    let neighbour = in_turn(&service, std::iter::repeat_n(1, 20));
    let (eager, neighbour) = tokio::try_join!(eager, neighbour)?;
    assert_eq!((eager.failed, neighbour.failed), (0, 0));
    assert!(api.counts().limited > 0 && eager.took >= Duration::from_secs(1), "{:?}", eager.took);
    assert!(neighbour.took < Duration::from_secs(1), "{:?}", neighbour.took);

    // In a quiet time all are forgotten. Then some come back.
    tokio::time::sleep(2 * IDLE).await;
    let back = at_once(&service, 0..100).await?;
    assert_eq!((back.failed, service.caches.len()), (0, back.requests));

    // At the end the tokens that are left are revoked.
    service.caches.shutdown(Duration::from_secs(10)).await?;
    assert_eq!(server.counts().revocations, back.requests as u64);
    assert_eq!(api.counts().crossed, 0);
    Ok(())
}

fn name(tenant: usize) -> String {
    format!("tenant-{tenant}")
}
