//! Sub-agents: calls of the tool `task`, each of which has a run in a session below do something.
//!
//! What a call began is recorded before its run starts, so that a call that is run again after the server
//! stopped finds it. Its end is recorded with the end of that run, whatever ends it.

use iris_protocol::limits::{TASK_DEPTH_MAX, TASK_RESULT_BYTES_MAX, TASKS_OPEN_MAX};
use iris_protocol::{
    Event, Message, MessageId, MessageRole, ModelRef, Part, PartId, Run, RunId, RunStatus, Session,
    SessionId, SessionState, SessionStatus, SubtaskPart, SubtaskState, ToolCallId, Usage, UserId,
    WhenBusy,
};
use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};

use super::messages::AcceptMessage;
use super::quotas::Quotas;
use super::rows::NumberedRun;
use super::sessions::{ready_session, session_busy};
use super::steps::{OpenAnswer, refuse_final};
use super::{family, log, queries, records};
use crate::{Command, StoreError, WriteTx, column};

/// How many sub-agents of a session work.
const COUNT_OPEN: &str = "SELECT count(*) FROM tasks t JOIN runs r ON r.id = t.child_run_id
     WHERE t.session_id = ?1 AND r.ended_at IS NULL";
/// The calls of a run that wait for sub-agents: for those which work, and for the results of those that were
/// not cut off before anybody took what they said.
const OPEN_CALLS: &str = "SELECT t.tool_call_id FROM tasks t
     JOIN message_parts p ON p.tool_call_id = t.tool_call_id AND p.tool_state = 'running'
     JOIN runs r ON r.id = t.child_run_id AND r.status <> 'interrupted'
     WHERE t.run_id = ?1 AND NOT t.background";
/// The sessions of the sub-agents in the background of a session that work.
const OPEN_BACKGROUND: &str =
    "SELECT t.child_id, t.child_run_id FROM tasks t JOIN runs r ON r.id = t.child_run_id
     WHERE t.session_id = ?1 AND t.background AND r.ended_at IS NULL";
/// The sub-agents of a session whose runs are to end because the runs that wait for them have.
const TO_END: &str =
    "SELECT t.child_id, t.child_run_id FROM tasks t JOIN runs r ON r.id = t.child_run_id
     WHERE t.session_id = ?1 AND r.ended_at IS NULL AND r.cancel_requested";
const BY_CALL: &str = "SELECT * FROM tasks WHERE tool_call_id = ?1";
const BY_CHILD_RUN: &str = "SELECT * FROM tasks WHERE child_run_id = ?1";

/// Sets a sub-agent to work for a call that runs: its session, unless it has one, what it is to do, and
/// the run that does it. Answers what the call began, also when it began that earlier.
///
/// Fails with `NotFound` (session, run, tool call), `Gone` (a run that somebody cancelled), `QuotaExceeded`, or
/// `Conflict`: `run_ended`,
/// `already_final`, `task_too_deep` below [`TASK_DEPTH_MAX`] sessions, `too_many_tasks` when
/// [`TASKS_OPEN_MAX`] of the session work, `session_busy` when the sub-agent works already,
/// `session_archived`, `session_deleted`.
#[derive(Debug, Clone)]
pub struct SpawnTask {
    /// The session of the call.
    pub session_id: SessionId,
    /// Its run.
    pub run_id: RunId,
    /// The message that holds it.
    pub message_id: MessageId,
    /// The call.
    pub tool_call_id: ToolCallId,
    /// A new id for the part of the message that says how far the sub-agent is.
    pub part_id: PartId,
    /// Who works.
    pub child: TaskChild,
    /// What it is to do, in a few words.
    pub description: String,
    /// What it is told.
    pub prompt: String,
    /// New ids for that message, its text and its run.
    pub ids: TaskIds,
    /// For one in the background: new ids for what its session is told of the end.
    pub wake: Option<TaskIds>,
    /// The most that the project may hold.
    pub quotas: Quotas,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

/// Who works for a call of `task`.
#[derive(Debug, Clone)]
pub enum TaskChild {
    /// A sub-agent in a new session.
    New {
        /// A new id.
        id: SessionId,
        /// Name of the agent.
        agent: String,
        /// The model, where one is chosen.
        model: Option<ModelRef>,
    },
    /// One that worked for the session before.
    Known(SessionId),
}

/// The ids of a message that starts a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskIds {
    /// Of the message.
    pub message_id: MessageId,
    /// Of its text.
    pub part_id: PartId,
    /// Of the run.
    pub run_id: RunId,
}

