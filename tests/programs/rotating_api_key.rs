//! An API key in a file that processes share. It is rotated on schedule, by asking the API for the next one, and replaced
//! when an operator has put another into the file.

mod api;

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, io, process};

use axum::Router;
use http::{HeaderName, Request};
use http_body_util::BodyExt as _;
use secrecy::{ExposeSecret as _, SecretString};
use tower::{BoxError, ServiceBuilder, ServiceExt as _};
use tower_oauth2::{AccessToken, AuthLayer, Body, Error, ErrorKind, RetryPolicy, TokenRequest, TokenSource};

use api::{KeyedApi, ORIGIN};

const KEY_HEADER: HeaderName = HeaderName::from_static("x-api-key");

/// How long a key is used before the next one is asked for.
const ROTATE_AFTER: Duration = Duration::from_secs(2);

/// The source: the file with the key, and the client to ask the API with for the next one.
struct KeyFile {
    path: PathBuf,
    http: Router,
}

impl TokenSource for KeyFile {
    async fn token(&self, request: TokenRequest) -> Result<AccessToken, Error> {
        let key = self.read().await?;
        let is_known =
            |token: Option<&AccessToken>| token.is_some_and(|token| token.expose() == key.expose_secret());
        if is_known(request.rejected()) {
            // Only a person can help. The cache asks again in a while, and looks into the file then.
            let refused = "the API refuses the key in the file; put a new one there";
            return Err(Error::new(ErrorKind::Grant, refused));
        }
        // On schedule, unless another process has rotated it already.
        let key = if is_known(request.previous()) { self.rotate(&key).await? } else { key };
        Ok(AccessToken::bearer(key.expose_secret())?.with_lifetime(ROTATE_AFTER))
    }
}

impl KeyFile {
    async fn read(&self) -> Result<SecretString, Error> {
        let text = tokio::fs::read_to_string(&self.path).await.map_err(|error| {
            Error::new(
                ErrorKind::Config,
                "the file with the API key cannot be read; check its path and rights",
            )
            .with_source(error)
        })?;
        Ok(text.trim().into())
    }

    /// Has the API make the next key. It goes into the file before it is used. The key before is good for a while longer.
    async fn rotate(&self, key: &SecretString) -> Result<SecretString, Error> {
        let failed = |error: BoxError| {
            Error::new(ErrorKind::Transient, "the API made no new key; the old one stays in use")
                .with_source(error)
        };
        let request = Request::post(format!("{ORIGIN}/keys")).header(KEY_HEADER, key.expose_secret());
        let request = request.body(Body::empty()).map_err(|error| failed(error.into()))?;
        let response = self.http.clone().oneshot(request).await.map_err(|error| failed(error.into()))?;
        if !response.status().is_success() {
            return Err(failed("it said no".into()).with_status(response.status()));
        }
        let next = response.into_body().collect().await.map_err(|error| failed(error.into()))?.to_bytes();
        let next = String::from_utf8(next.into()).map_err(|error| failed(error.into()))?;
        let path = self.path.clone();
        let written = next.clone();
        let stored = tokio::task::spawn_blocking(move || write(&path, &written)).await;
        stored.map_err(io::Error::other).and_then(|stored| stored).map_err(|error| failed(error.into()))?;
        Ok(next.into())
    }
}

/// Replaces the file in one step: a reader gets the one key or the other. Only the owner may read it, and each process writes
/// a draft of its own.
fn write(path: &Path, key: &str) -> io::Result<()> {
    let draft = path.with_extension(format!("next-{}", process::id()));
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(&draft)?.write_all(key.as_bytes())?;
    fs::rename(draft, path)
}

#[tokio::test(start_paused = true)]
async fn keys_are_rotated_and_replaced_without_a_failed_request() -> Result<(), BoxError> {
    let api = KeyedApi::new();
    let folder = env::temp_dir().join(format!("rotating-api-key-{}", process::id()));
    fs::create_dir_all(&folder)?;
    let path = folder.join("api-key");
    write(&path, &api.first_key())?;
    let auth = AuthLayer::for_origin(KeyFile { path: path.clone(), http: api.service() }, ORIGIN)?;
    let client = ServiceBuilder::new()
        .layer(RetryPolicy::default())
        .layer(auth.header(KEY_HEADER))
        .service(api.service());

    for number in 0..200 {
        if number == 100 {
            // An operator suspects that a key has leaked.
            write(&path, &api.replace_all())?;
        }
        let request = Request::get(format!("{ORIGIN}/items/{number}")).body(Body::empty())?;
        assert_eq!(client.clone().oneshot(request).await?.status(), 200, "item {number}");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    fs::remove_dir_all(folder)?;

    let counts = api.counts();
    assert_eq!((counts.refused, counts.in_authorization), (1, 0));
    assert!(counts.rotations >= 2, "{counts:?}");
    Ok(())
}
