//! However a stream is cut into pieces, its events are the same, and whatever comes, nothing breaks.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails like the test itself")]

use bytes::Bytes;
use futures_util::StreamExt;
use iris_llm::{EVENT_BYTES_MAX, ErrorClass, ProviderKind, replay};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use crate::answer::said;
use crate::{Answer, anthropic, call_chunk, chunk, done, google, ollama, openai};

/// Every wire with a stream that has something of everything.
fn wires() -> Vec<(ProviderKind, String)> {
    vec![
        (ProviderKind::Anthropic, anthropic::rich()),
        (ProviderKind::OpenAi, openai::rich()),
        (ProviderKind::Google, google::rich()),
        (ProviderKind::Ollama, ollama::rich()),
        (ProviderKind::OpenAiCompatible, rich_chat()),
    ]
}

/// A thought, a word and two parallel calls of Chat Completions, with everything that is split badly.
fn rich_chat() -> String {
    [
        chunk(r#"{"role":"assistant","reasoning":"hm 🌱"}"#, ""),
        chunk(r#"{"reasoning_details":[{"type":"reasoning.text","signature":"s=="}]}"#, ""),
        chunk(r#"{"content":"Hello é"}"#, ""),
        call_chunk(r#"{"index":0,"id":"a","function":{"name":"read","arguments":"{\"p\":\"\\u"}}"#),
        call_chunk(r#"{"index":1,"id":"b","function":{"name":"list","arguments":"{}"}}"#),
        call_chunk(r#"{"index":0,"function":{"arguments":"00e9\"}"}}"#),
        chunk("{}", "tool_calls"),
        done(),
    ]
    .concat()
}

fn decode(kind: ProviderKind, pieces: Vec<Bytes>) -> Answer {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(replay(kind, pieces).unwrap().collect())
}

fn bytes(body: &Bytes) -> Vec<Bytes> {
    (0..body.len()).map(|at| body.slice(at..=at)).collect()
}

/// Cuts `body` at `cuts`, each taken modulo its length.
fn cut(body: &Bytes, cuts: &[usize]) -> Vec<Bytes> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut % (body.len() + 1)).collect();
    at.push(body.len());
    at.sort_unstable();
    let starts = std::iter::once(0).chain(at.iter().copied());
    starts.zip(&at).map(|(start, end)| body.slice(start..*end)).collect()
}

#[test]
fn a_stream_may_be_split_at_every_byte() {
    for (kind, body) in wires() {
        for line_end in ["\n", "\r\n", "\r"] {
            let body = body.replace("\r\n", "\n").replace('\n', line_end);
            let body = Bytes::from(body);
            let whole = decode(kind, vec![body.clone()]);
            assert_eq!(said(&whole).error, None, "{kind:?}");
            for at in 0..=body.len() {
                let pieces = vec![body.slice(..at), body.slice(at..)];
                assert_eq!(decode(kind, pieces), whole, "{kind:?} {line_end:?} at {at}");
            }
            assert_eq!(decode(kind, bytes(&body)), whole, "{kind:?} {line_end:?}");
        }
    }
}

#[test]
fn comments_a_byte_order_mark_and_missing_spaces_change_nothing() {
    for (kind, body) in wires() {
        if kind == ProviderKind::Ollama {
            continue;
        }
        let plain = decode(kind, vec![Bytes::from(body.clone())]);
        let odd = body.replace("data: ", "data:").replace("\n\n", "\n\n: keep-alive\n\n");
        let odd = Bytes::from("\u{feff}".to_owned() + &odd);
        assert_eq!(decode(kind, vec![odd.clone()]), plain, "{kind:?}");
        assert_eq!(decode(kind, bytes(&odd)), plain, "{kind:?}");
    }
}

#[test]
fn a_stream_cut_anywhere_is_an_error_or_whole() {
    for (kind, body) in wires() {
        let body = Bytes::from(body);
        for length in 0..body.len() {
            let answer = said(&decode(kind, vec![body.slice(..length)]));
            let is_cut = answer.error == Some(ErrorClass::Transient)
                // The last line of JSON is an event without its end.
                || kind == ProviderKind::Ollama && answer.error == Some(ErrorClass::Protocol);
            assert!(is_cut || answer.finish.is_some(), "{kind:?} {length} {answer:?}");
            assert!(is_cut || answer.calls.iter().all(|(_, _, is_complete)| *is_complete));
        }
    }
}

#[test]
fn an_event_is_not_longer_than_allowed() {
    let long = "x".repeat(EVENT_BYTES_MAX);
    let text =
        json!({"type": "content_block_delta", "delta": {"type": "text_delta", "text": long}});
    for (kind, body) in [
        (ProviderKind::Anthropic, anthropic::event(&text)),
        (ProviderKind::OpenAi, openai::event(&json!({"type": "response.created", "x": long}))),
        (ProviderKind::Google, google::chunk(&json!([{"text": long}]), "")),
        (ProviderKind::Ollama, ollama::line(&json!({"content": long}))),
        (ProviderKind::OpenAiCompatible, chunk(&json!({"content": long}).to_string(), "")),
    ] {
        for pieces in [vec![Bytes::from(body.clone())], cut(&Bytes::from(body), &[1000, 900_000])] {
            let answer = decode(kind, pieces);
            let error = answer.last().unwrap().as_ref().unwrap_err();
            assert_eq!(error.class, ErrorClass::Protocol, "{kind:?}");
            assert!(error.message.contains("is over"), "{error}");
        }
    }
}

/// JSON that has the words of the wires in it, in any shape.
fn any_json() -> impl Strategy<Value = Value> {
    let word = select(vec![
        "type",
        "index",
        "delta",
        "content_block",
        "message",
        "text",
        "thinking",
        "signature",
        "tool_use",
        "server_tool_use",
        "web_search_tool_result",
        "input_json_delta",
        "partial_json",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_start",
        "message_delta",
        "message_stop",
        "stop_reason",
        "usage",
        "error",
        "choices",
        "tool_calls",
        "function",
        "name",
        "arguments",
        "id",
        "finish_reason",
        "reasoning_details",
        "item",
        "response.output_item.added",
        "response.output_item.done",
        "response.completed",
        "function_call",
        "reasoning",
        "encrypted_content",
        "output_index",
        "candidates",
        "content",
        "parts",
        "functionCall",
        "thoughtSignature",
        "executableCode",
        "finishReason",
        "done",
        "response",
        "stop",
        "read",
        "extra_content",
        "executed_tools",
        "output",
        "",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        let fields = prop::collection::vec((word.clone(), inner.clone()), 0..6);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
            fields.prop_map(|fields| {
                let fields = fields.into_iter().map(|(key, value)| (key.to_owned(), value));
                Value::Object(fields.collect())
            }),
        ]
    })
}

/// An event of a stream that goes wrong: a right one of that wire, JSON of any shape, or bytes.
fn any_piece(events: Vec<String>) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => select(events).prop_map(String::into_bytes),
        4 => any_json().prop_map(|json| format!("data: {json}\n\n").into_bytes()),
        1 => any_json().prop_map(|json| format!("{json}\n").into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..30),
        1 => Just(b"data: [DONE]\n\n".to_vec()),
    ]
}

fn hostile_stream() -> impl Strategy<Value = (ProviderKind, Vec<Vec<u8>>)> {
    select(wires()).prop_flat_map(|(kind, body)| {
        let separator = if kind == ProviderKind::Ollama { "\n" } else { "\n\n" };
        let events = body.replace("\r\n", "\n");
        let events = events.split_inclusive(separator).map(str::to_owned).collect();
        (Just(kind), prop::collection::vec(any_piece(events), 0..16))
    })
}

proptest! {
    #[test]
    fn whatever_comes_is_an_answer_or_an_error_and_no_panic(
        (kind, pieces) in hostile_stream(),
        cuts in prop::collection::vec(any::<usize>(), 0..20),
    ) {
        let body = Bytes::from(pieces.concat());
        let whole = decode(kind, vec![body.clone()]);
        if !whole.is_empty() && matches!(whole.first(), Some(Ok(_))) {
            said(&whole);
        }
        let cut = decode(kind, cut(&body, &cuts));
        // What is no event stream takes the events before it along when they come in one piece.
        let is_no_stream = |answer: &Answer| {
            let error = answer.last().and_then(|last| last.as_ref().err());
            error.is_some_and(|error| error.message.ends_with("not a valid event stream"))
        };
        if !is_no_stream(&whole) && !is_no_stream(&cut) {
            prop_assert_eq!(cut, whole);
        }
    }
}
