//! Until when a fetch may go on: attempts, and the waits between them, are planned within it.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock;
use crate::source::TokenRequest;

/// So much of the time is left over, so that the error of the last attempt arrives before the fetch is given up.
const MARGIN: Duration = Duration::from_millis(100);

/// An attempt that has less time than this is not begun.
const SHORTEST_ATTEMPT: Duration = Duration::from_millis(500);

/// When the work for a caller ends, if that is known.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Deadline {
    end: Option<Instant>,
}

impl Deadline {
    /// The deadline of the caller, less a margin for returning the error.
    pub(crate) fn of(request: &TokenRequest) -> Self {
        let end = request.deadline().map(|end| {
            let end = Instant::from_std(end);
            let margin = MARGIN.min(end.saturating_duration_since(clock::now()) / 10);
            end.checked_sub(margin).unwrap_or(end)
        });
        Self { end }
    }

    /// Returns this deadline, or the end of `limit` from now if that is earlier.
    pub(crate) fn within(self, limit: Duration) -> Self {
        let end = clock::after(clock::now(), limit);
        Self { end: Some(self.end.map_or(end, |known| known.min(end))) }
    }

    /// Returns how long an attempt may take that may take `limit` by itself.
    pub(crate) fn cap(self, limit: Duration) -> Duration {
        self.end.map_or(limit, |end| limit.min(end.saturating_duration_since(clock::now())))
    }

    /// Returns whether an attempt after this wait makes sense.
    pub(crate) fn leaves_room_after(self, wait: Duration) -> bool {
        let needed = wait.saturating_add(SHORTEST_ATTEMPT);
        self.cap(needed) == needed
    }
}
