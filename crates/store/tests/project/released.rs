//! Databases of every released schema: opened, brought to the newest one, read whole.

use std::fs;
use std::path::{Path, PathBuf};

use iris_protocol::{
    Agent, Approval, MessageRole, ProjectId, Room, RunStatus, SessionId, SessionPage,
    SessionSnapshot,
};
use iris_store::project::{ProjectDatabase, Replay};
use iris_store::{StoreError, WriteContext};
use serde::Deserialize;
use std::collections::BTreeMap;
use tempfile::TempDir;

use crate::fixture::{ann, sha256_of, wrote};

/// The newest schema.
fn newest() -> usize {
    fs::read_dir(migrations()).unwrap().count()
}

fn migrations() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/project")
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// What the server of that schema answered.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answers {
    project_id: ProjectId,
    agents: Vec<Agent>,
    session_list: Vec<iris_protocol::Session>,
    sessions: BTreeMap<SessionId, SessionSnapshot>,
}

fn answers(schema: usize) -> Answers {
    let text = fs::read(fixture(&format!("project-{schema}.json"))).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// A copy of a database of that schema, in a directory of its own.
fn copy(schema: usize) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("project.db");
    fs::copy(fixture(&format!("project-{schema}.db")), &path).unwrap();
    (directory, path)
}

/// All schemas that have a migration after them need a file; the newest one until it is released.
fn schemas() -> impl Iterator<Item = usize> {
    let last =
        if fixture(&format!("project-{}.db", newest())).exists() { newest() } else { newest() - 1 };
    1..=last
}

#[tokio::test]
async fn a_database_of_each_released_schema_is_brought_up_to_date_and_reads_as_it_did() {
    for schema in schemas() {
        let (directory, path) = copy(schema);
        let before = fs::read(&path).unwrap();
        let Answers { project_id, agents, session_list, sessions } = answers(schema);
        let database = ProjectDatabase::open(&path, &project_id, |_| {}).unwrap();
        let reader = database.reader();
        let defined: Vec<_> = agents.into_iter().filter(|agent| !agent.builtin).collect();
        assert_eq!(reader.agents().await.unwrap(), defined);
        let SessionPage { sessions: found, .. } =
            reader.sessions(100, None, true, None).await.unwrap();
        assert_eq!(found, session_list);
        for (id, expected) in &sessions {
            let found = reader.snapshot(id.clone(), 100, None).await.unwrap().unwrap();
            assert_eq!(found.session, expected.session);
            assert_eq!(found.messages, expected.messages);
            let approvals = expected.approvals.iter().map(|approval| Approval {
                // Computed; servers of the first schemas did not say it.
                input_hash: sha256_of(approval.input.to_string()),
                ..approval.clone()
            });
            assert_eq!(found.approvals, approvals.collect::<Vec<_>>());
            let room = Room::Session(id.clone());
            let head = reader.room_head(room.clone()).await.unwrap();
            let Replay::Events(events) =
                reader.events(room, 0, head, 10_000, 100_000_000).await.unwrap()
            else {
                unreachable!("all events of schema {schema} are few")
            };
            assert_eq!(events.last().unwrap().seq, head);
            for message in &expected.messages {
                let run = reader.run(message.run_id.clone().unwrap()).await.unwrap().unwrap();
                let waits = matches!(run.status, RunStatus::Waiting | RunStatus::Queued);
                assert!(run.ended_at.is_some() || waits || message.role == MessageRole::User);
            }
        }
        assert_eq!(reader.head().await.unwrap(), 108);
        let file = reader.file("notes/one.txt".to_owned()).await.unwrap().unwrap();
        assert_eq!((file.size, file.version), (8, 1));

        // It takes writes, and a copy of it as it was lies beside it.
        let command = wrote("new.txt", b"1", &ann());
        database.writer().submit(command, WriteContext::default()).await.unwrap();
        database.close();
        let copy = directory.path().join(format!("project.db.before-migration-{}", schema + 1));
        assert_eq!(copy.exists(), schema < newest());
        if copy.exists() {
            assert_eq!(events_of(&copy), 108);
        }
        assert_eq!(fs::read(fixture(&format!("project-{schema}.db"))).unwrap(), before);
    }
}

fn events_of(path: &Path) -> i64 {
    let conn = rusqlite::Connection::open(path).unwrap();
    conn.query_row("SELECT count(*) FROM events", [], |row| row.get(0)).unwrap()
}

#[test]
fn every_schema_that_was_released_has_a_database() {
    for schema in 1..newest() {
        for kind in ["db", "json"] {
            let name = format!("project-{schema}.{kind}");
            assert!(fixture(&name).exists(), "`{name}` is missing");
        }
    }
    assert!(fixture("project-1.db").exists());
}

#[test]
fn a_released_database_of_another_project_is_refused() {
    let (_directory, path) = copy(1);
    let error = ProjectDatabase::open(&path, &ProjectId::from_bits(1), |_| {}).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
}

#[test]
fn no_released_migration_was_changed() {
    let released = [(
        "0001_conversations.sql",
        "babc5d9f5344cc4050b3c557ba8e927cd42e34112e26ddabb13edf3315d30205",
    )];
    for (name, expected) in released {
        assert_eq!(crate::fixture::sha256(&migrations().join(name)), expected, "{name}");
    }
}
