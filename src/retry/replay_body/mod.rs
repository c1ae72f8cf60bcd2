//! A request body that can be sent again.

mod body;
mod not_replayable;

pub use self::body::ReplayBody;
pub use self::not_replayable::NotReplayable;
