//! Files that are being received: each grows in a directory of the project that nothing lists, looks at or
//! watches, and takes its place by one rename; one for a store grows beside that and is read into it.

use std::fs::{File, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;

use cap_fs_ext::{DirExt, FollowSymlinks, MetadataExt as _, OpenOptionsFollowExt};
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};

use crate::folder::Body;
use crate::place::{resolve, sync_dir};
use crate::read::{open_file, read_bounded};
use crate::write::{Before, TEMP_PREFIX, mode, target};
use crate::{ContentHash, Directory, Files, RelPath, Workspace, WorkspaceError, WriteOutcome};
use iris_protocol::limits::FILE_BYTES_MAX;

/// The directory, in that of the project: on the same file system, so that a rename is enough.
fn directory_name() -> String {
    format!("{TEMP_PREFIX}uploads")
}

/// Bytes that are hashed at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// What a file that replaces none may be used for, before the process' umask.
const MODE_NEW: u32 = 0o666;

/// A file that is being received. Dropping it leaves it: see [`Workspace::discard_staged`].
#[derive(Debug)]
pub struct StagedFile {
    file: File,
    name: String,
    size: u64,
    hash: ContentHash,
}

impl StagedFile {
    /// The name that it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many bytes it has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The hash of them.
    pub fn hash(&self) -> String {
        self.hash.clone().finish()
    }

    /// Goes on with these bytes.
    ///
    /// # Errors
    ///
    /// `Io`; how much of them is there then nobody knows.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), WorkspaceError> {
        self.file.write_all(bytes).map_err(|source| self.failed(source))?;
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Returns when all of it is on the disk.
    ///
    /// # Errors
    ///
    /// `Io`.
    pub fn sync(&self) -> Result<(), WorkspaceError> {
        self.file.sync_data().map_err(|source| self.failed(source))
    }

    /// Whether what has its name is the file that was written, whole and with no other name.
    fn is_at(&self, directory: &Dir) -> std::io::Result<bool> {
        let (named, own) = (directory.symlink_metadata(&self.name)?, self.file.metadata()?);
        Ok(named.is_file()
            && (named.dev(), named.ino(), named.nlink()) == (own.dev(), own.ino(), 1)
            && named.len() == self.size)
    }

    fn failed(&self, source: std::io::Error) -> WorkspaceError {
        WorkspaceError::Io { path: self.name.clone(), source }
    }
}

