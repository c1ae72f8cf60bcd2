//! How long a server asks to be left alone, in all the ways in which servers say it.
//!
//! 1. Only a 4xx or 5xx is read. What is left of a quota after a success causes no wait.
//! 2. The first of these that asks for a wait counts: `retry-after-ms`, `x-ms-retry-after-ms`, `Retry-After` (RFC 9110
//!    §10.2.3), `RateLimit`, `RateLimit-Reset`, `x-ratelimit-reset-after`, `x-ratelimit-retry-after`,
//!    `x-ratelimit-reset`, `x-rate-limit-reset`, and then those of the profile, of which the longest wait counts.
//! 3. A quota asks for a wait where nothing is left of it, and on a 429 also where nobody says what is left. On a 429
//!    with something left it was another limit that was met, and when this quota is renewed says nothing about that.
//! 4. `RateLimit` is read in the forms of the drafts: the list of draft-ietf-httpapi-ratelimit-headers-08 and later,
//!    and the dictionary of -07. Of several policies the exhausted ones count, and of those the longest. A malformed
//!    field is ignored as a whole. `RateLimit-Policy` says what the windows are; that is no wait.
//! 5. An answer from a cache (`Age`) tells the quota of another time. Only the headers that ask for a wait outright are
//!    read of it.
//! 6. A point in time is measured against the server's own `Date`, where there is one, so that a wrong clock on this
//!    side does no harm. One in the past is no wait.

use std::time::Duration;

use http::header::{AGE, HeaderName};
use http::{HeaderMap, StatusCode};

use super::profile::{Field, Left, RateLimitProfile};
use super::retry_after;
use super::structured::{self, Bare, Member};
use crate::clock::FARTHEST;

/// From here on a number is a time since the Unix epoch in seconds: as a wait it would be more than 31 years.
const EPOCH_SECONDS: u64 = 1_000_000_000;

/// From here on it is one in milliseconds: as seconds it would be the year 33658.
const EPOCH_MILLIS: u64 = 1_000_000_000_000;

static IN_MILLISECONDS: [HeaderName; 2] =
    [HeaderName::from_static("retry-after-ms"), HeaderName::from_static("x-ms-retry-after-ms")];

static RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// What is read whatever the profile, after the fields with a grammar of their own.
static COMMON: [Field; 5] = [
    Field {
        reset: HeaderName::from_static("ratelimit-reset"),
        left: Left::Remaining(HeaderName::from_static("ratelimit-remaining")),
    },
    Field {
        reset: HeaderName::from_static("x-ratelimit-reset-after"),
        left: Left::Remaining(HeaderName::from_static("x-ratelimit-remaining")),
    },
    Field { reset: HeaderName::from_static("x-ratelimit-retry-after"), left: Left::Unsaid },
    Field {
        reset: HeaderName::from_static("x-ratelimit-reset"),
        left: Left::Remaining(HeaderName::from_static("x-ratelimit-remaining")),
    },
    Field {
        reset: HeaderName::from_static("x-rate-limit-reset"),
        left: Left::Remaining(HeaderName::from_static("x-rate-limit-remaining")),
    },
];

/// What a server asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hint<'a> {
    /// How long to wait from now.
    pub(crate) delay: Duration,
    /// The header that says so.
    pub(crate) source: &'a HeaderName,
}

/// Reads what an answer asks for, by the rules above. `now` is the time since the Unix epoch.
pub(crate) fn hint<'a>(
    profile: &'a RateLimitProfile,
    status: StatusCode,
    headers: &HeaderMap,
    now: Duration,
) -> Option<Hint<'a>> {
    if !status.is_client_error() && !status.is_server_error() {
        return None;
    }
    let answer = Answer {
        headers,
        now,
        server_time: retry_after::server_time(headers, now),
        limited: status == StatusCode::TOO_MANY_REQUESTS,
        stored: count(headers, &AGE).is_some_and(|age| age > 0),
    };
    IN_MILLISECONDS
        .iter()
        .find_map(|name| said(answer.milliseconds(name), name))
        .or_else(|| said(retry_after::delay(headers, now), &http::header::RETRY_AFTER))
        .or_else(|| said(answer.rate_limit(), &RATE_LIMIT))
        .or_else(|| COMMON.iter().find_map(|field| answer.field(field)))
        .or_else(|| {
            profile.fields().iter().filter_map(|field| answer.field(field)).max_by_key(|hint| hint.delay)
        })
}

fn said(delay: Option<Duration>, source: &HeaderName) -> Option<Hint<'_>> {
    // A caller's cap is far below; what matters is that sums with it do not overflow.
    Some(Hint { delay: delay?.min(FARTHEST), source })
}

// --- Answer ---

struct Answer<'h> {
    headers: &'h HeaderMap,
    now: Duration,
    server_time: Duration,
    /// The status says that a limit was met.
    limited: bool,
    /// It was served by a cache.
    stored: bool,
}

