//! What is recorded: commands on a project's database and on the root database, each of which is told in
//! a file once it is acknowledged; and what has to be in the databases then.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use iris_protocol::{Event, PartId, ProjectId, Room, RunId, SessionId, SessionMode, UserId};
use iris_protocol::{MessageId, SessionStatus};
use iris_store::project::{AcceptMessage, CreateSession, Quotas, SetSessionStatus};
use iris_store::root::CreateUser;
use iris_store::{
    Command, Durability, ProjectDatabase, RootDatabase, StoreError, WriteContext, WriteTx,
};
use rusqlite::{Connection, OpenFlags};

/// Names the directory in which the load works.
pub(super) const DIRECTORY: &str = "IRIS_POWER_LOSS_DIRECTORY";
/// The file of acknowledgements.
pub(super) const ACKNOWLEDGEMENTS: &str = "acknowledgements";

const PROJECT: &str = "project.db";
const ROOT: &str = "root.db";

const NOW: i64 = 1_790_000_000_000;
/// Rounds of the load.
const ROUNDS: u128 = 84;
/// The project's database is closed and opened again after so many of them.
const REOPENED_AFTER: u128 = 35;
/// Bytes of a message, so that the write-ahead log is begun anew several times.
const TEXT_BYTES: usize = 6_000;

/// Something that was acknowledged, with the number that makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Promise {
    /// The project's database is there.
    Project,
    /// A session.
    Session(u128),
    /// A message.
    Message(u128),
    /// A user.
    User(u128),
}

impl Promise {
    /// Its line.
    fn told(self) -> String {
        match self {
            Self::Project => "project 0\n".to_owned(),
            Self::Session(number) => format!("session {number}\n"),
            Self::Message(number) => format!("message {number}\n"),
            Self::User(number) => format!("user {number}\n"),
        }
    }

    /// Reads a line of the acknowledgements.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let (word, number) = line.split_once(' ')?;
        let number = number.parse().ok()?;
        match word {
            "project" => Some(Self::Project),
            "session" => Some(Self::Session(number)),
            "message" => Some(Self::Message(number)),
            "user" => Some(Self::User(number)),
            _ => None,
        }
    }
}

/// Started by the tests, under `strace`.
#[tokio::test]
#[ignore = "a process of the tests of the loss of power"]
async fn that_is_watched() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let directory = Path::new(&directory);
    let told = File::create(directory.join(ACKNOWLEDGEMENTS)).unwrap();
    // One call of the system for each.
    let tell = |promise: Promise| (&told).write_all(promise.told().as_bytes()).unwrap();
    let root = RootDatabase::open_or_create(&directory.join(ROOT), NOW).unwrap();
    let path = directory.join(PROJECT);
    ProjectDatabase::create(&path, &project_id(), "epoch", NOW).unwrap();
    tell(Promise::Project);
    let mut database = ProjectDatabase::open(&path, &project_id(), |_| {}).unwrap();
    for number in 1..=ROUNDS {
        if number % REOPENED_AFTER == 0 {
            database.close();
            database = ProjectDatabase::open(&path, &project_id(), |_| {}).unwrap();
        }
        let writer = database.writer();
        let submit = |text| writer.submit(Checkpoint { number, text }, WriteContext::default());
        drop(submit("lost when the power fails"));
        writer.submit(session(number), WriteContext::default()).await.unwrap();
        tell(Promise::Session(number));
        // Several in one transaction, after a checkpoint in another one.
        let checkpoint = submit("perhaps lost");
        let taken = [2 * number, 2 * number + 1]
            .map(|number| (number, writer.submit(message(number), WriteContext::default())));
        for (number, taken) in taken {
            taken.await.unwrap();
            tell(Promise::Message(number));
        }
        checkpoint.await.unwrap();
        if number % 3 == 0 {
            root.writer().submit(user(number), WriteContext::default()).await.unwrap();
            tell(Promise::User(number));
        }
    }
    let archived = SetSessionStatus {
        id: SessionId::from_bits(0),
        status: SessionStatus::Archived,
        by: UserId::from_bits(1),
        at: NOW,
    };
    // Refused: a command that fails leaves nothing behind.
    database.writer().submit(archived, WriteContext::default()).await.unwrap_err();
}

/// As durable as the text of an answer that streams.
struct Checkpoint {
    number: u128,
    text: &'static str,
}

impl Command for Checkpoint {
    const DURABILITY: Durability = Durability::ProcessDeath;

    type Output = ();

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        let event = Event::MemberRemoved { user_id: UserId::from_bits(self.number) };
        tx.publish(Room::Project(project_id()), NOW, None, &event)?;
        let sql = "INSERT OR REPLACE INTO agents (id, name, prompt, tools, created_at, updated_at)
                   VALUES (?1, ?1, ?2, '[]', 0, 0)";
        tx.conn().execute(sql, (self.text, self.text.repeat(100)))?;
        Ok(())
    }
}

