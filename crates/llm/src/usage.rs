//! Token counts in the form that is the same for all providers.

use iris_protocol::Usage;
use serde_json::Value;

use crate::ReportedUsage;

/// Most bytes of a provider's own counts that are kept.
const RAW_BYTES_MAX: usize = 16 * 1024;

/// Counts with the provider's own words for them.
pub(crate) fn reported(tokens: Usage, service_tier: Option<String>, raw: Value) -> ReportedUsage {
    let raw = Some(raw).filter(|raw| raw.to_string().len() <= RAW_BYTES_MAX);
    ReportedUsage { tokens, service_tier, raw }
}