impl Answer<'_> {
    fn milliseconds(&self, name: &HeaderName) -> Option<Duration> {
        retry_after::longest(self.headers, name, |text| Some(retry_after::seconds(text)? / 1000))
    }

    fn field<'a>(&self, field: &'a Field) -> Option<Hint<'a>> {
        let asks = match &field.left {
            Left::Unsaid => true,
            Left::Remaining(name) => self.is_exhausted(count(self.headers, name)),
            Left::Counted { used, allowed } => self.is_exhausted(
                count(self.headers, allowed)
                    .and_then(|allowed| Some(allowed.saturating_sub(count(self.headers, used)?))),
            ),
        };
        if !asks {
            return None;
        }
        said(retry_after::longest(self.headers, &field.reset, |text| self.reset(text)), &field.reset)
    }

    fn is_exhausted(&self, left: Option<u64>) -> bool {
        !self.stored && left.map_or(self.limited, |left| left == 0)
    }

    /// Reads when a quota is renewed, as the wait until then.
    fn reset(&self, text: &str) -> Option<Duration> {
        // Draft -06 allows parameters here (§3.4), and gives them no meaning.
        let text = without_params(text);
        let until = |at: Duration| at.saturating_sub(self.server_time);
        if let Some(number) = retry_after::seconds(text) {
            return Some(match number.as_secs() {
                ..EPOCH_SECONDS => number,
                EPOCH_SECONDS..EPOCH_MILLIS => until(number),
                EPOCH_MILLIS.. => until(number / 1000),
            });
        }
        duration(text)
            .or_else(|| timestamp(text).map(until))
            .or_else(|| retry_after::http_date(text, self.now).map(until))
    }

    /// Reads `RateLimit`.
    fn rate_limit(&self) -> Option<Duration> {
        let mut lines = self.headers.get_all(&RATE_LIMIT).iter().map(|value| value.as_bytes());
        let mut field = lines.next()?.to_vec();
        // Its lines are one field (RFC 9651 §4.2).
        for line in lines {
            field.extend_from_slice(b", ");
            field.extend_from_slice(line);
        }
        match structured::list(&field) {
            Some(policies) => self.policies(&policies),
            None => self.dictionary(&structured::dictionary(&field)?),
        }
    }

    /// The form since draft -08. The drafts' own appendix names a policy by a token where the text demands a string.
    fn policies(&self, policies: &[Member<'_>]) -> Option<Duration> {
        let mut longest = None;
        for policy in policies {
            let (left, reset) = (whole(policy.param("r"))?, whole(policy.param("t"))?);
            if policy.value != Bare::Word {
                return None;
            }
            if self.is_exhausted(left) {
                longest = longest.max(reset);
            }
        }
        longest.map(Duration::from_secs)
    }

    /// The form of draft -07.
    fn dictionary(&self, members: &[(&[u8], Member<'_>)]) -> Option<Duration> {
        let value = |name: &str| whole(structured::last(members, name).map(|member| member.value));
        let (left, reset) = (value("remaining")?, value("reset")?);
        if self.is_exhausted(left) { reset.map(Duration::from_secs) } else { None }
    }
}

/// Reads a number that may be absent (the inner option). Anything else than a whole number from zero breaks the field
/// (the outer one).
fn whole(value: Option<Bare>) -> Option<Option<u64>> {
    match value {
        None => Some(None),
        Some(Bare::Integer(number)) => u64::try_from(number).ok().map(Some),
        Some(Bare::Word | Bare::Other) => None,
    }
}

/// Reads a count. Of several the smallest counts, and all must be readable.
fn count(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    let counts = retry_after::values(headers, name).flat_map(|line| line.split(',')).map(|text| {
        let text = without_params(text);
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // Digits only, so the one way to fail is to be too large.
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    });
    counts.reduce(|least, count| Some(least?.min(count?)))?
}

fn without_params(text: &str) -> &str {
    text.split(';').next().unwrap_or_default().trim_ascii()
}

/// Reads a duration with units, such as `1m30s` or `1.5s`.
fn duration(text: &str) -> Option<Duration> {
    let mut sum = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let unit = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number = retry_after::seconds(&rest[..unit])?;
        rest = &rest[unit..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        sum = sum.saturating_add(match &rest[..end] {
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

/// Reads a time in the form of RFC 3339, as the time since the Unix epoch. One before that is none.
fn timestamp(text: &str) -> Option<Duration> {
    let (date, time) = text.split_once(['T', 't'])?;
    let (time, offset) = match time.strip_suffix(['Z', 'z']) {
        Some(time) => (time, 0),
        None => {
            let (time, offset) = time.split_at_checked(time.len().checked_sub(6)?)?;
            let sign = match offset.as_bytes()[0] {
                b'+' => 1,
                b'-' => -1,
                _ => return None,
            };
            let [hours, minutes] = numbers(&offset[1..], ':', [2, 2])?;
            if hours > 23 || minutes > 59 {
                return None;
            }
            (time, sign * (hours * 3600 + minutes * 60))
        }
    };
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let (clock, fraction) = time.split_at_checked(8)?;
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
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
        Some(decimals) => retry_after::seconds(&format!("0.{decimals}"))?,
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

#[cfg(test)]
mod tests;
