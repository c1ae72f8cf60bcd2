//! A user signs in once, by a device flow; from then on a service lives on the refresh token.
//!
//! `cargo run --example refresh_token` starts its own servers, whose access tokens live for 2 s and whose refresh tokens
//! are good for once. The login is made by the `oauth2` crate. What came of it is handed over, and after that the access
//! tokens expire and are revoked, the refresh tokens are rotated and stored, and no request fails. Then a second process,
//! so to speak, begins with what was stored.
//!
//! With servers of your own (all of these, `CLIENT_SECRET` empty for a public client; `SCOPE` is optional):
//! `TOKEN_URL=… DEVICE_URL=… CLIENT_ID=… CLIENT_SECRET=… API_URL=… SCOPE="offline_access …" cargo run --example refresh_token`

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "an example shows what it does, on real clocks"
)]

#[path = "../support/servers/mod.rs"]
mod support;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt as _, Full};
use oauth2::basic::BasicClient;
use oauth2::{
    AuthType, ClientId, DeviceAuthorizationUrl, HttpRequest, HttpResponse, Scope,
    StandardDeviceAuthorizationResponse, TokenUrl,
};
use support::Api;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};
use tower::{BoxError, ServiceBuilder, ServiceExt as _};
use tower_oauth2::auth::AuthService;
use tower_oauth2::grants::{GrantBuilder, read_token_response};
use tower_oauth2::retry::RetryService;
use tower_oauth2::test_util::{FakeAuthorizationServer, FakeClient};
use tower_oauth2::transport::HyperClient;
use tower_oauth2::{
    AccessToken, AuthLayer, Body, ClientAuth, Origin, RefreshTokenGrant, RetryPolicy, TokenCache,
};

/// How long requests are sent, and how many per second.
const SPAN: Duration = Duration::from_secs(6);
const PACE: u32 = 50;

/// What requests go through: retries outside, tokens inside, an HTTP client at the core.
type ApiClient = RetryService<AuthService<HyperClient>>;

/// Where refresh tokens are kept: a file, a vault or a table, elsewhere than here.
type Store = Arc<Mutex<String>>;

