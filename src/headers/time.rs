//! Points in time and spans of time, in all the ways in which servers write them: one reader for every header.
//!
//! | text | what it is |
//! |---|---|
//! | a number below 10^9, with decimals if need be | a span in the unit of the header |
//! | a number from 10^9 on | seconds since the Unix epoch |
//! | a number from 10^12, 10^15 or 10^18 on | milliseconds, microseconds or nanoseconds since then |
//! | `1m30s`, `1d2h`, `1.5s`, `12ms`, `00:01:30` | a span, in a header that counts seconds |
//! | `2023-11-14T22:14:20Z`, also with a space for the `T`, without seconds, or with `+0000`, ` UTC` or ` +0000 UTC` for the zone | RFC 3339 |
//! | `Tue, 14 Nov 2023 22:14:20 GMT`, and the two older forms, also with `+0000` or `UTC` for the zone | an HTTP-date (RFC 9110 §5.6.7) |
//!
//! A point in time is measured against the server's own clock where it says what that is, so that a wrong clock on this side
//! does no harm. A point in the past asks for no wait.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use http::header::{AGE, DATE};

use super::retry_after::values;

/// The time at the server, as it was when it sent a response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerClock {
    /// The time here, since the Unix epoch.
    now: Duration,
    time: Duration,
}

/// The unit of a number that is not a point in time.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unit {
    Seconds,
    Milliseconds,
}

/// From here on a number is a time since the Unix epoch in seconds: as a span it would be more than 31 years, and as one
/// in milliseconds more than 11 days.
const EPOCH_SECONDS: u64 = 1_000_000_000;

/// From here on it is one in milliseconds: as seconds it would be the year 33658.
const EPOCH_MILLIS: u64 = 1_000_000_000_000;

/// From here on it is one in microseconds, and from the next on one in nanoseconds, for the same reason.
const EPOCH_MICROS: u64 = 1_000_000_000_000_000;
const EPOCH_NANOS: u64 = 1_000_000_000_000_000_000;

impl ServerClock {
    /// Reads the clock of a response that came at `now`. A response from a cache is older by its `Age` (RFC 9111 §5.1).
    pub(crate) fn of(headers: &HeaderMap, now: Duration) -> Self {
        let date = values(headers, &DATE).find_map(|date| http_date(date, now));
        let age = || values(headers, &AGE).find_map(seconds).unwrap_or_default();
        Self { now, time: date.map_or(now, |date| date.saturating_add(age())) }
    }

    /// Returns the time since the Unix epoch.
    pub(crate) fn time(self) -> Duration {
        self.time
    }

    /// Reads a text as a wait from now.
    pub(super) fn wait(self, text: &str, unit: Unit) -> Option<Duration> {
        if let Some(number) = seconds(text) {
            return Some(self.counted(number, unit));
        }
        let span = match unit {
            Unit::Seconds => duration(text).or_else(|| clock_span(text)),
            Unit::Milliseconds => None,
        };
        span.or_else(|| self.until(timestamp(text).or_else(|| http_date(text, self.now))?))
    }

    /// Takes a number as a wait from now.
    pub(super) fn counted(self, number: Duration, unit: Unit) -> Duration {
        match (number.as_secs(), unit) {
            (..EPOCH_SECONDS, Unit::Seconds) => number,
            (..EPOCH_SECONDS, Unit::Milliseconds) => number / 1000,
            (EPOCH_SECONDS.., _) => since_the_epoch(number).saturating_sub(self.time),
        }
    }

    fn until(self, at: Duration) -> Option<Duration> {
        Some(at.saturating_sub(self.time))
    }
}

/// Takes a number as the time since the Unix epoch, in the unit that makes sense of it.
pub(crate) fn since_the_epoch(number: Duration) -> Duration {
    match number.as_secs() {
        ..EPOCH_MILLIS => number,
        EPOCH_MILLIS..EPOCH_MICROS => number / 1_000,
        EPOCH_MICROS..EPOCH_NANOS => number / 1_000_000,
        EPOCH_NANOS.. => number / 1_000_000_000,
    }
}

/// Reads a whole or decimal number of seconds. A number too large for a duration becomes the longest duration.
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

/// Reads a duration with units, such as `1m30s` or `1.5s`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut sum = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let unit = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number = seconds(&rest[..unit])?;
        rest = &rest[unit..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        sum = sum.saturating_add(match &rest[..end] {
            "d" => number.saturating_mul(86_400),
            "h" => number.saturating_mul(3600),
            "m" => number.saturating_mul(60),
            "s" => number,
            "ms" => number / 1_000,
            "us" | "µs" | "μs" => number / 1_000_000,
            "ns" => number / 1_000_000_000,
            _ => return None,
        });
        rest = &rest[end..];
    }
    (!text.is_empty()).then_some(sum)
}

/// Reads a span in the form of `00:01:30`.
fn clock_span(text: &str) -> Option<Duration> {
    let [hours, minutes, seconds] = numbers(text.trim_ascii(), ':', [2, 2, 2])?;
    u64::try_from(hours * 3600 + minutes * 60 + seconds).ok().map(Duration::from_secs)
}

