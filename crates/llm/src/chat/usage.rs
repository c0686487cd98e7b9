//! Reads token counts.

use iris_protocol::Usage;

use crate::ReportedUsage;
use crate::json::Json;
use crate::usage::reported;

/// The counts of a chunk, from wherever its server puts them; none when it has none.
pub(super) fn usage(chunk: &Json<'_>) -> Option<ReportedUsage> {
    let first = chunk.get("choices").list().first();
    let places = [
        chunk.get("usage"),
        chunk.at(&["x_groq", "usage"]),
        first.map_or(&Json::Null, |choice| choice.get("usage")),
    ];
    let is_usage = |usage: &&Json<'_>| {
        !usage.get("prompt_tokens").is_null() || !usage.get("completion_tokens").is_null()
    };
    let found = places.into_iter().find(is_usage)?;
    let tier = chunk.get("service_tier").as_text().map(str::to_owned);
    Some(reported(counts(found), tier, found.to_value()))
}

fn counts(usage: &Json<'_>) -> Usage {
    let count = |path| usage.at(path).tokens();
    let input = count(&["prompt_tokens"]).unwrap_or(0);
    let output = count(&["completion_tokens"]).unwrap_or(0);
    let cached = count(&["prompt_tokens_details", "cached_tokens"])
        .or_else(|| count(&["prompt_cache_hit_tokens"]))
        .unwrap_or(0);
    let written = count(&["prompt_tokens_details", "cache_write_tokens"]).unwrap_or(0);
    let reasoning = count(&["completion_tokens_details", "reasoning_tokens"]).unwrap_or(0);
    Usage {
        input_tokens: input,
        output_tokens: output,
        reasoning_tokens: reasoning.min(output),
        cache_read_tokens: cached.min(input),
        cache_write_tokens: written.min(input),
        ..Usage::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn usage_of(chunk: &serde_json::Value) -> Option<Usage> {
        let text = chunk.to_string();
        usage(&Json::read(&text).unwrap()).map(|usage| usage.tokens)
    }

    #[test]
    fn counts_are_read_from_every_known_place_and_clamped() {
        let whole = json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 3},
            "completion_tokens_details": {"reasoning_tokens": 2}});
        let expected = Usage {
            input_tokens: 10,
            output_tokens: 5,
            reasoning_tokens: 2,
            cache_read_tokens: 4,
            cache_write_tokens: 3,
            ..Usage::default()
        };
        assert_eq!(usage_of(&json!({"usage": whole})), Some(expected));
        assert_eq!(usage_of(&json!({"usage": null, "x_groq": {"usage": whole}})), Some(expected));
        assert_eq!(usage_of(&json!({"choices": [{"usage": whole}]})), Some(expected));

        let odd = json!({"usage": {"prompt_tokens": 6, "completion_tokens": -3,
            "prompt_cache_hit_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 7}}});
        let expected = Usage { input_tokens: 6, cache_read_tokens: 6, ..Usage::default() };
        assert_eq!(usage_of(&odd), Some(expected));
        for none in [json!({}), json!({"usage": null}), json!({"usage": {}})] {
            assert_eq!(usage_of(&none), None, "{none}");
        }
    }
}
