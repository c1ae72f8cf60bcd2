//! The files of one key, and what a directory and a file must be.

use std::fmt::Display;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use crate::store::token_store::StoreKey;

/// No record is longer, and no more is read: another program may have put a larger file into its place.
const LONGEST: u64 = 16 << 20;

/// The files of one key.
pub(super) struct Slot {
    folder: PathBuf,
    entry: PathBuf,
    lock: PathBuf,
    new: PathBuf,
}

/// Why a process does not get the lock of a key.
pub(super) enum LockError {
    /// Another process, or another task, is at work.
    Held,
    Failed(io::Error),
}

impl Slot {
    pub(super) fn new(folder: &Path, key: &StoreKey) -> Self {
        let file = |ending: &str| folder.join(format!("{}.{ending}", key.as_str()));
        Self { folder: folder.to_owned(), entry: file("token"), lock: file("lock"), new: file("new") }
    }

    /// Takes the lock, which ends with the file that is returned, and so with the process. The file stays: one that is
    /// removed and made anew could be locked twice.
    pub(super) fn lock(&self) -> Result<File, LockError> {
        check_folder(&self.folder).map_err(LockError::Failed)?;
        let lock = match open(&self.lock, OpenOptions::new().write(true)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.create_lock(),
            opened => opened,
        };
        let lock = lock.map_err(LockError::Failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(TryLockError::WouldBlock) => Err(LockError::Held),
            Err(TryLockError::Error(error)) => Err(LockError::Failed(error)),
        }
    }

    fn create_lock(&self) -> io::Result<File> {
        match create(&self.lock) {
            // Another process was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                open(&self.lock, OpenOptions::new().write(true))
            }
            created => created,
        }
    }

    /// Reads the file of the entry; `None` if there is none.
    pub(super) fn read(&self) -> io::Result<Option<Vec<u8>>> {
        let file = match open(&self.entry, OpenOptions::new().read(true)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let mut text = Vec::new();
        file.take(LONGEST).read_to_end(&mut text)?;
        Ok(Some(text))
    }

    /// Replaces the file of the entry in one step. Only under the lock.
    pub(super) fn replace(&self, text: &[u8]) -> io::Result<()> {
        // What a process left that was killed in the midst.
        match fs::remove_file(&self.new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = create(&self.new)?;
        file.write_all(text)?;
        file.sync_all()?;
        drop(file);
        fs::rename(&self.new, &self.entry)?;
        sync_folder(&self.folder)
    }
}

/// Creates a file that only this user can read.
fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Opens a file that exists, and is the one that the name stands for: no link was followed.
fn open(path: &Path, options: &OpenOptions) -> io::Result<File> {
    let named = fs::symlink_metadata(path)?;
    let file = options.open(path)?;
    if !named.is_file() || !is_same(&named, &file.metadata()?) {
        return Err(refused(format!("{} is not a plain file", path.display())));
    }
    check_owner(&path.display(), &named)?;
    Ok(file)
}

/// Creates the directory and its parents, for this user alone.
pub(super) fn create_folder(folder: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(folder) {
        // A file, or a link that leads nowhere. The check of the directory says so.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        created => created,
    }
}

/// Checks that the directory is one, and that no other user can write into it.
pub(super) fn check_folder(folder: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(folder)?;
    if found.is_symlink() {
        return Err(refused("it is a symbolic link; open the directory that it leads to".to_owned()));
    }
    if !found.is_dir() {
        return Err(refused("it is a file and not a directory".to_owned()));
    }
    check_owner(&"it", &found)
}

#[cfg(unix)]
fn check_owner(name: &dyn Display, found: &Metadata) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt as _;

    if found.mode() & 0o022 != 0 {
        return Err(refused(format!("other users can write to {name}; take that right away (chmod go-w)")));
    }
    let user = rustix::process::geteuid().as_raw();
    if found.uid() != user {
        let owner = found.uid();
        return Err(refused(format!("{name} belongs to user {owner}, and this process is user {user}")));
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_owner(_name: &dyn Display, _found: &Metadata) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn is_same(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;

    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

#[cfg(not(unix))]
fn is_same(one: &Metadata, other: &Metadata) -> bool {
    one.file_type() == other.file_type()
}

/// Makes the new name of a file last. Only Unix can, and only there it must.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

fn refused(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}
