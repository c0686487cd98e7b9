//! Who is present in a project, who looks at a session, and who writes a message.

use std::time::{Duration, Instant};

use iris_actors::PresenceSettings;
use iris_actors::supervision::faults::{Armed, Fault};
use iris_client::Socket;
use iris_protocol::{
    ErrorCode, Event, EventKind, MemberRemove, MemberUpdate, Presence, PresenceList,
    PresenceStatus, PresenceUpdate, ProjectArchive, ProjectId, Role, RoomRequest, RoomSince,
    RoomStatus, SessionArchive, SessionDelete, SessionId, Subscribe, TypingStart, TypingStop,
    Unsubscribe, UserId,
};
use iris_testkit::{AppOptions, Conversation, Person, TestApp, moment, patiently, spawn_app_with};
use serde_json::json;

use crate::{code_of, project_room, refusal, session_room};

/// So short that a test waits for its end.
const SHORT: Duration = Duration::from_millis(300);
/// So long that no test reaches its end.
const LONG: Duration = Duration::from_hours(1);
const WAITS: &str = "call write {\"path\": \"a\", \"content\": \"\"}";

/// Nobody leaves or stops writing because of the time unless the test says so.
fn patient() -> PresenceSettings {
    PresenceSettings {
        grace: LONG,
        joined_for: Duration::from_millis(20),
        typing_for: LONG,
        ..PresenceSettings::default()
    }
}

async fn app_with(presence: PresenceSettings) -> TestApp {
    spawn_app_with(AppOptions { presence, ..AppOptions::default() }).await
}

/// Ann, bob who is a member of her project, the project and a session of it.
async fn scene(app: &TestApp) -> (Person, Person, ProjectId, SessionId) {
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let project = ann.project("p").await.id;
    ann.add_member(&project, &bob, Role::Member).await;
    let session = ann.session(&project).await.id;
    (ann, bob, project, session)
}

async fn join(person: &Person, project: &ProjectId, room: String) -> Socket {
    let socket = person.connect().await;
    let rooms = vec![RoomRequest::Live(room)];
    let request = Subscribe { rooms, deltas: None, presence: None };
    let joined = socket.call(Some(project), request).await.unwrap().payload.rooms.remove(0);
    assert_eq!(joined.status, RoomStatus::Live);
    socket
}

/// Joins the room of the project to hear who is present. Answers who is now.
async fn watch(person: &Person, project: &ProjectId) -> (Socket, Vec<Presence>) {
    let socket = person.connect().await;
    let rooms = vec![RoomRequest::Live(project_room(project))];
    let request = Subscribe { rooms, deltas: None, presence: Some(true) };
    socket.call(Some(project), request).await.unwrap();
    let first = next(&socket).await;
    let Event::PresenceSnapshot { users } = first else { panic!("{first:?}") };
    (socket, users)
}

/// The next event, whose number says whether it is in the log.
async fn next(socket: &Socket) -> Event {
    let frame = patiently("an event", socket.next_event()).await.unwrap();
    assert_eq!(frame.meta.seq.is_some(), frame.event.kind() == EventKind::Durable);
    frame.event
}

/// What is told next of the presence of a user: the last word of the event, and what they are.
async fn told_of(socket: &Socket, person: &Person) -> (&'static str, Presence) {
    loop {
        let (word, presence) = match next(socket).await {
            Event::PresenceJoined { presence } => ("joined", presence),
            Event::PresenceUpdated { presence } => ("updated", presence),
            Event::PresenceLeft { presence } => ("left", presence),
            _ => continue,
        };
        if presence.user_id == *person.id() {
            return (word, presence);
        }
    }
}

/// As [`told_of`], with the number of connections alone.
async fn count_of(socket: &Socket, person: &Person) -> (&'static str, u32) {
    let (word, presence) = told_of(socket, person).await;
    (word, presence.connections)
}

