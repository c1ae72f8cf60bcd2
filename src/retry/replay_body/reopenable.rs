//! A body that can be opened anew, for a redirect that repeats an upload.

use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tower::BoxError;

use super::takeover::poll_source;
use super::tether::Tether;
use super::tied::{SyncBody, TiedBody};
use crate::error::OfTheBody;
use crate::retry::body_factory::{BodyFactory, OpenFuture};

/// What is sent first, or what a factory opens when it is first polled.
pub(crate) struct Reopenable<B> {
    factory: BodyFactory,
    /// Of the first body, if it said so.
    length: Option<u64>,
    state: ReopenableState<B>,
}

enum ReopenableState<B> {
    /// None once it ended or failed.
    First(Option<B>),
    Closed,
    /// In a lock, since a future need not be `Sync` and the body must.
    Opening(Mutex<OpenFuture>),
    Opened(TiedBody<SyncBody>),
}

impl<B> Reopenable<B> {
    /// Makes another body of the same kind, which is opened when it is polled.
    pub(crate) fn another(&self) -> Self {
        Self { factory: self.factory.clone(), length: self.length, state: ReopenableState::Closed }
    }
}

impl<B> Reopenable<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    pub(crate) fn new(body: B, factory: BodyFactory) -> Self {
        let length = body.size_hint().exact();
        Self { factory, length, state: ReopenableState::First(Some(body)) }
    }

    /// Polls for the next frame.
    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        ended: &'static str,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            match &mut self.state {
                ReopenableState::First(source) => return poll_source(source, cx),
                ReopenableState::Opened(opened) => return opened.poll_next(cx, ended),
                ReopenableState::Closed => {
                    self.state = ReopenableState::Opening(Mutex::new(self.factory.open()))
                }
                ReopenableState::Opening(opening) => {
                    let opening = opening.get_mut().unwrap_or_else(PoisonError::into_inner);
                    match ready!(opening.as_mut().poll(cx)) {
                        Ok(body) => {
                            self.state =
                                ReopenableState::Opened(TiedBody::opened(body, Tether::new(), self.length));
                        }
                        Err(error) => {
                            self.state = ReopenableState::First(None);
                            return Poll::Ready(Some(Err(OfTheBody::new(error).into())));
                        }
                    }
                }
            }
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        match &self.state {
            ReopenableState::First(source) => source.as_ref().is_none_or(B::is_end_stream),
            ReopenableState::Closed | ReopenableState::Opening(_) => false,
            ReopenableState::Opened(opened) => opened.is_over(),
        }
    }

    pub(crate) fn hint(&self) -> SizeHint {
        match &self.state {
            ReopenableState::First(source) => source.as_ref().map_or(SizeHint::with_exact(0), B::size_hint),
            ReopenableState::Closed | ReopenableState::Opening(_) => {
                self.length.map_or_else(SizeHint::new, SizeHint::with_exact)
            }
            ReopenableState::Opened(opened) => opened.hint(),
        }
    }
}
