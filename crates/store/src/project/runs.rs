//! Starting and ending runs. One run of a session works at a time, in the order of their messages
//! (INV-8).

use iris_protocol::{
    ApiError, BudgetExceeded, Event, FinishReason, Message, MessageId, MessageRole, MessageState,
    ModelRef, Run, RunId, RunStatus, Session, SessionId, SessionState, Usage,
};
use serde::{Deserialize, Serialize};

use super::ending::{self, CallEnd};
use super::provider_data::{self, ProviderData};
use super::rows::NumberedRun;
use super::sessions::{save_in_state, session_busy};
use super::steps::{NewPart, OpenAnswer, StepEnd, append_parts, end_step};
use super::usage::Rest;
use super::{joining, log, queries, records, streams};
use crate::{Command, StoreError, WhenFull, WriteTx};

/// Starts a queued run and its answer, still empty. One that somebody cancelled ends instead, without
/// an answer, and one whose message was taken back has ended already.
///
/// Fails with `NotFound`, or `Conflict`: `run_not_queued`, `session_busy` while a run before it is
/// open.
#[derive(Debug, Clone)]
pub struct StartRun {
    /// The run.
    pub run_id: RunId,
    /// A new id for the answer.
    pub answer_id: MessageId,
    /// Name of the agent that answers.
    pub agent: String,
    /// The model that answers.
    pub model: ModelRef,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

/// A run that works, or is cancelled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StartedRun {
    /// The run.
    pub run: Run,
    /// Its session.
    pub session: Session,
}

impl Command for StartRun {
    type Output = StartedRun;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<StartedRun, StoreError> {
        let found = queries::run(tx.conn(), &self.run_id)?;
        let found = found.ok_or(StoreError::NotFound { what: "run" })?;
        let NumberedRun { number, mut run, cancel_requested, .. } = found;
        if joining::was_taken_back(&run) {
            let session = queries::existing_session(tx.conn(), &run.session_id)?;
            return Ok(StartedRun { run, session });
        }
        refuse_unless_queued(&run)?;
        let next = queries::first_open_run(tx.conn(), &run.session_id)?;
        if next.is_none_or(|next| next.id != run.id) {
            return Err(session_busy());
        }
        let mut session = queries::existing_session(tx.conn(), &run.session_id)?;
        if cancel_requested {
            ending::end_run(tx, &mut session, &mut run, RunStatus::Cancelled, None, self.at)?;
            return Ok(StartedRun { run, session });
        }
        run.status = RunStatus::Running;
        run.started_at = Some(self.at);
        records::save_run(tx.conn(), &run)?;
        let at = self.at;
        let message = self.answer_of(&run);
        records::insert_message(tx.conn(), &message, number, 1)?;

        let (id, by) = (session.id.clone(), Some(&run.started_by));
        log::in_session(tx, &id, at, by, &Event::RunStarted { run: run.clone() })?;
        let event = Event::MessageCreated { session_id: id.clone(), message };
        log::in_session(tx, &id, at, by, &event)?;
        session.message_count += 1;
        save_in_state(tx, &mut session, SessionState::Running, at, by)?;
        Ok(StartedRun { run, session })
    }
}

impl StartRun {
    fn answer_of(self, run: &Run) -> Message {
        Message {
            id: self.answer_id,
            session_id: run.session_id.clone(),
            run_id: Some(self.run_id),
            after_step: None,
            role: MessageRole::Assistant,
            agent: Some(self.agent),
            model: Some(self.model),
            parts: Vec::new(),
            state: MessageState::Streaming,
            finish_reason: None,
            error: None,
            usage: Some(Usage::default()),
            created_by: None,
            created_at: self.at,
            completed_at: None,
        }
    }
}

/// Ends a run that started: what is left of the answer, its open calls and approvals, the answer and
/// the run. One that failed after somebody cancelled it is cancelled.
///
/// Fails with `NotFound`, or `Conflict`: `run_ended`.
#[derive(Debug, Clone)]
pub struct FinishRun {
    /// The session.
    pub session_id: SessionId,
    /// The run.
    pub run_id: RunId,
    /// Its answer.
    pub message_id: MessageId,
    /// Parts that are not recorded yet, whole or not.
    pub parts: Vec<NewPart>,
    /// What providers want back with some of `parts`.
    pub provider_data: Vec<ProviderData>,
    /// The last model call, where it ended and is not recorded yet.
    pub step: Option<StepEnd>,
    /// What was used since the last step, where there is no `step` for it.
    pub rest: Rest,
    /// `Completed`, `Failed` or `Cancelled`.
    pub status: RunStatus,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// What went wrong; the answer is in error then.
    pub error: Option<ApiError>,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

/// A run that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishedRun {
    /// The run that may start now.
    pub next: Option<RunId>,
}

