//! One body type for requests and responses.

use std::any::Any;
use std::fmt;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use pin_project_lite::pin_project;
use tower::BoxError;

/// A request or response body whose inner type is hidden. Empty by default.
///
/// It is what an [`ApiClient`](crate::client::ApiClient) sends and returns, so that neither has a body parameter. Bytes in
/// memory are kept as they are; any other body costs one allocation.
///
/// # Examples
///
/// ```
/// use http_body_util::BodyExt as _;
/// use tower_oauth2::Body;
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let body = Body::from("name=ann");
/// assert_eq!(body.collect().await?.to_bytes(), "name=ann");
/// # Ok::<_, tower::BoxError>(())
/// # })?;
/// # Ok::<_, tower::BoxError>(())
/// ```
#[derive(Default)]
pub struct Body {
    inner: BodyKind,
}

enum BodyKind {
    Bytes(Bytes),
    Boxed(UnsyncBoxBody<Bytes, BoxError>),
}

impl Body {
    /// Hides the type of `body`, which may be a stream. Data that is not in [`Bytes`] is copied into them. A `Body` is
    /// returned as it is.
    pub fn new<B>(body: B) -> Self
    where
        B: HttpBody + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let mut body = Some(body);
        if let Some(body) = (&mut body as &mut dyn Any).downcast_mut::<Option<Self>>() {
            return body.take().unwrap_or_default();
        }
        let Some(body) = body else { return Self::default() };
        let inner = Converted { inner: body };
        Self { inner: BodyKind::Boxed(inner.boxed_unsync()) }
    }

    /// Returns a body without any data.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Returns the bytes of a body in memory.
    pub(crate) fn bytes(&self) -> Option<&Bytes> {
        match &self.inner {
            BodyKind::Bytes(bytes) => Some(bytes),
            BodyKind::Boxed(_) => None,
        }
    }
}

pin_project! {
    /// A body with the data and the error of [`Body`]. `map_frame` forgets how long a body is, which would go out in chunks.
    struct Converted<B> {
        #[pin]
        inner: B,
    }
}

impl<B> HttpBody for Converted<B>
where
    B: HttpBody,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = self.project().inner.poll_frame(cx).map_err(Into::into);
        polled.map_ok(|frame| frame.map_data(|mut data| data.copy_to_bytes(data.remaining())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.inner {
            BodyKind::Bytes(bytes) if bytes.is_empty() => Poll::Ready(None),
            BodyKind::Bytes(bytes) => Poll::Ready(Some(Ok(Frame::data(mem::take(bytes))))),
            BodyKind::Boxed(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            BodyKind::Bytes(bytes) => bytes.is_empty(),
            BodyKind::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            // A length always fits: Rust has no platform of more than 64 bits.
            BodyKind::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            BodyKind::Boxed(body) => body.size_hint(),
        }
    }
}

impl Default for BodyKind {
    fn default() -> Self {
        Self::Bytes(Bytes::new())
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self { inner: BodyKind::Bytes(bytes) }
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from(Bytes::from(bytes))
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Self {
        Self::from(Bytes::from_static(bytes))
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::from(Bytes::from(text))
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Self::from(Bytes::from(text))
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::HeaderMap;
    use http_body_util::{Full, StreamBody};

    use super::*;

    fn stream() -> Body {
        let trailers = HeaderMap::from_iter([(http::header::ETAG, "1".parse().unwrap())]);
        let frames = [Frame::data(Bytes::from("one ")), Frame::data("two".into()), Frame::trailers(trailers)];
        Body::new(StreamBody::new(futures_util::stream::iter(frames.map(Ok::<_, Infallible>))))
    }

    #[tokio::test]
    async fn what_is_inside_comes_out_with_its_length_and_its_trailers() {
        let bytes = Body::from(vec![b'x'; 3]);
        assert_eq!((bytes.size_hint().exact(), bytes.is_end_stream()), (Some(3), false));
        assert_eq!(bytes.collect().await.unwrap().to_bytes(), "xxx");
        assert!(Body::empty().is_end_stream() && Body::from("").is_end_stream());
        let full = Body::new(Full::new(std::io::Cursor::new("text")));
        assert_eq!((full.size_hint().exact(), full.is_end_stream()), (Some(4), false));
        assert_eq!(full.collect().await.unwrap().to_bytes(), "text");
        assert_eq!(stream().size_hint().exact(), None);
        let collected = stream().collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["etag"], "1");
        assert_eq!(collected.to_bytes(), "one two");
    }

    #[tokio::test]
    async fn a_body_is_not_boxed_twice() {
        assert!(matches!(Body::new(Body::from("text")).inner, BodyKind::Bytes(bytes) if bytes == "text"));
        let twice = allocation_counter::measure(|| drop(Body::new(Body::new(stream()))));
        let once = allocation_counter::measure(|| drop(stream()));
        assert_eq!(twice.count_total, once.count_total);
    }
}
