//! Streaming text: pieces that join to what is stored, and a snapshot for whoever comes late.

use iris_client::{FollowOptions, Follower, Update};
use iris_protocol::{ErrorCode, Event, PartSync, RoomRequest, SnapshotKind, Subscribe};
use iris_testkit::{
    AppOptions, Conversation, FakeProvider, Gate, Reply, TestApp, chat, patiently, spawn_app,
    spawn_app_with, text_of,
};

async fn with(replies: Vec<Reply>) -> (TestApp, Conversation) {
    let provider = FakeProvider::start(replies).await;
    let app = spawn_app_with(AppOptions::with_provider(provider.base_url())).await;
    let conversation = app.user("ann").await.conversation().await;
    (app, conversation)
}

#[tokio::test]
async fn the_pieces_of_a_text_join_to_the_text_that_is_stored() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let answer = ann.ask("chunks 2000 größer").await;
    let mut text = String::new();
    let mut pieces = 0;
    for frame in &ann.seen {
        match &frame.event {
            Event::MessageTextDelta { r#gen, offset, delta, .. } => {
                assert_eq!((*r#gen, *offset), (1, text.len() as u64));
                assert_eq!((frame.meta.seq, frame.meta.prev), (None, None));
                text.push_str(delta);
                pieces += 1;
            }
            Event::MessageTextComplete { length, text: whole, .. } => {
                assert_eq!(*length, whole.len() as u64);
                assert!(whole.starts_with(&text));
                text.clone_from(whole);
            }
            _ => {}
        }
    }
    assert!((1..=2000).contains(&pieces), "{pieces}");
    assert_eq!(text, text_of(&answer));
    assert_eq!(text, "größer ".repeat(2000));
}

#[tokio::test]
async fn who_comes_late_gets_a_snapshot_and_then_the_pieces_after_it() {
    let (first, second) = (Gate::default(), Gate::default());
    let reply = Reply::stream()
        .bytes(chat::text("Grüße "))
        .wait(&first)
        .bytes(chat::text("und mehr"))
        .wait(&second)
        .bytes(chat::end("stop"));
    let (_app, mut ann) = with(vec![reply]).await;
    let run = ann.send_message("hi").await.run_id;
    ann.wait_for("message.text.delta").await;

    let mut late = ann.person.join(&ann.project, &ann.session).await;
    let snapshot = late.next().await.event;
    let Event::MessagePartSnapshot { part_id, kind, r#gen, length, text, .. } = snapshot else {
        panic!("{snapshot:?}");
    };
    assert_eq!((kind, r#gen, length, text.as_str()), (SnapshotKind::Text, 1, 8, "Grüße "));
    first.open();
    let piece = late.next().await.event;
    let Event::MessageTextDelta { part_id: same, offset, delta, .. } = piece else {
        panic!("{piece:?}");
    };
    assert_eq!((same, offset, delta.as_str()), (part_id.clone(), 8, "und mehr"));
    second.open();
    let whole = late.next().await.event;
    let Event::MessageTextComplete { part_id: same, text, .. } = whole else { panic!("{whole:?}") };
    assert_eq!((same, text.as_str()), (part_id, "Grüße und mehr"));
    late.run_ended(&run).await;

    let mut later = ann.person.join(&ann.project, &ann.session).await;
    later.person.rest("PATCH", &path(&later), Some(serde_json::json!({ "title": "x" }))).await;
    assert_eq!(later.next().await.event.name(), "session.updated");
}

fn path(conversation: &Conversation) -> String {
    format!("/v1/projects/{}/sessions/{}", conversation.project, conversation.session)
}

/// Bytes of each of the segments in which a long text comes here.
const SEGMENT: usize = 150_000;

/// The text of an answer as one client has it.
#[derive(Default)]
struct Text {
    bytes: usize,
    snapshots: usize,
}

impl Text {
    fn take(&mut self, event: &serde_json::Value) {
        let number =
            |name: &str| usize::try_from(event["payload"][name].as_u64().unwrap()).unwrap();
        match event["type"].as_str() {
            Some("message.text.delta") => {
                assert_eq!(number("offset"), self.bytes);
                self.bytes += event["payload"]["delta"].as_str().unwrap().len();
            }
            Some("message.part.snapshot") => {
                assert!(number("length") > self.bytes);
                self.bytes = number("length");
                self.snapshots += 1;
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_slow_reader_gets_one_snapshot_in_place_of_the_pieces_that_it_missed() {
    let gates: Vec<Gate> = (0..8).map(|_| Gate::default()).collect();
    let mut reply = Reply::stream();
    for gate in &gates {
        reply = reply.bytes(chat::text(&"x".repeat(SEGMENT))).wait(gate);
    }
    let (_app, mut ann) = with(vec![reply.bytes(chat::text("end")).bytes(chat::end("stop"))]).await;
    let mut slow = ann.person.wire().await;
    let rooms = serde_json::json!({ "rooms": [format!("session:{}", ann.session)] });
    slow.ask("1", "subscribe", Some(ann.project.as_str()), rooms).await;
    assert_eq!(slow.response("1").await["success"], true);

    let run = ann.send_message("hi").await.run_id;
    let (last, others) = gates.split_last().unwrap();
    let mut heard = 0;
    for index in 0..gates.len() {
        // Who reads gets each segment before the next one comes.
        while heard < (index + 1) * SEGMENT {
            let Event::MessageTextDelta { offset, delta, .. } =
                ann.wait_for("message.text.delta").await.event
            else {
                panic!("another event");
            };
            assert_eq!(offset, heard as u64);
            heard += delta.len();
        }
        if let Some(gate) = others.get(index) {
            gate.open();
        }
    }
    let mut text = Text::default();
    while text.bytes < gates.len() * SEGMENT {
        text.take(&slow.next_json().await);
    }
    assert_eq!((text.bytes, text.snapshots), (gates.len() * SEGMENT, 1));
    last.open();
    while text.bytes < gates.len() * SEGMENT + "end".len() {
        text.take(&slow.next_json().await);
    }
    assert_eq!(text.snapshots, 1);
    ann.run_ended(&run).await;
}

#[tokio::test]
async fn a_client_that_lacks_a_piece_asks_for_a_snapshot() {
    let gate = Gate::default();
    let reply = Reply::stream().bytes(chat::text("so far")).wait(&gate).bytes(chat::end("stop"));
    let (_app, mut ann) = with(vec![reply]).await;
    let run = ann.send_message("hi").await.run_id;
    let Event::MessageTextDelta { part_id, .. } = ann.wait_for("message.text.delta").await.event
    else {
        panic!("another event");
    };
    let sync = || PartSync { part_id: part_id.clone() };
    ann.call(sync()).await.unwrap();
    let Event::MessagePartSnapshot { part_id: same, text, .. } = ann.next().await.event else {
        panic!("another event");
    };
    assert_eq!((&same, text.as_str()), (&part_id, "so far"));
    // Who is not in the room gets nothing.
    let outside = ann.person.connect().await;
    let refused = crate::refusal(outside.call(Some(&ann.project), sync()).await);
    assert_eq!(refused.code, ErrorCode::NotFound);
    gate.open();
    ann.run_ended(&run).await;
    assert_eq!(crate::refusal(ann.call(sync()).await).code, ErrorCode::NotFound);
}

#[tokio::test]
async fn a_part_that_will_not_be_completed_is_taken_back_or_completed() {
    let gate = Gate::default();
    let reply = Reply::stream().bytes(chat::text("half")).wait(&gate).bytes("data: broken\n\n");
    let (_app, mut ann) = with(vec![reply]).await;
    let run = ann.send_message("hi").await.run_id;
    ann.wait_for("message.text.delta").await;
    gate.open();
    ann.run_ended(&run).await;
    let ended = ann.seen.iter().any(|frame| match &frame.event {
        Event::MessageTextComplete { text, .. } => text == "half",
        Event::MessagePartRemoved { .. } => true,
        _ => false,
    });
    assert!(ended, "{:?}", ann.names());
}

#[tokio::test]
async fn a_call_is_seen_while_the_model_writes_it() {
    let (first, second) = (Gate::default(), Gate::default());
    let reply = Reply::stream()
        .bytes(chat::call("call_1", "read", r#"{"path": "ä.txt", "#))
        .wait(&first)
        .bytes(chat::more_of_call(r#""limit": 5}"#))
        .wait(&second)
        .bytes(chat::end("tool_calls"));
    let (_app, mut ann) = with(vec![reply, chat::says("done")]).await;
    let run = ann.send_message("read it").await.run_id;
    let (mut begun, mut id) = (String::new(), None);
    while begun.len() < 19 {
        let piece = ann.wait_for("message.tool.input.delta").await.event;
        let Event::MessageToolInputDelta { part_id, tool_name, r#gen, offset, delta, .. } = piece
        else {
            panic!("{piece:?}");
        };
        assert_eq!((tool_name.as_str(), r#gen, offset), ("read", 1, begun.len() as u64));
        assert!(id.is_none_or(|known| known == part_id));
        id = Some(part_id);
        begun.push_str(&delta);
    }
    let id = id.unwrap();
    assert_eq!(begun, r#"{"path": "ä.txt", "#);

    let mut late = ann.person.join(&ann.project, &ann.session).await;
    let snapshot = late.next().await.event;
    let Event::MessagePartSnapshot { part_id, kind, tool_name, length, text, .. } = &snapshot
    else {
        panic!("{snapshot:?}");
    };
    assert_eq!((part_id, *kind, *length, text), (&id, SnapshotKind::ToolInput, 19, &begun));
    assert_eq!(tool_name.as_deref(), Some("read"));
    late.call(PartSync { part_id: id.clone() }).await.unwrap();
    assert_eq!(late.next().await.event, snapshot);
    first.open();
    let piece = late.next().await.event;
    let Event::MessageToolInputDelta { part_id, offset, delta, .. } = &piece else {
        panic!("{piece:?}");
    };
    assert_eq!((part_id, *offset, delta.as_str()), (&id, 19, r#""limit": 5}"#));
    second.open();
    let whole = late.next().await.event;
    let Event::MessageToolCall { part_id, input, .. } = &whole else { panic!("{whole:?}") };
    assert_eq!((part_id, &input["limit"]), (&id, &serde_json::json!(5)));
    let refused = crate::refusal(late.call(PartSync { part_id: id.clone() }).await);
    assert_eq!(refused.code, ErrorCode::NotFound, "it streams no more");
    ann.run_ended(&run).await;
    assert_eq!(ann.answer(&run).await.parts[0].id(), &id);
}

#[tokio::test]
async fn a_call_that_the_model_does_not_finish_is_taken_back() {
    let gate = Gate::default();
    let reply = Reply::stream()
        .bytes(chat::call("call_1", "write", r#"{"path": "#))
        .wait(&gate)
        .bytes("data: broken\n\n");
    let (_app, mut ann) = with(vec![reply]).await;
    let run = ann.send_message("hi").await.run_id;
    let begun = ann.wait_for("message.tool.input.delta").await.event;
    let Event::MessageToolInputDelta { part_id, .. } = begun else { panic!("{begun:?}") };
    gate.open();
    // Once the end of the run is recorded, which had nothing of it.
    ann.run_ended(&run).await;
    let removed = ann.wait_for("message.part.removed").await.event;
    let Event::MessagePartRemoved { part_id: same, .. } = removed else { panic!("{removed:?}") };
    assert_eq!(same, part_id);
}

#[tokio::test]
async fn who_does_not_want_pieces_gets_none() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let quiet = ann.person.connect().await;
    let rooms = vec![RoomRequest::Live(format!("session:{}", ann.session))];
    quiet
        .call(Some(&ann.project), Subscribe { rooms, deltas: Some(false), presence: None })
        .await
        .unwrap();
    ann.ask("chunks 50").await;
    loop {
        let heard = patiently("events", quiet.next_event()).await.unwrap();
        assert!(heard.meta.seq.is_some(), "{heard:?}");
        if heard.event.name() == "run.completed" {
            break;
        }
    }
}

#[tokio::test]
async fn two_people_see_the_same_answer() {
    let app = spawn_app().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let mut hers = ann.conversation().await;
    ann.add_member(&hers.project, &bob, iris_protocol::Role::Viewer).await;
    let mut his = bob.join(&hers.project, &hers.session).await;
    let run = hers.send_message("think hm\nchunks 200\ncall list {\"path\": \".\"}").await.run_id;
    hers.run_ended(&run).await;
    his.run_ended(&run).await;
    assert_eq!(hers.seen, his.seen);
}

#[tokio::test]
async fn a_long_answer_reaches_a_reader_that_reads() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let piece = "x".repeat(1000);
    let answer = ann.ask(&format!("chunks 1500 {piece}")).await;
    assert_eq!(text_of(&answer).len(), 1500 * 1001);
    let rooms = vec![RoomRequest::Live(format!("session:{}", ann.session))];
    let again = ann.person.connect().await;
    again
        .call(Some(&ann.project), Subscribe { rooms, deltas: None, presence: None })
        .await
        .unwrap();
    let request =
        iris_protocol::SessionGet { session_id: ann.session.clone(), limit: None, before: None };
    let snapshot = again.call(Some(&ann.project), request).await.unwrap().payload;
    // It is longer than a page may be, and has one of its own.
    assert_eq!(snapshot.messages, [answer]);
}

#[tokio::test]
async fn a_follower_joins_the_text_of_a_whole_conversation() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let (project, session) = (ann.project.clone(), ann.session.clone());
    let client = ann.person.client.clone();
    let mut follower = Follower::start(client, project, session, FollowOptions::default());
    loop {
        if patiently("the follower", follower.next()).await.unwrap() == Update::Connected {
            break;
        }
    }
    let answer = ann.ask("chunks 300 grün").await;
    let mut text = String::new();
    loop {
        match patiently("updates", follower.next()).await.unwrap() {
            Update::Text { offset, delta, .. } => {
                text.truncate(usize::try_from(offset).unwrap());
                text.push_str(&delta);
            }
            Update::Event(frame) if frame.event.name() == "run.completed" => break,
            Update::Event(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(text, text_of(&answer));
}
