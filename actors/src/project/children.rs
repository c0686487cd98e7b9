//! The sessions of sub-agents: actors below the one that set them to work, while they work for it.

use std::collections::HashMap;
use std::sync::Arc;

use actix::prelude::*;
use iris_protocol::{MessageRole, Room, RunId, SessionId};
use iris_store::StoredEvent;
use serde::Deserialize;
use tokio::sync::oneshot;

use super::{Project, ProjectHandle};
use crate::session::{CancelRun, Look, Retire};
use crate::supervision::Vitals;

/// The event that says that a run ended.
const RUN_COMPLETED: &str = "run.completed";
/// The event that says that a message was taken out of the queue.
const MESSAGE_REMOVED: &str = "message.removed";
/// The event that says that a message is there.
const MESSAGE_CREATED: &str = "message.created";

/// Tell: has a sub-agent do a run, in an actor below whoever set it to work unless its session has one
/// already.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct OpenChild {
    pub(crate) id: SessionId,
    pub(crate) run_id: RunId,
    /// Who set it to work; none when the sub-agent is to outlive that one.
    pub(crate) under: Option<Arc<Vitals>>,
}

impl Handler<OpenChild> for Project {
    type Result = ();

    fn handle(&mut self, OpenChild { id, run_id, under }: OpenChild, ctx: &mut Context<Self>) {
        let session = match under {
            None => self.session(&id, ctx),
            Some(under) if under.is_running() => self.session_under(&id, &under, run_id, ctx),
            // Who ends now ends what it set to work too, and would not hear of another one.
            Some(_) => return,
        };
        // One that was there before may not know of the run.
        session.tell(Look);
    }
}

/// Tell: the actor of a sub-agent's session left its place, with something to do that nobody waits for there.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct MoveUp(pub(crate) SessionId);

impl Handler<MoveUp> for Project {
    type Result = ();

    fn handle(&mut self, MoveUp(id): MoveUp, ctx: &mut Context<Self>) {
        // It stopped before it said so, whether or not it has been cleaned up after.
        self.sessions.remove(&id);
        self.session(&id, ctx);
    }
}

/// Tell: ends the run that a sub-agent works in.
#[derive(Message)]
#[rtype(result = "()")]
struct EndTask {
    id: SessionId,
    run_id: RunId,
    /// The life of the registry in which it was set to work.
    life: u32,
}

impl Handler<EndTask> for Project {
    type Result = ();

    fn handle(&mut self, EndTask { id, run_id, life }: EndTask, ctx: &mut Context<Self>) {
        // What an earlier life left is for the recovery to end, or to let go on.
        if life == self.vitals.generation() {
            self.session(&id, ctx).tell(CancelRun(run_id));
        }
    }
}

/// Tell: a sub-agent is done, and its session's actor stands below whoever it worked for no longer than it
/// has to.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct RetireSession(pub(crate) SessionId);

impl Handler<RetireSession> for Project {
    type Result = ();

    fn handle(&mut self, RetireSession(id): RetireSession, _: &mut Context<Self>) {
        if let Some(session) = self.sessions.get(&id) {
            session.tell(Retire);
        }
    }
}

/// Tell: wants to hear once of the end of a run. It may have ended before.
#[derive(Message)]
#[rtype(result = "()")]
struct WatchRun {
    run_id: RunId,
    ended: oneshot::Sender<()>,
}

impl Handler<WatchRun> for Project {
    type Result = ();

    fn handle(&mut self, WatchRun { run_id, ended }: WatchRun, _: &mut Context<Self>) {
        self.run_ends.watch(run_id, ended);
    }
}

/// Who waits for the ends of runs.
#[derive(Default)]
pub(super) struct RunEnds {
    waiting: HashMap<RunId, Vec<oneshot::Sender<()>>>,
}

/// The part of a `message.created` that tells who wrote.
#[derive(Deserialize)]
struct Created {
    message: Written,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    session_id: SessionId,
    role: MessageRole,
}

impl Project {
    /// Lets a session answer what it was told by the server itself, of a sub-agent perhaps whose run a person
    /// resumed.
    pub(super) fn wake_session(&mut self, event: &StoredEvent, ctx: &mut Context<Self>) {
        // One that was taken out of the queue waits for no place any more.
        if event.name == MESSAGE_REMOVED
            && let Room::Session(id) = &event.room
            && let Some(session) = self.sessions.get(id)
        {
            session.tell(Look);
        }
        if event.name != MESSAGE_CREATED {
            return;
        }
        let Ok(Created { message }) = serde_json::from_str(&event.payload) else { return };
        if message.role == MessageRole::System {
            self.session(&message.session_id, ctx).tell(Look);
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ended {
    run_id: RunId,
}

impl RunEnds {
    fn watch(&mut self, run_id: RunId, ended: oneshot::Sender<()>) {
        // Whoever does not wait any more is forgotten here: at most a few wait for one run.
        self.waiting.retain(|_, waiting| {
            waiting.retain(|one| !one.is_closed());
            !waiting.is_empty()
        });
        self.waiting.entry(run_id).or_default().push(ended);
    }

    /// Tells those who wait for the run that an event says has ended.
    pub(super) fn see(&mut self, event: &StoredEvent) {
        if self.waiting.is_empty() || event.name != RUN_COMPLETED {
            return;
        }
        let Ok(Ended { run_id }) = serde_json::from_str(&event.payload) else { return };
        for ended in self.waiting.remove(&run_id).unwrap_or_default() {
            // Fails when nobody waits any more.
            ended.send(()).ok();
        }
    }
}

impl ProjectHandle {
    /// Has the run end that a sub-agent works in.
    pub(crate) fn end_task(&self, id: SessionId, run_id: RunId) {
        self.address.tell(EndTask { id, run_id, life: self.life });
    }

    /// Waits until a run has ended, or until the project is closed.
    pub(crate) async fn run_end(&self, run_id: RunId) {
        let (ended, has_ended) = oneshot::channel();
        self.address.tell(WatchRun { run_id: run_id.clone(), ended });
        // After that: an end that is committed from now on is heard of.
        let found = self.reader.run(run_id).await;
        if found.is_ok_and(|run| run.is_none_or(|run| run.ended_at.is_some())) {
            return;
        }
        has_ended.await.ok();
    }
}
