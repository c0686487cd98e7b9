//! Reading one file, and facts about one file.

use std::io::{ErrorKind, Read};

use cap_fs_ext::{FollowSymlinks, OpenOptionsFollowExt, OpenOptionsSyncExt};
use cap_std::fs::{Dir, File, FileType, Metadata, OpenOptions};
use iris_protocol::limits::FILE_BYTES_MAX;
use sha2::{Digest, Sha256};

use crate::folder::{Body, Facts, Opened};
use crate::place::look_up;
use crate::{Files, RelPath, Workspace, WorkspaceError};

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A pipe, a socket or a device.
    Other,
}

impl EntryKind {
    pub(crate) fn of(file_type: FileType) -> Self {
        if file_type.is_file() {
            return Self::File;
        }
        if file_type.is_dir() {
            return Self::Directory;
        }
        if file_type.is_symlink() { Self::Link } else { Self::Other }
    }
}

/// Facts about one file or directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInfo {
    /// Relative to the project's directory.
    pub path: String,
    /// What it is, after following links.
    pub kind: EntryKind,
    /// Bytes; 0 for anything but a regular file.
    pub size: u64,
    /// SHA-256 of the content, 64 hex digits; only for regular files up to 16 MiB.
    pub hash: Option<String>,
    /// Last change of the content, milliseconds since 1970 UTC.
    pub modified_ms: i64,
}

/// Bytes that are hashed at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// A file's bytes and the facts that go with exactly these bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileContent {
    /// The whole content, or as much of its beginning as was asked for.
    pub bytes: Vec<u8>,
    /// Facts; `hash` is always present.
    pub info: FileInfo,
}

/// A file's text and the facts that go with exactly this text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextContent {
    /// The file, relative to the project's directory, without `.` and doubled slashes.
    pub path: String,
    /// The whole content.
    pub text: String,
    /// SHA-256 of the content, 64 hex digits.
    pub hash: String,
}

impl Workspace {
    /// Reads a whole regular file of at most `size_max` bytes.
    ///
    /// A pipe or a device is refused without being read, so this does not wait for another process.
    ///
    /// # Errors
    ///
    /// `InvalidPath`, `PathEscape`, `NotFound`, `NotAFile`, `TooLarge` (before reading, or while the
    /// file grows), `Io`.
    pub fn read_bytes(&self, path: &str, size_max: u64) -> Result<FileContent, WorkspaceError> {
        let path = RelPath::file(path)?;
        let Opened { body, facts } = look_up(self, &path)?.open(&path)?;
        let bytes = read_bounded(body, &path, size_max)?;
        let info = FileInfo { hash: Some(content_hash(&bytes)), ..info_of(&path, facts) };
        Ok(FileContent { bytes, info })
    }

