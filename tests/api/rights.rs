//! Rights that end while frames wait for whoever had them.

use std::time::Duration;

use futures_util::future::{join, join_all};
use iris_actors::connection::SocketSettings;
use iris_protocol::{ErrorCode, MemberRemove, ProjectId, Role};
use iris_testkit::{
    AppOptions, Conversation, EventStream, Incoming, Person, TestApp, WireSocket, spawn_app_with,
};
use serde_json::{Value, json};

use crate::rest_refusal;

/// Messages that are more than the kernel buffers for a reader, and less than may wait.
const MESSAGES: usize = 4;

/// A server that lets those who do not read take their time.
async fn patient_app() -> TestApp {
    let abort_after = Duration::from_mins(1);
    let sockets = SocketSettings { abort_after, ..SocketSettings::default() };
    spawn_app_with(AppOptions { sockets, ..AppOptions::default() }).await
}

/// A member who hears a session and does not read.
async fn silent(talk: &Conversation, person: &Person) -> WireSocket {
    talk.person.add_member(&talk.project, person, Role::Member).await;
    let mut socket = person.wire().await;
    let rooms = json!({ "rooms": [format!("session:{}", talk.session)] });
    socket.ask("1", "subscribe", Some(talk.project.as_str()), rooms).await;
    assert_eq!(socket.response("1").await["success"], true);
    socket
}

async fn say_much(talk: &mut Conversation) {
    talk.send_message("call write {\"path\": \"a\", \"content\": \"\"}").await;
    talk.approval().await;
    let long = format!("say ok\n#{}", "x".repeat(200_000));
    for _ in 0..MESSAGES {
        talk.send_message(&long).await;
        talk.wait_for("message.created").await;
    }
}

/// How many long messages a socket hears until `is_over`.
async fn long_until(socket: &mut WireSocket, is_over: impl Fn(&Incoming) -> bool) -> usize {
    let mut long = 0;
    loop {
        let incoming = socket.next().await;
        if is_over(&incoming) {
            return long;
        }
        if let Incoming::Json(frame) = &incoming {
            long += usize::from(frame.to_string().len() > 200_000);
        }
    }
}

fn is_left(incoming: &Incoming) -> bool {
    matches!(incoming, Incoming::Json(frame) if frame["type"] == "room.left")
}

#[tokio::test]
async fn what_waits_for_a_member_who_is_removed_is_dropped() {
    let app = patient_app().await;
    let mut talk = app.user("ann").await.conversation().await;
    let bob = app.user("bob").await;
    let mut socket = silent(&talk, &bob).await;
    say_much(&mut talk).await;
    let his_own = bob.project("his").await.id;
    let rooms = json!({ "rooms": [format!("project:{his_own}")] });
    socket.ask("2", "subscribe", Some(his_own.as_str()), rooms).await;
    talk.call(MemberRemove { user_id: bob.id().clone() }).await.unwrap();
    // What was on its way to him when he had the right is all that he gets, and his own is kept.
    let heard = long_until(&mut socket, is_left).await;
    assert!(heard < MESSAGES, "{heard}");
    bob.session(&his_own).await;
    loop {
        let frame = socket.next_json().await;
        assert_ne!(frame["projectId"], json!(talk.project));
        if frame["projectId"] == json!(his_own) {
            break;
        }
    }
}

