//! Directories of projects that are being made or removed: what a crash leaves of them is found again.

use iris_protocol::ProjectId;
use rusqlite::{Connection, params};

use super::rows;
use crate::{Command, StoreError, WhenFull, WriteTx};

/// What is about to happen to a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Intent {
    Making,
    Removing,
    /// The backups stay.
    RemovingFiles,
}

impl Intent {
    fn text(self) -> &'static str {
        match self {
            Self::Making => "making",
            Self::Removing => REMOVING,
            Self::RemovingFiles => "removing_files",
        }
    }
}

const REMOVING: &str = "removing";

/// What is left of a project that does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// The project.
    pub project_id: ProjectId,
    /// Whether its backups are to go too, and not only its directory.
    pub with_backups: bool,
}

/// Says that the directory of a new project is about to be made. Creating the project ends it.
#[derive(Debug, Clone)]
pub struct IntendDirectory {
    /// The project that is to be created.
    pub project_id: ProjectId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for IntendDirectory {
    type Output = ();

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        begin(tx, &self.project_id, Intent::Making, self.at)
    }
}

/// Says that nothing is left of a directory that was to be made or removed.
#[derive(Debug, Clone)]
pub struct ForgetDirectory {
    /// The project that it would belong to.
    pub project_id: ProjectId,
}

impl Command for ForgetDirectory {
    type Output = ();

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        end(tx, &self.project_id)
    }
}

pub(super) fn begin(
    tx: &WriteTx<'_>,
    project_id: &ProjectId,
    intent: Intent,
    at: i64,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO directory_intents (project_id, intent, at) VALUES (?1, ?2, ?3)
               ON CONFLICT (project_id) DO UPDATE SET intent = excluded.intent, at = excluded.at";
    tx.conn().prepare_cached(sql)?.execute(params![project_id.as_str(), intent.text(), at])?;
    Ok(())
}

pub(super) fn end(tx: &WriteTx<'_>, project_id: &ProjectId) -> Result<(), StoreError> {
    let sql = "DELETE FROM directory_intents WHERE project_id = ?1";
    tx.conn().prepare_cached(sql)?.execute([project_id.as_str()])?;
    Ok(())
}

/// Reads the whole table, because that is what it is asked for: it holds what is under way. A project
/// that exists is never among them, whatever stands in the table.
const LEFTOVERS: &str = "SELECT project_id, intent FROM directory_intents i
     WHERE NOT EXISTS (SELECT 1 FROM projects p WHERE p.id = i.project_id) ORDER BY project_id";

pub(super) fn leftovers(conn: &Connection) -> Result<Vec<Leftover>, StoreError> {
    let mut statement = conn.prepare_cached(LEFTOVERS)?;
    let leftovers = statement.query_map([], |row| {
        let intent: String = row.get(1)?;
        Ok(Leftover { project_id: rows::id(row, 0)?, with_backups: intent == REMOVING })
    })?;
    Ok(leftovers.collect::<Result<_, _>>()?)
}

/// Refuses to bring back a project of which something is still to be removed: that would go with it.
pub(super) fn refuse_leftover(tx: &WriteTx<'_>, project_id: &ProjectId) -> Result<(), StoreError> {
    let sql = "SELECT 1 FROM directory_intents WHERE project_id = ?1";
    if tx.conn().prepare_cached(sql)?.exists([project_id.as_str()])? {
        let message = "a project with this id is still being removed";
        return Err(StoreError::conflict("project_exists", message));
    }
    Ok(())
}
