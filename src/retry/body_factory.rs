//! Opens a request body anew for each further attempt.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use tower::BoxError;

/// Opens a request body anew for each further attempt, so that nothing of it has to be recorded.
///
/// In a request's extensions it makes a body of any size replayable at constant memory: a file, or anything else that can be
/// read twice.
///
/// 1. The first attempt sends the request's own body, unrecorded and of any length.
/// 2. For each further attempt the factory is called once: after the wait, so that no file stays open for it, and before
///    the inner service is made ready, so that no permit of it is held meanwhile. If no attempt follows, it is not called.
/// 3. The body that it opens is sent from its beginning. It must be the same again. If the request names a `Content-Length`, or
///    the first body said how long it is or was sent to its end, a body that announces another length is refused, and one that
///    turns out to be longer or shorter ends in an error, never as if it were whole.
/// 4. The body of the attempt before ends in an error at its next poll, wherever that is.
/// 5. If it fails, or takes longer than the request has, the response before is returned with
///    [`StopReason::BodyNotReopened`](super::StopReason::BodyNotReopened), and
///    [`RetryReport::error`](super::RetryReport::error) says why.
/// 6. Where the body of an attempt failed by itself, it is not opened again: the next one would fail in the same way.
/// 7. Under a `Stack` it is called once more for each 307 or 308 that is followed.
/// 8. It is not called for a request without a body: a redirect makes a GET of an upload, and leaves the extensions.
///
/// # Examples
///
/// ```
/// use bytes::Bytes;
/// use http::Request;
/// use http_body_util::Full;
/// use tower_oauth2::retry::BodyFactory;
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// # let path = std::env::temp_dir().join(format!("tower-oauth2-body-factory-{}", std::process::id()));
/// # std::fs::write(&path, "a report")?;
/// // A real file would be streamed, by `tokio_util::io::ReaderStream` for example.
/// async fn open(path: std::path::PathBuf) -> std::io::Result<Full<Bytes>> {
///     Ok(Full::from(tokio::fs::read(path).await?))
/// }
///
/// let again = path.clone();
/// let request = Request::put("https://api.example.com/reports/7")
///     .extension(BodyFactory::new(move || open(again.clone())))
///     .body(open(path.clone()).await?)?;
/// # std::fs::remove_file(&path)?;
/// # Ok::<_, tower::BoxError>(()) })?;
/// # Ok::<_, tower::BoxError>(())
/// ```
#[derive(Clone)]
pub struct BodyFactory {
    open: Arc<dyn Fn() -> OpenFuture + Send + Sync>,
}

/// A body that is being opened.
pub(super) type OpenFuture =
    Pin<Box<dyn Future<Output = Result<UnsyncBoxBody<Bytes, BoxError>, BoxError>> + Send>>;

impl BodyFactory {
    /// Creates a factory from a closure that opens the body. It is independent of the type of the request's own body.
    pub fn new<F, Fut, B, E>(open: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<B, E>> + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
        E: Into<BoxError>,
    {
        let open = Arc::new(open);
        let open = move || -> OpenFuture {
            let open = Arc::clone(&open);
            Box::pin(async move {
                let body = open().await.map_err(Into::into)?;
                Ok(body.map_err(Into::into).boxed_unsync())
            })
        };
        Self { open: Arc::new(open) }
    }

    /// Opens the body when it is polled.
    pub(super) fn open(&self) -> OpenFuture {
        (self.open)()
    }
}

impl fmt::Debug for BodyFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyFactory").finish_non_exhaustive()
    }
}
