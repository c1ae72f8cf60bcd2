//! A secret in a file, read off the async thread and with a cap.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};

use crate::error::TokenError;

/// A secret file may not be longer than this.
const MAX_FILE: u64 = 64 * 1024;

/// A file that cannot be used is read again after these waits: it may be just being written.
const WAITS: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
];

/// Reads a secret from a regular file of at most 64 KiB in UTF-8. What an editor leaves at its ends is removed. `what` is what it is
/// called in messages.
pub(crate) async fn read(what: &str, path: Arc<Path>) -> Result<SecretString, TokenError> {
    read_as(what, path, |secret| Ok(secret.into())).await
}

/// Reads a secret as [`read`] does, and makes something of it. What cannot be used may be just being written.
pub(crate) async fn read_as<T>(
    what: &str,
    path: Arc<Path>,
    make: impl Fn(&str) -> Result<T, TokenError>,
) -> Result<T, TokenError> {
    let mut waits = WAITS.into_iter();
    loop {
        let error = match read_once(what, Arc::clone(&path)).await.and_then(|text| make(text.expose_secret()))
        {
            Ok(made) => return Ok(made),
            Err(error) => error,
        };
        let Some(wait) = waits.next() else { return Err(error) };
        tokio::time::sleep(wait).await;
    }
}

async fn read_once(what: &str, path: Arc<Path>) -> Result<SecretString, TokenError> {
    let name = what.to_owned();
    // A disk may be a network away.
    tokio::task::spawn_blocking(move || read_now(&name, &path))
        .await
        .map_err(|_| TokenError::transient(format!("the runtime shut down while the {what} was read")))?
}

fn read_now(what: &str, path: &Path) -> Result<SecretString, TokenError> {
    let refuse = |why: &str| {
        TokenError::transient(format!("the {what} cannot be read from {}: {why}", path.display()))
    };
    let unreadable = |error: std::io::Error| refuse("check the path and its permissions").with_source(error);
    // Asked before it is opened, since opening a pipe would wait for a writer.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(refuse("it is not a regular file"));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
    File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes)).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(refuse("it is longer than 64 KiB"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| refuse("it is not UTF-8"))?;
    let secret = crate::text::trimmed(text);
    if secret.is_empty() {
        return Err(refuse("it is empty"));
    }
    Ok(secret.into())
}
