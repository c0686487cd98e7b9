//! The project in the index of unfinished work: marked before work begins, cleared once it is closed
//! with nothing open. And the events that the root database has for it.

use std::sync::atomic::Ordering;

use actix::prelude::*;
use iris_protocol::ApiError;
use iris_store::root::MarkUnfinished;
use iris_store::{StoreError, WriteContext};
use tokio::sync::oneshot;

use super::{Project, ProjectHandle, RECOVER_AGAIN_AFTER};
use crate::supervision::{Address, AskError};
use crate::{outbox, write};

/// Somebody who may begin work as soon as the mark is durable.
pub(super) type Marking = oneshot::Sender<Result<(), ApiError>>;

impl ProjectHandle {
    /// Sees to it that the project is opened after a crash although nobody asks for it. To be called
    /// before every command that opens a run. Costs a write of the root database once in the life of
    /// an open project, and nothing after that.
    ///
    /// # Errors
    /// Those of the root database: then the work must not begin.
    pub(crate) async fn mark_unfinished(&self) -> Result<(), ApiError> {
        if self.is_marked.load(Ordering::Acquire) {
            return Ok(());
        }
        self.address.urge(BeginWork).await.map_err(AskError::to_api)?
    }
}

/// Ask: makes the mark of unfinished work durable.
#[derive(Message)]
#[rtype(result = "Result<(), ApiError>")]
pub(crate) struct BeginWork;

impl Handler<BeginWork> for Project {
    type Result = ResponseFuture<Result<(), ApiError>>;

    fn handle(&mut self, _: BeginWork, ctx: &mut Context<Self>) -> Self::Result {
        if self.is_marked.load(Ordering::Acquire) {
            return Box::pin(std::future::ready(Ok(())));
        }
        let (answer, marked) = oneshot::channel();
        if let Some(waiting) = &mut self.marking {
            waiting.push(answer);
        } else {
            self.marking = Some(vec![answer]);
            self.mark(ctx);
        }
        // The registry started again meanwhile: whoever tries again finds it open.
        Box::pin(async move { marked.await.unwrap_or_else(|_| Err(StoreError::Closed.to_api())) })
    }
}

impl Project {
    fn mark(&mut self, ctx: &mut Context<Self>) {
        self.database.expect_mark();
        let command =
            MarkUnfinished { project_id: self.id.clone(), at: self.services.clock.now_ms() };
        let marked = write(&self.root.address, command, WriteContext::default()).into_actor(self);
        ctx.spawn(marked.map(|marked, registry, _| {
            let marked = marked.map(drop).map_err(|error| {
                tracing::error!(project.id = %registry.id, %error, "unfinished work could not be marked");
                error.to_api()
            });
            if marked.is_ok() {
                registry.is_marked.store(true, Ordering::Release);
            }
            for answer in registry.marking.take().unwrap_or_default() {
                // Fails when the caller went away.
                answer.send(marked.clone()).ok();
            }
        }));
    }

    /// Marks work that an earlier life left open: perhaps it was not marked, or not any more.
    pub(super) fn mark_unless_marked(&mut self, ctx: &mut Context<Self>) {
        if !self.is_marked.load(Ordering::Acquire) && self.marking.is_none() {
            self.marking = Some(Vec::new());
            self.mark(ctx);
        }
    }

    /// Publishes the events that came with the opening, for as long as it takes.
    pub(super) fn publish_outbox(&mut self, ctx: &mut Context<Self>) {
        if self.outbox.is_empty() {
            return;
        }
        let address = Address::of(ctx, &self.vitals);
        let entries = self.outbox.clone();
        let published = outbox::publish(&address, self.id.clone(), &self.root.address, entries);
        ctx.spawn(published.into_actor(self).map(|published, registry, ctx| match published {
            Ok(_) => registry.outbox.clear(),
            Err(error) => {
                tracing::error!(project.id = %registry.id, %error, "events of the root database could not be published");
                ctx.run_later(RECOVER_AGAIN_AFTER, Self::publish_outbox);
            }
        }));
    }
}
