//! The audit: what was done with accounts, rights and the server, by whom and from where.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ProjectId, UserId};

/// One thing that somebody did, or was refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditRecord {
    /// Its number, from 1, without gaps.
    pub id: u64,
    /// When, in milliseconds since 1970 UTC.
    pub at: i64,
    /// Who did it; they may be gone. Absent for somebody whom nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// The id of the login or of the API key that it was done with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// The address that it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// The name of the operation.
    pub action: String,
    /// What it was done to: an id, a path, or a name.
    pub target: String,
    /// The project that it was done in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_id: Option<ProjectId>,
    /// `done`; `begun` for what a later record tells the end of; else why it was not done.
    pub result: String,
    /// Finds the request in the server's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Further facts, never a secret.
    pub details: Value,
    /// SHA-256 over this record and the hash of the one before, 64 hex digits; absent in records of
    /// servers that made none, which the first hash counts in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

/// Reads the audit, newest first. A page looks at 5,000 records at most: it may be empty and have a next
/// one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditList {
    /// Only what this user did.
    #[serde(default)]
    pub user_id: Option<UserId>,
    /// Only this operation.
    #[serde(default)]
    pub action: Option<String>,
    /// Only what was done to this.
    #[serde(default)]
    pub target: Option<String>,
    /// Only what was done in this project.
    #[serde(default)]
    pub project_id: Option<ProjectId>,
    /// Only what was done at or after this time, in milliseconds since 1970 UTC.
    #[serde(default)]
    pub from: Option<i64>,
    /// Only what was done before this time, in milliseconds since 1970 UTC.
    #[serde(default)]
    pub to: Option<i64>,
    /// At most 200; 50 when absent.
    #[serde(default)]
    pub limit: Option<u32>,
    /// `nextCursor` of the page before.
    #[serde(default)]
    pub cursor: Option<String>,
}

/// A page of the audit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditPage {
    /// Newest first.
    pub records: Vec<AuditRecord>,
    /// The number and the hash of the newest record of all, `<id>:<hash>`: kept elsewhere, it shows later that
    /// nothing was taken away at the end.
    pub head: String,
    /// For the next page.
    pub next_cursor: Option<String>,
    /// Whether there may be more.
    pub has_more: bool,
}

/// Reads the whole audit, oldest first, one record a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditExport {}
