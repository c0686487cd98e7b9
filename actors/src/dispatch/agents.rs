//! Agents.

use iris_protocol::{
    Agent, AgentCreate, AgentId, AgentPage, AgentPayload, AgentTuning, AgentUpdate, ApiError,
    ErrorCode, PermissionSetting,
    limits::{
        AGENT_DESCRIPTION_BYTES_MAX, AGENT_PERMISSIONS_MAX, AGENT_TOOLS_MAX, PROMPT_BYTES_MAX,
    },
};
use iris_store::project::{CreateAgent, DeleteAgent, UpdateAgent};
use iris_store::{Committed, WriteContext};
use iris_tools::ToolRegistry;

use super::permissions::{check_code, check_setting};
use super::{Done, Grant, check_length, check_model, done, stored};
use crate::agents::{DEFAULT_AGENT, agents_of, find_agent};
use crate::toolbox::tools_of;
use crate::{Node, write};

/// Longest name of an agent, in bytes.
const AGENT_NAME_BYTES_MAX: usize = 64;

fn check_agent_name(name: &str) -> Result<(), ApiError> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > AGENT_NAME_BYTES_MAX || !name.chars().all(is_word) {
        let message =
            format!("`name` must be 1 to {AGENT_NAME_BYTES_MAX} letters, digits, `-` and `_`");
        return Err(ApiError::invalid(message).reason("invalid_name"));
    }
    if name == DEFAULT_AGENT {
        let message = format!("`{name}` is a built-in agent");
        return Err(ApiError::new(ErrorCode::Conflict, message).reason("builtin_agent"));
    }
    Ok(())
}

fn check_tuning(tuning: AgentTuning) -> Result<(), ApiError> {
    tuning.check().map_err(|error| ApiError::invalid(error).reason("invalid_tuning"))
}

fn check_settings(settings: &[PermissionSetting]) -> Result<(), ApiError> {
    if settings.len() > AGENT_PERMISSIONS_MAX {
        let message = format!("an agent has at most {AGENT_PERMISSIONS_MAX} permission rules");
        return Err(ApiError::invalid(message).reason("too_many_permissions"));
    }
    settings.iter().try_for_each(check_setting)
}

fn check_tools(registry: &ToolRegistry, names: &[String]) -> Result<(), ApiError> {
    if names.len() > AGENT_TOOLS_MAX {
        return Err(ApiError::invalid(format!("an agent has at most {AGENT_TOOLS_MAX} tools")));
    }
    for (index, name) in names.iter().enumerate() {
        if registry.get(name).is_none() {
            return Err(
                ApiError::invalid(registry.unknown(name).to_string()).reason("unknown_tool")
            );
        }
        if names.iter().take(index).any(|other| other == name) {
            let message = format!("the tool `{name}` is named twice");
            return Err(ApiError::invalid(message).reason("duplicate_tool"));
        }
    }
    Ok(())
}

pub(super) async fn create(
    node: &Node,
    grant: &Grant,
    request: AgentCreate,
    context: WriteContext,
) -> Result<Done, ApiError> {
    check_agent_name(&request.name)?;
    check_tuning(request.tuning)?;
    let description = request.description.unwrap_or_default();
    check_length("description", &description, AGENT_DESCRIPTION_BYTES_MAX)?;
    let prompt = request.prompt.unwrap_or_default();
    check_length("prompt", &prompt, PROMPT_BYTES_MAX)?;
    check_model(request.model.as_ref())?;
    let project = grant.project(node).await?;
    let registry = tools_of(&project, &node.services).await.map_err(stored)?;
    let tools = match request.tools {
        Some(tools) => tools,
        None => registry.names().map(str::to_owned).collect(),
    };
    check_tools(&registry, &tools)?;
    let permissions = request.permissions.unwrap_or_default();
    check_settings(&permissions)?;
    check_code(node, grant, &permissions).await?;
    let command = CreateAgent {
        id: AgentId::from_bits(node.services.ids.next_bits()),
        name: request.name,
        description,
        mode: request.mode.unwrap_or_default(),
        prompt,
        model: request.model,
        tools,
        permissions,
        tuning: request.tuning,
        quotas: node.services.settings.quotas,
        by: grant.user_id()?.clone(),
        at: node.services.clock.now_ms(),
    };
    answer(write(&project.address, command, context).await.map_err(stored)?)
}

fn answer(changed: Committed<Agent>) -> Result<Done, ApiError> {
    let Committed { output: agent, seq, replayed } = changed;
    Ok(done(AgentPayload { agent })?.at(seq, replayed))
}

pub(super) async fn update(
    node: &Node,
    grant: &Grant,
    request: AgentUpdate,
    context: WriteContext,
) -> Result<Done, ApiError> {
    check_agent_name(&request.name)?;
    check_tuning(request.tuning)?;
    let description = request.description.as_deref().unwrap_or_default();
    check_length("description", description, AGENT_DESCRIPTION_BYTES_MAX)?;
    check_length("prompt", request.prompt.as_deref().unwrap_or_default(), PROMPT_BYTES_MAX)?;
    check_model(request.model.as_ref())?;
    let project = grant.project(node).await?;
    let registry = tools_of(&project, &node.services).await.map_err(stored)?;
    check_tools(&registry, request.tools.as_deref().unwrap_or_default())?;
    let permissions = request.permissions.as_deref().unwrap_or_default();
    check_settings(permissions)?;
    check_code(node, grant, permissions).await?;
    let command = UpdateAgent {
        name: request.name,
        description: request.description,
        mode: request.mode,
        prompt: request.prompt,
        model: request.model,
        tools: request.tools,
        permissions: request.permissions,
        tuning: request.tuning,
        by: grant.user_id()?.clone(),
        at: node.services.clock.now_ms(),
    };
    answer(write(&project.address, command, context).await.map_err(stored)?)
}

pub(super) async fn delete(
    node: &Node,
    grant: &Grant,
    name: String,
    context: WriteContext,
) -> Result<Done, ApiError> {
    check_agent_name(&name)?;
    let by = grant.user_id()?.clone();
    let command = DeleteAgent { name, by, at: node.services.clock.now_ms() };
    let project = grant.project(node).await?;
    let deleted = write(&project.address, command, context).await.map_err(stored)?;
    Ok(done(iris_protocol::Done { done: true })?.at(deleted.seq, deleted.replayed))
}

pub(super) async fn list(node: &Node, grant: &Grant) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    let agents = agents_of(&project, &node.services).await.map_err(stored)?;
    done(AgentPage { agents, problems: Vec::new() })
}

pub(super) async fn get(node: &Node, grant: &Grant, name: &str) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    let agent = find_agent(&project, &node.services, name).await.map_err(stored)?;
    done(AgentPayload { agent: agent.ok_or_else(|| ApiError::not_found("agent"))? })
}
