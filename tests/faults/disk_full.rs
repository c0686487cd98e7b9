//! The disk is full: nothing is acknowledged that is not kept, what reads, ends or deletes goes on,
//! runs wait, and go on by themselves when there is space.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use iris_client::ClientError;
use iris_protocol::{
    ActorList, AuthRegister, ErrorCode, MessageRole, RunCancel, RunStatus, SessionDelete,
    SupervisionKind, WhenBusy,
};
use iris_testkit::{
    AppOptions, Conversation, PASSWORD, Person, ServerProcess, TestApp, moment, patiently,
    spawn_app, text_of,
};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::aftermath::{mark, records_since};
use crate::stage::Stage;
use crate::unshare;

#[track_caller]
fn code<T: std::fmt::Debug>(result: Result<T, ClientError>) -> ErrorCode {
    match result {
        Err(ClientError::Api(error)) => error.code,
        other => panic!("{other:?}"),
    }
}

fn fill(app: &TestApp) {
    app.storage().pretend_available(Some(0));
    app.storage().report_full();
}

fn free(app: &TestApp) {
    app.storage().pretend_available(None);
    assert!(app.storage().look());
}

/// Waits until the run of the only orchestrator waits for space.
async fn paused(stage: &Stage) {
    let waiting = async {
        loop {
            let list = ActorList { kind: Some("orchestrator".to_owned()), under: None };
            let page = stage.operator.client.actors(&list).await.unwrap();
            let Some(actor) = page.actors.first() else { continue };
            // It may have ended meanwhile.
            let Ok(detail) = stage.operator.client.actor(&actor.path).await else { continue };
            if detail.observed["isPaused"] == json!(true) {
                return;
            }
        }
    };
    patiently("the run to wait for space", waiting).await;
}

#[tokio::test]
async fn while_the_disk_is_full_reads_work_and_what_takes_space_is_refused() {
    let stage = Stage::set(AppOptions::default()).await;
    let mut ann = stage.person.conversation().await;
    ann.ask("say one").await;
    let since = mark(&stage.app);
    fill(&stage.app);
    assert!(!stage.app.data_dir().join("reserve").exists(), "the reserve is freed");
    assert_eq!(code(ann.try_send("say two", None).await), ErrorCode::StorageFull);
    assert_eq!(code(ann.try_send("say two", Some(WhenBusy::Reject)).await), ErrorCode::StorageFull);
    let put = ann.person.client.file_put(&ann.project, "a.txt", "x").await;
    assert_eq!(code(put), ErrorCode::StorageFull);
    let answer = ann.person.post("/v1/projects", json!({ "name": "more" })).await;
    assert_eq!((answer.status, &answer.json["error"]["code"]), (507, &json!("STORAGE_FULL")));

    let snapshot = ann.person.snapshot(&ann.project, &ann.session).await;
    assert_eq!(snapshot.messages.len(), 2, "what was refused is not there");
    let answer = stage.app.client().rest("GET", "/health/ready", None, None).await.unwrap();
    assert_eq!((answer.status, &answer.json["storage"]), (200, &json!("full")));
    let told = records_since(&stage.app, since).into_iter();
    let told: Vec<_> = told.filter(|record| record.path == "storage").map(|r| r.kind).collect();
    assert_eq!(told, [SupervisionKind::Blocked]);
    let other = stage.app.storage().status();
    assert!(other.is_full);

    free(&stage.app);
    assert!(stage.app.data_dir().join("reserve").exists());
    assert_eq!(text_of(&ann.ask("say three").await), "three");
    let answer = stage.app.client().rest("GET", "/health/ready", None, None).await.unwrap();
    assert_eq!(answer.json["storage"], json!("ok"));
}

