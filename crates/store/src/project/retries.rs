//! Asking a model again after it failed.

use iris_protocol::{ApiError, Event, MessageId, ModelRef, RunId, SessionId, SessionState};

use super::sessions::save_in_state;
use super::steps::OpenAnswer;
use super::usage::Rest;
use super::{log, records, streams};
use crate::{Command, StoreError, WriteTx};

/// Records that a model is asked again: what it had said of its step is forgotten, what that used counts,
/// and the session waits.
///
/// Fails with `NotFound`, or `Conflict`: `run_ended`.
#[derive(Debug, Clone)]
pub struct RecordRetry {
    /// The session.
    pub session_id: SessionId,
    /// The run.
    pub run_id: RunId,
    /// Its answer.
    pub message_id: MessageId,
    /// Which attempt at the step comes next, of those with one model.
    pub attempt: u32,
    /// Why the last one failed; `reason` among its details names the class.
    pub error: ApiError,
    /// How long the session waits, in milliseconds.
    pub delay_ms: u64,
    /// What the failed attempt used.
    pub used: Rest,
    /// The model that answers from here on, where it is another one.
    pub model: Option<ModelRef>,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for RecordRetry {
    type Output = ();

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        let mut open = OpenAnswer::find(tx, &self.session_id, &self.run_id, &self.message_id)?;
        streams::drop_all(tx.conn(), &open.message.id)?;
        open.use_up(tx, &self.used, self.at)?;
        let by = Some(&open.run.started_by);
        open.session.state = SessionState::Retrying;
        open.session.updated_at = self.at;
        let is_another = self.model.is_some();
        open.message.model = self.model.or(open.message.model);
        records::save_message(tx.conn(), &open.message)?;
        records::save_run(tx.conn(), &open.run)?;
        records::save_session(tx.conn(), &open.session)?;
        if is_another {
            let (session_id, message) = (open.session.id.clone(), open.message.clone());
            let event = Event::MessageUpdated { session_id, message };
            log::in_session(tx, &open.session.id, self.at, by, &event)?;
        }
        let class = self.error.details.get("reason").and_then(|reason| reason.as_str());
        let class = class.unwrap_or_else(|| self.error.code.as_str()).to_owned();
        let event = Event::SessionStatus {
            session_id: open.session.id.clone(),
            state: SessionState::Retrying,
            attempt: Some(self.attempt),
            class: Some(class),
            delay_ms: Some(self.delay_ms),
            message: Some(self.error.message),
        };
        log::in_both(tx, &open.session.id, self.at, by, &event)
    }
}

/// Records that the model is asked again now.
///
/// Fails with `NotFound`, or `Conflict`: `run_ended`.
#[derive(Debug, Clone)]
pub struct EndRetry {
    /// The session.
    pub session_id: SessionId,
    /// The run.
    pub run_id: RunId,
    /// Its answer.
    pub message_id: MessageId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for EndRetry {
    type Output = ();

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        let mut open = OpenAnswer::find(tx, &self.session_id, &self.run_id, &self.message_id)?;
        let by = Some(&open.run.started_by);
        save_in_state(tx, &mut open.session, SessionState::Running, self.at, by)
    }
}
