//! The body itself: what kind it is, and what each attempt reads.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame, SizeHint};
use tower::BoxError;

use super::not_replayable::NotReplayable;

/// A body that remembers what it gave, so that it can be sent again byte for byte.
///
/// Keep the original and send what [`replay`](Self::replay) makes of it, the first time included:
///
/// 1. A body that ended before it began stays empty. Nothing is kept.
/// 2. A body of one frame that is in memory already, as `Full<Bytes>`, is shared and never copied.
/// 3. Another body of exact length within the limit is recorded while it is sent: frame by frame, with its
///    trailers. A replay gives what was recorded and goes on with the source where the last attempt left it.
/// 4. A body of unknown length, or of one above the limit, is sent once, as it is. Nothing of it is kept.
/// 5. Making a replay ends the attempt before it: should a transport still hold that one, its next poll is an error,
///    never an end that looks complete. While an attempt is being sent and its source has not ended, there is no
///    replay.
/// 6. Dropping the original frees what was recorded; the running attempt goes on.
///
/// The default limit is 1 MiB. The source is never polled again after it ended or failed.
///
/// # Examples
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::{BodyExt as _, Full};
/// use tower_oauth2::retry::ReplayBody;
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let original = ReplayBody::new(Full::new(Bytes::from_static(b"once more")));
/// for _ in 0..2 {
///     let attempt = original.replay()?;
///     assert_eq!(attempt.collect().await?.to_bytes(), "once more");
/// }
/// # Ok::<_, tower::BoxError>(()) })?;
/// # Ok::<_, tower::BoxError>(())
/// ```
pub struct ReplayBody<B> {
    kind: Kind<B>,
}

enum Kind<B> {
    /// Nothing to send, now or later.
    Empty,
    /// One frame in memory; each attempt gives it once.
    Whole { data: Bytes, given: bool },
    /// Shared between the original and its attempts.
    Recorded(Share<B>),
    /// Passed through: what was recorded and not yet given, then the source.
    Through { backlog: VecDeque<Frame<Bytes>>, source: Option<B>, why: NotReplayable },
    /// The source failed before anybody read it. The one attempt there is reports it.
    Failed { error: Option<BoxError> },
}

/// One holder of a recording.
struct Share<B> {
    state: Arc<Mutex<State<B>>>,
    /// Which attempt this is. The original is number 0.
    attempt: u64,
}

/// What the original of a body and its attempts share.
///
/// 1. While `lost` is `None`, `log` holds every frame that was taken from the source.
/// 2. Only the attempt `current` reads; any older one gets an error. `cursor` is the next frame of the log for it.
/// 3. `source` is `None` once it ended, failed or moved out, so that it cannot be polled again.
/// 4. Once `lost` is set, the log holds only what `current` has not been given, and its next poll takes log and
///    source out of the lock.
struct State<B> {
    source: Option<B>,
    log: VecDeque<Frame<Bytes>>,
    cursor: usize,
    bytes: u64,
    limit: u64,
    current: u64,
    /// Whether `current` was polled and is neither dropped nor at its end.
    reading: bool,
    lost: Option<NotReplayable>,
}

/// A recorded frame costs 100 bytes besides its data: with this many, a body of tiny frames stays below 1 MiB too.
const MOST_FRAMES: usize = 8 * 1024;

impl<B> ReplayBody<B> {
    /// How many bytes of a body of exact length are recorded by default: 1 MiB.
    pub(crate) const LIMIT: u64 = 1024 * 1024;

    /// Passes `body` through: it is sent once, and nothing of it is kept.
    pub(crate) fn once(body: B, why: NotReplayable) -> Self {
        Self { kind: Kind::Through { backlog: VecDeque::new(), source: Some(body), why } }
    }

    /// Makes a second copy of a body that is in memory at once, or empty. None for any other: two cannot be sent at once.
    #[cfg(feature = "stack")]
    pub(crate) fn shared(&self) -> Option<Self> {
        match &self.kind {
            Kind::Empty | Kind::Whole { .. } => self.replay().ok(),
            Kind::Recorded(_) | Kind::Through { .. } | Kind::Failed { .. } => None,
        }
    }

    /// Makes the body of another attempt. It starts at the first frame, and it ends the attempt before it.
    ///
    /// # Errors
    ///
    /// Why the body cannot be sent again. The attempt before goes on then.
    pub fn replay(&self) -> Result<Self, NotReplayable> {
        let kind = match &self.kind {
            Kind::Empty => Kind::Empty,
            Kind::Whole { data, .. } => Kind::Whole { data: data.clone(), given: false },
            Kind::Recorded(share) => Kind::Recorded(share.replay()?),
            Kind::Through { why, .. } => return Err(*why),
            Kind::Failed { .. } => return Err(NotReplayable::SourceFailed),
        };
        Ok(Self { kind })
    }

