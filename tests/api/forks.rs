//! Sessions that go on elsewhere, and conversations that are taken along.

use iris_protocol::{
    Content, ErrorCode, Event, ExportFormat, Message, MessageEdit, MessageId, MessageState, Role,
    RunStatus, Session, SessionExport, SessionFork, SessionState, ToolOutput,
    limits::EXPORT_BYTES_MAX,
};
use iris_testkit::{
    AppOptions, Conversation, FakeProvider, TestApp, calls_of, chat, spawn_app, spawn_app_with,
    text_of,
};
use serde_json::{Value, json};

use crate::{code_of, refusal, rest_refusal};

/// Keeps a run waiting for a person.
const HOLD: &str = "call write {\"path\": \"a.txt\", \"content\": \"x\"}\nstep\nsay first";

fn fork(talk: &Conversation, message_id: Option<&MessageId>) -> SessionFork {
    let session_id = talk.session.clone();
    SessionFork { session_id, message_id: message_id.cloned(), title: None }
}

fn export(talk: &Conversation, format: ExportFormat) -> SessionExport {
    SessionExport { session_id: talk.session.clone(), format: Some(format) }
}

async fn messages(talk: &Conversation) -> Vec<Message> {
    talk.person.snapshot(&talk.project, &talk.session).await.messages
}

/// What can be compared of a message that was copied.
fn gist(message: &Message) -> Value {
    let parts: Vec<Value> = message
        .parts
        .iter()
        .map(|part| {
            let mut part = json!(part);
            part.as_object_mut().unwrap().remove("id");
            part
        })
        .collect();
    json!([
        message.role,
        message.state,
        message.agent,
        message.after_step,
        message.created_by,
        parts
    ])
}

fn gists(messages: &[Message]) -> Vec<Value> {
    messages.iter().map(gist).collect()
}

/// What a question to the model says, but for the system's words.
fn said(body: &Value) -> Vec<Value> {
    let messages = body["messages"].as_array().unwrap().iter();
    messages.filter(|message| message["role"] != "system").cloned().collect()
}

#[tokio::test]
async fn a_fork_goes_on_with_what_the_model_knows_up_to_a_message() {
    let provider = FakeProvider::start([
        chat::calls("list", "{\"path\": \".\"}"),
        chat::says("it is empty"),
        chat::says("two"),
        chat::says("other"),
    ])
    .await;
    let app = spawn_app_with(AppOptions::with_provider(provider.base_url())).await;
    let mut ann = app.user("ann").await.conversation().await;
    let first = ann.ask("what is there?").await;
    ann.ask("and?").await;
    let all = messages(&ann).await;

    let forked = ann.call(fork(&ann, Some(&first.id))).await.unwrap().session;
    let event = ann.wait_for("session.forked").await;
    let Event::SessionForked { session_id, message_id, fork: told } = event.event else {
        panic!("no")
    };
    assert_eq!((&session_id, message_id.as_ref(), &told), (&ann.session, Some(&first.id), &forked));
    assert_eq!((&forked.title, forked.state), (&"New session".to_owned(), SessionState::Idle));
    assert_eq!((forked.message_count, forked.parent_id), (2, None));
    let mut other = ann.person.join(&ann.project, &forked.id).await;
    let copies = messages(&other).await;
    assert_eq!(gists(&copies), gists(&all[..2]));
    assert!(copies.iter().zip(&all).all(|(copy, of)| copy.id != of.id && copy.run_id != of.run_id));

    assert_eq!(text_of(&other.ask("else?").await), "other");
    let asked = provider.asked();
    let (before, after) = (said(&asked[2].body), said(&asked[3].body));
    assert_eq!(after[..4], before[..4], "the same calls under the same ids");
    assert_eq!(after.len(), 5);
    assert_eq!(messages(&ann).await, all, "the session itself is as it was");
}

