//! Commands of the model: who may have them run, what is asked about them, and where they run. Every test
//! here runs real programs in the real sandbox of this machine.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::Duration;

use iris_actors::Shares;
use iris_protocol::{
    ApiError, ErrorCode, Event, MemberUpdate, PermissionAction, PermissionCreate, PermissionDelete,
    PermissionId, PermissionList, PermissionUpdate, PermissionVerdict, Remember, Role, RunStatus,
    SessionId, SessionMode, SessionUpdate, ToolApprove, ToolState,
};
use iris_sandbox::{Config, Tier};
use iris_store::project::Quotas;
use iris_testkit::{
    AppOptions, Conversation, Person, ServerProcess, TestApp, calls_of, moment, patiently,
    spawn_app_with,
};
use serde_json::{Value, json};

use crate::git::open;
use crate::large::memory;
use crate::{code_of, iris, is_held, refusal, rest_refusal, root};

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

/// One in which nothing runs, on any machine; the tool `bash` is there all the same.
pub(crate) fn broken_sandbox() -> Config {
    Config { launcher: Some(PathBuf::from("/bin/false")), ..sandbox() }
}

/// A server that runs commands, and its administrator, who may have them run. None on a machine whose kernel
/// has no sandbox.
pub(crate) async fn app(sandbox: Config) -> Option<(TestApp, Person)> {
    let can_run = is_held(sandbox.clone(), Tier::S2).await;
    if can_run { Some(app_with(sandbox).await) } else { None }
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

fn rule(
    session_id: Option<&SessionId>,
    permission: &str,
    pattern: &str,
    action: PermissionAction,
) -> PermissionCreate {
    let (permission, pattern) = (permission.to_owned(), pattern.to_owned());
    PermissionCreate { session_id: session_id.cloned(), permission, pattern, action }
}

pub(crate) async fn allow(talk: &Conversation, permission: &str, pattern: &str) -> PermissionId {
    let made = talk.call(rule(None, permission, pattern, PermissionAction::Allow)).await.unwrap();
    made.rule.id.unwrap()
}

async fn let_execute_code(admin: &Person, person: &Person) {
    let path = format!("/v1/admin/users/{}", person.id());
    let granted = admin.rest("PATCH", &path, Some(json!({ "canExecuteCode": true }))).await;
    assert_eq!(granted.json["data"]["canExecuteCode"], true, "{granted:?}");
}

/// Waits until a command made a file.
async fn made(talk: &Conversation, path: &str) {
    let is_there = async {
        while talk.person.client.file_get(&talk.project, path).await.is_err() {
            moment().await;
        }
    };
    patiently(path, is_there).await;
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
    ann.add_member(&hers.project, &admin, Role::Admin).await;
    let echo = rule(None, "bash", "echo *", PermissionAction::Allow);
    let refused = refusal(hers.call(echo.clone()).await);
    assert_eq!(code_of(&refused), (ErrorCode::Forbidden, "no_code"));
    // A rule of somebody else does not let her either.
    admin.client.call(Some(&hers.project), echo).await.unwrap();
    let (state, output) = outcome(&mut hers, &runs("echo hi")).await;
    assert_eq!(state, ToolState::Denied);
    assert_eq!(output, "who started or steered this run may not have programs run on this server");

    let_execute_code(&admin, &ann).await;
    assert_eq!(outcome(&mut hers, &runs("echo hi")).await.1, "hi\n(exit code 0)");
    // Who may not have them run does not let them run either.
    let run = hers.send_message(&runs("id")).await.run_id;
    let asked = hers.approval().await;
    let his = bob.join(&hers.project, &hers.session).await;
    let refused = refusal(his.approve(&asked.tool_call_id).await);
    assert_eq!(code_of(&refused), (ErrorCode::Forbidden, "no_code"));
    hers.approve(&asked.tool_call_id).await.unwrap();
    assert_eq!(hers.run_ended(&run).await, RunStatus::Completed);
    let path = format!("/v1/admin/users/{}", ann.id());
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
    made(&talk, "begun").await;
    assert!(talk.cancel().await);
    assert_eq!(talk.run_ended(&run).await, RunStatus::Cancelled);
}

#[tokio::test]
async fn where_the_sandbox_does_not_hold_no_command_runs_and_nobody_is_asked() {
    let (app, ann) = app_with(broken_sandbox()).await;
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
    let_execute_code(&ann, &bob).await;
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

#[tokio::test]
async fn who_may_not_have_programs_run_makes_no_rule_by_which_they_would() {
    use PermissionAction::{Allow, Ask, Deny};
    let (app, admin) = app_with(broken_sandbox()).await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let hers = ann.conversation().await;
    ann.add_member(&hers.project, &bob, Role::Member).await;
    let his = bob.join(&hers.project, &hers.session).await;
    let no_code = |refused: ApiError| {
        assert_eq!(code_of(&refused), (ErrorCode::Forbidden, "no_code"), "{refused}");
    };
    let change = |id: &PermissionId| PermissionUpdate {
        permission_id: id.clone(),
        permission: None,
        pattern: None,
        action: None,
    };
    for (talk, session) in [(&hers, None), (&hers, Some(&hers.session)), (&his, Some(&his.session))]
    {
        for permission in ["*", "bash"] {
            no_code(refusal(talk.call(rule(session, permission, "ls", Allow)).await));
            // To forbid, or to have people asked, needs no right.
            for action in [Ask, Deny] {
                let made = talk.call(rule(session, permission, "ls", action)).await.unwrap();
                let id = made.rule.id.unwrap();
                let allowed = PermissionUpdate { action: Some(Allow), ..change(&id) };
                no_code(refusal(talk.call(allowed).await));
            }
            let made = talk.call(rule(session, "edit", "ls", Allow)).await.unwrap();
            let permission = Some(permission.to_owned());
            let other = PermissionUpdate { permission, ..change(&made.rule.id.unwrap()) };
            no_code(refusal(talk.call(other).await));
        }
    }
    let session_id = Some(hers.session.clone());
    let list = PermissionList { session_id, limit: None, cursor: None };
    let rules = hers.call(list).await.unwrap().rules;
    assert!(rules.iter().all(|it| it.action != Allow || it.permission == "edit"), "{rules:?}");

    let_execute_code(&admin, &ann).await;
    let allowed = allow(&hers, "bash", "ls").await;
    let wider = PermissionUpdate { pattern: Some("*".to_owned()), ..change(&allowed) };
    hers.call(wider.clone()).await.unwrap();
    // Nobody without the right touches what it says, not even as an administrator of the project.
    let admins = MemberUpdate { user_id: bob.id().clone(), role: Role::Admin };
    hers.call(admins).await.unwrap();
    no_code(refusal(his.call(wider).await));
    his.call(PermissionUpdate { action: Some(Deny), ..change(&allowed) }).await.unwrap();
}

#[tokio::test]
async fn who_may_not_have_programs_run_makes_no_agent_for_which_they_would() {
    let (app, admin) = app_with(broken_sandbox()).await;
    let ann = app.user("ann").await;
    let path = format!("/v1/projects/{}/agents", ann.project("p").await.id);
    let rules = |permission: &str, action: &str| {
        let rule = json!({ "permission": permission, "pattern": "ls", "action": action });
        json!({ "name": "a", "permissions": [rule] })
    };
    for permission in ["*", "bash"] {
        let refused = rest_refusal(&ann.post(&path, rules(permission, "allow")).await);
        assert_eq!(code_of(&refused), (ErrorCode::Forbidden, "no_code"), "{permission}");
    }
    assert_eq!(ann.post(&path, rules("bash", "ask")).await.status, 201);
    let change = async |permission: &str, action: &str| {
        ann.rest("PATCH", &format!("{path}/a"), Some(rules(permission, action))).await
    };
    for permission in ["*", "bash"] {
        let refused = rest_refusal(&change(permission, "allow").await);
        assert_eq!(code_of(&refused), (ErrorCode::Forbidden, "no_code"), "{permission}");
    }
    assert_eq!(change("edit", "allow").await.status, 200);
    let_execute_code(&admin, &ann).await;
    assert_eq!(change("bash", "allow").await.status, 200);
}

#[tokio::test]
async fn a_call_that_rules_allowed_is_to_be_made_again_once_they_ask_about_it() {
    let Some((_app, ann)) = app(sandbox()).await else { return };
    let mut talk = ann.conversation().await;
    let allowed = allow(&talk, "bash", "*").await;
    // The second call was judged with the first, and waits for it.
    let first = runs("touch begun; until test -e go; do sleep 0.01; done");
    let run = talk.send_message(&format!("{first}\n{}", runs("touch second"))).await.run_id;
    made(&talk, "begun").await;
    talk.call(PermissionDelete { permission_id: allowed }).await.unwrap();
    ann.client.file_put(&talk.project, "go", "").await.unwrap();
    assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);
    let answer = talk.answer(&run).await;
    let [first, second] = calls_of(&answer)[..] else { panic!("{answer:?}") };
    assert_eq!(first.state, ToolState::Completed);
    let error = "the rules changed and now ask about this call: make it again";
    assert_eq!((second.state, second.error.as_deref()), (ToolState::Error, Some(error)));
    let missing = refusal(ann.client.file_get(&talk.project, "second").await);
    assert_eq!(missing.code, ErrorCode::NotFound, "it did not run");
    assert!(!talk.names().contains(&"tool.approval.required"));
}

#[tokio::test]
async fn all_of_a_long_output_can_be_read_page_by_page() {
    let Some((_app, admin)) = app(sandbox()).await else { return };
    let mut talk = admin.conversation().await;
    allow(&talk, "bash", "*").await;
    let run = talk.send_message(&runs("seq 1 30000; printf \"%5000d\" 7")).await.run_id;
    assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);
    let answer = talk.answer(&run).await;
    let call = calls_of(&answer)[0];
    let output = call.output.clone().unwrap();
    assert!(output.len() <= 64 * 1024 && output.starts_with("1\n2\n"), "{}", output.len());
    let path = format!("output:{}", call.tool_call_id);
    let how = format!("\n[all of it can be read: `read` with the path `{path}`]");
    assert!(output.contains(" bytes cut here]\n") && output.ends_with(&how));
    let told = talk.seen.iter().find_map(|frame| match &frame.event {
        Event::MessageToolResult { truncated, attachment, .. } => {
            Some((*truncated, attachment.clone()))
        }
        _ => None,
    });
    assert_eq!(told, Some((true, call.attachment.clone())));

    // By the model: long lines come as several.
    let read = async |talk: &mut Conversation, input: Value| {
        outcome(talk, &format!("call read {input}")).await
    };
    let input = json!({ "path": path, "offset": 20_000, "limit": 2 });
    let (state, text) = read(&mut talk, input).await;
    assert_eq!(state, ToolState::Completed);
    assert!(text.starts_with(" 20000\t20000\n 20001\t20001\n(lines 20000 to 20001 of "), "{text}");
    let (_, text) = read(&mut talk, json!({ "path": path, "offset": 30_003 })).await;
    assert!(text.starts_with(&format!(" 30003\t{}7", " ".repeat(999))), "{text}");
    // Of another session, and of a call that said all it had to.
    let other = admin.session(&talk.project).await;
    let mut elsewhere = admin.join(&talk.project, &other.id).await;
    let (state, text) = read(&mut elsewhere, json!({ "path": path })).await;
    assert_eq!(state, ToolState::Error);
    assert!(
        text.ends_with("nothing is kept of that call, or it is one of another session"),
        "{text}"
    );

    // By people, over both doors, and after a restart of nothing but time.
    let (session_id, tool_call_id) = (talk.session.clone(), call.tool_call_id.clone());
    let (mut whole, mut next) = (String::new(), Some(0));
    while let Some(offset) = next {
        let piece = iris_protocol::ToolOutput {
            session_id: session_id.clone(),
            tool_call_id: tool_call_id.clone(),
            offset: Some(offset),
            limit: Some(100_000),
        };
        let piece = talk.call(piece).await.unwrap();
        whole.push_str(&piece.content);
        next = piece.next_offset;
    }
    assert_eq!(whole.len() as u64, call.attachment.as_ref().unwrap().size);
    assert!(whole.contains("\n15000\n15001\n"));
    let calls = format!("/v1/projects/{}/sessions/{session_id}/calls", talk.project);
    let piece = admin.get(&format!("{calls}/{tool_call_id}/output?offset=4&limit=4")).await;
    assert_eq!(piece.json["data"]["content"], json!(whole[4..8]));
    let none = admin.get(&format!("{calls}/{tool_call_id}/output?limit=3")).await;
    assert_eq!(rest_refusal(&none).code, ErrorCode::InvalidRequest);
    let unknown = iris_protocol::ToolCallId::from_bits(1);
    let none = admin.get(&format!("{calls}/{unknown}/output")).await;
    assert_eq!(rest_refusal(&none).code, ErrorCode::NotFound);
}

