//! Writes a request in the form of Chat Completions.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use iris_agent::{Attached, PromptCall, PromptMessage, ToolSpec};
use serde_json::{Value, json};

use crate::ModelRequest;

/// The JSON body. Tools stand in the order given, and so do the properties of their schemas.
/// Reasoning is not sent back: servers disagree on it, and most refuse it.
pub(super) fn body(request: &ModelRequest) -> Value {
    let prompt = &request.prompt;
    let mut messages = Vec::with_capacity(prompt.messages.len() + 1);
    if !prompt.system.is_empty() {
        messages.push(json!({"role": "system", "content": prompt.system}));
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
        messages.push(message(entry));
    }
    messages.append(&mut images);
    let mut body = json!({
        "model": request.model,
        "messages": messages,
        "stream": true,
        "stream_options": {"include_usage": true},
    });
    if !prompt.tools.is_empty() {
        set(&mut body, "tools", prompt.tools.iter().map(tool).collect());
        set(&mut body, "tool_choice", "auto".into());
    }
    if let Some(tokens) = request.max_output_tokens {
        set(&mut body, "max_tokens", tokens.into());
    }
    if let Some(temperature) = request.temperature {
        set(&mut body, "temperature", temperature.into());
    }
    body
}

fn set(body: &mut Value, key: &str, value: Value) {
    if let Value::Object(fields) = body {
        fields.insert(key.to_owned(), value);
    }
}

fn message(message: &PromptMessage) -> Value {
    match message {
        PromptMessage::User { text } => json!({"role": "user", "content": text}),
        PromptMessage::Assistant { text, calls, .. } if calls.is_empty() => {
            json!({"role": "assistant", "content": text})
        }
        PromptMessage::Assistant { text, calls, .. } => {
            let content = (!text.is_empty()).then_some(text);
            let calls = calls.iter().map(call).collect::<Vec<_>>();
            json!({"role": "assistant", "content": content, "tool_calls": calls})
        }
        PromptMessage::ToolResult { call_id, output, is_error, .. } => {
            // The wire has no flag for a failure.
            let content = if *is_error { format!("error: {output}") } else { output.clone() };
            json!({"role": "tool", "tool_call_id": call_id, "content": content})
        }
    }
}

/// An image that a call was answered with. The wire has images in messages of users alone.
fn shown(call_id: &str, image: &Attached) -> Value {
    let data = BASE64_STANDARD.encode(&image.bytes);
    let url = format!("data:{};base64,{data}", image.mime_type);
    let text = format!("The image that the call {call_id} was answered with:");
    json!({"role": "user", "content": [
        {"type": "text", "text": text},
        {"type": "image_url", "image_url": {"url": url}},
    ]})
}

fn call(call: &PromptCall) -> Value {
    // Servers parse the arguments of earlier calls and refuse the request when they are not an object.
    let arguments =
        if call.arguments.is_object() { call.arguments.to_string() } else { "{}".into() };
    json!({
        "id": call.call_id,
        "type": "function",
        "function": {"name": call.tool_name, "arguments": arguments},
    })
}

fn tool(tool: &ToolSpec) -> Value {
    json!({
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.parameters,
        },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use iris_agent::Prompt;

    use super::*;

    fn conversation() -> Vec<PromptMessage> {
        let call = |id: &str, arguments| PromptCall {
            call_id: id.into(),
            tool_name: "read".into(),
            arguments,
        };
        let result = |id: &str, output: &str, is_error| PromptMessage::ToolResult {
            call_id: id.into(),
            tool_name: "read".into(),
            output: output.into(),
            is_error,
        };
        vec![
            PromptMessage::User { text: "hi".into() },
            PromptMessage::Assistant {
                text: String::new(),
                reasoning: "secret".into(),
                calls: vec![call("a", json!({"path": "x"})), call("b", json!("{bad"))],
            },
            result("a", "content", false),
            result("b", "not an object", true),
            PromptMessage::Assistant {
                text: "done".into(),
                reasoning: String::new(),
                calls: vec![],
            },
        ]
    }

    #[test]
    fn conversation_with_calls_and_results_is_written_in_full() {
        let tool = |name: &str| ToolSpec {
            name: name.into(),
            description: "d".into(),
            parameters: json!({"z": 1, "a": 2}),
        };
        let request = ModelRequest {
            model: "m".into(),
            prompt: Prompt {
                system: "be kind".into(),
                messages: conversation(),
                tools: vec![tool("write"), tool("read")],
                images: BTreeMap::new(),
            },
            max_output_tokens: Some(9),
            temperature: Some(0.7),
        };
        let function = |name: &str| {
            json!({"type": "function", "function":
                {"name": name, "description": "d", "parameters": {"z": 1, "a": 2}}})
        };
        let call = |id: &str, arguments: &str| {
            json!({"id": id, "type": "function", "function":
                {"name": "read", "arguments": arguments}})
        };
        let expected = json!({
            "model": "m",
            "messages": [
                {"role": "system", "content": "be kind"},
                {"role": "user", "content": "hi"},
                {"role": "assistant", "content": null, "tool_calls":
                    [call("a", r#"{"path":"x"}"#), call("b", "{}")]},
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
        assert_eq!(body(&request).to_string(), expected.to_string());
    }

    #[test]
    fn images_stand_behind_all_results_of_their_step() {
        let image = Attached { mime_type: "image/png".into(), bytes: b"\x89PNG"[..].into() };
        let images = BTreeMap::from([("a".to_owned(), image)]);
        let prompt = Prompt { messages: conversation(), images, ..Prompt::default() };
        let body = body(&ModelRequest { prompt, ..ModelRequest::default() });
        let messages = body["messages"].as_array().unwrap();
        let roles: Vec<_> = messages.iter().map(|it| it["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["user", "assistant", "tool", "tool", "user", "assistant"]);
        let shown = &messages[4]["content"][1]["image_url"]["url"];
        assert_eq!(shown, "data:image/png;base64,iVBORw==");
    }

    #[test]
    fn what_is_not_set_is_not_sent() {
        let body = body(&ModelRequest::default());
        let keys: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["model", "messages", "stream", "stream_options"]);
    }
}
