//! Projects that grow: finding what was said, how much there may be, and a log that is kept short.

use std::time::Duration;

use iris_protocol::{
    ErrorCode, FileWrite, PermissionAction, PermissionCreate, RoomRequest, RoomSince, RoomStatus,
    SessionDelete, SessionSearch, SessionUpdate, Subscribe, ToolState,
};
use iris_store::project::Quotas;
use iris_testkit::{
    AppOptions, Conversation, calls_of, moment, patiently, spawn_app, spawn_app_with, text_of,
};
use serde_json::{Value, json};

use crate::{code_of, refusal, rest_refusal};

fn query(text: &str) -> SessionSearch {
    SessionSearch { query: text.to_owned(), session_id: None, limit: None, cursor: None }
}

fn allow(permission: &str) -> PermissionCreate {
    PermissionCreate {
        session_id: None,
        permission: permission.to_owned(),
        pattern: "*".to_owned(),
        action: PermissionAction::Allow,
    }
}

async fn rename(talk: &Conversation, title: &str) {
    let request = SessionUpdate {
        session_id: talk.session.clone(),
        title: Some(title.to_owned()),
        agent: None,
        model: None,
        mode: None,
    };
    talk.call(request).await.unwrap();
}

#[tokio::test]
async fn what_was_said_is_found_at_once_over_both_doors() {
    let app = spawn_app().await;
    let mut talk = app.user("ann").await.conversation().await;
    let answer = talk.ask("say The Needle is in the hay").await;
    let page = talk.call(query("needle")).await.unwrap();
    let messages: Vec<_> = page.hits.iter().map(|hit| hit.message_id.clone()).collect();
    assert_eq!((messages.len(), &messages[0]), (2, &answer.id));
    assert_eq!(page.hits[0].excerpt, "The Needle is in the hay");
    assert_eq!(page.hits[0].session_id, talk.session);

    let (person, project) = (&talk.person, &talk.project);
    let route = format!("/v1/projects/{project}/search?query=needle%20hay&limit=1");
    let first = person.get(&route).await;
    assert_eq!(first.json["data"].as_array().unwrap().len(), 1);
    assert_eq!(first.json["meta"]["hasMore"], Value::Bool(true));
    let cursor = first.json["meta"]["nextCursor"].as_str().unwrap();
    let second = person.get(&format!("{route}&cursor={cursor}")).await;
    assert_eq!(second.json["data"][0]["messageId"].as_str().unwrap(), messages[1].as_str());

    for wrong in ["query=", "query=*", "query=a&limit=51", "query=a&cursor=x", "limit=5"] {
        let answer = person.get(&format!("/v1/projects/{project}/search?{wrong}")).await;
        assert_eq!(rest_refusal(&answer).code, ErrorCode::InvalidRequest, "{wrong}");
    }
    let delete = SessionDelete { session_id: talk.session.clone(), permanent: None };
    talk.call(delete).await.unwrap();
    assert_eq!(talk.call(query("needle")).await.unwrap().hits, []);
}

#[tokio::test]
async fn a_project_that_is_full_takes_no_message_and_lets_its_run_end() {
    let quotas = Quotas { rows_max: 3, ..Quotas::default() };
    let app = spawn_app_with(AppOptions { quotas, ..AppOptions::default() }).await;
    let mut talk = app.user("ann").await.conversation().await;
    assert_eq!(text_of(&talk.ask("say hello").await), "hello");
    let refused = refusal(talk.try_send("say more", None).await);
    assert_eq!(code_of(&refused), (ErrorCode::QuotaExceeded, "rows_quota"));
    assert_eq!(refused.details["limit"], 3);
    assert!(refused.details["used"].as_u64().unwrap() > 3);
}

#[tokio::test]
async fn a_file_that_does_not_fit_is_refused_before_the_disk_is_touched() {
    let quotas = Quotas { files_max: 1, file_bytes_max: 10, ..Quotas::default() };
    let app = spawn_app_with(AppOptions { quotas, ..AppOptions::default() }).await;
    let mut talk = app.user("ann").await.conversation().await;
    let write = |path: &str, content: &str| FileWrite {
        path: path.to_owned(),
        content: content.to_owned(),
        ..FileWrite::default()
    };
    talk.call(write("a.txt", "1234567890")).await.unwrap();
    let many = refusal(talk.call(write("b.txt", "1")).await);
    assert_eq!(code_of(&many), (ErrorCode::QuotaExceeded, "files_quota"));
    let large = refusal(talk.call(write("a.txt", "12345678901")).await);
    assert_eq!(code_of(&large), (ErrorCode::QuotaExceeded, "file_bytes_quota"));
    let files = app.data_dir().join("projects").join(talk.project.as_str()).join("files");
    assert_eq!(std::fs::read_to_string(files.join("a.txt")).unwrap(), "1234567890");
    assert!(!files.join("b.txt").exists());

    // The model is told, and the run goes on.
    let script = "call write {\"path\": \"c.txt\", \"content\": \"1\"}\nstep\nsay so be it";
    let run = talk.send_message(script).await.run_id;
    let call = talk.approval().await.tool_call_id;
    talk.approve(&call).await.unwrap();
    talk.run_ended(&run).await;
    let answer = talk.answer(&run).await;
    assert_eq!(text_of(&answer), "so be it");
    let call = calls_of(&answer)[0];
    assert_eq!(call.state, ToolState::Error);
    assert!(call.error.as_ref().unwrap().contains("files_quota"), "{call:?}");
    assert!(!files.join("c.txt").exists());
}

