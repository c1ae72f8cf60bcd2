//! When a request is sent again, and after which wait: the settings.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use http::{StatusCode, request};

use super::classify::Failure;
use super::rules::RetryRules;
use crate::error::Error;
use crate::headers::profile::RateLimitProfile;
use crate::retry::gate::RetryGate;
use crate::retry::limits::budget::RetryBudget;
use crate::retry::replay_body::Allowance;

/// When a request is sent again: the settings, which are themselves the tower `Layer`.
///
/// It makes a [`RetryService`](crate::retry::RetryService). Cheap to clone. The rules are on the page of the
/// [module](crate::retry).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_oauth2::RetryPolicy;
///
/// let policy = RetryPolicy::builder()
///     .max_retries(5)
///     .min_delay(Duration::from_millis(200))
///     .max_retry_after(Duration::from_secs(20))
///     .build()?;
/// # Ok::<(), tower_oauth2::Error>(())
/// ```
#[doc(alias = "RetryLayer")]
#[doc(alias = "backoff")]
#[doc(alias = "429")]
#[doc(alias = "Retry-After")]
#[doc(alias = "retry")]
#[derive(Clone, Debug, Default)]
pub struct RetryPolicy {
    rules: Arc<RetryRules>,
}

/// Sets up a [`RetryPolicy`].
///
/// Defaults:
///
/// - `max_retries`: 3
/// - `auth_replays`: 1; `auth_replay_delay`: 1 s
/// - `min_delay`: 500 ms; `max_delay`: 30 s
/// - `max_retry_after`: 60 s
/// - `max_total_delay`: 120 s; `max_hold`: 2 s
/// - `total_timeout`: none
/// - `attempt_timeout`: none
/// - `replay_body_limit`: 1 MiB, and none for a body in memory; `replay_stream_limit`: 64 KiB; `replay_total_limit`: 32 MiB
/// - `rate_limit_profile`: [`RateLimitProfile::generic`]
/// - `throttled_statuses`: 429, and what the profile names
/// - `unavailable_statuses`: 408, 425, 502 to 504, 520 to 524, 529
/// - `classifier`: [`Failure::of`]
/// - `strict_methods`, `generated_idempotency_keys`, `retry_token_failures`: off
/// - `budget`: a [`RetryBudget`] of its own
/// - `gate`: a [`RetryGate`] of its own; `gate_key`: none
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_oauth2::RetryPolicy;
///
/// let policy = RetryPolicy::builder().max_retries(2).max_retry_after(Duration::from_secs(20)).build()?;
/// # let _ = policy;
/// # Ok::<_, tower_oauth2::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until it is built"]
pub struct RetryPolicyBuilder {
    rules: RetryRules,
    /// None for one of its own.
    budget: Option<Option<RetryBudget>>,
    gate: Option<Option<RetryGate>>,
}

impl RetryPolicy {
    /// Starts a policy from the defaults.
    pub fn builder() -> RetryPolicyBuilder {
        RetryPolicyBuilder::default()
    }

    pub(in crate::retry) fn rules(&self) -> &RetryRules {
        &self.rules
    }

    #[cfg(feature = "stack")]
    pub(crate) fn generates_keys(&self) -> bool {
        self.rules.generated_keys
    }

    #[cfg(feature = "stack")]
    pub(crate) fn total_timeout(&self) -> Option<Duration> {
        self.rules.total_timeout
    }
}

// --- RetryPolicyBuilder ---

impl RetryPolicyBuilder {
    /// Sets how often a request may be sent again, replays with a new token not counted. Zero leaves only those.
    pub fn max_retries(mut self, retries: u32) -> Self {
        self.rules.max_retries = retries;
        self
    }

    /// Sets how often a request may be replayed because its token was refused: 1 to 3. More than one is for servers
    /// that come to know a new token late. A replay with a token from before the refusal does not count, once.
    pub fn auth_replays(mut self, replays: u32) -> Self {
        self.rules.auth_replays = replays;
        self
    }

    /// Sets the wait before the second and third replay with a new token. The first goes at once.
    pub fn auth_replay_delay(mut self, delay: Duration) -> Self {
        self.rules.auth_replay_delay = delay;
        self
    }

