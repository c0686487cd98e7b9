//! The tools of one project: those of the server, then those that the project has besides. They are kept in
//! memory until somebody changes one, so that a change counts from the next look on.

use std::sync::Arc;

use iris_protocol::{Tool as WireTool, ToolId};
use iris_store::StoreError;
use iris_store::project::StoredTool;
use iris_tools::{About, InvalidDefinition, SecretHeader, Tool, ToolRegistry, Workshop, origin_of};
use zeroize::Zeroizing;

use crate::Services;
use crate::mcp;
use crate::project::ProjectHandle;

/// Names that rules use, or that the server may have tools of at another time: no project takes one.
const RESERVED: [&str; 9] =
    ["read", "edit", "network", "bash", "webfetch", "task", "mcp", "skill", "iris"];

/// The tools that a project has now.
///
/// # Errors
/// As the reads of the project's database.
pub(crate) async fn tools_of(
    project: &ProjectHandle,
    services: &Services,
) -> Result<Arc<ToolRegistry>, StoreError> {
    let load = async {
        // Each kind of tool that a project has of its own adds its part here, in this order.
        let mut own = custom_tools(project, services).await?;
        own.extend(mcp::tools(project).await?);
        Ok(with_own(project, services, own))
    };
    project.kept.tools.get(load).await
}

/// The server's tools come first: no tool of a project takes the name of one of them. What cannot be
/// registered is left out; the others stay.
fn with_own(project: &ProjectHandle, services: &Services, own: Vec<Arc<dyn Tool>>) -> ToolRegistry {
    let (tools, refused) = services.tools.extended(own);
    for error in refused {
        tracing::warn!(project.id = %project.id, %error, "a tool of the project is left out");
    }
    tools
}

/// The tools that the project defined and that are enabled. One that cannot be made, because another version
/// of the server took it, is left out.
async fn custom_tools(
    project: &ProjectHandle,
    services: &Services,
) -> Result<Vec<Arc<dyn Tool>>, StoreError> {
    let stored = project.reader.tools().await?.into_iter();
    let made = stored.filter(|stored| stored.tool.enabled).filter_map(|stored| {
        let made = made(project, services, &stored);
        made.inspect_err(|error| {
            let name = &stored.tool.name;
            tracing::warn!(project.id = %project.id, tool.name = name, %error, "a tool is left out");
        })
        .ok()
    });
    Ok(made.collect())
}

/// A tool with its secrets opened.
///
/// # Errors
/// [`InvalidDefinition`] for what this server cannot make a tool of.
pub(crate) fn made(
    project: &ProjectHandle,
    services: &Services,
    stored: &StoredTool,
) -> Result<Arc<dyn Tool>, InvalidDefinition> {
    made_with(&services.workshop, &stored.tool, || opened(project, services, stored))
}

/// A tool as it is defined, with the secrets that `secrets` gives.
///
/// # Errors
/// As [`made`].
pub(crate) fn made_with(
    workshop: &Workshop,
    tool: &WireTool,
    secrets: impl FnOnce() -> Vec<SecretHeader>,
) -> Result<Arc<dyn Tool>, InvalidDefinition> {
    let about = About {
        id: tool.id.as_ref().map(ToolId::to_string).unwrap_or_default(),
        revision: tool.revision.unwrap_or_default(),
        name: tool.name.clone(),
        description: tool.description.clone(),
        parameters: tool.parameters.clone(),
    };
    match (&tool.http, &tool.command) {
        (Some(http), _) => workshop.http(about, http, secrets()),
        (None, Some(command)) => workshop.command(about, command),
        (None, None) => Err(InvalidDefinition::new("it does nothing")),
    }
}

/// The secret headers of a tool: without a value where one cannot be opened, which the tool says when it is
/// called.
fn opened(project: &ProjectHandle, services: &Services, stored: &StoredTool) -> Vec<SecretHeader> {
    let (Some(id), Some(http)) = (&stored.tool.id, &stored.tool.http) else { return Vec::new() };
    let origin = origin_of(&http.url).unwrap_or_default();
    let headers = stored.secrets.iter().map(|(name, sealed)| {
        let owner = [project.id.as_str(), id.as_str(), name, &origin];
        let opened = services.sealing.open(sealed, &owner);
        let value = opened.inspect_err(|error| {
            tracing::warn!(project.id = %project.id, tool.id = %id, %error, "a secret did not open");
        });
        let value = value.ok().map(|value| Zeroizing::new(value.expose().to_owned()));
        SecretHeader { name: name.clone(), value }
    });
    headers.collect()
}

/// Whether a project may not call a tool of its own so: models and people would take it for another.
pub(crate) fn is_taken_by_server(services: &Services, name: &str) -> bool {
    let is_it = |other: &str| other.eq_ignore_ascii_case(name);
    RESERVED.iter().any(|other| is_it(other)) || services.tools.names().any(is_it)
}
