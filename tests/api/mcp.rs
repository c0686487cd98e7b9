//! MCP servers of a project: configured, approved and called by an agent. Every server here is a program
//! in the real sandbox of this machine, which does what a test says (`crates/mcp/examples/mcp_fake.rs`).
//! The rows M1 to M6 of the threats, as far as they go through the whole server.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use iris_client::Socket;
use iris_protocol::{
    ErrorCode, Event, McpCreate, McpDelete, McpList, McpServer, McpState, McpStatus, McpStatusGet,
    McpToolState, McpTransport, McpUpdate, PermissionAction, PermissionCreate, Role, RunStatus,
    ToolList, ToolState,
};
use iris_sandbox::{Config, Sandbox};
use iris_testkit::{
    AppOptions, Conversation, Person, TestApp, calls_of, patiently, spawn_app_with,
};
use serde_json::{Value, json};

use crate::{code_of, refusal};

/// A user that owns nothing.
const NOBODY: u32 = 10_999;

fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// The fake server, which cargo builds before it runs tests.
fn fake() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("examples/iris_mcp_fake");
    assert!(path.exists(), "`{}` is not built", path.display());
    path
}

fn sandbox() -> Config {
    Config {
        uid: is_root().then_some(NOBODY),
        launcher: Some(PathBuf::from(env!("CARGO_BIN_EXE_iris"))),
        extra_read_only: vec![fake().parent().unwrap().to_owned()],
        ..Config::default()
    }
}

/// A server that runs programs, and its administrator. None on a machine whose kernel has no sandbox.
async fn app() -> Option<(TestApp, Person)> {
    let found = Sandbox::start(sandbox()).await;
    if let Err(error) = found.check() {
        assert!(std::env::var_os("IRIS_TEST_TIER").is_none(), "{error}");
        eprintln!("skipped: {error}");
        return None;
    }
    let options = AppOptions { sandbox: Some(sandbox()), ..AppOptions::default() };
    let app = spawn_app_with(options).await;
    open_data_dir(&app);
    let admin = app.admin().await;
    Some((app, admin))
}

/// The user of the programs has to be able to get to the projects.
fn open_data_dir(app: &TestApp) {
    if is_root() {
        let open = std::fs::Permissions::from_mode(0o711);
        std::fs::set_permissions(app.data_dir(), open).unwrap();
    }
}

fn program(args: &[&str]) -> McpTransport {
    McpTransport::Stdio {
        command: fake().display().to_string(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: BTreeMap::new(),
    }
}

fn new(name: &str, transport: McpTransport) -> McpCreate {
    McpCreate {
        name: name.to_owned(),
        transport,
        secret_headers: None,
        enabled: None,
        initialize_timeout_ms: None,
        request_timeout_ms: None,
    }
}

fn change(name: &str) -> McpUpdate {
    McpUpdate {
        name: name.to_owned(),
        transport: None,
        secret_headers: None,
        enabled: None,
        initialize_timeout_ms: None,
        request_timeout_ms: None,
        approve: None,
    }
}

async fn status(talk: &Conversation, name: &str) -> McpStatus {
    talk.call(McpStatusGet { name: name.to_owned() }).await.unwrap().status
}

/// Waits until the project's room is told that a server is so.
async fn until(room: &mut Socket, name: &str, expected: McpState) -> Option<String> {
    let waiting = async {
        loop {
            let frame = room.next_event().await.unwrap();
            if let Event::McpStatusChanged { name: told, state, reason, .. } = frame.event
                && told == name
                && state == expected
            {
                return reason;
            }
        }
    };
    patiently(&format!("{name} to be {expected:?}"), waiting).await
}

/// Configures a server and approves what it offers.
async fn approved(talk: &Conversation, room: &mut Socket, name: &str, args: &[&str]) -> McpServer {
    talk.call(new(name, program(args))).await.unwrap();
    until(room, name, McpState::NeedsApproval).await;
    approve(talk, room, name).await
}

async fn approve(talk: &Conversation, room: &mut Socket, name: &str) -> McpServer {
    let hash = status(talk, name).await.offered_hash.unwrap();
    let approve = Some(hash);
    let server = talk.call(McpUpdate { approve, ..change(name) }).await.unwrap().server;
    until(room, name, McpState::Ready).await;
    server
}

async fn allow(talk: &Conversation, permission: &str) {
    let (permission, pattern) = (permission.to_owned(), "*".to_owned());
    let action = PermissionAction::Allow;
    talk.call(PermissionCreate { session_id: None, permission, pattern, action }).await.unwrap();
}

fn calls(tool: &str, text: &str) -> String {
    format!("call {tool} {}", json!({ "text": text }))
}

/// The end of the only call of a message: its state and what the model reads.
async fn outcome(talk: &mut Conversation, message: &str) -> (ToolState, String) {
    let run = talk.send_message(message).await.run_id;
    assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);
    let answer = talk.answer(&run).await;
    let call = calls_of(&answer)[0].clone();
    (call.state, call.output.or(call.error).unwrap_or_default())
}

async fn tool_names(talk: &Conversation) -> Vec<String> {
    let tools = talk.call(ToolList {}).await.unwrap().tools;
    tools.into_iter().map(|tool| tool.name).filter(|name| name.contains("__")).collect()
}

#[tokio::test]
async fn a_tool_of_a_program_is_approved_and_called_once_somebody_agrees() {
    let Some((_app, ann)) = app().await else { return };
    let mut talk = ann.conversation().await;
    let mut room = talk.connect_to_project().await;
    let server = approved(&talk, &mut room, "fake", &["tools=echo,env"]).await;
    assert_eq!(server.tools, ["fake__echo", "fake__env"]);
    assert_eq!(tool_names(&talk).await, ["fake__echo", "fake__env"]);
    let run = talk.send_message(&calls("fake__echo", "hello")).await.run_id;
    let approval = talk.approval().await;
    let expected = "call `echo` of the MCP server `fake` with {\"text\":\"hello\"}";
    assert_eq!(approval.message, expected);
    talk.approve(&approval.tool_call_id).await.unwrap();
    assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);
    let answer = talk.answer(&run).await;
    assert_eq!(calls_of(&answer)[0].output.as_deref(), Some("hello"));
    assert_eq!(calls_of(&answer)[0].metadata, Some(json!({"server": "fake", "tool": "echo"})));
}
