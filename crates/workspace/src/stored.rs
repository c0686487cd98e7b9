//! Files that a store holds, a path and a content each, and drafts of what is to become of them.
//!
//! There are no links, no second names, and no directories but those that a file is below. What is changed
//! is a draft, which nobody else sees: the caller commits it, together with whatever goes with it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Cursor, ErrorKind, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cap_std::fs::Dir;
use iris_protocol::ApiError;
use iris_protocol::limits::{FILE_BYTES_MAX, FILE_NAME_BYTES_MAX};

use crate::error::WorkspaceError;
use crate::folder::{Body, Facts, Folder, Named, Opened};
use crate::path::RelPath;
use crate::place::{Spot, is_protected};
use crate::read::content_hash;
use crate::write::Before;
use crate::{EntryKind, Seen, WriteOutcome};

/// Permission bits of a file of which none are known.
const MODE_NEW: u32 = 0o644;

/// What holds the files. Paths have `/` between names; that of the project itself is empty. Each call sees
/// one state, and blocks.
pub trait FileStore: Send + Sync {
    /// The file at a path.
    ///
    /// # Errors
    /// As the store fails.
    fn file(&self, path: &str) -> Result<Option<StoredFile>, ApiError>;

    /// The file at a path, with all of its content.
    ///
    /// # Errors
    /// As the store fails.
    fn read(&self, path: &str) -> Result<Option<(StoredFile, Vec<u8>)>, ApiError>;

    /// What stands in a directory, in any order, at most `entries_max` names; nothing where there is none.
    ///
    /// # Errors
    /// As the store fails.
    fn entries(&self, directory: &str, entries_max: usize) -> Result<Vec<StoredEntry>, ApiError>;
}

/// A file that a store holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFile {
    /// Bytes.
    pub size: u64,
    /// SHA-256 of the content, 64 hex digits.
    pub hash: String,
    /// Permission bits, where they are known.
    pub mode: Option<u32>,
    /// Last change, milliseconds since 1970 UTC.
    pub modified_ms: i64,
}

/// One name in a directory of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    /// The name.
    pub name: String,
    /// The file of that name; none for a directory.
    pub file: Option<StoredFile>,
}

/// What is to become of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drafted {
    /// Where.
    pub path: String,
    /// What is to be there; none for nothing.
    pub file: Option<StoredFile>,
    /// Its content; none where that is one that the store holds.
    pub bytes: Option<Arc<[u8]>>,
}

/// A file of a draft.
#[derive(Debug, Clone)]
struct Draft {
    file: StoredFile,
    content: Content,
}

#[derive(Debug, Clone)]
enum Content {
    Bytes(Arc<[u8]>),
    /// What the store holds at this path.
    Of(String),
}

/// By path; none for what is to be gone.
type Drafts = BTreeMap<String, Option<Draft>>;

/// Files in a store, and what is to become of some of them.
#[derive(Clone)]
pub(crate) struct Stored {
    store: Arc<dyn FileStore>,
    /// What is received grows below it.
    staging: Arc<Dir>,
    /// None where nothing is to be changed.
    drafts: Option<Arc<Mutex<Drafts>>>,
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored").field("drafts", &self.drafts).finish_non_exhaustive()
    }
}

/// A directory of a store.
pub(crate) struct StoredFolder {
    stored: Stored,
    path: RelPath,
}

fn failed(error: ApiError) -> WorkspaceError {
    WorkspaceError::Store { error: Box::new(error) }
}

/// The path as the store knows it.
fn key(path: &RelPath) -> &str {
    if path.is_root() { "" } else { path.as_str() }
}

/// How the paths of what is below a directory begin.
fn below(directory: &RelPath) -> String {
    if directory.is_root() { String::new() } else { format!("{directory}/") }
}

/// Refuses a name that no file system takes.
fn check_names(path: &RelPath) -> Result<(), WorkspaceError> {
    if path.names().any(|name| name.len() > FILE_NAME_BYTES_MAX) {
        return Err(WorkspaceError::from_io(path, ErrorKind::InvalidFilename.into()));
    }
    Ok(())
}

