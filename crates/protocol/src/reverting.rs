//! Undoing turns of a session: what was said, and what it made of the files; and undoing that.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ChangedFile, FileSource, MessageId, SessionId, SkippedFile, UserId};

/// Undoes a turn and all that follows it: the messages are superseded, and the files that its runs changed are
/// what they were before it. All of it, or nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionRevert {
    /// The session.
    pub session_id: SessionId,
    /// A message of the first turn that is undone: its question, its answer, or what joined that.
    pub message_id: MessageId,
    /// Whether to say only what would become of it; `false` when absent.
    #[serde(default)]
    pub dry_run: Option<bool>,
    /// Whether files that somebody else changed since stay as they are, and those of which the content is not
    /// kept, before or now; when absent or `false`, one such file has all of it refused.
    #[serde(default)]
    pub skip_changed: Option<bool>,
}

/// Undoes the last `session.revert`, as long as nothing was said in the session since.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionUnrevert {
    /// The session.
    pub session_id: SessionId,
    /// Whether to say only what would become of it; `false` when absent.
    #[serde(default)]
    pub dry_run: Option<bool>,
    /// Whether files that somebody changed since stay as they are, and those of which the content is not
    /// kept, before or now; when absent or `false`, one such file has all of it refused.
    #[serde(default)]
    pub skip_changed: Option<bool>,
}

/// What `session.revert` or `session.unrevert` did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevertOutcome {
    /// The session.
    pub session_id: SessionId,
    /// The message with which the first turn began that is undone.
    pub message_id: MessageId,
    /// Whether nothing happened: this is what would.
    pub dry_run: bool,
    /// How many messages are superseded by it, or are not any more.
    pub message_count: u64,
    /// How many files are different by it.
    pub file_count: u64,
    /// By path, the first 500 of them: what becomes of each.
    pub files: Vec<ChangedFile>,
    /// By path, the first 500: files that somebody else changed since, which stay as they are.
    #[serde(default)]
    pub changed_since: Vec<ChangedSince>,
    /// By path, the first 500: files that cannot be put back, which stay as they are.
    #[serde(default)]
    pub skipped: Vec<SkippedFile>,
}

/// A file that somebody else changed since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChangedSince {
    /// Relative to the project's directory, with `/`.
    pub path: String,
    /// The last version that came from elsewhere.
    pub version: u64,
    /// Where it came from.
    pub source: FileSource,
    /// The user who made it; absent where nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<UserId>,
    /// The session whose agent made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
}
