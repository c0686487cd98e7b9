//! Event streams (SSE): what a WebSocket hears, over one request of HTTP.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use iris_actors::connection::SocketSettings;
use iris_protocol::{
    ErrorCode, Position, ProjectId, Role, SessionId, SessionUpdate,
    limits::{REPLAY_EVENTS_MAX, ROOMS_PER_CONNECTION_MAX},
};
use iris_testkit::{
    AppOptions, EventStream, FakeProvider, Gate, PASSWORD, Person, Reply, TestApp, Told, chat,
    patiently, spawn_app, spawn_app_with,
};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::{code_of, flood, project_room, session_room};

fn path(project: &ProjectId, rooms: &[String]) -> String {
    format!("/v1/projects/{project}/events?rooms={}", rooms.join(","))
}

fn id_of(position: &Position) -> String {
    format!("{}.{}", position.epoch, position.seq)
}

async fn open(app: &TestApp, person: &Person, path: &str) -> EventStream {
    EventStream::open(&app.url, path, Some(person.token()), &[]).await.unwrap()
}

/// Opens a stream and takes what it says of itself. Gives also what became of the rooms.
async fn opened(app: &TestApp, person: &Person, path: &str) -> (EventStream, Vec<Value>) {
    let mut stream = open(app, person, path).await;
    assert_eq!(stream.next_event().await["type"], "connected");
    let subscribed = stream.next_event().await;
    assert_eq!(subscribed["type"], "subscribed");
    let rooms = subscribed["payload"]["rooms"].as_array().unwrap().clone();
    (stream, rooms)
}

async fn refused(app: &TestApp, person: Option<&Person>, path: &str) -> iris_protocol::ApiError {
    let token = person.map(Person::token);
    EventStream::open(&app.url, path, token, &[]).await.unwrap_err()
}

async fn rename(person: &Person, project: &ProjectId, session: &SessionId, title: &str) {
    let path = format!("/v1/projects/{project}/sessions/{session}");
    let renamed = person.rest("PATCH", &path, Some(json!({ "title": title }))).await;
    assert!(renamed.is_success(), "{renamed:?}");
}

#[tokio::test]
async fn a_stream_has_the_headers_and_the_fields_of_its_kind() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let session = ann.session(&project).await.id;
    let room = session_room(&session);
    let mut stream = open(&app, &ann, &path(&project, std::slice::from_ref(&room))).await;
    let header = |name: &str| stream.headers.get(name).map(String::as_str);
    assert_eq!(header("content-type"), Some("text/event-stream"));
    assert_eq!(header("cache-control"), Some("no-store"));
    assert_eq!(header("x-accel-buffering"), Some("no"));
    assert_eq!(header("content-encoding"), None);
    assert_eq!(stream.next().await, Told::Retry(2_000));
    let Told::Event { id: None, name, data } = stream.next().await else { panic!() };
    assert_eq!((name.as_str(), &data["payload"]["userId"]), ("connected", &json!(ann.id())));
    let Told::Event { id: None, name, data } = stream.next().await else { panic!() };
    let joined = &data["payload"]["rooms"][0];
    assert_eq!((name.as_str(), &joined["status"]), ("subscribed", &json!("live")));
    let epoch = joined["epoch"].as_str().unwrap().to_owned();

    let text = "say ok\n#\r\n\n: data";
    let messages = format!("/v1/projects/{project}/sessions/{session}/messages");
    ann.post(&messages, json!({ "content": text })).await;
    let Told::Event { id, name, data } = stream.next().await else { panic!() };
    assert_eq!(name, "message.created");
    assert_eq!(data["payload"]["message"]["parts"][0]["text"], text);
    assert_eq!((&data["room"], &data["type"]), (&json!(room), &json!(name)));
    assert_eq!(id.unwrap(), format!("{epoch}.{}", data["seq"]));
}

