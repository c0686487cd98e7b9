//! Events of projects that were committed in the root database, until they are published in the
//! project's own.

use iris_protocol::{Event, ProjectId, UserId};
use rusqlite::{Connection, Row, params};

use crate::column::{json, to_json, word};
use crate::{Command, StoreError, WhenFull, WriteTx};

/// Most entries that are read at a time.
pub const OUTBOX_PAGE: usize = 256;

/// Ids that one millisecond has room for before they run ahead of the clock.
const IDS_PER_MS: i64 = 1024;

/// An event on its way from the root database to its project.
#[derive(Debug, Clone, PartialEq)]
pub struct OutboxEntry {
    /// Rises from entry to entry.
    pub id: u64,
    /// What happened; a durable event of the project's room.
    pub event: Event,
    /// The user who caused it.
    pub by: UserId,
    /// When, in milliseconds since 1970 UTC.
    pub at: i64,
}

/// Puts an event on its way, in the transaction of what it tells of.
pub(super) fn put(
    tx: &WriteTx<'_>,
    project_id: &ProjectId,
    event: &Event,
    by: &UserId,
    at: i64,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO outbox (id, project_id, event, user_id, at)
               VALUES (max(?1, 1 + COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'outbox'), 0)),
                       ?2, ?3, ?4, ?5)";
    let id = at.saturating_mul(IDS_PER_MS);
    let values = params![id, project_id.as_str(), to_json(event)?, by.as_str(), at];
    tx.conn().prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// Forgets the entries of a project that are published there.
#[derive(Debug, Clone)]
pub struct SettleOutbox {
    /// The project.
    pub project_id: ProjectId,
    /// The last of them.
    pub up_to: u64,
}

impl Command for SettleOutbox {
    type Output = ();

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        let sql = "DELETE FROM outbox WHERE project_id = ?1 AND id <= ?2";
        tx.conn().prepare_cached(sql)?.execute(params![self.project_id.as_str(), self.up_to])?;
        Ok(())
    }
}

const ENTRIES: &str = "SELECT * FROM outbox WHERE project_id = ?1 ORDER BY id LIMIT ?2";

/// The oldest entries of a project, at most [`OUTBOX_PAGE`].
pub(super) fn entries(
    conn: &Connection,
    project_id: &ProjectId,
) -> Result<Vec<OutboxEntry>, StoreError> {
    let limit = i64::try_from(OUTBOX_PAGE).unwrap_or(i64::MAX);
    let mut statement = conn.prepare_cached(ENTRIES)?;
    let rows = statement.query_map(params![project_id.as_str(), limit], entry)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn entry(row: &Row<'_>) -> rusqlite::Result<OutboxEntry> {
    Ok(OutboxEntry {
        id: row.get("id")?,
        event: json(row, "event")?,
        by: word(row, "user_id")?,
        at: row.get("at")?,
    })
}
