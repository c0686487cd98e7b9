//! Projects and their members.

use iris_protocol::{
    ErrorCode, Event, MemberRemove, MemberUpdate, ProjectId, Role, RoomRequest, SessionId,
    Subscribe,
};
use iris_testkit::{Person, TestApp, patiently, spawn_app, text_of};
use serde_json::{Value, json};

use crate::{code_of, refusal, rest_refusal};

#[tokio::test]
async fn a_project_is_created_read_changed_and_deleted() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let created = ann.post("/v1/projects", json!({ "name": "one", "description": "d" })).await;
    assert_eq!((created.status, &created.json["data"]["role"]), (201, &json!("owner")));
    let id = created.json["data"]["id"].as_str().unwrap();
    let path = format!("/v1/projects/{id}");
    let mut found = ann.get(&path).await.json;
    found["data"].as_object_mut().unwrap().remove("storage").unwrap();
    assert_eq!(found, created.json);
    let body = json!({ "name": "two", "settings": { "theme": "dark" } });
    let changed = ann.rest("PATCH", &path, Some(body)).await.json["data"].clone();
    assert_eq!((&changed["name"], &changed["description"]), (&json!("two"), &json!("d")));
    assert_eq!(changed["settings"], json!({ "theme": "dark" }));

    let files = app.data_dir().join("projects").join(id);
    assert!(files.exists());
    assert!(ann.rest("DELETE", &path, None).await.is_success());
    assert_eq!(rest_refusal(&ann.get(&path).await).code, ErrorCode::NotFound);
    assert!(!files.exists());
    assert_eq!(ann.get("/v1/projects").await.json["data"], json!([]));
}

#[tokio::test]
async fn members_see_how_much_a_project_holds_and_may_hold() {
    let app = spawn_app().await;
    let (root, ann, bob) = (app.admin().await, app.user("ann").await, app.user("bob").await);
    let mut talk = ann.conversation().await;
    ann.add_member(&talk.project, &bob, Role::Viewer).await;
    ann.client.file_put(&talk.project, "a.txt", "four").await.unwrap();
    talk.ask("say hello").await;
    let held = async |person: &Person| {
        let path = format!("/v1/projects/{}", talk.project);
        person.get(&path).await.json["data"]["storage"].clone()
    };
    let held = held(&bob).await;
    let limits = ["rowsMax", "bytesMax", "filesMax", "fileBytesMax"];
    let quotas = iris_store::project::Quotas::default();
    let set = [quotas.rows_max, quotas.bytes_max, quotas.files_max, quotas.file_bytes_max];
    assert_eq!(limits.map(|name| held[name].as_u64().unwrap()), set);
    assert_eq!((held["files"].as_u64(), held["fileBytes"].as_u64()), (Some(1), Some(4)));
    assert!(held["rows"].as_u64().unwrap() >= 2 && held["bytes"].as_u64().unwrap() > 0, "{held}");
    let listed = ann.get("/v1/projects").await.json["data"][0].clone();
    assert_eq!(listed["storage"], json!(null), "{listed}");
    let counted = patiently("the metrics", async {
        loop {
            let text = root.get("/metrics").await.body;
            let text = String::from_utf8(text.to_vec()).unwrap();
            let series = ["rows", "bytes", "files", "file_bytes"].map(|name| {
                let name = format!("iris_project_{name} ");
                text.lines().find_map(|it| it.strip_prefix(&name)?.parse::<u64>().ok()).unwrap()
            });
            if series[2] == 1 && series[0] == held["rows"].as_u64().unwrap() {
                return series;
            }
        }
    });
    let [_, bytes, _, file_bytes] = counted.await;
    assert!(bytes > 0 && file_bytes == 4, "{bytes} {file_bytes}");
}

#[tokio::test]
async fn a_project_that_cannot_be_is_refused() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    for (body, code) in [
        (json!({}), ErrorCode::InvalidRequest),
        (json!({ "name": " " }), ErrorCode::InvalidRequest),
        (json!({ "name": "x".repeat(201) }), ErrorCode::InvalidRequest),
        (json!({ "name": "a\nb" }), ErrorCode::InvalidRequest),
        (json!({ "name": "x", "type": "moon" }), ErrorCode::InvalidRequest),
        (json!({ "name": "x", "description": "x".repeat(4097) }), ErrorCode::PayloadTooLarge),
    ] {
        assert_eq!(
            rest_refusal(&ann.post("/v1/projects", body.clone()).await).code,
            code,
            "{body}"
        );
    }
}

