//! Joining rooms: many at once, with much to replay, and the same one twice.

use std::time::Duration;

use futures_util::future::join_all;
use iris_actors::connection::SocketSettings;
use iris_protocol::limits::{REPLAY_BYTES_MAX, ROOMS_PER_CONNECTION_MAX};
use iris_protocol::{Position, SessionCreate};
use iris_testkit::{AppOptions, Conversation, Incoming, WireSocket, spawn_app, spawn_app_with};
use serde_json::{Value, json};

use crate::metrics::outbound_bytes;

/// The events that come before the responses to these requests, and the responses.
async fn until_answered<const N: usize>(
    socket: &mut WireSocket,
    ids: [&str; N],
) -> (Vec<Value>, [Value; N]) {
    let (mut events, mut responses) = (Vec::new(), [const { Value::Null }; N]);
    while responses.contains(&Value::Null) {
        let frame = match socket.next().await {
            Incoming::Json(frame) => frame,
            other => panic!("{other:?} after {} events", events.len()),
        };
        match ids.iter().position(|id| frame["type"] == "response" && frame["id"] == *id) {
            Some(index) => responses[index] = frame,
            None => events.push(frame),
        }
    }
    (events, responses)
}

/// The durable events of one room, each of which has to name the one before it.
fn chain<'a>(events: &'a [Value], room: &str) -> Vec<&'a Value> {
    let is_of_it = |event: &&Value| event["room"] == room && !event["seq"].is_null();
    let events: Vec<_> = events.iter().filter(is_of_it).collect();
    for pair in events.windows(2) {
        assert_eq!(pair[1]["prev"], pair[0]["seq"], "a gap or a repeat in {room}");
    }
    events
}

#[tokio::test]
async fn rooms_that_are_being_joined_count_too() {
    const ROOMS: usize = ROOMS_PER_CONNECTION_MAX / 3;
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let maker = ann.connect().await;
    let mut socket = ann.wire().await;
    let mut requests = Vec::new();
    for _ in 0..4 {
        let mut rooms = Vec::new();
        for size in [ROOMS / 2, ROOMS.div_ceil(2)] {
            let new = SessionCreate { title: None, agent: None, model: None, mode: None };
            let made = (0..size).map(|_| maker.call(Some(&project), new.clone()));
            let made =
                join_all(made).await.into_iter().map(|made| made.unwrap().payload.session.id);
            rooms.extend(made.map(|id| format!("session:{id}")));
        }
        requests.push(json!({ "rooms": rooms }));
    }
    let ids = ["1", "2", "3", "4"];
    for (id, request) in ids.into_iter().zip(requests) {
        socket.ask(id, "subscribe", Some(project.as_str()), request).await;
    }
    let (_, [first, second, third, fourth]) = until_answered(&mut socket, ids).await;
    for response in [first, second, third] {
        let rooms = response["payload"]["rooms"].as_array().unwrap();
        assert!(rooms.len() == ROOMS && rooms.iter().all(|room| room["status"] == "live"));
    }
    assert_eq!(fourth["error"]["code"], "QUOTA_EXCEEDED");
    assert_eq!(fourth["error"]["details"]["reason"], "too_many_rooms");
}

#[tokio::test]
async fn a_replay_that_is_larger_than_what_may_wait_for_a_reader_arrives() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let mut talks: Vec<Conversation> = Vec::new();
    for _ in 0..8 {
        talks.push(ann.conversation_in(&project).await);
    }
    let long = format!("say ok\n#{}", "x".repeat(200_000));
    for talk in &mut talks {
        for _ in 0..2 {
            talk.ask(&long).await;
            talk.wait_for("session.status").await;
        }
    }
    let since = Position { epoch: talks[0].position.epoch.clone(), seq: 0 };
    let rooms = talks.iter().map(|talk| format!("session:{}", talk.session)).collect::<Vec<_>>();
    let asked = rooms.iter().map(|room| json!({ "room": room, "since": since }));
    let asked = json!({ "rooms": asked.collect::<Vec<_>>() });
    // Reads little by little: whatever the server sends at once has to wait.
    let mut socket = ann.wire().await;
    socket.ask("1", "subscribe", Some(project.as_str()), asked).await;
    let (events, [response]) = until_answered(&mut socket, ["1"]).await;
    for ((talk, room), outcome) in
        talks.iter().zip(&rooms).zip(response["payload"]["rooms"].as_array().unwrap())
    {
        assert_eq!(outcome["status"], "replayed");
        let events = chain(&events, room);
        let (first, last) = (&events[0], &events[events.len() - 1]);
        assert_eq!((&first["type"], &first["prev"]), (&json!("session.created"), &json!(0)));
        assert_eq!(last["seq"], talk.position.seq, "{}", last["type"]);
    }
}