impl Command for FinishRun {
    type Output = FinishedRun;

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(mut self, tx: &mut WriteTx<'_>) -> Result<FinishedRun, StoreError> {
        refuse_unless_final(self.status)?;
        let mut open = OpenAnswer::find(tx, &self.session_id, &self.run_id, &self.message_id)?;
        if cancels(open.cancel_requested, self.status) {
            self.status = RunStatus::Cancelled;
            self.finish_reason = FinishReason::Cancelled;
            self.error = None;
        }
        append_parts(tx, &open, self.parts, self.at)?;
        provider_data::insert(tx.conn(), &open.message.id, &self.provider_data)?;
        match &self.step {
            Some(step) => end_step(tx, &mut open, step, self.at)?,
            None => open.use_up(tx, &self.rest, self.at)?,
        }
        // What a step that could not be recorded left.
        streams::keep_interrupted(tx, &open.run, &open.message, self.at)?;
        let end = CallEnd::of_run(self.status);
        ending::end_calls(tx, &open.message, &end, self.at)?;
        ending::cancel_waits(tx, &open.run, self.at)?;
        let state = if self.error.is_some() { MessageState::Error } else { MessageState::Complete };
        if self.finish_reason == FinishReason::Budget {
            tell_of_budget(tx, &open.run, self.error.as_ref(), self.at)?;
        }
        open.message.finish_reason = Some(self.finish_reason);
        open.message.error.clone_from(&self.error);
        ending::end_message(tx, &mut open.message, state, self.at)?;
        ending::end_run(tx, &mut open.session, &mut open.run, self.status, self.error, self.at)
    }
}

/// Ends a run that never started. One that failed after somebody cancelled it is cancelled.
///
/// Fails with `NotFound`, or `Conflict`: `run_not_queued`.
#[derive(Debug, Clone)]
pub struct FailQueuedRun {
    /// The session.
    pub session_id: SessionId,
    /// The run.
    pub run_id: RunId,
    /// `Failed` or `Cancelled`.
    pub status: RunStatus,
    /// What went wrong, when something did.
    pub error: Option<ApiError>,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for FailQueuedRun {
    type Output = FinishedRun;

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(mut self, tx: &mut WriteTx<'_>) -> Result<FinishedRun, StoreError> {
        refuse_unless_final(self.status)?;
        let mut found = queries::existing_run(tx.conn(), &self.session_id, &self.run_id)?;
        if joining::was_taken_back(&found.run) {
            return ending::next_run(tx, &self.session_id);
        }
        refuse_unless_queued(&found.run)?;
        if cancels(found.cancel_requested, self.status) {
            self.status = RunStatus::Cancelled;
            self.error = None;
        }
        let mut session = queries::existing_session(tx.conn(), &self.session_id)?;
        ending::end_run(tx, &mut session, &mut found.run, self.status, self.error, self.at)
    }
}

/// Says which budget ends a run, as its error has it.
fn tell_of_budget(
    tx: &mut WriteTx<'_>,
    run: &Run,
    error: Option<&ApiError>,
    at: i64,
) -> Result<(), StoreError> {
    let Some(error) = error else { return Ok(()) };
    let budget: BudgetExceeded =
        serde_json::from_value(serde_json::Value::Object(error.details.clone()))?;
    let (session_id, run_id) = (run.session_id.clone(), run.id.clone());
    let event =
        Event::BudgetExceeded { session_id, run_id, budget, message: error.message.clone() };
    log::in_session(tx, &run.session_id, at, Some(&run.started_by), &event)
}

/// Whether a run that would end with `status` is cancelled: somebody was told that it will be. What
/// completed before that could be done is done.
fn cancels(cancel_requested: bool, status: RunStatus) -> bool {
    cancel_requested && status == RunStatus::Failed
}

fn refuse_unless_queued(run: &Run) -> Result<(), StoreError> {
    if run.status == RunStatus::Queued {
        return Ok(());
    }
    Err(StoreError::conflict("run_not_queued", "the run started already"))
}

fn refuse_unless_final(status: RunStatus) -> Result<(), StoreError> {
    match status {
        RunStatus::Completed
        | RunStatus::Failed
        | RunStatus::Cancelled
        | RunStatus::Interrupted => Ok(()),
        RunStatus::Queued | RunStatus::Running | RunStatus::Waiting => {
            Err(StoreError::internal(format!("`{status:?}` ends no run")))
        }
    }
}