fn not_found(path: &RelPath) -> WorkspaceError {
    WorkspaceError::NotFound { path: path.to_string() }
}

fn facts_of(file: StoredFile) -> Facts {
    let at_ns = file.modified_ms.saturating_mul(1_000_000);
    let mode = file.mode.unwrap_or(MODE_NEW);
    // Facts of the store say nothing to those who look at disks.
    let seen =
        Seen { size: file.size, mtime_ns: at_ns, ctime_ns: at_ns, inode: 0, mode, is_fresh: true };
    Facts { kind: EntryKind::File, seen, hash: Some(file.hash) }
}

impl Stored {
    pub(crate) fn new(store: Arc<dyn FileStore>, staging: Dir) -> Self {
        Self { store, staging: Arc::new(staging), drafts: None }
    }

    pub(crate) fn staging(&self) -> &Dir {
        &self.staging
    }

    pub(crate) fn draft(&self) -> Self {
        Self { drafts: Some(Arc::default()), ..self.clone() }
    }

    pub(crate) fn drafted(&self) -> Vec<Drafted> {
        let Some(drafts) = self.drafts() else { return Vec::new() };
        let drafted = drafts.iter().map(|(path, draft)| {
            let bytes = match draft.as_ref().map(|draft| &draft.content) {
                Some(Content::Bytes(bytes)) => Some(Arc::clone(bytes)),
                Some(Content::Of(_)) | None => None,
            };
            let file = draft.as_ref().map(|draft| draft.file.clone());
            Drafted { path: path.clone(), file, bytes }
        });
        drafted.collect()
    }

