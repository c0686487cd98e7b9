//! Turns the events of a Messages stream into the common alphabet, without any I/O.

use iris_agent::{OPAQUE_BYTES_MAX, Opaque};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::KIND;
use super::request::Signed;
use super::usage::UsageSoFar;
use crate::blocks::Blocks;
use crate::body::RawFields;
use crate::calls::Calls;
use crate::failure::{from_event, not_json, too_long};
use crate::json::Json;
use crate::provider::ApiKey;
use crate::provider_tool;
use crate::wire::{Decoder, Frame};
use crate::{Finish, ModelError, ModelEvent};

/// The state of one answer.
#[derive(Debug, Default)]
pub(crate) struct AnthropicDecoder {
    is_started: bool,
    blocks: Blocks,
    calls: Calls,
    open: Option<Open>,
    /// Tools of the provider that have not answered.
    uses: Vec<ServerUse>,
    provider_tools: usize,
    usage: UsageSoFar,
    stop_reason: String,
    is_at_work: bool,
    /// Errors do not show it.
    api_key: Option<ApiKey>,
}

/// The content block that is being received, where there is something to keep of it.
#[derive(Debug)]
enum Open {
    Thinking { signature: String },
    Call { key: u64 },
    Server(ServerUse),
}

/// A tool that the provider runs.
#[derive(Debug)]
struct ServerUse {
    id: String,
    name: String,
    /// The block as it began.
    block: String,
    /// What it was called with, where that was in the block already.
    early_input: String,
    input: String,
}

impl AnthropicDecoder {
    /// A decoder whose errors do not show the key, should the provider repeat it.
    pub(crate) fn redacting(api_key: Option<ApiKey>) -> Self {
        Self { api_key, ..Self::default() }
    }
}

impl Decoder for AnthropicDecoder {
    fn push(&mut self, frame: &Frame, events: &mut Vec<ModelEvent>) -> Result<(), ModelError> {
        let Some(event) = Json::read(&frame.data) else { return Err(not_json()) };
        let kind = match event.get("type").text() {
            "" => frame.name.as_str(),
            kind => kind,
        };
        // A server that leaves out the start begins with what it says.
        let says_something =
            ["content_block_start", "content_block_delta", "message_delta", "message_stop"];
        if says_something.contains(&kind) {
            self.start(&Json::Null, events);
        }
        self.is_at_work = kind.starts_with("content_block_");
        match kind {
            "content_block_delta" => self.delta(&event, events)?,
            "content_block_start" => self.begin(&event, &frame.data, events)?,
            "content_block_stop" => self.end_block(events),
            "message_start" => {
                self.start(event.get("message"), events);
                events.extend(self.usage.so_far().map(ModelEvent::UsageSoFar));
            }
            "message_delta" => {
                let reason = event.at(&["delta", "stop_reason"]).text();
                if !reason.is_empty() {
                    reason.clone_into(&mut self.stop_reason);
                }
                self.usage.merge(event.get("usage"));
                events.extend(self.usage.so_far().map(ModelEvent::UsageSoFar));
            }
            "message_stop" => self.stop(events),
            "error" => return Err(from_event(&event.to_value(), self.api_key.as_ref())),
            // `ping`, and whatever there will be.
            _ => {}
        }
        Ok(())
    }

    fn is_at_work(&self) -> bool {
        self.is_at_work
    }
}

impl AnthropicDecoder {
    fn start(&mut self, message: &Json<'_>, events: &mut Vec<ModelEvent>) {
        self.usage.merge(message.get("usage"));
        if !std::mem::replace(&mut self.is_started, true) {
            let (model, id) = (message.get("model").text(), message.get("id").text());
            events.push(ModelEvent::Start { model: model.to_owned(), id: id.to_owned() });
        }
    }

    fn begin(
        &mut self,
        event: &Json<'_>,
        data: &str,
        events: &mut Vec<ModelEvent>,
    ) -> Result<(), ModelError> {
        // A block that the last one did not end before.
        self.end_block(events);
        let block = event.get("content_block");
        let raw = || raw_block(data);
        match block.get("type").text() {
            // Texts that follow each other are one: the provider cuts them where it cites something.
            "text" => self.blocks.text(block.get("text").text(), events),
            "thinking" => {
                // Each has a signature of its own.
                self.blocks.close(events);
                self.blocks.reasoning(block.get("thinking").text(), events);
                let signature = block.get("signature").text().to_owned();
                self.open = Some(Open::Thinking { signature });
            }
            "redacted_thinking" => {
                self.blocks.close(events);
                self.blocks.seal_reasoning(kept(raw()?), events);
            }
            "tool_use" => {
                self.blocks.close(events);
                let key = event.get("index").count().unwrap_or(0);
                let (id, name) = (block.get("id").text(), block.get("name").text());
                self.calls.start(key, id, name, events)?;
                if let Some(input) = input_of(block) {
                    self.calls.append(key, &input, events);
                }
                self.open = Some(Open::Call { key });
            }
            kind if kind.ends_with("_tool_use") => {
                self.blocks.close(events);
                provider_tool::count(&mut self.provider_tools)?;
                self.open = Some(Open::Server(ServerUse {
                    id: block.get("id").text().to_owned(),
                    name: block.get("name").text().to_owned(),
                    block: raw()?,
                    early_input: input_of(block).unwrap_or_default(),
                    input: String::new(),
                }));
            }
            kind if kind.ends_with("_tool_result") => self.result(block, &raw()?, events)?,
            _ => {}
        }
        Ok(())
    }