fn project_id() -> ProjectId {
    ProjectId::from_bits(1)
}

fn session(number: u128) -> CreateSession {
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

fn text(number: u128) -> String {
    format!("{number} ").repeat(TEXT_BYTES / 4)
}

fn message(number: u128) -> AcceptMessage {
    AcceptMessage {
        quotas: Quotas::default(),
        session_id: SessionId::from_bits(number / 2),
        message_id: MessageId::from_bits(number),
        part_id: PartId::from_bits(number),
        run_id: RunId::from_bits(number),
        text: text(number),
        answer_format: None,
        attachments: Vec::new(),
        by: UserId::from_bits(1),
        when_busy: iris_protocol::WhenBusy::Queue,
        at: NOW,
    }
}

fn user(number: u128) -> CreateUser {
    CreateUser {
        id: UserId::from_bits(number),
        email: format!("user{number}@example.com"),
        username: format!("user{number}"),
        password_hash: Some(text(number)),
        is_admin: false,
        only_if_no_admin: false,
        at: NOW,
    }
}

/// The promises that the databases in `directory` break. Opens them as the server does.
pub(super) fn broken(directory: &Path, promises: &[Promise]) -> Vec<String> {
    let mut broken = Vec::new();
    let (project, root) = (directory.join(PROJECT), directory.join(ROOT));
    let is_promised = promises.contains(&Promise::Project);
    if is_promised || project.exists() {
        match ProjectDatabase::open(&project, &project_id(), |_| {}) {
            Ok(database) => {
                look(&project, &mut broken, |conn, broken| compare_project(conn, promises, broken));
                database.close();
            }
            Err(error) => broken.push(format!("{PROJECT} does not open: {error}")),
        }
    }
    let has_users = promises.iter().any(|promise| matches!(promise, Promise::User(_)));
    if has_users || root.exists() {
        match RootDatabase::open_or_create(&root, NOW) {
            Ok(database) => {
                look(&root, &mut broken, |conn, broken| compare_root(conn, promises, broken));
                database.close();
            }
            Err(error) => broken.push(format!("{ROOT} does not open: {error}")),
        }
    }
    broken
}

fn look(
    path: &Path,
    broken: &mut Vec<String>,
    compare: impl FnOnce(&Connection, &mut Vec<String>) -> rusqlite::Result<()>,
) {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let checked: rusqlite::Result<Vec<String>> = conn
        .prepare("PRAGMA integrity_check")
        .and_then(|mut check| check.query_map([], |row| row.get(0))?.collect());
    if checked.as_ref().is_ok_and(|lines| lines == &["ok"]) {
        compare(&conn, broken).unwrap();
    } else {
        broken.push(format!("{} is damaged: {checked:?}", path.display()));
    }
}

fn compare_project(
    conn: &Connection,
    promises: &[Promise],
    broken: &mut Vec<String>,
) -> rusqlite::Result<()> {
    let sessions = pairs(conn, "SELECT id, title FROM sessions")?;
    let sql = "SELECT message_id, body ->> 'text' FROM message_parts";
    let messages = pairs(conn, sql)?;
    for promise in promises {
        let is_kept = match *promise {
            Promise::Session(number) => {
                let session = session(number);
                sessions.contains(&(session.id.to_string(), session.title.unwrap_or_default()))
            }
            Promise::Message(number) => {
                let message = message(number);
                messages.contains(&(message.message_id.to_string(), message.text))
            }
            Promise::Project | Promise::User(_) => true,
        };
        if !is_kept {
            broken.push(format!("{promise:?} is lost"));
        }
    }
    let gaps: u64 = conn.query_row(
        "SELECT (SELECT last_seq FROM meta) - count(*) + count(*) FILTER (WHERE
           prev <> coalesce((SELECT max(seq) FROM events AS earlier
                             WHERE earlier.room = events.room AND earlier.seq < events.seq), 0))
         FROM events",
        [],
        |row| row.get(0),
    )?;
    if gaps > 0 {
        broken.push(format!("the events have {gaps} gaps"));
    }
    Ok(())
}

fn compare_root(
    conn: &Connection,
    promises: &[Promise],
    broken: &mut Vec<String>,
) -> rusqlite::Result<()> {
    let users = pairs(conn, "SELECT id, password_hash FROM users")?;
    for promise in promises {
        let Promise::User(number) = *promise else { continue };
        if !users.contains(&(user(number).id.to_string(), text(number))) {
            broken.push(format!("{promise:?} is lost"));
        }
    }
    Ok(())
}

fn pairs(conn: &Connection, sql: &str) -> rusqlite::Result<BTreeSet<(String, String)>> {
    let mut statement = conn.prepare(sql)?;
    let pairs = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    pairs.collect()
}
