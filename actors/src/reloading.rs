//! Settings of the operator that a node takes while it runs.

use iris_llm::Catalog;
use iris_store::WriteContext;
use iris_store::root::RecordAudit;
use serde_json::json;

use crate::{BudgetSettings, Node, RateSettings, Registration, Shares, write};

/// The path of the directory of projects.
const DIRECTORY: &str = "node/directory";

/// What can change without a restart.
#[derive(Debug)]
pub struct Changeable {
    /// How often callers may ask.
    pub rates: RateSettings,
    /// How many runs and commands work at once.
    pub shares: Shares,
    /// How much may be used where nobody says otherwise.
    pub budgets: BudgetSettings,
    /// Who may create an account, unless an administrator chose otherwise.
    pub registration: Registration,
    /// The list of models.
    pub catalog: Catalog,
}

impl Node {
    /// Has other settings count from now on. What is counted, and what administrators chose, stays.
    pub fn reload(&self, now: Changeable) {
        let Changeable { rates, shares, budgets, registration, catalog } = now;
        self.rates.limit(rates);
        self.services.runs.limit(shares.runs);
        self.services.commands.limit(shares.commands);
        *self.services.budgets.write() = budgets;
        self.choices.configure(registration.mode());
        self.services.catalog.take_list(&catalog);
    }

    /// Notes in the audit that the configuration was read again: which keys count now, and which with the next
    /// start.
    pub async fn audit_reload(&self, changed: &[String], waiting: &[String]) {
        let audit = RecordAudit {
            at: self.services.clock.now_ms(),
            action: "server.reload".to_owned(),
            target: "configuration".to_owned(),
            details: json!({ "changed": changed, "withNextStart": waiting }),
            ..RecordAudit::default()
        };
        if let Err(error) = write(&self.root, audit, WriteContext::default()).await {
            tracing::error!(%error, "the audit does not say that the configuration was read again");
        }
    }

    /// Whether the node answers: its threads, its directory of projects and the readers of its root database.
    /// What they answer does not matter.
    pub async fn is_alive(&self) -> bool {
        if self.services.supervision.is_blocked() {
            return false;
        }
        let observed = self.services.supervision.observe(DIRECTORY).await;
        drop(self.root_reader.has_admin().await);
        !observed.is_null()
    }
}
