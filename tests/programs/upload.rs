//! A streamed file that is refused with a 401 while it goes up, over a real connection. It is larger than what is recorded of a
//! body, so it is opened a second time.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::fs::File;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::task::yield_now;
use tower::{BoxError, ServiceBuilder, ServiceExt as _};
use tower_oauth2::retry::{BodyFactory, RetryReport};
use tower_oauth2::test_util::{FakeAuthorizationServer, FakeClient};
use tower_oauth2::transport::HyperClient;
use tower_oauth2::{AuthLayer, ClientCredentials, RetryPolicy, TokenCache};

use crate::servers::Api;

const LENGTH: usize = 12 * 1024 * 1024;

#[tokio::test]
async fn a_file_that_is_refused_on_its_way_up_arrives_whole_and_once() -> Result<(), BoxError> {
    // The API refuses a token without having read the body.
    let scanner = FakeClient::confidential("scanner", "hunter2").scopes("items:write");
    let server = FakeAuthorizationServer::builder().client(scanner).start().await?;
    let api = Api::builder(&server).start().await?;
    let source =
        ClientCredentials::builder(server.token_url(), "scanner", "hunter2").scope("items:write").build()?;
    let cache = TokenCache::new(source);
    let client = ServiceBuilder::new()
        .layer(RetryPolicy::default())
        .layer(AuthLayer::for_origin(cache.clone(), api.origin())?)
        .service(HyperClient::new());

    let content: Vec<u8> = (0..LENGTH).map(|at| at.to_le_bytes()[at % 4]).collect();
    let digest = Api::content_digest(&content);
    let file = TemporaryFile::with(&content)?;
    drop(content);

    // The token in the cache is revoked, and the cache does not know.
    cache.get().await?;
    server.revoke_all();

    let read = Arc::new(AtomicUsize::new(0));
    let request = Request::post(format!("{}/items", api.origin()))
        .header(Api::ITEM_ID, "scan-1")
        .header(Api::CONTENT_DIGEST, digest)
        .extension(file.factory())
        .body(FileBody::open(file.path(), Arc::clone(&read)).await?)?;
    // The API looks at the token when a part of the file is on its way.
    api.hold(true);
    let let_go = async {
        while read.load(Relaxed) == 0 {
            yield_now().await;
        }
        api.hold(false);
    };
    let (response, ()) = tokio::join!(client.oneshot(request), let_go);
    let response = response?;

    // The API compares the digest of what arrived, and accepts no item twice.
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(response.extensions().get::<RetryReport>().map(RetryReport::attempts), Some(2));
    let counts = api.counts();
    assert_eq!((counts.ok, counts.unauthorized, counts.wrong_bodies), (1, 1, 0));
    Ok(())
}

/// A file as a body: read while it is sent, in pieces of 64 KiB.
struct FileBody {
    file: File,
    left: u64,
    piece: BytesMut,
    read: Arc<AtomicUsize>,
}

impl FileBody {
    async fn open(path: &Path, read: Arc<AtomicUsize>) -> io::Result<Self> {
        let file = File::open(path).await?;
        let left = file.metadata().await?.len();
        Ok(Self { file, left, piece: BytesMut::new(), read })
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        if this.left == 0 {
            return Poll::Ready(None);
        }
        this.piece.resize(64 * 1024, 0);
        let mut buffer = ReadBuf::new(&mut this.piece);
        ready!(Pin::new(&mut this.file).poll_read(cx, &mut buffer))?;
        let filled = buffer.filled().len();
        if filled == 0 {
            return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
        }
        this.left = this.left.saturating_sub(filled as u64);
        this.read.fetch_add(filled, Relaxed);
        Poll::Ready(Some(Ok(Frame::data(this.piece.split_to(filled).freeze()))))
    }

    /// The length becomes the `Content-Length` of every attempt.
    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// A file that goes away with the test.
struct TemporaryFile(PathBuf);

impl TemporaryFile {
    fn with(content: &[u8]) -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("tower-oauth2-upload-{}", std::process::id()));
        std::fs::write(&path, content)?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }

    /// Opens the file again for each further attempt, when it is needed and not before.
    fn factory(&self) -> BodyFactory {
        let path = self.0.clone();
        BodyFactory::new(move || {
            let path = path.clone();
            async move { FileBody::open(&path, Arc::default()).await }
        })
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        // A file that stays in the temporary folder does no harm.
        let _ = std::fs::remove_file(&self.0);
    }
}
