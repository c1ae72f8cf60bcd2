//! Bodies on their way into reqwest.

use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame, SizeHint};
use reqwest::Body as Native;
use tower::BoxError;

/// Makes a body of reqwest's of any.
pub(super) fn into_native<B>(body: B) -> Native
where
    B: Body + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    Native::wrap(SyncBody { inner: Mutex::new(body) })
}

/// A request body that reqwest takes: it wants `Sync`, and bodies such as axum's and tonic's are not.
///
/// The lock is never waited for: the one that polls has the only reference.
struct SyncBody<B> {
    inner: Mutex<B>,
}

impl<B> SyncBody<B> {
    // A body that panicked is not whole either way.
    fn inner(&mut self) -> &mut B {
        self.inner.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B> Body for SyncBody<B>
where
    B: Body + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = Pin::new(self.inner()).poll_frame(cx);
        polled.map_ok(|frame| frame.map_data(|mut data| data.copy_to_bytes(data.remaining())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).size_hint()
    }
}
