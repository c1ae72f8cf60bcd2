//! Reads a response of the token endpoint into a token or an error: a pure function of the response.
//!
//! Lenient in what servers get wrong without harm, strict where a token could be used that should not be
//! (RFC 6749 §5.1 and §5.2).

use std::collections::HashSet;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::value::RawValue;

use crate::claims::Claims;
use crate::clock;
use crate::error::Error;
use crate::grants::response::body::{Body, EndpointResponse, as_string, readable};
use crate::grants::response::expected::Expected;
use crate::grants::response::refused::Refused;
use crate::grants::response::verdict;
use crate::headers::time::{self, ServerClock};
use crate::text::Redactor;
use crate::token::{AccessToken, is_b64token};

/// Reads a token response that another program received (RFC 6749 §5.1), such as an interactive login: the text of
/// a JSON object, or what another crate serialized.
///
/// It is read as leniently as the sources of this crate read theirs. The lifetime counts from when the token is handed
/// on, so hand it on at once.
///
/// # Errors
///
/// A protocol error if there is no bearer token in it that could be used; the error of RFC 6749 §5.2 if it holds one.
///
/// # Examples
///
/// ```
/// use tower_oauth2::grants::read_token_response;
///
/// let token = read_token_response(r#"{"access_token":"AT1","token_type":"bearer","expires_in":3600}"#)?;
/// assert_eq!(token.lifetime().map(|lifetime| lifetime.as_secs()), Some(3600));
/// assert!(token.expose_refresh_token().is_none());
/// # Ok::<(), tower_oauth2::Error>(())
/// ```
pub fn read_token_response(response: impl AsRef<[u8]>) -> Result<AccessToken, Error> {
    let body = Ok(readable(response.as_ref()));
    let response = EndpointResponse { status: StatusCode::OK, headers: HeaderMap::new(), body };
    let who = "the server of the token response".to_owned();
    let expected = Expected { who, url: "token URL".to_owned(), ..Expected::default() };
    read(&response, &expected, &mut Redactor::default(), clock::unix_time()).map_err(|refused| refused.error)
}

/// Reads a response. `now` is the time since the Unix epoch.
///
/// The redactor knows the secrets that were sent; it learns those of the response before any of it is shown.
pub(crate) fn read(
    response: &EndpointResponse,
    expected: &Expected,
    redactor: &mut Redactor,
    now: Duration,
) -> Result<AccessToken, Refused> {
    let mut body = Body::read(response);
    body.teach(redactor);
    body.rename(&expected.acceptance.renamed);
    body.teach(redactor);
    let is_refusal = body.error_code().is_some() || body.says_no(&expected.acceptance.refusals);
    if response.status.is_success() && !is_refusal {
        return token(&body, response, expected, redactor, now)
            .map_err(|error| unusable(&body, error, response.status));
    }
    Err(Refused::by_response(response, &body, expected, redactor, now))
}

/// A token came, or may have, and cannot be used. A refresh token beside it is good all the same.
fn unusable(body: &Body, error: Error, status: StatusCode) -> Refused {
    let refresh_token = refresh_token(body);
    let holds_token = access_token(body).is_some() || refresh_token.is_some();
    let verdict = verdict::useless(error.kind(), holds_token);
    let error = if verdict.is_proof { error } else { error.hearsay() };
    Refused { error: error.with_status(status), verdict, silence: None, refresh_token }
}

/// None and an empty one are the same.
fn access_token(body: &Body) -> Option<&RawValue> {
    body.get("access_token").filter(|raw| raw.get() != "\"\"")
}

/// None and an empty one are the same.
fn refresh_token(body: &Body) -> Option<SecretString> {
    body.string("refresh_token").filter(|refresh| !refresh.is_empty()).map(SecretString::from)
}

/// The members that have a meaning of their own. Other strings are kept as extra members of the token.
const KNOWN: [&str; 9] = [
    "access_token",
    "token_type",
    "expires_in",
    "expires_at",
    "refresh_token",
    "scope",
    "error",
    "error_description",
    "error_uri",
];

