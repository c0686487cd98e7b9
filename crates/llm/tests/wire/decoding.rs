//! Streams that are answers, from servers that keep to the wire and from those that do not.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails like the test itself")]

use iris_llm::{CALLS_MAX, ErrorClass, Finish, Limits, ModelEvent, ReportedUsage};
use iris_protocol::Usage;
use serde_json::{Value, json};

use crate::fake_provider::{FakeProvider, Reply};
use crate::{Answer, ask, call_chunk, chunk, decode, done, event};

const USAGE: &str = r#"{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}"#;

fn usage() -> ModelEvent {
    let tokens = Usage { input_tokens: 5, output_tokens: 2, ..Usage::default() };
    let raw = serde_json::json!({"prompt_tokens": 5, "completion_tokens": 2});
    ModelEvent::Usage(ReportedUsage { tokens, service_tier: None, raw: Some(raw) })
}

/// The calls of an answer: id, name, arguments, whether they are complete. Checks that each was
/// announced once and that its fragments add up.
fn calls(answer: &Answer) -> Vec<(String, String, String, bool)> {
    let mut open: Vec<(String, String, String)> = Vec::new();
    let mut calls = Vec::new();
    for event in answer {
        #[expect(clippy::wildcard_enum_match_arm, reason = "only calls are looked at")]
        match event.as_ref().unwrap() {
            ModelEvent::ToolInputStart { call_id, name } => {
                assert!(open.iter().all(|(id, ..)| id != call_id), "`{call_id}` twice");
                open.push((call_id.clone(), name.clone(), String::new()));
            }
            ModelEvent::ToolInputDelta { call_id, fragment } => {
                open.iter_mut().find(|(id, ..)| id == call_id).unwrap().2.push_str(fragment);
            }
            ModelEvent::ToolCall { call_id, name, arguments, is_complete, .. } => {
                let whole = (call_id.clone(), name.clone(), arguments.clone());
                assert!(open.contains(&whole), "{whole:?}");
                calls.push((whole.0, whole.1, whole.2, *is_complete));
            }
            _ => {}
        }
    }
    assert_eq!(open.len(), calls.len());
    calls
}

fn call(id: &str, name: &str, arguments: &str) -> (String, String, String, bool) {
    (id.to_owned(), name.to_owned(), arguments.to_owned(), true)
}

fn finish(answer: &Answer) -> Finish {
    let last = answer.last().unwrap().as_ref().unwrap();
    let ModelEvent::Finish { reason, .. } = last else { unreachable!("{last:?}") };
    *reason
}