#[tokio::test]
async fn a_whole_conversation_goes_over_a_stream_and_rest() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let created = ann.post(&format!("/v1/projects/{project}/sessions"), json!({})).await;
    let session = created.json["data"]["id"].as_str().unwrap().to_owned();
    let base = format!("/v1/projects/{project}/sessions/{session}");
    let url = path(&project, &[format!("session:{session}")]);
    let (mut stream, _) = opened(&app, &ann, &url).await;

    let script = "say let me write\ncall write {\"path\": \"a.txt\", \"content\": \"abc\"}\n\
                  step\nsay done";
    let sent = ann.post(&format!("{base}/messages"), json!({ "content": script })).await;
    assert_eq!(sent.status, 202);
    let mut seen = Vec::new();
    let approval = loop {
        let event = stream.next_event().await;
        seen.push(event.clone());
        if event["type"] == "tool.approval.required" {
            break event["payload"]["approval"].clone();
        }
    };
    assert!(seen.iter().any(|event| event["type"] == "message.text.delta"), "{seen:?}");
    // The client loses its connection here, and the answer goes on without it.
    let last_id = stream.last_id.clone().unwrap();
    drop(stream);
    let call = approval["toolCallId"].as_str().unwrap();
    let approved = ann.post(&format!("{base}/approvals/{call}/approve"), json!({})).await;
    assert!(approved.is_success(), "{approved:?}");

    // The header wins over what the URL still says.
    let since = format!("{url}&since={}.0", last_id.split('.').next().unwrap());
    let headers = [("Last-Event-ID", last_id.as_str())];
    let again = EventStream::open(&app.url, &since, Some(ann.token()), &headers).await;
    let mut stream = again.unwrap();
    assert_eq!(stream.wait_for("subscribed").await["payload"]["rooms"][0]["status"], "replayed");
    loop {
        let event = stream.next_event().await;
        seen.push(event.clone());
        if event["type"] == "run.completed" {
            assert_eq!(event["payload"]["status"], "completed");
            break;
        }
    }
    let durable: Vec<&Value> = seen.iter().filter(|event| !event["seq"].is_null()).collect();
    for pair in durable.windows(2) {
        assert_eq!(pair[1]["prev"], pair[0]["seq"], "a gap or a repeat");
    }
    let snapshot = ann.get(&base).await.json["data"].clone();
    let answer = snapshot["messages"].as_array().unwrap().last().unwrap();
    assert_eq!(answer["parts"].as_array().unwrap().last().unwrap()["type"], "step");

    // The rest of what a client does: refuse a call, end a run, come back with a snapshot.
    let waits = "call write {\"path\": \"b\", \"content\": \"\"}";
    ann.post(&format!("{base}/messages"), json!({ "content": waits })).await;
    let asked = stream.wait_for("tool.approval.required").await;
    let call = asked["payload"]["toolCallId"].as_str().unwrap();
    let rejected = ann.post(&format!("{base}/approvals/{call}/reject"), json!({})).await;
    assert!(rejected.is_success(), "{rejected:?}");
    stream.wait_for("run.completed").await;
    ann.post(&format!("{base}/messages"), json!({ "content": waits })).await;
    stream.wait_for("tool.approval.required").await;
    let cancelled = ann.post(&format!("{base}/cancel"), json!({})).await;
    assert_eq!(cancelled.json["data"]["cancelled"], true);
    assert_eq!(stream.wait_for("run.completed").await["payload"]["status"], "cancelled");
}

