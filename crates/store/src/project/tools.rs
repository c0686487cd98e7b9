//! The tools that a project defined.

use std::collections::BTreeMap;
use std::fmt;

use iris_protocol::{
    CommandTool, Event, HttpTool, Tool, ToolId, ToolKind, UserId, limits::CUSTOM_TOOLS_MAX,
};
use rusqlite::{Connection, Row, params};

use super::quotas::Quotas;
use super::{log, queries};
use crate::column::{self, to_word};
use crate::{Command, StoreError, WhenFull, WriteTx};

/// A tool of a project with its sealed secrets.
#[derive(Clone, PartialEq)]
pub struct StoredTool {
    /// As clients see it.
    pub tool: Tool,
    /// Sealed values of secret headers by their names; an empty one has to be set again.
    pub secrets: BTreeMap<String, String>,
}

impl fmt::Debug for StoredTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredTool").field("tool", &self.tool).finish_non_exhaustive()
    }
}

/// What a call of a tool does.
#[derive(Debug, Clone, PartialEq)]
pub enum ToolConfig {
    /// One HTTP request. The names of its secret headers are those of the sealed secrets.
    Http(HttpTool),
    /// One command in the sandbox.
    Command(CommandTool),
}

/// What can be changed of a tool.
#[derive(Clone, PartialEq)]
pub struct ToolDefinition {
    /// For the model.
    pub description: String,
    /// A valid JSON Schema.
    pub parameters: serde_json::Value,
    /// What a call does.
    pub config: ToolConfig,
    /// Sealed values of secret headers by their names.
    pub secrets: BTreeMap<String, String>,
    /// Whether a call changes something.
    pub writes: bool,
    /// Whether models are told of it.
    pub enabled: bool,
}

/// Defines a tool. Answers it.
///
/// Fails with `Conflict`: `name_taken`, `too_many_tools` when there are [`CUSTOM_TOOLS_MAX`]; with
/// `QuotaExceeded` when the project is full.
pub struct CreateTool {
    /// A new id.
    pub id: ToolId,
    /// No name of a tool of the server.
    pub name: String,
    /// All else.
    pub definition: ToolDefinition,
    /// The most that the project may hold.
    pub quotas: Quotas,
    /// The user who wants it.
    pub by: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for CreateTool {
    type Output = Tool;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Tool, StoreError> {
        let sql = "SELECT 1 FROM tools WHERE name = ?1";
        if queries::first(tx.conn(), sql, [&self.name], |_| Ok(()))?.is_some() {
            let message = format!("there is a tool `{}` already", self.name);
            return Err(StoreError::conflict("name_taken", message));
        }
        let count: u64 =
            queries::one(tx.conn(), "SELECT count(*) FROM tools", [], |row| row.get(0))?;
        if count >= CUSTOM_TOOLS_MAX {
            let message = format!("the project has {CUSTOM_TOOLS_MAX} tools of its own already");
            return Err(StoreError::conflict("too_many_tools", message));
        }
        self.quotas.check_rows(tx.conn(), 1)?;
        let ToolDefinition { description, parameters, config, secrets, writes, enabled } =
            self.definition;
        let (kind, config) = columns(&config)?;
        let sql = "INSERT INTO tools (id, name, description, kind, parameters, config, secrets,
                     writes, enabled, revision, created_by, created_at, updated_by, updated_at)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 1, ?10, ?11, ?10, ?11)";
        tx.conn().prepare_cached(sql)?.execute(params![
            self.id.as_str(),
            self.name,
            description,
            to_word(&kind)?,
            column::to_json(&parameters)?,
            config,
            column::to_json(&secrets)?,
            writes,
            enabled,
            self.by.as_str(),
            self.at,
        ])?;
        let tool = existing(tx.conn(), &self.id)?.tool;
        publish(tx, &tool, true, &self.by, self.at)?;
        Ok(tool)
    }
}

