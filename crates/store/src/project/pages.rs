//! The queries that answer more than one thing: pages, snapshots, histories and replays. All of them
//! are bounded and go through an index.

use std::str::FromStr;

use iris_protocol::{
    Approval, ApprovalId, ApprovalPage, ApprovalState, Message, MessagePage, MessageRole, Position,
    QueuedMessage, Room, RunId, RunPage, Session, SessionId, SessionPage, SessionSnapshot,
    limits::PAGE_MAX,
};
use rusqlite::{Connection, Params, Row, params};

use super::rows::{self, NumberedRun};
use super::{context, family, joining, queries, questions, retention, todos};
use crate::{StoreError, StoredEvent, column};

/// Most messages of a conversation's history that are read: those just before the run that asks, its own
/// included. It is twice the number of its runs, where none was joined.
pub const HISTORY_MESSAGES_MAX: u32 = 1_000;
/// Most bytes of parts, as JSON, in one page of messages or one snapshot; a single message that has
/// more is a page of its own.
pub const PAGE_BYTES_MAX: usize = 512 * 1024;

/// Sorts after every id.
const AFTER_EVERY_ID: &str = "~";
/// What an approval has that may be long.
const APPROVAL_TEXTS: [&str; 3] = ["input", "accesses", "original_input"];

const ACTIVE_SESSIONS: &str = "SELECT * FROM sessions
     WHERE status = 'active' AND parent_id IS NULL AND id < ?1 ORDER BY id DESC LIMIT ?2";
const KEPT_SESSIONS: &str = "SELECT * FROM sessions
     WHERE status <> 'deleted' AND parent_id IS NULL AND id < ?1 ORDER BY id DESC LIMIT ?2";
const ACTIVE_CHILDREN: &str = "SELECT * FROM sessions
     WHERE parent_id = ?3 AND status = 'active' AND id < ?1 ORDER BY id DESC LIMIT ?2";
const KEPT_CHILDREN: &str = "SELECT * FROM sessions
     WHERE parent_id = ?3 AND status <> 'deleted' AND id < ?1 ORDER BY id DESC LIMIT ?2";
const MESSAGES: &str = "SELECT * FROM messages
     WHERE session_id = ?1 AND (run_number, place) < (?2, ?3)
     ORDER BY run_number DESC, place DESC LIMIT ?4";
const HISTORY: &str = "SELECT * FROM messages
     WHERE session_id = ?1 AND run_number BETWEEN ?4 AND ?2 AND state <> 'superseded'
     ORDER BY run_number DESC, place DESC LIMIT ?3";
const RUNS: &str = "SELECT * FROM runs
     WHERE session_id = ?1 AND number < ?2 AND joins IS NULL ORDER BY number DESC LIMIT ?3";
const QUEUE: &str =
    "SELECT m.id, m.run_id, m.created_by, m.created_at, r.joins IS NOT NULL AS steers
     FROM runs r JOIN messages m
       ON m.session_id = r.session_id AND m.run_number = r.number AND m.place = 0
     WHERE r.session_id = ?1 AND r.ended_at IS NULL AND r.status = 'queued' ORDER BY r.number";
const LAST_ENDED_RUN: &str = "SELECT * FROM runs
     WHERE session_id = ?1 AND ended_at IS NOT NULL ORDER BY number DESC LIMIT 1";
const PENDING_APPROVALS: &str =
    "SELECT * FROM approvals WHERE session_id = ?1 AND state = 'pending' ORDER BY id";
const APPROVALS: &str =
    "SELECT * FROM approvals WHERE state = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3";
const APPROVALS_OF_SESSION: &str = "SELECT * FROM approvals
     WHERE state = ?1 AND id < ?2 AND session_id = ?4 ORDER BY id DESC LIMIT ?3";
const EVENTS: &str =
    "SELECT * FROM events WHERE room = ?1 AND seq > ?2 AND seq <= ?3 ORDER BY seq LIMIT ?4";
/// What comes before the first event of a room that is kept after a position.
const NEXT_PREV: &str = "SELECT prev FROM events WHERE room = ?1 AND seq > ?2 ORDER BY seq LIMIT 1";

/// The events of a room between two positions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replay {
    /// All of them, in order.
    Events(Vec<StoredEvent>),
    /// More than the caller takes.
    TooMuch,
    /// Some of them were dropped from the log.
    Dropped,
}

