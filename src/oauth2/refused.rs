//! What an answer without a token means: its class, and one line that says what to check.

use std::time::Duration;

use http::header::LOCATION;
use http::{HeaderMap, StatusCode, Uri};
use secrecy::SecretString;

use crate::clock;
use crate::error::{ErrorClass, TokenError};
use crate::headers::retry_after;
use crate::oauth2::advice;
use crate::oauth2::answer::{Answer, Body, Expected, MARKUP, Naming, OAuthError, essence};
use crate::oauth2::classifier::Refusal;
use crate::origin::Origin;
use crate::text::Redactor;

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
    /// What the server did with the request, as far as can be told.
    pub(crate) delivery: Delivery,
    /// The refresh token that came with an access token that is of no use. The one before is spent all the same.
    pub(crate) refresh_token: Option<SecretString>,
}

/// What became of a request that brought nothing: whether the server may have acted on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// It never left.
    Unsent,
    /// The server said that it did not.
    Declined,
    /// It may have: the answer was lost, could not be read, or came from a server that failed underway.
    Unclear,
}

impl From<TokenError> for Refused {
    fn from(error: TokenError) -> Self {
        Self {
            error,
            hint: None,
            by_classifier: false,
            blames_secret: false,
            delivery: Delivery::Unsent,
            refresh_token: None,
        }
    }
}

