//! The audit: what was done with accounts, rights and the server. Records are only added, each with a
//! hash over itself and the one before, so that a change of any of them shows; the oldest are let go.

mod chain;
mod query;
mod retention;

use iris_protocol::{AuditRecord, ProjectId, UserId};
use rusqlite::{Connection, Row, params};
use serde_json::Value;

use crate::column::{json, optional_word, to_json};
use crate::{Command, StoreError, WhenFull, WriteTx};

pub(crate) use chain::verify;
pub use chain::{AuditDamage, AuditHead, AuditVerdict};
pub(crate) use query::after;
pub use query::{AUDIT_RECORDS_LOOKED_AT_MAX, AuditQuery};
pub(super) use query::{newest, page};
pub use retention::{AUDIT_RECORDS_TRIMMED_MAX, TrimAudit, Trimmed};

/// The result of what was done.
pub const DONE: &str = "done";

/// Appends to the audit. Answers the details.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordAudit {
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
    /// Who did it; none for somebody whom nobody knows.
    pub user_id: Option<UserId>,
    /// The id of the login or of the API key that it was done with.
    pub credential: Option<String>,
    /// The address of the client, as text.
    pub ip: Option<String>,
    /// The name of the operation.
    pub action: String,
    /// What it was done to, for example the path of an actor.
    pub target: String,
    /// The project that it was done in.
    pub project_id: Option<ProjectId>,
    /// [`DONE`], `begun`, or why it was not done.
    pub result: String,
    /// Finds the request in the server's log.
    pub request_id: Option<String>,
    /// Further facts, never a secret.
    pub details: Value,
}

impl Default for RecordAudit {
    fn default() -> Self {
        Self {
            at: 0,
            user_id: None,
            credential: None,
            ip: None,
            action: String::new(),
            target: String::new(),
            project_id: None,
            result: DONE.to_owned(),
            request_id: None,
            details: Value::Object(serde_json::Map::new()),
        }
    }
}

impl Command for RecordAudit {
    type Output = Value;

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Value, StoreError> {
        append(tx.conn(), &self)?;
        Ok(self.details)
    }
}

/// Adds a record behind the last one, in the transaction of what it tells of.
pub(crate) fn append(conn: &Connection, audit: &RecordAudit) -> Result<(), StoreError> {
    let last = chain::end(conn)?;
    let details = to_json(&audit.details)?;
    let row = chain::Hashed {
        id: last.id + 1,
        at: audit.at,
        user_id: audit.user_id.as_ref().map(UserId::as_str),
        credential: audit.credential.as_deref(),
        ip: audit.ip.as_deref(),
        action: &audit.action,
        target: &audit.target,
        project_id: audit.project_id.as_ref().map(ProjectId::as_str),
        result: &audit.result,
        request_id: audit.request_id.as_deref(),
        details: &details,
    };
    let hash = row.hash_after(&last.hash)?;
    let sql = "INSERT INTO audit (id, at, user_id, credential, ip, action, target, project_id,
                   result, request_id, details, hash)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
    conn.prepare_cached(sql)?.execute(params![
        row.id,
        row.at,
        row.user_id,
        row.credential,
        row.ip,
        row.action,
        row.target,
        row.project_id,
        row.result,
        row.request_id,
        row.details,
        hash,
    ])?;
    Ok(())
}

fn record(row: &Row<'_>) -> rusqlite::Result<AuditRecord> {
    let hash: Option<chain::Hash> = row.get("hash")?;
    Ok(AuditRecord {
        id: row.get("id")?,
        at: row.get("at")?,
        user_id: optional_word(row, "user_id")?,
        credential: row.get("credential")?,
        ip: row.get("ip")?,
        action: row.get("action")?,
        target: row.get("target")?,
        project_id: optional_word(row, "project_id")?,
        result: row.get("result")?,
        request_id: row.get("request_id")?,
        details: json(row, "details")?,
        hash: hash.as_ref().map(chain::hex),
    })
}
