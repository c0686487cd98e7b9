//! Removing files: one whose content the caller knows, or whatever is at a path.

use std::io::ErrorKind;

use cap_fs_ext::DirExt;
use cap_std::fs::Dir;

use crate::error::WorkspaceError;
use crate::path::{PATH_COMPONENTS_MAX, RelPath};
use crate::place::{LastLink, Place, look_up, resolve_existing, stays, sync_dir};
use crate::write::{TEMP_PREFIX, check_unchanged, target};
use crate::{Directory, Files, Workspace};

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
        let directory = match &self.files {
            Files::Directory(directory) => directory,
            Files::Stored(stored) => return stored.remove_if_unchanged(&path, known_hash),
        };
        let place = resolve_existing(directory, &path, LastLink::Keep)?;
        let from_io = |source| WorkspaceError::from_io(&path, source);

        let guard = directory.replacing();
        check_present(&place, &path)?;
        check_unchanged(&place, &path, known_hash)?;
        place.dir.remove_file(&place.name).map_err(from_io)?;
        drop(guard);

        sync_dir(&place.dir).map_err(from_io)
    }

    /// Removes a regular file, an empty directory, or with `recursive` a directory with all that is in it, at
    /// most `count_max` files and directories. Links in it are removed, not followed.
    ///
    /// A directory that is refused is whole; one whose removal fails in the middle, or is cut off, lacks
    /// some of its files.
    ///
    /// # Errors
    ///
    /// `InvalidPath`, `PathEscape`, `LinkRefused`, `ProtectedPath`, `NotFound`, `NotAFile`, `HardLinked`,
    /// `NotEmpty`, `TooMany`, `Io`.
    pub fn remove(
        &self,
        path: &str,
        recursive: bool,
        count_max: usize,
    ) -> Result<(), WorkspaceError> {
        let path = RelPath::file(path)?;
        let directory = match &self.files {
            Files::Directory(directory) => directory,
            Files::Stored(stored) => return stored.remove(&path, recursive, count_max),
        };
        directory.remove(&path, recursive, count_max)
    }

    /// Removes the directories from `path` up that are empty, without `path` itself being one of a protected
    /// name. What cannot be removed stays. In a store no directory is empty.
    pub fn remove_empty_above(&self, path: &str) {
        if let (Files::Directory(directory), Ok(path)) = (&self.files, RelPath::file(path)) {
            directory.remove_empty_above(&path);
        }
    }

    /// Removes what was left of a file that was being written, at a path that [`Workspace::scan`] found. Nobody may
    /// be writing.
    ///
    /// # Errors
    ///
    /// `InvalidPath` for a path that is none of such a file, `NotFound`, `Io`.
    pub fn remove_unfinished(&self, path: &str) -> Result<(), WorkspaceError> {
        let path = RelPath::file(path)?;
        let is_one = path.names().next_back().is_some_and(|name| name.starts_with(TEMP_PREFIX));
        if !is_one {
            return Err(WorkspaceError::NotFound { path: path.to_string() });
        }
        look_up(self, &path)?.remove(&path)
    }

    /// Whether [`Workspace::remove_if_unchanged`] would be let to begin: says what is in its way, and
    /// changes nothing.
    ///
    /// # Errors
    ///
    /// As [`Workspace::remove_if_unchanged`], but for `Changed`.
    pub fn check_remove(&self, path: &str) -> Result<(), WorkspaceError> {
        let path = RelPath::file(path)?;
        match &self.files {
            Files::Directory(directory) => {
                check_present(&resolve_existing(directory, &path, LastLink::Keep)?, &path)
            }
            Files::Stored(stored) => stored.present(&path).map(drop),
        }
    }
}

impl Directory {
    fn remove(
        &self,
        path: &RelPath,
        recursive: bool,
        count_max: usize,
    ) -> Result<(), WorkspaceError> {
        let place = resolve_existing(self, path, LastLink::Keep)?;
        let from_io = |source| WorkspaceError::from_io(path, source);
        let found = place.dir.symlink_metadata(&place.name).map_err(from_io)?;
        if found.is_dir() {
            let directory = place.dir.open_dir_nofollow(&place.name).map_err(from_io)?;
            check_below(&directory, path, recursive, count_max)?;
            place.dir.remove_dir_all(&place.name).map_err(from_io)?;
        } else {
            let _guard = self.replacing();
            check_present(&place, path)?;
            place.dir.remove_file(&place.name).map_err(from_io)?;
        }
        sync_dir(&place.dir).map_err(from_io)
    }

