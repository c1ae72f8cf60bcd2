//! Claims challenges: an API wants a token with claims that it names, and gets one.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value, json};

use crate::auth::{Challenge, Rejection};
use crate::error::Error;
use crate::grants::{ClientCredentials, GrantBuilder, Secret};
use crate::http_transport::HttpTransport;
use crate::source::{TokenRequest, TokenSource};
use crate::token::AccessToken;

/// Responds to the claims challenges of one API: what its 401 asks for goes into the next token request.
///
/// A client by `Entra::connect` has it. Elsewhere the [source](Self::source) and the [rule](Self::rule) share one:
///
/// 1. Each token request says that the client knows claims challenges (`xms_cc` with `cp1`). Without that Entra issues no tokens
///    that are challenged.
/// 2. A 401 with one challenge of `insufficient_claims` counts as a rejection of the token. Its claims go into the next token
///    requests, until one of them succeeds.
/// 3. The retry layer sends the request again, as after any rejected token.
/// 4. A response with several challenges that name claims, or with claims that cannot be read, is returned as it is.
///
/// # Examples
///
#[cfg_attr(feature = "stack", doc = "```")]
#[cfg_attr(not(feature = "stack"), doc = "```text")]
/// use tower_oauth2::providers::entra::{ClaimsChallenge, Entra};
/// use tower_oauth2::ApiClient;
/// # use tower_oauth2::Body;
/// # let http_client = tower::service_fn(async |_: http::Request<Body>| {
/// #     Ok::<_, tower::BoxError>(http::Response::new(Body::empty()))
/// # });
///
/// let entra = Entra::with_secret("TENANT", "CLIENT-ID", "S3CR3T").scope("https://graph.microsoft.com/.default");
/// let claims = ClaimsChallenge::new();
/// let source = claims.source(entra.client_credentials()?, http_client.clone())?;
/// let graph = ApiClient::builder("https://graph.microsoft.com/v1.0", source)
///     .concurrency_limit(16)
///     .auth(|layer| layer.rejection(claims.rule()))
///     .build_with(http_client)?;
/// # let _ = graph;
/// # Ok::<(), tower_oauth2::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct ClaimsChallenge {
    /// The claims that the API asked for last, until a token was issued for them.
    asked: Arc<Mutex<Option<Map<String, Value>>>>,
}

/// A source that forgets the claims for which it got a token.
struct Challenged {
    source: ClientCredentials,
    challenge: ClaimsChallenge,
}

const CAPABILITY: &str = "cp1";

impl ClaimsChallenge {
    /// Creates it without claims.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Builds a source whose token requests have the claims that were asked for.
    ///
    /// # Errors
    ///
    /// As [`GrantBuilder::build_with`].
    pub fn source(
        &self,
        builder: GrantBuilder<ClientCredentials>,
        transport: impl HttpTransport,
    ) -> Result<impl TokenSource, Error> {
        let challenge = self.clone();
        let claims = Secret::from_fn(move || {
            let claims = challenge.parameter();
            async { Ok(claims) }
        });
        let source = builder.secret_param("claims", claims).build_with(transport)?;
        Ok(Challenged { source, challenge: self.clone() })
    }

    /// Makes the rule for `rejection` of [`AuthLayer`](crate::AuthLayer::rejection) and of the builder of an
    /// [`ApiClient`](crate::ApiClient).
    pub fn rule(&self) -> impl Fn(StatusCode, &HeaderMap) -> Rejection + Send + Sync + 'static + use<> {
        let challenge = self.clone();
        move |status, headers| match claims_of(status, headers) {
            Some(claims) => {
                challenge.set(Some(claims));
                Rejection::Token
            }
            None => Rejection::Standard,
        }
    }

    /// Returns the claims that were asked for, with the capability of the client.
    fn parameter(&self) -> String {
        let mut claims = self.asked().unwrap_or_default();
        let token = claims.entry("access_token").or_insert_with(|| json!({}));
        token["xms_cc"] = json!({ "values": [CAPABILITY] });
        Value::Object(claims).to_string()
    }

    // Every change under this lock is a single step, so what a panic leaves behind is sound.
    fn asked(&self) -> Option<Map<String, Value>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, claims: Option<Map<String, Value>>) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = claims;
    }

    /// Forgets the claims, unless others were asked for meanwhile.
    fn granted(&self, claims: Option<&Map<String, Value>>) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.as_ref() == claims {
            *asked = None;
        }
    }
}

impl fmt::Debug for ClaimsChallenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClaimsChallenge").field("is_asked", &self.asked().is_some()).finish_non_exhaustive()
    }
}

// --- Challenged ---

