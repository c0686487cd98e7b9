//! The tools of a project: its administrators define them, members see them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use iris_auth::PlainSecret;
use iris_protocol::{
    ApiError, CommandTool, CommandToolSettings, ErrorCode, HttpMethod, HttpTool, HttpToolSettings,
    PermissionAction, SecretText, Tool as WireTool, ToolCreate, ToolDelete, ToolId, ToolKind,
    ToolPage, ToolPayload, ToolTest, ToolTestPayload, ToolUpdate,
    limits::{
        DESCRIPTION_BYTES_MAX, SECRET_BYTES_MAX, SECRET_BYTES_MIN, SECRET_HEADERS_MAX,
        TOOL_CONFIG_BYTES_MAX,
    },
};
use iris_store::project::{
    CreateTool, DeleteTool, StoredTool, ToolConfig, ToolDefinition, UpdateTool,
};
use iris_store::root::RecordAudit;
use iris_store::{Committed, WriteContext};
use iris_tools::{
    COMMAND_TIMEOUT_MS_DEFAULT, HTTP_TIMEOUT_MS_MAX, ReadLog, SecretHeader, Tool, ToolContext,
    ToolRegistry, origin_of,
};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::{Done, Grant, check_length, done, internal, stored};
use crate::agents::DEFAULT_AGENT;
use crate::permissions::{agent_for, judge, judged, may_run_code};
use crate::project::ProjectHandle;
use crate::supervision::current_request;
use crate::toolbox::{is_taken_by_server, made, made_with, tools_of};
use crate::{Node, write};

/// How many tests of tools run at once in this process; more are refused.
static TESTING: Semaphore = Semaphore::const_new(4);

pub(super) async fn list(node: &Node, grant: &Grant) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    let registry = tools_of(&project, &node.services).await.map_err(stored)?;
    let own = project.reader.tools().await.map_err(stored)?;
    let is_own = |name: &str| own.iter().any(|stored| stored.tool.name == name);
    let mut tools = registry.to_wire();
    tools.retain(|tool| !is_own(&tool.name));
    tools.extend(own.into_iter().map(|stored| {
        let problem = problem(node, &project, &stored);
        WireTool { problem, ..stored.tool }
    }));
    done(ToolPage { tools })
}

/// Why a tool cannot run as it is now.
fn problem(node: &Node, project: &ProjectHandle, stored: &StoredTool) -> Option<String> {
    match made(project, &node.services, stored) {
        Ok(tool) => tool.unavailable().map(|error| error.to_string()),
        Err(error) => Some(error.to_string()),
    }
}

pub(super) async fn create(
    node: &Node,
    grant: &Grant,
    request: ToolCreate,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let ToolCreate { name, description, parameters, enabled, http, command } = request;
    if is_taken_by_server(&node.services, &name) {
        let message = format!("`{name}` is a name of the server");
        return Err(ApiError::new(ErrorCode::Conflict, message).reason("builtin_tool"));
    }
    let project = grant.project(node).await?;
    let id = ToolId::from_bits(node.services.ids.next_bits());
    let written = match (http, command) {
        (Some(http), None) => Written::http(http, BTreeMap::new(), false)?,
        (None, Some(command)) => Written::command(command),
        (None, None) | (Some(_), Some(_)) => {
            return Err(invalid("a tool has either `http` or `command`"));
        }
    };
    let draft = Draft { id, name, revision: 1, description, parameters, enabled, written };
    draft.check_code(node, grant).await?;
    let (id, name) = (draft.id.clone(), draft.name.clone());
    let command = CreateTool {
        id,
        name,
        definition: draft.definition(node, &project)?,
        quotas: node.services.settings.quotas,
        by: grant.user_id()?.clone(),
        at: node.services.clock.now_ms(),
    };
    answer(write(&project.address, command, context).await.map_err(stored)?)
}

fn answer(changed: Committed<WireTool>) -> Result<Done, ApiError> {
    let Committed { output: tool, seq, replayed } = changed;
    Ok(done(ToolPayload { tool })?.at(seq, replayed))
}

pub(super) async fn update(
    node: &Node,
    grant: &Grant,
    request: ToolUpdate,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    let (by, at) = (grant.user_id()?.clone(), node.services.clock.now_ms());
    let id = request.tool_id.clone();
    let before = project.reader.tool(id.clone()).await.map_err(stored)?;
    let is_disabling = request.is_disabling();
    // Whether there is such a tool is for the command to say: it may be a repeat.
    let change = match before {
        Some(before) => Some(changed(node, grant, &project, before, request).await?),
        None => None,
    };
    let command = UpdateTool { id, change, is_disabling, by, at };
    answer(write(&project.address, command, context).await.map_err(stored)?)
}

