//! Recording what a run does: the parts of a model call, and the results of its tools.

use std::fmt;
use std::sync::Arc;

use iris_protocol::{
    Approval, ApprovalId, ApprovalState, Attachment, CompactionPart, Event, FinishReason,
    JudgedAccess, Message, MessageId, Part, PartId, Remember, Run, RunId, RunStatus, Session,
    SessionId, SessionState, ToolCallId, ToolPart, ToolState, Usage, UsageTotals, UserId,
};
use serde_json::Value;

use super::ending::{fail_call, publish_result};
use super::provider_data::{self, ProviderData};
use super::questions::NewQuestion;
use super::sessions::save_in_state;
use super::usage::{self, Rest, Spent, Used};
use super::{attachments, context, family, log, queries, questions, records, streams};
use crate::{Command, StoreError, WhenFull, WriteTx, column};

/// A part of an answer that is recorded.
#[derive(Debug, Clone, PartialEq)]
pub enum NewPart {
    /// Text.
    Text {
        /// A new id.
        id: PartId,
        /// All of it.
        text: String,
    },
    /// What the model thought.
    Reasoning {
        /// A new id.
        id: PartId,
        /// All of it.
        text: String,
    },
    /// A tool call: about to run, waiting for a person, or refused already.
    Tool(ToolPart),
    /// A summary in place of what came before.
    Compaction(CompactionPart),
}

/// The end of one model call.
#[derive(Debug, Clone, PartialEq)]
pub struct StepEnd {
    /// A new id for its part.
    pub part_id: PartId,
    /// From 0.
    pub index: u32,
    /// Of this call alone.
    pub usage: Usage,
    /// The model that answered, as its provider calls it, where it is another one than was asked.
    pub answered_by: Option<String>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// The provider's own word for it.
    pub raw_finish_reason: Option<String>,
    /// How it was charged for.
    pub spent: Spent,
}

/// A question to a person about a call of the same step.
#[derive(Debug, Clone, PartialEq)]
pub struct NewApproval {
    /// A new id.
    pub id: ApprovalId,
    /// The call, which waits.
    pub tool_call_id: ToolCallId,
    /// What the call touches, and what the rules say of it.
    pub accesses: Vec<JudgedAccess>,
    /// One sentence for the person who decides.
    pub message: String,
    /// How long a yes may hold.
    pub options: Vec<Remember>,
    /// Milliseconds since 1970 UTC.
    pub expires_at: i64,
}

/// Records the parts of a model call, and that calls wait for a person, before any tool starts
/// (INV-6).
///
/// Fails with `NotFound` (run, message, tool call), or `Conflict`: `run_ended`.
#[derive(Debug, Clone)]
pub struct RecordStep {
    /// The session.
    pub session_id: SessionId,
    /// The run.
    pub run_id: RunId,
    /// Its answer.
    pub message_id: MessageId,
    /// In order of appearance.
    pub parts: Vec<NewPart>,
    /// What providers want back with some of `parts`.
    pub provider_data: Vec<ProviderData>,
    /// About calls among `parts`.
    pub approvals: Vec<NewApproval>,
    /// What calls among `parts` ask.
    pub questions: Vec<NewQuestion>,
    /// The end of the model call, when it ended.
    pub step: Option<StepEnd>,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for RecordStep {
    type Output = ();

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        let mut open = OpenAnswer::find(tx, &self.session_id, &self.run_id, &self.message_id)?;
        append_parts(tx, &open, self.parts, self.at)?;
        provider_data::insert(tx.conn(), &open.message.id, &self.provider_data)?;
        if let Some(step) = &self.step {
            end_step(tx, &mut open, step, self.at)?;
        }
        if self.approvals.is_empty() && self.questions.is_empty() {
            return Ok(());
        }
        for approval in self.approvals {
            ask(tx, &open, approval, self.at)?;
        }
        for question in self.questions {
            questions::ask(tx, &open, question, self.at)?;
        }
        open.run.status = RunStatus::Waiting;
        records::save_run(tx.conn(), &open.run)?;
        let by = Some(&open.run.started_by);
        save_in_state(tx, &mut open.session, SessionState::Waiting, self.at, by)
    }
}

