//! Writes a request in the form of Messages.

use iris_agent::{Attached, Prompt, PromptBlock, PromptCall, PromptMessage, ToolSpec};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::KIND;
use crate::body::{Object, foreign};
use crate::provider::Reasoning;
use crate::request::{arguments, base64_of};
use crate::{ModelRequest, OutputSchema};

/// Most tokens of an answer that nobody set a limit for: the wire wants one.
const OUTPUT_TOKENS_DEFAULT: u32 = 8192;

/// The JSON body.
///
/// Four places are marked for the cache, as many as there may be: the last tool, the system prompt, and
/// the end of each of the last two messages.
pub(super) fn body(request: &ModelRequest, reasoning: Option<Reasoning>) -> String {
    let prompt = &request.prompt;
    let system = Object::new().with("type", "text").with("text", &prompt.system);
    let system = (!prompt.system.is_empty()).then(|| [marked(system)]);
    let last = prompt.tools.len().saturating_sub(1);
    let tools = prompt.tools.iter().enumerate().map(|(at, one)| tool(one, at == last));
    let tools: Vec<Object> = tools.collect();
    let tools = (!tools.is_empty()).then_some(tools);
    let choice = tools.is_some().then(|| json!({"type": "auto"}));
    Object::new()
        .with("model", &request.model)
        .with("max_tokens", request.max_output_tokens.unwrap_or(OUTPUT_TOKENS_DEFAULT))
        .with("stream", true)
        .with_some("tools", tools)
        .with_some("tool_choice", choice)
        .with_some("system", system)
        .with("messages", messages(prompt))
        .with_some("thinking", reasoning.and_then(thinking))
        .with_some("output_config", output_config(request.output_schema.as_ref(), reasoning))
        .with_some("temperature", request.temperature)
        .with_some("top_p", request.top_p)
        .into_text()
}

fn thinking(reasoning: Reasoning) -> Option<serde_json::Value> {
    match reasoning {
        Reasoning::Off => None,
        Reasoning::Effort(_) => Some(json!({"type": "adaptive"})),
    }
}

fn output_config(schema: Option<&OutputSchema>, reasoning: Option<Reasoning>) -> Option<Object> {
    let format = schema.map(|output| json!({"type": "json_schema", "schema": output.schema}));
    let effort = match reasoning {
        Some(Reasoning::Effort(effort)) => Some(effort.at_least_low()),
        Some(Reasoning::Off) | None => None,
    };
    if format.is_none() && effort.is_none() {
        return None;
    }
    Some(Object::new().with_some("effort", effort).with_some("format", format))
}

fn marked(block: Object) -> Object {
    block.with("cache_control", json!({"type": "ephemeral"}))
}

fn tool(tool: &ToolSpec, is_last: bool) -> Object {
    let object = Object::new()
        .with("name", &tool.name)
        .with("description", &tool.description)
        .with("input_schema", &tool.parameters);
    if is_last { marked(object) } else { object }
}

/// A message in the making: those of one role that follow each other are one.
struct Message {
    role: &'static str,
    blocks: Vec<Block>,
}

enum Block {
    Own(Object),
    /// As the provider sent it; nothing can be added to it.
    Foreign(Box<RawValue>),
    /// Own, but nothing can be added to it either.
    Thinking(Object),
}

impl Block {
    fn raw(&self) -> Box<RawValue> {
        match self {
            Self::Own(object) | Self::Thinking(object) => object.raw(),
            Self::Foreign(raw) => raw.clone(),
        }
    }
}

fn messages(prompt: &Prompt) -> Vec<Object> {
    let mut messages: Vec<Message> = Vec::new();
    for entry in &prompt.messages {
        let (role, blocks) = match entry {
            PromptMessage::User { text } => ("user", text_block(text).into_iter().collect()),
            PromptMessage::Assistant { blocks } => {
                ("assistant", blocks.iter().flat_map(answer_blocks).collect())
            }
            PromptMessage::ToolResult { call_id, output, is_error, .. } => {
                let image = prompt.images.get(call_id);
                ("user", vec![Block::Own(result(call_id, output, *is_error, image))])
            }
        };
        match messages.last_mut().filter(|last| last.role == role) {
            Some(last) => last.blocks.extend(blocks),
            None if blocks.is_empty() => {}
            None => messages.push(Message { role, blocks }),
        }
    }
    let first_marked = messages.len().saturating_sub(2);
    for message in messages.iter_mut().skip(first_marked) {
        mark_last(&mut message.blocks);
    }
    messages.iter().map(message).collect()
}

fn message(message: &Message) -> Object {
    let blocks: Vec<Box<RawValue>> = message.blocks.iter().map(Block::raw).collect();
    Object::new().with("role", message.role).with("content", blocks)
}

fn mark_last(blocks: &mut [Block]) {
    let last = blocks.iter_mut().rev().find_map(|block| match block {
        Block::Own(object) => Some(object),
        Block::Foreign(_) | Block::Thinking(_) => None,
    });
    if let Some(object) = last {
        *object = marked(std::mem::take(object));
    }
}

/// The wire refuses a text of nothing but spaces.
fn text_block(text: &str) -> Option<Block> {
    let is_blank = text.trim().is_empty();
    (!is_blank).then(|| Block::Own(Object::new().with("type", "text").with("text", text)))
}

fn answer_blocks(block: &PromptBlock) -> Vec<Block> {
    match block {
        PromptBlock::Text { text, .. } => text_block(text).into_iter().collect(),
        // What another provider thought cannot be shown to this one: it believes its own signature.
        PromptBlock::Reasoning { text, opaque } => {
            let kept = opaque.as_ref().and_then(|opaque| opaque.for_kind(KIND));
            kept.and_then(|kept| thinking_block(text, kept)).into_iter().collect()
        }
        PromptBlock::Call(one) => vec![Block::Own(call(one))],
        PromptBlock::ProviderTool { opaque, .. } => {
            let kept = opaque.as_ref().and_then(|opaque| opaque.for_kind(KIND));
            let kept = kept.and_then(|kept| serde_json::from_str(kept).ok());
            let blocks: Vec<Box<RawValue>> = kept.unwrap_or_default();
            blocks.into_iter().map(Block::Foreign).collect()
        }
    }
}

/// What is kept of a block of reasoning: what goes beside its text, or the whole block.
#[derive(Serialize, Deserialize)]
pub(super) struct Signed {
    pub(super) signature: String,
}

fn thinking_block(text: &str, kept: &str) -> Option<Block> {
    match serde_json::from_str::<Signed>(kept) {
        Ok(Signed { signature }) => {
            let object = Object::new().with("type", "thinking").with("thinking", text);
            Some(Block::Thinking(object.with("signature", signature)))
        }
        Err(_) => foreign(kept).map(Block::Foreign),
    }
}

fn call(call: &PromptCall) -> Object {
    Object::new()
        .with("type", "tool_use")
        .with("id", &call.call_id)
        .with("name", &call.tool_name)
        .with("input", arguments(call))
}

fn result(call_id: &str, output: &str, is_error: bool, image: Option<&Attached>) -> Object {
    let object = Object::new().with("type", "tool_result").with("tool_use_id", call_id);
    let object = match image {
        None => object.with("content", output),
        Some(image) => {
            let data = base64_of(image);
            let source = json!({"type": "base64", "media_type": image.mime_type, "data": data});
            let text = text_block(output).map(|block| block.raw());
            let image = Object::new().with("type", "image").with("source", source).raw();
            object.with("content", text.into_iter().chain([image]).collect::<Vec<_>>())
        }
    };
    object.with_some("is_error", is_error.then_some(true))
}
