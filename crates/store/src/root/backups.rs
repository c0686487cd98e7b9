//! What is known of the archives of projects; the archives themselves are the caller's.

use iris_protocol::{
    Backup, BackupId, BackupKind, Project, ProjectId, RestorePayload, UserId, limits::BACKUPS_MAX,
};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::audit::RecordAudit;
use super::imports::ImportProject;
use super::intents::refuse_leftover;
use super::queries::{project, project_location};
use super::rows;
use crate::column::{optional_word, to_word, word};
use crate::{Command, StoreError, WhenFull, WriteTx};

/// Records a backup whose archive is on the disk. Answers the backup.
///
/// Fails with `NotFound` when there is no such project any more, with `Conflict` and
/// `too_many_backups` for one too many that somebody asked for.
#[derive(Debug, Clone)]
pub struct RecordBackup {
    /// The backup.
    pub backup: Backup,
    /// The name of its archive.
    pub file: String,
    /// What the audit says of it, where it has to say something.
    pub audit: Option<RecordAudit>,
}

impl Command for RecordBackup {
    type Output = Backup;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Backup, StoreError> {
        let backup = self.backup;
        if project_location(tx.conn(), &backup.project_id)?.is_none() {
            return Err(StoreError::NotFound { what: "project" });
        }
        match backup.kind {
            BackupKind::Manual | BackupKind::Export => {
                refuse_too_many(tx.conn(), &backup.project_id)?;
            }
            // Bounded by how many of them are kept.
            BackupKind::Scheduled | BackupKind::Safety => {}
        }
        let sql =
            "INSERT INTO backups (id, project_id, kind, at, bytes, sha256, seq, epoch, user_id,
                                        verified_at, expires_at, file)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
        tx.conn().prepare_cached(sql)?.execute(params![
            backup.id.as_str(),
            backup.project_id.as_str(),
            to_word(&backup.kind)?,
            backup.at,
            backup.bytes,
            backup.sha256,
            backup.seq,
            backup.epoch,
            backup.by.as_ref().map(UserId::as_str),
            backup.verified_at,
            backup.expires_at,
            self.file,
        ])?;
        if let Some(audit) = self.audit {
            audit.run(tx)?;
        }
        Ok(backup)
    }
}

/// Of those that somebody asked for.
const COUNT: &str =
    "SELECT count(*) FROM backups WHERE project_id = ?1 AND kind IN ('manual', 'export')";

fn refuse_too_many(conn: &Connection, project_id: &ProjectId) -> Result<(), StoreError> {
    let count: usize =
        conn.prepare_cached(COUNT)?.query_row([project_id.as_str()], |row| row.get(0))?;
    if count >= BACKUPS_MAX {
        let message = format!("a project keeps at most {BACKUPS_MAX} backups: delete some");
        return Err(StoreError::conflict("too_many_backups", message));
    }
    Ok(())
}

/// Forgets a backup. Answers the name of its archive, which is the caller's to delete.
///
/// Fails with `NotFound` when the project has no such backup.
#[derive(Debug, Clone)]
pub struct DeleteBackup {
    /// The project.
    pub project_id: ProjectId,
    /// The backup.
    pub id: BackupId,
}

impl Command for DeleteBackup {
    type Output = String;

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<String, StoreError> {
        let sql = "DELETE FROM backups WHERE id = ?1 AND project_id = ?2 RETURNING file";
        let ids = params![self.id.as_str(), self.project_id.as_str()];
        let file = tx.conn().prepare_cached(sql)?.query_row(ids, |row| row.get(0)).optional()?;
        file.ok_or(StoreError::NotFound { what: "backup" })
    }
}

/// Keeps the outcome of a restore for its repeats.
#[derive(Debug, Clone)]
pub struct RecordRestore {
    /// The outcome.
    pub outcome: RestorePayload,
}

impl Command for RecordRestore {
    type Output = RestorePayload;

    /// The project is restored already.
    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, _: &mut WriteTx<'_>) -> Result<RestorePayload, StoreError> {
        Ok(self.outcome)
    }
}

/// As [`ImportProject`], with what the audit says of it. Answers the project as its owner sees it.
#[derive(Debug, Clone)]
pub struct AcceptImport {
    /// The project.
    pub import: ImportProject,
    /// What the audit says of it.
    pub audit: RecordAudit,
}

