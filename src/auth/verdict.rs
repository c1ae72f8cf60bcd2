//! Decides whether a refusal is the fault of the token that was sent: a pure function of values.
//!
//! | challenge | the token is to blame |
//! |---|---|
//! | our scheme with `invalid_token`, or with an unknown code | yes |
//! | our scheme without a code; no challenge; only unknown schemes | if the token is suspect: it was good before, or there is another that is (strict: never) |
//! | `insufficient_scope`, `insufficient_user_authentication`, `insufficient_claims`, `invalid_request` | no |
//! | only Basic, Negotiate or Digest; DPoP offered to another scheme | no |

use crate::headers::challenge::Challenge;

/// The token that was sent, as far as the verdict depends on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent<'a> {
    /// The scheme in front of it.
    pub(crate) scheme: &'a str,
    /// Whether a refusal without a word about it speaks against it: it was good before, or another token is. Else the API may
    /// not know it yet, or may never take it.
    pub(crate) suspect: bool,
}

/// The verdict on a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Judgement<'a> {
    /// Whether the token is to blame, so that another one can help.
    pub(crate) blamed: bool,
    /// The error code of the challenge that decided.
    pub(crate) error: Option<&'a str>,
    /// Its description.
    pub(crate) description: Option<&'a str>,
}

/// Judges a refusal by its challenges (RFC 6750 §3.1, RFC 9110 §15.5.2).
pub(crate) fn judge<'a>(challenges: &'a [Challenge], sent: Sent<'_>, strict: bool) -> Judgement<'a> {
    let ours = || challenges.iter().filter(|challenge| challenge.scheme().eq_ignore_ascii_case(sent.scheme));
    // A code says more than its absence, and one that blames the token more than one that does not: a list of
    // challenges offers ways, and one way that another token can go is enough.
    let coded = ours()
        .find(|challenge| blames(challenge) == Some(true))
        .or_else(|| ours().find(|c| blames(c).is_some()));
    if let Some(challenge) = coded {
        return Judgement {
            blamed: blames(challenge) == Some(true),
            error: challenge.param("error"),
            description: challenge.param("error_description"),
        };
    }
    let without_evidence = !strict && sent.suspect;
    let only_foreign =
        ours().next().is_none() && challenges.iter().any(|challenge| is_foreign(challenge.scheme()));
    let error = challenges.iter().find_map(|challenge| challenge.param("error"));
    Judgement { blamed: without_evidence && !only_foreign, error, description: None }
}

/// Returns the scope that a refusal asks for, if a missing scope is its reason.
pub(crate) fn missing_scope<'a>(challenges: &'a [Challenge], scheme: &str) -> Option<Option<&'a str>> {
    challenges
        .iter()
        .filter(|challenge| challenge.scheme().eq_ignore_ascii_case(scheme))
        .find(|challenge| challenge.param("error") == Some("insufficient_scope"))
        .map(|challenge| challenge.param("scope"))
}

/// Returns whether a challenge's code blames the token; none without a code.
fn blames(challenge: &Challenge) -> Option<bool> {
    challenge.param("error").filter(|error| !error.is_empty()).map(|error| {
        !matches!(
            error,
            "insufficient_scope"
                | "insufficient_user_authentication"
                | "insufficient_claims"
                | "invalid_request"
                | "use_dpop_nonce"
                | "invalid_dpop_proof"
        )
    })
}

/// A scheme that we know and do not speak: the API wants something else than a token, or a token in another way.
fn is_foreign(scheme: &str) -> bool {
    ["basic", "negotiate", "ntlm", "digest", "mutual", "dpop"].contains(&scheme)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::challenge::parse;

    const NEW: Sent<'_> = Sent { scheme: "Bearer", suspect: false };
    const SUSPECT: Sent<'_> = Sent { suspect: true, ..NEW };

    fn blamed(line: &str, sent: Sent<'_>, strict: bool) -> bool {
        let lines: Vec<&[u8]> = if line.is_empty() { Vec::new() } else { vec![line.as_bytes()] };
        judge(&parse(lines), sent, strict).blamed
    }

    #[test]
    fn a_code_decides_whatever_is_known_of_the_token() {
        for strict in [false, true] {
            for sent in [NEW, SUSPECT] {
                for line in [
                    r#"Bearer error="invalid_token""#,
                    r#"bearer realm="x", error=invalid_token"#,
                    "Bearer error=acme_expired",
                ] {
                    assert!(blamed(line, sent, strict), "{line}");
                }
                for code in [
                    "insufficient_scope",
                    "insufficient_user_authentication",
                    "insufficient_claims",
                    "invalid_request",
                ] {
                    assert!(!blamed(&format!("Bearer error={code}"), sent, strict), "{code}");
                }
            }
        }
    }

    #[test]
    fn without_a_code_the_token_is_blamed_only_on_evidence() {
        for line in ["", r#"Bearer realm="x""#, "Vendor", "Vendor x=y, Bearer", "Basic, Bearer"] {
            assert!(!blamed(line, NEW, false), "{line}");
            assert!(blamed(line, SUSPECT, false) && !blamed(line, SUSPECT, true), "{line}");
        }
    }

    #[test]
    fn an_api_that_wants_something_else_does_not_blame_the_token() {
        for line in [
            "Basic realm=x",
            "Negotiate",
            "Digest realm=x, Basic realm=y",
            "DPoP algs=ES256",
            "DPoP error=use_dpop_nonce",
        ] {
            assert!(!blamed(line, SUSPECT, false), "{line}");
        }
        assert!(blamed("DPoP algs=ES256, Bearer error=invalid_token", NEW, true));
    }

    #[test]
    fn a_token_of_another_scheme_is_judged_by_its_own() {
        let sent = Sent { scheme: "DPoP", ..SUSPECT };
        assert!(blamed("DPoP error=invalid_token", sent, true));
        assert!(!blamed("DPoP error=use_dpop_nonce", sent, false));
    }

    #[test]
    fn the_missing_scope_is_read() {
        let challenges = parse([br#"Bearer error="insufficient_scope", scope="a b""#.as_slice()]);
        assert_eq!(missing_scope(&challenges, "Bearer"), Some(Some("a b")));
        assert_eq!(
            missing_scope(&parse([b"Bearer error=insufficient_scope".as_slice()]), "Bearer"),
            Some(None)
        );
        assert_eq!(missing_scope(&parse([b"Bearer error=invalid_token".as_slice()]), "Bearer"), None);
    }
}
