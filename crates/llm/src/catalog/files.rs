//! Reads lists of models in the three forms that there are: our own, that of `LiteLLM` and that of
//! models.dev. What is odd about one model leaves that out, not the list.

use std::collections::BTreeMap;

use iris_protocol::{ModelFacts, PriceTier};
use serde_json::{Map, Value};

use super::decimal::scaled;
use super::money::{TOKENS_MAX, check_facts};
use super::{CatalogError, MODELS_MAX};

/// From US dollars for a token to billionths of one for a million tokens.
const OF_TOKEN: i32 = 15;
/// From US dollars for a million tokens to billionths of one.
const OF_MILLION: i32 = 9;
/// The sizes of prompts, in thousands of tokens, from which on `LiteLLM` knows of other prices.
const LITELLM_TIERS: &[u64] = &[100, 128, 200, 256, 272, 512];

/// By vendor and name.
pub(super) type Listed = BTreeMap<(String, String), ModelFacts>;

/// The list and the version that it says it has.
pub(super) fn read(text: &str) -> Result<(Listed, Option<String>), CatalogError> {
    let value: Value = serde_json::from_str(text).map_err(CatalogError::NotJson)?;
    let Value::Object(top) = value else { return Err(CatalogError::UnknownForm) };
    let version = top.get("version").and_then(Value::as_str).map(str::to_owned);
    let is_litellm = |entry: &Value| entry.get("litellm_provider").is_some();
    let is_models_dev = |entry: &Value| entry.get("models").is_some_and(Value::is_object);
    let listed = if top.get("models").is_some_and(Value::is_array) {
        own(&top)
    } else if top.values().any(is_models_dev) {
        models_dev(&top)
    } else if top.values().any(is_litellm) {
        litellm(&top)
    } else {
        return Err(CatalogError::UnknownForm);
    };
    if listed.is_empty() {
        return Err(CatalogError::Empty);
    }
    if listed.len() > MODELS_MAX {
        return Err(CatalogError::TooMany(listed.len()));
    }
    Ok((listed, version))
}

fn own(top: &Map<String, Value>) -> Listed {
    let mut listed = Listed::new();
    for model in top.get("models").and_then(Value::as_array).into_iter().flatten() {
        let (Some(vendor), Some(id)) = (text(model, "vendor"), text(model, "id")) else { continue };
        let tiers = model.get("prices").and_then(Value::as_array);
        let facts = ModelFacts {
            context_tokens: tokens(model.get("context")),
            output_tokens: tokens(model.get("output")),
            images: flag(model, "images"),
            tools: flag(model, "tools"),
            reasoning: flag(model, "reasoning"),
            adaptive_reasoning: flag(model, "adaptiveReasoning"),
            efforts: efforts(model.get("efforts")),
            structured_output: flag(model, "structuredOutput"),
            sampling: flag(model, "sampling"),
            prompt_cache_min_tokens: tokens(model.get("promptCacheMinTokens")),
            prices: tiers.and_then(|tiers| tiers.iter().map(own_tier).collect()),
        };
        let aliases = model.get("aliases").and_then(Value::as_array).into_iter().flatten();
        for name in aliases.filter_map(Value::as_str).chain([id]) {
            insert(&mut listed, vendor, name, facts.clone());
        }
    }
    listed
}

fn own_tier(tier: &Value) -> Option<PriceTier> {
    let price = |field: &str| amount(tier.get(field), OF_MILLION);
    Some(PriceTier {
        above_input_tokens: tokens(tier.get("aboveInputTokens")).unwrap_or(0),
        input_nano_usd: price("input")?,
        output_nano_usd: price("output")?,
        cache_read_nano_usd: price("cacheRead"),
        cache_write_nano_usd: price("cacheWrite"),
        cache_write_1h_nano_usd: price("cacheWrite1h"),
        reasoning_nano_usd: price("reasoning"),
    })
}

fn litellm(top: &Map<String, Value>) -> Listed {
    let mut listed = Listed::new();
    for (key, model) in top.iter().filter(|(key, _)| *key != "sample_spec") {
        let Some(provider) = text(model, "litellm_provider") else { continue };
        let is_text = matches!(text(model, "mode"), Some("chat" | "responses" | "completion"));
        if !is_text {
            continue;
        }
        let name = key.strip_prefix(provider).and_then(|rest| rest.strip_prefix('/'));
        let vendor = match provider {
            "gemini" => "google",
            "moonshot" => "moonshotai",
            other => other,
        };
        insert(&mut listed, vendor, name.unwrap_or(key), litellm_facts(model));
    }
    listed
}

fn litellm_facts(model: &Value) -> ModelFacts {
    ModelFacts {
        context_tokens: tokens(model.get("max_input_tokens")),
        output_tokens: tokens(model.get("max_output_tokens")),
        // What the list says nothing of may be so all the same.
        images: flag(model, "supports_vision"),
        tools: flag(model, "supports_function_calling"),
        reasoning: flag(model, "supports_reasoning"),
        adaptive_reasoning: flag(model, "supports_adaptive_thinking"),
        efforts: efforts(model.get("reasoning_effort_levels")),
        structured_output: flag(model, "supports_response_schema"),
        sampling: flag(model, "supports_sampling_params"),
        prompt_cache_min_tokens: tokens(model.get("prompt_cache_min_tokens")),
        prices: litellm_prices(model),
    }
}

