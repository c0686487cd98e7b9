//! The writer's thread: batches, failures, order.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use iris_protocol::{Event, Room};
use iris_store::project::{ProjectDatabase, PublishOutbox};
use iris_store::root::OutboxEntry;
use iris_store::{
    Command, Durability, QUEUED_COMMANDS_MAX, StoreError, StoredEvent, WriteContext, WriteTx,
};

use crate::fixture::*;

/// Holds the writer until the other end of the channel is dropped.
struct Hold(Receiver<()>);

impl Command for Hold {
    type Output = ();

    fn run(self, _: &mut WriteTx<'_>) -> Result<(), StoreError> {
        self.0.recv().unwrap_err();
        Ok(())
    }
}

/// Publishes, and then ends as it is told.
struct PublishThen(fn(&mut WriteTx<'_>) -> Result<(), StoreError>);

impl Command for PublishThen {
    type Output = ();

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        let event = Event::MemberRemoved { user_id: bob() };
        tx.publish(Room::Project(project_id()), NOW, None, &event)?;
        (self.0)(tx)
    }
}

type Batches = Arc<Mutex<Vec<Vec<StoredEvent>>>>;

/// A fixture whose commits are kept apart, and the hold on its writer.
fn held() -> (tempfile::TempDir, ProjectDatabase, Batches, Sender<()>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("project.db");
    ProjectDatabase::create(&path, &project_id(), "epoch", NOW).unwrap();
    let batches = Batches::default();
    let kept = Arc::clone(&batches);
    let database = ProjectDatabase::open(&path, &project_id(), move |events| {
        kept.lock().unwrap().push(events);
    })
    .unwrap();
    let (release, hold) = channel();
    drop(database.writer().submit(Hold(hold), WriteContext::default()));
    (directory, database, batches, release)
}

fn waiting(database: &ProjectDatabase) -> usize {
    database.writer().queue_depth()
}

#[expect(clippy::unnecessary_wraps, reason = "one of several ends of a command")]
fn ok(_: &mut WriteTx<'_>) -> Result<(), StoreError> {
    Ok(())
}

fn fail(_: &mut WriteTx<'_>) -> Result<(), StoreError> {
    Err(StoreError::VersionConflict)
}

#[expect(clippy::panic, reason = "what the writer must survive")]
fn panic(_: &mut WriteTx<'_>) -> Result<(), StoreError> {
    panic!("on purpose")
}

/// Lets the command succeed and the commit of its batch fail.
fn poison_commit(tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
    tx.conn().execute_batch(
        "PRAGMA defer_foreign_keys = ON;
         INSERT INTO message_parts (id, message_id, ordinal, body) VALUES ('p', 'none', 0, '{}');",
    )?;
    Ok(())
}

fn fill_the_disk(tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
    let conn = tx.conn();
    let pages: i64 = conn.pragma_query_value(None, "page_count", |row| row.get(0))?;
    conn.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
    let sql = "INSERT INTO agents (id, name, prompt, tools, created_at, updated_at)
               VALUES ('a', 'a', hex(zeroblob(1000000)), '[]', 0, 0)";
    conn.execute(sql, [])?;
    Ok(())
}

fn empty_the_disk(tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
    tx.conn().query_row("PRAGMA max_page_count = 1000000", [], |_| Ok(()))?;
    Ok(())
}

#[tokio::test]
async fn a_failing_command_rolls_back_alone() {
    let (_directory, database, batches, release) = held();
    let submit = |then| database.writer().submit(PublishThen(then), WriteContext::default());
    let receipts = [submit(ok), submit(fail), submit(panic), submit(ok)];
    drop(release);
    let [first, failed, panicked, last] = receipts;
    assert_eq!(first.await.unwrap().seq, Some(1));
    assert!(matches!(failed.await, Err(StoreError::VersionConflict)));
    assert!(matches!(panicked.await, Err(StoreError::Internal { .. })));
    assert_eq!(last.await.unwrap().seq, Some(2));
    let published: Vec<u64> =
        batches.lock().unwrap().iter().flatten().map(|event| event.seq).collect();
    assert_eq!(published, [1, 2]);
    assert_eq!(database.head().unwrap(), 2);
}

#[tokio::test]
async fn commands_that_wait_share_commits() {
    let (_directory, database, batches, release) = held();
    let submit = |_| database.writer().submit(PublishThen(ok), WriteContext::default());
    let receipts: Vec<_> = (0..500).map(submit).collect();
    drop(release);
    for (receipt, seq) in receipts.into_iter().zip(1..) {
        assert_eq!(receipt.await.unwrap().seq, Some(seq));
    }
    let batches = batches.lock().unwrap();
    assert!(batches.len() < 250, "{} commits for 500 commands", batches.len());
    assert!(batches.iter().all(|batch| batch.len() <= 256));
    let published: Vec<u64> = batches.iter().flatten().map(|event| event.seq).collect();
    assert_eq!(published, (1..=500).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_commit_that_fails_is_lost_for_all_and_published_to_nobody() {
    let (_directory, database, batches, release) = held();
    let submit = |then| database.writer().submit(PublishThen(then), WriteContext::default());
    let poisoned = submit(poison_commit);
    drop(release);
    assert!(matches!(poisoned.await, Err(StoreError::Internal { .. })));
    assert!(batches.lock().unwrap().is_empty());
    assert_eq!(submit(ok).await.unwrap().seq, Some(1));
}

#[tokio::test]
async fn a_full_disk_is_said_and_survived() {
    let (_directory, database, batches, release) = held();
    drop(release);
    let submit = |then| database.writer().submit(PublishThen(then), WriteContext::default());
    assert!(matches!(submit(fill_the_disk).await, Err(StoreError::StorageFull)));
    assert!(batches.lock().unwrap().is_empty());
    assert_eq!(submit(empty_the_disk).await.unwrap().seq, Some(1));
}

#[tokio::test]
async fn a_full_queue_answers_at_once() {
    let (_directory, database, _, release) = held();
    // The first command is the one that holds the writer, in the queue or out of it.
    let submit = |_| database.writer().submit(PublishThen(ok), WriteContext::default());
    let receipts: Vec<_> = (0..=QUEUED_COMMANDS_MAX).map(submit).collect();
    let over = submit(0).await;
    assert!(matches!(over, Err(StoreError::Overloaded)), "{over:?}");
    assert!((QUEUED_COMMANDS_MAX - 1..=QUEUED_COMMANDS_MAX + 1).contains(&waiting(&database)));
    drop(release);
    let mut taken = 0;
    for receipt in receipts {
        taken += usize::from(receipt.await.is_ok());
    }
    assert!((QUEUED_COMMANDS_MAX - 1..=QUEUED_COMMANDS_MAX).contains(&taken), "{taken}");
    assert_eq!(waiting(&database), 0);
}

#[tokio::test]
async fn the_committed_head_is_set_before_the_listener_hears_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("project.db");
    ProjectDatabase::create(&path, &project_id(), "epoch", NOW).unwrap();
    let (go, going) = channel::<Arc<ProjectDatabase>>();
    let (tell, told) = channel();
    let database = ProjectDatabase::open(&path, &project_id(), move |events| {
        let database = going.recv().unwrap();
        tell.send((events.last().unwrap().seq, database.committed_head())).unwrap();
    });
    let database = Arc::new(database.unwrap());
    assert_eq!(database.committed_head(), 0);
    for seq in 1..=2 {
        let receipt = database.writer().submit(PublishThen(ok), WriteContext::default());
        go.send(Arc::clone(&database)).unwrap();
        assert_eq!(receipt.await.unwrap().seq, Some(seq));
        assert_eq!(told.recv().unwrap(), (seq, seq));
    }
    assert_eq!(database.committed_head(), 2);
}

#[tokio::test]
async fn closing_writes_what_was_submitted() {
    let (directory, database, _, release) = held();
    let receipt = database.writer().submit(PublishThen(ok), WriteContext::default());
    drop(release);
    database.close();
    assert_eq!(receipt.await.unwrap().seq, Some(1));
    let path = directory.path().join("project.db");
    let database = ProjectDatabase::open(&path, &project_id(), |_| {}).unwrap();
    assert_eq!(database.head().unwrap(), 1);
}

#[tokio::test]
async fn a_listener_that_panics_does_not_stop_the_writer() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("project.db");
    ProjectDatabase::create(&path, &project_id(), "epoch", NOW).unwrap();
    let database = ProjectDatabase::open(&path, &project_id(), |_| panic!("on purpose")).unwrap();
    for seq in 1..=2 {
        let receipt = database.writer().submit(PublishThen(ok), WriteContext::default());
        assert_eq!(receipt.await.unwrap().seq, Some(seq));
    }
}

#[tokio::test]
async fn a_receipt_that_is_dropped_does_not_undo_the_write() {
    let fixture = Fixture::new();
    let event = Event::MemberRemoved { user_id: bob() };
    let publish = |id| {
        let event = event.clone();
        PublishOutbox { entries: vec![OutboxEntry { id, event, by: ann(), at: NOW }] }
    };
    drop(fixture.database().writer().submit(publish(1), WriteContext::default()));
    fixture.write(publish(2)).await.unwrap();
    assert_eq!(fixture.take_events().len(), 2);
}

#[tokio::test]
async fn events_are_numbered_without_gaps_over_all_rooms() {
    let fixture = Fixture::new();
    for n in 1..=3 {
        fixture.write(create_session(n)).await.unwrap();
    }
    fixture.write(accept(1)).await.unwrap();
    fixture.write(start(1)).await.unwrap();
    let events = fixture.take_stored();
    let mut heads = HashMap::new();
    for (event, seq) in events.iter().zip(1..) {
        assert_eq!(event.seq, seq);
        let prev = heads.insert(event.room.clone(), seq).unwrap_or(0);
        assert_eq!(event.prev, prev, "{event:?}");
    }
    for (room, head) in heads {
        let of_room: Vec<_> = events.iter().filter(|event| event.room == room).cloned().collect();
        assert_eq!(fixture.log(room.clone()).await, of_room);
        assert_eq!(fixture.reader().room_head(room).await.unwrap(), head);
    }
}

/// Tells the `synchronous` of its transaction (1 is NORMAL, 2 is FULL).
struct TellWeak(Arc<Mutex<Vec<i64>>>);

/// As [`TellWeak`], for what has to survive a loss of power.
struct TellStrong(Arc<Mutex<Vec<i64>>>);

fn tell(tx: &WriteTx<'_>, told: &Mutex<Vec<i64>>) -> Result<(), StoreError> {
    let level = tx.conn().pragma_query_value(None, "synchronous", |row| row.get(0))?;
    told.lock().unwrap().push(level);
    Ok(())
}

impl Command for TellWeak {
    const DURABILITY: Durability = Durability::ProcessDeath;
    type Output = ();

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        tell(tx, &self.0)
    }
}

impl Command for TellStrong {
    type Output = ();

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        tell(tx, &self.0)
    }
}

#[tokio::test]
async fn each_command_commits_with_its_own_durability_in_the_order_of_the_queue() {
    let (_directory, database, _, release) = held();
    let told = Arc::<Mutex<Vec<i64>>>::default();
    let mut receipts = Vec::new();
    for strong in [true, false, false, true, false, true, true] {
        let (writer, told) = (database.writer(), Arc::clone(&told));
        receipts.push(if strong {
            writer.submit(TellStrong(told), WriteContext::default())
        } else {
            writer.submit(TellWeak(told), WriteContext::default())
        });
    }
    drop(release);
    for receipt in receipts {
        receipt.await.unwrap();
    }
    assert_eq!(*told.lock().unwrap(), [2, 1, 1, 2, 1, 2, 2]);
}
