//! The room of the server: the supervision log, live.

use iris_client::Socket;
use iris_protocol::{
    ErrorCode, Event, EventFrame, Room, RoomOutcome, RoomRequest, RoomStatus, Subscribe,
    SupervisionRecord, Unsubscribe,
};
use iris_testkit::{Person, WireSocket, patiently, spawn_app};
use serde_json::json;

use super::session_path;

async fn join(
    socket: &Socket,
    rooms: &[&str],
    project: Option<&iris_protocol::ProjectId>,
) -> Vec<RoomOutcome> {
    let rooms = rooms.iter().map(|room| RoomRequest::Live((*room).to_owned())).collect();
    socket
        .call(project, Subscribe { rooms, deltas: None, presence: None })
        .await
        .unwrap()
        .payload
        .rooms
}

/// A socket that hears the log.
async fn listener(root: &Person) -> Socket {
    let socket = root.connect().await;
    let outcome = join(&socket, &["admin"], None).await.remove(0);
    assert_eq!((outcome.status, outcome.code), (RoomStatus::Live, None));
    assert_eq!((outcome.from, outcome.to, outcome.epoch.as_str()), (0, 0, ""));
    socket
}

async fn next(socket: &Socket) -> EventFrame {
    patiently("a record", socket.next_event()).await.unwrap()
}

fn record_of(frame: EventFrame) -> SupervisionRecord {
    assert_eq!((&frame.meta.room, &frame.meta.project_id), (&Room::Admin, &None));
    assert_eq!((frame.meta.seq, frame.meta.prev, frame.meta.at), (None, None, None));
    match frame.event {
        Event::SupervisionStarted { record }
        | Event::SupervisionStopped { record }
        | Event::SupervisionRestarted { record } => record,
        other => panic!("{other:?}"),
    }
}

/// The records up to the first that is the right one.
async fn until(
    socket: &Socket,
    is_right: impl Fn(&SupervisionRecord) -> bool,
) -> Vec<SupervisionRecord> {
    let mut records = Vec::new();
    loop {
        records.push(record_of(next(socket).await));
        if records.last().is_some_and(&is_right) {
            return records;
        }
    }
}

#[tokio::test]
async fn records_are_heard_in_order_as_they_are_written() {
    let app = spawn_app().await;
    let root = app.admin().await;
    let socket = listener(&root).await;
    let mut ann = app.user("ann").await.conversation().await;
    ann.ask("say hi").await;
    let path = session_path(&ann.project, &ann.session);
    root.client.restart_actor(&path).await.unwrap();
    let heard =
        until(&socket, |record| record.path == path && record.counts.contains_key("restarts"))
            .await;
    assert!(heard.is_sorted_by(|a, b| a.id < b.id), "{heard:?}");
    let said: Vec<_> = heard.iter().map(|r| (r.kind.as_str(), r.actor_kind.as_str())).collect();
    assert_eq!(
        said,
        [
            ("started", "project"),
            ("started", "connection"),
            ("started", "session"),
            ("started", "orchestrator"),
            ("stopped", "orchestrator"),
            ("restarted", "session"),
        ]
    );
    // What was heard is what is listed.
    let request =
        iris_protocol::SupervisionList { since: Some(heard[0].id - 1), ..Default::default() };
    assert_eq!(root.client.supervision(&request).await.unwrap().records, heard);
}

#[tokio::test]
async fn the_frame_of_a_record_names_its_kind() {
    let app = spawn_app().await;
    let root = app.admin().await;
    let mut socket = root.wire().await;
    socket.ask("1", "subscribe", None, json!({ "rooms": ["admin"] })).await;
    let response = socket.response("1").await;
    assert_eq!(response["payload"]["rooms"][0]["status"], "live", "{response}");
    let other = root.wire().await;
    let frame = socket.next_json().await;
    assert_eq!((&frame["type"], &frame["room"]), (&json!("supervision.started"), &json!("admin")));
    assert_eq!(
        (&frame["payload"]["kind"], &frame["payload"]["actorKind"]),
        (&json!("started"), &json!("connection"))
    );
    for absent in ["projectId", "seq", "prev", "at", "by"] {
        assert!(frame.get(absent).is_none(), "{frame}");
    }
    drop(other);
    assert_eq!(socket.next_json().await["type"], "supervision.stopped");
}

