//! The body of a response that went through the retry layer.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Either;
use pin_project_lite::pin_project;
use tower::BoxError;

use super::replay_body::HeldBytes;
use crate::extensions::LateRefusal;
use crate::headers::grpc;

pin_project! {
    /// The body of a response that went through a [`RetryService`](super::RetryService).
    ///
    /// It is the inner service's body, frame for frame. Only a response that is returned after a replay was tried
    /// for it (rule 8 of the [module](super)) has been read before: then its frames are here, and if there were more of
    /// them than are kept it ends in an error after those, so that it never looks complete. Hence the
    /// error type is the boxed one.
    pub struct ResponseBody<B>
    where
        B: Body,
    {
        // The second is rare, and boxed so that the first gets no larger.
        #[pin]
        inner: Either<B, Box<ReadAhead<B>>>,
    }
}

/// Frames of a body that were read ahead, and what comes after them.
pub(super) struct ReadAhead<B: Body> {
    frames: VecDeque<Frame<B::Data>>,
    /// How much data is in `frames`.
    bytes: u64,
    /// The body, as far as it is unread; none once it ended or failed, or was given up.
    rest: Option<Pin<Box<B>>>,
    /// The error after the frames, where the body does not end well.
    error: Option<BoxError>,
    /// Whom to tell if the trailers refuse the token.
    refusal: Option<LateRefusal>,
    /// The share of the policy's memory that the frames take up.
    held: HeldBytes,
}

/// The size of one read as a rule: a frame of h2, or a read of HTTP/1.1.
const FRAME: u64 = 16 * 1024;

/// The memory for a frame besides its data.
const LEAST: u64 = 128;

/// The error of a body whose rest was given up while a replay was tried, where the replay could not be made.
const ABANDONED: &str =
    "the rest of this response was given up to make a replay possible, and there was no replay";

impl<B: Body> ResponseBody<B> {
    pub(super) fn whole(body: B) -> Self {
        Self { inner: Either::Left(body) }
    }

    pub(super) fn kept(kept: ReadAhead<B>) -> Self {
        Self { inner: Either::Right(Box::new(kept)) }
    }

    /// Makes a body that is read ahead from here on.
    pub(super) fn into_kept(self) -> ReadAhead<B> {
        match self.inner {
            Either::Left(body) => ReadAhead::new(body),
            Either::Right(kept) => *kept,
        }
    }

    /// Returns the inner service's body as it came; none if it was read ahead, in part or to its end, and only its
    /// frames are here.
    pub fn into_inner(self) -> Option<B> {
        match self.inner {
            Either::Left(body) => Some(body),
            Either::Right(_) => None,
        }
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        self.project().inner.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B: Body + Default> Default for ResponseBody<B> {
    fn default() -> Self {
        Self::whole(B::default())
    }
}

impl<B: Body> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = match &self.inner {
            Either::Left(_) => None,
            Either::Right(kept) => Some(kept.bytes),
        };
        f.debug_struct("ResponseBody").field("kept_bytes", &kept).finish_non_exhaustive()
    }
}

// --- ReadAhead ---

impl<B: Body> Unpin for ReadAhead<B> {}

impl<B: Body> ReadAhead<B> {
    pub(super) fn new(body: B) -> Self {
        let rest = (!body.is_end_stream()).then(|| Box::pin(body));
        Self {
            frames: VecDeque::new(),
            bytes: 0,
            rest,
            error: None,
            refusal: None,
            held: HeldBytes::default(),
        }
    }

    /// Returns the trailers of a body that has nothing else, if they were read.
    pub(super) fn trailers(&self) -> Option<&HeaderMap> {
        self.frames.front().and_then(Frame::trailers_ref)
    }

    /// Tells auth what the trailers, which have not been read yet, say about the token.
    pub(super) fn watch(&mut self, refusal: LateRefusal) {
        self.refusal = Some(refusal);
    }

    /// How many frames are kept.
    pub(super) fn frames(&self) -> usize {
        self.frames.len()
    }

    /// How much data is kept.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Counts what is kept from here on against `held`.
    pub(super) fn count(&mut self, held: HeldBytes) {
        self.held = held;
    }

