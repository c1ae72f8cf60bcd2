//! How long a server asks to be left alone, in all the ways in which servers say it.
//!
//! 1. Only a 4xx or 5xx is read. A quota on a success, however little is left of it, causes no wait.
//! 2. The first of these that asks for a wait counts: `retry-after-ms`, `x-ms-retry-after-ms`, `Retry-After` (RFC 9110
//!    §10.2.3), `RateLimit`, `RateLimit-Reset`, `x-ratelimit-reset-after`, `x-ratelimit-retry-after`,
//!    `x-ratelimit-after`, `x-ratelimit-reset`, `x-rate-limit-reset`, and then those of the profile, of which the longest
//!    wait counts.
//! 3. A quota asks for a wait where nothing is left of it, and on a 429 also where it is not said what is left. On a 429
//!    with something left it was another limit that was met, and when this quota is renewed says nothing about that.
//! 4. `RateLimit` is read in the forms of the drafts: the list of draft-ietf-httpapi-ratelimit-headers-08 and later,
//!    and the dictionary of -07. Of several policies the exhausted ones count, and of those the longest. A malformed
//!    field is ignored as a whole. `RateLimit-Policy` describes the windows and asks for no wait.
//! 5. A response from a cache (`Age`) tells the quota of another time. Only the headers that ask for a wait outright are
//!    read of it.
//! 6. Points in time and spans are read in the same way in every header, see [`time`](super::time).

use std::time::Duration;

use http::header::{AGE, HeaderName, RETRY_AFTER};
use http::{HeaderMap, StatusCode};

use super::profile::{Field, Left, RateLimitProfile};
use super::retry_after;
use super::structured::{self, Bare, Member};
use super::time::{self, ServerClock, Unit};
use crate::clock::FARTHEST;

static IN_MILLISECONDS: [HeaderName; 2] =
    [HeaderName::from_static("retry-after-ms"), HeaderName::from_static("x-ms-retry-after-ms")];

static RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Headers that are read with every profile, after the fields with a grammar of their own.
static COMMON: [Field; 6] = [
    Field {
        reset: HeaderName::from_static("ratelimit-reset"),
        left: Left::Remaining(HeaderName::from_static("ratelimit-remaining")),
    },
    Field {
        reset: HeaderName::from_static("x-ratelimit-reset-after"),
        left: Left::Remaining(HeaderName::from_static("x-ratelimit-remaining")),
    },
    Field { reset: HeaderName::from_static("x-ratelimit-retry-after"), left: Left::Unsaid },
    Field { reset: HeaderName::from_static("x-ratelimit-after"), left: Left::Unsaid },
    Field {
        reset: HeaderName::from_static("x-ratelimit-reset"),
        left: Left::Remaining(HeaderName::from_static("x-ratelimit-remaining")),
    },
    Field {
        reset: HeaderName::from_static("x-rate-limit-reset"),
        left: Left::Remaining(HeaderName::from_static("x-rate-limit-remaining")),
    },
];

/// The wait that a server asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hint<'a> {
    /// How long to wait from now.
    pub(crate) delay: Duration,
    /// The header that says so.
    pub(crate) source: &'a HeaderName,
}

impl Hint<'_> {
    /// Returns whether the server says that this failure passes, and not when some quota is renewed.
    pub(crate) fn is_of_this_failure(self, profile: &RateLimitProfile) -> bool {
        *self.source == RETRY_AFTER
            || IN_MILLISECONDS.contains(self.source)
            || profile.fields().iter().any(|field| field.left == Left::Unsaid && field.reset == *self.source)
    }
}

/// Reads what a response asks for without the headers of a vendor, by the rules above.
pub(crate) fn wait(status: StatusCode, headers: &HeaderMap, now: Duration) -> Option<Duration> {
    Some(hint(&RateLimitProfile::generic(), status, headers, now)?.delay)
}

/// Reads what a response asks for, by the rules above. `now` is the time since the Unix epoch.
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
        clock: ServerClock::of(headers, now),
        limited: status == StatusCode::TOO_MANY_REQUESTS,
        stored: count(headers, &AGE).is_some_and(|age| age > 0),
    };
    IN_MILLISECONDS
        .iter()
        .find_map(|name| said(answer.milliseconds(name), name))
        .or_else(|| said(retry_after::delay(headers, answer.clock), &RETRY_AFTER))
        .or_else(|| said(answer.rate_limit(), &RATE_LIMIT))
        .or_else(|| COMMON.iter().find_map(|field| answer.field(field)))
        .or_else(|| {
            profile.fields().iter().filter_map(|field| answer.field(field)).max_by_key(|hint| hint.delay)
        })
}

/// The rest of a quota, and when it is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quota {
    pub(crate) left: u64,
    pub(crate) renewed_in: Duration,
}

/// Reads what a response of any status says about a quota. Of several the one with least left counts, and of those the one
/// that is renewed last. A response from a cache says nothing.
pub(crate) fn quota(profile: &RateLimitProfile, headers: &HeaderMap, now: Duration) -> Option<Quota> {
    let clock = ServerClock::of(headers, now);
    let stored = count(headers, &AGE).is_some_and(|age| age > 0);
    let answer = Answer { headers, clock, limited: false, stored };
    if stored {
        return None;
    }
    let fields = COMMON.iter().chain(profile.fields()).filter_map(|field| answer.quota(field));
    fields.chain(answer.quotas()).min_by_key(|quota| (quota.left, std::cmp::Reverse(quota.renewed_in)))
}

