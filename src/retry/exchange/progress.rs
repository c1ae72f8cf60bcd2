//! How the attempts of a request went so far.

use std::mem;
use std::time::Duration;

use crate::retry::policy::view::View;
use crate::retry::report::{self, ReplayReason, Replayed, StopReason};

/// How the attempts of a request went so far.
#[derive(Clone)]
pub(in crate::retry) struct Progress {
    pub(in crate::retry) sent: u32,
    pub(in crate::retry) retries: u32,
    /// Retries since a gRPC server said when to come; the policy's own waits grow with these.
    backoffs: u32,
    pub(in crate::retry) auth_replays: u32,
    pub(in crate::retry) waited: Duration,
    /// The server may have acted on an attempt whose response is not returned.
    pub(in crate::retry) in_doubt: bool,
    /// How much of `waited` was at the gate.
    pub(in crate::retry) held: Duration,
    pub(in crate::retry) history: Vec<Replayed>,
}

impl Progress {
    /// The first attempt has been sent.
    pub(in crate::retry) fn first() -> Self {
        Self {
            sent: 1,
            retries: 0,
            backoffs: 0,
            auth_replays: 0,
            waited: Duration::ZERO,
            in_doubt: false,
            held: Duration::ZERO,
            history: Vec::new(),
        }
    }

    /// Whether no attempt came to nothing yet, and none was held.
    pub(in crate::retry) fn is_first(&self) -> bool {
        self.history.is_empty() && self.held.is_zero()
    }

    /// Notes an attempt that was decided on.
    pub(in crate::retry) fn note(&mut self, replayed: Replayed, pushed_back: bool) {
        match replayed.reason {
            ReplayReason::TokenRejected => self.auth_replays += 1,
            ReplayReason::Throttled
            | ReplayReason::Unavailable
            | ReplayReason::Unsent
            | ReplayReason::Ambiguous => {
                self.retries += 1;
                self.backoffs = if pushed_back { 0 } else { self.backoffs + 1 };
            }
        }
        self.waited(replayed.delay);
        self.history.push(replayed);
    }

    /// Notes a wait.
    pub(in crate::retry) fn waited(&mut self, wait: Duration) {
        self.waited = self.waited.saturating_add(wait);
    }

    /// Notes a wait at the gate, before the attempt that was decided on last.
    pub(in crate::retry) fn held(&mut self, wait: Duration) {
        self.waited(wait);
        self.held = self.held.saturating_add(wait);
        if let Some(last) = self.history.last_mut() {
            last.delay = last.delay.saturating_add(wait);
        }
    }

    /// Adds it to a view.
    pub(in crate::retry) fn complete(&self, view: &mut View<'_>) {
        view.in_doubt = self.in_doubt;
        view.retries = self.retries;
        view.backoffs = self.backoffs;
        view.auth_replays = self.auth_replays;
        view.waited = self.waited;
    }

    /// Makes a report of it, to be filled in where there is more to say.
    pub(in crate::retry) fn end(self, stop_reason: StopReason) -> report::Inner {
        report::Inner {
            attempts: self.sent,
            held: self.held,
            history: self.history,
            stop_reason,
            requested_delay: None,
            rejected: None,
            in_doubt: self.in_doubt,
            error: None,
        }
    }

    pub(in crate::retry) fn finish(&mut self) -> Self {
        mem::replace(self, Self::first())
    }
}
