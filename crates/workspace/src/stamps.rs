//! What stands in one directory, and whether it changed since somebody looked.

use std::time::SystemTime;

use crate::error::WorkspaceError;
use crate::folder::Folder;
use crate::place::look_up;
use crate::{RelPath, Workspace};

/// A regular file as it was when somebody looked: another content has another stamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStamp {
    /// Its name in its directory.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Last change of the content, as the file system says.
    pub modified: Option<SystemTime>,
}

impl Workspace {
    /// The regular files in the directory `path` itself whose names end with `suffix`, sorted by name:
    /// also those that `.gitignore` files leave out, but not those whose names are not UTF-8. Of more than
    /// `files_max` any so many; of stored files none.
    ///
    /// # Errors
    ///
    /// `InvalidPath`, `PathEscape`, `LinkRefused`, `NotFound`, `NotADirectory`, `Io`.
    pub fn stamps(
        &self,
        path: &str,
        suffix: &str,
        files_max: usize,
    ) -> Result<Vec<FileStamp>, WorkspaceError> {
        let path = RelPath::dir(path)?;
        if self.is_stored() {
            return Ok(Vec::new());
        }
        let Folder::Disk(directory) = look_up(self, &path)?.directory(&path)? else {
            return Ok(Vec::new());
        };
        let failed = |source| WorkspaceError::Io { path: path.to_string(), source };
        let mut stamps = Vec::new();
        for entry in directory.entries().map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if !name.ends_with(suffix) {
                continue;
            }
            // It may be gone by now.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_file() {
                let modified = metadata.modified().ok().map(cap_std::time::SystemTime::into_std);
                stamps.push(FileStamp { name, size: metadata.len(), modified });
            }
            if stamps.len() == files_max {
                break;
            }
        }
        stamps.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(stamps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_directory_are_told_apart_by_what_they_hold() {
        let directory = tempfile::tempdir().unwrap();
        let workspace = Workspace::open(directory.path()).unwrap();
        assert!(matches!(workspace.stamps("a", ".md", 9), Err(WorkspaceError::NotFound { .. })));
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir_all(at("a/c.md")).unwrap();
        std::fs::write(at(".gitignore"), "a\n").unwrap();
        std::fs::write(at("a/b.md"), "one").unwrap();
        std::fs::write(at("a/a.md"), "two").unwrap();
        std::fs::write(at("a/x.txt"), "three").unwrap();
        std::os::unix::fs::symlink("b.md", at("a/link.md")).unwrap();
        let first = workspace.stamps("a", ".md", 9).unwrap();
        let names: Vec<_> = first.iter().map(|stamp| stamp.name.as_str()).collect();
        assert_eq!(names, ["a.md", "b.md"]);
        assert_eq!(workspace.stamps("a", ".md", 9).unwrap(), first);
        assert_eq!(workspace.stamps("a", ".md", 1).unwrap().len(), 1);
        std::fs::write(at("a/b.md"), "four").unwrap();
        assert_ne!(workspace.stamps("a", ".md", 9).unwrap(), first);
    }
}
