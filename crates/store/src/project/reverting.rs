//! Undoing turns: which messages and files that is about, and recording that it is done.
//!
//! The files are put back by others, between [`super::BeginRestore`] and [`super::RecordFiles`]; in the
//! transaction of the latter the messages become what belongs to them.

mod planning;

use iris_protocol::limits::REVERTS_KEPT_MAX;
use iris_protocol::{
    Event, MessageId, MessageState, RevertOutcome, SessionId, SessionState, UserId,
};
use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};

use super::files::RestoreTarget;
use super::sessions::{active, save_in_state, session_busy};
use super::superseding::save_in_message_state;
use super::{files, queries};
use crate::column::{json, to_json, to_word, word};
use crate::{StoreError, WriteTx};

pub use planning::{PathThen, Undoing};
pub(super) use planning::{revert as plan_revert, unrevert as plan_unrevert};

const LAST_RUN: &str = "SELECT last_run FROM sessions WHERE id = ?1";
const NEWEST: &str = "SELECT * FROM session_reverts WHERE session_id = ?1
     ORDER BY number DESC LIMIT 1";
const INSERT: &str =
    "INSERT INTO session_reverts (session_id, message_id, last_run, state, messages, files, at)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
const DELETE: &str = "DELETE FROM session_reverts WHERE number = ?1";
/// What can never be undone again: others stand before it, or something was said since.
const DROP: &str = "DELETE FROM session_reverts WHERE session_id = ?1 AND (last_run <> ?2
       OR number <= (SELECT number FROM session_reverts WHERE session_id = ?1
                     ORDER BY number DESC LIMIT 1 OFFSET ?3))";

/// What becomes of the messages once the files are put back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndRevert {
    /// What is answered and told.
    pub outcome: RevertOutcome,
    /// Of the messages that are superseded; those of the revert that is undone are known.
    pub messages: Vec<MessageId>,
    /// The last run of the session when this was planned.
    pub last_run: u32,
    /// What each file held before.
    pub before: Vec<RestoreTarget>,
    /// The revert that is undone; none where turns are.
    pub undoes: Option<i64>,
}

/// A revert that can be undone.
#[derive(Debug, Clone, PartialEq, Eq)]
struct StoredRevert {
    number: i64,
    message_id: MessageId,
    last_run: u32,
    state: SessionState,
    messages: Vec<(MessageId, MessageState)>,
    files: Vec<RevertedFile>,
}

/// A file that a revert changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct RevertedFile {
    path: String,
    /// None where nothing was there.
    before: Option<u64>,
    after: u64,
}

fn stored(row: &Row<'_>) -> rusqlite::Result<StoredRevert> {
    Ok(StoredRevert {
        number: row.get("number")?,
        message_id: word(row, "message_id")?,
        last_run: row.get("last_run")?,
        state: word(row, "state")?,
        messages: json(row, "messages")?,
        files: json(row, "files")?,
    })
}

fn last_run(conn: &Connection, id: &SessionId) -> Result<u32, StoreError> {
    queries::one(conn, LAST_RUN, [id.as_str()], |row| row.get(0))
}

/// The session is in use, and no run of it is open.
fn check_rests(conn: &Connection, id: &SessionId) -> Result<(), StoreError> {
    active(conn, id)?;
    queries::first_open_run(conn, id)?.map_or(Ok(()), |_| Err(session_busy()))
}

/// The revert of a session that can be undone.
fn newest(conn: &Connection, id: &SessionId) -> Result<StoredRevert, StoreError> {
    let found = queries::first(conn, NEWEST, [id.as_str()], stored)?;
    let last_run = last_run(conn, id)?;
    found.filter(|found| found.last_run == last_run).ok_or_else(|| {
        let message = "nothing of the session is reverted, or something was said in it since";
        StoreError::conflict("not_reverted", message)
    })
}