/// The place of a message in its session, which is the cursor of a page.
#[derive(Clone, Copy)]
struct Place {
    run_number: u32,
    place: u32,
}

impl Place {
    const AFTER_ALL: Self = Self { run_number: u32::MAX, place: 0 };

    fn parse(cursor: &str) -> Result<Self, StoreError> {
        let parsed = cursor.split_once('.').and_then(|(run_number, place)| {
            Some(Self { run_number: run_number.parse().ok()?, place: place.parse().ok()? })
        });
        parsed.ok_or_else(|| StoreError::InvalidCursor { cursor: cursor.to_owned() })
    }

    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self { run_number: row.get("run_number")?, place: row.get("place")? })
    }

    fn cursor(self) -> String {
        format!("{}.{}", self.run_number, self.place)
    }
}

pub(super) fn sessions(
    conn: &Connection,
    limit: u32,
    cursor: Option<&str>,
    include_archived: bool,
    parent_id: Option<&SessionId>,
) -> Result<SessionPage, StoreError> {
    let limit = limit.clamp(1, PAGE_MAX);
    let before = before::<SessionId>(cursor)?;
    let limit_read = limit + 1;
    let mut sessions = match parent_id {
        None => {
            let sql = if include_archived { KEPT_SESSIONS } else { ACTIVE_SESSIONS };
            queries::all(conn, sql, params![before, limit_read], rows::session)?
        }
        Some(parent) => {
            queries::existing_session(conn, parent)?;
            let sql = if include_archived { KEPT_CHILDREN } else { ACTIVE_CHILDREN };
            queries::all(conn, sql, params![before, limit_read, parent.as_str()], rows::session)?
        }
    };
    let has_more = cut(&mut sessions, limit);
    let last = sessions.last().map(|session: &Session| session.id.to_string());
    let next_cursor = last.filter(|_| has_more);
    let unread = Vec::new();
    Ok(SessionPage { sessions, unread, next_cursor, has_more, as_of: position(conn)? })
}

pub(super) fn approvals(
    conn: &Connection,
    session_id: Option<&SessionId>,
    state: ApprovalState,
    limit: u32,
    cursor: Option<&str>,
) -> Result<ApprovalPage, StoreError> {
    let limit = limit.clamp(1, PAGE_MAX);
    let (before, state) = (before::<ApprovalId>(cursor)?, column::to_word(&state)?);
    let (mut approvals, has_more) = if let Some(id) = session_id {
        queries::existing_session(conn, id)?;
        let key = params![state, before, limit + 1, id.as_str()];
        fitting(conn, APPROVALS_OF_SESSION, key, &APPROVAL_TEXTS, rows::approval)?
    } else {
        let key = params![state, before, limit + 1];
        fitting(conn, APPROVALS, key, &APPROVAL_TEXTS, rows::approval)?
    };
    let has_more = cut(&mut approvals, limit) || has_more;
    let last = approvals.last().map(|approval: &Approval| approval.id.to_string());
    Ok(ApprovalPage { approvals, next_cursor: last.filter(|_| has_more), has_more })
}

/// The id that comes after all of a page that is read backwards: the cursor, which is one of these ids.
pub(super) fn before<Id: FromStr>(cursor: Option<&str>) -> Result<&str, StoreError> {
    match cursor {
        None => Ok(AFTER_EVERY_ID),
        Some(cursor) if cursor.parse::<Id>().is_ok() => Ok(cursor),
        Some(cursor) => Err(StoreError::InvalidCursor { cursor: cursor.to_owned() }),
    }
}

