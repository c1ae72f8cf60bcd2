//! The names of spans and metrics, in one place: dashboards are built on them.
//!
//! Labels are bounded. None holds a path, a token or a tenant, unless a cache is [named](crate::cache::TokenCacheBuilder::name)
//! by its tenant. Without the feature `metrics` the functions are empty. With it they are called once per token request,
//! per rejection, per wait and per retry, and never for a request that finds a token and succeeds.

use std::sync::Arc;
use std::time::Duration;

use crate::error::ErrorKind;
use crate::extensions::RejectionVerdict;

/// The span of one flight to the token source.
pub(crate) const FETCH_SPAN: &str = "token_fetch";

/// Counter: token requests, by `cache` and `result` (`ok`, or the kind of the error).
#[cfg(feature = "metrics")]
pub(crate) const TOKEN_REQUESTS: &str = "tower_oauth2_token_requests_total";
/// Histogram, seconds: how long token requests took, retries of the source included, by `cache` and `result`.
#[cfg(feature = "metrics")]
pub(crate) const TOKEN_REQUEST_SECONDS: &str = "tower_oauth2_token_request_duration_seconds";
/// Gauge, seconds since the Unix epoch: when the token in use expires, by `cache`.
#[cfg(feature = "metrics")]
pub(crate) const TOKEN_EXPIRY: &str = "tower_oauth2_token_expiry_timestamp_seconds";
/// Gauge: requests that wait for a token, by `cache`.
#[cfg(feature = "metrics")]
pub(crate) const TOKEN_WAITERS: &str = "tower_oauth2_token_waiters";
/// Counter: rejected tokens, by `cache` and `verdict` (`invalidated`, `superseded`, `braked`).
#[cfg(feature = "metrics")]
pub(crate) const TOKEN_REJECTIONS: &str = "tower_oauth2_token_rejections_total";

/// Counter: requests that are sent again, by `reason`.
#[cfg(feature = "metrics")]
pub(crate) const RETRIES: &str = "tower_oauth2_retries_total";
/// Counter: requests that were sent again and have ended, by `result` (`success`, `failure`).
#[cfg(feature = "metrics")]
pub(crate) const RETRIED_REQUESTS: &str = "tower_oauth2_retried_requests_total";
/// Gauge: retries that the budget of the last retry has left.
#[cfg(feature = "metrics")]
pub(crate) const RETRY_BUDGET: &str = "tower_oauth2_retry_budget";
/// Histogram, seconds: how long requests waited at a gate.
#[cfg(feature = "metrics")]
pub(crate) const GATE_HOLD_SECONDS: &str = "tower_oauth2_gate_hold_duration_seconds";
/// Counter: calls to a token store, by `call` and `result` (`ok`, `error`).
#[cfg(all(feature = "metrics", feature = "store"))]
pub(crate) const STORE_CALLS: &str = "tower_oauth2_store_calls_total";
/// Gauge: tokens of a pool that are in use, by `pool`.
#[cfg(feature = "metrics")]
pub(crate) const POOL_TOKENS: &str = "tower_oauth2_pool_tokens";

/// Notes a token request that has ended.
#[cfg_attr(not(feature = "metrics"), allow(unused_variables, reason = "nothing is counted"))]
pub(crate) fn token_request(cache: Option<&Arc<str>>, failure: Option<ErrorKind>, took: Duration) {
    #[cfg(feature = "metrics")]
    {
        let result = match failure {
            None => "ok",
            Some(ErrorKind::Config) => "config",
            Some(ErrorKind::Grant) => "grant",
            Some(ErrorKind::Throttled) => "throttled",
            Some(ErrorKind::Transient) => "transient",
            Some(ErrorKind::Protocol) => "protocol",
        };
        let cache = cache_label(cache);
        metrics::counter!(TOKEN_REQUESTS, "cache" => cache.clone(), "result" => result).increment(1);
        metrics::histogram!(TOKEN_REQUEST_SECONDS, "cache" => cache, "result" => result).record(took);
    }
}

/// Notes when the token in use expires.
#[cfg_attr(not(feature = "metrics"), allow(unused_variables, reason = "nothing is counted"))]
pub(crate) fn token_expiry(cache: Option<&Arc<str>>, since_epoch: Duration) {
    #[cfg(feature = "metrics")]
    metrics::gauge!(TOKEN_EXPIRY, "cache" => cache_label(cache)).set(since_epoch.as_secs_f64());
}

