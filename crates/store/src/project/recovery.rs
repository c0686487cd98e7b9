//! After the server stopped: whatever worked does not any more, and says so; whatever waits for a
//! person goes on waiting.

use std::collections::BTreeSet;

use iris_protocol::{
    ApiError, ErrorCode, FinishReason, MessageId, MessageState, RunId, RunStatus, SessionId,
    ToolCallId,
};
use serde::{Deserialize, Serialize};

use super::ending::{self, CallEnd};
use super::rows::NumberedRun;
use super::{queries, questions, resuming, rows, streams, tasks};
use crate::{Command, StoreError, WhenFull, WriteTx, column};

/// The runs that worked or waited when the server stopped, and those that somebody cancelled; those of
/// sub-agents before those that wait for them. Walks the index of the open ones.
const ACTIVE_RUNS: &str = "SELECT * FROM runs
     WHERE ended_at IS NULL AND (status IN ('running', 'waiting') OR cancel_requested)
     ORDER BY session_id DESC, number DESC";
/// The sessions in which a run is to be started, or to go on. Walks the same index.
const UNFINISHED: &str =
    "SELECT DISTINCT session_id FROM runs WHERE ended_at IS NULL ORDER BY session_id";

/// Puts in order what the server left.
///
/// A run that worked becomes `interrupted`, its text kept as far as it is safe. One that waits for a
/// person, or for a sub-agent that goes on, goes on waiting; its other calls that ran have an unknown
/// outcome. Queued runs stay
/// queued. Whatever it did, a run that somebody cancelled is cancelled.
#[derive(Debug, Clone)]
pub struct RecoverRuns {
    /// Whether runs that were interrupted by this are resumed at once, each at most
    /// [`super::RESUMES_MAX`] times.
    pub resume: bool,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

/// What a recovery found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// Sessions in which a run is to be started, or to go on.
    pub unfinished: Vec<SessionId>,
    /// Number of runs that were cut off, those that were resumed included.
    pub interrupted: u32,
    /// Number of runs that were resumed.
    pub resumed: u32,
    /// Number of runs that somebody had cancelled.
    pub cancelled: u32,
    /// Number of runs that wait for a person or a sub-agent.
    pub waiting: u32,
}

impl Command for RecoverRuns {
    type Output = Recovered;

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Recovered, StoreError> {
        let mut recovered = Recovered::default();
        let error = ApiError::new(ErrorCode::Internal, "the server stopped during the run");
        let cut = Cut::interrupted(error.reason("run_interrupted"), self.at);
        for found in queries::all(tx.conn(), ACTIVE_RUNS, [], rows::run)? {
            if found.cancel_requested {
                Cut::cancelled(self.at).end(tx, found)?;
                recovered.cancelled += 1;
                continue;
            }
            let tasks = tasks::open_calls(tx.conn(), &found.run)?;
            if stays_waiting(tx, &found, &tasks, &CallEnd::of_server(), self.at)? {
                recovered.waiting += 1;
                continue;
            }
            let (ended, _) = cut.end(tx, found)?;
            recovered.interrupted += 1;
            if self.resume && resuming::resume_again(tx, ended, self.at)? {
                recovered.resumed += 1;
            }
        }
        let read = |row: &rusqlite::Row<'_>| column::word(row, "session_id");
        let unfinished: Vec<SessionId> = queries::all(tx.conn(), UNFINISHED, [], read)?;
        let keepers = unfinished.into_iter().map(|id| tasks::keeper(tx.conn(), id));
        let keepers: BTreeSet<SessionId> = keepers.collect::<Result<_, _>>()?;
        recovered.unfinished = keepers.into_iter().collect();
        Ok(recovered)
    }
}

