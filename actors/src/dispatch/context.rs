//! What models are told of a conversation.

use iris_protocol::{ApiError, RunPayload, SessionCompact};
use iris_store::{Committed, WriteContext};

use super::sessions::in_session;
use super::{Done, Grant, done};
use crate::Node;
use crate::session::Compact;

pub(super) async fn compact(
    node: &Node,
    grant: &Grant,
    request: SessionCompact,
    context: WriteContext,
) -> Result<Done, ApiError> {
    node.takes_runs()?;
    let by = grant.user_id()?.clone();
    let message = |session| Compact { session, by, context };
    let queued = in_session(node, grant, request.session_id, false, message).await?;
    let Committed { output: run, seq, replayed } = queued?;
    Ok(done(RunPayload { run })?.at(seq, replayed))
}
