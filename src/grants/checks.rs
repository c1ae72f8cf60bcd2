//! Checks the settings of a builder before there is a source. Each refusal names the setting and the remedy.

use serde::de::IgnoredAny;

use crate::error::Error;
use crate::grants::endpoint::transport::Patience;
use crate::grants::parameters::{Encoding, Parameters};
use crate::grants::response::expected::{Acceptance, EndpointKind, Terms};

/// Checks which responses are to be taken for a token.
pub(super) fn acceptance(acceptance: &Acceptance) -> Result<(), Error> {
    let is_json = |json: &str| serde_json::from_str::<IgnoredAny>(json).is_ok();
    if let Some((name, _)) = acceptance.refusals.iter().find(|(_, json)| !is_json(json)) {
        return Err(Error::config(format!("refusal_member: the value of {name:?} is not JSON; quote it")));
    }
    scopes("scope", &acceptance.requested)?;
    scopes("required_scope", &acceptance.required)
}

/// The grammar of `scope-token` in RFC 6749 §3.3.
fn scopes(field: &str, scopes: &[String]) -> Result<(), Error> {
    let is_legal = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    match scopes.iter().find(|scope| !scope.bytes().all(is_legal)) {
        None => Ok(()),
        Some(scope) => Err(Error::config(format!(
            "{field}: {scope:?} holds a character that no scope may hold; only visible ASCII without quotes and \
             backslashes is allowed"
        ))),
    }
}

/// RFC 8707 §2: an absolute URI, as text, since it may be one that is no URL (`urn:..`).
pub(super) fn resource(resource: &str) -> Result<(), Error> {
    let refuse = |what: &str| Error::config(format!("resource: {resource:?} {what}"));
    if resource.contains('#') {
        return Err(refuse("has a fragment, which RFC 8707 §2 forbids; remove the # and what follows"));
    }
    let (scheme, rest) = resource.split_once(':').unwrap_or_default();
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    if !is_scheme || rest.is_empty() || rest == "//" {
        return Err(refuse(
            "is not an absolute URI; begin with the scheme, such as https://api.example.com/",
        ));
    }
    if !resource.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(refuse("holds a character that no URI may hold; percent-encode it"));
    }
    Ok(())
}

/// A parameter is sent once (RFC 6749 §3.2), and what has a setter of its own is not set beside it.
pub(super) fn parameters(parameters: &Parameters, terms: &Terms) -> Result<(), Error> {
    let names: Vec<&str> = parameters.names().collect();
    for (at, name) in names.iter().enumerate() {
        let remedy = match *name {
            "" => "it has no name; name it",
            name if names[..at].contains(&name) => "it is set twice; set it once",
            _ if terms.encoding != Encoding::Form => continue,
            "grant_type" if terms.kind == EndpointKind::Token => {
                "the source sets it; take the source of that grant"
            }
            "refresh_token" if terms.own.contains(name) => {
                "the source sends the newest; give it to the builder, or to replace()"
            }
            "token" | "token_type_hint" if terms.own.contains(name) => "each revocation sends its own",
            name if terms.own.contains(&name) => "the source sets it; use its own setter",
            "client_id" => "give the id to the builder",
            "client_secret" | "client_assertion" | "client_assertion_type" => {
                "a request authenticates in one way (RFC 6749 §2.3); give a ClientAuth to the builder"
            }
            "scope" => "use scope()",
            "audience" => "use audience()",
            "resource" => "use resource()",
            _ => continue,
        };
        return Err(Error::config(format!("param: {name:?} is refused: {remedy}")));
    }
    Ok(())
}

/// A form may hold a name twice, a JSON object may not.
pub(super) fn once(parameters: &Parameters) -> Result<(), Error> {
    let names: Vec<&str> = parameters.names().collect();
    let twice = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name));
    twice.map_or(Ok(()), |(_, name)| {
        Err(Error::config(format!("{name}: it is set twice, which a JSON object cannot express")))
    })
}

pub(super) fn patience(patience: &Patience) -> Result<(), Error> {
    if patience.attempt_timeout.is_zero() {
        return Err(Error::config(
            "attempt_timeout: it is zero, so that no attempt could succeed; give it time",
        ));
    }
    if patience.min_delay > patience.max_delay {
        return Err(Error::config(
            "min_delay: it is longer than max_delay; raise the one or lower the other",
        ));
    }
    Ok(())
}