/// Notes a rejected token.
#[cfg_attr(not(feature = "metrics"), allow(unused_variables, reason = "nothing is counted"))]
pub(crate) fn token_rejected(cache: Option<&Arc<str>>, verdict: RejectionVerdict) {
    #[cfg(feature = "metrics")]
    {
        let verdict = match verdict {
            RejectionVerdict::Invalidated => "invalidated",
            RejectionVerdict::Superseded => "superseded",
            RejectionVerdict::Braked => "braked",
            // No token was rejected.
            RejectionVerdict::NotRefreshable => return,
        };
        metrics::counter!(TOKEN_REJECTIONS, "cache" => cache_label(cache), "verdict" => verdict).increment(1);
    }
}

/// Notes that a request is sent again. `budget` is what is left of it.
#[cfg_attr(not(feature = "metrics"), allow(unused_variables, reason = "nothing is counted"))]
pub(crate) fn sent_again(reason: &'static str, budget: Option<f64>) {
    #[cfg(feature = "metrics")]
    {
        metrics::counter!(RETRIES, "reason" => reason).increment(1);
        if let Some(budget) = budget {
            metrics::gauge!(RETRY_BUDGET).set(budget);
        }
    }
}

/// Notes the end of a request that was sent again.
#[cfg_attr(not(feature = "metrics"), allow(unused_variables, reason = "nothing is counted"))]
pub(crate) fn retried(is_success: bool) {
    #[cfg(feature = "metrics")]
    {
        let result = if is_success { "success" } else { "failure" };
        metrics::counter!(RETRIED_REQUESTS, "result" => result).increment(1);
    }
}

/// Notes how long a request waited at a gate.
#[cfg_attr(not(feature = "metrics"), allow(unused_variables, reason = "nothing is counted"))]
pub(crate) fn held(wait: Duration) {
    #[cfg(feature = "metrics")]
    metrics::histogram!(GATE_HOLD_SECONDS).record(wait);
}

/// Notes a call to a token store.
#[cfg(feature = "store")]
#[cfg_attr(not(feature = "metrics"), allow(unused_variables, reason = "nothing is counted"))]
pub(crate) fn store_call(call: &'static str, is_ok: bool) {
    #[cfg(feature = "metrics")]
    {
        let result = if is_ok { "ok" } else { "error" };
        metrics::counter!(STORE_CALLS, "call" => call, "result" => result).increment(1);
    }
}

/// Notes how many tokens of a pool are in use.
#[cfg_attr(not(feature = "metrics"), allow(unused_variables, reason = "nothing is counted"))]
pub(crate) fn pool_tokens(pool: Option<&Arc<str>>, tokens: usize) {
    #[cfg(feature = "metrics")]
    {
        // A pool has fifty at most.
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        metrics::gauge!(POOL_TOKENS, "pool" => cache_label(pool)).set(tokens);
    }
}

/// A request that waits for a token, for as long as this lives.
#[derive(Debug)]
pub(crate) struct TokenWait {
    #[cfg(feature = "metrics")]
    waiters: WaitersGauge,
}

#[cfg(feature = "metrics")]
struct WaitersGauge(metrics::Gauge);

#[cfg(feature = "metrics")]
impl std::fmt::Debug for WaitersGauge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WaitersGauge")
    }
}

impl TokenWait {
    #[cfg_attr(not(feature = "metrics"), allow(unused_variables, reason = "nothing is counted"))]
    pub(crate) fn begin(cache: Option<&Arc<str>>) -> Self {
        #[cfg(feature = "metrics")]
        {
            let waiters = metrics::gauge!(TOKEN_WAITERS, "cache" => cache_label(cache));
            waiters.increment(1);
            Self { waiters: WaitersGauge(waiters) }
        }
        #[cfg(not(feature = "metrics"))]
        Self {}
    }
}

#[cfg(feature = "metrics")]
impl Drop for TokenWait {
    fn drop(&mut self) {
        self.waiters.0.decrement(1);
    }
}

#[cfg(feature = "metrics")]
fn cache_label(cache: Option<&Arc<str>>) -> metrics::SharedString {
    cache.map_or(metrics::SharedString::const_str("unnamed"), |name| Arc::clone(name).into())
}
