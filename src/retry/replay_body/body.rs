//! The body itself: what kind it is, and what each attempt reads.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame, SizeHint};
use tower::BoxError;

use super::allowance::{Allowance, HeldBytes};
use super::not_replayable::NotReplayable;
use super::recording::{
    FrameSource, RecordedFrame, Recording, RecordingLimit, RecordingRead, UnreadPart, Unrecorded, poll_source,
};
#[cfg(feature = "stack")]
use super::tether::Tether;
use super::tied::TiedBody;
use crate::error::OfTheBody;
use crate::headers::grpc;
#[cfg(feature = "stack")]
use crate::retry::body_factory::BodyFactory;
use crate::sync::Arc;

/// The body of a request that goes through a [`RetryService`](crate::retry::RetryService): it remembers what it gave, so that it
/// can be sent again byte for byte. For the limits see the page of the [module](crate::retry#request-bodies).
pub struct RequestBody<B> {
    kind: BodyKind<B>,
}

/// The original is kept, and what [`replay`](RequestBody::replay) makes of it is sent, the first time included:
///
/// 1. A body that ended before it began stays empty. Nothing is kept.
/// 2. A body of one frame that is in memory already, as `Full<Bytes>`, is shared and never copied.
/// 3. Any other is recorded while it is sent: frame by frame, with its trailers. A replay gives what was recorded and
///    goes on with the source where the last attempt left it.
/// 4. Making a replay ends the attempt before it, wherever that is: should a transport still be sending it, it is woken,
///    and its next poll is an error, never an end that looks complete. So there is a replay also of an upload that is
///    still going on, of one that its source keeps waiting, and of one that was never begun.
/// 5. A body that announces more than the limit is not recorded at all. One that turns out to be longer is let go when
///    it does. Either way it is sent once, as it is, and [`replay`](RequestBody::replay) says why there is no other time. Nor is
///    there for one that gives more or less than the length that it announced.
/// 6. Dropping the original frees what was recorded; the running attempt goes on.
///
/// The default limit is 1 MiB where the length is known, 64 KiB where it is not. The source is never polled again after
/// it ended or failed. A frame that is a small part of a larger buffer keeps that buffer in memory.
enum BodyKind<B> {
    /// Nothing to send, now or later.
    Empty,
    /// One frame in memory, of which each attempt is a copy.
    Whole { data: Bytes, given: bool },
    /// Such an attempt. It gives its copy away.
    Copy(Option<Bytes>),
    /// Shared between the original and its attempts. A transport finds out before the first poll how it is to frame an attempt:
    /// by the length that was announced, even where it does not count down while it is read; or as a body of unknown length,
    /// even where a recording knows better, since every attempt has the same headers.
    Recorded { share: Recording<B, Frame<Bytes>>, announced: Option<u64>, begun: bool },
    /// Passed through.
    Once(Unrecorded<B, Frame<Bytes>>),
    /// Passed through, and ended from outside where a factory makes the next one; or what the factory makes. Boxed, since hardly
    /// any body is one.
    Tied(Box<TiedBody<B>>),
    /// The source failed before it was read. The one attempt there is reports it.
    Failed { error: Option<BoxError> },
}

/// How much of a body is recorded.
#[derive(Clone, Copy)]
pub(crate) struct BodyLimits<'a> {
    /// If its length is known.
    pub(crate) exact: u64,
    /// If its length is not known.
    pub(crate) stream: u64,
    /// Whether it is a gRPC call, of which one message is recorded and no stream. Asked only where that matters.
    pub(crate) is_grpc: &'a dyn Fn() -> bool,
    /// The memory for the bodies of all requests; none for no such limit.
    pub(crate) allowance: Option<&'a Arc<Allowance>>,
}

impl<B> RequestBody<B> {
    /// Passes `body` through: it is sent once, and nothing of it is kept.
    pub(crate) fn once(body: B, why: NotReplayable) -> Self {
        Self { kind: BodyKind::Once(Unrecorded::all_of(body, why)) }
    }

    /// Passes a body through until its tether is cut, or opens it for a further attempt.
    pub(crate) fn tied(body: TiedBody<B>) -> Self {
        Self { kind: BodyKind::Tied(Box::new(body)) }
    }