/// What a tool becomes, and the revision that this was worked out from.
async fn changed(
    node: &Node,
    grant: &Grant,
    project: &ProjectHandle,
    before: StoredTool,
    request: ToolUpdate,
) -> Result<(u64, ToolDefinition), ApiError> {
    let is_disabling = request.is_disabling();
    let StoredTool { tool: WireTool { id, name, revision, .. }, .. } = &before;
    let (name, revision) = (name.clone(), revision.unwrap_or_default());
    let id = id.clone().ok_or_else(|| ApiError::not_found("tool"))?;
    let WireTool { description, parameters, enabled, http, command, .. } = before.tool;
    let written = match (request.http, request.command, http, command) {
        (None, None, Some(http), _) => Written::Http { http, sealed: before.secrets, new: vec![] },
        (None, None, None, Some(command)) => Written::Command(command),
        (Some(settings), None, Some(old), _) => {
            let is_moved = origin_of(&old.url) != origin_of(&settings.url);
            Written::http(settings, before.secrets, is_moved)?
        }
        (None, Some(settings), None, Some(_)) => Written::command(settings),
        _ => return Err(invalid("the kind of a tool stays: define another one")),
    };
    let draft = Draft {
        id,
        name,
        revision: revision + 1,
        description: request.description.unwrap_or(description),
        parameters: request.parameters.unwrap_or(parameters),
        enabled: Some(request.enabled.unwrap_or(enabled)),
        written,
    };
    // To take something away needs no right to have programs run.
    if !is_disabling {
        draft.check_code(node, grant).await?;
    }
    Ok((revision, draft.definition(node, project)?))
}

trait Disabling {
    /// Whether the request takes the tool out of use and does nothing else.
    fn is_disabling(&self) -> bool;
}

impl Disabling for ToolUpdate {
    fn is_disabling(&self) -> bool {
        let Self { description, parameters, enabled, http, command, .. } = self;
        *enabled == Some(false)
            && description.is_none()
            && parameters.is_none()
            && http.is_none()
            && command.is_none()
    }
}

pub(super) async fn delete(
    node: &Node,
    grant: &Grant,
    request: ToolDelete,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    let (by, at) = (grant.user_id()?.clone(), node.services.clock.now_ms());
    let command = DeleteTool { id: request.tool_id, by, at };
    let deleted = write(&project.address, command, context).await.map_err(stored)?;
    Ok(done(iris_protocol::Done { done: true })?.at(deleted.seq, deleted.replayed))
}

/// A tool that is about to be written.
struct Draft {
    id: ToolId,
    name: String,
    /// The one that it gets.
    revision: u64,
    description: String,
    parameters: Value,
    enabled: Option<bool>,
    written: Written,
}

/// What a call of it does, and the secrets for that.
enum Written {
    Http {
        http: HttpTool,
        /// Those that stay, by their names.
        sealed: BTreeMap<String, String>,
        /// Those that came with the request.
        new: Vec<(String, SecretText)>,
    },
    Command(CommandTool),
}

impl Written {
    /// A request with the secrets of `before`, unless it goes elsewhere now: whoever changes where a secret
    /// is sent has to know it.
    fn http(
        settings: HttpToolSettings,
        before: BTreeMap<String, String>,
        is_moved: bool,
    ) -> Result<Self, ApiError> {
        let HttpToolSettings { method, url, query, headers, body, secret_headers, timeout_ms } =
            settings;
        let (mut sealed, mut new) = (before, Vec::new());
        if secret_headers.len() > SECRET_HEADERS_MAX {
            let message = format!("`http` has more than {SECRET_HEADERS_MAX} secret headers");
            return Err(invalid(message));
        }
        for (name, secret) in secret_headers {
            let name = name.to_ascii_lowercase();
            sealed.remove(&name);
            let Some(secret) = secret else { continue };
            check_secret(&name, &secret)?;
            new.push((name, secret));
        }
        if let (true, Some(name)) = (is_moved, sealed.keys().next()) {
            let message = format!(
                "the secret header `{name}` was set for another server: set it again, or take it away with null"
            );
            return Err(ApiError::new(ErrorCode::Conflict, message).reason("secret_needed"));
        }
        let timeout_ms = timeout_ms.unwrap_or(HTTP_TIMEOUT_MS_MAX);
        let secret_headers = Vec::new();
        let http = HttpTool { method, url, query, headers, body, secret_headers, timeout_ms };
        Ok(Self::Http { http, sealed, new })
    }

