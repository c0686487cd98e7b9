//! Rows of a project's database as the types of the wire.

use iris_protocol::{
    Agent, AgentSource, AgentTuning, Approval, File, FileType, Message, PermissionRule, Run, RunId,
    Session,
};
use rusqlite::Row;

use crate::StoredEvent;
use crate::column::{hash, json, optional_json, optional_word, word};

/// A run and its number in its session.
#[derive(Debug, Clone)]
pub(super) struct NumberedRun {
    pub(super) number: u32,
    pub(super) run: Run,
    /// Whether it is to end as cancelled, whatever it was about to do.
    pub(super) cancel_requested: bool,
    /// The run that its message is to join.
    pub(super) joins: Option<RunId>,
}

pub(super) fn session(row: &Row<'_>) -> rusqlite::Result<Session> {
    Ok(Session {
        id: word(row, "id")?,
        parent_id: optional_word(row, "parent_id")?,
        title: row.get("title")?,
        agent: row.get("agent")?,
        model: optional_json(row, "model")?,
        mode: word(row, "mode")?,
        status: word(row, "status")?,
        state: word(row, "state")?,
        created_by: word(row, "created_by")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
        archived_at: row.get("archived_at")?,
        message_count: row.get("message_count")?,
        usage: json(row, "usage")?,
        budget: optional_json(row, "budget")?,
        capturing: optional_json(row, "capturing")?,
    })
}

pub(super) fn run(row: &Row<'_>) -> rusqlite::Result<NumberedRun> {
    let run = Run {
        id: word(row, "id")?,
        session_id: word(row, "session_id")?,
        status: word(row, "status")?,
        started_by: word(row, "started_by")?,
        compacts: row.get("compacts")?,
        steps: row.get("steps")?,
        usage: json(row, "usage")?,
        position: None,
        started_at: row.get("started_at")?,
        ended_at: row.get("ended_at")?,
        error: optional_json(row, "error")?,
    };
    let (number, cancel_requested) = (row.get("number")?, row.get("cancel_requested")?);
    Ok(NumberedRun { number, run, cancel_requested, joins: optional_word(row, "joins")? })
}

/// A message without its parts.
pub(super) fn message(row: &Row<'_>) -> rusqlite::Result<Message> {
    Ok(Message {
        id: word(row, "id")?,
        session_id: word(row, "session_id")?,
        run_id: optional_word(row, "run_id")?,
        after_step: row.get("after_step")?,
        role: word(row, "role")?,
        agent: row.get("agent")?,
        model: optional_json(row, "model")?,
        parts: Vec::new(),
        state: word(row, "state")?,
        finish_reason: optional_word(row, "finish_reason")?,
        error: optional_json(row, "error")?,
        usage: optional_json(row, "usage")?,
        created_by: optional_word(row, "created_by")?,
        created_at: row.get("created_at")?,
        completed_at: row.get("completed_at")?,
    })
}

pub(super) fn approval(row: &Row<'_>) -> rusqlite::Result<Approval> {
    Ok(Approval {
        id: word(row, "id")?,
        session_id: word(row, "session_id")?,
        child_session_id: None,
        run_id: word(row, "run_id")?,
        message_id: word(row, "message_id")?,
        tool_call_id: word(row, "tool_call_id")?,
        tool_name: row.get("tool_name")?,
        input: json(row, "input")?,
        input_hash: hash(row, "input")?,
        accesses: json(row, "accesses")?,
        message: row.get("message")?,
        options: json(row, "options")?,
        state: word(row, "state")?,
        by: optional_word(row, "decided_by")?,
        reason: row.get("reason")?,
        remember: optional_word(row, "remember")?,
        original_input: optional_json(row, "original_input")?,
        created_at: row.get("created_at")?,
        expires_at: row.get("expires_at")?,
    })
}

pub(super) fn agent(row: &Row<'_>) -> rusqlite::Result<Agent> {
    Ok(Agent {
        id: Some(word(row, "id")?),
        name: row.get("name")?,
        description: row.get("description")?,
        mode: word(row, "mode")?,
        prompt: row.get("prompt")?,
        model: optional_json(row, "model")?,
        tools: json(row, "tools")?,
        permissions: json(row, "permissions")?,
        budget: optional_json(row, "budget")?,
        tuning: AgentTuning {
            temperature: row.get("temperature")?,
            top_p: row.get("top_p")?,
            max_steps: row.get("max_steps")?,
        },
        builtin: false,
        source: AgentSource::Project,
        path: None,
        hidden: false,
    })
}

pub(super) fn permission(row: &Row<'_>) -> rusqlite::Result<PermissionRule> {
    Ok(PermissionRule {
        id: Some(word(row, "id")?),
        layer: word(row, "layer")?,
        session_id: optional_word(row, "session_id")?,
        permission: row.get("permission")?,
        pattern: row.get("pattern")?,
        action: word(row, "action")?,
        created_by: Some(word(row, "created_by")?),
        created_at: Some(row.get("created_at")?),
        updated_at: Some(row.get("updated_at")?),
    })
}

pub(super) fn file(row: &Row<'_>) -> rusqlite::Result<File> {
    let (path, size, hash) = (row.get("path")?, row.get("size")?, row.get("hash")?);
    Ok(File {
        version: row.get("version")?,
        updated_at: Some(row.get("updated_at")?),
        updated_by: optional_word(row, "updated_by")?,
        ..File::unrecorded(path, FileType::File, size, hash)
    })
}

pub(super) fn event(row: &Row<'_>) -> rusqlite::Result<StoredEvent> {
    Ok(StoredEvent {
        seq: row.get("seq")?,
        prev: row.get("prev")?,
        room: word(row, "room")?,
        at: row.get("at")?,
        by: optional_word(row, "user_id")?,
        name: row.get("name")?,
        payload: row.get("payload")?,
    })
}
