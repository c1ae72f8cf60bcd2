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

/// A body on a [`Tether`]: the request's own, or one that was opened for a further attempt.
pub(crate) struct Tied<B> {
    source: Supply<B>,
    tether: Tether,
    /// How much is still to come, where it is known how much there must be. A body that gives more or less is another one
    /// than was sent before.
    missing: Option<u64>,
}

/// Where it comes from. None once that ended or failed: it must not be polled again.
enum Supply<B> {
    Own(Option<B>),
    Opened(Option<SyncBody>),
}

/// A body that need not be `Sync`, in one that is.
struct SyncBody(Mutex<UnsyncBoxBody<Bytes, BoxError>>);

impl<B> Tied<B> {
    pub(crate) fn own(body: B, tether: Tether) -> Self {
        Self { source: Supply::Own(Some(body)), tether, missing: None }
    }

    pub(crate) fn opened(body: UnsyncBoxBody<Bytes, BoxError>, tether: Tether, length: Option<u64>) -> Self {
        Self { source: Supply::Opened(Some(SyncBody(Mutex::new(body)))), tether, missing: length }
    }
}

impl<B> Tied<B>
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
        let frame = match &mut self.source {
            Supply::Own(source) => poll_source(source, cx),
            Supply::Opened(source) => poll_source(source, cx),
        };
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
        self.source = Supply::Opened(None);
        let error = format!("the body that was opened again is {how} than the first one");
        Poll::Ready(Some(Err(OfTheBody::new(error).into())))
    }

    pub(crate) fn is_over(&self) -> bool {
        !self.tether.is_cut()
            && !self.is_short()
            && match &self.source {
                Supply::Own(source) => source.as_ref().is_none_or(B::is_end_stream),
                Supply::Opened(source) => source.as_ref().is_none_or(Body::is_end_stream),
            }
    }

    pub(crate) fn hint(&self) -> SizeHint {
        if self.tether.is_cut() {
            return SizeHint::default();
        }
        if let Some(missing) = self.missing {
            return SizeHint::with_exact(missing);
        }
        let none = SizeHint::with_exact(0);
        match &self.source {
            Supply::Own(source) => source.as_ref().map_or(none, B::size_hint),
            Supply::Opened(source) => source.as_ref().map_or(none, Body::size_hint),
        }
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
