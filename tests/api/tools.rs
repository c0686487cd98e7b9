//! Tool calls that wait for a person.

use std::time::Duration;

use iris_client::ClientError;
use iris_protocol::{
    ApprovalState, ErrorCode, Event, Role, RunStatus, SessionState, ToolCallId, ToolState,
};
use iris_testkit::{AppOptions, calls_of, patiently, spawn_app, spawn_app_with, text_of};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::bash::allow;
use crate::{code_of, refusal};

const WRITE: &str =
    "call write {\"path\": \"a.txt\", \"content\": \"hello\"}\nstep\nsay {{result}}";

#[tokio::test]
async fn a_writing_tool_runs_when_somebody_else_of_the_project_lets_it() {
    let app = spawn_app().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let mut hers = ann.conversation().await;
    ann.add_member(&hers.project, &bob, Role::Member).await;
    let mut his = bob.join(&hers.project, &hers.session).await;
    let notices = his.connect_to_project().await;
    let run = hers.send_message(WRITE).await.run_id;
    let approval = his.approval().await;
    assert_eq!((approval.tool_name.as_str(), approval.state), ("write", ApprovalState::Pending));
    assert_eq!(approval.input, json!({ "path": "a.txt", "content": "hello" }));
    assert!(approval.message.contains("a.txt"), "{}", approval.message);
    let snapshot = ann.snapshot(&hers.project, &hers.session).await;
    assert_eq!(snapshot.session.state, SessionState::Waiting);
    assert_eq!(snapshot.approvals, std::slice::from_ref(&approval));
    assert_eq!(
        refusal(ann.client.file_get(&hers.project, "a.txt").await).code,
        ErrorCode::NotFound
    );

    let decided = his.approve(&approval.tool_call_id).await.unwrap();
    assert_eq!((decided.state, decided.by.as_ref()), (ApprovalState::Approved, Some(bob.id())));
    assert_eq!(hers.run_ended(&run).await, RunStatus::Completed);
    let answer = hers.answer(&run).await;
    assert_eq!(calls_of(&answer)[0].state, ToolState::Completed);
    assert!(text_of(&answer).contains("created `a.txt`"), "{}", text_of(&answer));
    assert_eq!(ann.client.file_get(&hers.project, "a.txt").await.unwrap(), "hello");
    // The file is the work of the one who asked, not of the one who allowed it.
    loop {
        let notice = patiently("file.created", notices.next_event()).await.unwrap();
        if let Event::FileCreated { by, session_id, .. } = notice.event {
            assert_eq!((by, session_id), (Some(ann.id().clone()), Some(hers.session)));
            break;
        }
    }
}

#[tokio::test]
async fn a_rejected_call_does_not_run_and_the_model_reads_why() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let run = ann.send_message(WRITE).await.run_id;
    let call = ann.approval().await.tool_call_id;
    let decided = ann.reject(&call, "not on Fridays").await.unwrap();
    assert_eq!(decided.state, ApprovalState::Rejected);
    assert_eq!(ann.run_ended(&run).await, RunStatus::Completed);
    let answer = ann.answer(&run).await;
    assert_eq!(calls_of(&answer)[0].state, ToolState::Denied);
    assert!(text_of(&answer).contains("not on Fridays"), "{}", text_of(&answer));
    let file = ann.person.client.file_get(&ann.project, "a.txt").await;
    assert_eq!(refusal(file).code, ErrorCode::NotFound);
}

#[tokio::test]
async fn a_call_that_nobody_decides_about_is_refused_in_the_end() {
    let options =
        AppOptions { approval_timeout: Duration::from_millis(50), ..AppOptions::default() };
    let app = spawn_app_with(options).await;
    let mut ann = app.user("ann").await.conversation().await;
    let run = ann.send_message(WRITE).await.run_id;
    let call = ann.approval().await.tool_call_id;
    let resolved = ann.wait_for("tool.approval.resolved").await;
    let Event::ToolApprovalResolved { state, by, .. } = resolved.event else { panic!("no") };
    assert_eq!((state, by), (ApprovalState::Expired, None));
    assert_eq!(ann.run_ended(&run).await, RunStatus::Completed);
    assert_eq!(refusal(ann.approve(&call).await).code, ErrorCode::Gone);
    assert!(text_of(&ann.answer(&run).await).contains("in time"));
}

