//! What one command and the queries of a project's database cost, without actors and sockets.
//!
//! ```text
//! cargo bench -p iris-store --bench store
//! ```
//!
//! Tells how a change moved a figure; `benches/figures` is what holds the figures to their targets.

#![expect(clippy::expect_used, reason = "what fails is not measured")]

use std::sync::atomic::{AtomicU64, Ordering};

use criterion::{Criterion, criterion_group, criterion_main};
use iris_protocol::{
    MessageId, PartId, ProjectId, Room, RunId, RunStatus, SessionId, SessionMode, UserId,
};
use iris_store::project::{AcceptMessage, CreateSession, FailQueuedRun, ProjectDatabase, Quotas};
use iris_store::{Command, WriteContext};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const NOW: i64 = 1_790_000_000_000;
const SESSIONS: u64 = 1_000;
/// Of the first session.
const MESSAGES: u64 = 1_000;
const PAGE: u32 = 50;
const EVENTS: u64 = 300;

criterion_group!(benches, writing, reading);
criterion_main!(benches);

/// A database in a directory of its own, and the thread that waits for it.
struct Fixture {
    database: ProjectDatabase,
    runtime: Runtime,
    /// Of the last message.
    last: AtomicU64,
    _directory: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, id) = (directory.path().join("project.db"), ProjectId::from_bits(1));
        ProjectDatabase::create(&path, &id, "epoch", NOW).expect("a database");
        let database = ProjectDatabase::open(&path, &id, |_| {}).expect("a database");
        let runtime = Runtime::new().expect("a runtime");
        let fixture = Self { database, runtime, last: AtomicU64::new(0), _directory: directory };
        (1..=SESSIONS).for_each(|number| fixture.write(session(number)));
        (0..MESSAGES).for_each(|_| fixture.exchange());
        fixture
    }

    fn write<C: Command>(&self, command: C) {
        let written = self.database.writer().submit(command, WriteContext::default());
        self.runtime.block_on(written).expect("a commit");
    }

    /// A message whose run ends at once.
    fn exchange(&self) {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.write(message(number));
        self.write(end(number));
    }
}

/// One transaction each, synced: what the disk costs is in it.
fn writing(criterion: &mut Criterion) {
    let fixture = Fixture::new();
    let mut group = criterion.benchmark_group("write");
    group.sample_size(20);
    group.bench_function("message and end of its run", |bencher| {
        bencher.iter(|| fixture.exchange());
    });
    group.finish();
}

fn reading(criterion: &mut Criterion) {
    let fixture = Fixture::new();
    let (reader, runtime) = (fixture.database.reader(), &fixture.runtime);
    let session = SessionId::from_bits(1);
    let mut group = criterion.benchmark_group("read");
    group.bench_function("page of 50 messages", |bencher| {
        bencher.iter(|| {
            let page = runtime.block_on(reader.messages(session.clone(), PAGE, None));
            page.expect("a page")
        });
    });
    group.bench_function("page of 50 sessions", |bencher| {
        bencher
            .iter(|| runtime.block_on(reader.sessions(PAGE, None, false, None)).expect("a page"));
    });
    group.bench_function("replay of 300 events", |bencher| {
        let room = Room::Session(session.clone());
        let head = fixture.database.committed_head();
        bencher.iter(|| {
            let from = head - EVENTS;
            let events = reader.events(room.clone(), from, head, 1_000, usize::MAX);
            runtime.block_on(events).expect("events")
        });
    });
    group.finish();
}

fn session(number: u64) -> CreateSession {
    CreateSession {
        id: SessionId::from_bits(number.into()),
        title: Some(format!("session {number}")),
        agent: "default".to_owned(),
        model: None,
        mode: SessionMode::Default,
        created_by: UserId::from_bits(1),
        quotas: Quotas::default(),
        at: NOW,
    }
}

fn message(number: u64) -> AcceptMessage {
    AcceptMessage {
        session_id: SessionId::from_bits(1),
        message_id: MessageId::from_bits(number.into()),
        part_id: PartId::from_bits(number.into()),
        run_id: RunId::from_bits(number.into()),
        text: format!("What is to be said about number {number}, all in all?"),
        answer_format: None,
        attachments: Vec::new(),
        by: UserId::from_bits(1),
        when_busy: iris_protocol::WhenBusy::Queue,
        quotas: Quotas::default(),
        at: NOW,
    }
}

fn end(number: u64) -> FailQueuedRun {
    FailQueuedRun {
        session_id: SessionId::from_bits(1),
        run_id: RunId::from_bits(number.into()),
        status: RunStatus::Cancelled,
        error: None,
        at: NOW,
    }
}
