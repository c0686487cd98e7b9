//! Versions of files: what the disk holds is looked at by others and recorded here; in a project without a
//! directory the newest versions are the files.
//!
//! `files` has a row for each file that is there, `file_versions` one for each change, in one order of the
//! project. A version's content is a blob. Deliberately absent: any look at the disk.

mod history;
mod locks;
mod snapshots;
mod tree;
mod trimming;

use std::sync::Arc;

use iris_protocol::limits::{FILE_EVENTS_AT_ONCE_MAX, FILE_VERSIONS_TOLD_MAX};
use iris_protocol::{
    ChangedFile, Event, File, FileChange, FileSource, FileType, FileVersion, LockScope, MessageId,
    RevertOutcome, RunId, SessionId, SkippedFile, UserId,
};
use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};

use super::quotas::Quotas;
use super::{blobs, log, queries};
use crate::column::{optional_word, to_word, word};
use crate::{Command, StoreError, WhenFull, WriteTx};

pub use history::{ChangedPath, FileAt, FileBetween, KnownFile};
pub(super) use history::{
    changed_by, content, file_at, known, known_after, newest, one, page, runs_below, shared_by,
};
pub(super) use locks::all as all_locks;
pub use locks::{EndLocks, EndLocksOf, ReleaseLock, TakeLock, locked_for_others};
pub use snapshots::{
    BeginRestore, CreateSnapshot, RestoreEnd, RestoreTarget, StoredRestore, StoredSnapshot,
};
pub(super) use snapshots::{
    begun as begun_restore, changed_between, is_reverting, of_run as snapshot_of_run,
    one as snapshot, page as snapshots, state_at,
};
pub use tree::{TreeEntry, TreeFile};
pub(super) use tree::{entries as tree_entries, file as tree_file, read as tree_read};
pub use trimming::{FileRetention, TrimVersions};

const KNOWN_VERSION: &str = "SELECT version, hash, size FROM files WHERE path = ?1";
const LAST_VERSION: &str = "SELECT coalesce(max(version), 0) FROM file_versions WHERE path = ?1";
const SAVE_FILE: &str = "INSERT INTO files (path, size, version, hash, updated_at, updated_by,
       mtime_ns, ctime_ns, inode)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
     ON CONFLICT (path) DO UPDATE SET size = excluded.size, version = excluded.version,
       hash = excluded.hash, updated_at = excluded.updated_at, updated_by = excluded.updated_by,
       mtime_ns = excluded.mtime_ns, ctime_ns = excluded.ctime_ns, inode = excluded.inode";
const REFRESH: &str = "UPDATE files SET mtime_ns = ?2, ctime_ns = ?3, inode = ?4 WHERE path = ?1";
const ADOPT: &str = "UPDATE file_versions SET blob = ?3
     WHERE path = ?1 AND version = ?2 AND blob IS NULL";
const INSERT: &str =
    "INSERT INTO file_versions (path, version, change, size, hash, blob, mode, source,
       caused_by, session_id, run_id, message_id, from_path, despite_lock_of, at)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";
const SHARE: &str = "INSERT INTO shared_versions (run_id, path, version) VALUES (?1, ?2, ?3)";
const END_LAST: &str = "UPDATE file_versions SET until = ?3
     WHERE path = ?1 AND version = ?2 AND until IS NULL";
const DROP_OLD: &str = "DELETE FROM file_versions WHERE path = ?1 AND version <= ?2
     AND NOT EXISTS (SELECT 1 FROM snapshots WHERE snapshots.number >= file_versions.number
                       AND snapshots.number < file_versions.until)";

/// Who changes files, and in the course of what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    /// The user; none where nobody knows.
    pub by: Option<UserId>,
    /// How it came to be.
    pub source: FileSource,
    /// The session whose agent does it.
    pub session_id: Option<SessionId>,
    /// Its run.
    pub run_id: Option<RunId>,
    /// The answer of that run.
    pub message_id: Option<MessageId>,
    /// The runs one of which it was, where nobody knows which.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared: Vec<RunId>,
}

impl Author {
    /// Somebody or something besides Iris.
    pub const OUTSIDE: Self = Self {
        by: None,
        source: FileSource::External,
        session_id: None,
        run_id: None,
        message_id: None,
        shared: Vec::new(),
    };

    /// A user who does it themselves.
    pub fn user(by: UserId, source: FileSource) -> Self {
        Self { by: Some(by), source, ..Self::OUTSIDE }
    }
}

/// Facts of the file system about the content of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskFacts {
    /// When the content was changed last, in nanoseconds since 1970 UTC.
    pub mtime_ns: i64,
    /// When anything of the file was changed last, in nanoseconds since 1970 UTC.
    pub ctime_ns: i64,
    /// Its number in the file system.
    pub inode: i64,
}