/// Changes a tool, from the next call on. Answers it as it is then.
///
/// Fails with `NotFound`; with `Conflict` and `tool_changed` when it is not the one that was looked at.
pub struct UpdateTool {
    /// The tool.
    pub id: ToolId,
    /// What it becomes, and the revision that this was worked out from; none when there was no such tool.
    pub change: Option<(u64, ToolDefinition)>,
    /// Whether it takes something away only, which is done on a full disk too.
    pub is_disabling: bool,
    /// The user who wants it.
    pub by: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for UpdateTool {
    type Output = Tool;

    fn when_full(&self) -> WhenFull {
        if self.is_disabling { WhenFull::Allow } else { WhenFull::Refuse }
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Tool, StoreError> {
        let before = existing(tx.conn(), &self.id)?.tool;
        let Some((_, definition)) =
            self.change.filter(|(revision, _)| before.revision == Some(*revision))
        else {
            let message = "somebody else changed the tool meanwhile: look at it and try again";
            return Err(StoreError::conflict("tool_changed", message));
        };
        let ToolDefinition { description, parameters, config, secrets, writes, enabled } =
            definition;
        let (kind, config) = columns(&config)?;
        let sql = "UPDATE tools SET description = ?2, kind = ?3, parameters = ?4, config = ?5,
                     secrets = ?6, writes = ?7, enabled = ?8, revision = revision + 1,
                     updated_by = ?9, updated_at = ?10
                   WHERE id = ?1";
        tx.conn().prepare_cached(sql)?.execute(params![
            self.id.as_str(),
            description,
            to_word(&kind)?,
            column::to_json(&parameters)?,
            config,
            column::to_json(&secrets)?,
            writes,
            enabled,
            self.by.as_str(),
            self.at,
        ])?;
        let tool = existing(tx.conn(), &self.id)?.tool;
        publish(tx, &tool, true, &self.by, self.at)?;
        Ok(tool)
    }
}

/// Deletes a tool with its secrets. Answers it as it was.
///
/// Fails with `NotFound`.
#[derive(Debug, Clone)]
pub struct DeleteTool {
    /// The tool.
    pub id: ToolId,
    /// The user who wants it.
    pub by: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for DeleteTool {
    type Output = Tool;

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Tool, StoreError> {
        let tool = existing(tx.conn(), &self.id)?.tool;
        let sql = "DELETE FROM tools WHERE id = ?1";
        tx.conn().prepare_cached(sql)?.execute([self.id.as_str()])?;
        publish(tx, &tool, false, &self.by, self.at)?;
        Ok(tool)
    }
}

/// All of them, by name.
pub(super) fn all(conn: &Connection) -> Result<Vec<StoredTool>, StoreError> {
    queries::all(conn, "SELECT * FROM tools ORDER BY name", [], row)
}

pub(super) fn one(conn: &Connection, id: &ToolId) -> Result<Option<StoredTool>, StoreError> {
    queries::first(conn, "SELECT * FROM tools WHERE id = ?1", [id.as_str()], row)
}

fn existing(conn: &Connection, id: &ToolId) -> Result<StoredTool, StoreError> {
    one(conn, id)?.ok_or(StoreError::NotFound { what: "tool" })
}

fn columns(config: &ToolConfig) -> Result<(ToolKind, String), StoreError> {
    match config {
        ToolConfig::Http(http) => Ok((ToolKind::Http, column::to_json(http)?)),
        ToolConfig::Command(command) => Ok((ToolKind::Command, column::to_json(command)?)),
    }
}

fn row(row: &Row<'_>) -> rusqlite::Result<StoredTool> {
    let secrets: BTreeMap<String, String> = column::json(row, "secrets")?;
    let kind = column::word(row, "kind")?;
    let (http, command) = match kind {
        ToolKind::Http => {
            let http: HttpTool = column::json(row, "config")?;
            let secret_headers = secrets.keys().cloned().collect();
            (Some(HttpTool { secret_headers, ..http }), None)
        }
        ToolKind::Command => (None, Some(column::json(row, "config")?)),
        // No row says so.
        ToolKind::Builtin => (None, None),
    };
    let tool = Tool {
        id: Some(column::word(row, "id")?),
        name: row.get("name")?,
        description: row.get("description")?,
        kind,
        parameters: column::json(row, "parameters")?,
        writes: row.get("writes")?,
        enabled: row.get("enabled")?,
        problem: None,
        http,
        command,
        revision: Some(row.get("revision")?),
        created_by: Some(column::word(row, "created_by")?),
        created_at: Some(row.get("created_at")?),
        updated_by: Some(column::word(row, "updated_by")?),
        updated_at: Some(row.get("updated_at")?),
    };
    Ok(StoredTool { tool, secrets })
}

fn publish(
    tx: &mut WriteTx<'_>,
    tool: &Tool,
    is_there: bool,
    by: &UserId,
    at: i64,
) -> Result<(), StoreError> {
    let Some(tool_id) = tool.id.clone() else {
        return Err(StoreError::internal("a tool of a project without an id"));
    };
    let (name, tool) = (tool.name.clone(), is_there.then(|| Box::new(tool.clone())));
    log::in_project(tx, at, Some(by), &Event::ToolUpdated { tool_id, name, tool })
}