    fn remove_empty_above(&self, path: &RelPath) {
        let names: Vec<&str> = path.names().collect();
        for count in (1..names.len()).rev() {
            let Some(names) = names.get(..count) else { return };
            let Ok(directory) = RelPath::file(&names.join("/")) else { return };
            let Ok(place) = resolve_existing(self, &directory, LastLink::Keep) else { return };
            if place.dir.remove_dir(&place.name).is_err() {
                return;
            }
        }
    }
}

/// Refuses a directory whose removal would take too much along, or something protected.
fn check_below(
    directory: &Dir,
    path: &RelPath,
    recursive: bool,
    count_max: usize,
) -> Result<(), WorkspaceError> {
    let from_io = |source| WorkspaceError::from_io(path, source);
    if !recursive {
        let is_empty = directory.entries().map_err(from_io)?.next().is_none();
        let error = || WorkspaceError::NotEmpty { path: path.to_string() };
        return if is_empty { Ok(()) } else { Err(error()) };
    }
    let mut pending = vec![(directory.try_clone().map_err(from_io)?, 0_usize)];
    let mut count = 0;
    while let Some((directory, depth)) = pending.pop() {
        for entry in directory.entries().map_err(from_io)? {
            let entry = entry.map_err(from_io)?;
            count += 1;
            let name = entry.file_name();
            if count > count_max || depth > PATH_COMPONENTS_MAX {
                return Err(WorkspaceError::TooMany { path: path.to_string(), count_max });
            }
            if stays(&name.to_string_lossy()) {
                return Err(WorkspaceError::ProtectedPath { path: path.to_string() });
            }
            if entry.file_type().map_err(from_io)?.is_dir() {
                match directory.open_dir_nofollow(&name) {
                    Ok(child) => pending.push((child, depth + 1)),
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(from_io(error)),
                }
            }
        }
    }
    Ok(())
}

fn check_present(place: &Place, path: &RelPath) -> Result<(), WorkspaceError> {
    match target(place, path)? {
        Some(_) => Ok(()),
        None => Err(WorkspaceError::NotFound { path: path.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{Cancel, SearchLimits};

    #[test]
    fn what_was_left_of_a_write_keeps_no_directory_and_what_is_protected_does() {
        let root = tempfile::tempdir().unwrap();
        let workspace = Workspace::open(root.path()).unwrap();
        fs::create_dir_all(root.path().join("dir/below")).unwrap();
        fs::write(root.path().join("dir/below/.iris-tmp-0123456789abcdef"), "half").unwrap();
        fs::create_dir_all(root.path().join("dir/other/.git")).unwrap();
        let refused = workspace.remove("dir", true, 100).unwrap_err();
        assert_eq!(refused.reason(), Some("protected_path"));
        workspace.remove("dir/below", true, 100).unwrap();
        assert!(!root.path().join("dir/below").exists());
    }

    #[test]
    fn a_scan_finds_what_was_left_of_writes_and_that_alone_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let workspace = Workspace::open(root.path()).unwrap();
        workspace.write("dir/a", b"a").unwrap();
        workspace.stage("upload").unwrap();
        fs::write(root.path().join("dir/.iris-tmp-0123456789abcdef"), "half").unwrap();
        fs::write(root.path().join(".iris-tmp-fedcba9876543210"), "half").unwrap();
        let scan = || workspace.scan(&SearchLimits::default(), &Cancel::new()).unwrap();
        let unfinished = scan().unfinished;
        let expected = [".iris-tmp-fedcba9876543210", "dir/.iris-tmp-0123456789abcdef"];
        assert_eq!(unfinished, expected);
        for path in &unfinished {
            workspace.remove_unfinished(path).unwrap();
        }
        assert!(workspace.remove_unfinished("dir/a").is_err());
        assert!(workspace.remove_unfinished(".iris-tmp-uploads").is_err());
        let scan = scan();
        assert_eq!((scan.files.len(), scan.unfinished.len()), (1, 0));
        assert!(workspace.resume_staged("upload").unwrap().is_some());
    }
}
