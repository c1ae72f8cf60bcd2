//! Lets so many token requests through in a second, of all caches together.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock;
use crate::error::Error;
use crate::source::{AroundFetch, DynTokenSource, TokenRequest};
use crate::token::AccessToken;

/// A token request that would wait longer is an error.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// A bucket of turns, which refills evenly: the generic cell rate algorithm. A turn that was booked is used up, also
/// where nothing takes it.
#[derive(Debug)]
pub(super) struct Turnstile {
    /// From one turn to the next.
    interval: Duration,
    /// How far ahead of an even pace turns may be taken.
    slack: Duration,
    /// When the next turn would come if all came evenly.
    next: Mutex<Option<Instant>>,
}

impl Turnstile {
    /// Creates one for `per_second` turns, of which `burst` may be taken at once. Neither may be zero.
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second;
        Self { interval, slack: interval.saturating_mul(burst - 1), next: Mutex::new(None) }
    }

    /// Books a turn that leaves the source half of its time at least, and says when it is.
    fn book(&self, deadline: Option<Instant>) -> Result<Instant, Error> {
        let now = clock::now();
        let left = deadline.map(|deadline| deadline.saturating_duration_since(now));
        let longest = left.map_or(LONGEST_WAIT, |left| (left / 2).min(LONGEST_WAIT));
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let even = next.unwrap_or(now).max(now);
        let wait = even.saturating_duration_since(now).saturating_sub(self.slack);
        if wait > longest {
            return Err(Error::throttled(
                "too many token requests at once for all of these caches, which are let through one by one; raise \
                 token_requests, or look at where the keys come from",
            )
            .with_retry_after(wait));
        }
        *next = Some(clock::after(even, self.interval));
        Ok(clock::after(now, wait))
    }
}

/// Has a token request wait at the turnstile.
pub(super) struct Metered {
    pub(super) turnstile: Arc<Turnstile>,
}

impl AroundFetch for Metered {
    async fn fetch(&self, source: &dyn DynTokenSource, request: TokenRequest) -> Result<AccessToken, Error> {
        let turn = self.turnstile.book(request.deadline().map(Instant::from_std))?;
        if turn > clock::now() {
            tokio::time::sleep_until(turn).await;
        }
        source.fetch(request).await
    }

    /// None: it may tell the tenant, and as a label of metrics there would be one for each.
    fn name(&self, _source: &dyn DynTokenSource) -> Option<String> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_the_rest_comes_evenly() {
        let turnstile = Turnstile::new(10, 3);
        let start = clock::now();
        let waits: Vec<_> = (0..6).map(|_| (turnstile.book(None).unwrap() - start).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 100, 200, 300]);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let start = clock::now();
        let waits: Vec<_> = (0..4).map(|_| (turnstile.book(None).unwrap() - start).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 100]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_would_wait_too_long_books_nothing() {
        let turnstile = Turnstile::new(1, 1);
        for _ in 0..11 {
            turnstile.book(None).unwrap();
        }
        for _ in 0..100 {
            assert!(turnstile.book(None).unwrap_err().is_throttled());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        turnstile.book(None).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_would_leave_the_source_less_than_half_of_the_time_is_not_booked() {
        let turnstile = Turnstile::new(1, 1);
        let deadline = Some(clock::after(clock::now(), Duration::from_secs(6)));
        for _ in 0..4 {
            turnstile.book(deadline).unwrap();
        }
        assert!(turnstile.book(deadline).unwrap_err().is_throttled());
        turnstile.book(None).unwrap();
    }
}