/// The only call of a script: how it ends.
async fn call(talk: &mut Conversation, tool: &str, input: &Value) -> (ToolState, String) {
    let answer = talk.ask(&format!("call {tool} {input}")).await;
    let call = calls_of(&answer)[0].clone();
    (call.state, call.error.unwrap_or_default())
}

#[tokio::test]
async fn only_tools_that_change_files_are_held_and_those_of_unknown_size_once_the_project_is_full()
{
    let quotas = Quotas { files_max: 1, file_bytes_max: 10, ..Quotas::default() };
    let app = spawn_app_with(AppOptions { quotas, ..AppOptions::default() }).await;
    let mut talk = app.user("ann").await.conversation().await;
    talk.call(allow("edit")).await.unwrap();
    let add = |path: &str| json!({ "patch": format!("*** Begin Patch\n*** Add File: {path}\n+1234\n*** End Patch") });
    let todos = json!({ "todos": [{ "content": "a", "status": "pending", "priority": "low" }] });
    let completed = (ToolState::Completed, String::new());
    // Nobody knows beforehand how large a patch makes a project.
    assert_eq!(call(&mut talk, "applyPatch", &add("a")).await, completed);
    assert_eq!(call(&mut talk, "applyPatch", &add("b")).await, completed);
    let write = json!({ "path": "./a", "content": "1" });
    assert_eq!(call(&mut talk, "write", &write).await, completed, "what shrinks is welcome");
    assert_eq!(call(&mut talk, "todoWrite", &todos).await, completed, "it changes no file");

    let edit = json!({ "path": "a", "oldString": "1", "newString": "12345" });
    let (state, error) = call(&mut talk, "applyPatch", &add("c")).await;
    assert_eq!((state, error.contains("files_quota")), (ToolState::Error, true), "{error}");
    assert_eq!(call(&mut talk, "edit", &edit).await, completed);
    let (state, error) = call(&mut talk, "edit", &edit).await;
    assert_eq!((state, error.contains("file_bytes_quota")), (ToolState::Error, true), "{error}");
    assert_eq!(call(&mut talk, "todoWrite", &todos).await, completed);
}

/// The status with which somebody comes back to the session's room.
async fn comes_back(talk: &Conversation, seq: u64) -> RoomStatus {
    let position = iris_protocol::Position { seq, ..talk.position.clone() };
    let room = format!("session:{}", talk.session);
    let room = RoomRequest::Since(RoomSince { room, since: Some(position) });
    let request = Subscribe { rooms: vec![room], deltas: None, presence: None };
    talk.person.connect().await.call(Some(&talk.project), request).await.unwrap().payload.rooms[0]
        .status
}

#[tokio::test]
async fn who_comes_back_from_before_the_log_begins_reads_a_snapshot() {
    let options = AppOptions {
        events_kept_bytes_max: 4_000,
        project_idle: Duration::from_mins(10),
        ..AppOptions::default()
    };
    let app = spawn_app_with(options).await;
    let talk = app.user("ann").await.conversation().await;
    let start = talk.person.snapshot(&talk.project, &talk.session).await.as_of.seq;
    for n in 0..20 {
        rename(&talk, &format!("title {n}")).await;
    }
    // In memory nothing is lost yet.
    assert_eq!(comes_back(&talk, start).await, RoomStatus::Replayed);
    let head = talk.person.snapshot(&talk.project, &talk.session).await.as_of.seq;

    // A project is cleaned up soon after it is opened; its memory is empty then.
    let app = app.restart().await;
    let person = app.again(&talk.person);
    let again = person.join(&talk.project, &talk.session).await;
    rename(&again, "one more").await;
    let again = Conversation { position: talk.position.clone(), ..again };
    let trimmed = async {
        while comes_back(&again, start).await != RoomStatus::Reset {
            moment().await;
        }
    };
    patiently("the log to be trimmed", trimmed).await;
    assert_eq!(comes_back(&again, head).await, RoomStatus::Replayed);
}
