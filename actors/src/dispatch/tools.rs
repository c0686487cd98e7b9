//! The tools of a project: its administrators define them, members see them.

mod draft;
mod testing;

use std::collections::BTreeMap;

use iris_protocol::{
    ApiError, ErrorCode, Tool as WireTool, ToolCreate, ToolDelete, ToolId, ToolPage, ToolPayload,
    ToolUpdate,
};
use iris_store::project::{CreateTool, DeleteTool, StoredTool, ToolDefinition, UpdateTool};
use iris_store::{Committed, WriteContext};
use iris_tools::origin_of;

use super::{Done, Grant, done, stored};
use crate::permissions::check_may_run_code;
use crate::project::ProjectHandle;
use crate::toolbox::{Made, Parts, is_taken_by_server, make, tools_of};
use crate::{Node, write};
use draft::{Draft, Written};

pub(super) use testing::test;

pub(super) async fn list(node: &Node, grant: &Grant) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    let registry = tools_of(&project, &node.services).await.map_err(stored)?;
    let own = project.reader.tools().await.map_err(stored)?;
    let is_own = |name: &str| own.iter().any(|stored| stored.tool.name == name);
    let mut tools = registry.to_wire();
    tools.retain(|tool| !is_own(&tool.name));
    let parts = own.iter().cloned().map(|own| Parts::opened(&project, &node.services, own));
    let made = make(&node.services, parts.collect()).await.map_err(stored)?;
    let own = own.into_iter().zip(made);
    tools.extend(own.map(|(own, made)| WireTool { problem: problem(made), ..own.tool }));
    done(ToolPage { tools })
}

/// Why a tool cannot run as it is now.
fn problem(made: Made) -> Option<String> {
    match made {
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
        definition: draft.definition(node, &project).await?,
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
    Ok((revision, draft.definition(node, project).await?))
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

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::invalid(message.into()).reason("invalid_tool")
}

async fn check_may_run(node: &Node, grant: &Grant) -> Result<(), ApiError> {
    check_may_run_code(&node.root_reader, grant.user_id()?, "").await
}
