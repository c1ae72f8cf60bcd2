//! `Retry-After` (RFC 9110 §10.2.3): how long a server asks to be left alone.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use http::header::{DATE, HeaderName, RETRY_AFTER};

use crate::clock::FARTHEST;

/// Reads how long to wait from now, given as the time since the Unix epoch.
///
/// Seconds may have decimals, which some servers send. A date is measured against the response's own `Date` where
/// there is one, so that a wrong clock on this side does no harm, and one in the past means no wait. Of several values
/// the longest counts. Whatever is not a wait by the letter (a sign, an exponent, a unit, a quote, a word) is
/// ignored: then the caller's own backoff decides.
pub(crate) fn delay(headers: &HeaderMap, now: Duration) -> Option<Duration> {
    let base = server_time(headers, now);
    longest(headers, &RETRY_AFTER, |element| {
        seconds(element).or_else(|| Some(http_date(element, now)?.saturating_sub(base)))
    })
}

/// Returns the time by the server's clock, if it says that, else by ours.
pub(crate) fn server_time(headers: &HeaderMap, now: Duration) -> Duration {
    values(headers, &DATE).find_map(|date| http_date(date, now)).unwrap_or(now)
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

/// Reads one field line, in which a proxy may have merged several. All of its elements must be readable, or else nobody
/// can say which wait is the longest.
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

/// Reads a whole or decimal number of seconds. What a duration cannot hold is as long as it can be.
pub(super) fn seconds(text: &str) -> Option<Duration> {
    let text = text.trim_ascii();
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(decimals) {
        return None;
    }
    // Both are digits only, so the one way to fail is to be too large.
    let whole = Duration::from_secs(whole.parse().unwrap_or(u64::MAX));
    let millis = |part: &str| format!("{part:0<3}").parse().map(Duration::from_millis);
    let (kept, cut) = decimals.split_at(decimals.len().min(3));
    // Never early: what is cut off counts as a millisecond.
    let round_up = Duration::from_millis(u64::from(cut.bytes().any(|digit| digit != b'0')));
    Some(whole.saturating_add(millis(kept).ok()?).saturating_add(round_up))
}

/// Reads an HTTP-date (RFC 9110 §5.6.7) in any of its three forms, as the time since the Unix epoch.
///
/// Case and zone are taken by the letter, a wrong weekday makes it no date, and so does a year before 1970.
pub(super) fn http_date(text: &str, now: Duration) -> Option<Duration> {
    let text = text.trim_ascii();
    let date = match with_four_digit_year(text, now) {
        Some(text) => httpdate::parse_http_date(&text),
        // A long weekday that is not followed by what follows one. The parser overlooks the separators there.
        None if text.find(',').is_some_and(|at| at != 3) => return None,
        None => httpdate::parse_http_date(text),
    };
    date.ok().and_then(since_epoch)
}

fn since_epoch(time: SystemTime) -> Option<Duration> {
    time.duration_since(UNIX_EPOCH).ok()
}

/// Writes the form of RFC 850 (`Sunday, 06-Nov-94 08:49:37 GMT`) as the preferred one; nothing if it is another form.
///
/// Two digits of a year that would lie more than 50 years ahead mean the past century (RFC 9110 §5.6.7). The comparison
/// is by the year, which is as fine as two digits can be.
fn with_four_digit_year(text: &str, now: Duration) -> Option<String> {
    const WEEKDAYS: [&str; 7] =
        ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
    let (weekday, rest) = text.split_once(", ")?;
    let (date, time) = rest.split_once(' ')?;
    let mut parts = date.split('-');
    let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || !WEEKDAYS.contains(&weekday) || year.len() != 2 {
        return None;
    }
    let two_digits: u64 = year.bytes().all(|byte| byte.is_ascii_digit()).then(|| year.parse().ok())??;
    let this_year = 1970 + now.as_secs() / 31_556_952;
    // The last year with these digits that is at most 50 years ahead.
    let latest = this_year + 50;
    let year = latest - (latest % 100 + 100 - two_digits) % 100;
    Some(format!("{}, {day} {month} {year:04} {time}", &weekday[..3]))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::vectors::{acceptable, read};

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
        for vector in read("retry_after") {
            let lines = vector["input"]["headers"].as_array().unwrap();
            let lines = lines.iter().map(|line| (line[0].as_str().unwrap(), line[1].as_str().unwrap()));
            let now = Duration::from_millis(vector["input"]["now_unix_ms"].as_u64().unwrap());
            let got = delay(&headers(lines), now).map(|delay| u64::try_from(delay.as_millis()).unwrap());
            let passes = |expected: &Value| match expected["delay_ms"]["at_least"].as_u64() {
                Some(least) => got.is_some_and(|got| got >= least),
                None => got == expected["delay_ms"].as_u64(),
            };
            assert!(acceptable(&vector).into_iter().any(passes), "{}: {got:?}", vector["id"]);
        }
    }

    // By policy four dates that are none by the letter are not guessed at, each of which the vectors allow as well:
    // HD-012 (wrong weekday), HD-013 and HD-014 (numeric zone), HD-015 (UTC); and HD-020 (before 1970) is none here.
    #[test]
    fn every_vector_of_http_date_passes() {
        let mut refused = Vec::new();
        for vector in read("http_date") {
            let value = vector["input"]["value"].as_str().unwrap();
            let now = Duration::from_secs(vector["input"]["now_unix"].as_u64().unwrap());
            let got = http_date(value, now).map(|date| i64::try_from(date.as_secs()).unwrap());
            let passes = |expected: &&Value| got == expected["unix"].as_i64();
            assert!(acceptable(&vector).iter().any(passes), "{}: {got:?}", vector["id"]);
            if !passes(&&vector["expect"]) {
                refused.push(vector["id"].as_str().unwrap().to_owned());
            }
        }
        assert_eq!(refused, ["HD-012", "HD-013", "HD-014", "HD-015", "HD-020"]);
    }

    #[test]
    fn two_digits_of_a_year_mean_at_most_fifty_years_ahead() {
        let year = |text: &str, now: u64| {
            let now = Duration::from_secs((now - 1970) * 31_556_952 + 15_000_000);
            with_four_digit_year(text, now).map(|text| text[12..16].parse::<u64>().unwrap())
        };
        assert_eq!(year("Sunday, 14-Nov-76 22:13:20 GMT", 2023), Some(1976));
        assert_eq!(year("Sunday, 14-Nov-73 22:13:20 GMT", 2023), Some(2073));
        assert_eq!(year("Sunday, 14-Nov-74 22:13:20 GMT", 2023), Some(1974));
        assert_eq!(year("Sunday, 14-Nov-00 22:13:20 GMT", 2099), Some(2100));
        assert_eq!(year("Sunday, 14-Nov-99 22:13:20 GMT", 2099), Some(2099));
        assert_eq!(year("Sun, 14-Nov-99 22:13:20 GMT", 2099), None);
        assert_eq!(http_date("Thursday, 14-Nov-30-22:13:20 GMT", Duration::ZERO), None);
        // 14 November 1976 was a Sunday, and 2076 would not be.
        let date = http_date("Sunday, 14-Nov-76 22:13:20 GMT", NOW).unwrap();
        assert_eq!(date.as_secs(), 216_857_600);
    }

    #[test]
    fn what_is_no_wait_by_the_letter_is_left_to_the_backoff() {
        let broken =
            ["-5", "+5", "1e3", "0x10", "\"30\"", "30s", "soon", "", " ", "1.", ".5", "1.5.2", "5,", "５"];
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
                headers.insert(DATE, value);
                let _ = delay(&headers, Duration::from_secs(now));
            }
        }

        #[test]
        fn nothing_like_a_date_makes_it_panic(
            text in "(Sun|Sunday), [0-9]{1,3}[- ](Feb|Nov|x)[- ]-?[0-9]{1,5} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT",
            now in any::<u64>(),
        ) {
            let _ = http_date(&text, Duration::from_secs(now));
        }

        #[test]
        fn a_written_date_is_read_back(at in 0..250_000_000_000_u64) {
            let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(at));
            prop_assert_eq!(http_date(&text, NOW), Some(Duration::from_secs(at)));
        }
    }
}