/// Makes the error of an answer without a token. Redirects have their own.
pub(crate) fn refused(
    answer: &Answer,
    body: &Body<'_>,
    refusal: Option<OAuthError>,
    expected: &Expected,
    redactor: &Redactor,
    now: Duration,
) -> Refused {
    let Answer { status, headers, .. } = answer;
    let clean = |text: Option<String>| text.map(|text| redactor.clean(&text)).filter(|text| !text.is_empty());
    // A registered code says nothing of a secret, whatever words that is made of, and it decides.
    let clean_code = |code: String| if is_registered(&code) { Some(code) } else { clean(Some(code)) };
    let (code, description, uri) = match refusal {
        Some(error) => (clean_code(error.code), clean(error.description), clean(error.uri)),
        None => (None, None, None),
    };
    let hint = retry_after::delay(headers, now);
    let view = Refusal::new(*status, headers, code.as_deref(), description.as_deref());
    let named = expected.classifier.as_ref().and_then(|classifier| classifier.classify(&view));
    let class = named.unwrap_or_else(|| class(*status, code.as_deref(), hint.is_some()));

    // A classifier may have found the time elsewhere than in `Retry-After`.
    let hint = match class {
        ErrorClass::Throttled { until: Some(until) } => {
            Some(until.saturating_duration_since(clock::now().into()))
        }
        _ => hint,
    };
    // A server that asks for patience says that it did nothing. One that fails may do so after the deed, and a gateway
    // before it does not know what became of it.
    let delivery = match class {
        ErrorClass::Throttled { .. } => Delivery::Declined,
        _ if status.is_server_error() => Delivery::Unclear,
        _ => Delivery::Declined,
    };
    let is_about_the_client = match code.as_deref() {
        Some(code) => code == "invalid_client",
        None => matches!(*status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN),
    };
    let blames_assertion = (expected.client_asserts && is_about_the_client)
        || (expected.grant_asserts && code.as_deref() == Some("invalid_grant"));
    let advice = blames_assertion.then(|| {
        advice::about_assertion(description.as_deref(), retry_after::server_time(headers, now), now)
    });
    let message = message(
        expected,
        class,
        *status,
        code.as_deref(),
        description.as_deref(),
        &unreadable(body, headers, redactor),
        advice.as_deref(),
    );
    let mut error = match class {
        ErrorClass::Config => TokenError::config(message),
        ErrorClass::Grant => TokenError::grant(message),
        ErrorClass::Throttled { .. } => match hint {
            Some(wait) => {
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                TokenError::throttled(format!("{message}, for {seconds} s")).with_retry_after(wait)
            }
            None => TokenError::throttled(message),
        },
        ErrorClass::Transient => TokenError::transient(message),
        ErrorClass::Protocol => TokenError::protocol(message),
    };
    let blames_secret = is_about_the_client && !error.is_temporary();
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
    Refused { error, hint, by_classifier: named.is_some(), blames_secret, delivery, refresh_token: None }
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

/// The codes of RFC 6749 §5.2, RFC 8628 §3.5, RFC 8707 §2 and RFC 9449 §5 and §8, and two of RFC 6749 §4.1.2.1 that
/// token endpoints say too.
fn is_registered(code: &str) -> bool {
    matches!(
        code,
        "invalid_request"
            | "invalid_client"
            | "invalid_grant"
            | "unauthorized_client"
            | "unsupported_grant_type"
            | "invalid_scope"
            | "server_error"
            | "temporarily_unavailable"
            | "authorization_pending"
            | "slow_down"
            | "access_denied"
            | "expired_token"
            | "invalid_target"
            | "invalid_dpop_proof"
            | "use_dpop_nonce"
    )
}

/// One line: what was answered, and what to check.
fn message(
    expected: &Expected,
    class: ErrorClass,
    status: StatusCode,
    code: Option<&str>,
    description: Option<&str>,
    unreadable: &str,
    about_assertion: Option<&str>,
) -> String {
    let Expected { who, naming: Naming { url, .. }, .. } = expected;
    let mut line = format!("{who} answered {}", status.as_u16());
    if let Some(code) = code {
        line = format!("{line} {code}");
    }
    if let Some(description) = description {
        line = format!("{line} ({description})");
    }
    let advice = match (status.as_u16(), code) {
        _ if matches!(class, ErrorClass::Throttled { .. }) => "it asks for patience",
        _ if matches!(class, ErrorClass::Transient) => "the failure is on its side, and may pass by itself",
        _ if about_assertion.is_some() => about_assertion.unwrap_or_default(),
        (_, Some("invalid_client")) | (401 | 403, None) if expected.is_anonymous => {
            "the server wants the client to prove itself; set client()"
        }
        (_, Some("invalid_client")) => "check the client id, the client secret, and the way they are sent",
        // RFC 8693 §2.2.2 has the one code for it, and most servers say the other.
        (_, Some("invalid_grant" | "invalid_request")) if expected.exchanges => {
            "check the token that is exchanged: its end, its audience, and whether the server trusts who issued it; else the \
             parameters"
        }
        (_, Some("invalid_grant")) => "the grant has expired, was revoked, or belongs to another client",
        (_, Some("invalid_request")) => "check the parameters, and the way the client authenticates",
        (_, Some("invalid_scope")) => "check the scopes that are asked for",
        (_, Some("invalid_target")) => "check the resource and the audience",
        (_, Some("unauthorized_client")) => "allow the client this grant at the authorization server",
        (_, Some("unsupported_grant_type")) => {
            &format!("the server does not offer this grant; is the {url} right?")
        }
        (_, Some("invalid_dpop_proof" | "use_dpop_nonce")) => {
            "the server wants DPoP proofs, which are not supported; set the client up for bearer tokens"
        }
        (401 | 403, None) if unreadable.contains(MARKUP) => {
            "does a proxy or a firewall stand in between? else check the client id and the client secret"
        }
        (401 | 403, _) => "check the client id, the client secret, and the way they are sent",
        (404 | 405 | 406 | 410 | 415, None) => &format!("is the {url} right?"),
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
pub(crate) fn redirected(answer: &Answer, expected: &Expected, redactor: &Redactor) -> Refused {
    let Answer { status, headers, .. } = answer;
    let Expected { who, naming: Naming { url, .. }, .. } = expected;
    let target = headers
        .get(LOCATION)
        .and_then(|location| location.to_str().ok()?.parse::<Uri>().ok())
        .and_then(|uri| Origin::of(&uri));
    let target =
        target.map(|target| format!(" to {}", redactor.clean(&target.to_string()))).unwrap_or_default();
    let error = TokenError::config(format!(
        "{who} answered {} with a redirect{target}, which is not followed since it would carry the client \
         secret along; set the {url} to the address where the endpoint is",
        status.as_u16()
    ));
    Refused { delivery: Delivery::Declined, ..Refused::from(error.with_status(*status)) }
}
