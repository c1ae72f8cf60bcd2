//! Token revocation (RFC 7009): a token is taken back before its end.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use crate::error::Error;
use crate::grants::builder::{Grant, GrantBuilder};
use crate::grants::client::auth::ClientAuth;
use crate::grants::client::secret::Secret;
use crate::grants::endpoint::client::{EndpointClient, EndpointRequest};
use crate::grants::endpoint::deadline::Deadline;
use crate::grants::endpoint::location::Endpoint;
use crate::grants::parameters::Parameters;
use crate::grants::response::body::{Body, EndpointResponse};
use crate::grants::response::codes::{self, Subject};
use crate::grants::response::expected::{EndpointKind, Expected, Terms};
use crate::grants::response::refused::Refused;
use crate::revoke::TokenRevoker;
use crate::text::Redactor;
use crate::token::AccessToken;

/// Revokes tokens at a revocation endpoint (RFC 7009).
///
/// Cheap to clone. A [`TokenCache`](crate::TokenCache) revokes with it on request and, if it is told to, in its shutdown:
/// see [`revoke_with`](crate::cache::TokenCacheBuilder::revoke_with).
///
/// 1. The refresh token goes first, if there is one: with it, most servers end the access tokens of the same grant.
/// 2. Every 2xx is a success, with any body: the server knows the token no longer, or never did. So is a 400
///    `invalid_token`, and every other code or description that says that the token has ended.
/// 3. After 503, 429, every other 5xx and no response the token counts as still valid. The request is repeated as the
///    builder says and `Retry-After` asks. If the wait is too long, the error says until when.
/// 4. Everything else is final. `unsupported_token_type` for the access token is a success if the refresh token was revoked:
///    that is all such a server offers.
/// 5. Tokens stand in the form, never in the URL.
///
/// # Cancel safety
///
/// Dropping a revocation drops its request: the token may be revoked or not, and can be revoked again.
///
/// # Examples
///
/// ```
/// use tower_oauth2::grants::Revocation;
/// use tower_oauth2::{ClientCredentials, Secret, TokenCache};
/// # use bytes::Bytes;
/// # let http_client = tower::service_fn(|_request: http::Request<tower_oauth2::Body>| async {
/// #     Ok::<_, tower::BoxError>(http::Response::new(tower_oauth2::Body::empty()))
/// # });
///
/// let secret = Secret::from_env("BILLING_SECRET");
/// let revocation = Revocation::builder("https://login.example.com/oauth/revoke", "billing", secret.clone())
///     .build_with(http_client.clone())?;
/// let source = ClientCredentials::builder("https://login.example.com/oauth/token", "billing", secret)
///     .build_with(http_client)?;
/// let cache = TokenCache::builder(source).revoke_with(revocation).revoke_at_shutdown(true).build();
/// # let _ = cache;
/// # Ok::<(), tower_oauth2::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Revocation {
    client: Arc<EndpointClient>,
}

impl Revocation {
    /// Starts with what is required: the revocation endpoint, the client, and how it authenticates.
    ///
    /// Scopes, audiences and resources are refused when it is built.
    pub fn builder(
        endpoint: impl Into<Endpoint>,
        client_id: impl Into<String>,
        auth: impl Into<ClientAuth>,
    ) -> GrantBuilder<Self> {
        let terms =
            Terms { kind: EndpointKind::Revocation, own: &["token", "token_type_hint"], ..Terms::default() };
        GrantBuilder::new(endpoint, terms, ()).client(client_id, auth)
    }

    /// Revokes one of the secrets of a token.
    async fn revoke_one(
        &self,
        secret: &SecretString,
        hint: &'static str,
        token: &AccessToken,
    ) -> Result<(), Error> {
        let client = &self.client;
        let mut parameters = Parameters::default();
        parameters.push_secret("token", Secret::of(secret.clone()));
        parameters.push("token_type_hint", hint);
        parameters.extend(client.parameters.clone());
        let mut redactor = Redactor::default();
        token.teach(&mut redactor);
        let outgoing =
            EndpointRequest { parameters: &parameters, doubt: None, deadline: Deadline::default(), read };
        let Err(Refused { error, .. }) = client.send(&outgoing, redactor).await else { return Ok(()) };
        if error.is_temporary() {
            let line = format!("{error}; the token counts as still valid");
            return Err(error.reworded(line));
        }
        Err(error)
    }
}

impl TokenRevoker for Revocation {
    async fn revoke(&self, token: AccessToken) -> Result<(), Error> {
        let access_token = || self.revoke_one(token.secret(), "access_token", &token);
        let Some(refresh_token) = token.refresh_secret() else { return access_token().await };
        let refresh_token = self.revoke_one(refresh_token, "refresh_token", &token).await;
        // The server asked to be left alone.
        if refresh_token.as_ref().is_err_and(Error::is_throttled) {
            return refresh_token;
        }
        match access_token().await {
            // The end of the refresh token is that of the grant, and more than that the server does not offer.
            Err(error) if refresh_token.is_ok() && error.code() == Some("unsupported_token_type") => Ok(()),
            access_token => refresh_token.and(access_token),
        }
    }
}

impl Grant for Revocation {
    type Settings = ();

    fn assemble((): (), client: EndpointClient) -> Result<Self, Error> {
        let is_set = |name: &&str| client.parameters.names().any(|set| set == *name);
        if let Some(name) = ["scope", "audience", "resource"].into_iter().find(is_set) {
            return Err(Error::config(format!("{name}: a revocation has none; remove it")));
        }
        Ok(Self { client: Arc::new(client) })
    }
}

/// Reads a response (RFC 7009 §2.2): a success says all by its status.
fn read(
    response: &EndpointResponse,
    expected: &Expected,
    redactor: &mut Redactor,
    now: Duration,
) -> Result<(), Refused> {
    if response.status.is_success() {
        return Ok(());
    }
    let body = Body::read(response);
    body.teach(redactor);
    // RFC 7009 §2.2 has a success for a token that is none any more; some servers say that it is none.
    let may_say_so = matches!(response.status.as_u16(), 400 | 404 | 410 | 422);
    let said = || body.string("error_description").unwrap_or_default();
    if may_say_so && body.error_code().is_some_and(|code| is_dead(&code, &said())) {
        return Ok(());
    }
    Err(Refused::by_response(response, &body, expected, redactor, now))
}

/// The words of an error about a token that is none any more.
const DEAD: [&str; 6] = [
    "already revoked",
    "already been revoked",
    "token not found",
    "token has been revoked",
    "token is revoked",
    "token was revoked",
];

/// With these words another token is meant, or none.
const ALIVE: [&str; 4] = ["token not found in", "csrf token", " no token", " no refresh token"];

/// Returns whether a code, or its description, says that a token is none any more.
fn is_dead(code: &str, description: &str) -> bool {
    let words = codes::plain(&format!("{code} {description}"));
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| words.contains(phrase));
    matches!(code, "invalid_token" | "expired_token" | "token_expired" | "token_revoked")
        || (codes::subject(code) != Subject::Client && says(&DEAD) && !says(&ALIVE))
}
