//! Reads the claims of an access token that is a JWT: without verifying, so only ever as advice.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

/// A longer token is not looked into.
const MAX_JWT: usize = 64 * 1024;

/// The claims of RFC 7519 §4.1 and RFC 9068 §2.2 that help a client. Nothing here was verified.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Claims {
    /// `exp`, since the Unix epoch.
    pub(crate) expires: Option<Duration>,
    /// `iat`, since the Unix epoch.
    pub(crate) issued: Option<Duration>,
    /// `nbf`, since the Unix epoch.
    pub(crate) not_before: Option<Duration>,
    /// `scope` (a space-separated string) or `scp` (a string or a list).
    pub(crate) scopes: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Payload {
    exp: Option<Value>,
    iat: Option<Value>,
    nbf: Option<Value>,
    scope: Option<Value>,
    scp: Option<Value>,
}

impl Claims {
    /// Reads the claims of `token`, or none if it does not look like a signed JWT.
    pub(crate) fn read(token: &str) -> Option<Self> {
        if token.len() > MAX_JWT {
            return None;
        }
        let mut parts = token.split('.');
        let (_header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
        let payload: Payload = serde_json::from_slice(&payload).ok()?;
        Some(Self {
            expires: payload.exp.as_ref().and_then(numeric_date),
            issued: payload.iat.as_ref().and_then(numeric_date),
            not_before: payload.nbf.as_ref().and_then(numeric_date),
            scopes: payload.scope.as_ref().and_then(scopes).or_else(|| payload.scp.as_ref().and_then(scopes)),
        })
    }

    /// Returns how long the token has to live at `now`, a time since the Unix epoch.
    ///
    /// A clock that runs behind the issuer's would add to the life, so `iat` bounds it; one that runs ahead would make
    /// the token dead at birth, and then `iat` alone counts.
    pub(crate) fn lifetime(&self, now: Duration) -> Option<Duration> {
        let expires = self.expires?;
        let whole =
            self.issued.and_then(|issued| expires.checked_sub(issued)).filter(|whole| !whole.is_zero());
        match expires.checked_sub(now).filter(|left| !left.is_zero()) {
            Some(left) => Some(whole.map_or(left, |whole| whole.min(left))),
            None => whole,
        }
    }
}

/// A `NumericDate` of RFC 7519 §2: seconds, perhaps with a fraction.
fn numeric_date(value: &Value) -> Option<Duration> {
    Duration::try_from_secs_f64(value.as_f64()?).ok()
}

fn scopes(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(text.split_ascii_whitespace().map(str::to_owned).collect()),
        Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(payload: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload))
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn claims_are_read_in_the_forms_that_servers_use() {
        let claims = Claims::read(&jwt(r#"{"exp":1700003600.5,"iat":1700000000,"scope":"a b"}"#)).unwrap();
        assert_eq!(claims.expires, Some(Duration::from_millis(1_700_003_600_500)));
        assert_eq!(claims.scopes.unwrap(), ["a", "b"]);
        assert_eq!(Claims::read(&jwt(r#"{"scp":["a","b"]}"#)).unwrap().scopes.unwrap(), ["a", "b"]);
        assert_eq!(Claims::read(&jwt(r#"{"scp":"a"}"#)).unwrap().scopes.unwrap(), ["a"]);
    }

    #[test]
    fn what_is_no_jwt_or_makes_no_sense_says_nothing() {
        for token in
            ["opaque", "a.b", "a.b.c.d", "a.!!!.c", "e30.e30.c", &jwt(r#"{"exp":"soon","iat":-1,"scope":7}"#)]
        {
            assert!(Claims::read(token).is_none_or(|claims| claims == Claims::default()), "{token}");
        }
        assert_eq!(Claims::read(&jwt(r#"{"exp":1e300}"#)).unwrap().expires, None);
        assert_eq!(Claims::read(&"a".repeat(MAX_JWT + 1)), None);
    }

    #[test]
    fn a_wrong_clock_neither_lengthens_nor_ends_the_life() {
        let claims = Claims {
            expires: Some(seconds(1000)),
            issued: Some(seconds(400)),
            scopes: None,
            not_before: None,
        };
        assert_eq!(claims.lifetime(seconds(500)), Some(seconds(500)));
        assert_eq!(claims.lifetime(seconds(100)), Some(seconds(600)));
        assert_eq!(claims.lifetime(seconds(5000)), Some(seconds(600)));
        let bare = Claims { expires: Some(seconds(1000)), ..Claims::default() };
        assert_eq!(bare.lifetime(seconds(900)), Some(seconds(100)));
        assert_eq!(bare.lifetime(seconds(1000)), None);
    }
}