    fn command(settings: CommandToolSettings) -> Self {
        let CommandToolSettings { argv, workdir, timeout_ms } = settings;
        let timeout_ms = timeout_ms.unwrap_or(COMMAND_TIMEOUT_MS_DEFAULT);
        Self::Command(CommandTool { argv, workdir, timeout_ms })
    }
}

/// The value is repeated nowhere.
fn check_secret(name: &str, secret: &SecretText) -> Result<(), ApiError> {
    if (SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&secret.expose().len()) {
        return Ok(());
    }
    let name: String = name.chars().take(80).flat_map(char::escape_debug).collect();
    let range = format!("{SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes");
    Err(invalid(format!("the secret header `{name}` must have {range}")))
}

impl Draft {
    /// Whoever has a program run on the server by defining a tool needs the right to.
    async fn check_code(&self, node: &Node, grant: &Grant) -> Result<(), ApiError> {
        match &self.written {
            Written::Http { .. } => Ok(()),
            Written::Command(_) => check_may_run(node, grant).await,
        }
    }

    /// Checks all of it, as it will be when it is read again, and seals what is secret.
    fn definition(self, node: &Node, project: &ProjectHandle) -> Result<ToolDefinition, ApiError> {
        check_length("description", &self.description, DESCRIPTION_BYTES_MAX)?;
        let tool = self.check(node)?;
        let writes = tool.writes();
        let enabled = self.enabled.unwrap_or(true);
        let (config, secrets) = match self.written {
            Written::Command(command) => (ToolConfig::Command(command), BTreeMap::new()),
            Written::Http { http, mut sealed, new } => {
                let origin = origin_of(&http.url).map_err(|error| invalid(error.to_string()))?;
                for (name, secret) in new {
                    let owner = [project.id.as_str(), self.id.as_str(), &name, &origin];
                    let secret = PlainSecret::new(secret.expose().to_owned());
                    let text = node.services.sealing.seal(&secret, &owner).map_err(internal)?;
                    sealed.insert(name, text);
                }
                (ToolConfig::Http(http), sealed)
            }
        };
        check_config(&config)?;
        let (description, parameters) = (self.description, self.parameters);
        Ok(ToolDefinition { description, parameters, config, secrets, writes, enabled })
    }

    /// Makes the tool, once, with the secrets that came; those that stay were looked at when they came.
    fn check(&self, node: &Node) -> Result<Arc<dyn Tool>, ApiError> {
        let (kind, http, command, secrets) = match &self.written {
            Written::Command(command) => (ToolKind::Command, None, Some(command), Vec::new()),
            Written::Http { http, sealed, new } => {
                let kept = sealed.keys().map(|name| (name, None));
                let new = new
                    .iter()
                    .map(|(name, secret)| (name, Some(Zeroizing::new(secret.expose().to_owned()))));
                let secrets = kept.chain(new);
                let secrets =
                    secrets.map(|(name, value)| SecretHeader { name: name.clone(), value });
                (ToolKind::Http, Some(http), None, secrets.collect())
            }
        };
        let tool = WireTool {
            id: Some(self.id.clone()),
            name: self.name.clone(),
            description: self.description.clone(),
            kind,
            parameters: self.parameters.clone(),
            writes: http.is_none_or(|http| http.method != HttpMethod::Get),
            enabled: true,
            problem: None,
            http: http.cloned(),
            command: command.cloned(),
            revision: Some(self.revision),
            created_by: None,
            created_at: None,
            updated_by: None,
            updated_at: None,
        };
        made_with(&node.services.workshop, &tool, || secrets)
            .map_err(|error| invalid(error.to_string()))
    }
}

fn check_config(config: &ToolConfig) -> Result<(), ApiError> {
    let text = match config {
        ToolConfig::Http(http) => serde_json::to_string(http),
        ToolConfig::Command(command) => serde_json::to_string(command),
    };
    let (field, text) = match config {
        ToolConfig::Http(_) => ("http", text.map_err(internal)?),
        ToolConfig::Command(_) => ("command", text.map_err(internal)?),
    };
    check_length(field, &text, TOOL_CONFIG_BYTES_MAX)
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::invalid(message.into()).reason("invalid_tool")
}

