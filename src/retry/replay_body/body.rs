//! The body itself: what kind it is, and what each attempt reads.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tower::BoxError;

use super::allowance::{Allowance, HeldBytes};
use super::not_replayable::NotReplayable;
use super::partly_read::{PartlyRead, poll_rest};
use super::recording::{Recording, RecordingLimit, RecordingRead};
use super::source::BodySource;
use crate::headers::grpc;
use crate::retry::body_factory::BodyFactory;
use crate::sync::Arc;

/// The body of a request that goes through a [`RetryService`](crate::retry::RetryService): it remembers what it gave, so that it
/// can be sent again byte for byte. For the limits see the page of the [module](crate::retry#request-bodies).
pub struct RequestBody<B> {
    kind: BodyKind<B>,
}

/// The original is kept, and what [`replay`](RequestBody::replay) makes of it is sent, the first time included:
///
/// 1. A body of one frame that is in memory already, as `Full<Bytes>`, is shared and never copied. So is an empty one.
/// 2. One with a [`BodyFactory`] is not recorded: a replay opens another.
/// 3. Any other is recorded while it is sent: frame by frame, with its trailers. A replay gives what was recorded and
///    goes on with the source where the last attempt left it.
/// 4. Making a replay ends the attempt before it, wherever that is: should a transport still be sending it, it is woken,
///    and its next poll is an error, never an end that looks complete. So there is a replay also of an upload that is
///    still going on, of one that its source keeps waiting, and of one that was never begun.
/// 5. A body that announces more than the limit is not recorded; its first frame is read ahead, since all of it may be in memory.
///    One that turns out to be longer is let go when it does. Either way it is sent once, as it is, and
///    [`replay`](RequestBody::replay) says why there is no other time. Nor is there for one that gives more or less than the
///    length that it announced.
/// 6. Dropping the original frees what was recorded; the running attempt goes on.
///
/// The default limit is 1 MiB where the length is known, 64 KiB where it is not, and none where all of it is in memory. The source
/// is never polled again after it ended or failed. A frame that is a small part of a larger buffer keeps that buffer in memory.
enum BodyKind<B> {
    /// All of it in one frame, of which each attempt has a copy; none if it is empty. One that was read is `Once`.
    InMemory(Option<Bytes>),
    /// Shared between the original and its attempts. A transport finds out before the first poll how it is to frame an attempt:
    /// by the length that was announced, even where it does not count down while it is read; or as a body of unknown length,
    /// even where a recording knows better, since every attempt has the same headers.
    Recorded { share: Recording<BodySource<B>>, announced: Option<u64>, begun: bool },
    /// Passed through: none once it ended or failed.
    Once { source: Option<BodySource<B>>, why: NotReplayable },
    /// Passed through from where it was recorded to. `announced`: as above, until it is begun.
    Rest { rest: Box<PartlyRead<BodySource<B>, Bytes>>, why: NotReplayable, announced: Option<u64> },
}