/// How one path was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundFile {
    /// Relative to the project's directory, with `/`.
    pub path: String,
    /// What is there; none when nothing is.
    pub content: Option<FoundContent>,
    /// Where it was before, when it was moved.
    pub from: Option<String>,
    /// Whether it is a new version also with the content that it had.
    pub is_written: bool,
}

/// What a file was found to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundContent {
    /// Bytes.
    pub size: u64,
    /// SHA-256, 64 hex digits; empty for what is too large to be kept.
    pub hash: String,
    /// All of it; none where it is kept already, or not to be kept.
    pub bytes: Option<Arc<[u8]>>,
    /// Permission bits.
    pub mode: u32,
    /// What the file system says of it; none where that tells nothing.
    pub facts: Option<DiskFacts>,
}

/// Records how paths were found: what differs from what was known becomes a new version, with its events.
///
/// Fails with `QuotaExceeded` when there are quotas and the project would know too many files, or too large
/// ones.
#[derive(Debug, Clone)]
pub struct RecordFiles {
    /// At most a few megabytes together.
    pub found: Vec<FoundFile>,
    /// Who did it.
    pub author: Author,
    /// The most that the project may hold; none where what happened has to be recorded all the same.
    pub quotas: Option<Quotas>,
    /// Whether nobody is told: the files were there before anybody looked.
    pub is_quiet: bool,
    /// Most versions of one path that are kept, unless a snapshot holds more of them; at least 1.
    pub versions_max: u64,
    /// Whether a file is there by its version alone: none is recorded without its content.
    pub keeps_all: bool,
    /// What is complete with this, where several files were being put back together.
    pub ends_restore: Option<RestoreEnd>,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

/// What was recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedFiles {
    /// The new versions, the first [`FILE_VERSIONS_TOLD_MAX`] of them.
    pub versions: Vec<FileVersion>,
    /// How many there are.
    pub count: u64,
    /// What became of turns of a session with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverted: Option<RevertOutcome>,
    /// What stayed as it was, where files were put back to a snapshot.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<SkippedFile>,
    /// Paths that tools changed although somebody else had a lock on them, and who.
    #[serde(skip)]
    pub despite_locks: Vec<(String, UserId)>,
}

impl Command for RecordFiles {
    type Output = RecordedFiles;

