//! Signs of life: pings of the server, and what goes with them.

use std::time::Duration;

use iris_actors::connection::SocketSettings;
use iris_protocol::{Position, Room};
use iris_testkit::{AppOptions, Incoming, TestApp, WireSocket, spawn_app_with};
use serde_json::{Value, json};

async fn app(ping_interval: Option<Duration>, pong_timeout: Duration) -> TestApp {
    let sockets = SocketSettings { ping_interval, pong_timeout, ..SocketSettings::default() };
    spawn_app_with(AppOptions { sockets, ..AppOptions::default() }).await
}

/// A server that pings often and waits long for the answer.
async fn lively() -> TestApp {
    app(Some(Duration::from_millis(40)), Duration::from_mins(1)).await
}

/// The rooms of the next heartbeat for which `is_right`; frames before it are dropped.
async fn heartbeat(socket: &mut WireSocket, is_right: impl Fn(&Value) -> bool) -> Value {
    loop {
        let mut frame = socket.next_json().await;
        if frame["type"] == "heartbeat" && is_right(&frame["payload"]["rooms"]) {
            assert!(frame["payload"]["at"].as_i64().unwrap() > 0);
            assert_eq!((&frame["seq"], &frame["room"]), (&Value::Null, &Value::Null));
            return frame["payload"]["rooms"].take();
        }
    }
}

#[tokio::test]
async fn a_heartbeat_names_the_last_event_of_each_joined_room() {
    let app = lively().await;
    let mut ann = app.user("ann").await.conversation().await;
    ann.ask("say hello").await;
    let session = Room::Session(ann.session.clone()).to_string();
    let project = Room::Project(ann.project.clone()).to_string();
    let of_project = ann.connect_to_project().await;
    ann.person.rest("PATCH", &path(&ann), Some(json!({ "title": "new" }))).await;
    // Both rooms hear of it, the session first or last.
    let in_session = ann.wait_for("session.updated").await.meta.seq.unwrap();
    let in_project = loop {
        let frame = of_project.next_event().await.unwrap();
        if frame.event.name() == "session.updated" {
            break frame.meta.seq.unwrap();
        }
    };

    // One that comes now has heard none of these events.
    let mut socket = ann.person.wire().await;
    assert_eq!(heartbeat(&mut socket, |_| true).await, json!({}));
    let rooms = json!({ "rooms": [session, project] });
    socket.ask("1", "subscribe", Some(ann.project.as_str()), rooms).await;
    let joined = socket.response("1").await;
    let epoch = joined["payload"]["rooms"][0]["epoch"].as_str().unwrap().to_owned();
    let at = |seq| serde_json::to_value(Position { epoch: epoch.clone(), seq }).unwrap();
    let rooms = heartbeat(&mut socket, |rooms| rooms != &json!({})).await;
    let expected = [(session.clone(), at(in_session)), (project.clone(), at(in_project))];
    assert_eq!(rooms, Value::Object(expected.into_iter().collect()));

    let left = json!({ "rooms": [project] });
    socket.ask("2", "unsubscribe", None, left).await;
    socket.response("2").await;
    let rooms = heartbeat(&mut socket, |rooms| rooms.get(&project).is_none()).await;
    assert_eq!(rooms[&session], at(in_session));
    ann.person.rest("PATCH", &path(&ann), Some(json!({ "title": "newer" }))).await;
    let next = ann.wait_for("session.updated").await.meta.seq.unwrap();
    heartbeat(&mut socket, |rooms| rooms[&session] == at(next)).await;
}

fn path(conversation: &iris_testkit::Conversation) -> String {
    format!("/v1/projects/{}/sessions/{}", conversation.project, conversation.session)
}

#[tokio::test]
async fn who_lost_a_project_is_told_nothing_of_its_rooms() {
    let app = lively().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let project = ann.project("p").await.id;
    ann.add_member(&project, &bob, iris_protocol::Role::Viewer).await;
    let mut socket = bob.wire().await;
    let rooms = json!({ "rooms": [format!("project:{project}")] });
    socket.ask("1", "subscribe", Some(project.as_str()), rooms).await;
    heartbeat(&mut socket, |rooms| rooms != &json!({})).await;
    let member = format!("/v1/projects/{project}/members/{}", bob.id());
    assert!(ann.rest("DELETE", &member, None).await.is_success());
    heartbeat(&mut socket, |rooms| rooms == &json!({})).await;
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_closed_and_one_that_answers_is_not() {
    let app = app(Some(Duration::from_millis(40)), Duration::from_millis(200)).await;
    let ann = app.user("ann").await;
    assert_eq!(ann.connect().await.connected().unwrap().ping_interval_ms, 40);
    let mut lively = ann.wire().await;
    // A client answers pings when it reads; this one does not.
    let mut silent = ann.wire().await;
    let mut heard = 0;
    loop {
        heartbeat(&mut lively, |_| true).await;
        heard += 1;
        let actors = app.supervision().actors(None, None);
        if actors.iter().filter(|actor| actor.kind == "connection").count() == 1 {
            break;
        }
    }
    assert_eq!(silent.close_code().await, 4012);
    assert!(heard > 1, "{heard}");
    lively.ask("1", "ping", None, json!({})).await;
    assert_eq!(lively.response("1").await["success"], true);
}

#[tokio::test]
async fn pings_can_be_turned_off() {
    let app = app(None, Duration::from_millis(1)).await;
    let ann = app.user("ann").await;
    let socket = ann.connect().await;
    assert_eq!(socket.connected().unwrap().ping_interval_ms, 0);
    let mut wire = ann.wire().await;
    wire.ping(b"x").await;
    assert_eq!(wire.next().await, Incoming::Pong("x".into()));
}