#[tokio::test]
async fn a_socket_and_a_stream_with_the_same_position_hear_the_same_while_many_write() {
    const WRITERS: usize = 4;
    const TITLES: usize = 30;
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let mut sessions = Vec::new();
    for _ in 0..WRITERS {
        sessions.push(ann.session(&project).await.id);
    }
    let as_of = ann.snapshot(&project, &sessions[0]).await.as_of;
    let mut rooms: Vec<String> = sessions.iter().map(session_room).collect();
    rooms.push(project_room(&project));
    // A title each: a third of them before, while and after the others come.
    let titles = Arc::new(Semaphore::new(0));
    let third = WRITERS * TITLES / 3;
    let write = |session: SessionId| {
        let (ann, project, titles) = (ann.clone(), project.clone(), Arc::clone(&titles));
        tokio::spawn(async move {
            let socket = ann.connect().await;
            for number in 0..TITLES {
                titles.acquire().await.unwrap().forget();
                let title = Some(number.to_string());
                let session_id = session.clone();
                let request =
                    SessionUpdate { session_id, title, agent: None, model: None, mode: None };
                socket.call(Some(&project), request).await.unwrap();
            }
        })
    };
    let url = format!("{}&since={}", path(&project, &rooms), id_of(&as_of));
    let mut writers: Vec<_> = sessions.iter().cloned().map(write).collect();
    let (mut first, _) = opened(&app, &ann, &path(&project, &rooms[WRITERS..])).await;
    titles.add_permits(third);
    for _ in 0..third {
        first.next_event().await;
    }
    titles.add_permits(third);
    // Each comes in the middle of the writing and hears everything since the position.
    let (mut stream, joined) = opened(&app, &ann, &url).await;
    assert!(joined.iter().all(|room| room["status"] == "replayed"), "{joined:?}");
    let mut socket = ann.wire().await;
    let since = rooms.iter().map(|room| json!({ "room": room, "since": as_of }));
    let since = json!({ "rooms": since.collect::<Vec<_>>() });
    socket.ask("1", "subscribe", Some(project.as_str()), since).await;
    let total = WRITERS * TITLES * 2;
    let mut over_socket = Vec::new();
    while over_socket.len() < total {
        let frame = socket.next_json().await;
        if frame["type"] == "response" {
            titles.add_permits(third);
        } else if !frame["seq"].is_null() {
            over_socket.push(frame);
        }
    }
    join_all(writers.drain(..)).await.into_iter().for_each(Result::unwrap);
    let mut over_stream = Vec::new();
    while over_stream.len() < total {
        let event = stream.next_event().await;
        if !event["seq"].is_null() {
            over_stream.push(event);
        }
    }
    // A socket has a position of each room; a stream has one, so its events come in order.
    let seq = |event: &Value| event["seq"].as_u64().unwrap();
    assert!(over_stream.windows(2).all(|pair| seq(&pair[0]) < seq(&pair[1])));
    over_socket.sort_by_key(seq);
    assert_eq!(over_stream, over_socket);
}

#[tokio::test]
async fn a_stream_that_is_cut_anywhere_goes_on_in_all_of_its_rooms() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let sessions = [ann.session(&project).await.id, ann.session(&project).await.id];
    let start = id_of(&ann.snapshot(&project, &sessions[0]).await.as_of);
    for number in 0..6 {
        rename(&ann, &project, &sessions[number % 2], &number.to_string()).await;
    }
    let rooms: Vec<String> = sessions.iter().map(session_room).collect();
    let url = path(&project, &rooms);
    let (mut position, mut titles) = (start, Vec::new());
    for _ in 0..6 {
        let (mut stream, _) = opened(&app, &ann, &format!("{url}&since={position}")).await;
        let event = stream.next_event().await;
        titles.push(event["payload"]["session"]["title"].as_str().unwrap().to_owned());
        position = stream.last_id.clone().unwrap();
    }
    assert_eq!(titles, ["0", "1", "2", "3", "4", "5"]);
}

#[tokio::test]
async fn a_position_that_cannot_be_resumed_is_told_and_the_stream_is_live() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let (session, other) = (ann.session(&project).await.id, ann.session(&project).await.id);
    let as_of = ann.snapshot(&project, &session).await.as_of;
    let rooms = [session_room(&session), session_room(&other)];
    let another = Position { epoch: "another".to_owned(), ..as_of.clone() };
    let future = Position { seq: as_of.seq + 1_000, ..as_of.clone() };
    for (index, position) in [another, future].iter().enumerate() {
        let url = format!("{}&since={}", path(&project, &rooms), id_of(position));
        let (mut stream, joined) = opened(&app, &ann, &url).await;
        assert!(joined.iter().all(|room| room["status"] == "reset"), "{joined:?}");
        let mut reset = Vec::new();
        for _ in &rooms {
            let Told::Event { id: None, name, data } = stream.next().await else { panic!() };
            assert_eq!((name.as_str(), &data["payload"]["room"]), ("room.reset", &data["room"]));
            assert_eq!(data["payload"]["epoch"], as_of.epoch);
            reset.push(data["room"].as_str().unwrap().to_owned());
        }
        reset.sort();
        let mut expected = rooms.to_vec();
        expected.sort();
        assert_eq!(reset, expected);
        rename(&ann, &project, &session, &index.to_string()).await;
        let event = stream.next_event().await;
        assert_eq!(event["payload"]["session"]["title"], index.to_string());
    }
}

