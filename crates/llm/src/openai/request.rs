//! Writes a request in the form of Responses.

use iris_agent::{
    Attached, Opaque, Prompt, PromptBlock, PromptCall, PromptMessage, ToolSpec, said_with,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::KIND;
use crate::body::{Object, foreign};
use crate::provider::Reasoning;
use crate::request::{arguments, data_url, shown_with, tool_text};
use crate::{ModelRequest, OutputSchema};

/// The JSON body.
pub(super) fn body(request: &ModelRequest, reasoning: Option<Reasoning>) -> String {
    let prompt = &request.prompt;
    let instructions = (!prompt.system.is_empty()).then_some(&prompt.system);
    let tools = (!prompt.tools.is_empty())
        .then(|| prompt.tools.iter().map(|it| tool(it)).collect::<Vec<_>>());
    let choice = tools.is_some().then_some("auto");
    // A model that does not reason refuses the question for its reasoning.
    let include = (reasoning != Some(Reasoning::Off)).then_some(["reasoning.encrypted_content"]);
    let reasoning = match reasoning {
        Some(Reasoning::Effort(effort)) => {
            Some(json!({"effort": effort.as_str(), "summary": "auto"}))
        }
        Some(Reasoning::Off) | None => None,
    };
    Object::new()
        .with("model", &request.model)
        .with_some("instructions", instructions)
        .with("input", input(prompt))
        .with_some("tools", tools)
        .with_some("tool_choice", choice)
        .with_some("max_output_tokens", request.max_output_tokens)
        .with_some("temperature", request.temperature)
        .with_some("top_p", request.top_p)
        .with_some("reasoning", reasoning)
        .with_some("text", request.output_schema.as_ref().map(format))
        .with_some("include", include)
        .with_some("prompt_cache_key", request.cache_key.as_ref())
        .with("store", false)
        .with("stream", true)
        .into_text()
}

fn format(output: &OutputSchema) -> serde_json::Value {
    let OutputSchema { name, schema, strict } = output;
    json!({"format": {"type": "json_schema", "name": name, "schema": schema, "strict": strict}})
}

/// Schemas of tools are whatever their authors wrote, which strict mode would refuse.
fn tool(tool: &ToolSpec) -> Object {
    Object::new()
        .with("type", "function")
        .with("name", &tool.name)
        .with("description", &tool.description)
        .with("parameters", &tool.parameters)
        .with("strict", false)
}

fn input(prompt: &Prompt) -> Vec<Box<RawValue>> {
    let mut items = Vec::new();
    for entry in &prompt.messages {
        match entry {
            PromptMessage::User { text, attachments } => {
                let text = said_with(text, attachments);
                let text = json!({"type": "input_text", "text": text});
                let images = shown_with(attachments, &prompt.images).into_iter().map(image_item);
                let content: Vec<Value> = [text].into_iter().chain(images).collect();
                items.push(message("user").with("content", content).raw());
            }
            PromptMessage::Assistant { blocks } => items.extend(answer(blocks)),
            PromptMessage::ToolResult { call_id, output, is_error, .. } => {
                let image = prompt.images.get(call_id);
                items.push(result(call_id, &tool_text(output, *is_error), image).raw());
            }
        }
    }
    items
}

fn message(role: &str) -> Object {
    Object::new().with("type", "message").with("role", role)
}

/// The items of an answer. A thought is only understood with what it led to: one that the run was cut off
/// behind is left out.
fn answer(blocks: &[PromptBlock]) -> Vec<Box<RawValue>> {
    let is_said = |block: &PromptBlock| match block {
        PromptBlock::Text { text, .. } => !text.is_empty(),
        PromptBlock::Call(_) | PromptBlock::ProviderTool { .. } => true,
        PromptBlock::Reasoning { .. } => false,
    };
    let end = blocks.iter().rposition(is_said).map_or(0, |last| last + 1);
    blocks.iter().take(end).filter_map(item).collect()
}

fn item(block: &PromptBlock) -> Option<Box<RawValue>> {
    match block {
        PromptBlock::Text { text, .. } if text.is_empty() => None,
        PromptBlock::Text { text, opaque } => {
            let kept = kept(opaque.as_ref()).and_then(|kept| serde_json::from_str(kept).ok());
            let phase = kept.map(|Phase { phase }| phase);
            let content = json!([{"type": "output_text", "text": text, "annotations": []}]);
            Some(message("assistant").with("content", content).with_some("phase", phase).raw())
        }
        PromptBlock::Reasoning { opaque, .. } | PromptBlock::ProviderTool { opaque, .. } => {
            kept(opaque.as_ref()).and_then(foreign)
        }
        PromptBlock::Call(one) => Some(call(one).raw()),
    }
}

fn kept(opaque: Option<&Opaque>) -> Option<&str> {
    opaque.and_then(|opaque| opaque.for_kind(KIND))
}

/// What is kept of a message besides its text.
#[derive(Serialize, Deserialize)]
pub(super) struct Phase {
    /// Whether it is the answer or a word on the way to it, as the provider calls that.
    pub(super) phase: String,
}

fn call(call: &PromptCall) -> Object {
    Object::new()
        .with("type", "function_call")
        .with("call_id", &call.call_id)
        .with("name", &call.tool_name)
        .with("arguments", arguments(call).to_string())
}

fn result(call_id: &str, output: &str, image: Option<&Attached>) -> Object {
    let object = Object::new().with("type", "function_call_output").with("call_id", call_id);
    match image {
        None => object.with("output", output),
        Some(image) => object.with(
            "output",
            json!([
                {"type": "input_text", "text": output},
                image_item(image),
            ]),
        ),
    }
}

fn image_item(image: &Attached) -> Value {
    json!({"type": "input_image", "image_url": data_url(image), "detail": "auto"})
}
