//! Sends an API key in a header of its own, and rotates the key on schedule.
//!
//! ```sh
//! cargo run --example rotating_api_key
//! ```

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::path::PathBuf;
use std::time::Duration;
use std::{env, process};

use http::{HeaderName, Request, Response};
use tower::{BoxError, service_fn};
use tower_oauth2::{AccessToken, ApiClient, Body, Error, ErrorKind, TokenRequest, TokenSource};

const KEY_HEADER: HeaderName = HeaderName::from_static("x-api-key");

/// How long a key is used. Days, in a program of yours.
const ROTATE_AFTER: Duration = Duration::from_secs(2);

/// The file with the key, which several processes may share.
struct KeyFile {
    path: PathBuf,
}

impl TokenSource for KeyFile {
    async fn token(&self, request: TokenRequest) -> Result<AccessToken, Error> {
        let unreadable = |error| Error::new(ErrorKind::Config, "no key can be read").with_source(error);
        let stored = tokio::fs::read_to_string(&self.path).await.map_err(unreadable)?;
        let is_stored = |token: &AccessToken| token.expose() == stored;
        if request.rejected().is_some_and(is_stored) {
            return Err(Error::new(ErrorKind::Grant, "the API refuses the key in the file"));
        }
        // If the file has another key than the last time, another process has rotated it already.
        let key = match request.previous().is_some_and(is_stored) {
            true => self.rotate(&stored).await?,
            false => stored,
        };
        Ok(AccessToken::bearer(key)?.with_lifetime(ROTATE_AFTER))
    }
}

impl KeyFile {
    /// Has the API make the next key, and stores it before it is used.
    async fn rotate(&self, key: &str) -> Result<String, Error> {
        let next = next_key(key);
        let failed = |error| Error::new(ErrorKind::Transient, "the key was not stored").with_source(error);
        // In one step, so that another process never reads half a key.
        let draft = self.path.with_extension(process::id().to_string());
        tokio::fs::write(&draft, &next).await.map_err(failed)?;
        tokio::fs::rename(draft, &self.path).await.map_err(failed)?;
        Ok(next)
    }
}

/// Stands for a request to your API.
fn next_key(key: &str) -> String {
    format!("{key}+")
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let path = env::temp_dir().join(format!("rotating_api_key-{}", process::id()));
    tokio::fs::write(&path, "key").await?;
    // This stands for your API.
    let fake = service_fn(async |request: Request<Body>| {
        let shown = format!("a report for {:?}", request.headers()[KEY_HEADER].to_str()?);
        Ok::<_, BoxError>(Response::new(Body::from(shown)))
    });

    let builder = ApiClient::builder("https://api.example.com", KeyFile { path: path.clone() });
    let api = builder.auth(|layer| layer.header(KEY_HEADER)).build_with(fake)?;
    for second in 0..5 {
        println!("{second} s: {}", api.get("reports").send().await?.error_for_status()?.text().await?);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    tokio::fs::remove_file(path).await?;
    Ok(())
}
