//! The wires of providers as a fake one speaks them: the same answer, said in each.

use iris_llm::ProviderKind;
use serde_json::{Value, json};

use crate::Reply;

/// The tokens that every answer reports: in, out.
pub const REPORTED: (u64, u64) = (3, 2);

/// A wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Anthropic's Messages.
    Messages,
    /// `OpenAI`'s Responses.
    Responses,
    /// Google's Gemini.
    Gemini,
    /// Ollama's own.
    Ollama,
    /// Chat Completions.
    Chat,
}

/// Why an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The model is done.
    Done,
    /// The limit of output tokens.
    Length,
    /// The provider refuses.
    Filter,
}

impl Dialect {
    /// Every wire.
    pub const ALL: [Self; 5] =
        [Self::Messages, Self::Responses, Self::Gemini, Self::Ollama, Self::Chat];

    /// The kind of provider that speaks it.
    pub fn kind(self) -> ProviderKind {
        match self {
            Self::Messages => ProviderKind::Anthropic,
            Self::Responses => ProviderKind::OpenAi,
            Self::Gemini => ProviderKind::Google,
            Self::Ollama => ProviderKind::Ollama,
            Self::Chat => ProviderKind::OpenAiCompatible,
        }
    }

    /// The path that a request for the model `m` has behind the address of the provider.
    pub fn path(self) -> &'static str {
        match self {
            Self::Messages => "/v1/messages",
            Self::Responses => "/responses",
            Self::Gemini => "/v1beta/models/m:streamGenerateContent?alt=sse",
            Self::Ollama => "/api/chat",
            Self::Chat => "/chat/completions",
        }
    }

    /// Whether the arguments of a call may come in pieces.
    pub fn splits_calls(self) -> bool {
        match self {
            Self::Messages | Self::Responses | Self::Chat => true,
            Self::Gemini | Self::Ollama => false,
        }
    }

    /// Whether thoughts come with something that the provider wants back.
    pub fn signs_thoughts(self) -> bool {
        match self {
            Self::Messages | Self::Responses | Self::Gemini => true,
            Self::Ollama | Self::Chat => false,
        }
    }

    /// Whether its streams are events, among which comments may stand.
    pub fn has_comments(self) -> bool {
        self != Self::Ollama
    }

    /// An answer that has just begun.
    pub fn answer(self) -> Answer {
        let answer = Answer { dialect: self, blocks: 0, has_calls: false, events: Vec::new() };
        match self {
            Self::Messages => {
                let usage = json!({"input_tokens": REPORTED.0, "output_tokens": 1});
                let message = json!({"id": "msg", "model": "m", "usage": usage});
                answer.event(&json!({"type": "message_start", "message": message}))
            }
            Self::Responses => {
                let response = json!({"id": "resp", "model": "m", "status": "in_progress"});
                answer.event(&json!({"type": "response.created", "response": response}))
            }
            Self::Gemini | Self::Ollama | Self::Chat => answer,
        }
    }

    /// An answer of one text.
    pub fn says(self, text: &str) -> Reply {
        self.answer().text(&[text]).end(Why::Done).reply()
    }

    /// An answer of one call; `arguments` are JSON.
    pub fn calls(self, tool: &str, arguments: &str) -> Reply {
        self.answer().call("call_1", tool, &[arguments]).end(Why::Done).reply()
    }

    /// A reply with status 200 that is a stream of this wire.
    pub fn stream(self) -> Reply {
        let content_type =
            if self == Self::Ollama { "application/x-ndjson" } else { "text/event-stream" };
        Reply::status(200, "").header("content-type", content_type)
    }

    /// What an error's body or event looks like.
    pub fn error(self, kind: &str, message: &str) -> Value {
        match self {
            Self::Messages => {
                json!({"type": "error", "error": {"type": kind, "message": message}})
            }
            Self::Responses | Self::Chat => {
                json!({"error": {"type": kind, "code": kind, "message": message}})
            }
            Self::Gemini => {
                json!({"error": {"status": kind, "message": message}})
            }
            Self::Ollama => json!({"error": message}),
        }
    }
}

/// An answer that is being put together.
#[derive(Debug, Clone)]
pub struct Answer {
    dialect: Dialect,
    blocks: u32,
    has_calls: bool,
    events: Vec<String>,
}

impl Answer {
    /// Adds any event.
    #[must_use]
    pub fn event(self, event: &Value) -> Self {
        let data = event.to_string();
        self.raw_event(event["type"].as_str(), &data)
    }

