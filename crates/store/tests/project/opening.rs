//! Files that are not the database that they should be.

use std::path::{Path, PathBuf};

use iris_protocol::ProjectId;
use iris_store::StoreError;
use iris_store::project::ProjectDatabase;
use rusqlite::Connection;
use tempfile::TempDir;

use crate::fixture::{NOW, project_id};

fn database() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("project.db");
    ProjectDatabase::create(&path, &project_id(), "epoch", NOW).unwrap();
    (directory, path)
}

/// Opens a file that must be refused and left as it is.
fn refused(path: &Path, project_id: &ProjectId) -> StoreError {
    let before = std::fs::read(path).unwrap();
    let error = ProjectDatabase::open(path, project_id, |_| {}).unwrap_err();
    assert_eq!(std::fs::read(path).unwrap(), before, "the file was touched: {error}");
    error
}

#[track_caller]
fn assert_corrupt(error: &StoreError, reason: &str) {
    let StoreError::Corrupt { reason: found } = error else { unreachable!("{error:?}") };
    assert!(found.contains(reason), "{found}");
}

#[test]
fn an_empty_file_is_refused() {
    let (_directory, path) = database();
    std::fs::write(&path, "").unwrap();
    assert_corrupt(&refused(&path, &project_id()), "empty");
}

#[test]
fn a_missing_file_is_not_made_anew() {
    let (_directory, path) = database();
    std::fs::remove_file(&path).unwrap();
    let error = ProjectDatabase::open(&path, &project_id(), |_| {}).unwrap_err();
    assert_corrupt(&error, "missing");
    assert!(!path.exists());
}

#[test]
fn a_file_that_is_cut_off_is_refused() {
    let (_directory, path) = database();
    let whole = std::fs::read(&path).unwrap();
    for length in [99, 4096, whole.len() - 4096, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = refused(&path, &project_id());
        assert!(matches!(error, StoreError::Corrupt { .. }), "{length}: {error:?}");
    }
}

#[test]
fn something_else_is_refused() {
    let (_directory, path) = database();
    std::fs::write(&path, "not a database, but long enough to hold a header ".repeat(9)).unwrap();
    assert_corrupt(&refused(&path, &project_id()), "not a database");

    std::fs::remove_file(&path).unwrap();
    let foreign = Connection::open(&path).unwrap();
    foreign.execute_batch("CREATE TABLE meta (project_id TEXT)").unwrap();
    drop(foreign);
    assert_corrupt(&refused(&path, &project_id()), "another program");
}

#[test]
fn the_database_of_another_project_is_refused() {
    let (_directory, path) = database();
    assert_corrupt(&refused(&path, &ProjectId::from_bits(2)), "belongs to project");
}

#[test]
fn the_database_of_a_newer_server_is_refused() {
    let (_directory, path) = database();
    let conn = Connection::open(&path).unwrap();
    conn.pragma_update(None, "user_version", 99).unwrap();
    drop(conn);
    let error = refused(&path, &project_id());
    assert!(matches!(error, StoreError::Newer { found: 99, known: 2 }), "{error:?}");
}

#[test]
fn a_database_is_made_once_and_whole() {
    let (directory, path) = database();
    let before = std::fs::read(&path).unwrap();
    let again = ProjectDatabase::create(&path, &project_id(), "other", NOW);
    assert!(matches!(again, Err(StoreError::Conflict { reason: "database_exists", .. })));
    assert_eq!(std::fs::read(&path).unwrap(), before);
    let names: Vec<_> = std::fs::read_dir(&directory).unwrap().collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

#[test]
fn what_an_interrupted_creation_left_does_not_hinder_the_next() {
    let (directory, path) = database();
    std::fs::rename(&path, directory.path().join("project.db.new")).unwrap();
    ProjectDatabase::create(&path, &project_id(), "other", NOW).unwrap();
    let database = ProjectDatabase::open(&path, &project_id(), |_| {}).unwrap();
    assert_eq!(database.epoch(), "other");
}

#[test]
fn the_log_of_a_lost_database_is_not_replayed_into_a_new_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("project.db");
    std::fs::write(directory.path().join("project.db-wal"), "x").unwrap();
    let error = ProjectDatabase::create(&path, &project_id(), "epoch", NOW).unwrap_err();
    assert_corrupt(&error, "write-ahead log");
}
