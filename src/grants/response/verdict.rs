//! Judges a response, or the lack of one: one pure function from the observations to a verdict, as plain data.
//!
//! Its rule: final only upon proof. A failure that may pass by itself is never final.

use std::time::Duration;

use http::StatusCode;

use crate::error::{ErrorKind, is_passing};
use crate::grants::response::classifier::Refusal;
use crate::grants::response::codes::{self, Subject, plain};
use crate::headers::profile::RateLimitProfile;

/// How an attempt ended that brought no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    /// The time of the attempt was over.
    Timeout,
    /// The transport failed.
    Broken,
}

/// The verdict on the end of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) class: ErrorKind,
    /// Whether the server may have acted on the request: the response was lost, could not be read, or came from a server that
    /// failed underway.
    pub(crate) is_in_doubt: bool,
    pub(crate) refresh_token: Evidence,
    /// Whether the server has said so itself, in the words of OAuth 2.0, or the user's own classifier.
    pub(crate) is_proof: bool,
    /// Whether another attempt in the same fetch makes sense.
    pub(crate) is_repeatable: bool,
    /// Whether another client secret may help.
    pub(crate) blames_secret: bool,
    /// How long to wait before the next attempt, if the server says so.
    pub(crate) hint: Option<Duration>,
}

/// The evidence against the refresh token that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// Nothing.
    None,
    /// The request was refused, and the refresh token may be why.
    Suspected,
    /// It is of no use any more.
    Ended,
}

impl Verdict {
    /// A verdict of this class that says nothing besides: what may pass is sent again.
    pub(crate) fn of(class: ErrorKind, is_in_doubt: bool) -> Self {
        Self {
            class,
            is_in_doubt,
            refresh_token: Evidence::None,
            is_proof: false,
            is_repeatable: matches!(class, ErrorKind::Throttled | ErrorKind::Transient),
            blames_secret: false,
            hint: None,
        }
    }
}

/// Judges a response that refuses. `remark` is what it says besides the members of RFC 6749, `hint` how long the server asks to
/// wait, and `named` the class that the user's own classifier names.
pub(crate) fn refused(
    refusal: &Refusal<'_>,
    remark: Option<&str>,
    hint: Option<Duration>,
    named: Option<ErrorKind>,
) -> Verdict {
    let (status, code) = (refusal.status(), refusal.oauth_code());
    let class = named.unwrap_or_else(|| class(refusal, remark, hint));
    let is_temporary = matches!(class, ErrorKind::Throttled | ErrorKind::Transient);
    // A server that asks clients to wait says that it did nothing. One that fails may do so after the deed, and a gateway
    // before it does not know what became of it.
    let is_in_doubt =
        class != ErrorKind::Throttled && (status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT);
    let is_about_client = match code {
        Some(code) => codes::subject(code) == Subject::Client,
        None => matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN),
    };
    // The pace of a device grant is for its caller to keep.
    let is_polled = matches!(code, Some("authorization_pending" | "slow_down"));
    let is_forbidden = RateLimitProfile::generic().verdict(refusal.headers()) == Some(false);
    Verdict {
        class,
        is_in_doubt,
        refresh_token: if is_temporary { Evidence::None } else { evidence(refusal, named) },
        is_proof: named.is_some() || code.is_some(),
        is_repeatable: is_temporary && (named.is_some() || !is_polled) && !is_forbidden,
        blames_secret: is_about_client && !is_temporary,
        hint,
    }
}

/// The class of a refusal, where no classifier knows better.
///
/// The status goes before the code where it says that the failure may pass: a server that fails may say anything.
fn class(refusal: &Refusal<'_>, remark: Option<&str>, hint: Option<Duration>) -> ErrorKind {
    let (status, code) = (refusal.status().as_u16(), refusal.oauth_code());
    let row = code.and_then(codes::find);
    let names_refresh_token = code.is_some_and(|code| codes::subject(code) == Subject::RefreshToken);
    match (status, code) {
        (429, _) => ErrorKind::Throttled,
        (503, _) if hint.is_some() => ErrorKind::Throttled,
        // It is about the client, or its secret, in whatever words.
        (401, None) => ErrorKind::Config,
        // It says itself that this passes, whatever it is that stands on the way.
        (400 | 402..=499, _) if hint.is_some() && row.is_none() && !names_refresh_token => {
            ErrorKind::Throttled
        }
        _ if is_passing(refusal.status()) => ErrorKind::Transient,
        (_, code) => momentary([code, refusal.description(), remark]).unwrap_or(match (row, code, status) {
            (Some(row), ..) => row.class,
            (None, Some(_), _) if names_refresh_token => ErrorKind::Grant,
            (None, Some(_), 401) => ErrorKind::Config,
            (None, Some(_), _) => ErrorKind::Grant,
            (None, None, 300..=399 | 403..=407 | 410 | 415) => ErrorKind::Config,
            (None, None, _) => ErrorKind::Protocol,
        }),
    }
}

