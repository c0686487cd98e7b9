//! Looking single things up, on a connection.

use iris_protocol::{
    Agent, Approval, File, Message, MessageId, Part, ProjectId, Room, Run, RunId, Session,
    SessionId, ToolCallId, ToolPart,
};
use rusqlite::{Connection, OptionalExtension, Params, Row, params};
use serde_json::{Map, Value};

use super::OpenWork;
use super::blobs::{self, BlobHash};
use super::rows::{self, NumberedRun};
use crate::{StoreError, column};

/// Runs that have not ended, in the order in which they start.
pub(super) const OPEN_RUNS: &str =
    "SELECT * FROM runs WHERE session_id = ?1 AND ended_at IS NULL ORDER BY number";
/// The parts of a message.
pub(super) const PARTS: &str =
    "SELECT body, blob FROM message_parts WHERE message_id = ?1 ORDER BY ordinal";
/// How long the parts of a message are together, without the files that go with it.
pub(super) const PARTS_BYTES: &str = "SELECT COALESCE(SUM(octet_length(p.body) + CASE
         WHEN p.blob IS NULL THEN 0
         WHEN p.body = '' THEN b.size
         WHEN p.body ->> '$.type' = 'attachment' THEN 0
         ELSE b.size END), 0)
     FROM message_parts p LEFT JOIN blobs b ON b.hash = p.blob WHERE p.message_id = ?1";
/// The tool calls of a message that have no result.
pub(super) const OPEN_CALLS: &str =
    "SELECT id, tool_call_id, tool_state, body, blob FROM message_parts
     WHERE message_id = ?1 AND tool_state IN ('pending', 'waiting', 'running') ORDER BY ordinal";
/// A file that was changed through Iris.
pub(super) const FILE: &str = "SELECT * FROM files WHERE path = ?1";
/// The approvals of a run that nobody decided.
pub(super) const PENDING_APPROVALS: &str = "SELECT * FROM approvals
     WHERE session_id = ?1 AND run_id = ?2 AND state = 'pending' ORDER BY id";

/// Whether a run has approvals that nobody decided, or questions that nobody answered.
const WAITS_FOR_PEOPLE: &str = "SELECT EXISTS (SELECT 1 FROM approvals
             WHERE session_id = ?1 AND run_id = ?2 AND state = 'pending')
         OR EXISTS (SELECT 1 FROM questions
             WHERE session_id = ?1 AND run_id = ?2 AND state = 'pending' AND NOT during_call)";

pub(super) fn project_id(conn: &Connection) -> Result<ProjectId, StoreError> {
    one(conn, "SELECT project_id FROM meta", [], |row| column::word(row, "project_id"))
}

pub(super) fn epoch(conn: &Connection) -> Result<String, StoreError> {
    one(conn, "SELECT epoch FROM meta", [], |row| row.get(0))
}

/// The number of the last event, kept or not.
pub(super) fn head(conn: &Connection) -> Result<u64, StoreError> {
    one(conn, "SELECT last_seq FROM meta", [], |row| row.get(0))
}

/// The number of the last event that came from the root database; 0 before the first.
pub(super) fn outbox_seq(conn: &Connection) -> Result<u64, StoreError> {
    one(conn, "SELECT outbox_seq FROM meta", [], |row| row.get(0))
}

/// Whether a run has not ended, something waits for a person, or files are being put back.
pub(super) fn has_open_work(conn: &Connection) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM runs WHERE ended_at IS NULL)
               OR EXISTS (SELECT 1 FROM approvals WHERE state = 'pending')
               OR EXISTS (SELECT 1 FROM questions WHERE state = 'pending')
               OR EXISTS (SELECT 1 FROM file_restores)";
    one(conn, sql, [], |row| row.get(0))
}

/// What is open of a project.
pub(super) fn open_work(conn: &Connection) -> Result<OpenWork, StoreError> {
    let sql = "SELECT count(*) FILTER (WHERE status = 'queued') AS queued,
                      count(*) FILTER (WHERE status = 'running') AS running,
                      count(*) FILTER (WHERE status = 'waiting') AS waiting,
                      (SELECT count(*) FROM approvals WHERE state = 'pending') AS approvals,
                      (SELECT count(*) FROM questions WHERE state = 'pending') AS questions
               FROM runs WHERE ended_at IS NULL";
    one(conn, sql, [], |row| {
        Ok(OpenWork {
            queued: row.get("queued")?,
            running: row.get("running")?,
            waiting: row.get("waiting")?,
            approvals: row.get("approvals")?,
            questions: row.get("questions")?,
        })
    })
}

