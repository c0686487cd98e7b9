//! Reads token counts.

use iris_protocol::Usage;

use crate::ReportedUsage;
use crate::json::Json;
use crate::usage::reported;

/// The counts of a chunk so far, with the provider's own; none when it has none.
pub(super) fn usage(chunk: &Json<'_>, server_tool_calls: u64) -> Option<ReportedUsage> {
    let tokens = tokens(chunk, server_tool_calls)?;
    let usage = chunk.get("usageMetadata");
    let tier = ["serviceTier", "trafficType"].into_iter().find_map(|key| usage.get(key).as_text());
    Some(reported(tokens, tier.map(str::to_owned), usage.to_value()))
}

/// The counts alone.
pub(super) fn tokens(chunk: &Json<'_>, server_tool_calls: u64) -> Option<Usage> {
    let usage = chunk.get("usageMetadata");
    let count = |key| usage.get(key).tokens().unwrap_or(0);
    if usage.is_null() {
        return None;
    }
    let prompt = count("promptTokenCount");
    let thoughts = count("thoughtsTokenCount");
    Some(Usage {
        // What its own tools put into the prompt is counted beside it.
        input_tokens: prompt.saturating_add(count("toolUsePromptTokenCount")),
        output_tokens: count("candidatesTokenCount").saturating_add(thoughts),
        reasoning_tokens: thoughts,
        cache_read_tokens: count("cachedContentTokenCount").min(prompt),
        server_tool_calls,
        ..Usage::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thoughts_are_part_of_the_output_and_tools_of_the_input() {
        let text = r#"{"usageMetadata":{"promptTokenCount":10,"cachedContentTokenCount":4,
            "candidatesTokenCount":5,"thoughtsTokenCount":7,"toolUsePromptTokenCount":100,
            "totalTokenCount":122,"serviceTier":"flex"}}"#;
        let found = usage(&Json::read(text).unwrap(), 1).unwrap();
        let expected = Usage {
            input_tokens: 110,
            output_tokens: 12,
            reasoning_tokens: 7,
            cache_read_tokens: 4,
            server_tool_calls: 1,
            ..Usage::default()
        };
        assert_eq!(found.tokens, expected);
        assert_eq!(found.service_tier.as_deref(), Some("flex"));
        assert_eq!(usage(&Json::read("{}").unwrap(), 0), None);
    }
}
