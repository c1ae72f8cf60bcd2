//! The rate limit headers of one vendor, beyond those that every vendor sends: data, no code.

use std::time::Duration;

use http::header::HeaderName;
use http::{HeaderMap, StatusCode};

use super::retry_after::values;

/// The rate limit headers of one server, beyond those that are always read.
///
/// The headers of the table on the page of [`retry`](crate::retry) are read with every profile, and before it. A
/// profile adds headers after those, responses that count as a 429, a wait for a 429 that gives no hint, and headers that
/// forbid another attempt. Of several headers of a profile the longest wait counts. All are read as those of the table are.
///
/// Defaults: [`generic`](Self::generic).
///
/// # Examples
///
/// ```
/// use http::HeaderName;
/// use tower_oauth2::RetryPolicy;
/// use tower_oauth2::retry::RateLimitProfile;
///
/// let reset = HeaderName::from_static("x-quota-reset");
/// let remaining = HeaderName::from_static("x-quota-remaining");
/// let policy = RetryPolicy::builder()
///     .rate_limit_profile(RateLimitProfile::github().quota(reset, remaining))
///     .build()?;
/// # Ok::<(), tower_oauth2::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "a profile does nothing until a policy has it"]
pub struct RateLimitProfile {
    fields: Vec<Field>,
    refusals: Vec<StatusCode>,
    unhinted_wait: Option<Duration>,
    verdicts: Vec<HeaderName>,
}

/// A header that says when to come back, and a condition for using it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) reset: HeaderName,
    pub(super) left: Left,
}

/// The rest of a quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Without a quota: the header asks for a wait by being there.
    Unsaid,
    /// The number in a header.
    Remaining(HeaderName),
    /// The number in one header, less the number in another.
    Counted { used: HeaderName, allowed: HeaderName },
}

/// Headers whose word about another attempt counts with every profile.
static VERDICTS: [HeaderName; 2] =
    [HeaderName::from_static("x-should-retry"), HeaderName::from_static("stripe-should-retry")];

impl RateLimitProfile {
    /// Creates a profile that adds nothing.
    pub fn generic() -> Self {
        Self::default()
    }

    /// Creates the profile of GitHub's REST API: a 403 that gives a hint is a rate limit, and after a 429 without one
    /// the wait is a minute at least.
    ///
    /// A 403 for the secondary limit that gives no hint at all says so in its body only, which is not read here: it is
    /// returned.
    pub fn github() -> Self {
        Self::default().refusal(StatusCode::FORBIDDEN).unhinted_wait(Duration::from_secs(60))
    }

    /// Creates the profile of Genesys Cloud: `inin-ratelimit-reset`, with `-count` and `-allowed`.
    pub fn genesys() -> Self {
        let [reset, used, allowed] =
            ["inin-ratelimit-reset", "inin-ratelimit-count", "inin-ratelimit-allowed"]
                .map(HeaderName::from_static);
        Self::default().counted_quota(reset, used, allowed)
    }

    /// Creates the profile of the vendors of large language models: quotas of requests and of tokens side by side, as
    /// `x-ratelimit-reset-requests` or as `anthropic-ratelimit-requests-reset`.
    pub fn llm() -> Self {
        [
            ("anthropic-ratelimit-requests-reset", "anthropic-ratelimit-requests-remaining"),
            ("anthropic-ratelimit-tokens-reset", "anthropic-ratelimit-tokens-remaining"),
            ("anthropic-ratelimit-input-tokens-reset", "anthropic-ratelimit-input-tokens-remaining"),
            ("anthropic-ratelimit-output-tokens-reset", "anthropic-ratelimit-output-tokens-remaining"),
            ("x-ratelimit-reset-requests", "x-ratelimit-remaining-requests"),
            ("x-ratelimit-reset-tokens", "x-ratelimit-remaining-tokens"),
        ]
        .into_iter()
        .fold(Self::default(), |profile, (reset, remaining)| {
            profile.quota(HeaderName::from_static(reset), HeaderName::from_static(remaining))
        })
    }

