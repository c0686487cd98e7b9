//! Writes a request in the form of Chat Completions.

use iris_agent::{Attached, Prompt, PromptBlock, PromptCall, PromptMessage, ToolSpec, said_with};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::KIND;
use crate::body::{Object, foreign};
use crate::provider::{ChatSwitches, MaxTokensName, Reasoning, ReasoningReplay};
use crate::request::{arguments, data_url, shown_with, tool_text};
use crate::{ModelRequest, OutputSchema};

/// The JSON body. Tools stand in the order given, and so do the properties of their schemas.
pub(super) fn body(
    request: &ModelRequest,
    switches: ChatSwitches,
    reasoning: Option<Reasoning>,
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
        messages.extend(message(entry, prompt, switches.reasoning));
    }
    messages.append(&mut images);
    let mut body = Object::new()
        .with("model", &request.model)
        .with("messages", messages)
        .with("stream", true)
        .with_some(
            "stream_options",
            switches.stream_options.then(|| json!({"include_usage": true})),
        );
    if !prompt.tools.is_empty() {
        let tools: Vec<Object> = prompt.tools.iter().map(|it| tool(it)).collect();
        body = body
            .with("tools", tools)
            .with("tool_choice", "auto")
            .with_some("parallel_tool_calls", switches.parallel_tool_calls);
    }
    let tokens = match switches.max_tokens_name {
        MaxTokensName::MaxTokens => "max_tokens",
        MaxTokensName::MaxCompletionTokens => "max_completion_tokens",
    };
    let effort = match reasoning {
        Some(Reasoning::Effort(effort)) => Some(effort.as_str()),
        Some(Reasoning::Off) | None => None,
    };
    body.with_some(tokens, request.max_output_tokens)
        .with_some("reasoning_effort", effort)
        .with_some("temperature", request.temperature)
        .with_some("top_p", request.top_p)
        .with_some("response_format", request.output_schema.as_ref().map(response_format))
        .with_some(
            "prompt_cache_key",
            request.cache_key.as_ref().filter(|_| switches.prompt_cache_key),
        )
        .into_text()
}

fn message(message: &PromptMessage, prompt: &Prompt, reasoning: ReasoningReplay) -> Option<Object> {
    match message {
        PromptMessage::User { text, attachments } => {
            let (said, text) = (Object::new().with("role", "user"), said_with(text, attachments));
            let images = shown_with(attachments, &prompt.images);
            // A text alone stands as such: there are servers that know nothing else.
            if images.is_empty() {
                return Some(said.with("content", text));
            }
            let text = json!({"type": "text", "text": text});
            let content = [text].into_iter().chain(images.into_iter().map(image_item));
            Some(said.with("content", content.collect::<Vec<Value>>()))
        }
        PromptMessage::Assistant { blocks } => answer(blocks, reasoning),
        PromptMessage::ToolResult { call_id, output, is_error, .. } => {
            // The wire has no flag for a failure.
            let content = tool_text(output, *is_error);
            let result = Object::new().with("role", "tool").with("tool_call_id", call_id);
            Some(result.with("content", content))
        }
    }
}

/// One message, whatever the order of its blocks: the wire has none. None for an answer that is only of
/// use to its own provider.
fn answer(blocks: &[PromptBlock], replay: ReasoningReplay) -> Option<Object> {
    let (mut text, mut reasoning) = (String::new(), String::new());
    let (mut calls, mut details) = (Vec::new(), Vec::new());
    for block in blocks {
        match block {
            PromptBlock::Text { text: piece, .. } => text.push_str(piece),
            PromptBlock::Reasoning { text: piece, opaque } => {
                reasoning.push_str(piece);
                let kept = opaque.as_ref().and_then(|opaque| opaque.for_kind(KIND));
                details.extend(kept.and_then(elements).into_iter().flatten());
            }
            PromptBlock::Call(one) => calls.push(call(one)),
            PromptBlock::ProviderTool { .. } => {}
        }
    }
    if text.is_empty() && calls.is_empty() {
        return None;
    }
    let content = (!text.is_empty() || calls.is_empty()).then_some(text);
    let answer = Object::new().with("role", "assistant").with("content", content);
    let answer = answer.with_some("tool_calls", (!calls.is_empty()).then_some(calls));
    let reasoning = (!reasoning.is_empty()).then_some(reasoning);
    Some(match replay {
        ReasoningReplay::None => answer,
        ReasoningReplay::ReasoningContent => answer.with_some("reasoning_content", reasoning),
        ReasoningReplay::Reasoning => answer.with_some("reasoning", reasoning),
        ReasoningReplay::ReasoningDetails => {
            answer.with_some("reasoning_details", (!details.is_empty()).then_some(details))
        }
    })
}