    /// Adds an event of a name, if it has one, whose data is as it stands here.
    #[must_use]
    pub fn raw_event(self, name: Option<&str>, data: &str) -> Self {
        let event = match (self.dialect, name) {
            (Dialect::Ollama, _) => format!("{data}\n"),
            (Dialect::Messages | Dialect::Responses, Some(name)) => {
                format!("event: {name}\ndata: {data}\n\n")
            }
            (Dialect::Messages | Dialect::Responses, None)
            | (Dialect::Gemini | Dialect::Chat, _) => format!("data: {data}\n\n"),
        };
        self.raw(&event)
    }

    /// Adds bytes that are no event of the wire.
    #[must_use]
    pub fn raw(mut self, text: &str) -> Self {
        self.events.push(text.to_owned());
        self
    }

    /// Adds a text that comes in pieces.
    #[must_use]
    pub fn text(self, pieces: &[&str]) -> Self {
        self.open_text(pieces).close_text(pieces)
    }

    /// Adds a text without its end.
    #[must_use]
    pub fn open_text(mut self, pieces: &[&str]) -> Self {
        let index = self.blocks;
        self.blocks += 1;
        self = match self.dialect {
            Dialect::Messages => self.begin(index, &json!({"type": "text", "text": ""})),
            Dialect::Responses => {
                self.added(index, &json!({"type": "message", "role": "assistant", "content": []}))
            }
            Dialect::Gemini | Dialect::Ollama | Dialect::Chat => self,
        };
        for piece in pieces {
            self = self.piece(index, piece);
        }
        self
    }

    fn piece(self, index: u32, piece: &str) -> Self {
        match self.dialect {
            Dialect::Messages => self.delta(index, &json!({"type": "text_delta", "text": piece})),
            Dialect::Responses => self.event(&json!({"type": "response.output_text.delta",
                "output_index": index, "content_index": 0, "delta": piece})),
            Dialect::Gemini => self.parts(&json!([{"text": piece}])),
            Dialect::Ollama => self.line(&json!({"role": "assistant", "content": piece})),
            Dialect::Chat => self.choice(&json!({"content": piece}), None),
        }
    }

    /// Ends the text that is open.
    #[must_use]
    pub fn close_text(self, pieces: &[&str]) -> Self {
        let index = self.blocks - 1;
        match self.dialect {
            Dialect::Messages => self.stop(index),
            Dialect::Responses => {
                let content = json!([{"type": "output_text", "text": pieces.concat()}]);
                let item = json!({"type": "message", "role": "assistant", "content": content});
                self.done(index, &item)
            }
            Dialect::Gemini | Dialect::Ollama | Dialect::Chat => self,
        }
    }

    /// Adds a thought, with what the provider wants back with it where it signs thoughts.
    #[must_use]
    pub fn thought(mut self, thought: &str, secret: &str) -> Self {
        let index = self.blocks;
        self.blocks += 1;
        match self.dialect {
            Dialect::Messages => self
                .begin(index, &json!({"type": "thinking", "thinking": "", "signature": ""}))
                .delta(index, &json!({"type": "thinking_delta", "thinking": thought}))
                .delta(index, &json!({"type": "signature_delta", "signature": secret}))
                .stop(index),
            Dialect::Responses => {
                let summary = json!([{"type": "summary_text", "text": thought}]);
                let item = json!({"type": "reasoning", "id": "rs_1", "summary": summary,
                    "encrypted_content": secret});
                self.added(index, &json!({"type": "reasoning", "id": "rs_1", "summary": []}))
                    .event(&json!({"type": "response.reasoning_summary_text.delta",
                        "output_index": index, "summary_index": 0, "delta": thought}))
                    .done(index, &item)
            }
            Dialect::Gemini => {
                self.parts(&json!([{"text": thought, "thought": true, "thoughtSignature": secret}]))
            }
            Dialect::Ollama => self.line(&json!({"content": "", "thinking": thought})),
            Dialect::Chat => self.choice(&json!({"reasoning": thought}), None),
        }
    }

    /// Adds a call whose arguments come in pieces, where the wire has such.
    #[must_use]
    pub fn call(self, id: &str, tool: &str, pieces: &[&str]) -> Self {
        let whole = pieces.concat();
        if self.dialect.splits_calls() {
            return self.open_call(id, tool, pieces).close_call(id, tool, &whole);
        }
        // What is no JSON is sent as a text, which is as wrong.
        let arguments: Value = match whole.as_str() {
            "" => json!({}),
            text => serde_json::from_str(text).unwrap_or_else(|_| whole.clone().into()),
        };
        self.whole_call(id, tool, &arguments)
    }

