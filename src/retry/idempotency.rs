//! By what a server knows a request again that it has seen: `Idempotency-Key`
//! (draft-ietf-httpapi-idempotency-key-header).

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue, Method, request};

use super::rules::Rules;
use crate::backoff;

/// With this header a server does the work once, however often it is asked.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Returns whether a request may be repeated after it may have been done: its method is idempotent (RFC 9110 §9.2.2), or
/// it has a key. Where the policy says so it is given one; it stands in the head then that all attempts are made from.
pub(super) fn is_repeatable(head: &mut request::Parts, rules: &Rules) -> bool {
    if is_repeatable_as_it_is(&head.method, &head.headers) {
        return true;
    }
    // CONNECT addresses a proxy, which knows of no keys.
    if !rules.generated_keys || head.method == Method::CONNECT {
        return false;
    }
    match backoff::unguessable().map(key) {
        Some(key) => {
            head.headers.insert(IDEMPOTENCY_KEY, key);
            true
        }
        None => {
            tracing::debug!("the system has no random numbers, so a request goes without an idempotency key");
            false
        }
    }
}

/// Returns the same of a request to which nothing is added.
pub(super) fn is_repeatable_as_it_is(method: &Method, headers: &HeaderMap) -> bool {
    method.is_idempotent() || headers.contains_key(IDEMPOTENCY_KEY)
}

/// Writes a random UUID (RFC 9562 §5.4) as a string of structured fields (RFC 9651 §3.3.3).
fn key(mut bytes: [u8; 16]) -> HeaderValue {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::with_capacity(38);
    text.push('"');
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        // Writing into a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text.push('"');
    HeaderValue::try_from(text).expect("hexadecimal digits, dashes and quotes are a header value")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use http::Request;

    use super::*;

    #[test]
    fn a_key_is_a_uuid_in_quotes() {
        assert_eq!(key([0; 16]), "\"00000000-0000-4000-8000-000000000000\"");
        assert_eq!(key([0xff; 16]), "\"ffffffff-ffff-4fff-bfff-ffffffffffff\"");
        assert_eq!(
            key(*b"\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef"),
            "\"01234567-89ab-4def-8123-456789abcdef\""
        );
    }

    #[test]
    fn only_what_needs_a_key_is_given_one() {
        let rules = |generated_keys| Rules { generated_keys, ..Rules::default() };
        let run = |method: Method, own: bool, generated| {
            let mut request = Request::new(());
            *request.method_mut() = method;
            if own {
                request.headers_mut().insert(IDEMPOTENCY_KEY, "mine".parse().unwrap());
            }
            let mut head = request.into_parts().0;
            let repeatable = is_repeatable(&mut head, &rules(generated));
            (repeatable, head.headers.get(IDEMPOTENCY_KEY).cloned())
        };
        for generated in [false, true] {
            assert_eq!(run(Method::GET, false, generated), (true, None));
            assert_eq!(run(Method::POST, true, generated), (true, Some("mine".parse().unwrap())));
            assert_eq!(run(Method::CONNECT, false, generated), (false, None));
        }
        assert_eq!(run(Method::POST, false, false), (false, None));
        let keys: HashSet<_> = (0..1000).map(|_| run(Method::POST, false, true).1.unwrap()).collect();
        assert_eq!(keys.len(), 1000);
    }
}
