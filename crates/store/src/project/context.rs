//! What models are told of a long conversation: from the last summary on, and without the outputs of calls
//! that were left out.

use iris_protocol::{
    Message, PartId, Run, RunId, RunStatus, SessionId, SessionState, ToolCallId, Usage, UserId,
};
use rusqlite::{Connection, params};

use super::messages::next_run_number;
use super::quotas::Quotas;
use super::sessions::{ready_session, save_in_state, session_busy};
use super::{queries, records};
use crate::{Command, StoreError, WriteTx, column};

/// The run in whose answer the last summary is that a run sees.
const LAST_COMPACTION: &str =
    "SELECT c.run_number FROM compactions c JOIN messages m ON m.id = c.message_id
     WHERE c.session_id = ?1 AND c.run_number <= ?2 AND m.state <> 'superseded'
     ORDER BY c.run_number DESC LIMIT 1";
/// Whether anything was said in a session behind its last summary: after the run that made it, or by that run
/// itself.
const HAS_NEWS: &str = "SELECT EXISTS (SELECT 1 FROM messages
             WHERE session_id = ?1 AND run_number > ?2 AND state <> 'superseded')
         OR EXISTS (SELECT 1 FROM runs WHERE session_id = ?1 AND number = ?2 AND NOT compacts)";
const LEFT_OUT_TO: &str = "SELECT left_out_to FROM sessions WHERE id = ?1";
/// A run adds itself and its answer.
const ROWS: u64 = 2;

/// Queues a run that replaces the conversation so far by a summary, as far as models are concerned.
/// Answers it.
///
/// Fails with `NotFound`, or `Conflict`: `session_archived`, `session_deleted`, `session_busy` while a run
/// is open, `nothing_to_compact` when nothing was said since the last summary; with `QuotaExceeded` when
/// the project is full.
#[derive(Debug, Clone)]
pub struct CompactSession {
    /// The session.
    pub session_id: SessionId,
    /// A new id for the run.
    pub run_id: RunId,
    /// The user who wants it.
    pub by: UserId,
    /// The most that the project may hold.
    pub quotas: Quotas,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for CompactSession {
    type Output = Run;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Run, StoreError> {
        let mut session = ready_session(tx, &self.session_id)?;
        if queries::first_open_run(tx.conn(), &self.session_id)?.is_some() {
            return Err(session_busy());
        }
        let last = last_compaction(tx.conn(), &self.session_id, u32::MAX)?;
        let key = params![self.session_id.as_str(), last];
        if !queries::one(tx.conn(), HAS_NEWS, key, |row| row.get::<_, bool>(0))? {
            let message = "nothing was said in the session since its last summary";
            return Err(StoreError::conflict("nothing_to_compact", message));
        }
        self.quotas.check_rows(tx.conn(), ROWS)?;
        let run = Run {
            id: self.run_id,
            session_id: self.session_id,
            status: RunStatus::Queued,
            started_by: self.by,
            compacts: true,
            steps: 0,
            usage: Usage::default(),
            position: None,
            started_at: None,
            ended_at: None,
            error: None,
        };
        let number = next_run_number(tx, &run.session_id)?;
        records::insert_run(tx.conn(), &run, number)?;
        save_in_state(tx, &mut session, SessionState::Queued, self.at, Some(&run.started_by))?;
        Ok(run)
    }
}

/// Records up to which call models are not told the outputs of a session's calls any more. Publishes
/// nothing: the results themselves stay.
///
/// Fails with `NotFound`.
#[derive(Debug, Clone)]
pub struct LeaveOutOutputs {
    /// The session.
    pub session_id: SessionId,
    /// The last such call.
    pub to: ToolCallId,
}

impl Command for LeaveOutOutputs {
    type Output = ();

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        let sql = "UPDATE sessions SET left_out_to = ?2 WHERE id = ?1";
        let key = [self.session_id.as_str(), self.to.as_str()];
        if tx.conn().prepare_cached(sql)?.execute(key)? == 0 {
            return Err(StoreError::NotFound { what: "session" });
        }
        Ok(())
    }
}

/// Notes that a part of an answer is a summary.
pub(super) fn note_compaction(
    conn: &Connection,
    message: &Message,
    part_id: &PartId,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO compactions (part_id, message_id, session_id, run_number)
               SELECT ?1, id, session_id, run_number FROM messages WHERE id = ?2";
    conn.prepare_cached(sql)?.execute([part_id.as_str(), message.id.as_str()])?;
    Ok(())
}

/// The number of the run in whose answer the last summary is that the run with `number` sees; 0 for none.
pub(super) fn last_compaction(
    conn: &Connection,
    session_id: &SessionId,
    number: u32,
) -> Result<u32, StoreError> {
    let key = params![session_id.as_str(), number];
    Ok(queries::first(conn, LAST_COMPACTION, key, |row| row.get(0))?.unwrap_or(0))
}

pub(super) fn left_out_to(
    conn: &Connection,
    session_id: &SessionId,
) -> Result<Option<ToolCallId>, StoreError> {
    let read = |row: &rusqlite::Row<'_>| column::optional_word(row, "left_out_to");
    Ok(queries::first(conn, LEFT_OUT_TO, [session_id.as_str()], read)?.flatten())
}
