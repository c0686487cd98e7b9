//! One task with an archive: waits for its turn, works, answers, ends. Stopping the actor stops the
//! task. The backups actor starts it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use futures_util::future::LocalBoxFuture;
use iris_protocol::{ApiError, UserId};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::desk::{Desk, Place};
use crate::supervision::{Supervise, Vitals};

/// How long a task may wait for its turn, or take, before it counts as stuck.
const TASK_BUDGET: Duration = Duration::from_mins(30);

/// Something to be done with archives.
pub(crate) trait Task: Send + 'static {
    /// What it is called where operators see it.
    const NAME: &'static str;

    /// What comes of it.
    type Output: Send + 'static;

    /// Tasks of one lane run one after the other.
    fn lane(&self) -> String;

    /// Who asked for it; `None` for what the server does by itself.
    fn by(&self) -> Option<&UserId>;

    /// Does it. Dropping the future stops it at the next step; nothing half is left then.
    fn run(self, desk: Desk) -> impl Future<Output = Result<Self::Output, ApiError>> + 'static;
}

/// The archiver actor.
pub(crate) struct Archiver {
    task: &'static str,
    lane: String,
    /// There until it begins.
    work: Option<LocalBoxFuture<'static, ()>>,
}

impl Archiver {
    pub(super) fn new<T: Task>(
        vitals: &Arc<Vitals>,
        desk: Desk,
        place: Place,
        task: T,
        answer: oneshot::Sender<Result<T::Output, ApiError>>,
    ) -> Self {
        let (vitals, lane) = (Arc::clone(vitals), task.lane());
        let turn_of = lane.clone();
        let work = async move {
            let turn = {
                let _waiting = vitals.begin("wait for its turn", TASK_BUDGET);
                desk.slots().turn(&turn_of).await
            };
            let working = vitals.begin(T::NAME, TASK_BUDGET);
            let done = task.run(desk).await;
            drop((working, turn, place));
            // Whoever asked may be gone; what was done is recorded all the same.
            drop(answer.send(done));
        };
        Self { task: T::NAME, lane, work: Some(Box::pin(work)) }
    }
}

impl Actor for Archiver {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let Some(work) = self.work.take() else { return ctx.stop() };
        ctx.spawn(work.into_actor(self).map(|(), _, ctx| ctx.stop()));
    }
}

crate::supervised!(Archiver);

impl Supervise for Archiver {
    fn observe(&self) -> Value {
        json!({ "task": self.task, "lane": self.lane })
    }
}
