//! The rules that a policy was built with.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{StatusCode, request};

use super::classify::{ClassifierFn, Failure};
use super::options::RetryOptions;
use crate::headers::profile::RateLimitProfile;
use crate::retry::gate::RetryGate;
use crate::retry::limits::budget::RetryBudget;
use crate::retry::replay_body::{Allowance, BodyLimits};

/// Tells apart the requests that do not share a limit.
type GateKeyFn = dyn Fn(&request::Parts) -> String + Send + Sync;

/// The settings of a [`RetryPolicyBuilder`](crate::retry::RetryPolicyBuilder), with their defaults.
#[derive(Clone)]
pub(in crate::retry) struct RetryRules {
    pub(in crate::retry) max_retries: u32,
    pub(in crate::retry) auth_replays: u32,
    pub(in crate::retry) auth_replay_delay: Duration,
    pub(in crate::retry) min_delay: Duration,
    pub(in crate::retry) max_delay: Duration,
    pub(in crate::retry) max_retry_after: Duration,
    pub(in crate::retry) max_total_delay: Duration,
    pub(in crate::retry) max_hold: Duration,
    pub(in crate::retry) total_timeout: Option<Duration>,
    pub(in crate::retry) attempt_timeout: Option<Duration>,
    /// None: that of [`BodyLimits::EXACT`] where it is recorded, and whatever there is room for where it is in memory.
    pub(in crate::retry) replay_body_limit: Option<u64>,
    pub(in crate::retry) replay_stream_limit: u64,
    pub(in crate::retry) replay_total_limit: u64,
    /// The rest of the total. A policy has its own.
    pub(in crate::retry) allowance: Arc<Allowance>,
    pub(in crate::retry) profile: RateLimitProfile,
    pub(in crate::retry) throttled: Vec<StatusCode>,
    pub(in crate::retry) unavailable: Vec<StatusCode>,
    pub(in crate::retry) classifier: Option<Arc<ClassifierFn>>,
    pub(in crate::retry) strict_methods: bool,
    pub(in crate::retry) generated_keys: bool,
    pub(in crate::retry) retry_token_failures: bool,
    pub(in crate::retry) budget: Option<RetryBudget>,
    pub(in crate::retry) gate: Option<RetryGate>,
    pub(in crate::retry) gate_key: Option<Arc<GateKeyFn>>,
}

impl RetryRules {
    /// Tells an error of the inner service apart: by the caller's function, or by the markers.
    pub(in crate::retry) fn classify(&self, error: &(dyn StdError + 'static)) -> Failure {
        self.classifier.as_ref().map_or_else(|| Failure::of(error), |classify| classify(error))
    }

    /// Returns how much of a request's body is recorded.
    pub(in crate::retry) fn limits<'a>(
        &'a self,
        options: Option<&RetryOptions>,
        is_grpc: &'a dyn Fn() -> bool,
    ) -> BodyLimits<'a> {
        let own = options.and_then(|options| options.replay_limit);
        let known = own.or(self.replay_body_limit);
        BodyLimits {
            exact: known.unwrap_or(BodyLimits::EXACT),
            in_memory: known.unwrap_or(u64::MAX),
            stream: own.unwrap_or(self.replay_stream_limit),
            // A limit for one request is for all of its messages.
            is_grpc: if own.is_none() { is_grpc } else { &|| false },
            allowance: Some(&self.allowance),
        }
    }
}

impl Default for RetryRules {
    fn default() -> Self {
        Self {
            max_retries: 3,
            auth_replays: 1,
            auth_replay_delay: Duration::from_secs(1),
            min_delay: Duration::from_millis(500),
            max_delay: Duration::from_secs(30),
            max_retry_after: Duration::from_secs(60),
            max_total_delay: Duration::from_secs(120),
            max_hold: Duration::from_secs(2),
            total_timeout: None,
            attempt_timeout: None,
            replay_body_limit: None,
            replay_stream_limit: BodyLimits::STREAM,
            replay_total_limit: BodyLimits::TOTAL,
            allowance: Arc::new(Allowance::new(BodyLimits::TOTAL)),
            profile: RateLimitProfile::generic(),
            throttled: vec![StatusCode::TOO_MANY_REQUESTS],
            // From 520 on they are those of Cloudflare about the server behind it, and "overloaded".
            unavailable: [408, 425, 502, 503, 504, 520, 521, 522, 523, 524, 529]
                .into_iter()
                .filter_map(|code| StatusCode::from_u16(code).ok())
                .collect(),
            classifier: None,
            strict_methods: false,
            generated_keys: false,
            retry_token_failures: false,
            budget: Some(RetryBudget::default()),
            gate: Some(RetryGate::default()),
            gate_key: None,
        }
    }
}

impl fmt::Debug for RetryRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryRules")
            .field("max_retries", &self.max_retries)
            .field("max_total_delay", &self.max_total_delay)
            .field("total_timeout", &self.total_timeout)
            .field("attempt_timeout", &self.attempt_timeout)
            .field("budget", &self.budget)
            .field("gate", &self.gate)
            .finish_non_exhaustive()
    }
}
