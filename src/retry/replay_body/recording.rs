//! A recording: a log of frames, a live source behind it, and the newest attempt, which takes over both.
//!
//! This file knows nothing of HTTP, so that a model checker can run it as it is (`tests/loom`).
//!
//! Invariants:
//! 1. Only the newest attempt reads. An older one gets [`RecordingRead::TakenOver`] at its next poll, and never an end.
//! 2. While nothing is lost, the log holds every frame that was taken from the source, and `cursor` is the next of them
//!    for the newest attempt.
//! 3. An attempt that was told to wait is woken when it is taken over. The newest one polls the source itself before it
//!    waits, so that the source wakes its task and no other.
//! 4. The source is let go as soon as it ends or fails, and so never polled again.
//! 5. Once something is lost, the log holds only what the newest attempt has not been given, and its next poll takes
//!    log and source out of the lock.
//! 6. Of what is foreign only polls and hints of the source, and clones of frames and wakers, run under the lock. What
//!    is dropped or woken is carried out of it first: it may come back here.

use std::collections::VecDeque;
use std::mem;
use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};

use super::allowance::HeldBytes;
use super::not_replayable::NotReplayable;
use crate::sync::{Arc, Mutex};

/// Where frames come from.
pub(crate) trait FrameSource {
    type Frame: RecordedFrame;
    type Error;

    /// Polls for the next frame. Not called again after an end or an error.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Self::Frame, Self::Error>>>;

    /// Returns whether no frame follows the last one.
    fn is_over(&self) -> bool;
}

/// A frame of which the log keeps a copy.
pub(crate) trait RecordedFrame: Sized {
    /// Copies the frame without copying its data; none if it is of a kind that cannot be copied.
    fn share(&self) -> Option<Self>;

    /// Returns the length of its data.
    fn bytes(&self) -> u64;

    /// Returns how long the first message is of what begins with these frames, in a protocol whose messages say so. None
    /// while its beginning is not there.
    fn first_message<'a>(_frames: impl Iterator<Item = &'a Self>) -> Option<u64>
    where
        Self: 'a,
    {
        None
    }
}

/// How much of a source is recorded.
#[derive(Debug)]
pub(crate) struct RecordingLimit {
    pub(crate) bytes: u64,
    /// How much the source announced, if it did. Another attempt is not made of less or more.
    pub(crate) announced: Option<u64>,
    /// The reason that is given when it is exceeded.
    pub(crate) above: NotReplayable,
    /// Whether only one message is recorded, and what comes after it is beyond.
    pub(crate) one_message: bool,
    pub(crate) held: HeldBytes,
}

/// One holder of a recording: the original, which is number 0, or one of its attempts.
pub(crate) struct Recording<S, F> {
    state: Arc<Mutex<RecordingState<S, F>>>,
    attempt: u64,
}

/// The result of one poll.
pub(crate) enum RecordingRead<S, F, E> {
    Frame(F),
    Error(E),
    End,
    /// There is a newer attempt.
    TakenOver,
    /// The source panicked while it was polled, or ended before it had given what it announced.
    Broken,
    /// Nothing is recorded any more: what is left, to be read without a lock.
    Alone(Unrecorded<S, F>),
}

/// The rest of a body that is not recorded: frames that were and are still to be given, then the source.
pub(crate) struct Unrecorded<S, F> {
    /// None where nothing was recorded, as for most: every body is moved with each request.
    unread: Option<Box<UnreadFrames<F>>>,
    source: Option<S>,
    why: NotReplayable,
}

/// Recorded frames that are still to be given.
struct UnreadFrames<F> {
    frames: VecDeque<F>,
    bytes: u64,
    /// Given back with the last of them.
    _held: HeldBytes,
}

/// How far a body has come, for its readers.
pub(crate) struct UnreadPart<'a, S> {
    /// Frames that are recorded and not yet given.
    pub(crate) frames: usize,
    /// Their data.
    pub(crate) bytes: u64,
    /// The source after them.
    pub(crate) source: Option<&'a S>,
}

struct RecordingState<S, F> {
    source: Option<S>,
    log: VecDeque<F>,
    cursor: usize,
    /// The data in the log.
    bytes: u64,
    /// The data in the log from the cursor on.
    unread: u64,
    /// The weight of the log in the allowance.
    weight: u64,
    limit: RecordingLimit,
    newest: u64,
    /// Of the newest attempt, if its last poll was told to wait.
    waiting: Option<Waker>,
    lost: Option<NotReplayable>,
}

/// The values that leave the lock, to be dropped outside. See invariant 6.
struct LeavingLock<S, F> {
    source: Option<S>,
    log: VecDeque<F>,
    held: HeldBytes,
    waker: Option<Waker>,
}

/// A recorded frame costs about 100 bytes besides its data: with this many, a body of tiny frames stays below 1 MiB too.
pub(crate) const MOST_FRAMES: usize = 8 * 1024;

/// The least weight of a frame in an allowance, for the same reason.
pub(crate) const LEAST_WEIGHT: u64 = 128;

