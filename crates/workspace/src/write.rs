//! Replacing a file as a whole: afterwards it has the old content or the new one, never a mixture.

use std::io::{self, ErrorKind, Read, Write};

use cap_fs_ext::{FollowSymlinks, MetadataExt, OpenOptionsFollowExt};
use cap_std::fs::{Dir, File, Metadata, OpenOptions, OpenOptionsExt, Permissions, PermissionsExt};
use iris_protocol::limits::FILE_BYTES_MAX;
use sha2::{Digest, Sha256};

use crate::error::WorkspaceError;
use crate::folder::Body;
use crate::path::RelPath;
use crate::place::{LastLink, Place, resolve, resolve_existing, sync_dir};
use crate::read::{hex, open_file, read_bounded};
use crate::{Directory, Files, Workspace, content_hash};

/// How the name of a file that is being written begins. Listing and search leave such files out.
pub(crate) const TEMP_PREFIX: &str = ".iris-tmp-";
/// Bytes copied at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// The permission bits that a replacement takes over: reading, writing, running; not setuid.
const MODE_MASK: u32 = 0o777;

/// What a write did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteOutcome {
    /// The file, relative to the project's directory, without `.` and doubled slashes.
    pub path: String,
    /// Whether there was no file before.
    pub created: bool,
    /// Bytes now in the file.
    pub size: u64,
    /// SHA-256 of the content, 64 hex digits.
    pub hash: String,
}

impl Workspace {
    /// Creates or replaces a file, and creates the directories that are missing on the way.
    ///
    /// The content goes to a temporary file beside it, is synced and then renamed, so a reader sees
    /// the old content or the new one, and a failure leaves the old one. A link inside the project is
    /// followed; permission bits of an existing file are kept.
    ///
    /// # Errors
    ///
    /// `InvalidPath`, `PathEscape`, `LinkRefused`, `ProtectedPath`, `NotAFile`, `NotADirectory`,
    /// `HardLinked`, `TooLarge` above 16 MiB, `Io`.
    pub fn write(&self, path: &str, bytes: &[u8]) -> Result<WriteOutcome, WorkspaceError> {
        self.replace(&RelPath::file(path)?, &mut &*bytes, Before::Any)
    }

    /// As [`Workspace::write`], with these permission bits; where none are given, those of the file that is
    /// there.
    ///
    /// # Errors
    ///
    /// As [`Workspace::write`].
    pub fn write_with_mode(
        &self,
        path: &str,
        bytes: &[u8],
        mode: Option<u32>,
    ) -> Result<WriteOutcome, WorkspaceError> {
        let before = mode.map_or(Before::Any, |mode| Before::AnyButBits(mode & MODE_MASK));
        self.replace(&RelPath::file(path)?, &mut &*bytes, before)
    }

    /// Replaces a file if its content still has the SHA-256 `known_hash`.
    ///
    /// Writers through clones of this workspace cannot come between the check and the replacement;
    /// other processes can.
    ///
    /// # Errors
    ///
    /// As [`Workspace::write`], and `Changed` when the content is another one or the file is gone.
    pub fn write_if_unchanged(
        &self,
        path: &str,
        bytes: &[u8],
        known_hash: &str,
    ) -> Result<WriteOutcome, WorkspaceError> {
        self.replace(&RelPath::file(path)?, &mut &*bytes, Before::Content(known_hash))
    }

    /// Creates a file where there is none. It takes over the permission bits of the file `like`, if one
    /// is named that is there.
    ///
    /// Writers through clones of this workspace cannot come between the check and the creation; other
    /// processes can.
    ///
    /// # Errors
    ///
    /// As [`Workspace::write`], and `Changed` when there is a file.
    pub fn write_if_absent(
        &self,
        path: &str,
        bytes: &[u8],
        like: Option<&str>,
    ) -> Result<WriteOutcome, WorkspaceError> {
        let mode = like.map(|like| self.mode_of(&RelPath::file(like)?)).transpose()?.flatten();
        self.replace(&RelPath::file(path)?, &mut &*bytes, Before::Nothing { mode })
    }

