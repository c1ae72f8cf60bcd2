//! HTTP-date, by way of `Retry-After`.

use std::time::{Duration, UNIX_EPOCH};

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue};

use crate::clock::FARTHEST;
use crate::headers::retry_after;
use crate::headers::time::ServerClock;
use crate::input;

const YEAR: Duration = Duration::from_secs(366 * 86_400);

/// Input: the time by the clock of this side, then the date.
///
/// A time that was read is read again from the preferred form, and two digits of a year never mean a time more than
/// fifty years ahead.
pub fn http_date(data: &[u8]) {
    let (now, text) = input::time(data);
    // A number or a span of time is no date, and has no space in it.
    if !text.trim_ascii().contains(&b' ') {
        return;
    }
    let Some(wait) = wait(text, now).filter(|wait| *wait < FARTHEST) else { return };
    let at = now + wait;
    if wait.subsec_nanos() == 0 && at.as_secs() < 253_402_300_800 {
        let written = httpdate::fmt_http_date(UNIX_EPOCH + at);
        assert_eq!(self::wait(written.as_bytes(), now), Some(wait), "{written}");
    }
    let has_four_digits = text.windows(4).any(|digits| digits.iter().all(u8::is_ascii_digit));
    assert!(has_four_digits || wait <= YEAR * 51, "{wait:?}");
}

fn wait(text: &[u8], now: Duration) -> Option<Duration> {
    let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_bytes(text).ok()?)]);
    retry_after::delay(&headers, ServerClock::of(&headers, now))
}