impl<S, F> Recording<S, F> {
    /// Makes the body of another attempt, which starts at the first frame, and ends the one before.
    pub(crate) fn replay(&self) -> Result<Self, NotReplayable> {
        let (attempt, taken_over) = self.change(|state, _| match state.lost {
            Some(why) => Err(why),
            None => {
                state.newest += 1;
                state.cursor = 0;
                state.unread = state.bytes;
                Ok((state.newest, state.waiting.take()))
            }
        })??;
        if let Some(waker) = taken_over {
            waker.wake();
        }
        Ok(Self { state: Arc::clone(&self.state), attempt })
    }

    pub(crate) fn replayable(&self) -> Result<(), NotReplayable> {
        self.change(|state, _| state.lost.map_or(Ok(()), Err))?
    }

    /// Looks at what is still to come; none for an attempt that was taken over.
    pub(crate) fn ahead<T>(&self, look: impl FnOnce(UnreadPart<'_, S>) -> T) -> Option<T> {
        let ahead = self.change(|state, _| {
            let frames = state.log.len() - state.cursor;
            let ahead = UnreadPart { frames, bytes: state.unread, source: state.source.as_ref() };
            (state.newest == self.attempt).then(|| look(ahead))
        });
        ahead.ok().flatten()
    }

    /// Changes the state under its lock, and drops outside it what leaves. A source that panicked left the state in the
    /// middle of something: it counts as failed.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut RecordingState<S, F>, &mut LeavingLock<S, F>) -> T,
    ) -> Result<T, NotReplayable> {
        let mut leaving = LeavingLock::default();
        let mut state = self.state.lock().map_err(|_| NotReplayable::SourceFailed)?;
        let changed = change(&mut state, &mut leaving);
        drop(state);
        Ok(changed)
    }
}

impl<S, F> Recording<S, F>
where
    S: FrameSource<Frame = F>,
    F: RecordedFrame,
{
    /// Starts a recording of `source`. `first` is a frame that was taken from it already.
    pub(crate) fn original(source: Option<S>, first: Option<F>, limit: RecordingLimit) -> Self {
        let mut state = RecordingState {
            source,
            log: VecDeque::new(),
            cursor: 0,
            bytes: 0,
            unread: 0,
            weight: 0,
            limit,
            newest: 0,
            waiting: None,
            lost: None,
        };
        if let Some(first) = first {
            state.unread = first.bytes();
            if let Err(why) = state.record(&first) {
                state.lost = Some(why);
                state.log.push_back(first);
            } else if state.source.is_none() && state.is_short() {
                state.lost = Some(NotReplayable::SourceFailed);
            }
        }
        Self { state: Arc::new(Mutex::new(state)), attempt: 0 }
    }

    pub(crate) fn poll_read(&self, cx: &mut Context<'_>) -> Poll<RecordingRead<S, F, S::Error>> {
        self.change(|state, leaving| {
            if state.newest != self.attempt {
                return Poll::Ready(RecordingRead::TakenOver);
            }
            state.poll_read(cx, leaving)
        })
        .unwrap_or(Poll::Ready(RecordingRead::Broken))
    }

    /// How much is in the log, for tests.
    #[cfg(test)]
    pub(crate) fn recorded(&self) -> usize {
        self.change(|state, _| state.log.len()).unwrap()
    }
}

impl<S, F> Drop for Recording<S, F> {
    fn drop(&mut self) {
        let mut leaving = LeavingLock::default();
        // Declared later and so dropped first: what leaves is dropped with the lock open.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if self.attempt == 0 {
            state.lose(NotReplayable::Released, &mut leaving);
        }
        if self.attempt == state.newest {
            leaving.waker = state.waiting.take();
        }
    }
}

// --- RecordingState ---

impl<S, F> RecordingState<S, F> {
    /// Gives up on replays, and frees what was given already.
    fn lose(&mut self, why: NotReplayable, leaving: &mut LeavingLock<S, F>) {
        if self.lost.is_some() {
            return;
        }
        self.lost = Some(why);
        let unread = self.log.split_off(self.cursor);
        leaving.log = mem::replace(&mut self.log, unread);
        self.cursor = 0;
        if self.log.is_empty() {
            leaving.held = mem::take(&mut self.limit.held);
        }
    }
}

