//! The real command: how it starts, refuses to start, is killed and ends.

use std::fs::metadata;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use iris_client::ClientError;
use iris_protocol::{
    ErrorCode, Event, Message, MessageState, Part, RunId, RunResume, RunStatus, ServerFrame,
    SessionState, ToolState,
};
use iris_testkit::{
    Asked, Conversation, FakeProvider, Gate, Person, Reply, ServerProcess, calls_of, chat, moment,
    patiently, text_of,
};
use serde_json::Value;
use tempfile::tempdir;

use crate::{ann, iris, iris_with};

#[tokio::test]
async fn a_second_server_on_one_data_directory_does_not_start() {
    let dir = tempdir().unwrap();
    let first = ServerProcess::start(iris(dir.path())).await;
    let (code, text) = ServerProcess::refused(iris(dir.path())).await;
    assert_eq!(code, Some(75), "{text}");
    assert!(text.contains("another server is running on the data directory"), "{text}");
    first.kill();
    // The file stays; the system released the lock with the process.
    assert!(dir.path().join("lock").exists());
    ServerProcess::start(iris(dir.path())).await.kill();
}

#[tokio::test]
async fn a_bad_configuration_is_refused_by_the_name_of_its_key() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("iris.toml");
    for (variable, value, name) in [
        ("IRIS_REGISTRATION", "maybe", "`IRIS_REGISTRATION`"),
        ("IRIS_DRAIN_SECONDS", "soon", "`IRIS_DRAIN_SECONDS`"),
        ("IRIS_DEFAULT_MODEL", "nobody/model", "`IRIS_DEFAULT_MODEL`"),
        ("IRIS_PROVIDERS__DEMO__KIND", "oracle", "`IRIS_PROVIDERS__DEMO__KIND`"),
    ] {
        let mut command = iris(dir.path());
        command.env(variable, value);
        let (code, text) = ServerProcess::refused(command).await;
        assert_eq!(code, Some(78), "{text}");
        assert!(text.contains(name), "{name}: {text}");
    }
    std::fs::write(&file, "bnid = \"127.0.0.1:0\"\n").unwrap();
    let mut command = iris(dir.path());
    command.env("IRIS_CONFIG", &file);
    let (code, text) = ServerProcess::refused(command).await;
    assert_eq!((code, text.contains("`bnid`")), (Some(78), true), "{text}");
}

/// These tests have the server built with what breaks it.
#[tokio::test]
async fn a_server_with_fault_injection_says_so() {
    let mut version = Command::new(env!("CARGO_BIN_EXE_iris"));
    version.arg("--version");
    let (code, text, _) = ServerProcess::ended(version).await;
    assert_eq!(code, Some(0));
    assert!(text.contains("(with fault injection, not for use)"), "{text}");
    let dir = tempdir().unwrap();
    let log = dir.path().join("stderr");
    ServerProcess::start_logging(iris(dir.path()), &log).await.kill();
    let text = std::fs::read_to_string(&log).unwrap();
    let first = text.lines().next().unwrap_or_default();
    assert!(first.contains("WARN") && first.contains("fault injection"), "{text}");
}

/// The environment of a server holds keys of providers.
#[tokio::test]
async fn other_processes_of_the_servers_user_cannot_look_into_it() {
    /// A user that owns nothing, in whose name the server runs when the tests do in that of root.
    const NOBODY: u32 = 10_999;
    let dir = tempdir().unwrap();
    let mut command = iris(dir.path());
    if metadata("/proc/self").unwrap().uid() == 0 {
        chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        command.uid(NOBODY).gid(NOBODY);
    }
    let server = ServerProcess::start(command).await;
    let environment = format!("/proc/{}/environ", server.id());
    // What is hidden belongs to root and not to the user of the process (proc(5)).
    assert_eq!(metadata(environment).unwrap().uid(), 0);
    assert!(server.terminate().await.success());
}

