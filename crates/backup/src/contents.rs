//! What lies in the directory of a project's files, read through open handles: no link is followed,
//! whatever agents do to the directory meanwhile.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::Path;

use cap_fs_ext::{DirExt, FollowSymlinks, OpenOptionsFollowExt, OpenOptionsSyncExt};
use cap_std::ambient_authority;
use cap_std::fs::{Dir, File, Metadata, OpenOptions};
use rustix::io::Errno;

use crate::disk::is_temporary;
use crate::error::BackupError;
use crate::manifest::{ArchivedDirectory, Skipped, SkippedReason};
use crate::name::ArchivedPath;

/// The directory of an archive that holds the project's files.
pub(crate) const FILES: &[u8] = b"files";
/// Permission bits that an archive keeps.
pub(crate) const MODE_MASK: u32 = 0o777;

/// What was found besides the files, which were visited one by one.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) directories: Vec<ArchivedDirectory>,
    pub(crate) skipped: Vec<Skipped>,
}

/// Visits every regular file below `root`, directories before what is in them, each in the order of
/// the names. Files of operations that are not finished are left out.
pub(crate) fn visit(
    root: &Path,
    mut on_file: impl FnMut(ArchivedPath, File, &Metadata) -> Result<(), BackupError>,
) -> Result<Found, BackupError> {
    // A project has its files: a directory that is not there is not mounted, and no sign of one that
    // was deleted.
    let failed = |source| BackupError::Io { path: root.to_owned(), source };
    let dir = Dir::open_ambient_dir(root, ambient_authority()).map_err(failed)?;
    let Some(path) = ArchivedPath::new(FILES) else {
        return Err(BackupError::corrupt("no name for the files"));
    };
    let mut walk = Walk { root, found: Found::default(), on_file: &mut on_file };
    walk.directory(&dir, &path)?;
    Ok(walk.found)
}

struct Walk<'a> {
    root: &'a Path,
    found: Found,
    on_file: &'a mut dyn FnMut(ArchivedPath, File, &Metadata) -> Result<(), BackupError>,
}

impl Walk<'_> {
    fn directory(&mut self, dir: &Dir, path: &ArchivedPath) -> Result<(), BackupError> {
        for name in self.names(dir)? {
            if is_temporary(&name) {
                continue;
            }
            let Some(below) = path.join(&name) else {
                self.skip(format!("{path}/{}", name.display()), SkippedReason::Name);
                continue;
            };
            self.entry(dir, &name, &below)?;
        }
        Ok(())
    }

    fn names(&self, dir: &Dir) -> Result<Vec<OsString>, BackupError> {
        let entries = dir.entries().map_err(BackupError::io(self.root))?;
        let names = entries.map(|entry| entry.map(|entry| entry.file_name()));
        let mut names = names.collect::<Result<Vec<_>, _>>().map_err(BackupError::io(self.root))?;
        names.sort();
        Ok(names)
    }

    fn entry(
        &mut self,
        dir: &Dir,
        name: &OsString,
        path: &ArchivedPath,
    ) -> Result<(), BackupError> {
        let kind = match dir.symlink_metadata(name) {
            Ok(metadata) => metadata.file_type(),
            // Somebody removed it since.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return self.failed(path, error),
        };
        if kind.is_symlink() {
            self.skip(path.to_string(), SkippedReason::Link);
        } else if kind.is_dir() {
            match dir.open_dir_nofollow(name) {
                Ok(below) => self.enter(&below, path)?,
                Err(error) => self.failed(path, error)?,
            }
        } else if kind.is_file() {
            self.file(dir, name, path.clone())?;
        } else {
            self.skip(path.to_string(), SkippedReason::Special);
        }
        Ok(())
    }

    fn enter(&mut self, dir: &Dir, path: &ArchivedPath) -> Result<(), BackupError> {
        let metadata = dir.dir_metadata().map_err(BackupError::io(self.root))?;
        let mode = mode(&metadata);
        self.found.directories.push(ArchivedDirectory { path: path.clone(), mode });
        match self.directory(dir, path) {
            Err(BackupError::Io { source, .. }) if source.kind() == ErrorKind::PermissionDenied => {
                self.skip(path.to_string(), SkippedReason::Unreadable);
                Ok(())
            }
            other => other,
        }
    }

    fn file(&mut self, dir: &Dir, name: &OsString, path: ArchivedPath) -> Result<(), BackupError> {
        // Without `nonblock`, opening a pipe that took the file's place waits for its writer.
        let mut options = OpenOptions::new();
        options.read(true).nonblock(true).follow(FollowSymlinks::No);
        let opened = dir.open_with(name, &options);
        match opened.and_then(|file| file.metadata().map(|metadata| (file, metadata))) {
            Ok((file, metadata)) if metadata.is_file() => (self.on_file)(path, file, &metadata),
            Ok(_) => {
                self.skip(path.to_string(), SkippedReason::Special);
                Ok(())
            }
            Err(error) => self.failed(&path, error),
        }
    }

    /// What vanished is not there, what may not be read is skipped, anything else ends the walk.
    fn failed(&mut self, path: &ArchivedPath, error: io::Error) -> Result<(), BackupError> {
        // The file became a link, or the directory a file, between two looks.
        let became_other = error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
            || error.kind() == ErrorKind::NotADirectory;
        if became_other {
            self.skip(path.to_string(), SkippedReason::Special);
        } else if error.kind() == ErrorKind::PermissionDenied {
            self.skip(path.to_string(), SkippedReason::Unreadable);
        } else if error.kind() != ErrorKind::NotFound {
            return Err(BackupError::io(self.root)(error));
        }
        Ok(())
    }

    fn skip(&mut self, path: String, reason: SkippedReason) {
        self.found.skipped.push(Skipped { path, reason });
    }
}

#[cfg(unix)]
pub(crate) fn mode(metadata: &Metadata) -> u32 {
    use cap_std::fs::MetadataExt;
    metadata.mode() & MODE_MASK
}

#[cfg(not(unix))]
pub(crate) fn mode(metadata: &Metadata) -> u32 {
    if metadata.is_dir() { 0o755 } else { 0o644 }
}
