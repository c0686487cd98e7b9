//! MCP servers of projects: one client for each that a project uses, what it offers and what of that
//! agents may call.
//!
//! Read in this order: `offer` compares what a server offers with what people approved; `seat` is what is
//! known of a server, shared with whoever asks; `authorization` is what a server on the web was given;
//! `client` is the actor that reaches it, by the `way` that is configured; `tool` is what agents call.

pub(crate) mod authorization;
pub(crate) mod checks;
mod client;
mod form;
mod offer;
mod seat;
mod tool;
mod way;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use iris_egress::{Config as EgressConfig, Egress, EgressError, Exception};
use iris_mcp::Definition;
use iris_protocol::{McpTransport, ProjectId, UserId};
use iris_store::project::StoredMcpServer;
use iris_store::{StoreError, StoredEvent};
use iris_tools::Tool;
use serde_json::Value;
use tokio::runtime::Handle;

use crate::permissions::may_run_code;
use crate::project::{ProjectHandle, WakeMcp};
use crate::session::SessionPlace;
use crate::supervision::detached;
use crate::toolbox::tell_of_rotation;
use crate::{Services, Threads};

pub(crate) use client::{McpClient, McpPlace, Reload, Wake};
pub(crate) use offer::{Offer, model_names, statuses};
use seat::Configured;
pub(crate) use seat::Desk;
use tool::McpTool;

/// The longest that one answer over HTTP may take, with all that people are asked in between.
const EXCHANGE_MAX: Duration = Duration::from_mins(20);
/// Most bytes of one answer over HTTP.
const EXCHANGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Where connections to MCP servers live, and their way out.
pub struct McpHost {
    egress: Option<Arc<Egress>>,
    /// What is sent is read there. A program ends when its connection does, and at the latest with the server.
    threads: Threads,
}

impl McpHost {
    /// A host whose servers on the web are those of the internet and those of `allow`.
    ///
    /// # Errors
    /// When TLS cannot be set up; [`McpHost::without_web`] works all the same.
    pub fn new(allow: Vec<Exception>) -> Result<Self, EgressError> {
        let config = EgressConfig {
            allow,
            body_bytes_max: EXCHANGE_BYTES_MAX,
            timeout: EXCHANGE_MAX,
            // An event stream holds one for as long as a server is connected.
            requests_max: 1024,
            requests_per_host_max: 64,
            ..EgressConfig::default()
        };
        Ok(Self { egress: Some(Arc::new(Egress::new(config)?)), threads: Threads::for_mcp() })
    }

    /// A host that reaches no server on the web.
    pub fn without_web() -> Self {
        Self { egress: None, threads: Threads::for_mcp() }
    }

    pub(crate) fn egress(&self) -> Option<Arc<Egress>> {
        self.egress.clone()
    }

    /// The threads for connections.
    fn handle(&self) -> io::Result<Handle> {
        self.threads.handle()
    }
}

/// The tools of the MCP servers that a project uses, as far as they are approved. Nobody is asked for them:
/// they stand in the project's database. What a server that is there does not offer any more, or describes
/// otherwise, is not among them.
///
/// # Errors
/// As the reads of the project's database.
pub(crate) async fn tools(
    project: &ProjectHandle,
    services: &Services,
) -> Result<Vec<Arc<dyn Tool>>, StoreError> {
    let servers = project.reader.mcp_servers().await?;
    for StoredMcpServer { server, secrets, client_secret, tokens, .. } in &servers {
        let secrets = [secrets, client_secret, tokens].into_iter().flatten();
        tell_of_rotation(project, services, "MCP server", &server.name, secrets);
    }
    let enabled = servers.iter().filter(|stored| stored.server.enabled);
    project.kept.mcp.configured(enabled.map(|stored| Configured {
        name: stored.server.name.clone(),
        is_program: matches!(stored.server.transport, McpTransport::Stdio { .. }),
    }));
    let mut tools: Vec<Arc<dyn Tool>> = Vec::new();
    for stored in servers.into_iter().filter(|stored| stored.server.enabled) {
        let seat = project.kept.mcp.seat(&stored.server.name);
        let approved = definitions_of(&stored);
        let offer = seat.offer();
        let names = model_names(&stored.server.name, &approved);
        for (definition, name) in approved.into_iter().zip(names) {
            let is_other = offer.as_ref().is_some_and(|offer| !offer.holds(&definition));
            if is_other || !stored.server.tools.contains(&name) {
                continue;
            }
            let project = project.address.downgrade();
            tools.push(Arc::new(McpTool::new(
                &stored,
                definition,
                name,
                Arc::clone(&seat),
                project,
            )));
        }
    }
    Ok(tools)
}

/// Has the servers reached whose tools an agent has, so that they are there when it calls one; nobody waits
/// for that. A program only for whom programs may be run.
pub(crate) fn warm(place: &SessionPlace, agent_tools: &[String], starter: &UserId) {
    let used = place.project.kept.mcp.used_by(agent_tools);
    if used.is_empty() {
        return;
    }
    let (project, starter) = (Arc::clone(&place.project), starter.clone());
    detached(async move {
        let may_run = may_run_code(&project.root, &starter).await.unwrap_or_default();
        for Configured { name, is_program } in used {
            if may_run || !is_program {
                project.address.tell(WakeMcp(name));
            }
        }
    });
}

/// What was approved. What another version of the server stored and this one does not understand is not.
pub(crate) fn definitions_of(stored: &StoredMcpServer) -> Vec<Definition> {
    let definitions = stored.definitions.iter().cloned();
    definitions.filter_map(|definition| serde_json::from_value(definition).ok()).collect()
}

/// What the secrets of a server belong to: in another project, or for another server, they do not open.
pub(crate) fn secrets_owner(project_id: &ProjectId, name: &str) -> [String; 3] {
    [project_id.to_string(), "mcp".to_owned(), name.to_owned()]
}

/// Whether an event says that the configuration of an MCP server changed. Gives its name, and whether it was
/// deleted.
pub(crate) fn reconfigured(event: &StoredEvent) -> Option<(String, bool)> {
    if event.name != "mcp.status" {
        return None;
    }
    let payload: Value = serde_json::from_str(&event.payload).ok()?;
    let is_deleted = payload.get("deleted").and_then(Value::as_bool).unwrap_or_default();
    let name = payload.get("name")?.as_str()?.to_owned();
    (is_deleted || payload.get("server").is_some()).then_some((name, is_deleted))
}
