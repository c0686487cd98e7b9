//! The to-do list of a session: an agent rewrites it, people see it.

use iris_protocol::{
    ErrorCode, Event, Role, SessionUpdate, Todo, TodoId, TodoList, TodoPriority, TodoStatus,
    ToolState,
};
use iris_testkit::{Conversation, calls_of, spawn_app, text_of};
use serde_json::{Value, json};

use crate::{refusal, rest_refusal};

fn writing(todos: &Value) -> String {
    format!("call todoWrite {}\nstep\nsay {{{{result}}}}", json!({ "todos": todos }))
}

fn entry(content: &str, status: &str, priority: &str) -> Value {
    json!({ "content": content, "status": status, "priority": priority })
}

async fn list(talk: &Conversation) -> Vec<Todo> {
    let session_id = talk.session.clone();
    talk.call(TodoList { session_id }).await.unwrap().todos
}

#[tokio::test]
async fn a_list_is_replaced_whole_and_its_entries_keep_their_ids() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    assert_eq!(list(&ann).await, []);
    let todos = json!([entry("look", "inProgress", "high"), entry("a\nb", "pending", "low")]);
    let answer = ann.ask(&writing(&todos)).await;
    let first = list(&ann).await;
    assert_eq!(first.len(), 2);
    assert_eq!(
        (first[0].content.as_str(), first[0].status, first[0].priority),
        ("look", TodoStatus::InProgress, TodoPriority::High)
    );
    let lines = format!(
        "2 entries:\n{} [inProgress, high] look\n{} [pending, low] a b",
        first[0].id, first[1].id
    );
    assert_eq!(text_of(&answer), lines);
    let told = ann.seen.iter().find_map(|frame| match &frame.event {
        Event::TodoUpdated { todos, .. } => Some((todos.clone(), frame.meta.seq.is_some())),
        _ => None,
    });
    assert_eq!(told, Some((first.clone(), true)));

    // One that stays, an id that nobody gave, the same id once more, and a new entry.
    let with_id = |id: &str, content: &str| {
        let mut todo = entry(content, "completed", "medium");
        todo["id"] = id.into();
        todo
    };
    let unknown = TodoId::from_bits(7);
    let kept = first[1].id.as_str();
    let todos = json!([
        with_id(kept, "kept"),
        with_id(unknown.as_str(), "unknown"),
        with_id(kept, "again"),
        with_id("nonsense", "no id"),
        entry("new", "cancelled", "low"),
    ]);
    ann.ask(&writing(&todos)).await;
    let second = list(&ann).await;
    let contents: Vec<_> = second.iter().map(|todo| todo.content.as_str()).collect();
    assert_eq!(contents, ["kept", "unknown", "again", "no id", "new"]);
    assert_eq!(second[0].id, first[1].id);
    let mut ids: Vec<_> = second.iter().map(|todo| todo.id.clone()).collect();
    assert!(!ids.contains(&unknown) && !ids.contains(&first[0].id));
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 5);

    let snapshot = ann.person.snapshot(&ann.project, &ann.session).await;
    assert_eq!(snapshot.todos, second);
    let read = ann.ask("call todoRead {}\nstep\nsay {{result}}").await;
    assert!(text_of(&read).starts_with("5 entries:\n"), "{}", text_of(&read));
    ann.ask(&writing(&json!([]))).await;
    let empty = ann.ask("call todoRead {}\nstep\nsay {{result}}").await;
    assert_eq!(text_of(&empty), "(the to-do list is empty)");
}

#[tokio::test]
async fn a_list_outlives_the_server_and_belongs_to_its_session() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    ann.ask(&writing(&json!([entry("look", "pending", "high")]))).await;
    let before = list(&ann).await;
    let app = app.restart().await;
    let again = ann.resume(app.again(&ann.person)).await;
    assert_eq!(list(&again).await, before);
    let other = again.person.conversation_in(&again.project).await;
    assert_eq!(list(&other).await, []);
    let path = format!("/v1/projects/{}/sessions/{}/todos", again.project, again.session);
    let answer = again.person.get(&path).await;
    assert_eq!(answer.json["data"], json!(before));
    let missing = path.replace(again.session.as_str(), &format!("ses_{}", "0".repeat(32)));
    assert_eq!(rest_refusal(&again.person.get(&missing).await).code, ErrorCode::NotFound);
}

#[tokio::test]
async fn a_viewer_reads_the_list_and_a_stranger_does_not() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    ann.ask(&writing(&json!([entry("look", "pending", "high")]))).await;
    let vera = app.user("vera").await;
    ann.person.add_member(&ann.project, &vera, Role::Viewer).await;
    let request = || TodoList { session_id: ann.session.clone() };
    let seen = vera.client.call(Some(&ann.project), request()).await.unwrap();
    assert_eq!(seen.todos, list(&ann).await);
    let mallory = app.user("mallory").await;
    let refused = refusal(mallory.client.call(Some(&ann.project), request()).await);
    assert_eq!(refused.code, ErrorCode::NotFound);
}

#[tokio::test]
async fn a_list_has_limits_up_to_which_it_is_taken() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let full = vec![entry(&"x".repeat(1000), "pending", "low"); 100];
    let answer = ann.ask(&writing(&json!(full))).await;
    assert_eq!(calls_of(&answer)[0].state, ToolState::Completed);
    for todos in [
        json!(vec![entry("x", "pending", "low"); 101]),
        json!([entry("", "pending", "low")]),
        json!([entry(&"x".repeat(1001), "pending", "low")]),
        // Few enough characters, and too many bytes.
        json!([entry(&"ä".repeat(501), "pending", "low")]),
        json!([entry("x", "done", "low")]),
        json!([entry("x", "pending", "urgent")]),
    ] {
        let answer = ann.ask(&writing(&todos)).await;
        assert_eq!(calls_of(&answer)[0].state, ToolState::Error, "{todos}");
    }
    assert_eq!(list(&ann).await.len(), 100);
}

#[tokio::test]
async fn two_lists_of_one_step_are_written_in_their_order() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let call = |content| {
        let todos = json!({ "todos": [entry(content, "pending", "low")] });
        format!("call todoWrite {todos}\n")
    };
    ann.ask(&format!("{}{}step\nsay done", call("first"), call("second"))).await;
    assert_eq!(list(&ann).await[0].content, "second");
}

#[tokio::test]
async fn a_list_is_kept_in_plan_mode_too() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let request = SessionUpdate {
        session_id: ann.session.clone(),
        title: None,
        agent: None,
        model: None,
        mode: Some(iris_protocol::SessionMode::Plan),
    };
    ann.call(request).await.unwrap();
    let answer = ann.ask(&writing(&json!([entry("look", "pending", "high")]))).await;
    assert_eq!(calls_of(&answer)[0].state, ToolState::Completed);
}
