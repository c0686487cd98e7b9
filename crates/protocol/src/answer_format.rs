//! What an answer has to look like, where whoever asks wants more than text.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::PartId;

/// The answer is to be JSON: said with a message, and part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AnswerFormatPart {
    /// The part.
    pub id: PartId,
    /// What the provider is told that it is called.
    pub name: String,
    /// JSON Schema of an object.
    pub schema: Value,
    /// Whether the provider has to keep to it.
    pub strict: bool,
}
