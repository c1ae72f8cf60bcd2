//! `Retry-After`.

use std::time::Duration;

use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue};

use crate::clock::FARTHEST;
use crate::headers::retry_after;
use crate::headers::time::ServerClock;
use crate::input;

/// Input: the time by the clock of this side, then header lines.
///
/// The wait can be added to any clock's reading, does not depend on the order of the lines, is what it says where it is
/// digits alone and no point in time, and only grows with a further line.
pub fn retry_after(data: &[u8]) {
    let (now, rest) = input::time(data);
    let (headers, _) = input::headers(rest);
    let wait = delay(&headers, now);
    assert!(wait.unwrap_or_default() <= FARTHEST);

    let lines: Vec<&HeaderValue> = headers.get_all(RETRY_AFTER).iter().collect();
    let with = |lines: &mut dyn Iterator<Item = &HeaderValue>| {
        let mut changed = HeaderMap::new();
        headers.get_all(DATE).iter().for_each(|date| {
            changed.append(DATE, date.clone());
        });
        lines.for_each(|line| {
            changed.append(RETRY_AFTER, line.clone());
        });
        delay(&changed, now)
    };
    assert_eq!(with(&mut lines.iter().rev().copied()), wait);
    if let [first @ .., _] = &lines[..] {
        assert!(with(&mut first.iter().copied()) <= wait);
    }
    if let [line] = lines[..]
        && !line.is_empty()
        && line.as_bytes().iter().all(u8::is_ascii_digit)
    {
        let seconds = line.to_str().expect("digits are text").parse().unwrap_or(u64::MAX);
        assert!(seconds >= 1_000_000_000 || wait == Some(Duration::from_secs(seconds)));
        assert!(wait.is_some());
    }
}

fn delay(headers: &HeaderMap, now: Duration) -> Option<Duration> {
    retry_after::delay(headers, ServerClock::of(headers, now))
}
