//! What sessions ask their model providers, recorded while somebody debugs them.
//!
//! The records of a session and of its sub-agents belong to one capture: it bounds their number and their
//! bytes, and the oldest make room. That a session is recorded stands in its own row, so that whoever is in it
//! is told, and so that what asks a provider finds out without another query.

use iris_protocol::limits::{CAPTURE_RECORDS_MAX, CAPTURES_MAX, PAGE_MAX};
use iris_protocol::{
    Capture, CaptureEnd, CaptureId, CapturePage, CaptureRecord, CapturedExchange, Capturing, Event,
    Session, SessionId, UserId,
};
use rusqlite::{Connection, Row, params};

use super::sessions::active_session;
use super::{family, log, pages, queries, quotas::Quotas};
use crate::{Command, StoreError, WhenFull, WriteTx, column};

const CAPTURE: &str = "SELECT * FROM captures WHERE session_id = ?1";
const KEPT: &str =
    "SELECT count(*), coalesce(sum(bytes), 0) FROM capture_records WHERE captured = ?1";
const OLDEST: &str =
    "SELECT id, bytes FROM capture_records WHERE captured = ?1 ORDER BY id LIMIT 1";
const PAGE: &str = "SELECT id, record FROM capture_records
     WHERE captured = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3";
const ON: &str = "SELECT id, capturing FROM sessions WHERE capturing IS NOT NULL";