    /// Opens the body, if a factory has to do that first.
    pub(crate) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match &mut self.kind {
            BodyKind::Tied(body) => body.poll_open(cx),
            BodyKind::Empty
            | BodyKind::Whole { .. }
            | BodyKind::Copy(_)
            | BodyKind::Recorded { .. }
            | BodyKind::Once(_)
            | BodyKind::Failed { .. } => Poll::Ready(Ok(())),
        }
    }

    /// Makes a second copy of a body that is in memory at once, empty, or opened by a factory. None for any other: two
    /// cannot be sent at once.
    pub(crate) fn shared(&self) -> Option<Self> {
        match &self.kind {
            BodyKind::Empty | BodyKind::Whole { .. } | BodyKind::Copy(_) => self.replay().ok(),
            BodyKind::Tied(body) => Some(Self::tied(body.another())),
            BodyKind::Recorded { .. } | BodyKind::Once(_) | BodyKind::Failed { .. } => None,
        }
    }

    /// Makes the body of another attempt. It starts at the first frame, and it ends the attempt before it.
    ///
    /// # Errors
    ///
    /// Why the body cannot be sent again. The attempt before goes on then.
    pub(crate) fn replay(&self) -> Result<Self, NotReplayable> {
        let kind = match &self.kind {
            BodyKind::Empty => BodyKind::Empty,
            BodyKind::Whole { data, .. } | BodyKind::Copy(Some(data)) => BodyKind::Copy(Some(data.clone())),
            BodyKind::Recorded { share, announced, .. } => {
                BodyKind::Recorded { share: share.replay()?, announced: *announced, begun: false }
            }
            BodyKind::Once(rest) => return Err(rest.why()),
            BodyKind::Copy(None) | BodyKind::Tied(_) => return Err(NotReplayable::Released),
            BodyKind::Failed { .. } => return Err(NotReplayable::SourceFailed),
        };
        Ok(Self { kind })
    }

    /// Says whether [`replay`](Self::replay) would succeed now, and disturbs nothing.
    ///
    /// # Errors
    ///
    /// Why it would not.
    pub(crate) fn replayable(&self) -> Result<(), NotReplayable> {
        match &self.kind {
            BodyKind::Empty | BodyKind::Whole { .. } | BodyKind::Copy(Some(_)) => Ok(()),
            BodyKind::Recorded { share, .. } => share.replayable(),
            BodyKind::Once(rest) => Err(rest.why()),
            BodyKind::Copy(None) | BodyKind::Tied(_) => Err(NotReplayable::Released),
            BodyKind::Failed { .. } => Err(NotReplayable::SourceFailed),
        }
    }
}

