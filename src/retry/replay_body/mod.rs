//! A request body that can be sent again.

mod allowance;
mod body;
mod not_replayable;
mod partly_read;
mod recording;
mod source;

pub(crate) use self::allowance::{Allowance, HeldBytes};
pub(crate) use self::body::BodyLimits;
pub use self::body::RequestBody;
pub use self::not_replayable::NotReplayable;
pub(crate) use self::partly_read::PartlyRead;
