//! Giving a file or a directory another path.

use std::io::ErrorKind;

use cap_std::fs::Metadata;

use crate::error::WorkspaceError;
use crate::path::RelPath;
use crate::place::{LastLink, resolve, resolve_existing, sync_dir};
use crate::write::target;
use crate::{Directory, Files, Workspace};

/// What a rename did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// The path that it had, without `.` and doubled slashes.
    pub from: String,
    /// The path that it has.
    pub to: String,
    /// Whether it is a directory.
    pub is_directory: bool,
}

impl Workspace {
    /// Moves a regular file or a directory to `to`, in one step, and creates the directories that are missing
    /// on the way there. Where something is at `to` it is refused, unless both are files and `overwrite` says
    /// so. Writers through clones of this workspace cannot come between; other processes can.
    ///
    /// # Errors
    ///
    /// `InvalidPath`, `PathEscape`, `LinkRefused`, `ProtectedPath`, `NotFound`, `NotAFile` for a link, a pipe
    /// and the like, `NotADirectory`, `HardLinked`, `Exists`, `BelowItself`, `Io`.
    pub fn rename(&self, from: &str, to: &str, overwrite: bool) -> Result<Moved, WorkspaceError> {
        let (from, to) = (RelPath::file(from)?, RelPath::file(to)?);
        if below(&from, &to) {
            return Err(WorkspaceError::BelowItself { path: from.to_string() });
        }
        let is_directory = match &self.files {
            Files::Directory(directory) => directory.rename(&from, &to, overwrite)?,
            Files::Stored(stored) => stored.rename(&from, &to, overwrite)?,
        };
        Ok(Moved { from: from.to_string(), to: to.to_string(), is_directory })
    }
}

impl Directory {
    /// Says whether a directory was moved.
    fn rename(
        &self,
        from: &RelPath,
        to: &RelPath,
        overwrite: bool,
    ) -> Result<bool, WorkspaceError> {
        let source = resolve_existing(self, from, LastLink::Keep)?;
        let found = source.dir.symlink_metadata(&source.name);
        let found = found.map_err(|error| WorkspaceError::from_io(from, error))?;
        let is_directory = found.is_dir();
        check_source(&found, from)?;
        if !is_directory {
            // Refuses a second name of it too.
            target(&source, from)?;
        }
        let place = resolve(self, to)?;
        let from_io = |error| WorkspaceError::from_io(to, error);

        let guard = self.replacing();
        match place.dir.symlink_metadata(&place.name) {
            Ok(present) if overwrite && present.is_file() && !is_directory => {
                target(&place, to)?;
            }
            Ok(_) => return Err(WorkspaceError::Exists { path: to.to_string() }),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(from_io(error)),
        }
        source.dir.rename(&source.name, &place.dir, &place.name).map_err(|error| {
            if error.kind() == ErrorKind::InvalidInput {
                return WorkspaceError::BelowItself { path: from.to_string() };
            }
            from_io(error)
        })?;
        drop(guard);

        // The new name first: a file with two names after a crash is better than one with none.
        sync_dir(&place.dir).map_err(from_io)?;
        sync_dir(&source.dir).map_err(|error| WorkspaceError::from_io(from, error))?;
        Ok(is_directory)
    }
}

fn check_source(found: &Metadata, path: &RelPath) -> Result<(), WorkspaceError> {
    if found.is_file() || found.is_dir() {
        return Ok(());
    }
    Err(WorkspaceError::NotAFile { path: path.to_string() })
}

/// Whether `path` is `directory` or below it.
fn below(directory: &RelPath, path: &RelPath) -> bool {
    let rest = path.as_str().strip_prefix(directory.as_str());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
