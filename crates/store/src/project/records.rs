//! The types of the wire as rows of a project's database: written whole once, then what can change.

use iris_protocol::{
    Approval, Message, Part, Run, RunId, Session, SessionId, SubtaskPart, ToolPart, UserId,
};
use rusqlite::{Connection, params};

use super::blobs::{self, BLOB_BYTES_MIN, BlobHash};
use super::search;
use crate::StoreError;
use crate::column::{to_json, to_optional_json, to_word};

pub(super) fn insert_session(conn: &Connection, session: &Session) -> Result<(), StoreError> {
    let sql = "INSERT INTO sessions (id, parent_id, title, agent, model, mode, status, state,
                 created_by, created_at, updated_at, archived_at, message_count, usage, budget,
                 capturing)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)";
    conn.prepare_cached(sql)?.execute(params![
        session.id.as_str(),
        session.parent_id.as_ref().map(SessionId::as_str),
        session.title,
        session.agent,
        to_optional_json(session.model.as_ref())?,
        to_word(&session.mode)?,
        to_word(&session.status)?,
        to_word(&session.state)?,
        session.created_by.as_str(),
        session.created_at,
        session.updated_at,
        session.archived_at,
        session.message_count,
        to_json(&session.usage)?,
        to_optional_json(session.budget.as_ref())?,
        to_optional_json(session.capturing.as_ref())?,
    ])?;
    Ok(())
}

/// Writes what can change of a session.
pub(super) fn save_session(conn: &Connection, session: &Session) -> Result<(), StoreError> {
    let sql = "UPDATE sessions SET title = ?2, agent = ?3, model = ?4, status = ?5, state = ?6,
                 updated_at = ?7, archived_at = ?8, message_count = ?9, usage = ?10, mode = ?11
               WHERE id = ?1";
    conn.prepare_cached(sql)?.execute(params![
        session.id.as_str(),
        session.title,
        session.agent,
        to_optional_json(session.model.as_ref())?,
        to_word(&session.status)?,
        to_word(&session.state)?,
        session.updated_at,
        session.archived_at,
        session.message_count,
        to_json(&session.usage)?,
        to_word(&session.mode)?,
    ])?;
    Ok(())
}

pub(super) fn insert_run(conn: &Connection, run: &Run, number: u32) -> Result<(), StoreError> {
    let sql =
        "INSERT INTO runs (id, session_id, number, status, started_by, steps, usage, compacts)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    conn.prepare_cached(sql)?.execute(params![
        run.id.as_str(),
        run.session_id.as_str(),
        number,
        to_word(&run.status)?,
        run.started_by.as_str(),
        run.steps,
        to_json(&run.usage)?,
        run.compacts,
    ])?;
    Ok(())
}

/// Writes what can change of a run.
pub(super) fn save_run(conn: &Connection, run: &Run) -> Result<(), StoreError> {
    let sql = "UPDATE runs SET status = ?2, steps = ?3, usage = ?4, started_at = ?5, ended_at = ?6,
                 error = ?7
               WHERE id = ?1";
    conn.prepare_cached(sql)?.execute(params![
        run.id.as_str(),
        to_word(&run.status)?,
        run.steps,
        to_json(&run.usage)?,
        run.started_at,
        run.ended_at,
        to_optional_json(run.error.as_ref())?,
    ])?;
    Ok(())
}

/// Writes a message and its parts. `place` is its place in its run: 0 the user's, 1 the answer.
pub(super) fn insert_message(
    conn: &Connection,
    message: &Message,
    run_number: u32,
    place: u32,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO messages (id, session_id, run_id, run_number, place, role, agent, model,
                 state, usage, created_by, created_at, completed_at, after_step)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
    conn.prepare_cached(sql)?.execute(params![
        message.id.as_str(),
        message.session_id.as_str(),
        message.run_id.as_ref().map(RunId::as_str),
        run_number,
        place,
        to_word(&message.role)?,
        message.agent,
        to_optional_json(message.model.as_ref())?,
        to_word(&message.state)?,
        to_optional_json(message.usage.as_ref())?,
        message.created_by.as_ref().map(UserId::as_str),
        message.created_at,
        message.completed_at,
        message.after_step,
    ])?;
    for part in &message.parts {
        append_part(conn, message, part)?;
    }
    Ok(())
}

/// Writes what can change of a message, its parts excepted.
pub(super) fn save_message(conn: &Connection, message: &Message) -> Result<(), StoreError> {
    let sql = "UPDATE messages SET state = ?2, finish_reason = ?3, error = ?4, usage = ?5,
                 completed_at = ?6, model = ?7
               WHERE id = ?1";
    conn.prepare_cached(sql)?.execute(params![
        message.id.as_str(),
        to_word(&message.state)?,
        message.finish_reason.as_ref().map(to_word).transpose()?,
        to_optional_json(message.error.as_ref())?,
        to_optional_json(message.usage.as_ref())?,
        message.completed_at,
        to_optional_json(message.model.as_ref())?,
    ])?;
    Ok(())
}