/// Who is told next to write in the session of a socket.
async fn writing(socket: &Socket) -> Vec<UserId> {
    loop {
        if let Event::TypingUpdated { user_ids, .. } = next(socket).await {
            return user_ids;
        }
    }
}

async fn present(person: &Person, project: &ProjectId) -> Vec<Presence> {
    person.client.call(Some(project), PresenceList {}).await.unwrap().users
}

async fn update(
    socket: &Socket,
    project: &ProjectId,
    session: Option<&SessionId>,
    status: Option<PresenceStatus>,
) {
    let request = PresenceUpdate { session_id: session.cloned(), status };
    socket.call(Some(project), request).await.unwrap();
}

async fn start(socket: &Socket, project: &ProjectId, session: &SessionId) {
    let request = TypingStart { session_id: session.clone() };
    socket.call(Some(project), request).await.unwrap();
}

/// Waits until this many connections count in a project.
async fn until_connected(app: &TestApp, project: &ProjectId, count: u64) {
    let path = format!("node/directory/project/{project}");
    let waiting = async {
        while app.supervision().observe(&path).await["presence"]["connections"] != count {
            moment().await;
        }
    };
    patiently("connections to end", waiting).await;
}

#[tokio::test]
async fn a_user_is_present_once_from_the_first_connection_until_after_the_last() {
    let app = app_with(PresenceSettings { grace: SHORT, ..patient() }).await;
    let (ann, bob, project, session) = scene(&app).await;
    let (hears, users) = watch(&ann, &project).await;
    let herself = Presence {
        user_id: ann.id().clone(),
        username: "ann".to_owned(),
        status: PresenceStatus::Online,
        session_id: None,
        connections: 1,
    };
    assert_eq!(users, [herself]);
    // Any room of the project will do.
    let first = join(&bob, &project, session_room(&session)).await;
    let (word, presence) = told_of(&hears, &bob).await;
    assert_eq!((word, presence.connections, presence.username.as_str()), ("joined", 1, "bob"));
    let second = join(&bob, &project, project_room(&project)).await;
    assert_eq!(count_of(&hears, &bob).await, ("updated", 2));
    let (_, users) = watch(&ann, &project).await;
    let counts: Vec<_> = users.iter().map(|user| (&user.user_id, user.connections)).collect();
    assert_eq!(counts, [(ann.id(), 2), (bob.id(), 2)]);
    first.close().await;
    assert_eq!(count_of(&hears, &bob).await, ("updated", 1));
    // Whoever hears nothing of the project any more is not there either.
    let rooms = vec![project_room(&project)];
    second.call(None, Unsubscribe { rooms }).await.unwrap();
    assert_eq!(count_of(&hears, &bob).await, ("left", 0));
}

#[tokio::test]
async fn whoever_comes_back_within_the_grace_was_never_away() {
    let app = app_with(patient()).await;
    let (ann, bob, project, session) = scene(&app).await;
    let (hears, _) = watch(&ann, &project).await;
    let first = join(&bob, &project, session_room(&session)).await;
    update(&first, &project, Some(&session), Some(PresenceStatus::Busy)).await;
    let told = async { while told_of(&hears, &bob).await.1.session_id.is_none() {} };
    patiently("the session that bob looks at", told).await;
    first.close().await;
    until_connected(&app, &project, 1).await;
    let again = join(&bob, &project, session_room(&session)).await;
    let his = present(&ann, &project).await.pop().unwrap();
    assert_eq!((&his.session_id, his.status), (&Some(session), PresenceStatus::Busy));
    update(&again, &project, None, Some(PresenceStatus::Away)).await;
    // The first thing that is told of him since.
    let (word, presence) = told_of(&hears, &bob).await;
    assert_eq!((word, presence.status, presence.connections), ("updated", PresenceStatus::Away, 1));
}

#[tokio::test]
async fn the_first_change_is_told_at_once() {
    let app = app_with(PresenceSettings { joined_for: LONG, ..patient() }).await;
    let (ann, _, project, _) = scene(&app).await;
    let (hears, _) = watch(&ann, &project).await;
    assert_eq!(count_of(&hears, &ann).await, ("joined", 1));
}