    /// Says whether [`replay`](Self::replay) would succeed now, and disturbs nothing.
    ///
    /// # Errors
    ///
    /// Why it would not.
    pub fn replayable(&self) -> Result<(), NotReplayable> {
        match &self.kind {
            Kind::Empty | Kind::Whole { .. } => Ok(()),
            Kind::Recorded(share) => share.lock()?.replayable(),
            Kind::Through { why, .. } => Err(*why),
            Kind::Failed { .. } => Err(NotReplayable::SourceFailed),
        }
    }
}

impl<B> ReplayBody<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    /// Creates the original of `body`, with the default limit of 1 MiB.
    pub fn new(body: B) -> Self {
        Self::with_limit(body, Self::LIMIT)
    }

    /// Creates the original of `body`. A body of which more than `bytes` are announced is sent once.
    ///
    /// A body of exact length is polled here once: if that is all of it, it need not be recorded.
    pub fn with_limit(body: B, bytes: u64) -> Self {
        if body.is_end_stream() {
            return Self { kind: Kind::Empty };
        }
        match body.size_hint().exact() {
            None => Self::once(body, NotReplayable::UnknownLength),
            Some(length) if length > bytes => Self::once(body, NotReplayable::TooLong),
            Some(_) => Self::in_memory_or_recorded(body, bytes),
        }
    }

    fn in_memory_or_recorded(body: B, limit: u64) -> Self {
        let mut state = State {
            source: Some(body),
            log: VecDeque::new(),
            cursor: 0,
            bytes: 0,
            limit,
            current: 0,
            reading: false,
            lost: None,
        };
        // No task reads yet. Whichever will, polls again, and is then the one that the source wakes.
        let mut cx = Context::from_waker(Waker::noop());
        let kind = match state.take(&mut cx) {
            Poll::Pending => Kind::Recorded(Share::original(state)),
            Poll::Ready(None) => Kind::Empty,
            Poll::Ready(Some(Err(error))) => Kind::Failed { error: Some(error) },
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) if state.source.is_none() => Kind::Whole { data, given: false },
                Ok(data) => Kind::Recorded(Share::original(state.begun_with(Frame::data(data)))),
                Err(frame) => Kind::Recorded(Share::original(state.begun_with(frame))),
            },
        };
        Self { kind }
    }
}

impl<B> Body for ReplayBody<B>
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
        if let Kind::Recorded(share) = &mut this.kind {
            match ready!(share.poll_read(cx)) {
                Read::Frame(frame) => return Poll::Ready(frame),
                Read::Alone { backlog, source, why } => {
                    this.kind = Kind::Through { backlog, source, why };
                }
            }
        }
        match &mut this.kind {
            Kind::Empty | Kind::Recorded(_) | Kind::Whole { given: true, .. } => Poll::Ready(None),
            Kind::Whole { data, given } => {
                *given = true;
                Poll::Ready(Some(Ok(Frame::data(data.clone()))))
            }
            Kind::Through { backlog, source, .. } => match backlog.pop_front() {
                Some(frame) => Poll::Ready(Some(Ok(frame))),
                None => poll_source(source, cx),
            },
            Kind::Failed { error } => Poll::Ready(error.take().map(Err)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Whole { given, .. } => *given,
            Kind::Recorded(share) => {
                share.lock().is_ok_and(|state| share.is_current(&state) && state.is_at_end())
            }
            Kind::Through { backlog, source, .. } => {
                backlog.is_empty() && source.as_ref().is_none_or(B::is_end_stream)
            }
            Kind::Failed { error } => error.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty | Kind::Whole { given: true, .. } => SizeHint::with_exact(0),
            Kind::Whole { data, .. } => SizeHint::with_exact(length(data.len())),
            Kind::Recorded(share) => share
                .lock()
                .ok()
                .filter(|state| share.is_current(state))
                .map_or_else(SizeHint::default, |state| {
                    remaining(state.log.iter().skip(state.cursor), state.source.as_ref())
                }),
            Kind::Through { backlog, source, .. } => remaining(backlog.iter(), source.as_ref()),
            Kind::Failed { .. } => SizeHint::default(),
        }
    }
}

impl<B> Default for ReplayBody<B> {
    /// Creates an empty body.
    fn default() -> Self {
        Self { kind: Kind::Empty }
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayBody").field("replayable", &self.replayable()).finish_non_exhaustive()
    }
}

// --- Share ---

/// What one poll of a recorded body gives.
enum Read<B> {
    Frame(Option<Result<Frame<Bytes>, BoxError>>),
    /// Nothing is recorded any more: the rest, to be read without a lock.
    Alone {
        backlog: VecDeque<Frame<Bytes>>,
        source: Option<B>,
        why: NotReplayable,
    },
}

impl<B> Share<B> {
    fn original(state: State<B>) -> Self {
        Self { state: Arc::new(Mutex::new(state)), attempt: 0 }
    }

    fn replay(&self) -> Result<Self, NotReplayable> {
        let mut state = self.lock()?;
        state.replayable()?;
        state.current += 1;
        state.cursor = 0;
        state.reading = false;
        Ok(Self { state: Arc::clone(&self.state), attempt: state.current })
    }

