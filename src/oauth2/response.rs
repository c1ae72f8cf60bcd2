//! What the token endpoint answered, read into a token or an error: a pure function of the answer.
//!
//! Lenient in what servers get wrong without harm, strict where a token could be used that should not be
//! (RFC 6749 §5.1 and §5.2).

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderMap, StatusCode, Uri};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::claims::Claims;
use crate::error::{ErrorClass, TokenError};
use crate::headers::retry_after;
use crate::oauth2::classifier::{Classifier, Refusal};
use crate::text::Redactor;
use crate::token::{AccessToken, is_b64token};

/// One answer, read to its end or to where reading it made no sense.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: AnswerBody,
}

/// The body of an [`Answer`].
pub(crate) enum AnswerBody {
    Whole(Vec<u8>),
    /// Why it was not read, as the end of a sentence about it.
    Unread(String),
}

/// What was asked for, and what is taken for an answer.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    /// Who answers, as the subject of a sentence.
    pub(crate) who: String,
    pub(crate) requested: Vec<String>,
    pub(crate) required: Vec<String>,
    pub(crate) strict_bearer: bool,
    pub(crate) classifier: Option<Classifier>,
}

impl Default for Expected {
    fn default() -> Self {
        Self {
            who: "the token endpoint".into(),
            requested: Vec::new(),
            required: Vec::new(),
            strict_bearer: false,
            classifier: None,
        }
    }
}

/// An answer without a token that can be used.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) error: TokenError,
    /// How long the server asked to wait.
    pub(crate) hint: Option<Duration>,
    /// Whether the provider's classifier named the class.
    pub(crate) by_classifier: bool,
    /// Whether another secret may help.
    pub(crate) blames_secret: bool,
}

impl From<TokenError> for Refused {
    fn from(error: TokenError) -> Self {
        Self { error, hint: None, by_classifier: false, blames_secret: false }
    }
}

/// Reads an answer. `now` is the time since the Unix epoch.
///
/// The redactor knows the secrets that were sent; it learns those of the answer before any of it is shown.
pub(crate) fn read(
    answer: &Answer,
    expected: &Expected,
    redactor: &mut Redactor,
    now: Duration,
) -> Result<AccessToken, Refused> {
    let status = answer.status;
    if status.is_redirection() {
        let error = redirected(&expected.who, status, &answer.headers, redactor);
        return Err(error.with_status(status).into());
    }
    let body = Body::read(answer);
    if let Body::Object(members) = &body {
        members.teach(redactor);
    }
    let refusal = body.refusal();
    if refusal.is_none() && status.is_success() {
        return token(&body, answer, expected, redactor).map_err(|error| error.with_status(status).into());
    }
    Err(refused(answer, &body, refusal, expected, redactor, now))
}

// --- Body ---

/// A body by what it is made of.
enum Body<'a> {
    Object(Members<'a>),
    Form(Vec<(String, String)>),
    /// Nothing that can be read; the text completes "the endpoint answered 200 with ..".
    Nonsense(String),
}

/// What RFC 6749 §5.2 says in an error answer.
struct OAuthError {
    code: String,
    description: Option<String>,
    uri: Option<String>,
}

impl<'a> Body<'a> {
    fn read(answer: &'a Answer) -> Self {
        let bytes = match &answer.body {
            AnswerBody::Whole(bytes) => bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes),
            AnswerBody::Unread(reason) => return Self::Nonsense(reason.clone()),
        };
        let error = match serde_json::from_slice::<Members<'_>>(bytes) {
            Ok(members) if members.repeated => {
                return Self::Nonsense("a JSON object in which a member stands twice".into());
            }
            Ok(members) => return Self::Object(members),
            Err(error) => error,
        };
        let is_form = essence(&answer.headers).eq_ignore_ascii_case("application/x-www-form-urlencoded");
        if is_form || bytes.starts_with(b"error=") {
            return Self::Form(form_urlencoded::parse(bytes).into_owned().collect());
        }
        let trimmed = bytes.trim_ascii_start();
        Self::Nonsense(
            match (trimmed.first(), error.classify()) {
                (None, _) => "an empty body",
                (Some(b'<'), _) => "HTML or XML instead of JSON",
                (Some(b'{'), serde_json::error::Category::Eof) => "a JSON object that is cut off",
                (Some(_), serde_json::error::Category::Data) => "JSON that is no object",
                (Some(_), _) => "something else than JSON",
            }
            .into(),
        )
    }

    /// Returns the error that the body tells of. A code that breaks the grammar of RFC 6749 Appendix A.7 is none.
    fn refusal(&self) -> Option<OAuthError> {
        let read = |name: &str| match self {
            Self::Object(members) => members.string(name),
            Self::Form(pairs) => pairs.iter().find(|pair| pair.0 == name).map(|pair| pair.1.clone()),
            Self::Nonsense(_) => None,
        };
        let code = read("error").filter(|code| is_error_code(code))?;
        // Genesys Cloud says `description`.
        let description = read("error_description").or_else(|| read("description"));
        Some(OAuthError { code, description, uri: read("error_uri") })
    }
}

