//! Why a body cannot be sent again.

use std::error::Error;
use std::fmt;

/// Why a body cannot be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NotReplayable {
    /// It is longer than what is recorded of a body of known length.
    TooLong,
    /// Its length is not known beforehand, and it is longer than what is recorded of such a body.
    UnknownLength,
    /// It is a gRPC call of more than one message: the server may have acted on those that came before the last.
    SeveralMessages,
    /// There is no room for it in what all requests of the policy may keep.
    AllowanceExhausted,
    /// Its source failed, or gave more or less than the length that it had announced.
    SourceFailed,
    /// It has a frame that is neither data nor trailers.
    UnknownFrame,
    /// Nothing of it is kept: no replay could follow, or it was freed.
    Released,
}

impl fmt::Display for NotReplayable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "the request body is longer than what is recorded",
            Self::UnknownLength => {
                "the request body has no known length and is longer than what is recorded of such"
            }
            Self::SeveralMessages => "the request body is a stream of messages",
            Self::AllowanceExhausted => {
                "there is no room for the request body in what all requests may keep together (replay_total_limit)"
            }
            Self::SourceFailed => "the request body failed while it was read",
            Self::UnknownFrame => "the request body has a frame that cannot be recorded",
            Self::Released => "nothing of the request body is kept",
        })
    }
}

impl Error for NotReplayable {}
