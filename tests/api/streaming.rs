//! Streaming text: pieces that join to what is stored, and a snapshot for whoever comes late.

use iris_client::{FollowOptions, Follower, Update};
use iris_protocol::{Event, RoomRequest, StreamKind, Subscribe};
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
    assert_eq!((kind, r#gen, length, text.as_str()), (StreamKind::Text, 1, 8, "Grüße "));
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