#[tokio::test]
async fn only_the_room_with_too_much_to_replay_is_reset() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let talk = ann.conversation().await;
    let (project, busy) = (&talk.project, &talk.session);
    let calm = ann.session(project).await.id;
    let as_of = ann.snapshot(project, &calm).await.as_of;
    rename(&ann, project, &calm, "calm").await;
    for chunk in (0..=REPLAY_EVENTS_MAX).collect::<Vec<_>>().chunks(30) {
        let renames = chunk.iter().map(|number| {
            let title = Some(number.to_string());
            let session_id = busy.clone();
            talk.socket.call(
                Some(project),
                SessionUpdate { session_id, title, agent: None, model: None, mode: None },
            )
        });
        join_all(renames).await.into_iter().for_each(|done| drop(done.unwrap()));
    }
    let rooms = [session_room(busy), session_room(&calm)];
    let url = format!("{}&since={}", path(project, &rooms), id_of(&as_of));
    let (mut stream, _) = opened(&app, &ann, &url).await;
    assert_eq!(stream.next_event().await["room"], rooms[0]);
    let replayed = stream.next_event().await;
    assert_eq!(replayed["payload"]["session"]["title"], "calm");
    rename(&ann, project, busy, "live").await;
    assert_eq!(stream.next_event().await["payload"]["session"]["title"], "live");
}

#[tokio::test]
async fn rooms_with_more_to_replay_than_may_wait_are_reset_together() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    // 4 rooms with 400 KB each are more than 1 MiB.
    let long = format!("say ok\n#{}", "x".repeat(200_000));
    let mut rooms = Vec::new();
    for _ in 0..4 {
        let mut talk = ann.conversation_in(&project).await;
        for _ in 0..2 {
            talk.ask(&long).await;
        }
        rooms.push(session_room(&talk.session));
    }
    let epoch = {
        let list = ann.get(&format!("/v1/projects/{project}/sessions")).await.json;
        let session: SessionId = list["data"][0]["id"].as_str().unwrap().parse().unwrap();
        ann.snapshot(&project, &session).await.as_of.epoch
    };
    let url = |rooms: &[String]| format!("{}&since={epoch}.0", path(&project, rooms));
    let (_, joined) = opened(&app, &ann, &url(&rooms)).await;
    assert!(joined.iter().all(|room| room["status"] == "reset"), "{joined:?}");
    // The connection that joined them with their positions is gone, and hears nothing.
    let (stream, joined) = opened(&app, &ann, &url(&rooms)).await;
    assert_eq!(joined.len(), 4);
    drop(stream);
    let nobody = async {
        loop {
            let actors = app.supervision().actors(Some("project"), None);
            let seen = app.supervision().observe(&actors[0].path).await;
            if seen["rooms"]["subscribers"] == 0 {
                return;
            }
        }
    };
    patiently("everybody to have left", nobody).await;
    let (_, joined) = opened(&app, &ann, &url(&rooms[..2])).await;
    assert!(joined.iter().all(|room| room["status"] == "replayed"), "{joined:?}");
}

#[tokio::test]
async fn a_stream_without_deltas_hears_no_pieces_of_text() {
    let app = spawn_app().await;
    let mut talk = app.user("ann").await.conversation().await;
    let url = path(&talk.project, &[session_room(&talk.session)]);
    let (mut stream, _) = opened(&app, &talk.person, &format!("{url}&deltas=false")).await;
    talk.ask("say hello").await;
    assert!(talk.names().contains(&"message.text.delta"));
    loop {
        let event = stream.next_event().await;
        assert!(!event["seq"].is_null(), "{event}");
        if event["type"] == "run.completed" {
            break;
        }
    }
}

#[tokio::test]
async fn whoever_may_not_read_the_project_gets_no_stream() {
    let app = spawn_app().await;
    let (ann, bob, eve) = (app.user("ann").await, app.user("bob").await, app.user("eve").await);
    let project = ann.project("p").await.id;
    ann.add_member(&project, &bob, Role::Viewer).await;
    let url = path(&project, &[project_room(&project)]);
    assert_eq!(refused(&app, None, &url).await.code, ErrorCode::Unauthenticated);
    assert_eq!(refused(&app, Some(&eve), &url).await.code, ErrorCode::NotFound);
    let (_, joined) = opened(&app, &bob, &url).await;
    assert_eq!(joined[0]["status"], "live");
    let url = format!("{url}&token={}", ann.token());
    assert_eq!(refused(&app, Some(&ann), &url).await.code, ErrorCode::TokenInUrl);
}