fn elements(json: &str) -> Option<Vec<Box<RawValue>>> {
    serde_json::from_str(json).ok()
}

/// An image that a call was answered with. The wire has images in messages of users alone.
fn shown(call_id: &str, image: &Attached) -> Object {
    let text = format!("The image that the call {call_id} was answered with:");
    Object::new().with("role", "user").with(
        "content",
        json!([
            {"type": "text", "text": text},
            image_item(image),
        ]),
    )
}

fn image_item(image: &Attached) -> Value {
    json!({"type": "image_url", "image_url": {"url": data_url(image)}})
}

fn call(call: &PromptCall) -> Object {
    let extra = call.opaque.as_ref().and_then(|opaque| opaque.for_kind(KIND)).and_then(foreign);
    // Servers parse the arguments of earlier calls and refuse the request when they are not an object.
    let function =
        Object::new().with("name", &call.tool_name).with("arguments", arguments(call).to_string());
    Object::new()
        .with("id", &call.call_id)
        .with("type", "function")
        .with("function", function)
        .with_some("extra_content", extra)
}

/// A tool, also in the form that Ollama takes it.
pub(crate) fn tool(tool: &ToolSpec) -> Object {
    let function = Object::new()
        .with("name", &tool.name)
        .with("description", &tool.description)
        .with("parameters", &tool.parameters);
    Object::new().with("type", "function").with("function", function)
}