#[tokio::test]
async fn the_first_decision_counts() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let run = ann.send_message(WRITE).await.run_id;
    let call = ann.approval().await.tool_call_id;
    let both = tokio::join!(ann.approve(&call), ann.reject(&call, "no"), ann.approve(&call));
    let all = [both.0, both.1, both.2];
    assert_eq!(all.iter().filter(|one| one.is_ok()).count(), 1);
    for refused in all.into_iter().filter_map(Result::err) {
        let ClientError::Api(error) = refused else { panic!("{refused}") };
        assert_eq!(code_of(&error), (ErrorCode::Conflict, "already_decided"));
    }
    assert_eq!(ann.run_ended(&run).await, RunStatus::Completed);
    let again = refusal(ann.approve(&call).await);
    assert_eq!(code_of(&again), (ErrorCode::Conflict, "already_decided"));
}

#[tokio::test]
async fn only_members_decide_and_only_about_calls_that_exist() {
    let app = spawn_app().await;
    let (ann, vic) = (app.user("ann").await, app.user("vic").await);
    let mut hers = ann.conversation().await;
    ann.add_member(&hers.project, &vic, Role::Viewer).await;
    let mut his = vic.join(&hers.project, &hers.session).await;
    let run = hers.send_message(WRITE).await.run_id;
    let call = his.approval().await.tool_call_id;
    assert_eq!(refusal(his.approve(&call).await).code, ErrorCode::Forbidden);
    assert_eq!(refusal(his.reject(&call, "no").await).code, ErrorCode::Forbidden);
    let unknown = refusal(hers.approve(&ToolCallId::from_bits(7)).await);
    assert_eq!(unknown.code, ErrorCode::NotFound);
    let elsewhere = ann.conversation_in(&hers.project).await;
    assert_eq!(refusal(elsewhere.approve(&call).await).code, ErrorCode::NotFound);
    hers.approve(&call).await.unwrap();
    assert_eq!(hers.run_ended(&run).await, RunStatus::Completed);
}

#[tokio::test]
async fn the_run_goes_on_when_all_calls_of_a_step_are_decided() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let script = "call write {\"path\": \"a\", \"content\": \"1\"}\n\
                  call list {\"path\": \".\"}\n\
                  call write {\"path\": \"b\", \"content\": \"2\"}\nstep\nsay done";
    let run = ann.send_message(script).await.run_id;
    let (first, second) = (ann.approval().await, ann.approval().await);
    ann.reject(&second.tool_call_id, "no").await.unwrap();
    ann.approve(&first.tool_call_id).await.unwrap();
    assert_eq!(ann.run_ended(&run).await, RunStatus::Completed);
    let answer = ann.answer(&run).await;
    let states: Vec<_> = calls_of(&answer).iter().map(|call| call.state).collect();
    assert_eq!(states, [ToolState::Completed, ToolState::Completed, ToolState::Denied]);
    assert_eq!(text_of(&answer), "done");
}