#[tokio::test]
async fn sessions_can_be_deleted_and_people_can_log_in_and_out_while_the_disk_is_full() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    ann.ask("say one").await;
    ann.wait_for("session.status").await;
    fill(&app);
    let login = json!({ "email": "ann@example.com", "password": PASSWORD });
    let answer = ann.person.post("/v1/auth/login", login).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let delete = SessionDelete { session_id: ann.session.clone(), permanent: Some(true) };
    ann.person.client.call(Some(&ann.project), delete).await.unwrap();
    let path = format!("/v1/projects/{}", ann.project);
    let answer = ann.person.rest("DELETE", &path, None).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(!app.data_dir().join("projects").join(ann.project.as_str()).exists());
    free(&app);
}

/// A step of this is recorded before its tool runs, and takes long enough to fill the disk meanwhile.
const SLOW_STEP: &str =
    "delay 40\nsay a b c d e f g h i j k l\ncall list {\"path\": \".\"}\nstep\nsay done";

/// Begins a run and fills the disk while its first step streams.
async fn begin_and_fill(
    stage: &Stage,
    talk: &mut Conversation,
    text: &str,
) -> iris_protocol::RunId {
    let run = talk.send_message(text).await.run_id;
    talk.wait_for("message.text.delta").await;
    fill(&stage.app);
    paused(stage).await;
    run
}

#[tokio::test]
async fn a_run_whose_step_finds_no_room_waits_and_goes_on_by_itself() {
    let stage = Stage::set(AppOptions::default()).await;
    let mut ann = stage.person.conversation().await;
    let run = begin_and_fill(&stage, &mut ann, SLOW_STEP).await;
    free(&stage.app);
    assert_eq!(ann.run_ended(&run).await, RunStatus::Completed);
    let answer = ann.answer(&run).await;
    assert_eq!(text_of(&answer), "a b c d e f g h i j k ldone", "{answer:?}");
}

#[tokio::test]
async fn a_run_that_waits_for_space_can_be_cancelled_and_keeps_what_it_said() {
    let stage = Stage::set(AppOptions::default()).await;
    let mut ann = stage.person.conversation().await;
    let run = begin_and_fill(&stage, &mut ann, SLOW_STEP).await;
    assert!(ann.cancel().await);
    assert_eq!(ann.run_ended(&run).await, RunStatus::Cancelled);
    assert!(stage.app.storage().is_full(), "it did not wait for space");
    let answer = ann.answer(&run).await;
    assert_eq!(text_of(&answer), "a b c d e f g h i j k l", "{answer:?}");
    free(&stage.app);
}

#[tokio::test]
async fn no_model_is_asked_and_no_run_is_begun_while_the_disk_is_full() {
    let stage = Stage::set(AppOptions::default()).await;
    let mut ann = stage.person.conversation().await;
    let first =
        ann.send_message("call write {\"path\": \"a\", \"content\": \"\"}\nstep\nsay no").await;
    let call = ann.approval().await.tool_call_id;
    let second = ann.send_message("say second").await;
    let third = ann.send_message("say third").await;
    fill(&stage.app);
    assert_eq!(code(ann.approve(&call).await), ErrorCode::StorageFull);
    ann.reject(&call, "no").await.unwrap();
    paused(&stage).await;
    assert!(ann.cancel().await);
    assert_eq!(ann.run_ended(&first.run_id).await, RunStatus::Cancelled);
    // The next one is not begun, and can be cancelled as well.
    paused(&stage).await;
    assert!(ann.cancel().await);
    assert_eq!(ann.run_ended(&second.run_id).await, RunStatus::Cancelled);
    paused(&stage).await;
    free(&stage.app);
    assert_eq!(ann.run_ended(&third.run_id).await, RunStatus::Completed);
    assert_eq!(text_of(&ann.answer(&third.run_id).await), "third");
}

// The real thing: a small file system of its own.

/// Of the file system.
const SIZE: &str = "8m";
/// Of one message, so that some hundred of them fill it.
const MESSAGE_BYTES: usize = 20_000;

