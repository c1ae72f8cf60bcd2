//! The body of a response that went through the retry layer.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower::BoxError;

pin_project! {
    /// The body of a response that went through a [`RetryService`](super::RetryService).
    ///
    /// It is the inner service's body, frame for frame. Only a response that is handed back after its body had to be
    /// given up (rule 8 of the [room](super)) ends in an [`Abandoned`] error, so that it never looks complete. Hence
    /// the error type is the boxed one.
    pub struct RetryBody<B> {
        #[pin]
        inner: Inner<B>,
    }
}

pin_project! {
    #[project = InnerProj]
    enum Inner<B> {
        Whole { #[pin] body: B },
        Abandoned { told: bool },
    }
}

/// Why a response body ends early: it was given up while a replay was tried, and the replay could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abandoned(());

impl<B> RetryBody<B> {
    pub(crate) fn whole(body: B) -> Self {
        Self { inner: Inner::Whole { body } }
    }

    pub(crate) fn abandoned() -> Self {
        Self { inner: Inner::Abandoned { told: false } }
    }

    /// Returns the inner service's body; none if it had to be given up.
    pub fn into_inner(self) -> Option<B> {
        match self.inner {
            Inner::Whole { body } => Some(body),
            Inner::Abandoned { .. } => None,
        }
    }
}

impl<B> Body for RetryBody<B>
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
        match self.project().inner.project() {
            InnerProj::Whole { body } => body.poll_frame(cx).map_err(Into::into),
            InnerProj::Abandoned { told: true } => Poll::Ready(None),
            InnerProj::Abandoned { told } => {
                *told = true;
                Poll::Ready(Some(Err(Abandoned(()).into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Whole { body } => body.is_end_stream(),
            Inner::Abandoned { told } => *told,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Whole { body } => body.size_hint(),
            Inner::Abandoned { .. } => SizeHint::default(),
        }
    }
}

impl<B: Default> Default for RetryBody<B> {
    fn default() -> Self {
        Self::whole(B::default())
    }
}

impl<B> fmt::Debug for RetryBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let abandoned = matches!(self.inner, Inner::Abandoned { .. });
        f.debug_struct("RetryBody").field("abandoned", &abandoned).finish_non_exhaustive()
    }
}

// --- Abandoned ---

impl fmt::Display for Abandoned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this response's body was given up to make a replay possible, and there was no replay")
    }
}

impl Error for Abandoned {}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::{BodyExt as _, Full};

    use super::*;

    #[tokio::test]
    async fn a_whole_body_is_the_inner_one() {
        let trailers =
            http::HeaderMap::from_iter([(http::header::ETAG, http::HeaderValue::from_static("x"))]);
        let inner = Full::<Bytes>::from("data").with_trailers(std::future::ready(Some(Ok(trailers.clone()))));
        let body = RetryBody::whole(inner);
        assert_eq!((body.size_hint().lower(), body.is_end_stream()), (4, false));
        let collected = body.collect().await.unwrap();
        assert_eq!(collected.trailers(), Some(&trailers));
        assert_eq!(collected.to_bytes(), "data");
        let empty = RetryBody::<Full<Bytes>>::default();
        assert!(empty.is_end_stream() && empty.into_inner().is_some());
    }

    #[tokio::test]
    async fn an_abandoned_body_ends_in_an_error_and_not_before() {
        let mut body = RetryBody::<Full<Bytes>>::abandoned();
        assert!(!body.is_end_stream() && body.size_hint().exact().is_none());
        assert!(body.frame().await.unwrap().unwrap_err().is::<Abandoned>());
        assert!(body.is_end_stream() && body.frame().await.is_none());
        assert!(body.into_inner().is_none());
    }
}
