//! One server for each data directory (INV-11).

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

/// A held lock. The system releases it when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct DataDirLock(#[expect(dead_code, reason = "held, not read")] File);

impl DataDirLock {
    /// Takes the lock of a data directory; `None` when another process holds it.
    pub(crate) fn take(data_dir: &Path) -> io::Result<Option<Self>> {
        let file =
            File::options().write(true).create(true).truncate(false).open(data_dir.join("lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}
