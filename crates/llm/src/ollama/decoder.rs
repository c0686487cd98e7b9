//! Turns the lines of an Ollama stream into the common alphabet, without any I/O.

use iris_protocol::Usage;

use crate::blocks::Blocks;
use crate::calls::{Calls, arguments_of};
use crate::failure::{from_event, not_json};
use crate::json::Json;
use crate::provider::ApiKey;
use crate::usage::reported;
use crate::wire::{Decoder, Frame};
use crate::{Finish, ModelError, ModelEvent, ReportedUsage};

/// The state of one answer.
#[derive(Debug, Default)]
pub(crate) struct OllamaDecoder {
    is_started: bool,
    blocks: Blocks,
    calls: Calls,
    calls_so_far: u64,
    /// Errors do not show it.
    api_key: Option<ApiKey>,
}

impl OllamaDecoder {
    /// A decoder whose errors do not show the key, should the provider repeat it.
    pub(crate) fn redacting(api_key: Option<ApiKey>) -> Self {
        Self { api_key, ..Self::default() }
    }
}

impl Decoder for OllamaDecoder {
    fn push(&mut self, frame: &Frame, events: &mut Vec<ModelEvent>) -> Result<(), ModelError> {
        let Some(line) = Json::read(&frame.data) else { return Err(not_json()) };
        if !line.get("error").is_null() {
            return Err(from_event(&line.to_value(), self.api_key.as_ref()));
        }
        if !std::mem::replace(&mut self.is_started, true) {
            let model = line.get("model").text().to_owned();
            events.push(ModelEvent::Start { model, id: String::new() });
        }
        let message = line.get("message");
        self.blocks.reasoning(message.get("thinking").text(), events);
        self.blocks.text(message.get("content").text(), events);
        for call in message.get("tool_calls").list() {
            self.call(call, events)?;
        }
        if line.get("done").is_true() {
            self.done(&line, events);
        }
        Ok(())
    }
}

impl OllamaDecoder {
    /// Calls come whole, mostly without an id.
    fn call(&mut self, call: &Json<'_>, events: &mut Vec<ModelEvent>) -> Result<(), ModelError> {
        self.blocks.close(events);
        let function = call.get("function");
        let arguments = arguments_of(function.get("arguments"));
        self.calls_so_far += 1;
        let key = self.calls_so_far;
        self.calls.start(key, call.get("id").text(), function.get("name").text(), events)?;
        self.calls.end_with(key, &arguments, None, events);
        Ok(())
    }

    fn done(&mut self, line: &Json<'_>, events: &mut Vec<ModelEvent>) {
        self.blocks.close(events);
        let raw = line.get("done_reason").text();
        let reason = match raw {
            "length" => Finish::Length,
            _ if !self.calls.is_empty() => Finish::ToolCalls,
            // Older servers do not say why.
            "stop" | "" => Finish::Stop,
            _ => Finish::Other,
        };
        self.calls.finish(reason == Finish::Length, events);
        events.extend(usage(line).map(ModelEvent::Usage));
        events.push(ModelEvent::Finish { reason, raw: raw.to_owned() });
    }
}

fn usage(line: &Json<'_>) -> Option<ReportedUsage> {
    let (input, output) = (line.get("prompt_eval_count").tokens(), line.get("eval_count").tokens());
    if input.is_none() && output.is_none() {
        return None;
    }
    let tokens = Usage {
        input_tokens: input.unwrap_or(0),
        output_tokens: output.unwrap_or(0),
        ..Usage::default()
    };
    let raw = serde_json::json!({"prompt_eval_count": input, "eval_count": output});
    Some(reported(tokens, None, raw))
}
