//! Copies of databases that others write, and compaction in place.

use std::fs::File;
use std::path::Path;

use iris_protocol::ProjectId;
use rusqlite::Connection;

use super::{ProjectFacts, facts_of, read_only, read_write};
use crate::{StoreError, database, project, root};

/// Copies the database of a project to the new file `to` as it is at one moment, while its server
/// writes on. The copy stands alone, without a log, and is on the disk when this returns.
///
/// What was deleted is not in it, and neither are the answers kept for repeated commands.
///
/// # Errors
/// As [`super::project_facts`] about the source; `Corrupt` for another project's; `Conflict` with
/// `file_exists`; `StorageFull` and `Internal` as the disk fails. `to` is then not there.
pub fn snapshot_project(
    from: &Path,
    id: &ProjectId,
    to: &Path,
) -> Result<ProjectFacts, StoreError> {
    let conn = read_only(from, project::SCHEMA)?;
    facts_of(&conn, id)?;
    copy(&conn, to)?;
    drop(conn);
    // What the copy is of is in the copy: the source has moved on.
    facts_of(&read_only(to, project::SCHEMA)?, id)
}

/// As [`snapshot_project`], of the root database.
///
/// # Errors
/// `Corrupt` for a file that is missing, empty, cut off or no root database; `Newer`; otherwise as
/// [`snapshot_project`].
pub fn snapshot_root(from: &Path, to: &Path) -> Result<(), StoreError> {
    let conn = read_only(from, root::SCHEMA)?;
    root::identify(&conn)?;
    copy(&conn, to)
}

fn copy(conn: &Connection, to: &Path) -> Result<(), StoreError> {
    if to.try_exists()? {
        return Err(StoreError::conflict("file_exists", "the file exists already"));
    }
    let copied = copy_to(conn, to);
    if copied.is_err() {
        database::remove_if_there(to)?;
    }
    copied
}

fn copy_to(conn: &Connection, to: &Path) -> Result<(), StoreError> {
    let name = to.to_str().ok_or_else(|| StoreError::internal("the path is not UTF-8"))?;
    conn.execute("VACUUM INTO ?1", [name])?;
    let copy = read_write(to)?;
    // Overwrites what it deletes, so that the answers are not in a free page either.
    copy.execute_batch(
        "PRAGMA journal_mode = DELETE;
         PRAGMA secure_delete = ON;
         PRAGMA synchronous = OFF;
         DELETE FROM idempotency;",
    )?;
    copy.close().map_err(|(_, error)| error)?;
    File::open(to)?.sync_all()?;
    Ok(())
}

/// Compacts the database of a project in place. No server may have it open.
///
/// # Errors
/// As [`super::project_facts`]; `Corrupt` for another project's; `StorageFull` and `Internal` as the
/// disk fails. The database is then as it was.
pub fn vacuum_project(path: &Path, id: &ProjectId) -> Result<(), StoreError> {
    facts_of(&read_only(path, project::SCHEMA)?, id)?;
    vacuum(path)
}

/// As [`vacuum_project`], of the root database.
///
/// # Errors
/// As [`snapshot_root`] about the source, otherwise as [`vacuum_project`].
pub fn vacuum_root(path: &Path) -> Result<(), StoreError> {
    root::identify(&read_only(path, root::SCHEMA)?)?;
    vacuum(path)
}

fn vacuum(path: &Path) -> Result<(), StoreError> {
    let conn = read_write(path)?;
    conn.execute_batch("PRAGMA synchronous = FULL; VACUUM;")?;
    // Answers whether somebody was in the way; the log is then merged by whoever opens it next.
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    conn.close().map_err(|(_, error)| error)?;
    Ok(())
}