#[tokio::test]
async fn changes_within_a_moment_are_told_once() {
    let joined_for = PresenceSettings::default().joined_for;
    let app = app_with(PresenceSettings { joined_for, ..patient() }).await;
    let (ann, bob, project, session) = scene(&app).await;
    let (hears, _) = watch(&ann, &project).await;
    let begun = Instant::now();
    let his = join(&bob, &project, project_room(&project)).await;
    let changes = async {
        loop {
            for status in [PresenceStatus::Busy, PresenceStatus::Away] {
                update(&his, &project, Some(&session), Some(status)).await;
            }
        }
    };
    let told = async {
        for word in ["joined", "updated", "updated", "updated"] {
            assert_eq!(told_of(&hears, &bob).await.0, word);
        }
    };
    tokio::select! {
        never = changes => never,
        () = told => {}
    }
    // Three times in which all changes were joined lie between the four: two of them are a second.
    assert!(begun.elapsed() >= Duration::from_millis(1_500), "{:?}", begun.elapsed());
    update(&his, &project, None, None).await;
    while told_of(&hears, &bob).await.1.session_id.is_some() {}
}

#[tokio::test]
async fn the_viewers_of_a_session_are_those_who_look_at_it() {
    let app = app_with(patient()).await;
    let (ann, bob, project, session) = scene(&app).await;
    let (hears, _) = watch(&ann, &project).await;
    let desk = join(&bob, &project, project_room(&project)).await;
    let phone = join(&bob, &project, project_room(&project)).await;
    let other = ann.session(&project).await.id;
    update(&desk, &project, Some(&other), None).await;
    update(&phone, &project, Some(&session), Some(PresenceStatus::Busy)).await;
    // The last word counts, as long as its connection is there.
    let viewers = async |of: &SessionId| {
        let users = present(&ann, &project).await.into_iter();
        let viewers = users.filter(|user| user.session_id.as_ref() == Some(of));
        viewers.map(|user| user.user_id).collect::<Vec<_>>()
    };
    assert_eq!(viewers(&session).await, [bob.id().clone()]);
    assert_eq!(viewers(&other).await, []);
    phone.close().await;
    until_connected(&app, &project, 2).await;
    assert_eq!(viewers(&other).await, [bob.id().clone()]);
    let over_rest = ann.get(&format!("/v1/projects/{project}/presence")).await.json;
    assert_eq!(over_rest["data"], json!(present(&ann, &project).await));
    assert_eq!(over_rest["meta"]["hasMore"], false);
    // Nobody looks at what is gone.
    update(&desk, &project, Some(&other), Some(PresenceStatus::Away)).await;
    while told_of(&hears, &bob).await.1.status != PresenceStatus::Away {}
    let request = SessionDelete { session_id: other.clone(), permanent: None };
    ann.client.call(Some(&project), request).await.unwrap();
    let (word, presence) = told_of(&hears, &bob).await;
    assert_eq!((word, presence.session_id), ("updated", None));
    let gone = PresenceUpdate { session_id: Some(other), status: None };
    assert_eq!(refusal(desk.call(Some(&project), gone).await).code, ErrorCode::NotFound);
}

#[tokio::test]
async fn only_a_connection_that_hears_the_project_says_what_its_user_does() {
    let app = app_with(patient()).await;
    let (ann, bob, project, session) = scene(&app).await;
    let (_hears, _) = watch(&ann, &project).await;
    let socket = bob.connect().await;
    let look = || PresenceUpdate { session_id: Some(session.clone()), status: None };
    let refused = refusal(socket.call(Some(&project), look()).await);
    assert_eq!(code_of(&refused), (ErrorCode::Conflict, "not_joined"));
    let write = TypingStart { session_id: session.clone() };
    let refused = refusal(socket.call(Some(&project), write).await);
    assert_eq!(code_of(&refused), (ErrorCode::Conflict, "not_joined"));
    let refused = refusal(bob.client.call(Some(&project), look()).await);
    assert_eq!(code_of(&refused), (ErrorCode::InvalidRequest, "socket_only"));
    // Who writes need not have joined, and writes nowhere then.
    let stop = TypingStop { session_id: session.clone() };
    socket.call(Some(&project), stop).await.unwrap();
    assert_eq!(present(&ann, &project).await.len(), 1);
}