/// How a tool call ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The tool answered.
    Completed {
        /// What the model reads.
        output: String,
        /// Facts for clients.
        metadata: Option<Value>,
        /// What it answered besides.
        attachment: Option<NewAttachment>,
    },
    /// It did not.
    Failed {
        /// What the model reads.
        error: String,
    },
}

/// What a tool answered besides what the model reads at once.
#[derive(Clone, PartialEq, Eq)]
pub struct NewAttachment {
    /// What the bytes are.
    pub mime_type: String,
    /// At most [`super::blobs::BLOB_BYTES_MAX`].
    pub bytes: Arc<[u8]>,
}

impl fmt::Debug for NewAttachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mime_type, bytes) = (&self.mime_type, self.bytes.len());
        f.debug_struct("NewAttachment")
            .field("mime_type", mime_type)
            .field("bytes", &bytes)
            .finish()
    }
}

/// Records the one result of a tool call. The files that it changed are recorded before.
///
/// Fails with `NotFound` (tool call), or `Conflict`: `already_final` when the call has its result
/// (INV-3).
#[derive(Debug, Clone)]
pub struct RecordResult {
    /// The session.
    pub session_id: SessionId,
    /// The run.
    pub run_id: RunId,
    /// Its answer.
    pub message_id: MessageId,
    /// The call.
    pub tool_call_id: ToolCallId,
    /// How it ended.
    pub outcome: Outcome,
    /// The user with whose rights the run acts.
    pub by: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for RecordResult {
    type Output = ();

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        let (at, by) = (self.at, Some(&self.by));
        let message = queries::bare_message(tx.conn(), &self.session_id, &self.message_id)?;
        let message = message
            .filter(|message| message.run_id.as_ref() == Some(&self.run_id))
            .ok_or(StoreError::NotFound { what: "tool call" })?;
        let mut call = queries::existing_call(tx.conn(), &message.id, &self.tool_call_id)?;
        refuse_final(&call)?;
        let (output, metadata, attachment) = match self.outcome {
            Outcome::Failed { error } => {
                return fail_call(tx, &message, &mut call, ToolState::Error, error, at, by);
            }
            Outcome::Completed { output, metadata, attachment } => (output, metadata, attachment),
        };
        if let Some(attachment) = &attachment {
            attachments::insert(tx.conn(), &self.session_id, &self.tool_call_id, attachment)?;
        }
        call.state = ToolState::Completed;
        call.output = Some(output);
        call.metadata = metadata;
        call.attachment = attachment
            .map(|it| Attachment { size: it.bytes.len() as u64, mime_type: it.mime_type });
        call.ended_at = Some(at);
        records::save_call(tx.conn(), &call)?;
        publish_result(tx, &message, &call, at, by)
    }
}

pub(super) fn refuse_final(call: &ToolPart) -> Result<(), StoreError> {
    if call.state.is_final() {
        return Err(StoreError::conflict("already_final", "the call has its result already"));
    }
    Ok(())
}

/// An answer that is being produced, with its run and its session.
pub(super) struct OpenAnswer {
    pub(super) session: Session,
    pub(super) run: Run,
    /// Without its parts.
    pub(super) message: Message,
    /// Whether somebody cancelled the run.
    pub(super) cancel_requested: bool,
}

impl OpenAnswer {
    /// Adds what was used without being a step to the answer, the run and the session, and counts it. They
    /// are not saved.
    pub(super) fn use_up(
        &mut self,
        tx: &WriteTx<'_>,
        rest: &Rest,
        at: i64,
    ) -> Result<(), StoreError> {
        let Rest { usage, spent } = rest;
        // Nothing has no cost that were not known.
        if *usage != Usage::default() {
            self.message.usage.get_or_insert_default().add(usage);
            self.run.usage.add(usage);
            self.session.usage.add(usage);
        }
        let totals = UsageTotals::of_step(*usage, 0, spent.wall_time_ms)
            .costing_at_least(spent.at_least_nano_usd);
        usage::count(tx, &self.used(), spent, &totals, at)
    }

