//! Reads token counts.

use iris_protocol::Usage;
use serde_json::Value;

/// The counts of a chunk, from wherever its server puts them; none when it has none.
pub(super) fn usage(chunk: &Value) -> Option<Usage> {
    ["/usage", "/x_groq/usage", "/choices/0/usage"]
        .into_iter()
        .filter_map(|path| chunk.pointer(path))
        .find(|usage| usage.get("prompt_tokens").or(usage.get("completion_tokens")).is_some())
        .map(counts)
}

fn counts(usage: &Value) -> Usage {
    let count = |path| usage.pointer(path).and_then(tokens);
    let input = count("/prompt_tokens").unwrap_or(0);
    let output = count("/completion_tokens").unwrap_or(0);
    let cached = count("/prompt_tokens_details/cached_tokens")
        .or_else(|| count("/prompt_cache_hit_tokens"))
        .unwrap_or(0);
    let written = count("/prompt_tokens_details/cache_write_tokens").unwrap_or(0);
    let reasoning = count("/completion_tokens_details/reasoning_tokens").unwrap_or(0);
    Usage {
        input_tokens: input,
        output_tokens: output,
        reasoning_tokens: reasoning.min(output),
        cache_read_tokens: cached.min(input),
        cache_write_tokens: written.min(input),
        cost_nano_usd: None,
    }
}

/// A count; negative ones are 0.
fn tokens(value: &Value) -> Option<u64> {
    match value.as_u64() {
        Some(count) => Some(count),
        None => value.as_f64().map(|_| 0),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
            cost_nano_usd: None,
        };
        assert_eq!(usage(&json!({"usage": whole})), Some(expected));
        assert_eq!(usage(&json!({"usage": null, "x_groq": {"usage": whole}})), Some(expected));
        assert_eq!(usage(&json!({"choices": [{"usage": whole}]})), Some(expected));

        let odd = json!({"usage": {"prompt_tokens": 6, "completion_tokens": -3,
            "prompt_cache_hit_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 7}}});
        let expected = Usage { input_tokens: 6, cache_read_tokens: 6, ..Usage::default() };
        assert_eq!(usage(&odd), Some(expected));
        for none in [json!({}), json!({"usage": null}), json!({"usage": {}})] {
            assert_eq!(usage(&none), None, "{none}");
        }
    }
}
