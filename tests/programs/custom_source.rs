//! A source of tokens that is not an OAuth server: a vault that leases them. A lease can be renewed once, is taken back without
//! a word, and is given back at the end.

mod vault;

use std::time::Duration;

use axum::Router;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::{BoxError, ServiceBuilder, ServiceExt as _};
use tower_oauth2::{
    AccessToken, AuthLayer, Body, Error, ErrorKind, FetchReason, RetryPolicy, TokenCache, TokenRequest,
    TokenRevoker, TokenSource,
};

use vault::{ORIGIN, VaultServer};

/// The member of a token that holds the name of its lease.
const LEASE: &str = "lease_id";

/// The source: the client to ask the vault with.
#[derive(Clone)]
struct Vault {
    http: Router,
}

impl TokenSource for Vault {
    async fn token(&self, request: TokenRequest) -> Result<AccessToken, Error> {
        // A token that expires can be renewed, though not for ever. One that an API refused cannot.
        if let (FetchReason::Expiring, Some(lease)) = (request.reason(), lease_of(request.previous()))
            && let Some(renewed) = self.ask(Method::PUT, &format!("leases/{lease}")).await?
        {
            return token_of(&renewed);
        }
        let leased = self.ask(Method::POST, "leases").await?;
        token_of(
            &leased
                .ok_or_else(|| Error::new(ErrorKind::Grant, "the vault leases nothing; ask for its role"))?,
        )
    }
}

/// Leases are given back at the end, not left to run out.
impl TokenRevoker for Vault {
    async fn revoke(&self, token: AccessToken) -> Result<(), Error> {
        let Some(lease) = lease_of(Some(&token)) else { return Ok(()) };
        self.ask(Method::DELETE, &format!("leases/{lease}")).await.map(drop)
    }
}

impl Vault {
    /// Asks the vault. Returns nothing if there is no such lease, or none that it renews.
    async fn ask(&self, method: Method, path: &str) -> Result<Option<Value>, Error> {
        let unreachable = |error: BoxError| {
            Error::new(ErrorKind::Transient, "the vault did not respond; is it unsealed?").with_source(error)
        };
        let request = Request::builder().method(method).uri(format!("{ORIGIN}/{path}"));
        let request = request.body(Body::empty()).map_err(|error| unreachable(error.into()))?;
        let response = self.http.clone().oneshot(request).await.map_err(|error| unreachable(error.into()))?;
        let status = response.status();
        let body =
            response.into_body().collect().await.map_err(|error| unreachable(error.into()))?.to_bytes();
        match status {
            StatusCode::NOT_FOUND | StatusCode::CONFLICT => Ok(None),
            status if status.is_success() => Ok(Some(serde_json::from_slice(&body).unwrap_or_default())),
            // Never what the vault wrote: a token could be in it.
            status if status.is_server_error() => {
                Err(Error::new(ErrorKind::Transient, "the vault fails; is it unsealed?").with_status(status))
            }
            // Asking again would not help.
            status => {
                let line = "the vault refuses; check its policy and what this service shows to it";
                Err(Error::new(ErrorKind::Config, line).with_status(status))
            }
        }
    }
}

fn lease_of(token: Option<&AccessToken>) -> Option<&str> {
    token?.expose_extra(LEASE)
}

fn token_of(lease: &Value) -> Result<AccessToken, Error> {
    let (Some(id), Some(token), Some(seconds)) =
        (lease["id"].as_str(), lease["token"].as_str(), lease["seconds"].as_u64())
    else {
        return Err(Error::new(ErrorKind::Protocol, "the vault leased something else than a token"));
    };
    Ok(AccessToken::bearer(token)?.with_lifetime(Duration::from_secs(seconds)).with_extra(LEASE, id))
}

#[tokio::test(start_paused = true)]
async fn leases_are_renewed_replaced_and_given_back() -> Result<(), BoxError> {
    let server = VaultServer::new();
    let vault = Vault { http: server.service() };
    let cache = TokenCache::builder(vault.clone()).revoke_with(vault).revoke_at_shutdown(true).build();
    let client = ServiceBuilder::new()
        .layer(RetryPolicy::default())
        .layer(AuthLayer::for_origin(cache.clone(), ORIGIN)?)
        .service(server.service());

    for number in 0..200 {
        if number == 100 {
            // The cache is not told. A request meets a 401, another token is leased, and the request is sent again.
            server.take_back();
        }
        let request = Request::get(format!("{ORIGIN}/report")).body(Body::empty())?;
        assert_eq!(client.clone().oneshot(request).await?.status(), 200, "request {number}");
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    assert!(server.counts().open > 0);
    cache.shutdown(Duration::from_secs(5)).await?;

    let counts = server.counts();
    assert_eq!((counts.refused, counts.open), (1, 0));
    assert!(counts.leases > 2 && counts.renewals > 0, "{counts:?}");
    Ok(())
}
