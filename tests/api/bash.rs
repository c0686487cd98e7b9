//! Commands of the model: who may have them run, what is asked about them, and where they run. Every test
//! here runs real programs in the real sandbox of this machine.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::Duration;

use iris_protocol::{
    ErrorCode, Event, PermissionAction, PermissionCreate, PermissionVerdict, Remember, Role,
    RunStatus, SessionMode, SessionUpdate, ToolApprove, ToolState,
};
use iris_sandbox::{Config, Sandbox, Tier};
use iris_testkit::{AppOptions, Conversation, Person, TestApp, calls_of, spawn_app_with};
use serde_json::{Value, json};

use crate::refusal;

/// A user that owns nothing.
const NOBODY: u32 = 10_999;

fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

pub(crate) fn sandbox() -> Config {
    Config {
        uid: is_root().then_some(NOBODY),
        launcher: Some(PathBuf::from(env!("CARGO_BIN_EXE_iris"))),
        ..Config::default()
    }
}

/// A server that runs commands, and its administrator, who may have them run. None on a machine whose kernel
/// has no sandbox.
pub(crate) async fn app(sandbox: Config) -> Option<(TestApp, Person)> {
    let found = Sandbox::start(sandbox.clone()).await;
    if let Err(error) = found.check() {
        assert!(std::env::var_os("IRIS_TEST_TIER").is_none(), "{error}");
        eprintln!("skipped: {error}");
        return None;
    }
    Some(app_with(sandbox).await)
}

async fn app_with(sandbox: Config) -> (TestApp, Person) {
    let options = AppOptions { sandbox: Some(sandbox), ..AppOptions::default() };
    let app = spawn_app_with(options).await;
    if is_root() {
        // The user of the commands has to be able to get there.
        let open = std::fs::Permissions::from_mode(0o711);
        std::fs::set_permissions(app.data_dir(), open).unwrap();
    }
    let admin = app.admin().await;
    (app, admin)
}

fn runs(command: &str) -> String {
    format!("call bash {}", json!({ "command": command }))
}

async fn allow(talk: &Conversation, permission: &str, pattern: &str) {
    let (permission, pattern) = (permission.to_owned(), pattern.to_owned());
    let action = PermissionAction::Allow;
    talk.call(PermissionCreate { session_id: None, permission, pattern, action }).await.unwrap();
}

/// The end of the only call of a message: its state and what the model reads.
async fn outcome(talk: &mut Conversation, message: &str) -> (ToolState, String) {
    let run = talk.send_message(message).await.run_id;
    assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);
    let answer = talk.answer(&run).await;
    let call = calls_of(&answer)[0].clone();
    (call.state, call.output.or(call.error).unwrap_or_default())
}

#[tokio::test]
async fn a_command_runs_once_somebody_agrees_and_its_files_are_the_projects() {
    let Some((_app, ann)) = app(sandbox()).await else { return };
    let mut talk = ann.conversation().await;
    ann.client.file_put(&talk.project, "in.txt", "hello\n").await.unwrap();
    let run =
        talk.send_message(&runs("cat in.txt | tr a-z A-Z > out.txt; id -u; pwd")).await.run_id;
    let asked = talk.approval().await;
    let touched: Vec<_> =
        asked.accesses.iter().map(|it| (it.permission.as_str(), it.target.as_str())).collect();
    assert_eq!(
        touched,
        [
            ("bash", "cat in.txt"),
            ("bash", "tr a-z A-Z"),
            ("edit", "out.txt"),
            ("bash", "id -u"),
            ("bash", "pwd")
        ]
    );
    talk.approve(&asked.tool_call_id).await.unwrap();
    assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);
    let answer = talk.answer(&run).await;
    let output = calls_of(&answer)[0].output.clone().unwrap();
    assert!(output.ends_with("(exit code 0)"), "{output}");
    if is_root() {
        assert!(output.starts_with(&format!("{NOBODY}\n")), "{output}");
    }
    assert_eq!(ann.client.file_get(&talk.project, "out.txt").await.unwrap(), "HELLO\n");
    // What the command made the server's own tools can change.
    allow(&talk, "edit", "*").await;
    let write = format!("call write {}", json!({ "path": "out.txt", "content": "mine" }));
    assert_eq!(outcome(&mut talk, &write).await.0, ToolState::Completed);
}