#[tokio::test]
async fn who_is_no_administrator_is_refused_and_keeps_the_other_rooms() {
    let app = spawn_app().await;
    let (root, ann) = (app.admin().await, app.user("ann").await);
    let project = ann.project("p").await.id;
    let socket = ann.connect().await;
    let of_project = format!("project:{project}");
    let outcomes = join(&socket, &["admin", &of_project], Some(&project)).await;
    assert_eq!(
        (outcomes[0].status, outcomes[0].code),
        (RoomStatus::Refused, Some(ErrorCode::Forbidden))
    );
    assert_eq!(outcomes[1].status, RoomStatus::Live);
    let alone = join(&socket, &["admin"], None).await.remove(0);
    assert_eq!((alone.status, alone.code), (RoomStatus::Refused, Some(ErrorCode::Forbidden)));
    // Starts an actor, of which she hears nothing.
    let other = root.connect().await;
    ann.session(&project).await;
    assert_eq!(next(&socket).await.event.name(), "session.created");
    other.close().await;
}

#[tokio::test]
async fn an_administrator_hears_the_log_beside_the_rooms_of_a_project() {
    let app = spawn_app().await;
    let root = app.admin().await;
    let project = root.project("p").await.id;
    let socket = root.connect().await;
    let of_project = format!("project:{project}");
    let outcomes = join(&socket, &[&of_project, "admin"], Some(&project)).await;
    assert!(outcomes.iter().all(|outcome| outcome.status == RoomStatus::Live), "{outcomes:?}");
    root.session(&project).await;
    assert_eq!(next(&socket).await.event.name(), "session.created");
    let other = root.connect().await;
    assert_eq!(next(&socket).await.event.name(), "supervision.started");
    other.close().await;
}

#[tokio::test]
async fn who_left_the_room_hears_nothing_and_who_joined_twice_hears_everything_once() {
    let app = spawn_app().await;
    let root = app.admin().await;
    let project = root.project("p").await.id;
    let (socket, witness) = (listener(&root).await, listener(&root).await);
    // That of the second listener.
    assert_eq!(next(&socket).await.event.name(), "supervision.started");
    let leave = || Unsubscribe { rooms: vec!["admin".to_owned()] };
    socket.call(None, leave()).await.unwrap();
    let other = root.connect().await;
    assert_eq!(next(&witness).await.event.name(), "supervision.started");
    other.close().await;
    assert_eq!(next(&witness).await.event.name(), "supervision.stopped");
    // A room that is heard shows that nothing came before.
    join(&socket, &[&format!("project:{project}")], Some(&project)).await;
    root.session(&project).await;
    assert_eq!(next(&socket).await.event.name(), "session.created");

    join(&socket, &["admin"], None).await;
    socket.call(None, leave()).await.unwrap();
    join(&socket, &["admin"], None).await;
    join(&socket, &["admin"], None).await;
    let mut other = Vec::new();
    for _ in 0..2 {
        other.push(root.connect().await);
    }
    let (first, second) = (record_of(next(&socket).await), record_of(next(&socket).await));
    assert_ne!(first.path, second.path);
}

#[tokio::test]
async fn a_login_that_ended_hears_no_more() {
    let app = spawn_app().await;
    let root = app.admin().await;
    let mut socket = WireSocket::open(&app.url, Some(root.token())).await.unwrap();
    socket.ask("1", "subscribe", None, json!({ "rooms": ["admin"] })).await;
    socket.response("1").await;
    root.post("/v1/auth/logout", json!({})).await;
    assert_eq!(socket.close_code().await, 4401);
    app.wait_for_actors("the end of the connection", |actors| {
        actors.iter().all(|actor| actor.kind != "connection")
    })
    .await;
}