#[tokio::test]
async fn until_there_is_an_administrator_each_start_prints_how_to_make_one() {
    let dir = tempdir().unwrap();
    let mut tokens = Vec::new();
    for _ in 0..2 {
        let log = dir.path().join("stderr");
        let mut command = iris(dir.path());
        command.env_remove("IRIS_SETUP_TOKEN");
        let server = ServerProcess::start_logging(command, &log).await;
        let text = std::fs::read_to_string(&log).unwrap();
        let (_, rest) = text.split_once("\"token\":\"").unwrap();
        tokens.push(rest.split_once('"').unwrap().0.to_owned());
        assert!(text.contains(&format!("curl -X POST {}/v1/auth/setup", server.url)), "{text}");
        server.kill();
    }
    assert_ne!(tokens[0], tokens[1]);
}

#[tokio::test]
async fn a_terminated_server_tells_its_clients_and_ends_well() {
    let dir = tempdir().unwrap();
    let server = ServerProcess::start(iris(dir.path())).await;
    let talk = ann(&server).await.conversation().await;
    assert!(server.terminate().await.success());
    match patiently("the warning", talk.socket.next_frame()).await {
        Ok(ServerFrame::Draining { retry_after_ms }) => assert!(retry_after_ms > 0),
        other => panic!("{other:?}"),
    }
    match patiently("the close", talk.socket.next_frame()).await {
        Err(ClientError::Closed { code, .. }) => assert_eq!(code, 1012),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn after_a_kill_nothing_acknowledged_is_lost() {
    let dir = tempdir().unwrap();
    let server = ServerProcess::start(iris(dir.path())).await;
    let mut talk = ann(&server).await.conversation().await;
    let done = talk.ask("say done").await;
    talk.person.client.file_put(&talk.project, "kept.txt", "kept").await.unwrap();
    let waiting = talk.send_message("call write {\"path\": \"a\", \"content\": \"\"}").await;
    talk.approval().await;
    let queued = talk.send_message("say queued").await;
    server.kill();

    let server = ServerProcess::start(iris(dir.path())).await;
    let person = Person::new(&server.client(), talk.person.grant.clone());
    let mut again = talk.resume(person.clone()).await;
    let snapshot = person.snapshot(&talk.project, &talk.session).await;
    assert_eq!((snapshot.queue.len(), snapshot.approvals.len()), (1, 1));
    again.approve(&snapshot.approvals[0].tool_call_id).await.unwrap();
    assert_eq!(again.run_ended(&waiting.run_id).await, RunStatus::Completed);
    assert_eq!(again.run_ended(&queued.run_id).await, RunStatus::Completed);
    let snapshot = person.snapshot(&talk.project, &talk.session).await;
    assert_eq!(snapshot.messages.len(), 6);
    assert!(snapshot.messages.contains(&done));
    assert_eq!(text_of(&again.answer(&queued.run_id).await), "queued");
    assert_eq!(person.client.file_get(&talk.project, "kept.txt").await.unwrap(), "kept");
    assert!(snapshot.approvals.is_empty());
}

/// The same people in the same session, at a server that was started again.
async fn came_back(server: &ServerProcess, talk: &Conversation) -> Conversation {
    talk.resume(Person::new(&server.client(), talk.person.grant.clone())).await
}

async fn resume(talk: &Conversation, run: &RunId) -> Result<(), ClientError> {
    let (session_id, run_id) = (talk.session.clone(), run.clone());
    talk.call(RunResume { session_id, run_id }).await.map(drop)
}

/// The messages of a question to the model, but for the system's.
fn messages(asked: &Asked) -> Vec<Value> {
    let all = asked.body["messages"].as_array().unwrap().iter();
    all.filter(|message| message["role"] != "system").cloned().collect()
}

#[tokio::test]
async fn text_that_streamed_is_kept_up_to_its_last_checkpoint_and_the_run_can_be_resumed() {
    let (gate, kept) = (Gate::default(), "word ".repeat(1_000));
    let held = Reply::stream().bytes(chat::text(&kept)).wait(&gate);
    let provider = FakeProvider::start([held, chat::says("whole"), chat::says("on")]).await;
    let dir = tempdir().unwrap();
    let mut command = iris_with(dir.path(), &provider);
    command.env("IRIS_CRASH_AT", "checkpoint");
    let server = ServerProcess::start(command).await;
    let talk = ann(&server).await.conversation().await;
    let run = talk.send_message("say much").await.run_id;
    assert!(!server.exited().await.success());

    let server = ServerProcess::start(iris_with(dir.path(), &provider)).await;
    let mut again = came_back(&server, &talk).await;
    let complete = again.wait_for("message.text.complete").await;
    let Event::MessageTextComplete { text, interrupted, .. } = complete.event else { panic!("no") };
    assert_eq!((&text, interrupted), (&kept, true));
    assert_eq!(again.run_ended(&run).await, RunStatus::Interrupted);
    let cut = again.answer(&run).await;
    assert_eq!((cut.state, text_of(&cut)), (MessageState::Interrupted, kept.clone()));
    assert!(matches!(cut.parts[..], [Part::Text { interrupted: true, .. }]));

    resume(&again, &run).await.unwrap();
    assert_eq!(again.run_ended(&run).await, RunStatus::Completed);
    let answer = again.answer(&run).await;
    assert_eq!((&answer.id, text_of(&answer)), (&cut.id, kept.clone() + "whole"));
    again.ask("and?").await;
    let asked = provider.asked();
    let said =
        |n: usize| messages(&asked[n]).iter().map(|m| m["content"].clone()).collect::<Vec<_>>();
    assert_eq!(said(1), ["say much"]);
    assert_eq!(said(2), ["say much", "whole", "and?"]);
}

#[tokio::test]
async fn a_few_words_are_kept_too_after_a_moment() {
    let gate = Gate::default();
    let held = Reply::stream().bytes(chat::text("a few words")).wait(&gate);
    let provider = FakeProvider::start([held]).await;
    let dir = tempdir().unwrap();
    let mut command = iris_with(dir.path(), &provider);
    command.env("IRIS_CRASH_AT", "checkpoint");
    let server = ServerProcess::start(command).await;
    let talk = ann(&server).await.conversation().await;
    let run = talk.send_message("say a few words").await.run_id;
    assert!(!server.exited().await.success());

    let server = ServerProcess::start(iris_with(dir.path(), &provider)).await;
    let mut again = came_back(&server, &talk).await;
    assert_eq!(again.run_ended(&run).await, RunStatus::Interrupted);
    assert_eq!(text_of(&again.answer(&run).await), "a few words");
}

#[tokio::test]
async fn an_approval_that_is_answered_after_a_kill_runs_its_tool_exactly_once() {
    let arguments = "{\"path\": \"a.txt\", \"content\": \"1\"}";
    let replies = [chat::calls("write", arguments), chat::says("written"), chat::says("behind")];
    let provider = FakeProvider::start(replies).await;
    let dir = tempdir().unwrap();
    let server = ServerProcess::start(iris_with(dir.path(), &provider)).await;
    let mut talk = ann(&server).await.conversation().await;
    let run = talk.send_message("write it").await.run_id;
    let call = talk.approval().await.tool_call_id;
    let behind = talk.send_message("and then").await.run_id;
    server.kill();

    let server = ServerProcess::start(iris_with(dir.path(), &provider)).await;
    let mut again = came_back(&server, &talk).await;
    again.approve(&call).await.unwrap();
    assert_eq!(again.run_ended(&run).await, RunStatus::Completed);
    assert_eq!(again.run_ended(&behind).await, RunStatus::Completed);
    let results = again.names().into_iter().filter(|name| *name == "message.tool.result").count();
    assert_eq!(results, 1);
    let answer = again.answer(&run).await;
    assert_eq!(calls_of(&answer)[0].state, ToolState::Completed);
    let path = format!("/v1/projects/{}/files/content?path=a.txt", again.project);
    let file = again.person.get(&path).await;
    assert_eq!(file.headers["x-iris-file-version"], "1");
    let asked = provider.asked();
    assert_eq!(asked.len(), 3);
    let second = messages(&asked[1]);
    let roles: Vec<_> = second.iter().map(|message| message["role"].clone()).collect();
    assert_eq!(roles, ["user", "assistant", "tool"]);
    let result = second[2]["content"].as_str().unwrap();
    assert!(result.contains("created `a.txt`"), "{result}");
}

#[tokio::test]
async fn a_run_whose_model_is_gone_fails_when_it_waits_and_is_not_resumed() {
    let gate = Gate::default();
    let held = Reply::stream().bytes(chat::text("So")).wait(&gate);
    let arguments = "{\"path\": \"a.txt\", \"content\": \"1\"}";
    let provider = FakeProvider::start([chat::calls("write", arguments), held]).await;
    let dir = tempdir().unwrap();
    let server = ServerProcess::start(iris_with(dir.path(), &provider)).await;
    let mut waits = ann(&server).await.conversation().await;
    let waiting = waits.send_message("write it").await.run_id;
    waits.approval().await;
    let works = waits.person.conversation_in(&waits.project).await;
    let working = works.send_message("say it").await.run_id;
    gate.reached().await;
    server.kill();

    let server = ServerProcess::start(iris(dir.path())).await;
    let mut waits = came_back(&server, &waits).await;
    assert_eq!(waits.run_ended(&waiting).await, RunStatus::Failed);
    let answer = waits.answer(&waiting).await;
    assert_eq!(answer.error.as_ref().unwrap().code, ErrorCode::ModelUnavailable);
    assert_eq!(calls_of(&answer)[0].state, ToolState::Cancelled);
    let mut works = came_back(&server, &works).await;
    let refused = crate::refusal(resume(&works, &working).await);
    assert_eq!(refused.code, ErrorCode::ModelUnavailable);
    server.kill();

    // It can be resumed still, once the model is there again.
    let server = ServerProcess::start(iris_with(dir.path(), &provider)).await;
    works = came_back(&server, &works).await;
    resume(&works, &working).await.unwrap();
    works.wait_for("run.started").await;
}

#[tokio::test]
async fn a_run_that_goes_on_by_itself_does_so_a_few_times() {
    let gates: Vec<Gate> = (0..4).map(|_| Gate::default()).collect();
    let held = gates.iter().map(|gate| Reply::stream().bytes(chat::text("So")).wait(gate));
    let provider = FakeProvider::start(held.chain([chat::says("done")])).await;
    let dir = tempdir().unwrap();
    let command = || {
        let mut command = iris_with(dir.path(), &provider);
        command.env("IRIS_RESUME", "auto");
        command
    };
    let mut server = ServerProcess::start(command()).await;
    let mut talk = ann(&server).await.conversation().await;
    let run = talk.send_message("say it").await.run_id;
    for gate in &gates {
        gate.reached().await;
        server.kill();
        server = ServerProcess::start(command()).await;
        talk = came_back(&server, &talk).await;
        assert_eq!(talk.run_ended(&run).await, RunStatus::Interrupted);
    }
    let snapshot = talk.person.snapshot(&talk.project, &talk.session).await;
    assert_eq!(snapshot.session.state, SessionState::Interrupted);
    assert_eq!(provider.asked().len(), 4);
    // People may.
    resume(&talk, &run).await.unwrap();
    assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);
}

#[tokio::test]
async fn a_tool_that_ran_when_the_server_was_killed_has_an_unknown_outcome() {
    let dir = tempdir().unwrap();
    let server = ServerProcess::start(iris(dir.path())).await;
    let mut talk = ann(&server).await.conversation().await;
    let files = dir.path().join("projects").join(talk.project.as_str()).join("files");
    // Many searches of many long lines take far longer than to kill the server.
    let line = format!("{}\n", "a".repeat(1000));
    std::fs::write(files.join("long.txt"), line.repeat(15_000)).unwrap();
    let call = "call read {\"path\": \"long.txt\"}\n".repeat(16);
    let run = talk.send_message(&call).await.run_id;
    talk.wait_for("message.tool.call").await;
    server.kill();

    let server = ServerProcess::start(iris(dir.path())).await;
    let person = Person::new(&server.client(), talk.person.grant.clone());
    let mut again = talk.resume(person.clone()).await;
    assert_eq!(again.run_ended(&run).await, RunStatus::Interrupted);
    let answer = again.answer(&run).await;
    assert_eq!(answer.state, MessageState::Interrupted);
    let calls = calls_of(&answer);
    assert_eq!(calls.len(), 16);
    assert!(calls.iter().all(|call| call.state.is_final()));
    let unknown = calls.iter().filter(|call| call.state == ToolState::UnknownOutcome).count();
    assert!(unknown > 0, "{calls:?}");
    let snapshot = person.snapshot(&talk.project, &talk.session).await;
    assert_eq!(snapshot.session.state, SessionState::Interrupted);
    assert_eq!(text_of(&again.ask("say on").await), "on");
}

#[tokio::test]
async fn an_interruption_is_told_to_a_client_that_resumes() {
    let dir = tempdir().unwrap();
    let server = ServerProcess::start(iris(dir.path())).await;
    let mut talk = ann(&server).await.conversation().await;
    let run = talk.send_message(ENDLESS).await.run_id;
    talk.wait_for("message.text.delta").await;
    server.kill();

    let server = ServerProcess::start(iris(dir.path())).await;
    let person = Person::new(&server.client(), talk.person.grant.clone());
    let mut again = talk.resume(person).await;
    assert_eq!(again.run_ended(&run).await, RunStatus::Interrupted);
    let names = again.names();
    assert!(names.contains(&"message.error"), "{names:?}");
}

#[tokio::test]
async fn a_server_that_drains_lets_a_run_end_and_starts_none() {
    let gate = Gate::default();
    let held = Reply::stream().wait(&gate).bytes(chat::text("first")).bytes(chat::end("stop"));
    let provider = FakeProvider::start([held, chat::says("second")]).await;
    let dir = tempdir().unwrap();
    let command = || {
        let mut command = iris_with(dir.path(), &provider);
        command.env("IRIS_DRAIN_SECONDS", "10");
        command
    };
    let server = ServerProcess::start(command()).await;
    let client = server.client();
    let mut talk = ann(&server).await.conversation().await;
    let first = talk.send_message("one").await.run_id;
    gate.reached().await;
    let second = talk.send_message("two").await;
    assert!(second.queued);
    let terminated = tokio::spawn(server.terminate());
    let draining = async {
        while client.rest("GET", "/health/ready", None, None).await.unwrap().status == 200 {
            moment().await;
        }
    };
    patiently("the server to drain", draining).await;
    let refused = crate::refusal(talk.try_send("three", None).await);
    assert_eq!(refused.code, ErrorCode::ShuttingDown);
    gate.open();
    assert_eq!(talk.run_ended(&first).await, RunStatus::Completed);
    assert!(terminated.await.unwrap().success());
    assert_eq!(provider.asked().len(), 1);

    let server = ServerProcess::start(command()).await;
    let person = Person::new(&server.client(), talk.person.grant.clone());
    let mut again = talk.resume(person).await;
    assert_eq!(again.run_ended(&second.run_id).await, RunStatus::Completed);
    assert_eq!(text_of(&again.answer(&first).await), "first");
    assert_eq!(text_of(&again.answer(&second.run_id).await), "second");
}

/// Says things for longer than any test takes.
const ENDLESS: &str = "delay 10\nchunks 10000 tick";

/// A server whose run does not end by itself. It gives runs `drain_seconds` to end.
async fn with_endless_run(dir: &Path, drain_seconds: u32) -> (ServerProcess, Conversation, RunId) {
    let mut command = iris(dir);
    command.env("IRIS_DRAIN_SECONDS", drain_seconds.to_string());
    let server = ServerProcess::start(command).await;
    let mut talk = ann(&server).await.conversation().await;
    talk.ask("say done").await;
    let run = talk.send_message(ENDLESS).await.run_id;
    talk.wait_for("message.text.delta").await;
    (server, talk, run)
}

/// Waits for the announcement; what comes before it is dropped.
async fn until_draining(talk: &Conversation) -> u64 {
    loop {
        match patiently("the warning", talk.socket.next_frame()).await {
            Ok(ServerFrame::Draining { retry_after_ms }) => return retry_after_ms,
            Ok(_) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// The code with which the server closes a socket; what comes before it is dropped.
/// The code with which the server that stops closes; the reason says when another one is there.
async fn close_code(talk: &Conversation) -> u16 {
    loop {
        match patiently("the close", talk.socket.next_frame()).await {
            Ok(_) => {}
            Err(ClientError::Closed { code, reason }) => {
                let wait: u64 = reason.strip_prefix("retryAfterMs=").unwrap().parse().unwrap();
                assert!((1_000..=2_000).contains(&wait), "{reason}");
                return code;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Starts the server again; the run has to be interrupted, and everything before it as it was.
async fn assert_interrupted(dir: &Path, talk: &Conversation, run: &RunId, before: &[Message]) {
    let server = ServerProcess::start(iris(dir)).await;
    let person = Person::new(&server.client(), talk.person.grant.clone());
    let snapshot = person.snapshot(&talk.project, &talk.session).await;
    assert_eq!(snapshot.session.state, SessionState::Interrupted);
    assert!(snapshot.approvals.is_empty());
    assert_eq!(snapshot.messages[..before.len() - 1], before[..before.len() - 1]);
    let mut again = talk.resume(person).await;
    assert_eq!(again.answer(run).await.state, MessageState::Interrupted);
    assert_eq!(again.run_ended(run).await, RunStatus::Interrupted);
    assert_eq!(text_of(&again.ask("say on").await), "on");
}

/// The write-ahead logs that hold anything.
fn logs_left(dir: &Path) -> Vec<PathBuf> {
    let mut left = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            left.extend(logs_left(&path));
        } else if path.to_string_lossy().ends_with("-wal") && entry.metadata().unwrap().len() > 0 {
            left.push(path);
        }
    }
    left
}

#[tokio::test]
async fn a_run_that_does_not_end_in_the_time_of_the_drain_is_interrupted() {
    let dir = tempdir().unwrap();
    let (server, talk, run) = with_endless_run(dir.path(), 1).await;
    let before = talk.person.snapshot(&talk.project, &talk.session).await.messages;
    assert!(!logs_left(dir.path()).is_empty());
    server.tell_to_stop();
    // The time of the drain, and a second to start again.
    assert_eq!(until_draining(&talk).await, 2_000);
    let client = server.client();
    assert!(!client.health_ready().await.unwrap());
    // Whoever comes now may read, and not begin anything.
    talk.person.snapshot(&talk.project, &talk.session).await;
    let refused = crate::refusal(talk.try_send("say more", None).await);
    assert_eq!(refused.code, ErrorCode::ShuttingDown);
    assert!(refused.retry_after_ms.is_some());
    assert_eq!(close_code(&talk).await, 1012);
    assert!(server.exited().await.success());
    assert_eq!(logs_left(dir.path()), Vec::<PathBuf>::new());
    assert_interrupted(dir.path(), &talk, &run, &before).await;
}

#[tokio::test]
async fn a_second_signal_ends_the_drain() {
    let dir = tempdir().unwrap();
    let (server, talk, run) = with_endless_run(dir.path(), 3_600).await;
    let before = talk.person.snapshot(&talk.project, &talk.session).await.messages;
    server.tell_to_stop();
    assert_eq!(until_draining(&talk).await, 3_601_000);
    assert!(server.terminate().await.success());
    assert_eq!(close_code(&talk).await, 1012);
    assert_eq!(logs_left(dir.path()), Vec::<PathBuf>::new());
    assert_interrupted(dir.path(), &talk, &run, &before).await;
}

#[tokio::test]
async fn while_a_server_drains_a_run_can_be_cancelled_and_its_queue_waits_for_the_next_server() {
    let dir = tempdir().unwrap();
    let (server, mut talk, run) = with_endless_run(dir.path(), 3_600).await;
    let queued = talk.send_message("say later").await.run_id;
    server.tell_to_stop();
    until_draining(&talk).await;
    assert!(talk.cancel().await);
    assert_eq!(talk.run_ended(&run).await, RunStatus::Cancelled);
    // Nothing is left to wait for.
    assert!(server.exited().await.success());
    assert_eq!(logs_left(dir.path()), Vec::<PathBuf>::new());

    let server = ServerProcess::start(iris(dir.path())).await;
    let person = Person::new(&server.client(), talk.person.grant.clone());
    let mut again = talk.resume(person).await;
    assert_eq!(again.run_ended(&queued).await, RunStatus::Completed);
    assert_eq!(text_of(&again.answer(&queued).await), "later");
}

#[tokio::test]
async fn the_demo_passes() {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_iris"));
    demo.arg("demo").env_clear();
    let ended = tokio::time::timeout(Duration::from_secs(15), ServerProcess::ended(demo)).await;
    let (code, told, errors) = ended.unwrap();
    assert_eq!(code, Some(0), "{told}{errors}");
    assert!(told.contains("demo passed"), "{told}");
}
