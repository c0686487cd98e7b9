//! Turns the chunks of a Gemini stream into the common alphabet, without any I/O.

use iris_agent::{OPAQUE_BYTES_MAX, Opaque};
use iris_protocol::Usage;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::KIND;
use super::request::{CallData, SignedSpan};
use super::usage::{tokens, usage};
use crate::blocks::Blocks;
use crate::calls::{Calls, arguments_of};
use crate::failure::{from_event, not_json, too_long};
use crate::json::Json;
use crate::provider::ApiKey;
use crate::provider_tool;
use crate::wire::{Decoder, Frame};
use crate::{ErrorClass, Finish, ModelError, ModelEvent, ReportedUsage};

/// The state of one answer.
#[derive(Debug, Default)]
pub(crate) struct GoogleDecoder {
    is_started: bool,
    blocks: Blocks,
    /// The text that is received, for the sake of its signatures.
    signed: Option<Signed>,
    calls: Calls,
    calls_so_far: u64,
    /// A tool of the provider that has not answered.
    open_tool: Option<OpenTool>,
    provider_tools: usize,
    /// The last event that has counts.
    counted: String,
    /// What it says.
    used: Usage,
    is_at_work: bool,
    finish_reason: Option<String>,
    is_blocked: bool,
    /// Errors do not show it.
    api_key: Option<ApiKey>,
}

/// A block of text or of thoughts, and which of its bytes are signed.
#[derive(Debug)]
struct Signed {
    is_thought: bool,
    index: u32,
    bytes: usize,
    spans: Vec<SignedSpan>,
    signature_bytes: usize,
}

#[derive(Debug)]
struct OpenTool {
    name: String,
    arguments: String,
    part: String,
}

impl GoogleDecoder {
    /// A decoder whose errors do not show the key, should the provider repeat it.
    pub(crate) fn redacting(api_key: Option<ApiKey>) -> Self {
        Self { api_key, ..Self::default() }
    }
}

impl Decoder for GoogleDecoder {
    fn push(&mut self, frame: &Frame, events: &mut Vec<ModelEvent>) -> Result<(), ModelError> {
        let Some(chunk) = Json::read(&frame.data) else { return Err(not_json()) };
        if !chunk.get("error").is_null() || !chunk.list().is_empty() {
            return Err(from_event(&chunk.to_value(), self.api_key.as_ref()));
        }
        if !chunk.get("usageMetadata").is_null() {
            // Each has them, and the last ones count.
            frame.data.clone_into(&mut self.counted);
        }
        if !std::mem::replace(&mut self.is_started, true) {
            let (model, id) = (chunk.get("modelVersion").text(), chunk.get("responseId").text());
            events.push(ModelEvent::Start { model: model.to_owned(), id: id.to_owned() });
        }
        self.is_at_work = false;
        self.count(&chunk, events);
        let candidates = chunk.get("candidates").list();
        let reason = chunk.at(&["promptFeedback", "blockReason"]).text();
        if candidates.is_empty() && !reason.is_empty() {
            self.is_blocked = true;
            self.finish_reason = Some(reason.to_owned());
        }
        let is_first = |one: &&Json<'_>| one.get("index").count().unwrap_or(0) == 0;
        if let Some((at, candidate)) = candidates.iter().enumerate().find(|(_, one)| is_first(one))
        {
            self.candidate(candidate, &RawParts { data: &frame.data, candidate: at }, events)?;
        }
        Ok(())
    }

    fn is_at_work(&self) -> bool {
        self.is_at_work
    }

    fn is_answered(&self) -> bool {
        self.finish_reason.is_some()
    }

    fn finish(&mut self, events: &mut Vec<ModelEvent>) -> Result<(), ModelError> {
        let raw = self.finish_reason.take().ok_or_else(ModelError::truncated)?;
        self.close(events);
        let reason = self.reason(&raw)?;
        let was_cut = matches!(reason, Finish::Length | Finish::ContentFilter);
        self.end_tool(events);
        self.calls.finish(was_cut, events);
        let tools = u64::try_from(self.provider_tools).unwrap_or(u64::MAX);
        let usage = Json::read(&self.counted).and_then(|chunk| usage(&chunk, tools));
        events.extend(usage.map(ModelEvent::Usage));
        events.push(ModelEvent::Finish { reason, raw });
        Ok(())
    }
}

