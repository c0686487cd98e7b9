//! Sessions that begin with what the model knows of another one: its messages up to one of them, what
//! providers want back with them, what tools answered, and the to-do list.
//!
//! It is one command, so that there is a whole fork or none; its work is bounded by what a model is given of
//! a conversation and by [`FORKED_PARTS_MAX`]. Ids in the fork are made of its own id and the old ones, but
//! for those of tool calls, which texts may name: they stay. Deliberately absent: sessions of sub-agents,
//! rules and remembered answers of the session, and what it cost.

use iris_protocol::limits::FORKED_PARTS_MAX;
use iris_protocol::{
    Event, Message, MessageId, MessageRole, MessageState, PartId, RunId, RunStatus, Session,
    SessionId, SessionMode, SessionState, SessionStatus, Usage, UserId,
};
use rusqlite::{Connection, Row, params};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::blobs::{self, BlobHash};
use super::quotas::Quotas;
use super::rows::{self, NumberedRun};
use super::sessions::session_busy;
use super::{dequeuing, joining, log, pages, queries, records, search, titles};
use crate::{Command, StoreError, WriteTx, column};

/// Most bytes of parts that are too long for their rows and are written anew.
const REWRITTEN_BYTES_MAX: usize = 64 * 1024 * 1024;

const MESSAGE: &str = "SELECT * FROM messages WHERE id = ?1 AND session_id = ?2";
const COUNT_PARTS: &str = "SELECT count(*) FROM message_parts WHERE message_id = ?1";
const PARTS: &str = "SELECT id, ordinal, tool_call_id, tool_state, body, blob FROM message_parts
     WHERE message_id = ?1 ORDER BY ordinal";

/// Begins a session with the messages of another one up to `message_id`, that one included: an answer with
/// all that joined its run. Without it, up to the last run that has ended. Answers the new session.
///
/// Fails with `NotFound` (session, message), `QuotaExceeded`, `BlobCorrupt`, or `Conflict`: `session_busy`
/// when the message waits or its run works, `message_superseded`, `fork_too_large` when it would have more
/// than [`FORKED_PARTS_MAX`] parts.
#[derive(Debug, Clone)]
pub struct ForkSession {
    /// The session.
    pub session_id: SessionId,
    /// The last message.
    pub message_id: Option<MessageId>,
    /// A new id for the other session; the ids in it are made of it.
    pub fork_id: SessionId,
    /// Its title; that of the session without one.
    pub title: Option<String>,
    /// How tool calls are judged in it.
    pub mode: SessionMode,
    /// The user who wants it.
    pub by: UserId,
    /// The most that the project may hold.
    pub quotas: Quotas,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for ForkSession {
    type Output = Session;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Session, StoreError> {
        let source = queries::existing_session(tx.conn(), &self.session_id)?;
        if source.status == SessionStatus::Deleted {
            return Err(StoreError::NotFound { what: "session" });
        }
        let messages = self.messages(tx.conn())?;
        let parts = count_parts(tx.conn(), &messages)?;
        self.quotas.check_rows(tx.conn(), (messages.len() + parts).max(1) as u64)?;
        let last = messages.last().map(|(_, message)| message.id.clone());
        let fork = Session {
            id: self.fork_id.clone(),
            parent_id: None,
            title: self.title.clone().unwrap_or(source.title),
            agent: source.agent,
            model: source.model,
            mode: self.mode,
            status: SessionStatus::Active,
            state: SessionState::Idle,
            created_by: self.by.clone(),
            created_at: self.at,
            updated_at: self.at,
            archived_at: None,
            message_count: messages.len() as u64,
            usage: Usage::default(),
            budget: source.budget,
            capturing: None,
        };
        records::insert_session(tx.conn(), &fork)?;
        if self.title.is_none() && titles::is_untitled(tx.conn(), &self.session_id)? {
            titles::mark_untitled(tx.conn(), &fork.id)?;
        }
        self.copy(tx.conn(), messages)?;
        let (at, by) = (self.at, Some(&self.by));
        let created = Event::SessionCreated { session: fork.clone() };
        log::in_both(tx, &fork.id, at, by, &created)?;
        let forked = Event::SessionForked {
            session_id: self.session_id.clone(),
            message_id: last,
            fork: fork.clone(),
        };
        log::in_session(tx, &self.session_id, at, by, &forked)?;
        Ok(fork)
    }
}

/// A part as it stands in its row.
struct StoredPart {
    id: PartId,
    ordinal: u32,
    tool_call_id: Option<String>,
    tool_state: Option<String>,
    body: String,
    blob: Option<Vec<u8>>,
}

impl StoredPart {
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: column::word(row, "id")?,
            ordinal: row.get("ordinal")?,
            tool_call_id: row.get("tool_call_id")?,
            tool_state: row.get("tool_state")?,
            body: row.get("body")?,
            blob: row.get("blob")?,
        })
    }
}

