//! What tools answered besides what models read at once.

use iris_protocol::{SessionId, ToolCallId};
use rusqlite::{Connection, params};

use super::blobs::{self, BlobHash};
use super::queries;
use super::steps::NewAttachment;
use crate::StoreError;

/// What a tool answered besides what the model read at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAttachment {
    /// What the bytes are.
    pub mime_type: String,
    /// All of them.
    pub bytes: Vec<u8>,
}

pub(super) fn insert(
    conn: &Connection,
    session_id: &SessionId,
    call_id: &ToolCallId,
    new: &NewAttachment,
) -> Result<(), StoreError> {
    let BlobHash(hash) = blobs::put_on(conn, &new.bytes)?;
    let sql = "INSERT INTO tool_outputs (tool_call_id, session_id, mime_type, blob)
               VALUES (?1, ?2, ?3, ?4)";
    let row = params![call_id.as_str(), session_id.as_str(), new.mime_type, hash];
    conn.prepare_cached(sql)?.execute(row)?;
    Ok(())
}

/// Of a call of this session.
pub(super) fn get(
    conn: &Connection,
    session_id: &SessionId,
    call_id: &ToolCallId,
) -> Result<Option<StoredAttachment>, StoreError> {
    let sql =
        "SELECT mime_type, blob FROM tool_outputs WHERE tool_call_id = ?1 AND session_id = ?2";
    let found: Option<(String, Vec<u8>)> =
        queries::first(conn, sql, [call_id.as_str(), session_id.as_str()], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let Some((mime_type, hash)) = found else { return Ok(None) };
    let bytes = blobs::get(conn, BlobHash::from_column(&hash)?)?;
    Ok(Some(StoredAttachment { mime_type, bytes }))
}
