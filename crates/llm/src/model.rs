//! What a model is: a request goes in, a stream of events in one alphabet comes out.

use futures_util::stream::BoxStream;
use iris_agent::{Opaque, Prompt};
use iris_protocol::{FinishReason, ModelFacts, Usage};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::provider::ApiKey;
use crate::{ModelError, Pulse, Tapped};

/// Anything that answers prompts.
pub trait Model: Send + Sync {
    /// Asks once. Nothing is sent before the stream is polled; dropping it cancels the request.
    fn stream(&self, request: ModelRequest) -> ModelStream;

    /// Whether its operator says that it is shown images; none where the operator says nothing.
    fn shows_images(&self) -> Option<bool> {
        None
    }

    /// The kind of [`Opaque`] data that it wants back; none for one that keeps nothing.
    fn opaque_kind(&self) -> Option<&'static str> {
        None
    }
}

/// The answer as it arrives.
///
/// Ends after [`ModelEvent::Finish`] or after the first error. A stream that just ends without a
/// `Finish` does not exist: a cut connection is a [`ModelError`]. After an error the blocks that were
/// open stay without their end.
pub type ModelStream = BoxStream<'static, Result<ModelEvent, ModelError>>;

/// One question to a model.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ModelRequest {
    /// The model's name as its provider knows it.
    pub model: String,
    /// What it is asked.
    pub prompt: Prompt,
    /// Most tokens that it may produce; the provider's default without it.
    pub max_output_tokens: Option<u32>,
    /// Sampling temperature; the provider's default without it.
    pub temperature: Option<f64>,
    /// Share of the most likely words that are sampled from; the provider's default without it.
    pub top_p: Option<f64>,
    /// What the text of the answer has to be; free text without it.
    pub output_schema: Option<OutputSchema>,
    /// What requests with the same beginning have in common, such as the id of their session: providers
    /// find what they cached of it sooner. Sent where the wire has a field for it.
    pub cache_key: Option<String>,
    /// Whom the provider knows it by, in place of the configured key.
    pub api_key: Option<ApiKey>,
    /// What is known of the model; adapters send what it can take.
    pub facts: ModelFacts,
    /// Who hears what goes over the wire; what has no wire is not heard.
    pub tap: Option<Tapped>,
    /// Who hears that the provider lives; what has no wire is not heard.
    pub pulse: Option<Pulse>,
}

/// An answer in JSON.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputSchema {
    /// Letters, digits, `-` and `_`.
    pub name: String,
    /// JSON Schema of it.
    pub schema: Value,
    /// Whether the provider has to keep to it. Those that can make demands of the schema then, such as
    /// that all properties are required.
    pub strict: bool,
}

