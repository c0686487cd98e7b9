//! Restarting and stopping actors.

use iris_client::ClientError;
use iris_protocol::{
    ErrorCode, ExitKind, RunStatus, SupervisionKind, SupervisionList, SupervisionRecord, ToolState,
};
use iris_testkit::{Conversation, Person, TestApp, calls_of, patiently, spawn_app, text_of};
use serde_json::json;

use super::{path_of_the, project_path, session_path};
use crate::{code_of, refusal, rest_refusal};

const WAITS: &str = "call write {\"path\": \"a\", \"content\": \"\"}";

/// A server with an administrator and a member who has a run that waits for an approval and a message
/// that waits behind it.
async fn scene() -> (TestApp, Person, Conversation, [iris_protocol::RunId; 2]) {
    let app = spawn_app().await;
    let root = app.admin().await;
    let mut ann = app.user("ann").await.conversation().await;
    let first = ann.send_message(WAITS).await.run_id;
    ann.approval().await;
    let second = ann.send_message("say second").await.run_id;
    (app, root, ann, [first, second])
}

/// The same with a run that works.
async fn working() -> (TestApp, Person, Conversation, [iris_protocol::RunId; 2]) {
    let app = spawn_app().await;
    let root = app.admin().await;
    let mut ann = app.user("ann").await.conversation().await;
    let first = ann.send_message("delay 10\nchunks 10000 tick").await.run_id;
    ann.wait_for("message.text.delta").await;
    let second = ann.send_message("say second").await.run_id;
    (app, root, ann, [first, second])
}

/// The code with which the server closes this socket.
async fn close_code(talk: &Conversation) -> u16 {
    loop {
        match patiently("the close", talk.socket.next_frame()).await {
            Ok(_) => {}
            Err(ClientError::Closed { code, reason }) => {
                let wait: u64 = reason.strip_prefix("retryAfterMs=").unwrap().parse().unwrap();
                assert!((500..=1_000).contains(&wait), "{reason}");
                return code;
            }
            Err(other) => panic!("{other}"),
        }
    }
}

/// The record of what became of an actor after an order.
async fn record(root: &Person, path: &str, kind: SupervisionKind) -> SupervisionRecord {
    let request =
        SupervisionList { kind: Some(kind), path: Some(path.to_owned()), ..Default::default() };
    let asking = async {
        loop {
            let page = root.client.supervision(&request).await.unwrap();
            if let Some(found) = page.records.into_iter().find(|record| record.path == path) {
                return found;
            }
        }
    };
    patiently("a record", asking).await
}

async fn restarted(root: &Person, path: &str) {
    root.client.restart_actor(path).await.unwrap();
    let record = record(root, path, SupervisionKind::Restarted).await;
    assert_eq!(record.reason, Some(ExitKind::Killed));
    assert_eq!(record.error.as_deref(), Some("an operator's order"));
    assert_eq!(record.counts["restarts"], 1);
    let actor = root.client.actor(path).await.unwrap().actor;
    assert_eq!((actor.restarts, actor.failed), (1, 0));
}

async fn stopped(root: &Person, path: &str) {
    root.client.stop_actor(path).await.unwrap();
    let record = record(root, path, SupervisionKind::Stopped).await;
    assert_eq!(record.reason, Some(ExitKind::Killed));
    assert_eq!(record.error.as_deref(), Some("an operator's order"));
}

#[tokio::test]
async fn a_restarted_project_sends_its_clients_back_and_interrupts_what_ran() {
    let (_app, root, ann, [first, second]) = working().await;
    restarted(&root, &project_path(&ann.project)).await;
    assert_eq!(close_code(&ann).await, 1011);
    let mut again = ann.resume(ann.person.clone()).await;
    assert_eq!(again.run_ended(&first).await, RunStatus::Interrupted);
    assert_eq!(again.run_ended(&second).await, RunStatus::Completed);
    assert_eq!(text_of(&again.answer(&second).await), "second");
}

#[tokio::test]
async fn what_waits_for_a_person_goes_on_waiting_while_its_actors_restart() {
    let (_app, root, ann, [first, second]) = scene().await;
    restarted(&root, &session_path(&ann.project, &ann.session)).await;
    restarted(&root, &project_path(&ann.project)).await;
    stopped(&root, &project_path(&ann.project)).await;
    let mut again = ann.resume(ann.person.clone()).await;
    let snapshot = again.person.snapshot(&again.project, &again.session).await;
    again.approve(&snapshot.approvals[0].tool_call_id).await.unwrap();
    assert_eq!(again.run_ended(&first).await, RunStatus::Completed);
    assert_eq!(again.run_ended(&second).await, RunStatus::Completed);
    assert_eq!(calls_of(&again.answer(&first).await)[0].state, ToolState::Completed);
}

#[tokio::test]
async fn a_restarted_session_fails_its_run_and_goes_on_with_its_queue() {
    let (_app, root, mut ann, [first, second]) = working().await;
    restarted(&root, &session_path(&ann.project, &ann.session)).await;
    assert_eq!(ann.run_ended(&first).await, RunStatus::Failed);
    assert_eq!(ann.run_ended(&second).await, RunStatus::Completed);
    let answer = ann.answer(&first).await;
    let error = answer.error.as_ref().unwrap();
    assert_eq!(code_of(error), (ErrorCode::Internal, "session_restarted"));
    assert_eq!(text_of(&ann.ask("say third").await), "third");
}

