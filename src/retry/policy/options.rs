//! The settings for the replays of one request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
#[cfg(feature = "stack")]
use std::time::Duration;

use http::{HeaderMap, Method};

use super::idempotency::Repeatability;
#[cfg(feature = "stack")]
use crate::retry::report::{ReportDetails, StopReason};
use crate::retry::report::{ReportSlot, RetryReport};

/// Settings for one request, put into its extensions. They win over the policy. To limit how long the request may take in all,
/// put a [`Deadline`](crate::extensions::Deadline) beside them.
///
/// Defaults: as the policy says; no report slot.
///
/// # Examples
///
/// ```
/// use tower_oauth2::retry::{ReportSlot, RetryOptions};
///
/// let slot = ReportSlot::new();
/// let request = http::Request::post("https://api.example.com/orders")
///     .extension(RetryOptions::new().max_retries(1).report_to(&slot))
///     .body(())?;
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct RetryOptions {
    pub(in crate::retry) never: bool,
    pub(in crate::retry) past_gate: bool,
    pub(in crate::retry) no_auth_replay: bool,
    pub(in crate::retry) max_retries: Option<u32>,
    pub(in crate::retry) repeatable: bool,
    pub(in crate::retry) strict_methods: Option<bool>,
    pub(in crate::retry) replay_limit: Option<u64>,
    pub(in crate::retry) slot: Option<ReportSlot>,
    pub(in crate::retry) before: Before,
    /// Whether a report said that the server may have acted. Of one request alone, while clones may share the slot.
    doubt: Option<Arc<AtomicBool>>,
}

/// The deed of the server before this request: for one that it redirected here, or for one of a pool that goes to another token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Before {
    #[default]
    Nothing,
    /// It may have done what is asked for.
    Doubt,
    /// It did the work, and this is to read what came of it.
    #[cfg_attr(not(feature = "stack"), allow(dead_code, reason = "redirects are followed there"))]
    Work,
}

impl RetryOptions {
    /// Creates options that leave everything to the policy.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates options for a request that is sent once and not retried. A closed [gate](crate::retry::RetryGate) holds it for
    /// the server's pause and [`max_hold`](crate::retry::RetryPolicyBuilder::max_hold) at most; add
    /// [`gate(false)`](Self::gate) to send it at once.
    #[must_use]
    pub fn never() -> Self {
        Self { never: true, ..Self::default() }
    }

    /// Sets whether the request waits at the [`RetryGate`](crate::retry::RetryGate), if the policy has one. Turned off, it is sent
    /// at once, and each retry after its own wait: for health checks and the like. The gate hears of its refusals.
    #[must_use]
    pub fn gate(mut self, wait: bool) -> Self {
        self.past_gate = !wait;
        self
    }

    /// Sets whether a request whose token was refused is replayed with a new one. Turned off, its 401 is returned: for servers
    /// that pass on a 401 of their own upstream after they did something. The token is dropped nevertheless.
    #[must_use]
    pub fn auth_replay(mut self, replay: bool) -> Self {
        self.no_auth_replay = !replay;
        self
    }

    /// Sets how often the request may be sent again, replays with a new token not counted.
    #[must_use]
    pub fn max_retries(mut self, retries: u32) -> Self {
        self.max_retries = Some(retries);
        self
    }

    /// Sets whether sending the request twice does no harm, even if its method, headers and key say otherwise: for a POST that
    /// only reads, as those of GraphQL and of searches do, or for a conditional write whose 412 you understand.
    #[must_use]
    pub fn repeatable(mut self, repeatable: bool) -> Self {
        self.repeatable = repeatable;
        self
    }

    /// Sets whether a 429 is retried only where the method may be repeated; see
    /// [`RetryPolicyBuilder::strict_methods`](crate::retry::RetryPolicyBuilder::strict_methods).
    #[must_use]
    pub fn strict_methods(mut self, strict: bool) -> Self {
        self.strict_methods = Some(strict);
        self
    }

    /// Sets how much of the body is recorded, whether its length is known or not, and whether it is one message of gRPC's
    /// or a stream of them. The limit of the policy for all requests together stays as it is.
    #[must_use]
    pub fn replay_limit(mut self, bytes: u64) -> Self {
        self.replay_limit = Some(bytes);
        self
    }

    /// Puts the [`RetryReport`](crate::retry::RetryReport) into `slot` as well, also where the request ends in an error.
    #[must_use]
    pub fn report_to(mut self, slot: &ReportSlot) -> Self {
        self.slot = Some(slot.clone());
        self
    }

    /// Forgets the report of the request before, which is not that of this one.
    pub(crate) fn forget_report(&self) {
        if let Some(slot) = &self.slot {
            slot.clear();
        }
    }

    /// Returns whether a request may be sent again after its response broke off.
    pub(crate) fn may_repeat(&self, method: &Method, headers: &HeaderMap) -> bool {
        let is_repeatable = || self.repeatable || Repeatability::as_it_is(method, headers).is_allowed();
        !self.never && self.max_retries != Some(0) && is_repeatable()
    }

    /// Puts the report to those who look for it.
    pub(in crate::retry) fn put_report(&self, report: &RetryReport) {
        if let Some(doubt) = &self.doubt {
            doubt.fetch_or(report.may_have_acted(), Ordering::Relaxed);
        }
        if let Some(slot) = &self.slot {
            slot.put(report.clone());
        }
    }

    /// Says what the server did before. The more certain deed counts.
    pub(crate) fn come_after(&mut self, before: Before) {
        self.before = self.before.max(before);
    }

    /// Begins to note a doubt, for [`left_doubt`](Self::left_doubt).
    #[cfg(feature = "stack")]
    pub(crate) fn watch(&mut self) {
        self.doubt = Some(Arc::default());
    }

    /// Puts down how the request stands until it is sent. If it never is, since the service is not ready before the deadline, the
    /// report there would be that of the request before.
    #[cfg(feature = "stack")]
    pub(crate) fn report_as_unsent(&self) {
        let Some(slot) = &self.slot else { return };
        slot.put(RetryReport::new(ReportDetails {
            attempts: 0,
            held: Duration::ZERO,
            history: Vec::new(),
            stop_reason: StopReason::NotReady,
            requested_delay: None,
            rejected: None,
            in_doubt: self.before != Before::Nothing,
            error: None,
        }));
    }

    /// Returns whether the server may have acted on the request that was sent with these.
    #[cfg(feature = "stack")]
    pub(crate) fn left_doubt(&self) -> bool {
        self.doubt.as_ref().is_some_and(|doubt| doubt.load(Ordering::Relaxed))
    }
}
