//! What people do with messages besides sending them: take them back, have them answered again, say them
//! differently, go on elsewhere, take them along.

mod markdown;

use iris_protocol::limits::EXPORT_BYTES_MAX;
use iris_protocol::{
    ApiError, ErrorCode, ExportFormat, Message, MessageDequeue, MessageEdit, MessageId,
    MessageRetry, Session as SessionResource, SessionDocument, SessionExport, SessionFork,
    SessionId, SessionMode, SessionPayload,
};
use iris_store::project::{Conversation, DequeueMessage, ForkSession};
use iris_store::{Committed, WriteContext};
use serde::Serialize;

use super::permissions::role_of;
use super::sessions::{check_agent, hold_attachments, in_session, said};
use super::{Done, Grant, check_name, done, internal, stored};
use crate::permissions::check_mode;
use crate::session::{Rewrite, Said};
use crate::{Node, write};
use markdown::markdown;

pub(super) async fn dequeue(
    node: &Node,
    grant: &Grant,
    request: MessageDequeue,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let MessageDequeue { session_id, message_id } = request;
    let (by, at) = (grant.user_id()?.clone(), node.services.clock.now_ms());
    let project = grant.project(node).await?;
    let command = DequeueMessage { session_id, message_id, by, at };
    let removed = write(&project.address, command, context).await.map_err(stored)?;
    Ok(done(iris_protocol::Done { done: true })?.at(removed.seq, removed.replayed))
}

pub(super) async fn retry(
    node: &Node,
    grant: &Grant,
    request: MessageRetry,
    context: WriteContext,
) -> Result<Done, ApiError> {
    rewrite(node, grant, request.session_id, request.message_id, None, context).await
}

pub(super) async fn edit(
    node: &Node,
    grant: &Grant,
    request: MessageEdit,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let said = said(node, &request.content, request.attachments)?;
    rewrite(node, grant, request.session_id, request.message_id, Some(said), context).await
}

async fn rewrite(
    node: &Node,
    grant: &Grant,
    session_id: SessionId,
    message_id: MessageId,
    said: Option<Said>,
    context: WriteContext,
) -> Result<Done, ApiError> {
    node.takes_runs()?;
    let by = grant.user_id()?.clone();
    let _held = said.as_ref().map(|said| hold_attachments(node, &by, said)).transpose()?;
    let message = |session| Rewrite { session, message_id, said, by, context };
    let rewritten = in_session(node, grant, session_id, false, message).await?;
    let Committed { output, seq, replayed } = rewritten?;
    Ok(done(output)?.at(seq, replayed))
}

pub(super) async fn fork(
    node: &Node,
    grant: &Grant,
    request: SessionFork,
    context: WriteContext,
) -> Result<Done, ApiError> {
    if let Some(title) = &request.title {
        check_name("title", title)?;
    }
    let project = grant.project(node).await?;
    let found = project.reader.session(request.session_id.clone()).await.map_err(stored)?;
    let mut mode = SessionMode::default();
    if let Some(session) = found {
        check_agent(&project, &node.services, &session.agent).await?;
        // What the caller could not choose is not taken over.
        let role = role_of(node, grant).await?;
        if check_mode(session.mode, role, node.services.sandbox.as_ref()).is_ok() {
            mode = session.mode;
        }
    }
    let command = ForkSession {
        session_id: request.session_id,
        message_id: request.message_id,
        fork_id: SessionId::from_bits(node.services.ids.next_bits()),
        title: request.title,
        mode,
        by: grant.user_id()?.clone(),
        quotas: node.services.settings.quotas,
        at: node.services.clock.now_ms(),
    };
    let forked = write(&project.address, command, context).await.map_err(stored)?;
    let Committed { output: session, seq, replayed } = forked;
    Ok(done(SessionPayload { session })?.at(seq, replayed))
}

pub(super) async fn export(
    node: &Node,
    grant: &Grant,
    request: SessionExport,
) -> Result<Done, ApiError> {
    let format = request.format.unwrap_or_default();
    let _held = node.bodies.hold(grant.user_id()?, EXPORT_BYTES_MAX as u64)?;
    let project = grant.project(node).await?;
    let found = project.reader.conversation(request.session_id, EXPORT_BYTES_MAX).await;
    let found = found.map_err(stored)?.ok_or_else(|| ApiError::not_found("session"))?;
    let Conversation { session, messages: Some(messages) } = found else {
        return Err(too_large());
    };
    let write = move || document(format, &session, &messages);
    let content = tokio::task::spawn_blocking(write).await.map_err(internal)?.map_err(internal)?;
    if content.len() > EXPORT_BYTES_MAX {
        return Err(too_large());
    }
    done(SessionDocument { mime_type: format.mime_type().to_owned(), content })
}

fn too_large() -> ApiError {
    let message = format!(
        "the document would have more than {EXPORT_BYTES_MAX} bytes: read the messages in pages"
    );
    ApiError::new(ErrorCode::PayloadTooLarge, message).reason("export_too_large")
}

fn document(
    format: ExportFormat,
    session: &SessionResource,
    messages: &[Message],
) -> Result<String, serde_json::Error> {
    #[derive(Serialize)]
    struct Whole<'a> {
        session: &'a SessionResource,
        messages: &'a [Message],
    }
    match format {
        ExportFormat::Json => serde_json::to_string(&Whole { session, messages }),
        ExportFormat::Markdown => Ok(markdown(session, messages)),
    }
}