    fn when_full(&self) -> WhenFull {
        // What happened is recorded; what is refused was refused before the disk was touched.
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<RecordedFiles, StoreError> {
        let mut recorded = Vec::new();
        let mut count = 0_u64;
        let mut despite_locks = Vec::new();
        let is_tool = self.author.source == FileSource::Tool;
        let locks = if is_tool { locks::all(tx.conn())? } else { Vec::new() };
        for found in self.found {
            if let (Some(quotas), Some(content)) = (&self.quotas, &found.content) {
                quotas.check_file(tx.conn(), &found.path, Some(content.size))?;
            }
            let path = found.path.clone();
            let user = self.author.by.as_ref();
            let lock = locks::lock_besides(&locks, &path, LockScope::File, user, self.at);
            let lock_owner = lock.map(|lock| &lock.owner_id);
            let Some(version) = record(tx, found, &self.author, lock_owner, self.at)? else {
                continue;
            };
            despite_locks.extend(lock_owner.map(|owner| (path.clone(), owner.clone())));
            let is_there = version.change != FileChange::Deleted;
            if self.keeps_all && is_there && !version.kept {
                let message = format!("what `{path}` is to hold is not kept");
                return Err(StoreError::conflict("content_not_kept", message));
            }
            drop_old(tx.conn(), &path, version.version, self.versions_max)?;
            count += 1;
            if recorded.len() < FILE_VERSIONS_TOLD_MAX.max(FILE_EVENTS_AT_ONCE_MAX) + 1 {
                recorded.push(version);
            }
        }
        if !self.is_quiet {
            publish(tx, &recorded, count, &self.author, self.at)?;
        }
        let (mut reverted, mut skipped) = (None, Vec::new());
        if let Some(end) = self.ends_restore {
            (reverted, skipped) = snapshots::end_restore(tx, end, &self.author, self.at)?;
        }
        recorded.truncate(FILE_VERSIONS_TOLD_MAX);
        Ok(RecordedFiles { versions: recorded, count, reverted, skipped, despite_locks })
    }
}

/// Notes that all files of the project were looked at once.
#[derive(Debug, Clone, Copy)]
pub struct NoteFilesKnown {
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for NoteFilesKnown {
    type Output = ();

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        tx.conn().prepare_cached("UPDATE meta SET files_known_at = ?1")?.execute([self.at])?;
        Ok(())
    }
}

pub(super) fn are_known(conn: &Connection) -> Result<bool, StoreError> {
    queries::one(conn, "SELECT files_known_at IS NOT NULL FROM meta", [], |row| row.get(0))
}

/// Tells a session what its run made of the files so far.
#[derive(Debug, Clone)]
pub struct PublishRunDiff {
    /// The session.
    pub session_id: SessionId,
    /// The run.
    pub run_id: RunId,
    /// By path.
    pub files: Vec<ChangedFile>,
    /// Whether there are more.
    pub cut: bool,
    /// Whose run it is.
    pub by: Option<UserId>,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for PublishRunDiff {
    type Output = ();

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        let Self { session_id, run_id, files, cut, by, at } = self;
        queries::existing_session(tx.conn(), &session_id)?;
        let event = Event::RunDiffUpdated { session_id: session_id.clone(), run_id, files, cut };
        log::in_session(tx, &session_id, at, by.as_ref(), &event)
    }
}

/// Records one path; none when nothing is new.
fn record(
    tx: &WriteTx<'_>,
    found: FoundFile,
    author: &Author,
    lock_owner: Option<&UserId>,
    at: i64,
) -> Result<Option<FileVersion>, StoreError> {
    let conn = tx.conn();
    let FoundFile { path, content, from, is_written } = found;
    let known = queries::first(conn, KNOWN_VERSION, [&path], |row| {
        Ok((row.get::<_, u64>(0)?, row.get::<_, String>(1)?, row.get::<_, u64>(2)?))
    })?;
    let Some(content) = content else {
        if known.is_none() {
            return Ok(None);
        }
        let new = New { path: &path, content: None, from: None, known: true, lock_owner };
        let version = append(conn, author, at, new)?;
        conn.prepare_cached("DELETE FROM files WHERE path = ?1")?.execute([&path])?;
        return Ok(Some(version));
    };
    if let Some((version, hash, size)) = &known
        && *hash == content.hash
        && *size == content.size
        && !content.hash.is_empty()
        && from.is_none()
        && !is_written
    {
        refresh(conn, &path, *version, &content)?;
        return Ok(None);
    }
    let (from, known) = (from.as_deref(), known.is_some());
    let new = New { path: &path, content: Some(&content), from, known, lock_owner };
    let version = append(conn, author, at, new)?;
    let facts = content.facts;
    conn.prepare_cached(SAVE_FILE)?.execute(params![
        path,
        content.size,
        version.version,
        content.hash,
        at,
        author.by.as_ref().map(UserId::as_str),
        facts.map(|facts| facts.mtime_ns),
        facts.map(|facts| facts.ctime_ns),
        facts.map(|facts| facts.inode),
    ])?;
    Ok(Some(version))
}

/// The content is the one that is known: notes what the file system says of it, and keeps it where it was not
/// kept.
fn refresh(
    conn: &Connection,
    path: &str,
    version: u64,
    content: &FoundContent,
) -> Result<(), StoreError> {
    let facts = content.facts;
    conn.prepare_cached(REFRESH)?.execute(params![
        path,
        facts.map(|facts| facts.mtime_ns),
        facts.map(|facts| facts.ctime_ns),
        facts.map(|facts| facts.inode),
    ])?;
    if let Some(bytes) = &content.bytes {
        let blob = blobs::put_on(conn, bytes)?;
        conn.prepare_cached(ADOPT)?.execute(params![path, version, blob.0])?;
    }
    Ok(())
}

/// What a new version holds.
#[derive(Clone, Copy)]
struct New<'a> {
    path: &'a str,
    /// None for a deletion.
    content: Option<&'a FoundContent>,
    from: Option<&'a str>,
    /// Whether a file was there.
    known: bool,
    /// Who else had a lock on it.
    lock_owner: Option<&'a UserId>,
}