/// How much of a body is recorded.
#[derive(Clone, Copy)]
pub(crate) struct BodyLimits<'a> {
    /// If its length is known.
    pub(crate) exact: u64,
    /// If all of it is in memory. One longer than `exact` counts against the allowance.
    pub(crate) in_memory: u64,
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
        Self { kind: BodyKind::Once { source: Some(BodySource::Own(body)), why } }
    }

    /// Makes the body of another attempt. It starts at the first frame, and it ends the attempt before it.
    ///
    /// # Errors
    ///
    /// Why the body cannot be sent again. The attempt before goes on then.
    pub(crate) fn replay(&self) -> Result<Self, NotReplayable> {
        let kind = match &self.kind {
            BodyKind::InMemory(data) => BodyKind::InMemory(data.clone()),
            BodyKind::Recorded { share, announced, .. } => {
                BodyKind::Recorded { share: share.replay()?, announced: *announced, begun: false }
            }
            BodyKind::Once { why, .. } | BodyKind::Rest { why, .. } => return Err(*why),
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
            BodyKind::InMemory(_) => Ok(()),
            BodyKind::Recorded { share, .. } => share.replayable(),
            BodyKind::Once { why, .. } | BodyKind::Rest { why, .. } => Err(*why),
        }
    }

    /// Opens the body, if a factory has to do that first.
    pub(crate) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let opened = match &mut self.kind {
            BodyKind::Recorded { share, .. } => share.with_source(|source| source.poll_open(cx)),
            BodyKind::InMemory(_) | BodyKind::Once { .. } | BodyKind::Rest { .. } => None,
        };
        opened.unwrap_or(Poll::Ready(Ok(())))
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

    /// Creates the original of `body`, of which nothing is recorded: `factory` opens another for each further attempt, which must
    /// be of this length if one is known.
    pub(crate) fn reopenable(body: B, factory: BodyFactory, length: Option<u64>) -> Self {
        let announced = body.size_hint().exact();
        let reopen = Arc::new(move |whole| BodySource::reopened(&factory, length.or(whole)));
        let share = Recording::reopenable(BodySource::Own(body), reopen);
        Self { kind: BodyKind::Recorded { share, announced, begun: false } }
    }

    /// Inlined as far as a body in memory goes: with that, and with the copy given away and not kept, 1 KiB of JSON adds 1.18 times
    /// the instructions that tower's cloning policy adds, otherwise 1.26 (`cargo bench --bench retry`).
    #[inline]
    pub(crate) fn recording(body: B, limits: BodyLimits<'_>) -> Self {
        if body.is_end_stream() {
            return Self::default();
        }
        let hint = body.size_hint();
        let exact = hint.exact();
        let (bytes, above) = match exact {
            Some(_) => (limits.exact, NotReplayable::TooLong),
            None => (limits.stream, NotReplayable::UnknownLength),
        };
        // Up to which length it is worth a look whether it is in memory.
        let most = if exact.is_some() { bytes.max(limits.in_memory) } else { bytes };
        if hint.lower() > most {
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
        let source = BodySource::Own(body);
        let kind = match exact {
            Some(length) => BodyKind::in_memory_or_recorded(source, length, &limits, limit),
            None => BodyKind::recorded(Some(source), None, limit()),
        };
        Self { kind }
    }

    /// Makes a second one of a body that is in memory at once, empty, or opened by a factory. None for any other: two cannot be
    /// sent at once.
    pub(crate) fn shared(&self) -> Option<Self> {
        let kind = match &self.kind {
            BodyKind::InMemory(data) => BodyKind::InMemory(data.clone()),
            BodyKind::Recorded { share, announced, .. } => {
                BodyKind::Recorded { share: share.another()?, announced: *announced, begun: false }
            }
            BodyKind::Once { .. } | BodyKind::Rest { .. } => return None,
        };
        Some(Self { kind })
    }
}

// --- BodyKind ---

