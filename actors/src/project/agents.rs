//! Looking for changes of the agents in files while a project is open, so that who follows it is told of them
//! although nobody asks.

use std::sync::Arc;

use actix::prelude::*;

use super::Project;
use crate::agents::file_agents;

impl Project {
    /// Looks once at a time; what is different is told by whoever finds it first.
    pub(super) fn look_for_agents(&mut self, ctx: &mut Context<Self>) {
        if self.looks_for_agents || !self.recovery.is_done() {
            return;
        }
        self.looks_for_agents = true;
        let (project, services) = (self.shared(ctx), Arc::clone(&self.services));
        let looked = async move { file_agents(&project, &services).await.map(drop) };
        ctx.spawn(looked.into_actor(self).map(|looked, registry, _| {
            registry.looks_for_agents = false;
            if let Err(error) = looked {
                // It comes round again.
                let path = registry.vitals.path();
                tracing::warn!(actor.path = %path, %error, "agents in files could not be looked for");
            }
        }));
    }
}