fn token(
    body: &Body,
    response: &EndpointResponse,
    expected: &Expected,
    redactor: &Redactor,
    now: Duration,
) -> Result<AccessToken, Error> {
    let status = response.status.as_u16();
    let nonsense = |what: &str| Error::protocol(format!("{} returned {status} with {what}", expected.who));
    if let Some(flaw) = &body.flaw {
        return Err(nonsense(&format!(
            "{}; is the {} right, or does a proxy or a login page stand in between?",
            redactor.clean(flaw),
            expected.url
        )));
    }
    check_type(body, &expected.acceptance.token_types, redactor).map_err(|what| nonsense(&what))?;
    let secret = access_token(body).ok_or_else(|| {
        nonsense(&format!("an object without access_token; is the {} right?", expected.url))
    })?;
    let secret = as_string(secret).ok_or_else(|| nonsense("an access_token that is not a string"))?;
    let secret = SecretString::from(secret);
    if !is_b64token(secret.expose_secret()) {
        if expected.acceptance.strict_bearer {
            return Err(nonsense(
                "an access_token outside the grammar of RFC 6750 §2.1, which the strict mode refuses",
            ));
        }
        tracing::debug!("the access token is outside the b64token grammar of RFC 6750 §2.1");
    }
    let said = granted_scopes(body, secret.expose_secret());
    let granted = said.or_else(|| {
        (!expected.acceptance.requested.is_empty()).then(|| expected.acceptance.requested.clone())
    });
    check_scopes(granted.as_deref().unwrap_or_default(), expected)?;
    let mut token = AccessToken::of("Bearer", secret)
        .map_err(|error| nonsense(&format!("a token that cannot be used: {error}")))?;
    if let Some(granted) = granted {
        token = token.with_scopes(shown_scopes(granted, expected, redactor));
    }
    // A wrong clock on this side does no harm where the server says what time it is there.
    let now = ServerClock::of(&response.headers, now).time();
    let lifetime = body.get("expires_in").and_then(|raw| good_for(raw, false, now));
    let lifetime = lifetime.or_else(|| good_for(body.get("expires_at")?, true, now));
    // An ID token in the place of an access token has its end in itself.
    let lifetime = lifetime.or_else(|| {
        let is_renamed = expected.acceptance.renamed.iter().any(|(ours, _)| ours == "access_token");
        let claims = Claims::read(token.secret().expose_secret()).filter(|_| is_renamed)?;
        Some(claims.expires?.saturating_sub(now))
    });
    token = lifetime.into_iter().fold(token, AccessToken::with_lifetime);
    if let Some(refresh) = refresh_token(body) {
        // The mark of what was not UTF-8.
        if refresh.expose_secret().contains('\u{fffd}') {
            return Err(nonsense("a refresh_token that is not UTF-8"));
        }
        token = token.refresh_secret_of(refresh);
    }
    for (name, raw) in body.members.iter().filter(|(name, _)| !KNOWN.contains(&name.as_str())) {
        if let Some(value) = as_string(raw) {
            token = token.with_extra(name, value);
        }
    }
    Ok(token)
}

/// Accepts bearer tokens alone. RFC 6749 §5.1 requires the member; servers that leave it out mean `Bearer`, and older
/// API gateways write `BearerToken`.
fn check_type(body: &Body, others: &[String], redactor: &Redactor) -> Result<(), String> {
    let name = match body.get("token_type") {
        Some(raw) => as_string(raw).ok_or("a token_type that is not a string")?,
        None => String::new(),
    };
    let mut known = ["", "bearer", "bearertoken"].into_iter().chain(others.iter().map(String::as_str));
    if known.any(|known| name.trim().eq_ignore_ascii_case(known)) {
        return Ok(());
    }
    Err(format!(
        "a token of the type {}, which cannot be sent as a bearer token; set the client up for bearer tokens at the \
         authorization server, or accept the type by token_type()",
        redactor.clean(name.trim())
    ))
}

