//! Sessions, messages, runs and approvals.

use iris_protocol::{
    ApiError, ApprovalGet, ApprovalList, ApprovalPayload, ApprovalState, CancelPayload, Content,
    Event, MessageGet, MessageList, MessagePayload, MessageSend, PartId, Remember, Run, RunCancel,
    RunGet, RunList, RunPayload, RunResume, RunStatus, SentAttachment, Session as SessionResource,
    SessionCreate, SessionDelete, SessionGet, SessionId, SessionList, SessionPayload, SessionRead,
    SessionSearch, SessionStatus, SessionUpdate, ToolApprove, ToolReject, UnreadPayload, UserId,
    WhenBusy,
    limits::{ATTACHMENTS_BYTES_MAX, MESSAGE_TEXT_BYTES_MAX, SEARCH_HITS_DEFAULT, SEARCH_HITS_MAX},
};
use iris_store::project::{
    ChooseCancelled, ChosenRun, CreateSession, Decision, MarkRead, PurgeSession, SetSessionStatus,
    UpdateSession, Yes,
};
use iris_store::{Committed, StoreError, WriteContext};

use super::answer_format::answer_format;
use super::attachments::attached;
use super::bodies::Held;
use super::invitations::event_of;
use super::permissions::{require_admin, role_of};
use super::projects::page_size;
use super::{Done, Grant, check_description, check_length, check_model, check_name, done, stored};
use crate::agents::{DEFAULT_AGENT, find_agent, is_primary};
use crate::permissions::check_mode;
use crate::project::{InSession, ProjectHandle, index_text};
use crate::session::{CancelRun, Decide, Resume, Said, SendMessage, Session};
use crate::supervision::{AskError, MessageFor};
use crate::{Node, Services, record, write};

pub(super) async fn create(
    node: &Node,
    grant: &Grant,
    request: SessionCreate,
    context: WriteContext,
) -> Result<Done, ApiError> {
    if let Some(title) = &request.title {
        check_name("title", title)?;
    }
    check_model(request.model.as_ref())?;
    let project = grant.project(node).await?;
    let agent = request.agent.unwrap_or_else(|| DEFAULT_AGENT.to_owned());
    check_agent(&project, &node.services, &agent).await?;
    let mode = request.mode.unwrap_or_default();
    check_mode(mode, role_of(node, grant).await?, node.services.sandbox.as_ref())?;
    let command = CreateSession {
        id: SessionId::from_bits(node.services.ids.next_bits()),
        title: request.title,
        agent,
        model: request.model,
        mode,
        created_by: grant.user_id()?.clone(),
        quotas: node.services.settings.quotas,
        at: node.services.clock.now_ms(),
    };
    answer(write(&project.address, command, context).await.map_err(stored)?)
}

fn answer(changed: Committed<SessionResource>) -> Result<Done, ApiError> {
    let Committed { output: session, seq, replayed } = changed;
    Ok(done(SessionPayload { session })?.at(seq, replayed))
}

pub(super) async fn check_agent(
    project: &ProjectHandle,
    services: &Services,
    name: &str,
) -> Result<(), ApiError> {
    let found = find_agent(project, services, name).await.map_err(stored)?;
    let agent = found.ok_or_else(|| ApiError::not_found("agent"))?;
    if is_primary(&agent) {
        return Ok(());
    }
    let message = format!("the agent `{name}` is set to work by other agents, not by people");
    Err(ApiError::invalid(message).reason("agent_not_primary"))
}

pub(super) async fn list(
    node: &Node,
    grant: &Grant,
    request: SessionList,
) -> Result<Done, ApiError> {
    let limit = page_size(request.limit)?;
    let archived = request.include_archived.unwrap_or(false);
    let project = grant.project(node).await?;
    let (user_id, cursor) = (grant.user_id()?.clone(), request.cursor);
    let page =
        project.reader.sessions_for(user_id, limit, cursor, archived, request.parent_id).await;
    done(page.map_err(stored)?)
}

pub(super) async fn search(
    node: &Node,
    grant: &Grant,
    request: SessionSearch,
) -> Result<Done, ApiError> {
    let SessionSearch { query, session_id, limit, cursor } = request;
    let limit @ 1..=SEARCH_HITS_MAX = limit.unwrap_or(SEARCH_HITS_DEFAULT) else {
        return Err(ApiError::invalid(format!("`limit` must be 1 to {SEARCH_HITS_MAX}")));
    };
    let project = grant.project(node).await?;
    if let Some(id) = &session_id {
        let found = project.reader.session(id.clone()).await.map_err(stored)?;
        found.ok_or_else(|| ApiError::not_found("session"))?;
    }
    // What was said a moment ago is found too. Where nothing can be written, what is indexed is.
    if project.reader.has_unindexed().await.map_err(stored)?
        && let Err(error) = index_text(project.address.clone()).await
    {
        tracing::warn!(project.id = %project.id, %error, "new text could not be indexed");
    }
    done(project.reader.search(query, session_id, limit, cursor).await.map_err(stored)?)
}

