//! Writes a request in the form of Ollama.

use iris_agent::{Attached, Prompt, PromptBlock, PromptCall, PromptMessage, said_with};
use serde_json::json;

use crate::ModelRequest;
use crate::body::Object;
use crate::chat::tool;
use crate::provider::Reasoning;
use crate::request::{arguments, base64_of, shown_with, tool_text};

/// The JSON body. `context_tokens` is the size of the window: without it the server takes a small one and
/// drops what does not fit without a word.
pub(super) fn body(
    request: &ModelRequest,
    reasoning: Option<Reasoning>,
    context_tokens: Option<u32>,
) -> String {
    let prompt = &request.prompt;
    let mut messages = Vec::with_capacity(prompt.messages.len() + 1);
    if !prompt.system.is_empty() {
        messages.push(Object::new().with("role", "system").with("content", &prompt.system));
    }
    let mut images = Vec::new();
    for entry in &prompt.messages {
        match entry {
            PromptMessage::ToolResult { call_id, .. } => {
                images.extend(prompt.images.get(call_id).map(|image| shown(call_id, image)));
            }
            // All results of a step stand together: what cannot be one comes behind them.
            PromptMessage::User { .. } | PromptMessage::Assistant { .. } => {
                messages.append(&mut images);
            }
        }
        messages.extend(message(entry, prompt));
    }
    messages.append(&mut images);
    let tools = (!prompt.tools.is_empty())
        .then(|| prompt.tools.iter().map(|it| tool(it)).collect::<Vec<_>>());
    let think = match reasoning {
        Some(Reasoning::Off) => Some(json!(false)),
        Some(Reasoning::Effort(effort)) => Some(json!(effort.of_three())),
        None => None,
    };
    let has_options = context_tokens.is_some()
        || request.max_output_tokens.is_some()
        || request.temperature.is_some()
        || request.top_p.is_some();
    let options = Object::new()
        .with_some("num_ctx", context_tokens)
        .with_some("num_predict", request.max_output_tokens)
        .with_some("temperature", request.temperature)
        .with_some("top_p", request.top_p);
    Object::new()
        .with("model", &request.model)
        .with("messages", messages)
        .with("stream", true)
        .with_some("tools", tools)
        .with_some("think", think)
        .with_some("format", request.output_schema.as_ref().map(|output| &output.schema))
        .with_some("options", has_options.then_some(options))
        .into_text()
}

fn message(message: &PromptMessage, prompt: &Prompt) -> Option<Object> {
    match message {
        PromptMessage::User { text, attachments } => {
            let said = Object::new().with("role", "user");
            let said = said.with("content", said_with(text, attachments));
            let images = shown_with(attachments, &prompt.images).into_iter();
            let images: Vec<String> = images.map(base64_of).collect();
            Some(said.with_some("images", (!images.is_empty()).then_some(images)))
        }
        PromptMessage::Assistant { blocks } => answer(blocks),
        PromptMessage::ToolResult { tool_name, output, is_error, .. } => {
            let result = Object::new().with("role", "tool").with("tool_name", tool_name);
            Some(result.with("content", tool_text(output, *is_error)))
        }
    }
}

fn answer(blocks: &[PromptBlock]) -> Option<Object> {
    let (mut text, mut thinking, mut calls) = (String::new(), String::new(), Vec::new());
    for block in blocks {
        match block {
            PromptBlock::Text { text: piece, .. } => text.push_str(piece),
            PromptBlock::Reasoning { text: piece, .. } => thinking.push_str(piece),
            PromptBlock::Call(one) => calls.push(call(one)),
            PromptBlock::ProviderTool { .. } => {}
        }
    }
    if text.is_empty() && calls.is_empty() {
        return None;
    }
    // Thoughts are part of the way from a call to its result, and of no use after it.
    let thinking = (!thinking.is_empty() && !calls.is_empty()).then_some(thinking);
    let answer = Object::new().with("role", "assistant").with("content", text);
    let answer = answer.with_some("thinking", thinking);
    Some(answer.with_some("tool_calls", (!calls.is_empty()).then_some(calls)))
}

fn call(call: &PromptCall) -> Object {
    let function = Object::new().with("name", &call.tool_name).with("arguments", arguments(call));
    Object::new().with("function", function)
}

/// An image that a call was answered with.
fn shown(call_id: &str, image: &Attached) -> Object {
    let text = format!("The image that the call {call_id} was answered with:");
    let object = Object::new().with("role", "user").with("content", text);
    object.with("images", [base64_of(image)])
}
