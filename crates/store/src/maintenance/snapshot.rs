//! Copies of databases that others write, and compaction in place.

use std::fs::File;
use std::path::Path;

use iris_protocol::ProjectId;
use rusqlite::Connection;

use super::{ProjectFacts, facts_of, read_only, read_write};
use crate::head::Head;
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
    let head = Head::read(from);
    let conn = read_only(from, project::SCHEMA)?;
    let found = facts_of(&conn, id)?;
    head.check(&found.epoch, found.seq)?;
    copy(&conn, to)?;
    drop(conn);
    // What the copy is of is in the copy: the source has moved on.
    facts_of(&read_only(to, project::SCHEMA)?, id)
}

/// As [`snapshot_project`], of the root database. What stood there of directories that are being made
/// or removed is not in the copy either.
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
    // Whoever puts the copy in the place of the root database later has other directories by then.
    if copy.table_exists(None, "directory_intents")? {
        copy.execute("DELETE FROM directory_intents", [])?;
    }
    // What somebody recorded to find a mistake is no part of what is kept.
    if copy.table_exists(None, "captures")? {
        copy.execute_batch(
            "DELETE FROM capture_records; DELETE FROM captures;
             UPDATE sessions SET capturing = NULL WHERE capturing IS NOT NULL;",
        )?;
    }
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
    let head = Head::read(path);
    let found = facts_of(&read_only(path, project::SCHEMA)?, id)?;
    head.check(&found.epoch, found.seq)?;
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::{ProjectDatabase, RootDatabase};

    fn project() -> (tempfile::TempDir, PathBuf, ProjectId) {
        let directory = tempfile::tempdir().unwrap();
        let (path, id) = (directory.path().join("project.db"), ProjectId::from_bits(1));
        ProjectDatabase::create(&path, &id, "epoch", 0).unwrap();
        (directory, path, id)
    }

    fn row_ids(path: &Path) -> Vec<(i64, String)> {
        let conn = Connection::open(path).unwrap();
        let mut statement = conn.prepare("SELECT rowid, id FROM agents ORDER BY rowid").unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.map(Result::unwrap).collect()
    }

    /// An index that refers to rows by number, as one for full text does, stays right.
    #[test]
    fn rows_keep_their_numbers_in_a_copy_and_when_compacted() {
        let (directory, path, id) = project();
        let conn = Connection::open(&path).unwrap();
        for n in 0..100 {
            let sql = "INSERT INTO agents (id, name, prompt, tools, created_at, updated_at)
                       VALUES (?1, ?1, '', '[]', 0, 0)";
            conn.execute(sql, [format!("agt_{n}")]).unwrap();
        }
        conn.execute("DELETE FROM agents WHERE rowid % 3 = 0", []).unwrap();
        drop(conn);
        let before = row_ids(&path);
        let copy = directory.path().join("copy.db");
        let facts = snapshot_project(&path, &id, &copy).unwrap();
        assert_eq!((facts.seq, facts.epoch.as_str()), (0, "epoch"));
        assert_eq!(row_ids(&copy), before);
        vacuum_project(&path, &id).unwrap();
        assert_eq!(row_ids(&path), before);
        ProjectDatabase::open(&path, &id, |_| {}).unwrap().close();
    }

    #[test]
    fn another_project_and_a_file_that_is_there_are_refused() {
        let (directory, path, id) = project();
        let copy = directory.path().join("copy.db");
        let other = ProjectId::from_bits(2);
        let refused = snapshot_project(&path, &other, &copy);
        assert!(matches!(refused, Err(StoreError::Corrupt { .. })), "{refused:?}");
        assert!(vacuum_project(&path, &other).is_err());
        assert!(!copy.exists());
        std::fs::write(&copy, "mine").unwrap();
        let refused = snapshot_project(&path, &id, &copy);
        assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
        assert_eq!(std::fs::read(&copy).unwrap(), b"mine");
        // It is no root database, and may be of a schema that no root database has yet.
        let refused = snapshot_root(&path, &copy);
        let is_refused =
            matches!(refused, Err(StoreError::Corrupt { .. } | StoreError::Newer { .. }));
        assert!(is_refused, "{refused:?}");
    }

    #[test]
    fn the_root_database_is_copied_while_it_is_open() {
        let directory = tempfile::tempdir().unwrap();
        let (path, copy) = (directory.path().join("root.db"), directory.path().join("copy.db"));
        let root = RootDatabase::open_or_create(&path, 0).unwrap();
        snapshot_root(&path, &copy).unwrap();
        let version = super::super::root_version(&path).unwrap();
        assert_eq!(super::super::check_root(&copy).unwrap(), version);
        root.close();
        vacuum_root(&path).unwrap();
        RootDatabase::open_or_create(&path, 0).unwrap().close();
    }
}
