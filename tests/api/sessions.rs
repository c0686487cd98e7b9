//! Sessions: created, listed, archived, deleted.

use iris_protocol::{ErrorCode, Event, RoomRequest, Subscribe};
use iris_testkit::{patiently, spawn_app, text_of};
use serde_json::{Value, json};

use crate::{code_of, refusal, rest_refusal};

#[tokio::test]
async fn a_session_is_created_read_and_changed() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let path = format!("/v1/projects/{project}/sessions");
    let created = ann.post(&path, json!({ "title": "first" })).await;
    assert_eq!(created.status, 201);
    let session = &created.json["data"];
    assert_eq!((&session["agent"], &session["state"]), (&json!("default"), &json!("idle")));
    let one = format!("{path}/{}", session["id"].as_str().unwrap());
    let read = ann.get(&one).await.json["data"].clone();
    assert_eq!(read["session"], *session);
    assert_eq!(
        (&read["messages"], &read["queue"], &read["approvals"]),
        (&json!([]), &json!([]), &json!([]))
    );
    assert!(read["asOf"]["seq"].as_u64().unwrap() > 0);
    let changed = ann.rest("PATCH", &one, Some(json!({ "title": "second" }))).await;
    assert_eq!(changed.json["data"]["title"], "second");
    for body in [json!({ "title": "" }), json!({ "title": "x".repeat(201) }), json!({ "title": 7 })]
    {
        let refused = rest_refusal(&ann.rest("PATCH", &one, Some(body)).await);
        assert_eq!(refused.code, ErrorCode::InvalidRequest);
    }
    assert_eq!(rest_refusal(&ann.get(&format!("{path}/ses_1")).await).code, ErrorCode::NotFound);
    let unknown = ann.post(&path, json!({ "agent": "nobody" })).await;
    assert_eq!(rest_refusal(&unknown).code, ErrorCode::NotFound);
}

#[tokio::test]
async fn sessions_are_listed_newest_first_page_by_page() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let mut expected = Vec::new();
    for _ in 0..5 {
        expected.insert(0, ann.session(&project).await.id.to_string());
    }
    let path = format!("/v1/projects/{project}/sessions?limit=2");
    let (mut ids, mut cursor) = (Vec::new(), String::new());
    for page in 0..3 {
        let list = ann.get(&format!("{path}{cursor}")).await.json;
        let sessions = list["data"].as_array().unwrap().iter();
        ids.extend(sessions.map(|session| session["id"].as_str().unwrap().to_owned()));
        assert_eq!(list["meta"]["hasMore"], page < 2);
        assert!(list["meta"]["asOf"]["seq"].is_u64());
        cursor = format!("&cursor={}", list["meta"]["nextCursor"].as_str().unwrap_or_default());
    }
    assert_eq!(ids, expected);
}

#[tokio::test]
async fn an_archived_session_is_read_only_until_it_comes_back() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    ann.ask("say kept").await;
    let list = format!("/v1/projects/{}/sessions", ann.project);
    let path = format!("{list}/{}", ann.session);
    let archived = ann.person.post(&format!("{path}/archive"), json!({})).await;
    assert_eq!(archived.json["data"]["status"], "archived");
    let refused = refusal(ann.try_send("say no", None).await);
    assert_eq!(code_of(&refused), (ErrorCode::Conflict, "session_archived"));
    assert_eq!(ann.person.get(&list).await.json["data"], json!([]));
    let all = ann.person.get(&format!("{list}?includeArchived=true")).await.json;
    assert_eq!(all["data"].as_array().unwrap().len(), 1);
    assert_eq!(ann.person.snapshot(&ann.project, &ann.session).await.messages.len(), 2);
    let back = ann.person.post(&format!("{path}/unarchive"), json!({})).await;
    assert_eq!(
        (&back.json["data"]["status"], &back.json["data"]["archivedAt"]),
        (&json!("active"), &Value::Null)
    );
    assert_eq!(text_of(&ann.ask("say on").await), "on");
    for name in ["session.archived", "session.updated"] {
        assert!(ann.names().contains(&name), "{name}: {:?}", ann.names());
    }
}

#[tokio::test]
async fn a_deleted_session_is_gone_and_can_come_back() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    ann.ask("say kept").await;
    let list = format!("/v1/projects/{}/sessions", ann.project);
    let path = format!("{list}/{}", ann.session);
    assert!(ann.person.rest("DELETE", &path, None).await.is_success());
    ann.wait_for("session.deleted").await;
    let sent = refusal(ann.try_send("say no", None).await);
    assert_eq!(sent.code, ErrorCode::NotFound);
    let all = ann.person.get(&format!("{list}?includeArchived=true")).await.json;
    assert_eq!(all["data"], json!([]));
    // What was deleted softly can still be read by who has its id: it can be brought back.
    assert_eq!(ann.person.get(&path).await.json["data"]["session"]["status"], "deleted");
    assert!(ann.person.post(&format!("{path}/unarchive"), json!({})).await.is_success());
    assert_eq!(ann.person.snapshot(&ann.project, &ann.session).await.messages.len(), 2);
}

#[tokio::test]
async fn a_permanently_deleted_session_does_not_come_back() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    ann.ask("say gone").await;
    let project = ann.connect_to_project().await;
    let path = format!("/v1/projects/{}/sessions/{}", ann.project, ann.session);
    assert!(ann.person.rest("DELETE", &format!("{path}?permanent=true"), None).await.is_success());
    let told = patiently("session.deleted", project.next_event()).await.unwrap();
    assert!(matches!(told.event, Event::SessionDeleted { .. }), "{told:?}");
    for answer in [
        ann.person.get(&path).await,
        ann.person.get(&format!("{path}/messages")).await,
        ann.person.post(&format!("{path}/unarchive"), json!({})).await,
        ann.person.rest("DELETE", &path, None).await,
    ] {
        assert_eq!(rest_refusal(&answer).code, ErrorCode::NotFound, "{answer:?}");
    }
}

#[tokio::test]
async fn a_session_with_a_run_is_neither_archived_nor_deleted() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let run = ann.send_message("call write {\"path\": \"a\", \"content\": \"\"}").await.run_id;
    ann.approval().await;
    let path = format!("/v1/projects/{}/sessions/{}", ann.project, ann.session);
    for (method, path) in [
        ("POST", format!("{path}/archive")),
        ("DELETE", path.clone()),
        ("DELETE", format!("{path}?permanent=true")),
    ] {
        let refused = rest_refusal(&ann.person.rest(method, &path, None).await);
        assert_eq!(code_of(&refused), (ErrorCode::Conflict, "session_busy"), "{method} {path}");
    }
    ann.cancel().await;
    ann.run_ended(&run).await;
    assert!(ann.person.rest("DELETE", &path, None).await.is_success());
}

#[tokio::test]
async fn sessions_are_told_in_the_room_of_the_project() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let project = ann.connect_to_project().await;
    let request = Subscribe {
        rooms: vec![RoomRequest::Live("nonsense".into())],
        deltas: None,
        presence: None,
    };
    project.call(Some(&ann.project), request).await.unwrap();
    ann.ask("say hi").await;
    ann.person.session(&ann.project).await;
    let mut names = Vec::new();
    while names.last() != Some(&"session.created") {
        names.push(patiently("events", project.next_event()).await.unwrap().event.name());
    }
    assert_eq!(names, ["session.status", "session.status", "session.status", "session.created"]);
}
