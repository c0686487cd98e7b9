//! Settings of the operator that a node takes while it runs, and what the audit is told of those that it starts with.

use std::collections::BTreeSet;

use iris_llm::Catalog;
use iris_sandbox::Sandbox;
use iris_store::WriteContext;
use iris_store::root::{RecordAudit, RecordSandbox};
use serde_json::{Value, json};

use crate::{BudgetSettings, Node, NodeError, RateSettings, Registration, Shares, record, write};

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

    /// Tells the audit what the sandbox holds and what the operator wants it to hold, where either is another than
    /// when it was told last. To be called before any command can run.
    ///
    /// # Errors
    /// When the root database cannot be written.
    pub async fn audit_sandbox(&self) -> Result<(), NodeError> {
        let now = told_of(self.services.sandbox.as_ref());
        let command = RecordSandbox { now, at: self.services.clock.now_ms() };
        if record(&self.root, command, WriteContext::default()).await?.output {
            tracing::info!("the sandbox is another than at the last start: it is in the audit");
        }
        Ok(())
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

/// What of a sandbox is to be seen in the audit. Not why something is missing: that may be said with other words each
/// time.
fn told_of(sandbox: Option<&Sandbox>) -> Value {
    let Some(sandbox) = sandbox else {
        return json!({ "tier": null, "minimum": "off", "missing": [] });
    };
    let missing: BTreeSet<&str> = sandbox.missing().iter().map(|it| it.feature.as_str()).collect();
    json!({
        "tier": sandbox.tier().to_string(),
        "minimum": sandbox.minimum().to_string(),
        "missing": missing,
    })
}
