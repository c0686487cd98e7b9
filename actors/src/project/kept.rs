//! What is kept in memory of a project's database because each step and each call of a tool needs it.

use std::ops::Deref;
use std::sync::Arc;

use iris_protocol::Agent;
use iris_redact::Redactor;
use iris_store::StoredEvent;
use iris_tools::ToolRegistry;

use crate::agents::AgentFiles;
use crate::capturing::Captures;
use crate::files::Desk;
use crate::mcp;
use crate::permissions::{Cached, ProjectRules};

/// The event that says that an agent changed.
const AGENT_UPDATED: &str = "agent.updated";
/// The event that says that a permission rule changed.
const PERMISSION_UPDATED: &str = "permission.updated";
/// The event that says that a tool of the project changed.
const TOOL_UPDATED: &str = "tool.updated";

/// The events that may say that other sessions are recorded.
const RECORDED: &[&str] =
    &["session.capture.ended", "session.capture.started", "session.created", "session.deleted"];

/// What is read once and again after a change.
#[derive(Default)]
pub(crate) struct Kept {
    /// The permission rules of the project and of its sessions.
    pub(crate) rules: Cached<ProjectRules>,
    /// The agents that the project defined, by name.
    pub(crate) agents: Cached<Vec<Agent>>,
    /// The server's tools and the project's own.
    pub(crate) tools: Cached<ToolRegistry>,
    /// Whose turn it is to change its files.
    pub(crate) files: Desk,
    /// The agents in its files.
    pub(crate) agent_files: AgentFiles,
    /// What is known of the project's MCP servers.
    pub(crate) mcp: mcp::Desk,
    /// The sessions whose providers are listened to.
    pub(crate) captures: Cached<Captures>,
    /// What is hidden in what its tools and providers say.
    pub(crate) secrets: Secrets,
}

/// The secrets that its members brought, once they are used. Those who do not work in the project are told
/// nothing by what is hidden, and nobody hides words from them.
#[derive(Clone)]
pub(crate) struct Secrets(Arc<Redactor>);

impl Default for Secrets {
    fn default() -> Self {
        Self(Arc::new(Redactor::within_shared()))
    }
}

impl Deref for Secrets {
    type Target = Redactor;

    fn deref(&self) -> &Redactor {
        &self.0
    }
}

impl Kept {
    /// Has read again what committed events say is different.
    pub(super) fn outdate(&self, events: &[StoredEvent]) {
        self.files.sees(events);
        let happened = |name: &str| events.iter().any(|event| event.name == name);
        // A session may be that of a sub-agent of one that is recorded.
        if events.iter().any(|event| RECORDED.contains(&event.name.as_str())) {
            self.captures.outdate();
        }
        if happened(AGENT_UPDATED) {
            self.agents.outdate();
        }
        if happened(PERMISSION_UPDATED) {
            self.rules.outdate();
        }
        let has_other_servers = events.iter().any(|event| mcp::reconfigured(event).is_some());
        if happened(TOOL_UPDATED) || has_other_servers {
            self.tools.outdate();
        }
    }
}