// --- Members ---

/// The members of a JSON object, not yet read: what nobody asks for is never interpreted, however deep or large.
struct Members<'a> {
    map: BTreeMap<String, &'a RawValue>,
    repeated: bool,
}

impl<'a> Members<'a> {
    fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.map.get(name).copied().filter(|raw| raw.get() != "null")
    }

    fn string(&self, name: &str) -> Option<String> {
        self.get(name).and_then(as_string)
    }

    /// Tells the redactor the secrets of the answer.
    fn teach(&self, redactor: &mut Redactor) {
        let is_secret = |name: &str| {
            !name.ends_with("token_type")
                && ["token", "secret", "assertion"].iter().any(|word| name.contains(word))
        };
        for (name, raw) in &self.map {
            if let Some(value) = as_string(raw).filter(|_| is_secret(name)) {
                redactor.add(&value);
            }
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut members = Members { map: BTreeMap::new(), repeated: false };
        while let Some((name, raw)) = access.next_entry::<String, &'de RawValue>()? {
            members.repeated |= members.map.insert(name, raw).is_some();
        }
        Ok(members)
    }
}

// --- Tokens ---

/// The members that have a meaning of their own. Other strings are kept as extra members of the token.
const KNOWN: [&str; 8] = [
    "access_token",
    "token_type",
    "expires_in",
    "refresh_token",
    "scope",
    "error",
    "error_description",
    "error_uri",
];

fn token(
    body: &Body<'_>,
    answer: &Answer,
    expected: &Expected,
    redactor: &Redactor,
) -> Result<AccessToken, TokenError> {
    let status = answer.status.as_u16();
    let nonsense =
        |what: &str| TokenError::protocol(format!("{} answered {status} with {what}", expected.who));
    let members = match body {
        Body::Object(members) => members,
        Body::Form(_) => return Err(nonsense("a form instead of JSON, although it was asked for JSON")),
        Body::Nonsense(what) => {
            let what = redactor.clean(what);
            return Err(nonsense(&format!(
                "{what}; is the token URL right, or does a proxy or a login page stand in between?"
            )));
        }
    };
    check_type(members, redactor).map_err(|what| nonsense(&what))?;
    let Some(raw) = members.get("access_token") else {
        return Err(nonsense("an object without access_token; is the token URL right?"));
    };
    let Some(secret) = as_string(raw).map(SecretString::from) else {
        return Err(nonsense("an access_token that is not a string"));
    };
    if !is_b64token(secret.expose_secret()) {
        if expected.strict_bearer {
            return Err(nonsense(
                "an access_token outside the grammar of RFC 6750 §2.1, which the strict mode refuses",
            ));
        }
        tracing::debug!("the access token is outside the b64token grammar of RFC 6750 §2.1");
    }
    let said = granted_scopes(members, secret.expose_secret());
    let granted = said.or_else(|| (!expected.requested.is_empty()).then(|| expected.requested.clone()));
    check_scopes(granted.as_deref().unwrap_or_default(), expected)?;
    let mut token = AccessToken::bearer(secret)
        .map_err(|error| nonsense(&format!("a token that cannot be used: {error}")))?;
    if let Some(granted) = granted {
        token = token.scopes(granted);
    }
    if let Some(lifetime) = members.get("expires_in").and_then(lifetime) {
        token = token.expires_in(lifetime);
    }
    if let Some(refresh) = members.string("refresh_token").filter(|refresh| !refresh.is_empty()) {
        token = token.refresh_token(refresh);
    }
    for (name, raw) in members.map.iter().filter(|(name, _)| !KNOWN.contains(&name.as_str())) {
        if let Some(value) = as_string(raw) {
            token = token.extra_member(name, value);
        }
    }
    Ok(token)
}