#[tokio::test]
async fn the_settings_of_a_project_nest_to_a_bounded_depth() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let path = format!("/v1/projects/{}", ann.project("p").await.id);
    let nested = |depth: usize| (0..depth).fold(json!(1), |inner, _| json!([inner]));
    let set = async |depth| {
        ann.rest("PATCH", &path, Some(json!({ "settings": { "a": nested(depth) } }))).await
    };
    assert!(set(32).await.is_success());
    for depth in [33, 40, 120] {
        let refused = rest_refusal(&set(depth).await);
        assert_eq!(code_of(&refused), (ErrorCode::InvalidRequest, "too_deep"), "{depth}");
    }
    assert_eq!(ann.get(&path).await.json["data"]["settings"], json!({ "a": nested(32) }));
}

#[tokio::test]
async fn projects_are_listed_newest_first_page_by_page() {
    let app = spawn_app().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    bob.project("his").await;
    let mut expected = Vec::new();
    for name in ["one", "two", "three"] {
        expected.insert(0, ann.project(name).await.id.to_string());
    }
    let first = ann.get("/v1/projects?limit=2").await.json;
    assert_eq!(first["meta"]["hasMore"], true);
    let cursor = first["meta"]["nextCursor"].as_str().unwrap();
    let second = ann.get(&format!("/v1/projects?limit=2&cursor={cursor}")).await.json;
    assert_eq!(second["meta"], json!({ "nextCursor": null, "hasMore": false }));
    let pages = first["data"].as_array().unwrap().iter().chain(second["data"].as_array().unwrap());
    let ids: Vec<_> = pages.map(|project| project["id"].as_str().unwrap()).collect();
    assert_eq!(ids, expected);
    assert_eq!(bob.get("/v1/projects").await.json["data"].as_array().unwrap().len(), 1);
    let bad = rest_refusal(&ann.get("/v1/projects?cursor=nonsense").await);
    assert_eq!(code_of(&bad), (ErrorCode::InvalidRequest, "invalid_cursor"));
}

#[tokio::test]
async fn an_archived_project_is_read_only_until_it_comes_back() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let mut conversation = ann.conversation().await;
    let path = format!("/v1/projects/{}", conversation.project);
    let archived = ann.post(&format!("{path}/archive"), json!({})).await;
    assert!(archived.json["data"]["archivedAt"].is_i64(), "{archived:?}");
    let refused = refusal(conversation.try_send("say hi", None).await);
    assert_eq!(code_of(&refused), (ErrorCode::Conflict, "project_archived"));
    let put = ann.client.file_put(&conversation.project, "a.txt", "x").await;
    assert_eq!(refusal(put).code, ErrorCode::Conflict);
    let rename = ann.rest("PATCH", &path, Some(json!({ "name": "x" }))).await;
    assert_eq!(rest_refusal(&rename).code, ErrorCode::Conflict);
    assert!(ann.get(&format!("{path}/sessions")).await.is_success());
    assert_eq!(ann.get("/v1/projects").await.json["data"], json!([]));
    let all = ann.get("/v1/projects?includeArchived=true").await.json;
    assert_eq!(all["data"].as_array().unwrap().len(), 1);

    let back = ann.post(&format!("{path}/unarchive"), json!({})).await;
    assert_eq!(back.json["data"]["archivedAt"], Value::Null);
    assert_eq!(text_of(&conversation.ask("say hi").await), "hi");
}

async fn with_bob() -> (TestApp, Person, Person, ProjectId) {
    let app = spawn_app().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let project = ann.project("p").await.id;
    (app, ann, bob, project)
}