fn litellm_prices(model: &Value) -> Option<Vec<PriceTier>> {
    let price = |field: &str, suffix: &str| amount(model.get(format!("{field}{suffix}")), OF_TOKEN);
    let tier = |above: u64, suffix: &str, below: Option<&PriceTier>| {
        Some(PriceTier {
            above_input_tokens: above,
            input_nano_usd: price("input_cost_per_token", suffix)?,
            output_nano_usd: price("output_cost_per_token", suffix)
                .or(below.map(|tier| tier.output_nano_usd))?,
            cache_read_nano_usd: price("cache_read_input_token_cost", suffix),
            // Some that charge nothing for it say so with a zero, others mean that it is not a thing of
            // theirs: what is written has been read.
            cache_write_nano_usd: price("cache_creation_input_token_cost", suffix)
                .filter(|price| *price > 0),
            cache_write_1h_nano_usd: price("cache_creation_input_token_cost_above_1hr", suffix),
            reasoning_nano_usd: price("output_cost_per_reasoning_token", suffix),
        })
    };
    let first = tier(0, "", None)?;
    let others = LITELLM_TIERS
        .iter()
        .filter_map(|size| tier(size * 1_000, &format!("_above_{size}k_tokens"), Some(&first)));
    Some(std::iter::once(first).chain(others).collect())
}

fn models_dev(top: &Map<String, Value>) -> Listed {
    let mut listed = Listed::new();
    for (vendor, provider) in top {
        let models = provider.get("models").and_then(Value::as_object);
        for (id, model) in models.into_iter().flatten() {
            insert(&mut listed, vendor, id, models_dev_facts(model));
        }
    }
    listed
}

fn models_dev_facts(model: &Value) -> ModelFacts {
    let limit = |field: &str| tokens(model.get("limit").and_then(|limit| limit.get(field)));
    let inputs = model.pointer("/modalities/input").and_then(Value::as_array);
    let images = inputs.map(|kinds| kinds.iter().any(|kind| kind == "image"));
    ModelFacts {
        context_tokens: limit("input").or_else(|| limit("context")),
        output_tokens: limit("output"),
        images: images.or_else(|| flag(model, "attachment")),
        tools: flag(model, "tool_call"),
        reasoning: flag(model, "reasoning"),
        structured_output: flag(model, "structured_output"),
        sampling: flag(model, "temperature"),
        prices: model.get("cost").and_then(models_dev_prices),
        ..ModelFacts::default()
    }
}

fn models_dev_prices(cost: &Value) -> Option<Vec<PriceTier>> {
    let tier = |above: u64, cost: &Value| {
        let price = |field: &str| amount(cost.get(field), OF_MILLION);
        Some(PriceTier {
            above_input_tokens: above,
            input_nano_usd: price("input")?,
            output_nano_usd: price("output")?,
            cache_read_nano_usd: price("cache_read"),
            cache_write_nano_usd: price("cache_write"),
            cache_write_1h_nano_usd: None,
            reasoning_nano_usd: price("reasoning"),
        })
    };
    let large = cost.get("context_over_200k").and_then(|cost| tier(200_000, cost));
    Some(std::iter::once(tier(0, cost)?).chain(large).collect())
}

/// A model whose facts cannot be is known by its name alone.
fn insert(listed: &mut Listed, vendor: &str, name: &str, facts: ModelFacts) {
    let facts = if check_facts(&facts).is_ok() { facts } else { ModelFacts::default() };
    listed.insert((vendor.to_owned(), name.to_owned()), facts);
}

fn text<'a>(value: &'a Value, field: &str) -> Option<&'a str> {
    value.get(field)?.as_str().filter(|text| !text.is_empty())
}

fn flag(value: &Value, field: &str) -> Option<bool> {
    value.get(field)?.as_bool()
}

/// A whole number of tokens, which lists also write as `4096.0` or as a text.
fn tokens(value: Option<&Value>) -> Option<u64> {
    amount(value, 0).filter(|tokens| (1..=TOKENS_MAX).contains(tokens))
}

fn amount(value: Option<&Value>, shift: i32) -> Option<u64> {
    match value? {
        Value::Number(number) => scaled(&number.to_string(), shift),
        Value::String(text) => scaled(text.trim(), shift),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Those that we know; what is not known of them does not matter.
fn efforts(value: Option<&Value>) -> Option<Vec<String>> {
    let names = value?.as_array()?.iter().filter_map(Value::as_str);
    let known: Vec<String> =
        names.filter(|name| super::effort(name).is_some()).map(str::to_owned).collect();
    (!known.is_empty()).then_some(known)
}
