//! MCP servers of a project that are places on the web. The row M5 of the threats, as far as it goes
//! through the whole server.

#[path = "../../crates/mcp/tests/session/webfake.rs"]
#[expect(clippy::expect_used, reason = "a helper of a test fails like the test itself")]
pub(crate) mod webfake;

use std::collections::BTreeMap;

use iris_protocol::{
    ErrorCode, McpCreate, McpState, McpTransport, McpUpdate, PermissionAction, PermissionCreate,
    RunStatus, ToolState,
};
use iris_testkit::{AppOptions, Person, TestApp, calls_of, spawn_app_with};
use serde_json::json;

use crate::mcp::{approve, change, until};
use crate::{code_of, refusal};
use webfake::{WebFake, status};

/// A server that may reach these, and its administrator.
async fn app(fakes: &[&WebFake]) -> (TestApp, Person) {
    let allow = fakes.iter().map(|fake| fake.address.to_string().parse().unwrap());
    let options = AppOptions { egress_allow: allow.collect(), ..AppOptions::default() };
    let app = spawn_app_with(options).await;
    let admin = app.admin().await;
    (app, admin)
}

fn web(fake: &WebFake) -> McpTransport {
    let headers = BTreeMap::from([("x-plain".to_owned(), "shown".to_owned())]);
    McpTransport::Http { url: format!("http://{}/mcp", fake.address), headers }
}

fn new(transport: McpTransport) -> McpCreate {
    McpCreate {
        name: "web".to_owned(),
        transport,
        secret_headers: None,
        oauth: None,
        enabled: None,
        initialize_timeout_ms: None,
        request_timeout_ms: None,
    }
}

fn secret(value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("authorization".to_owned(), value.to_owned())])
}

#[tokio::test]
async fn m5_a_server_on_the_web_gets_its_own_secrets_and_nothing_of_iris() {
    let fake = WebFake::start(|_| None).await;
    let (app, ann) = app(&[&fake]).await;
    let mut talk = ann.conversation().await;
    let mut room = talk.connect_to_project().await;
    let canary = "Bearer canary-0123456789";
    let create = McpCreate { secret_headers: Some(secret(canary)), ..new(web(&fake)) };
    let created = talk.call(create).await.unwrap().server;
    assert_eq!(created.secret_headers, ["authorization"]);
    until(&mut room, "web", McpState::NeedsApproval).await;
    approve(&talk, &mut room, "web").await;
    let rule = PermissionCreate {
        session_id: None,
        permission: "mcp:web".to_owned(),
        pattern: "*".to_owned(),
        action: PermissionAction::Allow,
    };
    talk.call(rule).await.unwrap();
    let run = talk.send_message("call web__echo {}").await.run_id;
    assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);
    let answer = talk.answer(&run).await;
    assert_eq!(calls_of(&answer)[0].output.as_deref(), Some("called"));
    for asked in fake.asked() {
        assert_eq!((asked.header("authorization"), asked.header("x-plain")), (canary, "shown"));
        let all = format!("{asked:?}");
        assert!(!all.contains(ann.token()) && !all.contains("cookie"), "{all}");
    }
    // Nobody reads it back, and it is not in the clear on the disk.
    let listed = ann.get(&format!("/v1/projects/{}/mcp", talk.project)).await;
    let events = ann.get(&format!("/v1/projects/{}/mcp/web/status", talk.project)).await;
    for shown in [listed.json.to_string(), events.json.to_string(), format!("{:?}", talk.seen)] {
        assert!(!shown.contains("canary"), "{shown}");
    }
    let project = talk.project.clone();
    let data_dir = app.data_dir().to_owned();
    for file in files_below(&data_dir) {
        let bytes = std::fs::read(&file).unwrap_or_default();
        let is_there = bytes.windows(6).any(|piece| piece == b"canary");
        assert!(!is_there, "`{}` of {project}", file.display());
    }
    // Another place gets them only when they are given anew.
    let moved =
        Some(McpTransport::Http { url: "https://b.example/".into(), headers: BTreeMap::new() });
    let refused = refusal(talk.call(McpUpdate { transport: moved, ..change("web") }).await);
    assert_eq!(code_of(&refused), (ErrorCode::InvalidRequest, "secrets_missing"));
}

