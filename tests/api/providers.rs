//! What providers want back, and tools that they run themselves: kept, sent back, and seen by nobody else.

use iris_llm::{ProviderConfig, ProviderKind};
use iris_protocol::{FinishReason, ModelRef, Part, Role, RunStatus, SessionUpdate, ToolState};
use iris_testkit::{
    AppOptions, Conversation, FakeProvider, Person, Reply, TestApp, calls_of, chat, spawn_app_with,
    text_of,
};
use serde_json::{Value, json};

const THOUGHT: &str = r#"{"type":"thinking","thinking":"I search.","signature":"canary+/=="}"#;
const USE: &str =
    r#"{"type":"server_tool_use","id":"srv_1","name":"web_search","input":{"q":1.50}}"#;
const RESULT: &str = r#"{"type":"web_search_tool_result","tool_use_id":"srv_1","content":[{"title":"T","encrypted_content":"canary\u00e9"}]}"#;

fn event(data: &str) -> String {
    let value: Value = serde_json::from_str(data).unwrap();
    format!("event: {}\ndata: {data}\n\n", value["type"].as_str().unwrap())
}

fn block(index: u32, block: &str) -> String {
    event(&format!(r#"{{"type":"content_block_start","index":{index},"content_block":{block}}}"#))
        + &event(&format!(r#"{{"type":"content_block_stop","index":{index}}}"#))
}

/// An answer of whole blocks.
fn answers(blocks: &[&str], reason: &str) -> Reply {
    let usage = r#"{"input_tokens":3,"output_tokens":2}"#;
    let start = format!(r#"{{"type":"message_start","message":{{"id":"m","usage":{usage}}}}}"#);
    let blocks = blocks.iter().zip(0..).map(|(it, index)| block(index, it));
    let delta = format!(r#"{{"type":"message_delta","delta":{{"stop_reason":"{reason}"}}}}"#);
    let end = event(&delta) + &event(r#"{"type":"message_stop"}"#);
    Reply::stream().bytes(event(&start) + &blocks.collect::<String>() + &end)
}

fn text(text: &str) -> String {
    json!({"type": "text", "text": text}).to_string()
}

/// A server with one provider that speaks Messages, and one that speaks Chat Completions.
async fn with(replies: Vec<Reply>) -> (TestApp, Conversation, FakeProvider, FakeProvider) {
    let provider = FakeProvider::start(replies).await;
    let other = FakeProvider::start([chat::says("and I am another")]).await;
    let mut options = AppOptions::with_provider(other.base_url());
    let settings = ProviderConfig {
        base_url: Some(provider.base_url().replace("/v1", "")),
        ..ProviderConfig::new(ProviderKind::Anthropic)
    };
    options.providers.insert("claude".to_owned(), settings);
    options.default_model = Some(ModelRef { provider_id: "claude".into(), model_id: "m".into() });
    let app = spawn_app_with(options).await;
    let conversation = app.user("ann").await.conversation().await;
    (app, conversation, provider, other)
}

#[tokio::test]
async fn what_a_provider_wants_back_is_sent_to_it_alone_and_outlives_the_server() {
    let call = r#"{"type":"tool_use","id":"toolu_1","name":"read","input":{"path":"a.txt"}}"#;
    let replies = vec![
        answers(&[THOUGHT, USE, RESULT, &text("I read."), call], "tool_use"),
        answers(&[&text("It says hi.")], "end_turn"),
        answers(&[&text("As I said.")], "end_turn"),
    ];
    let (app, mut ann, provider, other) = with(replies).await;
    ann.person.client.file_put(&ann.project, "a.txt", "hi").await.unwrap();
    let run = ann.send_message("what does it say?").await.run_id;
    let mut seen = String::new();
    loop {
        let frame = ann.next().await;
        seen.push_str(&serde_json::to_string(&frame).unwrap());
        if frame.event.name() == "run.completed" {
            break;
        }
    }
    let answer = ann.answer(&run).await;
    seen.push_str(&serde_json::to_string(&answer).unwrap());
    assert!(seen.contains("I search.") && !seen.contains("canary"), "{seen}");

    // The call was run here, the search was not.
    let calls = calls_of(&answer);
    assert_eq!((calls[0].tool_name.as_str(), calls[0].provider_executed), ("web_search", true));
    assert_eq!((calls[0].state, &calls[0].input), (ToolState::Completed, &json!({"q": 1.5})));
    assert_eq!(calls[0].output.as_deref(), Some(r#"[{"title":"T"}]"#));
    assert_eq!((calls[1].tool_name.as_str(), calls[1].provider_executed), ("read", false));
    assert_eq!(text_of(&answer), "I read.It says hi.");

    let app = app.restart().await;
    let mut ann = ann.resume(app.again(&ann.person)).await;
    assert_eq!(text_of(&ann.ask("and?").await), "As I said.");
    for asked in &provider.asked()[1..] {
        let content = asked.body["messages"][1]["content"].as_array().unwrap();
        let kept: Vec<String> = content.iter().take(3).map(Value::to_string).collect();
        let written = |json: &str| serde_json::from_str::<Value>(json).unwrap().to_string();
        assert_eq!(kept, [THOUGHT, USE, RESULT].map(written));
    }

    let model = Some(ModelRef { provider_id: "fake".into(), model_id: "m".into() });
    let session_id = ann.session.clone();
    let update = SessionUpdate { session_id, model, title: None, agent: None, mode: None };
    ann.call(update).await.unwrap();
    assert_eq!(text_of(&ann.ask("and you?").await), "and I am another");
    let asked = other.asked()[0].body.to_string();
    assert!(asked.contains("It says hi.") && !asked.contains("canary"), "{asked}");
    assert!(!asked.contains("web_search"), "{asked}");
}

#[tokio::test]
async fn a_provider_that_paused_goes_on_with_what_it_said() {
    let replies = vec![
        answers(&[&text("Let me see. "), USE], "pause_turn"),
        answers(&[RESULT, &text("It is so.")], "end_turn"),
    ];
    let (_app, mut ann, provider, _other) = with(replies).await;
    let run = ann.send_message("is it so?").await.run_id;
    assert_eq!(ann.run_ended(&run).await, RunStatus::Completed);
    let answer = ann.answer(&run).await;
    assert_eq!(text_of(&answer), "Let me see. It is so.");
    assert_eq!(answer.finish_reason, Some(FinishReason::Stop));
    let steps = answer.parts.iter().filter(|part| matches!(part, Part::Step { .. })).count();
    assert_eq!(steps, 2);
    let asked = provider.asked();
    let messages = asked[1].body["messages"].as_array().unwrap();
    let roles: Vec<_> = messages.iter().map(|message| message["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["user", "assistant"], "as it was, so that it goes on");
    assert_eq!(messages[1]["content"][1]["id"], "srv_1");
}

async fn set_key(person: &Person, key: &str) {
    let key = json!({ "providerId": "claude", "apiKey": key });
    assert_eq!(person.post("/v1/credentials", key).await.status, 201);
}

/// Whether the provider was sent back what it wanted, question by question.
fn sent_back(provider: &FakeProvider) -> Vec<bool> {
    provider.asked().iter().map(|asked| asked.body.to_string().contains("canary")).collect()
}

#[tokio::test]
async fn what_a_provider_wants_back_is_for_the_key_and_the_model_that_it_was_asked_with() {
    let plain = || answers(&[&text("Yes.")], "end_turn");
    let thought = answers(&[THOUGHT, &text("Yes.")], "end_turn");
    let (app, mut ann, provider, _other) = with(vec![thought, plain(), plain(), plain()]).await;
    let bob = app.user("bob").await;
    ann.person.add_member(&ann.project, &bob, Role::Member).await;
    set_key(&ann.person, "sk-ant-0123456789-ANN").await;
    set_key(&bob, "sk-ant-0123456789-BOB").await;
    let mut bob = bob.join(&ann.project, &ann.session).await;

    ann.ask("with her key").await;
    bob.ask("with his").await;
    ann.ask("with hers again").await;
    let model = Some(ModelRef { provider_id: "claude".into(), model_id: "other".into() });
    let session_id = ann.session.clone();
    let update = SessionUpdate { session_id, model, title: None, agent: None, mode: None };
    ann.call(update).await.unwrap();
    ann.ask("another model").await;
    assert_eq!(sent_back(&provider), [false, false, true, false]);
}

#[tokio::test]
async fn what_a_provider_refuses_to_have_back_is_forgotten() {
    let says = "messages.1.content.0: Invalid `signature` in `thinking` block";
    let refused = json!({"error": {"type": "invalid_request_error", "message": says}}).to_string();
    let refused = Reply::status(400, &refused).header("content-type", "application/json");
    let replies = vec![
        answers(&[THOUGHT, &text("Yes.")], "end_turn"),
        refused,
        answers(&[&text("Without it.")], "end_turn"),
        answers(&[&text("Without it again.")], "end_turn"),
    ];
    let (_app, mut ann, provider, _other) = with(replies).await;
    ann.ask("a thought").await;
    assert_eq!(text_of(&ann.ask("and?").await), "Without it.");
    assert_eq!(text_of(&ann.ask("and now?").await), "Without it again.");
    assert_eq!(sent_back(&provider), [false, true, false, false]);
}
