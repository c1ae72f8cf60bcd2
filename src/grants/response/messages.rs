//! Every sentence about a response, or about the lack of one. The judgement is made in `verdict`.

use std::time::Duration;

use http::header::LOCATION;
use http::{StatusCode, Uri};

use crate::error::ErrorKind;
use crate::grants::response::body::{Body, EndpointResponse, MARKUP, essence};
use crate::grants::response::classifier::Refusal;
use crate::grants::response::codes::{self, CHECK_CLIENT};
use crate::grants::response::expected::Expected;
use crate::origin::Origin;
use crate::text::Redactor;

/// One line: what was returned, and what to check. The texts of the refusal are cleaned; `about_assertion` says what may be
/// wrong with the assertion, if it is one that was refused, and `instead` what came in place of an error.
pub(crate) fn refused(
    refusal: &Refusal<'_>,
    expected: &Expected,
    class: ErrorKind,
    about_assertion: Option<String>,
    instead: &str,
) -> String {
    let mut line = format!("{} returned {}", expected.who, refusal.status().as_u16());
    if let Some(code) = refusal.code() {
        line = format!("{line} {code}");
    }
    if let Some(description) = refusal.description() {
        line = format!("{line} ({description})");
    }
    let advice = match class {
        ErrorKind::Throttled => Some("it asks clients to wait".into()),
        ErrorKind::Transient => Some("the failure is on the server's side and may be temporary".into()),
        ErrorKind::Config | ErrorKind::Grant | ErrorKind::Protocol => {
            about_assertion.or_else(|| advice(refusal, expected, class, instead.contains(MARKUP)))
        }
    };
    let instead = if refusal.code().is_none() { instead } else { "" };
    match advice {
        Some(advice) => format!("{line}{instead}: {advice}"),
        None if refusal.oauth_code().is_none() => format!("{line} without an error of OAuth 2.0{instead}"),
        None => line,
    }
}

/// Returns what to check after a refusal that lasts, as the end of a sentence.
fn advice(refusal: &Refusal<'_>, expected: &Expected, class: ErrorKind, is_markup: bool) -> Option<String> {
    let status = refusal.status();
    let line = match (status.as_u16(), refusal.oauth_code()) {
        (401 | 403, None) if expected.is_authorized => {
            "check the key or the source that authorizes the request, what it may do, and this machine's clock"
        }
        (_, Some("invalid_client")) | (401 | 403, None) if expected.is_anonymous => {
            "the server requires client authentication; set client()"
        }
        // RFC 8693 §2.2.2 has the one code for it, and most servers say the other.
        (_, Some("invalid_grant" | "invalid_request")) if expected.terms.own.contains(&"subject_token") => {
            "check the token that is exchanged: its expiry, its audience, and whether the server trusts its issuer; else the \
             parameters"
        }
        (_, Some(code)) => match codes::find(code) {
            Some(row) if !row.advice.is_empty() => row.advice,
            Some(_) | None if status == StatusCode::UNAUTHORIZED && class == ErrorKind::Config => {
                CHECK_CLIENT
            }
            Some(_) | None => return None,
        },
        (401 | 403, None) if is_markup => {
            "does a proxy or a firewall stand in between? else check the client id and the client secret"
        }
        (401 | 403, None) => CHECK_CLIENT,
        (407, None) => "a proxy in between requires a user and a password",
        (404 | 405 | 406 | 410 | 415, None) => "is the {url} right?",
        (300..=399, None) => "set the {url} to the address where the endpoint is",
        (_, None) => return None,
    };
    Some(line.replace("{url}", &expected.url))
}

/// Says what came instead of an error of OAuth 2.0.
///
/// Following a redirect would carry the client's secrets to wherever it points: a 307 repeats the whole request.
pub(crate) fn instead(response: &EndpointResponse, body: &Body, redactor: &Redactor) -> String {
    if let Some(redirect) = redirect(response, redactor) {
        return format!("{redirect} since it would carry the client secret along");
    }
    let Some(flaw) = &body.flaw else { return String::new() };
    let what = redactor.clean(flaw);
    match essence(&response.headers) {
        "" => format!(", with {what}"),
        media_type => format!(", with {what} ({})", redactor.clean(media_type)),
    }
}

/// Says of a redirect where it leads, if that is an origin.
pub(crate) fn redirect(response: &EndpointResponse, redactor: &Redactor) -> Option<String> {
    if !response.status.is_redirection() {
        return None;
    }
    let location = response.headers.get(LOCATION).and_then(|location| location.to_str().ok()?.parse().ok());
    let target = location.and_then(|location: Uri| Origin::of(&location));
    let target = target.map(|target| format!(" to {}", redactor.clean(&target.to_string())));
    Some(format!(" with a redirect{}, which is not followed", target.unwrap_or_default()))
}

