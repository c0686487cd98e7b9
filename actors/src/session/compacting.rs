//! Replacing the conversation by a summary because somebody wants it: a run that does nothing else.

use actix::prelude::*;
use iris_protocol::{ApiError, Run, RunId, Session as SessionResource, UserId};
use iris_store::project::CompactSession;
use iris_store::{Committed, WriteContext};

use super::{Session, SessionPlace, answerer, repeated};
use crate::supervision::current_request;
use crate::write;

/// Ask: queues a run that makes a summary, and sees to it that it is made.
#[derive(Message)]
#[rtype(result = "Result<Committed<Run>, ApiError>")]
pub(crate) struct Compact {
    pub(crate) session: SessionResource,
    pub(crate) by: UserId,
    pub(crate) context: WriteContext,
}

impl Handler<Compact> for Session {
    type Result = ResponseActFuture<Self, Result<Committed<Run>, ApiError>>;

    fn handle(&mut self, compact: Compact, _: &mut Context<Self>) -> Self::Result {
        self.asked += 1;
        self.was_used = true;
        let run_id = RunId::from_bits(self.place.services.ids.next_bits());
        // Before the commit: the run may begin at once after it.
        if let Some(request) = current_request() {
            self.requests.insert(run_id.clone(), request);
        }
        let queued = queued(self.place.clone(), run_id.clone(), compact).into_actor(self);
        Box::pin(queued.map(move |queued, session, ctx| {
            if !matches!(&queued, Ok(queued) if !queued.replayed) {
                session.requests.remove(&run_id);
            }
            session.answered(queued.is_ok(), ctx);
            queued
        }))
    }
}

async fn queued(
    place: SessionPlace,
    run_id: RunId,
    compact: Compact,
) -> Result<Committed<Run>, ApiError> {
    let Compact { session, by, context } = compact;
    if let Err(error) = answerer(&place, &session).await {
        return repeated::<CompactSession>(&place, context, error).await;
    }
    place.project.mark_unfinished().await?;
    let command = CompactSession {
        session_id: place.id.clone(),
        run_id,
        by,
        quotas: place.services.settings.quotas,
        at: place.services.clock.now_ms(),
    };
    write(&place.project.address, command, context).await.map_err(|error| error.to_api())
}
