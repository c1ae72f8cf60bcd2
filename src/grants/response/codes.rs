//! The error codes of token and revocation endpoints, one row each.

use http::StatusCode;

use crate::error::ErrorKind;

/// A code that is known.
pub(crate) struct Code {
    pub(crate) name: &'static str,
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

const fn client(name: &'static str) -> Code {
    Code { subject: Subject::Client, ..settings(name, CHECK_CLIENT) }
}

const fn settings(name: &'static str, advice: &'static str) -> Code {
    Code { name, class: ErrorKind::Config, subject: Subject::Settings, advice }
}

const fn grant(name: &'static str, advice: &'static str) -> Code {
    Code { name, class: ErrorKind::Grant, subject: Subject::Grant, advice }
}

const fn ended(name: &'static str) -> Code {
    let advice = "the grant has expired, was revoked, or belongs to another client";
    Code { subject: Subject::RefreshToken, ..grant(name, advice) }
}

const fn passes(name: &'static str, class: ErrorKind) -> Code {
    Code { class, ..grant(name, "") }
}

const DPOP: &str =
    "the server wants DPoP proofs, which are not supported; set the client up for bearer tokens";
const SIGN_IN: &str = "the user has to sign in again";
const THROTTLED: ErrorKind = ErrorKind::Throttled;

/// RFC 6749 §5.2 and §4.1.2.1, RFC 7009 §2.2.1, RFC 8628 §3.5, RFC 8707 §2, RFC 9449 §5 and §8, OpenID Connect Core
/// §3.1.2.6; then what GitHub and Slack have of their own. Compared exactly.
const CODES: &[Code] = &[
    // Some servers say it of everything.
    Code {
        subject: Subject::Grant,
        ..settings("invalid_request", "check the parameters, and how the client authenticates")
    },
    client("invalid_client"),
    ended("invalid_grant"),
    settings("unauthorized_client", "allow the client this grant at the authorization server"),
    settings("unsupported_grant_type", "the server does not offer this grant; is the {url} right?"),
    settings("invalid_scope", "check the scopes that are asked for"),
    settings("invalid_target", "check the resource and the audience"),
    settings("invalid_dpop_proof", DPOP),
    settings("use_dpop_nonce", DPOP),
    grant("unsupported_token_type", "the server does not revoke tokens of this type"),
    grant("access_denied", ""),
    grant("expired_token", ""),
    grant("interaction_required", SIGN_IN),
    grant("login_required", SIGN_IN),
    grant("consent_required", SIGN_IN),
    passes("server_error", ErrorKind::Transient),
    passes("temporarily_unavailable", ErrorKind::Transient),
    passes("authorization_pending", ErrorKind::Transient),
    passes("slow_down", THROTTLED),
    client("incorrect_client_credentials"),
    client("invalid_client_id"),
    client("bad_client_secret"),
    ended("bad_refresh_token"),
    ended("invalid_refresh_token"),
    ended("token_expired"),
    ended("token_revoked"),
    passes("ratelimited", THROTTLED),
    passes("fatal_error", ErrorKind::Transient),
    passes("internal_error", ErrorKind::Transient),
    passes("request_timeout", ErrorKind::Transient),
    passes("team_added_to_org", ErrorKind::Transient),
];

/// Returns the row of a code.
pub(crate) fn find(name: &str) -> Option<&'static Code> {
    CODES.iter().find(|code| code.name == name)
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
        for (at, code) in CODES.iter().enumerate() {
            assert!(CODES[..at].iter().all(|other| other.name != code.name), "{}", code.name);
        }
        assert_eq!(CODES.len(), 31);
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