/// The words of errors that are about the moment, with their class: what is refused now may be granted in a while. The first row
/// decides whose words are found; words about the end go first, and have no class.
const MOMENTARY: &[(Option<ErrorKind>, &[&str])] = &[
    (None, &["expired", "revoked", "already used", "already been used", "reuse", "consumed"]),
    (
        Some(ErrorKind::Throttled),
        &["too many", "too frequent", "slow down", "rate limit", "ratelimit", "throttl"],
    ),
    (Some(ErrorKind::Throttled), &["quota exceeded", "quota has been exceeded"]),
    (Some(ErrorKind::Transient), &["being processed", "already being used", "being refreshed"]),
    (Some(ErrorKind::Transient), &["in progress", "in flight", "pending", "duplicate request"]),
    (Some(ErrorKind::Transient), &["concurrent", "simultaneous", "at a time", "at the same time"]),
    (Some(ErrorKind::Transient), &["try again later", "try again in", "try again shortly", "try later"]),
    (Some(ErrorKind::Transient), &["retry later", "retry after", "retry in", "please wait"]),
    (
        Some(ErrorKind::Transient),
        &["temporar", "service unavailable", "currently unavailable", "maintenance"],
    ),
    (Some(ErrorKind::Transient), &["busy", "overload", "internal error", "internal server error"]),
    (Some(ErrorKind::Transient), &["unexpected error"]),
];

fn momentary(said: [Option<&str>; 3]) -> Option<ErrorKind> {
    let words = plain(&said.map(Option::unwrap_or_default).join(" "));
    let mut rows = MOMENTARY.iter();
    let found = rows.find(|(_, phrases)| phrases.iter().any(|phrase| words.contains(phrase)));
    found.and_then(|(class, _)| *class)
}

/// Returns the evidence against the refresh token in a refusal that lasts.
fn evidence(refusal: &Refusal<'_>, named: Option<ErrorKind>) -> Evidence {
    let status = refusal.status().as_u16();
    match (named, refusal.oauth_code()) {
        (Some(ErrorKind::Grant), _) => Evidence::Ended,
        (Some(_), _) => Evidence::None,
        (None, Some(code)) => match (codes::subject(code), status) {
            (Subject::Client | Subject::Settings, _) => Evidence::None,
            (Subject::RefreshToken, 200..=299 | 400 | 401 | 403) => Evidence::Ended,
            // With another status it is no proof, but it is not to be asked for ever either.
            (Subject::RefreshToken, _) | (Subject::Grant, 200..=299 | 400 | 401 | 403) => Evidence::Suspected,
            (Subject::Grant, _) => Evidence::None,
        },
        (None, None) if matches!(status, 400 | 401) => Evidence::Suspected,
        (None, _) => Evidence::None,
    }
}

/// Judges a success that holds nothing of use. A response that is not a token response at all may be a gateway's, and the
/// request is sent again. `holds_token`: a token came all the same, that cannot be used or must not.
pub(crate) fn useless(class: ErrorKind, holds_token: bool) -> Verdict {
    Verdict { is_proof: holds_token, is_repeatable: !holds_token, ..Verdict::of(class, !holds_token) }
}

