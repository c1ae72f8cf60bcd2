//! What stands before a server that asks for patience: a gate for each place, and what goes by it.

mod lane;
mod pace;
mod scope;
mod surplus;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::request;
use tokio::time::Instant;

use self::lane::Lane;
pub(super) use self::lane::{Admission, Ask, Held, Pass, Ticket};
pub(super) use self::scope::Kind;
use self::scope::Scope;
use super::limits::account::Account;
use crate::backoff::Chance;
use crate::clock;
use crate::extensions::CredentialId;
use crate::origin::Origin;

/// Holds requests back while a server refuses them, and then sends them at a pace that it learns.
///
/// A first 429 with a wait closes the gate of its origin and [`CredentialId`] (and of what
/// [`gate_key`](super::RetryPolicyBuilder::gate_key) makes of the request). After the wait the requests are sent one by one,
/// at a pace that rises while the server accepts them. The rules are on the page of the [module](super#the-gate).
///
/// - A request that was not refused waits for the server's pause and
///   [`max_hold`](super::RetryPolicyBuilder::max_hold), and longer only if it is known that it would be refused.
/// - No request is held beyond its [`Deadline`](crate::extensions::Deadline) or the policy's
///   [`max_total_delay`](super::RetryPolicyBuilder::max_total_delay).
/// - While it is open everywhere, a request reads one number and nothing else. A gate that nothing needed for half a minute is
///   open again, and its pace forgotten. 1024 are kept at most.
///
/// Clones share the gates, and so may several policies:
///
/// ```
/// use tower_oauth2::RetryPolicy;
/// use tower_oauth2::retry::RetryGate;
///
/// let gate = RetryGate::new();
/// let orders = RetryPolicy::builder().gate(gate.clone()).build()?;
/// let reports = RetryPolicy::builder().gate(gate.clone()).max_retries(5).build()?;
/// assert!(gate.status().is_empty(), "open everywhere");
/// # Ok::<(), tower_oauth2::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct RetryGate {
    inner: Arc<Inner>,
}

/// How one gate is that is not open: closed, or letting out at a pace.
#[derive(Clone, Debug, PartialEq)]
pub struct GateStatus {
    place: Place,
    learned: Option<Box<str>>,
    opens_in: Option<Duration>,
    pace: f64,
    waiting: usize,
}

/// What a gate stands before: an account, or a part of what it may ask for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    account: Account,
    key: Option<Box<str>>,
}

/// What the caller makes of a request, to tell the limits of one server apart.
#[derive(Clone, Default)]
pub(super) struct GateKey {
    by: Option<Arc<ByCaller>>,
}

type ByCaller = dyn Fn(&request::Parts) -> String + Send + Sync;

#[derive(Default)]
struct Inner {
    /// How many lanes there are: the one number that is read while there are none.
    count: AtomicUsize,
    chance: Chance,
    lanes: Mutex<Lanes>,
}

#[derive(Default)]
struct Lanes {
    by_place: HashMap<Place, Arc<Lane>>,
    swept: Option<Instant>,
}

/// How many lanes are kept.
const LANES: usize = 1_024;

/// When an unused lane is forgotten.
const FORGET: Duration = Duration::from_secs(30);

/// How often lanes are looked through for those to forget.
const SWEEP: Duration = Duration::from_secs(1);

/// How many lanes are looked at for one to forget when there are too many.
const LOOKED_AT: usize = 8;

impl RetryGate {
    /// Creates gates that are open everywhere.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the gates that are not open: closed, or letting out at a pace.
    #[must_use]
    pub fn status(&self) -> Vec<GateStatus> {
        let now = clock::now();
        let mut lanes = self.inner.lanes();
        self.inner.sweep(&mut lanes, now);
        let status = |(place, lane): (&Place, &Arc<Lane>)| {
            let state = lane.state();
            GateStatus {
                place: place.clone(),
                learned: state.scope.as_ref().and_then(Scope::only).map(Into::into),
                opens_in: state.pace.opens_at().checked_duration_since(now).filter(|left| !left.is_zero()),
                pace: state.pace.per_second(),
                waiting: state.queue.len(),
            }
        };
        lanes.by_place.iter().map(status).collect()
    }