/// The number of the last event of a room; 0 for a room without.
pub(super) fn room_head(conn: &Connection, room: &Room) -> Result<u64, StoreError> {
    let sql = "SELECT head FROM rooms WHERE room = ?1";
    Ok(first(conn, sql, [room.to_string()], |row| row.get(0))?.unwrap_or(0))
}

pub(super) fn session(conn: &Connection, id: &SessionId) -> Result<Option<Session>, StoreError> {
    first(conn, "SELECT * FROM sessions WHERE id = ?1", [id.as_str()], rows::session)
}

/// The session, which must exist.
pub(super) fn existing_session(conn: &Connection, id: &SessionId) -> Result<Session, StoreError> {
    session(conn, id)?.ok_or(StoreError::NotFound { what: "session" })
}

pub(super) fn run(conn: &Connection, id: &RunId) -> Result<Option<NumberedRun>, StoreError> {
    first(conn, "SELECT * FROM runs WHERE id = ?1", [id.as_str()], rows::run)
}

/// The run, which must exist, in this session.
pub(super) fn existing_run(
    conn: &Connection,
    session_id: &SessionId,
    id: &RunId,
) -> Result<NumberedRun, StoreError> {
    let found = run(conn, id)?.filter(|found| found.run.session_id == *session_id);
    found.ok_or(StoreError::NotFound { what: "run" })
}

pub(super) fn open_runs(
    conn: &Connection,
    session_id: &SessionId,
) -> Result<Vec<NumberedRun>, StoreError> {
    all(conn, OPEN_RUNS, [session_id.as_str()], rows::run)
}

/// The run that works, or that starts next.
pub(super) fn first_open_run(
    conn: &Connection,
    session_id: &SessionId,
) -> Result<Option<Run>, StoreError> {
    let found = first(conn, OPEN_RUNS, [session_id.as_str()], rows::run)?;
    Ok(found.map(|found| found.run))
}

/// A message without its parts.
pub(super) fn bare_message(
    conn: &Connection,
    session_id: &SessionId,
    id: &MessageId,
) -> Result<Option<Message>, StoreError> {
    let sql = "SELECT * FROM messages WHERE id = ?1 AND session_id = ?2";
    first(conn, sql, [id.as_str(), session_id.as_str()], rows::message)
}

/// The answer of a run, without its parts; none before the run starts.
pub(super) fn bare_answer(
    conn: &Connection,
    run: &NumberedRun,
) -> Result<Option<Message>, StoreError> {
    let sql = "SELECT * FROM messages WHERE session_id = ?1 AND run_number = ?2 AND place = 1";
    first(conn, sql, params![run.run.session_id.as_str(), run.number], rows::message)
}

/// The answer of a run; none before the run starts.
pub(super) fn answer(conn: &Connection, run: &NumberedRun) -> Result<Option<Message>, StoreError> {
    bare_answer(conn, run)?.map(|message| with_parts(conn, message)).transpose()
}

pub(super) fn message(
    conn: &Connection,
    session_id: &SessionId,
    id: &MessageId,
) -> Result<Option<Message>, StoreError> {
    bare_message(conn, session_id, id)?.map(|message| with_parts(conn, message)).transpose()
}

pub(super) fn with_parts(conn: &Connection, mut message: Message) -> Result<Message, StoreError> {
    message.parts = parts(conn, PARTS, [message.id.as_str()])?;
    Ok(message)
}

/// The parts that a statement finds: their bodies, and the blobs in which long ones are.
fn parts(conn: &Connection, sql: &str, key: impl Params) -> Result<Vec<Part>, StoreError> {
    let read = |row: &Row<'_>| Ok((row.get("body")?, row.get("blob")?));
    let found: Vec<(String, Option<Vec<u8>>)> = all(conn, sql, key, read)?;
    found.iter().map(|(body, blob)| part(conn, body, blob.as_deref())).collect()
}

/// A part whose body stands in its row; where a blob is named, that holds its long text, or all of it
/// when nothing stands in the row, or the file that goes with a message, which is no part of the part.
pub(super) fn part(conn: &Connection, body: &str, blob: Option<&[u8]>) -> Result<Part, StoreError> {
    let Some(hash) = blob else { return Ok(serde_json::from_str(body)?) };
    let hash = BlobHash::from_column(hash)?;
    if body.is_empty() {
        return Ok(serde_json::from_slice(&blobs::get(conn, hash)?)?);
    }
    let mut part = serde_json::from_str(body)?;
    if let Part::Attachment(_) = part {
        return Ok(part);
    }
    let bytes = blobs::get(conn, hash)?;
    let place = blobs::long_text_of(&mut part);
    *place.ok_or_else(|| StoreError::internal("a blob of a part without a text"))? =
        String::from_utf8(bytes).map_err(StoreError::internal)?;
    Ok(part)
}

