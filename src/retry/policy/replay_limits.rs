//! How much memory request bodies may take.

use crate::retry::replay_body::BodyLimits;

/// How much memory request bodies may take, so that they can be sent again.
///
/// Defaults:
///
/// - `body`: 1 MiB
/// - `stream`: 64 KiB
/// - `total`: 32 MiB
///
/// # Examples
///
/// ```
/// use tower_oauth2::RetryPolicy;
/// use tower_oauth2::retry::ReplayLimits;
///
/// let policy = RetryPolicy::builder().replay_limits(ReplayLimits::new().body(8 << 20).total(256 << 20)).build()?;
/// # Ok::<(), tower_oauth2::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "limits do nothing until a policy has them"]
pub struct ReplayLimits {
    pub(in crate::retry) body: u64,
    pub(in crate::retry) stream: u64,
    pub(in crate::retry) total: u64,
}

impl ReplayLimits {
    /// Creates the default limits.
    pub fn new() -> Self {
        Self { body: BodyLimits::EXACT, stream: BodyLimits::STREAM, total: 32 * 1024 * 1024 }
    }

    /// Sets up to which length a body of known length is recorded. A body of one frame in memory is not recorded but shared; the
    /// limit holds for it too.
    pub fn body(mut self, bytes: u64) -> Self {
        self.body = bytes;
        self
    }

    /// Sets how much is recorded of a body whose length is not known beforehand. If more comes, what was recorded is freed, and
    /// the body is sent once.
    pub fn stream(mut self, bytes: u64) -> Self {
        self.stream = bytes;
        self
    }

    /// Sets how much may be held in memory at one time for all requests of a policy and its clones: what is recorded of their
    /// bodies, and what is kept of a response while another attempt is prepared. A body on top of that is sent once and not
    /// refused, and a response is not kept. A body of known length counts in full from its start, a frame as 128 bytes at
    /// least, and what is shared not at all.
    pub fn total(mut self, bytes: u64) -> Self {
        self.total = bytes;
        self
    }
}

impl Default for ReplayLimits {
    fn default() -> Self {
        Self::new()
    }
}
