//! The body of a request whose length stands in a header.

use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tower::BoxError;

use crate::body::Body;

/// A stream that fails if it ends before the length that a header announces. To the HTTP client that is a broken connection, and the
/// retries would send the same bytes again.
pub(super) struct Announced {
    inner: Body,
    left: u64,
}

impl Announced {
    pub(super) fn new(inner: Body, length: u64) -> Self {
        Self { inner, left: length }
    }
}

impl HttpBody for Announced {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &polled {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, Bytes::len);
                // Of a longer one, such as a file that grows, the HTTP client sends as much as was announced.
                self.left = self.left.saturating_sub(length as u64);
            }
            None if self.left > 0 => {
                let left = mem::take(&mut self.left);
                let early = format!("it ended {left} bytes before the length in its content-length header");
                return Poll::Ready(Some(Err(early.into())));
            }
            Some(Err(_)) | None => {}
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0 && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