#[tokio::test]
async fn what_a_stream_was_to_catch_up_with_is_dropped_when_its_reader_is_removed() {
    const SESSIONS: usize = 6;
    const TITLES: usize = 300;
    let app = patient_app().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let project = ann.project("p").await.id;
    ann.add_member(&project, &bob, Role::Member).await;
    let before =
        ann.get(&format!("/v1/projects/{project}/sessions")).await.json["meta"]["asOf"].clone();
    let mut rooms = Vec::new();
    for _ in 0..SESSIONS {
        let session = ann.session(&project).await.id;
        let path = format!("/v1/projects/{project}/sessions/{session}");
        for n in 0..TITLES / SESSIONS {
            let title = format!("{n}{}", "x".repeat(190));
            ann.rest("PATCH", &path, Some(json!({ "title": title }))).await;
        }
        rooms.push(format!("session:{session}"));
    }
    let since = format!("{}.{}", before["epoch"].as_str().unwrap(), before["seq"]);
    let url = format!("/v1/projects/{project}/events?rooms={}&since={since}", rooms.join(","));
    let mut stream = EventStream::open(&app.url, &url, Some(bob.token()), &[]).await.unwrap();
    remove(&ann, &project, &bob).await;
    let rest = stream.rest().await;
    let count = |name: &str| rest.iter().filter(|event| event["type"] == name).count();
    assert_eq!(count("room.left"), SESSIONS);
    assert!(count("session.updated") < TITLES, "{}", count("session.updated"));
}

async fn remove(ann: &Person, project: &ProjectId, bob: &Person) {
    let member = format!("/v1/projects/{project}/members/{}", bob.id());
    assert!(ann.rest("DELETE", &member, None).await.is_success());
}

/// Titles that a session gets from somebody who loses the right to give them meanwhile.
const WRITES: usize = 12;

/// A write that is under way beside the removal of its writer happens whole or is refused, and none that
/// begins after the removal was answered happens.
#[tokio::test]
async fn a_write_beside_the_removal_of_its_writer_comes_before_it_or_is_refused() {
    let app = patient_app().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    for round in 0..6 {
        let project = ann.project("p").await.id;
        ann.add_member(&project, &bob, Role::Member).await;
        let session = ann.session(&project).await.id;
        let place = format!("/v1/projects/{project}/sessions/{session}");
        let write =
            async |title: String| bob.rest("PATCH", &place, Some(json!({ "title": title }))).await;
        let since = ann.get(&format!("/v1/projects/{project}/sessions")).await;
        let since = since.json["meta"]["asOf"].clone();
        let since = format!("{}.{}", since["epoch"].as_str().unwrap(), since["seq"]);
        let writes = join_all((0..WRITES).map(|n| write(format!("{round} {n}"))));
        let removal = async {
            // In each round another number of writes is ahead of it.
            for _ in 0..round * 2 {
                assert!(ann.get("/v1/me").await.is_success());
            }
            remove(&ann, &project, &bob).await;
            write("too late".to_owned()).await
        };
        let (writes, late) = join(writes, removal).await;
        assert_eq!(rest_refusal(&late).code, ErrorCode::NotFound);
        for answer in writes.iter().filter(|answer| !answer.is_success()) {
            assert_eq!(rest_refusal(answer).code, ErrorCode::NotFound);
        }
        let done = writes.iter().filter(|answer| answer.is_success()).count();
        // Each that was answered as done has its event, and no other has one.
        let url = format!("/v1/projects/{project}/events?rooms=session:{session}&since={since}");
        let mut stream = EventStream::open(&app.url, &url, Some(ann.token()), &[]).await.unwrap();
        ann.rest("PATCH", &place, Some(json!({ "title": "the end" }))).await;
        let mut told = 0;
        loop {
            let event = stream.wait_for("session.updated").await;
            let title = &event["payload"]["session"]["title"];
            assert_ne!(title, "too late");
            if title == "the end" {
                break;
            }
            told += 1;
        }
        assert_eq!(told, done);
    }
}

#[tokio::test]
async fn what_waits_for_a_login_that_ends_is_dropped() {
    let app = patient_app().await;
    let mut talk = app.user("ann").await.conversation().await;
    let bob = app.user("bob").await;
    let mut socket = silent(&talk, &bob).await;
    say_much(&mut talk).await;
    assert!(bob.post("/v1/auth/logout", Value::Object(serde_json::Map::new())).await.is_success());
    let is_closed = |incoming: &Incoming| match incoming {
        Incoming::Closed { code, .. } => *code == 4401,
        Incoming::Json(_) | Incoming::Binary(_) | Incoming::Pong(_) => false,
    };
    let heard = long_until(&mut socket, is_closed).await;
    assert!(heard < MESSAGES, "{heard}");
}
