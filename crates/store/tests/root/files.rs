//! What the database file survives, and which files are refused and left as they are.

use std::fs;
use std::path::Path;
use std::sync::mpsc;

use iris_protocol::ErrorCode;
use iris_store::root::CreateUser;
use iris_store::{
    Command, IdempotencyKey, ProjectDatabase, RootDatabase, StoreError, WriteContext, WriteTx,
};
use rusqlite::Connection;

use crate::{NOW, Root, conflict, create_user, project_id, user_id};

/// Opens a file that is not to be opened and checks that it stays as it is.
fn refusal(path: &Path) -> StoreError {
    let before = fs::read(path).unwrap();
    let error = RootDatabase::open_or_create(path, NOW).unwrap_err();
    assert!(fs::read(path).unwrap() == before, "`{}` was changed", path.display());
    error
}

/// The bytes of a root database with one user in it.
async fn whole_file() -> Vec<u8> {
    let root = Root::new();
    root.user(1).await;
    let path = root.path();
    root.db.close();
    fs::read(path).unwrap()
}

#[tokio::test]
async fn what_was_written_is_there_after_a_reopen() {
    let Root { db, reader, directory } = Root::new();
    let command = create_user(1);
    db.writer().submit(command, WriteContext::default()).await.unwrap();
    let user = reader.user(&user_id(1)).await.unwrap();
    assert!(user.is_some());
    db.close();

    let path = directory.path().join("root.db");
    let reopened = RootDatabase::open_or_create(&path, NOW + 1).unwrap();
    assert_eq!(reopened.reader().user(&user_id(1)).await.unwrap(), user);
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_kill() {
    let root = Root::new();
    root.user(1).await;
    // The files as they are while the server runs are the files that a kill leaves.
    let after_kill = tempfile::tempdir().unwrap();
    for name in ["root.db", "root.db-wal"] {
        fs::copy(root.directory.path().join(name), after_kill.path().join(name)).unwrap();
    }
    let reopened = RootDatabase::open_or_create(&after_kill.path().join("root.db"), NOW).unwrap();
    assert!(reopened.reader().user(&user_id(1)).await.unwrap().is_some());
}

#[tokio::test]
async fn files_that_are_no_root_database_are_refused_untouched() {
    let directory = tempfile::tempdir().unwrap();
    let whole = whole_file().await;
    let (header, half) = (&whole[..100], &whole[..whole.len() / 2]);
    let text = [b'x'; 200];
    for (name, bytes) in
        [("empty", &whole[..0]), ("header", header), ("half", half), ("text", &text[..])]
    {
        let path = directory.path().join(name);
        fs::write(&path, bytes).unwrap();
        let error = refusal(&path);
        assert!(matches!(error, StoreError::Corrupt { .. }), "{name}: {error:?}");
    }
    let foreign = directory.path().join("foreign");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE meta (kind)").unwrap();
    assert!(matches!(refusal(&foreign), StoreError::Corrupt { .. }));

    let project = directory.path().join("project");
    ProjectDatabase::create(&project, &project_id(1), "epoch", NOW).unwrap();
    let error = refusal(&project);
    assert_eq!(error.code(), ErrorCode::ProjectCorrupt, "{error:?}");
}

#[tokio::test]
async fn a_database_of_a_newer_server_is_refused_untouched() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("root.db");
    fs::write(&path, whole_file().await).unwrap();
    let conn = Connection::open(&path).unwrap();
    conn.pragma_update(None, "user_version", 99).unwrap();
    drop(conn);
    let error = refusal(&path);
    assert!(matches!(error, StoreError::Newer { found: 99, .. }), "{error:?}");
}

#[test]
fn a_log_without_its_database_is_not_replayed_into_a_new_one() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("root.db-wal");
    fs::write(&log, "log").unwrap();
    let path = directory.path().join("root.db");
    let error = RootDatabase::open_or_create(&path, NOW).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    assert!(!path.exists());
    assert_eq!(fs::read(&log).unwrap(), b"log");
}

/// Keeps the writer busy until somebody lets it go.
struct Wait(mpsc::Receiver<()>);

impl Command for Wait {
    type Output = ();

    fn run(self, _: &mut WriteTx<'_>) -> Result<(), StoreError> {
        self.0.recv().map_err(StoreError::internal)
    }
}

/// Writes something and panics.
struct Panic;

impl Command for Panic {
    type Output = ();

    #[expect(clippy::panic, reason = "the writer has to survive it")]
    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        tx.conn().execute("INSERT INTO settings VALUES ('panic', 'true', 0)", [])?;
        panic!("on purpose");
    }
}

#[tokio::test]
async fn a_command_that_fails_or_panics_takes_no_other_of_its_batch_along() {
    let root = Root::new();
    let writer = root.db.writer();
    let (release, wait) = mpsc::channel();
    let waiting = writer.submit(Wait(wait), WriteContext::default());
    let first = writer.submit(create_user(1), WriteContext::default());
    let duplicate = writer.submit(create_user(1), WriteContext::default());
    let panicking = writer.submit(Panic, WriteContext::default());
    let last = writer.submit(create_user(2), WriteContext::default());
    release.send(()).unwrap();

    waiting.await.unwrap();
    assert_eq!(first.await.unwrap().output.id, user_id(1));
    assert_eq!(conflict(duplicate.await), "email_taken");
    assert_eq!(panicking.await.unwrap_err().code(), ErrorCode::Internal);
    assert_eq!(last.await.unwrap().output.id, user_id(2));
    let conn = Connection::open(root.path()).unwrap();
    let settings = "SELECT count(*) FROM settings";
    assert_eq!(conn.query_row(settings, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
}

#[tokio::test]
async fn a_repeat_with_the_same_key_answers_what_the_first_one_did() {
    let root = Root::new();
    let context = |body_hash: &str| WriteContext {
        idempotency: Some(IdempotencyKey {
            user_id: user_id(1),
            operation: "user.create".into(),
            key: "once".to_owned(),
            body_hash: body_hash.to_owned(),
            at: NOW,
        }),
        audit: None,
    };
    let writer = root.db.writer();
    let first = writer.submit(create_user(1), context("a")).await.unwrap();
    let other_time = CreateUser { at: NOW + 1, ..create_user(1) };
    let repeat = writer.submit(other_time, context("a")).await.unwrap();
    assert_eq!((first.replayed, repeat.replayed), (false, true));
    assert_eq!((repeat.output, repeat.seq), (first.output, None));
    let error = writer.submit(create_user(2), context("b")).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::IdempotencyConflict);
}
