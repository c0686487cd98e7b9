//! Commands on sessions, and what they all have in common: the state of a session is said aloud
//! whenever it changes.

use iris_protocol::{
    Event, ModelRef, Room, Session, SessionId, SessionMode, SessionState, SessionStatus, Usage,
    UserId,
};
use rusqlite::Connection;

use super::quotas::Quotas;
use super::titles::TITLE_DEFAULT;
use super::{family, files, log, queries, records, titles};
use crate::{Command, StoreError, WhenFull, WriteTx};

/// Creates a session. Answers it.
///
/// Fails with `QuotaExceeded` when no message would fit into the project any more.
#[derive(Debug, Clone)]
pub struct CreateSession {
    /// A new id.
    pub id: SessionId,
    /// Never empty; none for the title of every new session, which a model may replace.
    pub title: Option<String>,
    /// Name of an agent.
    pub agent: String,
    /// The model, where the session chooses one.
    pub model: Option<ModelRef>,
    /// How tool calls are judged.
    pub mode: SessionMode,
    /// The user who wants it.
    pub created_by: UserId,
    /// The most that the project may hold.
    pub quotas: Quotas,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for CreateSession {
    type Output = Session;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Session, StoreError> {
        self.quotas.check_rows(tx.conn(), 1)?;
        let session = Session {
            id: self.id,
            parent_id: None,
            title: self.title.clone().unwrap_or_else(|| TITLE_DEFAULT.to_owned()),
            agent: self.agent,
            model: self.model,
            mode: self.mode,
            status: SessionStatus::Active,
            state: SessionState::Idle,
            created_by: self.created_by,
            created_at: self.at,
            updated_at: self.at,
            archived_at: None,
            message_count: 0,
            usage: Usage::default(),
            budget: None,
            capturing: None,
        };
        records::insert_session(tx.conn(), &session)?;
        if self.title.is_none() {
            titles::mark_untitled(tx.conn(), &session.id)?;
        }
        let event = Event::SessionCreated { session: session.clone() };
        log::in_both(tx, &session.id, self.at, Some(&session.created_by), &event)?;
        Ok(session)
    }
}

/// Changes a session. Answers it as it is then.
///
/// Fails with `NotFound`, or `Conflict`: `session_archived`, `session_deleted`.
#[derive(Debug, Clone)]
pub struct UpdateSession {
    /// The session.
    pub id: SessionId,
    /// Never empty; `None` leaves it.
    pub title: Option<String>,
    /// Name of an agent, from the next run on; `None` leaves it.
    pub agent: Option<String>,
    /// From the next run on; `None` leaves it.
    pub model: Option<ModelRef>,
    /// From the next tool call on; `None` leaves it.
    pub mode: Option<SessionMode>,
    /// The user who wants it.
    pub by: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for UpdateSession {
    type Output = Session;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Session, StoreError> {
        let mut session = active_session(tx, &self.id)?;
        if let Some(title) = self.title {
            session.title = title;
            titles::mark_titled(tx.conn(), &session.id)?;
        }
        session.agent = self.agent.unwrap_or(session.agent);
        session.model = self.model.or(session.model);
        session.mode = self.mode.unwrap_or(session.mode);
        session.updated_at = self.at;
        records::save_session(tx.conn(), &session)?;
        let event = Event::SessionUpdated { session: session.clone() };
        log::in_both(tx, &session.id, self.at, Some(&self.by), &event)?;
        Ok(session)
    }
}

/// Archives a session, deletes it softly, or brings it back, and with it those of its sub-agents that are
/// what it was. Answers it as it is then; setting what it is already changes nothing and publishes nothing.
///
/// Fails with `NotFound`, or `Conflict`: `session_busy` while a run of it or of its sub-agents is open.
#[derive(Debug, Clone)]
pub struct SetSessionStatus {
    /// The session.
    pub id: SessionId,
    /// What it becomes.
    pub status: SessionStatus,
    /// The user who wants it.
    pub by: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for SetSessionStatus {
    type Output = Session;

    /// To delete is to clean up.
    fn when_full(&self) -> WhenFull {
        match self.status {
            SessionStatus::Deleted => WhenFull::Allow,
            SessionStatus::Active | SessionStatus::Archived => WhenFull::Refuse,
        }
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Session, StoreError> {
        let mut session = queries::existing_session(tx.conn(), &self.id)?;
        if session.status == self.status {
            return Ok(session);
        }
        let was = session.status;
        let mut below = family::below(tx.conn(), &self.id)?;
        below.retain(|child| child.status == was);
        refuse_busy(tx, &self.id)?;
        for child in &below {
            refuse_busy(tx, &child.id)?;
        }
        self.set(tx, &mut session)?;
        for mut child in below {
            self.set(tx, &mut child)?;
        }
        Ok(session)
    }
}

impl SetSessionStatus {
    fn set(&self, tx: &mut WriteTx<'_>, session: &mut Session) -> Result<(), StoreError> {
        session.status = self.status;
        session.updated_at = self.at;
        session.archived_at = match self.status {
            SessionStatus::Active => None,
            SessionStatus::Archived => Some(self.at),
            SessionStatus::Deleted => session.archived_at,
        };
        records::save_session(tx.conn(), session)?;
        let told = session.clone();
        let event = match self.status {
            SessionStatus::Active => Event::SessionUpdated { session: told },
            SessionStatus::Archived => Event::SessionArchived { session: told },
            SessionStatus::Deleted => Event::SessionDeleted { session: told },
        };
        log::in_both(tx, &session.id, self.at, Some(&self.by), &event)
    }
}

/// Deletes a session and everything in it, the events of its room included, and the sessions of its
/// sub-agents. Only the project's room hears of it.
///
/// Fails with `NotFound`, or `Conflict`: `session_busy` while a run of it or of its sub-agents is open.
#[derive(Debug, Clone)]
pub struct PurgeSession {
    /// The session.
    pub id: SessionId,
    /// The user who wants it.
    pub by: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for PurgeSession {
    type Output = ();

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        let session = queries::existing_session(tx.conn(), &self.id)?;
        let below = family::below(tx.conn(), &self.id)?;
        // Those that were spawned last first: nothing is left without the session above it.
        let all: Vec<Session> = std::iter::once(session).chain(below).rev().collect();
        for session in &all {
            refuse_busy(tx, &session.id)?;
        }
        for session in all {
            self.purge(tx, session)?;
        }
        Ok(())
    }
}

impl PurgeSession {
    fn purge(&self, tx: &mut WriteTx<'_>, mut session: Session) -> Result<(), StoreError> {
        let room = Room::Session(session.id.clone()).to_string();
        let conn = tx.conn();
        conn.prepare_cached("DELETE FROM events WHERE room = ?1")?.execute([&room])?;
        conn.prepare_cached("DELETE FROM rooms WHERE room = ?1")?.execute([&room])?;
        conn.prepare_cached("DELETE FROM sessions WHERE id = ?1")?
            .execute([session.id.as_str()])?;
        session.status = SessionStatus::Deleted;
        session.updated_at = self.at;
        log::in_project(tx, self.at, Some(&self.by), &Event::SessionDeleted { session })
    }
}

/// The session, which must exist and be in use.
pub(super) fn active_session(tx: &WriteTx<'_>, id: &SessionId) -> Result<Session, StoreError> {
    active(tx.conn(), id)
}

/// The session, which must be in use, for a run that is about to be queued: not while turns of it are undone.
pub(super) fn ready_session(tx: &WriteTx<'_>, id: &SessionId) -> Result<Session, StoreError> {
    let session = active(tx.conn(), id)?;
    if files::is_reverting(tx.conn(), id)? {
        return Err(session_busy());
    }
    Ok(session)
}

pub(super) fn active(conn: &Connection, id: &SessionId) -> Result<Session, StoreError> {
    let session = queries::existing_session(conn, id)?;
    match session.status {
        SessionStatus::Active => Ok(session),
        SessionStatus::Archived => {
            Err(StoreError::conflict("session_archived", "the session is archived"))
        }
        SessionStatus::Deleted => {
            Err(StoreError::conflict("session_deleted", "the session is deleted"))
        }
    }
}

pub(super) fn session_busy() -> StoreError {
    StoreError::conflict("session_busy", "a run of the session has not ended")
}

fn refuse_busy(tx: &WriteTx<'_>, id: &SessionId) -> Result<(), StoreError> {
    match queries::first_open_run(tx.conn(), id)? {
        Some(_) => Err(session_busy()),
        None => Ok(()),
    }
}

/// Writes a session that does `state` from now on; publishes that when it did something else.
pub(super) fn save_in_state(
    tx: &mut WriteTx<'_>,
    session: &mut Session,
    state: SessionState,
    at: i64,
    by: Option<&UserId>,
) -> Result<(), StoreError> {
    let changes = session.state != state;
    session.state = state;
    session.updated_at = at;
    records::save_session(tx.conn(), session)?;
    if !changes {
        return Ok(());
    }
    let event = Event::session_status(session.id.clone(), state);
    log::in_both(tx, &session.id, at, by, &event)
}
