//! Who is present, and who writes a message.

use iris_protocol::{
    ApiError, ConnectionId, ErrorCode, PresencePage, PresenceUpdate, SessionId, SessionStatus,
};

use super::{Done, Grant, done, stored};
use crate::Node;
use crate::project::{ListPresence, ProjectHandle, StartTyping, StopTyping, UpdatePresence};
use crate::supervision::AskError;

/// The connection that a request came over. What is about a socket never gets here without.
fn on_socket(connection_id: Option<ConnectionId>) -> Result<ConnectionId, ApiError> {
    connection_id.ok_or_else(|| ApiError::invalid("send it on a socket").reason("socket_only"))
}

async fn status_of(project: &ProjectHandle, id: SessionId) -> Result<SessionStatus, ApiError> {
    let found = project.reader.session(id).await.map_err(stored)?;
    let status = found.map(|session| session.status);
    status
        .filter(|status| *status != SessionStatus::Deleted)
        .ok_or_else(|| ApiError::not_found("session"))
}

pub(super) async fn update(
    node: &Node,
    grant: &Grant,
    connection_id: Option<ConnectionId>,
    request: PresenceUpdate,
) -> Result<Done, ApiError> {
    let connection_id = on_socket(connection_id)?;
    let project = grant.project(node).await?;
    let PresenceUpdate { session_id, status } = request;
    let status = status.unwrap_or_default();
    let update = |session_id| {
        let connection_id = connection_id.clone();
        project.address.ask(UpdatePresence { connection_id, session_id, status })
    };
    update(session_id.clone()).await.map_err(AskError::to_api)??;
    // Only now: a session that is deleted in between would be looked at for ever.
    if let Some(session_id) = session_id
        && let Err(error) = status_of(&project, session_id).await
    {
        update(None).await.map_err(AskError::to_api)??;
        return Err(error);
    }
    done(iris_protocol::Done { done: true })
}

pub(super) async fn list(node: &Node, grant: &Grant) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    let users = project.address.ask(ListPresence).await.map_err(AskError::to_api)?;
    done(PresencePage { users })
}

pub(super) async fn start_typing(
    node: &Node,
    grant: &Grant,
    connection_id: Option<ConnectionId>,
    session_id: SessionId,
) -> Result<Done, ApiError> {
    let connection_id = on_socket(connection_id)?;
    let project = grant.project(node).await?;
    match status_of(&project, session_id.clone()).await? {
        SessionStatus::Active => {}
        SessionStatus::Archived | SessionStatus::Deleted => {
            let error = ApiError::new(ErrorCode::Conflict, "the session is archived");
            return Err(error.reason("session_archived"));
        }
    }
    let by = grant.user_id()?.clone();
    let start = StartTyping { connection_id, by, session_id };
    project.address.ask(start).await.map_err(AskError::to_api)??;
    done(iris_protocol::Done { done: true })
}

pub(super) async fn stop_typing(
    node: &Node,
    grant: &Grant,
    session_id: SessionId,
) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    let user_id = Some(grant.user_id()?.clone());
    project.address.tell(StopTyping { user_id, session_id: Some(session_id) });
    done(iris_protocol::Done { done: true })
}
