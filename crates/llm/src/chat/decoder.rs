//! Turns the chunks of a Chat Completions stream into the common alphabet, without any I/O.

use iris_agent::{OPAQUE_BYTES_MAX, Opaque};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::KIND;
use super::calls::Calls;
use super::usage::usage;
use crate::blocks::Blocks;
use crate::failure::{from_event, not_json, too_long};
use crate::json::Json;
use crate::provider::ApiKey;
use crate::provider_tool;
use crate::wire::{Decoder, Frame};
use crate::{ErrorClass, Finish, ModelError, ModelEvent, ReportedUsage};

/// The state of one answer.
#[derive(Debug, Default)]
pub(crate) struct ChatDecoder {
    is_started: bool,
    blocks: Blocks,
    calls: Calls,
    details: Details,
    provider_tools: usize,
    usage: Option<ReportedUsage>,
    /// The provider's word, once it gave one.
    finish_reason: Option<String>,
    is_refused: bool,
    is_at_work: bool,
    /// Errors do not show it.
    api_key: Option<ApiKey>,
}

/// `reasoning_details` as they came, for the last block of reasoning.
#[derive(Debug, Default)]
struct Details {
    /// JSON values with commas between them.
    json: String,
    block: Option<u32>,
}

impl ChatDecoder {
    /// A decoder whose errors do not show the key, should the provider repeat it.
    pub(crate) fn redacting(api_key: Option<ApiKey>) -> Self {
        Self { api_key, ..Self::default() }
    }
}

impl Decoder for ChatDecoder {
    fn push(&mut self, frame: &Frame, events: &mut Vec<ModelEvent>) -> Result<(), ModelError> {
        if frame.data.trim() == "[DONE]" {
            return self.finish(events);
        }
        let is_known = frame.name == "message" || frame.name == "error";
        let chunk = match Json::read(&frame.data) {
            Some(chunk) => chunk,
            None if !is_known => return Ok(()),
            None => return Err(not_json()),
        };
        if frame.name == "error" || is_error(&chunk) {
            return Err(from_event(&chunk.to_value(), self.api_key.as_ref()));
        }
        self.chunk(&chunk, &frame.data, events)
    }

    fn is_at_work(&self) -> bool {
        self.is_at_work
    }

    fn is_answered(&self) -> bool {
        self.finish_reason.is_some()
    }

    fn finish(&mut self, events: &mut Vec<ModelEvent>) -> Result<(), ModelError> {
        let raw = self.finish_reason.take().ok_or_else(ModelError::truncated)?;
        if raw == "error" {
            let message = "the provider ended its answer with an error";
            return Err(ModelError::new(ErrorClass::BadAnswer, message));
        }
        let reason = self.reason(&raw);
        let was_cut = matches!(reason, Finish::Length | Finish::ContentFilter);
        self.details.finish(&mut self.blocks, events);
        self.blocks.close(events);
        self.calls.finish(was_cut, events)?;
        events.extend(self.usage.take().map(ModelEvent::Usage));
        events.push(ModelEvent::Finish { reason, raw });
        Ok(())
    }
}

impl ChatDecoder {
    fn chunk(
        &mut self,
        chunk: &Json<'_>,
        data: &str,
        events: &mut Vec<ModelEvent>,
    ) -> Result<(), ModelError> {
        self.is_at_work = false;
        let is_counted = usage(chunk).is_some_and(|usage| {
            let is_new = self.usage.as_ref() != Some(&usage);
            self.usage = Some(usage);
            is_new
        });
        // Anything without choices is a kind of event that this version does not know.
        let Json::List(choices) = chunk.get("choices") else { return Ok(()) };
        if !self.is_started {
            self.is_started = true;
            let (model, id) = (chunk.get("model").text(), chunk.get("id").text());
            events.push(ModelEvent::Start { model: model.to_owned(), id: id.to_owned() });
        }
        for (at, choice) in choices.iter().enumerate() {
            if choice.get("index").count().unwrap_or(0) == 0 {
                self.choice(choice, &RawDelta { data, choice: at }, events)?;
            }
        }
        if is_counted && self.finish_reason.is_none() {
            let so_far = self.usage.clone().map(|usage| ReportedUsage { raw: None, ..usage });
            events.extend(so_far.map(ModelEvent::UsageSoFar));
        }
        Ok(())
    }

    fn choice(
        &mut self,
        choice: &Json<'_>,
        raw: &RawDelta<'_>,
        events: &mut Vec<ModelEvent>,
    ) -> Result<(), ModelError> {
        self.is_at_work |= choice.get("delta").has_more_than("role");
        self.delta(choice.get("delta"), raw, events)?;
        let reason = choice.get("finish_reason").text();
        if !reason.is_empty() {
            self.finish_reason = Some(reason.to_owned());
        }
        Ok(())
    }