    fn whole_call(mut self, id: &str, tool: &str, arguments: &Value) -> Self {
        self.blocks += 1;
        self.has_calls = true;
        if self.dialect == Dialect::Gemini {
            let call = json!({"id": id, "name": tool, "args": arguments});
            return self.parts(&json!([{"functionCall": call}]));
        }
        let function = json!({"name": tool, "arguments": arguments});
        self.line(&json!({"content": "", "tool_calls": [{"id": id, "function": function}]}))
    }

    /// Begins a call, on a wire where calls come in pieces.
    #[must_use]
    pub fn open_call(mut self, id: &str, tool: &str, pieces: &[&str]) -> Self {
        let index = self.blocks;
        self.blocks += 1;
        self.has_calls = true;
        self = match self.dialect {
            Dialect::Messages => {
                self.begin(index, &json!({"type": "tool_use", "id": id, "name": tool, "input": {}}))
            }
            Dialect::Responses => self.added(
                index,
                &json!({"type": "function_call", "call_id": id, "name": tool, "arguments": ""}),
            ),
            Dialect::Gemini | Dialect::Ollama | Dialect::Chat => self
                .call_delta(&json!({"index": index, "id": id, "type": "function",
                    "function": {"name": tool, "arguments": ""}})),
        };
        for piece in pieces {
            self = match self.dialect {
                Dialect::Messages => {
                    self.delta(index, &json!({"type": "input_json_delta", "partial_json": piece}))
                }
                Dialect::Responses => self
                    .event(&json!({"type": "response.function_call_arguments.delta",
                        "output_index": index, "delta": piece})),
                Dialect::Gemini | Dialect::Ollama | Dialect::Chat => {
                    self.call_delta(&json!({"index": index, "function": {"arguments": piece}}))
                }
            };
        }
        self
    }

    fn close_call(self, id: &str, tool: &str, arguments: &str) -> Self {
        let index = self.blocks - 1;
        match self.dialect {
            Dialect::Messages => self.stop(index),
            Dialect::Responses => self.done(
                index,
                &json!({"type": "function_call", "call_id": id, "name": tool,
                    "arguments": arguments, "status": "completed"}),
            ),
            Dialect::Gemini | Dialect::Ollama | Dialect::Chat => self,
        }
    }

    /// Ends the answer.
    #[must_use]
    pub fn end(self, why: Why) -> Self {
        self.end_with(why, REPORTED.0.try_into().unwrap(), REPORTED.1.try_into().unwrap())
    }

    /// The same with other numbers of tokens, which may be wrong.
    #[must_use]
    pub fn end_with(self, why: Why, input: i64, output: i64) -> Self {
        let usage = match self.dialect {
            Dialect::Messages | Dialect::Responses => {
                json!({"input_tokens": input, "output_tokens": output})
            }
            Dialect::Gemini => json!({"promptTokenCount": input, "candidatesTokenCount": output}),
            Dialect::Ollama => json!({"prompt_eval_count": input, "eval_count": output}),
            Dialect::Chat => json!({"prompt_tokens": input, "completion_tokens": output}),
        };
        self.ended(why, Some(&usage))
    }

    /// The same without a word on tokens; Messages has said some of it at the beginning.
    #[must_use]
    pub fn end_without_usage(self, why: Why) -> Self {
        self.ended(why, None)
    }