#[tokio::test]
async fn who_did_not_ask_for_presence_hears_none_of_it_and_none_is_in_the_log() {
    let app = app_with(patient()).await;
    let (ann, bob, project, session) = scene(&app).await;
    let as_of = ann.snapshot(&project, &session).await.as_of;
    let plain = join(&ann, &project, project_room(&project)).await;
    let (hears, _) = watch(&ann, &project).await;
    let his = join(&bob, &project, session_room(&session)).await;
    update(&his, &project, Some(&session), None).await;
    start(&his, &project, &session).await;
    assert_eq!(writing(&his).await, [bob.id().clone()]);
    while told_of(&hears, &bob).await.1.session_id.is_none() {}
    let socket = ann.connect().await;
    let rooms = [project_room(&project), session_room(&session)];
    let rooms =
        rooms.map(|room| RoomRequest::Since(RoomSince { room, since: Some(as_of.clone()) }));
    let request = Subscribe { rooms: rooms.into(), deltas: None, presence: None };
    for outcome in socket.call(Some(&project), request).await.unwrap().payload.rooms {
        assert_eq!((outcome.status, outcome.to), (RoomStatus::Replayed, as_of.seq));
    }
    ann.session(&project).await;
    assert!(matches!(next(&plain).await, Event::SessionCreated { .. }));
}

#[tokio::test]
async fn whoever_writes_is_told_to_the_session_until_they_stop() {
    let app = app_with(patient()).await;
    let (ann, bob, project, session) = scene(&app).await;
    let hers = join(&ann, &project, session_room(&session)).await;
    let his = join(&bob, &project, session_room(&session)).await;
    start(&his, &project, &session).await;
    assert_eq!(writing(&hers).await, [bob.id().clone()]);
    // A repeat says nothing new.
    start(&his, &project, &session).await;
    start(&hers, &project, &session).await;
    assert_eq!(writing(&hers).await, [ann.id().clone(), bob.id().clone()]);
    // Whoever comes later is told too.
    let late = join(&ann, &project, session_room(&session)).await;
    assert_eq!(writing(&late).await.len(), 2);
    let stop = || TypingStop { session_id: session.clone() };
    his.call(Some(&project), stop()).await.unwrap();
    assert_eq!(writing(&hers).await, [ann.id().clone()]);
    // In another session a user does not write here.
    let other = ann.session(&project).await.id;
    start(&hers, &project, &other).await;
    assert_eq!(writing(&hers).await, []);
    let unknown = TypingStart { session_id: SessionId::from_bits(1) };
    let refused = refusal(hers.call(Some(&project), unknown).await);
    assert_eq!(refused.code, ErrorCode::NotFound);
    ann.client.call(Some(&project), SessionArchive { session_id: other.clone() }).await.unwrap();
    let refused = refusal(hers.call(Some(&project), TypingStart { session_id: other }).await);
    assert_eq!(code_of(&refused), (ErrorCode::Conflict, "session_archived"));
}

#[tokio::test]
async fn whoever_does_not_repeat_it_does_not_write_any_more() {
    let app = app_with(PresenceSettings { typing_for: SHORT, ..patient() }).await;
    let (ann, bob, project, session) = scene(&app).await;
    let hers = join(&ann, &project, session_room(&session)).await;
    let his = join(&bob, &project, session_room(&session)).await;
    start(&his, &project, &session).await;
    assert_eq!(writing(&hers).await, [bob.id().clone()]);
    assert_eq!(writing(&hers).await, []);
}

