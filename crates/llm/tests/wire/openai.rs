//! Responses: streams, what is sent, and what is sent back.

use iris_agent::{Attached, Prompt, PromptBlock, PromptMessage, ToolSpec};
use iris_llm::{
    ApiKey, ErrorClass, Finish, Limits, ModelRequest, OutputSchema, ProviderConfig, ProviderKind,
};
use iris_protocol::Usage;
use serde_json::{Value, json};

use crate::answer::{Said, blocks, said};
use crate::fake_provider::{FakeProvider, Reply};
use crate::{adapter, collect, configured, decode_as, request};

const KIND: ProviderKind = ProviderKind::OpenAi;

pub(crate) fn event(data: &Value) -> String {
    raw_event(data["type"].as_str().unwrap(), &data.to_string())
}

fn raw_event(name: &str, data: &str) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

fn created() -> String {
    let response = json!({"id": "resp_1", "status": "in_progress", "model": "gpt"});
    event(&json!({"type": "response.created", "response": response}))
        + &event(&json!({"type": "response.in_progress", "response": response}))
}

fn piece(kind: &str, index: u64, delta: &str) -> String {
    event(&json!({"type": kind, "output_index": index, "delta": delta}))
}

fn added(index: u64, item: &Value) -> String {
    event(&json!({"type": "response.output_item.added", "output_index": index, "item": item}))
}

