//! Ollama's own wire: lines of JSON, what is sent, and what is sent back.

use iris_agent::{Attached, Prompt, PromptMessage, ToolSpec};
use iris_llm::{
    ApiKey, ErrorClass, Finish, Limits, ModelRequest, OutputSchema, ProviderConfig, ProviderKind,
};
use iris_protocol::Usage;
use serde_json::{Value, json};

use crate::answer::{Said, blocks, said};
use crate::fake_provider::{FakeProvider, Reply};
use crate::{adapter, collect, configured, decode_as, request};

const KIND: ProviderKind = ProviderKind::Ollama;

pub(crate) fn line(message: &Value) -> String {
    format!("{}\n", json!({"model": "qwen", "message": message, "done": false}))
}

fn done(reason: &str) -> String {
    let line = json!({"model": "qwen", "message": {"role": "assistant", "content": ""},
        "done": true, "done_reason": reason, "prompt_eval_count": 20, "eval_count": 9});
    format!("{line}\n")
}

fn reply(body: String) -> Reply {
    Reply::status(200, [body]).header("content-type", "application/x-ndjson")
}

pub(crate) fn rich() -> String {
    [
        line(&json!({"role": "assistant", "content": "", "thinking": "hm 🌱"})),
        line(&json!({"role": "assistant", "content": "Hel"})),
        "\r\n".to_owned(),
        line(&json!({"role": "assistant", "content": "lo é"})),
        line(&json!({"role": "assistant", "content": "", "tool_calls": [
            {"function": {"name": "read", "arguments": {"z": "é", "a": 1}}},
            {"id": "own", "function": {"name": "list", "arguments": {}}},
        ]})),
        done("stop"),
    ]
    .concat()
}

#[tokio::test]
async fn thoughts_text_and_parallel_calls_are_read() {
    let usage = Usage { input_tokens: 20, output_tokens: 9, ..Usage::default() };
    let expected = Said {
        text: "Hello é".into(),
        reasoning: "hm 🌱".into(),
        calls: vec![
            ("read".into(), r#"{"z":"é","a":1}"#.into(), true),
            ("list".into(), "{}".into(), true),
        ],
        usage: Some(usage),
        finish: Some(Finish::ToolCalls),
        ..Said::default()
    };
    assert_eq!(said(&decode_as(KIND, &rich()).await), expected);
    // The last line need not have an end.
    assert_eq!(said(&decode_as(KIND, rich().trim_end()).await), expected);
}

#[tokio::test]
async fn every_end_is_known() {
    let text = line(&json!({"content": "so"}));
    for (raw, expected) in [
        ("stop", Finish::Stop),
        ("length", Finish::Length),
        ("", Finish::Stop),
        ("load", Finish::Other),
    ] {
        let answer = said(&decode_as(KIND, &(text.clone() + &done(raw))).await);
        assert_eq!(answer.finish, Some(expected), "{raw}");
    }
    for (end, class) in [
        ("{\"error\":\"out of memory\"}\n", ErrorClass::Transient),
        ("{broken\n", ErrorClass::Protocol),
        ("", ErrorClass::Transient),
    ] {
        let answer = said(&decode_as(KIND, &(text.clone() + end)).await);
        assert_eq!((answer.text.as_str(), answer.error), ("so", Some(class)), "{end}");
    }
    let no_usage = text + "{\"done\":true}\n";
    assert_eq!(said(&decode_as(KIND, &no_usage).await).usage, None);
}

#[tokio::test]
async fn the_next_request_has_the_calls_and_what_led_to_them() {
    let provider = FakeProvider::start(vec![
        reply(rich()),
        reply(line(&json!({"content": "done"})) + &done("stop")),
    ])
    .await;
    let model = configured(ProviderConfig {
        base_url: Some(provider.base_url().replace("/v1", "")),
        api_key: Some(ApiKey::new("sk-secret")),
        reasoning: Some("xhigh".parse().unwrap()),
        context_tokens: Some(32_768),
        ..ProviderConfig::new(KIND)
    });
    let asked = PromptMessage::asked("hi");
    let tool = ToolSpec::new("read", "d", &json!({"z": 1})).into();
    let prompt = Prompt {
        system: "be kind".into(),
        messages: vec![asked.clone()],
        tools: vec![tool],
        ..Prompt::default()
    };
    let first = ModelRequest { model: "qwen".into(), prompt, ..ModelRequest::default() };
    let kept = blocks(&collect(&model, first.clone()).await);
    let result = |call_id: &str, is_error| PromptMessage::ToolResult {
        call_id: call_id.into(),
        tool_name: "read".into(),
        output: "out".into(),
        is_error,
    };
    let mut again = first;
    again.prompt.messages = vec![
        asked,
        PromptMessage::Assistant { blocks: kept },
        result("call_0", false),
        result("own", true),
    ];
    let image = Attached { mime_type: "image/png".into(), bytes: b"\x89PNG"[..].into() };
    again.prompt.images = [("call_0".to_owned(), image)].into();
    again.max_output_tokens = Some(9);
    again.temperature = Some(0.5);
    again.output_schema =
        Some(OutputSchema { name: "o".into(), schema: json!({"type": "object"}), strict: true });
    assert_eq!(said(&collect(&model, again).await).text, "done");

    let asked = &provider.asked()[1];
    assert!(asked.head.starts_with("POST /api/chat HTTP/1.1\r\n"), "{}", asked.head);
    assert!(
        asked.head.to_lowercase().contains("authorization: bearer sk-secret"),
        "{}",
        asked.head
    );
    let expected = json!({"model": "qwen", "messages": [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "Hello é", "thinking": "hm 🌱", "tool_calls": [
            {"function": {"name": "read", "arguments": {"z": "é", "a": 1}}},
            {"function": {"name": "list", "arguments": {}}}]},
        {"role": "tool", "tool_name": "read", "content": "out"},
        {"role": "tool", "tool_name": "read", "content": "error: out"},
        {"role": "user", "content": "The image that the call call_0 was answered with:",
            "images": ["iVBORw=="]},
    ], "stream": true, "tools": [{"type": "function", "function":
        {"name": "read", "description": "d", "parameters": {"z": 1}}}],
        "think": "high", "format": {"type": "object"},
        "options": {"num_ctx": 32768, "num_predict": 9, "temperature": 0.5}});
    assert_eq!(asked.body, expected.to_string());
}

#[tokio::test]
async fn what_is_not_set_is_not_sent_and_an_error_before_the_stream_is_read() {
    let refused = Reply::status(404, [r#"{"error":"model 'm' not found"}"#]);
    let provider = FakeProvider::start(vec![reply(rich()), refused]).await;
    let base_url = provider.base_url().replace("/v1", "");
    let model = adapter(KIND, &base_url, Limits::default());
    collect(&model, request()).await;
    let messages = json!([{"role": "user", "content": "hi"}]);
    let expected = json!({"model": "m", "messages": messages, "stream": true});
    assert_eq!(provider.asked()[0].body, expected.to_string());
    let answer = collect(&model, request()).await;
    let error = answer[0].as_ref().unwrap_err();
    assert_eq!(error.class, ErrorClass::Invalid);
    assert!(error.message.contains("model 'm' not found"), "{error}");
}