/// The time of an attempt was over.
pub(crate) fn timed_out(expected: &Expected, limit: Duration) -> String {
    format!(
        "{} did not return a whole response within {limit:?}; check the network route from this machine, or raise attempt_timeout",
        expected.who
    )
}

/// No response came. `what` was cleaned.
pub(crate) fn unreachable(expected: &Expected, what: &str, advice: Option<&str>) -> String {
    let usual = format!("check the {}, and the network route from this machine", expected.url);
    let (what, advice) = (lower_case(what), advice.unwrap_or(&usual));
    format!("{} could not be reached: {what}; {advice}", expected.who)
}

/// Begins a foreign sentence as the rest of one of ours. An abbreviation stays as it is.
fn lower_case(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), Some(second)) if first.is_ascii_uppercase() && second.is_lowercase() => {
            format!("{}{}", first.to_ascii_lowercase(), chars.as_str())
        }
        _ => text.to_owned(),
    }
}

// --- Assertions ---

/// A difference between two clocks up to this is the network's, or the granularity of a header's.
const SAME_TIME: Duration = Duration::from_secs(10);

const CHECK_CLOCK: &str = "check this machine's clock and the lifetime of the assertion; clock_ahead_by() or a longer \
                           lifetime() makes up for a wrong clock";

/// The advice about an assertion, by whole words of the server. The first row decides of which one is found.
const ABOUT_ASSERTIONS: &[(&[&str], &str)] = &[
    (
        &["jti", "replay", "replayed", "already used"],
        "it has seen this assertion before; does something in between repeat requests?",
    ),
    (
        &["kid", "x5t", "thumbprint", "jwk", "jwks", "key not found"],
        "it does not know the key; register the public key there, and set key_id() as it is named there",
    ),
    (&["exp", "iat", "nbf", "clock", "expired", "expiration", "expiry", "future"], CHECK_CLOCK),
    (&["timeframe", "time", "lifetime", "not active", "not yet valid"], CHECK_CLOCK),
    (
        &["aud", "audience"],
        "it expects another audience; set issuer() as the server writes it, or token_url_as_audience(true)",
    ),
    (
        &["signature", "signed"],
        "it has another key for this client; register the public key there, or give the private key of the one it has",
    ),
];

/// Returns what may be wrong with an assertion that a server refused, as the end of a sentence: told from the server's own
/// words, and from its clock. `server_time` and `now` are times since the Unix epoch.
pub(crate) fn about_assertion(description: Option<&str>, server_time: Duration, now: Duration) -> String {
    let words = format!(" {} ", codes::plain(description.unwrap_or_default()));
    let is_said = |phrase: &&str| words.contains(&format!(" {phrase} "));
    let row = ABOUT_ASSERTIONS.iter().find(|(phrases, _)| phrases.iter().any(is_said));
    let advice = row.map_or(
        "check the client id, the key that is registered for it, the audience of the assertion, and this machine's clock",
        |(_, advice)| advice,
    );
    let apart = server_time.abs_diff(now);
    if apart > SAME_TIME && (advice == CHECK_CLOCK || words.trim().is_empty()) {
        let side = if server_time > now { "ahead of" } else { "behind" };
        return format!(
            "its clock is {} s {side} that of this machine; correct the clock, or set the difference on the assertion",
            apart.as_secs()
        );
    }
    advice.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_700_000_000);

    #[test]
    fn the_servers_words_tell_what_to_check() {
        for (description, advice) in [
            ("Invalid JWT: Token must be short-lived. Check your iat and exp values.", "clock"),
            ("Client assertion is not within its valid time range.", "clock"),
            ("Token is not active", "clock"),
            ("The client_assertion JWT kid is invalid.", "does not know the key"),
            ("AADSTS700027: The certificate with identifier x5t was not found", "does not know the key"),
            ("the key not found for this client", "does not know the key"),
            ("Invalid JWT Signature.", "another key"),
            ("aud must be the issuer", "another audience"),
            ("the assertion was replayed", "repeat requests"),
            ("client authentication failed", "check the client id, the key"),
            ("", "check the client id, the key"),
        ] {
            let said = about_assertion(Some(description), NOW, NOW);
            assert!(said.contains(advice), "{description}: {said}");
        }
    }

    #[test]
    fn a_clock_that_is_off_is_told_with_its_number() {
        let minutes = Duration::from_secs(312);
        for description in [None, Some("the assertion has expired")] {
            let behind = about_assertion(description, NOW + minutes, NOW);
            assert!(behind.contains("its clock is 312 s ahead of that of this machine"), "{behind}");
            let ahead = about_assertion(description, NOW - minutes, NOW);
            assert!(ahead.contains("its clock is 312 s behind that of this machine"), "{ahead}");
        }
        let signature = about_assertion(Some("bad signature"), NOW + minutes, NOW);
        assert!(signature.contains("another key"), "{signature}");
    }
}
