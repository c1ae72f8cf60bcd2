//! A body of which nothing is recorded, and which can be ended from outside.

use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use tower::BoxError;

use super::takeover::poll_source;
use super::tether::Tether;
use crate::error::OfTheBody;
use crate::sync::Arc;

/// A body on a [`Tether`]: the request's own, or one that was opened for a further attempt.
pub(crate) struct TiedBody<B> {
    /// None once it ended or failed: it must not be polled again.
    source: Option<B>,
    tether: Arc<Tether>,
    /// How much is still to come, where it is known how much there must be. A body that gives more or less is another one
    /// than was sent before.
    missing: Option<u64>,
}

/// A body that need not be `Sync`, in one that is.
pub(crate) struct SyncBody(Mutex<UnsyncBoxBody<Bytes, BoxError>>);

impl<B> TiedBody<B> {
    pub(crate) fn new(body: B, tether: Arc<Tether>) -> Self {
        Self { source: Some(body), tether, missing: None }
    }
}

impl TiedBody<SyncBody> {
    /// A body that a factory opened. It must be of this length, if one is known.
    pub(crate) fn opened(
        body: UnsyncBoxBody<Bytes, BoxError>,
        tether: Arc<Tether>,
        length: Option<u64>,
    ) -> Self {
        Self { source: Some(SyncBody(Mutex::new(body))), tether, missing: length }
    }
}

impl<B> TiedBody<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    /// Polls for the next frame. Fails with `ended` once the tether is cut.
    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        ended: &'static str,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.tether.is_cut() {
            return Poll::Ready(Some(Err(ended.into())));
        }
        let frame = poll_source(&mut self.source, cx);
        match &frame {
            Poll::Pending if !self.tether.wait(cx) => Poll::Ready(Some(Err(ended.into()))),
            Poll::Ready(Some(Err(_))) => {
                self.tether.fail();
                frame
            }
            Poll::Ready(Some(Ok(given))) if !self.counts(given) => self.broken("longer"),
            Poll::Ready(None) if self.is_short() => self.broken("shorter"),
            Poll::Ready(_) | Poll::Pending => frame,
        }
    }

    /// Counts what was given. Returns whether it was not too much.
    fn counts(&mut self, frame: &Frame<Bytes>) -> bool {
        let given = frame.data_ref().map_or(0, |data| u64::try_from(data.len()).unwrap_or(u64::MAX));
        match &mut self.missing {
            None => true,
            Some(missing) => match missing.checked_sub(given) {
                Some(left) => {
                    *missing = left;
                    true
                }
                None => false,
            },
        }
    }

    fn is_short(&self) -> bool {
        self.missing.is_some_and(|missing| missing > 0)
    }

    fn broken(&mut self, how: &str) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.tether.fail();
        self.missing = None;
        self.source = None;
        let error = format!("the body that was opened again is {how} than the first one");
        Poll::Ready(Some(Err(OfTheBody::new(error).into())))
    }

    pub(crate) fn is_over(&self) -> bool {
        !self.tether.is_cut() && !self.is_short() && self.source.as_ref().is_none_or(B::is_end_stream)
    }

    pub(crate) fn hint(&self) -> SizeHint {
        if self.tether.is_cut() {
            return SizeHint::default();
        }
        if let Some(missing) = self.missing {
            return SizeHint::with_exact(missing);
        }
        self.source.as_ref().map_or(SizeHint::with_exact(0), B::size_hint)
    }
}

// --- SyncBody ---

impl Body for SyncBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let body = self.get_mut().0.get_mut().unwrap_or_else(PoisonError::into_inner);
        Pin::new(body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).size_hint()
    }
}