    /// Whether [`Workspace::write`] would be let to begin: says what is in its way, and changes nothing.
    ///
    /// # Errors
    ///
    /// As [`Workspace::write`], but for `TooLarge`.
    pub fn check_write(&self, path: &str) -> Result<(), WorkspaceError> {
        let path = RelPath::file(path)?;
        let directory = match &self.files {
            Files::Directory(directory) => directory,
            Files::Stored(stored) => return stored.target(&path).map(drop),
        };
        match resolve_existing(directory, &path, LastLink::Follow) {
            Ok(place) => target(&place, &path).map(drop),
            // The directories that are missing would be created.
            Err(WorkspaceError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn mode_of(&self, path: &RelPath) -> Result<Option<u32>, WorkspaceError> {
        let directory = match &self.files {
            Files::Directory(directory) => directory,
            Files::Stored(stored) => return Ok(stored.target(path)?.and_then(|file| file.mode)),
        };
        match resolve_existing(directory, path, LastLink::Follow) {
            Ok(place) => Ok(target(&place, path)?.as_ref().map(mode)),
            Err(WorkspaceError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn replace(
        &self,
        path: &RelPath,
        content: &mut dyn Read,
        before: Before<'_>,
    ) -> Result<WriteOutcome, WorkspaceError> {
        match &self.files {
            Files::Directory(directory) => directory.replace(path, content, before),
            Files::Stored(stored) => stored.replace(path, content, before),
        }
    }
}

impl Directory {
    fn replace(
        &self,
        path: &RelPath,
        content: &mut dyn Read,
        before: Before<'_>,
    ) -> Result<WriteOutcome, WorkspaceError> {
        let place = resolve(self, path)?;
        let present = target(&place, path)?;
        let mode = match before {
            Before::Nothing { mode } => mode,
            Before::AnyButBits(mode) => Some(mode),
            Before::Any | Before::Content(_) => present.as_ref().map(mode),
        };
        let mut temp =
            TempFile::create(&place.dir, mode).map_err(|e| WorkspaceError::from_io(path, e))?;
        let (size, hash) = temp.fill(path, content)?;
        #[cfg(feature = "faults")]
        half_written();

        let guard = self.replacing();
        let created = target(&place, path)?.is_none();
        match before {
            Before::Content(known_hash) => check_unchanged(&place, path, known_hash)?,
            Before::Nothing { .. } if !created => {
                return Err(WorkspaceError::Changed { path: path.to_string() });
            }
            Before::Any | Before::AnyButBits(_) | Before::Nothing { .. } => {}
        }
        temp.rename(&place.name).map_err(|source| WorkspaceError::from_io(path, source))?;
        drop(guard);

        sync_dir(&place.dir).map_err(|source| WorkspaceError::from_io(path, source))?;
        Ok(WriteOutcome { path: path.to_string(), created, size, hash })
    }
}

/// What tests have done whenever a file is written and has not taken its place.
#[cfg(feature = "faults")]
static HALF_WRITTEN: std::sync::OnceLock<fn()> = std::sync::OnceLock::new();

/// Has something done, in the whole process, whenever a file is written and has not taken its place; the first
/// to ask is heard. For tests.
#[cfg(feature = "faults")]
pub fn when_half_written(what: fn()) {
    HALF_WRITTEN.get_or_init(|| what);
}

#[cfg(feature = "faults")]
fn half_written() {
    if let Some(what) = HALF_WRITTEN.get() {
        what();
    }
}

/// What has to be there before a write.
#[derive(Clone, Copy)]
pub(crate) enum Before<'a> {
    Any,
    /// Whatever it is; it has these permission bits then.
    AnyButBits(u32),
    /// A file with this hash.
    Content(&'a str),
    /// No file; the new one gets these permission bits.
    Nothing {
        mode: Option<u32>,
    },
}

pub(crate) fn mode(metadata: &Metadata) -> u32 {
    metadata.permissions().mode() & MODE_MASK
}

/// The file that would be replaced or removed, if there is one that may be.
pub(crate) fn target(place: &Place, path: &RelPath) -> Result<Option<Metadata>, WorkspaceError> {
    let metadata = match place.dir.symlink_metadata(&place.name) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(WorkspaceError::from_io(path, error)),
    };
    if !metadata.is_file() {
        return Err(WorkspaceError::NotAFile { path: path.to_string() });
    }
    if metadata.nlink() > 1 {
        return Err(WorkspaceError::HardLinked { path: path.to_string() });
    }
    Ok(Some(metadata))
}

/// Whether the file still has the content with this hash.
pub(crate) fn check_unchanged(
    place: &Place,
    path: &RelPath,
    known_hash: &str,
) -> Result<(), WorkspaceError> {
    let changed = || WorkspaceError::Changed { path: path.to_string() };
    let bytes = match open_file(&place.dir, path, &place.name)
        .and_then(|(file, _)| read_bounded(Body::Disk(file), path, FILE_BYTES_MAX as u64))
    {
        Ok(bytes) => bytes,
        Err(WorkspaceError::NotFound { .. } | WorkspaceError::TooLarge { .. }) => {
            return Err(changed());
        }
        Err(error) => return Err(error),
    };
    if content_hash(&bytes) == known_hash { Ok(()) } else { Err(changed()) }
}

/// A file that is removed again unless it gets its final name.
struct TempFile<'a> {
    dir: &'a Dir,
    /// Empty once it has its final name.
    name: String,
    file: File,
}

impl<'a> TempFile<'a> {
    fn create(dir: &'a Dir, mode: Option<u32>) -> io::Result<Self> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
        let name = format!("{TEMP_PREFIX}{}", hex(&random));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).follow(FollowSymlinks::No);
        if let Some(mode) = mode {
            options.mode(mode);
        }
        let temp = Self { dir, file: dir.open_with(&name, &options)?, name };
        if let Some(mode) = mode {
            // The process' umask may have taken bits away.
            temp.file.set_permissions(Permissions::from_mode(mode))?;
        }
        Ok(temp)
    }

    /// Copies `content`, syncs it, and returns its size and hash.
    fn fill(
        &mut self,
        path: &RelPath,
        content: &mut dyn Read,
    ) -> Result<(u64, String), WorkspaceError> {
        let from_io = |source| WorkspaceError::from_io(path, source);
        let size_max = FILE_BYTES_MAX as u64;
        let mut content = content.take(size_max + 1);
        let mut hasher = Sha256::new();
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut size = 0;
        loop {
            let count = content.read(&mut chunk).map_err(from_io)?;
            let Some(bytes) = chunk.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
            size += count as u64;
            if size > size_max {
                return Err(WorkspaceError::TooLarge { path: path.to_string(), size, size_max });
            }
            hasher.update(bytes);
            self.file.write_all(bytes).map_err(from_io)?;
        }
        self.file.sync_all().map_err(from_io)?;
        Ok((size, hex(&hasher.finalize())))
    }

    fn rename(&mut self, name: &str) -> io::Result<()> {
        self.dir.rename(&self.name, self.dir, name)?;
        self.name.clear();
        Ok(())
    }
}

impl Drop for TempFile<'_> {
    fn drop(&mut self) {
        if !self.name.is_empty() {
            // Nothing is left to try: the name says what the file is, and search leaves it out.
            drop(self.dir.remove_file(&self.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct FailsAfter {
        bytes_left: usize,
    }

    impl Read for FailsAfter {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.bytes_left == 0 {
                return Err(io::Error::from(ErrorKind::StorageFull));
            }
            let count = buffer.len().min(self.bytes_left);
            buffer[..count].fill(b'x');
            self.bytes_left -= count;
            Ok(count)
        }
    }

    #[test]
    fn a_write_that_fails_half_way_leaves_the_old_content_and_no_other_file() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("a"), "old").unwrap();
        let workspace = Workspace::open(root.path()).unwrap();
        let mut content = FailsAfter { bytes_left: 3 * CHUNK_BYTES };
        let error =
            workspace.replace(&RelPath::file("a").unwrap(), &mut content, Before::Any).unwrap_err();
        assert_eq!(error.code(), iris_protocol::ErrorCode::StorageFull);
        assert_eq!(fs::read_to_string(root.path().join("a")).unwrap(), "old");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_endless_source_is_cut_off_at_the_limit() {
        let root = tempfile::tempdir().unwrap();
        let workspace = Workspace::open(root.path()).unwrap();
        let mut content = io::repeat(b'x');
        let error =
            workspace.replace(&RelPath::file("a").unwrap(), &mut content, Before::Any).unwrap_err();
        assert!(matches!(error, WorkspaceError::TooLarge { .. }));
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