    /// Who uses what is counted with the answer.
    pub(super) fn used(&self) -> Used<'_> {
        Used {
            run: Some(&self.run.id),
            session: &self.session.id,
            by: &self.run.started_by,
            model: self.message.model.as_ref(),
        }
    }

    pub(super) fn find(
        tx: &WriteTx<'_>,
        session_id: &SessionId,
        run_id: &RunId,
        message_id: &MessageId,
    ) -> Result<Self, StoreError> {
        let session = queries::existing_session(tx.conn(), session_id)?;
        let found = queries::existing_run(tx.conn(), session_id, run_id)?;
        if found.run.ended_at.is_some() {
            return Err(StoreError::conflict("run_ended", "the run has ended"));
        }
        let message = queries::bare_answer(tx.conn(), &found)?
            .filter(|message| message.id == *message_id)
            .ok_or(StoreError::NotFound { what: "message" })?;
        Ok(Self { session, run: found.run, message, cancel_requested: found.cancel_requested })
    }
}

/// Writes parts behind the ones that the answer has, and says what each of them is.
pub(super) fn append_parts(
    tx: &mut WriteTx<'_>,
    open: &OpenAnswer,
    parts: Vec<NewPart>,
    at: i64,
) -> Result<(), StoreError> {
    let (message, by) = (&open.message, Some(&open.run.started_by));
    for part in parts {
        let part = match part {
            NewPart::Text { id, text } => Part::Text { id, text, interrupted: false },
            NewPart::Reasoning { id, text } => Part::Reasoning { id, text, interrupted: false },
            NewPart::Tool(call) => Part::Tool(with_times(call, at)),
            NewPart::Compaction(part) => Part::Compaction(part),
        };
        records::append_part(tx.conn(), message, &part)?;
        if let Part::Compaction(part) = &part {
            context::note_compaction(tx.conn(), message, &part.id)?;
            // What a model had said before it was too much.
            streams::drop_all(tx.conn(), &message.id)?;
        }
        streams::drop_part(tx.conn(), &message.id, part.id())?;
        let event = event_of(message, &part);
        log::in_session(tx, &message.session_id, at, by, &event)?;
        if let Part::Tool(call) = &part {
            publish_result(tx, message, call, at, by)?;
        }
    }
    Ok(())
}

fn with_times(mut call: ToolPart, at: i64) -> ToolPart {
    if call.state == ToolState::Running {
        call.started_at = call.started_at.or(Some(at));
    }
    if call.state.is_final() {
        call.ended_at = call.ended_at.or(Some(at));
    }
    call
}

pub(super) fn event_of(message: &Message, part: &Part) -> Event {
    let (session_id, message_id) = (message.session_id.clone(), message.id.clone());
    let part_id = part.id().clone();
    match part {
        Part::Text { text, interrupted, .. } => Event::MessageTextComplete {
            session_id,
            message_id,
            part_id,
            length: text.len() as u64,
            text: text.clone(),
            interrupted: *interrupted,
        },
        Part::Reasoning { text, interrupted, .. } => Event::MessageReasoningComplete {
            session_id,
            message_id,
            part_id,
            length: text.len() as u64,
            text: text.clone(),
            interrupted: *interrupted,
        },
        Part::Tool(call) => Event::MessageToolCall {
            session_id,
            message_id,
            part_id,
            tool_call_id: call.tool_call_id.clone(),
            tool_name: call.tool_name.clone(),
            input: call.input.clone(),
            provider_executed: call.provider_executed,
        },
        // Said with a message and as whole as that.
        Part::AnswerFormat(_) | Part::Attachment(_) => {
            let message = Message { parts: Vec::new(), ..message.clone() };
            Event::MessageUpdated { session_id, message }
        }
        Part::Subtask(part) => {
            Event::MessageSubtaskUpdated { session_id, message_id, part: part.clone() }
        }
        Part::Compaction(part) => {
            Event::SessionCompacted { session_id, message_id, part: part.clone() }
        }
        Part::Step {
            index,
            usage,
            price_version,
            answered_by,
            finish_reason,
            raw_finish_reason,
            ..
        } => Event::MessageStepFinished {
            session_id,
            message_id,
            part_id,
            index: *index,
            usage: *usage,
            price_version: price_version.clone(),
            answered_by: answered_by.clone(),
            finish_reason: *finish_reason,
            raw_finish_reason: raw_finish_reason.clone(),
        },
    }
}

