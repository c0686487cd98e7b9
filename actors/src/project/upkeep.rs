//! What a registry does for its database beside its work: new text is brought into the index, the log
//! and the versions of files are kept to their age and size, uploads that nobody goes on with are given up,
//! and blobs that nothing names are deleted. In bites, each a command of its own, so that whoever writes
//! meanwhile waits for one of them at most.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use iris_store::project::{CollectBlobs, ExpireUploads, IndexParts, TrimEvents, TrimVersions};
use iris_store::{StoreError, StoredEvent, WriteContext};
use iris_workspace::Workspace;

use super::{Project, captures};
use crate::supervision::Address;
use crate::{Services, write};

/// How often it is done in a project that stays open.
pub(super) const EVERY: Duration = Duration::from_hours(1);

/// After how many events it is done, however little time has passed.
const AFTER_EVENTS: u64 = 4096;

/// How long after an event the text of that time is brought into the index. A search does not wait
/// for it.
const INDEX_AFTER: Duration = Duration::from_secs(5);

/// How long after the last event the ring is let go.
const RING_IDLE: Duration = Duration::from_mins(1);

/// What is to do, and whether it is being done.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each with its own timer")]
pub(super) struct Upkeep {
    is_running: bool,
    /// Whether there was a reason to do it meanwhile.
    is_wanted: bool,
    /// Events since it was done.
    events: u64,
    /// Whether new text will be brought into the index.
    index_is_due: bool,
    /// Whether somebody will look whether the ring is idle.
    ring_is_watched: bool,
    /// Whether an event came since they looked.
    ring_is_used: bool,
}

impl Project {
    /// Does what is to do, once at a time.
    pub(super) fn keep_up(&mut self, ctx: &mut Context<Self>) {
        self.upkeep.is_wanted = self.upkeep.is_running;
        if self.upkeep.is_running {
            return;
        }
        self.upkeep.is_running = true;
        self.upkeep.events = 0;
        let (services, workspace) = (Arc::clone(&self.services), self.workspace.clone());
        let kept = keep_up(Address::of(ctx, &self.vitals), services, workspace);
        ctx.spawn(kept.into_actor(self).map(|kept, registry, ctx| {
            registry.upkeep.is_running = false;
            if let Err(error) = kept {
                // It comes round again.
                let path = registry.vitals.path();
                tracing::warn!(actor.path = %path, %error, "the upkeep of a project failed");
            } else if registry.upkeep.is_wanted {
                registry.keep_up(ctx);
            }
        }));
    }

    /// Sees the events that were published.
    pub(super) fn count_events(&mut self, events: &[StoredEvent], ctx: &mut Context<Self>) {
        self.upkeep.events += events.len() as u64;
        self.upkeep.ring_is_used = true;
        if !self.upkeep.ring_is_watched {
            self.upkeep.ring_is_watched = true;
            Self::watch_ring(ctx);
        }
        if !self.upkeep.index_is_due {
            self.upkeep.index_is_due = true;
            ctx.run_later(INDEX_AFTER, Self::index);
        }
        // What a session held may be named by nothing any more.
        let is_freed = events.iter().any(|event| event.name == "session.deleted");
        if is_freed || self.upkeep.events >= AFTER_EVENTS {
            self.keep_up(ctx);
        }
    }

    fn index(&mut self, ctx: &mut Context<Self>) {
        let indexed = index(Address::of(ctx, &self.vitals)).into_actor(self);
        ctx.spawn(indexed.map(|indexed, registry, _| {
            registry.upkeep.index_is_due = false;
            if let Err(error) = indexed {
                let path = registry.vitals.path();
                tracing::warn!(actor.path = %path, %error, "new text could not be indexed");
            }
        }));
    }

    /// Lets the ring go when nothing happened for a while: thousands of projects may be open.
    fn watch_ring(ctx: &mut Context<Self>) {
        ctx.run_later(RING_IDLE, |registry, ctx| {
            if registry.upkeep.ring_is_used {
                registry.upkeep.ring_is_used = false;
                return Self::watch_ring(ctx);
            }
            registry.upkeep.ring_is_watched = false;
            registry.ring.clear();
        });
    }
}

/// Brings what text there is into the index.
pub(crate) async fn index(owner: Address<Project>) -> Result<(), StoreError> {
    while write(&owner, IndexParts, WriteContext::default()).await?.output.more {}
    Ok(())
}

async fn keep_up(
    owner: Address<Project>,
    services: Arc<Services>,
    workspace: Workspace,
) -> Result<(), StoreError> {
    let settings = &services.settings;
    let kept_ms = settings.events_kept.map(|kept| i64::try_from(kept.as_millis()));
    loop {
        let now = services.clock.now_ms();
        let keep_since = kept_ms.map(|kept| now.saturating_sub(kept.unwrap_or(i64::MAX)));
        let trim = TrimEvents { keep_since, bytes_max: settings.events_kept_bytes_max };
        if !write(&owner, trim, WriteContext::default()).await?.output.more {
            break;
        }
    }
    write(&owner, captures::expire(&services), WriteContext::default()).await?;
    let expire = ExpireUploads { at: services.clock.now_ms() };
    let expired = write(&owner, expire, WriteContext::default()).await?.output;
    let discard = move || expired.iter().try_for_each(|id| workspace.discard_staged(id));
    if let Ok(Err(error)) = tokio::task::spawn_blocking(discard).await {
        tracing::warn!(%error, "a file that nobody sends any more could not be removed");
    }
    let trim = || TrimVersions { kept: settings.files.kept, at: services.clock.now_ms() };
    while write(&owner, trim(), WriteContext::default()).await?.output.more {}
    while write(&owner, CollectBlobs, WriteContext::default()).await?.output.more {}
    index(owner).await
}
