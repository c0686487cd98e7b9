//! Adds up token counts: what comes later overwrites what came before.

use iris_protocol::Usage;
use serde_json::{Map, Value};

use crate::ReportedUsage;
use crate::json::Json;
use crate::usage::reported;

/// The counts of one answer so far, as the provider writes them.
#[derive(Debug, Default)]
pub(super) struct UsageSoFar(Map<String, Value>);

impl UsageSoFar {
    /// Takes what an event says; a count that is null is one that did not change.
    pub(super) fn merge(&mut self, usage: &Json<'_>) {
        if let Value::Object(fields) = usage.to_value() {
            self.0.extend(fields.into_iter().filter(|(_, value)| !value.is_null()));
        }
    }

    /// What was said until now; none when that is nothing.
    pub(super) fn so_far(&self) -> Option<ReportedUsage> {
        let usage = Value::Object(self.0.clone());
        (!self.0.is_empty()).then(|| ReportedUsage {
            tokens: counts(&usage),
            service_tier: tier(&usage),
            raw: None,
        })
    }

    /// None when nothing was said.
    pub(super) fn take(&mut self) -> Option<ReportedUsage> {
        if self.0.is_empty() {
            return None;
        }
        let usage = Value::Object(std::mem::take(&mut self.0));
        Some(reported(counts(&usage), tier(&usage), usage))
    }
}

fn tier(usage: &Value) -> Option<String> {
    usage.get("service_tier").and_then(Value::as_str).map(str::to_owned)
}

fn counts(usage: &Value) -> Usage {
    let mut total = Usage::default();
    // An answer may be several: only those of the model itself and of what shortens its context are
    // charged to it. The counts beside them are of the last one.
    let is_own = |one: &&Value| {
        matches!(one.get("type").and_then(Value::as_str), Some("message" | "compaction"))
    };
    let own: Vec<&Value> = usage
        .get("iterations")
        .and_then(Value::as_array)
        .map(|all| all.iter().filter(is_own).collect())
        .unwrap_or_default();
    if own.is_empty() {
        total.add(&one(usage));
    }
    for iteration in own {
        total.add(&one(iteration));
    }
    let thinking = count(usage, "/output_tokens_details/thinking_tokens").unwrap_or(0);
    total.reasoning_tokens = thinking.min(total.output_tokens);
    let tools = usage.get("server_tool_use").and_then(Value::as_object);
    let tools = tools.into_iter().flatten().filter_map(|(_, count)| count.as_u64());
    total.server_tool_calls = tools.fold(0, u64::saturating_add);
    total
}

/// The wire's input excludes what has to do with the cache; ours has it.
fn one(usage: &Value) -> Usage {
    let fresh = count(usage, "/input_tokens").unwrap_or(0);
    let read = count(usage, "/cache_read_input_tokens").unwrap_or(0);
    let short = count(usage, "/cache_creation/ephemeral_5m_input_tokens");
    let long = count(usage, "/cache_creation/ephemeral_1h_input_tokens").unwrap_or(0);
    let written = match short {
        Some(short) => short.saturating_add(long),
        None => count(usage, "/cache_creation_input_tokens").unwrap_or(0).max(long),
    };
    Usage {
        input_tokens: fresh.saturating_add(read).saturating_add(written),
        output_tokens: count(usage, "/output_tokens").unwrap_or(0),
        cache_read_tokens: read,
        cache_write_tokens: written,
        cache_write_1h_tokens: long,
        ..Usage::default()
    }
}

fn count(usage: &Value, path: &str) -> Option<u64> {
    let value = usage.pointer(path).filter(|value| value.is_number())?;
    Some(value.as_u64().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(events: &[Value]) -> Option<Usage> {
        let mut so_far = UsageSoFar::default();
        for event in events {
            so_far.merge(&Json::read(&event.to_string()).unwrap());
        }
        so_far.take().map(|usage| usage.tokens)
    }

    #[test]
    fn later_counts_overwrite_earlier_ones_and_the_cache_is_part_of_the_input() {
        let start = json!({"input_tokens": 10, "output_tokens": 1, "cache_read_input_tokens": 5,
            "cache_creation_input_tokens": 7,
            "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 3}});
        let end = json!({"input_tokens": null, "output_tokens": 20,
            "output_tokens_details": {"thinking_tokens": 6},
            "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 1}});
        let expected = Usage {
            input_tokens: 22,
            output_tokens: 20,
            reasoning_tokens: 6,
            cache_read_tokens: 5,
            cache_write_tokens: 7,
            cache_write_1h_tokens: 3,
            server_tool_calls: 3,
            cost_nano_usd: None,
            incomplete: false,
        };
        assert_eq!(of(&[start, end]), Some(expected));
        assert_eq!(of(&[json!({}), Value::Null]), None);
    }

    #[test]
    fn iterations_of_the_model_itself_are_added_up() {
        let usage = json!({"input_tokens": 181, "output_tokens": 8, "iterations": [
            {"type": "compaction", "input_tokens": 100, "output_tokens": 83,
             "cache_read_input_tokens": 50},
            {"type": "advisor_message", "input_tokens": 9000, "output_tokens": 900},
            {"type": "message", "input_tokens": 181, "output_tokens": 8}]});
        let expected = Usage {
            input_tokens: 331,
            output_tokens: 91,
            cache_read_tokens: 50,
            ..Usage::default()
        };
        assert_eq!(of(&[usage]), Some(expected));
    }

    #[test]
    fn counts_that_are_none_are_zero() {
        let usage = json!({"input_tokens": -3, "output_tokens": 2.5, "iterations": "x",
            "output_tokens_details": {"thinking_tokens": 9}});
        assert_eq!(of(&[usage]), Some(Usage::default()));
    }
}
