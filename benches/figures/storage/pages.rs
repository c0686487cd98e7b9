//! The queries that clients wait for: a page of a conversation, a page of a long list, what was missed.

use std::time::Instant;

use anyhow::ensure;
use iris_client::{ConnectOptions, Socket};
use iris_protocol::{
    MessageId, PartId, Position, ProjectId, Room, RoomRequest, RoomSince, RoomStatus, RunId,
    RunStatus, SessionId, SessionMode, Subscribe, UserId,
};
use iris_store::project::{
    AcceptMessage, CreateSession, FailQueuedRun, ProjectDatabase, ProjectReader, Quotas, Replay,
};
use iris_store::{Command, WriteContext};

use crate::conversation::{Owner, new_session};
use crate::server::{Server, data_dir};
use crate::table::{Figure, median, ms};

const PAGE_MS_MAX: f64 = 1.0;
const LIST_MS_MAX: f64 = 5.0;
const REPLAY_MS_MAX: f64 = 5.0;

const PAGE: u32 = 50;
const SESSIONS: u128 = 10_000;
/// Of one session.
const MESSAGES: u128 = 5_000;
const EVENTS: u64 = 300;
const SAMPLES: usize = 201;
/// Commands that are submitted together.
const BATCH: usize = 256;
/// Messages that wait together; fewer than a session may have.
const TOGETHER: usize = 32;

pub(super) const NOW: i64 = 1_790_000_000_000;

/// Measures a database of many sessions, one of which is long, then a server's replay.
pub(crate) async fn figures() -> anyhow::Result<Vec<Figure>> {
    let directory = data_dir()?;
    let (path, id) = (directory.path().join("project.db"), ProjectId::from_bits(1));
    ProjectDatabase::create(&path, &id, "epoch", NOW)?;
    let database = ProjectDatabase::open(&path, &id, |_| {})?;
    submit_all(&database, (1..=SESSIONS).map(session)).await?;
    converse(&database, MESSAGES).await?;
    let reader = database.reader();
    let page = page_of_messages(&reader).await?;
    let list = page_of_sessions(&reader).await?;
    let stored = median(&replay_of_store(&reader).await?);
    database.close();
    let mut replay = replay_over_socket().await?;
    replay.comparison = format!("the query alone {stored:.2} ms");
    Ok(vec![page, list, replay])
}

/// Says so much in the first session, which is there, and nobody answers.
pub(super) async fn converse(database: &ProjectDatabase, messages: u128) -> anyhow::Result<()> {
    for first in (1..=messages).step_by(TOGETHER) {
        let numbers = first..(first + TOGETHER as u128).min(messages + 1);
        submit_all(database, numbers.clone().map(message)).await?;
        submit_all(database, numbers.map(end)).await?;
    }
    Ok(())
}

async fn page_of_messages(reader: &ProjectReader) -> anyhow::Result<Figure> {
    let mut samples = Vec::new();
    for _ in 0..SAMPLES {
        let began = Instant::now();
        let page = reader.messages(SessionId::from_bits(1), PAGE, None).await?;
        samples.push(ms(began.elapsed()));
        ensure!(page.messages.len() == PAGE as usize, "the page is not full");
    }
    Ok(Figure {
        name: "page of 50 messages",
        target: Some(PAGE_MS_MAX),
        unit: "ms",
        samples,
        comparison: format!("of a session of {MESSAGES}"),
    })
}

async fn page_of_sessions(reader: &ProjectReader) -> anyhow::Result<Figure> {
    let (mut samples, mut cursor) = (Vec::new(), None);
    for _ in 0..SAMPLES {
        let began = Instant::now();
        let page = reader.sessions(PAGE, cursor, false, None).await?;
        samples.push(ms(began.elapsed()));
        ensure!(page.sessions.len() == PAGE as usize, "the page is not full");
        cursor = page.next_cursor;
    }
    Ok(Figure {
        name: "page of the list of 10000 sessions",
        target: Some(LIST_MS_MAX),
        unit: "ms",
        samples,
        comparison: format!("{PAGE} each, page after page"),
    })
}