#[tokio::test]
async fn members_are_added_listed_changed_and_removed() {
    let (_app, ann, bob, project) = with_bob().await;
    let path = format!("/v1/projects/{project}/members");
    let body = json!({ "email": "Bob@example.com", "role": "viewer" });
    let added = ann.post(&path, body.clone()).await;
    assert_eq!((added.status, &added.json["data"]["username"]), (201, &json!("bob")));
    assert_eq!(code_of(&rest_refusal(&ann.post(&path, body).await)).1, "already_member");
    let list = bob.get(&path).await.json;
    let roles: Vec<_> = list["data"].as_array().unwrap().iter().map(|m| &m["role"]).collect();
    assert_eq!(roles, [&json!("owner"), &json!("viewer")]);
    assert!(list["data"][1].get("email").is_none());

    let his = format!("{path}/{}", bob.id());
    ann.rest("PATCH", &his, Some(json!({ "role": "admin" }))).await;
    assert_eq!(bob.get(&format!("/v1/projects/{project}")).await.json["data"]["role"], "admin");
    let hers = format!("{path}/{}", ann.id());
    let demoted = bob.rest("PATCH", &hers, Some(json!({ "role": "viewer" }))).await;
    assert_eq!(code_of(&rest_refusal(&demoted)), (ErrorCode::Conflict, "owner_role"));
    let removed = bob.rest("DELETE", &hers, None).await;
    assert_eq!(code_of(&rest_refusal(&removed)), (ErrorCode::Conflict, "last_owner"));
    let crowned = ann.rest("PATCH", &his, Some(json!({ "role": "owner" }))).await;
    assert_eq!(code_of(&rest_refusal(&crowned)), (ErrorCode::InvalidRequest, "owner_role"));

    assert!(ann.rest("DELETE", &his, None).await.is_success());
    assert_eq!(rest_refusal(&bob.get(&path).await).code, ErrorCode::NotFound);
    assert_eq!(rest_refusal(&ann.rest("DELETE", &his, None).await).code, ErrorCode::NotFound);
}

#[tokio::test]
async fn a_member_that_cannot_be_is_refused() {
    let (_app, ann, bob, project) = with_bob().await;
    let path = format!("/v1/projects/{project}/members");
    for (body, code) in [
        (json!({ "email": "nobody@example.com", "role": "viewer" }), ErrorCode::NotFound),
        (json!({ "role": "viewer" }), ErrorCode::InvalidRequest),
        (
            json!({ "userId": bob.id(), "email": "bob@example.com", "role": "viewer" }),
            ErrorCode::InvalidRequest,
        ),
        (json!({ "userId": bob.id(), "role": "owner" }), ErrorCode::InvalidRequest),
        (json!({ "userId": bob.id(), "role": "king" }), ErrorCode::InvalidRequest),
        (json!({ "userId": bob.id(), "role": "viewer", "more": 1 }), ErrorCode::InvalidRequest),
    ] {
        assert_eq!(rest_refusal(&ann.post(&path, body.clone()).await).code, code, "{body}");
    }
}

#[tokio::test]
async fn a_removed_member_leaves_the_rooms_and_hears_nothing_more() {
    let (_app, ann, bob, project) = with_bob().await;
    ann.add_member(&project, &bob, Role::Member).await;
    let his_own = bob.project("his").await.id;
    let mut talk = ann.conversation_in(&project).await;
    let mut his = bob.join(&project, &talk.session).await;
    let rooms = vec![RoomRequest::Live(format!("project:{project}"))];
    his.call(Subscribe { rooms, deltas: None, presence: None }).await.unwrap();

    talk.call(MemberRemove { user_id: bob.id().clone() }).await.unwrap();
    let mut left = Vec::new();
    for _ in 0..2 {
        match his.wait_for("room.left").await.event {
            Event::RoomLeft { room, code } => left.push((room, code)),
            other => panic!("{other:?}"),
        }
    }
    left.sort_by(|(one, _), (other, _)| one.cmp(other));
    let expected = [format!("project:{project}"), format!("session:{}", talk.session)];
    assert_eq!(left, expected.map(|room| (room, ErrorCode::NotFound)));

    talk.ask("say secret").await;
    assert_eq!(refusal(his.try_send("say no", None).await).code, ErrorCode::NotFound);
    // The socket goes on for his own projects, and the answer is the next thing that he hears.
    let rooms = vec![RoomRequest::Live(format!("project:{his_own}"))];
    his.socket
        .call(Some(&his_own), Subscribe { rooms, deltas: None, presence: None })
        .await
        .unwrap();
    bob.session(&his_own).await;
    let next = patiently("his own event", his.socket.next_event()).await.unwrap();
    assert_eq!(next.meta.project_id, Some(his_own));
}