impl Workspace {
    /// Makes an empty file to receive into. The name is one of the caller's, and of one file alone.
    ///
    /// # Errors
    ///
    /// `InvalidPath` for a name that is none, `Io`, also where there is one of that name.
    pub fn stage(&self, name: &str) -> Result<StagedFile, WorkspaceError> {
        let path = RelPath::file(name)?;
        let from_io = |source| WorkspaceError::from_io(&path, source);
        let directory = if let Some(directory) = self.staging(&path)? {
            directory
        } else {
            let created = self.staging_root().create_dir(directory_name());
            if let Err(error) = created
                && error.kind() != ErrorKind::AlreadyExists
            {
                return Err(from_io(error));
            }
            let made = self.staging(&path)?;
            made.ok_or_else(|| from_io(ErrorKind::NotFound.into()))?
        };
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).follow(FollowSymlinks::No).mode(MODE_NEW);
        let file = directory.open_with(name, &options).map_err(from_io)?.into_std();
        sync_dir(&directory).map_err(from_io)?;
        Ok(StagedFile { file, name: name.to_owned(), size: 0, hash: ContentHash::default() })
    }

    /// Goes on with a file behind what is there of it, which is read once. None where it is gone, or is none of
    /// ours.
    ///
    /// # Errors
    ///
    /// `Io`.
    pub fn resume_staged(&self, name: &str) -> Result<Option<StagedFile>, WorkspaceError> {
        let path = RelPath::file(name)?;
        let from_io = |source| WorkspaceError::from_io(&path, source);
        let Some(directory) = self.staging(&path)? else { return Ok(None) };
        let mut options = OpenOptions::new();
        options.read(true).write(true).follow(FollowSymlinks::No);
        let mut file = match directory.open_with(name, &options) {
            Ok(file) => file.into_std(),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(from_io(error)),
        };
        let metadata = file.metadata().map_err(from_io)?;
        // One of two names is perhaps a file that somebody else put here.
        if !metadata.is_file() || metadata.nlink() != 1 {
            return Ok(None);
        }
        let (mut hash, mut size) = (ContentHash::default(), 0);
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let count = file.read(&mut chunk).map_err(from_io)?;
            let Some(bytes) = chunk.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
            hash.update(bytes);
            size += count as u64;
        }
        Ok(Some(StagedFile { file, name: name.to_owned(), size, hash }))
    }

    /// All bytes of a file that has been received; none where it has more than `size_max`.
    ///
    /// # Errors
    ///
    /// `Io`, `NotFound` where somebody took it away.
    pub fn read_staged(
        &self,
        staged: &StagedFile,
        size_max: u64,
    ) -> Result<Option<Vec<u8>>, WorkspaceError> {
        if staged.size > size_max {
            return Ok(None);
        }
        let path = RelPath::file(&staged.name)?;
        let directory = self.staging(&path)?.ok_or_else(|| gone(&path))?;
        let (mut file, _) = open_file(&directory, &path, &staged.name)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|source| WorkspaceError::from_io(&path, source))?;
        Ok(Some(bytes))
    }

    /// Puts a file that has been received where it belongs, in place of what is there, and creates the
    /// directories that are missing on the way. In a store it is a draft then, and stays to be discarded.
    ///
    /// # Errors
    ///
    /// As [`Workspace::write`], but in a directory for its size; `NotFound` where somebody took it away.
    pub fn place_staged(
        &self,
        staged: &StagedFile,
        path: &str,
    ) -> Result<WriteOutcome, WorkspaceError> {
        let path = RelPath::file(path)?;
        let staging = self.staging(&path)?.ok_or_else(|| gone(&path))?;
        match &self.files {
            Files::Directory(directory) => directory.place_staged(&staging, staged, &path),
            Files::Stored(stored) => {
                // The database keeps it whole.
                let (file, _) = open_file(&staging, &path, &staged.name)?;
                let bytes = read_bounded(Body::Disk(file), &path, FILE_BYTES_MAX as u64)?;
                stored.replace(&path, &mut bytes.as_slice(), Before::Any)
            }
        }
    }

    /// Removes a file that was being received, if it is there.
    ///
    /// # Errors
    ///
    /// `Io`.
    pub fn discard_staged(&self, name: &str) -> Result<(), WorkspaceError> {
        let path = RelPath::file(name)?;
        let Some(directory) = self.staging(&path)? else { return Ok(()) };
        match directory.remove_file(name) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(WorkspaceError::from_io(&path, error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Removes files that were being received, but for those of which `keep` says yes to the name, and what
    /// cannot be removed. Says how many were removed.
    ///
    /// # Errors
    ///
    /// `Io`.
    pub fn sweep_staged(&self, keep: &dyn Fn(&str) -> bool) -> Result<usize, WorkspaceError> {
        let path = RelPath::ROOT;
        let from_io = |source| WorkspaceError::from_io(&path, source);
        let Some(directory) = self.staging(&path)? else { return Ok(0) };
        let (mut removed, mut kept) = (0, 0);
        for entry in directory.entries().map_err(from_io)? {
            let name = entry.map_err(from_io)?.file_name();
            if name.to_str().is_some_and(keep) || directory.remove_file(&name).is_err() {
                kept += 1;
            } else {
                removed += 1;
            }
        }
        if kept == 0 {
            self.staging_root().remove_dir(directory_name()).map_err(from_io)?;
        }
        Ok(removed)
    }

    /// The directory of files that are being received, if it is there.
    fn staging(&self, path: &RelPath) -> Result<Option<Dir>, WorkspaceError> {
        match self.staging_root().open_dir_nofollow(directory_name()) {
            Ok(directory) => Ok(Some(directory)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(WorkspaceError::from_io(path, error)),
        }
    }
}

impl Directory {
    fn place_staged(
        &self,
        staging: &Dir,
        staged: &StagedFile,
        path: &RelPath,
    ) -> Result<WriteOutcome, WorkspaceError> {
        let from_io = |source| WorkspaceError::from_io(path, source);
        let place = resolve(self, path)?;
        staged.sync()?;
        let guard = self.replacing();
        let present = target(&place, path)?;
        if let Some(present) = &present {
            let permissions = Permissions::from_mode(mode(present));
            staged.file.set_permissions(permissions).map_err(from_io)?;
        }
        // A program in the project may have put another file in its place.
        if !staged.is_at(staging).map_err(from_io)? {
            return Err(gone(path));
        }
        staging.rename(&staged.name, &place.dir, &place.name).map_err(from_io)?;
        drop(guard);
        sync_dir(&place.dir).map_err(from_io)?;
        Ok(WriteOutcome {
            path: path.to_string(),
            created: present.is_none(),
            size: staged.size,
            hash: staged.hash(),
        })
    }
}

fn gone(path: &RelPath) -> WorkspaceError {
    WorkspaceError::NotFound { path: path.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cancel, SearchLimits, content_hash};

    fn workspace() -> (tempfile::TempDir, Workspace) {
        let root = tempfile::tempdir().unwrap();
        let workspace = Workspace::open(root.path()).unwrap();
        (root, workspace)
    }

    #[test]
    fn a_file_that_was_received_takes_its_place_and_nobody_sees_it_before() {
        let (root, workspace) = workspace();
        workspace.write_with_mode("dir/a", b"old", Some(0o750)).unwrap();
        let mut staged = workspace.stage("one").unwrap();
        staged.write(b"hello ").unwrap();
        staged.write(b"there").unwrap();
        let seen = workspace.scan(&SearchLimits::default(), &Cancel::new()).unwrap();
        assert_eq!(seen.files.len(), 1);
        let protected = workspace.write(".iris-tmp-uploads/one", b"x").unwrap_err();
        assert_eq!(protected.reason(), Some("protected_path"));
        assert_eq!(workspace.read_staged(&staged, 11).unwrap().unwrap(), b"hello there");
        assert_eq!(workspace.read_staged(&staged, 10).unwrap(), None);
        assert_eq!(
            workspace.place_staged(&staged, ".git/x").unwrap_err().reason(),
            Some("protected_path")
        );
        let placed = workspace.place_staged(&staged, "dir/a").unwrap();
        assert_eq!(
            (placed.created, placed.size, placed.hash),
            (false, 11, content_hash(b"hello there"))
        );
        assert_eq!(workspace.read_bytes("dir/a", 99).unwrap().bytes, b"hello there");
        let mode = std::fs::metadata(root.path().join("dir/a")).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o750);
        assert!(matches!(
            workspace.place_staged(&staged, "b"),
            Err(WorkspaceError::NotFound { .. })
        ));
        assert_eq!(workspace.sweep_staged(&|_| false).unwrap(), 0);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_took_the_name_of_a_file_that_was_received_takes_no_place() {
        let (root, workspace) = workspace();
        let staged_at = root.path().join(directory_name()).join("one");
        let aside = root.path().join("aside");
        let refused = |staged: &StagedFile| {
            let refused = workspace.place_staged(staged, "a").unwrap_err();
            assert!(matches!(refused, WorkspaceError::NotFound { .. }), "{refused}");
            assert!(!root.path().join("a").exists());
        };
        let mut staged = workspace.stage("one").unwrap();
        staged.write(b"good").unwrap();
        std::fs::hard_link(&staged_at, &aside).unwrap();
        refused(&staged);
        assert!(workspace.resume_staged("one").unwrap().is_none());
        std::fs::remove_file(&staged_at).unwrap();
        refused(&staged);
        std::os::unix::fs::symlink(&aside, &staged_at).unwrap();
        refused(&staged);
        std::fs::remove_file(&staged_at).unwrap();
        std::fs::write(&staged_at, b"evil").unwrap();
        refused(&staged);
        std::fs::rename(&aside, &staged_at).unwrap();
        std::fs::write(&staged_at, b"more than was received").unwrap();
        refused(&staged);
        std::fs::write(&staged_at, b"good").unwrap();
        workspace.place_staged(&staged, "a").unwrap();
        assert_eq!(workspace.read_bytes("a", 99).unwrap().bytes, b"good");
    }

    #[test]
    fn what_was_received_is_gone_on_with_and_what_nobody_knows_is_swept() {
        let (root, workspace) = workspace();
        let mut staged = workspace.stage("one").unwrap();
        staged.write(b"0123456789").unwrap();
        assert!(workspace.stage("one").is_err());
        drop(staged);
        workspace.stage("two").unwrap();
        // What a program put there and is no file does not keep the rest.
        let foreign = root.path().join(directory_name()).join("dir");
        std::fs::create_dir(&foreign).unwrap();
        assert_eq!(workspace.sweep_staged(&|name| name == "one").unwrap(), 1);
        std::fs::remove_dir(foreign).unwrap();
        workspace.stage("two").unwrap();
        assert!(workspace.resume_staged("none").unwrap().is_none());
        let mut staged = workspace.resume_staged("one").unwrap().unwrap();
        assert_eq!(staged.size(), 10);
        staged.write(b"x").unwrap();
        assert_eq!((staged.size(), staged.hash()), (11, content_hash(b"0123456789x")));
        assert_eq!(workspace.read_staged(&staged, 99).unwrap().unwrap(), b"0123456789x");
        assert_eq!(workspace.sweep_staged(&|name| name == "one").unwrap(), 1);
        assert!(workspace.resume_staged("one").unwrap().is_some());
        workspace.discard_staged("one").unwrap();
        workspace.discard_staged("one").unwrap();
        assert!(workspace.resume_staged("one").unwrap().is_none());
        assert_eq!(workspace.sweep_staged(&|_| true).unwrap(), 0);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
        assert!(workspace.stage("../x").is_err());
    }
}
