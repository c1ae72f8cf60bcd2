//! All headers that ask for a wait.

use http::StatusCode;
use http::header::{AGE, HeaderName};

use crate::clock::FARTHEST;
use crate::headers::profile::RateLimitProfile;
use crate::headers::rate_limit::hint;
use crate::headers::retry_after;
use crate::headers::time::ServerClock;
use crate::input;

/// What asks for a wait outright, in its order.
const OUTRIGHT: [&str; 3] = ["retry-after-ms", "x-ms-retry-after-ms", "retry-after"];

/// Input: `429 genesys 1700000000`, which is the status, a profile, and the time; then header lines.
///
/// Only an error asks for a wait, by a header that is there, and for one that can be added to any clock's reading.
/// `Retry-After` is read as by itself, goes before every quota, and is all that is read of an answer from a cache.
pub fn rate_limit(data: &[u8]) {
    let (line, rest) = input::text_line(data);
    let mut words = line.split(' ');
    let status = words.next().and_then(|status| status.parse().ok()).unwrap_or(StatusCode::TOO_MANY_REQUESTS);
    let profile = match words.next() {
        Some("github") => RateLimitProfile::github(),
        Some("genesys") => RateLimitProfile::genesys(),
        Some("llm") => RateLimitProfile::llm(),
        Some("own") => RateLimitProfile::generic().delay(HeaderName::from_static("x-come-back")),
        _ => RateLimitProfile::generic(),
    };
    let now = input::parse_time(words.next().unwrap_or_default());
    let (headers, _) = input::headers(rest);

    let hint = hint(&profile, status, &headers, now);
    if !status.is_client_error() && !status.is_server_error() {
        assert!(hint.is_none());
        return;
    }
    if let Some(hint) = hint {
        assert!(hint.delay <= FARTHEST);
        assert!(headers.contains_key(hint.source));
        let source = hint.source.as_str();
        let asks = OUTRIGHT.contains(&source) || ["x-ratelimit-retry-after", "x-ratelimit-after", "x-come-back"].contains(&source);
        let mut ages = headers.get_all(AGE).iter().map(|age| age.as_bytes());
        let old = |age: &[u8]| age.iter().all(u8::is_ascii_digit) && age.iter().any(|digit| *digit != b'0');
        let stored = ages.next().is_some_and(old) && ages.next().is_none();
        assert!(asks || !stored, "{source}");
    }
    if let Some(delay) = retry_after::delay(&headers, ServerClock::of(&headers, now)) {
        let hint = hint.expect("one header asks for a wait");
        assert!(OUTRIGHT.contains(&hint.source.as_str()));
        assert!(hint.source != http::header::RETRY_AFTER || hint.delay == delay);
    }
}
