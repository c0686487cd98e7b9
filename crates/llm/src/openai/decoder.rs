//! Turns the events of a Responses stream into the common alphabet, without any I/O.

use std::collections::BTreeMap;

use iris_agent::{OPAQUE_BYTES_MAX, Opaque};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::KIND;
use super::request::Phase;
use super::usage::usage;
use crate::blocks::Blocks;
use crate::calls::Calls;
use crate::failure::{from_event, not_json, too_long};
use crate::json::Json;
use crate::provider::ApiKey;
use crate::provider_tool;
use crate::wire::{Decoder, Frame};
use crate::{ErrorClass, Finish, ModelError, ModelEvent};

/// Most items of one answer that are received at the same time.
const ITEMS_MAX: usize = 256;

/// The state of one answer.
#[derive(Debug, Default)]
pub(crate) struct ResponsesDecoder {
    is_started: bool,
    blocks: Blocks,
    calls: Calls,
    /// Items that have not ended, by their place in the output.
    items: BTreeMap<u64, Item>,
    provider_tools: usize,
    is_refused: bool,
    is_at_work: bool,
    /// Errors do not show it.
    api_key: Option<ApiKey>,
}

/// What came of an item before its end.
#[derive(Debug, Default)]
struct Item {
    has_text: bool,
    has_call: bool,
    /// The piece of a summary that its last text belonged to.
    summary: Option<u64>,
}

impl ResponsesDecoder {
    /// A decoder whose errors do not show the key, should the provider repeat it.
    pub(crate) fn redacting(api_key: Option<ApiKey>) -> Self {
        Self { api_key, ..Self::default() }
    }
}

impl Decoder for ResponsesDecoder {
    fn push(&mut self, frame: &Frame, events: &mut Vec<ModelEvent>) -> Result<(), ModelError> {
        // Not of this wire, but servers that speak both send it.
        if frame.data.trim() == "[DONE]" {
            return self.finish(events);
        }
        let Some(event) = Json::read(&frame.data) else { return Err(not_json()) };
        let kind = match event.get("type").text() {
            "" => frame.name.as_str(),
            kind => kind,
        };
        // What says no more than that it has begun may come again and again.
        let waits = ["response.created", "response.queued", "response.in_progress"].contains(&kind);
        self.is_at_work = kind.starts_with("response.") && !waits;
        match kind {
            "response.output_text.delta" => self.text(&event, events)?,
            "response.refusal.delta" => {
                self.is_refused = true;
                self.text(&event, events)?;
            }
            "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" => {
                self.reasoning(&event, events)?;
            }
            "response.function_call_arguments.delta" => {
                let key = place(&event);
                self.calls.append(key, event.get("delta").text(), events);
            }
            "response.output_item.added" => self.begin(&event, events)?,
            "response.output_item.done" => self.end(&event, &frame.data, events)?,
            "response.created" | "response.queued" | "response.in_progress" => {
                self.start(event.get("response"), events);
            }
            "response.completed" | "response.incomplete" => {
                self.complete(event.get("response"), events);
            }
            "response.failed" => {
                let response = event.get("response").to_value();
                return Err(from_event(&response, self.api_key.as_ref()));
            }
            "error" => return Err(from_event(&event.to_value(), self.api_key.as_ref())),
            // What repeats, what a tool of the provider is doing, and whatever there will be.
            _ if !event.get("error").is_null() && event.get("response").is_null() => {
                return Err(from_event(&event.to_value(), self.api_key.as_ref()));
            }
            _ => {}
        }
        Ok(())
    }

    fn is_at_work(&self) -> bool {
        self.is_at_work
    }
}

impl ResponsesDecoder {
    fn start(&mut self, response: &Json<'_>, events: &mut Vec<ModelEvent>) {
        if !std::mem::replace(&mut self.is_started, true) {
            let (model, id) = (response.get("model").text(), response.get("id").text());
            events.push(ModelEvent::Start { model: model.to_owned(), id: id.to_owned() });
        }
    }

    /// A recording, or a stream that was taken up again, may begin anywhere.
    fn start_late(&mut self, events: &mut Vec<ModelEvent>) {
        self.start(&Json::Null, events);
    }

