//! Where the frames of a request body come from: the request's own body, or one that its factory opens.

use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use tower::BoxError;

use super::partly_read::data_len;
use crate::error::OfTheBody;
use crate::retry::body_factory::{BodyFactory, OpenFuture};

/// A request body whose frames are [`Bytes`].
pub(crate) enum BodySource<B> {
    Own(B),
    /// Boxed, since hardly any body is one.
    Reopened(Box<ReopenedBody>),
}

/// A body for a further attempt. It is opened when it is polled, and ends in an error if it is not as long as the first one.
pub(crate) struct ReopenedBody {
    /// In a lock, since neither a future nor what it opens need be `Sync`, and the body must.
    state: Mutex<ReopenedState>,
    /// How much is still to come, where it is known how much there must be.
    missing: Option<u64>,
}

enum ReopenedState {
    Opening(OpenFuture),
    Open(UnsyncBoxBody<Bytes, BoxError>),
    Over,
}

impl<B> BodySource<B> {
    /// A body that is opened by `factory`, and must be of this length if one is known.
    pub(crate) fn reopened(factory: &BodyFactory, length: Option<u64>) -> Self {
        let state = Mutex::new(ReopenedState::Opening(factory.open()));
        Self::Reopened(Box::new(ReopenedBody { state, missing: length }))
    }

    /// Opens the body, if a factory has to do that first.
    pub(crate) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            Self::Own(_) => Poll::Ready(Ok(())),
            Self::Reopened(body) => body.poll_open(cx),
        }
    }
}

impl<B> Body for BodySource<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    #[inline]
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let body = match self.get_mut() {
            Self::Own(body) => body,
            Self::Reopened(body) => return body.poll_frame(cx),
        };
        // `copy_to_bytes` of a `Bytes` shares it; any other buffer is copied, once.
        let shared = |mut data: B::Data| data.copy_to_bytes(data.remaining());
        Poll::Ready(match ready!(Pin::new(body).poll_frame(cx)) {
            None => None,
            Some(Err(error)) => Some(Err(OfTheBody::new(error).into())),
            // A frame is as large as a map of trailers: nearly all of them need not be moved as a whole.
            Some(Ok(frame)) if frame.is_data() => match frame.into_data() {
                Ok(data) => Some(Ok(Frame::data(shared(data)))),
                Err(frame) => Some(Ok(frame.map_data(shared))),
            },
            Some(Ok(frame)) => Some(Ok(frame.map_data(shared))),
        })
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(body) => body.is_end_stream(),
            Self::Reopened(body) => body.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(body) => body.size_hint(),
            Self::Reopened(body) => body.size_hint(),
        }
    }
}

// --- ReopenedBody ---

impl ReopenedBody {
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let ReopenedState::Opening(opening) = state else { return Poll::Ready(Ok(())) };
        let opened = ready!(opening.as_mut().poll(cx));
        *state = ReopenedState::Over;
        let body = opened?;
        // A transport goes by the length that was announced. It would cut the body short, or wait for the rest of it.
        if let (Some(announced), Some(length)) = (self.missing, body.size_hint().exact())
            && announced != length
        {
            let error =
                format!("the body was opened again with {length} bytes and not {announced} as before");
            return Poll::Ready(Err(error.into()));
        }
        *state = ReopenedState::Open(body);
        Poll::Ready(Ok(()))
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match ready!(self.poll_open(cx)) {
            Err(error) => Some(Err(error)),
            Ok(()) => match self.state.get_mut().unwrap_or_else(PoisonError::into_inner) {
                ReopenedState::Open(body) => ready!(Pin::new(body).poll_frame(cx)),
                ReopenedState::Opening(_) | ReopenedState::Over => None,
            },
        };
        let missing = self.missing.unwrap_or_default();
        let wrong = match &frame {
            Some(Ok(frame)) if self.missing.is_some() => {
                let given = data_len(frame);
                self.missing = Some(missing.saturating_sub(given));
                (given > missing).then_some("longer")
            }
            None if missing > 0 => Some("shorter"),
            Some(_) | None => None,
        };
        let frame = match wrong {
            Some(how) => {
                Some(Err(format!("the body that was opened again is {how} than the first one").into()))
            }
            None => frame,
        };
        Poll::Ready(frame.map(|frame| frame.map_err(|error| OfTheBody::new(error).into())))
    }

    fn is_over(&self) -> bool {
        let is_over = match &*self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            ReopenedState::Opening(_) => false,
            ReopenedState::Open(body) => body.is_end_stream(),
            ReopenedState::Over => true,
        };
        is_over && self.missing.unwrap_or_default() == 0
    }

    fn size_hint(&self) -> SizeHint {
        if let Some(missing) = self.missing {
            return SizeHint::with_exact(missing);
        }
        match &*self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            ReopenedState::Opening(_) => SizeHint::default(),
            ReopenedState::Open(body) => body.size_hint(),
            ReopenedState::Over => SizeHint::with_exact(0),
        }
    }
}
