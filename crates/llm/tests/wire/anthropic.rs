//! Messages: streams, what is sent, and what is sent back.

use std::sync::Arc;

use iris_agent::{Attached, Prompt, PromptBlock, PromptMessage, ToolSpec};
use iris_llm::{
    ErrorClass, Finish, Limits, ModelRequest, OutputSchema, ProviderConfig, ProviderKind,
};
use iris_protocol::Usage;
use serde_json::{Value, json};

use crate::answer::{Said, blocks, said};
use crate::fake_provider::{FakeProvider, Reply};
use crate::{configured, decode_as};

const KIND: ProviderKind = ProviderKind::Anthropic;

pub(crate) fn event(data: &Value) -> String {
    format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap())
}

fn start() -> String {
    let usage = json!({"input_tokens": 10, "cache_creation_input_tokens": 4,
        "cache_read_input_tokens": 6, "output_tokens": 1, "service_tier": "standard",
        "cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 3}});
    let message = json!({"id": "msg_1", "role": "assistant", "model": "claude", "content": [],
        "stop_reason": null, "usage": usage});
    event(&json!({"type": "message_start", "message": message}))
}

fn begin(index: u64, block: &str) -> String {
    let block: Value = serde_json::from_str(block).unwrap();
    event(&json!({"type": "content_block_start", "index": index, "content_block": block}))
}

/// A block that must come back as it was written here.
fn begin_raw(index: u64, block: &str) -> String {
    let data =
        format!(r#"{{"type":"content_block_start","index":{index},"content_block":{block}}}"#);
    format!("event: content_block_start\ndata: {data}\n\n")
}

fn delta(index: u64, delta: &Value) -> String {
    event(&json!({"type": "content_block_delta", "index": index, "delta": delta}))
}

fn stop(index: u64) -> String {
    event(&json!({"type": "content_block_stop", "index": index}))
}

fn text(index: u64, pieces: &[&str]) -> String {
    let deltas = pieces.iter().map(|it| delta(index, &json!({"type": "text_delta", "text": it})));
    begin(index, r#"{"type":"text","text":""}"#) + &deltas.collect::<String>() + &stop(index)
}

fn thinking(index: u64, thought: &str, signature: &[&str]) -> String {
    let thought = delta(index, &json!({"type": "thinking_delta", "thinking": thought}));
    let signed = signature
        .iter()
        .map(|it| delta(index, &json!({"type": "signature_delta", "signature": it})));
    begin(index, r#"{"type":"thinking","thinking":"","signature":""}"#)
        + &thought
        + &signed.collect::<String>()
        + &stop(index)
}

fn arguments(index: u64, pieces: &[&str]) -> String {
    let delta = |it: &&str| delta(index, &json!({"type": "input_json_delta", "partial_json": it}));
    pieces.iter().map(delta).collect()
}

fn tool(index: u64, name: &str, pieces: &[&str]) -> String {
    let block =
        json!({"type": "tool_use", "id": format!("toolu_{index}"), "name": name, "input": {}});
    begin(index, &block.to_string()) + &arguments(index, pieces) + &stop(index)
}

fn end(reason: &str) -> String {
    let delta = json!({"stop_reason": reason, "stop_sequence": null});
    let usage = json!({"output_tokens": 20, "input_tokens": null,
        "output_tokens_details": {"thinking_tokens": 5}});
    event(&json!({"type": "message_delta", "delta": delta, "usage": usage}))
        + &event(&json!({"type": "message_stop"}))
}

fn usage() -> Usage {
    Usage {
        input_tokens: 20,
        output_tokens: 20,
        reasoning_tokens: 5,
        cache_read_tokens: 6,
        cache_write_tokens: 4,
        cache_write_1h_tokens: 3,
        ..Usage::default()
    }
}

/// A thought, a word, two parallel calls: with everything that is split badly.
pub(crate) fn rich() -> String {
    [
        start(),
        event(&json!({"type": "ping"})),
        thinking(0, "so é 🌱", &["sig+/", "=="]),
        begin_raw(1, r#"{"type":"redacted_thinking","data":"\u00e9x=="}"#),
        stop(1),
        text(2, &["Hel", "lo 🌱"]),
        tool(3, "read", &["", r#"{"path":"\u"#, r#"00e9","n":1"#, "}"]),
        tool(4, "list", &[]),
        end("tool_use"),
    ]
    .concat()
}

#[tokio::test]
async fn thoughts_text_and_parallel_calls_are_read() {
    let expected = Said {
        text: "Hello 🌱".into(),
        reasoning: "so é 🌱".into(),
        calls: vec![
            ("read".into(), r#"{"path":"\u00e9","n":1}"#.into(), true),
            ("list".into(), String::new(), true),
        ],
        opaque: vec![
            r#"{"signature":"sig+/=="}"#.into(),
            r#"{"type":"redacted_thinking","data":"\u00e9x=="}"#.into(),
        ],
        usage: Some(usage()),
        finish: Some(Finish::ToolCalls),
        ..Said::default()
    };
    assert_eq!(said(&decode_as(KIND, &rich()).await), expected);
}

#[tokio::test]
async fn every_reason_to_stop_is_known() {
    for (raw, expected) in [
        ("end_turn", Finish::Stop),
        ("stop_sequence", Finish::Stop),
        ("max_tokens", Finish::Length),
        ("refusal", Finish::ContentFilter),
        ("model_context_window_exceeded", Finish::ContextOverflow),
        ("pause_turn", Finish::Paused),
        ("tool_use", Finish::Stop),
        ("something_new", Finish::Other),
    ] {
        let body = start() + &text(0, &["a"]) + &end(raw);
        assert_eq!(said(&decode_as(KIND, &body).await).finish, Some(expected), "{raw}");
    }
}

#[tokio::test]
async fn a_call_that_was_cut_off_is_not_complete() {
    for pieces in [&[r#"{"path":"a"#][..], &[]] {
        let body = start() + &tool(0, "read", &["{}"]) + &tool(1, "write", pieces);
        let cut = said(&decode_as(KIND, &(body + &end("max_tokens"))).await);
        assert_eq!(cut.finish, Some(Finish::Length));
        let expected =
            [("read".into(), "{}".into(), true), ("write".into(), pieces.concat(), false)];
        assert_eq!(cut.calls, expected);
    }
    // A mistake of the model, which did get to the end.
    let body = start() + &tool(0, "read", &["{oops"]) + &end("tool_use");
    let wrong = said(&decode_as(KIND, &body).await);
    assert_eq!(wrong.calls, [("read".into(), "{oops".into(), true)]);
    // A block without its end.
    let block = json!({"type": "tool_use", "id": "t", "name": "read", "input": {}});
    let body = start() + &begin(0, &block.to_string()) + &arguments(0, &["{}"]);
    let open = said(&decode_as(KIND, &(body + &end("tool_use"))).await);
    assert_eq!(open.calls, [("read".into(), "{}".into(), false)]);
}

#[tokio::test]
async fn an_answer_is_whole_only_with_its_last_event() {
    let whole = rich();
    let events: Vec<&str> = whole.split_inclusive("\n\n").collect();
    for length in 0..events.len() {
        let answer = said(&decode_as(KIND, &events[..length].concat()).await);
        assert_eq!(answer.error, Some(ErrorClass::Transient), "after {length} events");
    }
}

#[tokio::test]
async fn errors_inside_the_stream_are_classified() {
    for (kind, class) in [
        ("overloaded_error", ErrorClass::Overloaded),
        ("rate_limit_error", ErrorClass::RateLimited),
        ("api_error", ErrorClass::Transient),
        ("invalid_request_error", ErrorClass::Invalid),
        ("billing_error", ErrorClass::Quota),
    ] {
        let error = json!({"type": "error", "error": {"type": kind, "message": "m"}});
        let body = start() + &begin(0, r#"{"type":"text","text":"so"}"#) + &event(&error);
        let answer = said(&decode_as(KIND, &body).await);
        assert_eq!((answer.text.as_str(), answer.error), ("so", Some(class)), "{kind}");
    }
}

#[tokio::test]
async fn what_is_unknown_repeated_or_out_of_place_does_no_harm() {
    let body = [
        event(&json!({"type": "something_new", "x": [1]})),
        start(),
        start(),
        begin(7, r#"{"type":"container_upload","file_id":"f"}"#),
        delta(7, &json!({"type": "citations_delta", "citation": {}})),
        stop(9),
        stop(7),
        text(3, &["a"]),
        delta(5, &json!({"type": "input_json_delta", "partial_json": "{"})),
        delta(5, &json!({"type": "signature_delta", "signature": "stray"})),
        text(3, &["b"]),
        end("end_turn"),
        end("end_turn"),
    ]
    .concat();
    let answer = said(&decode_as(KIND, &body).await);
    assert_eq!((answer.text.as_str(), answer.finish), ("ab", Some(Finish::Stop)));
    assert_eq!(answer.opaque, Vec::<String>::new());

    let nameless = start() + &tool(0, "", &["{}"]);
    assert_eq!(said(&decode_as(KIND, &nameless).await).error, Some(ErrorClass::Protocol));
    let broken = start() + "event: content_block_delta\ndata: {broken\n\n";
    assert_eq!(said(&decode_as(KIND, &broken).await).error, Some(ErrorClass::Protocol));
}

const USE: &str = r#"{"type":"server_tool_use","id":"srv_1","name":"web_search","input":{}}"#;
const RESULT: &str = r#"{"type":"web_search_tool_result","tool_use_id":"srv_1","content":[{"type":"web_search_result","title":"T","encrypted_content":"\u00e9==","n":1.50}]}"#;

fn searching() -> String {
    begin_raw(0, USE) + &arguments(0, &[r#"{"query": "#, r#""q"}"#]) + &stop(0)
}

#[tokio::test]
async fn tools_of_the_provider_are_shown_and_kept_as_they_came() {
    let body =
        [start(), searching(), begin_raw(1, RESULT), stop(1), text(2, &["so"]), end("end_turn")];
    let used = USE.replace(r#""input":{}"#, r#""input":{"query": "q"}"#);
    let output = r#"[{"type":"web_search_result","title":"T","n":1.5}]"#;
    let expected = Said {
        text: "so".into(),
        provider_tools: vec![(
            "web_search".into(),
            r#"{"query": "q"}"#.into(),
            output.into(),
            false,
        )],
        opaque: vec![format!("[{used},{RESULT}]")],
        usage: Some(usage()),
        finish: Some(Finish::Stop),
        ..Said::default()
    };
    assert_eq!(said(&decode_as(KIND, &body.concat()).await), expected);

    // Paused before it answered.
    let body = [start(), searching(), end("pause_turn")].concat();
    let paused = said(&decode_as(KIND, &body).await);
    assert_eq!(paused.finish, Some(Finish::Paused));
    assert_eq!(paused.opaque, [format!("[{used}]")]);
    let cut = said(&decode_as(KIND, &[start(), searching(), end("max_tokens")].concat()).await);
    assert_eq!((cut.provider_tools.len(), cut.opaque.len()), (1, 0), "of no use without a result");

    let failed = r#"{"type":"web_search_tool_result","tool_use_id":"x","content":{"type":"web_search_tool_result_error","error_code":"e"}}"#;
    let body = [start(), begin_raw(0, failed), stop(0), end("end_turn")].concat();
    let failed = said(&decode_as(KIND, &body).await);
    assert!(failed.provider_tools[0].3, "{failed:?}");
    assert_eq!(failed.provider_tools[0].0, "web_search");
}

fn result(call_id: &str, output: &str, is_error: bool) -> PromptMessage {
    PromptMessage::ToolResult {
        call_id: call_id.into(),
        tool_name: "read".into(),
        output: output.into(),
        is_error,
    }
}

#[tokio::test]
async fn the_next_request_has_everything_that_the_provider_wants_back() {
    let searched = [searching(), begin_raw(1, RESULT), stop(1)].concat();
    let first = rich().replacen(&event(&json!({"type": "ping"})), &searched, 1);
    let second = start() + &text(0, &["done"]) + &end("end_turn");
    let provider = FakeProvider::start(vec![Reply::stream([first]), Reply::stream([second])]).await;
    let model = configured(ProviderConfig {
        base_url: Some(provider.base_url().replace("/v1", "")),
        api_key: Some(iris_llm::ApiKey::new("sk-secret")),
        reasoning: Some("minimal".parse().unwrap()),
        ..ProviderConfig::new(KIND)
    });
    let asked = PromptMessage::asked("hi");
    let prompt = Prompt {
        system: "be kind".into(),
        messages: vec![asked.clone()],
        tools: ["read", "list"].map(spec).to_vec(),
        ..Prompt::default()
    };
    let request = ModelRequest { model: "claude".into(), prompt, ..ModelRequest::default() };
    let answer = crate::collect(&model, request.clone()).await;
    let mut kept = blocks(&answer);
    // What another kind of provider thought is not for this one.
    let opaque = Some(iris_agent::Opaque { kind: "openai".into(), json: "{}".into() });
    kept.push(PromptBlock::Reasoning { text: "other".into(), opaque });
    kept.push(PromptBlock::Text { text: " \n".into(), opaque: None });
    let image = Attached { mime_type: "image/png".into(), bytes: b"\x89PNG"[..].into() };
    let mut again = request;
    again.prompt.messages = vec![
        asked,
        PromptMessage::Assistant { blocks: kept },
        result("toolu_3", "content", false),
        result("toolu_4", "failed", true),
        PromptMessage::asked("and?"),
    ];
    again.prompt.images = [("toolu_3".to_owned(), image)].into();
    again.max_output_tokens = Some(9);
    again.temperature = Some(0.5);
    let schema = json!({"type": "object", "z": 1, "a": 2});
    again.output_schema = Some(OutputSchema { name: "o".into(), schema, strict: false });
    assert_eq!(said(&crate::collect(&model, again).await).text, "done");

    let asked = &provider.asked()[1];
    let head = asked.head.to_lowercase();
    assert!(asked.head.starts_with("POST /v1/messages HTTP/1.1\r\n"), "{}", asked.head);
    for header in
        ["x-api-key: sk-secret", "anthropic-version: 2023-06-01", "content-type: application/json"]
    {
        assert!(head.contains(header), "{head}");
    }
    assert!(!head.contains("authorization"), "{head}");
    let mark = r#""cache_control":{"type":"ephemeral"}"#;
    let used = USE.replace(r#""input":{}"#, r#""input":{"query": "q"}"#);
    let expected = [
        r#"{"model":"claude","max_tokens":9,"stream":true,"#.to_owned(),
        r#""tools":[{"name":"read","description":"d","input_schema":{"z":1,"a":2}},"#.into(),
        format!(r#"{{"name":"list","description":"d","input_schema":{{"z":1,"a":2}},{mark}}}],"#),
        r#""tool_choice":{"type":"auto"},"#.into(),
        format!(r#""system":[{{"type":"text","text":"be kind",{mark}}}],"#),
        r#""messages":[{"role":"user","content":[{"type":"text","text":"hi"}]},"#.into(),
        format!(r#"{{"role":"assistant","content":[{used},{RESULT},"#),
        r#"{"type":"thinking","thinking":"so é 🌱","signature":"sig+/=="},"#.into(),
        r#"{"type":"redacted_thinking","data":"\u00e9x=="},"#.into(),
        r#"{"type":"text","text":"Hello 🌱"},"#.into(),
        r#"{"type":"tool_use","id":"toolu_3","name":"read","input":{"path":"é","n":1}},"#.into(),
        format!(r#"{{"type":"tool_use","id":"toolu_4","name":"list","input":{{}},{mark}}}]}},"#),
        r#"{"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_3","content":["#
            .into(),
        r#"{"type":"text","text":"content"},{"type":"image","source":{"type":"base64","#.into(),
        r#""media_type":"image/png","data":"iVBORw=="}}]},"#.into(),
        r#"{"type":"tool_result","tool_use_id":"toolu_4","content":"failed","is_error":true},"#
            .into(),
        format!(r#"{{"type":"text","text":"and?",{mark}}}]}}],"#),
        r#""thinking":{"type":"adaptive"},"output_config":{"effort":"low","#.into(),
        r#""format":{"type":"json_schema","schema":{"type":"object","z":1,"a":2}}},"#.into(),
        r#""temperature":0.5}"#.into(),
    ]
    .concat();
    assert_eq!(asked.body, expected);
    assert_eq!(asked.body.matches(mark).count(), 4, "as many as there may be");
}

fn spec(name: &str) -> Arc<ToolSpec> {
    ToolSpec::new(name, "d", &json!({"z": 1, "a": 2})).into()
}

#[tokio::test]
async fn what_is_not_set_is_not_sent() {
    let provider = FakeProvider::start(vec![Reply::stream([rich()])]).await;
    let base_url = provider.base_url().replace("/v1", "");
    let model = crate::adapter(KIND, &base_url, Limits::default());
    crate::collect(&model, crate::request()).await;
    let expected = json!({"model": "m", "max_tokens": 8192, "stream": true, "messages": [
        {"role": "user", "content": [
            {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]}]});
    assert_eq!(provider.asked()[0].body, expected.to_string());
}