struct Small {
    server: ServerProcess,
    /// The data directory as this process sees it.
    data_dir: PathBuf,
}

impl Small {
    async fn start(dir: &Path) -> Self {
        let path = dir.to_str().unwrap();
        let script = format!("mount -t tmpfs -o size={SIZE} tmpfs '{path}' && exec \"$@\"");
        let command = ServerProcess::command(env!("CARGO_BIN_EXE_iris"), dir);
        let server = ServerProcess::start(unshare::inside(&command, &script)).await;
        let data_dir = PathBuf::from(format!("/proc/{}/root{path}", server.id()));
        Self { server, data_dir }
    }

    /// Takes all the space that is left.
    fn fill(&self) {
        let path = self.data_dir.join("filling");
        let mut file = File::options().append(true).create(true).open(path).unwrap();
        let bytes = vec![1_u8; 65_536];
        let mut chunk = &bytes[..];
        while !chunk.is_empty() {
            if file.write_all(chunk).is_err() {
                chunk = &chunk[..chunk.len() / 2];
            }
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.data_dir.join("filling")).unwrap();
    }

    async fn storage(&self) -> String {
        let client = self.server.client();
        let answer = client.rest("GET", "/health/ready", None, None).await.unwrap();
        assert_eq!(answer.status, 200);
        answer.json["storage"].as_str().unwrap().to_owned()
    }

    /// Checks a database as it lies there while nobody writes it.
    fn check(&self, name: &str) {
        let copy = tempdir().unwrap();
        let path = copy.path().join("copy.db");
        std::fs::copy(self.data_dir.join(name), &path).unwrap();
        let log = copy.path().join("copy.db-wal");
        std::fs::copy(self.data_dir.join(format!("{name}-wal")), log).unwrap();
        let conn = rusqlite::Connection::open(path).unwrap();
        let found: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(found, "ok", "{name}");
    }
}

/// A message that no other one is like.
fn message(number: usize) -> String {
    let mut text = format!("say {number}\n#");
    while text.len() < MESSAGE_BYTES {
        let length = text.len();
        write!(text, " {number}/{length}").unwrap();
    }
    text
}

#[tokio::test]
async fn the_doctor_says_that_a_disk_has_too_little_room() {
    if !unshare::is_allowed() {
        eprintln!("SKIPPED: this system lets nobody mount a small file system");
        return;
    }
    let dir = tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    for (size, of_commands, expected) in [
        ("16m", "0", "failed"),
        ("512m", "0", "warning"),
        ("2g", "0", "ok"),
        ("2g", "4000000000", "warning"),
    ] {
        let mut doctor = Command::new(env!("CARGO_BIN_EXE_iris"));
        doctor.args(["doctor", "--json", "--data-dir", path]);
        doctor.env("IRIS_COMMANDS_DISK_FREE_BYTES_MIN", of_commands);
        let script = format!("mount -t tmpfs -o size={size} tmpfs '{path}' && exec \"$@\"");
        let (_, said, _) = ServerProcess::ended(unshare::inside(&doctor, &script)).await;
        let mut lines = said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let disk = lines.find(|line| line["what"] == "disk").unwrap();
        assert_eq!(disk["state"], expected, "{size}: {disk}");
    }
}

#[tokio::test]
async fn a_cancel_that_not_even_the_reserve_has_room_for_ends_the_run_all_the_same() {
    if !unshare::is_allowed() {
        eprintln!("SKIPPED: this system lets nobody mount a small file system");
        return;
    }
    let dir = tempdir().unwrap();
    let small = Small::start(dir.path()).await;
    let client = small.server.client();
    let request = AuthRegister {
        invitation: None,
        email: "ann@example.com".to_owned(),
        username: "ann".to_owned(),
        password: PASSWORD.to_owned(),
    };
    let ann = Person::new(&client, client.register(&request).await.unwrap());
    let mut talk = ann.conversation().await;
    // It would take a minute.
    let run = talk.send_message(&format!("delay 100\nsay {}", "a ".repeat(600))).await.run_id;
    talk.wait_for("message.text.delta").await;
    small.fill();
    let full = async {
        while small.storage().await != "full" {
            moment().await;
        }
    };
    patiently("the disk to be full", full).await;
    small.fill();
    let cancel = RunCancel { session_id: talk.session.clone() };
    let refused = ann.client.call(Some(&talk.project), cancel).await;
    assert_eq!(code(refused), ErrorCode::StorageFull);
    small.free();
    assert_eq!(talk.run_ended(&run).await, RunStatus::Cancelled);
    let answer = talk.answer(&run).await;
    assert!(text_of(&answer).starts_with("a a"), "{answer:?}");
}