#[tokio::test]
async fn what_a_hostile_command_prints_does_not_grow_the_server() {
    const GROWTH_MB_MAX: u64 = 64;
    if !is_held(sandbox(), Tier::S3).await {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut command = iris(&data);
    if let Some(uid) = sandbox().uid {
        command.env("IRIS_SANDBOX_UID", uid.to_string());
    }
    let server = ServerProcess::start(command).await;
    open(dir.path());
    open(&data);
    let mut talk = root(&server).await.conversation().await;
    allow(&talk, "bash", "*").await;
    outcome(&mut talk, &runs("true")).await;
    let before = memory(&server, "VmRSS");
    // Many lines, and one without an end.
    for hostile in ["yes | head -c 200M", "yes | tr -d '\\n' | head -c 200M"] {
        let (state, output) = outcome(&mut talk, &runs(hostile)).await;
        assert_eq!(state, ToolState::Completed, "{output}");
        assert!(output.len() > 32 * 1024, "{output}");
    }
    let most = memory(&server, "VmHWM");
    assert!(most < before + GROWTH_MB_MAX, "{before} MB before, {most} MB at most");
    server.kill();
}

#[tokio::test]
async fn a_command_that_fills_its_project_or_the_disk_is_ended_and_the_model_reads_why() {
    let Some((app, admin)) = app(sandbox()).await else { return };
    let app = app
        .restart_with(|options| {
            options.quotas = Quotas { file_bytes_max: 1_000_000, ..Quotas::default() };
        })
        .await;
    let mut talk = Person::new(app.client(), admin.grant.clone()).conversation().await;
    allow(&talk, "*", "*").await;
    let grow = "while :; do head -c 100000 /dev/zero >> big; sleep 0.02; done";
    let (state, output) = outcome(&mut talk, &runs(grow)).await;
    assert_eq!(state, ToolState::Completed, "{output}");
    assert!(output.contains("more than the project may have"), "{output}");

    let app = app
        .restart_with(|options| {
            options.shares = Shares { disk_free_bytes_min: u64::MAX, ..Shares::NONE };
        })
        .await;
    let mut talk = talk.resume(Person::new(app.client(), admin.grant.clone())).await;
    let (_, output) = outcome(&mut talk, &runs("sleep 99999")).await;
    assert!(output.contains("the disk is almost full"), "{output}");
}