/// The bytes of a message's parts, as JSON.
pub(super) fn parts_bytes(conn: &Connection, id: &MessageId) -> Result<usize, StoreError> {
    one(conn, PARTS_BYTES, [id.as_str()], |row| row.get(0))
}

/// A tool call of a message, which must exist.
pub(super) fn existing_call(
    conn: &Connection,
    message_id: &MessageId,
    id: &ToolCallId,
) -> Result<ToolPart, StoreError> {
    let sql = "SELECT body, blob FROM message_parts WHERE tool_call_id = ?1 AND message_id = ?2";
    let part = parts(conn, sql, [id.as_str(), message_id.as_str()])?.pop();
    part.and_then(call_of).ok_or(StoreError::NotFound { what: "tool call" })
}

/// A tool call that has no result.
pub(super) struct OpenCall {
    /// Of a damaged one only what its row says: its ids and its state.
    pub(super) call: ToolPart,
    pub(super) is_damaged: bool,
}

/// The tool calls of a message that have no result. One whose blob is damaged is among them: it must be
/// ended too.
pub(super) fn open_calls(
    conn: &Connection,
    message_id: &MessageId,
) -> Result<Vec<OpenCall>, StoreError> {
    let read = |row: &Row<'_>| {
        let known = ToolPart {
            id: column::word(row, "id")?,
            tool_call_id: column::word(row, "tool_call_id")?,
            tool_name: "unknown".to_owned(),
            input: Value::Object(Map::new()),
            state: column::word(row, "tool_state")?,
            output: None,
            attachment: None,
            error: None,
            metadata: None,
            provider_executed: false,
            started_at: None,
            ended_at: None,
        };
        Ok((known, row.get("body")?, row.get("blob")?))
    };
    let found: Vec<(ToolPart, String, Option<Vec<u8>>)> =
        all(conn, OPEN_CALLS, [message_id.as_str()], read)?;
    let mut calls = Vec::new();
    for (known, body, blob) in found {
        match part(conn, &body, blob.as_deref()) {
            Ok(part) => {
                calls.extend(call_of(part).map(|call| OpenCall { call, is_damaged: false }));
            }
            Err(StoreError::BlobCorrupt { .. }) => {
                calls.push(OpenCall { call: known, is_damaged: true });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(calls)
}

fn call_of(part: Part) -> Option<ToolPart> {
    match part {
        Part::Tool(call) => Some(call),
        Part::Text { .. }
        | Part::Reasoning { .. }
        | Part::Subtask(_)
        | Part::Compaction(_)
        | Part::AnswerFormat(_)
        | Part::Attachment(_)
        | Part::Step { .. } => None,
    }
}

pub(super) fn approval(
    conn: &Connection,
    session_id: &SessionId,
    tool_call_id: &ToolCallId,
) -> Result<Option<Approval>, StoreError> {
    let sql = "SELECT * FROM approvals WHERE tool_call_id = ?1 AND session_id = ?2";
    first(conn, sql, [tool_call_id.as_str(), session_id.as_str()], rows::approval)
}

pub(super) fn pending_approvals(conn: &Connection, run: &Run) -> Result<Vec<Approval>, StoreError> {
    let key = [run.session_id.as_str(), run.id.as_str()];
    all(conn, PENDING_APPROVALS, key, rows::approval)
}

/// Whether a person is to decide or to answer before the run can go on.
pub(super) fn waits_for_people(conn: &Connection, run: &Run) -> Result<bool, StoreError> {
    one(conn, WAITS_FOR_PEOPLE, [run.session_id.as_str(), run.id.as_str()], |row| row.get(0))
}

pub(super) fn agent(conn: &Connection, name: &str) -> Result<Option<Agent>, StoreError> {
    first(conn, "SELECT * FROM agents WHERE name = ?1", [name], rows::agent)
}

pub(super) fn file(conn: &Connection, path: &str) -> Result<Option<File>, StoreError> {
    first(conn, FILE, [path], rows::file)
}

/// The row that must be there.
pub(super) fn one<T>(
    conn: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<T, StoreError> {
    Ok(conn.prepare_cached(sql)?.query_row(params, read)?)
}

/// The first row, if there is one.
pub(super) fn first<T>(
    conn: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Option<T>, StoreError> {
    Ok(conn.prepare_cached(sql)?.query_row(params, read).optional()?)
}

/// All rows: only for statements that bound their number.
pub(super) fn all<T>(
    conn: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = conn.prepare_cached(sql)?;
    let rows = statement.query_map(params, read)?.collect::<Result<_, _>>()?;
    Ok(rows)
}
