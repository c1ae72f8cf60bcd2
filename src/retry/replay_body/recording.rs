//! A recording: a log of frames, a live source behind it, and the newest attempt, which takes over both.
//!
//! A model checker runs this file as it is (`tests/loom`).
//!
//! Invariants:
//! 1. Only the newest attempt reads. An older one gets an error at its next poll, and never an end.
//! 2. While nothing is lost, the log holds every frame that was taken from the source, and `cursor` is the next of them
//!    for the newest attempt. Where a source is reopened for each attempt nothing is logged.
//! 3. An attempt that was told to wait is woken when it is taken over. The newest one polls the source itself before it
//!    waits, so that the source wakes its task and no other.
//! 4. The source is let go as soon as it ends or fails, and so never polled again.
//! 5. Once something is lost, the log holds only what the newest attempt has not been given, and its next poll takes
//!    log and source out of the lock.
//! 6. Of what is foreign only polls and hints of the source, and clones of frames and wakers, run under the lock. What
//!    is dropped or woken is carried out of it first: it may come back here.

use std::collections::VecDeque;
use std::mem;
use std::pin::Pin;
use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tower::BoxError;

use super::allowance::HeldBytes;
use super::not_replayable::NotReplayable;
use super::partly_read::{self, PartlyRead, data_len};
use crate::headers::grpc;
use crate::sync::{Arc, Mutex};

/// How much of a source is recorded.
#[derive(Debug)]
pub(crate) struct RecordingLimit {
    pub(crate) bytes: u64,
    /// How much the source announced, if it did. Another attempt is not made of less or more.
    pub(crate) announced: Option<u64>,
    /// The reason that is given when it is exceeded.
    pub(crate) above: NotReplayable,
    /// Whether only one gRPC message is recorded, and what comes after it is beyond.
    pub(crate) one_message: bool,
    pub(crate) held: HeldBytes,
}

/// One holder of a recording: the original, which is number 0, or one of its attempts.
pub(crate) struct Recording<S> {
    state: Arc<Mutex<RecordingState<S>>>,
    attempt: u64,
}

/// The result of one poll.
pub(crate) enum RecordingRead<S> {
    Next(Option<Result<Frame<Bytes>, BoxError>>),
    /// Nothing is recorded any more, for this reason: what is left, to be read without a lock.
    Rest(Box<PartlyRead<S, Bytes>>, NotReplayable),
}

