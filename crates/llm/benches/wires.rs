//! How fast streams of providers are read: from the bytes of a body to the events of the common alphabet,
//! limits included. The figure is 200 MB/s on each wire.
//!
//! Streams of tokens: nearly all events are a word of text, with what the real providers send around it.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures_util::StreamExt;
use iris_llm::{ProviderKind, replay};

/// Words of an answer.
const WORDS: usize = 8_000;
/// Bytes of a piece of a body, as it comes from a socket.
const PIECE_BYTES: usize = 16 * 1024;

fn words(event: impl Fn(usize) -> String) -> String {
    (0..WORDS).map(event).collect()
}

fn chat() -> String {
    let event = |rest: &str| {
        format!(
            "data: {{\"id\":\"chatcmpl-ARqp8d5eXyqLoGNrZ3hD0vYwTn2Ck\",\"object\":\"chat.completion.chunk\",\
             \"created\":1732807814,\"model\":\"gpt-4o-2024-08-06\",\"service_tier\":\"default\",\
             \"system_fingerprint\":\"fp_7f6be3efb0\",{rest}}}\n\n"
        )
    };
    let delta = |word: usize| {
        event(&format!(
            "\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\" word{word}\"}},\"logprobs\":null,\
             \"finish_reason\":null}}],\"usage\":null"
        ))
    };
    words(delta)
        + &event("\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]")
        + "data: [DONE]\n\n"
}

fn anthropic() -> String {
    let mut body =
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\
                    \"model\":\"claude\",\"usage\":{\"input_tokens\":9}}}\n\n"
            .to_owned();
    body.push_str(&words(|word| {
        format!(
            "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\
             \"delta\":{{\"type\":\"text_delta\",\"text\":\" and a few words more of it {word}\"}} }}\n\n"
        )
    }));
    body.push_str("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
    body
}

fn openai() -> String {
    words(|word| {
        format!(
            "event: response.output_text.delta\ndata: {{\"type\":\"response.output_text.delta\",\
             \"content_index\":0,\"delta\":\" word{word}\",\
             \"item_id\":\"msg_0a4bc5e23769d65c00696d5e6882884819da7fe3195ef84421f\",\"logprobs\":[],\
             \"obfuscation\":\"kYcX8PwqZ1\",\"output_index\":0,\"sequence_number\":{word}}}\n\n"
        )
    }) + "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{}}\n\n"
}

fn google() -> String {
    let chunk = |word: usize, finish: &str| {
        format!(
            "data: {{\"candidates\": [{{\"content\": {{\"parts\": [{{\"text\": \" and a few words {word}\"}}],\
             \"role\": \"model\"}},{finish}\"index\": 0}}],\"usageMetadata\": {{\"promptTokenCount\": 15,\
             \"candidatesTokenCount\": {word},\"totalTokenCount\": 1545,\"promptTokensDetails\": \
             [{{\"modality\": \"TEXT\",\"tokenCount\": 15}}],\"thoughtsTokenCount\": 742}},\
             \"modelVersion\": \"gemini-2.5-pro\",\"responseId\": \"6hkqaYC5BbGEz7IPwb3ggA8\"}}\r\n\r\n"
        )
    };
    words(|word| chunk(word, "")) + &chunk(WORDS, "\"finishReason\": \"STOP\",")
}

fn ollama() -> String {
    let line = |word: usize, rest: &str| {
        format!(
            "{{\"model\":\"qwen3:8b\",\"created_at\":\"2026-11-22T10:11:12.131415Z\",\"message\":\
             {{\"role\":\"assistant\",\"content\":\" word{word}\"}},\"done\":{rest}}}\n"
        )
    };
    words(|word| line(word, "false")) + &line(WORDS, "true,\"done_reason\":\"stop\"")
}

fn pieces(body: &Bytes) -> Vec<Bytes> {
    let ends = (0..body.len()).step_by(PIECE_BYTES);
    ends.map(|start| body.slice(start..body.len().min(start + PIECE_BYTES))).collect()
}

fn wires(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let Ok(runtime) = runtime else { return };
    let mut group = criterion.benchmark_group("wires");
    for (kind, body) in [
        (ProviderKind::Anthropic, anthropic()),
        (ProviderKind::OpenAi, openai()),
        (ProviderKind::Google, google()),
        (ProviderKind::Ollama, ollama()),
        (ProviderKind::OpenAiCompatible, chat()),
    ] {
        let body = Bytes::from(body);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(kind.as_str(), |bencher| {
            bencher.iter_batched(
                || replay(kind, pieces(&body)),
                |stream| runtime.block_on(async { Some(black_box(stream?.count().await)) }),
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, wires);
criterion_main!(benches);
