//! Removing a file whose content the caller knows.

use std::sync::PoisonError;

use crate::Workspace;
use crate::error::WorkspaceError;
use crate::path::RelPath;
use crate::place::{LastLink, Place, resolve_existing, sync_dir};
use crate::write::{check_unchanged, target};

impl Workspace {
    /// Removes a regular file if its content still has the SHA-256 `known_hash`. Its directory stays,
    /// also when it is empty then.
    ///
    /// Links on the way are followed like those of a write. A link at its end is none of the regular
    /// files: neither it nor what it leads to is removed. Writers through clones of this workspace
    /// cannot come between the check and the removal; other processes can.
    ///
    /// # Errors
    ///
    /// `InvalidPath`, `PathEscape`, `LinkRefused`, `ProtectedPath`, `NotFound`, `NotAFile`,
    /// `NotADirectory`, `HardLinked`, `Changed` when the content is another one, `Io`.
    pub fn remove_if_unchanged(&self, path: &str, known_hash: &str) -> Result<(), WorkspaceError> {
        let path = RelPath::file(path)?;
        let place = resolve_existing(self, &path, LastLink::Keep)?;
        let from_io = |source| WorkspaceError::from_io(&path, source);

        let guard = self.inner.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        check_present(&place, &path)?;
        check_unchanged(&place, &path, known_hash)?;
        place.dir.remove_file(&place.name).map_err(from_io)?;
        drop(guard);

        sync_dir(&place.dir).map_err(from_io)
    }

    /// Whether [`Workspace::remove_if_unchanged`] would be let to begin: says what is in its way, and
    /// changes nothing.
    ///
    /// # Errors
    ///
    /// As [`Workspace::remove_if_unchanged`], but for `Changed`.
    pub fn check_remove(&self, path: &str) -> Result<(), WorkspaceError> {
        let path = RelPath::file(path)?;
        check_present(&resolve_existing(self, &path, LastLink::Keep)?, &path)
    }
}

fn check_present(place: &Place, path: &RelPath) -> Result<(), WorkspaceError> {
    match target(place, path)? {
        Some(_) => Ok(()),
        None => Err(WorkspaceError::NotFound { path: path.to_string() }),
    }
}
