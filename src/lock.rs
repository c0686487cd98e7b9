//! One server for each data directory (INV-11).

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

/// A held lock. The system releases it when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct DataDirLock(File);

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

impl Drop for DataDirLock {
    /// Gives it back for all who have the file: a program that this process starts has a copy for a moment.
    fn drop(&mut self) {
        // Otherwise the system does when the last of them closes it.
        drop(self.0.unlock());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_copy_of_the_file_holds_no_lock() {
        let directory = tempfile::tempdir().unwrap();
        let lock = DataDirLock::take(directory.path()).unwrap().unwrap();
        assert!(DataDirLock::take(directory.path()).unwrap().is_none());
        let _copy = lock.0.try_clone().unwrap();
        drop(lock);
        assert!(DataDirLock::take(directory.path()).unwrap().is_some());
    }
}