    /// Locks the state. A source that panicked left it in the middle of something: it counts as failed.
    fn lock(&self) -> Result<MutexGuard<'_, State<B>>, NotReplayable> {
        self.state.lock().map_err(|_| NotReplayable::SourceFailed)
    }

    fn is_current(&self, state: &State<B>) -> bool {
        state.current == self.attempt
    }
}

impl<B> Share<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Read<B>> {
        let mut state = match self.lock() {
            Ok(state) => state,
            Err(error) => return Poll::Ready(Read::Frame(Some(Err(error.into())))),
        };
        if !self.is_current(&state) {
            let error = "this attempt's request body was taken over by a newer attempt";
            return Poll::Ready(Read::Frame(Some(Err(error.into()))));
        }
        match state.lost {
            None => state.poll_read(cx).map(Read::Frame),
            Some(why) => Poll::Ready(Read::Alone {
                backlog: std::mem::take(&mut state.log),
                source: state.source.take(),
                why,
            }),
        }
    }
}

impl<B> Drop for Share<B> {
    fn drop(&mut self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if self.attempt == 0 {
            state.lose(NotReplayable::Released);
        } else if self.is_current(&state) {
            state.reading = false;
        }
    }
}

// --- State ---

impl<B> State<B> {
    fn replayable(&self) -> Result<(), NotReplayable> {
        match self.lost {
            Some(why) => Err(why),
            None if self.reading && self.source.is_some() => Err(NotReplayable::StillSending),
            None => Ok(()),
        }
    }

    fn is_at_end(&self) -> bool {
        self.source.is_none() && self.cursor == self.log.len()
    }

    /// Gives up on replays and frees what was given already.
    fn lose(&mut self, why: NotReplayable) {
        if self.lost.is_none() {
            self.lost = Some(why);
            self.log.drain(..self.cursor);
            self.log.shrink_to_fit();
            self.cursor = 0;
        }
    }

    /// Counts a frame that is to be recorded.
    fn admit(&mut self, frame: &Frame<Bytes>) -> Result<(), NotReplayable> {
        if !frame.is_data() && !frame.is_trailers() {
            return Err(NotReplayable::UnknownFrame);
        }
        self.bytes = self.bytes.saturating_add(data_length(frame));
        if self.bytes > self.limit || self.log.len() >= MOST_FRAMES {
            return Err(NotReplayable::TooLong);
        }
        Ok(())
    }

    /// Puts the frame in that was taken before anybody read.
    fn begun_with(mut self, frame: Frame<Bytes>) -> Self {
        self.lost = self.admit(&frame).err();
        self.log.push_back(frame);
        self
    }
}

impl<B> State<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    /// Gives the current attempt its next frame: from the log, else from the source.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.reading = true;
        if let Some(copy) = self.log.get(self.cursor).and_then(copy) {
            self.cursor += 1;
            return Poll::Ready(Some(Ok(copy)));
        }
        let frame = ready!(self.take(cx));
        match &frame {
            None => {}
            Some(Err(_)) => self.lose(NotReplayable::SourceFailed),
            Some(Ok(frame)) => match self.admit(frame) {
                Ok(()) => {
                    self.log.extend(copy(frame));
                    self.cursor = self.log.len();
                }
                Err(why) => self.lose(why),
            },
        }
        Poll::Ready(frame)
    }

    /// Takes the next frame from the source.
    fn take(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        poll_source(&mut self.source, cx)
    }
}

/// Polls a source, and lets it go as soon as it ended or failed: it must not be polled again.
fn poll_source<B>(
    source: &mut Option<B>,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, BoxError>>>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    let Some(body) = source else { return Poll::Ready(None) };
    let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
    let over = match &frame {
        None | Some(Err(_)) => true,
        Some(Ok(_)) => body.is_end_stream(),
    };
    if over {
        *source = None;
    }
    // `copy_to_bytes` of a `Bytes` shares it; any other buffer is copied, once.
    let shared = |frame: Frame<B::Data>| frame.map_data(|mut data| data.copy_to_bytes(data.remaining()));
    Poll::Ready(frame.map(|frame| frame.map(shared).map_err(Into::into)))
}

/// Copies a frame by sharing its data; `None` for a frame that is neither data nor trailers.
fn copy(frame: &Frame<Bytes>) -> Option<Frame<Bytes>> {
    let data = frame.data_ref().cloned().map(Frame::data);
    data.or_else(|| frame.trailers_ref().cloned().map(Frame::trailers))
}

fn data_length(frame: &Frame<Bytes>) -> u64 {
    frame.data_ref().map_or(0, |data| length(data.len()))
}

fn length(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// What is still to come: the frames of the log, then what the source says of itself.
fn remaining<'a, B: Body>(frames: impl Iterator<Item = &'a Frame<Bytes>>, source: Option<&B>) -> SizeHint {
    let logged = frames.map(data_length).fold(0, u64::saturating_add);
    let rest = source.map_or(SizeHint::with_exact(0), Body::size_hint);
    let mut hint = SizeHint::new();
    if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(logged)) {
        hint.set_upper(upper);
    }
    hint.set_lower(rest.lower().saturating_add(logged));
    hint
}

#[cfg(test)]
mod tests;
