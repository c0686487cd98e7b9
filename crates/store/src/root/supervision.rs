//! The supervision log: what became of actors, as far as an operator should know of it.

use iris_protocol::{SupervisionKind, SupervisionRecord};
use rusqlite::{Connection, Row, params};

use crate::column::{json, optional_word, to_json, to_word, word};
use crate::{Command, StoreError, WhenFull, WriteTx};

/// Keeps records, then forgets those that are too many or too old. A record that is there already
/// stays as it is, so a batch may be sent again.
#[derive(Debug, Clone)]
pub struct RecordSupervision {
    /// The new records, with ids below 2^63.
    pub records: Vec<SupervisionRecord>,
    /// Most records that stay: those with the highest ids.
    pub keep_max: usize,
    /// Records from before are forgotten: milliseconds since 1970 UTC.
    pub keep_since: i64,
}

impl Command for RecordSupervision {
    type Output = ();

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        for record in &self.records {
            insert(tx.conn(), record)?;
        }
        tx.conn().prepare_cached(FORGET_OLD)?.execute([self.keep_since])?;
        let keep_max = i64::try_from(self.keep_max).unwrap_or(i64::MAX);
        tx.conn().prepare_cached(FORGET_SURPLUS)?.execute([keep_max])?;
        Ok(())
    }
}

fn insert(conn: &Connection, record: &SupervisionRecord) -> Result<(), StoreError> {
    let sql = "INSERT INTO supervision_log (id, at, kind, path, actor_kind, reason, error,
                 location, message, request_id, counts)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
               ON CONFLICT (id) DO NOTHING";
    conn.prepare_cached(sql)?.execute(params![
        record.id,
        record.at,
        record.kind.as_str(),
        record.path,
        record.actor_kind,
        record.reason.as_ref().map(to_word).transpose()?,
        record.error,
        record.location,
        record.message,
        record.request_id,
        to_json(&record.counts)?,
    ])?;
    Ok(())
}

const FORGET_OLD: &str = "DELETE FROM supervision_log WHERE at < ?1";

/// Counts along the key from its end: as many steps as there are rows to keep.
const FORGET_SURPLUS: &str = "DELETE FROM supervision_log WHERE id <=
    (SELECT id FROM supervision_log ORDER BY id DESC LIMIT 1 OFFSET ?1)";

/// Which records of the supervision log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SupervisionQuery {
    /// Only records after this id.
    pub since: Option<u64>,
    /// Only records of this kind.
    pub kind: Option<SupervisionKind>,
    /// Only records of the actor with this path and of those under it.
    pub path: Option<String>,
    /// Most records: the oldest after `since`, the newest of all without it.
    pub limit: usize,
}

impl SupervisionQuery {
    /// The statement. Every one has the same parameters, whether it uses them or not.
    pub(crate) fn sql(&self) -> String {
        let kind = if self.kind.is_some() { "AND kind = ?2" } else { "" };
        let path = match self.path {
            // A slash is followed by a zero in the order of characters.
            Some(_) => "AND (path = ?3 OR (path > ?3 || '/' AND path < ?3 || '0'))",
            None => "",
        };
        let order = if self.since.is_some() { "ASC" } else { "DESC" };
        format!(
            "SELECT * FROM supervision_log WHERE id > ?1 {kind} {path}
             ORDER BY id {order} LIMIT ?4"
        )
    }
}

/// The records that a query asks for, oldest first.
pub(super) fn records(
    conn: &Connection,
    query: &SupervisionQuery,
) -> Result<Vec<SupervisionRecord>, StoreError> {
    let since = query.since.map_or(-1, |since| i64::try_from(since).unwrap_or(i64::MAX));
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
    let kind = query.kind.map(SupervisionKind::as_str);
    let mut statement = conn.prepare_cached(&query.sql())?;
    let rows = statement.query_map(params![since, kind, query.path, limit], record)?;
    let mut records = rows.collect::<Result<Vec<_>, _>>()?;
    if query.since.is_none() {
        records.reverse();
    }
    Ok(records)
}

fn record(row: &Row<'_>) -> rusqlite::Result<SupervisionRecord> {
    Ok(SupervisionRecord {
        id: row.get("id")?,
        at: row.get("at")?,
        kind: word(row, "kind")?,
        path: row.get("path")?,
        actor_kind: row.get("actor_kind")?,
        reason: optional_word(row, "reason")?,
        error: row.get("error")?,
        location: row.get("location")?,
        message: row.get("message")?,
        request_id: row.get("request_id")?,
        counts: json(row, "counts")?,
    })
}

/// Every statement that must not read the whole table.
#[cfg(test)]
pub(crate) fn statements() -> Vec<String> {
    let mut statements = vec![FORGET_OLD.to_owned()];
    for since in [None, Some(1)] {
        for kind in [None, Some(SupervisionKind::Panicked)] {
            for path in [None, Some("node".to_owned())] {
                statements.push(SupervisionQuery { since, kind, path, limit: 1 }.sql());
            }
        }
    }
    statements
}
