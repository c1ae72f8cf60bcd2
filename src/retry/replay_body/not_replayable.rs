//! Why a body cannot be sent again.

use std::error::Error;
use std::fmt;

/// Why a body cannot be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NotReplayable {
    /// Its length is not known beforehand.
    UnknownLength,
    /// It is longer than the limit.
    TooLong,
    /// It was still being sent when the answer came.
    StillSending,
    /// Its source failed.
    SourceFailed,
    /// It has a frame that is neither data nor trailers.
    UnknownFrame,
    /// Nothing of it is kept: no replay could follow, or it was freed.
    Released,
}

impl fmt::Display for NotReplayable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownLength => "the request body's length was not known beforehand",
            Self::TooLong => "the request body is longer than what is recorded",
            Self::StillSending => "the request body was still being sent",
            Self::SourceFailed => "the request body failed while it was read",
            Self::UnknownFrame => "the request body has a frame that cannot be recorded",
            Self::Released => "nothing of the request body is kept",
        })
    }
}

impl Error for NotReplayable {}
