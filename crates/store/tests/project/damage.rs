//! Damage that is noticed while a database is open, and what was acknowledged and is gone.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use iris_protocol::{ErrorCode, Event, Room};
use iris_store::maintenance::{check_project, project_facts, snapshot_project};
use iris_store::project::{ProjectDatabase, PublishOutbox};
use iris_store::root::OutboxEntry;
use iris_store::{Command, Committed, Durability, StoreError, WriteContext, WriteTx};

use crate::fixture::*;

fn open(path: &Path) -> Result<ProjectDatabase, StoreError> {
    ProjectDatabase::open(path, &project_id(), |_| {})
}

fn made() -> (tempfile::TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("project.db");
    ProjectDatabase::create(&path, &project_id(), "epoch", NOW).unwrap();
    (directory, path)
}

async fn publish(database: &ProjectDatabase) -> Result<Committed<u64>, StoreError> {
    let event = Event::MemberRemoved { user_id: bob() };
    // Every entry is a new one.
    let id = database.committed_head() + 1;
    let command = PublishOutbox { entries: vec![OutboxEntry { id, event, by: ann(), at: NOW }] };
    database.writer().submit(command, WriteContext::default()).await
}

fn log_of(path: &Path) -> std::path::PathBuf {
    path.with_file_name("project.db-wal")
}

/// The file and its log.
fn bytes(path: &Path) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    (fs::read(path).ok(), fs::read(log_of(path)).ok())
}

#[track_caller]
fn reason(error: &StoreError) -> &str {
    let StoreError::Corrupt { reason } = error else { unreachable!("{error:?}") };
    reason
}

/// Finds the file malformed when it runs.
struct Stumble;

impl Command for Stumble {
    type Output = ();

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        tx.conn().execute_batch("UPDATE meta SET last_seq = last_seq")?;
        let damaged = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
        Err(rusqlite::Error::SqliteFailure(damaged, None).into())
    }
}

#[tokio::test]
async fn after_a_command_found_damage_nothing_is_written_any_more_not_even_by_closing() {
    let (_directory, path) = made();
    let database = open(&path).unwrap();
    publish(&database).await.unwrap();
    let before = bytes(&path);
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = Arc::clone(&told);
    database.on_damage(move |reason| listener.lock().unwrap().push(reason.to_owned()));
    let stumbled = database.writer().submit(Stumble, WriteContext::default()).await.unwrap_err();
    assert_eq!(stumbled.code(), ErrorCode::ProjectCorrupt);
    for _ in 0..3 {
        assert_eq!(publish(&database).await.unwrap_err().code(), ErrorCode::ProjectCorrupt);
    }
    let read = database.reader().agents().await.unwrap_err();
    assert_eq!(read.code(), ErrorCode::ProjectCorrupt, "who reads is told the same");
    assert_eq!(database.damage().as_deref(), Some(reason(&stumbled)));
    assert_eq!(told.lock().unwrap().len(), 1);
    database.close();
    assert!(bytes(&path) == before, "the files were touched");

    // The commit before it is still there to be read.
    let database = open(&path).unwrap();
    assert_eq!(database.head().unwrap(), 1);
}

#[tokio::test]
async fn after_a_reader_found_damage_nothing_is_written_any_more() {
    let (_directory, path) = made();
    let database = open(&path).unwrap();
    publish(&database).await.unwrap();
    database.close();
    let pages = fs::metadata(&path).unwrap().len() / 4096;
    let file = fs::File::options().write(true).open(&path).unwrap();
    // Everything but the first page, which alone is looked at when a file is opened.
    for page in 1..pages {
        file.write_all_at(&[0xff; 4096], page * 4096).unwrap();
    }
    let database = open(&path);
    let Ok(database) = database else {
        assert!(reason(&database.unwrap_err()).contains("malformed"));
        return;
    };
    let before = bytes(&path);
    let error = database.reader().agents().await.unwrap_err();
    assert!(reason(&error).contains("malformed"), "{error}");
    assert!(reason(&publish(&database).await.unwrap_err()).contains("malformed"));
    database.close();
    assert!(bytes(&path) == before);
}