    fn ended(self, why: Why, usage: Option<&Value>) -> Self {
        let reason = self.reason(why);
        match self.dialect {
            Dialect::Messages => {
                let delta = json!({"stop_reason": reason, "stop_sequence": null});
                let mut event = json!({"type": "message_delta", "delta": delta});
                if let Some(usage) = usage {
                    event["usage"] = usage.clone();
                }
                self.event(&event).event(&json!({"type": "message_stop"}))
            }
            Dialect::Responses => {
                let kind = if why == Why::Done { "completed" } else { "incomplete" };
                let mut response = json!({"id": "resp", "status": kind, "output": []});
                if why != Why::Done {
                    response["incomplete_details"] = json!({"reason": reason});
                }
                if let Some(usage) = usage {
                    response["usage"] = usage.clone();
                }
                let kind = format!("response.{kind}");
                self.event(&json!({"type": kind, "response": response}))
            }
            Dialect::Gemini => {
                let candidate = json!({"content": {"parts": []}, "finishReason": reason});
                let mut event = json!({"candidates": [candidate], "modelVersion": "m"});
                if let Some(usage) = usage {
                    event["usageMetadata"] = usage.clone();
                }
                self.event(&event)
            }
            Dialect::Ollama => {
                let mut line = json!({"model": "m", "message": {"content": ""},
                    "done": true, "done_reason": reason});
                for (key, count) in usage.and_then(Value::as_object).into_iter().flatten() {
                    line[key] = count.clone();
                }
                self.event(&line)
            }
            Dialect::Chat => {
                let ended = self.choice(&json!({}), Some(reason));
                let ended = match usage {
                    Some(usage) => ended.event(&json!({"choices": [], "usage": usage})),
                    None => ended,
                };
                ended.raw("data: [DONE]\n\n")
            }
        }
    }

    fn reason(&self, why: Why) -> &'static str {
        match (self.dialect, why) {
            (Dialect::Messages, Why::Done) if self.has_calls => "tool_use",
            (Dialect::Messages, Why::Done) => "end_turn",
            (Dialect::Messages, Why::Length) => "max_tokens",
            (Dialect::Messages, Why::Filter) => "refusal",
            (Dialect::Responses, Why::Length) => "max_output_tokens",
            (Dialect::Gemini, Why::Done) => "STOP",
            (Dialect::Gemini, Why::Length) => "MAX_TOKENS",
            (Dialect::Gemini, Why::Filter) => "SAFETY",
            (Dialect::Chat, Why::Done) if self.has_calls => "tool_calls",
            (Dialect::Chat | Dialect::Ollama, Why::Done) => "stop",
            (Dialect::Chat | Dialect::Ollama, Why::Length) => "length",
            // Ollama has no word for it; an answer of Responses that is done gives no reason.
            (Dialect::Chat | Dialect::Ollama | Dialect::Responses, Why::Filter)
            | (Dialect::Responses, Why::Done) => "content_filter",
        }
    }

    /// Breaks the answer off with the provider's error.
    #[must_use]
    pub fn error(self, kind: &str, message: &str) -> Self {
        let error = self.dialect.error(kind, message);
        self.event(&error)
    }

    /// All of it so far.
    pub fn body(&self) -> String {
        self.events.concat()
    }

    /// The events so far.
    pub fn events(&self) -> &[String] {
        &self.events
    }

    /// A reply that says it event by event.
    pub fn reply(&self) -> Reply {
        let stream = self.dialect.stream();
        self.events.iter().fold(stream, |reply, event| reply.bytes(event.as_bytes()))
    }

    /// A reply that says it byte by byte.
    pub fn reply_in_bytes(&self) -> Reply {
        let body = self.body().into_bytes();
        body.into_iter().fold(self.dialect.stream(), |reply, byte| reply.bytes([byte]))
    }

    fn begin(self, index: u32, block: &Value) -> Self {
        self.event(&json!({"type": "content_block_start", "index": index, "content_block": block}))
    }

    fn delta(self, index: u32, delta: &Value) -> Self {
        self.event(&json!({"type": "content_block_delta", "index": index, "delta": delta}))
    }

    fn stop(self, index: u32) -> Self {
        self.event(&json!({"type": "content_block_stop", "index": index}))
    }

    fn added(self, index: u32, item: &Value) -> Self {
        self.event(&json!({"type": "response.output_item.added", "output_index": index,
            "item": item}))
    }

    fn done(self, index: u32, item: &Value) -> Self {
        self.event(&json!({"type": "response.output_item.done", "output_index": index,
            "item": item}))
    }

    fn parts(self, parts: &Value) -> Self {
        let content = json!({"role": "model", "parts": parts});
        self.event(&json!({"candidates": [{"content": content}], "modelVersion": "m"}))
    }

    fn line(self, message: &Value) -> Self {
        self.event(&json!({"model": "m", "message": message, "done": false}))
    }

    fn choice(self, delta: &Value, finish: Option<&str>) -> Self {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
        self.event(&json!({"id": "chat", "model": "m", "choices": [choice]}))
    }

    fn call_delta(self, call: &Value) -> Self {
        self.choice(&json!({"tool_calls": [call]}), None)
    }
}