#[tokio::test]
async fn a_fork_has_the_whole_outputs_and_outlives_the_session() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let image = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    ann.person.client.file_put(&ann.project, "a.png", image).await.unwrap();
    let answer = ann.ask("call read {\"path\": \"a.png\"}\nstep\nsay ok").await;
    let call = calls_of(&answer)[0].clone();
    assert!(call.attachment.is_some(), "{call:?}");
    let forked = ann.call(fork(&ann, None)).await.unwrap().session.id;
    let other = ann.person.join(&ann.project, &forked).await;
    let whole = async |talk: &Conversation| {
        let (session_id, tool_call_id) = (talk.session.clone(), call.tool_call_id.clone());
        talk.call(ToolOutput { session_id, tool_call_id, offset: None, limit: None }).await
    };
    assert_eq!(whole(&ann).await.unwrap(), whole(&other).await.unwrap());
    let before = messages(&other).await;
    let purge = format!("/v1/projects/{}/sessions/{}?permanent=true", ann.project, ann.session);
    assert!(ann.person.rest("DELETE", &purge, None).await.is_success());
    assert_eq!(messages(&other).await, before);
    assert!(whole(&other).await.is_ok());
    let app: TestApp = app.restart().await;
    let again = app.again(&other.person).snapshot(&other.project, &other.session).await;
    assert_eq!(again.messages, before);
}

#[tokio::test]
async fn a_fork_leaves_out_what_is_superseded_and_what_is_not_done() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let sent = ann.send_message("say one").await;
    ann.run_ended(&sent.run_id).await;
    let (session_id, content) = (ann.session.clone(), Content::Text("say two".to_owned()));
    let edit = MessageEdit {
        session_id,
        message_id: sent.message_id.clone(),
        content,
        attachments: Vec::new(),
    };
    let edited = ann.call(edit).await.unwrap();
    ann.run_ended(&edited.run_id).await;
    let open = ann.send_message(HOLD).await;
    ann.approval().await;
    let waits = ann.send_message("say three").await;

    let forked = ann.call(fork(&ann, None)).await.unwrap().session.id;
    let other = ann.person.join(&ann.project, &forked).await;
    let copies = messages(&other).await;
    assert_eq!(copies.iter().map(text_of).collect::<Vec<_>>(), ["say two", "two"]);
    // Up to the question that is being answered, and no further.
    let forked = ann.call(fork(&ann, Some(&open.message_id))).await.unwrap().session;
    assert_eq!(forked.message_count, 3);
    let answer = messages(&ann).await.into_iter().find(|it| it.state == MessageState::Streaming);
    for id in [&answer.unwrap().id, &waits.message_id] {
        let refused = refusal(ann.call(fork(&ann, Some(id))).await);
        assert_eq!(code_of(&refused), (ErrorCode::Conflict, "session_busy"));
    }
    let refused = refusal(ann.call(fork(&ann, Some(&sent.message_id))).await);
    assert_eq!(code_of(&refused), (ErrorCode::Conflict, "message_superseded"));
    let unknown = refusal(ann.call(fork(&ann, Some(&MessageId::from_bits(1)))).await);
    assert_eq!(unknown.code, ErrorCode::NotFound);
}

#[tokio::test]
async fn a_fork_of_what_was_joined_can_be_forked_and_answered_again() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let first = ann.send_message(HOLD).await;
    let call = ann.approval().await.tool_call_id;
    let steer = Some(iris_protocol::WhenBusy::Steer);
    ann.try_send("say steered", steer).await.unwrap();
    ann.approve(&call).await.unwrap();
    assert_eq!(ann.run_ended(&first.run_id).await, RunStatus::Completed);
    let all = messages(&ann).await;
    let mut talk = ann;
    for _ in 0..2 {
        let answer = messages(&talk).await[1].id.clone();
        let forked = talk.call(fork(&talk, Some(&answer))).await.unwrap().session.id;
        talk = talk.person.join(&talk.project, &forked).await;
        assert_eq!(gists(&messages(&talk).await), gists(&all));
    }
    let path = format!(
        "/v1/projects/{}/sessions/{}/messages/{}/retry",
        talk.project,
        talk.session,
        messages(&talk).await[1].id
    );
    let again: iris_protocol::MessageAccepted =
        talk.person.post(&path, json!({})).await.data().unwrap();
    assert_eq!(talk.run_ended(&again.run_id).await, RunStatus::Completed);
    assert_eq!(text_of(&talk.answer(&again.run_id).await), "steered");
}