#[tokio::test]
async fn a_room_that_is_refused_does_not_hurt_the_others() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let (project, other) = (ann.project("p").await.id, ann.project("o").await.id);
    let (here, there) = (ann.session(&project).await.id, ann.session(&other).await.id);
    let rooms = [session_room(&there), session_room(&here)];
    let (mut stream, joined) = opened(&app, &ann, &path(&project, &rooms)).await;
    let status = |index: usize| joined[index]["status"].as_str().unwrap();
    assert_eq!((status(0), status(1)), ("refused", "live"));
    let left = stream.next_event().await;
    assert_eq!(left["type"], "room.left");
    assert_eq!(left["payload"], json!({ "room": rooms[0], "code": "NOT_FOUND" }));
    rename(&ann, &project, &here, "heard").await;
    assert_eq!(stream.next_event().await["room"], rooms[1]);

    let nothing = refused(&app, Some(&ann), &path(&project, &rooms[..1])).await;
    assert_eq!(nothing.code, ErrorCode::NotFound);
}

#[tokio::test]
async fn a_request_that_makes_no_sense_is_refused() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let room = project_room(&project);
    let events = format!("/v1/projects/{project}/events");
    for (query, reason) in [
        (String::new(), "invalid_rooms"),
        ("?rooms=".to_owned(), "invalid_rooms"),
        ("?rooms=admin".to_owned(), "invalid_rooms"),
        (format!("?rooms={room},"), "invalid_rooms"),
        (format!("?rooms={room},{room}"), "duplicate_room"),
        (format!("?rooms={room}&since=5"), "invalid_position"),
        (format!("?rooms={room}&since=epoch.x"), "invalid_position"),
        (format!("?rooms={room}&deltas=perhaps"), ""),
    ] {
        let error = refused(&app, Some(&ann), &format!("{events}{query}")).await;
        assert_eq!(code_of(&error), (ErrorCode::InvalidRequest, reason), "{query}");
    }
    let many: Vec<String> = (0..=ROOMS_PER_CONNECTION_MAX as u128)
        .map(|bits| session_room(&SessionId::from_bits(bits)))
        .collect();
    let error = refused(&app, Some(&ann), &path(&project, &many)).await;
    assert_eq!(code_of(&error), (ErrorCode::QuotaExceeded, "too_many_rooms"));
    let posted = ann.post(&format!("{events}?rooms={room}"), json!({})).await;
    assert_eq!(posted.error().unwrap().code, ErrorCode::MethodNotAllowed);
    assert_eq!(posted.headers["allow"], "GET");
}

#[tokio::test]
async fn a_comment_is_a_sign_of_life_and_streams_whose_client_is_gone_end() {
    let stream_comments = Duration::from_millis(20);
    let app = spawn_app_with(AppOptions { stream_comments, ..AppOptions::default() }).await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let (mut stream, _) = opened(&app, &ann, &path(&project, &[project_room(&project)])).await;
    for _ in 0..3 {
        assert_eq!(stream.next().await, Told::Comment);
    }
    let connections = |wanted: usize| {
        move |actors: &[iris_protocol::ActorInfo]| {
            actors.iter().filter(|actor| actor.kind == "connection").count() == wanted
        }
    };
    app.wait_for_actors("the connection of the stream", connections(1)).await;
    drop(stream);
    app.wait_for_actors("the end of the connection", connections(0)).await;
}

#[tokio::test]
async fn a_client_that_is_gone_is_noticed_before_the_next_comment() {
    let stream_comments = Duration::from_hours(1);
    let app = spawn_app_with(AppOptions { stream_comments, ..AppOptions::default() }).await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let (stream, _) = opened(&app, &ann, &path(&project, &[project_room(&project)])).await;
    drop(stream);
    app.wait_for_actors("the end of the connection", |actors| {
        actors.iter().all(|actor| actor.kind != "connection")
    })
    .await;
}