impl ForkSession {
    /// What a model would be given of the conversation up to the chosen message, without the parts, each with
    /// its number.
    fn messages(&self, conn: &Connection) -> Result<Vec<(u32, Message)>, StoreError> {
        let id = &self.session_id;
        let Some(message_id) = &self.message_id else {
            let open = queries::open_runs(conn, id)?;
            let last = open.first().map_or(u32::MAX, |run| run.number.saturating_sub(1));
            return pages::current(conn, id, last);
        };
        let read =
            |row: &Row<'_>| Ok((row.get("run_number")?, row.get("place")?, rows::message(row)?));
        let key = [message_id.as_str(), id.as_str()];
        let found: Option<(u32, u32, Message)> = queries::first(conn, MESSAGE, key, read)?;
        let (number, place, chosen) = found.ok_or(StoreError::NotFound { what: "message" })?;
        if chosen.state == MessageState::Superseded {
            let message = "the message is superseded: the model does not know of it";
            return Err(StoreError::conflict("message_superseded", message));
        }
        let is_question = place == 0 && chosen.after_step.is_none();
        let last = if is_question {
            let queued =
                queries::first(conn, dequeuing::RUN_OF, params![id.as_str(), number], rows::run)?;
            if queued.is_some_and(|found| found.run.status == RunStatus::Queued) {
                return Err(session_busy());
            }
            number
        } else {
            let run = ended_run(conn, &chosen)?;
            if place == 1 { joining::last_of(conn, &run)? } else { number }
        };
        let mut messages = pages::current(conn, id, last)?;
        if is_question {
            // Its answer has the same number.
            messages.pop_if(|(_, message)| message.id != chosen.id);
        }
        Ok(messages)
    }

    fn copy(&self, conn: &Connection, messages: Vec<(u32, Message)>) -> Result<(), StoreError> {
        let last = messages.last().map_or(0, |(number, _)| *number);
        let (mut known, mut bytes) = (Vec::new(), 0);
        for (number, message) in messages {
            let run_id = message.run_id.clone().filter(|id| !known.contains(id));
            if let Some(run_id) = run_id {
                self.copy_run(conn, &run_id)?;
                known.push(run_id);
            }
            let place = u32::from(message.role == MessageRole::Assistant);
            let copy = Message {
                id: MessageId::from_bits(self.derived(message.id.as_str())),
                session_id: self.fork_id.clone(),
                run_id: message.run_id.as_ref().map(|id| self.run_id(id)),
                ..message.clone()
            };
            records::insert_message(conn, &copy, number, place)?;
            records::save_message(conn, &copy)?;
            for part in queries::all(conn, PARTS, [message.id.as_str()], StoredPart::of)? {
                bytes += self.copy_part(conn, &copy.id, &part)?;
                if bytes > REWRITTEN_BYTES_MAX {
                    return Err(too_large());
                }
            }
        }
        let sql = "UPDATE sessions SET last_run = ?2,
                   left_out_to = (SELECT left_out_to FROM sessions WHERE id = ?3) WHERE id = ?1";
        let key = params![self.fork_id.as_str(), last, self.session_id.as_str()];
        conn.prepare_cached(sql)?.execute(key)?;
        let sql = "INSERT INTO todos (session_id, place, id, content, status, priority)
                   SELECT ?2, place, id, content, status, priority FROM todos WHERE session_id = ?1";
        let key = [self.session_id.as_str(), self.fork_id.as_str()];
        conn.prepare_cached(sql)?.execute(key)?;
        Ok(())
    }

    /// The run of a message, ended in any case; what it cost is counted where it worked.
    fn copy_run(&self, conn: &Connection, id: &RunId) -> Result<(), StoreError> {
        let Some(NumberedRun { number, mut run, .. }) = queries::run(conn, id)? else {
            return Ok(());
        };
        run.id = self.run_id(id);
        run.session_id = self.fork_id.clone();
        run.usage = Usage::default();
        run.ended_at = run.ended_at.or(Some(self.at));
        run.status = match run.status {
            RunStatus::Completed | RunStatus::Failed => run.status,
            // Nobody goes on with it there.
            RunStatus::Queued
            | RunStatus::Running
            | RunStatus::Waiting
            | RunStatus::Cancelled
            | RunStatus::Interrupted => RunStatus::Cancelled,
        };
        records::insert_run(conn, &run, number)?;
        records::save_run(conn, &run)
    }

