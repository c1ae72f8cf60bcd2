//! The attempts before the one that is prepared or in flight.

use std::mem;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::Body;
use tower::BoxError;

use super::draining::Draining;
use super::timeouts::TimedOut;
use crate::clock;
use crate::headers::grpc;
use crate::retry::gate::{GatedPlace, Pass};
use crate::retry::policy::idempotency::Repeatability;
use crate::retry::policy::view::EarlierAttempts;
use crate::retry::report::{ReplayReason, Replayed, ReportDetails, StopReason};
use crate::telemetry;

/// The attempts before the one that is prepared or in flight.
pub(super) struct PastAttempts<RB: Body> {
    pub(super) sent: u32,
    pub(super) counts: EarlierAttempts,
    /// How much of the waits was at the gate.
    pub(super) held: Duration,
    pub(super) history: Vec<Replayed>,
    /// The newest outcome there is. It is kept until a newer one takes its place, so that it can be returned if that does not
    /// come. A response is drained before the inner service is polled ready, so that it holds nothing that this may be waiting
    /// for.
    pub(super) outcome: Option<Result<Box<Draining<RB>>, BoxError>>,
    /// Its place in the history.
    pub(super) at: usize,
    /// The place that the gate guards, once that was asked for.
    pub(super) place: Option<GatedPlace>,
    /// The pass of the attempt in flight through the gate.
    pub(super) pass: Option<Pass>,
}

impl<RB: Body> PastAttempts<RB> {
    /// The first attempt has been sent. `in_doubt`: the server acted before that.
    pub(super) fn first(in_doubt: bool) -> Self {
        Self {
            sent: 1,
            counts: EarlierAttempts { in_doubt, ..EarlierAttempts::default() },
            held: Duration::ZERO,
            history: Vec::new(),
            outcome: None,
            at: 0,
            place: None,
            pass: None,
        }
    }

    /// Whether no attempt came to nothing yet, and none was held.
    pub(super) fn is_first(&self) -> bool {
        self.history.is_empty() && self.held.is_zero()
    }

    /// Notes an attempt that was decided on.
    pub(super) fn note(&mut self, replayed: Replayed) {
        match replayed.reason {
            ReplayReason::TokenRejected => {
                self.counts.auth_replays += 1;
                self.counts.refused_at = Some(clock::now().into_std());
            }
            ReplayReason::Throttled
            | ReplayReason::Unavailable
            | ReplayReason::Unsent
            | ReplayReason::Ambiguous
            | ReplayReason::TokenUnavailable => {
                self.counts.retries += 1;
                let is_pushed_back =
                    replayed.requested_by.as_ref().is_some_and(|header| header == grpc::PUSHBACK);
                self.counts.backoffs = if is_pushed_back { 0 } else { self.counts.backoffs + 1 };
            }
        }
        self.add_wait(replayed.delay);
        self.history.push(replayed);
    }

    /// Notes a wait.
    pub(super) fn add_wait(&mut self, wait: Duration) {
        self.counts.waited = self.counts.waited.saturating_add(wait);
    }

    /// Notes a wait at the gate, before the attempt that was decided on last.
    pub(super) fn add_hold(&mut self, wait: Duration) {
        self.add_wait(wait);
        self.held = self.held.saturating_add(wait);
        telemetry::held(wait);
        if let Some(last) = self.history.last_mut() {
            last.delay = last.delay.saturating_add(wait);
        }
    }

    /// Whether the newest outcome is that there was no token.
    pub(super) fn is_without_token(&self) -> bool {
        let newest = self.outcome.as_ref().and_then(|_| self.history.get(self.at));
        newest.is_some_and(|replayed| replayed.reason == ReplayReason::TokenUnavailable)
    }

    /// Keeps the outcome of the attempt that was noted last. A timeout of ours does not take the place of a response, nor does
    /// an attempt that did no work that of one which may have, nor one that had no token that of one which was sent.
    pub(super) fn keep(
        &mut self,
        outcome: Result<Box<Draining<RB>>, BoxError>,
        repeat: Repeatability,
        is_strict: bool,
    ) {
        let Some((last, before)) = self.history.split_last() else { return };
        let may_have_acted = last.may_have_acted(is_strict);
        let is_older_kept = match (&outcome, &self.outcome) {
            (Ok(_), _) | (_, None) => false,
            (Err(error), Some(older)) if may_have_acted => error.is::<TimedOut>() && older.is_ok(),
            (Err(_), Some(_)) => {
                self.counts.in_doubt
                    || last.reason == ReplayReason::TokenUnavailable && !self.is_without_token()
            }
        };
        if !is_older_kept {
            self.at = before.len();
            self.outcome = Some(outcome);
        }
        self.counts.in_doubt |= repeat != Repeatability::Safe && may_have_acted;
    }

    /// Reads on in the response before. Ready once nothing is left to be read. `soon`: the wait is over.
    pub(super) fn poll_drained(&mut self, soon: bool, cx: &mut Context<'_>) -> Poll<()>
    where
        RB::Error: Into<BoxError>,
    {
        let Some(Ok(draining)) = &mut self.outcome else { return Poll::Ready(()) };
        if soon {
            draining.hurry();
        }
        draining.poll_drained(cx)
    }

    /// Makes a report at the end, to be filled in where there is more to say.
    pub(super) fn end(&mut self, stop_reason: StopReason) -> ReportDetails {
        ReportDetails {
            attempts: self.sent,
            held: self.held,
            history: mem::take(&mut self.history),
            stop_reason,
            requested_delay: None,
            rejected: None,
            in_doubt: self.counts.in_doubt,
            error: None,
        }
    }
}
