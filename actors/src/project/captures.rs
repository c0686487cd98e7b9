//! The recordings of a project end by themselves: with a timer while it is open, and else when it is opened.

use std::time::Duration;

use actix::prelude::*;
use iris_protocol::limits::CAPTURE_KEPT_MS;
use iris_store::project::ExpireCaptures;
use iris_store::{StoredEvent, WriteContext};

use super::Project;
use crate::supervision::Address;
use crate::{Services, write};

/// The event that says that one has begun, or lasts longer.
const STARTED: &str = "session.capture.started";

impl Project {
    /// Sees the events that were published.
    pub(super) fn captures_see(&mut self, events: &[StoredEvent], ctx: &mut Context<Self>) {
        if events.iter().any(|event| event.name == STARTED) {
            self.watch_captures(ctx);
        }
    }

    /// Ends what is over, and waits for the next end, if there is one.
    pub(super) fn watch_captures(&mut self, ctx: &mut Context<Self>) {
        let (reader, clock) = (self.reader.clone(), self.services.clock.clone());
        let owner = Address::of(ctx, &self.vitals);
        let expire = expire(&self.services);
        let looked = async move {
            let Some(until) = reader.next_end_of_capture().await? else { return Ok(None) };
            let left = until.saturating_sub(clock.now_ms());
            if left > 0 {
                return Ok(u64::try_from(left).ok());
            }
            write(&owner, expire, WriteContext::default()).await?;
            // There may be another one.
            Ok::<_, iris_store::StoreError>(Some(0))
        };
        ctx.spawn(looked.into_actor(self).map(|looked, registry, ctx| match looked {
            Ok(Some(left)) => {
                if let Some(timer) = registry.capture_timer.take() {
                    ctx.cancel_future(timer);
                }
                let timer = ctx.run_later(Duration::from_millis(left), Self::watch_captures);
                registry.capture_timer = Some(timer);
            }
            Ok(None) => {}
            Err(error) => {
                // The upkeep looks again.
                let path = registry.vitals.path();
                tracing::warn!(actor.path = %path, %error, "captures could not be looked at");
            }
        }));
    }
}

/// What ends now, and what is not kept any more.
pub(super) fn expire(services: &Services) -> ExpireCaptures {
    let at = services.clock.now_ms();
    let kept = i64::try_from(CAPTURE_KEPT_MS).unwrap_or(i64::MAX);
    ExpireCaptures { keep_since: at.saturating_sub(kept), at }
}