impl<B> RequestBody<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    /// Creates the original of `body`, with the default limits.
    pub(crate) fn new(body: B) -> Self {
        Self::recording(body, BodyLimits::default())
    }

    /// Sends `body`, of which the factory makes another where a redirect repeats it.
    #[cfg(feature = "stack")]
    pub(crate) fn reopenable(body: B, factory: BodyFactory) -> Self {
        let length = body.size_hint().exact();
        Self::tied(TiedBody::first(body, factory, length, Tether::new()))
    }

    pub(crate) fn recording(body: B, limits: BodyLimits<'_>) -> Self {
        if body.is_end_stream() {
            return Self { kind: BodyKind::Empty };
        }
        let hint = body.size_hint();
        let exact = hint.exact();
        let (bytes, above) = match exact {
            Some(_) => (limits.exact, NotReplayable::TooLong),
            None => (limits.stream, NotReplayable::UnknownLength),
        };
        if hint.lower() > bytes {
            return Self::once(body, above);
        }
        // Asked for when something is recorded: a body in memory is not.
        let limit = || RecordingLimit {
            bytes,
            announced: exact,
            above,
            one_message: (limits.is_grpc)(),
            held: limits.allowance.map_or_else(HeldBytes::default, HeldBytes::nothing_of),
        };
        let kind = match exact {
            Some(length) => Self::in_memory_or_recorded(body, length, limits.is_grpc, limit),
            None => BodyKind::Recorded {
                share: Recording::original(Some(body), None, limit()),
                announced: None,
                begun: false,
            },
        };
        Self { kind }
    }

    fn in_memory_or_recorded(
        body: B,
        length: u64,
        is_grpc: &dyn Fn() -> bool,
        limit: impl FnOnce() -> RecordingLimit,
    ) -> BodyKind<B> {
        // The bytes are looked at first: hardly any other body has a zero or a one at its beginning.
        let has_several = |data: &Bytes| {
            matches!(data.first(), Some(0 | 1))
                && grpc::first_message([&data[..]]).is_some_and(|message| message < length)
                && is_grpc()
        };
        let mut source = Some(body);
        // No task reads yet. Whichever will, polls again, and is then the one that the source wakes.
        let first = match poll_source(&mut source, &mut Context::from_waker(Waker::noop())) {
            Poll::Pending => None,
            Poll::Ready(None) if length == 0 => return BodyKind::Empty,
            Poll::Ready(None) => return BodyKind::Failed { error: Some(NotReplayable::SourceFailed.into()) },
            Poll::Ready(Some(Err(error))) => return BodyKind::Failed { error: Some(error) },
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) if source.is_none() && self::length(data.len()) == length => {
                    if has_several(&data) {
                        let why = NotReplayable::SeveralMessages;
                        return BodyKind::Once(Unrecorded::beginning_with(
                            Some(Frame::data(data)),
                            None,
                            why,
                        ));
                    }
                    return BodyKind::Whole { data, given: false };
                }
                Ok(data) => Some(Frame::data(data)),
                Err(frame) => Some(frame),
            },
        };
        let mut limit = limit();
        // All of it is taken at once: bodies that each get half of it would leave none of them replayable.
        if limit.held.cover(length) {
            BodyKind::Recorded {
                share: Recording::original(source, first, limit),
                announced: Some(length),
                begun: false,
            }
        } else {
            BodyKind::Once(Unrecorded::beginning_with(first, source, NotReplayable::AllowanceExhausted))
        }
    }
}

impl<B> Body for RequestBody<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if let BodyKind::Recorded { share, begun, .. } = &mut this.kind {
            *begun = true;
            match ready!(share.poll_read(cx)) {
                RecordingRead::Frame(frame) => return Poll::Ready(Some(Ok(frame))),
                RecordingRead::Error(error) => return Poll::Ready(Some(Err(error))),
                RecordingRead::End => return Poll::Ready(None),
                RecordingRead::TakenOver => return Poll::Ready(Some(Err(TAKEN_OVER.into()))),
                RecordingRead::Broken => return Poll::Ready(Some(Err(NotReplayable::SourceFailed.into()))),
                RecordingRead::Alone(rest) => this.kind = BodyKind::Once(rest),
            }
        }
        match &mut this.kind {
            BodyKind::Empty | BodyKind::Recorded { .. } | BodyKind::Whole { given: true, .. } => {
                Poll::Ready(None)
            }
            BodyKind::Whole { data, given } => {
                *given = true;
                Poll::Ready(Some(Ok(Frame::data(data.clone()))))
            }
            BodyKind::Copy(data) => Poll::Ready(data.take().map(|data| Ok(Frame::data(data)))),
            BodyKind::Once(rest) => rest.poll_next(cx),
            BodyKind::Tied(tied) => tied.poll_next(cx, TAKEN_OVER),
            BodyKind::Failed { error } => Poll::Ready(error.take().map(Err)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            BodyKind::Empty => true,
            BodyKind::Whole { given, .. } => *given,
            BodyKind::Copy(data) => data.is_none(),
            BodyKind::Recorded { announced: None, begun: false, .. } => false,
            BodyKind::Recorded { share, .. } => share.ahead(|ahead| is_over(&ahead)).unwrap_or(false),
            BodyKind::Once(rest) => is_over(&rest.ahead()),
            BodyKind::Tied(tied) => tied.is_over(),
            BodyKind::Failed { error } => error.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            BodyKind::Empty | BodyKind::Whole { given: true, .. } | BodyKind::Copy(None) => {
                SizeHint::with_exact(0)
            }
            BodyKind::Whole { data, .. } | BodyKind::Copy(Some(data)) => {
                SizeHint::with_exact(length(data.len()))
            }
            BodyKind::Recorded { announced: None, begun: false, share } => {
                let mut open = SizeHint::new();
                open.set_lower(share.ahead(|ahead| hint(&ahead).lower()).unwrap_or_default());
                open
            }
            BodyKind::Recorded { announced: Some(length), begun: false, .. } => SizeHint::with_exact(*length),
            BodyKind::Recorded { share, .. } => share.ahead(|ahead| hint(&ahead)).unwrap_or_default(),
            BodyKind::Once(rest) => hint(&rest.ahead()),
            BodyKind::Tied(tied) => tied.hint(),
            BodyKind::Failed { .. } => SizeHint::default(),
        }
    }
}

