//! The end of a run that somebody wants, durable before it comes.

use iris_protocol::{RunId, SessionId, SessionStatus};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::{queries, rows, tasks};
use crate::{Command, StoreError, WhenFull, WriteTx};

/// Chooses the run that a cancel ends: the one that works or waits, or else the first that is queued;
/// none when no run is open. From then on it ends as cancelled, unless it ends by itself before that:
/// also when it was about to start, and when the server stops before it was told. So do the runs of the
/// session's sub-agents in the background.
///
/// A repeat answers the same run, so that it ends no later one.
///
/// Fails with `NotFound` when there is no such session, or it is deleted.
#[derive(Debug, Clone)]
pub struct ChooseCancelled {
    /// The session.
    pub session_id: SessionId,
}

/// The run that a cancel ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChosenRun {
    /// The run.
    pub run_id: RunId,
    /// Whether an earlier cancel chose it already.
    pub is_ending: bool,
}

impl Command for ChooseCancelled {
    type Output = Option<ChosenRun>;

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Option<ChosenRun>, StoreError> {
        let session = queries::existing_session(tx.conn(), &self.session_id)?;
        if session.status == SessionStatus::Deleted {
            return Err(StoreError::NotFound { what: "session" });
        }
        tasks::cancel_background(tx.conn(), &self.session_id)?;
        let key = [self.session_id.as_str()];
        let Some(open) = queries::first(tx.conn(), queries::OPEN_RUNS, key, rows::run)? else {
            return Ok(None);
        };
        request(tx.conn(), &open.run.id)?;
        Ok(Some(ChosenRun { run_id: open.run.id, is_ending: open.cancel_requested }))
    }
}

/// Notes that a run ends as cancelled.
pub(super) fn request(conn: &Connection, id: &RunId) -> Result<(), StoreError> {
    let sql = "UPDATE runs SET cancel_requested = 1 WHERE id = ?1";
    conn.prepare_cached(sql)?.execute([id.as_str()])?;
    Ok(())
}
