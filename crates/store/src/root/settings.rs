//! Settings of the server that administrators choose while it runs, and beside them what the audit was last told of
//! the sandbox. What they mean is the caller's.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};
use serde_json::{Value, json};

use super::audit::{RecordAudit, append};
use crate::{Command, StoreError, WhenFull, WriteTx};

/// Under this name stands what the audit was last told of the sandbox. Nobody chooses it.
const SANDBOX: &str = "server.sandbox";

/// Chooses settings, or none again. Answers all that are chosen then.
#[derive(Debug, Clone)]
pub struct ChooseSettings {
    /// By name; `None` forgets the choice.
    pub changes: Vec<(&'static str, Option<Value>)>,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for ChooseSettings {
    type Output = BTreeMap<String, Value>;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<BTreeMap<String, Value>, StoreError> {
        for (key, value) in self.changes {
            let Some(value) = value else {
                let sql = "DELETE FROM settings WHERE key = ?1";
                tx.conn().prepare_cached(sql)?.execute([key])?;
                continue;
            };
            set(tx.conn(), key, &value, self.at)?;
        }
        chosen(tx.conn())
    }
}

/// Tells the audit what the sandbox holds, where that is another than it was told last. Answers whether it was told.
/// What it was told stays known when the record is let go.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordSandbox {
    /// What it holds now; compared as a whole.
    pub now: Value,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for RecordSandbox {
    type Output = bool;

    /// A full disk hides no change.
    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<bool, StoreError> {
        let sql = "SELECT value FROM settings WHERE key = ?1";
        let mut statement = tx.conn().prepare_cached(sql)?;
        let before: Option<String> = statement.query_row([SANDBOX], |row| row.get(0)).optional()?;
        let before: Value = before.map_or(Ok(Value::Null), |text| serde_json::from_str(&text))?;
        if before == self.now {
            return Ok(false);
        }
        set(tx.conn(), SANDBOX, &self.now, self.at)?;
        let audit = RecordAudit {
            at: self.at,
            action: SANDBOX.to_owned(),
            target: "sandbox".to_owned(),
            details: json!({ "before": before, "now": self.now }),
            ..RecordAudit::default()
        };
        append(tx.conn(), &audit)?;
        Ok(true)
    }
}

fn set(conn: &Connection, key: &str, value: &Value, at: i64) -> Result<(), StoreError> {
    let sql = "INSERT INTO settings (key, value, updated_at) VALUES (?1, ?2, ?3)
               ON CONFLICT (key) DO UPDATE
               SET value = excluded.value, updated_at = excluded.updated_at";
    conn.prepare_cached(sql)?.execute(params![key, value.to_string(), at])?;
    Ok(())
}

/// All that are chosen.
pub(super) fn chosen(conn: &Connection) -> Result<BTreeMap<String, Value>, StoreError> {
    let sql = "SELECT key, value FROM settings WHERE key <> ?1 ORDER BY key";
    let mut statement = conn.prepare_cached(sql)?;
    let rows = statement.query_map([SANDBOX], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
    let mut settings = BTreeMap::new();
    for row in rows {
        let (key, value) = row?;
        settings.insert(key, serde_json::from_str(&value)?);
    }
    Ok(settings)
}