    /// Returns whether there is room for as much as a frame has as a rule.
    pub(super) fn has_room(&mut self) -> bool {
        let weight = self.weight();
        self.held.cover(weight.saturating_add(FRAME))
    }

    /// Gives up what was not read yet, and the last frame if there was no room for it.
    pub(super) fn abandon(&mut self) {
        while !self.held.cover(self.weight()) {
            let Some(frame) = self.frames.pop_back() else { break };
            self.bytes = self.bytes.saturating_sub(data_len(&frame));
            self.rest = None;
            self.error = Some(ABANDONED.into());
        }
        self.held.shrink(self.weight());
        if self.rest.take().is_some() {
            self.error = Some(ABANDONED.into());
        }
    }

    fn weight(&self) -> u64 {
        let frames = u64::try_from(self.frames.len()).unwrap_or(u64::MAX);
        self.bytes.saturating_add(frames.saturating_mul(LEAST))
    }

    /// Reads one more frame to be kept, and tells whether there was one. The body is dropped as soon as it has ended.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<bool>
    where
        B::Error: Into<BoxError>,
    {
        let Some(body) = &mut self.rest else { return Poll::Ready(false) };
        let frame = match ready!(body.as_mut().poll_frame(cx)).transpose() {
            Ok(Some(frame)) => frame,
            ended => {
                self.rest = None;
                self.error = ended.err().map(Into::into);
                return Poll::Ready(false);
            }
        };
        if body.is_end_stream() {
            self.rest = None;
        }
        self.bytes = self.bytes.saturating_add(data_len(&frame));
        self.frames.push_back(frame);
        Poll::Ready(true)
    }
}

impl<B> Body for ReadAhead<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let this = self.get_mut();
        if let Some(frame) = this.frames.pop_front() {
            this.bytes = this.bytes.saturating_sub(data_len(&frame));
            return Poll::Ready(Some(Ok(frame)));
        }
        if let Some(body) = &mut this.rest {
            let frame = ready!(body.as_mut().poll_frame(cx));
            if let Some(Ok(frame)) = &frame
                && let Some(trailers) = frame.trailers_ref()
                && let Some(refusal) = this.refusal.take()
            {
                if grpc::is_unauthenticated(trailers) {
                    // The response has been returned: what auth makes of it counts for the next request.
                    let _ = refusal.tell();
                } else if grpc::is_acceptance(trailers) {
                    refusal.accepted();
                }
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        Poll::Ready(this.error.take().map(Err))
    }

    fn is_end_stream(&self) -> bool {
        let is_over = self.rest.as_ref().map_or(self.error.is_none(), |body| body.is_end_stream());
        self.frames.is_empty() && is_over
    }

    fn size_hint(&self) -> SizeHint {
        let rest = match &self.rest {
            Some(body) => body.size_hint(),
            None if self.error.is_none() => SizeHint::with_exact(0),
            None => SizeHint::default(),
        };
        let mut hint = SizeHint::new();
        hint.set_lower(self.bytes.saturating_add(rest.lower()));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(self.bytes)) {
            hint.set_upper(upper);
        }
        hint
    }
}