impl Command for AcceptImport {
    type Output = Project;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Project, StoreError> {
        let (id, owner_id) = (self.import.id.clone(), self.import.owner_id.clone());
        refuse_leftover(tx, &id)?;
        self.import.run(tx)?;
        self.audit.run(tx)?;
        let created = project(tx.conn(), &owner_id, &id)?;
        created.ok_or(StoreError::NotFound { what: "project" })
    }
}

/// A backup and the name of its archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBackup {
    /// The backup.
    pub backup: Backup,
    /// In the project's directory of backups.
    pub file: String,
}

/// A project, and where its newest backup ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupState {
    /// The project.
    pub project_id: ProjectId,
    /// The newest backup that is there to stay; `None` when there is none.
    pub last: Option<LastBackup>,
}

/// When a backup was made, and where it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastBackup {
    /// Milliseconds since 1970 UTC.
    pub at: i64,
    /// Of the project's order of events.
    pub epoch: String,
    /// The last event in it.
    pub seq: u64,
}

const COLUMNS: &str = "id, project_id, kind, at, bytes, sha256, seq, epoch, user_id, verified_at, \
     expires_at, file";

fn stored(row: &Row<'_>) -> rusqlite::Result<StoredBackup> {
    let backup = Backup {
        id: word(row, "id")?,
        project_id: word(row, "project_id")?,
        kind: word(row, "kind")?,
        at: row.get("at")?,
        bytes: row.get("bytes")?,
        sha256: row.get("sha256")?,
        seq: row.get("seq")?,
        epoch: row.get("epoch")?,
        by: optional_word(row, "user_id")?,
        verified_at: row.get("verified_at")?,
        expires_at: row.get("expires_at")?,
    };
    Ok(StoredBackup { backup, file: row.get("file")? })
}

fn of_project_sql() -> String {
    format!("SELECT {COLUMNS} FROM backups WHERE project_id = ?1 ORDER BY id DESC")
}

/// Those of a project, newest first; at most [`BACKUPS_MAX`] and those that the server made.
pub(super) fn of_project(
    conn: &Connection,
    project_id: &ProjectId,
) -> Result<Vec<StoredBackup>, StoreError> {
    let mut statement = conn.prepare_cached(&of_project_sql())?;
    let rows = statement.query_map([project_id.as_str()], stored)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn one_sql() -> String {
    format!("SELECT {COLUMNS} FROM backups WHERE id = ?1 AND project_id = ?2")
}

pub(super) fn one(
    conn: &Connection,
    project_id: &ProjectId,
    id: &BackupId,
) -> Result<Option<StoredBackup>, StoreError> {
    let mut statement = conn.prepare_cached(&one_sql())?;
    Ok(statement.query_row(params![id.as_str(), project_id.as_str()], stored).optional()?)
}

fn expired_sql() -> String {
    format!("SELECT {COLUMNS} FROM backups WHERE expires_at <= ?1")
}

pub(super) fn expired(conn: &Connection, at: i64) -> Result<Vec<StoredBackup>, StoreError> {
    let mut statement = conn.prepare_cached(&expired_sql())?;
    let rows = statement.query_map([at], stored)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Reads the whole table, because that is what it is asked for.
fn all_sql() -> String {
    format!("SELECT {COLUMNS} FROM backups ORDER BY id")
}

pub(super) fn all(conn: &Connection) -> Result<Vec<StoredBackup>, StoreError> {
    let mut statement = conn.prepare_cached(&all_sql())?;
    let rows = statement.query_map([], stored)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Reads all projects, because that is what it is asked for; the backups of each through their index.
const STATES: &str = "SELECT p.id, b.at, b.epoch, b.seq
    FROM projects p
    LEFT JOIN backups b ON b.id = (SELECT l.id FROM backups l
        WHERE l.project_id = p.id AND l.kind IN ('manual', 'scheduled')
        ORDER BY l.id DESC LIMIT 1)
    ORDER BY p.id";

pub(super) fn states(conn: &Connection) -> Result<Vec<BackupState>, StoreError> {
    let mut statement = conn.prepare_cached(STATES)?;
    let rows = statement.query_map([], |row| {
        let at: Option<i64> = row.get(1)?;
        let last = at.map(|at| {
            Ok::<_, rusqlite::Error>(LastBackup { at, epoch: row.get(2)?, seq: row.get(3)? })
        });
        Ok(BackupState { project_id: rows::id(row, 0)?, last: last.transpose()? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