/// The end of an item, which must come back as it was written here.
fn done(index: u64, item: &str) -> String {
    let data =
        format!(r#"{{"type":"response.output_item.done","output_index":{index},"item":{item}}}"#);
    raw_event("response.output_item.done", &data)
}

const REASONING: &str = r#"{"type":"reasoning","id":"rs_1","summary":[{"type":"summary_text","text":"one"},{"type":"summary_text","text":"two"}],"encrypted_content":"gA\u00e9==","n":1.50}"#;

fn reasoning(index: u64) -> String {
    let delta = |summary: u64, delta: &str| {
        event(&json!({"type": "response.reasoning_summary_text.delta", "output_index": index,
            "summary_index": summary, "delta": delta}))
    };
    let early =
        json!({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "old"});
    added(index, &early)
        + &delta(0, "o")
        + &delta(0, "ne")
        + &delta(1, "two")
        + &done(index, REASONING)
}

fn message(index: u64, pieces: &[&str], phase: Option<&str>) -> String {
    let content = json!([{"type": "output_text", "text": pieces.concat(), "annotations": []}]);
    let mut item = json!({"type": "message", "role": "assistant", "content": content});
    if let Some(phase) = phase {
        item.as_object_mut().unwrap().insert("phase".into(), phase.into());
    }
    let deltas = pieces.iter().map(|it| piece("response.output_text.delta", index, it));
    added(index, &json!({"type": "message", "role": "assistant", "content": []}))
        + &deltas.collect::<String>()
        + &event(&json!({"type": "response.output_text.done", "output_index": index}))
        + &done(index, &item.to_string())
}

fn call(index: u64, name: &str, pieces: &[&str], whole: &str) -> String {
    let item = |arguments: &str| {
        json!({"type": "function_call", "id": format!("fc_{index}"), "name": name,
            "call_id": format!("call_{index}"), "arguments": arguments})
    };
    let deltas = pieces.iter().map(|it| piece("response.function_call_arguments.delta", index, it));
    added(index, &item("")) + &deltas.collect::<String>() + &done(index, &item(whole).to_string())
}

fn completed() -> String {
    ended("response.completed", &json!({"status": "completed"}))
}

fn ended(kind: &str, response: &Value) -> String {
    let mut response = response.clone();
    let usage = json!({"input_tokens": 20, "output_tokens": 9, "total_tokens": 29,
        "input_tokens_details": {"cached_tokens": 5},
        "output_tokens_details": {"reasoning_tokens": 4}});
    response.as_object_mut().unwrap().insert("usage".into(), usage);
    event(&json!({"type": kind, "response": response}))
}

fn usage(server_tool_calls: u64) -> Usage {
    Usage {
        input_tokens: 20,
        output_tokens: 9,
        reasoning_tokens: 4,
        cache_read_tokens: 5,
        server_tool_calls,
        ..Usage::default()
    }
}

pub(crate) fn rich() -> String {
    [
        created(),
        reasoning(0),
        message(1, &["Hel", "lo 🌱"], Some("commentary")),
        call(2, "read", &[r#"{"path":"\u"#, r#"00e9"}"#], r#"{"path":"\u00e9"}"#),
        call(3, "list", &[], ""),
        completed(),
    ]
    .concat()
}

#[tokio::test]
async fn thoughts_text_and_parallel_calls_are_read() {
    let expected = Said {
        text: "Hello 🌱".into(),
        reasoning: "one\n\ntwo".into(),
        calls: vec![
            ("read".into(), r#"{"path":"\u00e9"}"#.into(), true),
            ("list".into(), String::new(), true),
        ],
        opaque: vec![REASONING.into(), r#"{"phase":"commentary"}"#.into()],
        usage: Some(usage(0)),
        finish: Some(Finish::ToolCalls),
        ..Said::default()
    };
    assert_eq!(said(&decode_as(KIND, &rich()).await), expected);
}

#[tokio::test]
async fn what_an_item_holds_at_its_end_is_what_counts() {
    // Nothing of it came before, or something else did.
    let late = done(0, r#"{"type":"message","content":[{"type":"output_text","text":"late"}]}"#)
        + &done(1, REASONING)
        + &done(
            2,
            r#"{"type":"function_call","call_id":"c","name":"read","arguments":"{\"a\":1}"}"#,
        )
        + &call(3, "list", &[r#"{"b":1"#], r#"{"b":2}"#)
        + &completed();
    let answer = said(&decode_as(KIND, &late).await);
    assert_eq!((answer.text.as_str(), answer.reasoning.as_str()), ("late", "one\n\ntwo"));
    let expected =
        [("read".into(), r#"{"a":1}"#.into(), true), ("list".into(), r#"{"b":2}"#.into(), true)];
    assert_eq!(answer.calls, expected);
    // A thought that the provider cannot read again is only shown.
    let open = r#"{"type":"reasoning","content":[{"type":"reasoning_text","text":"raw"}],"encrypted_content":null}"#;
    let answer = said(&decode_as(KIND, &(done(0, open) + &completed())).await);
    assert_eq!((answer.reasoning.as_str(), answer.opaque.len()), ("raw", 0));
}

#[tokio::test]
async fn every_reason_to_stop_is_known() {
    let incomplete = |reason: &str| json!({"incomplete_details": {"reason": reason}});
    let call_cut = created()
        + &added(0, &json!({"type": "function_call", "call_id": "c", "name": "read"}))
        + &piece("response.function_call_arguments.delta", 0, "{}");
    for (body, end, expected) in [
        (message(0, &["a"], None), completed(), Finish::Stop),
        (
            message(0, &["a"], None),
            ended("response.incomplete", &incomplete("max_output_tokens")),
            Finish::Length,
        ),
        (
            created()
                + &done(
                    0,
                    r#"{"type":"function_call","call_id":"c","name":"read","arguments":"","status":"incomplete"}"#,
                ),
            ended("response.incomplete", &incomplete("max_output_tokens")),
            Finish::Length,
        ),
        (call_cut, ended("response.incomplete", &incomplete("max_output_tokens")), Finish::Length),
        (
            String::new(),
            ended("response.incomplete", &incomplete("content_filter")),
            Finish::ContentFilter,
        ),
        (String::new(), ended("response.incomplete", &incomplete("new")), Finish::Other),
        (piece("response.refusal.delta", 0, "I cannot"), completed(), Finish::ContentFilter),
    ] {
        let answer = said(&decode_as(KIND, &(body.clone() + &end)).await);
        assert_eq!(answer.finish, Some(expected), "{body}");
        assert!(answer.calls.iter().all(|(_, _, is_complete)| !is_complete));
    }
}

#[tokio::test]
async fn errors_inside_the_stream_are_classified() {
    let failed = |code: &str| {
        let error = json!({"code": code, "message": "m"});
        event(&json!({"type": "response.failed", "response": {"error": error}}))
    };
    let flat = json!({"type": "error", "code": "server_error", "message": "m", "param": null});
    let nested = json!({"type": "error", "error": {"type": "insufficient_quota", "message": "m"}});
    for (end, class) in [
        (failed("server_error"), ErrorClass::Overloaded),
        (failed("rate_limit_exceeded"), ErrorClass::RateLimited),
        (failed("invalid_prompt"), ErrorClass::Invalid),
        (failed("image_too_large"), ErrorClass::Invalid),
        (failed("content_policy_violation"), ErrorClass::ContentFilter),
        (failed("context_length_exceeded"), ErrorClass::ContextOverflow),
        (event(&flat), ErrorClass::Overloaded),
        (event(&nested), ErrorClass::Quota),
        (raw_event("message", r#"{"error":{"code":"server_error"}}"#), ErrorClass::Overloaded),
        ("data: {broken\n\n".to_owned(), ErrorClass::Protocol),
        ("data: [DONE]\n\n".to_owned(), ErrorClass::Transient),
        (String::new(), ErrorClass::Transient),
    ] {
        let body = created() + &piece("response.output_text.delta", 0, "so") + &end;
        let answer = said(&decode_as(KIND, &body).await);
        assert_eq!((answer.text.as_str(), answer.error), ("so", Some(class)), "{end}");
    }
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

const SEARCH: &str = r#"{"type":"web_search_call","id":"ws_1","status":"completed","action":{"type":"search","query":"\u00e9"}}"#;
const MCP: &str = r#"{"type":"mcp_call","name":"ask","server_label":"s","arguments":"{\"q\":1}","output":"found","error":null}"#;
const COMPACTION: &str = r#"{"type":"compaction","id":"cmp_1","encrypted_content":"gA\/=="}"#;

#[tokio::test]
async fn tools_of_the_provider_are_shown_and_kept_as_they_came() {
    let ours = r#"{"type":"local_shell_call","status":"completed","action":{"command":["rm"]}}"#;
    let body = created()
        + &added(0, &json!({"type": "web_search_call"}))
        + &event(&json!({"type": "response.web_search_call.searching", "output_index": 0}))
        + &done(0, SEARCH)
        + &done(1, MCP)
        + &done(2, COMPACTION)
        + &done(3, ours)
        + &completed();
    let action = r#"{"type":"search","query":"é"}"#;
    let expected = Said {
        provider_tools: vec![
            ("web_search".into(), action.into(), String::new(), false),
            ("ask".into(), r#"{"q":1}"#.into(), "found".into(), false),
            (
                "local_shell".into(),
                r#"{"command":["rm"]}"#.into(),
                "this server does not offer it".into(),
                true,
            ),
        ],
        opaque: vec![SEARCH.into(), MCP.into(), COMPACTION.into()],
        usage: Some(usage(3)),
        finish: Some(Finish::Stop),
        ..Said::default()
    };
    assert_eq!(said(&decode_as(KIND, &body).await), expected);
}

#[tokio::test]
async fn the_next_request_has_everything_that_the_provider_wants_back() {
    let first = rich().replace(&completed(), &(done(4, SEARCH) + &completed()));
    let second = created() + &message(0, &["done"], None) + &completed();
    let provider = FakeProvider::start(vec![Reply::stream([first]), Reply::stream([second])]).await;
    let model = configured(ProviderConfig {
        base_url: Some(provider.base_url()),
        api_key: Some(ApiKey::new("sk-secret")),
        reasoning: Some("xhigh".parse().unwrap()),
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
    let cache_key = Some("ses_1".to_owned());
    let first = ModelRequest { model: "gpt".into(), prompt, cache_key, ..ModelRequest::default() };
    let mut kept = blocks(&collect(&model, first.clone()).await);
    // A thought that led to nothing, and one of another kind of provider.
    let lone = kept[0].clone();
    let opaque = Some(iris_agent::Opaque { kind: "anthropic".into(), json: "{}".into() });
    kept.insert(0, PromptBlock::Reasoning { text: "other".into(), opaque });
    kept.push(lone);
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
        result("call_2", false),
        result("call_3", true),
    ];
    let image = Attached { mime_type: "image/png".into(), bytes: b"\x89PNG"[..].into() };
    again.prompt.images = [("call_2".to_owned(), image)].into();
    again.max_output_tokens = Some(9);
    again.temperature = Some(0.5);
    again.output_schema =
        Some(OutputSchema { name: "o".into(), schema: json!({"type": "object"}), strict: true });
    assert_eq!(said(&collect(&model, again).await).text, "done");

    let asked = &provider.asked()[1];
    assert!(asked.head.starts_with("POST /v1/responses HTTP/1.1\r\n"), "{}", asked.head);
    assert!(
        asked.head.to_lowercase().contains("authorization: bearer sk-secret"),
        "{}",
        asked.head
    );
    let expected = [
        r#"{"model":"gpt","instructions":"be kind","input":["#,
        r#"{"type":"message","role":"user","content":[{"type":"input_text","text":"hi"}]},"#,
        REASONING,
        r#",{"type":"message","role":"assistant","content":[{"type":"output_text","#,
        r#""text":"Hello 🌱","annotations":[]}],"phase":"commentary"},"#,
        r#"{"type":"function_call","call_id":"call_2","name":"read","arguments":"{\"path\":\"é\"}"},"#,
        r#"{"type":"function_call","call_id":"call_3","name":"list","arguments":"{}"},"#,
        SEARCH,
        ",",
        r#"{"type":"function_call_output","call_id":"call_2","output":[{"type":"input_text","text":"out"},"#,
        r#"{"type":"input_image","image_url":"data:image/png;base64,iVBORw==","detail":"auto"}]},"#,
        r#"{"type":"function_call_output","call_id":"call_3","output":"error: out"}],"#,
        r#""tools":[{"type":"function","name":"read","description":"d","parameters":{"z":1},"strict":false}],"#,
        r#""tool_choice":"auto","max_output_tokens":9,"temperature":0.5,"#,
        r#""reasoning":{"effort":"xhigh","summary":"auto"},"text":{"format":{"type":"json_schema","#,
        r#""name":"o","schema":{"type":"object"},"strict":true}},"#,
        r#""include":["reasoning.encrypted_content"],"prompt_cache_key":"ses_1","#,
        r#""store":false,"stream":true}"#,
    ]
    .concat();
    assert_eq!(asked.body, expected);
}

#[tokio::test]
async fn what_is_not_set_is_not_sent() {
    let replies = vec![Reply::stream([rich()]), Reply::stream([rich()])];
    let provider = FakeProvider::start(replies).await;
    collect(&adapter(KIND, &provider.base_url(), Limits::default()), request()).await;
    let input = json!([{"type": "message", "role": "user",
        "content": [{"type": "input_text", "text": "hi"}]}]);
    let expected = json!({"model": "m", "input": input,
        "include": ["reasoning.encrypted_content"], "store": false, "stream": true});
    assert_eq!(provider.asked()[0].body, expected.to_string());

    // A model that does not reason refuses the question for its thoughts.
    let model = configured(ProviderConfig {
        base_url: Some(provider.base_url()),
        reasoning: Some("off".parse().unwrap()),
        ..ProviderConfig::new(KIND)
    });
    collect(&model, request()).await;
    assert!(!provider.asked()[1].body.contains("include"), "{}", provider.asked()[1].body);
}