#[tokio::test]
async fn the_actors_that_a_server_cannot_be_without_start_again_unnoticed() {
    let (_app, root, mut ann, [first, _]) = scene().await;
    for path in ["node/root", "node/directory", "node/recorder", "node/backups"] {
        restarted(&root, path).await;
        let refused = refusal(root.client.stop_actor(path).await);
        assert_eq!(code_of(&refused), (ErrorCode::Conflict, "indispensable"), "{path}");
    }
    ann.person.project("another").await;
    assert!(ann.cancel().await);
    assert_eq!(ann.run_ended(&first).await, RunStatus::Cancelled);
    assert_eq!(text_of(&ann.ask("say on").await), "on");
}

#[tokio::test]
async fn a_stopped_project_is_opened_again_by_whoever_comes_next() {
    let (_app, root, ann, [first, second]) = working().await;
    stopped(&root, &project_path(&ann.project)).await;
    assert_eq!(close_code(&ann).await, 1011);
    let mut again = ann.resume(ann.person.clone()).await;
    assert_eq!(again.run_ended(&first).await, RunStatus::Interrupted);
    assert_eq!(again.run_ended(&second).await, RunStatus::Completed);
}

#[tokio::test]
async fn a_stopped_session_fails_its_run_and_takes_the_next_message() {
    let (_app, root, mut ann, [first, second]) = scene().await;
    stopped(&root, &session_path(&ann.project, &ann.session)).await;
    assert_eq!(ann.run_ended(&first).await, RunStatus::Failed);
    let answer = ann.answer(&first).await;
    assert_eq!(code_of(answer.error.as_ref().unwrap()), (ErrorCode::Internal, "session_ended"));
    let third = ann.send_message("say third").await;
    assert_eq!(ann.run_ended(&second).await, RunStatus::Completed);
    assert_eq!(ann.run_ended(&third.run_id).await, RunStatus::Completed);
}

#[tokio::test]
async fn a_stopped_run_fails_and_the_next_one_begins() {
    let (_app, root, mut ann, [first, second]) = scene().await;
    let path = path_of_the(&root, "orchestrator").await;
    let refused = refusal(root.client.restart_actor(&path).await);
    assert_eq!(code_of(&refused), (ErrorCode::Conflict, "not_restartable"));
    stopped(&root, &path).await;
    assert_eq!(ann.run_ended(&first).await, RunStatus::Failed);
    assert_eq!(ann.run_ended(&second).await, RunStatus::Completed);
    let answer = ann.answer(&first).await;
    let error = answer.error.as_ref().unwrap();
    assert_eq!(code_of(error), (ErrorCode::Internal, "orchestrator_killed"));
}

#[tokio::test]
async fn a_stopped_connection_is_closed_and_its_client_comes_back() {
    let (_app, root, ann, [first, _]) = scene().await;
    let path = path_of_the(&root, "connection").await;
    let refused = refusal(root.client.restart_actor(&path).await);
    assert_eq!(code_of(&refused), (ErrorCode::Conflict, "not_restartable"));
    stopped(&root, &path).await;
    assert_eq!(close_code(&ann).await, 1011);
    let mut again = ann.resume(ann.person.clone()).await;
    assert!(again.cancel().await);
    assert_eq!(again.run_ended(&first).await, RunStatus::Cancelled);
}

#[tokio::test]
async fn what_is_not_there_is_neither_restarted_nor_stopped() {
    let (_app, root, ann, _) = scene().await;
    for path in ["node/nobody", "node", "node/directory/project", &ann.project.to_string()] {
        for verb in ["restart", "stop"] {
            let answer = root.post(&format!("/v1/admin/actors/{path}/{verb}"), json!({})).await;
            assert_eq!(rest_refusal(&answer).code, ErrorCode::NotFound, "{path} {verb}");
        }
    }
}

#[tokio::test]
async fn who_gave_an_order_is_in_the_audit() {
    let (app, root, ann, _) = scene().await;
    let session = session_path(&ann.project, &ann.session);
    // What is refused was not done.
    for (path, verb, status) in [
        (session.as_str(), "restart", 200),
        ("node/root", "stop", 409),
        ("node/x", "stop", 404),
        (session.as_str(), "stop", 200),
    ] {
        let route = format!("/v1/admin/actors/{path}/{verb}");
        let headers = [("x-request-id", verb)];
        let token = Some(root.token());
        let answer = root.client.raw("POST", &route, token, &headers, Vec::new().into()).await;
        assert_eq!(answer.unwrap().status, status, "{path} {verb}");
    }
    root.rest("PUT", "/v1/admin/log", Some(json!({ "filter": "debug" }))).await;
    ann.person.post(&format!("/v1/admin/actors/{session}/stop"), json!({})).await;

    let database = rusqlite::Connection::open(app.data_dir().join("root.db")).unwrap();
    let sql = "SELECT action, target, request_id, details, user_id FROM audit
               WHERE result = 'done' AND action LIKE 'actor.%' ORDER BY id";
    let mut rows = database.prepare(sql).unwrap();
    let rows = rows.query_map([], |row| {
        let texts: [String; 3] = [row.get(0)?, row.get(1)?, row.get(3)?];
        Ok((texts, row.get::<_, String>(2)?, row.get::<_, String>(4)?))
    });
    let rows: Vec<_> = rows.unwrap().map(Result::unwrap).collect();
    assert!(rows.iter().all(|(.., user)| user == root.id().as_str()), "{rows:?}");
    let facts: Vec<_> =
        rows.iter().map(|(texts, ..)| texts.each_ref().map(String::as_str)).collect();
    assert_eq!(
        facts,
        [["actor.restart", session.as_str(), "{}"], ["actor.stop", session.as_str(), "{}"],]
    );
    let requests: Vec<_> = rows.iter().map(|(_, request, _)| request.as_str()).collect();
    assert_eq!(requests, ["restart", "stop"]);
}