#[tokio::test]
async fn a_message_ends_the_writing_of_who_sent_it_and_an_answer_that_of_nobody() {
    let app = app_with(patient()).await;
    let (ann, bob, project, session) = scene(&app).await;
    let mut hers: Conversation = ann.join(&project, &session).await;
    let his = join(&bob, &project, session_room(&session)).await;
    for socket in [&hers.socket, &his] {
        start(socket, &project, &session).await;
    }
    while writing(&his).await.len() != 2 {}
    hers.send_message(WAITS).await;
    assert_eq!(writing(&his).await, [bob.id().clone()]);
    hers.approval().await;
    let queued = hers.send_message("say ok").await.run_id;
    start(&hers.socket, &project, &session).await;
    assert_eq!(writing(&his).await.len(), 2);
    // The answer is by her as well.
    assert!(hers.cancel().await);
    hers.run_ended(&queued).await;
    let stop = TypingStop { session_id: session.clone() };
    his.call(Some(&project), stop).await.unwrap();
    assert_eq!(writing(&his).await, [ann.id().clone()]);
}

#[tokio::test]
async fn whoever_is_gone_does_not_write() {
    let app = app_with(patient()).await;
    let (ann, bob, project, session) = scene(&app).await;
    let hers = join(&ann, &project, session_room(&session)).await;
    let his = join(&bob, &project, session_room(&session)).await;
    start(&his, &project, &session).await;
    assert_eq!(writing(&hers).await, [bob.id().clone()]);
    his.close().await;
    assert_eq!(writing(&hers).await, []);
    // He may come back, but does not write then.
    assert_eq!(present(&ann, &project).await.len(), 2);
}

#[tokio::test]
async fn whoever_loses_the_right_is_gone_at_once() {
    let app = app_with(patient()).await;
    let (ann, bob, project, session) = scene(&app).await;
    let (hears, _) = watch(&ann, &project).await;
    let desk = join(&ann, &project, session_room(&session)).await;
    let his = join(&bob, &project, session_room(&session)).await;
    assert_eq!(count_of(&hears, &bob).await, ("joined", 1));
    // A viewer is present and does not write.
    start(&his, &project, &session).await;
    assert_eq!(writing(&desk).await, [bob.id().clone()]);
    let request = MemberUpdate { user_id: bob.id().clone(), role: Role::Viewer };
    ann.client.call(Some(&project), request).await.unwrap();
    assert_eq!(writing(&desk).await, []);
    let write = TypingStart { session_id: session.clone() };
    assert_eq!(refusal(his.call(Some(&project), write).await).code, ErrorCode::Forbidden);
    update(&his, &project, Some(&session), None).await;
    let (word, presence) = told_of(&hears, &bob).await;
    assert_eq!((word, presence.session_id), ("updated", Some(session.clone())));
    let request = MemberUpdate { user_id: bob.id().clone(), role: Role::Member };
    ann.client.call(Some(&project), request).await.unwrap();
    start(&his, &project, &session).await;
    assert_eq!(writing(&desk).await, [bob.id().clone()]);
    let request = MemberRemove { user_id: bob.id().clone() };
    ann.client.call(Some(&project), request).await.unwrap();
    assert_eq!(count_of(&hears, &bob).await, ("left", 0));
    assert_eq!(writing(&desk).await, []);
    assert_eq!(present(&ann, &project).await.len(), 1);
    // Nobody writes in an archive.
    start(&desk, &project, &session).await;
    assert_eq!(writing(&desk).await, [ann.id().clone()]);
    ann.client.call(Some(&project), ProjectArchive {}).await.unwrap();
    assert_eq!(writing(&desk).await, []);
}

