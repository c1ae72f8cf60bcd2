//! The lanes of a gate, by what each stands before, under the one lock that there is.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::lane::Lane;
use crate::retry::limits::account::Account;

/// The place that a gate guards: an account, or a part of its requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::retry) struct GatedPlace {
    pub(in crate::retry) account: Arc<Account>,
    pub(super) key: Option<Arc<str>>,
}

#[derive(Default)]
pub(super) struct GateShared {
    /// How many lanes there are: the one number that is read while there are none.
    pub(super) count: AtomicUsize,
    /// One lock for all, and the only one: what is done under it takes no longer than to find a lane.
    lanes: Mutex<Lanes>,
}

#[derive(Default)]
pub(super) struct Lanes {
    pub(super) by_place: HashMap<GatedPlace, Lane>,
    /// How many there were so far.
    pub(super) made: u64,
    swept: Option<Instant>,
}

/// When an unused lane is forgotten.
const FORGET: Duration = Duration::from_secs(30);

/// How often lanes are looked through for those to forget.
const SWEEP: Duration = Duration::from_secs(1);

/// How many lanes are looked at for one to forget when there are too many.
const LOOKED_AT: usize = 8;

// --- GatedPlace ---

impl GatedPlace {
    pub(in crate::retry) fn of(account: impl Into<Arc<Account>>, key: Option<String>) -> Self {
        Self { account: account.into(), key: key.map(Into::into) }
    }
}

// --- GateShared ---

impl GateShared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the lanes. Those that are not needed any more are forgotten.
    pub(super) fn swept(&self, now: Instant) -> MutexGuard<'_, Lanes> {
        let mut lanes = self.lock();
        if lanes.swept.is_none_or(|at| now.saturating_duration_since(at) >= SWEEP) {
            lanes.swept = Some(now);
            lanes.by_place.retain(|_, lane| {
                let needed = lane.needed.max(lane.pace.opens_at());
                lane.held > 0 || now.saturating_duration_since(needed) < FORGET
            });
            self.count.store(lanes.by_place.len(), Ordering::Relaxed);
        }
        lanes
    }
}

// --- Lanes ---

impl Lanes {
    /// Of a few lanes forgets the one that was not needed for longest. Returns whether there was one at which no request waits.
    pub(super) fn make_room(&mut self) -> bool {
        let idle = self.by_place.iter().take(LOOKED_AT).filter(|(_, lane)| lane.held == 0);
        let Some(place) = idle.min_by_key(|(_, lane)| lane.needed).map(|(place, _)| place.clone()) else {
            return false;
        };
        self.by_place.remove(&place).is_some()
    }
}
