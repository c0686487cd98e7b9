//! Letting a run go on that was cut off, and what is needed to do so.

use iris_protocol::{
    Approval, Event, Message, MessageState, Question, Run, RunId, RunStatus, SessionId,
    SessionState, ToolCallId, UserId,
};
use rusqlite::Connection;

use super::rows::{self, NumberedRun};
use super::sessions::{ready_session, save_in_state, session_busy};
use super::{log, queries, questions, records, tasks};
use crate::{Command, StoreError, WriteTx};

/// How often recoveries resume one run by themselves. A run that takes the server with it each time
/// must not do so for ever.
pub const RESUMES_MAX: u32 = 3;

/// The last run that anything is left of in the conversation: the message of one that has none was taken
/// back.
pub(super) const LAST_RUN: &str = "SELECT r.* FROM runs r
     WHERE r.session_id = ?1 AND EXISTS (SELECT 1 FROM messages m
         WHERE m.session_id = r.session_id AND m.run_number = r.number)
     ORDER BY r.number DESC LIMIT 1";

/// Lets an interrupted run go on with the same answer. Answers the run as it is then: it works, and
/// whoever runs it continues from the last step that is recorded.
///
/// Fails with `NotFound`, or `Conflict`: `run_not_interrupted`, `not_last_run` when a message came
/// after it, `message_superseded` when its answer is, `session_busy` while a run is open, `session_archived`, `session_deleted`.
#[derive(Debug, Clone)]
pub struct ResumeRun {
    /// The session.
    pub session_id: SessionId,
    /// The run.
    pub run_id: RunId,
    /// The user who wants it. The run goes on with the rights of the user who started it (INV-12).
    pub by: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for ResumeRun {
    type Output = Run;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Run, StoreError> {
        ready_session(tx, &self.session_id)?;
        let found = queries::existing_run(tx.conn(), &self.session_id, &self.run_id)?;
        if found.run.status != RunStatus::Interrupted {
            let message = "only a run that was interrupted can be resumed";
            return Err(StoreError::conflict("run_not_interrupted", message));
        }
        if queries::first_open_run(tx.conn(), &self.session_id)?.is_some() {
            return Err(session_busy());
        }
        let last = queries::first(tx.conn(), LAST_RUN, [self.session_id.as_str()], rows::run)?;
        if last.is_none_or(|last| last.number != found.number) {
            let message = "a message came after the run: send a new one";
            return Err(StoreError::conflict("not_last_run", message));
        }
        let answer = queries::bare_answer(tx.conn(), &found)?;
        if answer.is_some_and(|answer| answer.state == MessageState::Superseded) {
            let message = "the answer of the run is superseded";
            return Err(StoreError::conflict("message_superseded", message));
        }
        resume(tx, found, Some(&self.by), self.at)
    }
}

/// Resumes an interrupted run unless it was resumed too often. Says whether it was.
pub(super) fn resume_again(
    tx: &mut WriteTx<'_>,
    found: NumberedRun,
    at: i64,
) -> Result<bool, StoreError> {
    let sql = "UPDATE runs SET resumed = resumed + 1 WHERE id = ?1 AND resumed < ?2";
    let key = rusqlite::params![found.run.id.as_str(), RESUMES_MAX];
    if tx.conn().prepare_cached(sql)?.execute(key)? == 0 {
        return Ok(false);
    }
    resume(tx, found, None, at)?;
    Ok(true)
}

fn resume(
    tx: &mut WriteTx<'_>,
    found: NumberedRun,
    by: Option<&UserId>,
    at: i64,
) -> Result<Run, StoreError> {
    let answer = queries::bare_answer(tx.conn(), &found)?;
    let mut message = answer.ok_or_else(|| StoreError::internal("a run without its answer"))?;
    let mut run = found.run;
    run.status = RunStatus::Running;
    run.ended_at = None;
    run.error = None;
    records::save_run(tx.conn(), &run)?;
    message.state = MessageState::Streaming;
    message.completed_at = None;
    message.finish_reason = None;
    message.error = None;
    records::save_message(tx.conn(), &message)?;

    let session_id = run.session_id.clone();
    log::in_session(tx, &session_id, at, by, &Event::RunStarted { run: run.clone() })?;
    let event = Event::MessageUpdated { session_id: session_id.clone(), message };
    log::in_session(tx, &session_id, at, by, &event)?;
    let mut session = queries::existing_session(tx.conn(), &session_id)?;
    save_in_state(tx, &mut session, SessionState::Running, at, by)?;
    tasks::goes_on(tx, &run, at)?;
    Ok(run)
}

/// Lets a run go on when nothing of it waits for people any more.
pub(super) fn go_on_when_settled(
    tx: &mut WriteTx<'_>,
    session_id: &SessionId,
    run_id: &RunId,
    at: i64,
    by: Option<&UserId>,
) -> Result<(), StoreError> {
    let mut run = queries::existing_run(tx.conn(), session_id, run_id)?.run;
    if run.status != RunStatus::Waiting || queries::waits_for_people(tx.conn(), &run)? {
        return Ok(());
    }
    run.status = RunStatus::Running;
    records::save_run(tx.conn(), &run)?;
    let mut session = queries::existing_session(tx.conn(), session_id)?;
    save_in_state(tx, &mut session, SessionState::Running, at, by)
}

/// The first run of a session that has not ended, with all that is needed to let it go on.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenRun {
    /// Queued, working or waiting.
    pub run: Run,
    /// Its answer with the parts that are recorded; none before it started.
    pub answer: Option<Message>,
    /// Its approvals that nobody decided.
    pub approvals: Vec<Approval>,
    /// What it asked and nobody answered.
    pub questions: Vec<Question>,
    /// Its calls that wait for sub-agents which work: they are to run again.
    pub tasks: Vec<ToolCallId>,
}

impl OpenRun {
    /// One that was just queued: there is nothing of it yet.
    pub fn queued(run: Run) -> Self {
        let (approvals, questions, tasks) = (Vec::new(), Vec::new(), Vec::new());
        Self { run, answer: None, approvals, questions, tasks }
    }
}

pub(super) fn first_open_run(
    conn: &Connection,
    session_id: &SessionId,
) -> Result<Option<OpenRun>, StoreError> {
    let found = queries::first(conn, queries::OPEN_RUNS, [session_id.as_str()], rows::run)?;
    let Some(found) = found else { return Ok(None) };
    let answer = queries::answer(conn, &found)?;
    let approvals = queries::pending_approvals(conn, &found.run)?;
    let questions = questions::waiting_of_run(conn, &found.run)?;
    let tasks = tasks::open_calls(conn, &found.run)?;
    Ok(Some(OpenRun { run: found.run, answer, approvals, questions, tasks }))
}

/// The answer of a run of this session.
///
/// Fails with `NotFound` (run).
pub(super) fn answer_of(
    conn: &Connection,
    session_id: &SessionId,
    run_id: &RunId,
) -> Result<Option<Message>, StoreError> {
    queries::answer(conn, &queries::existing_run(conn, session_id, run_id)?)
}