pub(super) async fn get(node: &Node, grant: &Grant, request: SessionGet) -> Result<Done, ApiError> {
    let limit = page_size(request.limit)?;
    let project = grant.project(node).await?;
    let (user_id, before) = (grant.user_id()?.clone(), request.before);
    let snapshot = project.reader.snapshot_for(user_id, request.session_id, limit, before).await;
    done(snapshot.map_err(stored)?.ok_or_else(|| ApiError::not_found("session"))?)
}

/// Notes how far the caller has read, and tells their connections, and nobody else.
pub(super) async fn read(
    node: &Node,
    grant: &Grant,
    request: SessionRead,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    let user_id = grant.user_id()?.clone();
    let SessionRead { session_id, message_id } = request;
    let at = node.services.clock.now_ms();
    let command = MarkRead { session_id, message_id, user_id: user_id.clone(), at };
    let marked = write(&project.address, command, context).await.map_err(stored)?;
    let Committed { output: (unread, is_news), seq, replayed } = marked;
    if is_news && !replayed {
        let event = Event::SessionUnread { project_id: project.id.clone(), unread: unread.clone() };
        node.connections.tell_user(&user_id, &event_of(&user_id, event));
    }
    Ok(done(UnreadPayload { unread })?.at(seq, replayed))
}

pub(super) async fn update(
    node: &Node,
    grant: &Grant,
    request: SessionUpdate,
    context: WriteContext,
) -> Result<Done, ApiError> {
    if let Some(title) = &request.title {
        check_name("title", title)?;
    }
    check_model(request.model.as_ref())?;
    let project = grant.project(node).await?;
    if let Some(agent) = &request.agent {
        check_agent(&project, &node.services, agent).await?;
    }
    if let Some(mode) = request.mode {
        check_mode(mode, role_of(node, grant).await?, node.services.sandbox.as_ref())?;
    }
    let command = UpdateSession {
        id: request.session_id,
        title: request.title,
        agent: request.agent,
        model: request.model,
        mode: request.mode,
        by: grant.user_id()?.clone(),
        at: node.services.clock.now_ms(),
    };
    answer(write(&project.address, command, context).await.map_err(stored)?)
}

pub(super) async fn archive(
    node: &Node,
    grant: &Grant,
    id: SessionId,
    context: WriteContext,
) -> Result<Done, ApiError> {
    answer(set_status(node, grant, id, SessionStatus::Archived, context).await?)
}

pub(super) async fn unarchive(
    node: &Node,
    grant: &Grant,
    id: SessionId,
    context: WriteContext,
) -> Result<Done, ApiError> {
    answer(set_status(node, grant, id, SessionStatus::Active, context).await?)
}

async fn set_status(
    node: &Node,
    grant: &Grant,
    id: SessionId,
    status: SessionStatus,
    context: WriteContext,
) -> Result<Committed<SessionResource>, ApiError> {
    let project = grant.project(node).await?;
    let by = grant.user_id()?.clone();
    let command = SetSessionStatus { id, status, by, at: node.services.clock.now_ms() };
    write(&project.address, command, context).await.map_err(stored)
}

pub(super) async fn delete(
    node: &Node,
    grant: &Grant,
    request: SessionDelete,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let id = request.session_id;
    let (seq, replayed) = if request.permanent.unwrap_or(false) {
        let project = grant.project(node).await?;
        let by = grant.user_id()?.clone();
        let command = PurgeSession { id, by, at: node.services.clock.now_ms() };
        let purged = write(&project.address, command, context).await.map_err(stored)?;
        (purged.seq, purged.replayed)
    } else {
        let deleted = set_status(node, grant, id, SessionStatus::Deleted, context).await?;
        (deleted.seq, deleted.replayed)
    };
    Ok(done(iris_protocol::Done { done: true })?.at(seq, replayed))
}

