//! What is known of a request.

use tokio::time::Instant;

use super::gate::RetryGate;
use super::idempotency::Repeat;
use super::options::RetryOptions;
use super::policy::RetryPolicy;
use super::replay_body::NotReplayable;

/// What is known of a request whether or not it can be replayed.
pub(super) struct Facts {
    pub(super) policy: RetryPolicy,
    pub(super) options: Option<RetryOptions>,
    /// As far as the method says, where the head is kept.
    pub(super) repeat: Repeat,
    /// Why the body cannot be sent again, as far as that was known at once.
    pub(super) body: Option<NotReplayable>,
    /// When it must be done.
    pub(super) deadline: Option<Instant>,
}

impl Facts {
    /// The gate at which the request may be held.
    pub(super) fn gate(&self) -> Option<&RetryGate> {
        let past = self.options.as_ref().is_some_and(|options| options.without_gate);
        self.policy.rules().gate.as_ref().filter(|_| !past)
    }
}
