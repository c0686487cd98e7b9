//! Snapshots: moments in the order of changes, and going back to one.

use iris_protocol::{
    Event, MessageId, RevertOutcome, RunId, SessionId, SkippedFile, Snapshot, SnapshotId,
    SnapshotPage, UserId,
};
use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};

use super::history::file_at;
use super::{Author, FileAt};
use crate::column::{json, optional_word, to_json, word};
use crate::project::reverting::{self, EndRevert};
use crate::project::{log, pages, queries};
use crate::{Command, IdempotencyKey, StoreError, WhenFull, WriteTx};

const ONE: &str = "SELECT * FROM snapshots WHERE id = ?1";
const OF_RUN: &str = "SELECT * FROM snapshots WHERE run_id = ?1";
const PAGE: &str = "SELECT * FROM snapshots WHERE id < ?1 ORDER BY id DESC LIMIT ?2";
const NOW: &str = "SELECT coalesce(max(number), 0) FROM file_versions";
const INSERT: &str =
    "INSERT INTO snapshots (id, number, session_id, run_id, message_id, created_by,
       file_count, complete, at)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, (SELECT files FROM usage), ?7, ?8)";
const CHANGED: &str = "SELECT path FROM file_versions WHERE number > ?1 AND number <= ?2
     ORDER BY number LIMIT ?3";
const STATE_AT: &str = "SELECT * FROM file_versions WHERE path = ?1 AND number <= ?2
     ORDER BY version DESC LIMIT 1";
const BEGUN: &str = "SELECT * FROM file_restores";

/// Rows of the order of changes that are passed to find what differs.
const PASSED_MAX: u32 = 200_000;

/// A snapshot and its place in the order of changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSnapshot {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// The number of the last change that it holds.
    pub number: i64,
}

fn stored(row: &Row<'_>) -> rusqlite::Result<StoredSnapshot> {
    let snapshot = Snapshot {
        id: word(row, "id")?,
        session_id: optional_word(row, "session_id")?,
        run_id: optional_word(row, "run_id")?,
        message_id: optional_word(row, "message_id")?,
        file_count: row.get("file_count")?,
        complete: row.get("complete")?,
        by: optional_word(row, "created_by")?,
        at: row.get("at")?,
    };
    Ok(StoredSnapshot { snapshot, number: row.get("number")? })
}

pub(in crate::project) fn one(
    conn: &Connection,
    id: &SnapshotId,
) -> Result<Option<StoredSnapshot>, StoreError> {
    queries::first(conn, ONE, [id.as_str()], stored)
}

pub(in crate::project) fn of_run(
    conn: &Connection,
    run_id: &RunId,
) -> Result<Option<StoredSnapshot>, StoreError> {
    queries::first(conn, OF_RUN, [run_id.as_str()], stored)
}

pub(in crate::project) fn page(
    conn: &Connection,
    limit: u32,
    cursor: Option<&str>,
) -> Result<SnapshotPage, StoreError> {
    let before = pages::before::<SnapshotId>(cursor)?;
    let found = queries::all(conn, PAGE, params![before, u64::from(limit) + 1], stored)?;
    let mut snapshots: Vec<Snapshot> = found.into_iter().map(|found| found.snapshot).collect();
    let has_more = pages::cut(&mut snapshots, limit);
    let next_cursor = snapshots.last().filter(|_| has_more).map(|last| last.id.to_string());
    Ok(SnapshotPage { snapshots, next_cursor, has_more })
}

/// The paths that changed between two moments, sorted; none for the second is now. At most `limit`, and
/// whether there are more.
pub(in crate::project) fn changed_between(
    conn: &Connection,
    from: i64,
    to: Option<i64>,
    limit: usize,
) -> Result<(Vec<String>, bool), StoreError> {
    let (from, to) = (from.min(to.unwrap_or(i64::MAX)), to.unwrap_or(i64::MAX).max(from));
    let key = params![from, to, PASSED_MAX];
    let mut paths: Vec<String> = queries::all(conn, CHANGED, key, |row| row.get(0))?;
    let is_cut = paths.len() >= PASSED_MAX as usize;
    paths.sort_unstable();
    paths.dedup();
    let is_cut = is_cut || paths.len() > limit;
    paths.truncate(limit);
    Ok((paths, is_cut))
}

/// The version that a path had at a moment, also one that says that it is gone.
pub(in crate::project) fn state_at(
    conn: &Connection,
    path: &str,
    number: i64,
) -> Result<Option<FileAt>, StoreError> {
    queries::first(conn, STATE_AT, params![path, number], file_at)
}