impl TokenSource for Challenged {
    async fn token(&self, request: TokenRequest) -> Result<AccessToken, Error> {
        let asked = self.challenge.asked();
        let token = self.source.token(request).await?;
        self.challenge.granted(asked.as_ref());
        Ok(token)
    }

    fn name(&self) -> Option<String> {
        self.source.name()
    }

    fn has_changed(&self) -> bool {
        self.source.has_changed()
    }
}

// --- Reading ---

/// Reads the claims that a response asks for. Of several challenges it is not known which one is meant.
fn claims_of(status: StatusCode, headers: &HeaderMap) -> Option<Map<String, Value>> {
    if status != StatusCode::UNAUTHORIZED {
        return None;
    }
    let challenges = Challenge::read(headers);
    let mut with_claims = challenges.iter().filter(|challenge| challenge.param("claims").is_some());
    let (challenge, None) = (with_claims.next()?, with_claims.next()) else { return None };
    if challenge.scheme() != "bearer" || challenge.param("error") != Some("insufficient_claims") {
        return None;
    }
    // Both alphabets are in use, with and without padding.
    let encoded = challenge.param("claims")?.trim_end_matches('=').replace('-', "+").replace('_', "/");
    let claims: Map<String, Value> = serde_json::from_slice(&STANDARD_NO_PAD.decode(encoded).ok()?).ok()?;
    claims.get("access_token").is_none_or(Value::is_object).then_some(claims)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `{"access_token":{"nbf":{"essential":true,"value":"1700000000"}}}`
    const NBF: &str =
        "eyJhY2Nlc3NfdG9rZW4iOnsibmJmIjp7ImVzc2VudGlhbCI6dHJ1ZSwidmFsdWUiOiIxNzAwMDAwMDAwIn19fQ==";

    fn read(status: u16, challenge: &str) -> Option<String> {
        let headers = HeaderMap::from_iter([(http::header::WWW_AUTHENTICATE, challenge.parse().unwrap())]);
        claims_of(StatusCode::from_u16(status).unwrap(), &headers)
            .map(|claims| Value::Object(claims).to_string())
    }

    #[test]
    fn one_challenge_of_claims_is_read_in_either_alphabet() {
        let wanted = r#"{"access_token":{"nbf":{"essential":true,"value":"1700000000"}}}"#;
        let begin = r#"Bearer realm="", authorization_uri="https://login.entra.test", error="insufficient_claims", claims="#;
        for claims in [NBF.to_owned(), NBF.trim_end_matches('=').to_owned()] {
            assert_eq!(read(401, &format!("{begin}\"{claims}\"")).as_deref(), Some(wanted));
        }
        // `{"a":"??>>"}`, which each alphabet writes in another way.
        for claims in ["eyJhIjoiPz8+PiJ9", "eyJhIjoiPz8-PiJ9"] {
            assert_eq!(read(401, &format!("{begin}\"{claims}\"")).as_deref(), Some(r#"{"a":"??>>"}"#));
        }
    }

    #[test]
    fn what_is_no_challenge_of_claims_is_left_alone() {
        let challenge = |error: &str, claims: &str| format!("Bearer error=\"{error}\", claims=\"{claims}\"");
        for (status, challenge) in [
            (403, challenge("insufficient_claims", NBF)),
            (401, challenge("invalid_token", NBF)),
            (401, challenge("insufficient_claims", "%%")),
            (401, challenge("insufficient_claims", "W10=")),
            // `{"access_token":7}`
            (401, challenge("insufficient_claims", "eyJhY2Nlc3NfdG9rZW4iOjd9")),
            (401, challenge("insufficient_claims", NBF).replace("Bearer", "PoP")),
            (401, "Bearer error=\"insufficient_claims\"".to_owned()),
            (401, format!("{}, {}", challenge("insufficient_claims", NBF), challenge("invalid_token", NBF))),
        ] {
            assert_eq!(read(status, &challenge), None, "{status} {challenge}");
        }
    }

    #[test]
    fn claims_are_asked_for_until_a_token_was_issued_for_them() {
        let challenge = ClaimsChallenge::new();
        let capable = r#"{"access_token":{"xms_cc":{"values":["cp1"]}}}"#;
        assert_eq!(challenge.parameter(), capable);
        let claims = |value: &str| json!({ "access_token": { "nbf": value } }).as_object().cloned();
        challenge.set(claims("1"));
        let asked = challenge.asked();
        assert_eq!(challenge.parameter(), r#"{"access_token":{"nbf":"1","xms_cc":{"values":["cp1"]}}}"#);
        // Asked for while the token was on its way.
        challenge.set(claims("2"));
        challenge.granted(asked.as_ref());
        assert_eq!(challenge.asked(), claims("2"));
        challenge.granted(claims("2").as_ref());
        assert_eq!(challenge.parameter(), capable);
    }
}
