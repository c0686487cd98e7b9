//! Taking a user's message: the message and the run that it will start, in one command.

use std::iter;

use iris_protocol::limits::QUEUED_MESSAGES_MAX;
use iris_protocol::{
    AnswerFormatPart, AttachmentPart, Event, Message, MessageId, MessageRole, MessageState, Part,
    PartId, Run, RunId, RunStatus, SessionId, SessionState, Usage, UserId, WhenBusy,
};
use serde::{Deserialize, Serialize};

use super::quotas::Quotas;
use super::rows::NumberedRun;
use super::sessions::{ready_session, save_in_state, session_busy};
use super::{blobs, cancelling, joining, log, queries, records};
use crate::{Command, StoreError, WriteTx};

/// Rows that a message adds: itself and its text.
const ROWS: u64 = 2;

/// Takes a user's message and queues its run: behind those that wait; before them, to join the run that is
/// open, with [`WhenBusy::Steer`]; before them, with that run cancelled, with [`WhenBusy::Interrupt`].
///
/// Fails with `NotFound`, or `Conflict`: `session_archived`, `session_deleted`, `session_busy` with
/// [`WhenBusy::Reject`] while a run is open, `queue_full` when [`QUEUED_MESSAGES_MAX`] wait; with
/// `QuotaExceeded` when the project is full.
#[derive(Debug, Clone)]
pub struct AcceptMessage {
    /// The session.
    pub session_id: SessionId,
    /// A new id for the message.
    pub message_id: MessageId,
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
    /// What becomes of it while a run is open.
    pub when_busy: WhenBusy,
    /// The most that the project may hold.
    pub quotas: Quotas,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

/// A file that goes with a message, with what it holds.
#[derive(Debug, Clone)]
pub struct AttachedFile {
    /// As it will be part of the message, with a new id and the hash of the bytes.
    pub part: AttachmentPart,
    /// At most [`super::blobs::BLOB_BYTES_MAX`].
    pub bytes: Vec<u8>,
}

/// A message that was taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AcceptedMessage {
    /// Whether it waits for a run before it.
    pub queued: bool,
    /// The run that it will start, unless it joins another one.
    pub run: Run,
    /// The message; its `run_id` is that of the run that it is to join, if there is one.
    pub message: Message,
    /// The run that ends for it.
    #[serde(default)]
    pub interrupts: Option<RunId>,
}

impl Command for AcceptMessage {
    type Output = AcceptedMessage;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<AcceptedMessage, StoreError> {
        self.accept(tx, MessageRole::User)
    }
}

impl AcceptMessage {
    /// Takes the message as one of `role`. Where it fails nothing has changed.
    pub(super) fn accept(
        self,
        tx: &mut WriteTx<'_>,
        role: MessageRole,
    ) -> Result<AcceptedMessage, StoreError> {
        let mut session = ready_session(tx, &self.session_id)?;
        let open = queries::open_runs(tx.conn(), &self.session_id)?;
        self.refuse_if_full(&open)?;
        let more = self.attachments.len() + usize::from(self.answer_format.is_some());
        let rows = ROWS + more as u64;
        self.quotas.check_rows(tx.conn(), rows)?;
        let (run, mut message) =
            (queued_run(&self.session_id, &self.run_id, &self.by), self.message(role));
        let placed = joining::place(tx, &self.session_id, self.when_busy, &open)?;
        records::insert_run(tx.conn(), &run, placed.number)?;
        if let Some(joins) = placed.joins {
            joining::is_to_join(tx.conn(), &run.id, &joins)?;
            message.run_id = Some(joins);
        }
        for file in &self.attachments {
            blobs::put(tx, &file.bytes)?;
        }
        records::insert_message(tx.conn(), &message, placed.number, 0)?;
        if let Some(interrupted) = &placed.interrupts {
            cancelling::request(tx.conn(), interrupted)?;
        }

        let (session_id, by) = (self.session_id, Some(&self.by));
        let event =
            Event::MessageCreated { session_id: session_id.clone(), message: message.clone() };
        log::in_session(tx, &session_id, self.at, by, &event)?;
        session.message_count += 1;
        let state = if open.is_empty() { SessionState::Queued } else { session.state };
        save_in_state(tx, &mut session, state, self.at, by)?;
        let interrupts = placed.interrupts;
        Ok(AcceptedMessage { queued: !open.is_empty(), run, message, interrupts })
    }

    fn refuse_if_full(&self, open: &[NumberedRun]) -> Result<(), StoreError> {
        if self.when_busy == WhenBusy::Reject && !open.is_empty() {
            return Err(session_busy());
        }
        let queued = open.iter().filter(|open| open.run.status == RunStatus::Queued).count();
        if queued >= QUEUED_MESSAGES_MAX {
            let message = format!("`{QUEUED_MESSAGES_MAX}` messages wait in the session already");
            return Err(StoreError::conflict("queue_full", message));
        }
        Ok(())
    }

    fn parts(&self) -> Vec<Part> {
        let (id, text) = (self.part_id.clone(), self.text.clone());
        let said = Part::Text { id, text, interrupted: false };
        let format = self.answer_format.clone().map(Part::AnswerFormat);
        let files = self.attachments.iter().map(|file| Part::Attachment(file.part.clone()));
        iter::once(said).chain(files).chain(format).collect()
    }

    fn message(&self, role: MessageRole) -> Message {
        Message {
            id: self.message_id.clone(),
            session_id: self.session_id.clone(),
            run_id: Some(self.run_id.clone()),
            after_step: None,
            role,
            agent: None,
            model: None,
            parts: self.parts(),
            state: MessageState::Complete,
            finish_reason: None,
            error: None,
            usage: None,
            created_by: Some(self.by.clone()),
            created_at: self.at,
            completed_at: Some(self.at),
        }
    }
}

/// A run that was not started.
pub(super) fn queued_run(session_id: &SessionId, id: &RunId, by: &UserId) -> Run {
    Run {
        id: id.clone(),
        session_id: session_id.clone(),
        status: RunStatus::Queued,
        started_by: by.clone(),
        compacts: false,
        steps: 0,
        usage: Usage::default(),
        position: None,
        started_at: None,
        ended_at: None,
        error: None,
    }
}

/// The number of a new run behind all others of the session.
pub(super) fn next_run_number(tx: &WriteTx<'_>, id: &SessionId) -> Result<u32, StoreError> {
    let sql = "UPDATE sessions SET last_run = last_run + 1 WHERE id = ?1 RETURNING last_run";
    queries::one(tx.conn(), sql, [id.as_str()], |row| row.get(0))
}
