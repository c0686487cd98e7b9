//! Runs that wait for a place: who looks at their sessions is told where they stand, those who come later too.

use std::collections::HashMap;

use actix::prelude::*;
use iris_protocol::{ConnectionId, Event, Room, RunId, SessionId};
use iris_store::StoredEvent;

use super::Project;
use crate::connection::Wants;
use crate::line::Standing;

/// The runs of a project that wait for a place, and where they stand.
#[derive(Default)]
pub(super) struct QueuedRuns(HashMap<SessionId, (RunId, Standing)>);

impl QueuedRuns {
    /// Sees the events that were published: a run that started or ended waits no longer.
    pub(super) fn see(&mut self, events: &[StoredEvent]) {
        if self.0.is_empty() {
            return;
        }
        let ends_wait =
            |event: &&StoredEvent| matches!(event.name.as_str(), "run.started" | "run.completed");
        for event in events.iter().filter(ends_wait) {
            if let Room::Session(id) = &event.room
                && let Some((run_id, _)) = self.0.get(id)
                && event.payload.contains(run_id.as_str())
            {
                self.0.remove(id);
            }
        }
    }
}

/// Tell: a queued run stands somewhere else in the line.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct TellQueued {
    pub(crate) session_id: SessionId,
    pub(crate) run_id: RunId,
    pub(crate) standing: Standing,
}

impl Handler<TellQueued> for Project {
    type Result = ();

    fn handle(&mut self, told: TellQueued, _: &mut Context<Self>) {
        let TellQueued { session_id, run_id, standing } = told;
        let event = queued(&session_id, &run_id, standing);
        self.queued.0.insert(session_id.clone(), (run_id, standing));
        self.rooms.tell(&Room::Session(session_id), &event, Wants::Everything);
        self.rooms.tell(&Room::Project(self.id.clone()), &event, Wants::Everything);
    }
}

impl Project {
    /// Tells somebody who has joined the room of a session where its run stands.
    pub(super) fn tell_queued(&self, session_id: &SessionId, to: &ConnectionId) {
        if let Some((run_id, standing)) = self.queued.0.get(session_id) {
            let event = queued(session_id, run_id, *standing);
            self.rooms.tell_one(&Room::Session(session_id.clone()), &event, to);
        }
    }
}

fn queued(session_id: &SessionId, run_id: &RunId, standing: Standing) -> Event {
    let Standing { position, reason } = standing;
    Event::RunQueued { session_id: session_id.clone(), run_id: run_id.clone(), position, reason }
}