    /// Sets the wait before the first retry where the server gives no hint. Each further one doubles it; half of every
    /// wait is by chance.
    pub fn min_delay(mut self, delay: Duration) -> Self {
        self.rules.min_delay = delay;
        self
    }

    /// Sets where the doubling ends.
    pub fn max_delay(mut self, delay: Duration) -> Self {
        self.rules.max_delay = delay;
        self
    }

    /// Sets the longest wait that a server may ask for. If it asks for more, its response is returned at once.
    pub fn max_retry_after(mut self, delay: Duration) -> Self {
        self.rules.max_retry_after = delay;
        self
    }

    /// Sets how long the waits of one request may be in all, where it has neither a
    /// [`Deadline`](crate::extensions::Deadline) nor a `total_timeout`.
    pub fn max_total_delay(mut self, wait: Duration) -> Self {
        self.rules.max_total_delay = wait;
        self
    }

    /// Sets for how long beyond the server's own pause the [gate](RetryGate) holds a request that was not refused itself.
    /// After that it is sent, unless it is known that it would be refused.
    pub fn max_hold(mut self, hold: Duration) -> Self {
        self.rules.max_hold = hold;
        self
    }

    /// Sets how long a request may take until the head of its response is there: all attempts and waits together. A
    /// [`Deadline`](crate::extensions::Deadline) of the request's own counts if it is earlier.
    ///
    /// A wait that would not end in time is not begun, and an attempt that is in flight then is ended. The newest response
    /// before is returned, or else [`TimedOut::Deadline`](crate::retry::TimedOut). If a request waits for its token then, the
    /// error is an [`Error`](crate::Error) that says so. The time for the body of the response is not limited.
    pub fn total_timeout(mut self, timeout: Duration) -> Self {
        self.rules.total_timeout = Some(timeout);
        self
    }

