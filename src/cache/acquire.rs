//! The future of a token: named, and without a task or a timer until it has to wait.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::time::{Sleep, sleep_until};

use super::shared::{Ask, CacheShared, GRACE, Want, abandoned_error};
use super::single_flight::{Outcome, Waiter};
use super::snapshot::Snapshot;
use crate::clock;
use crate::error::Error;
use crate::runtime::with_timer;
use crate::telemetry::TokenWait;

/// How often a caller starts over when fetches are lost under it: its own runtime would have to go down each time.
const MOST_ROUNDS: u32 = 4;

/// Waits for a usable token.
///
/// # Cancel safety
///
/// Dropping it only gives up the wait; the fetch goes on for the others and for the next caller.
pub(crate) struct Acquire {
    shared: Arc<CacheShared>,
    want: Want,
    /// A wait for a fetch.
    waiter: Option<Waiter<Arc<Snapshot>, Error>>,
    /// For the case that nothing drives that fetch.
    alarm: Option<Pin<Box<Sleep>>>,
    counted: Option<TokenWait>,
    rounds: u32,
}

impl Acquire {
    pub(crate) fn new(shared: Arc<CacheShared>, want: Want) -> Self {
        Self { shared, want, waiter: None, alarm: None, counted: None, rounds: 0 }
    }

    fn ask(&mut self) -> Option<Result<Arc<Snapshot>, Error>> {
        // Not for a request with a need of its own: what is fresh for others may end too soon for it.
        let modest = !self.want.new && self.want.min_validity.is_none();
        if let Some(fresh) = self.shared.fresh().filter(|_| modest) {
            return Some(Ok(fresh));
        }
        self.rounds += 1;
        match self.shared.ask(self.want) {
            Ask::Ready(result) => Some(result),
            Ask::Wait(waiter, deadline) => {
                let at = clock::after(deadline, GRACE);
                let at = self.want.by.map_or(at, |by| by.min(at));
                match with_timer(|| Box::pin(sleep_until(at))) {
                    Ok(alarm) => {
                        (self.waiter, self.alarm) = (Some(waiter), Some(alarm));
                        self.counted = Some(TokenWait::begin(self.shared.settings.name.as_ref()));
                    }
                    Err(error) => return Some(Err(error)),
                }
                None
            }
        }
    }

    /// Makes a result of how a wait ended; nothing where the caller has to ask again.
    fn conclude(
        &self,
        outcome: Option<Outcome<Arc<Snapshot>, Error>>,
    ) -> Option<Result<Arc<Snapshot>, Error>> {
        let last = self.rounds >= MOST_ROUNDS;
        match outcome {
            // It may have been dropped, or have expired, between its arrival and this poll.
            Some(Outcome::Finished(Ok(token)))
                if !token.plan().has_ended(self.shared.moment()) && (last || !token.is_retired()) =>
            {
                Some(Ok(token))
            }
            Some(Outcome::Finished(Err(error))) if self.want.new => Some(Err(error)),
            Some(Outcome::Finished(Err(error))) => Some(self.shared.valid().ok_or(error)),
            None if self.want.by.is_some_and(|by| clock::now() >= by) => {
                let valid = if self.want.new { None } else { self.shared.valid() };
                Some(valid.ok_or_else(|| {
                    self.shared.last_error().unwrap_or_else(|| {
                        Error::transient(
                            "the cache behind this one had no token in time; its token request goes on",
                        )
                    })
                }))
            }
            Some(Outcome::Finished(Ok(_)) | Outcome::Lost) | None => last.then(|| Err(abandoned_error())),
        }
    }
}

impl Future for Acquire {
    type Output = Result<Arc<Snapshot>, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            let (Some(waiter), Some(alarm)) = (&mut this.waiter, &mut this.alarm) else {
                match this.ask() {
                    Some(result) => return Poll::Ready(result),
                    None => continue,
                }
            };
            // None where the fetch did not end in time.
            let outcome = match Pin::new(waiter).poll(context) {
                Poll::Ready(outcome) => Some(outcome),
                Poll::Pending => ready!(alarm.as_mut().poll(context).map(|()| None)),
            };
            (this.waiter, this.alarm, this.counted) = (None, None, None);
            if let Some(result) = this.conclude(outcome) {
                return Poll::Ready(result);
            }
        }
    }
}

impl fmt::Debug for Acquire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquire").field("waiting", &self.waiter.is_some()).finish_non_exhaustive()
    }
}
