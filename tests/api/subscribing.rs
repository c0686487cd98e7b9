//! Rooms: joining them, the order of their events, and what a client gets that was away.

use iris_client::Socket;
use iris_protocol::{
    ErrorCode, Event, EventFrame, Position, ProjectId, Role, RoomOutcome, RoomRequest, RoomSince,
    RoomStatus, SessionId, SessionUpdate, Subscribe, Unsubscribe,
    limits::{REPLAY_EVENTS_MAX, ROOMS_PER_CONNECTION_MAX},
};
use iris_testkit::{Conversation, Person, patiently, spawn_app};

use crate::{code_of, refusal};

fn since(room: &str, position: &Position) -> RoomRequest {
    RoomRequest::Since(RoomSince { room: room.to_owned(), since: Some(position.clone()) })
}

async fn subscribe(
    socket: &Socket,
    project: &ProjectId,
    rooms: Vec<RoomRequest>,
) -> Vec<RoomOutcome> {
    let request = Subscribe { rooms, deltas: None, presence: None };
    socket.call(Some(project), request).await.unwrap().payload.rooms
}

async fn next(socket: &Socket) -> EventFrame {
    patiently("an event", socket.next_event()).await.unwrap()
}

async fn rename(person: &Person, project: &ProjectId, session: &SessionId, title: &str) -> u64 {
    let frame = serde_json::json!({
        "id": "1", "type": "session.update", "projectId": project,
        "payload": { "sessionId": session, "title": title },
    });
    person.post("/v1/commands", frame).await.json["seq"].as_u64().unwrap()
}

/// A session, its room and where it stands.
async fn scene(person: &Person) -> (Conversation, String, Position) {
    let conversation = person.conversation().await;
    let room = format!("session:{}", conversation.session);
    let as_of = person.snapshot(&conversation.project, &conversation.session).await.as_of;
    (conversation, room, as_of)
}

#[tokio::test]
async fn a_room_is_joined_live_or_after_a_replay() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let (talk, room, as_of) = scene(&ann).await;
    let mut expected = Vec::new();
    for title in ["one", "two", "three"] {
        rename(&ann, &talk.project, &talk.session, title).await;
    }
    let socket = ann.connect().await;
    let outcome = subscribe(&socket, &talk.project, vec![since(&room, &as_of)]).await.remove(0);
    assert_eq!((outcome.status, outcome.from), (RoomStatus::Replayed, as_of.seq));
    assert_eq!(outcome.epoch, as_of.epoch);
    for _ in 0..3 {
        expected.push(next(&socket).await);
    }
    // Each change is told in the room of the session and in that of the project.
    assert_eq!(expected[2].meta.seq, Some(outcome.to - 1));
    for pair in expected.windows(2) {
        assert_eq!(pair[1].meta.prev, pair[0].meta.seq);
    }

    let live = ann.connect().await;
    let rooms = vec![RoomRequest::Live(room)];
    let outcome = subscribe(&live, &talk.project, rooms).await.remove(0);
    assert_eq!((outcome.status, outcome.from), (RoomStatus::Live, 0));
    rename(&ann, &talk.project, &talk.session, "four").await;
    let (heard, replayed) = (next(&live).await, next(&socket).await);
    assert_eq!(heard, replayed);
    assert_eq!(heard.meta.prev, expected[2].meta.seq);
}

#[tokio::test]
async fn a_position_that_cannot_be_resumed_is_reset_and_joins_nothing() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let (talk, room, as_of) = scene(&ann).await;
    let socket = ann.connect().await;
    let epoch = Position { epoch: "another".to_owned(), ..as_of.clone() };
    let future = Position { seq: as_of.seq + 1_000, ..as_of.clone() };
    for position in [epoch, future] {
        let rooms = vec![since(&room, &position)];
        let outcome = subscribe(&socket, &talk.project, rooms).await.remove(0);
        assert_eq!(outcome.status, RoomStatus::Reset, "{position:?}");
        assert_eq!((outcome.to, outcome.epoch.as_str()), (as_of.seq, as_of.epoch.as_str()));
    }
    rename(&ann, &talk.project, &talk.session, "unheard").await;
    let rooms = vec![RoomRequest::Live(room)];
    subscribe(&socket, &talk.project, rooms).await;
    let seq = rename(&ann, &talk.project, &talk.session, "heard").await;
    assert!(next(&socket).await.meta.seq.unwrap() + 1 >= seq);
}

