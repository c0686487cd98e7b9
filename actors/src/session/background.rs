//! Sub-agents in the background: children of the session, which outlive the run that set them to work.

use std::sync::Arc;

use actix::prelude::*;
use iris_protocol::{RunId, SessionId};

use super::{START_AGAIN_AFTER, Session, Work};
use crate::project::{MoveUp, OpenChild, RetireSession};
use crate::supervision::Address;

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
        // What a sub-agent leaves at work outlives who set the sub-agent to work.
        let is_child = self.place.serves.is_some();
        let under = (!is_child).then(|| Arc::clone(&self.vitals));
        project.address.tell(OpenChild { id: id.clone(), run_id: run_id.clone(), under });
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

/// Tell: something other than a request may have given the session a run to start.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Look;

impl Handler<Look> for Session {
    type Result = ();

    fn handle(&mut self, _: Look, ctx: &mut Context<Self>) {
        self.was_used = true;
        self.start_next(ctx);
    }
}

/// Whether a session's actor stands where nobody needs it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaving {
    No,
    /// What it served is done.
    Yes,
    /// It has something else to do, below the registry.
    WithWork,
}

/// Tell: what the session's actor served where it stands is done. It leaves as soon as it may, and goes on
/// below the registry with what else there is to do.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Retire;

impl Handler<Retire> for Session {
    type Result = ();

    fn handle(&mut self, _: Retire, ctx: &mut Context<Self>) {
        if self.place.serves.is_some() && self.leaving == Leaving::No {
            self.leaving = Leaving::Yes;
        }
        self.leave_if_done(ctx);
    }
}

impl Session {
    /// Leaves if it is to, unless it works or somebody waits for an answer.
    pub(super) fn leave_if_done(&mut self, ctx: &mut Context<Self>) {
        let is_leaving = self.leaving != Leaving::No;
        if !is_leaving || self.asked > 0 || !matches!(self.work, Work::None) {
            return;
        }
        if self.vitals.depth() > 0 {
            // First what is in the mailbox.
            return Address::of(ctx, &self.vitals).tell(Retire);
        }
        if self.leaving == Leaving::WithWork || !self.background.is_empty() {
            self.place.project.address.tell(MoveUp(self.place.id.clone()));
        }
        self.vitals.passivate();
        ctx.stop();
    }
}
