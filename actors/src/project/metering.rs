//! What a registry tells the metrics: what was published, what of the project is open, and how much it holds.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use iris_protocol::{ApprovalState, Room, RunStatus};
use iris_store::project::{OpenWork, ProjectUsage};
use iris_store::{StoreError, StoredEvent};
use serde::Deserialize;

use super::Project;
use crate::metrics::Metrics;

/// How long after an event what is open and held is counted, once for all that happens meanwhile.
const COUNT_AFTER: Duration = Duration::from_millis(250);

/// What of a project is open and held, as the metrics have it. They forget it when it is dropped.
pub(super) struct Metering {
    metrics: Arc<Metrics>,
    open: OpenWork,
    held: ProjectUsage,
    /// Whether it will be counted.
    is_due: bool,
}

impl Metering {
    pub(super) fn new(metrics: &Arc<Metrics>) -> Self {
        let (open, held) = (OpenWork::default(), ProjectUsage::default());
        Self { metrics: Arc::clone(metrics), open, held, is_due: false }
    }

    fn set(&mut self, open: OpenWork, held: ProjectUsage) {
        self.metrics.count_open(&self.open, &open);
        self.metrics.count_held(&self.held, &held);
        (self.open, self.held) = (open, held);
    }
}

impl Drop for Metering {
    fn drop(&mut self) {
        self.set(OpenWork::default(), ProjectUsage::default());
    }
}

#[derive(Deserialize)]
struct Ended {
    status: RunStatus,
}

#[derive(Deserialize)]
struct Resolved {
    state: ApprovalState,
}

impl Project {
    /// Sees an event that is published.
    pub(super) fn meter(&mut self, event: &StoredEvent, ctx: &mut Context<Self>) {
        let metrics = &self.metering.metrics;
        metrics.published();
        match event.name.as_str() {
            "run.started" => metrics.run_started(),
            "run.completed" => {
                if let Ok(Ended { status }) = serde_json::from_str(&event.payload) {
                    metrics.run_ended(status);
                }
            }
            "message.step.finished" => return metrics.step_recorded(),
            // Told in sessions too, some of them several times.
            "tool.approval.resolved" if matches!(event.room, Room::Project(_)) => {
                if let Ok(Resolved { state }) = serde_json::from_str(&event.payload) {
                    metrics.approval_resolved(state);
                }
            }
            "tool.approval.required"
            | "question.asked"
            | "question.resolved"
            | "session.status"
            | "session.deleted"
            | "message.created"
            | "message.updated"
            | "message.removed"
            | "file.created"
            | "file.updated"
            | "file.moved"
            | "file.deleted"
            | "file.changed" => {}
            _ => return,
        }
        self.count_open_soon(ctx);
    }

    /// Counts what is open and held, once for all that happens within a moment.
    pub(super) fn count_open_soon(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.metering.is_due, true) {
            return;
        }
        ctx.run_later(COUNT_AFTER, |registry, ctx| {
            registry.metering.is_due = false;
            let reader = registry.reader.clone();
            let counted = async move { Ok((reader.open_work().await?, reader.usage().await?)) };
            let counted = counted.into_actor(registry);
            ctx.spawn(counted.map(|counted: Result<_, StoreError>, registry, _| match counted {
                Ok((open, held)) => registry.metering.set(open, held),
                Err(error) => {
                    // It is counted again with the next event.
                    let path = registry.vitals.path();
                    tracing::warn!(actor.path = %path, %error, "what is open could not be counted");
                }
            }));
        });
    }
}