    /// Sets how long one attempt may take until the head of its response is there, with the wait for a token if auth is below.
    /// One that takes longer is ended, and counts as an error after which it is not known how far the request came
    /// ([`Failure::Ambiguous`]).
    ///
    /// After the last attempt the newest response before is returned, or else [`TimedOut::Attempt`](crate::retry::TimedOut).
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.rules.attempt_timeout = Some(timeout);
        self
    }

    /// Sets up to which length a request body of known length is kept, so that it can be sent again.
    ///
    /// Without this the limit is 1 MiB where the body has to be recorded. A body of one frame in memory is shared, and kept
    /// whatever its length: above 1 MiB as far as [`replay_total_limit`](Self::replay_total_limit) has room for it.
    pub fn replay_body_limit(mut self, bytes: u64) -> Self {
        self.rules.replay_body_limit = Some(bytes);
        self
    }

    /// Sets how much is recorded of a request body whose length is not known beforehand. If more comes, what was recorded is
    /// freed, and the body is sent once.
    pub fn replay_stream_limit(mut self, bytes: u64) -> Self {
        self.rules.replay_stream_limit = bytes;
        self
    }

    /// Sets how much may be held in memory at one time for all requests of the policy and its clones: what is recorded of their
    /// bodies, and what is kept of a response while another attempt is prepared. A body on top of that is sent once and not
    /// refused, and a response is not kept. A body of known length counts in full from its start, a frame as 128 bytes at
    /// least. A body of one frame in memory is shared, and counts only above 1 MiB.
    pub fn replay_total_limit(mut self, bytes: u64) -> Self {
        self.rules.replay_total_limit = bytes;
        self
    }

    /// Sets what the server says about its rate limits beyond the headers that are always read.
    pub fn rate_limit_profile(mut self, profile: RateLimitProfile) -> Self {
        self.rules.profile = profile;
        self
    }

    /// Sets which statuses say that the server refused the work, so that the request is sent again even if its method is not
    /// idempotent, in place of 429: name it beside the others. The statuses of the profile count besides.
    pub fn throttled_statuses(mut self, statuses: impl IntoIterator<Item = StatusCode>) -> Self {
        self.rules.throttled = statuses.into_iter().collect();
        self
    }

    /// Sets which statuses say that the server could not serve the request just now, so that it is sent again if it may be
    /// repeated. A 500 is not one of them by default; name it beside the others to have it retried.
    ///
    /// ```
    /// use http::StatusCode;
    /// use tower_oauth2::RetryPolicy;
    ///
    /// let statuses = [500, 502, 503, 504].map(|code| StatusCode::from_u16(code).expect("a status"));
    /// let policy = RetryPolicy::builder().unavailable_statuses(statuses).build()?;
    /// # Ok::<(), tower_oauth2::Error>(())
    /// ```
    pub fn unavailable_statuses(mut self, statuses: impl IntoIterator<Item = StatusCode>) -> Self {
        self.rules.unavailable = statuses.into_iter().collect();
        self
    }

    /// Sets what tells the errors of the inner service apart. It is asked about every one but a
    /// [`Error`], and must be quick.
    ///
    #[cfg_attr(
        feature = "hyper-client",
        doc = "For hyper's own client that is [`transport::classify_hyper`](crate::transport::classify_hyper)."
    )]
    ///
    /// # Examples
    ///
    /// ```
    /// use std::error::Error;
    /// use tower_oauth2::RetryPolicy;
    /// use tower_oauth2::retry::Failure;
    ///
    /// #[derive(Debug)]
    /// struct Refused;
    /// # impl std::fmt::Display for Refused {
    /// #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("refused") }
    /// # }
    /// # impl Error for Refused {}
    ///
    /// let policy = RetryPolicy::builder()
    ///     .classifier(|error: &(dyn Error + 'static)| match error.downcast_ref::<Refused>() {
    ///         Some(Refused) => Failure::Unsent,
    ///         None => Failure::of(error),
    ///     })
    ///     .build()?;
    /// # Ok::<(), tower_oauth2::Error>(())
    /// ```
    pub fn classifier(
        mut self,
        classifier: impl Fn(&(dyn StdError + 'static)) -> Failure + Send + Sync + 'static,
    ) -> Self {
        self.rules.classifier = Some(Arc::new(classifier));
        self
    }

    /// Sets whether a 429 is retried only where the method may be repeated, as is done for the 5xx: for servers that send a 429
    /// after they did part of the work. So [`may_have_acted`](crate::retry::RetryReport::may_have_acted) is true after one.
    pub fn strict_methods(mut self, strict: bool) -> Self {
        self.rules.strict_methods = strict;
        self
    }

    /// Sets whether every request is given an `Idempotency-Key` that [may not be repeated](crate::retry#what-may-be-repeated)
    /// without one, such as a POST or a conditional PUT: a random UUID in double quotes, since the header is a string of RFC 9651, the same for
    /// all attempts. It may be repeated then as a GET may. For servers that honor the key; one that does not does the work twice.
    pub fn generated_idempotency_keys(mut self, generate: bool) -> Self {
        self.rules.generated_keys = generate;
        self
    }

    /// Sets whether a request waits where there is no token for it, if the failure may pass: the token endpoint cannot be reached,
    /// or asks for patience ([`Error::is_temporary`]). Turned off, the request fails at once with that error.
    ///
    /// Nothing was sent, so the method does not matter. The wait lasts until the cache asks its source again
    /// ([`Error::retry_at`]), or as long as for any other retry without a hint. Each wait counts as a retry and keeps to all
    /// limits of the policy, but costs no budget. If the last try fails too, the request fails with the newest of these errors.
    pub fn retry_token_failures(mut self, retry: bool) -> Self {
        self.rules.retry_token_failures = retry;
        self
    }

    /// Sets the budget from which retries are paid, to be shared with other policies; `None` for retries without a budget.
    /// Without this a policy has a budget of its own, which its clones share.
    pub fn budget(mut self, budget: impl Into<Option<RetryBudget>>) -> Self {
        self.budget = Some(budget.into());
        self
    }

    /// Sets the gate that holds requests back while a server refuses them, to be shared with other policies; `None` to let each
    /// request find out for itself. Without this a policy has a gate of its own, which its clones share.
    pub fn gate(mut self, gate: impl Into<Option<RetryGate>>) -> Self {
        self.gate = Some(gate.into());
        self
    }

    /// Sets what a rate limit is for, where a server has several: requests for which `key` says the same share a limit. Without
    /// it the gate learns if a limit is about paths that begin alike, or about one method.
    ///
    /// It is asked once about a request: when the request comes while some gate is not open, or when it was refused.
    ///
    /// ```
    /// use tower_oauth2::RetryPolicy;
    ///
    /// // This server has a limit for searches, and one for all else.
    /// let policy = RetryPolicy::builder()
    ///     .gate_key(|head| head.uri.path().starts_with("/search").to_string())
    ///     .build()?;
    /// # Ok::<(), tower_oauth2::Error>(())
    /// ```
    pub fn gate_key(mut self, key: impl Fn(&request::Parts) -> String + Send + Sync + 'static) -> Self {
        self.rules.gate_key = Some(Arc::new(key));
        self
    }

    /// Finishes the policy.
    ///
    /// # Errors
    ///
    /// A configuration error that names the setting, if `auth_replays` is not 1 to 3, a delay or timeout is zero (that of
    /// the profile as well), `max_delay` is shorter than `min_delay`, a status is neither a 4xx nor a 5xx, or the budget has a
    /// `retry_ratio` that is not from 0 to 1000 or no `burst`.
    pub fn build(self) -> Result<RetryPolicy, Error> {
        let mut rules = self.rules;
        if !(1..=3).contains(&rules.auth_replays) {
            return Err(Error::config(
                "auth_replays must be 1 to 3; to have none, use RetryOptions::auth_replay(false)",
            ));
        }
        if rules.auth_replay_delay.is_zero() {
            return Err(Error::config("auth_replay_delay must not be zero"));
        }
        if rules.min_delay.is_zero() {
            return Err(Error::config("min_delay must not be zero; a retry at once makes things worse"));
        }
        if rules.max_delay < rules.min_delay {
            return Err(Error::config("max_delay must not be shorter than min_delay"));
        }
        if rules.total_timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(Error::config("total_timeout must not be zero"));
        }
        if rules.attempt_timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(Error::config("attempt_timeout must not be zero"));
        }
        if rules.profile.wait_without_hint().is_some_and(|wait| wait.is_zero()) {
            return Err(Error::config("unhinted_wait of the rate-limit profile must not be zero"));
        }
        let failure = |status: &StatusCode| status.is_client_error() || status.is_server_error();
        if !rules.throttled.iter().chain(&rules.unavailable).all(failure) {
            return Err(Error::config(
                "throttled_statuses and unavailable_statuses may name a 4xx or 5xx only",
            ));
        }
        rules.budget = self.budget.unwrap_or_else(|| Some(RetryBudget::default()));
        if let Some(budget) = &rules.budget {
            budget.check()?;
        }
        rules.gate = self.gate.unwrap_or_else(|| Some(RetryGate::default()));
        // A builder may be built from twice.
        rules.allowance = Arc::new(Allowance::new(rules.replay_total_limit));
        Ok(RetryPolicy { rules: Arc::new(rules) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_setting_is_refused_by_name() {
        let refused = |builder: RetryPolicyBuilder| {
            let error = builder.build().unwrap_err();
            assert!(error.is_config());
            error.to_string().split(' ').next().unwrap().to_owned()
        };
        let builder = RetryPolicy::builder;
        assert_eq!(refused(builder().auth_replays(0)), "auth_replays");
        assert_eq!(refused(builder().auth_replays(4)), "auth_replays");
        assert_eq!(refused(builder().auth_replay_delay(Duration::ZERO)), "auth_replay_delay");
        assert_eq!(refused(builder().min_delay(Duration::ZERO)), "min_delay");
        assert_eq!(refused(builder().max_delay(Duration::from_millis(499))), "max_delay");
        let profile = RateLimitProfile::generic().unhinted_wait(Duration::ZERO);
        assert_eq!(refused(builder().rate_limit_profile(profile)), "unhinted_wait");
        assert_eq!(refused(builder().total_timeout(Duration::ZERO)), "total_timeout");
        assert_eq!(refused(builder().attempt_timeout(Duration::ZERO)), "attempt_timeout");
        assert_eq!(refused(builder().throttled_statuses([StatusCode::OK])), "throttled_statuses");
        assert_eq!(refused(builder().budget(RetryBudget::default().burst(0))), "burst");
        assert_eq!(refused(builder().unavailable_statuses([StatusCode::FOUND])), "throttled_statuses");
        assert!(builder().max_retries(0).auth_replays(3).replay_body_limit(0).build().is_ok());
    }
}
