//! A writer whose disk is full: what it refuses, what it takes, and how it learns of it.

use iris_protocol::{Event, ProjectId, UserId};
use tempfile::TempDir;

use super::*;
use crate::project::{CreateAgent, PublishOutbox, Quotas};
use crate::root::OutboxEntry;
use crate::{ProjectDatabase, Storage};

struct Small {
    _directory: TempDir,
    storage: Storage,
    database: ProjectDatabase,
}

impl Small {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("project.db");
        let id = ProjectId::from_bits(1);
        ProjectDatabase::create(&path, &id, "epoch", 0).unwrap();
        let database = ProjectDatabase::open(&path, &id, |_| {}).unwrap();
        let storage = Storage::open(directory.path()).unwrap();
        database.use_storage(&storage);
        Self { _directory: directory, storage, database }
    }

    fn fill(&self) {
        self.storage.pretend_available(Some(0));
        self.storage.report_full();
    }

    async fn write<C: Command>(&self, command: C) -> Result<Committed<C::Output>, StoreError> {
        self.database.writer().submit(command, WriteContext::default()).await
    }
}

fn agent(name: &str) -> CreateAgent {
    CreateAgent {
        id: iris_protocol::AgentId::from_bits(u128::from(name.len() as u64)),
        name: name.to_owned(),
        description: String::new(),
        mode: iris_protocol::AgentMode::All,
        prompt: String::new(),
        model: None,
        tools: Vec::new(),
        budget: None,
        tuning: iris_protocol::AgentTuning::default(),
        permissions: vec![],
        quotas: Quotas::default(),
        by: UserId::from_bits(1),
        at: 0,
    }
}

fn told() -> PublishOutbox {
    let by = UserId::from_bits(1);
    let event = Event::MemberRemoved { user_id: by.clone() };
    PublishOutbox { entries: vec![OutboxEntry { id: 1, event, by, at: 0 }] }
}

/// Lets the file have no more pages than it has, and wants one.
struct Overflow;

// Spelt out: `tests/faults/matrix.rs` takes what stands there for a command of the server.
impl super::Command for Overflow {
    type Output = ();

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        let pages: u64 = tx.conn().pragma_query_value(None, "page_count", |row| row.get(0))?;
        tx.conn().pragma_update(None, "max_page_count", pages)?;
        tx.conn().execute_batch(
            "CREATE TABLE overflow (bytes BLOB); INSERT INTO overflow VALUES (zeroblob(100000));",
        )?;
        Ok(())
    }
}

#[tokio::test]
async fn what_takes_space_is_refused_what_ends_something_runs_and_a_repeat_is_answered() {
    let small = Small::new();
    let key = |name: &str| WriteContext {
        idempotency: Some(IdempotencyKey {
            user_id: UserId::from_bits(1),
            operation: "agent.create".into(),
            key: name.to_owned(),
            body_hash: String::new(),
            at: 0,
        }),
        audit: None,
    };
    let first = small.database.writer().submit(agent("a"), key("first")).await.unwrap();
    small.fill();
    assert!(matches!(small.write(agent("bb")).await, Err(StoreError::StorageFull)));
    let second = small.database.writer().submit(agent("bb"), key("second")).await;
    assert!(matches!(second, Err(StoreError::StorageFull)));
    let repeat = small.database.writer().submit(agent("a"), key("first")).await.unwrap();
    assert!(repeat.replayed && repeat.output == first.output);
    small.write(told()).await.unwrap();
    small.write(FromReserve(agent("bb"))).await.unwrap();
    assert_eq!(small.database.reader().agents().await.unwrap().len(), 2);

    small.storage.pretend_available(None);
    assert!(small.storage.look());
    small.write(agent("ccc")).await.unwrap();
}

#[tokio::test]
async fn a_write_that_finds_no_room_is_lost_whole_and_makes_the_disk_known_as_full() {
    let small = Small::new();
    small.write(agent("a")).await.unwrap();
    let head = small.database.head().unwrap();
    small.storage.pretend_available(Some(0));
    assert!(matches!(small.write(Overflow).await, Err(StoreError::StorageFull)));
    assert!(small.storage.is_full());
    assert!(matches!(small.write(agent("bb")).await, Err(StoreError::StorageFull)));
    assert_eq!(small.database.head().unwrap(), head, "nothing of it is there");
    assert!(small.database.writer().is_alive());
    assert_eq!(small.database.damage(), None);
    small.storage.pretend_available(None);
    small.storage.look();
}
