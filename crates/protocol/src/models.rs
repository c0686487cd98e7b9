//! What is known of models: how large they are, what they can do and what they cost.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ModelRef;

/// What a million tokens cost, in billionths of a US dollar, from a size of the prompt on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PriceTier {
    /// The tier counts for prompts of more tokens than this; 0 for the first one.
    #[serde(default)]
    pub above_input_tokens: u64,
    /// A million tokens of the prompt that have nothing to do with the cache.
    pub input_nano_usd: u64,
    /// A million tokens of the answer.
    pub output_nano_usd: u64,
    /// A million tokens that were read from the provider's cache; as others of the prompt without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_read_nano_usd: Option<u64>,
    /// A million tokens that were written to the provider's cache; as others of the prompt without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_nano_usd: Option<u64>,
    /// A million tokens that were written to the provider's cache for an hour; unknown without it.
    #[serde(default, rename = "cacheWrite1hNanoUsd", skip_serializing_if = "Option::is_none")]
    pub cache_write_1h_nano_usd: Option<u64>,
    /// A million tokens of reasoning; as others of the answer without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_nano_usd: Option<u64>,
}

/// What is known of a model; what is absent is not known.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelFacts {
    /// Tokens of its window, or of a prompt where that is what its provider limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_tokens: Option<u64>,
    /// Most tokens of an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<u64>,
    /// Whether it can be shown images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<bool>,
    /// Whether it can call tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<bool>,
    /// Whether it can think before it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<bool>,
    /// Whether it decides itself how much it thinks, given an effort.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive_reasoning: Option<bool>,
    /// The efforts that it knows: `minimal`, `low`, `medium`, `high`, `xhigh`, `max`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub efforts: Option<Vec<String>>,
    /// Whether it can be made to answer by a JSON Schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub structured_output: Option<bool>,
    /// Whether it takes a temperature and the like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling: Option<bool>,
    /// The shortest beginning of a prompt that its provider caches, in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_cache_min_tokens: Option<u64>,
    /// What it costs, from small prompts to large ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prices: Option<Vec<PriceTier>>,
}

/// Where what is known of a model comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum FactsSource {
    /// The catalogue that the server came with, or the file in its place.
    Catalog,
    /// Set by an administrator of the server, for some facts or all.
    Override,
    /// What runs on a machine of one's own: it costs nothing.
    Local,
    /// Nothing is known.
    Unknown,
}

/// A model that can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListedModel {
    /// Its provider and its name there.
    #[serde(flatten)]
    pub model: ModelRef,
    /// Whether sessions that name none get it.
    pub is_default: bool,
    /// Where the facts come from.
    pub source: FactsSource,
    /// What is known of it.
    #[serde(flatten)]
    pub facts: ModelFacts,
    /// The version of the table that the prices are of; absent where they are not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_version: Option<String>,
}
