//! Settings of the server that administrators choose while it runs. What they mean is the caller's.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};
use serde_json::Value;

use crate::{Command, StoreError, WriteTx};

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
            let sql = "INSERT INTO settings (key, value, updated_at) VALUES (?1, ?2, ?3)
                       ON CONFLICT (key) DO UPDATE
                       SET value = excluded.value, updated_at = excluded.updated_at";
            tx.conn().prepare_cached(sql)?.execute(params![key, value.to_string(), self.at])?;
        }
        chosen(tx.conn())
    }
}

/// All that are chosen.
pub(super) fn chosen(conn: &Connection) -> Result<BTreeMap<String, Value>, StoreError> {
    let mut statement = conn.prepare_cached("SELECT key, value FROM settings ORDER BY key")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
    let mut settings = BTreeMap::new();
    for row in rows {
        let (key, value) = row?;
        settings.insert(key, serde_json::from_str(&value)?);
    }
    Ok(settings)
}
