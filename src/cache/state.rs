//! What a cache remembers beside its token, and what follows from it: pure functions of values.
//!
//! 1. [`Ledger::decide`] says what a caller gets: the token, the token and a new flight, a wait, or the last error.
//! 2. A failed flight closes the way to the token endpoint for a while; how long depends on the class of the error.
//! 3. A rejection passes two brakes before it costs a token request.

use std::time::Duration;

use tokio::time::Instant;

use super::schedule::Plan;
use crate::backoff::Chance;
use crate::clock::Moment;
use crate::error::{ErrorClass, TokenError};
use crate::source::FetchReason;

/// The first wait after a failed flight; it doubles with each further one.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// The longest wait after a failed flight.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);
/// Chance may make a wait short, but not nothing.
const SHORTEST_BACKOFF: Duration = Duration::from_millis(100);
/// The bounds of a wait that the authorization server asked for.
const THROTTLE_BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5 * 60));
/// The wait after a refusal that will not pass by itself; then one probe.
const PERMANENT_COOL_DOWN: Duration = Duration::from_secs(30);

/// So many tokens in a row, never accepted and rejected, close the first brake.
const FUTILE_REJECTIONS: u32 = 3;
/// How long the first brake stays closed the first time; it doubles each time.
const FIRST_BRAKE: Duration = Duration::from_secs(30);
/// How long the first brake stays closed at most.
const LONGEST_BRAKE: Duration = Duration::from_secs(5 * 60);
/// Flights that rejections may cause in a row.
const REJECTION_BURST: u32 = 30;
/// The time after which one more such flight is allowed.
const REJECTION_REFILL: Duration = Duration::from_secs(2);

/// What a caller gets.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The token, and nothing to do.
    Use,
    /// The token, and a flight that renews it.
    UseAndFetch(FetchReason),
    /// A wait for the flight that is in the air.
    Join,
    /// A wait for a flight that has to start.
    Fetch(FetchReason),
    /// The error of the last flight; it is too early to ask again.
    Fail(TokenError),
}

/// What a rejection comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Brake {
    /// The token may be dropped.
    Open,
    /// It may not, and this is the first time that it is said.
    JustClosed,
    /// It may not.
    Closed,
}

/// What a cache remembers beside its token.
#[derive(Debug)]
pub(crate) struct Ledger {
    failure: Option<Failure>,
    /// Why there is no token, once there was one.
    lost: Option<FetchReason>,
    futile: Futile,
    bucket: Bucket,
}

/// An unbroken row of failed flights.
#[derive(Debug)]
struct Failure {
    error: TokenError,
    streak: u32,
    until: Instant,
}

/// The first brake: tokens that no API ever accepted.
#[derive(Debug, Default)]
struct Futile {
    in_a_row: u32,
    closed: u32,
    until: Option<Instant>,
}

/// The second brake: flights that rejections cause, whatever was accepted.
#[derive(Debug)]
struct Bucket {
    left: u32,
    refilled: Option<Instant>,
    warned: bool,
}

impl Default for Ledger {
    fn default() -> Self {
        // The first token counts as one of the burst: a minute of rejections costs sixty token requests in all.
        let bucket = Bucket { left: REJECTION_BURST - 1, refilled: None, warned: false };
        Self { failure: None, lost: None, futile: Futile::default(), bucket }
    }
}

impl Ledger {
    /// Decides what a caller gets who needs a token that is good for `min_validity` more.
    ///
    /// A flight in the air is never doubled, a usable token never kept back, and the endpoint never asked before the
    /// wait of a failure is over.
    pub(crate) fn decide(
        &self,
        token: Option<&Plan>,
        in_flight: bool,
        min_validity: Option<Duration>,
        now: Moment,
    ) -> Verdict {
        let cooling = self.failure.as_ref().filter(|failure| now.mono < failure.until);
        let usable = token.filter(|plan| !plan.has_ended(now));
        let Some(plan) = usable else {
            let reason = match token {
                Some(_) => FetchReason::Expired,
                None => self.lost.unwrap_or(FetchReason::Initial),
            };
            return match (in_flight, cooling) {
                (true, _) => Verdict::Join,
                (false, None) => Verdict::Fetch(reason),
                (false, Some(failure)) => Verdict::Fail(failure.error.clone()),
            };
        };
        let must_wait =
            reached(plan.must_wait, now) || min_validity.is_some_and(|need| plan.falls_short(need, now));
        match (must_wait, in_flight, cooling) {
            (true, true, _) => Verdict::Join,
            (true, false, None) => Verdict::Fetch(FetchReason::Expiring),
            (false, false, None) if reached(plan.due, now) => Verdict::UseAndFetch(FetchReason::Expiring),
            // Still valid: kept in use while the endpoint has to be left alone.
            (true, false, Some(_)) | (false, _, _) => Verdict::Use,
        }
    }

    /// Says when the next decision can differ while nothing happens: the earliest instant at which somebody has to
    /// think again about this token.
    pub(crate) fn next_thought(&self, plan: &Plan, in_flight: bool, now: Moment) -> Option<Moment> {
        let ahead = |instant: Option<Moment>| instant.filter(|instant| !now.reached(*instant));
        // What never is due needs no thought at all.
        let due = plan.due?;
        if !now.reached(due) {
            return Some(due);
        }
        let cooled = self
            .failure
            .as_ref()
            .filter(|failure| now.mono < failure.until && !in_flight)
            .map(|failure| now.saturating_add(failure.until.saturating_duration_since(now.mono)));
        // With a flight in the air nothing is to be decided before requests have to wait for it; while the endpoint is
        // left alone nothing before that ends.
        let next = match (in_flight, cooled) {
            (true, _) => ahead(plan.must_wait).or(plan.ends),
            (false, cooled) => cooled.or(Some(now)),
        };
        match (next, plan.ends) {
            (Some(next), Some(ends)) if next.reached(ends) => Some(ends),
            (next, _) => next,
        }
    }