#[tokio::test]
async fn a_file_that_vanishes_or_is_replaced_while_it_is_open_takes_no_acknowledgement_with_it() {
    let vanish: fn(&Path) = |path| fs::remove_file(path).unwrap();
    let replace: fn(&Path) = |path| {
        fs::copy(path, path.with_extension("other")).unwrap();
        fs::rename(path.with_extension("other"), path).unwrap();
    };
    let lose_log: fn(&Path) = |path| fs::remove_file(log_of(path)).unwrap();
    for (happens, expected) in
        [(vanish, "is missing"), (replace, "was replaced"), (lose_log, "log is missing")]
    {
        let (_directory, path) = made();
        let database = open(&path).unwrap();
        publish(&database).await.unwrap();
        happens(&path);
        let error = publish(&database).await.unwrap_err();
        assert!(reason(&error).contains(expected), "{error}");
        let before = bytes(&path);
        assert_eq!(publish(&database).await.unwrap_err().code(), ErrorCode::ProjectCorrupt);
        assert!(database.reader().agents().await.is_err());
        database.close();
        assert!(bytes(&path) == before, "{expected}");
    }
}

#[tokio::test]
async fn acknowledged_commits_that_a_damaged_log_hides_are_missed() {
    let (_directory, path) = made();
    let database = open(&path).unwrap();
    for _ in 0..5 {
        publish(&database).await.unwrap();
    }
    // As a kill leaves them.
    let crashed = tempfile::tempdir().unwrap();
    let copy = crashed.path().join("project.db");
    for name in ["project.db", "project.db-wal", "project.head"] {
        fs::copy(path.with_file_name(name), copy.with_file_name(name)).unwrap();
    }
    let log = fs::read(log_of(&copy)).unwrap();
    let whole = fs::read(&copy).unwrap();
    let damage: [(&str, Vec<u8>); 4] = [
        ("a frame in the middle", flipped(&log, log.len() / 2)),
        ("the last frame", flipped(&log, log.len() - 10)),
        ("cut off", log[..log.len() / 2].to_vec()),
        ("emptied", Vec::new()),
    ];
    for (what, bytes) in damage {
        fs::write(log_of(&copy), &bytes).unwrap();
        let error = open(&copy).unwrap_err();
        assert!(reason(&error).contains("lacks events that were acknowledged: 5 > "), "{what}");
        assert!(fs::read(&copy).unwrap() == whole && fs::read(log_of(&copy)).unwrap() == bytes);
    }
    fs::write(log_of(&copy), flipped(&log, 9)).unwrap();
    assert!(reason(&open(&copy).unwrap_err()).contains("header of the write-ahead log"));
    fs::remove_file(log_of(&copy)).unwrap();
    assert!(reason(&open(&copy).unwrap_err()).contains("acknowledged"));
    fs::write(log_of(&copy), &log).unwrap();
    assert_eq!(open(&copy).unwrap().head().unwrap(), 5);
}

fn flipped(bytes: &[u8], index: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    *bytes.get_mut(index).unwrap() ^= 0x40;
    bytes
}

/// Publishes what can be made again.
struct PublishLightly;

impl Command for PublishLightly {
    const DURABILITY: Durability = Durability::ProcessDeath;

    type Output = ();

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        let event = Event::MemberRemoved { user_id: bob() };
        tx.publish(Room::Project(project_id()), NOW, Some(&ann()), &event).map(drop)
    }
}

#[tokio::test]
async fn what_a_loss_of_power_may_take_is_not_noted_as_acknowledged() {
    let (_directory, path) = made();
    let database = open(&path).unwrap();
    publish(&database).await.unwrap();
    let head = || fs::read(path.with_file_name("project.head")).unwrap();
    let before = head();
    database.writer().submit(PublishLightly, WriteContext::default()).await.unwrap();
    assert_eq!(head(), before);
    publish(&database).await.unwrap();
    assert_ne!(head(), before);
    let whole = fs::read(&path).unwrap();
    database.close();

    // A restored database begins another epoch: it is not measured by the old one.
    let (_restored, other) = made();
    fs::copy(&other, &path).unwrap();
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.execute("UPDATE meta SET epoch = 'restored'", []).unwrap();
    drop(conn);
    open(&path).unwrap().close();
    assert!(!whole.is_empty());
}

/// How many locks processes hold on a file.
#[cfg(target_os = "linux")]
fn locks(path: &Path) -> usize {
    use std::os::unix::fs::MetadataExt;
    let inode = format!(":{} ", fs::metadata(path).unwrap().ino());
    fs::read_to_string("/proc/locks").unwrap().lines().filter(|line| line.contains(&inode)).count()
}

/// Without them another program that opens the file takes itself for the only one, and removes the log
/// when it closes it.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn looking_at_a_database_that_is_open_leaves_the_locks_on_it() {
    let (directory, path) = made();
    let database = open(&path).unwrap();
    publish(&database).await.unwrap();
    let before = locks(&path);
    assert!(before > 0);
    project_facts(&path).unwrap();
    check_project(&path, None).unwrap();
    snapshot_project(&path, &project_id(), &directory.path().join("copy.db")).unwrap();
    assert_eq!(locks(&path), before);
    publish(&database).await.unwrap();
}
