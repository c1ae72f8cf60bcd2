//! The future of a token: named, and without a task or a timer until it has to wait.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Sleep;

use super::shared::{Ask, FetchWaiter, Published, Shared, with_timer};
use super::single_flight::Outcome;
use crate::clock::Moment;
use crate::error::TokenError;

/// How often a caller starts over when flights are lost under it: its own runtime would have to go down each time.
const MOST_ROUNDS: u32 = 4;
/// A flight ends itself at its deadline. Who waits longer sees a flight that nobody drives.
const GRACE: Duration = Duration::from_secs(1);

/// Waits for a usable token.
///
/// # Cancel safety
///
/// Dropping it only gives up the wait; the flight goes on for the others and for the next caller.
pub(crate) struct Acquire {
    shared: Arc<Shared>,
    min_validity: Option<Duration>,
    wait: Option<Wait>,
    rounds: u32,
}

/// A seat in a flight, and an alarm for the case that nobody drives it.
pub(super) struct Wait {
    seat: FetchWaiter,
    alarm: Pin<Box<Sleep>>,
}

impl Acquire {
    pub(crate) fn new(shared: Arc<Shared>, min_validity: Option<Duration>) -> Self {
        Self { shared, min_validity, wait: None, rounds: 0 }
    }

    fn ask(&mut self) -> Option<Result<Published, TokenError>> {
        // Not for a request with a need of its own: what is fresh for others may end too soon for it.
        if self.min_validity.is_none()
            && let Some(fresh) = self.shared.fresh()
        {
            return Some(Ok(fresh));
        }
        match self.shared.ask(self.min_validity) {
            Ask::Now(answer) => Some(answer),
            Ask::Wait(seat, deadline) => match Wait::new(seat, deadline) {
                Ok(wait) => {
                    self.wait = Some(wait);
                    None
                }
                Err(error) => Some(Err(error)),
            },
        }
    }
}

impl Future for Acquire {
    type Output = Result<Published, TokenError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            let Some(wait) = &mut this.wait else {
                this.rounds += 1;
                match this.ask() {
                    Some(answer) => return Poll::Ready(answer),
                    None => continue,
                }
            };
            let outcome = ready!(wait.poll(&this.shared, context));
            this.wait = None;
            match outcome {
                // It may have been rejected between landing and this poll; then it is worth asking again.
                Outcome::Finished(Ok(snapshot)) if !snapshot.is_retired() || this.rounds >= MOST_ROUNDS => {
                    return Poll::Ready(Ok(snapshot));
                }
                Outcome::Finished(Err(error)) => return Poll::Ready(this.shared.valid().ok_or(error)),
                Outcome::Finished(Ok(_)) | Outcome::Lost if this.rounds < MOST_ROUNDS => {}
                Outcome::Finished(Ok(_)) | Outcome::Lost => {
                    return Poll::Ready(Err(abandoned()));
                }
            }
        }
    }
}

impl Wait {
    pub(super) fn new(seat: FetchWaiter, deadline: Moment) -> Result<Self, TokenError> {
        Ok(Self { seat, alarm: alarm(deadline)? })
    }

    pub(super) fn poll(
        &mut self,
        shared: &Arc<Shared>,
        context: &mut Context<'_>,
    ) -> Poll<Outcome<Published, TokenError>> {
        if let Poll::Ready(outcome) = Pin::new(&mut self.seat).poll(context) {
            return Poll::Ready(outcome);
        }
        ready!(self.alarm.as_mut().poll(context));
        shared.give_up(&self.seat);
        Poll::Ready(Outcome::Lost)
    }
}

impl fmt::Debug for Acquire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquire").field("waiting", &self.wait.is_some()).finish_non_exhaustive()
    }
}

/// Sets the alarm a little after the flight's own deadline.
pub(super) fn alarm(deadline: Moment) -> Result<Pin<Box<Sleep>>, TokenError> {
    let at = deadline.saturating_add(GRACE).mono;
    with_timer(|| Box::pin(tokio::time::sleep_until(at)))
}

pub(super) fn abandoned() -> TokenError {
    TokenError::transient(
        "the token request was abandoned: the runtime that ran it was shut down or not driven",
    )
}