async fn replay_of_store(reader: &ProjectReader) -> anyhow::Result<Vec<f64>> {
    let room = Room::Session(SessionId::from_bits(1));
    let mut samples = Vec::new();
    let head = reader.sessions(1, None, false, None).await?.as_of.seq;
    for _ in 0..SAMPLES {
        let began = Instant::now();
        // The events of the room are not the only ones of the project.
        let from = head.saturating_sub(2 * EVENTS);
        let wanted = usize::try_from(EVENTS)?;
        let (most, bytes) = (wanted * 2, usize::MAX);
        let replay = reader.events(room.clone(), from, head, most, bytes).await?;
        samples.push(ms(began.elapsed()));
        let Replay::Events(events) = replay else { anyhow::bail!("too much to replay") };
        ensure!(events.len() >= wanted, "only {} events", events.len());
    }
    Ok(samples)
}

/// A client that comes back to a session in which so many things happened.
async fn replay_over_socket() -> anyhow::Result<Figure> {
    let directory = data_dir()?;
    let server = Server::start(directory.path())?;
    let owner = Owner::of(&server).await?;
    let session = new_session(&owner.client, &owner.project).await?;
    let socket = owner.client.connect(&ConnectOptions::default()).await?;
    let room = Room::Session(session.clone()).to_string();
    let position = join(&socket, &owner, RoomRequest::Live(room.clone()), RoomStatus::Live).await?;
    let mut heard = 0;
    while heard < EVENTS {
        crate::conversation::say(&owner, &session, "say so").await?;
        while let Ok(event) = socket.next_event().await {
            heard += u64::from(event.meta.seq.is_some());
            if event.event.name() == "run.completed" {
                break;
            }
        }
    }
    let since = Position { epoch: position.epoch, seq: position.seq };
    let mut samples = Vec::new();
    for _ in 0..SAMPLES / 4 {
        let socket = owner.client.connect(&ConnectOptions::default()).await?;
        let began = Instant::now();
        let request = RoomSince { room: room.clone(), since: Some(since.clone()) };
        join(&socket, &owner, RoomRequest::Since(request), RoomStatus::Replayed).await?;
        let mut replayed = 0;
        while replayed < EVENTS {
            socket.next_event().await?;
            replayed += 1;
        }
        samples.push(ms(began.elapsed()));
    }
    server.stop()?;
    Ok(Figure {
        name: "replay of 300 events over a WebSocket",
        target: Some(REPLAY_MS_MAX),
        unit: "ms",
        samples,
        comparison: String::new(),
    })
}

async fn join(
    socket: &Socket,
    owner: &Owner,
    room: RoomRequest,
    expected: RoomStatus,
) -> anyhow::Result<Position> {
    let request = Subscribe { rooms: vec![room], deltas: Some(false), presence: None };
    let joined = socket.call(Some(&owner.project), request).await?.payload;
    let outcome = joined.rooms.into_iter().next();
    match outcome {
        Some(room) if room.status == expected => Ok(Position { epoch: room.epoch, seq: room.to }),
        other => anyhow::bail!("not joined: {other:?}"),
    }
}

pub(super) async fn submit_all<C: Command>(
    database: &ProjectDatabase,
    commands: impl Iterator<Item = C>,
) -> anyhow::Result<()> {
    let mut receipts = Vec::new();
    for command in commands {
        receipts.push(database.writer().submit(command, WriteContext::default()));
        if receipts.len() == BATCH {
            for receipt in receipts.drain(..) {
                receipt.await?;
            }
        }
    }
    for receipt in receipts {
        receipt.await?;
    }
    Ok(())
}

pub(super) fn session(number: u128) -> CreateSession {
    CreateSession {
        quotas: Quotas::default(),
        id: SessionId::from_bits(number),
        title: Some(format!("session {number}")),
        agent: "default".to_owned(),
        model: None,
        mode: SessionMode::Default,
        created_by: UserId::from_bits(1),
        at: NOW,
    }
}

fn message(number: u128) -> AcceptMessage {
    AcceptMessage {
        quotas: Quotas::default(),
        session_id: SessionId::from_bits(1),
        message_id: MessageId::from_bits(number),
        part_id: PartId::from_bits(number),
        run_id: RunId::from_bits(number),
        text: format!("What is to be said about number {number}, all in all? ").repeat(3),
        answer_format: None,
        attachments: Vec::new(),
        by: UserId::from_bits(1),
        when_busy: iris_protocol::WhenBusy::Queue,
        at: NOW,
    }
}

/// Makes room for the next message.
fn end(number: u128) -> FailQueuedRun {
    FailQueuedRun {
        session_id: SessionId::from_bits(1),
        run_id: RunId::from_bits(number),
        status: RunStatus::Cancelled,
        error: None,
        at: NOW,
    }
}
