//! Undoing turns of a session, and undoing that.

use iris_protocol::{ApiError, SessionRevert, SessionUnrevert};
use iris_store::WriteContext;

use super::{Done, Grant, done};
use crate::Node;
use crate::files::{By, Place, Undo, Undone, undo_turns};

pub(super) async fn revert(
    node: &Node,
    grant: &Grant,
    request: SessionRevert,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let SessionRevert { session_id, message_id, dry_run, skip_changed } = request;
    let undo = Undo {
        session_id,
        message_id: Some(message_id),
        dry_run: dry_run.unwrap_or(false),
        skip_changed: skip_changed.unwrap_or(false),
    };
    undo_in(node, grant, undo, context).await
}

pub(super) async fn unrevert(
    node: &Node,
    grant: &Grant,
    request: SessionUnrevert,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let SessionUnrevert { session_id, dry_run, skip_changed } = request;
    let undo = Undo {
        session_id,
        message_id: None,
        dry_run: dry_run.unwrap_or(false),
        skip_changed: skip_changed.unwrap_or(false),
    };
    undo_in(node, grant, undo, context).await
}

async fn undo_in(
    node: &Node,
    grant: &Grant,
    undo: Undo,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    let place = Place { project: &project, services: &node.services };
    let by = By { user: grant.user_id()?.clone(), context };
    let Undone { outcome, seq, replayed } = Box::pin(undo_turns(place, by, undo)).await?;
    Ok(done(outcome)?.at(seq, replayed))
}
