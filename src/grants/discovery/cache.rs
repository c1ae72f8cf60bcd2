//! The metadata of an issuer that are in memory, and which task may fetch more. No network in here.
//!
//! Invariants:
//! 1. Metadata are replaced by newer ones alone: a failure takes nothing away.
//! 2. A task that waited while another one fetched gets what that one got, be it an error.
//! 3. No lock is held while anything is awaited; the turn is, and every wait for it is bounded.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::clock::Moment;
use crate::error::Error;
use crate::grants::discovery::metadata::Metadata;

/// After a failure the metadata from before serve on for this long until they are asked for again.
const PAUSE: Duration = Duration::from_secs(60);

/// The metadata that were found, shared by all sources that name the issuer by the same value.
pub(crate) struct MetadataCache {
    turn: Semaphore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    metadata: Option<Arc<Metadata>>,
    fresh_until: Option<Moment>,
    /// Why the newest attempt to get metadata failed.
    failure: Option<Error>,
    /// Counts the attempts that ended.
    rounds: u64,
    /// When an attempt began behind the back of those who use the old metadata.
    began: Option<Moment>,
}

impl MetadataCache {
    /// Returns the metadata, if they still hold.
    pub(crate) fn fresh(&self, now: Moment) -> Option<Arc<Metadata>> {
        let state = self.state();
        let is_fresh = state.fresh_until.is_some_and(|end| !now.reached(end));
        state.metadata.clone().filter(|_| is_fresh)
    }

    /// Returns the metadata, however old.
    pub(crate) fn newest(&self) -> Option<Arc<Metadata>> {
        self.state().metadata.clone()
    }

    /// Waits for the right to fetch, but no longer than `limit`: the holder may be on a runtime that is no longer driven.
    pub(crate) async fn turn(&self, limit: Duration) -> Option<SemaphorePermit<'_>> {
        tokio::time::timeout(limit, self.turn.acquire()).await.ok()?.ok()
    }

    /// Returns how many attempts have ended.
    pub(crate) fn rounds(&self) -> u64 {
        self.state().rounds
    }

    /// Returns what the last attempt left: metadata, if there ever were any.
    pub(crate) fn outcome(&self) -> Option<Result<Arc<Metadata>, Error>> {
        let state = self.state();
        let failure = || state.failure.clone().map(Err);
        state.metadata.clone().map(Ok).or_else(failure)
    }

    /// Returns whether a renewal is to begin while the old metadata serve on. One that does not end is not waited for.
    pub(crate) fn begins(&self, now: Moment) -> bool {
        let mut state = self.state();
        let is_going_on = state.began.is_some_and(|began| !now.reached(began.saturating_add(PAUSE)));
        if !is_going_on {
            state.began = Some(now);
        }
        !is_going_on
    }

    /// Takes in new metadata.
    pub(crate) fn found(&self, metadata: Metadata, fresh_until: Moment) -> Arc<Metadata> {
        let mut state = self.state();
        state.rounds += 1;
        state.began = None;
        state.failure = None;
        state.fresh_until = Some(fresh_until);
        Arc::clone(state.metadata.insert(Arc::new(metadata)))
    }

    /// Notes a failure. Returns the metadata that serve on, and whether this is the first failure since they came.
    pub(crate) fn failed(&self, error: Error, now: Moment) -> Option<(Arc<Metadata>, bool)> {
        let mut state = self.state();
        state.rounds += 1;
        state.began = None;
        let is_first = state.failure.replace(error).is_none();
        let metadata = state.metadata.clone()?;
        let pause_ends = now.saturating_add(PAUSE);
        if state.fresh_until.is_none_or(|end| pause_ends.reached(end)) {
            state.fresh_until = Some(pause_ends);
        }
        Some((metadata, is_first))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MetadataCache {
    fn default() -> Self {
        Self { turn: Semaphore::new(1), state: Mutex::default() }
    }
}
