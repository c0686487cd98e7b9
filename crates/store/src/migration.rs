//! Bringing a database to the newest schema: first a copy of the file as it is, then all migrations that
//! it lacks in one transaction.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite_migration::{M, Migrations};

use crate::StoreError;
use crate::database::{path_with, remove_if_there, sync_directory_of};

/// Goes before the number of the first migration that the copy has not seen.
const COPY_MARK: &str = ".before-migration-";
/// Copies that are kept beside a database.
const COPIES_KEPT: usize = 2;

/// The migrations of a schema; those that a database lacks run in one transaction.
pub(crate) fn migrations(schema: &[&'static str]) -> Migrations<'static> {
    Migrations::new(schema.iter().map(|sql| M::up(sql)).collect())
}

/// Runs the migrations that the database at `path` lacks. The file as it was stays beside it.
///
/// # Errors
/// `StorageFull` and `Internal`, also when the copy cannot be made. Then nothing has changed: the file
/// has the version that it had.
pub(crate) fn migrate(
    path: &Path,
    conn: &mut Connection,
    migrations: &Migrations<'_>,
) -> Result<(), StoreError> {
    if migrations.pending_migrations(conn)? == 0 {
        return Ok(());
    }
    let version: u64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let copy = copy(path, conn, version.saturating_add(1))?;
    tracing::info!(path = %path.display(), version, copy = %copy.display(), "migrating a database");
    migrations.to_latest(conn)?;
    forget_old_copies(path);
    Ok(())
}

/// Copies the database to a file that appears whole and on the disk.
fn copy(path: &Path, conn: &Connection, migration: u64) -> Result<PathBuf, StoreError> {
    let copy = path_with(path, &format!("{COPY_MARK}{migration}"));
    let unfinished = path_with(&copy, ".new");
    remove_if_there(&unfinished)?;
    let written = write_copy(conn, &unfinished);
    if written.is_err() {
        remove_if_there(&unfinished)?;
    }
    written?;
    fs::rename(&unfinished, &copy)?;
    sync_directory_of(path)?;
    Ok(copy)
}

fn write_copy(conn: &Connection, path: &Path) -> Result<(), StoreError> {
    let name = path.to_str().ok_or_else(|| StoreError::internal("the path is not UTF-8"))?;
    conn.execute("VACUUM INTO ?1", [name])?;
    File::open(path)?.sync_all()?;
    Ok(())
}

/// Removes all but the newest copies. One that stays does no harm.
fn forget_old_copies(path: &Path) {
    let mut copies = copies(path);
    copies.sort_unstable_by_key(|(migration, _)| std::cmp::Reverse(*migration));
    for (_, copy) in copies.into_iter().skip(COPIES_KEPT) {
        if let Err(error) = fs::remove_file(&copy) {
            tracing::warn!(path = %copy.display(), %error, "an old copy could not be removed");
        }
    }
}

fn copies(path: &Path) -> Vec<(u64, PathBuf)> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Vec::new() };
    let Some(name) = name.to_str() else { return Vec::new() };
    let prefix = format!("{name}{COPY_MARK}");
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let numbered = entries.filter_map(|entry| {
        let name = entry.file_name();
        let number = name.to_str()?.strip_prefix(&prefix)?.parse().ok()?;
        Some((number, entry.path()))
    });
    numbered.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::{create, open};

    const FIRST: &str = "CREATE TABLE first (n INTEGER)";
    const SECOND: &str = "CREATE TABLE second (n INTEGER)";
    const BROKEN: &str = "CREATE TABLE third (n INTEGER); INSERT INTO nowhere VALUES (1)";

    fn tables(path: &Path) -> (i64, Vec<String>) {
        let conn = Connection::open(path).unwrap();
        let version = conn.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        let sql = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name";
        let mut tables = conn.prepare(sql).unwrap();
        let names = tables.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        (version, names)
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn migrations_of_which_one_fails_in_the_middle_leave_the_version_before_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("some.db");
        create(&path, &[FIRST], |_| Ok(())).unwrap();
        let error = open(&path, &[FIRST, SECOND, BROKEN], |_| Ok(())).unwrap_err();
        assert!(matches!(error, StoreError::Internal { .. }), "{error:?}");
        assert_eq!(tables(&path), (1, vec!["first".to_owned()]));
        let copy = directory.path().join("some.db.before-migration-2");
        assert_eq!(tables(&copy), (1, vec!["first".to_owned()]));

        drop(open(&path, &[FIRST, SECOND, "CREATE TABLE third (n INTEGER)"], |_| Ok(())).unwrap());
        assert_eq!(tables(&path).0, 3);
    }

    #[test]
    fn the_newest_two_copies_are_kept_and_a_database_that_is_new_has_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("some.db");
        create(&path, &[FIRST], |_| Ok(())).unwrap();
        let schema =
            [FIRST, SECOND, "CREATE TABLE c (n)", "CREATE TABLE d (n)", "CREATE TABLE e (n)"];
        drop(open(&path, &schema[..1], |_| Ok(())).unwrap());
        assert_eq!(names(directory.path()), ["some.db"]);
        fs::write(directory.path().join("some.db.before-migration-2.new"), "cut off").unwrap();
        for length in 2..=schema.len() {
            drop(open(&path, &schema[..length], |_| Ok(())).unwrap());
        }
        let kept = ["some.db", "some.db.before-migration-4", "some.db.before-migration-5"];
        assert_eq!(names(directory.path()), kept);
        // A copy is a database that the version before it opens.
        drop(open(&directory.path().join(kept[2]), &schema[..4], |_| Ok(())).unwrap());
    }
}
