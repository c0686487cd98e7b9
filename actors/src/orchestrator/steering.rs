//! Messages that join the run while it works: right before it asks its model, behind the results of the
//! step before.

use iris_protocol::{MessageId, RunId};
use iris_store::project::JoinMessages;
use iris_store::{CrashPoint, WriteContext, crash_point};

use crate::record;
use crate::session::SessionPlace;

/// Lets the messages that wait for it join the run. Where that cannot be recorded they go on waiting: for
/// the next step, or for the end of the run.
pub(super) async fn join_messages(place: &SessionPlace, run_id: RunId, message_id: MessageId) {
    let (session_id, at) = (place.id.clone(), place.services.clock.now_ms());
    let command = JoinMessages { session_id, run_id, message_id, at };
    match record(&place.project.address, command, WriteContext::default()).await {
        Ok(_) => crash_point(CrashPoint::AfterJoin),
        Err(error) => tracing::warn!(%error, "messages that wait could not join their run"),
    }
}
