//! The body of a response that went through the retry layer.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body::{Body, Frame, SizeHint};
use http_body_util::Either;
use pin_project_lite::pin_project;
use tower::BoxError;

use super::replay_body::{HeldBytes, PartlyRead};
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
        inner: Either<B, Box<KeptBody<B>>>,
    }
}

/// A body that was read in part, and is kept.
pub(super) struct KeptBody<B: Body> {
    pub(super) read: PartlyRead<Pin<Box<B>>, B::Data>,
    /// Whom to tell if the trailers refuse the token.
    pub(super) refusal: Option<LateRefusal>,
}

impl<B: Body> ResponseBody<B> {
    pub(super) fn whole(body: B) -> Self {
        Self { inner: Either::Left(body) }
    }

    pub(super) fn kept(kept: KeptBody<B>) -> Self {
        Self { inner: Either::Right(Box::new(kept)) }
    }

    /// Makes a body that is kept from here on.
    pub(super) fn into_kept(self) -> KeptBody<B> {
        match self.inner {
            Either::Left(body) => KeptBody::new(body),
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
            Either::Right(kept) => Some(kept.read.bytes()),
        };
        f.debug_struct("ResponseBody").field("kept_bytes", &kept).finish_non_exhaustive()
    }
}

// --- KeptBody ---

impl<B: Body> KeptBody<B> {
    pub(super) fn new(body: B) -> Self {
        let rest = (!body.is_end_stream()).then(|| Box::pin(body));
        Self { read: PartlyRead::new(VecDeque::new(), rest, HeldBytes::default()), refusal: None }
    }
}

impl<B> Body for KeptBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.read).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(trailers) = frame.trailers_ref()
            && let Some(refusal) = self.refusal.take()
        {
            if grpc::is_unauthenticated(trailers) {
                // The response has been returned: what auth makes of it counts for the next request.
                let _ = refusal.tell();
            } else if grpc::is_acceptance(trailers) {
                refusal.accepted();
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.read.size_hint()
    }
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

    async fn read<B: Body<Error: Into<BoxError>>>(body: B, frames: usize) -> KeptBody<B> {
        let mut kept = KeptBody::new(body);
        for _ in 0..frames {
            poll_fn(|cx| kept.read.poll_read(cx)).await;
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
            kept.read.abandon();
            let mut body = ResponseBody::kept(kept);
            for _ in 0..read_ahead {
                assert!(body.frame().await.unwrap().unwrap().is_data());
            }
            assert!(!body.is_end_stream() && body.size_hint().exact().is_none(), "{bytes}");
            assert!(
                body.frame()
                    .await
                    .unwrap()
                    .unwrap_err()
                    .to_string()
                    .starts_with("the rest of this response was given up")
            );
            assert!(body.is_end_stream() && body.frame().await.is_none());
            assert!(body.into_inner().is_none());
        }
    }

    #[tokio::test]
    async fn a_body_that_was_read_to_its_end_cannot_be_abandoned() {
        let mut kept = read(Full::<Bytes>::from("data"), 1).await;
        kept.read.abandon();
        let body = ResponseBody::kept(kept);
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(4), false));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "data");
        let mut kept = KeptBody::new(Full::<Bytes>::default());
        kept.read.abandon();
        let mut body = ResponseBody::kept(kept);
        assert!(body.is_end_stream() && body.size_hint().exact() == Some(0));
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_body_that_failed_ends_in_its_own_error_once() {
        let frames = [Ok(Frame::data(Bytes::from("part"))), Err(std::io::Error::other("connection reset"))];
        let mut kept = read(StreamBody::new(stream::iter(frames)), 3).await;
        kept.read.abandon();
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
        assert_eq!((kept.size_hint().exact(), kept.read.bytes(), kept.read.frames().len()), (Some(4), 0, 0));
        assert!(poll_fn(|cx| kept.read.poll_read(cx)).await);
        assert_eq!((kept.size_hint().exact(), kept.read.bytes(), kept.read.frames().len()), (Some(4), 4, 1));
        assert!(!poll_fn(|cx| kept.read.poll_read(cx)).await);
        let mut body = ResponseBody::kept(kept);
        body.frame().await.unwrap().unwrap();
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(0), true));
    }

    #[test]
    fn reading_ahead_makes_no_whole_body_larger() {
        assert!(size_of::<ResponseBody<Full<Bytes>>>() <= size_of::<Full<Bytes>>() + 8);
    }
}
