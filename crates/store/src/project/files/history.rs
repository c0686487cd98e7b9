//! Reading what files were.

use std::collections::BTreeMap;

use iris_protocol::{FileChange, FileVersion, FileVersionPage, RunId};
use rusqlite::{Connection, Row, params};

use super::{DiskFacts, version};
use crate::StoreError;
use crate::project::blobs::{self, BlobHash};
use crate::project::{pages, queries};

/// Most sub-agents' runs that count as a part of one run.
const RUNS_BELOW_MAX: u32 = 1_000;

const KNOWN: &str = "SELECT * FROM files WHERE path = ?1";
const KNOWN_AFTER: &str = "SELECT * FROM files WHERE path > ?1 ORDER BY path LIMIT ?2";
const ONE: &str = "SELECT * FROM file_versions WHERE path = ?1 AND version = ?2";
const NEWEST: &str = "SELECT * FROM file_versions WHERE path = ?1 ORDER BY version DESC LIMIT 1";
const PAGE: &str = "SELECT * FROM file_versions WHERE path = ?1 AND version < ?2
     ORDER BY version DESC LIMIT ?3";
const CONTENT: &str = "SELECT blob FROM file_versions WHERE path = ?1 AND version = ?2";
const CHANGED_BY: &str = "SELECT path, min(version) AS first, max(version) AS last
     FROM file_versions WHERE run_id = ?1 GROUP BY path ORDER BY path LIMIT ?2";
const SHARED_BY: &str = "SELECT path, min(version) AS first, max(version) AS last
     FROM shared_versions WHERE run_id = ?1 GROUP BY path ORDER BY path LIMIT ?2";
const RUNS_OF: &str = "SELECT run_id FROM shared_versions WHERE path = ?1 AND version = ?2";
const RUNS_BELOW: &str = "WITH RECURSIVE below (id) AS (
       VALUES (?1)
       UNION SELECT tasks.child_run_id FROM below JOIN tasks ON tasks.run_id = below.id
       LIMIT ?2)
     SELECT id FROM below";
/// A file as it was looked at last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownFile {
    /// Relative to the project's directory, with `/`.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256, 64 hex digits; empty for what is too large to be kept.
    pub hash: String,
    /// The number of its newest version.
    pub version: u64,
    /// What the file system said of it; none where it has to be looked at again.
    pub facts: Option<DiskFacts>,
}

/// A version, with what is needed to put it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileAt {
    /// The version.
    pub version: FileVersion,
    /// Its place in the order of all changes.
    pub number: i64,
    /// Permission bits of the file, where they are known.
    pub mode: Option<u32>,
}

/// A path at two moments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileBetween {
    /// Relative to the project's directory, with `/`.
    pub path: String,
    /// Its version at the first; none where there was none yet.
    pub before: Option<FileAt>,
    /// Its version at the second.
    pub after: Option<FileAt>,
}

/// What a run made of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedPath {
    /// Relative to the project's directory, with `/`.
    pub path: String,
    /// The first version that it made.
    pub first: u64,
    /// The last one.
    pub last: u64,
}

fn known_file(row: &Row<'_>) -> rusqlite::Result<KnownFile> {
    let (mtime_ns, ctime_ns, inode): (Option<i64>, Option<i64>, Option<i64>) =
        (row.get("mtime_ns")?, row.get("ctime_ns")?, row.get("inode")?);
    let facts = match (mtime_ns, ctime_ns, inode) {
        (Some(mtime_ns), Some(ctime_ns), Some(inode)) => {
            Some(DiskFacts { mtime_ns, ctime_ns, inode })
        }
        _ => None,
    };
    Ok(KnownFile {
        path: row.get("path")?,
        size: row.get("size")?,
        hash: row.get("hash")?,
        version: row.get("version")?,
        facts,
    })
}

pub(in crate::project) fn file_at(row: &Row<'_>) -> rusqlite::Result<FileAt> {
    Ok(FileAt { version: version(row)?, number: row.get("number")?, mode: row.get("mode")? })
}

