//! A conversation as a whole.

use iris_protocol::{Message, Session, SessionId};
use rusqlite::Connection;

use super::{queries, rows};
use crate::StoreError;

const MESSAGES: &str = "SELECT * FROM messages WHERE session_id = ?1 ORDER BY run_number, place";

/// A session with all of its messages.
#[derive(Debug, Clone, PartialEq)]
pub struct Conversation {
    /// The session.
    pub session: Session,
    /// Oldest first, those that are superseded too; none when they would be too long.
    pub messages: Option<Vec<Message>>,
}

/// Reads it as long as its parts have at most `bytes_max` bytes of JSON together.
pub(super) fn conversation(
    conn: &Connection,
    id: &SessionId,
    bytes_max: usize,
) -> Result<Option<Conversation>, StoreError> {
    let Some(session) = queries::session(conn, id)? else { return Ok(None) };
    let mut statement = conn.prepare_cached(MESSAGES)?;
    let mut found = statement.query([id.as_str()])?;
    let (mut messages, mut bytes) = (Vec::new(), 0);
    while let Some(row) = found.next()? {
        let message = rows::message(row)?;
        bytes += queries::parts_bytes(conn, &message.id)?;
        // What has no parts takes space too.
        bytes += message.id.as_str().len();
        if bytes > bytes_max {
            return Ok(Some(Conversation { session, messages: None }));
        }
        messages.push(queries::with_parts(conn, message)?);
    }
    Ok(Some(Conversation { session, messages: Some(messages) }))
}
