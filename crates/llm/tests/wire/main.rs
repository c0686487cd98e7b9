//! The adapter against a provider that speaks the real wire, byte for byte.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails like the test itself")]

mod answer;
mod fake_provider;

mod anthropic;
mod chunking;
mod decoding;
mod everywhere;
mod facts;
mod failures;
mod google;
mod network;
mod ollama;
mod openai;
mod real;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use iris_agent::{Prompt, PromptMessage};
use iris_llm::{
    ApiKey, Limits, Model, ModelError, ModelEvent, ModelRequest, Models, ProviderConfig,
    ProviderKind, replay,
};
use iris_protocol::ModelRef;

use crate::fake_provider::FakeProvider;

/// The longest that a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(10);

type Answer = Vec<Result<ModelEvent, ModelError>>;

/// The adapter for Chat Completions, configured for a fake provider.
fn model(provider: &FakeProvider, limits: Limits) -> Arc<dyn Model> {
    adapter(ProviderKind::OpenAiCompatible, &provider.base_url(), limits)
}

/// The adapter of a kind, for a provider at an address.
fn adapter(kind: ProviderKind, base_url: &str, limits: Limits) -> Arc<dyn Model> {
    configured(ProviderConfig {
        base_url: Some(base_url.to_owned()),
        api_key: Some(ApiKey::new("sk-secret")),
        limits,
        ..ProviderConfig::new(kind)
    })
}

fn configured(config: ProviderConfig) -> Arc<dyn Model> {
    let models = Models::new(BTreeMap::from([("fake".to_owned(), config)])).unwrap();
    models.get(&ModelRef { provider_id: "fake".into(), model_id: "m".into() }).unwrap()
}

fn request() -> ModelRequest {
    let messages = vec![PromptMessage::asked("hi")];
    let prompt = Prompt { messages, ..Prompt::default() };
    ModelRequest { model: "m".into(), prompt, ..ModelRequest::default() }
}

/// Asks once and takes the whole answer.
async fn ask(provider: &FakeProvider, limits: Limits) -> Answer {
    collect(&model(provider, limits), request()).await
}

/// The same of any model.
async fn collect(model: &Arc<dyn Model>, request: ModelRequest) -> Answer {
    tokio::time::timeout(PATIENCE, model.stream(request).collect()).await.unwrap()
}

/// Asks once and takes the error, after whatever came before it.
async fn ask_error(provider: &FakeProvider, limits: Limits) -> ModelError {
    ask(provider, limits).await.pop().unwrap().unwrap_err()
}

/// Decodes a whole stream of Chat Completions without a network.
async fn decode(body: &str) -> Answer {
    decode_as(ProviderKind::OpenAiCompatible, body).await
}

/// The same for any wire.
async fn decode_as(kind: ProviderKind, body: &str) -> Answer {
    let body = bytes::Bytes::copy_from_slice(body.as_bytes());
    replay(kind, vec![body]).unwrap().collect().await
}

/// One event of a stream.
fn event(data: &str) -> String {
    format!("data: {data}\n\n")
}

/// An event with one choice: its delta and, unless empty, its finish reason.
fn chunk(delta: &str, finish: &str) -> String {
    let finish = if finish.is_empty() { "null".to_owned() } else { format!("\"{finish}\"") };
    let choice = format!(r#"{{"index":0,"delta":{delta},"finish_reason":{finish}}}"#);
    event(&format!(r#"{{"id":"chat-1","model":"m-1","choices":[{choice}],"usage":null}}"#))
}

/// An event with one element of `tool_calls`.
fn call_chunk(call: &str) -> String {
    chunk(&format!(r#"{{"tool_calls":[{call}]}}"#), "")
}

fn done() -> String {
    event("[DONE]")
}
