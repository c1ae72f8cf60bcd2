//! A user signs in once, by a device flow of the `oauth2` crate. From then on a service lives on the refresh token, which is
//! rotated and stored, and a second process begins with what was stored.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full};
use oauth2::basic::BasicClient;
use oauth2::{
    AuthType, ClientId, DeviceAuthorizationUrl, HttpRequest, HttpResponse, Scope,
    StandardDeviceAuthorizationResponse, TokenUrl,
};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};
use tower::{BoxError, ServiceBuilder, ServiceExt as _};
use tower_oauth2::grants::{GrantBuilder, read_token_response};
use tower_oauth2::test_util::{FakeAuthorizationServer, FakeClient};
use tower_oauth2::{
    AccessToken, AuthLayer, Body, ClientAuth, Error, ErrorKind, RefreshTokenGrant, RetryPolicy, TokenCache,
};

use crate::servers::Api;

/// How many requests are sent in all by the first process, and how many per second.
const REQUESTS: u32 = 300;
const PER_SECOND: u32 = 50;

/// Stands for a file, a vault or a table: the refresh token, and how often it was replaced.
type Store = Arc<Mutex<(String, u64)>>;

#[tokio::test(start_paused = true)]
async fn a_service_lives_on_its_rotated_refresh_tokens() -> Result<(), BoxError> {
    let phone = FakeClient::public("phone").scopes("items:read offline_access");
    let server = FakeAuthorizationServer::builder().client(phone).lifetime(Duration::from_secs(2)).build();
    let api = Api::builder(&server).build();
    let login = sign_in(&server).await?;
    let store = Store::default();
    store.lock().unwrap().0 = login.expose_refresh_token().ok_or("no refresh token was granted")?.to_owned();

    // The source begins with the login, and stores what comes after it.
    let cache = TokenCache::new(source(&server, &store).access_token(login).build_with(server.clone())?);
    let mut running = JoinSet::new();
    let mut ticks = interval(Duration::from_secs(1) / PER_SECOND);
    for number in 0..REQUESTS {
        ticks.tick().await;
        if number == REQUESTS / 2 {
            server.revoke_all();
        }
        running.spawn(send(api.clone(), cache.clone()));
    }
    for sent in running.join_all().await {
        sent?;
    }
    cache.shutdown(Duration::from_secs(5)).await?;

    // The next process begins with what this one stored.
    let cache = TokenCache::new(source(&server, &store).build_with(server.clone())?);
    send(api.clone(), cache).await?;

    let (counts, rotations) = (server.counts(), store.lock().unwrap().1);
    assert_eq!(api.counts().ok, u64::from(REQUESTS) + 1);
    assert_eq!(api.counts().unauthorized, 1);
    assert_eq!(counts.reuses, 0);
    // A token lives for 2 s, is renewed ahead of that, and is revoked once.
    assert!((3..=10).contains(&rotations), "{rotations}");
    // The login, and one for each rotation.
    assert_eq!(counts.tokens, rotations + 1);
    Ok(())
}

fn source(server: &FakeAuthorizationServer, store: &Store) -> GrantBuilder<RefreshTokenGrant> {
    let (stored, store) = (store.lock().unwrap().0.clone(), Arc::clone(store));
    let builder = RefreshTokenGrant::builder(server.token_url(), "phone", ClientAuth::none());
    builder.refresh_token(stored).on_rotate(move |token| {
        // Awaited before the access token is used: a crash after this finds a token that is good.
        let mut store = store.lock().unwrap();
        *store = (token.expose_refresh_token().to_owned(), store.1 + 1);
        std::future::ready(Ok(()))
    })
}

/// Sends a request, and fails if its response is not a 2xx.
async fn send(api: Api, cache: TokenCache) -> Result<(), BoxError> {
    let client = ServiceBuilder::new()
        .layer(RetryPolicy::default())
        .layer(AuthLayer::for_origin(cache, api.origin())?)
        .service(api.service());
    let request = Request::get(format!("{}/items/7", api.origin())).body(Body::empty())?;
    match client.oneshot(request).await?.status() {
        status if status.is_success() => Ok(()),
        status => Err(status.to_string().into()),
    }
}

// --- The login ---

/// Walks a device flow (RFC 8628) by the `oauth2` crate, and reads what came of it.
async fn sign_in(server: &FakeAuthorizationServer) -> Result<AccessToken, BoxError> {
    let client = BasicClient::new(ClientId::new("phone".to_owned()))
        .set_auth_type(AuthType::BasicAuth)
        .set_token_uri(TokenUrl::new(server.token_url())?)
        .set_device_authorization_url(DeviceAuthorizationUrl::new(server.device_url())?);
    let http = |request: HttpRequest| exchange(server.clone(), request);
    let scopes = ["items:read", "offline_access"].map(|scope| Scope::new(scope.to_owned()));
    let device: StandardDeviceAuthorizationResponse =
        client.exchange_device_code().add_scopes(scopes).request_async(&http).await?;

    let user = async {
        sleep(Duration::from_millis(300)).await;
        agree(server, device.verification_uri().as_str(), device.user_code().secret()).await
    };
    let token = client.exchange_device_access_token(&device);
    let (token, agreed) = tokio::join!(token.request_async(&http, sleep, None), user);
    agreed?;
    // The types of the `oauth2` crate end here.
    Ok(read_token_response(serde_json::to_vec(&token?)?)?)
}

/// What the page of the server sends when its user agrees.
async fn agree(server: &FakeAuthorizationServer, url: &str, user_code: &str) -> Result<(), BoxError> {
    let form = form_urlencoded::Serializer::new(String::new()).append_pair("user_code", user_code).finish();
    let request = Request::post(url)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from(form))?;
    match server.clone().oneshot(request).await?.status() {
        status if status.is_success() => Ok(()),
        status => Err(format!("{url}: {status}").into()),
    }
}

/// An HTTP client as the `oauth2` crate wants one: its error is an error by its type.
async fn exchange(server: FakeAuthorizationServer, request: HttpRequest) -> Result<HttpResponse, Error> {
    let lost = |error: BoxError| Error::new(ErrorKind::Transient, "the exchange failed").with_source(error);
    let request = request.map(|body| Full::new(Bytes::from(body)));
    let (head, body) = server.oneshot(request).await.map_err(lost)?.into_parts();
    let body = body.collect().await.map_err(lost)?.to_bytes();
    Ok(http::Response::from_parts(head, body.to_vec()))
}
