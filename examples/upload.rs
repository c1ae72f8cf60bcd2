//! Streams a file of any size, and sends it again from its beginning if the API refuses the token.
//!
//! ```sh
//! cargo run --example upload
//! ```

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::path::PathBuf;
use std::{env, fs, io, process};

use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::{Router, routing::put};
use bytes::BytesMut;
use futures_util::stream;
use http::header::CONTENT_LENGTH;
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;
use tower::BoxError;
use tower_oauth2::retry::{BodyFactory, RetryReport};
use tower_oauth2::test_util::{FakeApi, FakeAuthorizationServer, FakeClient};
use tower_oauth2::{ApiClient, Body, ClientCredentials};

/// Larger than what the retry layer records of a stream, which is 1 MiB.
const LENGTH: usize = 12 * 1024 * 1024;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // These stand for your provider and your API.
    let scanner = FakeClient::confidential("scanner", "hunter2");
    let provider = FakeAuthorizationServer::builder().client(scanner).start().await?;
    let store = put(async |scan: Bytes| format!("{} bytes arrived", scan.len()));
    let store = Router::new().route("/scans/1", store).layer(DefaultBodyLimit::disable());
    let server = FakeApi::builder(&provider).service(store).start().await?;

    let source = ClientCredentials::builder(provider.token_url(), "scanner", "hunter2").build()?;
    let api = ApiClient::connect(server.origin(), source)?;

    let path = env::temp_dir().join(format!("upload-{}", process::id()));
    fs::write(&path, vec![7; LENGTH])?;
    // The API will refuse the token in the cache while the file goes up.
    api.tokens().get().await?;
    provider.revoke_all();

    // Opens the file for each attempt after the first one.
    let again = path.clone();
    let again = BodyFactory::new(move || open(again.clone()));
    let request =
        api.put("scans/1").header(CONTENT_LENGTH, LENGTH).extension(again).body(open(path.clone()).await?);
    let response = request.send().await?.error_for_status()?;
    let attempts = response.extensions().get::<RetryReport>().map_or(1, RetryReport::attempts);
    println!("{} at attempt {attempts}", response.text().await?);

    fs::remove_file(path)?;
    Ok(())
}

/// Opens a file as a body, which is read in pieces while it is sent.
async fn open(path: PathBuf) -> io::Result<Body> {
    let file = File::open(path).await?;
    let frames = stream::try_unfold(file, async |mut file| {
        let mut piece = BytesMut::with_capacity(64 * 1024);
        let length = file.read_buf(&mut piece).await?;
        Ok::<_, io::Error>((length > 0).then(|| (Frame::data(piece.freeze()), file)))
    });
    Ok(Body::new(StreamBody::new(frames)))
}