    /// Reads the first `bytes_max` bytes of a regular file of at most `size_max` bytes. Its size and its
    /// hash are those of all of it, which is never held at once.
    ///
    /// # Errors
    ///
    /// As [`Workspace::read_bytes`].
    pub fn read_beginning(
        &self,
        path: &str,
        size_max: u64,
        bytes_max: u64,
    ) -> Result<FileContent, WorkspaceError> {
        let path = RelPath::file(path)?;
        let Opened { body, facts } = look_up(self, &path)?.open(&path)?;
        let too_large = |size| WorkspaceError::TooLarge { path: path.to_string(), size, size_max };
        if facts.seen.size > size_max {
            return Err(too_large(facts.seen.size));
        }
        let from_io = |source| WorkspaceError::from_io(&path, source);
        let mut file = body.take(size_max.saturating_add(1));
        let mut bytes = Vec::new();
        file.by_ref().take(bytes_max).read_to_end(&mut bytes).map_err(from_io)?;
        let (mut size, mut hash) = (bytes.len() as u64, ContentHash::default());
        hash.update(&bytes);
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let count = file.read(&mut chunk).map_err(from_io)?;
            let Some(read) = chunk.get(..count).filter(|read| !read.is_empty()) else { break };
            size += count as u64;
            hash.update(read);
        }
        if size > size_max {
            return Err(too_large(size));
        }
        let info = FileInfo { size, hash: Some(hash.finish()), ..info_of(&path, facts) };
        Ok(FileContent { bytes, info })
    }

    /// Reads a whole UTF-8 file of at most `size_max` bytes.
    ///
    /// # Errors
    ///
    /// As [`Workspace::read_bytes`], and `IsBinary` for a NUL byte or bytes that are not UTF-8.
    pub fn read_text(&self, path: &str, size_max: u64) -> Result<TextContent, WorkspaceError> {
        let FileContent { bytes, info } = self.read_bytes(path, size_max)?;
        let path = info.path;
        if bytes.contains(&0) {
            return Err(WorkspaceError::IsBinary { path });
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(TextContent { path, text, hash: info.hash.unwrap_or_default() }),
            Err(_) => Err(WorkspaceError::IsBinary { path }),
        }
    }

    /// Facts about a file or directory; reads a regular file of up to 16 MiB to hash it, unless that is known.
    ///
    /// # Errors
    ///
    /// `InvalidPath`, `PathEscape`, `NotFound`, `Io`.
    pub fn stat(&self, path: &str) -> Result<FileInfo, WorkspaceError> {
        let path = RelPath::dir(path)?;
        let facts = look_up(self, &path)?.facts(&path)?;
        let is_large = facts.seen.size > FILE_BYTES_MAX as u64;
        if facts.kind != EntryKind::File || is_large || facts.hash.is_some() {
            return Ok(info_of(&path, facts));
        }
        Ok(self.read_bytes(path.as_str(), FILE_BYTES_MAX as u64)?.info)
    }

    /// Where a path leads once all links on it are followed, relative to the project's directory. What
    /// does not exist yet is taken as it stands.
    ///
    /// # Errors
    ///
    /// `InvalidPath`, `PathEscape` also for a link that leads nowhere, `Io`.
    pub fn real_path(&self, path: &str) -> Result<String, WorkspaceError> {
        let path = RelPath::dir(path)?;
        let root = match &self.files {
            Files::Directory(directory) => directory.root(),
            Files::Stored(stored) => {
                stored.check_way(&path)?;
                return Ok(path.to_string());
            }
        };
        let names: Vec<&str> = path.names().collect();
        for existing in (0..=names.len()).rev() {
            let (known, rest) = names.split_at(existing);
            let known = if known.is_empty() { ".".to_owned() } else { known.join("/") };
            let real = match root.canonicalize(&known) {
                Ok(real) => real,
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let is_link = root.symlink_metadata(&known).is_ok();
                    if is_link {
                        return Err(WorkspaceError::PathEscape { path: path.to_string() });
                    }
                    continue;
                }
                Err(source) => return Err(WorkspaceError::from_io(&path, source)),
            };
            let real = real
                .to_str()
                .ok_or_else(|| WorkspaceError::PathEscape { path: path.to_string() })?;
            let real = [real].into_iter().filter(|real| !matches!(*real, "" | "."));
            let joined: Vec<&str> = real.chain(rest.iter().copied()).collect();
            return Ok(if joined.is_empty() { ".".to_owned() } else { joined.join("/") });
        }
        Ok(path.to_string())
    }
}

/// SHA-256 of `bytes` as 64 hex digits.
///
/// ```
/// assert!(iris_workspace::content_hash(b"").starts_with("e3b0c442"));
/// ```
pub fn content_hash(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The [`content_hash`] of bytes that come part by part.
#[derive(Debug, Clone, Default)]
pub struct ContentHash(Sha256);

impl ContentHash {
    /// Goes on with the next part.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all parts.
    pub fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

/// Opens `name` in `dir` for reading if it is a regular file and no link; `path` is for error messages.
pub(crate) fn open_file(
    dir: &Dir,
    path: &RelPath,
    name: &str,
) -> Result<(File, Metadata), WorkspaceError> {
    let from_io = |source| WorkspaceError::from_io(path, source);
    // Without `nonblock`, opening a pipe waits until somebody writes to it.
    let mut options = OpenOptions::new();
    options.read(true).nonblock(true).follow(FollowSymlinks::No);
    let file = dir.open_with(name, &options).map_err(from_io)?;
    let metadata = file.metadata().map_err(from_io)?;
    if !metadata.is_file() {
        return Err(WorkspaceError::NotAFile { path: path.to_string() });
    }
    Ok((file, metadata))
}

/// Reads all of an open regular file, or none of it when it has more than `size_max` bytes.
pub(crate) fn read_bounded(
    file: Body,
    path: &RelPath,
    size_max: u64,
) -> Result<Vec<u8>, WorkspaceError> {
    let from_io = |source| WorkspaceError::from_io(path, source);
    let too_large = |size| WorkspaceError::TooLarge { path: path.to_string(), size, size_max };
    let size = file.size().map_err(from_io)?;
    if size > size_max {
        return Err(too_large(size));
    }
    let mut bytes = Vec::new();
    file.take(size_max.saturating_add(1)).read_to_end(&mut bytes).map_err(from_io)?;
    if bytes.len() as u64 > size_max {
        return Err(too_large(bytes.len() as u64));
    }
    Ok(bytes)
}

fn info_of(path: &RelPath, facts: Facts) -> FileInfo {
    FileInfo {
        path: path.to_string(),
        kind: facts.kind,
        size: facts.size(),
        modified_ms: facts.modified_ms(),
        hash: facts.hash,
    }
}
