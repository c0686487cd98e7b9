//! Turns the chunks of a Chat Completions stream into the common alphabet, without any I/O.

use iris_protocol::Usage;
use serde_json::Value;

use super::calls::Calls;
use super::usage::usage;
use crate::blocks::Blocks;
use crate::failure::from_event;
use crate::provider::ApiKey;
use crate::{ErrorClass, Finish, ModelError, ModelEvent};

/// The state of one answer.
///
/// ```
/// use iris_llm::ChatDecoder;
///
/// let mut decoder = ChatDecoder::default();
/// let chunk = r#"{"choices":[{"delta":{"content":"hi"},"finish_reason":"stop"}]}"#;
/// let events = decoder.push("message", chunk).unwrap();
/// assert_eq!(events.len(), 3, "start of the answer, start of the text, text");
/// assert_eq!(decoder.push("message", "[DONE]").unwrap().len(), 2, "end of the text, finish");
/// ```
#[derive(Debug, Default)]
pub struct ChatDecoder {
    is_started: bool,
    blocks: Blocks,
    calls: Calls,
    usage: Option<Usage>,
    /// The provider's word, once it gave one.
    finish_reason: Option<String>,
    is_refused: bool,
    /// Errors do not show it.
    api_key: Option<ApiKey>,
}

impl ChatDecoder {
    /// A decoder whose errors do not show the key, should the provider repeat it.
    pub(crate) fn redacting(api_key: Option<ApiKey>) -> Self {
        Self { api_key, ..Self::default() }
    }

    /// Takes one event of the stream: its name, `message` when it has none, and its data.
    ///
    /// # Errors
    ///
    /// The error that the provider reports with it, classified; [`ErrorClass::Protocol`] when the
    /// data is no JSON or a limit is passed; [`ModelError::truncated`] when `[DONE]` comes too early.
    pub fn push(&mut self, name: &str, data: &str) -> Result<Vec<ModelEvent>, ModelError> {
        if data.trim() == "[DONE]" {
            return self.finish();
        }
        let is_known = name == "message" || name == "error";
        let chunk = match serde_json::from_str::<Value>(data) {
            Ok(chunk) => chunk,
            Err(_) if !is_known => return Ok(Vec::new()),
            Err(_) => {
                let message = "the provider sent an event that is not json";
                return Err(ModelError::new(ErrorClass::Protocol, message));
            }
        };
        if name == "error" || is_error(&chunk) {
            return Err(from_event(&chunk, self.api_key.as_ref()));
        }
        let mut events = Vec::new();
        self.chunk(&chunk, &mut events)?;
        Ok(events)
    }

    /// Ends the stream; its last event is [`ModelEvent::Finish`].
    ///
    /// # Errors
    ///
    /// [`ModelError::truncated`] when there was no finish reason, [`ErrorClass::Transient`] when it
    /// was `error`, [`ErrorClass::Protocol`] when a call has no name.
    pub fn finish(&mut self) -> Result<Vec<ModelEvent>, ModelError> {
        let raw = self.finish_reason.take().ok_or_else(ModelError::truncated)?;
        if raw == "error" {
            let message = "the provider ended its answer with an error";
            return Err(ModelError::new(ErrorClass::Transient, message));
        }
        let reason = self.reason(&raw);
        let was_cut = matches!(reason, Finish::Length | Finish::ContentFilter);
        let mut events = Vec::new();
        self.blocks.close(&mut events);
        self.calls.finish(was_cut, &mut events)?;
        events.extend(self.usage.take().map(ModelEvent::Usage));
        events.push(ModelEvent::Finish { reason, raw });
        Ok(events)
    }

    /// Whether the provider said why it stopped; only then is the answer whole.
    pub fn is_answered(&self) -> bool {
        self.finish_reason.is_some()
    }

    fn chunk(&mut self, chunk: &Value, events: &mut Vec<ModelEvent>) -> Result<(), ModelError> {
        if let Some(usage) = usage(chunk) {
            self.usage = Some(usage);
        }
        // Anything without choices is a kind of event that this version does not know.
        let Some(choices) = chunk.get("choices").and_then(Value::as_array) else {
            return Ok(());
        };
        if !self.is_started {
            self.is_started = true;
            let (model, id) = (text(chunk, "model").to_owned(), text(chunk, "id").to_owned());
            events.push(ModelEvent::Start { model, id });
        }
        for choice in choices {
            if choice.get("index").and_then(Value::as_u64).unwrap_or(0) == 0 {
                self.choice(choice, events)?;
            }
        }
        Ok(())
    }

    fn choice(&mut self, choice: &Value, events: &mut Vec<ModelEvent>) -> Result<(), ModelError> {
        if let Some(delta) = choice.get("delta") {
            self.delta(delta, events)?;
        }
        let reason = text(choice, "finish_reason");
        if !reason.is_empty() {
            self.finish_reason = Some(reason.to_owned());
        }
        Ok(())
    }

    fn delta(&mut self, delta: &Value, events: &mut Vec<ModelEvent>) -> Result<(), ModelError> {
        // Servers name it one way or the other; those that send both send the same text twice.
        let reasoning = match text(delta, "reasoning_content") {
            "" => text(delta, "reasoning"),
            reasoning => reasoning,
        };
        self.blocks.reasoning(reasoning, events);
        match delta.get("reasoning_details") {
            Some(Value::Array(details)) if !details.is_empty() => {
                let blob = Value::Array(details.clone());
                events.push(ModelEvent::ReasoningOpaque { blob });
            }
            Some(_) | None => {}
        }
        self.content(delta, events);
        let refusal = text(delta, "refusal");
        self.is_refused |= !refusal.is_empty();
        self.blocks.text(refusal, events);

        let fragments = delta.get("tool_calls").and_then(Value::as_array).into_iter().flatten();
        for (position, fragment) in fragments.enumerate() {
            self.blocks.close(events);
            self.calls.push(position, fragment, events)?;
        }
        Ok(())
    }

    /// Content is a string, or a list of `{type: text, text}` and
    /// `{type: thinking, thinking: [{type: text, text}]}`.
    fn content(&mut self, delta: &Value, events: &mut Vec<ModelEvent>) {
        self.blocks.text(text(delta, "content"), events);
        let parts = delta.get("content").and_then(Value::as_array).into_iter().flatten();
        for part in parts {
            let thoughts = part.get("thinking").and_then(Value::as_array).into_iter().flatten();
            for thought in thoughts {
                self.blocks.reasoning(text(thought, "text"), events);
            }
            self.blocks.text(text(part, "text"), events);
        }
    }

    fn reason(&self, raw: &str) -> Finish {
        match raw {
            "length" => Finish::Length,
            "content_filter" => Finish::ContentFilter,
            _ if self.is_refused => Finish::ContentFilter,
            // Some servers say `stop` after calls, and some `tool_calls` without any.
            _ if !self.calls.is_empty() => Finish::ToolCalls,
            "stop" | "tool_calls" | "function_call" => Finish::Stop,
            _ => Finish::Other,
        }
    }
}

fn is_error(chunk: &Value) -> bool {
    chunk.get("error").is_some_and(|error| !error.is_null()) || text(chunk, "object") == "error"
}

/// A string field; empty when it is absent or something else.
fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}
