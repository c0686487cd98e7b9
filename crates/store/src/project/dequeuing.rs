//! Taking back a message that waits.

use iris_protocol::{
    Event, Message, MessageId, RunStatus, SessionId, SessionState, SessionStatus, UserId,
};
use rusqlite::params;

use super::rows;
use super::{ending, joining, log, queries, records};
use crate::{Command, StoreError, WhenFull, WriteTx};

pub(super) const RUN_OF: &str = "SELECT * FROM runs WHERE session_id = ?1 AND number = ?2";

/// Removes a message that waits, and the run that it would have started.
///
/// Fails with `NotFound` (session, message), or `Conflict`: `message_not_queued` when it was answered, is
/// being answered, or has joined a run.
#[derive(Debug, Clone)]
pub struct DequeueMessage {
    /// The session.
    pub session_id: SessionId,
    /// The message.
    pub message_id: MessageId,
    /// The user who wants it.
    pub by: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for DequeueMessage {
    type Output = ();

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        let mut session = queries::existing_session(tx.conn(), &self.session_id)?;
        if session.status == SessionStatus::Deleted {
            return Err(StoreError::NotFound { what: "session" });
        }
        let sql = "SELECT * FROM messages WHERE id = ?1 AND session_id = ?2";
        let key = [self.message_id.as_str(), self.session_id.as_str()];
        let read = |row: &rusqlite::Row<'_>| {
            Ok((row.get("run_number")?, row.get("place")?, rows::message(row)?))
        };
        let found: Option<(u32, u32, Message)> = queries::first(tx.conn(), sql, key, read)?;
        let (number, place, message) = found.ok_or(StoreError::NotFound { what: "message" })?;
        let key = params![self.session_id.as_str(), number];
        let run = queries::first(tx.conn(), RUN_OF, key, rows::run)?;
        let is_queued = |found: &rows::NumberedRun| found.run.status == RunStatus::Queued;
        let Some(mut found) = run.filter(|found| place == 0 && is_queued(found)) else {
            let message = "the message does not wait any more";
            return Err(StoreError::conflict("message_not_queued", message));
        };

        tx.conn()
            .prepare_cached("DELETE FROM messages WHERE id = ?1")?
            .execute([message.id.as_str()])?;
        session.message_count = session.message_count.saturating_sub(1);
        let run_id = message.run_id.unwrap_or_else(|| found.run.id.clone());
        let (session_id, message_id) = (self.session_id.clone(), self.message_id);
        let event = Event::MessageRemoved { session_id, message_id, run_id };
        log::in_session(tx, &self.session_id, self.at, Some(&self.by), &event)?;
        if found.joins.is_some() {
            joining::forget_run(tx.conn(), &found.run.id)?;
            session.updated_at = self.at;
            return records::save_session(tx.conn(), &session);
        }
        debug_assert!(session.state != SessionState::Idle, "a run is open");
        let status = RunStatus::Cancelled;
        ending::end_run(tx, &mut session, &mut found.run, status, None, self.at).map(drop)
    }
}