/// Nothing happened in the session since it was planned.
pub(super) fn check(conn: &Connection, end: &EndRevert) -> Result<(), StoreError> {
    let id = &end.outcome.session_id;
    check_rests(conn, id)?;
    let is_same = match end.undoes {
        None => last_run(conn, id)? == end.last_run,
        Some(number) => newest(conn, id)?.number == number,
    };
    if is_same { Ok(()) } else { Err(session_busy()) }
}

/// Has the messages be what belongs to the files now.
pub(super) fn end(
    tx: &mut WriteTx<'_>,
    end: &EndRevert,
    by: Option<&UserId>,
    at: i64,
) -> Result<(), StoreError> {
    check(tx.conn(), end)?;
    match end.undoes {
        None => supersede(tx, end, by, at),
        Some(_) => bring_back(tx, end, by, at),
    }
}

fn supersede(
    tx: &mut WriteTx<'_>,
    end: &EndRevert,
    by: Option<&UserId>,
    at: i64,
) -> Result<(), StoreError> {
    let session_id = &end.outcome.session_id;
    let mut messages = Vec::with_capacity(end.messages.len());
    for id in &end.messages {
        let message = existing_message(tx.conn(), session_id, id)?;
        messages.push((id.clone(), message.state));
        save_in_message_state(tx, message, MessageState::Superseded, by, at)?;
    }
    let mut files = Vec::with_capacity(end.before.len());
    for RestoreTarget { path, version: before } in end.before.clone() {
        let newest = files::newest(tx.conn(), &path)?;
        let after = newest.map_or(0, |newest| newest.version.version);
        files.push(RevertedFile { path, before, after });
    }
    let mut session = active(tx.conn(), session_id)?;
    tx.conn().prepare_cached(INSERT)?.execute(params![
        session_id.as_str(),
        end.outcome.message_id.as_str(),
        end.last_run,
        to_word(&session.state)?,
        to_json(&messages)?,
        to_json(&files)?,
        at,
    ])?;
    let kept = params![session_id.as_str(), end.last_run, REVERTS_KEPT_MAX];
    tx.conn().prepare_cached(DROP)?.execute(kept)?;
    let RevertOutcome { session_id, message_id, message_count, file_count, files, .. } =
        end.outcome.clone();
    let (changed_since, skipped) = (end.outcome.changed_since.clone(), end.outcome.skipped.clone());
    let event = Event::SessionReverted {
        session_id,
        message_id,
        message_count,
        file_count,
        files,
        changed_since,
        skipped,
    };
    // What was interrupted is undone: there is nothing to resume.
    save_in_state(tx, &mut session, SessionState::Idle, at, by)?;
    super::log::in_session(tx, &end.outcome.session_id, at, by, &event)
}

fn bring_back(
    tx: &mut WriteTx<'_>,
    end: &EndRevert,
    by: Option<&UserId>,
    at: i64,
) -> Result<(), StoreError> {
    let session_id = &end.outcome.session_id;
    let revert = newest(tx.conn(), session_id)?;
    for (id, state) in revert.messages {
        let message = existing_message(tx.conn(), session_id, &id)?;
        save_in_message_state(tx, message, state, by, at)?;
    }
    tx.conn().prepare_cached(DELETE)?.execute([revert.number])?;
    let RevertOutcome { session_id, message_id, message_count, file_count, files, .. } =
        end.outcome.clone();
    let (changed_since, skipped) = (end.outcome.changed_since.clone(), end.outcome.skipped.clone());
    let event = Event::SessionUnreverted {
        session_id,
        message_id,
        message_count,
        file_count,
        files,
        changed_since,
        skipped,
    };
    let mut session = active(tx.conn(), &end.outcome.session_id)?;
    save_in_state(tx, &mut session, revert.state, at, by)?;
    super::log::in_session(tx, &end.outcome.session_id, at, by, &event)
}

fn existing_message(
    conn: &Connection,
    session_id: &SessionId,
    id: &MessageId,
) -> Result<iris_protocol::Message, StoreError> {
    let found = queries::bare_message(conn, session_id, id)?;
    found.ok_or(StoreError::NotFound { what: "message" })
}