/// Fails the runs of a session whose actors lost what they knew: those that work or wait, and the
/// one named, even if it is still queued. Others that somebody cancelled are cancelled instead. Runs that
/// have ended stay as they are.
#[derive(Debug, Clone)]
pub struct FailRuns {
    /// The session.
    pub session_id: SessionId,
    /// One that fails in any case.
    pub run_id: Option<RunId>,
    /// Whether a run that waits for a person goes on waiting, unless it is the one named.
    pub keep_waiting: bool,
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
                   AND (status IN ('running', 'waiting') OR cancel_requested OR id = ?2)
                   ORDER BY number";
        let named = self.run_id.as_ref().map_or("", RunId::as_str);
        let runs = queries::all(tx.conn(), sql, [self.session_id.as_str(), named], rows::run)?;
        let (failed, cancelled) = (Cut::failed(self.error, self.at), Cut::cancelled(self.at));
        let mut answers = Vec::new();
        for found in runs {
            let is_named = self.run_id.as_ref() == Some(&found.run.id);
            let is_cancelled = found.cancel_requested && !is_named;
            let cut = if is_cancelled { &cancelled } else { &failed };
            let may_wait = self.keep_waiting && !is_named && !is_cancelled;
            if may_wait && stays_waiting(tx, &found, &[], &CallEnd::of_session(), self.at)? {
                continue;
            }
            let (_, answer_id) = cut.end(tx, found)?;
            answers.extend(answer_id);
        }
        Ok(answers)
    }
}

/// Leaves a run as it is that waits for a person or for sub-agents, by calls that are `tasks`, but for its
/// other calls that ran: nobody knows what became of them. Says whether it is such a run.
fn stays_waiting(
    tx: &mut WriteTx<'_>,
    found: &NumberedRun,
    tasks: &[ToolCallId],
    calls: &CallEnd,
    at: i64,
) -> Result<bool, StoreError> {
    let waits = !tasks.is_empty()
        || found.run.status == RunStatus::Waiting
            && queries::waits_for_people(tx.conn(), &found.run)?;
    let answer = if waits { queries::bare_answer(tx.conn(), found)? } else { None };
    let Some(message) = answer else { return Ok(false) };
    ending::end_unasked_calls(tx, &message, tasks, calls, at)?;
    questions::cancel_during_calls(tx, &found.run, at)?;
    Ok(true)
}

/// How a run ends from outside.
struct Cut {
    status: RunStatus,
    message_state: MessageState,
    finish_reason: Option<FinishReason>,
    calls: CallEnd,
    error: Option<ApiError>,
    at: i64,
}

impl Cut {
    fn cancelled(at: i64) -> Self {
        let (status, message_state) = (RunStatus::Cancelled, MessageState::Complete);
        let (finish_reason, calls) = (Some(FinishReason::Cancelled), CallEnd::of_run(status));
        Self { status, message_state, finish_reason, calls, error: None, at }
    }

    fn interrupted(error: ApiError, at: i64) -> Self {
        let (status, message_state) = (RunStatus::Interrupted, MessageState::Interrupted);
        let calls = CallEnd::of_server();
        Self { status, message_state, finish_reason: None, calls, error: Some(error), at }
    }

    fn failed(error: ApiError, at: i64) -> Self {
        let (status, message_state) = (RunStatus::Failed, MessageState::Error);
        let (finish_reason, calls) = (Some(FinishReason::Error), CallEnd::of_run(status));
        Self { status, message_state, finish_reason, calls, error: Some(error), at }
    }

    /// Ends a run; answers it and the message that it was writing.
    fn end(
        &self,
        tx: &mut WriteTx<'_>,
        mut found: NumberedRun,
    ) -> Result<(NumberedRun, Option<MessageId>), StoreError> {
        let error = self.error.clone();
        let answer = queries::bare_answer(tx.conn(), &found)?;
        let answer_id = answer.as_ref().map(|message| message.id.clone());
        if let Some(mut message) = answer {
            streams::keep_interrupted(tx, &found.run, &message, self.at)?;
            ending::end_calls(tx, &message, &self.calls, self.at)?;
            ending::cancel_waits(tx, &found.run, self.at)?;
            message.error.clone_from(&error);
            message.finish_reason = self.finish_reason.or(message.finish_reason);
            ending::end_message(tx, &mut message, self.message_state, self.at)?;
        }
        let mut session = queries::existing_session(tx.conn(), &found.run.session_id)?;
        ending::end_run(tx, &mut session, &mut found.run, self.status, error, self.at)?;
        Ok((found, answer_id))
    }
}