#[tokio::test]
async fn rules_name_commands_and_the_worst_one_of_a_line_counts() {
    let Some((_app, ann)) = app(sandbox()).await else { return };
    let mut talk = ann.conversation().await;
    allow(&talk, "bash", "echo *").await;
    let (state, output) = outcome(&mut talk, &runs("echo one && echo two")).await;
    assert_eq!((state, output.as_str()), (ToolState::Completed, "one\ntwo\n(exit code 0)"));
    for asks in ["echo one && rm x", "echo $HOME", "echo a > b", "echo `id`"] {
        let run = talk.send_message(&runs(asks)).await.run_id;
        let asked = talk.approval().await;
        talk.reject(&asked.tool_call_id, "no").await.unwrap();
        talk.run_ended(&run).await;
    }
    let (state, output) = outcome(&mut talk, &runs("echo a > /etc/motd")).await;
    assert_eq!(state, ToolState::Denied);
    assert!(output.contains("outside of the project's directory"), "{output}");
}

#[tokio::test]
async fn a_remembered_answer_is_the_exact_command_and_an_unclear_one_is_not_remembered() {
    let Some((_app, ann)) = app(sandbox()).await else { return };
    let mut talk = ann.conversation().await;
    let run = talk.send_message(&runs("echo 'a*'")).await.run_id;
    let asked = talk.approval().await;
    let request = |remember: Remember| ToolApprove {
        session_id: talk.session.clone(),
        tool_call_id: asked.tool_call_id.clone(),
        remember: Some(remember),
        input_hash: None,
        input: None,
    };
    talk.call(request(Remember::Session)).await.unwrap();
    talk.run_ended(&run).await;
    assert_eq!(outcome(&mut talk, &runs("echo \"a*\"")).await.1, "a*\n(exit code 0)");
    let run = talk.send_message(&runs("echo ab")).await.run_id;
    let asked = talk.approval().await;
    talk.reject(&asked.tool_call_id, "no").await.unwrap();
    talk.run_ended(&run).await;

    let run = talk.send_message(&runs("echo $HOME")).await.run_id;
    let asked = talk.approval().await;
    assert_eq!(asked.options, [Remember::Once]);
    talk.approve(&asked.tool_call_id).await.unwrap();
    assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);
}

#[tokio::test]
async fn only_users_who_may_have_programs_run_have_them_run() {
    let Some((app, admin)) = app(sandbox()).await else { return };
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let mut hers = ann.conversation().await;
    ann.add_member(&hers.project, &bob, Role::Member).await;
    allow(&hers, "bash", "echo *").await;
    let (state, output) = outcome(&mut hers, &runs("echo hi")).await;
    assert_eq!(state, ToolState::Denied);
    assert_eq!(output, "who started this run may not have programs run on this server");

    let path = format!("/v1/admin/users/{}", ann.id());
    let granted = admin.rest("PATCH", &path, Some(json!({ "canExecuteCode": true }))).await;
    assert_eq!(granted.json["data"]["canExecuteCode"], true, "{granted:?}");
    assert_eq!(outcome(&mut hers, &runs("echo hi")).await.1, "hi\n(exit code 0)");
    // Who may not have them run does not let them run either.
    let run = hers.send_message(&runs("id")).await.run_id;
    let asked = hers.approval().await;
    let his = bob.join(&hers.project, &hers.session).await;
    let refused = refusal(his.approve(&asked.tool_call_id).await);
    assert_eq!(
        (refused.code, &refused.details["reason"]),
        (ErrorCode::Forbidden, &json!("no_code"))
    );
    hers.approve(&asked.tool_call_id).await.unwrap();
    assert_eq!(hers.run_ended(&run).await, RunStatus::Completed);
    assert_eq!(ann.rest("PATCH", &path, Some(json!({ "canExecuteCode": true }))).await.status, 403);
}

#[tokio::test]
async fn a_command_sees_neither_the_servers_data_nor_its_environment_nor_a_network() {
    let Some((app, ann)) = app(sandbox()).await else { return };
    let mut talk = ann.conversation().await;
    let root = app.data_dir().join("root.db");
    allow(&talk, "bash", "*").await;
    let refused = |output: &str| !output.contains("(exit code 0)");
    let read = outcome(&mut talk, &runs(&format!("cat {}", root.display()))).await.1;
    assert!(refused(&read) && !read.contains("SQLite"), "{read}");
    let environment = outcome(&mut talk, &runs("env")).await.1;
    assert!(!environment.contains("CARGO"), "{environment}");
    let address = app.url.trim_start_matches("http://").replace(':', "/");
    let run = talk.send_message(&runs(&format!("exec 3<>/dev/tcp/{address}"))).await.run_id;
    // A redirection like that is never allowed by a rule.
    let asked = talk.approval().await;
    talk.approve(&asked.tool_call_id).await.unwrap();
    talk.run_ended(&run).await;
    let answer = talk.answer(&run).await;
    let output = calls_of(&answer)[0].output.clone().unwrap();
    assert!(refused(&output), "{output}");
}