fn files_below(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found
}

#[tokio::test]
async fn m5_a_server_that_wants_an_authorization_is_left_alone_wherever_it_points() {
    let evil = WebFake::start(|_| None).await;
    let place = evil.address;
    let fake = WebFake::start(move |asked| {
        let is_let_in = asked.header("authorization") == "Bearer good";
        let header = format!("www-authenticate: Bearer resource_metadata=\"http://{place}/x\"\r\n");
        (!is_let_in).then(|| status("401 Unauthorized", &header))
    })
    .await;
    let (_app, ann) = app(&[&fake, &evil]).await;
    let talk = ann.conversation().await;
    let mut room = talk.connect_to_project().await;
    talk.call(new(web(&fake))).await.unwrap();
    let reason = until(&mut room, "web", McpState::NeedsAuth).await;
    assert_eq!(reason.as_deref(), Some("the server wants an authorization"));
    assert!(evil.asked().is_empty(), "nobody follows where it points");
    let good = McpUpdate { secret_headers: Some(secret("Bearer good")), ..change("web") };
    talk.call(good).await.unwrap();
    until(&mut room, "web", McpState::NeedsApproval).await;
    // A token that is good no more.
    let bad = McpUpdate { secret_headers: Some(secret("Bearer expired")), ..change("web") };
    talk.call(bad).await.unwrap();
    until(&mut room, "web", McpState::NeedsAuth).await;
}

#[tokio::test]
async fn m5_private_addresses_and_other_places_are_out_of_reach() {
    let inside = WebFake::start(|_| None).await;
    let target = inside.address;
    let fake = WebFake::start(move |_| {
        Some(status("307 Temporary Redirect", &format!("location: http://{target}/\r\n")))
    })
    .await;
    let (_app, ann) = app(&[&fake]).await;
    let talk = ann.conversation().await;
    let mut room = talk.connect_to_project().await;
    talk.call(new(web(&fake))).await.unwrap();
    let reason = until(&mut room, "web", McpState::Failed).await.unwrap();
    assert!(reason.starts_with("the server could not be reached: the answer is at"), "{reason}");
    let private = McpCreate { name: "private".to_owned(), ..new(web(&inside)) };
    talk.call(private).await.unwrap();
    let reason = until(&mut room, "private", McpState::Failed).await.unwrap();
    assert!(reason.contains("an address that is not public"), "{reason}");
    assert!(inside.asked().is_empty());
}

#[tokio::test]
async fn a_session_that_the_server_forgot_is_begun_anew_and_the_call_is_made_once() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let fake = WebFake::start(move |asked| {
        let is_first = asked.says() == "tools/call" && count.fetch_add(1, Ordering::SeqCst) == 0;
        is_first.then(|| status("404 Not Found", ""))
    })
    .await;
    let (_app, ann) = app(&[&fake]).await;
    let mut talk = ann.conversation().await;
    let mut room = talk.connect_to_project().await;
    talk.call(new(web(&fake))).await.unwrap();
    until(&mut room, "web", McpState::NeedsApproval).await;
    approve(&talk, &mut room, "web").await;
    let run = talk.send_message("call web__echo {}").await.run_id;
    let approval = talk.approval().await;
    talk.approve(&approval.tool_call_id).await.unwrap();
    assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);
    let call = calls_of(&talk.answer(&run).await)[0].clone();
    assert_eq!((call.state, call.output.as_deref()), (ToolState::Completed, Some("called")));
    let greetings = fake.asked().iter().filter(|asked| asked.says() == "initialize").count();
    assert_eq!((calls.load(Ordering::SeqCst), greetings), (2, 2));
    assert_eq!(call.metadata, Some(json!({ "server": "web", "tool": "echo" })));
}