fn said(delay: Option<Duration>, source: &HeaderName) -> Option<Hint<'_>> {
    // A caller's cap is far below; what matters is that sums with it do not overflow.
    Some(Hint { delay: delay?.min(FARTHEST), source })
}

// --- Answer ---

struct Answer<'h> {
    headers: &'h HeaderMap,
    clock: ServerClock,
    /// The status says that a limit was met.
    limited: bool,
    /// It was served by a cache.
    stored: bool,
}

impl Answer<'_> {
    fn milliseconds(&self, name: &HeaderName) -> Option<Duration> {
        retry_after::longest(self.headers, name, |text| self.clock.wait(text, Unit::Milliseconds))
    }

    fn field<'a>(&self, field: &'a Field) -> Option<Hint<'a>> {
        let asks = match &field.left {
            Left::Unsaid => true,
            Left::Remaining(_) | Left::Counted { .. } => self.is_exhausted(self.left(&field.left)),
        };
        if !asks {
            return None;
        }
        said(retry_after::longest(self.headers, &field.reset, |text| self.reset(text)), &field.reset)
    }

    fn left(&self, left: &Left) -> Option<u64> {
        match left {
            Left::Unsaid => None,
            Left::Remaining(name) => count(self.headers, name),
            Left::Counted { used, allowed } => count(self.headers, allowed)
                .and_then(|allowed| Some(allowed.saturating_sub(count(self.headers, used)?))),
        }
    }

    fn quota(&self, field: &Field) -> Option<Quota> {
        let left = self.left(&field.left)?;
        let renewed_in = retry_after::longest(self.headers, &field.reset, |text| self.reset(text))?;
        Some(Quota { left, renewed_in: renewed_in.min(FARTHEST) })
    }

    /// Reads the quotas of `RateLimit`.
    fn quotas(&self) -> Vec<Quota> {
        let Some(field) = self.rate_limit_field() else { return Vec::new() };
        let quota = |left: Option<u64>, reset: Option<u64>| {
            Some(Quota { left: left?, renewed_in: self.seconds(reset?).min(FARTHEST) })
        };
        match structured::list(&field) {
            Some(policies) => policies
                .iter()
                .filter(|policy| policy.value == Bare::Word)
                .filter_map(|policy| quota(whole(policy.param("r"))?, whole(policy.param("t"))?))
                .collect(),
            None => {
                let Some(members) = structured::dictionary(&field) else { return Vec::new() };
                let value =
                    |name: &str| whole(structured::last(&members, name).map(|member| member.value)).flatten();
                quota(value("remaining"), value("reset")).into_iter().collect()
            }
        }
    }

    fn is_exhausted(&self, left: Option<u64>) -> bool {
        !self.stored && left.map_or(self.limited, |left| left == 0)
    }

    /// Reads when a quota is renewed, as the wait until then.
    fn reset(&self, text: &str) -> Option<Duration> {
        // Draft -06 allows parameters here (§3.4), and gives them no meaning.
        self.clock.wait(without_params(text), Unit::Seconds)
    }

    /// Reads `RateLimit`.
    fn rate_limit(&self) -> Option<Duration> {
        let field = self.rate_limit_field()?;
        match structured::list(&field) {
            Some(policies) => self.policies(&policies),
            None => self.dictionary(&structured::dictionary(&field)?),
        }
    }

    /// Returns `RateLimit` as one line.
    fn rate_limit_field(&self) -> Option<Vec<u8>> {
        let mut lines = self.headers.get_all(&RATE_LIMIT).iter().map(|value| value.as_bytes());
        let mut field = lines.next()?.to_vec();
        // Its lines are one field (RFC 9651 §4.2).
        for line in lines {
            field.extend_from_slice(b", ");
            field.extend_from_slice(line);
        }
        Some(field)
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
        longest.map(|reset| self.seconds(reset))
    }

    fn seconds(&self, number: u64) -> Duration {
        self.clock.counted(Duration::from_secs(number), Unit::Seconds)
    }

    /// The form of draft -07.
    fn dictionary(&self, members: &[(&[u8], Member<'_>)]) -> Option<Duration> {
        let value = |name: &str| whole(structured::last(members, name).map(|member| member.value));
        let (left, reset) = (value("remaining")?, value("reset")?);
        if self.is_exhausted(left) { reset.map(|reset| self.seconds(reset)) } else { None }
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

/// Reads a count. Of several the smallest counts, and all must be readable. Decimals are cut off: with less than one left
/// nothing more is allowed.
fn count(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    let counts = retry_after::values(headers, name).flat_map(|line| line.split(',')).map(|text| {
        let text = without_params(text);
        time::seconds(text)?;
        // Digits only, so the one way to fail is to be too large.
        Some(text.split('.').next()?.parse().unwrap_or(u64::MAX))
    });
    counts.reduce(|least, count| Some(least?.min(count?)))?
}

fn without_params(text: &str) -> &str {
    text.split(';').next().unwrap_or_default().trim_ascii()
}

#[cfg(test)]
mod tests;
