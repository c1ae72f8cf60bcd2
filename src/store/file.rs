//! A store in a directory, for the processes of one machine.

mod format;
mod slot;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use self::slot::{LockError, Slot};
use crate::clock::WallClock;
use crate::error::Error;
use crate::runtime;
use crate::store::record::Record;
use crate::store::token_store::{Acquired, Entry, StoreKey, TokenStore, Write};

/// How often a file that another process holds is tried, and how long the pauses are: five seconds in all.
const TRIES: u32 = 500;
const PAUSE: Duration = Duration::from_millis(10);

/// A store in a directory, for the processes of one machine (feature `file-store`): command-line tools, jobs, and services
/// without Redis.
///
/// 1. A file is replaced in one step and is on the disk when a write returns. Whenever a process is killed, the file is
///    whole: as it was, or as it was to be.
/// 2. Processes take turns by locks of the operating system. A process that is killed leaves no lock behind, only its lease
///    until that ends.
/// 3. The directory belongs to the user of the process and only that user can write into it; the files are readable by no
///    other user. A directory or a file that is not so, or that is a symbolic link, is refused.
/// 4. The machine's clock counts. The files are not for a network file system whose locks do not work.
///
/// A waiter is not woken, so what stands on this store polls it.
///
/// # Examples
///
/// ```no_run
/// use tower_oauth2::store::FileStore;
///
/// let store = FileStore::open("/var/lib/billing/tokens")?;
/// # let _ = store;
/// # Ok::<_, tower_oauth2::Error>(())
/// ```
#[derive(Clone)]
pub struct FileStore {
    folder: Arc<Path>,
}

impl FileStore {
    /// Opens a directory, and makes it and its parents if they are missing (mode 0700).
    ///
    /// # Errors
    ///
    /// A configuration error if it cannot be made, is a symbolic link or no directory, belongs to another user, or can be
    /// written by others.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, Error> {
        let folder = folder.into();
        if folder.as_os_str().is_empty() {
            return Err(Error::config("the directory of the token store has no name"));
        }
        let refused = |error: io::Error| {
            let folder = folder.display();
            Error::config(format!("the directory of the token store {folder} cannot be used: {error}"))
                .with_source(error)
        };
        slot::create_folder(&folder).map_err(refused)?;
        slot::check_folder(&folder).map_err(refused)?;
        Ok(Self { folder: folder.into() })
    }

    /// Opens the directory that the platform has for the state of a program: `$XDG_STATE_HOME` or `~/.local/state` on
    /// Unix, `~/Library/Application Support` on macOS, `%LOCALAPPDATA%` on Windows; below it `{program}/tokens`.
    ///
    /// # Errors
    ///
    /// A configuration error as with [`open`](Self::open), if the name of the program cannot be a directory, or if no home
    /// directory is known.
    pub fn for_program(program: &str) -> Result<Self, Error> {
        let is_plain =
            !program.is_empty() && !program.contains(['/', '\\', '\0']) && !matches!(program, "." | "..");
        if !is_plain {
            return Err(Error::config("the name of the program must be the name of one directory"));
        }
        let state = state_folder().ok_or_else(|| {
            Error::config("no home directory is known for the token store; open one by its path, or set HOME")
        })?;
        Self::open(state.join(program).join("tokens"))
    }

    /// Changes the record of a key, while no other process does the same. One that is as it was is not written.
    async fn change<T, F>(&self, key: &StoreKey, change: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&mut Record, Duration) -> T + Clone + Send + 'static,
    {
        let runtime = runtime::current()?;
        let failed = |error: io::Error| {
            Error::transient(format!("the token store in {} failed: {error}", self.folder.display()))
                .with_source(error)
        };
        for _ in 0..TRIES {
            let slot = Slot::new(&self.folder, key);
            let change = change.clone();
            let turn = runtime.spawn_blocking(move || take_turn(&slot, change));
            match turn.await.map_err(|_ended| Error::transient("the runtime is shutting down"))? {
                Ok(value) => return Ok(value),
                Err(LockError::Held) => tokio::time::sleep(PAUSE).await,
                Err(LockError::Failed(error)) => return Err(failed(error)),
            }
        }
        Err(failed(io::Error::new(io::ErrorKind::WouldBlock, "another process holds its lock for long")))
    }
}

/// Changes the file of a key, if its lock is free.
fn take_turn<T>(slot: &Slot, change: impl FnOnce(&mut Record, Duration) -> T) -> Result<T, LockError> {
    let lock = slot.lock()?;
    // A file that is not a record is as good as none: it is replaced by the next write.
    let before =
        slot.read().map_err(LockError::Failed)?.and_then(|text| Record::read(&text)).unwrap_or_default();
    let mut record = before.clone();
    let value = change(&mut record, now());
    if record != before {
        slot.replace(&record.written()).map_err(LockError::Failed)?;
    }
    drop(lock);
    Ok(value)
}

impl TokenStore for FileStore {
    async fn load(&self, key: &StoreKey) -> Result<Option<Entry>, Error> {
        self.change(key, |record, now| record.load(now)).await
    }

    async fn swap(&self, key: &StoreKey, write: Write) -> Result<bool, Error> {
        self.change(key, |record, now| record.swap(write, now)).await
    }

    async fn acquire(&self, key: &StoreKey, period: Duration) -> Result<Acquired, Error> {
        self.change(key, move |record, now| record.acquire(period, now, now)).await
    }

    async fn extend(&self, key: &StoreKey, fence: u64, period: Duration) -> Result<bool, Error> {
        self.change(key, move |record, now| record.extend(fence, period, now)).await
    }

    async fn release(&self, key: &StoreKey, fence: u64) -> Result<(), Error> {
        self.change(key, move |record, _now| record.release(fence)).await.map(drop)
    }

    fn name(&self) -> Option<String> {
        Some(format!("file:{}", self.folder.display()))
    }
}

/// The time since the Unix epoch by the machine's clock, which all its processes share.
fn now() -> Duration {
    Duration::from_nanos(WallClock::default().moment().wall)
}

#[cfg(windows)]
fn state_folder() -> Option<PathBuf> {
    std::env::var_os("LOCALAPPDATA").map(PathBuf::from).filter(|folder| folder.is_absolute())
}

#[cfg(target_os = "macos")]
fn state_folder() -> Option<PathBuf> {
    std::env::home_dir()
        .map(|home| home.join("Library/Application Support"))
        .filter(|folder| folder.is_absolute())
}

#[cfg(not(any(windows, target_os = "macos")))]
fn state_folder() -> Option<PathBuf> {
    // The XDG specification has a path that is not absolute ignored.
    let set = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|folder| folder.is_absolute());
    set.or_else(|| {
        std::env::home_dir().map(|home| home.join(".local/state")).filter(|folder| folder.is_absolute())
    })
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStore").field("folder", &self.folder).finish()
    }
}
