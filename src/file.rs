//! A secret in a file, read off the async thread and with a cap.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;

use crate::error::TokenError;

/// A secret file may not be longer than this.
const MAX_FILE: u64 = 64 * 1024;

/// Reads a secret from a regular file of at most 64 KiB in UTF-8. One line end at its end is removed. `what` is what it
/// is called in messages.
pub(crate) async fn read(what: &'static str, path: Arc<Path>) -> Result<SecretString, TokenError> {
    // A disk may be a network away.
    tokio::task::spawn_blocking(move || read_now(what, &path))
        .await
        .map_err(|_| TokenError::transient(format!("the runtime shut down while the {what} was read")))?
}

fn read_now(what: &str, path: &Path) -> Result<SecretString, TokenError> {
    let refuse =
        |why: &str| TokenError::config(format!("the {what} cannot be read from {}: {why}", path.display()));
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
    let secret = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    if secret.is_empty() {
        return Err(refuse("it is empty"));
    }
    Ok(secret.into())
}