/// Judges an attempt without a response. `cause` is the class of what the transport says of it.
pub(crate) fn silent(cause: ErrorKind, was_sent: bool) -> Verdict {
    let class = match cause {
        // That the response of another endpoint makes no sense, or that another grant was refused, says nothing of this one.
        ErrorKind::Protocol | ErrorKind::Grant => ErrorKind::Transient,
        ErrorKind::Config | ErrorKind::Throttled | ErrorKind::Transient => cause,
    };
    Verdict::of(class, was_sent && matches!(cause, ErrorKind::Transient | ErrorKind::Protocol))
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    const THROTTLED: ErrorKind = ErrorKind::Throttled;

    fn said(status: u16, code: Option<&str>, description: Option<&str>) -> Verdict {
        let status = StatusCode::from_u16(status).unwrap();
        refused(&Refusal { status, headers: &HeaderMap::new(), code, description }, None, None, None)
    }

    #[test]
    fn a_refresh_token_ends_by_an_error_object_of_the_endpoint_alone() {
        for (status, code, description, evidence, class) in [
            (400, Some("invalid_grant"), None, Evidence::Ended, ErrorKind::Grant),
            (401, Some("invalid_grant"), Some("Token has been revoked."), Evidence::Ended, ErrorKind::Grant),
            (200, Some("bad_refresh_token"), None, Evidence::Ended, ErrorKind::Grant),
            (200, Some("invalid_refresh_token"), None, Evidence::Ended, ErrorKind::Grant),
            (
                400,
                Some("invalid_grant"),
                Some("Token request is already being processed"),
                Evidence::None,
                ErrorKind::Transient,
            ),
            (400, Some("invalid_grant"), Some("too many requests"), Evidence::None, THROTTLED),
            (500, Some("invalid_grant"), None, Evidence::None, ErrorKind::Transient),
            (408, Some("invalid_grant"), None, Evidence::None, ErrorKind::Transient),
            (404, Some("invalid_grant"), None, Evidence::Suspected, ErrorKind::Grant),
            (422, Some("refresh_token_expired"), None, Evidence::Suspected, ErrorKind::Grant),
            (400, Some("refresh_token_expired"), None, Evidence::Ended, ErrorKind::Grant),
            (400, Some("failed_to_refresh_token"), None, Evidence::Suspected, ErrorKind::Grant),
            (400, Some("RefreshTokenError"), None, Evidence::Suspected, ErrorKind::Grant),
            (400, Some("invalid_grant"), Some("duplicate request"), Evidence::None, ErrorKind::Transient),
            (400, Some("invalid_grant"), Some("Please slow down"), Evidence::None, THROTTLED),
            (408, Some("Request Timeout"), None, Evidence::None, ErrorKind::Transient),
            (404, Some("Not Found"), None, Evidence::None, ErrorKind::Config),
            (403, Some("Forbidden"), None, Evidence::None, ErrorKind::Config),
            (403, Some("forbidden"), None, Evidence::None, ErrorKind::Config),
            (400, None, None, Evidence::Suspected, ErrorKind::Protocol),
            (421, None, None, Evidence::None, ErrorKind::Transient),
            (431, None, None, Evidence::None, ErrorKind::Protocol),
            (451, None, None, Evidence::None, ErrorKind::Protocol),
            (401, None, None, Evidence::Suspected, ErrorKind::Config),
            (400, Some("invalid_request"), None, Evidence::Suspected, ErrorKind::Config),
            (400, Some("access_denied"), None, Evidence::Suspected, ErrorKind::Grant),
            (400, Some("our_own_word"), None, Evidence::Suspected, ErrorKind::Grant),
            (401, Some("invalid_client"), None, Evidence::None, ErrorKind::Config),
        ] {
            let verdict = said(status, code, description);
            assert_eq!(
                (verdict.refresh_token, verdict.class),
                (evidence, class),
                "{status} {code:?} {description:?}"
            );
        }
    }

    #[test]
    fn what_an_error_says_of_the_moment_passes_and_what_it_says_of_the_end_does_not() {
        for description in [
            "Please try again later.",
            "another refresh is in progress",
            "Too many concurrent requests",
            "DB is busy",
        ] {
            assert!(said(400, Some("invalid_request"), Some(description)).is_repeatable, "{description}");
        }
        for description in [
            "Token has been expired or revoked; sign in and try again later",
            "session timed out",
            "refresh token reuse detected",
            "account is locked",
        ] {
            let verdict = said(400, Some("invalid_grant"), Some(description));
            assert_eq!(verdict.refresh_token, Evidence::Ended, "{description}");
        }
    }

    #[test]
    fn what_stands_between_proves_nothing() {
        for code in [None, Some("Service Unavailable"), Some("Forbidden"), Some("no healthy upstream")] {
            for status in [301, 400, 403, 404, 407, 451, 503] {
                assert!(!said(status, code, None).is_proof, "{status} {code:?}");
            }
        }
        for class in [ErrorKind::Grant, ErrorKind::Config, ErrorKind::Transient, THROTTLED] {
            let verdict = silent(class, true);
            assert!(!verdict.is_proof && verdict.class != ErrorKind::Grant, "{class}");
        }
    }
}
