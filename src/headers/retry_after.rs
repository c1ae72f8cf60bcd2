//! `Retry-After` (RFC 9110 §10.2.3): how long a server asks to be left alone.

use std::time::Duration;

use http::HeaderMap;
use http::header::{HeaderName, RETRY_AFTER};

use super::time::{ServerClock, Unit};
use crate::clock::FARTHEST;

/// Reads how long to wait from now.
///
/// Of several values the longest counts. A value that does not parse as a wait (a sign, an exponent, a quote, a word) is
/// ignored: then the caller's own backoff decides.
pub(crate) fn delay(headers: &HeaderMap, clock: ServerClock) -> Option<Duration> {
    longest(headers, &RETRY_AFTER, |element| clock.wait(element, Unit::Seconds))
}

/// Reads a field and returns the longest of its values.
pub(super) fn longest(
    headers: &HeaderMap,
    name: &HeaderName,
    read: impl Fn(&str) -> Option<Duration>,
) -> Option<Duration> {
    let longest = values(headers, name).filter_map(|line| longest_in(line, &read)).max()?;
    // A caller's cap is far below; what matters is that sums with it do not overflow.
    Some(longest.min(FARTHEST))
}

pub(super) fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).iter().filter_map(|value| std::str::from_utf8(value.as_bytes()).ok())
}

/// Reads one field line, in which a proxy may have merged several. All of its elements must be readable, or else it is not
/// known which wait is the longest.
fn longest_in(line: &str, read: impl Fn(&str) -> Option<Duration>) -> Option<Duration> {
    let mut longest = None;
    let mut rest = line;
    loop {
        let (element, after) = element(rest);
        longest = longest.max(Some(read(element)?));
        match after {
            Some(after) => rest = after,
            None => return longest,
        }
    }
}

/// Splits a list after its first element. A date may have a comma of its own, right behind the weekday.
fn element(list: &str) -> (&str, Option<&str>) {
    let mut commas = list.match_indices(',').map(|(at, _)| at);
    let first = commas.next();
    let weekday = |at: &usize| list[..*at].trim_ascii().bytes().all(|byte| byte.is_ascii_alphabetic());
    let end = if first.as_ref().is_some_and(weekday) { commas.next() } else { first };
    match end {
        Some(end) => (&list[..end], Some(&list[end + 1..])),
        None => (list, None),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::vectors::rows;

    fn delay(headers: &HeaderMap, now: Duration) -> Option<Duration> {
        super::delay(headers, ServerClock::of(headers, now))
    }

    const NOW: Duration = Duration::from_secs(1_700_000_000);

    fn headers<'a>(lines: impl IntoIterator<Item = (&'a str, &'a str)>) -> HeaderMap {
        let line = |(name, value): (&str, &str)| {
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
        };
        let mut headers = HeaderMap::new();
        for (name, value) in lines.into_iter().map(line) {
            headers.append(name, value);
        }
        headers
    }

    fn wait(value: &str) -> Option<Duration> {
        delay(&headers([("retry-after", value)]), NOW)
    }

    #[test]
    fn every_vector_of_retry_after_passes() {
        let vectors = rows("retry_after");
        assert_eq!(vectors.len(), 25);
        for vector in vectors {
            let lines = vector["input"]["headers"].as_array().unwrap();
            let lines = lines.iter().map(|line| (line[0].as_str().unwrap(), line[1].as_str().unwrap()));
            let now = Duration::from_millis(vector["input"]["now_unix_ms"].as_u64().unwrap());
            let got = delay(&headers(lines), now).map(|delay| u64::try_from(delay.as_millis()).unwrap());
            let (id, expected) = (&vector["id"], &vector["expect"]["delay_ms"]);
            match expected["at_least"].as_u64() {
                Some(least) => assert!(got.unwrap() >= least, "{id}: {got:?}"),
                None => assert_eq!(*expected, json!(got), "{id}"),
            }
        }
    }

    #[test]
    fn what_is_no_wait_by_the_letter_is_left_to_the_backoff() {
        let broken =
            ["-5", "+5", "1e3", "0x10", "\"30\"", "30 s", "soon", "", " ", "1.", ".5", "1.5.2", "5,", "５"];
        for value in broken.into_iter().filter(|value| value.is_ascii()) {
            assert_eq!(wait(value), None, "{value:?}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_bytes("５".as_bytes()).unwrap());
        assert_eq!(delay(&headers, NOW), None);
        headers.insert(RETRY_AFTER, HeaderValue::from_bytes(b"5\xff").unwrap());
        assert_eq!(delay(&headers, NOW), None);
    }

    #[test]
    fn decimals_are_rounded_up_to_a_millisecond() {
        assert_eq!(wait("1.5"), Some(Duration::from_millis(1500)));
        assert_eq!(wait("0.0001"), Some(Duration::from_millis(1)));
        assert_eq!(wait("2.9999"), Some(Duration::from_millis(3000)));
        assert_eq!(wait("0.25000000000000000000000000000000000000000"), Some(Duration::from_millis(250)));
    }

    #[test]
    fn of_merged_values_the_longest_counts_if_all_can_be_read() {
        assert_eq!(wait("5, Tue, 14 Nov 2023 22:13:40 GMT, 10"), Some(Duration::from_secs(20)));
        assert_eq!(wait("Tue, 14 Nov 2023 22:13:40 GMT,30"), Some(Duration::from_secs(30)));
        assert_eq!(wait("5, soon, 10"), None);
        let lines = ["5", "10", "soon", "7"].map(|value| ("retry-after", value));
        assert_eq!(delay(&headers(lines), NOW), Some(Duration::from_secs(10)));
    }

    #[test]
    fn the_servers_own_date_is_the_base_of_its_dates() {
        // Its clock is an hour slow and an hour fast of ours.
        for (date, until) in [
            ("Tue, 14 Nov 2023 21:13:20 GMT", "Tue, 14 Nov 2023 21:13:50 GMT"),
            ("Tue, 14 Nov 2023 23:13:20 GMT", "Tue, 14 Nov 2023 23:13:50 GMT"),
        ] {
            let headers = headers([("date", date), ("retry-after", until)]);
            assert_eq!(delay(&headers, NOW), Some(Duration::from_secs(30)));
        }
        let headers = headers([("date", "nonsense"), ("retry-after", "Tue, 14 Nov 2023 22:13:50 GMT")]);
        assert_eq!(delay(&headers, NOW), Some(Duration::from_secs(30)));
    }

    #[test]
    fn the_longest_wait_can_be_added_to_any_clock_reading() {
        for value in ["18446744073709551615", "99999999999999999999.9999", "Fri, 31 Dec 9999 23:59:59 GMT"] {
            assert_eq!(wait(value), Some(FARTHEST), "{value}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            value in proptest::collection::vec(any::<u8>(), 0..80), now in any::<u64>(),
        ) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let mut headers = HeaderMap::new();
                headers.insert(RETRY_AFTER, value.clone());
                headers.insert(http::header::DATE, value);
                let _ = delay(&headers, Duration::from_secs(now));
            }
        }

    }
}
