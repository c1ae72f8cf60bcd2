//! A body of which nothing is recorded, and which can be ended from outside.

use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use tower::BoxError;

use super::recording::poll_source;
use super::tether::Tether;
use crate::error::OfTheBody;
use crate::retry::body_factory::{BodyFactory, OpenFuture};
use crate::sync::Arc;

/// A body on a [`Tether`]: the request's own, or one that its factory opens for a further attempt.
pub(crate) struct TiedBody<B> {
    source: TiedSource<B>,
    tether: Arc<Tether>,
    /// How much is still to come, where it is known how much there must be. A body that gives more or less is another one
    /// than was sent before.
    missing: Option<u64>,
    /// Opens another one, of this length if one is known.
    factory: BodyFactory,
    length: Option<u64>,
}

enum TiedSource<B> {
    /// None once it ended or failed: it must not be polled again.
    Own(Option<B>),
    Closed,
    // In locks, since neither a future nor what it opens need be `Sync`, and the body must.
    Opening(Mutex<OpenFuture>),
    Opened(Mutex<Option<UnsyncBoxBody<Bytes, BoxError>>>),
}

impl<B> TiedBody<B> {
    /// The first body of a request.
    pub(crate) fn first(body: B, factory: BodyFactory, length: Option<u64>, tether: Arc<Tether>) -> Self {
        Self { source: TiedSource::Own(Some(body)), tether, missing: None, factory, length }
    }

    /// A further body, which is opened when it is polled.
    pub(crate) fn closed(factory: BodyFactory, length: Option<u64>, tether: Arc<Tether>) -> Self {
        Self { source: TiedSource::Closed, tether, missing: length, factory, length }
    }

    /// Makes another body of the same kind, on a tether of its own.
    pub(crate) fn another(&self) -> Self {
        Self::closed(self.factory.clone(), self.length, Tether::new())
    }

    /// Opens the body, if it is not open yet.
    pub(crate) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if let TiedSource::Closed = self.source {
            self.source = TiedSource::Opening(Mutex::new(self.factory.open()));
        }
        let TiedSource::Opening(opening) = &mut self.source else { return Poll::Ready(Ok(())) };
        let opened = ready!(opening.get_mut().unwrap_or_else(PoisonError::into_inner).as_mut().poll(cx));
        self.source = TiedSource::Own(None);
        let body = opened?;
        // A transport goes by the length that was announced. It would cut the body short, or wait for the rest of it.
        if let (Some(announced), Some(length)) = (self.missing, body.size_hint().exact())
            && announced != length
        {
            let error =
                format!("the body was opened again with {length} bytes and not {announced} as before");
            return Poll::Ready(Err(error.into()));
        }
        self.source = TiedSource::Opened(Mutex::new(Some(body)));
        Poll::Ready(Ok(()))
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
        let frame = self.poll_source(cx);
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

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Err(error) = ready!(self.poll_open(cx)) {
            self.missing = None;
            return Poll::Ready(Some(Err(OfTheBody::new(error).into())));
        }
        match &mut self.source {
            TiedSource::Own(source) => poll_source(source, cx),
            TiedSource::Opened(source) => {
                poll_source(source.get_mut().unwrap_or_else(PoisonError::into_inner), cx)
            }
            TiedSource::Closed | TiedSource::Opening(_) => Poll::Pending,
        }
    }

    /// Counts what was given. Returns whether it was not too much.
    fn counts(&mut self, frame: &Frame<Bytes>) -> bool {
        let given = frame.data_ref().map_or(0, |data| u64::try_from(data.len()).unwrap_or(u64::MAX));
        let left = self.missing.map(|missing| missing.checked_sub(given));
        self.missing = left.flatten();
        left != Some(None)
    }

    fn is_short(&self) -> bool {
        self.missing.is_some_and(|missing| missing > 0)
    }

    fn broken(&mut self, how: &str) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.tether.fail();
        self.missing = None;
        self.source = TiedSource::Own(None);
        let error = format!("the body that was opened again is {how} than the first one");
        Poll::Ready(Some(Err(OfTheBody::new(error).into())))
    }

    pub(crate) fn is_over(&self) -> bool {
        let is_over = match &self.source {
            TiedSource::Own(source) => source.as_ref().is_none_or(B::is_end_stream),
            TiedSource::Closed | TiedSource::Opening(_) => false,
            TiedSource::Opened(source) => {
                let source = source.lock().unwrap_or_else(PoisonError::into_inner);
                source.as_ref().is_none_or(Body::is_end_stream)
            }
        };
        is_over && !self.tether.is_cut() && !self.is_short()
    }

    pub(crate) fn hint(&self) -> SizeHint {
        if self.tether.is_cut() {
            return SizeHint::default();
        }
        if let Some(missing) = self.missing {
            return SizeHint::with_exact(missing);
        }
        match &self.source {
            TiedSource::Own(source) => source.as_ref().map_or(SizeHint::with_exact(0), B::size_hint),
            TiedSource::Closed | TiedSource::Opening(_) => SizeHint::default(),
            TiedSource::Opened(source) => {
                let source = source.lock().unwrap_or_else(PoisonError::into_inner);
                source.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
            }
        }
    }
}