#[tokio::test]
async fn whoever_loses_the_right_while_joining_is_not_present_either() {
    let app = app_with(patient()).await;
    let (ann, bob, project, session) = scene(&app).await;
    let _hers = join(&ann, &project, session_room(&session)).await;
    let mut his = bob.wire().await;
    let rooms = json!({ "rooms": [session_room(&session)] });
    for round in 0..20 {
        his.ask("join", "subscribe", Some(project.as_str()), rooms.clone()).await;
        let request = MemberRemove { user_id: bob.id().clone() };
        ann.client.call(Some(&project), request).await.unwrap();
        his.response("join").await;
        let users = present(&ann, &project).await;
        assert_eq!(users.len(), 1, "round {round}: {users:?}");
        ann.add_member(&project, &bob, Role::Viewer).await;
    }
}

#[tokio::test]
async fn a_connection_beyond_the_limit_hears_the_project_and_does_not_count() {
    let app = app_with(PresenceSettings { connections_max: 1, ..patient() }).await;
    let (ann, bob, project, session) = scene(&app).await;
    let (hears, _) = watch(&ann, &project).await;
    let his = join(&bob, &project, session_room(&session)).await;
    let look = PresenceUpdate { session_id: None, status: Some(PresenceStatus::Away) };
    let refused = refusal(his.call(Some(&project), look).await);
    assert_eq!(code_of(&refused), (ErrorCode::QuotaExceeded, "too_many_present"));
    let write = TypingStart { session_id: session.clone() };
    let refused = refusal(his.call(Some(&project), write).await);
    assert_eq!(code_of(&refused), (ErrorCode::QuotaExceeded, "too_many_present"));
    start(&hears, &project, &session).await;
    assert_eq!(writing(&his).await, [ann.id().clone()]);
    assert_eq!(present(&ann, &project).await.len(), 1);
}

#[tokio::test]
async fn a_registry_that_starts_again_knows_who_subscribes_again() {
    let app = app_with(patient()).await;
    let admin = app.admin().await;
    let (ann, bob, project, session) = scene(&app).await;
    let (hears, _) = watch(&ann, &project).await;
    let _his = join(&bob, &project, session_room(&session)).await;
    assert_eq!(count_of(&hears, &bob).await, ("joined", 1));
    let path = format!("/v1/admin/actors/node/directory/project/{project}/restart");
    assert_eq!(admin.post(&path, json!({})).await.status, 200);
    let ended = async { while hears.next_event().await.is_ok() {} };
    patiently("the socket to end", ended).await;
    let (_hears, users) = watch(&ann, &project).await;
    assert_eq!(users.iter().map(|user| &user.user_id).collect::<Vec<_>>(), [ann.id()]);
}

#[tokio::test]
async fn a_connection_that_fails_is_not_present_for_long() {
    let app = app_with(PresenceSettings { grace: SHORT, ..patient() }).await;
    let (ann, bob, project, session) = scene(&app).await;
    let (hears, _) = watch(&ann, &project).await;
    let his = join(&bob, &project, session_room(&session)).await;
    assert_eq!(count_of(&hears, &bob).await, ("joined", 1));
    let id = &his.connected().unwrap().connection_id;
    let fault =
        Armed { kind: "connection", message: "Inbound".to_owned(), fault: Fault::Panic, times: 1 };
    app.supervision().faults().arm_under(&format!("node/connection/{id}"), fault);
    his.send_text("{}").await.unwrap();
    assert_eq!(count_of(&hears, &bob).await, ("left", 0));
}

#[tokio::test]
async fn presence_keeps_no_project_open() {
    let options = AppOptions {
        presence: patient(),
        project_idle: Duration::from_millis(20),
        ..AppOptions::default()
    };
    let app = spawn_app_with(options).await;
    let (ann, _, project, session) = scene(&app).await;
    let socket = join(&ann, &project, session_room(&session)).await;
    start(&socket, &project, &session).await;
    socket.close().await;
    let path = format!("node/directory/project/{project}");
    app.wait_for_actors("the project to close", |actors| {
        actors.iter().all(|actor| actor.path != path)
    })
    .await;
}