#[tokio::test]
async fn a_replay_is_all_or_nothing() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let (mut talk, room, as_of) = scene(&ann).await;
    // A message of 200 KB is stored once and told once; three are more than a replay may hold.
    for _ in 0..3 {
        talk.ask(&format!("say ok\n#{}", "x".repeat(200_000))).await;
    }
    let socket = ann.connect().await;
    let too_much = subscribe(&socket, &talk.project, vec![since(&room, &as_of)]).await.remove(0);
    assert_eq!(too_much.status, RoomStatus::Reset);
    let last = talk.seen.iter().rev().filter_map(|frame| frame.meta.seq).nth(8).unwrap();
    let position = Position { seq: last, ..as_of };
    let enough = subscribe(&socket, &talk.project, vec![since(&room, &position)]).await.remove(0);
    assert_eq!(enough.status, RoomStatus::Replayed);
    assert!(next(&socket).await.meta.seq.unwrap() > last);
}

#[tokio::test]
async fn a_replay_of_more_events_than_the_limit_is_a_reset() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let (talk, room, as_of) = scene(&ann).await;
    let rename = |index: usize| SessionUpdate {
        session_id: talk.session.clone(),
        title: Some(index.to_string()),
        agent: None,
        model: None,
        mode: None,
    };
    let mut last = 0;
    for chunk in (0..=REPLAY_EVENTS_MAX).collect::<Vec<_>>().chunks(30) {
        let calls = chunk.iter().map(|index| talk.socket.call(Some(&talk.project), rename(*index)));
        for reply in futures_util::future::join_all(calls).await {
            last = reply.unwrap().seq.unwrap().max(last);
        }
    }
    let socket = ann.connect().await;
    let too_much = subscribe(&socket, &talk.project, vec![since(&room, &as_of)]).await.remove(0);
    assert_eq!(too_much.status, RoomStatus::Reset);
    let one_less = Position { seq: as_of.seq + 2, ..as_of };
    let enough = subscribe(&socket, &talk.project, vec![since(&room, &one_less)]).await.remove(0);
    assert_eq!((enough.status, enough.to), (RoomStatus::Replayed, last));
    let mut heard = 0;
    while next(&socket).await.meta.seq.unwrap() + 1 < last {
        heard += 1;
    }
    assert_eq!(heard + 1, REPLAY_EVENTS_MAX);
}

#[tokio::test]
async fn a_refused_room_does_not_hurt_the_others() {
    let app = spawn_app().await;
    let (ann, eve) = (app.user("ann").await, app.user("eve").await);
    let (talk, room, _) = scene(&ann).await;
    let (hers, her_room, _) = scene(&eve).await;
    let deleted = ann.session(&talk.project).await.id;
    ann.rest("DELETE", &format!("/v1/projects/{}/sessions/{deleted}", talk.project), None).await;
    let socket = ann.connect().await;
    let rooms = [
        format!("project:{}", talk.project),
        "kitchen".to_owned(),
        her_room,
        format!("project:{}", hers.project),
        format!("session:{deleted}"),
        room,
    ];
    let live = rooms.iter().cloned().map(RoomRequest::Live).collect();
    let outcomes = subscribe(&socket, &talk.project, live).await;
    let codes: Vec<_> = outcomes.iter().map(|outcome| outcome.code).collect();
    let missing = Some(ErrorCode::NotFound);
    assert_eq!(codes, [None, Some(ErrorCode::InvalidRequest), missing, missing, missing, None]);
    assert!(outcomes.iter().map(|outcome| &outcome.room).eq(&rooms));
    rename(&ann, &talk.project, &talk.session, "heard twice").await;
    let (first, second) = (next(&socket).await, next(&socket).await);
    assert_ne!(first.meta.room, second.meta.room);

    let stranger = Subscribe { rooms: Vec::new(), deltas: None, presence: None };
    let refused = eve.connect().await.call(Some(&talk.project), stranger).await;
    assert_eq!(refusal(refused).code, ErrorCode::NotFound);
}

#[tokio::test]
async fn a_room_that_was_left_is_silent() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let (talk, room, _) = scene(&ann).await;
    let socket = ann.connect().await;
    let both = [room.clone(), format!("project:{}", talk.project)];
    let both = both.into_iter().map(RoomRequest::Live).collect();
    subscribe(&socket, &talk.project, both).await;
    let unsubscribe = Unsubscribe { rooms: vec![room, "never joined".to_owned()] };
    socket.call(None, unsubscribe).await.unwrap();
    for title in ["one", "two"] {
        rename(&ann, &talk.project, &talk.session, title).await;
        let heard = next(&socket).await;
        assert_eq!(heard.meta.room, iris_protocol::Room::Project(talk.project.clone()));
    }
}

