//! Waiting for space on the disk, or for the root database: a run that cannot be recorded, or of which
//! nobody knows whether it may start, pauses and goes on by itself.
//!
//! A run that is cancelled meanwhile does not wait: its last words are written from the reserve.

use std::time::Duration;

use actix::prelude::*;
use iris_protocol::RunStatus;
use iris_store::project::FailQueuedRun;
use iris_store::{Storage, StoreError, WriteContext};

use super::{Orchestrator, RECORD_AGAIN_AFTER, WRITE_BUDGET, may_succeed_later};
use crate::record;

/// How long something waits at least that the disk had no room for.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// Does again what there was no room for; told whether the run was cancelled meanwhile.
type Again = Box<dyn FnOnce(&mut Orchestrator, bool, &mut Context<Orchestrator>)>;

/// What waits for space.
pub(super) struct Paused {
    again: Again,
    waiting: SpawnHandle,
}

/// How long something waits for another try after it failed so.
pub(super) fn try_again_after(error: &StoreError) -> Duration {
    if matches!(error, StoreError::StorageFull) { PAUSE_MIN } else { RECORD_AGAIN_AFTER }
}

async fn space(storage: Storage) {
    // A disk may be full for one writer alone, by a quota: then nobody says when there is space.
    tokio::time::sleep(PAUSE_MIN).await;
    storage.has_space().await;
}

impl Orchestrator {
    pub(super) fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    /// Does `again` when there may be space, or when the run is cancelled.
    pub(super) fn pause(
        &mut self,
        ctx: &mut Context<Self>,
        again: impl FnOnce(&mut Self, bool, &mut Context<Self>) + 'static,
    ) {
        if self.paused.is_none() {
            tracing::warn!(actor.path = %self.vitals.path(), "a run pauses");
        }
        let space = space(self.services().storage.clone()).into_actor(self);
        let waiting = ctx.spawn(space.map(|(), orchestrator, ctx| orchestrator.resume(false, ctx)));
        self.paused = Some(Paused { again: Box::new(again), waiting });
    }

    /// Goes on with what waits for space, if anything does.
    pub(super) fn resume(&mut self, is_cancelled: bool, ctx: &mut Context<Self>) {
        let Some(Paused { again, waiting }) = self.paused.take() else { return };
        ctx.cancel_future(waiting);
        again(self, is_cancelled, ctx);
    }

    /// The start of the run waits. One that goes on with an answer hears of a cancel once it did.
    pub(super) fn pause_start(&mut self, ctx: &mut Context<Self>) {
        self.pause(ctx, |orchestrator, is_cancelled, ctx| {
            if is_cancelled && orchestrator.assignment.resumed.is_none() {
                orchestrator.cancel_start(ctx);
            } else {
                orchestrator.begin(ctx);
            }
        });
    }

    /// Records that a run was cancelled before it started, for as long as it takes.
    fn cancel_start(&mut self, ctx: &mut Context<Self>) {
        let command = FailQueuedRun {
            session_id: self.session_id(),
            run_id: self.run_id(),
            status: RunStatus::Cancelled,
            error: None,
            at: self.services().clock.now_ms(),
        };
        let work = self.vitals.begin("FailQueuedRun", WRITE_BUDGET);
        let project = &self.assignment.place.project.address;
        let ended = record(project, command, WriteContext::default()).into_actor(self);
        ctx.spawn(ended.map(move |ended, orchestrator, ctx| {
            drop(work);
            if let Err(error) = ended {
                orchestrator.log_failed_record(&error);
                if may_succeed_later(error.code()) {
                    ctx.run_later(try_again_after(&error), Self::cancel_start);
                    return;
                }
            }
            ctx.stop();
        }));
    }

    /// Asks the model when there is space for its answer.
    pub(super) fn call_model_later(&mut self, ctx: &mut Context<Self>) {
        self.pause(ctx, |orchestrator, is_cancelled, ctx| {
            // Then nobody wants the answer any more.
            if !is_cancelled {
                orchestrator.call_model(ctx);
            }
        });
    }
}