/// A piece of an answer. `index` counts the blocks of one answer, 0-based, in order of appearance;
/// a block's events are never interleaved with those of another block.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ModelEvent {
    /// The provider accepted the request. First, exactly once.
    Start {
        /// The model that answers, as the provider calls it; may be empty.
        model: String,
        /// The provider's id of the answer; may be empty.
        id: String,
    },
    /// A block of text begins.
    TextStart {
        /// The block.
        index: u32,
    },
    /// More text.
    TextDelta {
        /// The block.
        index: u32,
        /// Never empty.
        text: String,
    },
    /// The block of text is whole.
    TextEnd {
        /// The block.
        index: u32,
    },
    /// A block of reasoning begins.
    ReasoningStart {
        /// The block.
        index: u32,
    },
    /// More reasoning.
    ReasoningDelta {
        /// The block.
        index: u32,
        /// Never empty.
        text: String,
    },
    /// The block of reasoning is whole.
    ReasoningEnd {
        /// The block.
        index: u32,
    },
    /// What the provider wants back with a block of text. At most once for a block, and not before the
    /// block began; it may come after its end.
    TextOpaque {
        /// The block.
        index: u32,
        /// To be kept with it; the replay of recordings says only how long it is.
        #[serde(serialize_with = "bytes_only")]
        opaque: Opaque,
    },
    /// The same for a block of reasoning, of which there may be nothing to see.
    ReasoningOpaque {
        /// The block.
        index: u32,
        /// To be kept with it.
        #[serde(serialize_with = "bytes_only")]
        opaque: Opaque,
    },
    /// The model begins to call a tool.
    ToolInputStart {
        /// The provider's id of the call, unique in this stream.
        call_id: String,
        /// The tool, as the model named it.
        name: String,
    },
    /// More of a call's arguments; calls may be interleaved.
    ToolInputDelta {
        /// The call.
        call_id: String,
        /// A fragment of JSON text, never empty.
        fragment: String,
    },
    /// A call has ended; exactly one for each [`ModelEvent::ToolInputStart`].
    ToolCall {
        /// The call.
        call_id: String,
        /// The tool.
        name: String,
        /// What the model wrote, which need not be JSON; see [`parse_arguments`].
        arguments: String,
        /// Whether the model got to the end of the call. One that is not complete must not be run;
        /// the model has to be told so.
        is_complete: bool,
        /// What the provider wants back with it.
        #[serde(serialize_with = "maybe_bytes_only")]
        opaque: Option<Opaque>,
    },
    /// The provider ran a tool of its own. To be shown, never to be run.
    ProviderTool {
        /// The tool, as the provider calls it.
        name: String,
        /// What it was called with; need not be JSON.
        arguments: String,
        /// What it answered, cut for people to read; may be empty.
        output: String,
        /// Whether it failed.
        is_error: bool,
        /// What the provider wants back.
        #[serde(serialize_with = "maybe_bytes_only")]
        opaque: Option<Opaque>,
    },
    /// What the answer cost in tokens so far, for the case that it breaks off: each in place of the one
    /// before. At any place behind the start, without the provider's own counts.
    UsageSoFar(ReportedUsage),
    /// What the answer cost in tokens. At most once, directly before the end; absent when the
    /// provider did not say.
    Usage(ReportedUsage),
    /// The answer is whole. Last, exactly once.
    Finish {
        /// Why it ended.
        reason: Finish,
        /// The provider's word for it.
        raw: String,
    },
}

/// What an answer cost, as its provider counts.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportedUsage {
    /// The counts in the form that is the same for all providers; no cost.
    pub tokens: Usage,
    /// The class of service that the provider charged for, in its own word.
    pub service_tier: Option<String>,
    /// The provider's own counts, from which a cost can be computed again; absent when they are larger
    /// than any known ones.
    pub raw: Option<Value>,
}

impl From<Usage> for ReportedUsage {
    fn from(tokens: Usage) -> Self {
        Self { tokens, service_tier: None, raw: None }
    }
}

fn bytes_only<S: Serializer>(opaque: &Opaque, serializer: S) -> Result<S::Ok, S::Error> {
    json!({"kind": opaque.kind, "bytes": opaque.json.len()}).serialize(serializer)
}

#[expect(clippy::ref_option, reason = "serde calls it with a reference")]
fn maybe_bytes_only<S: Serializer>(
    opaque: &Option<Opaque>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match opaque {
        Some(opaque) => bytes_only(opaque, serializer),
        None => serializer.serialize_none(),
    }
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model was done.
    Stop,
    /// The model waits for the results of its calls.
    ToolCalls,
    /// The limit of output tokens.
    Length,
    /// The provider or the model refused.
    ContentFilter,
    /// The context window is full.
    ContextOverflow,
    /// The provider paused; send the answer back unchanged to go on.
    Paused,
    /// A word that this version does not know.
    Other,
}

impl Finish {
    /// The reason as Iris' clients are told it.
    pub fn reason(self) -> FinishReason {
        match self {
            Self::Stop | Self::Paused => FinishReason::Stop,
            Self::Other => FinishReason::Other,
            Self::ToolCalls => FinishReason::ToolCalls,
            Self::Length | Self::ContextOverflow => FinishReason::Length,
            Self::ContentFilter => FinishReason::ContentFilter,
        }
    }
}

/// Reads the arguments of a call; no text at all means no arguments, `{}`.
///
/// ```
/// assert_eq!(iris_llm::parse_arguments(""), Ok(serde_json::json!({})));
/// assert!(iris_llm::parse_arguments("null").is_err());
/// ```
///
/// # Errors
///
/// A sentence for the model when `raw` is not a JSON object.
pub fn parse_arguments(raw: &str) -> Result<Value, String> {
    if raw.trim().is_empty() {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    match serde_json::from_str(raw) {
        Ok(Value::Object(object)) => Ok(Value::Object(object)),
        Ok(_) => Err("the arguments must be a JSON object".to_owned()),
        Err(error) => Err(format!("the arguments are not valid JSON: {error}")),
    }
}
