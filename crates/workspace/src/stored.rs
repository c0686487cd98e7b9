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

/// What is to be at a path.
#[derive(Debug, Clone)]
enum Draft {
    Gone,
    /// A file with this content.
    New(StoredFile, Arc<[u8]>),
    /// A file with the content that the store holds at this path.
    Moved(StoredFile, String),
}

impl Draft {
    fn file(&self) -> Option<&StoredFile> {
        match self {
            Self::Gone => None,
            Self::New(file, _) | Self::Moved(file, _) => Some(file),
        }
    }
}

/// A file with all of its content.
type WithContent = (StoredFile, Arc<[u8]>);

/// By path.
type Drafts = BTreeMap<String, Draft>;

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
            let bytes = match draft {
                Draft::New(_, bytes) => Some(Arc::clone(bytes)),
                Draft::Gone | Draft::Moved(..) => None,
            };
            Drafted { path: path.clone(), file: draft.file().cloned(), bytes }
        });
        drafted.collect()
    }

    fn drafts(&self) -> Option<MutexGuard<'_, Drafts>> {
        let drafts = self.drafts.as_ref()?;
        Some(drafts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn drafted_at(&self, path: &str) -> Option<Draft> {
        self.drafts()?.get(path).cloned()
    }

    fn set(&self, path: &RelPath, draft: Draft) -> Result<(), WorkspaceError> {
        let Some(mut drafts) = self.drafts() else {
            let source = ErrorKind::ReadOnlyFilesystem.into();
            return Err(WorkspaceError::Io { path: path.to_string(), source });
        };
        drafts.insert(path.as_str().to_owned(), draft);
        Ok(())
    }

    fn file(&self, path: &str) -> Result<Option<StoredFile>, WorkspaceError> {
        match self.drafted_at(path) {
            Some(draft) => Ok(draft.file().cloned()),
            None => self.store.file(path).map_err(failed),
        }
    }

    fn read(&self, path: &str) -> Result<Option<WithContent>, WorkspaceError> {
        let from_store = |path: &str| match self.store.read(path) {
            Ok(read) => Ok(read.map(|(file, bytes)| (file, Arc::<[u8]>::from(bytes)))),
            Err(error) => Err(failed(error)),
        };
        match self.drafted_at(path) {
            None => from_store(path),
            Some(Draft::Gone) => Ok(None),
            Some(Draft::New(file, bytes)) => Ok(Some((file, bytes))),
            Some(Draft::Moved(file, path)) => {
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
                below.map(|(path, it)| (path.clone(), it.file().cloned())).collect()
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
        let is_drafted = self.drafts().is_some_and(|drafts| {
            drafts.range(prefix.clone()..).next().is_some_and(|(path, _)| path.starts_with(&prefix))
        });
        // Some of what the store has there may be gone in the draft.
        let entries_max = if is_drafted { usize::MAX } else { 1 };
        Ok(!self.entries(path, entries_max)?.is_empty())
    }

    /// Refuses a path with a file on the way: nothing is there, nor can be.
    pub(crate) fn check_way(&self, path: &RelPath) -> Result<(), WorkspaceError> {
        if self.has_file_above(path)? { Err(not_found(path)) } else { Ok(()) }
    }

    fn has_file_above(&self, path: &RelPath) -> Result<bool, WorkspaceError> {
        let names: Vec<&str> = path.names().collect();
        let mut above = RelPath::ROOT;
        for name in names.split_last().map_or(names.as_slice(), |(_, above)| above) {
            above = above.child(name);
            if self.file(above.as_str())?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
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
        if self.has_file_above(path)? {
            return Err(WorkspaceError::NotADirectory { path: path.to_string() });
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
        self.set(path, Draft::New(file, bytes.into()))?;
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
        self.set(path, Draft::Gone)
    }

    pub(crate) fn remove(
        &self,
        path: &RelPath,
        recursive: bool,
        count_max: usize,
    ) -> Result<(), WorkspaceError> {
        match self.present(path) {
            Ok(_) => return self.set(path, Draft::Gone),
            Err(WorkspaceError::NotAFile { .. }) => {}
            Err(error) => return Err(error),
        }
        if !recursive {
            return Err(WorkspaceError::NotEmpty { path: path.to_string() });
        }
        for path in self.below(path, count_max)? {
            self.set(&path, Draft::Gone)?;
        }
        Ok(())
    }

    /// The files below a directory, at most `count_max` of them with the directories.
    fn below(&self, directory: &RelPath, count_max: usize) -> Result<Vec<RelPath>, WorkspaceError> {
        let (mut files, mut pending, mut count) = (Vec::new(), vec![directory.clone()], 0);
        while let Some(folder) = pending.pop() {
            for StoredEntry { name, file } in self.entries(&folder, usize::MAX)? {
                count += 1;
                if count > count_max {
                    let path = directory.to_string();
                    return Err(WorkspaceError::TooMany { path, count_max });
                }
                match file {
                    Some(_) => files.push(folder.child(&name)),
                    None => pending.push(folder.child(&name)),
                }
            }
        }
        Ok(files)
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
        let moved = files.into_iter().map(|path| {
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
            Some(Draft::Gone) => return Err(not_found(from)),
            Some(draft) => draft,
            None => {
                // The store knows its permission bits here alone.
                let file = self.store.file(from.as_str()).map_err(failed)?;
                let file = file.ok_or_else(|| not_found(from))?;
                Draft::Moved(file, from.as_str().to_owned())
            }
        };
        self.set(to, draft)?;
        self.set(from, Draft::Gone)
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
            Named { name, is_unreachable: false, kind: facts.kind, facts: Some(facts) }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Cancel, GrepQuery, SearchLimits, Workspace};

    /// A store in memory.
    #[derive(Default)]
    struct Memory {
        files: Mutex<BTreeMap<String, (StoredFile, Vec<u8>)>>,
    }

    impl Memory {
        fn commit(&self, drafted: Vec<Drafted>) {
            let mut files = self.files.lock().unwrap();
            let before = files.clone();
            for Drafted { path, file, bytes } in drafted {
                let Some(file) = file else {
                    files.remove(&path);
                    continue;
                };
                let kept = || {
                    let kept = before.values().find(|(kept, _)| kept.hash == file.hash);
                    kept.unwrap().1.clone()
                };
                let bytes = bytes.map_or_else(kept, |bytes| bytes.to_vec());
                files.insert(path, (file, bytes));
            }
        }
    }

    impl FileStore for Memory {
        fn file(&self, path: &str) -> Result<Option<StoredFile>, ApiError> {
            Ok(self.files.lock().unwrap().get(path).map(|(file, _)| file.clone()))
        }

        fn read(&self, path: &str) -> Result<Option<(StoredFile, Vec<u8>)>, ApiError> {
            Ok(self.files.lock().unwrap().get(path).cloned())
        }

        fn entries(&self, directory: &str, max: usize) -> Result<Vec<StoredEntry>, ApiError> {
            let prefix = if directory.is_empty() { String::new() } else { format!("{directory}/") };
            let mut entries = BTreeMap::new();
            for (path, (file, _)) in self.files.lock().unwrap().iter() {
                let Some(rest) = path.strip_prefix(&prefix) else { continue };
                match rest.split_once('/') {
                    Some((name, _)) => entries.insert(name.to_owned(), None),
                    None => entries.insert(rest.to_owned(), Some(file.clone())),
                };
            }
            let entries = entries.into_iter().map(|(name, file)| StoredEntry { name, file });
            Ok(entries.take(max).collect())
        }
    }

    fn stored(staging: &std::path::Path) -> (Arc<Memory>, Workspace) {
        let memory: Arc<Memory> = Arc::default();
        let store: Arc<dyn FileStore> = memory.clone();
        (memory, Workspace::stored(store, staging).unwrap())
    }

    const PATHS: [&str; 9] =
        ["a", "b", "a/b", "dir", "dir/a", "dir/deep/b", "dir/deep", ".gitignore", ".git/x"];

    /// What a caller is told of a change.
    fn change(workspace: &Workspace, kind: u8, one: &str, other: &str, content: &str) -> String {
        let told = |done: Result<String, WorkspaceError>| match done {
            Ok(done) => done,
            Err(error) => format!("{:?} {:?} {error}", error.code(), error.reason()),
        };
        let written = |outcome: WriteOutcome| format!("{outcome:?}");
        let done = match kind {
            0 | 1 => workspace.write(one, content.as_bytes()).map(written),
            2 => workspace.write_if_absent(one, content.as_bytes(), Some(other)).map(written),
            3 => {
                let hash = content_hash(b"x\n");
                workspace.write_if_unchanged(one, content.as_bytes(), &hash).map(written)
            }
            4 => workspace.rename(one, other, content == "x\n").map(|moved| format!("{moved:?}")),
            5 => workspace.remove(one, content == "x\n", 2).map(|()| String::new()),
            6 => workspace.remove_if_unchanged(one, &content_hash(b"x\n")).map(|()| String::new()),
            7 => workspace.check_write(one).map(|()| String::new()),
            _ => workspace.check_remove(one).map(|()| String::new()),
        };
        // A store has none.
        workspace.remove_empty_above(one);
        workspace.remove_empty_above(other);
        told(done)
    }

    /// All that a caller may see.
    fn seen(workspace: &Workspace) -> Vec<String> {
        let (limits, cancel) = (SearchLimits::default(), Cancel::new());
        let mut seen = vec![
            format!("{:?}", workspace.list(".", 9, &limits, &cancel)),
            format!("{:?}", workspace.list("dir", 1, &limits, &cancel)),
            format!("{:?}", workspace.glob("**/b", ".", &limits, &cancel)),
        ];
        let query =
            GrepQuery { pattern: "x".to_owned(), path: ".".to_owned(), ..GrepQuery::default() };
        seen.push(format!("{:?}", workspace.grep(&query, &|_| true, &limits, &cancel)));
        for path in PATHS {
            seen.push(format!("{:?}", workspace.read_text(path, 99)));
            let info = workspace.stat(path).map(|info| (info.kind, info.size, info.hash));
            seen.push(format!("{info:?} {:?}", workspace.real_path(path)));
            seen.push(format!("{:?}", workspace.look(path).map(|it| it.map(|it| it.size))));
            seen.push(format!("{}", workspace.is_ignored(path)));
            let page = workspace.list_page(".", 9, true, Some(path), 2, &cancel).map(|page| {
                let entries = page.entries.into_iter().map(|it| (it.path, it.kind, it.size));
                (entries.collect::<Vec<_>>(), page.has_more)
            });
            seen.push(format!("{page:?}"));
        }
        seen
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        /// Whatever is done, and whether it is committed at once or later, a store answers as a directory does.
        #[test]
        fn a_store_answers_as_a_directory_does(
            steps in proptest::collection::vec((0_u8..9, 0..9_usize, 0..9_usize, 0..3_usize, any::<bool>()), 1..40),
        ) {
            let (root, staging) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let directory = Workspace::open(root.path()).unwrap();
            let (memory, base) = stored(staging.path());
            let mut draft = base.draft();
            for (kind, one, other, content, commits) in steps {
                let content = ["x\n", "y\nx\n", "b\n"][content];
                let (one, other) = (PATHS[one], PATHS[other]);
                let expected = change(&directory, kind, one, other, content);
                let found = change(&draft, kind, one, other, content);
                prop_assert_eq!(&found, &expected, "{} {} {}", kind, one, other);
                prop_assert_eq!(seen(&draft), seen(&directory), "{} {} {}", kind, one, other);
                if commits {
                    memory.commit(draft.drafted());
                    draft = base.draft();
                    prop_assert_eq!(seen(&base), seen(&directory));
                }
            }
        }
    }

    #[test]
    fn nothing_is_changed_but_in_a_draft_and_a_draft_is_seen_by_its_owner_alone() {
        let staging = tempfile::tempdir().unwrap();
        let (memory, base) = stored(staging.path());
        let refused = base.write("a", b"x").unwrap_err();
        assert_eq!(refused.code(), iris_protocol::ErrorCode::ReadOnly);
        let (one, other) = (base.draft(), base.draft());
        one.write("a", b"x").unwrap();
        assert!(base.look("a").unwrap().is_none() && other.look("a").unwrap().is_none());
        assert_eq!(one.clone().read_bytes("a", 9).unwrap().bytes, b"x");
        let held = one.open_file("a", 9).unwrap();
        assert!(held.is_held() && held.read_at(0, 9).unwrap() == b"x");
        assert_eq!(held.known_hash(), Some(&*held.hash().unwrap()));
        memory.commit(one.drafted());
        assert!(base.look("a").unwrap().is_some() && base.drafted().is_empty());

        let large = vec![0; FILE_BYTES_MAX + 1];
        assert!(matches!(one.write("b", &large), Err(WorkspaceError::TooLarge { .. })));
        let mut staged = base.stage("one").unwrap();
        staged.write(b"received").unwrap();
        one.place_staged(&staged, "dir/c").unwrap();
        assert_eq!(one.read_bytes("dir/c", 9).unwrap().bytes, b"received");
        base.discard_staged("one").unwrap();
        let long = "n".repeat(FILE_NAME_BYTES_MAX + 1);
        assert_eq!(one.write(&long, b"x").unwrap_err().reason(), Some("invalid_path"));
        assert_eq!(one.stat(&long).unwrap_err().reason(), Some("invalid_path"));
    }
}
