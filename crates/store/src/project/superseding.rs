//! Another answer, or another question, in place of what was said: what was there is kept and marked, and
//! models do not read it.

use iris_protocol::limits::SUPERSEDED_MESSAGES_MAX;
use iris_protocol::{
    AnswerFormatPart, Event, Message, MessageId, MessageRole, MessageState, PartId, RunId,
    SessionId, SessionState, UserId, WhenBusy,
};
use rusqlite::{Connection, Row, params};

use super::messages::{AcceptMessage, AcceptedMessage, AttachedFile, next_run_number, queued_run};
use super::quotas::Quotas;
use super::sessions::{ready_session, save_in_state, session_busy};
use super::{log, queries, records, rows};
use crate::{Command, StoreError, WriteTx};

/// Rows that another answer adds at once.
const ROWS: u64 = 1;

const MESSAGE: &str = "SELECT * FROM messages WHERE id = ?1 AND session_id = ?2";
/// The question before a place, which started the run of what stands there.
const QUESTION_BEFORE: &str = "SELECT * FROM messages
     WHERE session_id = ?1 AND run_number <= ?2 AND state <> 'superseded'
       AND place = 0 AND after_step IS NULL
     ORDER BY run_number DESC LIMIT 1";
const AFTER: &str = "SELECT * FROM messages
     WHERE session_id = ?1 AND (run_number, place) > (?2, 0) AND state <> 'superseded'
     ORDER BY run_number, place LIMIT ?3";

/// Queues another answer to a question; the one that it has is superseded, and all that follows. What
/// joined the run of the old answer is part of the question from then on.
///
/// Fails with `NotFound` (session, message), `QuotaExceeded`, or `Conflict`: `session_archived`,
/// `session_deleted`, `session_busy` while a run is open, `message_superseded`, `no_question` when nobody
/// asked, `too_much_follows` when more than [`SUPERSEDED_MESSAGES_MAX`] messages do.
#[derive(Debug, Clone)]
pub struct RetryMessage {
    /// The session.
    pub session_id: SessionId,
    /// The question, its answer, or what joined that.
    pub message_id: MessageId,
    /// A new id for the run.
    pub run_id: RunId,
    /// The user who wants it: the run acts for them.
    pub by: UserId,
    /// The most that the project may hold.
    pub quotas: Quotas,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for RetryMessage {
    type Output = AcceptedMessage;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<AcceptedMessage, StoreError> {
        let mut session = ready_session(tx, &self.session_id)?;
        refuse_busy(tx.conn(), &self.session_id)?;
        let chosen = Placed::chosen(tx.conn(), &self.session_id, &self.message_id)?;
        let question = chosen.question(tx.conn())?;
        self.quotas.check_rows(tx.conn(), ROWS)?;
        supersede_after(tx, &question, None, &self.by, self.at)?;
        let run = queued_run(&self.session_id, &self.run_id, &self.by);
        let number = next_run_number(tx, &self.session_id)?;
        records::insert_run(tx.conn(), &run, number)?;
        save_in_state(tx, &mut session, SessionState::Queued, self.at, Some(&self.by))?;
        Ok(AcceptedMessage { queued: false, run, message: question.message, interrupts: None })
    }
}

/// Takes another message in place of one of a user, which is superseded with all that follows. Where that
/// one had joined a run, what started the run stays.
///
/// Fails as [`RetryMessage`], and with `Conflict` and `not_of_user` for a message that no user sent.
#[derive(Debug, Clone)]
pub struct EditMessage {
    /// The session.
    pub session_id: SessionId,
    /// The message whose place it takes.
    pub message_id: MessageId,
    /// A new id for the message.
    pub new_id: MessageId,
    /// A new id for its text.
    pub part_id: PartId,
    /// A new id for the run.
    pub run_id: RunId,
    /// What the user says.
    pub text: String,
    /// What the answer has to look like, with a new id.
    pub answer_format: Option<AnswerFormatPart>,
    /// What goes with it.
    pub attachments: Vec<AttachedFile>,
    /// The user.
    pub by: UserId,
    /// The most that the project may hold.
    pub quotas: Quotas,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for EditMessage {
    type Output = AcceptedMessage;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<AcceptedMessage, StoreError> {
        ready_session(tx, &self.session_id)?;
        refuse_busy(tx.conn(), &self.session_id)?;
        let chosen = Placed::chosen(tx.conn(), &self.session_id, &self.message_id)?;
        if chosen.message.role != MessageRole::User {
            let message = "only what a user said can be edited";
            return Err(StoreError::conflict("not_of_user", message));
        }
        let question = chosen.question(tx.conn())?;
        supersede_after(tx, &question, Some(chosen.number), &self.by, self.at)?;
        if question.message.id == chosen.message.id {
            supersede(tx, question.message, &self.by, self.at)?;
        }
        let accept = AcceptMessage {
            session_id: self.session_id,
            message_id: self.new_id,
            part_id: self.part_id,
            run_id: self.run_id,
            text: self.text,
            answer_format: self.answer_format,
            attachments: self.attachments,
            by: self.by,
            when_busy: WhenBusy::Reject,
            quotas: self.quotas,
            at: self.at,
        };
        accept.run(tx)
    }
}

fn refuse_busy(conn: &Connection, id: &SessionId) -> Result<(), StoreError> {
    queries::first_open_run(conn, id)?.map_or(Ok(()), |_| Err(session_busy()))
}

/// A message and where it stands.
pub(super) struct Placed {
    pub(super) number: u32,
    pub(super) message: Message,
}

impl Placed {
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self { number: row.get("run_number")?, message: rows::message(row)? })
    }