fn text(answer: &Answer) -> String {
    let texts = answer.iter().filter_map(|event| match event {
        Ok(ModelEvent::TextDelta { text, .. }) => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

/// The types of the events, as they print.
fn types(answer: &Answer) -> Vec<String> {
    let name = |event: &Value| event.get("type").unwrap().as_str().unwrap().to_owned();
    answer.iter().map(|event| name(&json!(event.as_ref().unwrap()))).collect()
}

#[tokio::test]
async fn text_is_streamed_over_a_connection_and_the_request_is_whole() {
    let body = [
        chunk(r#"{"role":"assistant","content":""}"#, ""),
        chunk(r#"{"content":"Hel"}"#, ""),
        chunk(r#"{"content":"lo"}"#, ""),
        chunk("{}", "stop"),
        event(USAGE),
        done(),
    ];
    let provider = FakeProvider::start(vec![Reply::stream(body)]).await;
    let answer = ask(&provider, Limits::default()).await;

    let expected = [
        ModelEvent::Start { model: "m-1".into(), id: "chat-1".into() },
        ModelEvent::TextStart { index: 0 },
        ModelEvent::TextDelta { index: 0, text: "Hel".into() },
        ModelEvent::TextDelta { index: 0, text: "lo".into() },
        ModelEvent::TextEnd { index: 0 },
        usage(),
        ModelEvent::Finish { reason: Finish::Stop, raw: "stop".into() },
    ];
    assert_eq!(answer, expected.map(Ok));

    let asked = provider.asked();
    assert_eq!(asked.len(), 1);
    let head = asked[0].head.to_lowercase();
    assert!(head.starts_with("post /v1/chat/completions http/1.1\r\n"), "{head}");
    for line in ["authorization: bearer sk-secret", "content-type: application/json"] {
        assert!(head.contains(line), "{head}");
    }
    let body: Value = serde_json::from_str(&asked[0].body).unwrap();
    assert_eq!(body["messages"], json!([{"role": "user", "content": "hi"}]));
}

#[tokio::test]
async fn text_and_two_parallel_calls_are_put_together_by_index() {
    let body = [
        chunk(r#"{"content":"Both:"}"#, ""),
        call_chunk(r#"{"index":0,"id":"a","function":{"name":"read","arguments":""}}"#),
        call_chunk(r#"{"index":1,"id":"b","function":{"name":"list","arguments":"{\"p"}}"#),
        call_chunk(r#"{"index":0,"function":{"arguments":"{\"path\":\"\\u00"}}"#),
        call_chunk(r#"{"index":1,"function":{"arguments":"\":1}"}}"#),
        call_chunk(r#"{"index":0,"function":{"arguments":"e9 ü\"}"}}"#),
        chunk("{}", "tool_calls"),
        event(USAGE),
        done(),
    ];
    let answer = decode(&body.concat()).await;
    let expected = [call("a", "read", r#"{"path":"\u00e9 ü"}"#), call("b", "list", r#"{"p":1}"#)];
    assert_eq!(calls(&answer), expected);
    assert_eq!((text(&answer).as_str(), finish(&answer)), ("Both:", Finish::ToolCalls));
    assert_eq!(types(&answer)[..4], ["start", "textStart", "textDelta", "textEnd"]);
}

#[tokio::test]
async fn odd_fragments_of_calls_are_put_together() {
    let whole = |id: &str, index: &str, arguments: &str| {
        call_chunk(&format!(
            r#"{{{id}{index}"function":{{"name":"read","arguments":"{arguments}"}}}}"#
        ))
    };
    let a = || call("a", "read", "{}");
    let cases = [
        ("no input", vec![whole(r#""id":"a","#, r#""index":0,"#, "")], vec![call("a", "read", "")]),
        ("no index, no id", vec![whole("", "", "{}")], vec![call("call_0", "read", "{}")]),
        (
            "two without index and id",
            vec![whole("", "", "{}"), whole("", "", "{}")],
            vec![call("call_0", "read", "{}"), call("call_1", "read", "{}")],
        ),
        (
            "new id without index",
            vec![
                whole(r#""id":"a","#, "", "{"),
                whole(r#""id":"b","#, "", "{}"),
                whole(r#""id":"a","#, "", "}"),
            ],
            vec![a(), call("b", "read", "{}")],
        ),
        (
            "all numbered 0",
            vec![
                whole(r#""id":"a","#, r#""index":0,"#, "{}"),
                whole(r#""id":"b","#, r#""index":0,"#, "{}"),
            ],
            vec![a(), call("b", "read", "{}")],
        ),
        (
            "id and name repeated",
            vec![
                whole(r#""id":"a","#, r#""index":0,"#, "{"),
                whole(r#""id":"a","#, r#""index":0,"#, "}"),
            ],
            vec![a()],
        ),
        (
            "another id with each fragment",
            vec![
                whole(r#""id":"a","#, r#""index":0,"#, "{"),
                call_chunk(r#"{"index":0,"id":"z","function":{"arguments":"}"}}"#),
            ],
            vec![a()],
        ),
        (
            "name after the arguments",
            vec![
                call_chunk(r#"{"index":0,"id":"a","function":{"arguments":"{"}}"#),
                call_chunk(r#"{"index":0,"function":{"name":"read","arguments":"}"}}"#),
            ],
            vec![a()],
        ),
        (
            "the same id twice",
            vec![
                whole(r#""id":"a","#, r#""index":0,"#, "{}"),
                whole(r#""id":"a","#, r#""index":1,"#, "{}"),
            ],
            vec![a(), call("call_1", "read", "{}")],
        ),
        (
            "arguments as an object",
            vec![call_chunk(r#"{"id":"a","function":{"name":"read","arguments":{"x":1}}}"#)],
            vec![call("a", "read", r#"{"x":1}"#)],
        ),
        ("not json", vec![whole(r#""id":"a","#, "", "oh no")], vec![call("a", "read", "oh no")]),
    ];
    for (name, body, expected) in cases {
        // `stop` although there are calls is odd as well.
        let answer = decode(&(body.concat() + &chunk("{}", "stop") + &done())).await;
        assert_eq!(calls(&answer), expected, "{name}");
        assert_eq!(finish(&answer), Finish::ToolCalls, "{name}");
    }
}

#[tokio::test]
async fn a_call_cut_by_the_output_limit_is_not_complete() {
    let body = [
        call_chunk(r#"{"index":0,"id":"a","function":{"name":"read","arguments":"{}"}}"#),
        call_chunk(r#"{"index":1,"id":"b","function":{"name":"write","arguments":"{\"te"}}"#),
        call_chunk(r#"{"index":2,"id":"c","function":{"name":"list","arguments":""}}"#),
        chunk("{}", "length"),
        done(),
    ];
    let answer = decode(&body.concat()).await;
    let complete: Vec<_> = calls(&answer).into_iter().map(|(id, .., c)| (id, c)).collect();
    assert_eq!(complete, [("a".into(), true), ("b".into(), false), ("c".into(), false)]);
    assert_eq!(finish(&answer), Finish::Length);
}

#[tokio::test]
async fn more_calls_than_the_limit_are_refused() {
    let call = |n| call_chunk(&format!(r#"{{"index":{n},"function":{{"name":"read"}}}}"#));
    let within: String = (0..CALLS_MAX).map(call).collect();
    let end = chunk("{}", "tool_calls") + &done();
    assert_eq!(calls(&decode(&(within.clone() + &end)).await).len(), CALLS_MAX);
    let over = within + &call(CALLS_MAX) + &end;
    let error = decode(&over).await.pop().unwrap().unwrap_err();
    assert_eq!(error.class, ErrorClass::Protocol);
    assert_eq!(error.message, "the model called more than `16` tools at once");
}

#[tokio::test]
async fn unknown_events_comments_and_any_line_end_are_tolerated() {
    let body = [
        ": keep-alive\n\n".to_owned(),
        "event: ping\ndata: not json\n\n".to_owned(),
        event(r#"{"type":"something.new","detail":1}"#),
        chunk(r#"{"content":"a","new_field":{}}"#, ""),
        ": keep-alive\n".to_owned(),
        chunk(r#"{"content":"b"}"#, "brand_new"),
        done(),
    ]
    .concat();
    let answer = decode(&body).await;
    assert_eq!((text(&answer).as_str(), finish(&answer)), ("ab", Finish::Other));
    for line_end in ["\r\n", "\r"] {
        assert_eq!(decode(&body.replace('\n', line_end)).await, answer, "{line_end:?}");
    }
    assert_eq!(decode(&format!("\u{feff}{body}")).await, answer);
}

#[tokio::test]
async fn usage_is_the_last_one_wherever_it_stands_and_may_be_missing() {
    let with = |usage: &str, finish: &str| {
        event(&format!(
            r#"{{"choices":[{{"delta":{{"content":"a"}},"finish_reason":{finish}}}],"usage":{usage}}}"#
        ))
    };
    let counts = r#"{"prompt_tokens":5,"completion_tokens":2}"#;
    let early = r#"{"prompt_tokens":5,"completion_tokens":1}"#;
    for body in [
        with("null", r#""stop""#) + &event(USAGE) + &done(),
        with("null", "null") + &with(counts, r#""stop""#) + &done(),
        with(early, "null") + &with(counts, "null") + &with("null", r#""stop""#) + &done(),
    ] {
        let answer = decode(&body).await;
        let found: Vec<_> =
            answer.iter().filter(|e| matches!(e, Ok(ModelEvent::Usage(_)))).collect();
        assert_eq!(found, [&Ok(usage())], "{body}");
    }
    let without = decode(&(with("null", r#""stop""#) + &done())).await;
    assert!(!types(&without).contains(&"usage".to_owned()));
    assert_eq!(finish(&without), Finish::Stop);
}

#[tokio::test]
async fn reasoning_is_told_from_text_in_every_dialect() {
    let list = r#"{"content":[{"type":"thinking","thinking":[{"type":"text","text":"hm"}]},{"type":"text","text":"yes"}]}"#;
    for deltas in [
        vec![r#"{"reasoning_content":"hm","reasoning":"hm"}"#, r#"{"content":"yes"}"#],
        vec![r#"{"reasoning":"hm","content":null}"#, r#"{"content":"yes"}"#],
        vec![list],
    ] {
        let body: String = deltas.iter().map(|delta| chunk(delta, "")).collect();
        let answer = decode(&(body + &chunk("{}", "stop") + &done())).await;
        let reasoning = ModelEvent::ReasoningDelta { index: 0, text: "hm".into() };
        let text = ModelEvent::TextDelta { index: 1, text: "yes".into() };
        assert!(answer.contains(&Ok(reasoning)) && answer.contains(&Ok(text)), "{deltas:?}");
    }
    let opaque =
        chunk(r#"{"reasoning_details":[{"type":"reasoning.encrypted","data":"x"}]}"#, "stop");
    let answer = decode(&(opaque + &done())).await;
    assert_eq!(
        types(&answer),
        ["start", "reasoningStart", "reasoningOpaque", "reasoningEnd", "finish"]
    );
}

#[tokio::test]
async fn a_refusal_ends_in_content_filter() {
    for (body, expected) in [
        (chunk(r#"{"refusal":"I cannot"}"#, "stop"), "I cannot"),
        (chunk(r#"{"content":"I"}"#, "content_filter"), "I"),
    ] {
        let answer = decode(&(body + &done())).await;
        assert_eq!((text(&answer).as_str(), finish(&answer)), (expected, Finish::ContentFilter));
    }
}

#[tokio::test]
async fn a_finish_reason_without_done_is_a_whole_answer() {
    let answer = decode(&chunk(r#"{"content":"a"}"#, "stop")).await;
    assert_eq!(finish(&answer), Finish::Stop);
    // What comes after the terminal marker is not looked at.
    let answer = decode(&(chunk("{}", "stop") + &done() + &event("garbage") + &done())).await;
    assert_eq!(types(&answer), ["start", "finish"]);
}
