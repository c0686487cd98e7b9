//! Writes a request in the form of Messages.

use iris_agent::{
    Attached, Opaque, Prompt, PromptBlock, PromptCall, PromptMessage, ToolSpec, said_with,
};
use iris_protocol::ModelFacts;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::KIND;
use crate::body::{Object, foreign};
use crate::provider::{Effort, Reasoning};
use crate::request::{arguments, base64_of, shown_with};
use crate::{ModelRequest, OutputSchema};

/// Most tokens of an answer that nobody set a limit for, of a model of which nothing is known: the wire
/// wants one.
const OUTPUT_TOKENS_DEFAULT: u32 = 8_192;
/// The same for a model that is known to give more: enough for long files, and a part of every window.
const OUTPUT_TOKENS_USUAL: u64 = 32_000;
/// The least that a model may be told to think, and to answer besides, in tokens.
const THINKING_TOKENS_MIN: u32 = 1_024;

/// The JSON body.
///
/// Four places are marked for the cache, as many as there may be: the last tool, the system prompt, and
/// the end of each of the last two messages. None is where all of it is too short to be cached.
pub(super) fn body(request: &ModelRequest, reasoning: Option<Reasoning>) -> String {
    let prompt = &request.prompt;
    let is_marked = may_be_cached(request);
    let system = Object::new().with("type", "text").with("text", &prompt.system);
    let system =
        (!prompt.system.is_empty()).then(|| [if is_marked { marked(system) } else { system }]);
    let last = if is_marked { prompt.tools.len().saturating_sub(1) } else { usize::MAX };
    let output_tokens = request.max_output_tokens.unwrap_or_else(|| output_tokens(&request.facts));
    let effort = match reasoning {
        Some(Reasoning::Effort(effort)) => Some(effort),
        Some(Reasoning::Off) | None => None,
    };
    let is_adaptive = request.facts.adaptive_reasoning != Some(false);
    let thinking = effort.and_then(|effort| thinking(effort, is_adaptive, output_tokens));
    // One that is told how much to think takes no temperature.
    let temperature = request.temperature.filter(|_| thinking.is_none() || is_adaptive);
    let effort = effort.filter(|_| is_adaptive);
    let tools = prompt.tools.iter().enumerate().map(|(at, one)| tool(one, at == last));
    let tools: Vec<Object> = tools.collect();
    let tools = (!tools.is_empty()).then_some(tools);
    let choice = tools.is_some().then(|| json!({"type": "auto"}));
    Object::new()
        .with("model", &request.model)
        .with("max_tokens", output_tokens)
        .with("stream", true)
        .with_some("tools", tools)
        .with_some("tool_choice", choice)
        .with_some("system", system)
        .with("messages", messages(prompt, is_marked))
        .with_some("thinking", thinking)
        .with_some("output_config", output_config(request.output_schema.as_ref(), effort))
        .with_some("temperature", temperature)
        .with_some("top_p", request.top_p)
        .into_text()
}

/// Whether the prompt may be as long as what is cached at least: a token has one byte or more.
fn may_be_cached(request: &ModelRequest) -> bool {
    let Some(least) = request.facts.prompt_cache_min_tokens else { return true };
    let prompt = &request.prompt;
    let tools = prompt
        .tools
        .iter()
        .map(|tool| tool.name.len() + tool.description.len() + tool.parameters.raw().get().len());
    let said = prompt.messages.iter().map(said_bytes);
    // Of images nobody knows.
    let bytes: usize = tools.chain(said).sum::<usize>() + prompt.system.len();
    !prompt.images.is_empty() || u64::try_from(bytes).is_ok_and(|bytes| bytes >= least)
}

fn said_bytes(message: &PromptMessage) -> usize {
    match message {
        PromptMessage::User { text, attachments } => said_with(text, attachments).len(),
        PromptMessage::ToolResult { output, .. } => output.len(),
        PromptMessage::Assistant { blocks } => blocks.iter().map(block_bytes).sum(),
    }
}

fn block_bytes(block: &PromptBlock) -> usize {
    let kept = |opaque: Option<&Opaque>| opaque.map_or(0, |opaque| opaque.json.len());
    match block {
        PromptBlock::Text { text, opaque } | PromptBlock::Reasoning { text, opaque } => {
            text.len() + kept(opaque.as_ref())
        }
        PromptBlock::Call(call) => call.arguments.to_string().len() + kept(call.opaque.as_ref()),
        PromptBlock::ProviderTool { opaque, .. } => kept(opaque.as_ref()),
    }
}

fn output_tokens(facts: &ModelFacts) -> u32 {
    let known = facts.output_tokens.map(|most| most.min(OUTPUT_TOKENS_USUAL));
    known.and_then(|tokens| u32::try_from(tokens).ok()).unwrap_or(OUTPUT_TOKENS_DEFAULT)
}

/// How a model is told to think: as it likes, or in so many tokens of its answer. None where the answer is
/// too short for that.
fn thinking(effort: Effort, is_adaptive: bool, output_tokens: u32) -> Option<serde_json::Value> {
    if is_adaptive {
        return Some(json!({"type": "adaptive"}));
    }
    let tokens = match effort {
        Effort::Minimal => THINKING_TOKENS_MIN,
        Effort::Low => 4_096,
        Effort::Medium => 10_000,
        Effort::High => 20_000,
        Effort::XHigh | Effort::Max => 48_000,
    };
    let tokens = tokens.min(output_tokens.saturating_sub(THINKING_TOKENS_MIN));
    let is_enough = tokens >= THINKING_TOKENS_MIN;
    is_enough.then(|| json!({"type": "enabled", "budget_tokens": tokens}))
}

fn output_config(schema: Option<&OutputSchema>, effort: Option<Effort>) -> Option<Object> {
    let format = schema.map(|output| json!({"type": "json_schema", "schema": output.schema}));
    let effort = effort.map(Effort::at_least_low);
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

fn messages(prompt: &Prompt, is_marked: bool) -> Vec<Object> {
    let mut messages: Vec<Message> = Vec::new();
    for entry in &prompt.messages {
        let (role, blocks) = match entry {
            PromptMessage::User { text, attachments } => {
                let text = text_block(&said_with(text, attachments));
                let images = shown_with(attachments, &prompt.images).into_iter();
                let images = images.map(|it| Block::Own(image_block(it)));
                ("user", text.into_iter().chain(images).collect())
            }
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
    let first_marked = if is_marked { messages.len().saturating_sub(2) } else { messages.len() };
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
            let text = text_block(output).map(|block| block.raw());
            let image = image_block(image).raw();
            object.with("content", text.into_iter().chain([image]).collect::<Vec<_>>())
        }
    };
    object.with_some("is_error", is_error.then_some(true))
}

fn image_block(image: &Attached) -> Object {
    let data = base64_of(image);
    let source = json!({"type": "base64", "media_type": image.mime_type, "data": data});
    Object::new().with("type", "image").with("source", source)
}
