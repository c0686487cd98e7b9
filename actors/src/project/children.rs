//! The sessions of sub-agents: actors below the one that set them to work, while they work for it.

use std::collections::HashMap;
use std::sync::Arc;

use actix::prelude::*;
use iris_protocol::{RunId, SessionId};
use iris_store::StoredEvent;
use serde::Deserialize;
use tokio::sync::oneshot;

use super::{Project, ProjectHandle};
use crate::session::{CancelRun, Retire};
use crate::supervision::Vitals;

/// The event that says that a run ended.
const RUN_COMPLETED: &str = "run.completed";

/// Tell: starts the actor of a sub-agent's session below whoever set it to work, unless it runs already.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct OpenChild {
    pub(crate) id: SessionId,
    pub(crate) under: Arc<Vitals>,
}

impl Handler<OpenChild> for Project {
    type Result = ();

    fn handle(&mut self, OpenChild { id, under }: OpenChild, ctx: &mut Context<Self>) {
        // Who ends now ends what it set to work too, and would not hear of another one.
        if under.is_running() {
            self.session_under(&id, &under, ctx);
        }
    }
}

/// Tell: ends the run that a sub-agent works in.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct EndTask {
    pub(crate) id: SessionId,
    pub(crate) run_id: RunId,
}

impl Handler<EndTask> for Project {
    type Result = ();

    fn handle(&mut self, EndTask { id, run_id }: EndTask, ctx: &mut Context<Self>) {
        self.session(&id, ctx).tell(CancelRun(run_id));
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