#[tokio::test]
async fn a_stream_ends_when_its_reader_is_too_slow_and_hurts_nobody() {
    // The end has to be there still when the reader comes to it, however busy the machine is.
    let sockets =
        SocketSettings { abort_after: Duration::from_mins(1), ..SocketSettings::default() };
    let app = spawn_app_with(AppOptions { sockets, ..AppOptions::default() }).await;
    let mut talk = app.user("ann").await.conversation().await;
    let ann = talk.person.clone();
    let url = path(&talk.project, &[session_room(&talk.session)]);
    let (mut stalled, _) = opened(&app, &ann, &url).await;
    flood(&mut talk).await;
    let rest = stalled.rest().await;
    let last = rest.last().unwrap();
    assert_eq!((&last["type"], &last["payload"]["code"]), (&json!("closing"), &json!(4008)));
    // It comes back with what it has.
    let since = format!("{url}&since={}", stalled.last_id.unwrap());
    let (_, joined) = opened(&app, &ann, &since).await;
    assert!(["replayed", "reset"].contains(&joined[0]["status"].as_str().unwrap()));
}

#[tokio::test]
async fn nothing_is_heard_after_the_right_to_it_is_gone() {
    let app = spawn_app().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let project = ann.project("p").await.id;
    let session = ann.session(&project).await.id;
    ann.add_member(&project, &bob, Role::Member).await;
    let rooms = [session_room(&session), project_room(&project)];
    let url = path(&project, &rooms);
    let (mut stream, _) = opened(&app, &bob, &url).await;
    let member = format!("/v1/projects/{project}/members/{}", bob.id());
    assert!(ann.rest("DELETE", &member, None).await.is_success());
    rename(&ann, &project, &session, "secret").await;
    let mut rest = stream.rest().await;
    let closing = rest.pop().unwrap();
    assert_eq!((&closing["type"], &closing["payload"]["code"]), (&json!("closing"), &json!(1000)));
    let mut left = Vec::new();
    for event in &rest {
        assert!(!event.to_string().contains("secret"), "{event}");
        if event["type"] == "room.left" {
            assert_eq!(event["payload"]["code"], "NOT_FOUND");
            left.push(event["room"].as_str().unwrap().to_owned());
        }
    }
    left.sort();
    assert_eq!(left, [rooms[1].clone(), rooms[0].clone()]);
    assert_eq!(refused(&app, Some(&bob), &url).await.code, ErrorCode::NotFound);

    // A login that ends.
    let login = app.client().login("ann@example.com", PASSWORD).await.unwrap();
    let second = Person::new(app.client(), login);
    let (mut stream, _) = opened(&app, &second, &url).await;
    second.post("/v1/auth/logout", json!({})).await;
    rename(&ann, &project, &session, "another secret").await;
    let rest = stream.rest().await;
    assert_eq!(rest.len(), 1, "{rest:?}");
    assert_eq!(rest[0]["payload"]["code"], 4401);
    assert_eq!(refused(&app, Some(&second), &url).await.code, ErrorCode::Unauthenticated);
}

#[tokio::test]
async fn a_stream_ends_with_its_access_token() {
    let lifetime = Some(Duration::from_secs(2));
    let app =
        spawn_app_with(AppOptions { access_token_lifetime: lifetime, ..AppOptions::default() })
            .await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let mut stream = open(&app, &ann, &path(&project, &[project_room(&project)])).await;
    let rest = stream.rest().await;
    let names: Vec<&str> = rest.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert!(names.contains(&"auth.expiring"), "{names:?}");
    assert_eq!(rest.last().unwrap()["payload"]["code"], 4401);
}

#[tokio::test]
async fn a_server_that_stops_tells_its_streams_and_they_go_on_after_the_restart() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let session = ann.session(&project).await.id;
    let url = path(&project, &[session_room(&session)]);
    let (mut stream, _) = opened(&app, &ann, &url).await;
    rename(&ann, &project, &session, "one").await;
    stream.wait_for("session.updated").await;
    let (app, rest) = tokio::join!(app.restart(), stream.rest());
    assert_eq!(rest[0]["type"], "server.draining");
    assert_eq!(rest.last().unwrap()["payload"]["code"], 1012);

    let ann = app.again(&ann);
    rename(&ann, &project, &session, "two").await;
    let since = format!("{url}&since={}", stream.last_id.unwrap());
    let (mut stream, joined) = opened(&app, &ann, &since).await;
    assert_eq!(joined[0]["status"], "replayed");
    assert_eq!(stream.next_event().await["payload"]["session"]["title"], "two");
}

