//! Where the bodies of all attempts come from: a recording, or a factory.

use std::mem;

use http_body::Body;
use tower::BoxError;

use super::head::HeadSnapshot;
use crate::retry::body_factory::BodyFactory;
use crate::retry::policy::options::RetryOptions;
use crate::retry::policy::rules::RetryRules;
use crate::retry::replay_body::{NotReplayable, RequestBody, Tether, TiedBody};
use crate::sync::Arc;

/// The source of the bodies of further attempts. Dropping it leaves the attempt in flight alone.
pub(super) enum BodySource<B> {
    Recorded(RequestBody<B>),
    /// Nothing is recorded. The tether ends the body of the attempt in flight; all are of this length, if one is known.
    Factory {
        factory: BodyFactory,
        length: Option<u64>,
        tether: Arc<Tether>,
    },
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
            let (factory, tether) = (factory.clone(), Tether::new());
            // A transport goes by the header. Without one, what the first body says of its length is what is sent.
            let length = head.content_length().or_else(|| body.size_hint().exact());
            let first = TiedBody::first(body, factory.clone(), length, Arc::clone(&tether));
            return (RequestBody::tied(first), Ok(Self::Factory { factory, length, tether }));
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
            Self::Factory { tether, .. } if tether.has_failed() => Err(NotReplayable::SourceFailed),
            Self::Factory { .. } => Ok(()),
        }
    }

    /// Begins the body of the next attempt, and ends that of the one before: an upload that goes on during the wait would be in
    /// vain. A factory opens its body later.
    pub(super) fn claim(&mut self) -> Result<RequestBody<B>, NotReplayable> {
        self.replayable()?;
        match self {
            Self::Recorded(recording) => recording.replay(),
            Self::Factory { factory, length, tether } => {
                mem::replace(tether, Tether::new()).cut();
                Ok(RequestBody::tied(TiedBody::closed(factory.clone(), *length, Arc::clone(tether))))
            }
        }
    }
}