#[tokio::test]
async fn calls_of_one_answer_read_side_by_side_and_write_one_path_in_their_order() {
    const EDITS: usize = 9;
    // A site that answers when it is told to.
    let site = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = site.local_addr().unwrap().to_string();
    let egress_allow = vec![address.parse().unwrap()];
    let app = spawn_app_with(AppOptions { egress_allow, ..AppOptions::default() }).await;
    let mut ann = app.user("ann").await.conversation().await;
    ann.person.client.file_put(&ann.project, "other.txt", "other").await.unwrap();
    for permission in ["edit", "webfetch"] {
        allow(&ann, permission, "*").await;
    }
    let call = |tool: &str, input: Value| format!("call {tool} {input}\n");
    let fetch = call("webfetch", json!({ "url": format!("http://{address}/") }));
    let read = call("read", json!({ "path": "other.txt" }));
    let write = call("write", json!({ "path": "log.txt", "content": "0\n" }));
    // Each needs what the one before left.
    let edits = (1..=EDITS).map(|n| {
        let (old, new) = (format!("{}\n", n - 1), format!("{}\n{n}\n", n - 1));
        call("edit", json!({ "path": "log.txt", "oldString": old, "newString": new }))
    });
    let edits: String = edits.collect();
    let script = format!("{fetch}{fetch}{write}{edits}{read}step\nsay done");
    let run = ann.send_message(&script).await.run_id;
    let mut visitors = Vec::new();
    for _ in 0..2 {
        visitors.push(patiently("a visitor", site.accept()).await.unwrap().0);
    }
    // While both of these go on everything else comes to its end.
    for _ in 0..EDITS + 2 {
        ann.wait_for("message.tool.result").await;
    }
    let log: String = (0..=EDITS).map(|n| n.to_string() + "\n").collect();
    assert_eq!(ann.person.client.file_get(&ann.project, "log.txt").await.unwrap(), log);
    for mut visitor in visitors {
        let page = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok";
        visitor.write_all(page.as_bytes()).await.unwrap();
    }
    assert_eq!(ann.run_ended(&run).await, RunStatus::Completed);
    let answer = ann.answer(&run).await;
    let states: Vec<_> = calls_of(&answer).iter().map(|call| call.state).collect();
    assert_eq!(states, [ToolState::Completed; EDITS + 4]);
}

#[tokio::test]
async fn the_tools_of_the_server_are_listed_with_their_schemas() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let list = ann.get(&format!("/v1/projects/{project}/tools")).await.json;
    let tools = list["data"].as_array().unwrap();
    let names: Vec<_> = tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    let files = ["read", "write", "edit", "multiEdit", "applyPatch", "list", "glob", "grep"];
    assert_eq!(names[..8], files);
    assert_eq!(names[8..], ["todoWrite", "todoRead", "question", "task", "webfetch"]);
    assert!(tools.iter().all(|tool| tool["parameters"]["type"] == "object"));
}

#[tokio::test]
async fn an_archived_project_lets_what_runs_come_to_an_end_and_nothing_begin() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let mut first = ann.conversation().await;
    let mut second = ann.conversation_in(&first.project).await;
    let runs = [first.send_message(WRITE).await.run_id, second.send_message(WRITE).await.run_id];
    let call = first.approval().await.tool_call_id;
    second.approval().await;
    let path = format!("/v1/projects/{}/archive", first.project);
    assert!(ann.post(&path, json!({})).await.is_success());

    let archived = (ErrorCode::Conflict, "project_archived");
    assert_eq!(code_of(&refusal(first.approve(&call).await)), archived);
    assert_eq!(code_of(&refusal(first.try_send("say no", None).await)), archived);
    assert_eq!(first.reject(&call, "no").await.unwrap().state, ApprovalState::Rejected);
    assert_eq!(first.run_ended(&runs[0]).await, RunStatus::Completed);
    assert!(second.cancel().await);
    assert_eq!(second.run_ended(&runs[1]).await, RunStatus::Cancelled);
}

#[tokio::test]
async fn arguments_that_nest_too_deeply_are_kept_as_text_and_the_model_is_told() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    // One level more would be no JSON for the parser.
    let arguments = format!("{{\"path\":{}{}}}", "[".repeat(125), "]".repeat(125));
    let answer = ann.ask(&format!("call read {arguments}\nstep\nsay {{{{result}}}}")).await;
    assert!(text_of(&answer).contains("nested too deeply"), "{}", text_of(&answer));
    let path = format!("/v1/projects/{}/sessions/{}", ann.project, ann.session);
    let session = ann.person.get(&path).await;
    assert_eq!(session.status, 200, "{session:?}");
    let call = calls_of(&answer)[0];
    assert_eq!((&call.input, call.state), (&json!(arguments), ToolState::Error));
}