async fn check_may_run(node: &Node, grant: &Grant) -> Result<(), ApiError> {
    if may_run_code(&node.root_reader, grant.user_id()?).await.map_err(stored)? {
        return Ok(());
    }
    let message = "you may not have programs run on this server";
    Err(ApiError::new(ErrorCode::Forbidden, message).reason("no_code"))
}

/// Runs a tool for the administrator who asks for it, who needs not be asked again. A rule that denies what
/// it touches counts; so does the right to have programs run.
pub(super) async fn test(
    node: &Node,
    grant: &Grant,
    request: ToolTest,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let ToolTest { tool_id, input } = request;
    if let Some(key) = context.idempotency.clone() {
        let first = node.root_reader.recall::<RecordAudit>(key).await.map_err(stored)?;
        if first.is_some() {
            let message = "the tool was run for this key already; what came of it is not kept";
            return Err(ApiError::new(ErrorCode::Conflict, message).reason("already_tested"));
        }
    }
    let project = grant.project(node).await?;
    let found = project.reader.tool(tool_id.clone()).await.map_err(stored)?;
    let found = found.ok_or_else(|| ApiError::not_found("tool"))?;
    let tool = made(&project, &node.services, &found).map_err(|e| invalid(e.to_string()))?;
    if tool.runs_code() {
        check_may_run(node, grant).await?;
    }
    if let Some(error) = tool.unavailable() {
        return Err(ApiError::new(error.code(), error.to_string()).reason("tool_unavailable"));
    }
    let input = Value::Object(input);
    let context_of_call = admitted(node, grant, &project, &tool, &input).await?;
    let _turn = TESTING.try_acquire().map_err(|_| {
        ApiError::new(ErrorCode::Overloaded, "too many tools are being tested").retry_after(1_000)
    })?;
    let audit = RecordAudit {
        at: node.services.clock.now_ms(),
        user_id: grant.user_id()?.clone(),
        action: "tool.test".to_owned(),
        target: tool_id.to_string(),
        request_id: current_request().map(|request| request.to_string()),
        details: json!({ "projectId": project.id, "name": found.tool.name }),
    };
    write(&node.root, audit, context).await.map_err(stored)?;
    done(run(node, tool.as_ref(), context_of_call, input).await)
}

/// What a call works with, unless its arguments or a rule forbid it.
async fn admitted(
    node: &Node,
    grant: &Grant,
    project: &ProjectHandle,
    tool: &Arc<dyn Tool>,
    input: &Value,
) -> Result<ToolContext, ApiError> {
    let services = &node.services;
    let agent = agent_for(project, services, Some(DEFAULT_AGENT), None).await?;
    let judge = judge(project, services, None, &agent, grant.user_id()?).await.map_err(stored)?;
    let judge = Arc::new(judge);
    let alone = Arc::new(ToolRegistry::new(vec![Arc::clone(tool)]).map_err(internal)?);
    let (_, judgement) = judged(&alone, tool, input, &judge)
        .await
        .map_err(|error| ApiError::invalid(error.to_string()).reason("invalid_input"))?;
    match judgement.action {
        PermissionAction::Allow | PermissionAction::Ask => {}
        PermissionAction::Deny => {
            let denial = judgement.denial().unwrap_or_default();
            return Err(ApiError::new(ErrorCode::Forbidden, denial).reason("denied_by_rule"));
        }
    }
    let context = ToolContext::new(project.workspace.clone(), Arc::new(ReadLog::new()), judge);
    Ok(context.with_places(Arc::clone(&project.places)))
}

async fn run(node: &Node, tool: &dyn Tool, context: ToolContext, input: Value) -> ToolTestPayload {
    let timeout = tool.time_limit(&input).unwrap_or(node.services.settings.tool_timeout);
    let begun = Instant::now();
    let ended = tokio::time::timeout(timeout, tool.run(context, input)).await;
    let duration_ms = millis(begun.elapsed());
    let failed =
        |error| ToolTestPayload { output: None, error: Some(error), metadata: None, duration_ms };
    match ended {
        Ok(Ok(output)) => ToolTestPayload {
            output: Some(output.output),
            error: None,
            metadata: (!output.metadata.is_null()).then_some(output.metadata),
            duration_ms,
        },
        Ok(Err(error)) => failed(error.to_string()),
        Err(_) => failed(format!("the tool took longer than {} s", timeout.as_secs())),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
