//! The error codes of token and revocation endpoints, one row each.

use http::StatusCode;

use crate::error::ErrorKind;

/// The meaning of a code.
#[derive(Clone, Copy)]
pub(crate) struct Code {
    pub(crate) class: ErrorKind,
    pub(crate) subject: Subject,
    /// The settings to check, as the end of a sentence; `{url}` stands for the name of the setting with the URL.
    pub(crate) advice: &'static str,
}

/// The subject of a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// The client: another secret may help.
    Client,
    /// The client's rights, or a parameter: no other grant would fare better.
    Settings,
    /// The grant, the moment, or something unknown.
    Grant,
    /// A refresh token, which is of no use any more.
    RefreshToken,
}

/// The advice about a client that was refused.
pub(crate) const CHECK_CLIENT: &str = "check the client id, the client secret, and how they are sent";

const CLIENT: Code = Code { subject: Subject::Client, ..settings(CHECK_CLIENT) };
const ENDED: Code = Code {
    subject: Subject::RefreshToken,
    ..grant("the grant has expired, was revoked, or belongs to another client")
};
const TRANSIENT: Code = Code { class: ErrorKind::Transient, ..grant("") };
const THROTTLED: Code = Code { class: ErrorKind::Throttled, ..grant("") };
/// Some servers say it of everything.
const REQUEST: Code =
    Code { subject: Subject::Grant, ..settings("check the parameters, and how the client authenticates") };
const DPOP: Code =
    settings("the server wants DPoP proofs, which are not supported; set the client up for bearer tokens");

const fn settings(advice: &'static str) -> Code {
    Code { class: ErrorKind::Config, subject: Subject::Settings, advice }
}

const fn grant(advice: &'static str) -> Code {
    Code { class: ErrorKind::Grant, subject: Subject::Grant, advice }
}

/// RFC 6749 §5.2 and §4.1.2.1, RFC 7009 §2.2.1, RFC 8628 §3.5, RFC 8707 §2, RFC 9449 §5 and §8, OpenID Connect Core
/// §3.1.2.6; then what GitHub and Slack have of their own. Compared exactly.
const CODES: &[(&[&str], Code)] = &[
    (&["invalid_request"], REQUEST),
    (&["invalid_client"], CLIENT),
    (&["invalid_grant"], ENDED),
    (&["unauthorized_client"], settings("allow the client this grant at the authorization server")),
    (&["unsupported_grant_type"], settings("the server does not offer this grant; is the {url} right?")),
    (&["invalid_scope"], settings("check the scopes that are asked for")),
    (&["invalid_target"], settings("check the resource and the audience")),
    (&["invalid_dpop_proof", "use_dpop_nonce"], DPOP),
    (&["unsupported_token_type"], grant("the server does not revoke tokens of this type")),
    (&["access_denied", "expired_token"], grant("")),
    (&["interaction_required", "login_required", "consent_required"], grant("the user has to sign in again")),
    (&["server_error", "temporarily_unavailable", "authorization_pending"], TRANSIENT),
    (&["slow_down"], THROTTLED),
    (&["incorrect_client_credentials", "invalid_client_id", "bad_client_secret"], CLIENT),
    (&["bad_refresh_token", "invalid_refresh_token", "token_expired", "token_revoked"], ENDED),
    (&["ratelimited"], THROTTLED),
    (&["fatal_error", "internal_error", "request_timeout", "team_added_to_org"], TRANSIENT),
];

/// Returns what is known of a code.
pub(crate) fn find(name: &str) -> Option<Code> {
    CODES.iter().find(|(names, _)| names.contains(&name)).map(|(_, code)| *code)
}

/// Returns the subject of a code. Servers have many words of their own for a refresh token that is of no use any more. That
/// refreshing failed says nothing of why.
pub(crate) fn subject(name: &str) -> Subject {
    const FAILED: [&str; 8] =
        ["fail", "error", "unable", "cannot", "could not", "timeout", "timed out", "unavailable"];
    if let Some(code) = find(name) {
        return code.subject;
    }
    let words = plain(name);
    let is_named = words.contains("refresh token") || words.contains("refreshtoken");
    match is_named && !FAILED.iter().any(|failed| words.contains(failed)) {
        true => Subject::RefreshToken,
        false => Subject::Grant,
    }
}

/// Returns whether a code is one of OAuth 2.0's kind. Gateways write the name of the status there.
pub(crate) fn is_oauth_code(code: &str) -> bool {
    let is_reason = |code: &str| {
        let words = plain(code);
        (400..600)
            .filter_map(|status| StatusCode::from_u16(status).ok()?.canonical_reason())
            .any(|reason| plain(reason) == words)
    };
    find(code).is_some() || !(code.contains(' ') || is_reason(code))
}

/// A text in lower case, in which everything but letters and digits is one space.
pub(crate) fn plain(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let words = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_stands_once() {
        let names: Vec<&str> = CODES.iter().flat_map(|(names, _)| *names).copied().collect();
        for (at, name) in names.iter().enumerate() {
            assert!(!names[..at].contains(name), "{name}");
        }
        assert_eq!(names.len(), 31);
    }

    #[test]
    fn a_code_names_the_refresh_token_however_it_is_written() {
        for name in [
            "invalid_grant",
            "bad_refresh_token",
            "RefreshTokenExpired",
            "refresh-token-reused",
            "token_revoked",
        ] {
            assert_eq!(subject(name), Subject::RefreshToken, "{name}");
        }
        for name in ["invalid_request", "Invalid_Grant", "invalid_token", "expired_token", "invalid_client"] {
            assert_ne!(subject(name), Subject::RefreshToken, "{name}");
        }
    }
}