/// Hands a message to the actor of a session that the caller may act in.
pub(super) async fn in_session<M: MessageFor<Session>>(
    node: &Node,
    grant: &Grant,
    id: SessionId,
    is_urgent: bool,
    message: impl FnOnce(SessionResource) -> M,
) -> Result<M::Result, ApiError> {
    let project = grant.project(node).await?;
    let found = project.reader.session(id.clone()).await.map_err(stored)?;
    let found = found.filter(|session| session.status != SessionStatus::Deleted);
    let session = found.ok_or_else(|| ApiError::not_found("session"))?;
    let ask = InSession { id, message: message(session), is_urgent };
    // Urgent for the registry in any case: it only passes the message on.
    let asked = project.address.urge(ask).await.map_err(AskError::to_api)?;
    asked.await.map_err(AskError::to_api)
}

pub(super) async fn send(
    node: &Node,
    grant: &Grant,
    request: MessageSend,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let said = said(node, &request.content, request.attachments)?;
    let when_busy = request.when_busy.unwrap_or_default();
    match when_busy {
        WhenBusy::Steer => node.takes_messages()?,
        WhenBusy::Queue | WhenBusy::Interrupt | WhenBusy::Reject => node.takes_runs()?,
    }
    let by = grant.user_id()?.clone();
    let _held = hold_attachments(node, &by, &said)?;
    let message = |session| SendMessage { session, said, when_busy, by, context };
    let sent = in_session(node, grant, request.session_id, false, message).await?;
    let Committed { output, seq, replayed } = sent?;
    Ok(done(output)?.at(seq, replayed))
}

/// Makes room for what goes with a message, if anything does, until it is taken.
pub(super) fn hold_attachments(
    node: &Node,
    by: &UserId,
    said: &Said,
) -> Result<Option<Held>, ApiError> {
    let has_some = !said.attachments.is_empty();
    has_some.then(|| node.bodies.hold(by, ATTACHMENTS_BYTES_MAX as u64)).transpose()
}

/// What a message says.
pub(super) fn said(
    node: &Node,
    content: &Content,
    attachments: Vec<SentAttachment>,
) -> Result<Said, ApiError> {
    let text = match content {
        Content::Text(_) | Content::Parts(_) => content.text(),
    };
    if text.trim().is_empty() {
        return Err(ApiError::invalid("`content` holds no text").reason("empty_content"));
    }
    check_length("content", &text, MESSAGE_TEXT_BYTES_MAX)?;
    let format_id = PartId::from_bits(node.services.ids.next_bits());
    let answer_format = answer_format(content, format_id)?;
    Ok(Said { text, answer_format, attachments: attached(attachments)? })
}

pub(super) async fn cancel(
    node: &Node,
    grant: &Grant,
    request: RunCancel,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let session_id = request.session_id;
    let has_key = context.idempotency.is_some();
    let project = grant.project(node).await?;
    let command = ChooseCancelled { session_id: session_id.clone() };
    let chosen = record(&project.address, command, context).await;
    if let Err(error @ StoreError::StorageFull) = chosen {
        // Not even the reserve has room. The run is ended all the same, but that is no promise.
        if let Ok(Some(open)) = project.reader.open_run(session_id.clone()).await {
            drop(in_session(node, grant, session_id, true, |_| CancelRun(open.run.id)).await);
        }
        return Err(stored(error));
    }
    let Committed { output: chosen, replayed, .. } = chosen.map_err(stored)?;
    let mut cancelled = chosen.as_ref().is_some_and(|chosen| has_key || !chosen.is_ending);
    if let Some(ChosenRun { run_id, .. }) = chosen {
        // Also what was chosen before: perhaps its session was not told.
        let session_id = session_id.clone();
        let told = in_session(node, grant, session_id, true, |_| CancelRun(run_id)).await;
        if !replayed {
            told?;
        }
    }
    let background = project.reader.tasks_in_background(session_id).await.map_err(stored)?;
    for (child_id, run_id) in background {
        cancelled = true;
        in_session(node, grant, child_id, true, |_| CancelRun(run_id)).await?;
    }
    Ok(done(CancelPayload { cancelled })?.at(None, replayed))
}

pub(super) async fn run(node: &Node, grant: &Grant, request: RunGet) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    let found = project.reader.run(request.run_id).await.map_err(stored)?;
    let found = found.filter(|run| run.session_id == request.session_id);
    let mut run = found.ok_or_else(|| ApiError::not_found("run"))?;
    place_in_line(node, grant, &mut run)?;
    done(RunPayload { run })
}

pub(super) async fn runs(node: &Node, grant: &Grant, request: RunList) -> Result<Done, ApiError> {
    let limit = page_size(request.limit)?;
    let project = grant.project(node).await?;
    let page = project.reader.runs(request.session_id, limit, request.cursor).await;
    let mut page = page.map_err(stored)?;
    page.runs.iter_mut().try_for_each(|run| place_in_line(node, grant, run))?;
    done(page)
}