/// Accepts bearer tokens alone. RFC 6749 §5.1 requires the member; servers that leave it out mean `Bearer`, and older
/// API gateways write `BearerToken`.
fn check_type(members: &Members<'_>, redactor: &Redactor) -> Result<(), String> {
    let Some(raw) = members.get("token_type") else {
        return Ok(());
    };
    let Some(name) = as_string(raw) else {
        return Err("a token_type that is not a string".into());
    };
    let name = name.trim();
    if ["bearer", "bearertoken"].iter().any(|known| name.eq_ignore_ascii_case(known)) {
        return Ok(());
    }
    Err(format!(
        "a token of the type {}, which cannot be sent as a bearer token; set the client up for bearer tokens at the \
         authorization server",
        redactor.clean(name)
    ))
}

/// Returns what was granted, from `scope` or from the claims of the token itself. None: as requested (RFC 6749 §5.1).
fn granted_scopes(members: &Members<'_>, token: &str) -> Option<Vec<String>> {
    let Some(raw) = members.get("scope") else {
        return Claims::read(token)?.scopes;
    };
    let mut granted: Vec<String> = Vec::new();
    let list = match as_string(raw) {
        Some(text) => text.split_ascii_whitespace().map(str::to_owned).collect(),
        None => serde_json::from_str::<Vec<String>>(raw.get()).ok()?,
    };
    for scope in list {
        if !granted.contains(&scope) {
            granted.push(scope);
        }
    }
    Some(granted)
}

