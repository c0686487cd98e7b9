//! How far users have read sessions.
//!
//! A position is the newest message that was read. Ids sort by the time of their creation, so that what was
//! said later has a larger one, wherever it stands in the conversation.

use iris_protocol::limits::UNREAD_MAX;
use iris_protocol::{MessageId, SessionId, Unread, UserId};
use rusqlite::{Connection, params};

use super::queries;
use crate::{Command, StoreError, WriteTx, column};

/// Most messages that are looked at for a count: those of the user themselves are among them.
const LOOKED_AT_MAX: u32 = 4 * UNREAD_MAX;

const POSITION: &str =
    "SELECT message_id FROM read_positions WHERE user_id = ?1 AND session_id = ?2";
const AFTER: &str = "SELECT id, created_by FROM messages
     WHERE session_id = ?1 AND id > ?2 AND state <> 'superseded' ORDER BY id LIMIT ?3";

/// Says how far a user has read a session; one who has read further stays there. Answers what they have not
/// read, and whether that is news.
///
/// Fails with `NotFound` (session, message).
#[derive(Debug, Clone)]
pub struct MarkRead {
    /// The session.
    pub session_id: SessionId,
    /// The newest message that was read.
    pub message_id: MessageId,
    /// Who read it.
    pub user_id: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for MarkRead {
    type Output = (Unread, bool);

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(Unread, bool), StoreError> {
        let conn = tx.conn();
        queries::existing_session(conn, &self.session_id)?;
        let sql = "SELECT 1 FROM messages WHERE id = ?1 AND session_id = ?2";
        let key = [self.message_id.as_str(), self.session_id.as_str()];
        if queries::first(conn, sql, key, |_| Ok(()))?.is_none() {
            return Err(StoreError::NotFound { what: "message" });
        }
        let sql = "INSERT INTO read_positions (user_id, session_id, message_id, at)
                   VALUES (?1, ?2, ?3, ?4)
                   ON CONFLICT (user_id, session_id)
                   DO UPDATE SET message_id = excluded.message_id, at = excluded.at
                   WHERE excluded.message_id > message_id";
        let (user, session) = (self.user_id.as_str(), self.session_id.as_str());
        let key = params![user, session, self.message_id.as_str(), self.at];
        let changed = conn.prepare_cached(sql)?.execute(key)? > 0;
        Ok((unread(conn, &self.session_id, &self.user_id)?, changed))
    }
}

/// Forgets how far a user has read: they are no member any more.
pub(super) fn forget(conn: &Connection, user_id: &UserId) -> Result<(), StoreError> {
    let sql = "DELETE FROM read_positions WHERE user_id = ?1";
    conn.prepare_cached(sql)?.execute([user_id.as_str()])?;
    Ok(())
}

/// What a user has not read of a session, which must exist.
pub(super) fn unread(
    conn: &Connection,
    session_id: &SessionId,
    user_id: &UserId,
) -> Result<Unread, StoreError> {
    let key = [user_id.as_str(), session_id.as_str()];
    let read: Option<MessageId> =
        queries::first(conn, POSITION, key, |row| column::word(row, "message_id"))?;
    let after = read.as_ref().map_or("", MessageId::as_str);
    let read_row = |row: &rusqlite::Row<'_>| {
        let by: Option<UserId> = column::optional_word(row, "created_by")?;
        Ok((column::word(row, "id")?, by))
    };
    let key = params![session_id.as_str(), after, LOOKED_AT_MAX];
    let found: Vec<(MessageId, Option<UserId>)> = queries::all(conn, AFTER, key, read_row)?;
    let mut others = found.into_iter().filter(|(_, by)| by.as_ref() != Some(user_id));
    let first = others.next().map(|(id, _)| id);
    let count = usize::from(first.is_some()) + others.count();
    Ok(Unread {
        session_id: session_id.clone(),
        count: u32::try_from(count).unwrap_or(u32::MAX).min(UNREAD_MAX),
        first_message_id: first,
        read_message_id: read,
    })
}
