//! An API key that rotates: on schedule, by asking the API for the next one, and whenever somebody else has put another
//! into the file.
//!
//! ```sh
//! cargo run --example rotating_api_key
//! ```
//!
//! The key goes into a header of its own, without a scheme. It lies in a file that several processes may share, so this
//! source looks there first: another process may have been quicker. The next key is in the file before it is in use.
//!
//! Keys are good for two seconds of use. In the midst of it an operator withdraws them all, and leaves a new one in the
//! file. The exit code is 1 if a request failed, if a key was not replaced in time, or if the key showed up anywhere in
//! the header `Authorization`.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a program that measures and prints")]

#[path = "rotating_api_key/api.rs"]
mod api;

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use std::{env, io, process};

use http::{HeaderName, Request};
use http_body_util::BodyExt as _;
use secrecy::{ExposeSecret as _, SecretString};
use tower::{BoxError, ServiceBuilder, ServiceExt as _};
use tower_oauth2::transport::HyperClient;
use tower_oauth2::{AccessToken, AuthLayer, Body, Error, RetryPolicy, TokenCache, TokenRequest, TokenSource};

use api::KeyedApi;

const KEY_HEADER: HeaderName = HeaderName::from_static("x-api-key");

/// How long a key is used before the next one is asked for.
const ROTATE_AFTER: Duration = Duration::from_secs(2);

// --- What you write ---

/// The source: the file with the key, and where the API makes the next one.
struct KeyFile {
    path: PathBuf,
    rotation_url: String,
    http: HyperClient,
}

impl TokenSource for KeyFile {
    async fn token(&self, request: TokenRequest) -> Result<AccessToken, Error> {
        let key = self.read().await?;
        let is_known =
            |token: Option<&AccessToken>| token.is_some_and(|token| token.expose() == key.expose_secret());
        if is_known(request.rejected()) {
            // Only a human can help. The cache asks again in a while, and looks into the file then.
            let refused = "the API refuses the key in the file; put a new one there";
            return Err(Error::grant(refused));
        }
        // On schedule, unless another process has rotated it already.
        let key = if is_known(request.previous()) { self.rotate(&key).await? } else { key };
        Ok(AccessToken::bearer(key.expose_secret())?.with_lifetime(ROTATE_AFTER))
    }
}

impl KeyFile {
    async fn read(&self) -> Result<SecretString, Error> {
        let text = tokio::fs::read_to_string(&self.path).await.map_err(|error| {
            Error::config("the file with the API key cannot be read; check its path and rights")
                .with_source(error)
        })?;
        Ok(text.trim().into())
    }

    /// Has the API make the next key, which goes into the file before anybody uses it. The key before is good for a while
    /// longer.
    async fn rotate(&self, key: &SecretString) -> Result<SecretString, Error> {
        let failed = |error: BoxError| {
            Error::transient("the API made no new key; the old one stays in use").with_source(error)
        };
        let request = Request::post(&self.rotation_url).header(KEY_HEADER, key.expose_secret());
        let request = request.body(Body::empty()).map_err(|error| failed(error.into()))?;
        let answer = self.http.clone().oneshot(request).await.map_err(failed)?;
        if !answer.status().is_success() {
            return Err(failed("it said no".into()).with_status(answer.status()));
        }
        let next = answer.into_body().collect().await.map_err(failed)?.to_bytes();
        let next = String::from_utf8(next.into()).map_err(|error| failed(error.into()))?;
        let path = self.path.clone();
        let written = next.clone();
        let stored = tokio::task::spawn_blocking(move || write(&path, &written)).await;
        stored.map_err(io::Error::other).and_then(|stored| stored).map_err(|error| failed(error.into()))?;
        Ok(next.into())
    }
}

/// Replaces the file in one step: whoever reads it meanwhile gets the one key or the other. Nobody but its owner may read
/// it, and each process writes a draft of its own.
fn write(path: &Path, key: &str) -> io::Result<()> {
    let draft = path.with_extension(format!("next-{}", process::id()));
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(&draft)?.write_all(key.as_bytes())?;
    fs::rename(draft, path)
}

// --- What it is good for ---

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let api = KeyedApi::start().await?;
    let folder = env::temp_dir().join(format!("rotating-api-key-{}", process::id()));
    fs::create_dir_all(&folder)?;
    let path = folder.join("api-key");
    write(&path, &api.first_key())?;
    let done = call(&api, &path).await;
    fs::remove_dir_all(folder)?;
    let (requests, failed) = done?;

    let counts = api.counts();
    println!(
        "rotating_api_key: requests={requests} failed={failed} rotations={} refused={} in_authorization={}",
        counts.rotations, counts.refused, counts.in_authorization
    );
    let as_it_should =
        (failed, counts.in_authorization) == (0, 0) && counts.refused > 0 && counts.rotations >= 2;
    Ok(if as_it_should { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Sends requests for six seconds, and returns how many, and how many failed.
async fn call(api: &KeyedApi, path: &Path) -> Result<(u32, u32), BoxError> {
    let rotation_url = format!("{}/keys", api.origin());
    let source = KeyFile { path: path.to_owned(), rotation_url, http: HyperClient::new() };
    let cache = TokenCache::new(source);
    let auth = AuthLayer::for_origin(cache.clone(), api.origin())?.header(KEY_HEADER);
    let client = ServiceBuilder::new().layer(RetryPolicy::default()).layer(auth).service(HyperClient::new());

    let (mut requests, mut failed) = (0, 0);
    while requests < 200 {
        if requests == 100 {
            // An operator suspects that a key has leaked.
            write(path, &api.replace_all())?;
        }
        let request = Request::get(format!("{}/items/{requests}", api.origin()));
        let answer = client.clone().oneshot(request.body(Body::empty())?).await?;
        requests += 1;
        failed += u32::from(!answer.status().is_success());
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    Ok((requests, failed))
}