/// Keeps the files as they are known now. A run has one snapshot: the first.
#[derive(Debug, Clone)]
pub struct CreateSnapshot {
    /// A new id.
    pub id: SnapshotId,
    /// The session, for a run.
    pub session_id: Option<SessionId>,
    /// The run that is about to change files.
    pub run_id: Option<RunId>,
    /// Its answer.
    pub message_id: Option<MessageId>,
    /// Who wants it.
    pub by: Option<UserId>,
    /// Whether all files were looked at.
    pub complete: bool,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for CreateSnapshot {
    type Output = Snapshot;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Snapshot, StoreError> {
        if let Some(run_id) = &self.run_id
            && let Some(first) = of_run(tx.conn(), run_id)?
        {
            return Ok(first.snapshot);
        }
        let number: i64 = queries::one(tx.conn(), NOW, [], |row| row.get(0))?;
        tx.conn().prepare_cached(INSERT)?.execute(params![
            self.id.as_str(),
            number,
            self.session_id.as_ref().map(SessionId::as_str),
            self.run_id.as_ref().map(RunId::as_str),
            self.message_id.as_ref().map(MessageId::as_str),
            self.by.as_ref().map(UserId::as_str),
            self.complete,
            self.at,
        ])?;
        let created = one(tx.conn(), &self.id)?.ok_or(StoreError::NotFound { what: "snapshot" })?;
        let event = Event::SnapshotCreated { snapshot: created.snapshot.clone() };
        log::in_project(tx, self.at, self.by.as_ref(), &event)?;
        Ok(created.snapshot)
    }
}

/// A path and the version that it is to be put back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreTarget {
    /// Relative to the project's directory, with `/`.
    pub path: String,
    /// Whose content it is to hold; none where nothing is to be there.
    pub version: Option<u64>,
}

/// In the course of what several files are put back together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestoreEnd {
    /// All files become what they were at a snapshot.
    Snapshot(SnapshotId),
    /// Turns of a session are undone, or are not any more.
    Turns(Box<EndRevert>),
}

/// What was begun and is not complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRestore {
    /// What each file is to hold.
    pub targets: Vec<RestoreTarget>,
    /// Who does it.
    pub author: Author,
    /// What it is for.
    pub end: RestoreEnd,
    /// How a repeat of it is known.
    pub key: Option<IdempotencyKey>,
    /// What stays as it is, to be answered.
    pub skipped: Vec<SkippedFile>,
}

/// What stands in the column `author`.
#[derive(Serialize, Deserialize)]
struct Cause {
    author: Author,
    end: RestoreEnd,
    key: Option<IdempotencyKey>,
    #[serde(default)]
    skipped: Vec<SkippedFile>,
}

/// Notes that several files are about to be put back: from here on all of them will be, whatever happens,
/// unless it is called off.
///
/// Fails with `Conflict`: `restore_under_way`, or `session_busy` and `not_reverted` where turns are undone.
#[derive(Debug, Clone)]
pub struct BeginRestore {
    /// None calls off what was begun.
    pub restore: Option<StoredRestore>,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for BeginRestore {
    type Output = ();

    fn when_full(&self) -> WhenFull {
        if self.restore.is_some() { WhenFull::Refuse } else { WhenFull::Allow }
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        let Some(StoredRestore { targets, author, end, key, skipped }) = self.restore else {
            tx.conn().prepare_cached("DELETE FROM file_restores")?.execute([])?;
            return Ok(());
        };
        if begun(tx.conn())?.is_some() {
            let message = "files are being put back already";
            return Err(StoreError::conflict("restore_under_way", message));
        }
        if let RestoreEnd::Turns(end) = &end {
            reverting::check(tx.conn(), end)?;
        }
        let sql = "INSERT INTO file_restores (one, targets, author, at) VALUES (1, ?1, ?2, ?3)";
        let (targets, cause) = (to_json(&targets)?, to_json(&Cause { author, end, key, skipped })?);
        tx.conn().prepare_cached(sql)?.execute(params![targets, cause, self.at])?;
        Ok(())
    }
}

/// What was begun and is not complete, if anything was.
pub(in crate::project) fn begun(conn: &Connection) -> Result<Option<StoredRestore>, StoreError> {
    queries::first(conn, BEGUN, [], |row| {
        let Cause { author, end, key, skipped } = json(row, "author")?;
        Ok(StoredRestore { targets: json(row, "targets")?, author, end, key, skipped })
    })
}

/// Whether turns of a session are being undone.
pub(in crate::project) fn is_reverting(
    conn: &Connection,
    id: &SessionId,
) -> Result<bool, StoreError> {
    let begun = begun(conn)?;
    Ok(begun.is_some_and(|restore| match restore.end {
        RestoreEnd::Snapshot(_) => false,
        RestoreEnd::Turns(end) => end.outcome.session_id == *id,
    }))
}

/// What was being put back is. Answers what became of turns, if it was about them, and what stayed as it was.
pub(super) fn end_restore(
    tx: &mut WriteTx<'_>,
    end: RestoreEnd,
    author: &Author,
    at: i64,
) -> Result<(Option<RevertOutcome>, Vec<SkippedFile>), StoreError> {
    let restore = begun(tx.conn())?;
    let (count, skipped) =
        restore.map_or((0, Vec::new()), |restore| (restore.targets.len() as u64, restore.skipped));
    tx.conn().prepare_cached("DELETE FROM file_restores")?.execute([])?;
    match end {
        RestoreEnd::Snapshot(snapshot_id) => {
            let by = author.by.clone();
            let event = Event::SnapshotRestored { snapshot_id, count, by };
            log::in_project(tx, at, author.by.as_ref(), &event)?;
            Ok((None, skipped))
        }
        RestoreEnd::Turns(end) => {
            reverting::end(tx, &end, author.by.as_ref(), at)?;
            Ok((Some(end.outcome), skipped))
        }
    }
}
