//! How much the recordings of all requests, and the responses kept while they wait, may take up together.

use std::sync::atomic::Ordering::Relaxed;

use crate::sync::{Arc, AtomicU64};

/// The bytes that all requests of a policy may take up: the recordings of their bodies, and the responses that are kept while
/// another attempt is prepared.
#[derive(Debug)]
pub(crate) struct Allowance {
    left: AtomicU64,
}

/// Bytes taken from an [`Allowance`]. They are given back when this is dropped, exactly.
#[derive(Debug, Default)]
pub(crate) struct HeldBytes {
    /// None: there is no end to what may be held.
    allowance: Option<Arc<Allowance>>,
    bytes: u64,
}

impl Allowance {
    pub(crate) fn new(bytes: u64) -> Self {
        Self { left: AtomicU64::new(bytes) }
    }

    #[cfg(test)]
    pub(crate) fn left(&self) -> u64 {
        self.left.load(Relaxed)
    }
}

// --- HeldBytes ---

impl HeldBytes {
    /// Holds nothing yet of `allowance`.
    pub(crate) fn nothing_of(allowance: &Arc<Allowance>) -> Self {
        Self { allowance: Some(Arc::clone(allowance)), bytes: 0 }
    }

    /// Takes what is missing to hold `bytes`. If there is not as much left, nothing is taken.
    #[must_use]
    pub(crate) fn cover(&mut self, bytes: u64) -> bool {
        let missing = bytes.saturating_sub(self.bytes);
        let Some(allowance) = self.allowance.as_ref().filter(|_| missing > 0) else { return true };
        let taken = allowance.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(missing));
        if taken.is_ok() {
            self.bytes = bytes;
        }
        taken.is_ok()
    }

    /// Gives back what is held beyond `bytes`.
    pub(crate) fn shrink(&mut self, bytes: u64) {
        if let Some(allowance) = self.allowance.as_ref().filter(|_| bytes < self.bytes) {
            allowance.left.fetch_add(self.bytes - bytes, Relaxed);
            self.bytes = bytes;
        }
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        if let Some(allowance) = self.allowance.as_ref().filter(|_| self.bytes > 0) {
            allowance.left.fetch_add(self.bytes, Relaxed);
        }
    }
}