#[tokio::test]
async fn on_a_disk_that_is_really_full_nothing_is_lost_and_all_goes_on_when_there_is_space() {
    if !unshare::is_allowed() {
        eprintln!("SKIPPED: this system lets nobody mount a small file system");
        return;
    }
    let dir = tempdir().unwrap();
    let small = Small::start(dir.path()).await;
    let client = small.server.client();
    let request = AuthRegister {
        invitation: None,
        email: "ann@example.com".to_owned(),
        username: "ann".to_owned(),
        password: PASSWORD.to_owned(),
    };
    let ann = Person::new(&client, client.register(&request).await.unwrap());
    let mut talk = ann.conversation().await;
    let other = ann.session(&talk.project).await.id;
    let mut acknowledged = BTreeMap::new();
    let mut refused = 0;
    small.fill();
    for number in 0.. {
        let text = message(number);
        match talk.try_send(&text, None).await {
            Ok(accepted) => drop(acknowledged.insert(accepted.message_id, text)),
            Err(ClientError::Api(error)) => {
                assert_eq!(error.code, ErrorCode::StorageFull, "{error:?}");
                refused += 1;
            }
            Err(other) => panic!("{other}"),
        }
        if refused == 3 {
            break;
        }
        assert!(number < 1_000, "a disk of {SIZE} never was full");
    }
    assert_eq!(small.storage().await, "full");
    assert!(!small.data_dir.join("reserve").exists());
    // Reads, cancel and delete.
    let kept = user_texts(&talk).await;
    assert_eq!(kept, acknowledged, "nothing more, nothing less");
    talk.cancel().await;
    let delete = SessionDelete { session_id: other, permanent: Some(true) };
    ann.client.call(Some(&talk.project), delete).await.unwrap();

    small.free();
    let space = async {
        while small.storage().await != "ok" {
            moment().await;
        }
    };
    patiently("the disk to have space", space).await;
    assert!(small.data_dir.join("reserve").exists());
    let last = talk.send_message("say at last").await;
    acknowledged.insert(last.message_id, "say at last".to_owned());
    let status = talk.run_ended(&last.run_id).await;
    assert_eq!(status, RunStatus::Completed);
    assert_eq!(text_of(&talk.answer(&last.run_id).await), "at last");
    assert_eq!(user_texts(&talk).await, acknowledged);
    small.check("root.db");
    small.check(&format!("projects/{}/project.db", talk.project));
    assert!(small.server.terminate().await.success());
}

/// Every message of a user that the server keeps.
async fn user_texts(talk: &Conversation) -> BTreeMap<iris_protocol::MessageId, String> {
    let mut texts = BTreeMap::new();
    let mut before = None;
    loop {
        let list = iris_protocol::MessageList {
            session_id: talk.session.clone(),
            limit: Some(50),
            before: before.take(),
        };
        let page = talk.person.client.call(Some(&talk.project), list).await.unwrap();
        let users = page.messages.iter().filter(|message| message.role == MessageRole::User);
        texts.extend(users.map(|message| (message.id.clone(), text_of(message))));
        match page.next_cursor {
            Some(cursor) => before = Some(cursor),
            None => return texts,
        }
    }
}
