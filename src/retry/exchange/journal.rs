//! The log lines of retries: what an operator reads of a request that was not served at once.
//!
//! A line can be understood alone: it says which request of which server it is about, by its method, its origin and its
//! `x-request-id`, and never its path. The text of a server or of a foreign error is not shown.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use http::{HeaderName, StatusCode};

use super::head::HeadSnapshot;
use super::timeouts::TimedOut;
use crate::error::{Error, chain};
use crate::extensions::TokenRejected;
use crate::origin::Origin;
use crate::retry::report::{ReplayReason, Replayed, ReportDetails, StopReason};
use crate::telemetry;
use crate::text::{clean, show_duration};

/// Logs a request that waits at the gate although it was not refused itself.
pub(super) fn held_back(head: Option<&HeadSnapshot>) {
    tracing::debug!(
        method = method(head),
        origin = origin(head),
        request_id = request_id(head),
        "the request is held back, since the server asked for patience"
    );
}

/// Logs that a request is sent again after attempt `attempt`. `token`: the number of the one that was refused. `budget`: what
/// is left of it.
pub(super) fn sent_again(
    head: Option<&HeadSnapshot>,
    replayed: &Replayed,
    error: Option<&(dyn StdError + 'static)>,
    token: Option<u64>,
    budget: Option<f64>,
    at_gate: bool,
    attempt: u32,
) {
    telemetry::sent_again(label(replayed.reason), budget);
    tracing::debug!(
        method = method(head),
        origin = origin(head),
        request_id = request_id(head),
        attempt,
        status = replayed.status.as_ref().map(StatusCode::as_u16),
        error = error.and_then(shown),
        token,
        reason = %replayed.reason,
        delay = some(replayed.delay),
        requested_delay = replayed.requested_delay.map(show_duration),
        requested_by = replayed.requested_by.as_ref().map(HeaderName::as_str),
        budget,
        at_gate = at_gate.then_some(true),
        "the request is sent again"
    );
}

/// Logs the end of a request that was sent again, held back, or refused to be sent again. A success at the first attempt is
/// none of these.
pub(super) fn ended(
    head: Option<&HeadSnapshot>,
    status: Option<StatusCode>,
    error: Option<&(dyn StdError + 'static)>,
    report: &ReportDetails,
) {
    let is_success = status.is_some_and(|status| status.is_success());
    if !report.history.is_empty() {
        telemetry::retried(is_success);
    }
    let is_served = is_success && report.stop_reason == StopReason::Final;
    if is_served && report.history.is_empty() {
        return;
    }
    tracing::debug!(
        method = method(head),
        origin = origin(head),
        request_id = request_id(head),
        attempts = report.attempts,
        status = status.as_ref().map(StatusCode::as_u16),
        error = error.and_then(shown),
        token = report.rejected.as_ref().and_then(TokenRejected::token_id),
        reason = (!is_served).then(|| tracing::field::display(&report.stop_reason)),
        held = some(report.held),
        waited = some(waited(report)),
        requested_delay = report.requested_delay.map(show_duration),
        "{}",
        if is_served { "a retry succeeded" } else { "the request is not sent again" }
    );
}

/// The reason as a label of a metric.
fn label(reason: ReplayReason) -> &'static str {
    match reason {
        ReplayReason::TokenRejected => "token_rejected",
        ReplayReason::Throttled => "throttled",
        ReplayReason::Unavailable => "unavailable",
        ReplayReason::Unsent => "unsent",
        ReplayReason::Ambiguous => "ambiguous",
        ReplayReason::TokenUnavailable => "token_unavailable",
    }
}

fn method(head: Option<&HeadSnapshot>) -> Option<&str> {
    head.map(|head| head.method().as_str())
}

fn origin(head: Option<&HeadSnapshot>) -> Option<String> {
    Origin::of(head?.uri()).map(|origin| origin.to_string())
}

fn request_id(head: Option<&HeadSnapshot>) -> Option<String> {
    Some(clean(head?.request_id()?))
}

/// How long it waited before attempts.
fn waited(report: &ReportDetails) -> Duration {
    report.history.iter().map(|replayed| replayed.delay).sum()
}

/// No wait is not shown.
fn some(wait: Duration) -> Option<String> {
    (!wait.is_zero()).then(|| show_duration(wait))
}

/// Returns the text of an error that may be shown: the words of this crate, and those of the operating system. Any other may
/// hold anything.
fn shown(error: &(dyn StdError + 'static)) -> Option<String> {
    chain(error).find_map(|error| {
        if error.is::<Error>() || error.is::<TimedOut>() {
            return Some(error.to_string());
        }
        let error = error.downcast_ref::<io::Error>()?;
        Some(if error.raw_os_error().is_some() { error.to_string() } else { error.kind().to_string() })
    })
}
