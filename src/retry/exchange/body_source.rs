//! Where the bodies of all attempts come from: a recording, or a factory.

use std::mem;

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::Body;
use http_body_util::combinators::UnsyncBoxBody;
use tower::BoxError;

use super::head::HeadSnapshot;
use crate::retry::body_factory::BodyFactory;
use crate::retry::policy::options::RetryOptions;
use crate::retry::policy::rules::RetryRules;
use crate::retry::replay_body::{NotReplayable, RequestBody, Tether};
use crate::sync::Arc;

/// What the bodies of further attempts are made from. Dropping it leaves the attempt in flight alone.
pub(super) enum BodySource<B> {
    Recorded(RequestBody<B>),
    /// Nothing is recorded.
    Factory(FactoryBody),
}

/// What the bodies of attempts are opened with.
#[derive(Clone)]
pub(super) struct FactoryBody {
    pub(super) factory: BodyFactory,
    /// Ends the body of this attempt.
    tether: Arc<Tether>,
    /// That of the first body, if it said so.
    length: Option<u64>,
}

impl<B> BodySource<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    /// Makes the body of the first attempt, and what the others will come from.
    #[inline]
    pub(super) fn of(
        body: B,
        head: &HeadSnapshot,
        rules: &RetryRules,
        options: Option<&RetryOptions>,
    ) -> (RequestBody<B>, Result<Self, NotReplayable>) {
        // Also where a redirect made a GET of an upload, which still has the factory of the upload.
        if body.is_end_stream() {
            return (RequestBody::default(), Ok(Self::Recorded(RequestBody::default())));
        }
        Self::of_some(body, head, rules, options)
    }

    fn of_some(
        body: B,
        head: &HeadSnapshot,
        rules: &RetryRules,
        options: Option<&RetryOptions>,
    ) -> (RequestBody<B>, Result<Self, NotReplayable>) {
        if let Some(factory) = head.factory() {
            let (tether, length) = (Tether::new(), body.size_hint().exact());
            let first = RequestBody::tied(body, Arc::clone(&tether));
            return (first, Ok(Self::Factory(FactoryBody { factory: factory.clone(), tether, length })));
        }
        let is_grpc = || head.is_grpc();
        let mut limits = rules.limits(options, &is_grpc);
        // The length of a stream may be known all the same: a multipart form has it in its header.
        if let Some(length) = body.size_hint().exact().is_none().then(|| head.content_length()).flatten() {
            if length > limits.exact {
                return (RequestBody::once(body, NotReplayable::TooLong), Err(NotReplayable::TooLong));
            }
            limits.stream = limits.exact;
        }
        let recording = RequestBody::recording(body, limits);
        match recording.replay() {
            Ok(first) => (first, Ok(Self::Recorded(recording))),
            Err(why) => (recording, Err(why)),
        }
    }
}

impl<B> BodySource<B> {
    pub(super) fn replayable(&self) -> Result<(), NotReplayable> {
        match self {
            Self::Recorded(recording) => recording.replayable(),
            Self::Factory(body) if body.tether.has_failed() => Err(NotReplayable::SourceFailed),
            Self::Factory(_) => Ok(()),
        }
    }

    /// Begins the body of the next attempt, and ends that of the one before: an upload that goes on during the wait would be in
    /// vain. A body that is to be opened is empty until then.
    pub(super) fn claim(&mut self) -> Result<(RequestBody<B>, Option<FactoryBody>), NotReplayable> {
        self.replayable()?;
        match self {
            Self::Recorded(recording) => Ok((recording.replay()?, None)),
            Self::Factory(body) => {
                mem::replace(&mut body.tether, Tether::new()).cut();
                Ok((RequestBody::default(), Some(body.clone())))
            }
        }
    }
}

// --- FactoryBody ---

impl FactoryBody {
    /// Makes what the factory opened the body of an attempt.
    pub(super) fn opened<B>(
        self,
        body: UnsyncBoxBody<Bytes, BoxError>,
        headers: &HeaderMap,
    ) -> Result<RequestBody<B>, BoxError> {
        // A transport goes by the header. It would cut the body short, or wait for the rest of it. Without one, what the first
        // body said of its length is what was sent.
        let in_header = || headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse::<u64>().ok();
        let announced = in_header().or(self.length);
        match (announced, body.size_hint().exact()) {
            (Some(announced), Some(length)) if announced != length => {
                let error =
                    format!("the body was opened again with {length} bytes and not {announced} as before");
                return Err(error.into());
            }
            (Some(_) | None, _) => {}
        }
        Ok(RequestBody::opened(body, self.tether, announced))
    }
}