/// Returns what was granted, from `scope` or from the claims of the token itself. None: as requested (RFC 6749 §5.1).
fn granted_scopes(body: &Body, token: &str) -> Option<Vec<String>> {
    let Some(raw) = body.get("scope") else {
        return Claims::read(token)?.scopes;
    };
    let mut granted: Vec<String> = match as_string(raw) {
        Some(text) => text.split_ascii_whitespace().map(str::to_owned).collect(),
        None => serde_json::from_str(raw.get()).ok()?,
    };
    let mut known = HashSet::new();
    granted.retain(|scope| known.insert(scope.clone()));
    Some(granted)
}

/// So many bytes of scopes are kept that were not requested.
const MOST_SCOPES: usize = 16 * 1024;

/// Scopes are kept and shown. One that was not requested and that holds a secret is an echo.
fn shown_scopes(mut granted: Vec<String>, expected: &Expected, redactor: &Redactor) -> Vec<String> {
    let is_ours = |scope: &String| {
        expected.acceptance.requested.contains(scope) || expected.acceptance.required.contains(scope)
    };
    let mut room = MOST_SCOPES;
    granted.retain(|scope| {
        let left = room.checked_sub(scope.len() + 1).filter(|_| !is_ours(scope));
        room = left.unwrap_or(room);
        left.is_some() || is_ours(scope)
    });
    let others: Vec<&str> = granted.iter().filter(|scope| !is_ours(scope)).map(String::as_str).collect();
    let mut found = redactor.finds_each(&others).into_iter();
    granted.retain(|scope| is_ours(scope) || found.next() == Some(false));
    granted
}

fn check_scopes(granted: &[String], expected: &Expected) -> Result<(), Error> {
    // GitHub separates with commas, which a scope of others may hold.
    let has =
        |want: &str| granted.iter().any(|scope| scope == want || scope.split(',').any(|part| part == want));
    let missing: Vec<&str> =
        expected.acceptance.required.iter().map(String::as_str).filter(|want| !has(want)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::config(format!(
        "{} granted a token without the required scopes {}: allow them to the client at the authorization server, and \
         ask for them",
        expected.who,
        missing.join(" ")
    )))
}

/// A lifetime that is a point in time would be one of decades. It counts as one if it lies within so many years from now.
const NEAR: Duration = Duration::from_secs(20 * 365 * 86_400);

/// Reads how long a token is good for, as number, float or string, also with units (`3600s`). Text that makes no sense counts as
/// absent; a negative life is over. A point in time may be that of RFC 3339 or of RFC 9110 §5.6.7, or seconds or less since the
/// Unix epoch; some servers give one in place of a lifetime, or a lifetime in its place. `is_end` says that it should be a point in time.
fn good_for(raw: &RawValue, is_end: bool, now: Duration) -> Option<Duration> {
    let text = as_string(raw);
    let text = text.as_deref().unwrap_or(raw.get()).trim();
    let Some(seconds) = number(text) else {
        let end = || Some(time::timestamp(text).or_else(|| time::http_date(text, now))?.saturating_sub(now));
        return time::duration(text).filter(|_| !is_end).or_else(end);
    };
    let end = time::since_the_epoch(seconds);
    let is_near = end > now.saturating_sub(NEAR) && end < now.saturating_add(NEAR);
    // As a point in time it would be one of before 1990.
    let is_life = seconds <= NEAR;
    Some(if !is_life && (is_end || is_near) { end.saturating_sub(now) } else { seconds })
}

fn number(text: &str) -> Option<Duration> {
    let seconds: f64 = text.parse().ok().filter(|seconds: &f64| seconds.is_finite())?;
    Some(Duration::try_from_secs_f64(seconds.max(0.0).trunc()).unwrap_or(Duration::from_secs(u64::MAX)))
}

#[cfg(test)]
mod tests;
