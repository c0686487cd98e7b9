//! A directory that is held, on the disk or in a store, and what stands in it: whoever walks, looks or reads
//! need not know which.

use std::io::{self, Cursor, ErrorKind, Read};
use std::sync::Arc;

use cap_fs_ext::DirExt;
use cap_std::fs::{Dir, DirEntry, File, Metadata};

use crate::error::WorkspaceError;
use crate::path::RelPath;
use crate::read::{EntryKind, open_file};
use crate::seen::{Seen, now};
use crate::stored::StoredFolder;

/// A directory.
pub(crate) enum Folder {
    Disk(Dir),
    Stored(StoredFolder),
}

/// One name in a directory.
pub(crate) struct Named {
    /// With the bytes escaped that are not UTF-8.
    pub(crate) name: String,
    /// Whether there are such bytes: then nothing is found by the name.
    pub(crate) is_unreachable: bool,
    /// What it stands for; links are not followed.
    pub(crate) kind: EntryKind,
    /// Where they come along with the name.
    pub(crate) facts: Option<Facts>,
}

/// Facts about one file or directory.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) kind: EntryKind,
    pub(crate) seen: Seen,
    /// SHA-256 of the content, where that is known without reading it.
    pub(crate) hash: Option<String>,
}

impl Facts {
    fn of(metadata: &Metadata, looked_at: std::time::SystemTime) -> Self {
        let kind = EntryKind::of(metadata.file_type());
        Self { kind, seen: Seen::of(metadata, looked_at), hash: None }
    }

    /// Bytes; 0 for anything but a regular file.
    pub(crate) fn size(&self) -> u64 {
        if self.kind == EntryKind::File { self.seen.size } else { 0 }
    }

    /// Last change of the content, milliseconds since 1970 UTC.
    pub(crate) fn modified_ms(&self) -> i64 {
        self.seen.mtime_ns / 1_000_000
    }
}

/// A regular file that is read.
pub(crate) struct Opened {
    pub(crate) body: Body,
    pub(crate) facts: Facts,
}

/// What a regular file holds.
#[derive(Debug)]
pub(crate) enum Body {
    Disk(File),
    Stored(Cursor<Arc<[u8]>>),
}

impl Body {
    /// How many bytes it has now.
    pub(crate) fn size(&self) -> io::Result<u64> {
        match self {
            Self::Disk(file) => Ok(file.metadata()?.len()),
            Self::Stored(bytes) => Ok(bytes.get_ref().len() as u64),
        }
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Disk(file) => file.read(buffer),
            Self::Stored(bytes) => bytes.read(buffer),
        }
    }
}

impl Folder {
    /// What stands in it, in any order, at most `entries_max` of a store; `None` is what cannot be told.
    /// One of the disk that cannot be read holds nothing.
    pub(crate) fn entries<'a>(
        &'a self,
        entries_max: usize,
    ) -> Result<Box<dyn Iterator<Item = Option<Named>> + 'a>, WorkspaceError> {
        Ok(match self {
            Self::Disk(dir) => match dir.entries() {
                Ok(entries) => Box::new(entries.flatten().map(|entry| named(&entry))),
                Err(_) => Box::new(std::iter::empty()),
            },
            Self::Stored(folder) => Box::new(folder.entries(entries_max)?.into_iter().map(Some)),
        })
    }

    /// Facts about what has a name in it; links are not followed. `path` is that of the name.
    pub(crate) fn facts(&self, path: &RelPath, name: &str) -> Result<Facts, WorkspaceError> {
        match self {
            Self::Disk(dir) => {
                let looked_at = now();
                let metadata = dir.symlink_metadata(name);
                let metadata = metadata.map_err(|source| WorkspaceError::from_io(path, source))?;
                Ok(Facts::of(&metadata, looked_at))
            }
            Self::Stored(folder) => folder.facts(path, name),
        }
    }

    /// Facts about itself.
    pub(crate) fn own_facts(&self, path: &RelPath) -> Result<Facts, WorkspaceError> {
        match self {
            Self::Disk(dir) => {
                let looked_at = now();
                let metadata = dir.dir_metadata();
                let metadata = metadata.map_err(|source| WorkspaceError::from_io(path, source))?;
                Ok(Facts::of(&metadata, looked_at))
            }
            Self::Stored(_) => Ok(StoredFolder::facts_of_directory()),
        }
    }

    /// Opens a directory in it; no link.
    pub(crate) fn child(&self, path: &RelPath, name: &str) -> Result<Self, WorkspaceError> {
        match self {
            Self::Disk(dir) => dir.open_dir_nofollow(name).map(Self::Disk).map_err(|error| {
                if error.kind() == ErrorKind::NotADirectory {
                    return WorkspaceError::NotADirectory { path: path.to_string() };
                }
                WorkspaceError::from_io(path, error)
            }),
            Self::Stored(folder) => folder.child(path, name).map(Self::Stored),
        }
    }

    /// Opens a regular file in it; no link.
    pub(crate) fn open(&self, path: &RelPath, name: &str) -> Result<Opened, WorkspaceError> {
        match self {
            Self::Disk(dir) => {
                let looked_at = now();
                let (file, metadata) = open_file(dir, path, name)?;
                let facts = Facts::of(&metadata, looked_at);
                Ok(Opened { body: Body::Disk(file), facts })
            }
            Self::Stored(folder) => folder.open(path, name),
        }
    }
}

fn named(entry: &DirEntry) -> Option<Named> {
    let (name, is_unreachable) = match entry.file_name().into_string() {
        Ok(name) => (name, false),
        Err(name) => (escaped(name.as_encoded_bytes()), true),
    };
    let kind = match EntryKind::of(entry.file_type().ok()?) {
        // Some file systems do not tell the kind along with the name.
        EntryKind::Other => EntryKind::of(entry.metadata().ok()?.file_type()),
        known @ (EntryKind::File | EntryKind::Directory | EntryKind::Link) => known,
    };
    Some(Named { name, is_unreachable, kind, facts: None })
}

/// A name with the bytes that are not UTF-8 written as `\x{..}`.
fn escaped(name: &[u8]) -> String {
    let mut escaped = String::new();
    for chunk in name.utf8_chunks() {
        escaped.push_str(chunk.valid());
        escaped.extend(chunk.invalid().iter().map(|byte| format!("\\x{{{byte:02x}}}")));
    }
    escaped
}