fn data_len<D: Buf>(frame: &Frame<D>) -> u64 {
    frame.data_ref().map_or(0, |data| u64::try_from(data.remaining()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::poll_fn;

    use bytes::Bytes;
    use futures_util::stream;
    use http::HeaderMap;
    use http::header::{ETAG, HeaderValue};
    use http_body_util::{BodyExt as _, Full, StreamBody};

    use super::*;

    fn trailers() -> HeaderMap {
        HeaderMap::from_iter([(ETAG, HeaderValue::from_static("x"))])
    }

    /// Two frames of data, an empty one between them, and trailers.
    fn body() -> impl Body<Data = Bytes, Error = Infallible> {
        let data = ["one", "", "three"].map(|data| Frame::data(Bytes::from_static(data.as_bytes())));
        StreamBody::new(stream::iter(data.into_iter().chain([Frame::trailers(trailers())]).map(Ok)))
    }

    async fn read<B: Body<Error: Into<BoxError>>>(body: B, frames: usize) -> ReadAhead<B> {
        let mut kept = ReadAhead::new(body);
        for _ in 0..frames {
            poll_fn(|cx| kept.poll_read(cx)).await;
        }
        kept
    }

    #[tokio::test]
    async fn a_whole_body_is_the_inner_one() {
        let inner = Full::<Bytes>::from("data").with_trailers(std::future::ready(Some(Ok(trailers()))));
        let body = ResponseBody::whole(inner);
        assert_eq!((body.size_hint().lower(), body.is_end_stream()), (4, false));
        let collected = body.collect().await.unwrap();
        assert_eq!(collected.trailers(), Some(&trailers()));
        assert_eq!(collected.to_bytes(), "data");
        let empty = ResponseBody::<Full<Bytes>>::default();
        assert!(empty.is_end_stream() && empty.into_inner().is_some());
    }

    #[tokio::test]
    async fn kept_frames_come_first_and_then_the_rest_wherever_reading_stopped() {
        for read_ahead in 0..=6 {
            let mut body = ResponseBody::kept(read(body(), read_ahead).await);
            let mut seen = Vec::new();
            while let Some(frame) = body.frame().await {
                seen.push(frame.unwrap().into_data().map_err(|frame| frame.into_trailers().unwrap()));
            }
            let expected = ["one", "", "three"].map(|data| Ok(Bytes::from(data)));
            assert_eq!(seen, [&expected[..], &[Err(trailers())]].concat(), "{read_ahead} read ahead");
            assert!(body.frame().await.is_none());
        }
    }

    #[tokio::test]
    async fn an_abandoned_body_gives_what_is_kept_and_ends_in_an_error() {
        for (read_ahead, bytes) in [(0, 0), (1, 3), (2, 3), (3, 8)] {
            let mut kept = read(body(), read_ahead).await;
            kept.abandon();
            let mut body = ResponseBody::kept(kept);
            for _ in 0..read_ahead {
                assert!(body.frame().await.unwrap().unwrap().is_data());
            }
            assert!(!body.is_end_stream() && body.size_hint().exact().is_none(), "{bytes}");
            assert!(body.frame().await.unwrap().unwrap_err().to_string() == ABANDONED);
            assert!(body.is_end_stream() && body.frame().await.is_none());
            assert!(body.into_inner().is_none());
        }
    }

    #[tokio::test]
    async fn a_body_that_was_read_to_its_end_cannot_be_abandoned() {
        let mut kept = read(Full::<Bytes>::from("data"), 1).await;
        kept.abandon();
        let body = ResponseBody::kept(kept);
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(4), false));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "data");
        let mut kept = ReadAhead::new(Full::<Bytes>::default());
        kept.abandon();
        let mut body = ResponseBody::kept(kept);
        assert!(body.is_end_stream() && body.size_hint().exact() == Some(0));
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_body_that_failed_ends_in_its_own_error_once() {
        let frames = [Ok(Frame::data(Bytes::from("part"))), Err(std::io::Error::other("connection reset"))];
        let mut kept = read(StreamBody::new(stream::iter(frames)), 3).await;
        kept.abandon();
        let mut body = ResponseBody::kept(kept);
        assert_eq!((body.size_hint().lower(), body.size_hint().upper()), (4, None));
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "part");
        assert!(!body.is_end_stream());
        assert_eq!(body.frame().await.unwrap().unwrap_err().to_string(), "connection reset");
        assert!(body.is_end_stream() && body.frame().await.is_none());
    }

    #[tokio::test]
    async fn the_size_is_that_of_what_is_kept_and_of_what_is_to_come() {
        let mut kept = read(Full::<Bytes>::from("data"), 0).await;
        assert_eq!((kept.size_hint().exact(), kept.bytes(), kept.frames()), (Some(4), 0, 0));
        assert!(poll_fn(|cx| kept.poll_read(cx)).await);
        assert_eq!((kept.size_hint().exact(), kept.bytes(), kept.frames()), (Some(4), 4, 1));
        assert!(!poll_fn(|cx| kept.poll_read(cx)).await);
        let mut body = ResponseBody::kept(kept);
        body.frame().await.unwrap().unwrap();
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(0), true));
    }

    #[test]
    fn reading_ahead_makes_no_whole_body_larger() {
        assert!(size_of::<ResponseBody<Full<Bytes>>>() <= size_of::<Full<Bytes>>() + 8);
    }
}
