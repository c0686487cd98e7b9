//! Gemini: streams, what is sent, and what is sent back.

use iris_agent::{Attached, Prompt, PromptBlock, PromptCall, PromptMessage, ToolSpec};
use iris_llm::{
    ApiKey, ErrorClass, Finish, Limits, ModelRequest, OutputSchema, ProviderConfig, ProviderKind,
};
use iris_protocol::Usage;
use serde_json::{Value, json};

use crate::answer::{Said, blocks, said};
use crate::fake_provider::{FakeProvider, Reply};
use crate::{adapter, collect, configured, decode_as, request};

const KIND: ProviderKind = ProviderKind::Google;

/// A chunk with these parts, which must come back as they were written here.
fn raw_chunk(parts: &str, finish: &str) -> String {
    let finish =
        if finish.is_empty() { String::new() } else { format!(r#","finishReason":"{finish}""#) };
    let usage = r#"{"promptTokenCount":20,"cachedContentTokenCount":5,"candidatesTokenCount":6,"thoughtsTokenCount":4}"#;
    format!(
        "data: {{\"candidates\":[{{\"content\":{{\"role\":\"model\",\"parts\":[{parts}]}}{finish}}}],\
         \"usageMetadata\":{usage},\"modelVersion\":\"gemini\",\"responseId\":\"r\"}}\r\n\r\n"
    )
}

pub(crate) fn chunk(parts: &Value, finish: &str) -> String {
    let parts: Vec<String> = parts.as_array().unwrap().iter().map(Value::to_string).collect();
    raw_chunk(&parts.join(","), finish)
}

fn usage(server_tool_calls: u64) -> Usage {
    Usage {
        input_tokens: 20,
        output_tokens: 10,
        reasoning_tokens: 4,
        cache_read_tokens: 5,
        server_tool_calls,
        ..Usage::default()
    }
}

/// A signed thought, a text with a signature at its beginning and an empty one at its end, two calls of
/// which one is signed.
pub(crate) fn rich() -> String {
    [
        chunk(&json!([{"text": "hm 🌱", "thought": true, "thoughtSignature": "T+/="}]), ""),
        chunk(&json!([{"text": "Hel", "thoughtSignature": "A=="}, {"text": "lo"}]), ""),
        chunk(&json!([{"text": " é"}]), ""),
        chunk(&json!([{"text": "", "thoughtSignature": "E=="}]), ""),
        chunk(
            &json!([
                {"functionCall": {"id": "g1", "name": "read", "args": {"z": "é", "a": 1}},
                    "thoughtSignature": "C=="},
                {"functionCall": {"name": "list"}},
            ]),
            "",
        ),
        chunk(&json!([{"text": ""}]), "STOP"),
    ]
    .concat()
}

#[tokio::test]
async fn thoughts_text_and_parallel_calls_are_read() {
    let expected = Said {
        text: "Hello é".into(),
        reasoning: "hm 🌱".into(),
        calls: vec![
            ("read".into(), r#"{"z":"é","a":1}"#.into(), true),
            ("list".into(), "{}".into(), true),
        ],
        opaque: vec![
            r#"[{"start":0,"end":7,"signature":"T+/="}]"#.into(),
            r#"[{"start":0,"end":3,"signature":"A=="},{"start":8,"end":8,"signature":"E=="}]"#
                .into(),
            r#"{"id":"g1","thoughtSignature":"C=="}"#.into(),
            "{}".into(),
        ],
        usage: Some(usage(0)),
        finish: Some(Finish::ToolCalls),
        ..Said::default()
    };
    assert_eq!(said(&decode_as(KIND, &rich()).await), expected);
}

#[tokio::test]
async fn every_reason_to_stop_is_known() {
    let text = chunk(&json!([{"text": "a"}]), "");
    for (raw, expected) in [
        ("STOP", Finish::Stop),
        ("MAX_TOKENS", Finish::Length),
        ("CONTINUATION", Finish::Length),
        ("SAFETY", Finish::ContentFilter),
        ("RECITATION", Finish::ContentFilter),
        ("IMAGE_SAFETY", Finish::ContentFilter),
        ("LANGUAGE", Finish::Other),
    ] {
        let body = text.clone() + &chunk(&json!([]), raw);
        assert_eq!(said(&decode_as(KIND, &body).await).finish, Some(expected), "{raw}");
    }
    for raw in ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS"] {
        let body = text.clone() + &chunk(&json!([]), raw);
        let answer = said(&decode_as(KIND, &body).await);
        assert_eq!(answer.error, Some(ErrorClass::BadAnswer), "{raw}: worth asking again");
    }
    let blocked = "data: {\"promptFeedback\":{\"blockReason\":\"SAFETY\"}}\n\n";
    let answer = said(&decode_as(KIND, blocked).await);
    assert_eq!((answer.finish, answer.usage), (Some(Finish::ContentFilter), None));
}

#[tokio::test]
async fn an_answer_without_its_reason_to_stop_is_cut_off() {
    let whole = rich();
    let events: Vec<&str> = whole.split_inclusive("\r\n\r\n").collect();
    for length in 0..events.len() {
        let answer = said(&decode_as(KIND, &events[..length].concat()).await);
        assert_eq!(answer.error, Some(ErrorClass::Transient), "after {length} events");
    }
    // What comes behind the reason belongs to the answer.
    let late = chunk(&json!([{"text": "a"}]), "STOP") + &chunk(&json!([{"text": "b"}]), "");
    let answer = said(&decode_as(KIND, &late).await);
    assert_eq!((answer.text.as_str(), answer.finish), ("ab", Some(Finish::Stop)));
}

#[tokio::test]
async fn errors_inside_the_stream_are_classified_alone_and_in_a_list() {
    let error = r#"{"error":{"code":503,"status":"UNAVAILABLE","message":"busy"}}"#;
    for (data, class) in [
        (error.to_owned(), ErrorClass::Overloaded),
        (format!("[{error}]"), ErrorClass::Overloaded),
        ("{broken".to_owned(), ErrorClass::Protocol),
    ] {
        let body = chunk(&json!([{"text": "so"}]), "") + "data: " + &data + "\n\n";
        let answer = said(&decode_as(KIND, &body).await);
        assert_eq!((answer.text.as_str(), answer.error), ("so", Some(class)), "{data}");
    }
}

const CODE: &str =
    r#"{"executableCode":{"language":"PYTHON","code":"print(1)"},"thoughtSignature":"S\/="}"#;
const RAN: &str = r#"{"codeExecutionResult":{"outcome":"OUTCOME_OK","output":"1\n"},"n":1.50}"#;
const TOOL: &str = r#"{"toolCall":{"toolType":"FILE_SEARCH","id":"x"},"thoughtSignature":"T=="}"#;

#[tokio::test]
async fn tools_of_the_provider_are_shown_and_kept_as_they_came() {
    let body = raw_chunk(CODE, "") + &raw_chunk(RAN, "") + &raw_chunk(TOOL, "STOP");
    let expected = Said {
        provider_tools: vec![
            ("code_execution".into(), "print(1)".into(), "1\n".into(), false),
            ("file_search".into(), String::new(), String::new(), false),
        ],
        opaque: vec![format!("[{CODE},{RAN}]"), format!("[{TOOL}]")],
        usage: Some(usage(2)),
        finish: Some(Finish::Stop),
        ..Said::default()
    };
    assert_eq!(said(&decode_as(KIND, &body).await), expected);
    let failed = RAN.replace("OUTCOME_OK", "OUTCOME_FAILED");
    let answer = said(&decode_as(KIND, &raw_chunk(&failed, "STOP")).await);
    assert!(answer.provider_tools[0].3);
}

#[tokio::test]
async fn the_next_request_has_everything_that_the_provider_wants_back() {
    let first = raw_chunk(CODE, "") + &raw_chunk(RAN, "") + &rich();
    let second = chunk(&json!([{"text": "done"}]), "STOP");
    let provider = FakeProvider::start(vec![Reply::stream([first]), Reply::stream([second])]).await;
    let model = configured(ProviderConfig {
        base_url: Some(provider.base_url().replace("/v1", "")),
        api_key: Some(ApiKey::new("sk-secret")),
        reasoning: Some("max".parse().unwrap()),
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
    let first = ModelRequest { model: "gemini-3".into(), prompt, ..ModelRequest::default() };
    let kept = blocks(&collect(&model, first.clone()).await);
    let foreign = PromptCall {
        call_id: "other".into(),
        tool_name: "read".into(),
        arguments: json!({}),
        opaque: None,
    };
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
        result("g1", false),
        result("call_1", true),
        PromptMessage::Assistant { blocks: vec![PromptBlock::Call(foreign)] },
        result("other", false),
    ];
    let image = Attached { mime_type: "image/png".into(), bytes: b"\x89PNG"[..].into() };
    again.prompt.images = [("g1".to_owned(), image)].into();
    again.max_output_tokens = Some(9);
    again.temperature = Some(0.5);
    again.output_schema =
        Some(OutputSchema { name: "o".into(), schema: json!({"type": "object"}), strict: true });
    assert_eq!(said(&collect(&model, again).await).text, "done");

    let asked = &provider.asked()[1];
    let line = "POST /v1beta/models/gemini-3:streamGenerateContent?alt=sse HTTP/1.1\r\n";
    assert!(asked.head.starts_with(line), "{}", asked.head);
    assert!(asked.head.to_lowercase().contains("x-goog-api-key: sk-secret"), "{}", asked.head);
    let expected = [
        r#"{"contents":[{"role":"user","parts":[{"text":"hi"}]},{"role":"model","parts":["#,
        CODE,
        ",",
        RAN,
        r#",{"text":"hm 🌱","thought":true,"thoughtSignature":"T+/="},"#,
        r#"{"text":"Hel","thoughtSignature":"A=="},{"text":"lo é"},{"text":"","thoughtSignature":"E=="},"#,
        r#"{"functionCall":{"id":"g1","name":"read","args":{"z":"é","a":1}},"thoughtSignature":"C=="},"#,
        r#"{"functionCall":{"name":"list","args":{}}}]},"#,
        r#"{"role":"user","parts":[{"functionResponse":{"id":"g1","name":"read","response":{"output":"out"}}},"#,
        r#"{"functionResponse":{"name":"read","response":{"error":"out"}}},"#,
        r#"{"text":"The image that the call of read was answered with:"},"#,
        r#"{"inlineData":{"mimeType":"image/png","data":"iVBORw=="}}]},"#,
        r#"{"role":"model","parts":[{"functionCall":{"name":"read","args":{}},"#,
        r#""thoughtSignature":"skip_thought_signature_validator"}]},"#,
        r#"{"role":"user","parts":[{"functionResponse":{"name":"read","response":{"output":"out"}}}]}],"#,
        r#""systemInstruction":{"parts":[{"text":"be kind"}]},"#,
        r#""tools":[{"functionDeclarations":[{"name":"read","description":"d","parametersJsonSchema":{"z":1}}]}],"#,
        r#""toolConfig":{"functionCallingConfig":{"mode":"AUTO"}},"#,
        r#""generationConfig":{"temperature":0.5,"maxOutputTokens":9,"#,
        r#""responseMimeType":"application/json","responseJsonSchema":{"type":"object"},"#,
        r#""thinkingConfig":{"includeThoughts":true,"thinkingLevel":"HIGH"}}}"#,
    ]
    .concat();
    assert_eq!(asked.body, expected);
}

#[tokio::test]
async fn what_is_not_set_is_not_sent_and_no_name_leads_elsewhere() {
    let provider = FakeProvider::start(vec![Reply::stream([rich()])]).await;
    let base_url = provider.base_url().replace("/v1", "");
    let model = adapter(KIND, &base_url, Limits::default());
    collect(&model, request()).await;
    let expected = r#"{"contents":[{"role":"user","parts":[{"text":"hi"}]}]}"#;
    assert_eq!(provider.asked()[0].body, expected);

    let request = ModelRequest { model: "../x".into(), ..request() };
    let answer = said(&collect(&model, request).await);
    assert_eq!((answer.error, provider.asked().len()), (Some(ErrorClass::Invalid), 1));
}