#[tokio::test]
async fn replays_for_one_who_does_not_read_take_little_memory() {
    let sockets = SocketSettings {
        frame_age_max: Duration::from_secs(2),
        abort_after: Duration::from_millis(100),
        ..SocketSettings::default()
    };
    let app = spawn_app_with(AppOptions { sockets, ..AppOptions::default() }).await;
    let (root, ann) = (app.admin().await, app.user("ann").await);
    let project = ann.project("p").await.id;
    let long = format!("say ok\n#{}", "x".repeat(200_000));
    let (mut rooms, mut epoch) = (Vec::new(), String::new());
    for _ in 0..6 {
        let mut talk = ann.conversation_in(&project).await;
        for _ in 0..2 {
            talk.ask(&long).await;
        }
        rooms.push(format!("session:{}", talk.session));
        epoch.clone_from(&talk.position.epoch);
    }
    let since = Position { epoch, seq: 0 };
    let asked = rooms.iter().map(|room| json!({ "room": room, "since": since }));
    let mut socket = ann.wire().await;
    let asked = json!({ "rooms": asked.collect::<Vec<_>>() });
    socket.ask("1", "subscribe", Some(project.as_str()), asked).await;
    let enough = REPLAY_BYTES_MAX as u64 / 2;
    let mut most = 0;
    loop {
        let bytes = outbound_bytes(&root).await;
        most = most.max(bytes);
        // It is given up in the end.
        if most > enough && bytes == 0 {
            break;
        }
    }
    assert!(most < 5 * enough, "{most}");
}

#[tokio::test]
async fn of_two_joinings_of_one_room_at_once_each_is_sound_or_refused() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let mut talk = ann.conversation().await;
    talk.ask("say seen").await;
    let since = talk.position.clone();
    talk.ask("say missed").await;
    talk.wait_for("session.status").await;
    let room = format!("session:{}", talk.session);
    let path = format!("/v1/projects/{}/sessions/{}", talk.project, talk.session);
    for round in 0..20 {
        let mut socket = ann.wire().await;
        let (replayed, live) = (json!({ "room": room, "since": since }), json!(room));
        let both = if round % 2 == 0 { [replayed, live] } else { [live, replayed] };
        for (id, asked) in ["1", "2"].into_iter().zip(both) {
            let asked = json!({ "rooms": [asked] });
            socket.ask(id, "subscribe", Some(talk.project.as_str()), asked).await;
        }
        let (mut events, responses) = until_answered(&mut socket, ["1", "2"]).await;
        let outcomes = responses.map(|mut response| response["payload"]["rooms"][0].take());
        let is_replayed = outcomes.iter().any(|outcome| outcome["status"] == "replayed");
        // The one that came last stands.
        assert_ne!(outcomes[1]["status"], "refused", "{outcomes:?}");
        for outcome in outcomes.iter().filter(|outcome| outcome["status"] == "refused") {
            assert_eq!(outcome["code"], "CONFLICT");
        }
        let before = talk.position.seq;
        ann.rest("PATCH", &path, Some(json!({ "title": format!("{round}") }))).await;
        let after = talk.wait_for("session.updated").await.meta.seq;
        while events.last().is_none_or(|event| event["seq"].as_u64() != after) {
            events.push(socket.next_json().await);
        }
        let events = chain(&events, &room);
        let from = if is_replayed { since.seq } else { before };
        assert_eq!(events[0]["prev"], from, "{outcomes:?} {events:?}");
    }
}