    /// Adds a header that asks for a wait by being there, as `Retry-After` does.
    pub fn delay(self, header: HeaderName) -> Self {
        self.field(header, Left::Unsaid)
    }

    /// Adds a quota: when it is renewed, and what is left of it. It is waited for where nothing is left, and on a 429
    /// also where the server does not say what is left.
    pub fn quota(self, reset: HeaderName, remaining: HeaderName) -> Self {
        self.field(reset, Left::Remaining(remaining))
    }

    /// Adds a quota of which the server says how much was used and how much is allowed.
    ///
    /// # Examples
    ///
    /// ```
    /// use http::HeaderName;
    /// use tower_oauth2::RetryPolicy;
    /// use tower_oauth2::retry::RateLimitProfile;
    ///
    /// let [reset, used, allowed] = ["x-quota-reset", "x-quota-used", "x-quota-allowed"].map(HeaderName::from_static);
    /// let profile = RateLimitProfile::generic().counted_quota(reset, used, allowed);
    /// let policy = RetryPolicy::builder().rate_limit_profile(profile).build()?;
    /// # let _ = policy;
    /// # Ok::<(), tower_oauth2::Error>(())
    /// ```
    pub fn counted_quota(self, reset: HeaderName, used: HeaderName, allowed: HeaderName) -> Self {
        self.field(reset, Left::Counted { used, allowed })
    }

    /// Counts a response of this status as a 429 if its headers ask for a wait. It must be a 4xx or 5xx; other responses
    /// are never read for waits. To count it in any case, see
    /// [`throttled_statuses`](crate::retry::RetryPolicyBuilder::throttled_statuses).
    pub fn refusal(mut self, status: StatusCode) -> Self {
        self.refusals.push(status);
        self
    }

    /// Adds a header by which the server says whether another attempt makes sense, as `x-should-retry: false` does. A "no" is
    /// `false`, `no` or `0`, a "yes" is `true`, `yes` or `1`. A "yes" does not make a request repeatable.
    pub fn should_retry(mut self, header: HeaderName) -> Self {
        self.verdicts.push(header);
        self
    }

    /// Sets the wait after a 429 that gives no hint, in place of the policy's own. Each further one doubles it.
    pub fn unhinted_wait(mut self, wait: Duration) -> Self {
        self.unhinted_wait = Some(wait);
        self
    }

    fn field(mut self, reset: HeaderName, left: Left) -> Self {
        self.fields.push(Field { reset, left });
        self
    }

    pub(super) fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Returns whether a response of this status counts as a 429 if it gives a hint.
    pub(crate) fn refuses_with(&self, status: StatusCode) -> bool {
        self.refusals.contains(&status)
    }

    /// Returns whether a response says that another attempt makes sense, or that none does; a "no" counts before a "yes".
    pub(crate) fn verdict(&self, headers: &HeaderMap) -> Option<bool> {
        let lines = VERDICTS.iter().chain(&self.verdicts).flat_map(|name| values(headers, name));
        // A proxy may have merged several.
        let verdicts = lines.flat_map(|line| line.split(',')).filter_map(|said| {
            let is_one_of =
                |words: [&str; 4]| words.iter().any(|word| said.trim_ascii().eq_ignore_ascii_case(word));
            match is_one_of(["false", "no", "0", "?0"]) {
                true => Some(false),
                false => is_one_of(["true", "yes", "1", "?1"]).then_some(true),
            }
        });
        verdicts.min()
    }

    /// Returns the wait after a 429 without a hint, where the profile knows one.
    pub(crate) fn wait_without_hint(&self) -> Option<Duration> {
        self.unhinted_wait
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::RateLimitProfile;

    /// Returns the profile that the vectors call so.
    pub(crate) fn profile(name: &str) -> RateLimitProfile {
        match name {
            "generic" => RateLimitProfile::generic(),
            "github" => RateLimitProfile::github(),
            "genesys" => RateLimitProfile::genesys(),
            "llm" => RateLimitProfile::llm(),
            other => panic!("the vectors know a profile that the tests do not: {other}"),
        }
    }
}
