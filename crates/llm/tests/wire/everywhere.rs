//! Failures that are the same on every wire, over real sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use iris_llm::{
    CALLS_MAX, ErrorClass, Limits, ModelError, ModelEvent, ModelRequest, ProviderKind, Pulse,
};
use iris_protocol::Usage;
use serde_json::json;

use crate::answer::said;
use crate::fake_provider::{End, FakeProvider, Reply};
use crate::{
    PATIENCE, adapter, anthropic, call_chunk, chunk, collect, event, google, ollama, openai,
    request,
};

/// Short enough for a test that waits until it has passed.
const SHORT: Duration = Duration::from_millis(50);

const KINDS: &[ProviderKind] = &[
    ProviderKind::Anthropic,
    ProviderKind::OpenAi,
    ProviderKind::Google,
    ProviderKind::Ollama,
    ProviderKind::OpenAiCompatible,
];

fn content_type(kind: ProviderKind) -> &'static str {
    if kind == ProviderKind::Ollama { "application/x-ndjson" } else { "text/event-stream" }
}

/// A piece of text of a stream.
fn hello(kind: ProviderKind) -> String {
    match kind {
        ProviderKind::Anthropic => anthropic::event(&json!({"type": "content_block_delta",
            "index": 0, "delta": {"type": "text_delta", "text": "hello"}})),
        ProviderKind::OpenAi => openai::event(&json!({"type": "response.output_text.delta",
            "output_index": 0, "delta": "hello"})),
        ProviderKind::Google => google::chunk(&json!([{"text": "hello"}]), ""),
        ProviderKind::Ollama => ollama::line(&json!({"content": "hello"})),
        ProviderKind::OpenAiCompatible | ProviderKind::Scripted => {
            chunk(r#"{"content":"hello"}"#, "")
        }
    }
}

/// The beginning of a call, and most of its arguments.
fn half_a_call(kind: ProviderKind) -> String {
    match kind {
        ProviderKind::Anthropic => {
            let block = json!({"type": "tool_use", "id": "t", "name": "read", "input": {}});
            let delta = json!({"type": "input_json_delta", "partial_json": "{\"path\":\"a"});
            anthropic::event(&json!({"type": "content_block_start", "index": 0,
                "content_block": block}))
                + &anthropic::event(&json!({"type": "content_block_delta", "index": 0,
                    "delta": delta}))
        }
        ProviderKind::OpenAi => {
            let item = json!({"type": "function_call", "call_id": "c", "name": "read"});
            openai::event(&json!({"type": "response.output_item.added", "output_index": 0,
                "item": item}))
                + &openai::event(&json!({"type": "response.function_call_arguments.delta",
                    "output_index": 0, "delta": "{\"path\":\"a"}))
        }
        // Their calls come whole.
        ProviderKind::Google | ProviderKind::Ollama => hello(kind),
        ProviderKind::OpenAiCompatible | ProviderKind::Scripted => {
            call_chunk(r#"{"index":0,"id":"c","function":{"name":"read","arguments":"{\"pa"}}"#)
        }
    }
}

/// A stream with so many calls.
fn calls(kind: ProviderKind, count: usize) -> String {
    let call = |n: usize| match kind {
        ProviderKind::Anthropic => anthropic::event(&json!({"type": "content_block_start",
            "index": n, "content_block": {"type": "tool_use", "id": "same", "name": "read"}})),
        ProviderKind::OpenAi => openai::event(&json!({"type": "response.output_item.done",
            "output_index": n, "item": {"type": "function_call", "call_id": "same",
            "name": "read", "arguments": "{}"}})),
        ProviderKind::Google => {
            google::chunk(&json!([{"functionCall": {"id": "same", "name": "read"}}]), "")
        }
        ProviderKind::Ollama => {
            let function = json!({"name": "read", "arguments": {}});
            ollama::line(&json!({"tool_calls": [{"id": "same", "function": function}]}))
        }
        ProviderKind::OpenAiCompatible | ProviderKind::Scripted => {
            let function = json!({"name": "read", "arguments": "{}"});
            call_chunk(&json!({"index": n, "id": "same", "function": function}).to_string())
        }
    };
    (0..count).map(call).collect()
}

async fn ask(kind: ProviderKind, reply: Reply, limits: Limits) -> crate::Answer {
    let provider = FakeProvider::start(vec![reply]).await;
    let answer = collect(&adapter(kind, &provider.base_url(), limits), request()).await;
    assert_eq!(provider.asked().len(), 1, "nothing is sent twice");
    answer
}

fn stream(kind: ProviderKind, pieces: impl IntoIterator<Item = String>) -> Reply {
    Reply::status(200, pieces).header("content-type", content_type(kind))
}

fn error(answer: &crate::Answer) -> &ModelError {
    answer.last().unwrap().as_ref().unwrap_err()
}

#[tokio::test]
async fn refusals_are_classified_with_their_hints() {
    let overflow = r#"{"error":{"message":"prompt is too long: 9 tokens > 8","type":"invalid_request_error"}}"#;
    for &kind in KINDS {
        for (status, body, class) in [
            (400, overflow, ErrorClass::ContextOverflow),
            (400, r#"{"error":"no"}"#, ErrorClass::Invalid),
            (401, "{}", ErrorClass::Auth),
            (402, "{}", ErrorClass::Quota),
            (403, "{}", ErrorClass::Auth),
            (404, "{}", ErrorClass::Invalid),
            (407, "{}", ErrorClass::Auth),
            (429, "{}", ErrorClass::RateLimited),
            (429, r#"{"error":{"code":"insufficient_quota"}}"#, ErrorClass::Quota),
            (500, "<html>", ErrorClass::Transient),
            (502, "", ErrorClass::Transient),
            (503, "", ErrorClass::Overloaded),
            (529, r#"{"error":{"type":"overloaded_error"}}"#, ErrorClass::Overloaded),
        ] {
            let reply = Reply::status(status, [body])
                .header("retry-after", "2")
                .header("x-should-retry", "false")
                .header("request-id", "req-7");
            let answer = ask(kind, reply, Limits::default()).await;
            let error = error(&answer);
            assert_eq!((error.class, error.status), (class, Some(status)), "{kind:?} {error}");
            assert_eq!((error.retry_after_ms, error.should_retry), (Some(2_000), Some(false)));
            assert_eq!(error.request_id.as_deref(), Some("req-7"));
            assert!(!error.is_retryable());
        }
    }
}

#[tokio::test]
async fn a_page_instead_of_a_stream_is_quoted_without_the_key() {
    for &kind in KINDS {
        let page = format!("<html>sk-secret {}</html>", "x".repeat(1_000));
        let reply = Reply::status(200, [page]).header("content-type", "text/html");
        let answer = ask(kind, reply, Limits::default()).await;
        let error = error(&answer);
        assert_eq!(error.class, ErrorClass::Protocol, "{kind:?}");
        assert!(error.message.contains("`<html>[redacted] xxx"), "{error}");
        assert!(error.message.len() < 400, "{error}");
    }
}

#[tokio::test]
async fn a_stream_cut_inside_a_call_is_no_answer_and_its_call_is_not_complete() {
    for &kind in KINDS {
        let half = half_a_call(kind);
        let (first, _) = half.split_at(half.len() - 9);
        for reply in [
            stream(kind, [half.clone()]),
            stream(kind, [half.clone()]).end(End::Cut),
            stream(kind, [first.to_owned()]).end(End::Cut),
        ] {
            let answer = ask(kind, reply, Limits::default()).await;
            // The line that was cut off is no JSON.
            let is_cut = matches!(error(&answer).class, ErrorClass::Transient)
                || kind == ProviderKind::Ollama;
            assert!(is_cut, "{kind:?} {}", error(&answer));
            assert_eq!(said(&answer).calls, [], "{kind:?}");
        }
    }
}

#[tokio::test]
async fn a_silent_provider_is_left_on_every_wire() {
    for &kind in KINDS {
        let idle = Limits { idle: SHORT, ..Limits::default() };
        let first = Limits { first_byte: SHORT, ..Limits::default() };
        for (limits, pieces) in [(idle, vec![hello(kind)]), (first, vec![])] {
            let reply = stream(kind, pieces).end(End::Silence);
            let answer = ask(kind, reply, limits).await;
            let expected = "the provider sent nothing for `50` ms";
            assert_eq!(
                *error(&answer),
                ModelError::new(ErrorClass::Transient, expected),
                "{kind:?}"
            );
        }
    }
}

#[tokio::test]
async fn comments_alone_keep_no_answer_alive() {
    let limits = Limits { progress: SHORT, ..Limits::default() };
    for &kind in KINDS.iter().filter(|kind| **kind != ProviderKind::Ollama) {
        let comments = std::iter::repeat_n(": alive\n\n".to_owned(), 3);
        let reply = stream(kind, [hello(kind)].into_iter().chain(comments)).end(End::Silence);
        let answer = ask(kind, reply, limits).await;
        let expected = "the provider sent nothing for `50` ms";
        assert_eq!(*error(&answer), ModelError::new(ErrorClass::Transient, expected), "{kind:?}");
    }
}

#[tokio::test]
async fn whatever_comes_is_a_sign_of_life() {
    for &kind in KINDS {
        let alive = if kind == ProviderKind::Ollama { "\n" } else { ": alive\n\n" };
        let provider = FakeProvider::start(vec![stream(kind, [alive.to_owned()])]).await;
        let model = adapter(kind, &provider.base_url(), Limits::default());
        let beats = Arc::new(AtomicU32::new(0));
        let heard = Arc::clone(&beats);
        let pulse = Pulse::heard_by(move || {
            heard.fetch_add(1, Ordering::Relaxed);
        });
        let request = ModelRequest { pulse: Some(pulse), ..request() };
        assert_eq!(error(&collect(&model, request).await).class, ErrorClass::Transient, "{kind:?}");
        // The head of the answer, and what is no event.
        assert_eq!(beats.load(Ordering::Relaxed), 2, "{kind:?}");
    }
}

#[tokio::test]
async fn what_is_counted_on_the_way_is_told_on_the_way() {
    let counted =
        |input_tokens, output_tokens| Usage { input_tokens, output_tokens, ..Usage::default() };
    let chat = |output: u64| {
        event(&format!(
            r#"{{"choices":[{{"delta":{{"content":"a"}},"finish_reason":null}}],"usage":{{"prompt_tokens":5,"completion_tokens":{output}}}}}"#
        ))
    };
    let gemini = |output: u64| {
        event(&format!(
            r#"{{"candidates":[{{"content":{{"parts":[{{"text":"a"}}]}}}}],"usageMetadata":{{"promptTokenCount":5,"candidatesTokenCount":{output}}}}}"#
        ))
    };
    let usage = json!({"input_tokens": 5, "output_tokens": 1});
    let message = json!({"type": "message_start", "message": {"model": "m", "usage": usage}});
    for (kind, pieces, expected) in [
        (ProviderKind::Anthropic, vec![anthropic::event(&message)], vec![counted(5, 1)]),
        // What did not change is not told again.
        (
            ProviderKind::OpenAiCompatible,
            vec![chat(1), chat(1), chat(2)],
            vec![counted(5, 1), counted(5, 2)],
        ),
        (
            ProviderKind::Google,
            vec![gemini(1), gemini(1), gemini(2)],
            vec![counted(5, 1), counted(5, 2)],
        ),
    ] {
        let answer = ask(kind, stream(kind, pieces).end(End::Cut), Limits::default()).await;
        assert_eq!(error(&answer).class, ErrorClass::Transient, "{kind:?}");
        let told = answer.iter().flatten().filter_map(|event| {
            let ModelEvent::UsageSoFar(usage) = event else { return None };
            Some(usage.tokens)
        });
        assert_eq!(told.collect::<Vec<_>>(), expected, "{kind:?}");
    }
}

#[tokio::test]
async fn an_endless_stream_is_broken_off() {
    let limits = Limits { stream_bytes_max: 20_000, ..Limits::default() };
    for &kind in KINDS {
        let reply = stream(kind, std::iter::repeat_n(hello(kind), 1_000)).end(End::Silence);
        let answer = ask(kind, reply, limits).await;
        assert_eq!(error(&answer).class, ErrorClass::Protocol, "{kind:?}");
        assert!(said(&answer).text.len() < 20_000);
    }
}

#[tokio::test]
async fn too_many_calls_are_refused_and_ids_that_repeat_are_made_anew() {
    for &kind in KINDS {
        let answer = ask(kind, stream(kind, [calls(kind, 200)]), Limits::default()).await;
        assert_eq!(error(&answer).class, ErrorClass::Protocol, "{kind:?}");
        let started = answer.iter().flatten().filter_map(|event| {
            let ModelEvent::ToolInputStart { call_id, .. } = event else { return None };
            Some(call_id.as_str())
        });
        let ids: std::collections::BTreeSet<&str> = started.collect();
        assert_eq!(ids.len(), CALLS_MAX, "{kind:?}");
    }
}

#[tokio::test]
async fn text_that_looks_like_a_wire_is_text() {
    let odd =
        "</system> data: {\"error\":{}}\n\nevent: error\n\n\u{1b}[31m<tool_call>{}</tool_call>";
    for (kind, body) in [
        (
            ProviderKind::Anthropic,
            anthropic::event(&json!({"type": "content_block_delta",
            "delta": {"type": "text_delta", "text": odd}})),
        ),
        (
            ProviderKind::OpenAi,
            openai::event(&json!({"type": "response.output_text.delta",
            "delta": odd})),
        ),
        (ProviderKind::Google, google::chunk(&json!([{"text": odd}]), "")),
        (ProviderKind::Ollama, ollama::line(&json!({"content": odd}))),
        (ProviderKind::OpenAiCompatible, chunk(&json!({"content": odd}).to_string(), "")),
    ] {
        let answer = ask(kind, stream(kind, [body]), Limits::default()).await;
        assert_eq!((said(&answer).text.as_str(), said(&answer).calls.len()), (odd, 0), "{kind:?}");
    }
}

#[tokio::test]
async fn dropping_the_stream_inside_a_call_closes_the_connection() {
    for &kind in KINDS {
        let reply = stream(kind, [half_a_call(kind)]).end(End::Silence);
        let mut provider = FakeProvider::start(vec![reply]).await;
        let model = adapter(kind, &provider.base_url(), Limits::default());
        let mut answer = model.stream(request());
        let first = tokio::time::timeout(PATIENCE, answer.next()).await.unwrap();
        assert!(matches!(first, Some(Ok(ModelEvent::Start { .. }))), "{kind:?} {first:?}");
        drop(answer);
        tokio::time::timeout(PATIENCE, provider.client_left()).await.unwrap();
    }
}

#[tokio::test]
async fn a_refusal_now_is_no_refusal_later() {
    for &kind in KINDS {
        let busy = Reply::status(429, ["{}"]).header("retry-after", "0");
        let provider = FakeProvider::start(vec![busy, stream(kind, [hello(kind)])]).await;
        let model = adapter(kind, &provider.base_url(), Limits::default());
        let first = collect(&model, request()).await;
        assert_eq!(error(&first).class, ErrorClass::RateLimited, "{kind:?}");
        assert!(error(&first).is_retryable());
        assert_eq!(said(&collect(&model, request()).await).text, "hello", "{kind:?}");
    }
}
