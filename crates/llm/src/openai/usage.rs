//! Reads token counts.

use iris_protocol::Usage;

use crate::ReportedUsage;
use crate::json::Json;
use crate::usage::reported;

/// The counts of a response; none when it has none.
pub(super) fn usage(response: &Json<'_>, server_tool_calls: u64) -> Option<ReportedUsage> {
    let usage = response.get("usage");
    let count = |path: &[&str]| usage.at(path).tokens();
    let (input, output) = (count(&["input_tokens"]), count(&["output_tokens"]));
    if input.is_none() && output.is_none() {
        return None;
    }
    let (input, output) = (input.unwrap_or(0), output.unwrap_or(0));
    let details = |key| count(&["input_tokens_details", key]).unwrap_or(0).min(input);
    let reasoning = count(&["output_tokens_details", "reasoning_tokens"]).unwrap_or(0);
    let tokens = Usage {
        input_tokens: input,
        output_tokens: output,
        reasoning_tokens: reasoning.min(output),
        cache_read_tokens: details("cached_tokens"),
        cache_write_tokens: details("cache_write_tokens"),
        server_tool_calls,
        ..Usage::default()
    };
    let tier = response.get("service_tier").as_text().map(str::to_owned);
    Some(reported(tokens, tier, usage.to_value()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_and_clamped() {
        let text = r#"{"service_tier":"flex","usage":{"input_tokens":10,"output_tokens":5,
            "input_tokens_details":{"cached_tokens":4,"cache_write_tokens":30},
            "output_tokens_details":{"reasoning_tokens":-2}}}"#;
        let found = usage(&Json::read(text).unwrap(), 2).unwrap();
        let expected = Usage {
            input_tokens: 10,
            output_tokens: 5,
            cache_read_tokens: 4,
            cache_write_tokens: 10,
            server_tool_calls: 2,
            ..Usage::default()
        };
        assert_eq!(found.tokens, expected);
        assert_eq!(found.service_tier.as_deref(), Some("flex"));
        for none in ["{}", r#"{"usage":null}"#, r#"{"usage":{}}"#] {
            assert_eq!(usage(&Json::read(none).unwrap(), 0), None, "{none}");
        }
    }
}
