//! A finished header with the token it was made of: what a service keeps, so that a request costs it next to nothing.

use std::sync::Arc;

use http::HeaderValue;

use super::terms::Terms;
use crate::cache::{ResponseObserver, Snapshot, TokenCache};

/// A finished header, the snapshot that says whether it may still be used, and whom to tell if it is rejected.
///
/// A service instance that is used again keeps a ticket of its own, down to the bytes of the header: the counters of
/// what all instances share are what threads would fight over.
pub(super) struct Ticket {
    pub(super) value: HeaderValue,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) cache: TokenCache,
    pub(super) terms: Arc<Terms>,
    pub(super) observer: Option<ResponseObserver>,
}

impl Ticket {
    pub(super) fn new(snapshot: Arc<Snapshot>, cache: TokenCache, terms: Arc<Terms>) -> Arc<Self> {
        // Cloned once here, so that no request pays for the first share of the bytes.
        let value = terms.value(snapshot.token()).clone();
        let observer = cache.observer().cloned();
        Arc::new(Self { value, snapshot, cache, terms, observer })
    }

    /// Makes a copy that shares no counter with this one that a request touches.
    pub(super) fn private(&self) -> Arc<Self> {
        let value = HeaderValue::from_bytes(self.value.as_bytes()).map_or_else(
            |_| self.value.clone(),
            |mut value| {
                value.set_sensitive(true);
                value
            },
        );
        // The copy's bytes are shared with itself once, for the same reason as in `new`.
        let _shared = value.clone();
        Arc::new(Self {
            value,
            snapshot: Arc::clone(&self.snapshot),
            cache: self.cache.clone(),
            terms: Arc::clone(&self.terms),
            observer: self.observer.clone(),
        })
    }
}
