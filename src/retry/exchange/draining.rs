//! The response before, while a replay is tried: its body is read while the wait goes on, and kept.
//!
//! A connection goes back to its pool, and a stream is over, when the response was read to its end. So a refused
//! response is worth reading, within bounds.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Response, response};
use http_body::Body;
use tokio::time::{Instant, Sleep};
use tower::BoxError;

use crate::clock;
use crate::retry::replay_body::{Allowance, HeldBytes};
use crate::retry::retry_body::{KeptBody, ResponseBody};
use crate::sync::Arc;

/// The response before.
///
/// 1. It is read until its body ends or fails, [`BYTES`] or [`FRAMES`] are exceeded, the policy's memory or the time is up.
/// 2. From then on nothing of the attempt is alive: the unread rest is dropped.
/// 3. The data that was read is kept until this is dropped, to be returned if no newer outcome comes.
pub(super) struct Draining<B: Body> {
    head: response::Parts,
    body: KeptBody<B>,
    since: Instant,
    until: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

/// How much data is read before a body is given up. One frame may go beyond it.
const BYTES: u64 = 64 * 1024;

/// How many frames are read, since frames of no data cost memory too.
const FRAMES: usize = 1024;

/// The shortest time for reading, where the wait is shorter or there is none: enough for what is there already.
const SHORTEST: Duration = Duration::from_millis(10);

/// The longest time for reading, where the wait is longer.
const LONGEST: Duration = Duration::from_millis(200);

impl<B: Body> Draining<B> {
    /// Starts to read a response; after `time_left` it would be in vain. The data that is kept counts against `allowance`.
    pub(super) fn new(
        response: Response<ResponseBody<B>>,
        time_left: Option<Duration>,
        allowance: &Arc<Allowance>,
    ) -> Self {
        let (head, body) = response.into_parts();
        let mut body = body.into_kept();
        body.read.count(HeldBytes::nothing_of(allowance), &head.headers);
        let since = clock::now();
        let until = clock::after(since, LONGEST.min(time_left.unwrap_or(LONGEST)));
        Self { head, body, since, until, timer: None }
    }

    /// The wait is over: what is not there after the shortest time is not waited for.
    pub(super) fn hurry(&mut self) {
        let until = clock::after(self.since, SHORTEST).max(clock::now());
        if until < self.until {
            self.until = until;
            self.timer = None;
        }
    }

    /// Reads on. Ready once nothing is left to be read.
    pub(super) fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()>
    where
        B::Error: Into<BoxError>,
    {
        let read = &mut self.body.read;
        while read.bytes() <= BYTES && read.frames().len() < FRAMES && read.has_room() {
            match read.poll_read(cx) {
                Poll::Ready(true) => {}
                Poll::Ready(false) => break,
                Poll::Pending => {
                    let until = self.until;
                    let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
                    ready!(timer.as_mut().poll(cx));
                    break;
                }
            }
        }
        read.abandon();
        self.timer = None;
        Poll::Ready(())
    }

    /// Hands the response back.
    pub(super) fn into_response(self) -> Response<ResponseBody<B>> {
        Response::from_parts(self.head, ResponseBody::kept(self.body))
    }
}
