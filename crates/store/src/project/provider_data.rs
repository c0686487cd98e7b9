//! What a provider wants back with a part of an answer. Clients are never told of it: parts on the wire
//! have no field for it, and no event names it.

use std::fmt;

use iris_protocol::{MessageId, ModelRef, PartId, RunId, SessionId};
use rusqlite::{Connection, params};

use super::{joining, pages, queries};
use crate::{Command, StoreError, WriteTx, column};

/// Most bytes of it that are read for one question to a model: what belongs to the newest answers.
pub const PROVIDER_DATA_BYTES_MAX: usize = 16 * 1024 * 1024;

const OF_HISTORY: &str = "SELECT d.part_id, d.kind, d.key_print, d.data
     FROM messages m JOIN provider_data d ON d.message_id = m.id
     WHERE m.session_id = ?1 AND m.run_number >= ?2 AND m.run_number <= ?3
       AND d.provider_id = ?4 AND d.model_id = ?5 AND m.state <> 'superseded'
     ORDER BY m.run_number DESC, m.place DESC";
const FORGET: &str = "DELETE FROM provider_data
     WHERE provider_id = ?2 AND model_id = ?3 AND key_print = ?4
       AND message_id IN (SELECT id FROM messages WHERE session_id = ?1)";

/// Who can read what a provider wants back: the model that said it, asked with the same key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataOwner {
    /// The model.
    pub model: ModelRef,
    /// A code of the key that nobody else can compute; empty without a key.
    pub key_print: String,
}

/// What a provider wants back with a part.
#[derive(Clone, PartialEq, Eq)]
pub struct ProviderData {
    /// The part.
    pub part_id: PartId,
    /// Who said it, and is sent it.
    pub owner: DataOwner,
    /// The form of the text, which is that of a kind of provider.
    pub kind: String,
    /// JSON text, kept byte for byte.
    pub json: String,
}

impl fmt::Debug for ProviderData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { part_id, owner, kind, json } = self;
        let bytes = json.len();
        f.debug_struct("ProviderData")
            .field("part_id", part_id)
            .field("owner", owner)
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
    let sql = "INSERT INTO provider_data
                   (part_id, message_id, kind, data, provider_id, model_id, key_print)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    for ProviderData { part_id, owner: DataOwner { model, key_print }, kind, json } in data {
        let (part_id, message_id) = (part_id.as_str(), message_id.as_str());
        let (provider_id, model_id) = (&model.provider_id, &model.model_id);
        let row = params![part_id, message_id, kind, json, provider_id, model_id, key_print];
        conn.prepare_cached(sql)?.execute(row)?;
    }
    Ok(())
}

/// What is kept for one model, whatever key it was asked with, with the conversation as a run sees it.
pub(super) fn of_history(
    conn: &Connection,
    session_id: &SessionId,
    run_id: &RunId,
    model: &ModelRef,
) -> Result<Vec<ProviderData>, StoreError> {
    let run = queries::existing_run(conn, session_id, run_id)?;
    let last = joining::last_of(conn, &run)?;
    let history = pages::current(conn, session_id, last)?;
    let first = history.first().map_or(last, |(number, _)| *number);
    let mut statement = conn.prepare_cached(OF_HISTORY)?;
    let (provider_id, model_id) = (&model.provider_id, &model.model_id);
    let key = params![session_id.as_str(), first, last, provider_id, model_id];
    let mut rows = statement.query(key)?;
    let mut found = Vec::new();
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let json: String = row.get("data")?;
        bytes += json.len();
        if bytes > PROVIDER_DATA_BYTES_MAX {
            break;
        }
        let owner = DataOwner { model: model.clone(), key_print: row.get("key_print")? };
        let (part_id, kind) = (column::word(row, "part_id")?, row.get("kind")?);
        found.push(ProviderData { part_id, owner, kind, json });
    }
    Ok(found)
}

/// Forgets what a provider wanted back with what it said in a session, and refused when it was sent it.
#[derive(Debug, Clone)]
pub struct ForgetProviderData {
    /// The session.
    pub session_id: SessionId,
    /// Who was sent it.
    pub owner: DataOwner,
}

impl Command for ForgetProviderData {
    type Output = ();

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        let DataOwner { model: ModelRef { provider_id, model_id }, key_print } = self.owner;
        let key = params![self.session_id.as_str(), provider_id, model_id, key_print];
        tx.conn().prepare_cached(FORGET)?.execute(key)?;
        Ok(())
    }
}
