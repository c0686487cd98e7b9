//! What is known of an MCP server of a project, for whoever asks: the actor that reaches it writes it here.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use iris_mcp::{Connection, Report};
use iris_protocol::McpState;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::time::timeout;

use super::offer::Offer;

/// The servers of one project, by name.
#[derive(Default)]
pub(crate) struct Desk {
    seats: Mutex<HashMap<String, Arc<Seat>>>,
    /// Those that are used, as they were configured when the project's tools were read last.
    configured: Mutex<Vec<Configured>>,
}

/// A server that is used.
#[derive(Debug, Clone)]
pub(crate) struct Configured {
    pub(crate) name: String,
    /// Whether it is a program on this machine.
    pub(crate) is_program: bool,
}

impl Desk {
    /// What is known of a server. There is a seat for each that was ever asked for while the project is open.
    pub(crate) fn seat(&self, name: &str) -> Arc<Seat> {
        Arc::clone(self.seats.lock().entry(name.to_owned()).or_default())
    }

    pub(crate) fn configured(&self, servers: impl Iterator<Item = Configured>) {
        *self.configured.lock() = servers.collect();
    }

    /// The servers to which some of these tools belong, by their names.
    pub(crate) fn used_by(&self, tools: &[String]) -> Vec<Configured> {
        let configured = self.configured.lock();
        let is_of = |tool: &String, server: &str| {
            tool.strip_prefix(server).is_some_and(|rest| rest.starts_with("__"))
        };
        let used = configured.iter().filter(|it| tools.iter().any(|tool| is_of(tool, &it.name)));
        used.cloned().collect()
    }

    /// A server was deleted.
    pub(crate) fn forget(&self, name: &str) {
        self.seats.lock().remove(name);
    }
}

/// What is known of one server.
pub(crate) struct Seat {
    standing: watch::Sender<Standing>,
    /// Held while its tokens are renewed: two at once would use up the same one.
    pub(crate) renewing: AsyncMutex<()>,
}

impl Default for Seat {
    fn default() -> Self {
        Self { standing: watch::Sender::new(Standing::default()), renewing: AsyncMutex::default() }
    }
}

/// How a server stands.
#[derive(Clone)]
pub(crate) struct Standing {
    pub(crate) state: McpState,
    pub(crate) reason: Option<String>,
    /// Milliseconds since 1970 UTC; 0 for one that was not asked for yet.
    pub(crate) since: i64,
    /// How often it was reached again in the window.
    pub(crate) restarts: u32,
    /// There while it can be spoken with.
    pub(crate) connection: Option<Arc<Connection>>,
    /// What it offered last.
    pub(crate) offer: Option<Arc<Offer>>,
    /// Of the connection that ended last.
    pub(crate) last_report: Option<Report>,
    /// What it wanted when it refused last.
    pub(crate) challenge: Option<String>,
}

impl Default for Standing {
    fn default() -> Self {
        Self {
            state: McpState::Connecting,
            reason: None,
            since: 0,
            restarts: 0,
            connection: None,
            offer: None,
            last_report: None,
            challenge: None,
        }
    }
}

impl Standing {
    /// The connection, unless it has ended.
    fn alive(&self) -> Option<Arc<Connection>> {
        self.connection.clone().filter(|connection| !connection.is_over())
    }

    /// What the connection is like, or was.
    pub(crate) fn report(&self) -> Option<Report> {
        let now = self.connection.as_ref().map(|connection| connection.report());
        now.or_else(|| self.last_report.clone())
    }
}

impl Seat {
    pub(crate) fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    pub(crate) fn offer(&self) -> Option<Arc<Offer>> {
        self.standing.borrow().offer.clone()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Standing)) {
        self.standing.send_modify(change);
    }

    /// Waits for a connection, until it is clear that there will be none. Says why then.
    pub(crate) async fn connection(&self, limit: Duration) -> Result<Arc<Connection>, String> {
        let mut standing = self.standing.subscribe();
        let settled = timeout(limit, standing.wait_for(is_settled)).await;
        let Ok(Ok(standing)) = settled else {
            return Err("it could not be reached in time".to_owned());
        };
        let reason = || standing.reason.clone().unwrap_or_else(|| "it is not used".to_owned());
        standing.alive().ok_or_else(reason)
    }
}

fn is_settled(standing: &Standing) -> bool {
    match standing.state {
        McpState::Connecting => false,
        // A connection that has just ended is about to be replaced.
        McpState::Ready | McpState::NeedsApproval => standing.alive().is_some(),
        McpState::Disabled | McpState::NeedsAuth | McpState::Failed => true,
    }
}