/// Writes a part behind the ones that the message has.
pub(super) fn append_part(
    conn: &Connection,
    message: &Message,
    part: &Part,
) -> Result<(), StoreError> {
    let call = match part {
        Part::Tool(call) => Some(call),
        Part::Text { .. }
        | Part::Reasoning { .. }
        | Part::Subtask(_)
        | Part::Compaction(_)
        | Part::AnswerFormat(_)
        | Part::Attachment(_)
        | Part::Step { .. } => None,
    };
    let (body, blob) = body_of(conn, part)?;
    let sql = "INSERT INTO message_parts (id, message_id, ordinal, tool_call_id, tool_state, body,
                 blob)
               SELECT ?1, ?2, coalesce(max(ordinal) + 1, 0), ?3, ?4, ?5, ?6
               FROM message_parts WHERE message_id = ?2";
    conn.prepare_cached(sql)?.execute(params![
        part.id().as_str(),
        message.id.as_str(),
        call.map(|call| call.tool_call_id.as_str()),
        call.map(|call| to_word(&call.state)).transpose()?,
        body,
        blob,
    ])?;
    search::note(conn, part)
}

/// What stands in a part's row: the part itself, or what is left of it without its long text and the
/// name of the blob that holds that, or the name of the blob that holds all of it. Ids differ from
/// part to part, so that only a text alone can be shared by many. Of a file that goes with a message it is
/// the part, and the name of the blob that holds the file.
fn body_of(conn: &Connection, part: &Part) -> Result<(String, Option<[u8; 32]>), StoreError> {
    if let Part::Attachment(file) = part {
        let hash = BlobHash::from_hex(&file.hash);
        let BlobHash(hash) =
            hash.ok_or_else(|| StoreError::internal("an attachment without a hash"))?;
        return Ok((to_json(part)?, Some(hash)));
    }
    let mut rest = part.clone();
    let long = blobs::long_text_of(&mut rest).filter(|text| text.len() >= BLOB_BYTES_MIN);
    if let Some(text) = long.map(std::mem::take) {
        let BlobHash(hash) = blobs::put_on(conn, text.as_bytes())?;
        return Ok((to_json(&rest)?, Some(hash)));
    }
    let body = to_json(part)?;
    if body.len() < BLOB_BYTES_MIN {
        return Ok((body, None));
    }
    let BlobHash(hash) = blobs::put_on(conn, body.as_bytes())?;
    Ok((String::new(), Some(hash)))
}

/// Writes a tool call that changed.
pub(super) fn save_call(conn: &Connection, call: &ToolPart) -> Result<(), StoreError> {
    let (body, blob) = body_of(conn, &Part::Tool(call.clone()))?;
    let sql = "UPDATE message_parts SET tool_state = ?2, body = ?3, blob = ?4 WHERE id = ?1";
    let state = to_word(&call.state)?;
    conn.prepare_cached(sql)?.execute(params![call.id.as_str(), state, body, blob])?;
    Ok(())
}

/// Writes how far a sub-agent is.
pub(super) fn save_subtask(conn: &Connection, part: &SubtaskPart) -> Result<(), StoreError> {
    let sql = "UPDATE message_parts SET body = ?2, blob = NULL WHERE id = ?1";
    let body = to_json(&Part::Subtask(part.clone()))?;
    conn.prepare_cached(sql)?.execute(params![part.id.as_str(), body])?;
    Ok(())
}

pub(super) fn insert_approval(conn: &Connection, approval: &Approval) -> Result<(), StoreError> {
    let sql = "INSERT INTO approvals (id, session_id, run_id, message_id, tool_call_id, tool_name,
                 input, message, options, state, created_at, expires_at, accesses)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
    conn.prepare_cached(sql)?.execute(params![
        approval.id.as_str(),
        approval.session_id.as_str(),
        approval.run_id.as_str(),
        approval.message_id.as_str(),
        approval.tool_call_id.as_str(),
        approval.tool_name,
        to_json(&approval.input)?,
        approval.message,
        to_json(&approval.options)?,
        to_word(&approval.state)?,
        approval.created_at,
        approval.expires_at,
        to_json(&approval.accesses)?,
    ])?;
    Ok(())
}

/// Writes the end of an approval.
pub(super) fn save_approval(conn: &Connection, approval: &Approval) -> Result<(), StoreError> {
    let sql = "UPDATE approvals SET state = ?2, decided_by = ?3, reason = ?4, input = ?5,
                 accesses = ?6, remember = ?7, original_input = ?8
               WHERE id = ?1";
    conn.prepare_cached(sql)?.execute(params![
        approval.id.as_str(),
        to_word(&approval.state)?,
        approval.by.as_ref().map(UserId::as_str),
        approval.reason,
        to_json(&approval.input)?,
        to_json(&approval.accesses)?,
        approval.remember.as_ref().map(to_word).transpose()?,
        to_optional_json(approval.original_input.as_ref())?,
    ])?;
    Ok(())
}
