//! What a provider wants back with a part of an answer. Clients are never told of it: parts on the wire
//! have no field for it, and no event names it.

use std::fmt;

use iris_protocol::{MessageId, PartId, RunId, SessionId};
use rusqlite::{Connection, params};

use super::{joining, pages, queries};
use crate::{StoreError, column};

/// Most bytes of it that are read for one question to a model: what belongs to the newest answers.
pub const PROVIDER_DATA_BYTES_MAX: usize = 16 * 1024 * 1024;

const OF_HISTORY: &str = "SELECT d.part_id, d.data
     FROM messages m JOIN provider_data d ON d.message_id = m.id
     WHERE m.session_id = ?1 AND m.run_number >= ?2 AND m.run_number <= ?3 AND d.kind = ?4
       AND m.state <> 'superseded'
     ORDER BY m.run_number DESC, m.place DESC";

/// What a provider wants back with a part.
#[derive(Clone, PartialEq, Eq)]
pub struct ProviderData {
    /// The part.
    pub part_id: PartId,
    /// The kind of provider that it is for.
    pub kind: String,
    /// JSON text, kept byte for byte.
    pub json: String,
}

impl fmt::Debug for ProviderData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { part_id, kind, json } = self;
        let bytes = json.len();
        f.debug_struct("ProviderData")
            .field("part_id", part_id)
            .field("kind", kind)
            .field("bytes", &bytes)
            .finish()
    }
}

/// Writes what belongs to parts of a message that are recorded.
pub(super) fn insert(
    conn: &Connection,
    message_id: &MessageId,
    data: &[ProviderData],
) -> Result<(), StoreError> {
    let sql = "INSERT INTO provider_data (part_id, message_id, kind, data) VALUES (?1, ?2, ?3, ?4)";
    for ProviderData { part_id, kind, json } in data {
        let row = params![part_id.as_str(), message_id.as_str(), kind, json];
        conn.prepare_cached(sql)?.execute(row)?;
    }
    Ok(())
}

/// What is kept for one kind of provider with the conversation as a run sees it.
pub(super) fn of_history(
    conn: &Connection,
    session_id: &SessionId,
    run_id: &RunId,
    kind: &str,
) -> Result<Vec<ProviderData>, StoreError> {
    let run = queries::existing_run(conn, session_id, run_id)?;
    let last = joining::last_of(conn, &run)?;
    let history = pages::current(conn, session_id, last)?;
    let first = history.first().map_or(last, |(number, _)| *number);
    let mut statement = conn.prepare_cached(OF_HISTORY)?;
    let mut rows = statement.query(params![session_id.as_str(), first, last, kind])?;
    let mut found = Vec::new();
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let json: String = row.get("data")?;
        bytes += json.len();
        if bytes > PROVIDER_DATA_BYTES_MAX {
            break;
        }
        let part_id = column::word(row, "part_id")?;
        found.push(ProviderData { part_id, kind: kind.to_owned(), json });
    }
    Ok(found)
}
