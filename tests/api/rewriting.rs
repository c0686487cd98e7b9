//! Taking messages back, asking for other answers, saying something else: what was there is kept, and the
//! model does not read it.

use iris_actors::supervision::RecordFilter;
use iris_protocol::{
    Content, ErrorCode, Event, Message, MessageAccepted, MessageDequeue, MessageEdit, MessageGet,
    MessageId, MessageList, MessageRetry, MessageState, RunStatus, SearchPage, SessionSearch,
    SessionState, SupervisionRecord, WhenBusy,
};
use iris_testkit::{
    AppOptions, Conversation, FakeProvider, chat, spawn_app, spawn_app_with, text_of,
};
use serde_json::{Value, json};

use crate::{code_of, refusal, rest_refusal};

/// Keeps a run waiting for a person.
const HOLD: &str = "call write {\"path\": \"a.txt\", \"content\": \"x\"}\nstep\nsay first";

fn dequeue(talk: &Conversation, id: &MessageId) -> MessageDequeue {
    MessageDequeue { session_id: talk.session.clone(), message_id: id.clone() }
}

fn retry(talk: &Conversation, id: &MessageId) -> MessageRetry {
    MessageRetry { session_id: talk.session.clone(), message_id: id.clone() }
}

fn edit(talk: &Conversation, id: &MessageId, text: &str) -> MessageEdit {
    let (session_id, content) = (talk.session.clone(), Content::Text(text.to_owned()));
    MessageEdit { session_id, message_id: id.clone(), content, attachments: Vec::new() }
}

/// The question and its answer, once that is there.
async fn asked(talk: &mut Conversation, text: &str) -> (MessageId, Message) {
    let MessageAccepted { message_id, run_id, .. } = talk.send_message(text).await;
    talk.run_ended(&run_id).await;
    (message_id, talk.answer(&run_id).await)
}

async fn messages(talk: &Conversation) -> Vec<Message> {
    talk.person.snapshot(&talk.project, &talk.session).await.messages
}

/// What stands in the session: the texts, and which of them are superseded.
async fn texts(talk: &Conversation) -> Vec<(String, bool)> {
    let is_superseded = |message: &Message| message.state == MessageState::Superseded;
    let all = messages(talk).await;
    all.iter().map(|message| (text_of(message), is_superseded(message))).collect()
}

fn texts_are(found: &[(String, bool)], expected: &[(&str, bool)]) {
    let found: Vec<_> = found.iter().map(|(text, superseded)| (&**text, *superseded)).collect();
    assert_eq!(found, expected);
}

/// What a question to the model says, but for the system's words.
fn said(body: &Value) -> Vec<String> {
    let messages = body["messages"].as_array().unwrap().iter();
    let messages = messages.filter(|message| message["role"] != "system");
    messages.map(|message| message["content"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn a_message_that_waits_can_be_taken_back_once() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let first = ann.send_message(HOLD).await;
    let call = ann.approval().await.tool_call_id;
    let (second, third) =
        (ann.send_message("say second").await, ann.send_message("say third").await);
    ann.call(dequeue(&ann, &second.message_id)).await.unwrap();
    let removed = ann.wait_for("message.removed").await;
    let Event::MessageRemoved { message_id, run_id, .. } = removed.event else { panic!("no") };
    assert_eq!((&message_id, &run_id), (&second.message_id, &second.run_id));
    assert_eq!(ann.run_ended(&second.run_id).await, RunStatus::Cancelled);
    let snapshot = ann.person.snapshot(&ann.project, &ann.session).await;
    let queue: Vec<_> = snapshot.queue.iter().map(|queued| &queued.message_id).collect();
    assert_eq!(queue, [&third.message_id]);
    assert_eq!((snapshot.session.message_count, snapshot.messages.len()), (3, 3));

    let again = refusal(ann.call(dequeue(&ann, &second.message_id)).await);
    assert_eq!(again.code, ErrorCode::NotFound);
    for id in [&first.message_id, &messages(&ann).await[1].id] {
        let late = refusal(ann.call(dequeue(&ann, id)).await);
        assert_eq!(code_of(&late), (ErrorCode::Conflict, "message_not_queued"));
    }
    let (project, session) = (&ann.project, &ann.session);
    let path = format!("/v1/projects/{project}/sessions/{session}/messages/{}", third.message_id);
    let taken = ann.person.rest("DELETE", &path, None).await;
    assert_eq!((taken.status, &taken.json), (200, &json!({ "data": { "done": true } })));
    let gone = ann.person.rest("DELETE", &path, None).await;
    assert_eq!(rest_refusal(&gone).code, ErrorCode::NotFound);

    ann.approve(&call).await.unwrap();
    assert_eq!(ann.run_ended(&first.run_id).await, RunStatus::Completed);
    let snapshot = ann.person.snapshot(&ann.project, &ann.session).await;
    assert_eq!((snapshot.session.state, snapshot.messages.len()), (SessionState::Idle, 2));
}

#[tokio::test]
async fn a_message_that_waits_to_join_a_run_can_be_taken_back() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let first = ann.send_message(HOLD).await;
    let call = ann.approval().await.tool_call_id;
    let joins = ann.try_send("say steered", Some(WhenBusy::Steer)).await.unwrap();
    ann.call(dequeue(&ann, &joins.message_id)).await.unwrap();
    ann.wait_for("message.removed").await;
    ann.approve(&call).await.unwrap();
    assert_eq!(ann.run_ended(&first.run_id).await, RunStatus::Completed);
    assert_eq!(text_of(&ann.answer(&first.run_id).await), "first");
    assert_eq!(messages(&ann).await.len(), 2);
}

/// Whichever of both comes first.
#[tokio::test]
async fn a_message_that_is_taken_back_while_its_run_starts_is_answered_or_gone() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    for _ in 0..20 {
        let sent = ann.send_message("say hi").await;
        let taken = ann.call(dequeue(&ann, &sent.message_id)).await;
        let status = ann.run_ended(&sent.run_id).await;
        match taken {
            Ok(_) => assert_eq!(status, RunStatus::Cancelled),
            Err(_) => assert_eq!(status, RunStatus::Completed),
        }
    }
    let mut records = app.supervision().log().records(&RecordFilter::default());
    records.retain(SupervisionRecord::is_abnormal);
    assert_eq!(records, []);
    assert_eq!(text_of(&ann.ask("say next").await), "next");
}