impl Command for SpawnTask {
    type Output = SubtaskPart;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<SubtaskPart, StoreError> {
        if let Some(begun) = find(tx.conn(), BY_CALL, self.tool_call_id.as_str())? {
            return Ok(begun.part);
        }
        let open = OpenAnswer::find(tx, &self.session_id, &self.run_id, &self.message_id)?;
        let call = queries::existing_call(tx.conn(), &self.message_id, &self.tool_call_id)?;
        refuse_final(&call)?;
        if open.cancel_requested {
            return Err(StoreError::Gone { what: "run" });
        }
        refuse_too_many(tx.conn(), &self.session_id)?;
        let by = open.run.started_by.clone();
        let child = self.child_session(tx, &open.session, &by)?;
        let part = SubtaskPart {
            id: self.part_id,
            tool_call_id: self.tool_call_id,
            child_session_id: child.id.clone(),
            child_run_id: self.ids.run_id.clone(),
            agent: child.agent,
            description: self.description,
            background: self.wake.is_some(),
            state: SubtaskState::Running,
        };
        let accept = AcceptMessage {
            session_id: child.id,
            message_id: self.ids.message_id,
            part_id: self.ids.part_id,
            run_id: self.ids.run_id,
            text: self.prompt,
            answer_format: None,
            attachments: Vec::new(),
            by: by.clone(),
            when_busy: WhenBusy::Reject,
            quotas: self.quotas,
            at: self.at,
        };
        accept.run(tx)?;
        insert(tx.conn(), &open.run, &self.message_id, &part, self.wake.as_ref())?;
        records::append_part(tx.conn(), &open.message, &Part::Subtask(part.clone()))?;
        publish(tx, &self.session_id, &self.message_id, &part, self.at, Some(&by))?;
        Ok(part)
    }
}

impl SpawnTask {
    fn child_session(
        &self,
        tx: &mut WriteTx<'_>,
        parent: &Session,
        by: &UserId,
    ) -> Result<Session, StoreError> {
        let (id, agent, model) = match &self.child {
            TaskChild::New { id, agent, model } => (id.clone(), agent.clone(), model.clone()),
            TaskChild::Known(id) => {
                let child = ready_session(tx, id)?;
                if child.parent_id.as_ref() != Some(&parent.id) {
                    return Err(StoreError::NotFound { what: "session" });
                }
                if queries::first_open_run(tx.conn(), id)?.is_some() {
                    return Err(session_busy());
                }
                return Ok(child);
            }
        };
        if family::above(tx.conn(), &parent.id)?.len() >= TASK_DEPTH_MAX {
            let message = format!("sub-agents are at most {TASK_DEPTH_MAX} sessions deep");
            return Err(StoreError::conflict("task_too_deep", message));
        }
        let child = Session {
            id,
            parent_id: Some(parent.id.clone()),
            title: self.description.clone(),
            agent,
            model,
            // What its parent forbids stays forbidden in any case.
            mode: parent.mode,
            status: SessionStatus::Active,
            state: SessionState::Idle,
            created_by: by.clone(),
            created_at: self.at,
            updated_at: self.at,
            archived_at: None,
            message_count: 0,
            usage: Usage::default(),
            budget: None,
            capturing: parent.capturing.clone(),
        };
        records::insert_session(tx.conn(), &child)?;
        let event = Event::SessionCreated { session: child.clone() };
        log::in_both(tx, &child.id, self.at, Some(by), &event)?;
        Ok(child)
    }
}

fn refuse_too_many(conn: &Connection, id: &SessionId) -> Result<(), StoreError> {
    let open: u64 = queries::one(conn, COUNT_OPEN, [id.as_str()], |row| row.get(0))?;
    if open < TASKS_OPEN_MAX {
        return Ok(());
    }
    let message = format!("{TASKS_OPEN_MAX} sub-agents of the session work already");
    Err(StoreError::conflict("too_many_tasks", message))
}

/// What a call of `task` began.
struct Task {
    session_id: SessionId,
    message_id: MessageId,
    part: SubtaskPart,
    wake: Option<TaskIds>,
}

fn find(conn: &Connection, sql: &str, key: &str) -> Result<Option<Task>, StoreError> {
    let read = |row: &Row<'_>| {
        Ok(Task {
            session_id: column::word(row, "session_id")?,
            message_id: column::word(row, "message_id")?,
            part: column::json(row, "part")?,
            wake: column::optional_json(row, "wake")?,
        })
    };
    queries::first(conn, sql, [key], read)
}

fn insert(
    conn: &Connection,
    run: &Run,
    message_id: &MessageId,
    part: &SubtaskPart,
    wake: Option<&TaskIds>,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO tasks (tool_call_id, session_id, run_id, message_id, child_id,
                 child_run_id, part, background, wake)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    conn.prepare_cached(sql)?.execute(params![
        part.tool_call_id.as_str(),
        run.session_id.as_str(),
        run.id.as_str(),
        message_id.as_str(),
        part.child_session_id.as_str(),
        part.child_run_id.as_str(),
        column::to_json(part)?,
        part.background,
        column::to_optional_json(wake)?,
    ])?;
    Ok(())
}