impl GoogleDecoder {
    /// Tells the counts where they changed.
    fn count(&mut self, chunk: &Json<'_>, events: &mut Vec<ModelEvent>) {
        let tools = u64::try_from(self.provider_tools).unwrap_or(u64::MAX);
        let used = tokens(chunk, tools).unwrap_or(self.used);
        if std::mem::replace(&mut self.used, used) != used {
            events.push(ModelEvent::UsageSoFar(ReportedUsage::from(used)));
        }
    }

    fn candidate(
        &mut self,
        candidate: &Json<'_>,
        raw: &RawParts<'_>,
        events: &mut Vec<ModelEvent>,
    ) -> Result<(), ModelError> {
        let parts = candidate.at(&["content", "parts"]).list();
        self.is_at_work = !parts.is_empty();
        for (at, part) in parts.iter().enumerate() {
            self.part(part, || raw.read(at), events)?;
        }
        let reason = candidate.get("finishReason").text();
        if !reason.is_empty() && reason != "FINISH_REASON_UNSPECIFIED" {
            self.finish_reason = Some(reason.to_owned());
        }
        Ok(())
    }

    fn part(
        &mut self,
        part: &Json<'_>,
        raw: impl Fn() -> Result<String, ModelError>,
        events: &mut Vec<ModelEvent>,
    ) -> Result<(), ModelError> {
        let signature = part.get("thoughtSignature").text();
        if let Some(text) = part.get("text").as_text() {
            return self.text(text, part.get("thought").is_true(), signature, events);
        }
        let function = part.get("functionCall");
        if !function.is_null() {
            return self.call(function, signature, events);
        }
        for (key, name) in [("executableCode", "code_execution"), ("toolCall", "")] {
            let tool = part.get(key);
            if !tool.is_null() {
                return self.begin_tool(tool, name, raw()?, events);
            }
        }
        for key in ["codeExecutionResult", "toolResponse"] {
            let answer = part.get(key);
            if !answer.is_null() {
                return self.answer_tool(answer, &raw()?, events);
            }
        }
        // Nothing but a signature.
        if !signature.is_empty() {
            return self.text("", part.get("thought").is_true(), signature, events);
        }
        Ok(())
    }

    fn text(
        &mut self,
        text: &str,
        is_thought: bool,
        signature: &str,
        events: &mut Vec<ModelEvent>,
    ) -> Result<(), ModelError> {
        if text.is_empty() && signature.is_empty() {
            return Ok(());
        }
        if self.signed.as_ref().is_none_or(|open| open.is_thought != is_thought) {
            self.close(events);
            let index = if is_thought {
                self.blocks.open_reasoning(events)
            } else {
                self.blocks.open_text(events)
            };
            let spans = Vec::new();
            self.signed = Some(Signed { is_thought, index, bytes: 0, spans, signature_bytes: 0 });
        }
        if is_thought {
            self.blocks.reasoning(text, events);
        } else {
            self.blocks.text(text, events);
        }
        match &mut self.signed {
            Some(open) => open.add(text, signature),
            None => Ok(()),
        }
    }

    /// Ends the block of text that is open.
    fn close(&mut self, events: &mut Vec<ModelEvent>) {
        if let Some(Signed { is_thought, index, spans, .. }) = self.signed.take()
            && !spans.is_empty()
        {
            let opaque = kept(serde_json::to_string(&spans).unwrap_or_default());
            events.push(if is_thought {
                ModelEvent::ReasoningOpaque { index, opaque }
            } else {
                ModelEvent::TextOpaque { index, opaque }
            });
        }
        self.blocks.close(events);
    }

    /// Calls come whole.
    fn call(
        &mut self,
        function: &Json<'_>,
        signature: &str,
        events: &mut Vec<ModelEvent>,
    ) -> Result<(), ModelError> {
        self.close(events);
        self.end_tool(events);
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let id = function.get("id").text();
        let data = CallData { id: given(id), thought_signature: given(signature) };
        let opaque = kept(serde_json::to_string(&data).unwrap_or_default());
        let arguments = arguments_of(function.get("args"));
        self.calls_so_far += 1;
        let key = self.calls_so_far;
        self.calls.start(key, id, function.get("name").text(), events)?;
        self.calls.end_with(key, &arguments, Some(opaque), events);
        Ok(())
    }

    fn begin_tool(
        &mut self,
        tool: &Json<'_>,
        name: &str,
        part: String,
        events: &mut Vec<ModelEvent>,
    ) -> Result<(), ModelError> {
        self.close(events);
        self.end_tool(events);
        provider_tool::count(&mut self.provider_tools)?;
        let name = match name {
            "" => tool.get("toolType").text().to_lowercase(),
            name => name.to_owned(),
        };
        let arguments = tool.get("code").as_text().map(str::to_owned);
        let arguments = arguments.unwrap_or_else(|| provider_tool::shown(tool.get("args")));
        self.open_tool = Some(OpenTool { name, arguments, part });
        Ok(())
    }

