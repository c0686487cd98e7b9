//! Messages from sixty-four senders: into the registry and acknowledged, beside the bare limit of this
//! disk with the same statements, and over as many sockets.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use iris_actors::project::ProjectHandle;
use iris_actors::write;
use iris_client::{ConnectOptions, Socket};
use iris_protocol::{
    Content, MessageId, MessageSend, PartId, ProjectId, RunId, SessionId, SessionMode, UserId,
};
use iris_store::project::{AcceptMessage, CreateSession, ProjectDatabase, Quotas};
use iris_store::{Command, WriteContext};
use iris_testkit::{AppOptions, TestApp, spawn_app_in};
use rusqlite::types::Value;

use super::bare::BareWriter;
use super::clients::{SENDERS, Sent, send_all};
use super::statements::{BeginTrace, Statement, Work, connect, traced};
use crate::conversation::{Owner, new_session};
use crate::server::{Server, data_dir};
use crate::table::{Figure, median, ms};

/// How much less than the bare limit, in percent.
const SLOWER_PERCENT_MAX: f64 = 30.0;
const P99_MS_MAX: f64 = 20.0;

const ROUNDS: usize = 5;
/// Messages of one round.
const MESSAGES: usize = SENDERS * 24;
/// Rows of one round of the plain limit.
const ROWS: usize = SENDERS * 400;
/// Messages of one socket, of which the first one keeps the run busy.
const MESSAGES_OF_SOCKET: usize = 32;
/// What a message says.
const TEXT: &str = "How long does it take until this is on the disk, and who else waits for it?";

const NOW: i64 = 1_790_000_000_000;

/// Measures rounds of messages in turn with rounds of the bare limit.
pub(crate) async fn figures() -> anyhow::Result<Vec<Figure>> {
    let directory = data_dir()?;
    let mut works = record_statements(directory.path()).await?;
    let statements = works.first().map_or(0, |work| work.len());
    let bare = Arc::new(BareWriter::start(connect(&directory.path().join("bare.db"))?));
    let plain = Arc::new(BareWriter::start(plain_database(&directory.path().join("plain.db"))?));
    let (app, project) = server_with_sessions().await?;

    let [mut slower, mut registry, mut p99, mut limit, mut rows] = [const { Vec::new() }; 5];
    // By themselves: what they leave to be written would slow down whatever comes next.
    for round in 0..ROUNDS {
        let sent = send_bare(&plain, (0..ROWS).map(|row| plain_row(round * ROWS + row)).collect());
        rows.push(sent.await?.rate());
    }
    for round in 0..ROUNDS {
        let works = works.split_off(works.len() - MESSAGES);
        let bare = send_bare(&bare, works).await?.rate();
        let sent = send_to_registry(&project, round).await?;
        slower.push((1.0 - sent.rate() / bare) * 100.0);
        p99.push(ms(sent.p99()));
        registry.push(sent.rate());
        limit.push(bare);
    }
    drop(project);
    app.stop().await;
    for writer in [bare, plain] {
        Arc::into_inner(writer).context("a sender is left")?.close()?;
    }
    let (registry, limit, rows) = (median(&registry), median(&limit), median(&rows));
    let comparison = format!(
        "{registry:.0}/s, bare {limit:.0}/s with the same {statements} statements; one-row inserts \
         {rows:.0}/s"
    );
    Ok(vec![
        Figure {
            name: "message into the registry, slower than bare by",
            target: Some(SLOWER_PERCENT_MAX),
            unit: "%",
            samples: slower,
            comparison,
        },
        Figure {
            name: "p99 of its acknowledgement, 64 senders",
            target: Some(P99_MS_MAX),
            unit: "ms",
            samples: p99,
            comparison: format!("{MESSAGES} messages a round"),
        },
        over_sockets().await?,
    ])
}

/// Takes messages for once, in a database whose copy is then ready to be given the same statements.
async fn record_statements(directory: &Path) -> anyhow::Result<Vec<Work>> {
    let path = directory.join("traced.db");
    let id = ProjectId::from_bits(1);
    ProjectDatabase::create(&path, &id, "epoch", NOW)?;
    let database = ProjectDatabase::open(&path, &id, |_| {})?;
    let submit = async |commands: Vec<CreateSession>| submit_all(&database, commands).await;
    submit((0..ROUNDS).flat_map(|round| (0..MESSAGES).map(move |n| session(round, n))).collect())
        .await?;
    database.close();
    std::fs::copy(&path, directory.join("bare.db"))?;
    let database = ProjectDatabase::open(&path, &id, |_| {})?;
    database.writer().submit(BeginTrace, WriteContext::default()).await?;
    for round in 0..ROUNDS {
        let messages = (0..MESSAGES).map(|n| message(round, n)).collect();
        submit_all::<AcceptMessage>(&database, messages).await?;
    }
    let traced = traced()?;
    database.close();
    let messages = ROUNDS * MESSAGES;
    anyhow::ensure!(traced.len() == messages, "{} commands were traced", traced.len());
    Ok(traced)
}