fn publish(
    tx: &mut WriteTx<'_>,
    session_id: &SessionId,
    message_id: &MessageId,
    part: &SubtaskPart,
    at: i64,
    by: Option<&UserId>,
) -> Result<(), StoreError> {
    let event = Event::MessageSubtaskUpdated {
        session_id: session_id.clone(),
        message_id: message_id.clone(),
        part: part.clone(),
    };
    log::in_session(tx, session_id, at, by, &event)
}

/// Writes and says how far the sub-agent is whose run this is; nothing for any other run.
fn set_state(
    tx: &mut WriteTx<'_>,
    run: &Run,
    state: SubtaskState,
    at: i64,
) -> Result<Option<Task>, StoreError> {
    let Some(mut task) = find(tx.conn(), BY_CHILD_RUN, run.id.as_str())? else { return Ok(None) };
    task.part.state = state;
    let sql = "UPDATE tasks SET part = ?2 WHERE child_run_id = ?1";
    let key = params![run.id.as_str(), column::to_json(&task.part)?];
    tx.conn().prepare_cached(sql)?.execute(key)?;
    records::save_subtask(tx.conn(), &task.part)?;
    publish(tx, &task.session_id, &task.message_id, &task.part, at, None)?;
    Ok(Some(task))
}

/// The run of a sub-agent goes on after it ended.
pub(super) fn goes_on(tx: &mut WriteTx<'_>, run: &Run, at: i64) -> Result<(), StoreError> {
    set_state(tx, run, SubtaskState::Running, at).map(drop)
}

/// A run ended: what it set to work and waited for is to end too; and where it is that of a sub-agent, who
/// set it to work is told.
pub(super) fn run_ended(tx: &mut WriteTx<'_>, found: &Run, at: i64) -> Result<(), StoreError> {
    let sql = "UPDATE runs SET cancel_requested = 1 WHERE ended_at IS NULL AND id IN
               (SELECT child_run_id FROM tasks WHERE run_id = ?1 AND NOT background)";
    tx.conn().prepare_cached(sql)?.execute([found.id.as_str()])?;
    let state = match found.status {
        RunStatus::Completed => SubtaskState::Completed,
        RunStatus::Failed => SubtaskState::Error,
        RunStatus::Cancelled => SubtaskState::Cancelled,
        RunStatus::Interrupted => SubtaskState::Interrupted,
        RunStatus::Queued | RunStatus::Running | RunStatus::Waiting => SubtaskState::Running,
    };
    match set_state(tx, found, state, at)? {
        Some(Task { session_id, part, wake: Some(ids), .. }) => {
            wake(tx, &session_id, found, &part, ids, at)
        }
        Some(Task { wake: None, .. }) | None => Ok(()),
    }
}

/// Tells a session that a sub-agent in the background is done, with a message that starts a run. One that
/// takes no messages is not told, and nobody is of an end that a user wanted; after a cut the sub-agent may
/// go on.
fn wake(
    tx: &mut WriteTx<'_>,
    session_id: &SessionId,
    run: &Run,
    part: &SubtaskPart,
    ids: TaskIds,
    at: i64,
) -> Result<(), StoreError> {
    let SubtaskPart { agent, description, child_session_id: child, .. } = part;
    let text = match part.state {
        SubtaskState::Completed => {
            let result = result_text(tx.conn(), &run.session_id, &run.id)?;
            format!(
                "The sub-agent `{agent}` has done \"{description}\" (session {child}):\n\n{result}"
            )
        }
        SubtaskState::Error => {
            let why = run.error.as_ref().map_or("it failed", |error| error.message.as_str());
            format!("The sub-agent `{agent}` failed at \"{description}\" (session {child}): {why}")
        }
        SubtaskState::Running | SubtaskState::Cancelled | SubtaskState::Interrupted => {
            return Ok(());
        }
    };
    let sql = "UPDATE tasks SET wake = NULL WHERE child_run_id = ?1";
    tx.conn().prepare_cached(sql)?.execute([run.id.as_str()])?;
    let message = AcceptMessage {
        session_id: session_id.clone(),
        message_id: ids.message_id,
        part_id: ids.part_id,
        run_id: ids.run_id,
        text,
        answer_format: None,
        attachments: Vec::new(),
        by: run.started_by.clone(),
        when_busy: WhenBusy::Queue,
        // What a run that works already writes is not held up.
        quotas: Quotas::default(),
        at,
    };
    match message.accept(tx, MessageRole::System) {
        // Archived, deleted, or too many messages wait: the part of the call says how it ended.
        Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// What a run said last: the text of its last step that has one, at most [`TASK_RESULT_BYTES_MAX`].
fn result_text(
    conn: &Connection,
    session_id: &SessionId,
    run_id: &RunId,
) -> Result<String, StoreError> {
    let found = queries::existing_run(conn, session_id, run_id)?;
    let answer = queries::answer(conn, &found)?;
    let mut text = answer.as_ref().map(last_text).unwrap_or_default();
    if text.len() > TASK_RESULT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TASK_RESULT_BYTES_MAX));
        text.push_str("\n(cut: it said more)");
    }
    Ok(text)
}

