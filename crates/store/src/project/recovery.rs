//! After the server stopped: whatever was alive is not any more, and says so.

use iris_protocol::{
    ApiError, ErrorCode, FinishReason, MessageId, MessageState, RunId, RunStatus, SessionId,
};
use serde::{Deserialize, Serialize};

use super::ending::{self, CallEnd};
use super::rows::NumberedRun;
use super::{queries, rows};
use crate::{Command, StoreError, WhenFull, WriteTx, column};

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

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Recovered, StoreError> {
        let sql = "SELECT * FROM runs WHERE ended_at IS NULL AND status IN ('running', 'waiting')
                   ORDER BY session_id, number";
        let mut interrupted = 0;
        for run in queries::all(tx.conn(), sql, [], rows::run)? {
            let error = ApiError::new(ErrorCode::Internal, "the server stopped during the run");
            Cut::interrupted(error.reason("run_interrupted"), self.at).end(tx, run)?;
            interrupted += 1;
        }
        let sql = "SELECT DISTINCT session_id FROM runs
                   WHERE ended_at IS NULL AND status = 'queued' ORDER BY session_id";
        let sessions_with_queue =
            queries::all(tx.conn(), sql, [], |row| column::word(row, "session_id"))?;
        Ok(Recovered { sessions_with_queue, interrupted })
    }
}

/// Fails the runs of a session whose actors lost what they knew: those that work or wait, and the
/// one named, even if it is still queued. Runs that have ended stay as they are.
#[derive(Debug, Clone)]
pub struct FailRuns {
    /// The session.
    pub session_id: SessionId,
    /// One that fails in any case.
    pub run_id: Option<RunId>,
    /// What went wrong.
    pub error: ApiError,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for FailRuns {
    /// The answers that were cut off.
    type Output = Vec<MessageId>;

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Vec<MessageId>, StoreError> {
        let sql = "SELECT * FROM runs WHERE session_id = ?1 AND ended_at IS NULL
                   AND (status IN ('running', 'waiting') OR id = ?2) ORDER BY number";
        let named = self.run_id.as_ref().map_or("", RunId::as_str);
        let runs = queries::all(tx.conn(), sql, [self.session_id.as_str(), named], rows::run)?;
        let cut = Cut::failed(self.error, self.at);
        let mut answers = Vec::new();
        for run in runs {
            answers.extend(cut.end(tx, run)?);
        }
        Ok(answers)
    }
}

/// How a run ends from outside.
struct Cut {
    status: RunStatus,
    message_state: MessageState,
    finish_reason: Option<FinishReason>,
    calls: CallEnd,
    error: ApiError,
    at: i64,
}

impl Cut {
    fn interrupted(error: ApiError, at: i64) -> Self {
        let (status, message_state) = (RunStatus::Interrupted, MessageState::Interrupted);
        let calls = CallEnd::of_server();
        Self { status, message_state, finish_reason: None, calls, error, at }
    }

    fn failed(error: ApiError, at: i64) -> Self {
        let (status, message_state) = (RunStatus::Failed, MessageState::Error);
        let (finish_reason, calls) = (Some(FinishReason::Error), CallEnd::of_run(status));
        Self { status, message_state, finish_reason, calls, error, at }
    }

    /// Ends a run; answers the message that it was writing.
    fn end(
        &self,
        tx: &mut WriteTx<'_>,
        mut found: NumberedRun,
    ) -> Result<Option<MessageId>, StoreError> {
        let error = Some(self.error.clone());
        let answer = queries::bare_answer(tx.conn(), &found)?;
        let answer_id = answer.as_ref().map(|message| message.id.clone());
        if let Some(mut message) = answer {
            ending::end_calls(tx, &message, &self.calls, self.at)?;
            ending::cancel_approvals(tx, &found.run, self.at)?;
            message.error.clone_from(&error);
            message.finish_reason = self.finish_reason.or(message.finish_reason);
            ending::end_message(tx, &mut message, self.message_state, self.at)?;
        }
        let mut session = queries::existing_session(tx.conn(), &found.run.session_id)?;
        ending::end_run(tx, &mut session, &mut found.run, self.status, error, self.at)?;
        Ok(answer_id)
    }
}