#[tokio::test]
async fn a_connection_joins_a_bounded_number_of_rooms() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let socket = ann.connect().await;
    let room = |n: usize| RoomRequest::Live(format!("session:{}", SessionId::from_bits(n as u128)));
    let rooms = (0..=ROOMS_PER_CONNECTION_MAX).map(room).collect();
    let many = Subscribe { rooms, deltas: None, presence: None };
    let refused = refusal(socket.call(Some(&project), many).await);
    assert_eq!(code_of(&refused), (ErrorCode::QuotaExceeded, "too_many_rooms"));
    // What was refused does not count.
    for _ in 0..3 {
        let rooms = (0..ROOMS_PER_CONNECTION_MAX).map(room).collect();
        let outcomes = subscribe(&socket, &project, rooms).await;
        assert!(outcomes.iter().all(|outcome| outcome.status == RoomStatus::Refused));
    }
    for _ in 0..3 {
        let again = vec![RoomRequest::Live(format!("project:{project}"))];
        let outcomes = subscribe(&socket, &project, again).await;
        assert!(outcomes.iter().all(|outcome| outcome.status == RoomStatus::Live));
    }
}

#[tokio::test]
async fn rooms_that_are_joined_again_or_lost_count_once_or_not_at_all() {
    let app = spawn_app().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let project = ann.project("p").await.id;
    ann.add_member(&project, &bob, Role::Viewer).await;
    let mut rooms = Vec::new();
    for _ in 0..ROOMS_PER_CONNECTION_MAX {
        rooms.push(format!("session:{}", ann.session(&project).await.id));
    }
    let socket = bob.connect().await;
    for _ in 0..2 {
        let all = rooms.iter().cloned().map(RoomRequest::Live).collect();
        let outcomes = subscribe(&socket, &project, all).await;
        assert!(outcomes.iter().all(|outcome| outcome.status == RoomStatus::Live));
    }
    // Who lost them all has room for others.
    let member = format!("/v1/projects/{project}/members/{}", bob.id());
    assert!(ann.rest("DELETE", &member, None).await.is_success());
    for _ in 0..rooms.len() {
        while !matches!(next(&socket).await.event, Event::RoomLeft { .. }) {}
    }
    let his_own = bob.project("his").await.id;
    let room = vec![RoomRequest::Live(format!("project:{his_own}"))];
    assert_eq!(subscribe(&socket, &his_own, room).await[0].status, RoomStatus::Live);
}

#[tokio::test]
async fn a_room_that_is_named_twice_is_refused() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let socket = ann.connect().await;
    let room = RoomRequest::Live(format!("project:{project}"));
    let twice = Subscribe { rooms: vec![room.clone(), room], deltas: None, presence: None };
    let refused = refusal(socket.call(Some(&project), twice).await);
    assert_eq!(code_of(&refused), (ErrorCode::InvalidRequest, "duplicate_room"));
}

#[tokio::test]
async fn joining_while_events_are_written_misses_none_and_repeats_none() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let (talk, room, mut position) = scene(&ann).await;
    let first = position.seq;
    let writer = ann.connect().await;
    let write = async {
        for index in 0_u32.. {
            let title = Some(index.to_string());
            let session_id = talk.session.clone();
            let request = SessionUpdate { session_id, title, agent: None, model: None, mode: None };
            writer.call(Some(&talk.project), request).await.unwrap();
        }
    };
    let read = async {
        let mut last = None;
        let mut heard = Vec::new();
        for round in 0..40 {
            let socket = ann.connect().await;
            let rooms = vec![since(&room, &position)];
            let outcome = subscribe(&socket, &talk.project, rooms).await.remove(0);
            assert_eq!(outcome.status, RoomStatus::Replayed);
            // Stops in the middle of what is live, after a different number of events each time.
            let mut live = round % 4;
            while live > 0 || position.seq + 2 < outcome.to {
                let meta = next(&socket).await.meta;
                let Some(seq) = meta.seq else { continue };
                assert!(seq > position.seq, "round {round}: {seq} again");
                if let Some(last) = last {
                    assert_eq!(meta.prev, Some(last), "round {round}: a gap before {seq}");
                }
                if seq > outcome.to {
                    live -= 1;
                }
                (last, position.seq) = (Some(seq), seq);
                heard.push(seq);
            }
        }
        heard
    };
    let heard = tokio::select! {
        heard = read => heard,
        () = write => panic!("the writer ended"),
    };
    assert!(heard.len() > 40 && heard[0] > first, "{heard:?}");
}
