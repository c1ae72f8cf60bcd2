//! The metadata of an issuer that are in memory, and which task may fetch more. No network in here.
//!
//! Invariants:
//! 1. Metadata are replaced by newer ones alone: a failure takes nothing away.
//! 2. A task that waited while another one fetched gets what that one got, be it an error.
//! 3. No lock is held while anything is awaited; the turn is, and every wait for it is bounded.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::clock::Moment;
use crate::error::Error;
use crate::grants::discovery::metadata::Metadata;

/// After a failure the metadata from before serve on for this long until they are asked for again. A renewal that does not end
/// is not waited for any longer either.
const PAUSE: Duration = Duration::from_secs(60);

/// The metadata that were found, shared by all sources that name the issuer by the same value.
pub(crate) struct MetadataCache {
    /// The right to fetch.
    pub(crate) turn: Semaphore,
    /// The place that is asked first: where they were found last, or the one behind a place that failed.
    pub(crate) place: AtomicUsize,
    known: Mutex<KnownMetadata>,
}

#[derive(Default)]
struct KnownMetadata {
    metadata: Option<Arc<Metadata>>,
    /// When the next fetch is to renew them.
    due: Option<Moment>,
    /// Why the newest attempt to get metadata failed.
    failure: Option<Error>,
    /// Counts the attempts that ended.
    rounds: u64,
}

impl MetadataCache {
    /// Returns the metadata, however old, and how many attempts to get them have ended.
    pub(crate) fn newest(&self) -> (Option<Arc<Metadata>>, u64) {
        let known = self.known();
        (known.metadata.clone(), known.rounds)
    }

    /// Returns whether the caller is to renew the metadata, while the old ones serve on.
    pub(crate) fn is_due(&self, now: Moment) -> bool {
        let mut known = self.known();
        let is_due = known.due.is_some_and(|due| now.reached(due));
        if is_due {
            known.due = Some(now.saturating_add(PAUSE));
        }
        is_due
    }

    /// Returns what an attempt left that has ended since `rounds` were counted.
    pub(crate) fn outcome_since(&self, rounds: u64) -> Option<Result<Arc<Metadata>, Error>> {
        let known = self.known();
        let outcome = known.metadata.clone().map(Ok).or_else(|| known.failure.clone().map(Err));
        outcome.filter(|_| known.rounds != rounds)
    }

    /// Takes in new metadata.
    pub(crate) fn found(&self, metadata: Metadata, due: Moment) -> Arc<Metadata> {
        let mut known = self.known();
        known.rounds += 1;
        known.failure = None;
        known.due = Some(due);
        Arc::clone(known.metadata.insert(Arc::new(metadata)))
    }

    /// Notes a failure. Returns the metadata that serve on, if there are any, with a warning if it is the first since they came.
    pub(crate) fn failed(&self, error: &Error, now: Moment, issuer: &str) -> Result<Arc<Metadata>, Error> {
        let mut known = self.known();
        known.rounds += 1;
        let is_first = known.failure.replace(error.clone()).is_none();
        let pause_ends = now.saturating_add(PAUSE);
        if known.due.is_some_and(|due| pause_ends.reached(due)) {
            known.due = Some(pause_ends);
        }
        let metadata = known.metadata.clone().ok_or_else(|| error.clone())?;
        drop(known);
        if is_first {
            tracing::warn!(%issuer, %error, "metadata could not be renewed; those from before serve on");
        }
        Ok(metadata)
    }

    fn known(&self) -> MutexGuard<'_, KnownMetadata> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MetadataCache {
    fn default() -> Self {
        Self { turn: Semaphore::new(1), place: AtomicUsize::new(0), known: Mutex::default() }
    }
}
