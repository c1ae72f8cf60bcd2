//! Where the bodies of all attempts come from: a recording, or a factory.

use std::mem;

use http::{HeaderMap, header};
use http_body::Body;
use tokio::time::Instant;
use tower::BoxError;

use super::body_factory::{BodyFactory, Opened, Opening};
use super::replay_body::{Limits, NotReplayable, ReplayBody, Tether};

/// What the bodies of further attempts are made from. Dropping it leaves the attempt in flight alone.
pub(super) enum Original<B> {
    Recorded(ReplayBody<B>),
    /// Nothing is recorded. `sending` ends the attempt in flight; `length` is that of the first body, if it said so.
    Factory {
        factory: BodyFactory,
        sending: Tether,
        length: Option<u64>,
    },
}

/// The body of the next attempt, as far as it is there.
pub(super) enum Next<B> {
    Body(ReplayBody<B>),
    ToOpen { factory: BodyFactory, tether: Tether, length: Option<u64> },
    Opening { opening: Opening, tether: Tether, length: Option<u64>, since: Instant },
}

impl<B> Original<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    /// Makes the body of the first attempt, and what the others will come from.
    pub(super) fn of(
        body: B,
        factory: Option<&BodyFactory>,
        limits: Limits<'_>,
    ) -> (ReplayBody<B>, Result<Self, NotReplayable>) {
        // What a redirect made of an upload, a GET without a body, still has the factory of the upload.
        if let Some(factory) = factory.filter(|_| !body.is_end_stream()) {
            let sending = Tether::new();
            let length = body.size_hint().exact();
            let first = ReplayBody::tied(body, sending.clone());
            return (first, Ok(Self::Factory { factory: factory.clone(), sending, length }));
        }
        let original = ReplayBody::recording(body, limits);
        match original.replay() {
            Ok(first) => (first, Ok(Self::Recorded(original))),
            Err(why) => (original, Err(why)),
        }
    }
}

impl<B> Original<B> {
    pub(super) fn replayable(&self) -> Result<(), NotReplayable> {
        match self {
            Self::Recorded(original) => original.replayable(),
            Self::Factory { sending, .. } if sending.has_failed() => Err(NotReplayable::SourceFailed),
            Self::Factory { .. } => Ok(()),
        }
    }

    /// Begins the body of the next attempt, and ends that of the one before.
    pub(super) fn claim(&mut self) -> Result<Next<B>, NotReplayable> {
        self.replayable()?;
        match self {
            Self::Recorded(original) => original.replay().map(Next::Body),
            Self::Factory { factory, sending, length } => {
                let tether = Tether::new();
                mem::replace(sending, tether.clone()).cut();
                Ok(Next::ToOpen { factory: factory.clone(), tether, length: *length })
            }
        }
    }
}

/// Makes what a factory opened the body of an attempt.
pub(super) fn reopened<B>(
    opened: Opened,
    tether: Tether,
    headers: &HeaderMap,
    length: Option<u64>,
) -> Result<ReplayBody<B>, BoxError> {
    // A transport goes by the header. It would cut the body short, or wait for the rest of it. Without one, what the first
    // body said of its length is what was sent.
    let in_header = || headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse::<u64>().ok();
    let announced = in_header().or(length);
    match (announced, opened.size_hint().exact()) {
        (Some(announced), Some(length)) if announced != length => {
            let error =
                format!("the body was opened again with {length} bytes and not {announced} as before");
            return Err(error.into());
        }
        (Some(_) | None, _) => {}
    }
    Ok(ReplayBody::opened(opened, tether, announced))
}