impl<B> Default for RequestBody<B> {
    /// Creates an empty body.
    fn default() -> Self {
        Self { kind: BodyKind::Empty }
    }
}

impl<B> fmt::Debug for RequestBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody").field("replayable", &self.replayable()).finish_non_exhaustive()
    }
}

/// The error of an attempt that was taken over.
const TAKEN_OVER: &str = "this attempt's request body was taken over by a newer attempt";

fn is_over<B: Body>(ahead: &UnreadPart<'_, B>) -> bool {
    ahead.frames == 0 && ahead.source.is_none_or(B::is_end_stream)
}

/// Returns the size of the unread part: the recorded frames, then the hint of the source.
fn hint<B: Body>(ahead: &UnreadPart<'_, B>) -> SizeHint {
    let rest = ahead.source.map_or(SizeHint::with_exact(0), Body::size_hint);
    let mut hint = SizeHint::new();
    if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(ahead.bytes)) {
        hint.set_upper(upper);
    }
    hint.set_lower(rest.lower().saturating_add(ahead.bytes));
    hint
}

fn length(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

// --- BodyLimits ---

impl BodyLimits<'_> {
    /// Of a body whose length is known: 1 MiB.
    pub(crate) const EXACT: u64 = 1024 * 1024;
    /// Of a body whose length is not known: 64 KiB.
    pub(crate) const STREAM: u64 = 64 * 1024;
    /// Of the bodies of all requests of a policy: 32 MiB.
    pub(crate) const TOTAL: u64 = 32 * 1024 * 1024;
}

impl Default for BodyLimits<'_> {
    fn default() -> Self {
        Self { exact: Self::EXACT, stream: Self::STREAM, is_grpc: &|| false, allowance: None }
    }
}

// --- What the takeover needs to know ---

impl<B> FrameSource for B
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    type Frame = Frame<Bytes>;
    type Error = BoxError;

    #[inline]
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        // `copy_to_bytes` of a `Bytes` shares it; any other buffer is copied, once.
        let shared = |mut data: B::Data| data.copy_to_bytes(data.remaining());
        Poll::Ready(match ready!(Pin::new(self).poll_frame(cx)) {
            None => None,
            Some(Err(error)) => Some(Err(OfTheBody::new(error).into())),
            // A frame is as large as a map of trailers: nearly all of them need not be moved as a whole.
            Some(Ok(frame)) if frame.is_data() => match frame.into_data() {
                Ok(data) => Some(Ok(Frame::data(shared(data)))),
                Err(frame) => Some(Ok(frame.map_data(shared))),
            },
            Some(Ok(frame)) => Some(Ok(frame.map_data(shared))),
        })
    }

    fn is_over(&self) -> bool {
        self.is_end_stream()
    }
}

impl RecordedFrame for Frame<Bytes> {
    fn share(&self) -> Option<Self> {
        let data = self.data_ref().cloned().map(Self::data);
        data.or_else(|| self.trailers_ref().cloned().map(Self::trailers))
    }

    fn bytes(&self) -> u64 {
        self.data_ref().map_or(0, |data| length(data.len()))
    }

    fn first_message<'a>(frames: impl Iterator<Item = &'a Self>) -> Option<u64> {
        grpc::first_message(frames.filter_map(|frame| Some(&frame.data_ref()?[..])))
    }
}

#[cfg(test)]
mod tests;
