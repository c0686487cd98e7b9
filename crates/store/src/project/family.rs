//! Sessions and those of their sub-agents: a session that another one spawned is below it.

use iris_protocol::{Approval, Event, Question, Session, SessionId, UserId};
use rusqlite::Connection;

use super::{log, queries, rows};
use crate::{StoreError, WriteTx, column};

/// Most sessions above a session; more would be a circle.
const ABOVE_MAX: usize = 8;

/// The session that spawned one.
const PARENT: &str = "SELECT parent_id FROM sessions WHERE id = ?1 AND parent_id IS NOT NULL";
/// All sessions below one.
const BELOW: &str = "WITH RECURSIVE below (id) AS (
         SELECT id FROM sessions WHERE parent_id = ?1
         UNION SELECT s.id FROM below b JOIN sessions s ON s.parent_id = b.id
     ) SELECT b.id FROM below b";
/// The approvals that nobody decided in the sessions below one.
const APPROVALS_BELOW: &str = "WITH RECURSIVE below (id) AS (
         SELECT id FROM sessions WHERE parent_id = ?1
         UNION SELECT s.id FROM below b JOIN sessions s ON s.parent_id = b.id
     ) SELECT a.* FROM below b JOIN approvals a ON a.session_id = b.id AND a.state = 'pending'";
/// The questions that nobody answered in the sessions below one.
const QUESTIONS_BELOW: &str = "WITH RECURSIVE below (id) AS (
         SELECT id FROM sessions WHERE parent_id = ?1
         UNION SELECT s.id FROM below b JOIN sessions s ON s.parent_id = b.id
     ) SELECT q.* FROM below b JOIN questions q ON q.session_id = b.id AND q.state = 'pending'";

/// The sessions above a session, the nearest one first.
pub(super) fn above(conn: &Connection, id: &SessionId) -> Result<Vec<SessionId>, StoreError> {
    let mut above: Vec<SessionId> = Vec::new();
    let parent = |id: &SessionId| {
        queries::first(conn, PARENT, [id.as_str()], |r| column::word(r, "parent_id"))
    };
    let mut next: Option<SessionId> = parent(id)?;
    while let Some(id) = next {
        if above.len() >= ABOVE_MAX {
            return Err(StoreError::internal("a session has too many above it"));
        }
        next = parent(&id)?;
        above.push(id);
    }
    Ok(above)
}

/// The sessions below a session, in the order in which they were spawned.
pub(super) fn below(conn: &Connection, id: &SessionId) -> Result<Vec<Session>, StoreError> {
    let read = |row: &rusqlite::Row<'_>| column::word(row, "id");
    let mut ids: Vec<SessionId> = queries::all(conn, BELOW, [id.as_str()], read)?;
    ids.sort();
    ids.iter().map(|id| queries::existing_session(conn, id)).collect()
}

/// Says something about a call of a sub-agent in the rooms of the sessions above its own. `event` makes
/// it from the session whose room it is.
pub(super) fn tell_above(
    tx: &mut WriteTx<'_>,
    id: &SessionId,
    at: i64,
    by: Option<&UserId>,
    event: impl Fn(SessionId) -> Event,
) -> Result<(), StoreError> {
    for above in above(tx.conn(), id)? {
        log::in_session(tx, &above.clone(), at, by, &event(above))?;
    }
    Ok(())
}

/// An approval as the session `above` is told of it.
pub(super) fn approval_seen_from(above: SessionId, approval: &Approval) -> Approval {
    let child_session_id = Some(approval.session_id.clone());
    Approval { session_id: above, child_session_id, ..approval.clone() }
}

/// A question as the session `above` is told of it.
pub(super) fn question_seen_from(above: SessionId, question: &Question) -> Question {
    let child_session_id = Some(question.session_id.clone());
    Question { session_id: above, child_session_id, ..question.clone() }
}

/// What waits for people in the sessions below a session, as that one is told of it.
pub(super) fn waiting_below(
    conn: &Connection,
    id: &SessionId,
) -> Result<(Vec<Approval>, Vec<Question>), StoreError> {
    let approvals = queries::all(conn, APPROVALS_BELOW, [id.as_str()], rows::approval)?;
    let approvals = approvals.iter().map(|it| approval_seen_from(id.clone(), it)).collect();
    let questions = queries::all(conn, QUESTIONS_BELOW, [id.as_str()], super::questions::question)?;
    let questions = questions.iter().map(|it| question_seen_from(id.clone(), it)).collect();
    Ok((approvals, questions))
}

/// The session that `sql` finds by `key`, when it is `id` or below it.
pub(super) fn found_in(
    conn: &Connection,
    sql: &str,
    key: &str,
    id: &SessionId,
) -> Result<Option<SessionId>, StoreError> {
    let found: Option<SessionId> =
        queries::first(conn, sql, [key], |row| column::word(row, "session_id"))?;
    let Some(found) = found else { return Ok(None) };
    let is_in = found == *id || above(conn, &found)?.contains(id);
    Ok(Some(found).filter(|_| is_in))
}
