//! The wait of a queued run for a place among those that work.

use actix::prelude::*;
use iris_protocol::{Run, RunId};

use super::Session;
use crate::line::{Entry, Place, Ticket, Waiting, Whose};
use crate::project::TellQueued;

/// A run for which there may be a place.
pub(super) enum Turn {
    /// It is in the line, until this is dropped.
    Waits(RunId, #[expect(dead_code, reason = "held")] Ticket),
    /// It has a place and is about to start.
    Has(RunId, Place),
}

impl Turn {
    pub(super) fn run_id(&self) -> &RunId {
        match self {
            Self::Waits(run_id, _) | Self::Has(run_id, _) => run_id,
        }
    }
}

impl Session {
    pub(super) fn whose(&self, run: &Run) -> Whose {
        Whose {
            project: self.place.project.id.clone(),
            user: run.started_by.clone(),
            // Ids are made in the order of time.
            rank: run.id.to_string(),
        }
    }

    /// A place for a queued run; none while it has to wait. Then the session looks for its next run again as
    /// soon as there is one.
    pub(super) fn place_of(&mut self, run: &Run, ctx: &mut Context<Self>) -> Option<Place> {
        let line = self.place.services.runs.clone();
        if self.place.serves.is_some() {
            // Whoever set a sub-agent to work has a place, and may wait for it.
            return Some(line.join(self.whose(run)));
        }
        let turn = self.turn.take();
        if self.to_cancel.as_ref() == Some(&run.id) {
            // It ends as soon as it begins, and nobody is to wait for that.
            return Some(line.join(self.whose(run)));
        }
        match turn {
            Some(Turn::Has(run_id, place)) if run_id == run.id => return Some(place),
            Some(turn @ Turn::Waits(..)) if *turn.run_id() == run.id => {
                self.turn = Some(turn);
                return None;
            }
            // Another run was the next one. Its place becomes free before this one asks for its own.
            other @ (Some(Turn::Has(..) | Turn::Waits(..)) | None) => drop(other),
        }
        match line.enter(self.whose(run)) {
            Entry::In(place) => Some(place),
            Entry::Waits(waiting) => {
                self.wait(&run.id, waiting, ctx);
                None
            }
        }
    }

    fn wait(&mut self, run_id: &RunId, waiting: Waiting, ctx: &mut Context<Self>) {
        let Waiting { ticket, entered, mut stands } = waiting;
        self.turn = Some(Turn::Waits(run_id.clone(), ticket));
        let (id, waits) = (run_id.clone(), entered.into_actor(self));
        ctx.spawn(waits.map(move |entered, session, ctx| {
            let is_it = session.turn.as_ref().is_some_and(|turn| *turn.run_id() == id);
            // Else it was cancelled meanwhile, and somebody else takes the place.
            if let (Ok(place), true) = (entered, is_it) {
                session.turn = Some(Turn::Has(id, place));
                session.start_next(ctx);
            }
        }));
        let (project, session_id) = (self.place.project.address.clone(), self.place.id.clone());
        let run_id = run_id.clone();
        let told = async move {
            while stands.changed().await.is_ok() {
                let standing = *stands.borrow_and_update();
                if let Some(standing) = standing {
                    let (session_id, run_id) = (session_id.clone(), run_id.clone());
                    project.tell(TellQueued { session_id, run_id, standing });
                }
            }
        };
        ctx.spawn(told.into_actor(self));
    }
}
