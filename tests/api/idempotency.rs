//! Commands with a key: a repeat answers what the first one did, and does nothing.

use iris_client::RestAnswer;
use iris_protocol::{ErrorCode, ProjectId, Role};
use iris_testkit::{Person, spawn_app};
use serde_json::{Value, json};

use crate::rest_refusal;

pub(crate) async fn with_key(person: &Person, method: &str, path: &str, body: &str) -> RestAnswer {
    let headers = [("content-type", "application/json"), ("idempotency-key", "key-1")];
    let sent =
        person.client.raw(method, path, Some(person.token()), &headers, body.to_owned().into());
    sent.await.unwrap()
}

fn is_replay(answer: &RestAnswer) -> bool {
    assert!(answer.is_success(), "{answer:?}");
    answer.headers.get("idempotent-replay").is_some_and(|value| value == "true")
}

/// Two projects of one person, as paths.
async fn two_projects(person: &Person) -> [String; 2] {
    let (a, b) = (person.project("a").await.id, person.project("b").await.id);
    [a, b].map(|id| format!("/v1/projects/{id}"))
}

/// The last event of a project.
async fn head(person: &Person, project: &str) -> Value {
    person.get(&format!("{project}/sessions")).await.json["meta"]["asOf"]["seq"].clone()
}

#[tokio::test]
async fn a_key_that_deleted_one_project_deletes_another_too() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let projects = two_projects(&ann).await;
    for project in &projects {
        let session = ann.post(&format!("{project}/sessions"), json!({})).await;
        let session =
            format!("{project}/sessions/{}", session.json["data"]["id"].as_str().unwrap());
        assert!(!is_replay(&with_key(&ann, "DELETE", project, "").await));
        assert_eq!(rest_refusal(&ann.get(&session).await).code, ErrorCode::NotFound);
    }
    assert_eq!(ann.get("/v1/projects").await.json["data"], json!([]));
}

#[tokio::test]
async fn a_key_counts_in_its_own_project() {
    let app = spawn_app().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let projects = two_projects(&ann).await;
    for project in &projects {
        let id: ProjectId = project.rsplit('/').next().unwrap().parse().unwrap();
        ann.add_member(&id, &bob, Role::Viewer).await;
        let member = format!("{project}/members/{}", bob.id());
        let archive = format!("{project}/archive");
        let steps = [
            ("PATCH", project.as_str(), r#"{"name":"new"}"#),
            ("DELETE", member.as_str(), ""),
            ("POST", archive.as_str(), ""),
        ];
        for (method, path, body) in steps {
            let first = with_key(&ann, method, path, body).await;
            assert!(!is_replay(&first), "{method} {path}");
            let before = head(&ann, project).await;
            let again = with_key(&ann, method, path, body).await;
            assert!(is_replay(&again), "{method} {path}");
            assert_eq!(again.json, first.json);
            assert_eq!(head(&ann, project).await, before, "{method} {path} was told again");
        }
        assert_eq!(rest_refusal(&bob.get(project).await).code, ErrorCode::NotFound);
        let now = ann.get(project).await.json["data"].clone();
        assert!(now["name"] == "new" && now["archivedAt"].is_i64(), "{now}");
    }
}

#[tokio::test]
async fn a_repeated_write_of_a_file_does_not_undo_a_later_one() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let write = |key: &str, content: &str| {
        json!({ "id": "1", "type": "file.write", "projectId": project, "idempotencyKey": key,
                "payload": { "path": "a.txt", "content": content } })
    };
    let content = async || ann.client.file_get(&project, "a.txt").await.unwrap();
    let mut socket = ann.wire().await;
    for over_socket in [true, false] {
        let mut send = async |key: &str, content: &str| {
            let frame = write(&format!("{key} {over_socket}"), content);
            if over_socket {
                socket.say(frame.to_string()).await;
                return socket.response("1").await;
            }
            ann.post("/v1/commands", frame).await.json
        };
        let first = send("k1", "one").await;
        let second = send("k2", "two").await;
        assert!(first["seq"].as_u64() < second["seq"].as_u64(), "{first} {second}");
        assert_eq!(send("k1", "one").await, first);
        assert_eq!(content().await, "two");
        assert_eq!(send("k1", "three").await["error"]["code"], "IDEMPOTENCY_CONFLICT");
        assert_eq!(content().await, "two");
    }
    let answer = ann.post("/v1/commands", write("k1 false", "three")).await;
    assert_eq!(answer.status, 422);
}