    fn delta(&mut self, event: &Json<'_>, events: &mut Vec<ModelEvent>) -> Result<(), ModelError> {
        let delta = event.get("delta");
        match delta.get("type").text() {
            "text_delta" => self.blocks.text(delta.get("text").text(), events),
            "thinking_delta" => self.blocks.reasoning(delta.get("thinking").text(), events),
            "input_json_delta" => {
                let fragment = delta.get("partial_json").text();
                if let Some(Open::Server(server)) = &mut self.open {
                    return add(&mut server.input, fragment);
                }
                let key = event.get("index").count().unwrap_or(0);
                self.calls.append(key, fragment, events);
            }
            "signature_delta" => {
                if let Some(Open::Thinking { signature }) = &mut self.open {
                    return add(signature, delta.get("signature").text());
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end_block(&mut self, events: &mut Vec<ModelEvent>) {
        match self.open.take() {
            Some(Open::Thinking { signature }) if signature.is_empty() => self.blocks.close(events),
            Some(Open::Thinking { signature }) => {
                let json = serde_json::to_string(&Signed { signature }).unwrap_or_default();
                self.blocks.seal_reasoning(kept(json), events);
            }
            Some(Open::Call { key }) => self.calls.end(key, events),
            Some(Open::Server(server)) => self.uses.push(server),
            None => {}
        }
    }

    /// What a tool of the provider answered, for the block that called it.
    fn result(
        &mut self,
        block: &Json<'_>,
        raw: &str,
        events: &mut Vec<ModelEvent>,
    ) -> Result<(), ModelError> {
        self.blocks.close(events);
        let id = block.get("tool_use_id").text();
        let content = block.get("content");
        let is_error =
            block.get("is_error").is_true() || content.get("type").text().ends_with("_error");
        let output = provider_tool::shown(content);
        let used = self.uses.iter().position(|one| one.id == id);
        let (name, arguments, blocks) = if let Some(at) = used {
            let server = self.uses.remove(at);
            let blocks = format!("[{},{raw}]", server.whole());
            (server.name.clone(), server.arguments(), blocks)
        } else {
            provider_tool::count(&mut self.provider_tools)?;
            let kind = block.get("type").text();
            let name = kind.strip_suffix("_tool_result").unwrap_or(kind);
            (name.to_owned(), String::new(), format!("[{raw}]"))
        };
        if blocks.len() > OPAQUE_BYTES_MAX {
            return Err(too_long());
        }
        let opaque = Some(kept(blocks));
        events.push(provider_tool::ran(&name, arguments, output, is_error, opaque));
        Ok(())
    }

    fn stop(&mut self, events: &mut Vec<ModelEvent>) {
        // A block without its end is not whole: nothing is made of it but its text.
        self.open = None;
        self.blocks.close(events);
        let reason = self.reason();
        for server in self.uses.drain(..) {
            // A provider that paused wants it back to go on; without a result it is of no other use.
            let is_wanted = reason == Finish::Paused;
            let opaque = is_wanted.then(|| kept(format!("[{}]", server.whole())));
            let (arguments, name) = (server.arguments(), server.name);
            events.push(provider_tool::ran(&name, arguments, String::new(), false, opaque));
        }
        let was_cut =
            matches!(reason, Finish::Length | Finish::ContextOverflow | Finish::ContentFilter);
        self.calls.finish(was_cut, events);
        events.extend(self.usage.take().map(ModelEvent::Usage));
        events.push(ModelEvent::Finish { reason, raw: std::mem::take(&mut self.stop_reason) });
    }

    fn reason(&self) -> Finish {
        match self.stop_reason.as_str() {
            "max_tokens" => Finish::Length,
            "model_context_window_exceeded" => Finish::ContextOverflow,
            "refusal" => Finish::ContentFilter,
            "pause_turn" => Finish::Paused,
            _ if !self.calls.is_empty() => Finish::ToolCalls,
            "end_turn" | "stop_sequence" | "tool_use" => Finish::Stop,
            _ => Finish::Other,
        }
    }
}

impl ServerUse {
    fn arguments(&self) -> String {
        if self.input.is_empty() { self.early_input.clone() } else { self.input.clone() }
    }

    /// The block with all of its input.
    fn whole(&self) -> String {
        RawFields::with(&self.block, "input", &self.input)
    }
}

/// What a block was called with; none for the empty object that stands for what is to come.
fn input_of(block: &Json<'_>) -> Option<String> {
    let input = block.get("input");
    let is_placeholder = input.is_null() || *input == Json::Object(Vec::new());
    (!is_placeholder).then(|| input.to_value().to_string())
}

fn add(text: &mut String, fragment: &str) -> Result<(), ModelError> {
    if text.len() + fragment.len() > OPAQUE_BYTES_MAX {
        return Err(too_long());
    }
    text.push_str(fragment);
    Ok(())
}

fn kept(json: String) -> Opaque {
    Opaque { kind: KIND.to_owned(), json: json.into() }
}

#[derive(Deserialize)]
struct RawStart<'a> {
    #[serde(borrow)]
    content_block: &'a RawValue,
}

/// A content block as it came. Events are smaller than what may be kept.
fn raw_block(data: &str) -> Result<String, ModelError> {
    let start = serde_json::from_str::<RawStart<'_>>(data).map_err(|_| not_json())?;
    let raw = start.content_block.get();
    if raw.len() > OPAQUE_BYTES_MAX { Err(too_long()) } else { Ok(raw.to_owned()) }
}