    fn drafts(&self) -> Option<MutexGuard<'_, Drafts>> {
        let drafts = self.drafts.as_ref()?;
        Some(drafts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is drafted for a path: outside none where nothing is, inside none where it is to be gone.
    fn drafted_at(&self, path: &str) -> Option<Option<Draft>> {
        self.drafts()?.get(path).cloned()
    }

    fn set(&self, path: &RelPath, draft: Option<Draft>) -> Result<(), WorkspaceError> {
        let Some(mut drafts) = self.drafts() else {
            let source = ErrorKind::ReadOnlyFilesystem.into();
            return Err(WorkspaceError::Io { path: path.to_string(), source });
        };
        drafts.insert(path.as_str().to_owned(), draft);
        Ok(())
    }

    fn file(&self, path: &str) -> Result<Option<StoredFile>, WorkspaceError> {
        match self.drafted_at(path) {
            Some(draft) => Ok(draft.map(|draft| draft.file)),
            None => self.store.file(path).map_err(failed),
        }
    }

    fn read(&self, path: &str) -> Result<Option<(StoredFile, Arc<[u8]>)>, WorkspaceError> {
        let from_store = |path: &str| {
            let read = self.store.read(path).map_err(failed)?;
            Ok(read.map(|(file, bytes)| (file, Arc::from(bytes))))
        };
        match self.drafted_at(path) {
            None => from_store(path),
            Some(None) => Ok(None),
            Some(Some(Draft { file, content: Content::Bytes(bytes) })) => Ok(Some((file, bytes))),
            Some(Some(Draft { file, content: Content::Of(path) })) => {
                Ok(from_store(&path)?.map(|(_, bytes)| (file, bytes)))
            }
        }
    }

    /// What stands in a directory.
    fn entries(
        &self,
        directory: &RelPath,
        entries_max: usize,
    ) -> Result<Vec<StoredEntry>, WorkspaceError> {
        let entries = self.store.entries(key(directory), entries_max).map_err(failed)?;
        let prefix = below(directory);
        let changed: Vec<(String, Option<StoredFile>)> = match self.drafts() {
            Some(drafts) => {
                let below = drafts.range(prefix.clone()..);
                let below = below.take_while(|(path, _)| path.starts_with(&prefix));
                below
                    .map(|(path, it)| (path.clone(), it.as_ref().map(|it| it.file.clone())))
                    .collect()
            }
            None => Vec::new(),
        };
        if changed.is_empty() {
            return Ok(entries);
        }
        let mut entries: BTreeMap<String, Option<StoredFile>> =
            entries.into_iter().map(|entry| (entry.name, entry.file)).collect();
        for (path, file) in changed {
            let rest = path.strip_prefix(&prefix).unwrap_or_default();
            match (rest.split_once('/'), file) {
                (None, Some(file)) => drop(entries.insert(rest.to_owned(), Some(file))),
                (None, None) => {
                    if entries.get(rest).is_some_and(Option::is_some) {
                        entries.remove(rest);
                    }
                }
                (Some((name, _)), Some(_)) => drop(entries.insert(name.to_owned(), None)),
                (Some((name, _)), None) => {
                    if entries.get(name).is_some_and(Option::is_none)
                        && !self.is_directory(&directory.child(name))?
                    {
                        entries.remove(name);
                    }
                }
            }
        }
        Ok(entries.into_iter().map(|(name, file)| StoredEntry { name, file }).collect())
    }

    /// Whether any file is below a path.
    fn is_directory(&self, path: &RelPath) -> Result<bool, WorkspaceError> {
        let prefix = below(path);
        let (is_drafted, has_gone) = match self.drafts() {
            Some(drafts) => {
                let below = drafts.range(prefix.clone()..);
                let mut below = below.take_while(|(path, _)| path.starts_with(&prefix)).peekable();
                let has_any = below.peek().is_some();
                (below.any(|(_, draft)| draft.is_some()), has_any)
            }
            None => (false, false),
        };
        if is_drafted {
            return Ok(true);
        }
        if !has_gone {
            return Ok(!self.store.entries(key(path), 1).map_err(failed)?.is_empty());
        }
        // Some of what the store holds there is to be gone.
        let mut is_there = false;
        self.visit_store(path, &mut |file, _| {
            is_there |= self.drafted_at(file.as_str()).is_none();
            !is_there
        })?;
        Ok(is_there)
    }

    /// The files of the store below a directory, until `visit` says that it is enough. Says how many files and
    /// directories were met.
    fn visit_store(
        &self,
        directory: &RelPath,
        visit: &mut dyn FnMut(&RelPath, StoredFile) -> bool,
    ) -> Result<usize, WorkspaceError> {
        let (mut pending, mut count) = (vec![directory.clone()], 0);
        while let Some(directory) = pending.pop() {
            for entry in self.store.entries(key(&directory), usize::MAX).map_err(failed)? {
                count += 1;
                let path = directory.child(&entry.name);
                let Some(file) = entry.file else {
                    pending.push(path);
                    continue;
                };
                if !visit(&path, file) {
                    return Ok(count);
                }
            }
        }
        Ok(count)
    }

    /// Where a path leads, for reading.
    pub(crate) fn look_up(&self, path: &RelPath) -> Result<Spot, WorkspaceError> {
        check_names(path)?;
        let names: Vec<&str> = path.names().collect();
        let (name, above) = match names.split_last() {
            Some((name, above)) => (Some((*name).to_owned()), above),
            None => (None, names.as_slice()),
        };
        let above = above.iter().fold(RelPath::ROOT, |path, name| path.child(name));
        let folder = Folder::Stored(StoredFolder { stored: self.clone(), path: above });
        Ok(Spot::new(folder, name, path.clone()))
    }

    /// The file that a write replaces, if there is one.
    ///
    /// # Errors
    ///
    /// `ProtectedPath`, `NotADirectory` for a file on the way, `NotAFile` for a directory at its end.
    pub(crate) fn target(&self, path: &RelPath) -> Result<Option<StoredFile>, WorkspaceError> {
        check_names(path)?;
        if path.names().any(is_protected) {
            return Err(WorkspaceError::ProtectedPath { path: path.to_string() });
        }
        if let Some(file) = self.file(path.as_str())? {
            return Ok(Some(file));
        }
        let names: Vec<&str> = path.names().collect();
        let mut above = RelPath::ROOT;
        for name in names.split_last().map_or(names.as_slice(), |(_, above)| above) {
            above = above.child(name);
            if self.file(above.as_str())?.is_some() {
                return Err(WorkspaceError::NotADirectory { path: path.to_string() });
            }
        }
        if self.is_directory(path)? {
            return Err(WorkspaceError::NotAFile { path: path.to_string() });
        }
        Ok(None)
    }

    /// The file that is at a path.
    ///
    /// # Errors
    ///
    /// As [`Stored::target`], and `NotFound`.
    pub(crate) fn present(&self, path: &RelPath) -> Result<StoredFile, WorkspaceError> {
        self.target(path)?.ok_or_else(|| not_found(path))
    }

    pub(crate) fn replace(
        &self,
        path: &RelPath,
        content: &mut dyn Read,
        before: Before<'_>,
    ) -> Result<WriteOutcome, WorkspaceError> {
        let present = self.target(path)?;
        let size_max = FILE_BYTES_MAX as u64;
        let mut bytes = Vec::new();
        let read = content.take(size_max + 1).read_to_end(&mut bytes);
        read.map_err(|source| WorkspaceError::from_io(path, source))?;
        let size = bytes.len() as u64;
        if size > size_max {
            return Err(WorkspaceError::TooLarge { path: path.to_string(), size, size_max });
        }
        let changed = || WorkspaceError::Changed { path: path.to_string() };
        let created = present.is_none();
        let kept = present.as_ref().and_then(|file| file.mode);
        let mode = match before {
            Before::Any => kept,
            Before::AnyButBits(mode) => Some(mode),
            Before::Content(hash) if present.is_some_and(|file| file.hash == hash) => kept,
            Before::Nothing { mode } if created => mode,
            Before::Content(_) | Before::Nothing { .. } => return Err(changed()),
        };
        let hash = content_hash(&bytes);
        let file = StoredFile { size, hash: hash.clone(), mode, modified_ms: 0 };
        self.set(path, Some(Draft { file, content: Content::Bytes(bytes.into()) }))?;
        Ok(WriteOutcome { path: path.to_string(), created, size, hash })
    }

    pub(crate) fn remove_if_unchanged(
        &self,
        path: &RelPath,
        known_hash: &str,
    ) -> Result<(), WorkspaceError> {
        if self.present(path)?.hash != known_hash {
            return Err(WorkspaceError::Changed { path: path.to_string() });
        }
        self.set(path, None)
    }

    pub(crate) fn remove(
        &self,
        path: &RelPath,
        recursive: bool,
        count_max: usize,
    ) -> Result<(), WorkspaceError> {
        match self.present(path) {
            Ok(_) => return self.set(path, None),
            Err(WorkspaceError::NotAFile { .. }) => {}
            Err(error) => return Err(error),
        }
        if !recursive {
            return Err(WorkspaceError::NotEmpty { path: path.to_string() });
        }
        for (path, _) in self.below(path, count_max)? {
            self.set(&path, None)?;
        }
        Ok(())
    }

    /// The files below a directory, at most `count_max` of them with the directories.
    fn below(
        &self,
        directory: &RelPath,
        count_max: usize,
    ) -> Result<Vec<(RelPath, StoredFile)>, WorkspaceError> {
        let mut files = BTreeMap::new();
        let count = self.visit_store(directory, &mut |path, file| {
            if self.drafted_at(path.as_str()).is_none() {
                files.insert(path.clone(), file);
            }
            files.len() <= count_max
        })?;
        if count > count_max {
            return Err(WorkspaceError::TooMany { path: directory.to_string(), count_max });
        }
        let prefix = below(directory);
        if let Some(drafts) = self.drafts() {
            let drafts = drafts.range(prefix.clone()..);
            for (path, draft) in drafts.take_while(|(path, _)| path.starts_with(&prefix)) {
                if let Some(draft) = draft {
                    files.insert(RelPath::file(path)?, draft.file.clone());
                }
            }
        }
        Ok(files.into_iter().collect())
    }

    /// Says whether a directory was moved.
    pub(crate) fn rename(
        &self,
        from: &RelPath,
        to: &RelPath,
        overwrite: bool,
    ) -> Result<bool, WorkspaceError> {
        let is_directory = match self.present(from) {
            Ok(_) => false,
            Err(WorkspaceError::NotAFile { .. }) => true,
            Err(error) => return Err(error),
        };
        match self.target(to) {
            Ok(None) => {}
            Ok(Some(_)) if overwrite && !is_directory => {}
            Ok(Some(_)) | Err(WorkspaceError::NotAFile { .. }) => {
                return Err(WorkspaceError::Exists { path: to.to_string() });
            }
            Err(error) => return Err(error),
        }
        if !is_directory {
            self.carry(from, to)?;
            return Ok(false);
        }
        let prefix = below(from);
        let files = self.below(from, usize::MAX)?;
        let moved = files.into_iter().map(|(path, _)| {
            let rest = path.as_str().strip_prefix(&prefix).unwrap_or_default();
            Ok((RelPath::file(&format!("{to}/{rest}"))?, path))
        });
        // All of them, or none.
        for (to, from) in moved.collect::<Result<Vec<_>, WorkspaceError>>()? {
            self.carry(&from, &to)?;
        }
        Ok(true)
    }

    /// Moves one file.
    fn carry(&self, from: &RelPath, to: &RelPath) -> Result<(), WorkspaceError> {
        let draft = match self.drafted_at(from.as_str()) {
            Some(draft) => draft.ok_or_else(|| not_found(from))?,
            None => {
                // The store knows its permission bits here alone.
                let file = self.store.file(from.as_str()).map_err(failed)?;
                let file = file.ok_or_else(|| not_found(from))?;
                Draft { file, content: Content::Of(from.as_str().to_owned()) }
            }
        };
        self.set(to, Some(draft))?;
        self.set(from, None)
    }
}

impl StoredFolder {
    /// A directory has no facts of its own.
    pub(crate) fn facts_of_directory() -> Facts {
        let file = StoredFile { size: 0, hash: String::new(), mode: Some(0o755), modified_ms: 0 };
        Facts { kind: EntryKind::Directory, hash: None, ..facts_of(file) }
    }