    /// Answers how many bytes had to be written beside the row.
    fn copy_part(
        &self,
        conn: &Connection,
        message_id: &MessageId,
        part: &StoredPart,
    ) -> Result<usize, StoreError> {
        let id = PartId::from_bits(self.derived(part.id.as_str()));
        let (whole, blob) = match &part.blob {
            Some(hash) if part.body.is_empty() => {
                (Some(blobs::get(conn, BlobHash::from_column(hash)?)?), None)
            }
            Some(hash) => (None, Some(BlobHash::from_column(hash)?)),
            None => (None, None),
        };
        let body = whole.as_deref().unwrap_or(part.body.as_bytes());
        let mut body: Value = serde_json::from_slice(body)?;
        if let Some(fields) = body.as_object_mut() {
            fields.insert("id".to_owned(), Value::String(id.to_string()));
            // It works for the other session.
            if fields.get("type").is_some_and(|it| it == "subtask")
                && let Some(state) = fields.get_mut("state").filter(|it| *it == "running")
            {
                *state = Value::String("interrupted".to_owned());
            }
        }
        let is_text = body.get("type").is_some_and(|it| it == "text");
        let body = body.to_string();
        let (body, blob, bytes) = match whole {
            Some(_) => (String::new(), Some(blobs::put_on(conn, body.as_bytes())?), body.len()),
            None => (body, blob, 0),
        };
        let sql =
            "INSERT INTO message_parts (id, message_id, ordinal, tool_call_id, tool_state, body,
                     blob)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        conn.prepare_cached(sql)?.execute(params![
            id.as_str(),
            message_id.as_str(),
            part.ordinal,
            part.tool_call_id,
            part.tool_state,
            body,
            blob.map(|BlobHash(hash)| hash),
        ])?;
        if is_text {
            search::note_text(conn, &id)?;
        }
        self.copy_what_belongs_to(conn, message_id, part, &id)?;
        Ok(bytes)
    }

    /// What a provider wants back with a part, that it is a summary, and what its call was answered with
    /// besides.
    fn copy_what_belongs_to(
        &self,
        conn: &Connection,
        message_id: &MessageId,
        part: &StoredPart,
        id: &PartId,
    ) -> Result<(), StoreError> {
        let sql = "INSERT INTO provider_data
                       (part_id, message_id, kind, data, provider_id, model_id, key_print)
                   SELECT ?2, ?3, kind, data, provider_id, model_id, key_print
                   FROM provider_data WHERE part_id = ?1";
        let key = [part.id.as_str(), id.as_str(), message_id.as_str()];
        conn.prepare_cached(sql)?.execute(key)?;
        let sql = "INSERT INTO compactions (part_id, message_id, session_id, run_number)
                   SELECT ?2, ?3, ?4, run_number FROM compactions WHERE part_id = ?1";
        let key = [part.id.as_str(), id.as_str(), message_id.as_str(), self.fork_id.as_str()];
        conn.prepare_cached(sql)?.execute(key)?;
        let Some(call_id) = &part.tool_call_id else { return Ok(()) };
        let sql = "INSERT INTO tool_outputs (session_id, tool_call_id, mime_type, blob)
                   SELECT ?3, tool_call_id, mime_type, blob FROM tool_outputs
                   WHERE session_id = ?1 AND tool_call_id = ?2";
        let key = [self.session_id.as_str(), call_id.as_str(), self.fork_id.as_str()];
        conn.prepare_cached(sql)?.execute(key)?;
        Ok(())
    }

    fn run_id(&self, id: &RunId) -> RunId {
        RunId::from_bits(self.derived(id.as_str()))
    }

    /// The bits of an id of the fork: the same for the same old id, and of no other fork.
    fn derived(&self, id: &str) -> u128 {
        let digest = Sha256::new_with_prefix(self.fork_id.as_str()).chain_update(id).finalize();
        digest.iter().take(16).fold(0, |bits, byte| bits << 8 | u128::from(*byte))
    }
}

/// The run of an answer, or of what joined it; the message changes until that has ended.
fn ended_run(conn: &Connection, message: &Message) -> Result<NumberedRun, StoreError> {
    let run = message.run_id.as_ref().map(|id| queries::run(conn, id)).transpose()?.flatten();
    let run = run.ok_or(StoreError::NotFound { what: "run" })?;
    if run.run.ended_at.is_none() { Err(session_busy()) } else { Ok(run) }
}

fn count_parts(conn: &Connection, messages: &[(u32, Message)]) -> Result<usize, StoreError> {
    let mut count = 0;
    for (_, message) in messages {
        count += queries::one(conn, COUNT_PARTS, [message.id.as_str()], |r| r.get::<_, usize>(0))?;
        if count > FORKED_PARTS_MAX {
            return Err(too_large());
        }
    }
    Ok(count)
}

fn too_large() -> StoreError {
    let message = format!(
        "the fork would have more than `{FORKED_PARTS_MAX}` parts of messages, or long ones of too many \
         bytes"
    );
    StoreError::conflict("fork_too_large", message)
}