/// Begins to record a session and its sub-agents, or makes that last longer. Answers the capture.
///
/// Fails with `NotFound`, with `Conflict`: `session_archived`, `session_deleted`, `session_of_sub_agent`; with
/// `QuotaExceeded` (`captures_quota`) where too many sessions of the project have captures, and where it has no
/// room for this one.
#[derive(Debug, Clone)]
pub struct StartCapture {
    /// The session.
    pub session_id: SessionId,
    /// When it ends, in milliseconds since 1970 UTC.
    pub until: i64,
    /// Most bytes that are kept.
    pub bytes_max: u64,
    /// The user who wants it.
    pub by: UserId,
    /// The most that the project may hold.
    pub quotas: Quotas,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for StartCapture {
    type Output = Capture;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Capture, StoreError> {
        let session = active_session(tx, &self.session_id)?;
        if session.parent_id.is_some() {
            let message = "a sub-agent is recorded with the session that set it to work";
            return Err(StoreError::conflict("session_of_sub_agent", message));
        }
        self.quotas.check_rows(tx.conn(), 1)?;
        refuse_too_many(tx.conn(), &self.session_id)?;
        let sql = "INSERT INTO captures (session_id, started_by, since, until, bytes_max)
                   VALUES (?1, ?2, ?3, ?4, ?5)
                   ON CONFLICT (session_id) DO UPDATE SET
                     started_by = excluded.started_by, until = excluded.until,
                     bytes_max = excluded.bytes_max,
                     since = iif(ended_at IS NULL, since, excluded.since), ended_at = NULL";
        let (id, by) = (self.session_id.as_str(), self.by.as_str());
        let row = params![id, by, self.at, self.until, self.bytes_max];
        tx.conn().prepare_cached(sql)?.execute(row)?;
        make_room(tx.conn(), &self.session_id, self.bytes_max)?;
        let capture = existing(tx.conn(), &self.session_id)?;
        let capturing = Capturing {
            session_id: self.session_id,
            by: self.by,
            since: capture.since,
            until: capture.until,
        };
        for mut session in with_sub_agents(tx.conn(), session)? {
            session.capturing = Some(capturing.clone());
            save(tx.conn(), &session)?;
            let id = session.id.clone();
            let event = Event::SessionCaptureStarted { session };
            log::in_both(tx, &id, self.at, Some(&capturing.by), &event)?;
        }
        Ok(capture)
    }
}

/// Ends the recording of a session, if it goes on, and deletes what was recorded if that is wanted. Answers the
/// capture as it is then.
///
/// Fails with `NotFound` (session, capture).
#[derive(Debug, Clone)]
pub struct StopCapture {
    /// The session.
    pub session_id: SessionId,
    /// Whether what was recorded is deleted.
    pub discard: bool,
    /// The user who wants it.
    pub by: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for StopCapture {
    type Output = Capture;

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Capture, StoreError> {
        queries::existing_session(tx.conn(), &self.session_id)?;
        existing(tx.conn(), &self.session_id)?;
        end(tx, &self.session_id, CaptureEnd::Stopped, Some(&self.by), self.at)?;
        let mut capture = existing(tx.conn(), &self.session_id)?;
        if self.discard {
            forget(tx.conn(), &self.session_id)?;
            (capture.records, capture.bytes) = (0, 0);
        }
        Ok(capture)
    }
}

/// Keeps one exchange with a provider; the oldest make room for it. One whose capture is over, or whose session
/// is gone, is not kept. Answers whether it is.
#[derive(Debug, Clone)]
pub struct KeepExchange {
    /// The recorded session.
    pub captured: SessionId,
    /// The exchange, without secrets.
    pub exchange: CapturedExchange,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for KeepExchange {
    type Output = bool;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<bool, StoreError> {
        let Self { captured, exchange, at } = self;
        let conn = tx.conn();
        let Some(capture) = find(conn, &captured)? else { return Ok(false) };
        // What was asked while it went on is kept.
        let is_over = capture.ended_at.is_some_and(|ended_at| exchange.record.at > ended_at);
        if is_over || queries::session(conn, &exchange.record.session_id)?.is_none() {
            return Ok(false);
        }
        let (record, whole) = (column::to_json(&exchange.record)?, column::to_json(&exchange)?);
        let bytes = (record.len() + whole.len()) as u64;
        make_room(conn, &captured, capture.bytes_max.saturating_sub(bytes))?;
        let sql =
            "INSERT INTO capture_records (id, captured, session_id, at, bytes, record, exchange)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        let (id, session_id) = (exchange.record.id.as_str(), exchange.record.session_id.as_str());
        let row = params![id, captured.as_str(), session_id, at, bytes, record, whole];
        conn.prepare_cached(sql)?.execute(row)?;
        Ok(true)
    }
}

/// Ends the captures whose time is over, and deletes records that are older than `keep_since` and captures that
/// have none left.
#[derive(Debug, Clone, Copy)]
pub struct ExpireCaptures {
    /// From when on records are kept, in milliseconds since 1970 UTC.
    pub keep_since: i64,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for ExpireCaptures {
    type Output = ();

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        let sql = "SELECT session_id FROM captures WHERE ended_at IS NULL AND until <= ?1";
        let over: Vec<SessionId> =
            queries::all(tx.conn(), sql, [self.at], |row| column::word(row, "session_id"))?;
        for id in over {
            end(tx, &id, CaptureEnd::Expired, None, self.at)?;
        }
        let sql = "DELETE FROM capture_records WHERE at < ?1";
        tx.conn().prepare_cached(sql)?.execute([self.keep_since])?;
        let sql = "DELETE FROM captures WHERE ended_at < ?1 AND NOT EXISTS
                   (SELECT 1 FROM capture_records WHERE captured = captures.session_id)";
        tx.conn().prepare_cached(sql)?.execute([self.keep_since])?;
        Ok(())
    }
}

/// Says of whoever is recorded that they are not any more.
fn end(
    tx: &mut WriteTx<'_>,
    id: &SessionId,
    reason: CaptureEnd,
    by: Option<&UserId>,
    at: i64,
) -> Result<(), StoreError> {
    let sql = "UPDATE captures SET ended_at = ?2 WHERE session_id = ?1 AND ended_at IS NULL";
    tx.conn().prepare_cached(sql)?.execute(params![id.as_str(), at])?;
    let session = queries::existing_session(tx.conn(), id)?;
    for mut session in with_sub_agents(tx.conn(), session)? {
        if session.capturing.take().is_none() {
            continue;
        }
        save(tx.conn(), &session)?;
        let id = session.id.clone();
        log::in_both(tx, &id, at, by, &Event::SessionCaptureEnded { session, reason })?;
    }
    Ok(())
}

fn with_sub_agents(conn: &Connection, session: Session) -> Result<Vec<Session>, StoreError> {
    let below = family::below(conn, &session.id)?;
    Ok(std::iter::once(session).chain(below).collect())
}

fn save(conn: &Connection, session: &Session) -> Result<(), StoreError> {
    let sql = "UPDATE sessions SET capturing = ?2 WHERE id = ?1";
    let capturing = column::to_optional_json(session.capturing.as_ref())?;
    conn.prepare_cached(sql)?.execute(params![session.id.as_str(), capturing])?;
    Ok(())
}

fn forget(conn: &Connection, id: &SessionId) -> Result<(), StoreError> {
    conn.prepare_cached("DELETE FROM captures WHERE session_id = ?1")?.execute([id.as_str()])?;
    Ok(())
}

fn refuse_too_many(conn: &Connection, id: &SessionId) -> Result<(), StoreError> {
    let sql = "SELECT count(*) FROM captures WHERE session_id <> ?1";
    let used: u64 = queries::one(conn, sql, [id.as_str()], |row| row.get(0))?;
    if used >= CAPTURES_MAX {
        let limit = CAPTURES_MAX;
        return Err(StoreError::QuotaExceeded { reason: "captures_quota", limit, used });
    }
    Ok(())
}

/// Deletes the oldest records until there is room for one more, and the others have at most `bytes_max`.
fn make_room(conn: &Connection, id: &SessionId, bytes_max: u64) -> Result<(), StoreError> {
    let (mut records, mut bytes) = kept(conn, id)?;
    let mut dropped = 0;
    while records >= CAPTURE_RECORDS_MAX || bytes > bytes_max {
        let read = |row: &Row<'_>| Ok((row.get::<_, String>("id")?, row.get::<_, u64>("bytes")?));
        let Some((oldest, size)) = queries::first(conn, OLDEST, [id.as_str()], read)? else {
            break;
        };
        conn.prepare_cached("DELETE FROM capture_records WHERE id = ?1")?.execute([oldest])?;
        (records, bytes, dropped) = (records - 1, bytes.saturating_sub(size), dropped + 1);
    }
    if dropped > 0 {
        let sql = "UPDATE captures SET dropped = dropped + ?2 WHERE session_id = ?1";
        conn.prepare_cached(sql)?.execute(params![id.as_str(), dropped])?;
    }
    Ok(())
}

fn kept(conn: &Connection, id: &SessionId) -> Result<(u64, u64), StoreError> {
    queries::one(conn, KEPT, [id.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
}

fn find(conn: &Connection, id: &SessionId) -> Result<Option<Capture>, StoreError> {
    let (records, bytes) = kept(conn, id)?;
    queries::first(conn, CAPTURE, [id.as_str()], |row| {
        Ok(Capture {
            session_id: column::word(row, "session_id")?,
            by: column::word(row, "started_by")?,
            since: row.get("since")?,
            until: row.get("until")?,
            ended_at: row.get("ended_at")?,
            bytes_max: row.get("bytes_max")?,
            records,
            bytes,
            dropped: row.get("dropped")?,
        })
    })
}

fn existing(conn: &Connection, id: &SessionId) -> Result<Capture, StoreError> {
    find(conn, id)?.ok_or(StoreError::NotFound { what: "capture" })
}

/// The sessions that are recorded now, those of sub-agents too.
pub(super) fn on(conn: &Connection) -> Result<Vec<(SessionId, Capturing)>, StoreError> {
    queries::all(conn, ON, [], |row| {
        Ok((column::word(row, "id")?, column::json(row, "capturing")?))
    })
}

/// When the next capture ends by itself, in milliseconds since 1970 UTC.
pub(super) fn next_end(conn: &Connection) -> Result<Option<i64>, StoreError> {
    let sql = "SELECT min(until) FROM captures WHERE ended_at IS NULL";
    queries::one(conn, sql, [], |row| row.get(0))
}

/// A page of what was recorded of a session and its sub-agents, newest first.
pub(super) fn page(
    conn: &Connection,
    id: &SessionId,
    limit: u32,
    cursor: Option<&str>,
) -> Result<CapturePage, StoreError> {
    queries::existing_session(conn, id)?;
    let capture = existing(conn, id)?;
    let limit = limit.clamp(1, PAGE_MAX);
    let before = pages::before::<CaptureId>(cursor)?;
    let key = params![id.as_str(), before, limit + 1];
    let mut records: Vec<CaptureRecord> =
        queries::all(conn, PAGE, key, |row| column::json(row, "record"))?;
    let has_more = records.len() > limit as usize;
    records.truncate(limit as usize);
    let last = records.last().map(|record| record.id.to_string());
    Ok(CapturePage { capture, records, next_cursor: last.filter(|_| has_more), has_more })
}

/// One exchange of a capture.
pub(super) fn exchange(
    conn: &Connection,
    captured: &SessionId,
    id: &CaptureId,
) -> Result<Option<CapturedExchange>, StoreError> {
    let sql = "SELECT exchange FROM capture_records WHERE id = ?1 AND captured = ?2";
    let key = [id.as_str(), captured.as_str()];
    queries::first(conn, sql, key, |row| column::json(row, "exchange"))
}
