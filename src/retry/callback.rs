//! A function of the caller's among the settings.

use std::fmt;
use std::sync::Arc;

/// A function of the caller's, or none.
pub(super) struct Callback<F: ?Sized>(Option<Arc<F>>);

impl<F: ?Sized> Callback<F> {
    pub(super) fn new(function: Arc<F>) -> Self {
        Self(Some(function))
    }

    pub(super) fn get(&self) -> Option<&F> {
        self.0.as_deref()
    }
}

impl<F: ?Sized> Clone for Callback<F> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<F: ?Sized> Default for Callback<F> {
    fn default() -> Self {
        Self(None)
    }
}

impl<F: ?Sized> fmt::Debug for Callback<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "of the caller" } else { "none" })
    }
}
