//! What every end of a run has in common, whether it completed, failed, was cancelled or was cut off.

use iris_protocol::{
    ApiError, Approval, ApprovalState, ErrorCode, Event, Message, MessageState, Run, RunStatus,
    Session, SessionId, SessionState, ToolCallId, ToolPart, ToolState, UserId,
};

use serde_json::Value;

use super::queries::OpenCall;
use super::runs::FinishedRun;
use super::sessions::save_in_state;
use super::{family, joining, log, queries, questions, records, tasks};
use crate::{StoreError, WriteTx};

/// What the whole of a text is, of which a model read the beginning and the end.
const TEXT: &str = "text/plain";

/// How the calls end that have no result when their run ends (INV-3).
pub(super) struct CallEnd {
    /// Of a call that runs: what it becomes, and what the model reads.
    running: (ToolState, &'static str),
    /// Of a call that did not start.
    not_started: (ToolState, &'static str),
}

impl CallEnd {
    /// When the run ended by itself, by an error or by a user. A tool that was at work is told to stop
    /// and may be past the point where it could.
    pub(super) fn of_run(status: RunStatus) -> Self {
        let (running, not_started) = match status {
            RunStatus::Cancelled => (
                "the run was cancelled while this call was running; it may or may not have had its \
                 effect",
                "the run was cancelled",
            ),
            RunStatus::Queued
            | RunStatus::Running
            | RunStatus::Waiting
            | RunStatus::Completed
            | RunStatus::Failed
            | RunStatus::Interrupted => (
                "the run failed while this call was running; it may or may not have had its effect",
                "the run failed before the call ended",
            ),
        };
        let cancelled = ToolState::Cancelled;
        Self { running: (cancelled, running), not_started: (cancelled, not_started) }
    }

    /// When the server stopped: nobody knows what a running call did.
    pub(super) fn of_server() -> Self {
        let unknown = "the server stopped while this call was running; it may or may not have had \
                       its effect";
        let not_started = "the server stopped before this call began";
        Self {
            running: (ToolState::UnknownOutcome, unknown),
            not_started: (ToolState::Cancelled, not_started),
        }
    }

    /// When the session's actors were lost, while the run itself goes on.
    pub(super) fn of_session() -> Self {
        let unknown = "the session restarted while this call was running; it may or may not have \
                       had its effect";
        let not_started = "the session restarted before this call began";
        Self {
            running: (ToolState::UnknownOutcome, unknown),
            not_started: (ToolState::Cancelled, not_started),
        }
    }
}

/// Gives every open call of the message its one result, but for those that a person is asked about and
/// those that are `spared`.
pub(super) fn end_unasked_calls(
    tx: &mut WriteTx<'_>,
    message: &Message,
    spared: &[ToolCallId],
    end: &CallEnd,
    at: i64,
) -> Result<(), StoreError> {
    let open = queries::open_calls(tx.conn(), &message.id)?.into_iter();
    let ends = |open: &OpenCall| {
        open.call.state != ToolState::Waiting && !spared.contains(&open.call.tool_call_id)
    };
    end_all(tx, message, open.filter(ends), end, at)
}

/// Gives every open call of the message its one result.
pub(super) fn end_calls(
    tx: &mut WriteTx<'_>,
    message: &Message,
    end: &CallEnd,
    at: i64,
) -> Result<(), StoreError> {
    let open = queries::open_calls(tx.conn(), &message.id)?;
    end_all(tx, message, open.into_iter(), end, at)
}

fn end_all(
    tx: &mut WriteTx<'_>,
    message: &Message,
    calls: impl Iterator<Item = OpenCall>,
    end: &CallEnd,
    at: i64,
) -> Result<(), StoreError> {
    for OpenCall { mut call, is_damaged } in calls {
        let (state, error) =
            if call.state == ToolState::Running { end.running } else { end.not_started };
        let damage =
            if is_damaged { "; what the call was to do is damaged and cannot be read" } else { "" };
        fail_call(tx, message, &mut call, state, format!("{error}{damage}"), at, None)?;
    }
    Ok(())
}

/// Ends a call without an output, and says so.
pub(super) fn fail_call(
    tx: &mut WriteTx<'_>,
    message: &Message,
    call: &mut ToolPart,
    state: ToolState,
    error: String,
    at: i64,
    by: Option<&UserId>,
) -> Result<(), StoreError> {
    call.state = state;
    call.error = Some(error);
    call.ended_at = Some(at);
    records::save_call(tx.conn(), call)?;
    publish_result(tx, message, call, at, by)
}

/// Publishes the result that a call has; nothing for a call without.
pub(super) fn publish_result(
    tx: &mut WriteTx<'_>,
    message: &Message,
    call: &ToolPart,
    at: i64,
    by: Option<&UserId>,
) -> Result<(), StoreError> {
    let session_id = message.session_id.clone();
    let (message_id, part_id) = (message.id.clone(), call.id.clone());
    let tool_call_id = call.tool_call_id.clone();
    let event = match call.state {
        ToolState::Pending | ToolState::Waiting | ToolState::Running => return Ok(()),
        ToolState::Completed => Event::MessageToolResult {
            session_id,
            message_id,
            part_id,
            tool_call_id,
            output: call.output.clone().unwrap_or_default(),
            metadata: call.metadata.clone(),
            truncated: call.attachment.as_ref().is_some_and(|it| it.mime_type == TEXT),
            attachment: call.attachment.clone(),
        },
        ToolState::Error | ToolState::Denied | ToolState::Cancelled | ToolState::UnknownOutcome => {
            Event::MessageToolError {
                session_id,
                message_id,
                part_id,
                tool_call_id,
                state: call.state,
                error: call.error.clone().unwrap_or_default(),
            }
        }
    };
    log::in_session(tx, &message.session_id, at, by, &event)
}

/// Ends the approvals of a run that nobody decided, and the questions that nobody answered.
pub(super) fn cancel_waits(tx: &mut WriteTx<'_>, run: &Run, at: i64) -> Result<(), StoreError> {
    for mut approval in queries::pending_approvals(tx.conn(), run)? {
        approval.state = ApprovalState::Cancelled;
        end_approval(tx, &approval, at)?;
    }
    questions::cancel_all(tx, run, at)
}

/// Writes an approval that is not pending any more, and says so in both rooms.
pub(super) fn end_approval(
    tx: &mut WriteTx<'_>,
    approval: &Approval,
    at: i64,
) -> Result<(), StoreError> {
    records::save_approval(tx.conn(), approval)?;
    let by = approval.by.as_ref();
    let event = |session_id: &SessionId, input: Option<&Value>| Event::ToolApprovalResolved {
        session_id: session_id.clone(),
        child_session_id: Some(&approval.session_id).filter(|own| *own != session_id).cloned(),
        approval_id: approval.id.clone(),
        tool_call_id: approval.tool_call_id.clone(),
        state: approval.state,
        by: approval.by.clone(),
        reason: approval.reason.clone(),
        remember: approval.remember,
        input: input.cloned(),
    };
    // What was edited may be long, and is a matter of those who look at the session.
    let edited = approval.original_input.is_some().then_some(&approval.input);
    let own = &approval.session_id;
    log::in_session(tx, own, at, by, &event(own, edited))?;
    family::tell_above(tx, own, at, by, |above| event(&above, edited))?;
    log::in_project(tx, at, by, &event(own, None))
}

/// Ends an answer whose reason and error are set.
pub(super) fn end_message(
    tx: &mut WriteTx<'_>,
    message: &mut Message,
    state: MessageState,
    at: i64,
) -> Result<(), StoreError> {
    message.state = state;
    message.completed_at = Some(at);
    records::save_message(tx.conn(), message)?;
    let (session_id, message_id) = (message.session_id.clone(), message.id.clone());
    let event = match (&message.error, message.finish_reason) {
        (None, Some(finish_reason)) => {
            let usage = message.usage.unwrap_or_default();
            Event::MessageComplete { session_id, message_id, finish_reason, usage }
        }
        (error, _) => {
            let unknown = || ApiError::from(ErrorCode::Internal);
            let error = error.clone().unwrap_or_else(unknown);
            Event::MessageError { session_id, message_id, error }
        }
    };
    log::in_session(tx, &message.session_id, at, None, &event)
}

/// Ends a run, says what its session does now and which run comes next.
pub(super) fn end_run(
    tx: &mut WriteTx<'_>,
    session: &mut Session,
    run: &mut Run,
    status: RunStatus,
    error: Option<ApiError>,
    at: i64,
) -> Result<FinishedRun, StoreError> {
    run.status = status;
    run.ended_at = Some(at);
    run.error = error;
    records::save_run(tx.conn(), run)?;
    joining::run_ended(tx, &run.id, at)?;
    let event = Event::RunCompleted {
        run_id: run.id.clone(),
        session_id: run.session_id.clone(),
        status,
        usage: run.usage,
        error: run.error.clone(),
    };
    log::in_session(tx, &run.session_id, at, None, &event)?;
    tasks::run_ended(tx, run, at)?;

    let first = queries::first_open_run(tx.conn(), &run.session_id)?;
    save_in_state(tx, session, state_after(status, first.as_ref()), at, None)?;
    Ok(next_of(first))
}

/// Which run of a session comes next.
pub(super) fn next_run(tx: &WriteTx<'_>, id: &SessionId) -> Result<FinishedRun, StoreError> {
    queries::first_open_run(tx.conn(), id).map(next_of)
}

fn next_of(first: Option<Run>) -> FinishedRun {
    let next = first.filter(|run| run.status == RunStatus::Queued).map(|run| run.id);
    FinishedRun { next }
}

/// What a session does after a run ended with `status`, given its first open run.
fn state_after(status: RunStatus, first: Option<&Run>) -> SessionState {
    match first.map_or(status, |run| run.status) {
        RunStatus::Queued => SessionState::Queued,
        RunStatus::Running => SessionState::Running,
        RunStatus::Waiting => SessionState::Waiting,
        RunStatus::Interrupted => SessionState::Interrupted,
        RunStatus::Completed | RunStatus::Failed | RunStatus::Cancelled => SessionState::Idle,
    }
}
