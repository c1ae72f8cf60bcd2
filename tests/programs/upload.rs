//! A streamed file upload that is refused with a 401 while it goes on, and arrives whole at the second attempt.
//!
//! `cargo run --example upload`
//!
//! The file is larger than what is recorded of a body, so it is opened a second time: that costs no memory, whatever its
//! size. It takes one line, the extension on the request. The last line is checked, and the exit code is 1 if a figure in it
//! is off.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

#[path = "../support/servers/mod.rs"]
mod support;

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode};
use http_body::{Body, Frame, SizeHint};
use support::Api;
use tokio::fs::File;
use tokio::io::{AsyncRead as _, ReadBuf};
use tower::{BoxError, ServiceBuilder, ServiceExt as _};
use tower_oauth2::retry::{BodyFactory, RetryReport};
use tower_oauth2::test_util::{FakeAuthorizationServer, FakeClient};
use tower_oauth2::transport::HyperClient;
use tower_oauth2::{AuthLayer, ClientCredentials, RetryPolicy, TokenCache};

const LENGTH: usize = 12 * 1024 * 1024;

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    // What others run: an authorization server, and an API that refuses a token before it has read the body.
    let scanner = FakeClient::confidential("scanner", "hunter2").scopes("items:write");
    let server = FakeAuthorizationServer::builder().client(scanner).start().await?;
    let api = Api::builder(&server).start().await?;

    // What you write, once.
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

    // The token in the cache is revoked, and nobody here knows.
    cache.warm_up().await?;
    server.revoke_all();

    let read = Arc::new(AtomicU64::new(0));
    let request = Request::post(format!("{}/items", api.origin()))
        .header(Api::ITEM_ID, "scan-1")
        .header(Api::CONTENT_DIGEST, digest)
        .extension(file.factory())
        .body(FileBody::open(file.path(), Arc::clone(&read)).await?)?;
    let response = client.oneshot(request).await?;

    let (status, counts) = (response.status(), api.counts());
    let attempts = response.extensions().get::<RetryReport>().map_or(1, RetryReport::attempts);
    let sent = read.load(Ordering::Relaxed);
    println!("the first attempt was refused when {sent} of {LENGTH} bytes had been read from the file");
    println!("the second attempt: {status}");

    // The API compares the digest of what arrived, and accepts no item twice.
    let digest_equal = status == StatusCode::CREATED && counts.wrong_bodies == 0;
    let upstream_bodies = counts.ok;
    println!(
        "upload: bytes={LENGTH} digest_equal={digest_equal} attempts={attempts} upstream_bodies={upstream_bodies}"
    );
    let as_promised = digest_equal && attempts == 2 && upstream_bodies == 1 && counts.unauthorized == 1;
    Ok(if as_promised { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A file as a body: read while it is sent, in pieces of 64 KiB.
struct FileBody {
    file: File,
    left: u64,
    piece: BytesMut,
    read: Arc<AtomicU64>,
}

impl FileBody {
    async fn open(path: &Path, read: Arc<AtomicU64>) -> io::Result<Self> {
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
        let bytes = u64::try_from(filled).map_err(io::Error::other)?;
        this.left = this.left.saturating_sub(bytes);
        this.read.fetch_add(bytes, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(this.piece.split_to(filled).freeze()))))
    }

    /// The length becomes the `Content-Length` of every attempt.
    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// A file that goes away with the example.
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
        // Whoever cleans up the folder will.
        let _ = std::fs::remove_file(&self.0);
    }
}