fn response_format(output: &OutputSchema) -> Value {
    let OutputSchema { name, schema, strict } = output;
    let schema = json!({"name": name, "schema": schema, "strict": strict});
    json!({"type": "json_schema", "json_schema": schema})
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use iris_agent::{Opaque, Prompt};

    use super::*;

    fn kept(json: &str) -> Opaque {
        Opaque { kind: KIND.into(), json: json.into() }
    }

    fn written(request: &ModelRequest) -> String {
        body(request, ChatSwitches::default(), None)
    }

    fn conversation() -> Vec<PromptMessage> {
        let call = |id: &str, arguments| PromptCall {
            call_id: id.into(),
            tool_name: "read".into(),
            arguments,
            opaque: None,
        };
        let result = |id: &str, output: &str, is_error| PromptMessage::ToolResult {
            call_id: id.into(),
            tool_name: "read".into(),
            output: output.into(),
            is_error,
        };
        vec![
            PromptMessage::asked("hi"),
            PromptMessage::Assistant {
                blocks: vec![
                    PromptBlock::Reasoning { text: "secret".into(), opaque: Some(kept("[1.50]")) },
                    PromptBlock::Call(call("a", json!({"path": "x"}))),
                    PromptBlock::Call(PromptCall {
                        opaque: Some(kept(r#"{"google": {}}"#)),
                        ..call("b", json!("{bad"))
                    }),
                ],
            },
            result("a", "content", false),
            result("b", "not an object", true),
            PromptMessage::said("done"),
        ]
    }

    #[test]
    fn conversation_with_calls_and_results_is_written_in_full() {
        let tool = |name: &str| ToolSpec::new(name, "d", &json!({"z": 1, "a": 2}));
        let request = ModelRequest {
            model: "m".into(),
            prompt: Prompt {
                system: "be kind".into(),
                messages: conversation(),
                tools: vec![tool("write").into(), tool("read").into()],
                images: BTreeMap::new(),
            },
            max_output_tokens: Some(9),
            temperature: Some(0.7),
            ..ModelRequest::default()
        };
        let function = |name: &str| {
            json!({"type": "function", "function":
                {"name": name, "description": "d", "parameters": {"z": 1, "a": 2}}})
        };
        let call = |id: &str, arguments: &str| {
            json!({"id": id, "type": "function", "function":
                {"name": "read", "arguments": arguments}})
        };
        let mut signed = call("b", "{}");
        signed["extra_content"] = json!({"google": {}});
        let expected = json!({
            "model": "m",
            "messages": [
                {"role": "system", "content": "be kind"},
                {"role": "user", "content": "hi"},
                {"role": "assistant", "content": null, "tool_calls":
                    [call("a", r#"{"path":"x"}"#), signed]},
                {"role": "tool", "tool_call_id": "a", "content": "content"},
                {"role": "tool", "tool_call_id": "b", "content": "error: not an object"},
                {"role": "assistant", "content": "done"},
            ],
            "stream": true,
            "stream_options": {"include_usage": true},
            "tools": [function("write"), function("read")],
            "tool_choice": "auto",
            "max_tokens": 9,
            "temperature": 0.7,
        });
        // What is the server's own stands as it came.
        let expected = expected.to_string().replace(r#"{"google":{}}"#, r#"{"google": {}}"#);
        assert_eq!(written(&request), expected);
    }

    #[test]
    fn images_stand_behind_all_results_of_their_step() {
        let image = Attached { mime_type: "image/png".into(), bytes: b"\x89PNG"[..].into() };
        let images = BTreeMap::from([("a".to_owned(), image)]);
        let prompt = Prompt { messages: conversation(), images, ..Prompt::default() };
        let body = written(&ModelRequest { prompt, ..ModelRequest::default() });
        let body: Value = serde_json::from_str(&body).unwrap();
        let messages = body["messages"].as_array().unwrap();
        let roles: Vec<_> = messages.iter().map(|it| it["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["user", "assistant", "tool", "tool", "user", "assistant"]);
        let shown = &messages[4]["content"][1]["image_url"]["url"];
        assert_eq!(shown, "data:image/png;base64,iVBORw==");
    }

    #[test]
    fn what_is_not_set_is_not_sent() {
        let expected = r#"{"model":"","messages":[],"stream":true,"#.to_owned()
            + r#""stream_options":{"include_usage":true}}"#;
        assert_eq!(written(&ModelRequest::default()), expected);
    }

    #[test]
    fn switches_change_what_is_sent() {
        let request = ModelRequest {
            prompt: Prompt {
                messages: conversation(),
                tools: vec![ToolSpec::new("read", "d", &json!({})).into()],
                ..Prompt::default()
            },
            max_output_tokens: Some(9),
            cache_key: Some("ses_1".into()),
            output_schema: Some(OutputSchema {
                name: "o".into(),
                schema: json!({"type": "object"}),
                strict: true,
            }),
            ..ModelRequest::default()
        };
        let mut switches = ChatSwitches {
            stream_options: false,
            parallel_tool_calls: Some(false),
            max_tokens_name: MaxTokensName::MaxCompletionTokens,
            reasoning: ReasoningReplay::ReasoningDetails,
            prompt_cache_key: true,
        };
        let text = body(&request, switches, "high".parse().ok());
        assert!(text.contains(r#""reasoning_details":[1.50]"#), "{text}");
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value.get("stream_options"), None);
        assert_eq!(value["parallel_tool_calls"], false);
        assert_eq!(value["max_completion_tokens"], 9);
        assert_eq!(value["prompt_cache_key"], "ses_1");
        assert_eq!(value["reasoning_effort"], "high");
        let format = json!({"name": "o", "schema": {"type": "object"}, "strict": true});
        assert_eq!(value["response_format"], json!({"type": "json_schema", "json_schema": format}));
        for (reasoning, field) in [
            (ReasoningReplay::ReasoningContent, "reasoning_content"),
            (ReasoningReplay::Reasoning, "reasoning"),
        ] {
            switches.reasoning = reasoning;
            let value: Value = serde_json::from_str(&body(&request, switches, None)).unwrap();
            assert_eq!(value["messages"][1][field], "secret");
        }
    }
}
