//! Titles that a model makes for sessions to which nobody gave one.

use iris_protocol::{Event, Part, SessionId, SessionStatus, Usage, UsageTotals, UserId};
use rusqlite::Connection;

use super::usage::{self, Spent, Used};
use super::{log, queries, records, rows};
use crate::{Command, StoreError, WriteTx};

/// The title of a session to which nobody gave one.
pub const TITLE_DEFAULT: &str = "New session";

const FIRST: &str =
    "SELECT * FROM messages WHERE session_id = ?1 AND place = 0 AND state <> 'superseded'
     ORDER BY run_number LIMIT 1";
const UNTITLED: &str = "SELECT untitled FROM sessions WHERE id = ?1";

/// Gives a session the title that a model made, unless somebody gave it one meanwhile, and counts what that
/// used. Says whether it has the title.
///
/// Fails with `NotFound`.
#[derive(Debug, Clone)]
pub struct SetTitle {
    /// The session.
    pub session_id: SessionId,
    /// Never empty; none when the model made none that can be used.
    pub title: Option<String>,
    /// What making it used.
    pub usage: Usage,
    /// How that was charged for.
    pub spent: Spent,
    /// Who started the run with which it was made.
    pub by: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for SetTitle {
    type Output = bool;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<bool, StoreError> {
        let mut session = queries::existing_session(tx.conn(), &self.session_id)?;
        let is_wanted =
            session.status == SessionStatus::Active && is_untitled(tx.conn(), &self.session_id)?;
        session.usage.add(&self.usage);
        let title = self.title.filter(|_| is_wanted);
        let is_set = title.is_some();
        if let Some(title) = title {
            session.title = title;
            mark_titled(tx.conn(), &self.session_id)?;
        }
        // It is no step of a run.
        let totals = UsageTotals::of_step(self.usage, 0, self.spent.wall_time_ms)
            .costing_at_least(self.spent.at_least_nano_usd);
        let used = Used { run: None, session: &self.session_id, by: &self.by, model: None };
        usage::count(tx, &used, &self.spent, &totals, self.at)?;
        session.updated_at = self.at;
        records::save_session(tx.conn(), &session)?;
        let event = Event::SessionUpdated { session };
        log::in_both(tx, &self.session_id, self.at, None, &event)?;
        Ok(is_set)
    }
}

/// Whether a model may give the session a title.
pub(super) fn is_untitled(conn: &Connection, id: &SessionId) -> Result<bool, StoreError> {
    Ok(queries::first(conn, UNTITLED, [id.as_str()], |row| row.get(0))?.unwrap_or(false))
}

/// From here on no model gives the session a title.
pub(super) fn mark_titled(conn: &Connection, id: &SessionId) -> Result<(), StoreError> {
    let sql = "UPDATE sessions SET untitled = 0 WHERE id = ?1";
    conn.prepare_cached(sql)?.execute([id.as_str()])?;
    Ok(())
}

pub(super) fn mark_untitled(conn: &Connection, id: &SessionId) -> Result<(), StoreError> {
    let sql = "UPDATE sessions SET untitled = 1 WHERE id = ?1";
    conn.prepare_cached(sql)?.execute([id.as_str()])?;
    Ok(())
}

/// What was said first in a session; none before anything was.
pub(super) fn first_words(conn: &Connection, id: &SessionId) -> Result<Option<String>, StoreError> {
    let Some(first) = queries::first(conn, FIRST, [id.as_str()], rows::message)? else {
        return Ok(None);
    };
    let parts = queries::with_parts(conn, first)?.parts.into_iter();
    let texts = parts.filter_map(|part| match part {
        Part::Text { text, .. } => Some(text),
        Part::Reasoning { .. }
        | Part::Tool(_)
        | Part::Subtask(_)
        | Part::Compaction(_)
        | Part::AnswerFormat(_)
        | Part::Attachment(_)
        | Part::Step { .. } => None,
    });
    let text = texts.collect::<Vec<_>>().join("\n");
    Ok((!text.trim().is_empty()).then_some(text))
}