fn last_text(answer: &Message) -> String {
    let (mut last, mut current) = (String::new(), String::new());
    for part in &answer.parts {
        match part {
            Part::Text { text, interrupted: false, .. } => current.push_str(text),
            Part::Step { .. } if !current.is_empty() => last = std::mem::take(&mut current),
            Part::Text { interrupted: true, .. }
            | Part::Step { .. }
            | Part::Reasoning { .. }
            | Part::Tool(_)
            | Part::Compaction(_)
            | Part::AnswerFormat(_)
            | Part::Attachment(_)
            | Part::Subtask(_) => {}
        }
    }
    if current.is_empty() { last } else { current }
}

/// What became of the run of a sub-agent.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskResult {
    /// The run.
    pub run: Run,
    /// What it said last, at most [`TASK_RESULT_BYTES_MAX`] bytes and a note where something was cut.
    pub text: String,
}

/// Fails with `NotFound` (run).
pub(super) fn result(
    conn: &Connection,
    session_id: &SessionId,
    run_id: &RunId,
) -> Result<TaskResult, StoreError> {
    let NumberedRun { run, .. } = queries::existing_run(conn, session_id, run_id)?;
    Ok(TaskResult { run, text: result_text(conn, session_id, run_id)? })
}

/// What a call began, if it did.
pub(super) fn begun(
    conn: &Connection,
    tool_call_id: &ToolCallId,
) -> Result<Option<SubtaskPart>, StoreError> {
    Ok(find(conn, BY_CALL, tool_call_id.as_str())?.map(|task| task.part))
}

/// The calls of a run that wait for sub-agents.
pub(super) fn open_calls(conn: &Connection, run: &Run) -> Result<Vec<ToolCallId>, StoreError> {
    queries::all(conn, OPEN_CALLS, [run.id.as_str()], |row| column::word(row, "tool_call_id"))
}

/// The sessions of the sub-agents in the background of a session that work, and the runs that do.
pub(super) fn in_background(
    conn: &Connection,
    id: &SessionId,
) -> Result<Vec<(SessionId, RunId)>, StoreError> {
    queries::all(conn, OPEN_BACKGROUND, [id.as_str()], child)
}

/// The sub-agents of a session whose runs are to end.
pub(super) fn to_end(
    conn: &Connection,
    id: &SessionId,
) -> Result<Vec<(SessionId, RunId)>, StoreError> {
    queries::all(conn, TO_END, [id.as_str()], child)
}

fn child(row: &Row<'_>) -> rusqlite::Result<(SessionId, RunId)> {
    Ok((column::word(row, "child_id")?, column::word(row, "child_run_id")?))
}

/// Has the sub-agents in the background of a session end as cancelled.
pub(super) fn cancel_background(conn: &Connection, id: &SessionId) -> Result<(), StoreError> {
    let sql = "UPDATE runs SET cancel_requested = 1 WHERE ended_at IS NULL AND id IN
               (SELECT child_run_id FROM tasks WHERE session_id = ?1 AND background)";
    conn.prepare_cached(sql)?.execute([id.as_str()])?;
    Ok(())
}

/// The session whose actor lets the run of a session go on: of a sub-agent that somebody waits for, who set
/// it to work.
pub(super) fn keeper(conn: &Connection, id: SessionId) -> Result<SessionId, StoreError> {
    let sql = "SELECT t.session_id FROM tasks t
               JOIN runs r ON r.id = t.child_run_id AND r.ended_at IS NULL
               JOIN runs q ON q.id = t.run_id
               WHERE t.child_id = ?1 AND (t.background OR q.ended_at IS NULL)";
    let mut keeper = id;
    for _ in 0..=TASK_DEPTH_MAX {
        let above = queries::first(conn, sql, [keeper.as_str()], |row| {
            column::word::<SessionId>(row, "session_id")
        })?;
        match above {
            Some(above) => keeper = above,
            None => break,
        }
    }
    Ok(keeper)
}