/// Says where a run stands that waits for a place.
fn place_in_line(node: &Node, grant: &Grant, run: &mut Run) -> Result<(), ApiError> {
    if run.status == RunStatus::Queued {
        let standing = node.services.runs.standing(grant.project_id()?, run.id.as_str());
        run.position = standing.map(|it| it.position);
    }
    Ok(())
}

pub(super) async fn resume(
    node: &Node,
    grant: &Grant,
    request: RunResume,
    context: WriteContext,
) -> Result<Done, ApiError> {
    node.takes_runs()?;
    let RunResume { session_id, run_id } = request;
    let by = grant.user_id()?.clone();
    let resume = |_| Resume { run_id, by, context };
    let resumed = in_session(node, grant, session_id, false, resume).await?;
    let Committed { output: run, seq, replayed } = resumed?;
    Ok(done(RunPayload { run })?.at(seq, replayed))
}

pub(super) async fn message(
    node: &Node,
    grant: &Grant,
    request: MessageGet,
) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    let found = project.reader.message(request.session_id, request.message_id).await;
    let message = found.map_err(stored)?.ok_or_else(|| ApiError::not_found("message"))?;
    done(MessagePayload { message })
}

pub(super) async fn messages(
    node: &Node,
    grant: &Grant,
    request: MessageList,
) -> Result<Done, ApiError> {
    let limit = page_size(request.limit)?;
    let project = grant.project(node).await?;
    let found = project.reader.session(request.session_id.clone()).await.map_err(stored)?;
    if found.is_none() {
        return Err(ApiError::not_found("session"));
    }
    let page = project.reader.messages(request.session_id, limit, request.before).await;
    done(page.map_err(stored)?)
}

pub(super) async fn approve(
    node: &Node,
    grant: &Grant,
    request: ToolApprove,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let ToolApprove { session_id, tool_call_id, remember, input_hash, input } = request;
    let remember = remember.unwrap_or_default();
    if remember == Remember::Project {
        require_admin(node, grant, "remember an answer for the whole project").await?;
    }
    // The session fills in what the rules say of edited arguments.
    let edited = input.map(|input| (input, Vec::new()));
    let yes = Yes { remember, input_hash, edited, rules: Vec::new() };
    decide(node, grant, session_id, tool_call_id, Decision::Approve(yes), context).await
}

pub(super) async fn reject(
    node: &Node,
    grant: &Grant,
    request: ToolReject,
    context: WriteContext,
) -> Result<Done, ApiError> {
    check_description("reason", request.reason.as_deref())?;
    let ToolReject { session_id, tool_call_id, reason } = request;
    decide(node, grant, session_id, tool_call_id, Decision::Reject { reason }, context).await
}

pub(super) async fn approvals(
    node: &Node,
    grant: &Grant,
    request: ApprovalList,
) -> Result<Done, ApiError> {
    let limit = page_size(request.limit)?;
    let state = request.state.unwrap_or(ApprovalState::Pending);
    let project = grant.project(node).await?;
    let page = project.reader.approvals(request.session_id, state, limit, request.cursor).await;
    done(page.map_err(stored)?)
}

pub(super) async fn approval(
    node: &Node,
    grant: &Grant,
    request: ApprovalGet,
) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    let ApprovalGet { session_id, tool_call_id } = request;
    let found = project.reader.session_of_approval(session_id, tool_call_id.clone()).await;
    let session_id = found.map_err(stored)?.ok_or_else(|| ApiError::not_found("approval"))?;
    let found = project.reader.approval(session_id, tool_call_id).await;
    let approval = found.map_err(stored)?.ok_or_else(|| ApiError::not_found("approval"))?;
    done(ApprovalPayload { approval })
}

async fn decide(
    node: &Node,
    grant: &Grant,
    session_id: SessionId,
    tool_call_id: iris_protocol::ToolCallId,
    decision: Decision,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    let found = project.reader.session_of_approval(session_id.clone(), tool_call_id.clone()).await;
    // Of a sub-agent's call perhaps. What is wrong with one that is not there is for the command to say.
    let session_id = found.map_err(stored)?.unwrap_or(session_id);
    let by = Some(grant.user_id()?.clone());
    let decide = |_| Decide { tool_call_id, decision, by, context };
    let Committed { output: approval, seq, replayed } =
        in_session(node, grant, session_id, true, decide).await??;
    Ok(done(ApprovalPayload { approval })?.at(seq, replayed))
}