/// As many at a time as there are senders.
async fn submit_all<C: Command>(
    database: &ProjectDatabase,
    commands: Vec<C>,
) -> anyhow::Result<()> {
    let mut receipts = Vec::new();
    for command in commands {
        receipts.push(database.writer().submit(command, WriteContext::default()));
        if receipts.len() == SENDERS {
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

/// A server in this process, on the disk of the build, and a project with a session for each message.
async fn server_with_sessions() -> anyhow::Result<(TestApp, ProjectHandle)> {
    let app = spawn_app_in(AppOptions::default(), data_dir()?).await;
    let owner = app.admin().await;
    let project = app.node().project(&owner.project("figures").await.id).await;
    let project = project.map_err(|error| anyhow::anyhow!(error.message))?;
    for round in 0..ROUNDS {
        let sessions = (0..MESSAGES).map(|n| session(round, n)).collect();
        let registry = project.address.clone();
        send_all(sessions, move |session| {
            let created = write(&registry, session, WriteContext::default());
            async move { Ok(created.await.map(drop)?) }
        })
        .await?;
    }
    Ok((app, project))
}

async fn send_to_registry(project: &ProjectHandle, round: usize) -> anyhow::Result<Sent> {
    let messages = (0..MESSAGES).map(|n| message(round, n)).collect();
    let registry = project.address.clone();
    send_all(messages, move |message| {
        let accepted = write(&registry, message, WriteContext::default());
        async move { Ok(accepted.await.map(drop)?) }
    })
    .await
}

async fn send_bare(writer: &Arc<BareWriter>, works: Vec<Work>) -> anyhow::Result<Sent> {
    let writer = Arc::clone(writer);
    send_all(works, move |work| {
        let writer = Arc::clone(&writer);
        async move { writer.commit(work).await }
    })
    .await
}

/// Sixty-four sockets with a session each, whose first run is busy, so that only the taking of messages
/// is measured.
async fn over_sockets() -> anyhow::Result<Figure> {
    let directory = data_dir()?;
    let server = Server::start(directory.path())?;
    let owner = Owner::of(&server).await?;
    let mut sockets = Vec::new();
    for _ in 0..SENDERS {
        let session = new_session(&owner.client, &owner.project).await?;
        let socket = Arc::new(owner.client.connect(&ConnectOptions::default()).await?);
        say(&socket, &owner.project, &session, "delay 60000\nsay late").await?;
        sockets.push((socket, session));
    }
    let mut messages = Vec::new();
    for _ in 0..MESSAGES_OF_SOCKET {
        messages.extend(sockets.iter().cloned());
    }
    let project = owner.project.clone();
    let sent = send_all(messages, move |(socket, session)| {
        let project = project.clone();
        async move { say(&socket, &project, &session, TEXT).await }
    })
    .await?;
    Ok(Figure {
        name: "messages over 64 WebSockets",
        target: None,
        unit: "/s",
        samples: vec![sent.rate()],
        comparison: format!("p99 of an acknowledgement {:.1} ms", ms(sent.p99())),
    })
}

async fn say(
    socket: &Socket,
    project: &ProjectId,
    session_id: &SessionId,
    text: &str,
) -> anyhow::Result<()> {
    let (session_id, content) = (session_id.clone(), Content::Text(text.to_owned()));
    let message = MessageSend { session_id, content, when_busy: None, attachments: Vec::new() };
    Ok(socket.call(Some(project), message).await.map(drop)?)
}

fn bits(round: usize, number: usize) -> u128 {
    (round * MESSAGES + number) as u128 + 1
}

fn session(round: usize, number: usize) -> CreateSession {
    CreateSession {
        quotas: Quotas::default(),
        id: SessionId::from_bits(bits(round, number)),
        title: Some("figures".to_owned()),
        agent: "default".to_owned(),
        model: None,
        mode: SessionMode::Default,
        created_by: UserId::from_bits(1),
        at: NOW,
    }
}

fn message(round: usize, number: usize) -> AcceptMessage {
    let bits = bits(round, number);
    AcceptMessage {
        quotas: Quotas::default(),
        session_id: SessionId::from_bits(bits),
        message_id: MessageId::from_bits(bits),
        part_id: PartId::from_bits(bits),
        run_id: RunId::from_bits(bits),
        text: TEXT.to_owned(),
        answer_format: None,
        attachments: Vec::new(),
        by: UserId::from_bits(1),
        when_busy: iris_protocol::WhenBusy::Queue,
        at: NOW,
    }
}

fn plain_database(path: &Path) -> anyhow::Result<rusqlite::Connection> {
    let conn = connect(path)?;
    conn.execute_batch("CREATE TABLE rows (id INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT")?;
    Ok(conn)
}

/// The least that a row can cost.
fn plain_row(id: usize) -> Work {
    let id = i64::try_from(id).unwrap_or_default();
    let sql = "INSERT INTO rows (id, text) VALUES (?1, ?2)".into();
    Arc::new(vec![Statement {
        sql,
        values: vec![Value::Integer(id), Value::Text(TEXT.to_owned())],
    }])
}