#[tokio::test]
async fn a_project_that_is_put_back_ends_its_streams_and_their_positions() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let session = ann.session(&project).await.id;
    let backup = ann.post(&format!("/v1/projects/{project}/backup"), json!({})).await;
    let backup = backup.json["data"]["id"].clone();
    let url = path(&project, &[session_room(&session)]);
    let (mut stream, _) = opened(&app, &ann, &url).await;
    rename(&ann, &project, &session, "undone").await;
    stream.wait_for("session.updated").await;
    let restore = json!({ "backupId": backup });
    let restored = ann.post(&format!("/v1/projects/{project}/restore"), restore).await;
    assert!(restored.is_success(), "{restored:?}");
    let rest = stream.rest().await;
    let names: Vec<&Value> = rest.iter().map(|event| &event["type"]).collect();
    assert_eq!(names, [&json!("room.left"), &json!("closing")]);
    assert_eq!(rest[0]["payload"]["code"], "OVERLOADED");

    let since = format!("{url}&since={}", stream.last_id.unwrap());
    let (mut stream, _) = opened(&app, &ann, &since).await;
    let told = stream.next_event().await;
    assert_eq!(told["type"], "room.reset");
    assert_eq!(told["payload"]["epoch"], restored.json["data"]["epoch"]);
}

#[tokio::test]
async fn whoever_comes_in_the_middle_of_a_text_gets_what_there_is_of_it() {
    let gate = Gate::default();
    let reply = Reply::stream().bytes(chat::text("Hel")).wait(&gate).bytes(chat::text("lo"));
    let provider = FakeProvider::start([reply.bytes(chat::end("stop"))]).await;
    let app = spawn_app_with(AppOptions::with_provider(provider.base_url())).await;
    let mut talk = app.user("ann").await.conversation().await;
    let since = id_of(&talk.position);
    talk.send_message("hi").await;
    talk.wait_for("message.text.delta").await;
    let rooms = [project_room(&talk.project), session_room(&talk.session)];
    let url = format!("{}&since={since}", path(&talk.project, &rooms));
    let (mut stream, _) = opened(&app, &talk.person, &url).await;
    let snapshot = stream.wait_for("message.part.snapshot").await;
    assert_eq!((&snapshot["payload"]["text"], &snapshot["seq"]), (&json!("Hel"), &Value::Null));
    gate.open();
    let piece = stream.wait_for("message.text.delta").await;
    assert_eq!(
        (&piece["payload"]["offset"], &piece["payload"]["delta"]),
        (&json!(3), &json!("lo"))
    );
    assert_eq!(stream.wait_for("message.text.complete").await["payload"]["text"], "Hello");
}

#[tokio::test]
async fn a_stream_hears_who_is_there_when_it_asks_for_that() {
    let app = spawn_app().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let project = ann.project("p").await.id;
    ann.add_member(&project, &bob, Role::Member).await;
    let session = ann.session(&project).await.id;
    let rooms = [project_room(&project), session_room(&session)];
    let path = path(&project, &rooms);
    let (mut silent, _) = opened(&app, &ann, &path).await;
    let (mut told, _) = opened(&app, &ann, &format!("{path}&presence=true")).await;
    let there = told.next_event().await;
    assert_eq!(there["type"], "presence.snapshot");
    assert_eq!(there["payload"]["users"][0]["userId"], json!(ann.id()));

    let talk = bob.join(&project, &session).await;
    let (by_ann, by_bob) = (json!(ann.id()), json!(bob.id()));
    loop {
        let change = told.next_event().await;
        if change["payload"]["userId"] == by_bob {
            assert_eq!(change["type"], "presence.joined");
            break;
        }
        // What the snapshot said already may be said again, and that she has two streams.
        assert_eq!(change["payload"]["userId"], by_ann, "{change}");
    }
    let session_id = session.clone();
    talk.call(iris_protocol::TypingStart { session_id }).await.unwrap();
    let mut typing = told.next_event().await;
    // Where he is may be told between, and to nobody who does not want it.
    while typing["type"] == "presence.updated" {
        typing = told.next_event().await;
    }
    for typing in [typing, silent.next_event().await] {
        assert_eq!(typing["type"], "typing.updated");
        assert_eq!(typing["payload"]["userIds"], json!([bob.id()]));
    }
}