    fn item(&mut self, place: u64) -> Result<&mut Item, ModelError> {
        if self.items.len() >= ITEMS_MAX && !self.items.contains_key(&place) {
            let message = format!("the answer has more than `{ITEMS_MAX}` items at once");
            return Err(ModelError::new(ErrorClass::Protocol, message));
        }
        Ok(self.items.entry(place).or_default())
    }

    fn text(&mut self, event: &Json<'_>, events: &mut Vec<ModelEvent>) -> Result<(), ModelError> {
        self.start_late(events);
        self.item(place(event))?.has_text = true;
        self.blocks.text(event.get("delta").text(), events);
        Ok(())
    }

    fn reasoning(
        &mut self,
        event: &Json<'_>,
        events: &mut Vec<ModelEvent>,
    ) -> Result<(), ModelError> {
        self.start_late(events);
        let piece = event.get("summary_index").count();
        let item = self.item(place(event))?;
        item.has_text = true;
        let before = std::mem::replace(&mut item.summary, piece);
        // The pieces of a summary are paragraphs.
        if before.is_some() && before != piece {
            self.blocks.reasoning("\n\n", events);
        }
        self.blocks.reasoning(event.get("delta").text(), events);
        Ok(())
    }

    fn begin(&mut self, event: &Json<'_>, events: &mut Vec<ModelEvent>) -> Result<(), ModelError> {
        self.start_late(events);
        let (key, item) = (place(event), event.get("item"));
        match item.get("type").text() {
            "function_call" => self.begin_call(key, item, events)?,
            "message" | "reasoning" => self.blocks.close(events),
            _ => {}
        }
        Ok(())
    }

    fn begin_call(
        &mut self,
        key: u64,
        item: &Json<'_>,
        events: &mut Vec<ModelEvent>,
    ) -> Result<(), ModelError> {
        let entry = self.item(key)?;
        if std::mem::replace(&mut entry.has_call, true) {
            return Ok(());
        }
        self.blocks.close(events);
        self.calls.start(key, item.get("call_id").text(), item.get("name").text(), events)
    }

    /// What an item holds at its end is what counts.
    fn end(
        &mut self,
        event: &Json<'_>,
        data: &str,
        events: &mut Vec<ModelEvent>,
    ) -> Result<(), ModelError> {
        self.start_late(events);
        let (key, item) = (place(event), event.get("item"));
        match item.get("type").text() {
            "message" => self.end_message(key, item, events),
            "reasoning" => self.end_reasoning(key, item, data, events)?,
            "function_call" => {
                self.begin_call(key, item, events)?;
                // One that is not whole has no end.
                if item.get("status").text() != "incomplete" {
                    self.calls.end_with(key, item.get("arguments").text(), None, events);
                }
            }
            // The provider's own summary of what came before: it wants it back.
            "compaction" => {
                self.blocks.close(events);
                self.blocks.seal_reasoning(raw_item(data)?, events);
            }
            _ => self.provider_tool(item, data, events)?,
        }
        self.items.remove(&key);
        Ok(())
    }

    fn end_message(&mut self, key: u64, item: &Json<'_>, events: &mut Vec<ModelEvent>) {
        let has_text = self.items.get(&key).is_some_and(|item| item.has_text);
        for part in item.get("content").list().iter().filter(|_| !has_text) {
            self.is_refused |= !part.get("refusal").text().is_empty();
            self.blocks.text(part.get("text").text(), events);
            self.blocks.text(part.get("refusal").text(), events);
        }
        let phase = item.get("phase").text().to_owned();
        if !phase.is_empty() {
            let json = serde_json::to_string(&Phase { phase }).unwrap_or_default();
            let opaque = Opaque { kind: KIND.to_owned(), json: json.into() };
            let index = self.blocks.open_text(events);
            events.push(ModelEvent::TextOpaque { index, opaque });
        }
        self.blocks.close(events);
    }

