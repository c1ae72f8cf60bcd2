//! The body of a response as it comes from the network.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tower::BoxError;

#[cfg(feature = "hyper-client")]
use super::hyper::HyperBody;

/// The body of a response of `HyperClient` or `ReqwestClient`. Its errors are those of hyper or reqwest.
pub struct IncomingBody {
    inner: IncomingKind,
}

enum IncomingKind {
    #[cfg(feature = "hyper-client")]
    Hyper(HyperBody),
    #[cfg(feature = "reqwest")]
    Reqwest(reqwest::Body),
}

impl IncomingBody {
    #[cfg(feature = "hyper-client")]
    pub(super) fn of_hyper(body: HyperBody) -> Self {
        Self { inner: IncomingKind::Hyper(body) }
    }

    #[cfg(feature = "reqwest")]
    pub(super) fn of_reqwest(body: reqwest::Body) -> Self {
        Self { inner: IncomingKind::Reqwest(body) }
    }
}

impl Body for IncomingBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.inner {
            #[cfg(feature = "hyper-client")]
            IncomingKind::Hyper(body) => Pin::new(body).poll_frame(cx),
            #[cfg(feature = "reqwest")]
            IncomingKind::Reqwest(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            #[cfg(feature = "hyper-client")]
            IncomingKind::Hyper(body) => body.is_end_stream(),
            #[cfg(feature = "reqwest")]
            IncomingKind::Reqwest(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            #[cfg(feature = "hyper-client")]
            IncomingKind::Hyper(body) => body.size_hint(),
            #[cfg(feature = "reqwest")]
            IncomingKind::Reqwest(body) => body.size_hint(),
        }
    }
}

impl fmt::Debug for IncomingBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IncomingBody").finish_non_exhaustive()
    }
}
