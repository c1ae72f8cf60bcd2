//! What stands before a server that asks for patience: a gate for each place, and what goes by it.

mod lane;
mod pace;

use std::borrow::Borrow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use http::request;
use tokio::time::Instant;

use self::lane::{Lane, State, Waiter};
pub(super) use self::lane::{Pass, Ticket};
use self::pace::Pace;
use super::account::Account;
use crate::backoff::Chance;
use crate::clock;
use crate::extensions::CredentialId;
use crate::origin::Origin;

/// Holds requests back while a server asks for patience, and then lets them out at a pace that it learns.
///
/// One 429 that says for how long closes the gate of its origin and [`CredentialId`] (and of what
/// [`gate_key`](super::RetryPolicyBuilder::gate_key) makes of the request) to all requests, and not only to the one that
/// was refused. When the time is over, they do not leave at one instant, but first those that were refused before, and all
/// at a pace that begins low, grows while the server takes it, and falls with the next 429. So nearly every request is
/// sent once, and three retries are enough however many wait.
///
/// - Nobody is held beyond the request's [`Deadline`](crate::extensions::Deadline) or the policy's
///   [`total_wait`](super::RetryPolicyBuilder::total_wait): what cannot be waited out is let through at once, and gets the
///   server's own answer.
/// - While it is open everywhere, a request reads one number and nothing else. A gate at which nobody had to wait for
///   half a minute is open again, and its pace forgotten. 1024 are kept at most.
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
/// # Ok::<(), tower_oauth2::TokenError>(())
/// ```
#[derive(Clone, Default)]
pub struct RetryGate {
    inner: Arc<Inner>,
}

/// How one gate is that is not open: closed, or letting out at a pace.
#[derive(Clone, Debug, PartialEq)]
pub struct GateStatus {
    place: Place,
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

/// What a gate says to a request that comes by.
pub(super) enum Admission {
    /// It is open.
    Open,
    /// The request may go, and tells what came of it.
    Go(Pass),
    Wait(Ticket),
}

#[derive(Default)]
struct Inner {
    /// How many lanes there are: the one number that is read while there are none.
    count: AtomicUsize,
    epochs: AtomicU64,
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

/// When a lane that nobody needed is forgotten.
const FORGET: Duration = Duration::from_secs(30);

/// How often lanes are looked through for those to forget.
const SWEEP: Duration = Duration::from_secs(1);

impl RetryGate {
    /// Creates gates that are open everywhere.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates gates whose chance follows from `seed`.
    #[cfg(test)]
    pub(super) fn seeded(seed: u64) -> Self {
        Self { inner: Arc::new(Inner { chance: Chance::seeded(seed), ..Inner::default() }) }
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

    /// Asks for a request to be let through that was retried so often, must wait for `least`, and can wait for less than
    /// `longest`.
    pub(super) fn admit(&self, place: &Place, retries: u32, least: Duration, longest: Duration) -> Admission {
        let now = clock::now();
        let mut lanes = self.inner.lanes();
        self.inner.sweep(&mut lanes, now);
        let Some(lane) = lanes.by_place.get(place) else { return Admission::Open };
        let mut state = lane.state();
        let pass =
            |state: &State, hurried| Pass { lane: Arc::clone(lane), epoch: state.epoch, at: now, hurried };
        if state.queue.is_empty() && state.pace.take(now, false) {
            return Admission::Go(pass(&state, false));
        }
        state.needed = now;
        let rank = (Reverse(retries), state.tickets);
        let ahead = state.ahead(rank);
        if state.pace.time_for(now, ahead) >= longest {
            return Admission::Go(pass(&state, true));
        }
        state.tickets += 1;
        let (not_before, give_up) = (clock::after(now, least), clock::after(now, longest));
        state.queue.insert(rank, Waiter { waker: None, give_up });
        Admission::Wait(Ticket {
            lane: Arc::clone(lane),
            rank,
            since: now,
            not_before,
            give_up,
            hurried: false,
            alarm: None,
        })
    }

    /// Notes that a request was refused for `wait`. Returns whether the gate now holds it back for at least that long.
    pub(super) fn refused(&self, place: &Place, pass: Option<&Pass>, wait: Duration) -> bool {
        let now = clock::now();
        let mut lanes = self.inner.lanes();
        self.inner.sweep(&mut lanes, now);
        let opens_at = clock::after(now, self.inner.chance.lengthen(wait));
        let Some(lane) = lanes.by_place.get(place) else {
            if lanes.by_place.len() >= LANES && !lanes.make_room() {
                return false;
            }
            let state = State {
                epoch: self.inner.next_epoch(),
                pace: Pace::new(now, opens_at),
                queue: BTreeMap::new(),
                called: HashMap::new(),
                tickets: 0,
                needed: now,
            };
            lanes.by_place.insert(place.clone(), Arc::new(Lane { state: Mutex::new(state) }));
            self.inner.count.store(lanes.by_place.len(), Ordering::Relaxed);
            return true;
        };
        let mut state = lane.state();
        // Without a pass it was sent before there was a gate.
        let pass = pass.filter(|pass| Arc::ptr_eq(&pass.lane, lane));
        if pass.is_some_and(|pass| pass.hurried) {
            return false;
        }
        state.needed = now;
        if pass.is_some_and(|pass| pass.epoch == state.epoch) {
            state.epoch = self.inner.next_epoch();
            // Others may have been told to stay away for longer meanwhile.
            let opens_at = opens_at.max(state.pace.opens_at());
            state.pace.close(now, opens_at);
        } else {
            // It was on its way when the gate closed, and says nothing about the pace since.
            state.pace.extend(clock::after(now, wait));
        }
        let wakers = state.hurry(now);
        drop(state);
        drop(lanes);
        wakers.into_iter().for_each(Waker::wake);
        true
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

    /// Returns what [`gate_key`](super::RetryPolicyBuilder::gate_key) made of the requests that it holds back.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.place.key.as_deref()
    }

    /// Returns how long it stays closed; none if it lets out at its pace.
    #[must_use]
    pub fn opens_in(&self) -> Option<Duration> {
        self.opens_in
    }

    /// Returns how many requests per second it lets out when it is not closed.
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

    /// Returns the key of a request; its head is asked for only where somebody looks at it.
    pub(super) fn of<H: Borrow<request::Parts>>(&self, head: impl FnOnce() -> H) -> Option<String> {
        self.by.as_ref().map(|key| key(head().borrow()))
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

    fn next_epoch(&self) -> u64 {
        self.epochs.fetch_add(1, Ordering::Relaxed)
    }

    /// Forgets the lanes that nobody needs any more.
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
    /// Forgets the lane that was not needed for longest. Returns whether there was one at which nobody waits.
    fn make_room(&mut self) -> bool {
        let idle = self.by_place.iter().filter_map(|(place, lane)| {
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