    /// Whether no request needs to look further.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        self.inner.count.load(Ordering::Relaxed) == 0
    }

    /// Asks for a request to be let through.
    pub(super) fn admit(&self, place: &Place, ask: Ask<'_>) -> Admission {
        let now = clock::now();
        let mut lanes = self.inner.lanes();
        self.inner.sweep(&mut lanes, now);
        let Some(lane) = lanes.by_place.get(place).cloned() else { return Admission::Open };
        drop(lanes);
        lane.admit(ask, now)
    }

    /// Notes that a request was refused for `wait`, and says how its retry stands with the gate.
    pub(super) fn refused(&self, place: &Place, ask: Ask<'_>, pass: Option<&Pass>, wait: Duration) -> Held {
        let now = clock::now();
        let mut lanes = self.inner.lanes();
        self.inner.sweep(&mut lanes, now);
        let pause = self.inner.chance.lengthen(wait);
        if let Some(lane) = lanes.by_place.get(place).cloned() {
            drop(lanes);
            return lane.refused(ask, pass, pause);
        }
        if lanes.by_place.len() >= LANES && !lanes.make_room() {
            return Held::No;
        }
        // Where the caller tells requests apart, nothing is to be learned.
        let scope = ask.kind.filter(|_| place.key.is_none()).map(Scope::new);
        lanes.by_place.insert(place.clone(), Arc::new(Lane::new(now, pause, scope)));
        self.inner.count.store(lanes.by_place.len(), Ordering::Relaxed);
        Held::Now
    }
}

impl fmt::Debug for RetryGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryGate").field("not_open", &self.inner.count).finish_non_exhaustive()
    }
}

// --- GateStatus ---

impl GateStatus {
    /// Returns the origin before which it stands; none for requests whose URI does not say where they go, or whose
    /// authority is that of no origin, as with a user name.
    #[must_use]
    pub fn origin(&self) -> Option<&Origin> {
        self.place.account.origin.as_ref()
    }

    /// Returns the credential whose requests it holds back.
    #[must_use]
    pub fn credential(&self) -> Option<&CredentialId> {
        self.place.account.credential.as_ref()
    }

    /// Returns which part of these requests it holds back: what [`gate_key`](super::RetryPolicyBuilder::gate_key) made of them, or
    /// the one first path segment or method that it learned the limit to be about. None for all of them.
    #[must_use]
    pub fn part(&self) -> Option<&str> {
        self.place.key.as_deref().or(self.learned.as_deref())
    }

    /// Returns how long it stays closed; none if it lets out at its pace.
    #[must_use]
    pub fn opens_in(&self) -> Option<Duration> {
        self.opens_in
    }

    /// Returns how many requests per second it sends when it is not closed.
    #[must_use]
    pub fn pace(&self) -> f64 {
        self.pace
    }

    /// Returns how many requests wait at it.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting
    }
}

// --- Place ---

impl Place {
    pub(super) fn of(account: Account, key: Option<String>) -> Self {
        Self { account, key: key.map(String::into_boxed_str) }
    }
}

// --- GateKey ---

impl GateKey {
    pub(super) fn new(key: impl Fn(&request::Parts) -> String + Send + Sync + 'static) -> Self {
        Self { by: Some(Arc::new(key)) }
    }

    /// Returns the key of a request; its head is made only where it is looked at.
    pub(super) fn of(&self, head: impl FnOnce() -> request::Parts) -> Option<String> {
        self.by.as_ref().map(|key| key(&head()))
    }
}

impl fmt::Debug for GateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.by.is_some() { "GateKey(by the caller)" } else { "GateKey(none)" })
    }
}

// --- Inner ---

impl Inner {
    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the lanes that are not needed any more.
    fn sweep(&self, lanes: &mut Lanes, now: Instant) {
        if lanes.swept.is_some_and(|at| now.saturating_duration_since(at) < SWEEP) {
            return;
        }
        lanes.swept = Some(now);
        lanes.by_place.retain(|_, lane| {
            let state = lane.state();
            let needed = state.needed.max(state.pace.opens_at());
            !state.queue.is_empty() || now.saturating_duration_since(needed) < FORGET
        });
        self.count.store(lanes.by_place.len(), Ordering::Relaxed);
    }
}

// --- Lanes ---

impl Lanes {
    /// Of a few lanes forgets the one that was not needed for longest. Returns whether there was one at which no request waits.
    fn make_room(&mut self) -> bool {
        let idle = self.by_place.iter().take(LOOKED_AT).filter_map(|(place, lane)| {
            let state = lane.state();
            state.queue.is_empty().then_some((state.needed, place))
        });
        let Some(place) = idle.min_by_key(|(needed, _)| *needed).map(|(_, place)| place.clone()) else {
            return false;
        };
        self.by_place.remove(&place).is_some()
    }
}

#[cfg(test)]
mod tests;
