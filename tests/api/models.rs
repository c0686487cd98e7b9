//! Providers, on the real wire: what they say, how they fail, and what is kept of it.

use iris_protocol::{
    ErrorCode, Event, FinishReason, MessageState, ModelRef, RunStatus, SessionUpdate, ToolOutput,
    ToolState,
};
use iris_testkit::{
    AppOptions, Conversation, FakeProvider, Gate, Reply, TestApp, calls_of, chat, spawn_app,
    spawn_app_with, text_of,
};
use serde_json::Value;

use crate::refusal;

async fn with(replies: Vec<Reply>) -> (TestApp, Conversation, FakeProvider) {
    let provider = FakeProvider::start(replies).await;
    let app = spawn_app_with(AppOptions::with_provider(provider.base_url())).await;
    let conversation = app.user("ann").await.conversation().await;
    (app, conversation, provider)
}

#[tokio::test]
async fn a_providers_stream_becomes_an_answer_with_tool_calls_and_usage() {
    let (_app, mut ann, provider) = with(vec![
        chat::calls("read", r#"{"path": "a.txt"}"#),
        Reply::stream()
            .bytes(chat::text("It says "))
            .bytes(chat::text("hi."))
            .bytes(chat::end("stop")),
    ])
    .await;
    ann.person.client.file_put(&ann.project, "a.txt", "hi").await.unwrap();
    let answer = ann.ask("what does it say?").await;
    assert_eq!(text_of(&answer), "It says hi.");
    assert_eq!(calls_of(&answer)[0].state, ToolState::Completed);
    assert_eq!(answer.usage.unwrap().input_tokens, 6);
    let asked = provider.asked();
    assert!(asked[0].head.starts_with("POST /v1/chat/completions HTTP/1.1"), "{}", asked[0].head);
    let messages = asked[1].body["messages"].as_array().unwrap().clone();
    let roles: Vec<_> = messages.iter().map(|message| message["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "tool"]);
    assert_eq!(messages[3]["tool_call_id"], messages[2]["tool_calls"][0]["id"]);
}

/// What begins like an image in the format PNG, and is a file without an end.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";

#[tokio::test]
async fn an_image_is_shown_to_models_that_can_be_shown_some() {
    for shows in [true, false] {
        let replies = [chat::calls("read", r#"{"path": "a.png"}"#), chat::says("a cat")];
        let provider = FakeProvider::start(replies).await;
        let mut options = AppOptions::with_provider(provider.base_url());
        options.providers.get_mut("fake").unwrap().images = Some(shows);
        let app = spawn_app_with(options).await;
        let mut ann = app.user("ann").await.conversation().await;
        ann.person.client.file_put(&ann.project, "a.png", PNG.to_vec()).await.unwrap();
        let answer = ann.ask("what is it?").await;
        let call = calls_of(&answer)[0];
        assert_eq!(call.output.as_deref(), Some("`a.png` is a PNG image of 16 bytes"));
        let attachment = call.attachment.clone().unwrap();
        assert_eq!((attachment.mime_type.as_str(), attachment.size), ("image/png", 16));
        let asked = provider.asked();
        let last = asked[1].body["messages"].as_array().unwrap().last().unwrap();
        if shows {
            let url = last["content"][1]["image_url"]["url"].as_str().unwrap();
            assert_eq!(url, "data:image/png;base64,iVBORw0KGgoAAAANSUhEUg==");
        } else {
            let told = last["content"].as_str().unwrap();
            assert!(told.ends_with("16 bytes (this model is shown no images)"), "{told}");
        }
        let (session_id, tool_call_id) = (ann.session.clone(), call.tool_call_id.clone());
        let get = ToolOutput { session_id, tool_call_id, offset: Some(1), limit: None };
        let piece = ann.call(get).await.unwrap();
        assert_eq!((piece.content.as_str(), piece.size), ("UE5HDQoaCgAAAA1JSERS", 16));
    }
}

#[tokio::test]
async fn a_provider_that_fails_ends_the_run_with_the_reason_and_the_session_goes_on() {
    let half = || Reply::stream().bytes(chat::text("half of an "));
    let broken = || Reply::stream().bytes("data: {nonsense\n\n");
    let cases = vec![
        (Reply::status(401, r#"{"error":{"message":"bad key"}}"#), "auth", ""),
        (Reply::status(500, "oops"), "transient", ""),
        (half().cut(), "transient", "half of an "),
        (half(), "transient", "half of an "),
        (broken(), "protocol", ""),
    ];
    let mut replies: Vec<_> = cases.iter().map(|(reply, ..)| reply.clone()).collect();
    replies.push(chat::says("at last"));
    let (_app, mut ann, _provider) = with(replies).await;
    for (_, reason, kept) in &cases {
        let run = ann.send_message("hello").await.run_id;
        let failed = ann.wait_for("message.error").await;
        let Event::MessageError { error, .. } = failed.event else { panic!("{failed:?}") };
        assert_eq!(crate::code_of(&error), (ErrorCode::ProviderError, *reason));
        assert_eq!(ann.run_ended(&run).await, RunStatus::Failed, "{reason}");
        let answer = ann.answer(&run).await;
        assert_eq!((text_of(&answer).as_str(), answer.state), (*kept, MessageState::Error));
        assert_eq!(answer.error, Some(error));
    }
    assert_eq!(text_of(&ann.ask("and now?").await), "at last");
}

#[tokio::test]
async fn a_provider_that_is_not_there_ends_the_run_too() {
    let app = spawn_app_with(AppOptions::with_provider("http://127.0.0.1:1/v1".into())).await;
    let mut ann = app.user("ann").await.conversation().await;
    let answer = ann.ask("hello").await;
    assert_eq!(crate::code_of(&answer.error.unwrap()), (ErrorCode::ProviderError, "transient"));
}

#[tokio::test]
async fn a_model_is_told_that_its_arguments_are_wrong_and_the_run_goes_on() {
    let bad = [
        ("read", "{\"path\": ", "JSON"),
        ("read", "[1]", "object"),
        ("read", "{\"pfad\": \"a.txt\"}", "path"),
        ("read", "{\"path\": 7}", "path"),
        ("fly", "{}", "unknown tool `fly`"),
    ];
    let mut replies: Vec<_> = bad.iter().map(|(tool, text, _)| chat::calls(tool, text)).collect();
    replies.insert(3, chat::calls("read", "{\"path\": \"a.txt\"}"));
    replies.push(chat::says("sorry"));
    let (_app, mut ann, provider) = with(replies).await;
    ann.person.client.file_put(&ann.project, "a.txt", "hi").await.unwrap();
    let answer = ann.ask("go").await;
    assert_eq!((text_of(&answer).as_str(), answer.state), ("sorry", MessageState::Complete));
    let last = provider.asked().last().unwrap().body.clone();
    let results = last["messages"].as_array().unwrap().iter();
    let results = results.filter(|message| message["role"] == "tool");
    let mut results: Vec<_> = results.map(|message| message["content"].as_str().unwrap()).collect();
    results.remove(3);
    for ((_, arguments, hint), result) in bad.iter().zip(results) {
        assert!(result.contains(hint), "{arguments}: {result}");
    }
    let calls = calls_of(&answer);
    assert_eq!(calls[0].input, Value::from("{\"path\": "));
    assert_eq!(calls[0].state, ToolState::Error);
}

#[tokio::test]
async fn cancelling_in_the_middle_of_a_stream_keeps_the_text_and_leaves_the_provider() {
    let gate = Gate::default();
    let held = Reply::stream().bytes(chat::text("half")).wait(&gate).bytes(chat::text(" more"));
    let (_app, mut ann, _provider) = with(vec![held, chat::says("next")]).await;
    let run = ann.send_message("hello").await.run_id;
    ann.wait_for("message.text.delta").await;
    assert!(ann.cancel().await);
    assert_eq!(ann.run_ended(&run).await, RunStatus::Cancelled);
    gate.open();
    let answer = ann.answer(&run).await;
    assert_eq!(
        (text_of(&answer).as_str(), answer.finish_reason),
        ("half", Some(FinishReason::Cancelled))
    );
    assert_eq!(answer.state, MessageState::Complete);
    assert_eq!(text_of(&ann.ask("again").await), "next");
    let late = ann
        .seen
        .iter()
        .any(|f| matches!(&f.event, Event::MessageTextDelta { delta, .. } if delta == " more"));
    assert!(!late);
}

#[tokio::test]
async fn without_a_provider_a_message_is_refused_with_a_sentence_that_helps() {
    let options = AppOptions {
        providers: std::collections::BTreeMap::new(),
        default_model: None,
        ..AppOptions::default()
    };
    let app = spawn_app_with(options).await;
    let ann = app.user("ann").await.conversation().await;
    let refused = refusal(ann.try_send("hello", None).await);
    assert_eq!(refused.code, ErrorCode::ModelUnavailable);
    assert!(refused.message.contains("IRIS_PROVIDERS__"), "{}", refused.message);
    assert!(ann.person.snapshot(&ann.project, &ann.session).await.messages.is_empty());
}

#[tokio::test]
async fn a_model_of_an_unknown_provider_is_unavailable() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let choose = |provider: &str| SessionUpdate {
        mode: None,
        session_id: ann.session.clone(),
        title: None,
        agent: None,
        model: Some(ModelRef { provider_id: provider.to_owned(), model_id: "m".to_owned() }),
    };
    let (missing, there) = (choose("nobody"), choose("demo"));
    ann.call(missing).await.unwrap();
    let refused = refusal(ann.try_send("say hi", None).await);
    assert_eq!(refused.code, ErrorCode::ModelUnavailable);
    assert!(refused.message.contains("`nobody`"), "{}", refused.message);
    ann.call(there).await.unwrap();
    let answer = ann.ask("say hi").await;
    assert_eq!(answer.model.unwrap().model_id, "m");
}