pub(in crate::project) fn known(
    conn: &Connection,
    path: &str,
) -> Result<Option<KnownFile>, StoreError> {
    queries::first(conn, KNOWN, [path], known_file)
}

/// The files that are known, by path, from the one after `after` on.
pub(in crate::project) fn known_after(
    conn: &Connection,
    after: &str,
    limit: u32,
) -> Result<Vec<KnownFile>, StoreError> {
    queries::all(conn, KNOWN_AFTER, params![after, limit], known_file)
}

pub(in crate::project) fn one(
    conn: &Connection,
    path: &str,
    number: u64,
) -> Result<Option<FileAt>, StoreError> {
    queries::first(conn, ONE, params![path, number], file_at)
}

pub(in crate::project) fn newest(
    conn: &Connection,
    path: &str,
) -> Result<Option<FileAt>, StoreError> {
    queries::first(conn, NEWEST, [path], file_at)
}

/// Versions of a path, newest first.
pub(in crate::project) fn page(
    conn: &Connection,
    path: &str,
    limit: u32,
    cursor: Option<&str>,
) -> Result<FileVersionPage, StoreError> {
    let invalid = |cursor: &str| StoreError::InvalidCursor { cursor: cursor.to_owned() };
    let before = match cursor {
        None => i64::MAX,
        Some(cursor) => cursor.parse().map_err(|_| invalid(cursor))?,
    };
    let key = params![path, before, u64::from(limit) + 1];
    let mut versions = queries::all(conn, PAGE, key, version)?;
    let has_more = pages::cut(&mut versions, limit);
    let next_cursor = versions.last().filter(|_| has_more).map(|last| last.version.to_string());
    Ok(FileVersionPage { versions, next_cursor, has_more })
}

/// What a version holds; none where it is not kept.
pub(in crate::project) fn content(
    conn: &Connection,
    path: &str,
    number: u64,
) -> Result<Option<Vec<u8>>, StoreError> {
    let blob = queries::first(conn, CONTENT, params![path, number], |row| {
        row.get::<_, Option<Vec<u8>>>(0)
    })?;
    let Some(blob) = blob.flatten() else { return Ok(None) };
    blobs::get(conn, BlobHash::from_column(&blob)?).map(Some)
}

/// A run and the runs of the sub-agents that worked for it.
pub(in crate::project) fn runs_below(
    conn: &Connection,
    run_id: &RunId,
) -> Result<Vec<String>, StoreError> {
    queries::all(conn, RUNS_BELOW, params![run_id.as_str(), RUNS_BELOW_MAX], |row| row.get(0))
}

/// The runs one of which made a version, where nobody knows which.
pub(in crate::project) fn shared_by(
    conn: &Connection,
    version: &FileVersion,
) -> Result<Vec<String>, StoreError> {
    queries::all(conn, RUNS_OF, params![version.path, version.version], |row| row.get(0))
}

/// What runs made of each path, or may have made, by path, at most `limit` of them.
pub(in crate::project) fn changed_by(
    conn: &Connection,
    runs: &[String],
    limit: usize,
) -> Result<Vec<ChangedPath>, StoreError> {
    let mut paths: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (run, sql) in runs.iter().flat_map(|run| [(run, CHANGED_BY), (run, SHARED_BY)]) {
        let changed = queries::all(conn, sql, params![run, limit], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, u64>(1)?, row.get::<_, u64>(2)?))
        })?;
        for (path, first, last) in changed {
            let span = paths.entry(path).or_insert((first, last));
            *span = (span.0.min(first), span.1.max(last));
        }
    }
    let paths = paths.into_iter().take(limit);
    Ok(paths.map(|(path, (first, last))| ChangedPath { path, first, last }).collect())
}

impl ChangedPath {
    /// What became of the path, given whether it was there before and after.
    pub fn change(was: bool, is: bool) -> Option<FileChange> {
        match (was, is) {
            (true, true) => Some(FileChange::Updated),
            (true, false) => Some(FileChange::Deleted),
            (false, true) => Some(FileChange::Created),
            (false, false) => None,
        }
    }
}