/// Writes the end of a model call and adds its usage to the answer, the run and the session.
pub(super) fn end_step(
    tx: &mut WriteTx<'_>,
    open: &mut OpenAnswer,
    step: &StepEnd,
    at: i64,
) -> Result<(), StoreError> {
    let StepEnd { part_id, usage, spent, .. } = step;
    let usage = *usage;
    let part = Part::Step {
        id: part_id.clone(),
        index: step.index,
        usage,
        price_version: spent.price_version.clone(),
        answered_by: step.answered_by.clone(),
        finish_reason: step.finish_reason,
        raw_finish_reason: step.raw_finish_reason.clone(),
    };
    records::append_part(tx.conn(), &open.message, &part)?;
    open.message.usage.get_or_insert_default().add(&usage);
    open.run.steps += 1;
    open.run.usage.add(&usage);
    open.session.usage.add(&usage);
    records::save_message(tx.conn(), &open.message)?;
    records::save_run(tx.conn(), &open.run)?;
    records::save_session(tx.conn(), &open.session)?;
    let totals = UsageTotals::of_step(usage, 1, spent.wall_time_ms)
        .costing_at_least(spent.at_least_nano_usd);
    usage::count(tx, &open.used(), spent, &totals, at)?;
    let event = event_of(&open.message, &part);
    log::in_session(tx, &open.session.id, at, Some(&open.run.started_by), &event)
}

/// Asks a person about a call: all of it in the session's room, a notice in the project's.
fn ask(
    tx: &mut WriteTx<'_>,
    open: &OpenAnswer,
    new: NewApproval,
    at: i64,
) -> Result<(), StoreError> {
    let call = queries::existing_call(tx.conn(), &open.message.id, &new.tool_call_id)?;
    let approval = Approval {
        id: new.id,
        session_id: open.session.id.clone(),
        child_session_id: None,
        run_id: open.run.id.clone(),
        message_id: open.message.id.clone(),
        tool_call_id: call.tool_call_id,
        tool_name: call.tool_name,
        input_hash: column::hash_of(&column::to_json(&call.input)?),
        input: call.input,
        accesses: new.accesses,
        message: new.message,
        options: new.options,
        state: ApprovalState::Pending,
        by: None,
        reason: None,
        remember: None,
        original_input: None,
        created_at: at,
        expires_at: new.expires_at,
    };
    records::insert_approval(tx.conn(), &approval)?;
    let notice = |approval: &Approval, whole: Option<Box<Approval>>| Event::ToolApprovalRequired {
        session_id: approval.session_id.clone(),
        child_session_id: approval.child_session_id.clone(),
        tool_call_id: approval.tool_call_id.clone(),
        tool_name: approval.tool_name.clone(),
        message: approval.message.clone(),
        approval: whole,
    };
    let by = Some(&open.run.started_by);
    let whole = notice(&approval, Some(Box::new(approval.clone())));
    log::in_session(tx, &open.session.id, at, by, &whole)?;
    family::tell_above(tx, &open.session.id, at, by, |above| {
        let seen = family::approval_seen_from(above, &approval);
        notice(&seen, Some(Box::new(seen.clone())))
    })?;
    log::in_project(tx, at, by, &notice(&approval, None))
}