/// What a statement finds, the first in any case, until their texts in `columns` have [`PAGE_BYTES_MAX`]
/// in all; and whether there is more.
pub(super) fn fitting<T>(
    conn: &Connection,
    sql: &str,
    key: impl Params,
    columns: &[&str],
    read: fn(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<(Vec<T>, bool), StoreError> {
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(key)?;
    let (mut found, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        for column in columns {
            bytes += row.get::<_, Option<String>>(*column)?.map_or(0, |text| text.len());
        }
        if bytes > PAGE_BYTES_MAX && !found.is_empty() {
            return Ok((found, true));
        }
        found.push(read(row)?);
    }
    Ok((found, false))
}

/// The messages just before the cursor, oldest first: at most `limit` and [`PAGE_BYTES_MAX`]. The
/// session must exist.
pub(super) fn messages(
    conn: &Connection,
    session_id: &SessionId,
    limit: u32,
    before: Option<&str>,
) -> Result<MessagePage, StoreError> {
    queries::existing_session(conn, session_id)?;
    let limit = limit.clamp(1, PAGE_MAX);
    let before = before.map_or(Ok(Place::AFTER_ALL), Place::parse)?;
    let key = params![session_id.as_str(), before.run_number, before.place, limit + 1];
    let read = |row: &Row<'_>| Ok((Place::of(row)?, rows::message(row)?));
    let mut found = queries::all(conn, MESSAGES, key, read)?;
    let mut has_more = cut(&mut found, limit);
    let fitting = fitting_messages(conn, &found)?;
    has_more |= cut(&mut found, fitting);
    let next_cursor = found.last().filter(|_| has_more).map(|(place, _)| place.cursor());
    let newest_first = found.into_iter().map(|(_, message)| message);
    let messages = all_with_parts(conn, newest_first.rev())?;
    Ok(MessagePage { messages, next_cursor, has_more })
}

/// All that a client needs to follow a session, as of one position.
pub(super) fn snapshot(
    conn: &Connection,
    session_id: &SessionId,
    limit: u32,
    before: Option<&str>,
) -> Result<Option<SessionSnapshot>, StoreError> {
    let Some(session) = queries::session(conn, session_id)? else { return Ok(None) };
    let MessagePage { messages, next_cursor, .. } = messages(conn, session_id, limit, before)?;
    let key = [session_id.as_str()];
    let queue = queries::all(conn, QUEUE, key, |row| {
        Ok(QueuedMessage {
            message_id: column::word(row, "id")?,
            run_id: column::word(row, "run_id")?,
            steers: row.get("steers")?,
            created_by: column::word(row, "created_by")?,
            created_at: row.get("created_at")?,
        })
    })?;
    let ended = queries::first(conn, LAST_ENDED_RUN, key, rows::run)?;
    let mut open = queries::open_runs(conn, session_id)?;
    // What waits to join one is part of that.
    open.retain(|run| run.joins.is_none());
    let runs = ended.into_iter().chain(open).map(|NumberedRun { run, .. }| run).collect();
    let mut approvals = queries::all(conn, PENDING_APPROVALS, key, rows::approval)?;
    let mut questions = questions::pending(conn, session_id)?;
    let (of_sub_agents, asked_by_sub_agents) = family::waiting_below(conn, session_id)?;
    approvals.extend(of_sub_agents);
    questions.extend(asked_by_sub_agents);
    Ok(Some(SessionSnapshot {
        session,
        messages,
        next_cursor,
        queue,
        runs,
        approvals,
        questions,
        todos: todos::of_session(conn, session_id)?,
        unread: None,
        as_of: position(conn)?,
    }))
}

/// The conversation as a run sees it: the messages of the runs before it and its own, the answer as
/// far as it is recorded included, oldest first, from the run with the last summary on, at most
/// [`HISTORY_MESSAGES_MAX`].
pub(super) fn history(
    conn: &Connection,
    session_id: &SessionId,
    run_id: &RunId,
) -> Result<Vec<Message>, StoreError> {
    let run = queries::existing_run(conn, session_id, run_id)?;
    let found = current(conn, session_id, joining::last_of(conn, &run)?)?;
    all_with_parts(conn, found.into_iter().map(|(_, message)| message))
}

/// The messages up to a place that models read, without their parts, each with its number, oldest first:
/// what is superseded is left out, and it begins with a question.
pub(super) fn current(
    conn: &Connection,
    session_id: &SessionId,
    last: u32,
) -> Result<Vec<(u32, Message)>, StoreError> {
    let summarized = context::last_compaction(conn, session_id, last)?;
    let key = params![session_id.as_str(), last, HISTORY_MESSAGES_MAX, summarized];
    let read = |row: &Row<'_>| Ok((row.get("run_number")?, rows::message(row)?));
    let mut found: Vec<(u32, Message)> = queries::all(conn, HISTORY, key, read)?;
    let starts =
        |message: &Message| message.role != MessageRole::Assistant && message.after_step.is_none();
    if found.len() == HISTORY_MESSAGES_MAX as usize {
        let first = found.iter().rposition(|(_, message)| starts(message));
        found.truncate(first.map_or(0, |first| first + 1));
    }
    found.reverse();
    Ok(found)
}

/// The runs of a session, newest first. The session must exist.
pub(super) fn runs(
    conn: &Connection,
    session_id: &SessionId,
    limit: u32,
    cursor: Option<&str>,
) -> Result<RunPage, StoreError> {
    queries::existing_session(conn, session_id)?;
    let limit = limit.clamp(1, PAGE_MAX);
    let invalid = |cursor: &str| StoreError::InvalidCursor { cursor: cursor.to_owned() };
    let before: u32 = match cursor {
        None => u32::MAX,
        Some(cursor) => cursor.parse().map_err(|_| invalid(cursor))?,
    };
    let key = params![session_id.as_str(), before, limit + 1];
    let mut found = queries::all(conn, RUNS, key, rows::run)?;
    let has_more = cut(&mut found, limit);
    let next_cursor = found.last().filter(|_| has_more).map(|last| last.number.to_string());
    let runs = found.into_iter().map(|NumberedRun { run, .. }| run).collect();
    Ok(RunPage { runs, next_cursor, has_more })
}

/// The events of a room after `since` and up to `to`, when they are few and small enough, and all of
/// them are there: each event names the one before it in its room, and the head of a room outlives
/// its events.
pub(super) fn replay(
    conn: &Connection,
    room: &Room,
    (since, to): (u64, u64),
    events_max: usize,
    bytes_max: usize,
) -> Result<Replay, StoreError> {
    let (first, to) = (i64::try_from(since), i64::try_from(to).unwrap_or(i64::MAX));
    let Ok(first) = first else { return Ok(Replay::Events(Vec::new())) };
    let mut statement = conn.prepare_cached(EVENTS)?;
    let mut rows = statement.query(params![room.to_string(), first, to, events_max + 1])?;
    let mut events: Vec<StoredEvent> = Vec::new();
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let event = rows::event(row)?;
        let follows = match events.last() {
            None => event.prev <= since,
            Some(last) => event.prev == last.seq,
        };
        if !follows {
            return Ok(Replay::Dropped);
        }
        bytes += event.payload.len();
        if events.len() == events_max || bytes > bytes_max {
            return Ok(Replay::TooMuch);
        }
        events.push(event);
    }
    if events.is_empty() && drops_after(conn, room, since)? {
        return Ok(Replay::Dropped);
    }
    Ok(Replay::Events(events))
}

/// Whether the event that came next in a room is gone.
fn drops_after(conn: &Connection, room: &Room, since: u64) -> Result<bool, StoreError> {
    if since >= retention::retention(conn)?.floor {
        return Ok(false);
    }
    let key = params![room.to_string(), since];
    let next: Option<u64> = queries::first(conn, NEXT_PREV, key, |row| row.get(0))?;
    match next {
        Some(prev) => Ok(prev > since),
        None => Ok(queries::room_head(conn, room)? > since),
    }
}

fn position(conn: &Connection) -> Result<Position, StoreError> {
    Ok(Position { epoch: queries::epoch(conn)?, seq: queries::head(conn)? })
}

fn all_with_parts(
    conn: &Connection,
    messages: impl Iterator<Item = Message>,
) -> Result<Vec<Message>, StoreError> {
    messages.map(|message| queries::with_parts(conn, message)).collect()
}

/// How many of the messages, the first in any case, have parts of [`PAGE_BYTES_MAX`] in all.
fn fitting_messages(conn: &Connection, found: &[(Place, Message)]) -> Result<u32, StoreError> {
    let (mut count, mut bytes) = (0, 0);
    for (_, message) in found {
        bytes += queries::parts_bytes(conn, &message.id)?;
        if count > 0 && bytes > PAGE_BYTES_MAX {
            break;
        }
        count += 1;
    }
    Ok(count)
}

/// Drops what was read beyond the page, and tells whether there was anything.
pub(super) fn cut<T>(entries: &mut Vec<T>, limit: u32) -> bool {
    let limit = limit as usize;
    let has_more = entries.len() > limit;
    entries.truncate(limit);
    has_more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_a_round_trip_and_nonsense_is_refused() {
        let place = Place { run_number: 12, place: 1 };
        assert_eq!(Place::parse(&place.cursor()).unwrap().cursor(), "12.1");
        for cursor in ["", "12", "12.", "x.1", "12.1.3", "-1.0", "99999999999.0"] {
            assert!(Place::parse(cursor).is_err(), "{cursor} was accepted");
        }
    }
}
