//! A body that tells what was done to it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Instant;

use crate::clock;

/// Counts the polls, frames and bytes of bodies. Clones share the counts: the bodies go into requests and responses, the log
/// stays in the test.
///
/// # Examples
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::{BodyExt as _, Full};
/// use tower_oauth2::test_util::BodyLog;
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let log = BodyLog::new();
/// let mut body = log.body(Full::<Bytes>::from("an item"));
/// body.frame().await;
/// assert_eq!((log.polls(), log.bytes(), log.alive()), (1, 7, 1));
/// drop(body);
/// assert_eq!(log.alive(), 0);
/// # });
/// # Ok::<_, std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct BodyLog {
    record: Arc<Mutex<Record>>,
}

pin_project! {
    /// A body of a [`BodyLog`].
    #[derive(Debug)]
    pub struct LoggedBody<B> {
        #[pin]
        inner: B,
        alive: Alive,
    }
}

#[derive(Debug)]
struct Record {
    begun: Instant,
    polls: usize,
    frames: usize,
    bytes: usize,
    ended: usize,
    failed: usize,
    alive: usize,
    last_drop: Option<Duration>,
}

/// Notes the end of a body.
#[derive(Debug)]
struct Alive(BodyLog);

// --- BodyLog ---

impl BodyLog {
    /// Creates an empty log.
    #[must_use]
    pub fn new() -> Self {
        let record = Record {
            begun: clock::now(),
            polls: 0,
            frames: 0,
            bytes: 0,
            ended: 0,
            failed: 0,
            alive: 0,
            last_drop: None,
        };
        Self { record: Arc::new(Mutex::new(record)) }
    }

    /// Puts a body under the eyes of this log.
    pub fn body<B>(&self, inner: B) -> LoggedBody<B> {
        self.record().alive += 1;
        LoggedBody { inner, alive: Alive(self.clone()) }
    }

    /// Returns how often the bodies were polled for a frame.
    #[must_use]
    pub fn polls(&self) -> usize {
        self.record().polls
    }

    /// Returns how many frames they gave, trailers included.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.record().frames
    }

    /// Returns how many bytes they gave.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.record().bytes
    }

    /// Returns how many of them were polled until they had no more. A reader that knows by the length or by `is_end_stream()`
    /// that nothing more comes does not poll again, as hyper and the retry layer do not: for the bytes that they have read see
    /// [`bytes`](Self::bytes).
    #[must_use]
    pub fn ended(&self) -> usize {
        self.record().ended
    }

    /// Returns how many errors they gave.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.record().failed
    }

    /// Returns how many of them there are, not dropped yet.
    #[must_use]
    pub fn alive(&self) -> usize {
        self.record().alive
    }

    /// Returns how long after the log began a body was dropped the last time.
    #[must_use]
    pub fn last_drop(&self) -> Option<Duration> {
        self.record().last_drop
    }

    // Every change under the lock is a single step, so what a panicking test leaves behind is sound.
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for BodyLog {
    fn default() -> Self {
        Self::new()
    }
}

// --- LoggedBody ---

impl<B: Body> Body for LoggedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let log = &this.alive.0;
        log.record().polls += 1;
        // The inner body may do anything, so it is polled without the lock.
        let polled = ready!(this.inner.poll_frame(cx));
        let mut record = log.record();
        match &polled {
            None => record.ended += 1,
            Some(Err(_)) => record.failed += 1,
            Some(Ok(frame)) => {
                record.frames += 1;
                record.bytes += frame.data_ref().map_or(0, Buf::remaining);
            }
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        let mut record = self.0.record();
        record.alive -= 1;
        record.last_drop = Some(clock::now().saturating_duration_since(record.begun));
    }
}
