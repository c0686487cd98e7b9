//! Whether the files of an open database are those that were opened, and sound: known to its writer,
//! its readers and its owner alike.
//!
//! Once damage was seen anywhere nothing is written any more, not even by a checkpoint: what is left
//! is evidence, and perhaps all that there is to restore from.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::{Storage, StoreError, Writer, database};

/// Told the reason, once.
type Listener = Box<dyn FnOnce(&str) + Send>;

/// The condition of one open database.
pub(crate) struct Condition {
    path: PathBuf,
    log_path: PathBuf,
    file: FileId,
    /// Known from the first commit on: SQLite makes the log when it needs one.
    log: OnceLock<FileId>,
    damage: OnceLock<String>,
    listener: Mutex<Option<Listener>>,
    storage: OnceLock<Storage>,
    /// Transactions that ended, also those that were lost.
    transactions: AtomicU64,
}

impl Condition {
    /// Of the database at `path`, which was just opened.
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: FileId::of(path)?,
            log_path: database::log_of(path),
            path: path.to_owned(),
            log: OnceLock::new(),
            damage: OnceLock::new(),
            listener: Mutex::new(None),
            storage: OnceLock::new(),
            transactions: AtomicU64::new(0),
        })
    }

    /// What is wrong with it; none as far as nobody noticed anything.
    pub(crate) fn damage(&self) -> Option<&str> {
        self.damage.get().map(String::as_str)
    }

    /// Whether it may be used: no damage was seen, and the file is in its place.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        if let Some(reason) = self.damage() {
            return Err(StoreError::corrupt(reason));
        }
        self.compare(&self.path, &self.file, "the file")
    }

    /// As [`Condition::check`], and that the log is in its place as well: what was committed to one
    /// that was deleted is gone with the process.
    pub(crate) fn check_committed(&self) -> Result<(), StoreError> {
        self.check()?;
        let Some(log) = self.log.get() else {
            if let Ok(id) = FileId::of(&self.log_path) {
                // Set by this thread alone: it is the writer's.
                drop(self.log.set(id));
            }
            return Ok(());
        };
        self.compare(&self.log_path, log, "the write-ahead log")
    }

    fn compare(&self, path: &Path, expected: &FileId, what: &str) -> Result<(), StoreError> {
        let reason = match FileId::of(path) {
            Ok(found) if found == *expected => return Ok(()),
            Ok(_) => format!("{what} was replaced while it was open"),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                format!("{what} is missing: it was removed while it was open")
            }
            // That it cannot be looked at says nothing of it.
            Err(_) => return Ok(()),
        };
        self.condemn(&reason);
        Err(StoreError::corrupt(reason))
    }

    /// Passes a result on, and remembers the damage that it tells of.
    pub(crate) fn judge<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(StoreError::Corrupt { reason }) = &result {
            self.condemn(reason);
        }
        result
    }

    fn condemn(&self, reason: &str) {
        if self.damage.set(reason.to_owned()).is_err() {
            return;
        }
        tracing::error!(path = %self.path.display(), reason, "a database is damaged");
        if let Some(listener) = self.listener().take() {
            listener(reason);
        }
    }

    /// Calls `listener` with what is wrong, now or when it is noticed, on the thread that does.
    pub(crate) fn on_damage(&self, listener: impl FnOnce(&str) + Send + 'static) {
        let mut place = self.listener();
        if let Some(reason) = self.damage() {
            drop(place);
            return listener(reason);
        }
        *place = Some(Box::new(listener));
        drop(place);
        // It may have been noticed between the look and the entry.
        if let Some(reason) = self.damage()
            && let Some(listener) = self.listener().take()
        {
            listener(reason);
        }
    }

    fn listener(&self) -> std::sync::MutexGuard<'_, Option<Listener>> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets it, and what is written to it by `writer`, know of the disk that it is on.
    pub(crate) fn use_storage(&self, storage: &Storage, writer: &Writer) {
        // A database stays on its disk: the first one counts.
        if self.storage.set(storage.clone()).is_ok() {
            storage.figures().opened(self.log_path.clone(), writer.waiting());
        }
    }

    /// The disk, where somebody watches it.
    pub(crate) fn storage(&self) -> Option<&Storage> {
        self.storage.get()
    }

    /// A transaction ended: what was read before may not hold any more. Noted before anybody hears of the end.
    pub(crate) fn transaction_ended(&self) {
        self.transactions.fetch_add(1, Ordering::AcqRel);
    }

    /// Which transaction ended last.
    pub(crate) fn transactions(&self) -> u64 {
        self.transactions.load(Ordering::Acquire)
    }

    /// What the database is in.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl std::fmt::Debug for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = f.debug_struct("Condition");
        text.field("path", &self.path).field("damage", &self.damage).finish_non_exhaustive()
    }
}

/// Tells a file from another one of the same name.
#[derive(Debug, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    #[cfg(unix)]
    fn of(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let found = fs::metadata(path)?;
        Ok(Self { device: found.dev(), inode: found.ino() })
    }

    /// Without inodes all files of a name are one.
    #[cfg(not(unix))]
    fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|_| Self { device: 0, inode: 0 })
    }
}