fn check_scopes(granted: &[String], expected: &Expected) -> Result<(), TokenError> {
    // GitHub separates with commas, which a scope of others may hold.
    let has =
        |want: &str| granted.iter().any(|scope| scope == want || scope.split(',').any(|part| part == want));
    let missing: Vec<&str> = expected.required.iter().map(String::as_str).filter(|want| !has(want)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(TokenError::config(format!(
        "{} granted a token without the required scopes {}: allow them to the client at the authorization server, and \
         ask for them",
        expected.who,
        missing.join(" ")
    )))
}

/// Reads `expires_in` as number, float or string. What makes no sense says nothing; a negative life is over.
fn lifetime(raw: &RawValue) -> Option<Duration> {
    let text = as_string(raw);
    let text = text.as_deref().unwrap_or(raw.get()).trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let seconds: f64 = text.parse().ok().filter(|seconds: &f64| seconds.is_finite())?;
    Some(Duration::try_from_secs_f64(seconds.max(0.0).trunc()).unwrap_or(Duration::from_secs(u64::MAX)))
}

// --- Errors ---

fn refused(
    answer: &Answer,
    body: &Body<'_>,
    refusal: Option<OAuthError>,
    expected: &Expected,
    redactor: &Redactor,
    now: Duration,
) -> Refused {
    let Answer { status, headers, .. } = answer;
    let clean = |text: Option<String>| text.map(|text| redactor.clean(&text)).filter(|text| !text.is_empty());
    let (code, description, uri) = match refusal {
        Some(error) => (clean(Some(error.code)), clean(error.description), clean(error.uri)),
        None => (None, None, None),
    };
    let hint = retry_after::delay(headers, now);
    let view = Refusal::new(*status, headers, code.as_deref(), description.as_deref());
    let named = expected.classifier.as_ref().and_then(|classifier| classifier.classify(&view));
    let class = named.unwrap_or_else(|| class(*status, code.as_deref(), hint.is_some()));

    let message = message(
        &expected.who,
        *status,
        code.as_deref(),
        description.as_deref(),
        &unreadable(body, headers, redactor),
    );
    let mut error = match class {
        ErrorClass::Config => TokenError::config(message),
        ErrorClass::Grant => TokenError::grant(message),
        ErrorClass::Throttled { until } => {
            let named = until.map(|until| until.saturating_duration_since(crate::clock::now().into()));
            let error = TokenError::throttled(message);
            match named.or(hint) {
                Some(wait) => error.with_retry_after(wait),
                None => error,
            }
        }
        ErrorClass::Transient => TokenError::transient(message),
        ErrorClass::Protocol => TokenError::protocol(message),
    };
    let blames_secret = match code.as_deref() {
        Some(code) => code == "invalid_client",
        None => matches!(*status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN),
    };
    error = error.with_status(*status);
    if let Some(code) = code {
        error = error.with_code(code);
    }
    if let Some(description) = description {
        error = error.with_description(description);
    }
    if let Some(uri) = uri {
        error = error.with_uri(uri);
    }
    Refused { error, hint, by_classifier: named.is_some(), blames_secret }
}

/// The class of an answer, where no classifier knows better.
///
/// The status goes before the code on 429 and 5xx: a server that fails may say anything, and what it says of a grant
/// then is not final.
fn class(status: StatusCode, code: Option<&str>, has_hint: bool) -> ErrorClass {
    match (status.as_u16(), code) {
        (429, _) => ErrorClass::Throttled { until: None },
        (503, _) if has_hint => ErrorClass::Throttled { until: None },
        (500..=599, _) => ErrorClass::Transient,
        (_, Some("slow_down")) => ErrorClass::Throttled { until: None },
        (_, Some("server_error" | "temporarily_unavailable" | "authorization_pending")) => {
            ErrorClass::Transient
        }
        (
            _,
            Some(
                "invalid_request"
                | "invalid_client"
                | "unauthorized_client"
                | "unsupported_grant_type"
                | "invalid_scope"
                | "invalid_target"
                | "invalid_dpop_proof"
                | "use_dpop_nonce",
            ),
        ) => ErrorClass::Config,
        (401, _) => ErrorClass::Config,
        (_, Some(_)) => ErrorClass::Grant,
        (408 | 425, None) => ErrorClass::Transient,
        (403 | 404 | 405 | 406 | 410 | 415, None) => ErrorClass::Config,
        (_, None) => ErrorClass::Grant,
    }
}

/// One line: what was answered, and what to check.
fn message(
    who: &str,
    status: StatusCode,
    code: Option<&str>,
    description: Option<&str>,
    unreadable: &str,
) -> String {
    let mut line = format!("{who} answered {}", status.as_u16());
    if let Some(code) = code {
        line = format!("{line} {code}");
    }
    if let Some(description) = description {
        line = format!("{line} ({description})");
    }
    let advice = match (status.as_u16(), code) {
        (429, _) => "it asks for patience",
        (500..=599, _) => "the failure is on its side",
        (_, Some("invalid_client")) => "check the client id, the client secret, and the way they are sent",
        (_, Some("invalid_grant")) => "the grant has expired, was revoked, or belongs to another client",
        (_, Some("invalid_request")) => "check the parameters, and the way the client authenticates",
        (_, Some("invalid_scope")) => "check the scopes that are asked for",
        (_, Some("invalid_target")) => "check the resource and the audience",
        (_, Some("unauthorized_client")) => "allow the client this grant at the authorization server",
        (_, Some("unsupported_grant_type")) => {
            "the server does not offer this grant; is the token URL right?"
        }
        (_, Some("invalid_dpop_proof" | "use_dpop_nonce")) => {
            "the server wants DPoP proofs, which are not supported; set the client up for bearer tokens"
        }
        (401 | 403, _) => "check the client id, the client secret, and the way they are sent",
        (404 | 405 | 406 | 410 | 415, None) => "is the token URL right?",
        (_, None) => return format!("{line} without an error of OAuth 2.0{unreadable}"),
        (_, Some(_)) => return line,
    };
    format!("{line}{}: {advice}", if code.is_none() { unreadable } else { "" })
}

/// Says what stood in the body instead of an error of OAuth 2.0.
fn unreadable(body: &Body<'_>, headers: &HeaderMap, redactor: &Redactor) -> String {
    let what = match body {
        Body::Object(_) | Body::Form(_) => return String::new(),
        Body::Nonsense(what) => redactor.clean(what),
    };
    match essence(headers) {
        "" => format!(", with {what}"),
        media_type => format!(", with {what} ({})", redactor.clean(media_type)),
    }
}

/// Following a redirect would carry the client's secrets to wherever it points: a 307 repeats the whole request.
fn redirected(who: &str, status: StatusCode, headers: &HeaderMap, redactor: &Redactor) -> TokenError {
    let target = headers
        .get(LOCATION)
        .and_then(|location| location.to_str().ok()?.parse::<Uri>().ok())
        .and_then(|uri| Some(format!("{}://{}", uri.scheme_str()?, uri.host()?)));
    let target = target.map(|target| format!(" to {}", redactor.clean(&target))).unwrap_or_default();
    TokenError::config(format!(
        "{who} answered {} with a redirect{target}, which is not followed since it would carry the client \
         secret along; set the token URL to the address where the endpoint is",
        status.as_u16()
    ))
}

// --- Helpers ---

/// The media type without its parameters; empty if there is none.
fn essence(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

fn as_string(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

/// The grammar of RFC 6749 Appendix A.7, and not empty.
fn is_error_code(code: &str) -> bool {
    !code.is_empty() && code.bytes().all(|byte| matches!(byte, 0x20..=0x21 | 0x23..=0x5b | 0x5d..=0x7e))
}

#[cfg(test)]
mod tests;