/// The servers, and what the client is to them.
struct Place {
    token_url: String,
    device_url: String,
    client_id: String,
    client_secret: String,
    api_url: Uri,
    scope: String,
}

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    match Place::from_env()? {
        Some(place) => {
            let (sent, failed, rotations) = live(&place, None).await?;
            println!("refresh_token: requests={sent} failed={failed} rotations={rotations}");
            Ok(if sent > 0 && failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        None => with_own_servers().await,
    }
}

/// Lives with servers that count, and judges by what they counted.
async fn with_own_servers() -> Result<ExitCode, BoxError> {
    let phone = FakeClient::public("phone").scopes("items:read offline_access");
    let server =
        FakeAuthorizationServer::builder().client(phone).lifetime(Duration::from_secs(2)).start().await?;
    let api = Api::builder(&server).start().await?;
    let place = Place {
        token_url: server.token_url(),
        device_url: server.device_url(),
        client_id: "phone".into(),
        client_secret: String::new(),
        api_url: format!("{}/items/7", api.origin()).parse()?,
        scope: "items:read offline_access".into(),
    };
    let (sent, failed, rotations) = live(&place, Some(&server)).await?;
    let counts = server.counts();
    println!(
        "refresh_token: requests={sent} failed={failed} rotations={rotations} replayed_401={} reuses={} refused={}",
        api.counts().unauthorized,
        counts.reuses,
        // While nobody has agreed, a device is refused: that is what it asks for.
        counts.refusals,
    );
    let is_right = sent == u64::from(PACE) * SPAN.as_secs() + 1
        && failed == 0
        && counts.reuses == 0
        && (3..=10).contains(&rotations)
        // The login, and one for each rotation.
        && counts.tokens == rotations + 1
        && api.counts().ok == sent;
    Ok(if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Signs in, sends requests, starts again. Returns how many were sent, how many failed, and how many refresh tokens came.
async fn live(place: &Place, server: Option<&FakeAuthorizationServer>) -> Result<(u64, u64, u64), BoxError> {
    let login = sign_in(place, server.is_some()).await?;
    let store = Store::default();
    let rotations = Arc::new(Mutex::new(0));
    if let Some(refresh_token) = login.expose_refresh_token() {
        *store.lock().unwrap_or_else(PoisonError::into_inner) = refresh_token.to_owned();
    }

    // What you write: the source begins with the login, and stores what comes after it.
    let source = place.source(&store, &rotations).access_token(login).build()?;
    if !source.has_refresh_token() {
        return Err(
            "no refresh token was granted; does the client ask for offline_access, and may it?".into()
        );
    }
    let cache = TokenCache::new(source);
    let (mut sent, mut failed) = send_steadily(place, &cache, server).await?;
    cache.shutdown(Duration::from_secs(5)).await?;

    // The next process begins with what this one stored.
    let cache = TokenCache::new(place.source(&store, &rotations).build()?);
    sent += 1;
    failed += u64::from(!send(&place.client(&cache)?, &place.api_url).await);
    let rotations = *rotations.lock().unwrap_or_else(PoisonError::into_inner);
    Ok((sent, failed, rotations))
}

async fn send_steadily(
    place: &Place,
    cache: &TokenCache,
    server: Option<&FakeAuthorizationServer>,
) -> Result<(u64, u64), BoxError> {
    let client = place.client(cache)?;
    let mut running = JoinSet::new();
    let mut ticks = interval(Duration::from_secs(1) / PACE);
    let end = u64::from(PACE) * SPAN.as_secs();
    for number in 0..end {
        ticks.tick().await;
        if let Some(server) = server.filter(|_| number == end / 2) {
            // Nobody tells the client.
            server.revoke_all();
            println!("(all access tokens are revoked)");
        }
        let (client, url) = (client.clone(), place.api_url.clone());
        running.spawn(async move { send(&client, &url).await });
    }
    let answers = running.join_all().await;
    Ok((end, answers.iter().map(|is_ok| u64::from(!is_ok)).sum()))
}

/// Sends one request, and says what was wrong if it fails.
async fn send(client: &ApiClient, url: &Uri) -> bool {
    let Ok(request) = Request::get(url).body(Body::empty()) else { return false };
    match client.clone().oneshot(request).await {
        Ok(answer) if answer.status().is_success() => true,
        Ok(answer) => {
            println!("failed: {}", answer.status());
            false
        }
        Err(error) => {
            println!("failed: {error}");
            false
        }
    }
}

// --- The login ---

/// Walks a device flow (RFC 8628) by the `oauth2` crate, and reads what came of it.
async fn sign_in(place: &Place, agrees_by_itself: bool) -> Result<AccessToken, BoxError> {
    let mut client = BasicClient::new(ClientId::new(place.client_id.clone()));
    if !place.client_secret.is_empty() {
        client = client.set_client_secret(oauth2::ClientSecret::new(place.client_secret.clone()));
    }
    let client = client
        .set_auth_type(AuthType::BasicAuth)
        .set_token_uri(TokenUrl::new(place.token_url.clone())?)
        .set_device_authorization_url(DeviceAuthorizationUrl::new(place.device_url.clone())?);
    let http_client = HyperClient::new();
    let http = |request: HttpRequest| exchange(http_client.clone(), request);

    let scopes = place.scope.split_whitespace().map(|scope| Scope::new(scope.to_owned()));
    let device: StandardDeviceAuthorizationResponse =
        client.exchange_device_code().add_scopes(scopes).request_async(&http).await?;
    println!(
        "sign in at {} with the code {}",
        device.verification_uri().as_str(),
        device.user_code().secret()
    );
    let user = async {
        if agrees_by_itself {
            sleep(Duration::from_millis(300)).await;
            agree(device.verification_uri().as_str(), device.user_code().secret()).await?;
            println!("(somebody does)");
        }
        Ok::<_, BoxError>(())
    };
    let token = client.exchange_device_access_token(&device);
    let (token, agreed) = tokio::join!(token.request_async(&http, sleep, None), user);
    agreed?;
    // The types of the `oauth2` crate end here.
    Ok(read_token_response(serde_json::to_vec(&token?)?)?)
}

/// What the page of the server sends when its user agrees.
async fn agree(url: &str, user_code: &str) -> Result<(), BoxError> {
    let form = form_urlencoded::Serializer::new(String::new()).append_pair("user_code", user_code).finish();
    let request = Request::post(url)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from(form))?;
    let answer = HyperClient::new().oneshot(request).await?;
    if answer.status().is_success() {
        Ok(())
    } else {
        Err(format!("{url} answered {}", answer.status()).into())
    }
}

/// An HTTP client as the `oauth2` crate wants one.
async fn exchange(client: HyperClient, request: HttpRequest) -> Result<HttpResponse, ExchangeError> {
    let request = request.map(|body| Full::new(Bytes::from(body)));
    let (head, body) = client.oneshot(request).await.map_err(ExchangeError)?.into_parts();
    let body = body.collect().await.map_err(ExchangeError)?.to_bytes();
    Ok(http::Response::from_parts(head, body.to_vec()))
}

/// It wants an error that is one by its type.
#[derive(Debug)]
struct ExchangeError(BoxError);

impl std::fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for ExchangeError {}

// --- Place ---

impl Place {
    /// Reads the environment; `None` if it names no servers at all.
    fn from_env() -> Result<Option<Self>, BoxError> {
        const NEEDED: [&str; 5] = ["TOKEN_URL", "DEVICE_URL", "CLIENT_ID", "CLIENT_SECRET", "API_URL"];
        let missing: Vec<&str> = NEEDED.into_iter().filter(|name| std::env::var_os(name).is_none()).collect();
        if missing.len() == NEEDED.len() {
            return Ok(None);
        }
        if !missing.is_empty() {
            return Err(
                format!("not set: {}; for the servers of this example set none", missing.join(", ")).into()
            );
        }
        // The error's own text would show the value.
        let read = |name: &str| std::env::var(name).map_err(|_| format!("{name} is not UTF-8"));
        let api_url = read("API_URL")?.parse().map_err(|_| "API_URL is no URL")?;
        Ok(Some(Self {
            token_url: read("TOKEN_URL")?,
            device_url: read("DEVICE_URL")?,
            client_id: read("CLIENT_ID")?,
            client_secret: read("CLIENT_SECRET")?,
            api_url,
            scope: std::env::var("SCOPE").unwrap_or_else(|_| "offline_access".into()),
        }))
    }

    fn client(&self, cache: &TokenCache) -> Result<ApiClient, BoxError> {
        let (Some(scheme), Some(authority)) = (self.api_url.scheme(), self.api_url.authority()) else {
            return Err("API_URL names no host; give the whole URL".into());
        };
        let origin = Origin::parse(&format!("{scheme}://{authority}"))?;
        Ok(ServiceBuilder::new()
            .layer(RetryPolicy::default())
            .layer(AuthLayer::for_origin(cache, origin)?)
            .service(HyperClient::new()))
    }

    fn source(&self, store: &Store, rotations: &Arc<Mutex<u64>>) -> GrantBuilder<RefreshTokenGrant> {
        let stored = store.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let auth = match self.client_secret.as_str() {
            "" => ClientAuth::none(),
            secret => ClientAuth::basic(secret),
        };
        let (store, rotations) = (Arc::clone(store), Arc::clone(rotations));
        RefreshTokenGrant::builder(&self.token_url, &self.client_id, auth).refresh_token(stored).on_rotate(
            move |token| {
                // Awaited before the access token is used: a crash after this finds a token that is good.
                *store.lock().unwrap_or_else(PoisonError::into_inner) =
                    token.expose_refresh_token().to_owned();
                *rotations.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                std::future::ready(Ok(()))
            },
        )
    }
}