#[tokio::test]
async fn another_answer_supersedes_the_old_one_and_all_that_follows() {
    let replies = ["one", "two", "three", "four"].map(chat::says);
    let provider = FakeProvider::start(replies).await;
    let app = spawn_app_with(AppOptions::with_provider(provider.base_url())).await;
    let mut ann = app.user("ann").await.conversation().await;
    let (question, answer) = asked(&mut ann, "first?").await;
    asked(&mut ann, "second?").await;
    let before = messages(&ann).await;

    let again = ann.call(retry(&ann, &answer.id)).await.unwrap();
    assert_eq!((&again.message_id, again.queued), (&question, false));
    assert_eq!(ann.run_ended(&again.run_id).await, RunStatus::Completed);
    let marked = ann.seen.iter().filter_map(|frame| match &frame.event {
        Event::MessageUpdated { message, .. } => Some((message.id.clone(), message.state)),
        _ => None,
    });
    let expected = before[1..].iter().map(|it| (it.id.clone(), MessageState::Superseded));
    assert_eq!(marked.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    let expected =
        [("first?", false), ("one", true), ("second?", true), ("two", true), ("three", false)];
    texts_are(&texts(&ann).await, &expected);
    assert_eq!(said(&provider.asked()[2].body), ["first?"]);

    // By its question too, and a superseded one has no other answer.
    let again = ann.call(retry(&ann, &question)).await.unwrap();
    assert_eq!(ann.run_ended(&again.run_id).await, RunStatus::Completed);
    assert_eq!(text_of(&ann.answer(&again.run_id).await), "four");
    assert_eq!(said(&provider.asked()[3].body), ["first?"]);
    for refused in [
        refusal(ann.call(retry(&ann, &answer.id)).await),
        refusal(ann.call(edit(&ann, &before[2].id, "no")).await),
    ] {
        assert_eq!(code_of(&refused), (ErrorCode::Conflict, "message_superseded"));
    }
    let unknown = refusal(ann.call(retry(&ann, &MessageId::from_bits(1))).await);
    assert_eq!(unknown.code, ErrorCode::NotFound);
    let kept = MessageGet { session_id: ann.session.clone(), message_id: answer.id.clone() };
    let kept = ann.call(kept).await.unwrap().message;
    assert_eq!(kept, Message { state: MessageState::Superseded, ..answer });
}

#[tokio::test]
async fn an_edited_message_supersedes_the_old_one_and_all_that_follows() {
    let replies = ["one", "two", "three", "four"].map(chat::says);
    let provider = FakeProvider::start(replies).await;
    let app = spawn_app_with(AppOptions::with_provider(provider.base_url())).await;
    let mut ann = app.user("ann").await.conversation().await;
    asked(&mut ann, "first?").await;
    let (question, answer) = asked(&mut ann, "second?").await;
    asked(&mut ann, "third?").await;

    let not_of_user = refusal(ann.call(edit(&ann, &answer.id, "no")).await);
    assert_eq!(code_of(&not_of_user), (ErrorCode::Conflict, "not_of_user"));
    let empty = refusal(ann.call(edit(&ann, &question, " ")).await);
    assert_eq!(code_of(&empty), (ErrorCode::InvalidRequest, "empty_content"));
    let (project, session) = (&ann.project, &ann.session);
    let path = format!("/v1/projects/{project}/sessions/{session}/messages/{question}/edit");
    let edited = ann.person.post(&path, json!({ "content": "other?" })).await;
    assert_eq!(edited.status, 202);
    let edited: MessageAccepted = edited.data().unwrap();
    assert_eq!(ann.run_ended(&edited.run_id).await, RunStatus::Completed);
    assert_eq!(said(&provider.asked()[3].body), ["first?", "one", "other?"]);
    let expected = [
        ("first?", false),
        ("one", false),
        ("second?", true),
        ("two", true),
        ("third?", true),
        ("three", true),
        ("other?", false),
        ("four", false),
    ];
    texts_are(&texts(&ann).await, &expected);
}

#[tokio::test]
async fn what_joined_a_run_stays_with_its_question_and_can_be_edited() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let first = ann.send_message(HOLD).await;
    let call = ann.approval().await.tool_call_id;
    let joined = ann.try_send("say steered", Some(WhenBusy::Steer)).await.unwrap();
    ann.approve(&call).await.unwrap();
    ann.run_ended(&first.run_id).await;

    let again = ann.call(retry(&ann, &joined.message_id)).await.unwrap();
    assert_eq!(again.message_id, first.message_id);
    assert_eq!(ann.run_ended(&again.run_id).await, RunStatus::Completed);
    assert_eq!(text_of(&ann.answer(&again.run_id).await), "steered");
    let expected = [(HOLD, false), ("steered", true), ("say steered", false), ("steered", false)];
    texts_are(&texts(&ann).await, &expected);

    let edited = ann.call(edit(&ann, &joined.message_id, "say other")).await.unwrap();
    assert_eq!(ann.run_ended(&edited.run_id).await, RunStatus::Completed);
    let expected = [
        (HOLD, false),
        ("steered", true),
        ("say steered", true),
        ("steered", true),
        ("say other", false),
        ("other", false),
    ];
    texts_are(&texts(&ann).await, &expected);
}

