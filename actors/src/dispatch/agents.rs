//! Agents.

use iris_protocol::{
    Agent, AgentCreate, AgentId, AgentPage, AgentPayload, AgentTuning, AgentUpdate, ApiError,
    ErrorCode, PermissionSetting,
    limits::{
        AGENT_DESCRIPTION_BYTES_MAX, AGENT_PERMISSIONS_MAX, AGENT_TOOLS_MAX, PROMPT_BYTES_MAX,
    },
};
use iris_store::project::{CreateAgent, DeleteAgent, UpdateAgent};
use iris_store::{Committed, StoreError, WriteContext};
use iris_tools::ToolRegistry;

use super::permissions::{check_code, check_setting};
use super::{Done, Grant, check_length, check_model, done, stored};
use crate::agents::{AGENT_NAME_BYTES_MAX, DEFAULT_AGENT, find_agent, is_agent_name, listed};
use crate::project::ProjectHandle;
use crate::toolbox::tools_of;
use crate::{Node, write};

fn check_agent_name(name: &str) -> Result<(), ApiError> {
    if !is_agent_name(name) {
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
    let name = request.name.clone();
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
    let updated = write(&project.address, command, context).await;
    answer(unless_in_file(node, &project, &name, updated).await?)
}

/// Says of an agent that is not among those of the project where it is, if it is one in a file.
async fn unless_in_file<T>(
    node: &Node,
    project: &ProjectHandle,
    name: &str,
    changed: Result<T, StoreError>,
) -> Result<T, ApiError> {
    let error = match changed {
        Ok(changed) => return Ok(changed),
        Err(error) => error,
    };
    if !matches!(error, StoreError::NotFound { .. }) {
        return Err(stored(error));
    }
    let found = find_agent(project, &node.services, name).await.map_err(stored)?;
    match found.and_then(|agent| agent.path) {
        Some(path) => {
            let message = format!("the agent `{name}` stands in `{path}`: change the file");
            Err(ApiError::new(ErrorCode::Conflict, message).reason("agent_in_file"))
        }
        None => Err(stored(error)),
    }
}

pub(super) async fn delete(
    node: &Node,
    grant: &Grant,
    name: String,
    context: WriteContext,
) -> Result<Done, ApiError> {
    check_agent_name(&name)?;
    let by = grant.user_id()?.clone();
    let command = DeleteAgent { name: name.clone(), by, at: node.services.clock.now_ms() };
    let project = grant.project(node).await?;
    let deleted = write(&project.address, command, context).await;
    let deleted = unless_in_file(node, &project, &name, deleted).await?;
    Ok(done(iris_protocol::Done { done: true })?.at(deleted.seq, deleted.replayed))
}

pub(super) async fn list(node: &Node, grant: &Grant) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    let (agents, problems) = listed(&project, &node.services).await.map_err(stored)?;
    done(AgentPage { agents, problems })
}

pub(super) async fn get(node: &Node, grant: &Grant, name: &str) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    let agent = find_agent(&project, &node.services, name).await.map_err(stored)?;
    done(AgentPayload { agent: agent.ok_or_else(|| ApiError::not_found("agent"))? })
}