struct RecordingState<S> {
    source: Option<S>,
    /// Makes the source of each further attempt, which must be as long as one that ended.
    reopen: Option<Arc<dyn Fn(Option<u64>) -> S + Send + Sync>>,
    /// How much the newest source gave, where it is reopened.
    given: u64,
    /// How much one gave that ended.
    whole: Option<u64>,
    log: VecDeque<Frame<Bytes>>,
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
struct LeavingLock<S> {
    source: Option<S>,
    log: VecDeque<Frame<Bytes>>,
    held: HeldBytes,
    waker: Option<Waker>,
}

/// A recorded frame costs about 100 bytes besides its data: with this many, a body of tiny frames stays below 1 MiB too.
pub(crate) const MOST_FRAMES: usize = 8 * 1024;

/// The least weight of a frame in an allowance, for the same reason.
pub(crate) const LEAST_WEIGHT: u64 = 128;

/// The error of an attempt that was taken over.
const TAKEN_OVER: &str = "this attempt's request body was taken over by a newer attempt";

impl<S> Recording<S> {
    /// Makes the body of another attempt, which starts at the first frame, and ends the one before.
    pub(crate) fn replay(&self) -> Result<Self, NotReplayable> {
        let (attempt, taken_over) = self.change(|state, leaving| match state.lost {
            Some(why) => Err(why),
            None => {
                if let Some(reopen) = state.reopen.as_ref().filter(|_| state.newest > 0) {
                    leaving.source = state.source.replace(reopen(state.whole));
                    state.given = 0;
                }
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

    /// Does something with the source, as long as this is the newest attempt and the source is not over.
    pub(crate) fn with_source<T>(&self, act: impl FnOnce(&mut S) -> T) -> Option<T> {
        self.newest(|state| state.source.as_mut().map(act)).flatten()
    }

    /// Does something with the state, if this is the newest attempt.
    fn newest<T>(&self, act: impl FnOnce(&mut RecordingState<S>) -> T) -> Option<T> {
        let done = self.change(|state, _| (state.newest == self.attempt).then(|| act(state)));
        done.ok().flatten()
    }

    /// Changes the state under its lock, and drops outside it what leaves. A source that panicked left the state in the
    /// middle of something: it counts as failed.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut RecordingState<S>, &mut LeavingLock<S>) -> T,
    ) -> Result<T, NotReplayable> {
        let mut leaving = LeavingLock::default();
        let mut state = self.state.lock().map_err(|_| NotReplayable::SourceFailed)?;
        let changed = change(&mut state, &mut leaving);
        drop(state);
        Ok(changed)
    }
}

impl<S> Recording<S>
where
    S: Body<Data = Bytes, Error = BoxError> + Unpin,
{
    /// Starts a recording of `source`. `first` is a frame that was taken from it already.
    pub(crate) fn original(source: Option<S>, first: Option<Frame<Bytes>>, limit: RecordingLimit) -> Self {
        let mut state = RecordingState::new(source, limit);
        if let Some(first) = first {
            state.unread = data_len(&first);
            if let Err(why) = state.record(&first) {
                state.lost = Some(why);
                state.log.push_back(first);
            } else if state.source.is_none() && state.is_short() {
                state.lost = Some(NotReplayable::SourceFailed);
            }
        }
        Self { state: Arc::new(Mutex::new(state)), attempt: 0 }
    }

    /// Starts with `source`, of which nothing is recorded: `reopen` makes that of each further attempt.
    pub(crate) fn reopenable(source: S, reopen: Arc<dyn Fn(Option<u64>) -> S + Send + Sync>) -> Self {
        let limit = RecordingLimit {
            bytes: 0,
            announced: None,
            above: NotReplayable::Released,
            one_message: false,
            held: HeldBytes::default(),
        };
        let state = RecordingState { reopen: Some(reopen), ..RecordingState::new(Some(source), limit) };
        Self { state: Arc::new(Mutex::new(state)), attempt: 0 }
    }

    /// Makes an original that is independent of this one; none if the source cannot be reopened.
    pub(crate) fn another(&self) -> Option<Self> {
        let reopen = self.change(|state, _| state.reopen.clone()).ok().flatten()?;
        Some(Self::reopenable(reopen(None), reopen))
    }

    /// Returns the size of what is still to come; none for an attempt that was taken over.
    pub(crate) fn size_hint(&self) -> Option<SizeHint> {
        self.newest(|state| partly_read::size_hint(state.unread, state.source.as_ref()))
    }

    /// Returns whether nothing is still to come; none for an attempt that was taken over.
    pub(crate) fn is_over(&self) -> Option<bool> {
        self.newest(|state| {
            state.log.len() == state.cursor && state.source.as_ref().is_none_or(S::is_end_stream)
        })
    }

    pub(crate) fn poll_read(&self, cx: &mut Context<'_>) -> Poll<RecordingRead<S>> {
        let read = self.change(|state, leaving| {
            if state.newest != self.attempt {
                return Poll::Ready(RecordingRead::error(TAKEN_OVER));
            }
            state.poll_read(cx, leaving)
        });
        read.unwrap_or_else(|why| Poll::Ready(RecordingRead::error(why)))
    }

    /// How much is in the log, for tests.
    #[cfg(test)]
    pub(crate) fn recorded(&self) -> usize {
        self.change(|state, _| state.log.len()).unwrap()
    }
}

impl<S> Drop for Recording<S> {
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

// --- RecordingRead ---

impl<S> RecordingRead<S> {
    fn error(error: impl Into<BoxError>) -> Self {
        Self::Next(Some(Err(error.into())))
    }
}

// --- RecordingState ---

impl<S> RecordingState<S> {
    fn new(source: Option<S>, limit: RecordingLimit) -> Self {
        Self {
            source,
            reopen: None,
            given: 0,
            whole: None,
            log: VecDeque::new(),
            cursor: 0,
            bytes: 0,
            unread: 0,
            weight: 0,
            limit,
            newest: 0,
            waiting: None,
            lost: None,
        }
    }

    /// Gives up on replays, and frees what was given already.
    fn lose(&mut self, why: NotReplayable, leaving: &mut LeavingLock<S>) {
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

impl<S> RecordingState<S>
where
    S: Body<Data = Bytes, Error = BoxError> + Unpin,
{
    /// Gives the newest attempt its next frame: from the log, else from the source.
    fn poll_read(&mut self, cx: &mut Context<'_>, leaving: &mut LeavingLock<S>) -> Poll<RecordingRead<S>> {
        if let Some(why) = self.lost {
            let (log, held) = (mem::take(&mut self.log), mem::take(&mut self.limit.held));
            let rest = PartlyRead::new(log, self.source.take(), held);
            return Poll::Ready(RecordingRead::Rest(Box::new(rest), why));
        }
        if let Some(copy) = self.log.get(self.cursor).and_then(share) {
            self.cursor += 1;
            self.unread -= data_len(&copy);
            return Poll::Ready(RecordingRead::Next(Some(Ok(copy))));
        }
        let Some(source) = &mut self.source else { return Poll::Ready(RecordingRead::Next(None)) };
        match Pin::new(&mut *source).poll_frame(cx) {
            Poll::Pending => {
                if !self.waiting.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    leaving.waker = self.waiting.replace(cx.waker().clone());
                }
                Poll::Pending
            }
            Poll::Ready(None) => {
                leaving.source = self.source.take();
                self.whole.get_or_insert(self.given);
                if self.is_short() {
                    self.lose(NotReplayable::SourceFailed, leaving);
                    return Poll::Ready(RecordingRead::error(NotReplayable::SourceFailed));
                }
                Poll::Ready(RecordingRead::Next(None))
            }
            Poll::Ready(Some(Err(error))) => {
                leaving.source = self.source.take();
                self.lose(NotReplayable::SourceFailed, leaving);
                Poll::Ready(RecordingRead::error(error))
            }
            Poll::Ready(Some(Ok(frame))) => {
                self.given = self.given.saturating_add(data_len(&frame));
                if source.is_end_stream() {
                    leaving.source = self.source.take();
                    self.whole.get_or_insert(self.given);
                }
                if self.reopen.is_none() {
                    let recorded = self.record(&frame);
                    self.cursor = self.log.len();
                    if let Err(why) = recorded {
                        self.lose(why, leaving);
                    } else if self.source.is_none() && self.is_short() {
                        self.lose(NotReplayable::SourceFailed, leaving);
                    }
                }
                Poll::Ready(RecordingRead::Next(Some(Ok(frame))))
            }
        }
    }

    /// Whether less was recorded than the source announced.
    fn is_short(&self) -> bool {
        self.limit.announced.is_some_and(|announced| self.bytes < announced)
    }

    /// Puts a copy of a frame into the log, if it may be recorded.
    fn record(&mut self, frame: &Frame<Bytes>) -> Result<(), NotReplayable> {
        let copy = share(frame).ok_or(NotReplayable::UnknownFrame)?;
        if self.limit.one_message {
            let data = self.log.iter().chain([&copy]).filter_map(|frame| Some(&frame.data_ref()?[..]));
            if let Some(length) = grpc::first_message(data) {
                self.limit.one_message = false;
                if length < self.limit.bytes {
                    (self.limit.bytes, self.limit.above) = (length, NotReplayable::SeveralMessages);
                }
            }
        }
        let length = data_len(&copy);
        self.bytes = self.bytes.saturating_add(length);
        if self.bytes > self.limit.bytes || self.log.len() >= MOST_FRAMES {
            return Err(self.limit.above);
        }
        if self.limit.announced.is_some_and(|announced| self.bytes > announced) {
            return Err(NotReplayable::SourceFailed);
        }
        self.weight = self.weight.saturating_add(length.max(LEAST_WEIGHT));
        if !self.limit.held.cover(self.weight) {
            return Err(NotReplayable::AllowanceExhausted);
        }
        self.log.push_back(copy);
        Ok(())
    }
}

/// Copies a frame without copying its data; none if it is of a kind that cannot be copied.
fn share(frame: &Frame<Bytes>) -> Option<Frame<Bytes>> {
    let data = frame.data_ref().cloned().map(Frame::data);
    data.or_else(|| frame.trailers_ref().cloned().map(Frame::trailers))
}

// --- LeavingLock ---

impl<S> Default for LeavingLock<S> {
    fn default() -> Self {
        Self { source: None, log: VecDeque::new(), held: HeldBytes::default(), waker: None }
    }
}