#[tokio::test]
async fn a_deleted_project_takes_its_rooms_away_and_leaves_the_socket() {
    let (_app, ann, bob, project) = with_bob().await;
    ann.add_member(&project, &bob, Role::Viewer).await;
    let mut his = bob.conversation().await;
    let rooms = vec![RoomRequest::Live(format!("project:{project}"))];
    his.socket
        .call(Some(&project), Subscribe { rooms, deltas: None, presence: None })
        .await
        .unwrap();
    // Each member is told, whatever they hear.
    let hers = ann.connect().await;
    ann.rest("DELETE", &format!("/v1/projects/{project}"), None).await;
    let told = patiently("the event", hers.next_event()).await.unwrap();
    assert_eq!(told.meta.room.to_string(), format!("user:{}", ann.id()));
    let deleted = Event::ProjectDeleted {
        project_id: project.clone(),
        name: "p".to_owned(),
        by: ann.id().clone(),
    };
    assert_eq!(told.event, deleted);
    assert_eq!(his.wait_for("project.deleted").await.event, deleted);
    let left = his.wait_for("room.left").await.event;
    let room = format!("project:{project}");
    assert_eq!(left, Event::RoomLeft { room, code: ErrorCode::NotFound });
    assert_eq!(text_of(&his.ask("say still here").await), "still here");
}

#[tokio::test]
async fn a_member_who_is_removed_while_joining_hears_nothing_either() {
    let (_app, ann, bob, project) = with_bob().await;
    let mut hers = ann.conversation_in(&project).await;
    let mut his = bob.wire().await;
    // The first one is looked for in the database, before the others are joined.
    let nowhere = SessionId::from_bits(1);
    let rooms = [format!("session:{nowhere}"), format!("session:{}", hers.session)];
    let rooms = json!({ "rooms": rooms });
    let path = format!("/v1/projects/{project}/sessions/{}", hers.session);
    for round in 0..40 {
        ann.add_member(&project, &bob, Role::Viewer).await;
        his.ask("join", "subscribe", Some(project.as_str()), rooms.clone()).await;
        hers.call(MemberRemove { user_id: bob.id().clone() }).await.unwrap();
        his.response("join").await;
        ann.rest("PATCH", &path, Some(json!({ "title": "secret" }))).await;
        hers.wait_for("session.updated").await;
        his.ask("end", "ping", None, json!({})).await;
        loop {
            let frame = his.next_json().await;
            assert_ne!(frame["type"], "session.updated", "round {round}");
            if frame["id"] == "end" {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_change_of_role_counts_from_the_next_command_on() {
    let (_app, ann, bob, project) = with_bob().await;
    ann.add_member(&project, &bob, Role::Member).await;
    let mut his = bob.conversation_in(&project).await;
    his.ask("say yes").await;
    let request = MemberUpdate { user_id: bob.id().clone(), role: Role::Viewer };
    ann.client.call(Some(&project), request).await.unwrap();
    assert_eq!(refusal(his.try_send("say no", None).await).code, ErrorCode::Forbidden);
}

#[tokio::test]
async fn changes_of_a_project_are_told_in_its_room() {
    let (_app, ann, bob, project) = with_bob().await;
    let socket = ann.connect().await;
    let rooms = vec![RoomRequest::Live(format!("project:{project}"))];
    socket.call(Some(&project), Subscribe { rooms, deltas: None, presence: None }).await.unwrap();
    ann.add_member(&project, &bob, Role::Viewer).await;
    let path = format!("/v1/projects/{project}");
    let his = format!("{path}/members/{}", bob.id());
    ann.rest("PATCH", &his, Some(json!({ "role": "member" }))).await;
    ann.rest("DELETE", &his, None).await;
    ann.rest("PATCH", &path, Some(json!({ "name": "new" }))).await;
    ann.post(&format!("{path}/archive"), json!({})).await;
    ann.post(&format!("{path}/unarchive"), json!({})).await;
    ann.session(&project).await;
    for name in [
        "member.added",
        "member.updated",
        "member.removed",
        "project.updated",
        "project.archived",
        "project.unarchived",
        "session.created",
    ] {
        let told = patiently(name, socket.next_event()).await.unwrap();
        assert_eq!((told.event.name(), told.meta.by.as_ref()), (name, Some(ann.id())));
    }
}