    /// Notes a token that arrived. Returns whether a row of failures ended.
    pub(crate) fn succeeded(&mut self) -> bool {
        self.lost = None;
        self.failure.take().is_some()
    }

    /// Notes a failed flight. Returns whether it is the first of a row.
    pub(crate) fn failed(&mut self, error: TokenError, now: Instant, chance: &Chance) -> bool {
        let streak = self.failure.as_ref().map_or(0, |failure| failure.streak);
        let wait = match error.class() {
            ErrorClass::Config | ErrorClass::Grant => PERMANENT_COOL_DOWN,
            ErrorClass::Throttled { until: Some(until) } => Instant::from_std(until)
                .saturating_duration_since(now)
                .clamp(THROTTLE_BOUNDS.0, THROTTLE_BOUNDS.1),
            ErrorClass::Throttled { until: None } => {
                chance.full_jitter(FIRST_BACKOFF, LONGEST_BACKOFF, streak).max(THROTTLE_BOUNDS.0)
            }
            ErrorClass::Transient | ErrorClass::Protocol => {
                chance.full_jitter(FIRST_BACKOFF, LONGEST_BACKOFF, streak).max(SHORTEST_BACKOFF)
            }
        };
        self.failure = Some(Failure { error, streak: streak.saturating_add(1), until: now + wait });
        streak == 0
    }

    /// Notes that the token is gone, and why the next one is wanted.
    pub(crate) fn lost(&mut self, reason: FetchReason) {
        self.lost = Some(reason);
    }

    /// Opens the way to the endpoint at once: somebody who may decide so asked for it.
    pub(crate) fn forgive(&mut self, now: Instant) {
        if let Some(failure) = &mut self.failure {
            failure.until = failure.until.min(now);
        }
    }

    /// Returns the error of the last flight, how many failed in a row, and until when the endpoint is left alone.
    pub(crate) fn failure(&self) -> Option<(&TokenError, u32, Instant)> {
        self.failure.as_ref().map(|failure| (&failure.error, failure.streak, failure.until))
    }

    /// Notes that an API took a token: a row of tokens that none took is over.
    pub(crate) fn accepted(&mut self) {
        self.futile = Futile::default();
    }

    /// Passes a rejection through both brakes. `accepted` says whether an API ever took this token.
    pub(crate) fn brake(&mut self, accepted: bool, now: Instant) -> Brake {
        if accepted {
            self.accepted();
        } else {
            match self.futile.check(now) {
                Brake::Open => {}
                closed @ (Brake::JustClosed | Brake::Closed) => return closed,
            }
        }
        self.bucket.draw(now)
    }

    /// Returns whether a rejection would be held back at `now`.
    pub(crate) fn is_braked(&self, now: Instant) -> bool {
        self.futile.until.is_some_and(|until| now < until) || self.bucket.left_at(now).0 == 0
    }
}

fn reached(instant: Option<Moment>, now: Moment) -> bool {
    instant.is_some_and(|instant| now.reached(instant))
}

impl Futile {
    fn check(&mut self, now: Instant) -> Brake {
        match self.until {
            Some(until) if now < until => return Brake::Closed,
            // The time is over: one token is tried, and if that is rejected as well the brake closes for longer.
            Some(_) => {
                self.until = None;
                self.in_a_row = FUTILE_REJECTIONS - 1;
                return Brake::Open;
            }
            None => {}
        }
        self.in_a_row += 1;
        if self.in_a_row < FUTILE_REJECTIONS {
            return Brake::Open;
        }
        let longer = FIRST_BRAKE.saturating_mul(1 << self.closed.min(8)).min(LONGEST_BRAKE);
        self.closed += 1;
        self.until = Some(now + longer);
        Brake::JustClosed
    }
}

impl Bucket {
    /// Returns what is in the bucket at `now` and the instant up to which it was refilled.
    fn left_at(&self, now: Instant) -> (u32, Option<Instant>) {
        let Some(since) = self.refilled else {
            return (self.left, None);
        };
        let drops = now.saturating_duration_since(since).as_secs() / REJECTION_REFILL.as_secs();
        let drops = u32::try_from(drops).unwrap_or(u32::MAX);
        let left = self.left.saturating_add(drops).min(REJECTION_BURST);
        if left == REJECTION_BURST { (left, None) } else { (left, Some(since + REJECTION_REFILL * drops)) }
    }

    fn draw(&mut self, now: Instant) -> Brake {
        let (left, refilled) = self.left_at(now);
        self.left = left;
        self.refilled = refilled;
        if left == 0 {
            let first = !self.warned;
            self.warned = true;
            return if first { Brake::JustClosed } else { Brake::Closed };
        }
        self.warned = self.warned && left < REJECTION_BURST / 2;
        self.left -= 1;
        // The refill counts from the first draw of a full bucket.
        self.refilled.get_or_insert(now);
        Brake::Open
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