impl<B> BodyKind<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    fn recorded(source: Option<BodySource<B>>, first: Option<Frame<Bytes>>, limit: RecordingLimit) -> Self {
        let announced = limit.announced;
        Self::Recorded { share: Recording::original(source, first, limit), announced, begun: false }
    }

    /// A body of which at most one frame was read.
    fn rest(
        first: Option<Frame<Bytes>>,
        source: Option<BodySource<B>>,
        length: u64,
        why: NotReplayable,
    ) -> Self {
        let rest = PartlyRead::new(first.into_iter().collect(), source, HeldBytes::default());
        Self::Rest { rest: Box::new(rest), why, announced: Some(length) }
    }

    fn failed(error: BoxError) -> Self {
        Self::Rest {
            rest: Box::new(PartlyRead::failed(error)),
            why: NotReplayable::SourceFailed,
            announced: None,
        }
    }

    #[inline]
    fn in_memory_or_recorded(
        mut source: BodySource<B>,
        length: u64,
        limits: &BodyLimits<'_>,
        limit: impl FnOnce() -> RecordingLimit,
    ) -> Self {
        // The bytes are looked at first: hardly any other body has a zero or a one at its beginning.
        let has_several = |data: &Bytes| {
            matches!(data.first(), Some(0 | 1))
                && grpc::first_message([&data[..]]).is_some_and(|message| message < length)
                && (limits.is_grpc)()
        };
        // No task reads yet. Whichever will, polls again, and is then the one that the source wakes.
        let frame = match Pin::new(&mut source).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => None,
            Poll::Ready(None) if length == 0 => return Self::InMemory(None),
            Poll::Ready(None) => return Self::failed(NotReplayable::SourceFailed.into()),
            Poll::Ready(Some(Err(error))) => return Self::failed(error),
            Poll::Ready(Some(Ok(frame))) => Some(frame),
        };
        let is_over = frame.is_some() && source.is_end_stream();
        let (first, is_whole) = match frame.map(Frame::into_data) {
            None => (None, false),
            Some(Err(frame)) => (Some(frame), false),
            Some(Ok(data)) => {
                let is_whole = is_over && self::length(data.len()) == length;
                if is_whole && has_several(&data) {
                    let several = NotReplayable::SeveralMessages;
                    return Self::rest(Some(Frame::data(data)), None, length, several);
                }
                if is_whole && length <= limits.exact.min(limits.in_memory) {
                    return Self::InMemory(Some(data));
                }
                (Some(Frame::data(data)), is_whole)
            }
        };
        let source = (!is_over).then_some(source);
        let most = if is_whole { limits.in_memory } else { limits.exact };
        if length > most {
            return Self::rest(first, source, length, NotReplayable::TooLong);
        }
        let mut limit = RecordingLimit { bytes: most, ..limit() };
        // All of it is taken at once: bodies that each get half of it would leave none of them replayable.
        match limit.held.cover(length) {
            true => Self::recorded(source, first, limit),
            false => Self::rest(first, source, length, NotReplayable::AllowanceExhausted),
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
                RecordingRead::Next(frame) => return Poll::Ready(frame),
                RecordingRead::Rest(rest, why) => this.kind = BodyKind::Rest { rest, why, announced: None },
            }
        }
        match &mut this.kind {
            BodyKind::Recorded { .. } => Poll::Ready(None),
            BodyKind::InMemory(data) => {
                let data = data.take();
                this.kind = BodyKind::Once { source: None, why: NotReplayable::Released };
                Poll::Ready(data.map(|data| Ok(Frame::data(data))))
            }
            BodyKind::Once { source, .. } => poll_rest(source, cx),
            BodyKind::Rest { rest, announced, .. } => {
                *announced = None;
                Pin::new(rest).poll_frame(cx)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            BodyKind::InMemory(data) => data.is_none(),
            BodyKind::Recorded { announced: None, begun: false, .. } => false,
            BodyKind::Recorded { share, .. } => share.is_over().unwrap_or(false),
            BodyKind::Once { source, .. } => source.as_ref().is_none_or(Body::is_end_stream),
            BodyKind::Rest { rest, .. } => rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            BodyKind::InMemory(data) => {
                SizeHint::with_exact(data.as_ref().map_or(0, |data| length(data.len())))
            }
            BodyKind::Recorded { announced: None, begun: false, share } => {
                let mut open = SizeHint::new();
                open.set_lower(share.size_hint().unwrap_or_default().lower());
                open
            }
            BodyKind::Recorded { announced: Some(length), begun: false, .. } => SizeHint::with_exact(*length),
            BodyKind::Recorded { share, .. } => share.size_hint().unwrap_or_default(),
            BodyKind::Once { source, .. } => source.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint),
            BodyKind::Rest { announced: Some(length), .. } => SizeHint::with_exact(*length),
            BodyKind::Rest { rest, .. } => rest.size_hint(),
        }
    }
}

impl<B> Default for RequestBody<B> {
    /// Creates an empty body.
    fn default() -> Self {
        Self { kind: BodyKind::InMemory(None) }
    }
}

impl<B> fmt::Debug for RequestBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody").field("replayable", &self.replayable()).finish_non_exhaustive()
    }
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
        Self {
            exact: Self::EXACT,
            in_memory: Self::EXACT,
            stream: Self::STREAM,
            is_grpc: &|| false,
            allowance: None,
        }
    }
}

#[cfg(test)]
mod tests;
