//! Writes a request in the form of Gemini.

use std::collections::BTreeMap;

use iris_agent::{
    Attached, Opaque, Prompt, PromptBlock, PromptCall, PromptMessage, ToolSpec, said_with,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::KIND;
use crate::ModelRequest;
use crate::body::Object;
use crate::provider::Reasoning;
use crate::request::{arguments, base64_of, shown_with};

/// What stands for the signature of a call that another model made: newer models refuse the first call
/// of a step without one.
const NO_SIGNATURE: &str = "skip_thought_signature_validator";

/// The JSON body.
pub(super) fn body(request: &ModelRequest, reasoning: Option<Reasoning>) -> String {
    let prompt = &request.prompt;
    let system = (!prompt.system.is_empty()).then(|| json!({"parts": [{"text": prompt.system}]}));
    let tools = (!prompt.tools.is_empty()).then(|| {
        let functions: Vec<Object> = prompt.tools.iter().map(|it| tool(it)).collect();
        [Object::new().with("functionDeclarations", functions)]
    });
    let choice = tools.is_some().then(|| json!({"functionCallingConfig": {"mode": "AUTO"}}));
    Object::new()
        .with("contents", contents(prompt))
        .with_some("systemInstruction", system)
        .with_some("tools", tools)
        .with_some("toolConfig", choice)
        .with_some("generationConfig", generation(request, reasoning))
        .into_text()
}

fn generation(request: &ModelRequest, reasoning: Option<Reasoning>) -> Option<Object> {
    let schema = request.output_schema.as_ref();
    let thinking = match reasoning {
        Some(Reasoning::Effort(effort)) if request.facts.adaptive_reasoning == Some(false) => {
            Some(json!({"includeThoughts": true, "thinkingBudget": effort.thinking_budget()}))
        }
        Some(Reasoning::Effort(effort)) => {
            Some(json!({"includeThoughts": true, "thinkingLevel": effort.thinking_level()}))
        }
        Some(Reasoning::Off) | None => None,
    };
    if request.max_output_tokens.is_none()
        && request.temperature.is_none()
        && request.top_p.is_none()
        && schema.is_none()
        && thinking.is_none()
    {
        return None;
    }
    Some(
        Object::new()
            .with_some("temperature", request.temperature)
            .with_some("topP", request.top_p)
            .with_some("maxOutputTokens", request.max_output_tokens)
            .with_some("responseMimeType", schema.map(|_| "application/json"))
            .with_some("responseJsonSchema", schema.map(|output| &output.schema))
            .with_some("thinkingConfig", thinking),
    )
}

fn tool(tool: &ToolSpec) -> Object {
    Object::new()
        .with("name", &tool.name)
        .with("description", &tool.description)
        .with("parametersJsonSchema", &tool.parameters)
}

/// Entries of one role that follow each other are one content.
fn contents(prompt: &Prompt) -> Vec<Object> {
    let mut contents: Vec<(&str, Vec<Box<RawValue>>)> = Vec::new();
    let mut ids = BTreeMap::new();
    let mut images = Vec::new();
    for entry in &prompt.messages {
        if !matches!(entry, PromptMessage::ToolResult { .. }) {
            push(&mut contents, "user", std::mem::take(&mut images));
        }
        let (role, parts) = match entry {
            PromptMessage::User { text, attachments } => {
                let text = text_part(&said_with(text, attachments)).raw();
                let images = shown_with(attachments, &prompt.images).into_iter();
                ("user", [text].into_iter().chain(images.map(|it| image(it).raw())).collect())
            }
            PromptMessage::Assistant { blocks } => ("model", answer(blocks, &mut ids)),
            PromptMessage::ToolResult { call_id, tool_name, output, is_error } => {
                // All results of a step stand together: images come behind them.
                if let Some(found) = prompt.images.get(call_id) {
                    let text = format!("The image that the call of {tool_name} was answered with:");
                    images.extend([text_part(&text).raw(), image(found).raw()]);
                }
                let id = ids.get(call_id.as_str());
                ("user", vec![result(id, tool_name, output, *is_error).raw()])
            }
        };
        push(&mut contents, role, parts);
    }
    push(&mut contents, "user", images);
    let content = |(role, parts)| Object::new().with("role", role).with("parts", parts);
    contents.into_iter().map(content).collect()
}

fn push<'a>(
    contents: &mut Vec<(&'a str, Vec<Box<RawValue>>)>,
    role: &'a str,
    parts: Vec<Box<RawValue>>,
) {
    match contents.last_mut().filter(|(last, _)| *last == role) {
        Some((_, last)) => last.extend(parts),
        None if parts.is_empty() => {}
        None => contents.push((role, parts)),
    }
}

fn text_part(text: &str) -> Object {
    Object::new().with("text", text)
}

fn image(image: &Attached) -> Object {
    let data = base64_of(image);
    Object::new().with("inlineData", json!({"mimeType": image.mime_type, "data": data}))
}

/// The parts of an answer. Notes in `ids` which calls have an id of the provider's own.
fn answer(blocks: &[PromptBlock], ids: &mut BTreeMap<String, String>) -> Vec<Box<RawValue>> {
    let mut parts = Vec::new();
    let mut has_call = false;
    for block in blocks {
        match block {
            PromptBlock::Text { text, opaque } => parts.extend(texts(text, false, opaque.as_ref())),
            // Thoughts are sent back for their signatures alone.
            PromptBlock::Reasoning { text, opaque } => {
                if kept(opaque.as_ref()).is_some() {
                    parts.extend(texts(text, true, opaque.as_ref()));
                }
            }
            PromptBlock::Call(one) => {
                let own =
                    kept(one.opaque.as_ref()).and_then(|json| serde_json::from_str(json).ok());
                let is_first = !std::mem::replace(&mut has_call, true);
                let dummy = (own.is_none() && is_first).then(|| NO_SIGNATURE.to_owned());
                let own: CallData = own.unwrap_or_default();
                parts.push(call(one, own.id.as_ref(), own.thought_signature.or(dummy)).raw());
                ids.extend(own.id.map(|id| (one.call_id.clone(), id)));
            }
            PromptBlock::ProviderTool { opaque, .. } => {
                let raw = kept(opaque.as_ref()).and_then(|json| serde_json::from_str(json).ok());
                let raw: Vec<Box<RawValue>> = raw.unwrap_or_default();
                parts.extend(raw);
            }
        }
    }
    parts
}

fn kept(opaque: Option<&Opaque>) -> Option<&str> {
    opaque.and_then(|opaque| opaque.for_kind(KIND))
}

/// What is kept of a call besides its name and its arguments.
#[derive(Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct CallData {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) thought_signature: Option<String>,
}