/// Reads a time in the form of RFC 3339, as the time since the Unix epoch. One before that is none.
pub(crate) fn timestamp(text: &str) -> Option<Duration> {
    // The readable form has a space there (RFC 3339 §5.6).
    let (date, time) = text.trim_ascii().split_once(['T', 't', ' '])?;
    let (time, offset) = time.strip_suffix(['Z', 'z']).map(|time| (time, 0)).or_else(|| zoned(time))?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    // Some leave the seconds out, which RFC 3339 does not allow.
    let ([hour, minute, second], fraction) = match time.split_at_checked(8) {
        Some((clock, fraction)) => (numbers(clock, ':', [2, 2, 2])?, fraction),
        None => {
            let [hour, minute] = numbers(time, ':', [2, 2])?;
            ([hour, minute, 0], "")
        }
    };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last_day = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    // A leap second is the first second of the next minute.
    if !(1..=last_day).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let fraction = match fraction.strip_prefix('.') {
        Some(decimals) => seconds(&format!("0.{decimals}"))?,
        None if fraction.is_empty() => Duration::ZERO,
        None => return None,
    };
    // Counted from the first of March, so that the leap day is the last one of its year.
    let (years, months) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = years.div_euclid(4) - years.div_euclid(100) + years.div_euclid(400);
    let days = years * 365 + leap_days + (153 * months + 2) / 5 + day - 1 - 719_468;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset;
    Some(Duration::from_secs(u64::try_from(seconds).ok()?).saturating_add(fraction))
}

/// Splits a time from its zone, which is an offset, ` UTC` or both, and returns how many seconds that is ahead of UTC.
fn zoned(time: &str) -> Option<(&str, i64)> {
    match time.strip_suffix(" UTC") {
        Some(time) => offset(time).or(Some((time, 0))),
        None => offset(time),
    }
}

/// Splits a time from its offset.
fn offset(time: &str) -> Option<(&str, i64)> {
    let (time, offset) = time.split_at_checked(time.rfind(['+', '-'])?)?;
    let sign = if offset.starts_with('-') { -1 } else { 1 };
    let offset = &offset[1..];
    // Some leave the colon out, as ISO 8601 allows.
    let [hours, minutes] = match offset.split_at_checked(2) {
        Some((hours, minutes)) if !minutes.starts_with(':') => {
            let ([hours], [minutes]) = (numbers(hours, ':', [2])?, numbers(minutes, ':', [2])?);
            [hours, minutes]
        }
        Some(_) | None => numbers(offset, ':', [2, 2])?,
    };
    let is_offset = hours <= 23 && minutes <= 59;
    is_offset.then_some((time.trim_ascii_end(), sign * (hours * 3600 + minutes * 60)))
}

/// Reads numbers of so many digits each.
fn numbers<const N: usize>(text: &str, separator: char, digits: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(separator);
    let mut numbers = [0; N];
    for (number, digits) in numbers.iter_mut().zip(digits) {
        let part = parts.next()?;
        if part.len() != digits || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

/// Reads an HTTP-date (RFC 9110 §5.6.7) in any of its three forms, as the time since the Unix epoch.
///
/// Case is taken by the letter, a wrong weekday makes it no date, and so does a year before 1970. A zone may stand in the place of
/// `GMT`, as in RFC 5322 §3.3.
pub(crate) fn http_date(text: &str, now: Duration) -> Option<Duration> {
    let text = text.trim_ascii();
    let (text, ahead) = match zoned(text) {
        Some((time, ahead)) => (Cow::from(format!("{time} GMT")), ahead),
        None => (Cow::from(text), 0),
    };
    let date = match with_four_digit_year(&text, now) {
        Some(text) => httpdate::parse_http_date(&text),
        // A long weekday that is not followed by what follows one. The parser overlooks the separators there.
        None if text.find(',').is_some_and(|at| at != 3) => return None,
        None => httpdate::parse_http_date(&text),
    };
    let local = date.ok().and_then(since_epoch)?;
    local.as_secs().checked_add_signed(-ahead).map(Duration::from_secs)
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
    use proptest::prelude::*;

    use super::*;
    use crate::vectors::rows;

    const NOW: Duration = Duration::from_secs(1_700_000_000);

    #[test]
    fn every_vector_of_http_date_passes() {
        let vectors = rows("http_date");
        assert_eq!(vectors.len(), 20);
        for vector in vectors {
            let value = vector["input"]["value"].as_str().unwrap();
            let now = Duration::from_secs(vector["input"]["now_unix"].as_u64().unwrap());
            // Where a date may stand, servers write it in another form as well.
            let date = http_date(value, now).or_else(|| timestamp(value));
            let got = date.map(|date| i64::try_from(date.as_secs()).unwrap());
            assert_eq!(vector["expect"]["unix"], serde_json::json!(got), "{}", vector["id"]);
        }
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

    proptest! {
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