impl<S, F> RecordingState<S, F>
where
    S: FrameSource<Frame = F>,
    F: RecordedFrame,
{
    /// Gives the newest attempt its next frame: from the log, else from the source.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        leaving: &mut LeavingLock<S, F>,
    ) -> Poll<RecordingRead<S, F, S::Error>> {
        if let Some(why) = self.lost {
            let unread = UnreadFrames {
                frames: mem::take(&mut self.log),
                bytes: mem::take(&mut self.unread),
                _held: mem::take(&mut self.limit.held),
            };
            return Poll::Ready(RecordingRead::Alone(Unrecorded {
                unread: unread.boxed(),
                source: self.source.take(),
                why,
            }));
        }
        if let Some(copy) = self.log.get(self.cursor).and_then(F::share) {
            self.cursor += 1;
            self.unread -= copy.bytes();
            return Poll::Ready(RecordingRead::Frame(copy));
        }
        let Some(source) = &mut self.source else { return Poll::Ready(RecordingRead::End) };
        match source.poll_next(cx) {
            Poll::Pending => {
                if !self.waiting.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    leaving.waker = self.waiting.replace(cx.waker().clone());
                }
                Poll::Pending
            }
            Poll::Ready(None) => {
                leaving.source = self.source.take();
                if self.is_short() {
                    self.lose(NotReplayable::SourceFailed, leaving);
                    return Poll::Ready(RecordingRead::Broken);
                }
                Poll::Ready(RecordingRead::End)
            }
            Poll::Ready(Some(Err(error))) => {
                leaving.source = self.source.take();
                self.lose(NotReplayable::SourceFailed, leaving);
                Poll::Ready(RecordingRead::Error(error))
            }
            Poll::Ready(Some(Ok(frame))) => {
                if source.is_over() {
                    leaving.source = self.source.take();
                }
                let recorded = self.record(&frame);
                self.cursor = self.log.len();
                if let Err(why) = recorded {
                    self.lose(why, leaving);
                } else if self.source.is_none() && self.is_short() {
                    self.lose(NotReplayable::SourceFailed, leaving);
                }
                Poll::Ready(RecordingRead::Frame(frame))
            }
        }
    }

    /// Whether less was recorded than the source announced.
    fn is_short(&self) -> bool {
        self.limit.announced.is_some_and(|announced| self.bytes < announced)
    }

    /// Puts a copy of a frame into the log, if it may be recorded.
    fn record(&mut self, frame: &F) -> Result<(), NotReplayable> {
        let copy = frame.share().ok_or(NotReplayable::UnknownFrame)?;
        if self.limit.one_message
            && let Some(length) = F::first_message(self.log.iter().chain([&copy]))
        {
            self.limit.one_message = false;
            if length < self.limit.bytes {
                (self.limit.bytes, self.limit.above) = (length, NotReplayable::SeveralMessages);
            }
        }
        self.bytes = self.bytes.saturating_add(copy.bytes());
        if self.bytes > self.limit.bytes || self.log.len() >= MOST_FRAMES {
            return Err(self.limit.above);
        }
        if self.limit.announced.is_some_and(|announced| self.bytes > announced) {
            return Err(NotReplayable::SourceFailed);
        }
        self.weight = self.weight.saturating_add(copy.bytes().max(LEAST_WEIGHT));
        if !self.limit.held.cover(self.weight) {
            return Err(NotReplayable::AllowanceExhausted);
        }
        self.log.push_back(copy);
        Ok(())
    }
}

// --- Unrecorded ---

impl<S, F> Unrecorded<S, F> {
    /// A body of which nothing is recorded.
    pub(crate) fn all_of(source: S, why: NotReplayable) -> Self {
        Self { unread: None, source: Some(source), why }
    }

    /// A body of which nothing is recorded any more. `first` is a frame that was taken from its source already.
    pub(crate) fn beginning_with(first: Option<F>, source: Option<S>, why: NotReplayable) -> Self
    where
        F: RecordedFrame,
    {
        let bytes = first.as_ref().map_or(0, F::bytes);
        let unread = UnreadFrames { frames: first.into_iter().collect(), bytes, _held: HeldBytes::default() };
        Self { unread: unread.boxed(), source, why }
    }

    pub(crate) fn why(&self) -> NotReplayable {
        self.why
    }

    pub(crate) fn ahead(&self) -> UnreadPart<'_, S> {
        let (frames, bytes) =
            self.unread.as_ref().map_or((0, 0), |unread| (unread.frames.len(), unread.bytes));
        UnreadPart { frames, bytes, source: self.source.as_ref() }
    }
}

impl<S, F> Unrecorded<S, F>
where
    S: FrameSource<Frame = F>,
    F: RecordedFrame,
{
    #[inline]
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<F, S::Error>>> {
        let Some(unread) = &mut self.unread else { return poll_source(&mut self.source, cx) };
        let frame = unread
            .frames
            .pop_front()
            .expect("frames that are still to be given are kept while there are any");
        unread.bytes -= frame.bytes();
        if unread.frames.is_empty() {
            self.unread = None;
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

// --- UnreadFrames ---

impl<F> UnreadFrames<F> {
    fn boxed(self) -> Option<Box<Self>> {
        (!self.frames.is_empty()).then(|| Box::new(self))
    }
}

/// Polls a source, and lets it go as soon as it ended or failed.
#[inline]
pub(crate) fn poll_source<S: FrameSource>(
    source: &mut Option<S>,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<S::Frame, S::Error>>> {
    let Some(live) = source else { return Poll::Ready(None) };
    let frame = live.poll_next(cx);
    let over = match &frame {
        Poll::Pending => false,
        Poll::Ready(None | Some(Err(_))) => true,
        Poll::Ready(Some(Ok(_))) => live.is_over(),
    };
    if over {
        *source = None;
    }
    frame
}

// --- LeavingLock ---

impl<S, F> Default for LeavingLock<S, F> {
    fn default() -> Self {
        Self { source: None, log: VecDeque::new(), held: HeldBytes::default(), waker: None }
    }
}
