//! Forgetting old versions, by age and by bytes. What is there now is never forgotten, nor what a snapshot
//! holds; old snapshots are forgotten first.

use rusqlite::{Connection, params};

use crate::project::blobs::Bite;
use crate::project::queries;
use crate::{Command, StoreError, WhenFull, WriteTx};

/// Most versions, and most snapshots, that one command forgets.
const TRIMMED_MAX: u32 = 200;
/// Most versions that it forgets because there are too many bytes: not many more than have to go.
const FOR_BYTES_MAX: u32 = 10;

const DROP_SNAPSHOTS_BEYOND: &str = "DELETE FROM snapshots WHERE id IN (
       SELECT id FROM snapshots ORDER BY id DESC LIMIT ?2 OFFSET ?1)";
const DROP_OLDEST_SNAPSHOT: &str =
    "DELETE FROM snapshots WHERE id IN (SELECT id FROM snapshots ORDER BY id LIMIT 1)";
const DROP_OLD_SNAPSHOTS: &str = "DELETE FROM snapshots WHERE id IN (
       SELECT id FROM snapshots ORDER BY id LIMIT ?2) AND at < ?1";
const DROP_VERSIONS: &str = "DELETE FROM file_versions WHERE number IN (
       SELECT number FROM file_versions AS v WHERE until IS NOT NULL AND at < ?1
         AND NOT EXISTS (SELECT 1 FROM snapshots WHERE snapshots.number >= v.number
                           AND snapshots.number < v.until)
       ORDER BY at LIMIT ?2)";
/// Of paths at which nothing has been for long.
const DROP_GONE: &str = "DELETE FROM file_versions WHERE number IN (
       SELECT number FROM file_versions
       WHERE until IS NULL AND change = 'deleted' AND at < ?1 ORDER BY at LIMIT ?2)";
const VERSION_BYTES: &str = "SELECT version_bytes FROM usage";

/// How much of the history of files is kept. The content that files have now always is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileRetention {
    /// Most versions of one path, at least 1; those that a snapshot holds are kept besides.
    pub versions_max: u64,
    /// How long earlier versions and snapshots are kept, in milliseconds; none for ever.
    pub age_ms: Option<i64>,
    /// Most bytes of contents of versions; 0 for no limit.
    pub bytes_max: u64,
    /// Most snapshots.
    pub snapshots_max: u32,
}

impl Default for FileRetention {
    fn default() -> Self {
        let age_ms = Some(90 * 24 * 60 * 60 * 1000);
        let bytes_max = 2 * 1024 * 1024 * 1024;
        Self { versions_max: 200, age_ms, bytes_max, snapshots_max: 500 }
    }
}

/// Forgets snapshots and versions that are too old or too many, some at a time.
#[derive(Debug, Clone, Copy)]
pub struct TrimVersions {
    /// What is kept.
    pub kept: FileRetention,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for TrimVersions {
    type Output = Bite;

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Bite, StoreError> {
        let conn = tx.conn();
        let Self { kept, at } = self;
        if super::begun_restore(conn)?.is_some() {
            // It needs versions that might be forgotten.
            return Ok(Bite { rows: 0, more: false });
        }
        let beyond = params![kept.snapshots_max, TRIMMED_MAX];
        let mut rows = execute(conn, DROP_SNAPSHOTS_BEYOND, beyond)?;
        if let Some(age_ms) = kept.age_ms {
            let before = at.saturating_sub(age_ms);
            rows += execute(conn, DROP_OLD_SNAPSHOTS, params![before, TRIMMED_MAX])?;
            rows += execute(conn, DROP_VERSIONS, params![before, TRIMMED_MAX])?;
            rows += execute(conn, DROP_GONE, params![before, TRIMMED_MAX])?;
        }
        let held: u64 = queries::one(conn, VERSION_BYTES, [], |row| row.get(0))?;
        if rows == 0 && kept.bytes_max > 0 && held > kept.bytes_max {
            rows += execute(conn, DROP_VERSIONS, params![i64::MAX, FOR_BYTES_MAX])?;
            if rows == 0 {
                // Snapshots hold all that could go.
                rows += execute(conn, DROP_OLDEST_SNAPSHOT, [])?;
            }
        }
        Ok(Bite { rows, more: rows > 0 })
    }
}

fn execute(conn: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<u64, StoreError> {
    Ok(conn.prepare_cached(sql)?.execute(params)? as u64)
}
