//! A secret in a file, read off the async thread and with a cap.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};

use crate::error::Error;
use crate::runtime;

/// A secret file may not be longer than this.
const MAX_FILE: u64 = 64 * 1024;

/// A file that cannot be used is read again after these waits: it may be just being written.
const WAITS: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
];

/// A file with a secret: a regular one of at most 64 KiB in UTF-8. Text that an editor leaves at its ends is removed.
///
/// Clones share how the file was when it was read last.
#[derive(Clone)]
pub(crate) struct SecretFile {
    path: Arc<Path>,
    seen: Arc<Mutex<Option<Stamp>>>,
}

/// When a file was modified, and its length; none for a file that cannot be looked at.
type Stamp = Option<(SystemTime, u64)>;

impl SecretFile {
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into().into(), seen: Arc::default() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether the file is another by now than when it was read last. Looks at the file, which a local disk
    /// returns at once.
    pub(crate) fn has_changed(&self) -> bool {
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.is_some_and(|seen| seen != stamp(&self.path))
    }

    /// Reads the secret. `what` is what it is called in messages.
    pub(crate) async fn read(&self, what: &str) -> Result<SecretString, Error> {
        self.read_as(what, |secret| Ok(secret.into())).await
    }

    /// Reads the secret, and makes a value of it. If that fails, reads again a few times: the file may be just being written.
    pub(crate) async fn read_as<T>(
        &self,
        what: &str,
        make: impl Fn(&str) -> Result<T, Error>,
    ) -> Result<T, Error> {
        runtime::current()?;
        let mut waits = WAITS.into_iter();
        loop {
            let error = match self.read_once(what).await.and_then(|text| make(text.expose_secret())) {
                Ok(made) => return Ok(made),
                Err(error) => error,
            };
            let Some(wait) = waits.next() else { return Err(error) };
            tokio::time::sleep(wait).await;
        }
    }

    async fn read_once(&self, what: &str) -> Result<SecretString, Error> {
        let (name, file) = (what.to_owned(), self.clone());
        // A disk may be a network away.
        let reading = tokio::task::spawn_blocking(move || {
            // Before it is read: what is written meanwhile is news.
            let stamp = stamp(&file.path);
            *file.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(stamp);
            read_now(&name, &file.path)
        });
        reading
            .await
            .map_err(|_| Error::transient(format!("the runtime shut down while the {what} was read")))?
    }
}

fn stamp(path: &Path) -> Stamp {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn read_now(what: &str, path: &Path) -> Result<SecretString, Error> {
    let refuse =
        |why: &str| Error::transient(format!("the {what} cannot be read from {}: {why}", path.display()));
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
