//! The clients of the project's MCP servers: started when they are wanted, told of changes.

use std::sync::Arc;

use actix::prelude::*;
use iris_store::StoredEvent;

use super::Project;
use crate::mcp::{self, McpClient, McpPlace, Reload, Wake};
use crate::supervision::Address;

/// Tell: somebody needs an MCP server.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct WakeMcp(pub(crate) String);

impl Handler<WakeMcp> for Project {
    type Result = ();

    fn handle(&mut self, WakeMcp(name): WakeMcp, ctx: &mut Context<Self>) {
        if let Some(client) = self.mcp.get(&name).filter(|client| client.connected()) {
            return client.tell(Wake);
        }
        self.start_mcp(name, ctx);
    }
}

impl Project {
    /// One that turns out not to be used ends by itself.
    fn start_mcp(&mut self, name: String, ctx: &mut Context<Self>) {
        let place = McpPlace {
            project_id: self.id.clone(),
            name: name.clone(),
            project: Address::of(ctx, &self.vitals).downgrade(),
            reader: self.reader.clone(),
            places: self.places.clone(),
            kept: Arc::clone(&self.kept),
            services: Arc::clone(&self.services),
        };
        let client: Address<McpClient> = place.start(&self.vitals);
        self.mcp.insert(name, client);
    }

    /// Does what follows when somebody changed an MCP server.
    pub(super) fn mcp_sees(&mut self, event: &StoredEvent, ctx: &mut Context<Self>) {
        let Some((name, is_deleted)) = mcp::reconfigured(event) else { return };
        let client = self.mcp.get(&name).filter(|client| client.connected());
        match client {
            Some(client) => client.tell(Reload),
            None if !is_deleted => self.start_mcp(name.clone(), ctx),
            None => {}
        }
        if is_deleted {
            self.mcp.remove(&name);
            self.kept.mcp.forget(&name);
        }
    }
}