#[tokio::test]
async fn a_command_ends_at_its_timeout_and_with_its_run() {
    let Some((_app, ann)) = app(Config { grace: Duration::from_millis(50), ..sandbox() }).await
    else {
        return;
    };
    let mut talk = ann.conversation().await;
    allow(&talk, "bash", "*").await;
    let input = json!({ "command": "echo begun; sleep 1000", "timeoutMs": 300 });
    let (state, output) = outcome(&mut talk, &format!("call bash {input}")).await;
    assert_eq!(state, ToolState::Completed);
    assert!(output.starts_with("begun\n(ended after 300 ms, its timeout"), "{output}");

    let run = talk.send_message(&runs("touch begun; sleep 1000")).await.run_id;
    loop {
        if ann.client.file_get(&talk.project, "begun").await.is_ok() {
            break;
        }
    }
    assert!(talk.cancel().await);
    assert_eq!(talk.run_ended(&run).await, RunStatus::Cancelled);
}

#[tokio::test]
async fn where_the_sandbox_does_not_hold_no_command_runs_and_nobody_is_asked() {
    let launcher = Some(PathBuf::from("/bin/false"));
    let (app, ann) = app_with(Config { launcher, ..sandbox() }).await;
    let mut talk = ann.conversation().await;
    let (state, output) = outcome(&mut talk, &runs("echo hi")).await;
    assert_eq!(state, ToolState::Error);
    assert!(output.starts_with("the sandbox is unavailable: "), "{output}");
    let ready: Value = ann.get("/health/ready").await.json;
    assert_eq!(ready["sandbox"], "unavailable");
    let auto = SessionUpdate {
        session_id: talk.session.clone(),
        title: None,
        agent: None,
        model: None,
        mode: Some(SessionMode::Auto),
    };
    assert_eq!(refusal(talk.call(auto).await).code, ErrorCode::SandboxUnavailable);
    drop(app);
}

#[tokio::test]
async fn in_the_mode_auto_literal_commands_run_unasked_for_administrators_alone() {
    let Some((app, ann)) = app(sandbox()).await else { return };
    let mut talk = ann.conversation().await;
    let bob = app.user("bob").await;
    ann.add_member(&talk.project, &bob, Role::Member).await;
    let path = format!("/v1/admin/users/{}", bob.id());
    ann.rest("PATCH", &path, Some(json!({ "canExecuteCode": true }))).await;
    let auto = SessionUpdate {
        session_id: talk.session.clone(),
        title: None,
        agent: None,
        model: None,
        mode: Some(SessionMode::Auto),
    };
    talk.call(auto).await.unwrap();
    assert_eq!(outcome(&mut talk, &runs("echo hi")).await.1, "hi\n(exit code 0)");
    let mut his = bob.join(&talk.project, &talk.session).await;
    let run = his.send_message(&runs("echo hi")).await.run_id;
    let asked = his.approval().await;
    his.approve(&asked.tool_call_id).await.unwrap();
    his.run_ended(&run).await;
    let explain = |input: Value| iris_protocol::PermissionExplain {
        session_id: Some(talk.session.clone()),
        agent: None,
        tool_name: "bash".to_owned(),
        input,
    };
    let verdict = talk.call(explain(json!({ "command": "echo $X" }))).await.unwrap();
    let PermissionVerdict { action, accesses } = verdict;
    assert_eq!(action, PermissionAction::Ask);
    assert!(accesses[0].reason.contains("cannot be read off its text"), "{accesses:?}");
    let ready: Value = ann.get("/health/ready").await.json;
    let tiers = [Tier::S2, Tier::S3].map(|tier| json!(tier.to_string()));
    assert!(tiers.contains(&ready["sandbox"]), "{ready}");
}

#[tokio::test]
async fn those_who_watch_are_told_how_far_a_command_is() {
    let Some((_app, ann)) = app(sandbox()).await else { return };
    let mut talk = ann.conversation().await;
    allow(&talk, "bash", "*").await;
    // It ends when somebody who has been told lets it.
    let waits = "echo step one; while ! test -e go; do sleep 0.05; done; echo step two";
    let run = talk.send_message(&runs(waits)).await.run_id;
    let frame = talk.wait_for("message.tool.progress").await;
    let Event::MessageToolProgress { bytes, tail, .. } = frame.event else { panic!("{frame:?}") };
    assert_eq!((bytes, tail.as_str()), (9, "step one\n"));
    assert_eq!(frame.meta.seq, None, "it is not in the log");
    ann.client.file_put(&talk.project, "go", "").await.unwrap();
    assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);
}
