//! What models are told of a long conversation: summaries in place of what came before them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{PartId, SessionId};

/// A summary that models are told in place of what came before it. The messages themselves stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CompactionPart {
    /// The part.
    pub id: PartId,
    /// What the model reads.
    pub summary: String,
    /// For how many entries of the conversation it stands: messages of people, steps of models and results
    /// of calls, an earlier summary included.
    pub replaced: u32,
    /// How many of the last steps of the same message before it models are still told as they were.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub kept_steps: u32,
    /// What the model would have been asked without it, in tokens, as far as they can be estimated.
    pub tokens_before: u64,
    /// The same with it.
    pub tokens_after: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// Has a session's conversation so far replaced by a summary, as far as models are concerned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionCompact {
    /// The session.
    pub session_id: SessionId,
}
