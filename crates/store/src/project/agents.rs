//! The agents that a project defined.

use iris_protocol::{
    Agent, AgentId, AgentMode, AgentTuning, Event, ModelRef, PermissionSetting, UserId,
};
use rusqlite::params;

use super::quotas::Quotas;
use super::{log, queries};
use crate::{Command, StoreError, WhenFull, WriteTx, column};

/// Most agents of one project.
pub const AGENTS_MAX: u64 = 256;

/// Creates an agent. Answers it.
///
/// Fails with `Conflict`: `name_taken`, `too_many_agents` when there are [`AGENTS_MAX`];
/// with `QuotaExceeded` when the project is full.
#[derive(Debug, Clone)]
pub struct CreateAgent {
    /// A new id.
    pub id: AgentId,
    /// Unique in the project.
    pub name: String,
    /// What it is for; other agents choose by it.
    pub description: String,
    /// Who may set it to work.
    pub mode: AgentMode,
    /// Instructions for the model.
    pub prompt: String,
    /// The model, where the agent chooses one.
    pub model: Option<ModelRef>,
    /// Names of tools, in the order in which the model sees them.
    pub tools: Vec<String>,
    /// Valid rules about what its tool calls may touch.
    pub permissions: Vec<PermissionSetting>,
    /// How its model is asked.
    pub tuning: AgentTuning,
    /// The most that the project may hold.
    pub quotas: Quotas,
    /// The user who wants it.
    pub by: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for CreateAgent {
    type Output = Agent;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Agent, StoreError> {
        if queries::agent(tx.conn(), &self.name)?.is_some() {
            let message = format!("there is an agent `{}` already", self.name);
            return Err(StoreError::conflict("name_taken", message));
        }
        let count: u64 =
            queries::one(tx.conn(), "SELECT count(*) FROM agents", [], |row| row.get(0))?;
        if count >= AGENTS_MAX {
            let message = format!("the project has `{AGENTS_MAX}` agents already");
            return Err(StoreError::conflict("too_many_agents", message));
        }
        self.quotas.check_rows(tx.conn(), 1)?;
        let sql = "INSERT INTO agents (id, name, prompt, model, tools, created_at, updated_at,
                     permissions, description, mode, temperature, top_p, max_steps)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
        tx.conn().prepare_cached(sql)?.execute(params![
            self.id.as_str(),
            self.name,
            self.prompt,
            column::to_optional_json(self.model.as_ref())?,
            column::to_json(&self.tools)?,
            self.at,
            column::to_json(&self.permissions)?,
            self.description,
            column::to_word(&self.mode)?,
            self.tuning.temperature,
            self.tuning.top_p,
            self.tuning.max_steps,
        ])?;
        let agent = existing_agent(tx, &self.name)?;
        publish(tx, &agent.name, Some(&agent), &self.by, self.at)?;
        Ok(agent)
    }
}

/// Changes an agent, from the next run on. Answers it as it is then.
///
/// Fails with `NotFound`.
#[derive(Debug, Clone)]
pub struct UpdateAgent {
    /// The agent.
    pub name: String,
    /// What it is for; `None` leaves it.
    pub description: Option<String>,
    /// Who may set it to work; `None` leaves it.
    pub mode: Option<AgentMode>,
    /// Instructions for the model; `None` leaves them.
    pub prompt: Option<String>,
    /// The model; `None` leaves it.
    pub model: Option<ModelRef>,
    /// Names of tools; `None` leaves them.
    pub tools: Option<Vec<String>>,
    /// Valid rules; `None` leaves them.
    pub permissions: Option<Vec<PermissionSetting>>,
    /// How its model is asked, as far as it is named.
    pub tuning: AgentTuning,
    /// The user who wants it.
    pub by: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for UpdateAgent {
    type Output = Agent;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Agent, StoreError> {
        let mut agent = existing_agent(tx, &self.name)?;
        agent.description = self.description.unwrap_or(agent.description);
        agent.mode = self.mode.unwrap_or(agent.mode);
        agent.prompt = self.prompt.unwrap_or(agent.prompt);
        agent.model = self.model.or(agent.model);
        agent.tools = self.tools.unwrap_or(agent.tools);
        agent.permissions = self.permissions.unwrap_or(agent.permissions);
        agent.tuning = agent.tuning.changed(self.tuning);
        let sql = "UPDATE agents SET prompt = ?2, model = ?3, tools = ?4, updated_at = ?5,
                     permissions = ?6, description = ?7, mode = ?8, temperature = ?9, top_p = ?10,
                     max_steps = ?11
                   WHERE name = ?1";
        tx.conn().prepare_cached(sql)?.execute(params![
            agent.name,
            agent.prompt,
            column::to_optional_json(agent.model.as_ref())?,
            column::to_json(&agent.tools)?,
            self.at,
            column::to_json(&agent.permissions)?,
            agent.description,
            column::to_word(&agent.mode)?,
            agent.tuning.temperature,
            agent.tuning.top_p,
            agent.tuning.max_steps,
        ])?;
        publish(tx, &agent.name, Some(&agent), &self.by, self.at)?;
        Ok(agent)
    }
}

/// Deletes an agent. Answers it as it was.
///
/// Fails with `NotFound`.
#[derive(Debug, Clone)]
pub struct DeleteAgent {
    /// The agent.
    pub name: String,
    /// The user who wants it.
    pub by: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for DeleteAgent {
    type Output = Agent;

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Agent, StoreError> {
        let agent = existing_agent(tx, &self.name)?;
        tx.conn().prepare_cached("DELETE FROM agents WHERE name = ?1")?.execute([&self.name])?;
        publish(tx, &self.name, None, &self.by, self.at)?;
        Ok(agent)
    }
}

fn existing_agent(tx: &WriteTx<'_>, name: &str) -> Result<Agent, StoreError> {
    queries::agent(tx.conn(), name)?.ok_or(StoreError::NotFound { what: "agent" })
}

fn publish(
    tx: &mut WriteTx<'_>,
    name: &str,
    agent: Option<&Agent>,
    by: &UserId,
    at: i64,
) -> Result<(), StoreError> {
    let event = Event::AgentUpdated { name: name.to_owned(), agent: agent.cloned() };
    log::in_project(tx, at, Some(by), &event)
}