fn append(
    conn: &Connection,
    author: &Author,
    at: i64,
    new: New<'_>,
) -> Result<FileVersion, StoreError> {
    let New { path, content, from, known, lock_owner } = new;
    let last: u64 = queries::one(conn, LAST_VERSION, [path], |row| row.get(0))?;
    let change = match (content, from) {
        (None, _) => FileChange::Deleted,
        (Some(_), Some(_)) => FileChange::Moved,
        (Some(_), None) if known => FileChange::Updated,
        (Some(_), None) => FileChange::Created,
    };
    let blob = match content {
        Some(FoundContent { bytes: Some(bytes), .. }) => Some(blobs::put_on(conn, bytes)?),
        // What is known by its hash alone is there under another path already.
        Some(content) => blobs::existing(conn, &content.hash)?,
        None => None,
    };
    let version = last + 1;
    let (size, hash) = content.map_or((0, ""), |content| (content.size, &content.hash));
    conn.prepare_cached(INSERT)?.execute(params![
        path,
        version,
        to_word(&change)?,
        size,
        hash,
        blob.map(|blob| blob.0),
        content.map(|content| content.mode),
        to_word(&author.source)?,
        author.by.as_ref().map(UserId::as_str),
        author.session_id.as_ref().map(SessionId::as_str),
        author.run_id.as_ref().map(RunId::as_str),
        author.message_id.as_ref().map(MessageId::as_str),
        from,
        lock_owner.map(UserId::as_str),
        at,
    ])?;
    let number = conn.last_insert_rowid();
    for run in &author.shared {
        conn.prepare_cached(SHARE)?.execute(params![run.as_str(), path, version])?;
    }
    conn.prepare_cached(END_LAST)?.execute(params![path, last, number])?;
    Ok(FileVersion {
        path: path.to_owned(),
        version,
        change,
        size,
        hash: hash.to_owned(),
        kept: blob.is_some(),
        by: author.by.clone(),
        session_id: author.session_id.clone(),
        run_id: author.run_id.clone(),
        message_id: author.message_id.clone(),
        source: author.source,
        from: from.map(str::to_owned),
        despite_lock_of: lock_owner.cloned(),
        at,
    })
}

/// Forgets the versions of a path that are too many, but for what a snapshot holds.
fn drop_old(conn: &Connection, path: &str, newest: u64, max: u64) -> Result<(), StoreError> {
    if let Some(old) = newest.checked_sub(max.max(1)).filter(|old| *old > 0) {
        conn.prepare_cached(DROP_OLD)?.execute(params![path, old])?;
    }
    Ok(())
}

/// An event for each change, or one for all of them when they are many.
fn publish(
    tx: &mut WriteTx<'_>,
    versions: &[FileVersion],
    count: u64,
    author: &Author,
    at: i64,
) -> Result<(), StoreError> {
    let by = author.by.as_ref();
    if count > FILE_EVENTS_AT_ONCE_MAX as u64 {
        let (by_whom, session_id) = (author.by.clone(), author.session_id.clone());
        let event = Event::FileChanged { count, by: by_whom, session_id, source: author.source };
        return log::in_project(tx, at, by, &event);
    }
    // A file that was moved is told of once: not as one that is gone, too.
    let moved: Vec<&str> = versions.iter().filter_map(|version| version.from.as_deref()).collect();
    for version in versions {
        let is_told = version.change == FileChange::Deleted && moved.contains(&&*version.path);
        if !is_told {
            log::in_project(tx, at, by, &event_of(version))?;
        }
    }
    Ok(())
}

fn event_of(version: &FileVersion) -> Event {
    let FileVersion { path, version: number, by, session_id, source, change, from, .. } =
        version.clone();
    let (version, despite_lock_of) = (number, version.despite_lock_of.clone());
    match change {
        FileChange::Created => {
            Event::FileCreated { path, version, by, session_id, source, despite_lock_of }
        }
        FileChange::Updated => {
            Event::FileUpdated { path, version, by, session_id, source, despite_lock_of }
        }
        FileChange::Deleted => {
            Event::FileDeleted { path, version, by, session_id, source, despite_lock_of }
        }
        FileChange::Moved => {
            let from = from.unwrap_or_default();
            Event::FileMoved { path, from, version, by, session_id, source, despite_lock_of }
        }
    }
}

/// The file that a version made.
pub fn file_of(version: &FileVersion) -> File {
    File {
        version: version.version,
        updated_at: Some(version.at),
        updated_by: version.by.clone(),
        ..File::unrecorded(version.path.clone(), FileType::File, version.size, version.hash.clone())
    }
}

pub(super) fn version(row: &Row<'_>) -> rusqlite::Result<FileVersion> {
    Ok(FileVersion {
        path: row.get("path")?,
        version: row.get("version")?,
        change: word(row, "change")?,
        size: row.get("size")?,
        hash: row.get("hash")?,
        kept: row.get::<_, Option<Vec<u8>>>("blob")?.is_some(),
        by: optional_word(row, "caused_by")?,
        session_id: optional_word(row, "session_id")?,
        run_id: optional_word(row, "run_id")?,
        message_id: optional_word(row, "message_id")?,
        source: word(row, "source")?,
        from: row.get("from_path")?,
        despite_lock_of: optional_word(row, "despite_lock_of")?,
        at: row.get("at")?,
    })
}
