//! The part of the service that a request keeps.

use std::sync::{Arc, Mutex, PoisonError};

use crate::retry::policy::builder::RetryPolicy;
use crate::retry::policy::rules::RetryRules;

/// The part of the service that a request keeps: the policy, and an inner service for further attempts, which is polled ready
/// anew for each of them.
///
/// An instance of the service that is used again has one [`Instance`] for all its requests, so that two instances on two
/// threads count no references in common. One that is used once, as a clone for each request is, does not pay for it.
pub(super) enum Sender<S> {
    Own { policy: RetryPolicy, inner: S },
    Shared(Arc<Instance<S>>),
}

/// State shared by the requests of one instance.
pub(super) struct Instance<S> {
    policy: RetryPolicy,
    /// In a lock, since a service need not be `Sync`. It is cloned, and never polled.
    inner: Mutex<S>,
}

impl<S> Sender<S> {
    #[inline]
    pub(super) fn rules(&self) -> &RetryRules {
        match self {
            Self::Own { policy, .. } => policy.rules(),
            Self::Shared(instance) => instance.policy.rules(),
        }
    }
}

impl<S: Clone> Sender<S> {
    /// Returns the service for further attempts.
    pub(super) fn inner(&mut self) -> &mut S {
        let own = match self {
            Self::Own { inner, .. } => return inner,
            Self::Shared(instance) => instance.to_own(),
        };
        *self = own;
        self.inner()
    }
}

impl<S: Clone> Instance<S> {
    pub(super) fn new(policy: RetryPolicy, inner: S) -> Self {
        Self { policy, inner: Mutex::new(inner) }
    }

    fn to_own(&self) -> Sender<S> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Sender::Own { policy: self.policy.clone(), inner }
    }
}