    pub(crate) fn entries(&self, entries_max: usize) -> Result<Vec<Named>, WorkspaceError> {
        let entries = self.stored.entries(&self.path, entries_max)?.into_iter();
        let named = entries.map(|StoredEntry { name, file }| {
            let facts = file.map_or_else(Self::facts_of_directory, facts_of);
            Named { name, kind: facts.kind, facts: Some(facts) }
        });
        Ok(named.collect())
    }

    pub(crate) fn facts(&self, path: &RelPath, name: &str) -> Result<Facts, WorkspaceError> {
        let at = self.path.child(name);
        if let Some(file) = self.stored.file(at.as_str())? {
            return Ok(facts_of(file));
        }
        if self.stored.is_directory(&at)? {
            return Ok(Self::facts_of_directory());
        }
        Err(not_found(path))
    }

    pub(crate) fn child(&self, path: &RelPath, name: &str) -> Result<Self, WorkspaceError> {
        let at = self.path.child(name);
        if self.stored.is_directory(&at)? {
            return Ok(Self { stored: self.stored.clone(), path: at });
        }
        if self.stored.file(at.as_str())?.is_some() {
            return Err(WorkspaceError::NotADirectory { path: path.to_string() });
        }
        Err(not_found(path))
    }

    pub(crate) fn open(&self, path: &RelPath, name: &str) -> Result<Opened, WorkspaceError> {
        let at = self.path.child(name);
        if let Some((file, bytes)) = self.stored.read(at.as_str())? {
            return Ok(Opened { body: Body::Stored(Cursor::new(bytes)), facts: facts_of(file) });
        }
        if self.stored.is_directory(&at)? {
            return Err(WorkspaceError::NotAFile { path: path.to_string() });
        }
        Err(not_found(path))
    }
}