#[tokio::test]
async fn a_mode_that_who_forks_could_not_choose_is_not_taken_over() {
    let app = spawn_app().await;
    let ann = app.user("ann").await.conversation().await;
    let path = format!("/v1/projects/{}/sessions/{}", ann.project, ann.session);
    let set = ann.person.rest("PATCH", &path, Some(json!({ "mode": "plan" }))).await;
    assert!(set.is_success());
    let bob = app.user("bob").await;
    ann.person.add_member(&ann.project, &bob, Role::Member).await;
    let body = json!({ "title": "mine" });
    let forked = bob.post(&format!("{path}/fork"), body).await;
    assert_eq!(forked.status, 201);
    let forked: Session = forked.data().unwrap();
    assert_eq!((forked.title.as_str(), json!(forked.mode)), ("mine", json!("plan")));
    assert_eq!(forked.created_by, *bob.id());
    let untitled = bob.post(&format!("{path}/fork"), json!({ "title": "" })).await;
    assert_eq!(rest_refusal(&untitled).code, ErrorCode::InvalidRequest);
}

#[tokio::test]
async fn a_conversation_is_exported_whole_over_both_doors() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let answer =
        ann.ask("think hm\ncall list {\"path\": \".\"}\nstep\nsay it is\nsay ``` empty").await;
    let document = ann.call(export(&ann, ExportFormat::Json)).await.unwrap();
    assert_eq!(document.mime_type, "application/json");
    let whole: Value = serde_json::from_str(&document.content).unwrap();
    assert_eq!(whole["session"]["id"], json!(ann.session));
    assert_eq!(whole["messages"], json!(messages(&ann).await));

    let path = format!("/v1/projects/{}/sessions/{}/export", ann.project, ann.session);
    let raw = async |path: &str| {
        let token = Some(ann.person.token());
        ann.person.client.raw("GET", path, token, &[], Vec::new().into()).await.unwrap()
    };
    let answered = raw(&path).await;
    assert_eq!(
        (answered.status, answered.headers["content-type"].to_str().unwrap()),
        (200, "application/json")
    );
    assert_eq!(answered.body, document.content.as_bytes());
    let answered = raw(&format!("{path}?format=markdown")).await;
    let kind = answered.headers["content-type"].to_str().unwrap();
    assert_eq!((answered.status, kind), (200, "text/markdown; charset=utf-8"));
    let text = String::from_utf8(answered.body.to_vec()).unwrap();
    let markdown = ann.call(export(&ann, ExportFormat::Markdown)).await.unwrap();
    assert_eq!(markdown.content, text);
    for piece in ["# New session", "## User", "## Assistant", "> hm", "**Tool `list`** (completed)"]
    {
        assert!(text.contains(piece), "{piece}: {text}");
    }
    assert!(text.contains(&text_of(&answer)), "{text}");
    let wrong = raw(&format!("{path}?format=pdf")).await;
    assert_eq!(rest_refusal(&wrong).code, ErrorCode::InvalidRequest);
}

#[tokio::test]
async fn a_conversation_that_is_too_long_for_one_document_is_refused() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let word = "x".repeat(200_000);
    // Each answer has 3 MB.
    for _ in 0..3 {
        ann.ask(&format!("chunks 15 {word}")).await;
    }
    let refused = refusal(ann.call(export(&ann, ExportFormat::Json)).await);
    assert_eq!(code_of(&refused), (ErrorCode::PayloadTooLarge, "export_too_large"));
    assert!(refused.message.contains(&EXPORT_BYTES_MAX.to_string()));
}
