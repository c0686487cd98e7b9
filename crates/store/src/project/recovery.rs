//! After the server stopped: whatever was alive is not any more, and says so.

use iris_protocol::{ApiError, ErrorCode, MessageState, RunStatus, SessionId};
use serde::{Deserialize, Serialize};

use super::ending::{self, CallEnd};
use super::rows::NumberedRun;
use super::{queries, rows};
use crate::{Command, StoreError, WriteTx};

/// Interrupts every run that was working or waiting when the server stopped. Runs that were queued
/// stay queued. The first command after a database is opened.
#[derive(Debug, Clone)]
pub struct RecoverRuns {
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

/// What a recovery found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// Sessions in which a run waits to be started.
    pub sessions_with_queue: Vec<SessionId>,
    /// Number of runs that were cut off.
    pub interrupted: u32,
}

impl Command for RecoverRuns {
    type Output = Recovered;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Recovered, StoreError> {
        let sql = "SELECT * FROM runs WHERE ended_at IS NULL AND status IN ('running', 'waiting')
                   ORDER BY session_id, number";
        let mut interrupted = 0;
        for run in queries::all(tx.conn(), sql, [], rows::run)? {
            interrupt(tx, run, self.at)?;
            interrupted += 1;
        }
        let sql = "SELECT DISTINCT session_id FROM runs
                   WHERE ended_at IS NULL AND status = 'queued' ORDER BY session_id";
        let sessions_with_queue =
            queries::all(tx.conn(), sql, [], |row| rows::word(row, "session_id"))?;
        Ok(Recovered { sessions_with_queue, interrupted })
    }
}

fn interrupt(tx: &mut WriteTx<'_>, mut found: NumberedRun, at: i64) -> Result<(), StoreError> {
    let error = ApiError::new(ErrorCode::Internal, "the server stopped during the run");
    let error = error.reason("run_interrupted");
    if let Some(mut message) = queries::bare_answer(tx.conn(), &found)? {
        ending::end_calls(tx, &message, &CallEnd::of_server(), at)?;
        ending::cancel_approvals(tx, &found.run, at)?;
        message.error = Some(error.clone());
        ending::end_message(tx, &mut message, MessageState::Interrupted, at)?;
    }
    let mut session = queries::existing_session(tx.conn(), &found.run.session_id)?;
    let status = RunStatus::Interrupted;
    ending::end_run(tx, &mut session, &mut found.run, status, Some(error), at).map(drop)
}
