//! A file that is held open while it is sent: what takes its name meanwhile changes nothing about it.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::folder::{Body, Opened};
use crate::place::look_up;
use crate::seen::now;
use crate::{ContentHash, RelPath, Seen, Workspace, WorkspaceError};

/// Bytes that are hashed at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// A regular file that is read part by part, through one handle.
#[derive(Debug)]
pub struct OpenFile {
    content: Content,
    path: String,
    real: String,
    seen: Seen,
    hash: Option<String>,
}

#[derive(Debug)]
enum Content {
    Disk(File),
    /// All of it.
    Stored(Arc<[u8]>),
}

impl Workspace {
    /// Opens a regular file of at most `size_max` bytes.
    ///
    /// # Errors
    ///
    /// `InvalidPath`, `PathEscape`, `LinkRefused`, `NotFound`, `NotAFile`, `TooLarge`, `Io`.
    pub fn open_file(&self, path: &str, size_max: u64) -> Result<OpenFile, WorkspaceError> {
        let path = RelPath::file(path)?;
        let spot = look_up(self, &path)?;
        let real = spot.real.to_string();
        let Opened { body, facts } = spot.open(&path)?;
        let (seen, hash, path) = (facts.seen, facts.hash, path.to_string());
        if seen.size > size_max {
            return Err(WorkspaceError::TooLarge { path, size: seen.size, size_max });
        }
        let content = match body {
            Body::Disk(file) => Content::Disk(file.into_std()),
            Body::Stored(bytes) => Content::Stored(bytes.into_inner()),
        };
        Ok(OpenFile { content, path, real, seen, hash })
    }
}

impl OpenFile {
    /// The path that was asked for.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Where links lead it.
    pub fn real_path(&self) -> &str {
        &self.real
    }

    /// Facts about it when it was opened.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// The hash of all of it, where that is known without reading it.
    pub fn known_hash(&self) -> Option<&str> {
        self.hash.as_deref()
    }

    /// Whether all of it is in memory for as long as this is open.
    pub fn is_held(&self) -> bool {
        matches!(self.content, Content::Stored(_))
    }

    /// The hash of all of it, which is read part by part.
    ///
    /// # Errors
    ///
    /// `Changed` when somebody writes into it, `Io`.
    pub fn hash(&self) -> Result<String, WorkspaceError> {
        let (mut hash, mut offset) = (ContentHash::default(), 0);
        let mut chunk = vec![0; CHUNK_BYTES];
        while offset < self.seen.size {
            let count = self.read(offset, &mut chunk)?;
            let Some(bytes) = chunk.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
            hash.update(bytes);
            offset += count as u64;
        }
        self.check()?;
        Ok(hash.finish())
    }

    /// At most `bytes_max` bytes from `offset` on; none behind its end.
    ///
    /// # Errors
    ///
    /// `Changed` when somebody wrote into it since it was opened, `Io`.
    pub fn read_at(&self, offset: u64, bytes_max: u64) -> Result<Vec<u8>, WorkspaceError> {
        let length = bytes_max.min(self.seen.size.saturating_sub(offset));
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.read(offset + filled as u64, rest)? {
                0 => break,
                count => filled += count,
            }
        }
        bytes.truncate(filled);
        self.check()?;
        Ok(bytes)
    }

    fn read(&self, offset: u64, to: &mut [u8]) -> Result<usize, WorkspaceError> {
        let file = match &self.content {
            Content::Disk(file) => file,
            Content::Stored(bytes) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX);
                let rest = bytes.get(from..).unwrap_or_default();
                let count = rest.len().min(to.len());
                if let (Some(to), Some(bytes)) = (to.get_mut(..count), rest.get(..count)) {
                    to.copy_from_slice(bytes);
                }
                return Ok(count);
            }
        };
        loop {
            match file.read_at(to, offset) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => return read.map_err(|error| self.failed(error)),
            }
        }
    }

    /// Whether nobody wrote into it. Another file under its name is no change of this one.
    fn check(&self) -> Result<(), WorkspaceError> {
        let Content::Disk(file) = &self.content else { return Ok(()) };
        let metadata = file.metadata().map_err(|error| self.failed(error))?;
        let metadata = cap_std::fs::Metadata::from_just_metadata(metadata);
        let found = Seen::of(&metadata, now());
        if (found.size, found.mtime_ns) == (self.seen.size, self.seen.mtime_ns) {
            return Ok(());
        }
        Err(WorkspaceError::Changed { path: self.path.clone() })
    }

    fn failed(&self, source: std::io::Error) -> WorkspaceError {
        WorkspaceError::Io { path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content_hash;

    #[test]
    fn an_open_file_stays_what_it_was_until_somebody_writes_into_it() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        std::fs::write(at("a"), "0123456789").unwrap();
        std::os::unix::fs::symlink("a", at("link")).unwrap();
        let workspace = Workspace::open(root.path()).unwrap();
        let open = workspace.open_file("link", 10).unwrap();
        assert_eq!((open.path(), open.real_path(), open.seen().size), ("link", "a", 10));
        workspace.write("a", b"another").unwrap();
        assert_eq!(open.hash().unwrap(), content_hash(b"0123456789"));
        assert_eq!(open.read_at(3, 4).unwrap(), b"3456");
        assert_eq!(open.read_at(8, 4).unwrap(), b"89");
        assert_eq!(open.read_at(10, 4).unwrap(), b"");
        assert!(matches!(workspace.open_file("a", 6), Err(WorkspaceError::TooLarge { .. })));
        assert!(matches!(workspace.open_file(".", 6), Err(WorkspaceError::InvalidPath { .. })));
        let open = workspace.open_file("a", 10).unwrap();
        std::fs::write(at("a"), "is longer").unwrap();
        assert!(matches!(open.read_at(0, 4), Err(WorkspaceError::Changed { .. })));
        assert!(matches!(open.hash(), Err(WorkspaceError::Changed { .. })));
    }
}