    fn answer_tool(
        &mut self,
        answer: &Json<'_>,
        part: &str,
        events: &mut Vec<ModelEvent>,
    ) -> Result<(), ModelError> {
        self.close(events);
        let outcome = answer.get("outcome").text();
        let is_error = !outcome.is_empty() && outcome != "OUTCOME_OK";
        let output = ["output", "response"].into_iter().map(|key| answer.get(key));
        let output = output.into_iter().find(|value| !value.is_null()).unwrap_or(&Json::Null);
        let output = provider_tool::shown(output);
        let (name, arguments, before) = if let Some(tool) = self.open_tool.take() {
            (tool.name, tool.arguments, tool.part + ",")
        } else {
            provider_tool::count(&mut self.provider_tools)?;
            let name = match answer.get("toolType").text() {
                "" => "code_execution".to_owned(),
                name => name.to_lowercase(),
            };
            (name, String::new(), String::new())
        };
        let json = format!("[{before}{part}]");
        if json.len() > OPAQUE_BYTES_MAX {
            return Err(too_long());
        }
        let opaque = Some(kept(json));
        events.push(provider_tool::ran(&name, arguments, output, is_error, opaque));
        Ok(())
    }

    /// A tool whose answer the provider did not show.
    fn end_tool(&mut self, events: &mut Vec<ModelEvent>) {
        if let Some(OpenTool { name, arguments, part }) = self.open_tool.take() {
            let opaque = Some(kept(format!("[{part}]")));
            events.push(provider_tool::ran(&name, arguments, String::new(), false, opaque));
        }
    }

    fn reason(&self, raw: &str) -> Result<Finish, ModelError> {
        Ok(match raw {
            _ if self.is_blocked => Finish::ContentFilter,
            "MAX_TOKENS" | "CONTINUATION" => Finish::Length,
            "SAFETY" | "RECITATION" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII" => {
                Finish::ContentFilter
            }
            raw if raw.starts_with("IMAGE_") => Finish::ContentFilter,
            "MALFORMED_FUNCTION_CALL" | "UNEXPECTED_TOOL_CALL" | "TOO_MANY_TOOL_CALLS" => {
                let message = format!("the model made a tool call that is none: `{raw}`");
                return Err(ModelError::new(ErrorClass::BadAnswer, message));
            }
            _ if !self.calls.is_empty() => Finish::ToolCalls,
            "STOP" => Finish::Stop,
            _ => Finish::Other,
        })
    }
}

impl Signed {
    fn add(&mut self, text: &str, signature: &str) -> Result<(), ModelError> {
        let start = self.bytes;
        self.bytes += text.len();
        if signature.is_empty() {
            return Ok(());
        }
        // The rest of a span, written as JSON.
        self.signature_bytes += signature.len() + 64;
        if self.signature_bytes > OPAQUE_BYTES_MAX {
            return Err(too_long());
        }
        let (end, signature) = (self.bytes, signature.to_owned());
        self.spans.push(SignedSpan { start, end, signature });
        Ok(())
    }
}

fn kept(json: String) -> Opaque {
    Opaque { kind: KIND.to_owned(), json: json.into() }
}

/// Where parts stand in their event, to be read as they came.
struct RawParts<'a> {
    data: &'a str,
    candidate: usize,
}

impl RawParts<'_> {
    fn read(&self, part: usize) -> Result<String, ModelError> {
        let chunk = serde_json::from_str::<RawChunk<'_>>(self.data).map_err(|_| not_json())?;
        let candidate = chunk.candidates.into_iter().nth(self.candidate);
        let raw = candidate.and_then(|one| one.content.parts.into_iter().nth(part));
        let raw = raw.ok_or_else(not_json)?.get();
        if raw.len() > OPAQUE_BYTES_MAX { Err(too_long()) } else { Ok(raw.to_owned()) }
    }
}

#[derive(Deserialize)]
struct RawChunk<'a> {
    #[serde(borrow)]
    candidates: Vec<RawCandidate<'a>>,
}

#[derive(Deserialize)]
struct RawCandidate<'a> {
    #[serde(borrow, default)]
    content: RawContent<'a>,
}

#[derive(Deserialize, Default)]
struct RawContent<'a> {
    #[serde(borrow, default)]
    parts: Vec<&'a RawValue>,
}
