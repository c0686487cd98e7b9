//! Ending the locks whose time is over, and those of users who have no connection any more.

use std::collections::HashMap;
use std::time::Duration;

use actix::prelude::*;
use iris_protocol::{FileLock, UserId};
use iris_store::project::{EndLocks, EndLocksOf};
use iris_store::{StoredEvent, WriteContext};
use serde::Deserialize;
use tokio::time::Instant;

use super::Project;
use crate::record;
use crate::supervision::Address;

/// How often it is looked after locks, at most.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(1);

/// The locks that somebody may have.
#[derive(Debug, Default)]
pub(super) struct Locks {
    /// By path. At most as many as a project may have.
    held: HashMap<String, FileLock>,
    /// Since when owners are not there.
    absent: HashMap<UserId, Instant>,
    is_watched: bool,
}

impl Project {
    /// Learns of the locks of an earlier life.
    pub(super) fn learn_locks(&mut self, ctx: &mut Context<Self>) {
        let reader = self.reader.clone();
        let read = async move { reader.file_locks().await }.into_actor(self);
        ctx.spawn(read.map(|locks, registry, ctx| match locks {
            Ok(locks) => {
                for lock in locks {
                    registry.locks.held.entry(lock.path.clone()).or_insert(lock);
                }
                registry.watch_locks(ctx);
            }
            Err(error) => {
                let path = registry.vitals.path();
                tracing::warn!(actor.path = %path, %error, "the locks could not be read");
            }
        }));
    }

    /// Sees an event that was published.
    pub(super) fn locks_see(&mut self, event: &StoredEvent, ctx: &mut Context<Self>) {
        #[derive(Deserialize)]
        struct Locked {
            lock: FileLock,
        }
        #[derive(Deserialize)]
        struct Unlocked {
            path: String,
        }
        match event.name.as_str() {
            "file.locked" => {
                if let Ok(Locked { lock }) = serde_json::from_str(&event.payload) {
                    self.locks.held.insert(lock.path.clone(), lock);
                    self.watch_locks(ctx);
                }
            }
            "file.unlocked" => {
                if let Ok(Unlocked { path }) = serde_json::from_str(&event.payload) {
                    self.locks.held.remove(&path);
                }
            }
            _ => {}
        }
    }

    /// Looks after the locks for as long as there are any.
    fn watch_locks(&mut self, ctx: &mut Context<Self>) {
        if self.locks.is_watched || self.locks.held.is_empty() {
            return;
        }
        self.locks.is_watched = true;
        let every = (self.services.settings.files.lock_grace / 4).min(LOOK_EVERY_MAX);
        ctx.run_later(every.max(Duration::from_millis(10)), |registry, ctx| {
            registry.locks.is_watched = false;
            registry.look_after_locks(ctx);
            registry.watch_locks(ctx);
        });
    }

    fn look_after_locks(&mut self, ctx: &mut Context<Self>) {
        let (at, now) = (self.services.clock.now_ms(), Instant::now());
        let address = Address::of(ctx, &self.vitals);
        let context = WriteContext::default;
        if self.locks.held.values().any(|lock| lock.expires_at <= at) {
            self.locks.held.retain(|_, lock| lock.expires_at > at);
            drop(record(&address, EndLocks { at }, context()));
        }
        let settings = &self.services.settings;
        // A user counts as present for a while after their last connection.
        let grace = settings.files.lock_grace.saturating_sub(settings.presence.grace);
        let owners: Vec<UserId> = self
            .locks
            .held
            .values()
            .filter(|lock| lock.while_connected)
            .map(|lock| lock.owner_id.clone())
            .collect();
        self.locks.absent.retain(|user, _| owners.contains(user));
        for owner_id in owners {
            if self.presences.has(&owner_id) {
                self.locks.absent.remove(&owner_id);
                continue;
            }
            let since = *self.locks.absent.entry(owner_id.clone()).or_insert(now);
            if now.duration_since(since) >= grace {
                self.locks.absent.remove(&owner_id);
                self.locks
                    .held
                    .retain(|_, lock| lock.owner_id != owner_id || !lock.while_connected);
                drop(record(&address, EndLocksOf { owner_id, at }, context()));
            }
        }
    }
}

/// Ask: whether a user is present.
#[derive(Message)]
#[rtype(result = "bool")]
pub(crate) struct IsPresent {
    pub(crate) user_id: UserId,
}

impl Handler<IsPresent> for Project {
    type Result = bool;

    fn handle(&mut self, ask: IsPresent, _: &mut Context<Self>) -> bool {
        self.presences.has(&ask.user_id)
    }
}