#[tokio::test]
async fn while_a_run_is_open_nothing_is_superseded() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let (question, _) = asked(&mut ann, "say hi").await;
    ann.send_message(HOLD).await;
    ann.approval().await;
    for refused in [
        refusal(ann.call(retry(&ann, &question)).await),
        refusal(ann.call(edit(&ann, &question, "say ho")).await),
    ] {
        assert_eq!(code_of(&refused), (ErrorCode::Conflict, "session_busy"));
    }
    assert!(messages(&ann).await.iter().all(|it| it.state != MessageState::Superseded));
}

#[tokio::test]
async fn who_comes_back_hears_what_was_superseded_and_cursors_stay() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let (_, first) = asked(&mut ann, "say one").await;
    let (question, _) = asked(&mut ann, "say two").await;
    let session_id = ann.session.clone();
    let page = |before| {
        let session_id = session_id.clone();
        MessageList { session_id, limit: Some(2), before }
    };
    let cursor = ann.call(page(None)).await.unwrap().next_cursor;
    let older = ann.call(page(cursor.clone())).await.unwrap().messages;
    assert_eq!(older[1], first);

    let since = Some(ann.position.clone());
    let again = ann.call(retry(&ann, &question)).await.unwrap();
    ann.run_ended(&again.run_id).await;
    assert_eq!(ann.call(page(cursor)).await.unwrap().messages, older);
    let mut bob = ann.person.join_since(&ann.project, &ann.session, since).await;
    let updated = bob.wait_for("message.updated").await;
    let Event::MessageUpdated { message, .. } = updated.event else { panic!("no") };
    assert_eq!(message.state, MessageState::Superseded);
}

#[tokio::test]
async fn what_is_superseded_is_not_found() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let (question, _) = asked(&mut ann, "say aardvark").await;
    let search = |query: &str| SessionSearch {
        query: query.to_owned(),
        session_id: None,
        limit: None,
        cursor: None,
    };
    let SearchPage { hits, .. } = ann.call(search("aardvark")).await.unwrap();
    assert_eq!(hits.len(), 2);
    let edited = ann.call(edit(&ann, &question, "say badger")).await.unwrap();
    ann.run_ended(&edited.run_id).await;
    assert_eq!(ann.call(search("aardvark")).await.unwrap().hits, []);
    assert_eq!(ann.call(search("badger")).await.unwrap().hits.len(), 2);
}