    /// A message that is not superseded.
    pub(super) fn chosen(
        conn: &Connection,
        session_id: &SessionId,
        id: &MessageId,
    ) -> Result<Self, StoreError> {
        let found = queries::first(conn, MESSAGE, [id.as_str(), session_id.as_str()], Self::of)?;
        let found = found.ok_or(StoreError::NotFound { what: "message" })?;
        if found.message.state == MessageState::Superseded {
            let message = "the message is superseded already";
            return Err(StoreError::conflict("message_superseded", message));
        }
        Ok(found)
    }

    /// The message that started the run which this one belongs to.
    pub(super) fn question(&self, conn: &Connection) -> Result<Self, StoreError> {
        let key = params![self.message.session_id.as_str(), self.number];
        let found = queries::first(conn, QUESTION_BEFORE, key, Self::of)?;
        found.ok_or_else(|| StoreError::conflict("no_question", "nobody asked for that answer"))
    }

    /// What follows a question and is not superseded.
    pub(super) fn after(&self, conn: &Connection) -> Result<Vec<Self>, StoreError> {
        let limit = SUPERSEDED_MESSAGES_MAX + 1;
        let key = params![self.message.session_id.as_str(), self.number, limit];
        let after = queries::all(conn, AFTER, key, Self::of)?;
        if after.len() >= limit { Err(too_much_follows()) } else { Ok(after) }
    }
}

pub(super) fn too_much_follows() -> StoreError {
    let message = format!("more than `{SUPERSEDED_MESSAGES_MAX}` messages follow: fork there");
    StoreError::conflict("too_much_follows", message)
}

/// Marks what follows a question, but for what joined its runs; of that too what stands at `from` or behind
/// it.
fn supersede_after(
    tx: &mut WriteTx<'_>,
    question: &Placed,
    from: Option<u32>,
    by: &UserId,
    at: i64,
) -> Result<(), StoreError> {
    let mut belongs = true;
    for Placed { number, message } in question.after(tx.conn())? {
        belongs &= message.role == MessageRole::Assistant || message.after_step.is_some();
        let joined = belongs && message.after_step.is_some();
        if joined && from.is_none_or(|from| number < from) {
            continue;
        }
        supersede(tx, message, by, at)?;
    }
    Ok(())
}

fn supersede(
    tx: &mut WriteTx<'_>,
    message: Message,
    by: &UserId,
    at: i64,
) -> Result<(), StoreError> {
    save_in_message_state(tx, message, MessageState::Superseded, Some(by), at)
}

/// Writes a message that is in `state` from now on, and publishes that.
pub(super) fn save_in_message_state(
    tx: &mut WriteTx<'_>,
    mut message: Message,
    state: MessageState,
    by: Option<&UserId>,
    at: i64,
) -> Result<(), StoreError> {
    message.state = state;
    records::save_message(tx.conn(), &message)?;
    let session_id = message.session_id.clone();
    let event = Event::MessageUpdated { session_id: session_id.clone(), message };
    log::in_session(tx, &session_id, at, by, &event)
}