/// A part of a text that has a signature; one that is empty stands where it stood. What is between them
/// has none. Signed parts must be sent as they came, so that they cannot be one with others.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SignedSpan {
    /// Bytes of the text before it and up to its end.
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) signature: String,
}

/// A text as the parts that it came in, as far as that matters.
fn texts(text: &str, is_thought: bool, opaque: Option<&Opaque>) -> Vec<Box<RawValue>> {
    let spans = kept(opaque).and_then(|json| serde_json::from_str(json).ok());
    let spans: Vec<SignedSpan> = spans.unwrap_or_default();
    let mut parts = Vec::new();
    let mut push = |text: &str, signature: Option<&str>| {
        if !text.is_empty() || signature.is_some() {
            let part = text_part(text)
                .with_some("thought", is_thought.then_some(true))
                .with_some("thoughtSignature", signature);
            parts.push(part.raw());
        }
    };
    let mut at = 0;
    for SignedSpan { start, end, signature } in &spans {
        let between = text.get(at..*start);
        // A text that is not what was signed any more has no use for the signatures.
        let (Some(between), Some(signed)) = (between, text.get(*start..*end)) else { break };
        push(between, None);
        push(signed, Some(signature));
        at = *end;
    }
    push(text.get(at..).unwrap_or_default(), None);
    parts
}

fn call(call: &PromptCall, id: Option<&String>, signature: Option<String>) -> Object {
    let function = Object::new()
        .with_some("id", id)
        .with("name", &call.tool_name)
        .with("args", arguments(call));
    Object::new().with("functionCall", function).with_some("thoughtSignature", signature)
}

fn result(id: Option<&String>, tool_name: &str, output: &str, is_error: bool) -> Object {
    let response = if is_error { json!({"error": output}) } else { json!({"output": output}) };
    let function =
        Object::new().with_some("id", id).with("name", tool_name).with("response", response);
    Object::new().with("functionResponse", function)
}