    fn delta(
        &mut self,
        delta: &Json<'_>,
        raw: &RawDelta<'_>,
        events: &mut Vec<ModelEvent>,
    ) -> Result<(), ModelError> {
        // Servers name it one way or the other; those that send both send the same text twice.
        let reasoning = match delta.get("reasoning_content").text() {
            "" => delta.get("reasoning").text(),
            reasoning => reasoning,
        };
        self.blocks.reasoning(reasoning, events);
        if !delta.get("reasoning_details").list().is_empty() {
            let index = (!reasoning.is_empty()).then(|| self.blocks.open_reasoning(events));
            self.details.add(raw.read().reasoning_details, index)?;
        }
        self.content(delta.get("content"), events);
        let refusal = delta.get("refusal").text();
        self.is_refused |= !refusal.is_empty();
        self.blocks.text(refusal, events);

        for tool in delta.get("executed_tools").list() {
            self.provider_tool(tool, events)?;
        }
        for (position, fragment) in delta.get("tool_calls").list().iter().enumerate() {
            self.blocks.close(events);
            let extra = fragment.get("extra_content");
            let extra = (!extra.is_null()).then(|| raw.read().extra_content(position));
            self.calls.push(position, fragment, extra.flatten(), events)?;
        }
        Ok(())
    }

    /// Content is a string, or a list of `{type: text, text}` and
    /// `{type: thinking, thinking: [{type: text, text}]}`.
    fn content(&mut self, content: &Json<'_>, events: &mut Vec<ModelEvent>) {
        self.blocks.text(content.text(), events);
        for part in content.list() {
            for thought in part.get("thinking").list() {
                self.blocks.reasoning(thought.get("text").text(), events);
            }
            self.blocks.text(part.get("text").text(), events);
        }
    }

    /// Groq's `executed_tools`: once when one begins, and again with what it answered.
    fn provider_tool(
        &mut self,
        tool: &Json<'_>,
        events: &mut Vec<ModelEvent>,
    ) -> Result<(), ModelError> {
        let output = ["output", "search_results", "code_results", "browser_results"];
        let output = output.into_iter().map(|key| tool.get(key)).find(|value| !value.is_null());
        let Some(output) = output else { return Ok(()) };
        provider_tool::count(&mut self.provider_tools)?;
        self.blocks.close(events);
        let (name, arguments) = (tool.get("type").text(), tool.get("arguments").text().to_owned());
        let output = provider_tool::shown(output);
        events.push(provider_tool::ran(name, arguments, output, false, None));
        Ok(())
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

impl Details {
    /// Adds `list`, of which the text is in the block `index` if there is any.
    fn add(&mut self, list: Option<&RawValue>, index: Option<u32>) -> Result<(), ModelError> {
        self.block = index.or(self.block);
        let elements = list.and_then(|list| serde_json::from_str(list.get()).ok());
        let elements: Vec<&RawValue> = elements.unwrap_or_default();
        for element in elements {
            if self.json.len() + element.get().len() + 3 > OPAQUE_BYTES_MAX {
                return Err(too_long());
            }
            if !self.json.is_empty() {
                self.json.push(',');
            }
            self.json.push_str(element.get());
        }
        Ok(())
    }

    fn finish(&mut self, blocks: &mut Blocks, events: &mut Vec<ModelEvent>) {
        if self.json.is_empty() {
            return;
        }
        let json = format!("[{}]", std::mem::take(&mut self.json));
        let opaque = Opaque { kind: KIND.to_owned(), json: json.into() };
        match self.block {
            Some(index) => events.push(ModelEvent::ReasoningOpaque { index, opaque }),
            None => blocks.seal_reasoning(opaque, events),
        }
    }
}

/// Where a delta stands in its event, to be read as it came.
struct RawDelta<'a> {
    data: &'a str,
    choice: usize,
}

impl<'a> RawDelta<'a> {
    fn read(&self) -> OpaqueFields<'a> {
        let chunk = serde_json::from_str::<RawChunk<'a>>(self.data).ok();
        let choice = chunk.and_then(|chunk| chunk.choices.into_iter().nth(self.choice));
        choice.map(|choice| choice.delta).unwrap_or_default()
    }
}

#[derive(Deserialize)]
struct RawChunk<'a> {
    #[serde(borrow)]
    choices: Vec<RawChoice<'a>>,
}

#[derive(Deserialize)]
struct RawChoice<'a> {
    #[serde(borrow, default)]
    delta: OpaqueFields<'a>,
}

#[derive(Deserialize, Default)]
struct OpaqueFields<'a> {
    #[serde(borrow)]
    reasoning_details: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tool_calls: Vec<OpaqueCall<'a>>,
}

#[derive(Deserialize)]
struct OpaqueCall<'a> {
    #[serde(borrow)]
    extra_content: Option<&'a RawValue>,
}

impl<'a> OpaqueFields<'a> {
    fn extra_content(&self, call: usize) -> Option<&'a RawValue> {
        self.tool_calls.get(call).and_then(|call| call.extra_content)
    }
}

fn is_error(chunk: &Json<'_>) -> bool {
    !chunk.get("error").is_null() || chunk.get("object").text() == "error"
}
