//! Which projects have unfinished work: the server opens them by itself when it starts.

use iris_protocol::ProjectId;
use rusqlite::{Connection, params};

use super::rows;
use crate::{Command, StoreError, WhenFull, WriteTx};

/// Marks a project as one with unfinished work, until [`ClearUnfinished`]. Committed before the work
/// begins; marking it again changes nothing.
///
/// Fails with `NotFound` when there is no such project.
#[derive(Debug, Clone)]
pub struct MarkUnfinished {
    /// The project.
    pub project_id: ProjectId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for MarkUnfinished {
    type Output = ();

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        super::projects::existing(tx.conn(), &self.project_id)?;
        mark(tx, &self.project_id, self.at)
    }
}

/// Marks a project that exists.
pub(super) fn mark(tx: &WriteTx<'_>, project_id: &ProjectId, at: i64) -> Result<(), StoreError> {
    let sql = "INSERT INTO unfinished_work (project_id, since) VALUES (?1, ?2)
               ON CONFLICT (project_id) DO NOTHING";
    tx.conn().prepare_cached(sql)?.execute(params![project_id.as_str(), at])?;
    Ok(())
}

/// Takes the mark of a project away: nothing in it is unfinished. Does nothing where there is none.
#[derive(Debug, Clone)]
pub struct ClearUnfinished {
    /// The project.
    pub project_id: ProjectId,
}

impl Command for ClearUnfinished {
    type Output = ();

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        let sql = "DELETE FROM unfinished_work WHERE project_id = ?1";
        tx.conn().prepare_cached(sql)?.execute([self.project_id.as_str()])?;
        Ok(())
    }
}

/// Reads both tables from end to end, because that is what it is asked for: they hold what is under way.
const UNFINISHED_PROJECTS: &str = "SELECT project_id FROM unfinished_work UNION SELECT project_id FROM outbox ORDER BY project_id";

pub(super) fn unfinished_projects(conn: &Connection) -> Result<Vec<ProjectId>, StoreError> {
    let mut statement = conn.prepare_cached(UNFINISHED_PROJECTS)?;
    let ids = statement.query_map([], |row| rows::id(row, 0))?;
    Ok(ids.collect::<Result<_, _>>()?)
}
