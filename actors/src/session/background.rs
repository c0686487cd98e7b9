//! Sub-agents in the background: children of the session, which outlive the run that set them to work.

use std::sync::Arc;

use actix::prelude::*;
use iris_protocol::{RunId, SessionId};

use super::{START_AGAIN_AFTER, Session};
use crate::project::{OpenChild, RetireSession};

/// Tell: a sub-agent works in the background from now on.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Adopt {
    pub(crate) id: SessionId,
    pub(crate) run_id: RunId,
}

impl Handler<Adopt> for Session {
    type Result = ();

    fn handle(&mut self, Adopt { id, run_id }: Adopt, ctx: &mut Context<Self>) {
        self.adopt(id, run_id, ctx);
    }
}

impl Session {
    /// Takes up the sub-agents that an earlier life of the session set to work, for as long as it takes to
    /// learn of them.
    pub(super) fn adopt_all(&mut self, ctx: &mut Context<Self>) {
        let place = self.place.clone();
        let found = async move {
            // Before that the runs of an earlier life may count as working.
            place.recovered().await?;
            place.project.reader.tasks_in_background(place.id).await
        };
        ctx.spawn(found.into_actor(self).map(|found, session, ctx| match found {
            Ok(tasks) => {
                for (id, run_id) in tasks {
                    session.adopt(id, run_id, ctx);
                }
            }
            Err(error) => {
                let path = session.vitals.path();
                tracing::error!(actor.path = %path, %error, "sub-agents could not be looked up");
                ctx.run_later(START_AGAIN_AFTER, Self::adopt_all);
            }
        }));
    }

    /// Keeps a sub-agent as a child of the session until its run has ended. With that end comes a message,
    /// perhaps.
    fn adopt(&mut self, id: SessionId, run_id: RunId, ctx: &mut Context<Self>) {
        if !self.background.insert(run_id.clone()) {
            return;
        }
        let project = Arc::clone(&self.place.project);
        project.address.tell(OpenChild { id: id.clone(), under: Arc::clone(&self.vitals) });
        let ended = {
            let (project, run_id) = (Arc::clone(&project), run_id.clone());
            async move { project.run_end(run_id).await }
        };
        ctx.spawn(ended.into_actor(self).map(move |(), session, ctx| {
            project.address.tell(RetireSession(id));
            session.background.remove(&run_id);
            session.was_used = true;
            session.start_next(ctx);
        }));
    }
}

/// Tell: nobody needs the session where it stands; it ends as soon as it has nothing to do.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Retire;

impl Handler<Retire> for Session {
    type Result = ();

    fn handle(&mut self, _: Retire, ctx: &mut Context<Self>) {
        self.is_retired = true;
        self.leave_if_retired(ctx);
    }
}

impl Session {
    pub(super) fn leave_if_retired(&mut self, ctx: &mut Context<Self>) {
        if self.is_retired && self.is_idle() {
            self.vitals.passivate();
            ctx.stop();
        }
    }
}