    fn end_reasoning(
        &mut self,
        key: u64,
        item: &Json<'_>,
        data: &str,
        events: &mut Vec<ModelEvent>,
    ) -> Result<(), ModelError> {
        let has_text = self.items.get(&key).is_some_and(|item| item.has_text);
        let pieces = item.get("summary").list().iter().chain(item.get("content").list());
        for (at, piece) in pieces.filter(|_| !has_text).enumerate() {
            let gap = if at == 0 { "" } else { "\n\n" };
            self.blocks.reasoning(gap, events);
            self.blocks.reasoning(piece.get("text").text(), events);
        }
        // Without it the provider, which stored nothing, cannot read its own thought.
        if item.get("encrypted_content").text().is_empty() {
            self.blocks.close(events);
        } else {
            self.blocks.seal_reasoning(raw_item(data)?, events);
        }
        Ok(())
    }

    /// An item of any other type: a tool of the provider, or one that it believes to be ours.
    fn provider_tool(
        &mut self,
        item: &Json<'_>,
        data: &str,
        events: &mut Vec<ModelEvent>,
    ) -> Result<(), ModelError> {
        provider_tool::count(&mut self.provider_tools)?;
        self.blocks.close(events);
        let kind = item.get("type").text();
        let name = match item.get("name").text() {
            "" => kind.strip_suffix("_call").unwrap_or(kind),
            name => name,
        };
        let is_ours = CLIENT_CALLS.contains(&kind) || item.get("execution").text() == "client";
        let status = item.get("status").text();
        let output = if is_ours {
            "this server does not offer it".to_owned()
        } else {
            first_of(item, &["error", "output", "outputs", "results", "tools"])
                .map(provider_tool::shown)
                .unwrap_or_default()
        };
        let is_error = is_ours || !item.get("error").is_null() || status == "failed";
        let arguments = first_of(item, &["arguments", "action", "queries", "code", "input"]);
        let arguments = arguments.map(provider_tool::shown).unwrap_or_default();
        let opaque = if is_ours { None } else { Some(raw_item(data)?) };
        events.push(provider_tool::ran(name, arguments, output, is_error, opaque));
        Ok(())
    }

    fn complete(&mut self, response: &Json<'_>, events: &mut Vec<ModelEvent>) {
        self.start(response, events);
        self.blocks.close(events);
        let reason = self.reason(response);
        let was_cut = matches!(reason, Finish::Length | Finish::ContentFilter);
        self.calls.finish(was_cut, events);
        let tools = u64::try_from(self.provider_tools).unwrap_or(u64::MAX);
        events.extend(usage(response, tools).map(ModelEvent::Usage));
        let raw = match response.at(&["incomplete_details", "reason"]).text() {
            "" => response.get("status").text(),
            reason => reason,
        };
        events.push(ModelEvent::Finish { reason, raw: raw.to_owned() });
    }

    fn reason(&self, response: &Json<'_>) -> Finish {
        match response.at(&["incomplete_details", "reason"]).text() {
            "max_output_tokens" => Finish::Length,
            "content_filter" => Finish::ContentFilter,
            "" if self.is_refused => Finish::ContentFilter,
            "" if !self.calls.is_empty() => Finish::ToolCalls,
            "" => Finish::Stop,
            _ => Finish::Other,
        }
    }
}

/// Items that a client has to answer. None of these is ever offered.
const CLIENT_CALLS: &[&str] =
    &["apply_patch_call", "computer_call", "custom_tool_call", "local_shell_call", "shell_call"];

fn first_of<'a, 'b>(item: &'a Json<'b>, keys: &[&str]) -> Option<&'a Json<'b>> {
    keys.iter().map(|key| item.get(key)).find(|value| !value.is_null())
}

fn place(event: &Json<'_>) -> u64 {
    event.get("output_index").count().unwrap_or(0)
}

#[derive(Deserialize)]
struct RawEvent<'a> {
    #[serde(borrow)]
    item: &'a RawValue,
}

/// An item as it came.
fn raw_item(data: &str) -> Result<Opaque, ModelError> {
    let event = serde_json::from_str::<RawEvent<'_>>(data).map_err(|_| not_json())?;
    let json = event.item.get();
    if json.len() > OPAQUE_BYTES_MAX {
        return Err(too_long());
    }
    Ok(Opaque { kind: KIND.to_owned(), json: json.into() })
}
