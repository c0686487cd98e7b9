//! A data directory of an earlier server, opened by this one. What is in it: tests/api/upgrade/README.md.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use iris_client::Client;
use iris_protocol::{
    CloneState, FileVersions, MessageState, ProjectGet, ProjectId, ProjectType, RunStatus,
    SessionId, SessionList, SessionSnapshot, SnapshotId, SnapshotRestore, ToolState, UserGet,
};
use iris_testkit::{Person, ServerProcess, WireSocket, calls_of, patiently, text_of};
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

use crate::iris;

/// What the earlier server answered, just before it was killed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answers {
    project_id: ProjectId,
    api_key: String,
    sessions: BTreeMap<SessionId, SessionSnapshot>,
    /// What the first ones did not have.
    more: Option<More>,
}

/// Other types of projects, and what is under way.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct More {
    remote_id: ProjectId,
    snapshot_id: SnapshotId,
    git_id: ProjectId,
    upload: Value,
}

impl Answers {
    fn session(&self, title: &str) -> &SessionSnapshot {
        self.sessions.values().find(|snapshot| snapshot.session.title == title).unwrap()
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api/upgrade")
}

/// The versions of which there is a data directory.
fn versions() -> Vec<String> {
    let found = fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap());
    let directories = found.filter(|entry| entry.file_type().unwrap().is_dir());
    directories.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

fn answers(version: &str) -> Answers {
    serde_json::from_slice(&fs::read(fixtures().join(format!("{version}.json"))).unwrap()).unwrap()
}

/// A copy of a data directory; what is only its owner's is that again.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
            fs::set_permissions(&target, Permissions::from_mode(0o600)).unwrap();
        }
    }
}

/// This server on the data of an earlier one.
async fn start(version: &str) -> (TempDir, ServerProcess, Answers) {
    let directory = tempfile::tempdir().unwrap();
    copy(&fixtures().join(version), directory.path());
    let server = ServerProcess::start(iris(directory.path())).await;
    (directory, server, answers(version))
}

async fn log_in(client: &Client) -> Person {
    let grant = client.login("ann@example.com", "a long password").await.unwrap();
    Person::new(client, grant)
}

#[tokio::test]
async fn what_an_earlier_server_acknowledged_is_read_and_goes_on() {
    for version in versions() {
        let (_directory, server, old) = start(&version).await;
        let ann = log_in(&server.client()).await;
        let project = &old.project_id;

        let talked = old.session("Talk");
        let found = ann.snapshot(project, &talked.session.id).await;
        assert_eq!(found.messages, talked.messages, "{version}");
        let listed =
            SessionList { limit: None, cursor: None, include_archived: None, parent_id: None };
        let listed = ann.client.call(Some(project), listed).await.unwrap().sessions;
        let titles: Vec<&str> = listed.iter().map(|session| session.title.as_str()).collect();
        assert_eq!(titles, ["Waits", "Talk"], "{version}");

        // Clients come back with the positions that they had.
        let since = Some(talked.as_of.clone());
        let mut talk = ann.join_since(project, &talked.session.id, since).await;
        assert_eq!(text_of(&talk.ask("say And on it goes.").await), "And on it goes.");
        let read = "call read {\"path\": \"notes.md\"}\nstep\nsay {{result}}";
        assert!(text_of(&talk.ask(read).await).contains("Iris remembers."), "{version}");

        // Its secret opens with the key of the directory, or there would be no such tool.
        let run = talk.send_message("call weather {}").await.run_id;
        let approval = talk.approval().await;
        assert_eq!(approval.tool_name, "weather");
        talk.reject(&approval.tool_call_id, "not now").await.unwrap();
        assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);

        server.terminate().await;
    }
}

#[tokio::test]
async fn what_an_earlier_server_left_open_comes_to_its_end() {
    for version in versions() {
        let (_directory, server, old) = start(&version).await;
        let ann = log_in(&server.client()).await;
        let waited = old.session("Waits");
        let since = Some(waited.as_of.clone());
        let mut talk = ann.join_since(&old.project_id, &waited.session.id, since).await;
        // Nobody agreed in time; then the message behind it is answered.
        let runs: Vec<_> = waited.runs.iter().map(|run| run.id.clone()).collect();
        for run in &runs {
            assert_eq!(talk.run_ended(run).await, RunStatus::Completed, "{version}");
        }
        let [first, second] = runs.as_slice() else { panic!("{runs:?}") };
        let answer = talk.answer(first).await;
        assert_eq!(calls_of(&answer)[0].state, ToolState::Denied);
        let answer = talk.answer(second).await;
        assert_eq!(
            (answer.state, text_of(&answer).as_str()),
            (MessageState::Complete, "and this waited behind it")
        );
    }
}

#[tokio::test]
async fn what_an_earlier_server_kept_of_other_projects_and_of_what_is_under_way_is_there() {
    let mut count = 0;
    for version in versions() {
        let (directory, server, old) = start(&version).await;
        let Some(more) = &old.more else { continue };
        count += 1;
        let ann = log_in(&server.client()).await;
        // The files in the database, what they were, and a moment of them.
        let remote = &more.remote_id;
        let read = async || ann.client.file_get(remote, "a.txt").await.unwrap();
        assert_eq!(read().await, "second\n", "{version}");
        let of = FileVersions { path: "a.txt".to_owned(), limit: None, cursor: None };
        assert_eq!(ann.client.call(Some(remote), of).await.unwrap().versions.len(), 2);
        let snapshot_id = more.snapshot_id.clone();
        let restore = SnapshotRestore { snapshot_id, skip_unkept: None };
        ann.client.call(Some(remote), restore).await.unwrap();
        assert_eq!(read().await, "first\n", "{version}");
        // The one that was cloned.
        let project = ann.client.call(Some(&more.git_id), ProjectGet {}).await.unwrap().project;
        let git = project.git.unwrap();
        assert_eq!((project.r#type, git.state), (ProjectType::Git, CloneState::Ready), "{version}");
        assert_eq!(ann.client.file_get(&more.git_id, "a.txt").await.unwrap(), "one\n");
        // The upload is gone on with, or its time is over and it is begun anew.
        let mut socket = WireSocket::open(&server.url, Some(ann.token())).await.unwrap();
        socket.ask("1", "upload.begin", Some(old.project_id.as_str()), more.upload.clone()).await;
        let begun = socket.response("1").await;
        let received = begun["payload"]["received"].as_u64();
        assert!(matches!(received, Some(0 | 16_384)), "{version}: {begun}");
        drop(socket);
        server.terminate().await;
        let root = rusqlite::Connection::open(directory.path().join("root.db")).unwrap();
        let sql = "SELECT count(*) FROM sqlite_master WHERE name = 'project_git_by_url'";
        assert_eq!(root.query_row(sql, [], |row| row.get(0)), Ok(1), "{version}");
    }
    assert!(count > 0, "there is none that has more");
}

#[tokio::test]
async fn a_key_of_an_earlier_server_is_good() {
    for version in versions() {
        let (_directory, server, old) = start(&version).await;
        let client = server.client().with_token(&old.api_key);
        let me = patiently("who it is", client.call(None, UserGet {})).await.unwrap().user;
        assert_eq!(me.username, "ann", "{version}");
    }
}
