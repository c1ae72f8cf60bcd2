//! Whether a request may be sent a second time after the server may have acted on the first.

use std::fmt::Write as _;

use http::{HeaderName, HeaderValue, Method, Request};

use crate::backoff;

/// With this header a server does the work once, however often it is asked (draft-ietf-httpapi-idempotency-key-header).
static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// How the names of such headers end: vendors put their own name in front, as in `x-idempotency-key` and `cko-idempotency-key`.
const KEYS: [&str; 4] = ["idempotency-key", "idempotence-key", "idempotency-token", "idempotence-uuid"];

/// Other names: `PayPal`'s, and that of OASIS Repeatable Requests, which Azure takes.
const OTHER_KEYS: [&str; 2] = ["paypal-request-id", "repeatability-request-id"];

/// Safe methods that `http` has no constants for: of `WebDAV` (RFC 4918, RFC 3253, RFC 5323), and QUERY.
const SAFE: [&str; 4] = ["PROPFIND", "REPORT", "SEARCH", "QUERY"];

/// Idempotent methods for which there are none: of `WebDAV` (RFC 4918 §9, RFC 3744 §8.1), and of `CalDAV` (RFC 4791 §5.3.1).
const IDEMPOTENT: [&str; 7] = ["PROPPATCH", "MKCOL", "MKCALENDAR", "COPY", "MOVE", "UNLOCK", "ACL"];

/// The effect that a second attempt may have, as far as the request says so itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::retry) enum Repeatability {
    /// The method changes nothing.
    Safe,
    /// The second attempt changes what the first one changed, and nothing more.
    Idempotent,
    /// The server knows by an idempotency key that it has seen the request.
    Keyed,
    /// The work may be done twice, or its success be reported as a failure.
    Unsafe,
}

impl Repeatability {
    /// Reads it from a request, which is given a key if it needs one. All attempts are made from it then.
    pub(in crate::retry) fn with_key<B>(request: &mut Request<B>) -> Self {
        let found = Self::as_it_is(request.method(), request.headers());
        // CONNECT addresses a proxy, which knows of no keys.
        if found != Self::Unsafe || request.method() == Method::CONNECT {
            return found;
        }
        match backoff::unguessable().map(key) {
            Some(key) => {
                request.headers_mut().insert(&IDEMPOTENCY_KEY, key);
                Self::Keyed
            }
            None => {
                tracing::debug!(
                    "the system has no random numbers, so a request goes without an idempotency key"
                );
                Self::Unsafe
            }
        }
    }

    /// Reads it from a request to which nothing is added.
    pub(in crate::retry) fn as_it_is<'a>(
        method: &Method,
        headers: impl IntoIterator<Item = (&'a HeaderName, &'a HeaderValue)>,
    ) -> Self {
        let mut repeat = Self::of_method(method);
        if repeat == Self::Safe {
            return Self::Safe;
        }
        for (name, value) in headers {
            if is_key(name.as_str()) && says_something(value) {
                return Self::Keyed;
            }
            if is_condition(name.as_str(), value) {
                repeat = Self::Unsafe;
            }
        }
        repeat
    }

    /// Reads it from the method alone, which suffices for nearly every request. A request that is safe by its method is
    /// safe.
    #[inline]
    pub(in crate::retry) fn of_method(method: &Method) -> Self {
        if is_safe(method) {
            Self::Safe
        } else if method.is_idempotent() || IDEMPOTENT.contains(&method.as_str()) {
            Self::Idempotent
        } else {
            Self::Unsafe
        }
    }

    /// Returns whether the request may be sent again after it may have been done.
    pub(in crate::retry) fn is_allowed(self) -> bool {
        match self {
            Self::Safe | Self::Idempotent | Self::Keyed => true,
            Self::Unsafe => false,
        }
    }
}

/// Returns whether a method changes nothing.
#[inline]
pub(crate) fn is_safe(method: &Method) -> bool {
    method.is_safe() || SAFE.contains(&method.as_str())
}

/// Gives a request a key, if it needs one.
#[cfg(feature = "stack")]
pub(crate) fn add_key<B>(request: &mut Request<B>) {
    Repeatability::with_key(request);
}

/// Returns whether a header is an idempotency key.
pub(crate) fn is_key(name: &str) -> bool {
    KEYS.iter().any(|end| name.ends_with(end)) || OTHER_KEYS.contains(&name)
}

/// Returns whether a header is a condition on what is there: a repeated write meets what the first one wrote, so that it fails
/// although it succeeded. Those of RFC 9110 §13.1, of `WebDAV` (`If` and `Overwrite: F`, RFC 4918 §10), of `CalDAV`
/// (`If-Schedule-Tag-Match`), and those of object stores, such as `x-goog-if-generation-match`. A condition on the source of a
/// copy is none.
pub(crate) fn is_condition(name: &str, value: &HeaderValue) -> bool {
    let is_vendors = name.starts_with("x-") && name.contains("-if-") && !name.contains("-source-");
    let keeps = || value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"F");
    name == "if" || name.starts_with("if-") || is_vendors || name == "overwrite" && keeps()
}

/// An empty key, also one in quotes, tells no two requests apart.
fn says_something(key: &HeaderValue) -> bool {
    key.as_bytes().iter().any(|byte| !matches!(byte, b'"' | b' ' | b'\t'))
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
        let run = |method: Method, own: bool, generated| {
            let mut request = Request::new(());
            *request.method_mut() = method;
            if own {
                request.headers_mut().insert(&IDEMPOTENCY_KEY, "mine".parse().unwrap());
            }
            let repeat = match generated {
                true => Repeatability::with_key(&mut request),
                false => Repeatability::as_it_is(request.method(), request.headers()),
            };
            let repeatable = repeat.is_allowed();
            (repeatable, request.headers().get(&IDEMPOTENCY_KEY).cloned())
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

    #[test]
    fn a_condition_is_one_in_whatever_header_it_stands() {
        for name in [
            "if-match",
            "if-none-match",
            "if-modified-since",
            "if-unmodified-since",
            "if",
            "if-schedule-tag-match",
            "x-goog-if-generation-match",
            "x-ms-if-sequence-number-eq",
            "x-amz-if-match-size",
        ] {
            let request = Request::put("/").header(name, "0").body(()).unwrap();
            let found = Repeatability::as_it_is(request.method(), request.headers());
            assert_eq!(found, Repeatability::Unsafe, "{name}");
        }
        for name in ["x-amz-copy-source-if-match", "x-ms-source-if-match", "x-iface", "iffy"] {
            let request = Request::put("/").header(name, "0").body(()).unwrap();
            let found = Repeatability::as_it_is(request.method(), request.headers());
            assert_eq!(found, Repeatability::Idempotent, "{name}");
        }
    }

    #[test]
    fn an_empty_key_counts_for_nothing_and_is_replaced() {
        for empty in ["", " ", "\"\"", "\" \"", "\t"] {
            let mut request = Request::post("/").header(&IDEMPOTENCY_KEY, empty).body(()).unwrap();
            let found = Repeatability::as_it_is(request.method(), request.headers());
            assert_eq!(found, Repeatability::Unsafe, "{empty:?}");
            assert_eq!(Repeatability::with_key(&mut request), Repeatability::Keyed);
            assert_eq!(request.headers()[&IDEMPOTENCY_KEY].len(), 38);
        }
    }
}
