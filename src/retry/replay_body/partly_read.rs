//! A body that was read in part.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tower::BoxError;

use super::allowance::HeldBytes;

/// A body that was read in part: the frames that were, then the rest of it.
pub(crate) struct PartlyRead<S, D> {
    frames: VecDeque<Frame<D>>,
    /// How much data is in `frames`.
    bytes: u64,
    /// None once it ended or failed, or was given up.
    rest: Option<S>,
    /// The error at the end, where the body does not end well.
    error: Option<BoxError>,
    /// The memory for the frames. It is given back with the last of them.
    held: HeldBytes,
    /// How much there is besides the data: of a head that is kept with it, and of trailers.
    besides: u64,
}

/// The size of one read as a rule: a frame of h2, or a read of HTTP/1.1.
const READ: u64 = 16 * 1024;

/// The memory for a frame besides its data.
const LEAST: u64 = 128;

/// The error of a body whose rest was given up while a replay was tried, where the replay could not be made.
const ABANDONED: &str =
    "the rest of this response was given up to make a replay possible, and there was no replay";

impl<S, D> Unpin for PartlyRead<S, D> {}

impl<S, D: Buf> PartlyRead<S, D> {
    pub(crate) fn new(frames: VecDeque<Frame<D>>, rest: Option<S>, held: HeldBytes) -> Self {
        let bytes = frames.iter().map(data_len).fold(0, u64::saturating_add);
        Self { frames, bytes, rest, error: None, held, besides: 0 }
    }

    /// A body that fails when it is read.
    pub(crate) fn failed(error: BoxError) -> Self {
        Self { error: Some(error), ..Self::new(VecDeque::new(), None, HeldBytes::default()) }
    }

    /// Returns the frames that were read and are still here.
    pub(crate) fn frames(&self) -> &VecDeque<Frame<D>> {
        &self.frames
    }

    /// Returns how much data they have.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Counts what is read from here on against `held`, and the head that is kept with it.
    pub(crate) fn count(&mut self, held: HeldBytes, head: &HeaderMap) {
        self.held = held;
        self.besides = self.besides.saturating_add(headers_len(head));
    }

    /// Returns whether there is memory for as much as is read at once as a rule.
    pub(crate) fn has_room(&mut self) -> bool {
        self.held.cover(self.weight().saturating_add(READ))
    }

    /// Gives up what was not read yet, and the last frame if there was no memory for it.
    pub(crate) fn abandon(&mut self) {
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
        self.bytes.saturating_add(frames.saturating_mul(LEAST)).saturating_add(self.besides)
    }
}

impl<S> PartlyRead<S, S::Data>
where
    S: Body + Unpin,
    S::Error: Into<BoxError>,
{
    /// Reads one more frame, to be kept here. Returns whether there was one.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        Poll::Ready(match ready!(poll_rest(&mut self.rest, cx)) {
            Some(Ok(frame)) => {
                self.bytes = self.bytes.saturating_add(data_len(&frame));
                self.besides = self.besides.saturating_add(frame.trailers_ref().map_or(0, headers_len));
                self.frames.push_back(frame);
                true
            }
            Some(Err(error)) => {
                self.error = Some(error.into());
                false
            }
            None => false,
        })
    }
}

impl<S> Body for PartlyRead<S, S::Data>
where
    S: Body + Unpin,
    S::Error: Into<BoxError>,
{
    type Data = S::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<S::Data>, BoxError>>> {
        let this = self.get_mut();
        if let Some(frame) = this.frames.pop_front() {
            this.bytes = this.bytes.saturating_sub(data_len(&frame));
            if this.frames.is_empty() {
                this.held = HeldBytes::default();
            }
            return Poll::Ready(Some(Ok(frame)));
        }
        Poll::Ready(match ready!(poll_rest(&mut this.rest, cx)) {
            Some(frame) => Some(frame.map_err(Into::into)),
            None => this.error.take().map(Err),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.error.is_none() && self.frames.is_empty() && self.rest.as_ref().is_none_or(S::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let hint = size_hint(self.bytes, self.rest.as_ref());
        if self.error.is_none() {
            return hint;
        }
        let mut open = SizeHint::new();
        open.set_lower(hint.lower());
        open
    }
}

/// The result of reading a frame.
type FrameResult<S> = Result<Frame<<S as Body>::Data>, <S as Body>::Error>;

/// Polls the rest of a body, and lets it go as soon as it ended or failed: it is not polled again.
#[inline]
pub(crate) fn poll_rest<S: Body + Unpin>(
    rest: &mut Option<S>,
    cx: &mut Context<'_>,
) -> Poll<Option<FrameResult<S>>> {
    let Some(body) = rest else { return Poll::Ready(None) };
    let frame = Pin::new(&mut *body).poll_frame(cx);
    let is_over = match &frame {
        Poll::Pending => false,
        Poll::Ready(None | Some(Err(_))) => true,
        Poll::Ready(Some(Ok(_))) => body.is_end_stream(),
    };
    if is_over {
        *rest = None;
    }
    frame
}

/// Returns the size of a body that was read in part: so many bytes, and the rest.
pub(crate) fn size_hint<S: Body>(bytes: u64, rest: Option<&S>) -> SizeHint {
    let rest = rest.map_or(SizeHint::with_exact(0), S::size_hint);
    let mut hint = SizeHint::new();
    if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(bytes)) {
        hint.set_upper(upper);
    }
    hint.set_lower(rest.lower().saturating_add(bytes));
    hint
}

fn headers_len(headers: &HeaderMap) -> u64 {
    let length = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>();
    u64::try_from(length).unwrap_or(u64::MAX)
}

pub(crate) fn data_len<D: Buf>(frame: &Frame<D>) -> u64 {
    frame.data_ref().map_or(0, |data| u64::try_from(data.remaining()).unwrap_or(u64::MAX))
}
