//! The audit: what administrators of the server did. It only grows.

use iris_protocol::UserId;
use rusqlite::{Connection, Row, params};
use serde_json::Value;

use crate::column::{json, to_json, word};
use crate::{Command, StoreError, WhenFull, WriteTx};

/// Appends to the audit. Answers the details.
#[derive(Debug, Clone)]
pub struct RecordAudit {
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
    /// Who did it.
    pub user_id: UserId,
    /// The name of the operation.
    pub action: String,
    /// What it was done to, for example the path of an actor.
    pub target: String,
    /// Finds the request in the server's log.
    pub request_id: Option<String>,
    /// Further facts, never a secret.
    pub details: Value,
}

impl Command for RecordAudit {
    type Output = Value;

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Value, StoreError> {
        let sql = "INSERT INTO audit (at, user_id, action, target, request_id, details)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        tx.conn().prepare_cached(sql)?.execute(params![
            self.at,
            self.user_id.as_str(),
            self.action,
            self.target,
            self.request_id,
            to_json(&self.details)?,
        ])?;
        Ok(self.details)
    }
}

/// One thing that an administrator did.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditRecord {
    /// Its number, from 1, without gaps.
    pub id: u64,
    /// When, in milliseconds since 1970 UTC.
    pub at: i64,
    /// Who did it; they may be gone.
    pub user_id: UserId,
    /// The name of the operation.
    pub action: String,
    /// What it was done to.
    pub target: String,
    /// Finds the request in the server's log.
    pub request_id: Option<String>,
    /// Further facts.
    pub details: Value,
}

/// Reads the table from its end, as far as it is asked to.
const NEWEST: &str = "SELECT * FROM audit ORDER BY id DESC LIMIT ?1";

/// The last `limit` records, newest first.
pub(super) fn newest(conn: &Connection, limit: usize) -> Result<Vec<AuditRecord>, StoreError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = conn.prepare_cached(NEWEST)?;
    let rows = statement.query_map([limit], record)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn record(row: &Row<'_>) -> rusqlite::Result<AuditRecord> {
    Ok(AuditRecord {
        id: row.get("id")?,
        at: row.get("at")?,
        user_id: word(row, "user_id")?,
        action: row.get("action")?,
        target: row.get("target")?,
        request_id: row.get("request_id")?,
        details: json(row, "details")?,
    })
}
